"""A folder of faces that one can trust: check, audit, mend, split, convert, fetch."""

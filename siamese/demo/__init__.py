"""Demo faces: drawn people, for trying everything without data."""

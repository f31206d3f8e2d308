"""Check a folder without a model: files, names, copies."""

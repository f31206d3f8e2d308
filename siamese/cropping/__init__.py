"""Faces out of photographs: found, aligned by five landmarks, written with a list of everything."""

"""Faces: an embedder that learns who is who, judged on people it never saw."""

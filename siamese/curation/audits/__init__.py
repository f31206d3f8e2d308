"""Audit a folder with a model's embeddings."""

"""The embedder, and what loads and runs it."""

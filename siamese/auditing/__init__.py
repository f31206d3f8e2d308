"""Pure numerics of label errors: embeddings and labels in, suspects out. No files, no models."""

"""1:1 verification as pure numerics: embeddings and labels in, curves and figures out."""

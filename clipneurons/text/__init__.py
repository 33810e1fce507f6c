"""Text pools, their embeddings and the names of classes."""

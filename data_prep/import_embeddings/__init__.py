"""From embeddings that were computed elsewhere to an embedding store."""

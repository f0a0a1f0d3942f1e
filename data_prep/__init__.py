"""Commands that turn photos, embeddings and metadata into record sets and embedding stores for `lit_jax`."""

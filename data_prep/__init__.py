"""Scripts that turn photos and metadata of others into record sets for `lit_jax`."""

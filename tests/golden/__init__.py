"""Small outputs of other people's code on weights that both sides draw by the same rule; see `common`."""

"""Readers of photo collections, one file a kind; each yields the items of data_prep.sources.items."""

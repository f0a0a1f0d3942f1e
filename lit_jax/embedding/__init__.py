"""The towers at work: embeddings of photos and of classes, and the store of them that is written once."""

"""Trained models on disk: read from a run or a folder, and written as a folder or as open_clip reads them."""

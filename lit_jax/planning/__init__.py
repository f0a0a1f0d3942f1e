"""What a run will cost, from shapes alone."""

"""Training: losses, optimizer, step, the run that is built of them, its loop and its checkpoints."""

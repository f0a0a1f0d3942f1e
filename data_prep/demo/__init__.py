"""The field guide that the demo draws for itself, and the tower that was trained on another one."""

"""A trained model in people's hands: own photos named, from Python and from the shell."""

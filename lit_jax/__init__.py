"""Locked-image Text tuning (LiT): teach a text tower to read a frozen image tower."""

__version__ = "0.1.0"

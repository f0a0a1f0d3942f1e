"""Locked-image Text tuning (LiT): teach a text tower to read a frozen image tower."""

import os

# Before anything imports JAX, which would set 1 and let TensorFlow greet every user with its build options.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

__version__ = "0.1.0"

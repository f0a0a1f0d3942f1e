"""Locked-image Text tuning (LiT): teach a text tower to read a frozen image tower."""

import os

# TensorFlow only decodes pictures here: without oneDNN it does so all the same, and does not greet every user with a
# page about rounding. It reads both when it is first imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

__version__ = "0.1.0"

"""Locked-image Text tuning (LiT): teach a text tower to read a frozen image tower."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lit_jax.version import __version__ as __version__

if TYPE_CHECKING:
    from lit_jax.config import Config
    from lit_jax.prediction.model import Model

# TensorFlow only decodes pictures here: without oneDNN it does so all the same, and does not greet every user with a
# page about rounding. It reads both when it is first imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")


def load(
    checkpoint: str | os.PathLike[str] | Config, *, step: str = "best", image_weights: str = "", text_weights: str = ""
) -> Model:
    """A trained model, to embed and name photos: see `lit_jax.prediction.model.load`.

    Example::

        model = lit_jax.load("runs/demo")
        model.name("photos", sure=0.8)
    """
    # Late: whoever imports the package for its captions or its version needs no JAX.
    from lit_jax.prediction import model

    return model.load(checkpoint, step=step, image_weights=image_weights, text_weights=text_weights)

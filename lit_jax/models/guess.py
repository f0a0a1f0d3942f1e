"""Which published towers a file may hold: for messages about weights that do not fit."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lit_jax import models
from lit_jax.models import weights
from lit_jax.models.names import Family
from lit_jax.models.presets import Preset

# What is of another shape with another input size, vocabulary or common embedding.
_FREE = ("position_embedding", "embedding/embedding", "token/embedding", "projection/kernel", "projection/bias")


def presets_of(arrays: Mapping[str, np.ndarray], kind: str) -> list[str]:
    """Names of the presets whose tower a file fills; only those of its very input size if there are some.

    Args:
        arrays: by name, as `lit_jax.models.files.open_weights` gives them.
        kind: ``image`` or ``text``.

    Returns:
        Several where towers differ in nothing that a file shows, such as the activation; none if nothing fits.
    """
    presets = models.IMAGE_PRESETS if kind == "image" else models.TEXT_PRESETS
    first = {preset.tower: preset for preset in reversed(presets.values())}
    shares = {tower: weights.share_named(arrays, *_traced(preset)) for tower, preset in first.items()}
    likeliest = max(shares, key=lambda tower: shares[tower])
    if shares[likeliest] < 0.5:
        return []
    found: dict[str, int] = {}
    for name, preset in presets.items():
        if preset.tower is likeliest:  # tracing all of them would take long
            differing = weights.differing(arrays, *_traced(preset))
            if differing is not None and all(path.endswith(_FREE) for path in differing):
                found[name] = len(differing)
    return [name for name, count in found.items() if count == min(found.values())]


def _traced(preset: Preset) -> tuple[Any, Family]:
    """Parameters of a preset as shapes, and how they are named."""
    run = {"vocab_size": 2, "end_id": 1, "context": preset.size, "embed_dim": 2}
    fields = preset.tower.__dataclass_fields__
    tower = preset.build(**{name: value for name, value in run.items() if name in fields})
    example = jax.ShapeDtypeStruct((1, preset.size), jnp.int32)
    if preset.preprocessing:
        example = jax.ShapeDtypeStruct((1, preset.size, preset.size, 3), jnp.float32)
    return jax.eval_shape(tower.init, jax.random.key(0), example)["params"], models.family(tower)

"""The two towers of a model as ONNX."""

import jax.numpy as jnp

from lit_jax import models
from lit_jax.embedding.trained import Trained
from lit_jax.graphs.from_jax import to_onnx
from lit_jax.models import building
from lit_jax.models.locking import IMAGE


def image_tower(trained: Trained, weights: str) -> bytes:
    """``photos`` uint8 `[N, S, S, 3]` to ``embeddings`` float32 `[N, D]` of unit norm."""
    model, params, size = trained.model, trained.params, trained.config.image.size
    return to_onnx(
        lambda photos: models.project(model, params, models.image_features(model, params[IMAGE], photos)),
        (size, size, 3), jnp.uint8, names=("photos", "embeddings"), weights=weights,
    ).SerializeToString()  # fmt: skip


def text_tower(trained: Trained, weights: str) -> bytes:
    """``texts`` int32 `[N, T]` to ``embeddings`` float32 `[N, D]` of unit norm."""
    model, params = trained.model, trained.params
    return to_onnx(
        lambda texts: models.embed_text(model, params, texts),
        (building.text_length(trained.config.text),), jnp.int32, names=("texts", "embeddings"), weights=weights,
    ).SerializeToString()  # fmt: skip

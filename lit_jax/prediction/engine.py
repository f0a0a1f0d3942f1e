"""What computes embeddings for a `lit_jax.prediction.model.Model`: JAX, or onnxruntime where there is no JAX."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from lit_jax.data.images import Pictures
from lit_jax.embedding.about import About

TEXTS = 256  # prompts at a time


class Engine(Protocol):
    """A trained model that computes.

    Attributes:
        about: what the model says of itself.
        step: batches trained.
        scale: factor of the similarities, as trained.
        protocol: of the prompts, see `lit_jax.text.prompts`.
        pictures: what photos are turned into.
        embed_dim: D.
        multiple: the number of photos that are embedded at a time is a multiple of it.
    """

    about: About
    step: int
    scale: float
    protocol: str
    pictures: Pictures
    embed_dim: int
    multiple: int

    @property
    def key(self) -> str:
        """A digest of all that decides embeddings."""

    @property
    def image_key(self) -> str:
        """A digest of what decides the embedding of a photo."""

    def photos(self, pixels: np.ndarray) -> np.ndarray:
        """`[B, S, S, 3]` uint8 to unit vectors `[B, D]` float32 that may be written to."""

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """N texts to unit vectors `[N, D]` float32."""

    def of_each(self, *groups: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """Of groups of classes, each by its prompts: unit vectors `[K, D]` of each group."""

"""The towers by name. A new tower is one file in this folder and one line here."""

from lit_jax.models.text import TextTransformer
from lit_jax.models.two_tower import TwoTower, embed_text, image_features, init, project
from lit_jax.models.vit import ViT

IMAGE_TOWERS = {"vit": ViT}
TEXT_TOWERS = {"transformer": TextTransformer}

__all__ = [
    "IMAGE_TOWERS",
    "TEXT_TOWERS",
    "TextTransformer",
    "TwoTower",
    "ViT",
    "embed_text",
    "image_features",
    "init",
    "project",
]

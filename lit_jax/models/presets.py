"""What a preset is: a tower of a published size, and the preprocessing that its weights were trained with."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lit_jax.data.images import PLAIN, View

Triple = tuple[float, float, float]
Tower = nn.Module
"""An image or text tower, for those who need not know Flax."""


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """From a decoded photo to what a tower reads.

    Attributes:
        letter: names it in the docs' table of presets.
        mean: subtracted from pixels of 0 to 1, one a channel.
        std: then divided by, one a channel.
        view: how a photo becomes a square.
    """

    letter: str
    mean: Triple
    std: Triple
    view: View = PLAIN

    def but(self, **view: Any) -> "Preprocessing":
        """The same with another resize, interpolation or crop fraction."""
        return dataclasses.replace(self, view=dataclasses.replace(self.view, **view))


HALF = Preprocessing("A", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Pixels to [-1, 1]: Google's ViT, BiT and Mixer, SigLIP, and TensorFlow's mobile nets."""
IMAGENET = Preprocessing("B", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of ImageNet: torchvision, DeiT, DINO, Swin."""
CLIP = Preprocessing("C", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""Mean and deviation of CLIP's photos."""


@dataclasses.dataclass(frozen=True)
class Preset:
    """A published image or text tower.

    Attributes:
        tower: its module.
        options: of the module.
        size: side of the input in pixels; of a text tower, its context in tokens.
        preprocessing: of photos; None for a text tower.
        weights: where weights are to be had: a name on Hugging Face's hub, or a file's name.
        licence: of those weights, as their publisher states it.
    """

    tower: type[nn.Module]
    options: Mapping[str, Any]
    size: int
    preprocessing: Preprocessing | None
    weights: str
    licence: str

    def build(self, **options: Any) -> nn.Module:
        """The module; `options` replace those of the preset."""
        return self.tower(**{**self.options, **options})


def image_shapes(tower: nn.Module, size: int) -> tuple[Any, int]:
    """Parameters of an image tower as shapes, and its width W; nothing is computed."""
    pixels = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    out, variables = jax.eval_shape(tower.init_with_output, jax.random.key(0), pixels)
    return variables["params"], out.shape[-1]

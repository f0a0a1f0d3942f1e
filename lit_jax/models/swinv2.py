"""SwinV2 (arXiv 2111.09883): Swin with norms behind attention and MLP, cosine attention and a bias from an MLP."""

import functools
import math
from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lit_jax.models.layers import Dense, DenseGeneral, Dtype, Mlp
from lit_jax.models.swin import EPSILON, Pair, Swin, in_windows, mix, offsets, preset, window_and_shift

MAX_SCALE = 100.0  # of cosines, before the softmax


def log_positions(window: Pair, pretrained: int) -> np.ndarray:
    """Relative positions of a window, logarithmically spaced: `[(2h - 1) * (2w - 1), 2]` float32.

    The largest of the window that the weights were trained at, `pretrained`, is log2(9) / 3 (0: of this window).
    """
    sides = [np.arange(1 - side, side) / max((pretrained or side) - 1, 1) for side in window]
    grid = np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, 2)
    return (np.sign(grid) * np.log2(8 * np.abs(grid) + 1) / 3).astype(np.float32)


def normalised(x: jax.Array) -> jax.Array:
    """Vectors of length 1 along the last axis; zeros, as padding has them, stay."""
    wide = x.astype(jnp.float32)
    square = jnp.square(wide).sum(-1, keepdims=True)
    # Zeros are divided by one, so that their gradient is finite.
    return wide * jax.lax.rsqrt(jnp.where(square > 0, square, 1.0))


class CosineAttention(nn.Module):
    """Attention within windows by cosines, with a bias that an MLP computes from the relative position.

    Attributes:
        heads: number of heads.
        window: its height and width.
        pretrained: side of the window that the weights were trained at; 0 for this one.
        dtype: computation dtype.
    """

    heads: int
    window: Pair
    pretrained: int = 0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, regions: np.ndarray | None) -> jax.Array:
        """Maps `[B, n, T, D]` to `[B, n, T, D]`; `regions` as `swin.mix` takes them."""
        width = x.shape[-1]
        split = {"features": (self.heads, width // self.heads), "dtype": self.dtype}
        q = DenseGeneral(**split, name="query")(x)
        k = DenseGeneral(**split, use_bias=False, name="key")(x)
        v = DenseGeneral(**split, name="value")(x)
        logits = self.param("logit_scale", nn.initializers.constant(math.log(10)), (self.heads, 1, 1))
        scale = jnp.exp(jnp.minimum(logits.astype(jnp.float32), math.log(MAX_SCALE)))
        q = (normalised(q) * scale[None, None, None, :, 0]).astype(self.dtype)
        x = mix(q, normalised(k).astype(self.dtype), v, self._bias(), regions)
        return DenseGeneral(width, axis=(-2, -1), dtype=self.dtype, name="out")(x)

    def _bias(self) -> jax.Array:
        """`[H, T, T]` float32, between 0 and 16."""
        table = nn.relu(Dense(512, name="position_expand")(log_positions(self.window, self.pretrained)))
        table = Dense(self.heads, use_bias=False, name="position_contract")(table)
        return 16 * nn.sigmoid(table[offsets(self.window)].transpose(2, 0, 1))


class Block(nn.Module):
    """A block with its norms behind attention and MLP, before the sum (res-post-norm)."""

    heads: int
    window: int
    is_shifted: bool
    pretrained: int = 0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, D]` to `[B, H, W, D]`."""
        window, shift = window_and_shift((x.shape[1], x.shape[2]), self.window, self.is_shifted)
        attention = CosineAttention(self.heads, window, self.pretrained, self.dtype, name="attention")
        y = in_windows(x, window, shift, attention)
        x = x + nn.LayerNorm(EPSILON, dtype=self.dtype, name="attention_norm")(y)
        y = Mlp(4 * x.shape[-1], "gelu", self.dtype, name="mlp")(x)
        return x + nn.LayerNorm(EPSILON, dtype=self.dtype, name="mlp_norm")(y)


class SwinV2(Swin):
    """A picture to one vector: the mean of the last map after a norm.

    No parameter depends on the window or the size of the picture. With another window than the weights were trained
    at, say that one in `pretrained_windows`: positions are then measured by it.

    Attributes:
        pretrained_windows: sides of the windows that the weights were trained at, one a stage; 0 for the stage's own.
    """

    window: int = 8
    pretrained_windows: tuple[int, ...] = (0, 0, 0, 0)
    merges_norm_first: ClassVar[bool] = False

    def block(self, stage: int) -> Callable[..., nn.Module]:
        """What makes a block of a stage from ``is_shifted`` and ``name``."""
        pretrained = self.pretrained_windows[stage]
        return functools.partial(Block, self.heads[stage], self.window, pretrained=pretrained, dtype=self.dtype)


_FROM_12 = {"pretrained_windows": (12, 12, 12, 6)}

PRESETS = {
    "swinv2_t": preset(SwinV2, "t", 8, 256, "timm/swinv2_tiny_window8_256.ms_in1k"),
    "swinv2_t_w16": preset(SwinV2, "t", 16, 256, "timm/swinv2_tiny_window16_256.ms_in1k"),
    "swinv2_s": preset(SwinV2, "s", 8, 256, "timm/swinv2_small_window8_256.ms_in1k"),
    "swinv2_s_w16": preset(SwinV2, "s", 16, 256, "timm/swinv2_small_window16_256.ms_in1k"),
    "swinv2_b": preset(SwinV2, "b", 8, 256, "timm/swinv2_base_window8_256.ms_in1k"),
    "swinv2_b_w16": preset(SwinV2, "b", 16, 256, "timm/swinv2_base_window16_256.ms_in1k"),
    "swinv2_b_w12": preset(SwinV2, "b", 12, 192, "timm/swinv2_base_window12_192.ms_in22k"),
    "swinv2_b_w12to16": preset(
        SwinV2, "b", 16, 256, "timm/swinv2_base_window12to16_192to256.ms_in22k_ft_in1k", **_FROM_12
    ),
}

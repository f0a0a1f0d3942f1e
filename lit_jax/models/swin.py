"""The Swin Transformer image tower (arXiv 2103.14030): attention in windows that shift from block to block.

What `lit_jax.models.swinv2` shares stands here: the windows, the stages and the trunk.
"""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lit_jax.models.layers import Dense, DenseGeneral, Dtype, Mlp, scored, weighted
from lit_jax.models.presets import IMAGENET, Preset

Pair = tuple[int, int]
EPSILON = 1e-5  # of the layer norms


def window_and_shift(size: Pair, window: int, is_shifted: bool) -> tuple[Pair, Pair]:
    """The window and the shift for a map of a size: a side that is no longer than the window is one window."""
    shifts = [window // 2 if is_shifted and side > window else 0 for side in size]
    return (min(size[0], window), min(size[1], window)), (shifts[0], shifts[1])


def offsets(window: Pair) -> np.ndarray:
    """Where in a table of `[(2h - 1) * (2w - 1)]` relative positions each pair of a window's is: `[h*w, h*w]` ints."""
    y, x = (axis.reshape(-1) for axis in np.mgrid[: window[0], : window[1]])
    down, right = (axis[:, None] - axis[None, :] for axis in (y, x))
    return (down + window[0] - 1) * (2 * window[1] - 1) + right + window[1] - 1


def in_windows(
    x: jax.Array, window: Pair, shift: Pair, attend: Callable[[jax.Array, np.ndarray | None], jax.Array]
) -> jax.Array:
    """Lets `attend` look at the windows of a map that is shifted around its edges.

    The map is shifted first and then padded with zeros to whole windows, as in timm; the zeros are looked at too.

    Args:
        x: `[B, H, W, D]`.
        window: its height and width.
        shift: rows and columns by which windows are moved down and right.
        attend: takes `[B, n, h*w, D]` and `[n, h*w]` numbers of the regions, whose positions must not see each
            other's, or None if there is one only; returns an array like the first.
    """
    _, height, width, _ = x.shape
    x = jnp.roll(x, (-shift[0], -shift[1]), (1, 2))
    x = jnp.pad(x, ((0, 0), (0, -height % window[0]), (0, -width % window[1]), (0, 0)))
    padded = (x.shape[1], x.shape[2])
    regions = _split(_regions(padded, window, shift), window)[0, :, :, 0] if any(shift) else None
    x = _join(attend(_split(x, window), regions), window, padded)
    return jnp.roll(x[:, :height, :width], shift, (1, 2))


def _regions(size: Pair, window: Pair, shift: Pair) -> np.ndarray:
    """`[1, H, W, 1]`: what became neighbours by the shift alone has different numbers within the last windows."""
    numbers = []
    for side, length, moved in zip(size, window, shift, strict=True):
        place = np.arange(side)
        numbers.append((place >= side - length).astype(int) + (place >= side - moved) if moved else 0 * place)
    return (3 * numbers[0][:, None] + numbers[1][None, :])[None, :, :, None]


def _split(x: Any, window: Pair) -> Any:
    """`[B, H, W, D]` to windows `[B, n, h*w, D]`."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // window[0], window[0], width // window[1], window[1], channels)
    return x.swapaxes(2, 3).reshape(batch, -1, window[0] * window[1], channels)


def _join(x: jax.Array, window: Pair, size: Pair) -> jax.Array:
    """The inverse of `_split`."""
    x = x.reshape(x.shape[0], size[0] // window[0], size[1] // window[1], *window, x.shape[-1])
    return x.swapaxes(2, 3).reshape(x.shape[0], *size, x.shape[-1])


def mix(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, regions: np.ndarray | None) -> jax.Array:
    """Softmax attention within windows; the softmax is in float32.

    Args:
        q: queries `[B, n, T, H, d]`, scaled already.
        k: keys, of the same shape.
        v: values, of the same shape.
        bias: `[H, T, T]` float32, added to the scores.
        regions: `[n, T]` numbers of the regions, or None.

    Returns:
        `[B, n, T, H, d]`.
    """
    scores = scored(q, k, preferred_element_type=jnp.float32) + bias[None, None]
    if regions is not None:
        hidden = jnp.asarray(regions[:, :, None] != regions[:, None, :])
        # The number of the published code rather than infinity: a score that is higher by more than that is seen.
        scores = scores + jnp.where(hidden, -100.0, 0.0)[None, :, None]
    return weighted(jax.nn.softmax(scores, axis=-1).astype(v.dtype), v)


class TableAttention(nn.Module):
    """Attention within windows with a learned bias for each relative position.

    Attributes:
        heads: number of heads.
        window: its height and width.
        dtype: computation dtype.
    """

    heads: int
    window: Pair
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, regions: np.ndarray | None) -> jax.Array:
        """Maps `[B, n, T, D]` to `[B, n, T, D]`; `regions` as `mix` takes them."""
        width = x.shape[-1]
        split = {"features": (self.heads, width // self.heads), "dtype": self.dtype}
        q, k, v = (DenseGeneral(**split, name=name)(x) for name in ("query", "key", "value"))
        positions = (2 * self.window[0] - 1) * (2 * self.window[1] - 1)
        table = self.param("table", nn.initializers.truncated_normal(0.02), (positions, self.heads))
        bias = table.astype(jnp.float32)[offsets(self.window)].transpose(2, 0, 1)
        x = mix(q / np.sqrt(width // self.heads).item(), k, v, bias, regions)
        return DenseGeneral(width, axis=(-2, -1), dtype=self.dtype, name="out")(x)


class Block(nn.Module):
    """A pre-norm block; `window` and `is_shifted` are those wanted, a small map makes both less."""

    heads: int
    window: int
    is_shifted: bool
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, D]` to `[B, H, W, D]`."""
        window, shift = window_and_shift((x.shape[1], x.shape[2]), self.window, self.is_shifted)
        attention = TableAttention(self.heads, window, self.dtype, name="attention")
        y = nn.LayerNorm(EPSILON, dtype=self.dtype, name="attention_norm")(x)
        x = x + in_windows(y, window, shift, attention)
        y = nn.LayerNorm(EPSILON, dtype=self.dtype, name="mlp_norm")(x)
        return x + Mlp(4 * x.shape[-1], "gelu", self.dtype, name="mlp")(y)


class BlockPair(nn.Module):
    """A block and one whose windows are shifted: what a stage repeats."""

    block: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, None]:
        """Maps `[B, H, W, D]` to `[B, H, W, D]`; the second result is what `nn.scan` stacks: nothing."""
        x = self.block(is_shifted=False, name="plain")(x)
        return self.block(is_shifted=True, name="shifted")(x), None


class Merge(nn.Module):
    """Four neighbours become one position of twice the width; an odd side is padded with zeros.

    Attributes:
        norm_first: whether the norm stands before the dense layer (Swin) or behind it (SwinV2).
        dtype: computation dtype.
    """

    norm_first: bool
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, D]` to `[B, H/2, W/2, 2D]`, sides rounded up."""
        batch, height, width, channels = x.shape
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
        x = x.reshape(batch, (height + 1) // 2, 2, (width + 1) // 2, 2, channels)
        # The column changes slower than the row.
        x = x.transpose(0, 1, 3, 4, 2, 5).reshape(batch, x.shape[1], x.shape[3], 4 * channels)
        norm = nn.LayerNorm(EPSILON, dtype=self.dtype, name="norm")
        dense = Dense(2 * channels, use_bias=False, dtype=self.dtype, name="reduction")
        return dense(norm(x)) if self.norm_first else norm(dense(x))


class Swin(nn.Module):
    """A picture to one vector: the mean of the last map after a norm.

    Attributes:
        width: channels of the first stage; each further stage has twice as many.
        depths: blocks of each stage, even numbers.
        heads: attention heads of each stage.
        window: side of the attention windows, positions; a smaller map is one window.
        patch: side of a patch, pixels.
        dtype: computation dtype.
    """

    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int = 7
    patch: int = 4
    dtype: Dtype = jnp.float32
    merges_norm_first: ClassVar[bool] = True

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Embeds `[B, H, W, 3]` normalised pixels as `[B, 8 * width]`; H and W are multiples of the patch."""
        strides = (self.patch, self.patch)
        x = nn.Conv(self.width, strides, strides, padding="VALID", dtype=self.dtype, name="embedding")(images)
        x = nn.LayerNorm(EPSILON, dtype=self.dtype, name="embedding_norm")(x)
        for stage, depth in enumerate(self.depths):
            if stage:
                x = Merge(self.merges_norm_first, self.dtype, name=f"merge{stage}")(x)
            pairs = nn.scan(BlockPair, variable_axes={"params": 0}, split_rngs={"params": True}, length=depth // 2)
            x, _ = pairs(self.block(stage), name=f"stage{stage}")(x)
        x = nn.LayerNorm(EPSILON, dtype=self.dtype, name="norm")(x)
        return x.mean((1, 2))

    def block(self, stage: int) -> Callable[..., nn.Module]:
        """What makes a block of a stage from ``is_shifted`` and ``name``."""
        return functools.partial(Block, self.heads[stage], self.window, dtype=self.dtype)


# Width of the first stage, depths and heads.
SIZES: dict[str, tuple[int, tuple[int, ...], tuple[int, ...]]] = {
    "t": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "s": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "b": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "l": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}


def preset(tower: type[nn.Module], size: str, window: int, pixels: int, weights: str, **options: object) -> Preset:
    """A published Swin; views are as timm states them for each: all of the picture at 384 pixels, else 0.9."""
    width, depths, heads = SIZES[size]
    shape = {"width": width, "depths": depths, "heads": heads, "window": window, **options}
    view = IMAGENET.but(crop_fraction=1.0 if pixels == 384 else 0.9)
    return Preset(tower, shape, pixels, view, weights, "MIT")


PRESETS = {
    "swin_t": preset(Swin, "t", 7, 224, "timm/swin_tiny_patch4_window7_224.ms_in22k"),
    "swin_s": preset(Swin, "s", 7, 224, "timm/swin_small_patch4_window7_224.ms_in22k"),
    "swin_b": preset(Swin, "b", 7, 224, "timm/swin_base_patch4_window7_224.ms_in22k"),
    "swin_b_384": preset(Swin, "b", 12, 384, "timm/swin_base_patch4_window12_384.ms_in22k"),
    "swin_l": preset(Swin, "l", 7, 224, "timm/swin_large_patch4_window7_224.ms_in22k"),
    "swin_l_384": preset(Swin, "l", 12, 384, "timm/swin_large_patch4_window12_384.ms_in22k"),
}

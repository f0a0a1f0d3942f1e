"""EVA-02 (arXiv 2303.11331): a ViT with rotary positions, SwiGLU, and norms inside its MLPs and attention."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lit_jax.models.layers import Dense, DenseGeneral, Dtype, attend, with_class_token
from lit_jax.models.presets import CLIP, Preprocessing, Preset

EPSILON = 1e-6
_REFERENCE = 16  # patches along a side by which positions are measured, whatever the size of the picture
_TEMPERATURE = 10_000.0


def rotations(grid: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Sine and cosine by which patches turn pairs of channels (arXiv 2104.09864): two `[grid * grid, channels / 2]`.

    The first half of the pairs turns by the row of a patch, the other by its column, both as if the picture had
    16 patches along a side.

    Args:
        grid: patches along a side.
        channels: of a head, a multiple of 4.
    """
    bands = _TEMPERATURE ** -(np.arange(channels // 4) / (channels // 4))
    place = np.arange(grid) * (_REFERENCE / grid)
    rows, columns = np.meshgrid(place, place, indexing="ij")
    angles = np.concatenate([axis.reshape(-1, 1) * bands for axis in (rows, columns)], axis=1)
    return np.sin(angles).astype(np.float32), np.cos(angles).astype(np.float32)


def turned(x: jax.Array, sine: jax.Array, cosine: jax.Array) -> jax.Array:
    """Pairs of neighbouring channels of the patches turned; what stands before the patches stays.

    Args:
        x: `[B, T, H, d]`.
        sine: `[N, d / 2]` float32, of the last N positions.
        cosine: the same.
    """
    front, patches = x[:, : -sine.shape[0]], x[:, -sine.shape[0] :]
    even, odd = patches[..., ::2].astype(jnp.float32), patches[..., 1::2].astype(jnp.float32)
    sine, cosine = sine[None, :, None], cosine[None, :, None]
    pairs = jnp.stack([even * cosine - odd * sine, odd * cosine + even * sine], -1)
    return jnp.concatenate([front, pairs.reshape(patches.shape).astype(x.dtype)], 1)


class RotaryAttention(nn.Module):
    """Self-attention with rotary positions; keys have no bias.

    Attributes:
        heads: number of heads.
        inner_norm: a norm before the last layer (EVA-CLIP).
        dtype: computation dtype.
    """

    heads: int
    inner_norm: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, sine: jax.Array, cosine: jax.Array) -> jax.Array:
        """Maps `[B, T, D]` to `[B, T, D]`; `sine` and `cosine` as `turned` takes them."""
        width = x.shape[-1]
        split = {"features": (self.heads, width // self.heads), "dtype": self.dtype}
        q = turned(DenseGeneral(**split, name="query")(x), sine, cosine)
        k = turned(DenseGeneral(**split, use_bias=False, name="key")(x), sine, cosine)
        mixed = attend(q, k, DenseGeneral(**split, name="value")(x)).reshape(x.shape)
        if self.inner_norm:
            mixed = nn.LayerNorm(EPSILON, dtype=self.dtype, name="norm")(mixed)
        return Dense(width, dtype=self.dtype, name="out")(mixed)


class GatedMlp(nn.Module):
    """SwiGLU (arXiv 2002.05202), with a norm before its last layer if `inner_norm` says so."""

    hidden: int
    inner_norm: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, T, D]` to `[B, T, D]`."""
        gate = Dense(self.hidden, dtype=self.dtype, name="gate")(x)
        y = nn.silu(gate) * Dense(self.hidden, dtype=self.dtype, name="expand")(x)
        if self.inner_norm:
            y = nn.LayerNorm(EPSILON, dtype=self.dtype, name="norm")(y)
        return Dense(x.shape[-1], dtype=self.dtype, name="contract")(y)


class Block(nn.Module):
    """One pre-norm block."""

    heads: int
    hidden: int
    attention_norm: bool = False
    mlp_norm: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, sine: jax.Array, cosine: jax.Array) -> tuple[jax.Array, None]:
        """Maps `[B, T, D]` to `[B, T, D]`; the second result is what `nn.scan` stacks: nothing."""
        y = nn.LayerNorm(EPSILON, dtype=self.dtype, name="attention_norm")(x)
        x = x + RotaryAttention(self.heads, self.attention_norm, self.dtype, name="attention")(y, sine, cosine)
        y = nn.LayerNorm(EPSILON, dtype=self.dtype, name="mlp_norm")(x)
        return x + GatedMlp(self.hidden, self.mlp_norm, self.dtype, name="mlp")(y), None


class Eva(nn.Module):
    """A picture to one vector.

    Attributes:
        patch: side of a patch, pixels.
        width: D, channels.
        depth: L, blocks.
        heads: attention heads; each has a multiple of 4 channels.
        mlp_dim: hidden width of the MLPs; 0 for 8/3 of the width.
        pool: ``token`` reads the class token behind the last norm, ``gap`` the mean of the patches behind it,
            ``gap_norm`` the norm of the mean of the patches.
        mlp_norm: a norm inside the MLPs (not in the two smallest).
        attention_norm: a norm inside attention (EVA-CLIP).
        dtype: computation dtype.
    """

    patch: int
    width: int
    depth: int
    heads: int
    mlp_dim: int = 0
    pool: str = "token"
    mlp_norm: bool = True
    attention_norm: bool = False
    dtype: Dtype = jnp.float32

    POOLS: ClassVar = ("token", "gap", "gap_norm")

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Embeds `[B, S, S, 3]` normalised pixels as `[B, D]`; S is a multiple of the patch."""
        strides = (self.patch, self.patch)
        x = nn.Conv(self.width, strides, strides, padding="VALID", dtype=self.dtype, name="embedding")(images)
        grid = x.shape[1]
        x = x.reshape(x.shape[0], -1, self.width)
        x = with_class_token(x, self.param("class_token", nn.initializers.zeros, (1, 1, self.width)))
        places = self.param("position_embedding", nn.initializers.normal(0.02), (1, x.shape[1], self.width))
        x = x + places.astype(x.dtype)
        sine, cosine = map(jnp.asarray, rotations(grid, self.width // self.heads))
        blocks = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast),
            length=self.depth,
        )
        hidden = self.mlp_dim or int(self.width * 8 / 3)
        x, _ = blocks(self.heads, hidden, self.attention_norm, self.mlp_norm, self.dtype, name="blocks")(
            x, sine, cosine
        )
        if self.pool == "gap_norm":
            return nn.LayerNorm(EPSILON, dtype=self.dtype, name="pool_norm")(x[:, 1:].mean(1))
        x = nn.LayerNorm(EPSILON, dtype=self.dtype, name="norm")(x)
        return x[:, 0] if self.pool == "token" else x[:, 1:].mean(1)


SIZES = {"ti": (192, 12, 3), "s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16)}
"""Width, depth and heads by the letters of the paper."""

_VIEW = CLIP.but(crop_fraction=0.9)
_SQUEEZED = CLIP.but(resize="square")


def _eva(size: str, patch: int, pixels: int, like: Preprocessing, weights: str, **options: object) -> Preset:
    width, depth, heads = SIZES[size]
    shape = {"patch": patch, "width": width, "depth": depth, "heads": heads, "mlp_norm": size in ("b", "l")}
    return Preset(Eva, {**shape, **options}, pixels, like, f"timm/{weights}", "MIT")


_MEAN = {"pool": "gap_norm"}
_EVA_CLIP = {"attention_norm": True}

PRESETS = {
    "eva02_ti14": _eva("ti", 14, 224, _VIEW, "eva02_tiny_patch14_224.mim_in22k", **_MEAN),
    "eva02_s14": _eva("s", 14, 224, _VIEW, "eva02_small_patch14_224.mim_in22k", **_MEAN),
    "eva02_b14": _eva("b", 14, 224, _VIEW, "eva02_base_patch14_224.mim_in22k", **_MEAN),
    "eva02_l14": _eva("l", 14, 224, _VIEW, "eva02_large_patch14_224.mim_m38m", **_MEAN),
    "eva02_ti14_336": _eva("ti", 14, 336, CLIP, "eva02_tiny_patch14_336.mim_in22k_ft_in1k", **_MEAN),
    "eva02_s14_336": _eva("s", 14, 336, CLIP, "eva02_small_patch14_336.mim_in22k_ft_in1k", **_MEAN),
    "eva02_b14_448": _eva("b", 14, 448, _SQUEEZED, "eva02_base_patch14_448.mim_in22k_ft_in22k", **_MEAN),
    "eva02_l14_448": _eva("l", 14, 448, _SQUEEZED, "eva02_large_patch14_448.mim_m38m_ft_in22k", **_MEAN),
    "eva02_clip_b16": _eva("b", 16, 224, _VIEW, "eva02_base_patch16_clip_224.merged2b", **_EVA_CLIP),
    "eva02_clip_l14": _eva("l", 14, 224, _VIEW, "eva02_large_patch14_clip_224.merged2b", **_EVA_CLIP),
    "eva02_clip_l14_336": _eva("l", 14, 336, CLIP, "eva02_large_patch14_clip_336.merged2b", **_EVA_CLIP),
}

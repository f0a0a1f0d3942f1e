"""The encoder of T5 v1.1 and mT5 as a text tower (arXiv 1910.10683, 2002.05202, 2010.11934)."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lit_jax.models.bert import mean
from lit_jax.models.layers import Dense, DenseGeneral, Dtype, product, remade, scored, weighted
from lit_jax.models.presets import Preset
from lit_jax.models.text import first_end

# Sums over the inputs of a layer are taken and handed on in float32, whatever is multiplied.
_exact_sum = functools.partial(product, preferred_element_type=jnp.float32)


class T5Attention(nn.Module):
    """Self-attention without biases and without a scale: T5's initial weights are drawn smaller instead."""

    heads: int
    head_dim: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, bias: jax.Array) -> jax.Array:
        """Maps `[B, T, D]` to float32 `[B, T, D]`; `bias`, `[B, H, T, T]` float32, is added to the scores."""
        split = {"features": (self.heads, self.head_dim), "use_bias": False, "dtype": self.dtype}
        q, k, v = (DenseGeneral(**split, name=name)(x) for name in ("query", "key", "value"))
        scores = scored(q, k, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(scores + bias, axis=-1).astype(v.dtype)
        mixed = weighted(weights, v)
        out = DenseGeneral(
            x.shape[-1], axis=(-2, -1), use_bias=False, dtype=self.dtype, dot_general=_exact_sum, name="out"
        )
        return out(mixed)


class T5Block(nn.Module):
    """One pre-norm block with RMS norms and a gated MLP.

    The stream between blocks is float32 in all precisions: T5's was trained in bfloat16 and grows beyond the largest
    float16, 65,504.
    """

    heads: int
    head_dim: int
    hidden: int
    norm_epsilon: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, bias: jax.Array) -> tuple[jax.Array, None]:
        """Maps float32 `[B, T, D]` to the same; `bias` is that of the attention."""
        dense = functools.partial(Dense, use_bias=False, dtype=self.dtype)
        y = nn.RMSNorm(self.norm_epsilon, dtype=self.dtype, name="attention_norm")(x)
        x = x + T5Attention(self.heads, self.head_dim, self.dtype, name="attention")(y, bias)
        y = nn.RMSNorm(self.norm_epsilon, dtype=self.dtype, name="mlp_norm")(x)
        y = nn.gelu(dense(self.hidden, name="gate")(y), approximate=True) * dense(self.hidden, name="expand")(y)
        return x + dense(x.shape[-1], dot_general=_exact_sum, name="contract")(y), None


class T5Encoder(nn.Module):
    """A tokenised sentence to one vector, the mean of its tokens, without a projection.

    A sentence ends at its first end token, ``</s>``, which counts; what follows is padding and has no influence.
    Positions are known by their distance only, so that no table limits how many tokens are read.

    Attributes:
        vocab_size: V, rows of the token table.
        end_id: id of the end token.
        width: D, channels.
        depth: L, blocks.
        heads: attention heads.
        mlp_dim: hidden width of the MLPs.
        head_dim: width of a head; heads times this need not be the width.
        pool: ``mean``, or ``first`` for the first token.
        norm_epsilon: of the RMS norms.
        buckets: kinds of distances told apart.
        max_distance: tokens this far apart or farther are all one kind.
        dtype: computation dtype; the stream between blocks is float32.
        remat: whether blocks are computed again as a whole in the backward pass.
    """

    POOLS = ("mean", "first")

    vocab_size: int
    end_id: int
    width: int
    depth: int
    heads: int
    mlp_dim: int
    head_dim: int = 64
    pool: str = "mean"
    norm_epsilon: float = 1e-6
    buckets: int = 32
    max_distance: int = 128
    dtype: Dtype = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Embeds `[B, T]` int32 tokens as `[B, D]`."""
        mask = jnp.arange(tokens.shape[1])[None] <= first_end(tokens, self.end_id)[:, None]
        table = nn.Embed(self.vocab_size, self.width, embedding_init=nn.initializers.normal(1.0), name="token")
        bias = self._bias(tokens.shape[1]) + jnp.where(mask, 0, -jnp.inf)[:, None, None, :]
        blocks = nn.scan(
            remade(T5Block, whole=self.remat), variable_axes={"params": 0}, split_rngs={"params": True},
            in_axes=nn.broadcast, length=self.depth,
        )  # fmt: skip
        options = (self.heads, self.head_dim, self.mlp_dim, self.norm_epsilon, self.dtype)
        x, _ = blocks(*options, name="blocks")(table(tokens), bias)
        x = nn.RMSNorm(self.norm_epsilon, dtype=self.dtype, name="norm")(x)
        return x[:, 0] if self.pool == "first" else mean(x, mask)

    def _bias(self, length: int) -> jax.Array:
        """What is added to the scores of all blocks, by distance: `[1, H, T, T]` float32."""
        table = nn.Embed(self.buckets, self.heads, name="relative_position")
        distance = np.arange(length)[None, :] - np.arange(length)[:, None]
        return table(jnp.asarray(buckets_of(distance, self.buckets, self.max_distance))).transpose(2, 0, 1)[None]


def buckets_of(distance: np.ndarray, buckets: int, max_distance: int) -> np.ndarray:
    """The kind of each signed distance: one half of the buckets for each direction.

    Half of those are for one distance each, the rest grow with the logarithm up to `max_distance`.

    Args:
        distance: integers of any shape: position looked at less that of the looker.
        buckets: how many kinds there are.
        max_distance: where the last one begins.

    Returns:
        int32 in [0, buckets), of the same shape.
    """
    half = buckets // 2
    exact = half // 2
    size = np.abs(distance)
    # In float32, as those who trained the tables rounded.
    ratio = np.log(np.maximum(size, 1).astype(np.float32) / np.float32(exact)) / np.float32(
        math.log(max_distance / exact)
    )
    far = np.minimum(exact + (ratio * np.float32(half - exact)).astype(np.int32), half - 1)
    return np.asarray(np.where(size < exact, size, far) + half * (distance > 0), np.int32)


def _t5(width: int, depth: int, heads: int, mlp_dim: int, vocab_size: int, weights: str) -> Preset:
    shape = {"vocab_size": vocab_size, "width": width, "depth": depth, "heads": heads, "mlp_dim": mlp_dim}
    return Preset(T5Encoder, shape, 64, None, weights, "Apache-2.0")


PRESETS = {
    "mt5_small": _t5(512, 8, 6, 1024, 250112, "google/mt5-small"),
    "mt5_base": _t5(768, 12, 12, 2048, 250112, "google/mt5-base"),
    "t5_v1_1_small": _t5(512, 8, 6, 1024, 32128, "google/t5-v1_1-small"),
    "t5_v1_1_base": _t5(768, 12, 12, 2048, 32128, "google/t5-v1_1-base"),
}

"""Attention, block, encoder and pooling: what both towers are made of (Flax Linen).

Layouts follow ViT (arXiv 2010.11929): pre-norm blocks, GELU in its tanh form unless a tower asks otherwise. The
blocks of a tower are one `nn.scan`, so that the compiler sees one block whatever the depth; their parameters carry
a leading axis [L].
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Dtype = Any


class Attention(nn.Module):
    """Multi-head attention of `queries` over `values`.

    Attributes:
        heads: number of heads; the width must be a multiple.
        dtype: computation dtype; parameters stay in theirs.
    """

    heads: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, queries: jax.Array, values: jax.Array, *, mask: jax.Array | None = None, causal: bool = False
    ) -> jax.Array:
        """Attends.

        Args:
            queries: `[B, T, D]`.
            values: `[B, S, D]`; the same array for self-attention.
            mask: `[B, S]` bool, False where a position must not be looked at.
            causal: position t sees positions up to t only.

        Returns:
            `[B, T, D]` in the computation dtype.
        """
        width = queries.shape[-1]
        split = {"features": (self.heads, width // self.heads), "dtype": self.dtype}
        q = nn.DenseGeneral(**split, name="query")(queries)
        k = nn.DenseGeneral(**split, name="key")(values)
        v = nn.DenseGeneral(**split, name="value")(values)
        mixed = _attend(q, k, v, mask, causal)
        return nn.DenseGeneral(width, axis=(-2, -1), dtype=self.dtype, name="out")(mixed)


def _attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, causal: bool) -> jax.Array:
    """`softmax(q k / sqrt(d)) v` for `[B, T, H, d]`, `[B, S, H, d]`; the softmax is in float32."""
    # Scaled before the product, which could overflow float16 otherwise.
    scores = jnp.einsum("bthd,bshd->bhts", q / math.sqrt(q.shape[-1]), k).astype(jnp.float32)
    if mask is not None:
        scores = jnp.where(mask[:, None, None, :], scores, -jnp.inf)
    if causal:
        visible = jnp.tril(jnp.ones((1, 1, q.shape[1], k.shape[1]), bool))
        scores = jnp.where(visible, scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("bhts,bshd->bthd", weights, v)


class Mlp(nn.Module):
    """Two dense layers with a GELU between them."""

    hidden: int
    exact_gelu: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, T, D]` to `[B, T, D]`."""
        y = nn.Dense(self.hidden, dtype=self.dtype, name="expand")(x)
        y = nn.gelu(y, approximate=not self.exact_gelu)
        return nn.Dense(x.shape[-1], dtype=self.dtype, name="contract")(y)


class Block(nn.Module):
    """One pre-norm transformer block."""

    heads: int
    hidden: int
    causal: bool = False
    exact_gelu: bool = False
    norm_epsilon: float = 1e-6
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, None]:
        """Maps `[B, T, D]` to `[B, T, D]`; the second result is what `nn.scan` stacks: nothing."""
        y = nn.LayerNorm(self.norm_epsilon, dtype=self.dtype, name="attention_norm")(x)
        attention = Attention(self.heads, self.dtype, name="attention")
        x = x + attention(y, y, mask=mask, causal=self.causal)
        y = nn.LayerNorm(self.norm_epsilon, dtype=self.dtype, name="mlp_norm")(x)
        return x + Mlp(self.hidden, self.exact_gelu, self.dtype, name="mlp")(y), None


class Encoder(nn.Module):
    """`depth` blocks and a last norm; with `remat` only each block's input is kept for the backward pass."""

    depth: int
    heads: int
    hidden: int
    causal: bool = False
    exact_gelu: bool = False
    norm_epsilon: float = 1e-6
    dtype: Dtype = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Maps `[B, T, D]` to `[B, T, D]`; `mask` is `[B, T]` bool, False where padded."""
        # Inside a scan nothing is shared between blocks that the compiler could save a second time.
        block = nn.remat(Block, prevent_cse=False) if self.remat else Block
        blocks = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=self.depth,
        )
        options = (self.heads, self.hidden, self.causal, self.exact_gelu, self.norm_epsilon, self.dtype)
        x, _ = blocks(*options, name="blocks")(x, mask)
        return nn.LayerNorm(self.norm_epsilon, dtype=self.dtype, name="norm")(x)


class AttentionPool(nn.Module):
    """Multi-head attention pooling (MAP): one learned query looks at all positions (arXiv 2205.01580)."""

    heads: int
    hidden: int
    norm_epsilon: float = 1e-6
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Pools `[B, T, D]` to `[B, D]`; `mask` is `[B, T]` bool, False where padded."""
        probe = self.param("probe", nn.initializers.xavier_uniform(), (1, 1, x.shape[-1]))
        query = jnp.broadcast_to(probe.astype(x.dtype), (x.shape[0], 1, x.shape[-1]))
        pooled = Attention(self.heads, self.dtype, name="attention")(query, x, mask=mask)
        y = nn.LayerNorm(self.norm_epsilon, dtype=self.dtype, name="norm")(pooled)
        return (pooled + Mlp(self.hidden, dtype=self.dtype, name="mlp")(y))[:, 0]

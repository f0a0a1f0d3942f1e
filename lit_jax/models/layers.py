"""Attention, block, encoder and pooling: what both towers are made of (Flax Linen).

Layouts follow ViT (arXiv 2010.11929): pre-norm blocks, GELU in its tanh form unless a tower asks otherwise. The
blocks of a tower are one `nn.scan`, so that the compiler sees one block whatever the depth; their parameters carry
a leading axis [L].
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

Dtype = Any

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu_tanh": lambda x: nn.gelu(x, approximate=True),  # Flax's and big_vision's
    "gelu": lambda x: nn.gelu(x, approximate=False),  # PyTorch's
    "gelu_quick": lambda x: x * nn.sigmoid(1.702 * x),  # of the first CLIP models
    "relu": nn.relu,
}


_PRODUCT = "product"


def product(
    left: jax.Array, right: jax.Array, axes: Any, precision: Any = None, preferred_element_type: Any = None
) -> jax.Array:
    """`jax.lax.dot_general`; of bfloat16 on a CPU through a float32 result, which is rounded.

    XLA's CPU compiler takes a product from bfloat16 to float32 to the units of CPUs that have them (AVX512-BF16, AMX),
    and carries out one from bfloat16 to bfloat16 in float32, its operands copied. The sums are the same. The result
    is named for `remade`.
    """

    def whole(left: jax.Array, right: jax.Array) -> jax.Array:
        return jax.lax.dot_general(left, right, axes, precision, preferred_element_type)

    def rounded(left: jax.Array, right: jax.Array) -> jax.Array:
        return jax.lax.dot_general(left, right, axes, precision, jnp.float32).astype(left.dtype)

    if preferred_element_type is None and left.dtype == right.dtype == jnp.bfloat16:
        return checkpoint_name(jax.lax.platform_dependent(left, right, cpu=rounded, default=whole), _PRODUCT)
    return checkpoint_name(whole(left, right), _PRODUCT)


def remade(block: type[nn.Module], *, whole: bool) -> type[nn.Module]:
    """A block of an encoder of which the backward pass computes again what it can do without keeping.

    Args:
        block: to be scanned over.
        whole: keeps nothing but each block's input. Otherwise the results of its products are kept too, and only what
            lies between them is computed again (norms, activations, softmax): that halves the memory of a step and
            costs no time, since less is written and read.
    """
    policy = None if whole else jax.checkpoint_policies.save_only_these_names(_PRODUCT)
    # Inside a scan nothing is shared between blocks that the compiler could save a second time.
    return nn.remat(block, prevent_cse=False, policy=policy)


def convolution(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Any, *, dimension_numbers: Any, **rest: Any
) -> jax.Array:
    """`jax.lax.conv_general_dilated` of `[B, H, W, C]` by `[h, w, C, D]`; with kernels of one pixel, a product.

    XLA's CPU compiler carries out a product of matrices on all cores, and a convolution of one pixel on one.
    """
    if kernel.shape[:2] != (1, 1) or np.any(padding):
        return jax.lax.conv_general_dilated(
            x, kernel, strides, padding, dimension_numbers=dimension_numbers, **rest
        )  # fmt: skip
    return product(x[:, :: strides[0], :: strides[1]], kernel[0, 0], (((3,), (0,)), ((), ())))


Dense = functools.partial(nn.Dense, dot_general=product)
DenseGeneral = functools.partial(nn.DenseGeneral, dot_general=product)


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
        q = DenseGeneral(**split, name="query")(queries)
        k = DenseGeneral(**split, name="key")(values)
        v = DenseGeneral(**split, name="value")(values)
        mixed = attend(q, k, v, mask, causal)
        return DenseGeneral(width, axis=(-2, -1), dtype=self.dtype, name="out")(mixed)


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None = None, causal: bool = False) -> jax.Array:
    """`softmax(q k / sqrt(d)) v` for `[B, T, H, d]`, `[B, S, H, d]`; the softmax is in float32."""
    # Scaled before the product, which could overflow float16 otherwise.
    scores = scored(q / math.sqrt(q.shape[-1]), k).astype(jnp.float32)
    if mask is not None:
        scores = jnp.where(mask[:, None, None, :], scores, -jnp.inf)
    if causal:
        visible = jnp.tril(jnp.ones((1, 1, q.shape[1], k.shape[1]), bool))
        scores = jnp.where(visible, scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return weighted(weights, v)


def scored(queries: jax.Array, keys: jax.Array, **kwargs: Any) -> jax.Array:
    """Products of queries and keys: `[..., T, H, d]` and `[..., S, H, d]` to `[..., H, T, S]`."""
    n = queries.ndim
    batch = (*range(n - 3), n - 2)
    return product(queries, keys, (((n - 1,), (n - 1,)), (batch, batch)), **kwargs)


def weighted(weights: jax.Array, values: jax.Array) -> jax.Array:
    """Sums of values by attention: `[..., H, T, S]` and `[..., S, H, d]` to `[..., T, H, d]`.

    The product gives heads before positions, and these are swapped behind it: asked for in one formula of einsum, the
    operands would stand the other way round, which takes XLA 2.5 times as long on a CPU.
    """
    n = values.ndim
    batches = (tuple(range(n - 2)), (*range(n - 3), n - 2))
    return product(weights, values, (((n - 1,), (n - 3,)), batches)).swapaxes(-3, -2)


def with_class_token(patches: jax.Array, token: jax.Array) -> jax.Array:
    """`[B, N, D]` patches behind a class token `[1, 1, D]`: `[B, 1 + N, D]`."""
    batch, _, width = patches.shape
    return jnp.concatenate([jnp.broadcast_to(token.astype(patches.dtype), (batch, 1, width)), patches], 1)


class Mlp(nn.Module):
    """Two dense layers with an activation between them.

    Attributes:
        hidden: width between the two.
        activation: a name of `ACTIVATIONS`, or ``swiglu``: silu of one half of the first layer times the other
            (arXiv 2002.05202), as in DINOv2's giant.
        dtype: computation dtype.
    """

    hidden: int
    activation: str = "gelu_tanh"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, T, D]` to `[B, T, D]`."""
        is_gated = self.activation == "swiglu"
        y = Dense(self.hidden * (1 + is_gated), dtype=self.dtype, name="expand")(x)
        if is_gated:
            gate, y = jnp.split(y, 2, axis=-1)
            y = nn.silu(gate) * y
        else:
            y = ACTIVATIONS[self.activation](y)
        return Dense(x.shape[-1], dtype=self.dtype, name="contract")(y)


class Scale(nn.Module):
    """LayerScale (arXiv 2103.17239): a learned factor for each channel."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Scales the last axis of `[B, T, D]`."""
        gamma = self.param("gamma", nn.initializers.constant(1e-5), (x.shape[-1],))
        return x * gamma.astype(self.dtype)[None, None]


class Block(nn.Module):
    """One pre-norm transformer block."""

    heads: int
    hidden: int
    causal: bool = False
    activation: str = "gelu_tanh"
    norm_epsilon: float = 1e-6
    dtype: Dtype = jnp.float32
    layer_scale: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, None]:
        """Maps `[B, T, D]` to `[B, T, D]`; the second result is what `nn.scan` stacks: nothing."""
        y = nn.LayerNorm(self.norm_epsilon, dtype=self.dtype, name="attention_norm")(x)
        y = Attention(self.heads, self.dtype, name="attention")(y, y, mask=mask, causal=self.causal)
        x = x + (Scale(self.dtype, name="attention_scale")(y) if self.layer_scale else y)
        y = nn.LayerNorm(self.norm_epsilon, dtype=self.dtype, name="mlp_norm")(x)
        y = Mlp(self.hidden, self.activation, self.dtype, name="mlp")(y)
        return x + (Scale(self.dtype, name="mlp_scale")(y) if self.layer_scale else y), None


class Encoder(nn.Module):
    """`depth` blocks and, unless `last_norm` is False, a last norm.

    With `remat` only each block's input is kept for the backward pass, see `remade`.
    """

    depth: int
    heads: int
    hidden: int
    causal: bool = False
    activation: str = "gelu_tanh"
    norm_epsilon: float = 1e-6
    dtype: Dtype = jnp.float32
    remat: bool = False
    layer_scale: bool = False
    last_norm: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Maps `[B, T, D]` to `[B, T, D]`; `mask` is `[B, T]` bool, False where padded."""
        blocks = nn.scan(
            remade(Block, whole=self.remat),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=self.depth,
        )
        x, _ = blocks(
            self.heads, self.hidden, self.causal, self.activation, self.norm_epsilon, self.dtype, self.layer_scale,
            name="blocks",
        )(x, mask)  # fmt: skip
        return nn.LayerNorm(self.norm_epsilon, dtype=self.dtype, name="norm")(x) if self.last_norm else x


class AttentionPool(nn.Module):
    """Multi-head attention pooling (MAP): one learned query looks at all positions (arXiv 2205.01580)."""

    heads: int
    hidden: int
    norm_epsilon: float = 1e-6
    dtype: Dtype = jnp.float32
    activation: str = "gelu_tanh"

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Pools `[B, T, D]` to `[B, D]`; `mask` is `[B, T]` bool, False where padded."""
        probe = self.param("probe", nn.initializers.xavier_uniform(), (1, 1, x.shape[-1]))
        query = jnp.broadcast_to(probe.astype(x.dtype), (x.shape[0], 1, x.shape[-1]))
        pooled = Attention(self.heads, self.dtype, name="attention")(query, x, mask=mask)
        y = nn.LayerNorm(self.norm_epsilon, dtype=self.dtype, name="norm")(pooled)
        return (pooled + Mlp(self.hidden, self.activation, self.dtype, name="mlp")(y))[:, 0]


class FrozenBatchNorm(nn.Module):
    """Batch normalisation (arXiv 1502.03167) by the stored statistics, in training too.

    A locked tower sees each photo as its weights know it, whatever else is in the batch. The statistics get no
    gradient, so that a tower that is not locked keeps them as well.

    Attributes:
        epsilon: added to the variance.
        dtype: computation dtype of what comes in and goes out; the scaling itself is in float32.
    """

    epsilon: float = 1e-5
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last axis of `[B, H, W, C]`."""
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = jax.lax.stop_gradient(self.param("mean", nn.initializers.zeros, shape))
        var = jax.lax.stop_gradient(self.param("var", nn.initializers.ones, shape))
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        offset = bias - mean * factor
        y = x.astype(jnp.float32) * factor[None, None, None] + offset[None, None, None]
        return y.astype(self.dtype)

"""The compute dtype of a step, and dynamic loss scaling for float16.

Volta GPUs have float16 matrix units and no bfloat16. Gradients in float16 underflow unless the loss is multiplied
by a large factor first; the factor is found by trial (Micikevicius et al., arXiv 1710.03740).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16}

GROW_AFTER = 2000  # finite steps in a row before the factor doubles
LARGEST = 2.0**24


class LossScale(NamedTuple):
    """The factor, `[]` float32, and how many finite steps it has lasted, `[]` int32."""

    factor: jax.Array
    finite_steps: jax.Array


def initial_loss_scale(precision: str) -> LossScale:
    """2**15 for float16; exactly 1, for ever, for the others."""
    return LossScale(jnp.float32(2.0**15 if precision == "float16" else 1.0), jnp.int32(0))


def next_loss_scale(scale: LossScale, finite: jax.Array, *, dynamic: bool) -> LossScale:
    """Halves the factor after a gradient that is not finite; doubles it after `GROW_AFTER` finite ones."""
    if not dynamic:
        return scale
    grown = scale.finite_steps + 1 >= GROW_AFTER
    factor = jnp.where(grown, jnp.minimum(scale.factor * 2, LARGEST), scale.factor)
    lasted = jnp.where(grown, 0, scale.finite_steps + 1)
    return LossScale(
        jnp.where(finite, factor, jnp.maximum(scale.factor / 2, 1.0)),
        jnp.where(finite, lasted, 0).astype(jnp.int32),
    )


def all_finite(tree: Any) -> jax.Array:
    """`[]` bool: whether no number in the tree is infinite or NaN."""
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))

"""Which parameters of a tower that does not move may be kept in 16 bits: those that the tower itself would round.

A tower that computes in float16 or bfloat16 casts its kernels before it multiplies; to keep them so saves half of the
memory and changes nothing. Other parameters it reads in float32: statistics of batch norms, which may be larger than
float16 can hold, kernels that are standardised first, scales of norms, tables of positions. Those must stay.
Which is which is read off the tower's own program, so that it holds for every family, and for the next one.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend import core

_MOVES = {"reshape", "transpose", "squeeze", "slice", "dynamic_slice", "broadcast_in_dim", "gather", "copy"}
"""Operations that hand values on as they are."""


def as_used(tower: nn.Module, params: Any, example: jax.ShapeDtypeStruct) -> Any:
    """The parameters of a tower that gets no gradient, each in the dtype in which the tower first needs it.

    Args:
        tower: of any computation dtype.
        params: its parameters, float32; arrays of JAX or NumPy, or shapes inside `jax.eval_shape`.
        example: what the tower reads, as a shape: `[1, S, S, 3]` pixels or `[1, T]` tokens.

    Returns:
        The same tree. Leaves that every use would cast to the computation dtype are cast; the tower's results are
        the same to the bit. In float32 nothing changes.
    """
    dtype = jnp.dtype(getattr(tower, "dtype", jnp.float32))
    if dtype == jnp.float32:
        return params
    leaves, tree = jax.tree.flatten(params)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    program = jax.make_jaxpr(lambda params, x: tower.apply({"params": params}, x))(shapes, example).jaxpr
    may = [_only_cast(program, variable, dtype) for variable in program.invars[: len(leaves)]]
    return jax.tree.unflatten(
        tree, [leaf.astype(dtype) if may else leaf for leaf, may in zip(leaves, may, strict=True)]
    )


def _only_cast(program: core.Jaxpr, variable: Any, dtype: jnp.dtype) -> bool:
    """Whether a program casts a variable before it computes anything of it."""
    if variable in program.outvars:
        return False
    uses = ((step, place) for step in program.eqns for place, x in enumerate(step.invars) if x is variable)
    return all(_casts(program, step, place, dtype) for step, place in uses)


def _casts(program: core.Jaxpr, step: core.JaxprEqn, place: int, dtype: jnp.dtype) -> bool:
    if step.primitive.name == "convert_element_type":
        return bool(step.params["new_dtype"] == dtype)
    if step.primitive.name in _MOVES and place == 0:
        return _only_cast(program, step.outvars[0], dtype)
    called = step.params.get("jaxpr", step.params.get("call_jaxpr"))
    inner = getattr(called, "jaxpr", called)  # of a closed one
    if inner is None or len(inner.invars) != len(step.invars):
        return False
    return _only_cast(inner, inner.invars[place], dtype)

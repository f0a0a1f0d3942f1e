"""A function of JAX as an ONNX model: traced with a batch of any size, and written primitive by primitive.

Equations whose inputs are all constant are computed here and now, so that batch norms, positions and slices of weights
leave nothing but their results; a scan over blocks is written block by block. What is left has its counterparts in
`lit_jax.graphs.primitives`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from lit_jax.errors import UserError
from lit_jax.graphs.constants import computed
from lit_jax.graphs.graph import FP32, Graph, Value
from lit_jax.graphs.primitives import ARITHMETIC, OTHERS, Input, repeated_later, split
from lit_jax.graphs.simpler import simplify

_CALLS = ("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "remat2", "checkpoint")


def to_onnx(
    function: Callable[[jax.Array], jax.Array],
    rest: Sequence[int],
    dtype: Any,
    *,
    names: tuple[str, str],
    weights: str = FP32,
) -> Any:
    """The ONNX model of a function of one array with a batch of any size.

    Args:
        function: of `[B, *rest]`; what it closes over is constant.
        rest: the other lengths.
        dtype: of the input.
        names: of the input and the output.
        weights: how large constants are stored, see `lit_jax.graphs.graph.WEIGHTS`.

    Returns:
        An ``onnx.ModelProto``.

    Raises:
        UserError: a primitive that is not known, by its name; the package onnx is missing.
    """
    (batch,) = jax.export.symbolic_shape("batch")
    graph = Graph(batch, weights)
    given = jax.ShapeDtypeStruct((batch, *rest), dtype)
    closed = jax.make_jaxpr(function)(given)
    value = graph.input(names[0], (batch, *rest), dtype)
    (found,) = _walk(graph, closed.jaxpr, [np.asarray(const) for const in closed.consts], [value])
    (out,) = closed.out_avals
    if isinstance(found, np.ndarray):
        raise UserError("onnx: found a function whose result does not depend on its input, expected one that does")
    result = graph.whole(found, tuple(out.shape))
    simplify(graph)
    return graph.finished(result, names[1])


def _walk(graph: Graph, jaxpr: Any, consts: Sequence[Input], inputs: Sequence[Input]) -> list[Input]:
    """Writes the equations of a program and gives its outputs."""
    known: dict[Any, Input] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *inputs), strict=True))

    def read(atom: Any) -> Input:
        return np.asarray(atom.val, atom.aval.dtype) if hasattr(atom, "val") else known[atom]

    for equation in jaxpr.eqns:
        found = _equation(graph, equation, [read(atom) for atom in equation.invars])
        known.update(zip(equation.outvars, found, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _equation(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Sequence[Input]:
    name, params = equation.primitive.name, equation.params
    if name in _CALLS:
        closed = params.get("jaxpr", params.get("call_jaxpr"))
        inner, consts = (closed.jaxpr, closed.consts) if hasattr(closed, "consts") else (closed, ())
        return _walk(graph, inner, [np.asarray(const) for const in consts], inputs)
    if name == "scan":
        return _scan(graph, equation, inputs)
    arrays = [one for one in inputs if isinstance(one, np.ndarray)]
    if len(arrays) == len(inputs):
        folded = _folded(equation, arrays)
        if folded is not None:
            return folded
        inputs = [graph.whole(arrays[0], equation.invars[0].aval.shape), *inputs[1:]]
    if name == "split":
        return split(graph, equation, inputs)
    handler = ARITHMETIC.get(name) or OTHERS.get(name)
    if handler is None:
        known = ", ".join(sorted({*ARITHMETIC, *OTHERS}))
        raise UserError(f"onnx: found the primitive {name} in the tower, expected one of {known}")
    return [handler(graph, equation, inputs)]


def _scan(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Sequence[Input]:
    """A scan, a pass after the other: what it goes over are weights of blocks."""
    params, closed = equation.params, equation.params["jaxpr"]
    fixed, carried = _scan_parts(equation)
    consts, state, over = inputs[:fixed], list(inputs[fixed : fixed + carried]), inputs[fixed + carried :]
    if any(isinstance(one, Value) for one in over) or len(closed.out_avals) != carried:
        raise UserError("onnx: found a scan over computed values, expected one over weights that gives its state alone")
    steps = range(params["length"])
    for step in reversed(steps) if params["reverse"] else steps:
        parts = [np.asarray(one)[step] for one in over]
        state = _walk(graph, closed.jaxpr, [np.asarray(const) for const in closed.consts], [*consts, *state, *parts])
    return state


def _scan_parts(equation: Any) -> tuple[int, int]:
    """How many inputs of a scan are constant, and how many are its state; the others are what it goes over.

    Each version of JAX names these numbers in another way, so they are read off the shapes: what a scan goes over, and
    what it stacks up, has one axis more outside than inside.
    """
    inner = equation.params["jaxpr"]

    def whole(variables: Sequence[Any], avals: Sequence[Any]) -> int:
        return sum(
            len(outside.aval.shape) == len(inside.shape) for outside, inside in zip(variables, avals, strict=True)
        )

    carried = whole(equation.outvars, inner.out_avals)
    return whole(equation.invars, inner.in_avals) - carried, carried


def _folded(equation: Any, arrays: Sequence[np.ndarray]) -> list[np.ndarray] | None:
    """The result of an equation of constants; None where it is one of a shape that is not known."""
    name = equation.primitive.name
    if name == "broadcast_in_dim":  # also of a known shape: what is repeated is not stored
        return [repeated_later(arrays[0], equation)]
    if name in ARITHMETIC:
        rank = max(one.ndim for one in arrays)
        if any(one.ndim < rank for one in arrays):
            arrays = [one if one.ndim else np.full((1,) * rank, one) for one in arrays]
        full = list(np.broadcast_arrays(*arrays))
    else:
        shapes = [variable.aval.shape for variable in (*equation.invars, *equation.outvars)]
        if not all(isinstance(length, int) for shape in shapes for length in shape):
            return None
        full = [np.broadcast_to(one, shape) for one, shape in zip(arrays, shapes, strict=False)]
    return computed(equation, full)

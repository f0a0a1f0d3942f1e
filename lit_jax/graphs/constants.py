"""Equations whose inputs are all constant: computed here and now.

The usual ones by NumPy: JAX compiles a program for every shape of every primitive, which costs more than the whole rest
of an export. All others by the primitive itself.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

Known = Callable[..., np.ndarray]
"""Takes the equation's parameters and its inputs."""


def computed(equation: Any, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The results of an equation, of the dtypes that JAX gives them.

    Args:
        equation: of a traced program.
        arrays: its inputs in full, whose lengths are all known.
    """
    known = BY_NUMPY.get(equation.primitive.name)
    if known is not None:
        with np.errstate(all="ignore"):  # JAX says nothing of numbers that are not finite either
            return [np.asarray(known(equation.params, *arrays), equation.outvars[0].aval.dtype)]
    found = equation.primitive.bind(*(jax.numpy.asarray(one) for one in arrays), **equation.params)
    return [np.asarray(one) for one in (found if equation.primitive.multiple_results else [found])]


def _number_by_number(function: Callable[..., np.ndarray]) -> Known:
    return lambda params, *arrays: function(*arrays)


def _rsqrt(array: np.ndarray) -> np.ndarray:
    """Rounded once, while XLA's differs in the last bit."""
    return 1 / np.sqrt(array, dtype=np.float64)


def _slice(params: Mapping[str, Any], array: np.ndarray) -> np.ndarray:
    ends = (params["start_indices"], params["limit_indices"], params["strides"] or (1,) * array.ndim)
    return array[tuple(slice(*part) for part in zip(*ends, strict=True))]


def _reshape(params: Mapping[str, Any], array: np.ndarray) -> np.ndarray:
    return array.reshape(params["new_sizes"])


def _iota(params: Mapping[str, Any]) -> np.ndarray:
    shape, axis = params["shape"], params["dimension"]
    along = [length if place == axis else 1 for place, length in enumerate(shape)]
    return np.broadcast_to(np.arange(shape[axis]).reshape(along), shape)


_NUMBER_BY_NUMBER: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "max": np.maximum, "min": np.minimum,
    "neg": np.negative, "abs": np.abs, "sqrt": np.sqrt, "square": np.square, "rsqrt": _rsqrt, "eq": np.equal,
    "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "select_n": lambda which, *cases: np.choose(which, cases),
    "convert_element_type": np.asarray, "copy": np.asarray, "stop_gradient": np.asarray, "name": np.asarray,
}  # fmt: skip

BY_NUMPY: dict[str, Known] = {
    **{name: _number_by_number(function) for name, function in _NUMBER_BY_NUMBER.items()},
    "reshape": _reshape,
    "slice": _slice,
    "iota": _iota,
    "transpose": lambda params, array: array.transpose(params["permutation"]),
    "squeeze": lambda params, array: array.squeeze(tuple(params["dimensions"])),
    "concatenate": lambda params, *arrays: np.concatenate(arrays, params["dimension"]),
}
"""What NumPy computes as XLA does, to the last bit but for ``rsqrt``; by the primitive's name."""

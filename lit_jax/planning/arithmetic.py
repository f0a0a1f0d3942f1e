"""The arithmetic of a function, counted and not measured: matrix products and convolutions of its jaxpr.

Nothing runs and nothing is compiled: a function of arrays of any size is traced and its program read, loops and what
JAX nests in it included. A multiplication and an addition are two operations, as vendors count. What is no product
(norms, softmax, the optimizer) is left out, as in every published figure of this kind.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


class Product(NamedTuple):
    """A product of matrices, or a convolution, as it stands in a program.

    Attributes:
        equation: its line of the program, with shapes, types and dimensions.
        times: how many times it is carried out.
    """

    equation: JaxprEqn
    times: int

    @property
    def operations(self) -> int:
        """Multiplications and additions of all times."""
        return self.times * _PRODUCTS[self.equation.primitive.name](self.equation)


def count(function: Callable[..., Any], *arguments: Any) -> int:
    """Counts the operations of one call, over all devices.

    Args:
        function: of arrays, jitted or not.
        *arguments: trees of arrays or of `jax.ShapeDtypeStruct`; only their shapes and types matter.

    Returns:
        Multiplications and additions of its products. Of several branches the one with the most operations counts.

    Raises:
        ValueError: products in a loop whose length is known only when it runs.

    Example:
        >>> a, b = jax.ShapeDtypeStruct((2, 3), "float32"), jax.ShapeDtypeStruct((3, 4), "float32")
        >>> count(lambda a, b: a @ b, a, b)
        48
    """
    return _operations(products(function, *arguments))


def products(function: Callable[..., Any], *arguments: Any) -> list[Product]:
    """The products that `count` counts, in the order of the program; arguments and errors are those of `count`."""
    return _program(jax.make_jaxpr(function)(*arguments).jaxpr)


def forward_and_backward(function: Callable[..., Any], moving: Any, *others: Any) -> int:
    """As `count`, of a function together with its gradient by the first argument, a tree of floats."""

    def both(moving: Any, *others: Any) -> Any:
        out, back = jax.vjp(lambda moving: function(moving, *others), moving)
        return back(out)  # any cotangent costs the same

    return count(both, moving, *others)


def _operations(found: list[Product]) -> int:
    return sum(product.operations for product in found)


def _program(jaxpr: Jaxpr) -> list[Product]:
    return [product for equation in jaxpr.eqns for product in _within(equation)]


def _within(equation: JaxprEqn) -> list[Product]:
    name, params = equation.primitive.name, equation.params
    if name in _PRODUCTS:
        return [Product(equation, 1)]
    inner = [_program(jaxpr) for value in params.values() for jaxpr in _jaxprs(value)]
    if name == "cond":
        return max(inner, key=_operations)
    found = [product for program in inner for product in program]
    if name in ("while", "pallas_call") and found:
        raise ValueError(f"{name}: found products in a loop of unknown length, expected a scan; count its body alone")
    # What stands inside of shard_map is one device's part.
    times = params["length"] if name == "scan" else params["mesh"].size if name == "shard_map" else 1
    return [product._replace(times=product.times * times) for product in found]


def _jaxprs(value: Any) -> list[Jaxpr]:
    """The programs in a parameter of an operation."""
    values = value if isinstance(value, tuple | list) else [value]
    return [x.jaxpr if isinstance(x, ClosedJaxpr) else x for x in values if isinstance(x, ClosedJaxpr | Jaxpr)]


def _dot_general(equation: JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = _shape(equation.invars[0])
    # Every entry of the result, [batch, M, N], is a sum of K products.
    return 2 * math.prod(_shape(equation.outvars[0])) * math.prod(left[axis] for axis in contracted)


def _convolution(equation: JaxprEqn) -> int:
    kernel, numbers = _shape(equation.invars[1]), equation.params["dimension_numbers"]
    each = math.prod(kernel) // kernel[numbers.rhs_spec[0]]
    # Products with the zeros between the entries of a dilated input are none.
    zeros = math.prod(equation.params["lhs_dilation"])
    return 2 * math.prod(_shape(equation.outvars[0])) * each // zeros


def _shape(variable: Any) -> tuple[int, ...]:
    return tuple(variable.aval.shape)


_PRODUCTS: dict[str, Callable[[JaxprEqn], int]] = {
    "dot_general": _dot_general,
    "conv_general_dilated": _convolution,
}

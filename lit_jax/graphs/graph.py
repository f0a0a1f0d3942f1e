"""An ONNX graph while it is built: nodes, constants, and values whose broadcast and order of axes are left open.

Most of what a traced program does between its products only moves axes or repeats values. Both are remembered here
instead of written: a value knows in which order its axes are stored, and 1 stands for an axis that is still to be
repeated, as ONNX's own arithmetic repeats it. A node is written where an operator needs the axes as they are called.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from lit_jax.errors import UserError

OPSET = 20
FP32, FP16, INT8 = WEIGHTS = ("fp32", "fp16", "int8")
_SMALL = 1024  # numbers; a constant with fewer stays float32
_LARGEST = float(np.finfo(np.float16).max)

Shape = tuple[Any, ...]
"""Lengths of axes: integers, and the one symbol of the batch or a multiple of it."""


def library() -> Any:
    """The package onnx.

    Raises:
        UserError: it is not installed.
    """
    try:
        import onnx  # late: only an export needs it
    except ImportError:
        raise UserError(
            "onnx: found no such package, expected it to write ONNX; pip install onnx onnxruntime"
        ) from None
    return onnx


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor of the graph.

    Attributes:
        name: of the tensor.
        shape: of its axes as the program calls them; 1 also where it is still to be repeated.
        order: the program's axis that each stored axis is.
        dtype: of its numbers.
    """

    name: str
    shape: Shape
    order: tuple[int, ...]
    dtype: np.dtype

    def transposed(self, permutation: Sequence[int]) -> "Value":
        """With other axes, as `numpy.transpose` takes them; nothing is written."""
        order = tuple(permutation.index(axis) for axis in self.order)
        return dataclasses.replace(self, shape=tuple(self.shape[axis] for axis in permutation), order=order)

    def stored(self, axes: Sequence[int]) -> list[int]:
        """Where the program's axes are stored."""
        return [self.order.index(axis) for axis in axes]


class Graph:
    """Collects nodes and constants.

    Args:
        batch: the symbol of the first axis of inputs.
        weights: one of `WEIGHTS`: how large constants are stored; what is computed with is float32.
    """

    def __init__(self, batch: Any, weights: str = FP32) -> None:
        self.onnx = library()
        self.batch, self.weights = batch, weights
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []
        self._made: dict[tuple[Any, ...], str] = {}
        self._count = 0

    def input(self, name: str, shape: Shape, dtype: Any) -> Value:
        """A tensor that is given when the graph runs."""
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        lengths = [length if isinstance(length, int) else "batch" for length in shape]
        self.inputs.append(self.onnx.helper.make_tensor_value_info(name, kind, lengths))
        return Value(name, shape, tuple(range(len(shape))), np.dtype(dtype))

    def node(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Writes a node with one output and gives the output's name; the same node is written once."""
        key = (operator, tuple(inputs), repr(sorted(attributes.items())))
        if key not in self._made:
            self._made[key] = name = self._name(operator.lower())
            self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return self._made[key]

    def value(self, operator: str, inputs: Sequence[str], like: Value, **attributes: Any) -> Value:
        """`node` with a value of the shape, order and dtype of `like`."""
        return dataclasses.replace(like, name=self.node(operator, inputs, **attributes))

    def constant(self, array: np.ndarray) -> str:
        """A small array as it is; equal ones are one."""
        array = np.asarray(array, order="C")
        key = ("constant", str(array.dtype), array.shape, array.tobytes())
        if key not in self._made:
            self._made[key] = self._kept(array)
        return self._made[key]

    def integers(self, numbers: Sequence[int]) -> str:
        """Axes, lengths and the like."""
        return self.constant(np.array(numbers, np.int64))

    def weight(self, array: np.ndarray, *, axis: int | None = None) -> str:
        """A constant that may be large, stored as `weights` says.

        Args:
            array: the numbers.
            axis: that of the output's channels, each of which has a scale of its own in int8; None for numbers that are
                added, which are kept in float16 instead.
        """
        if array.dtype != np.float32 or array.size < _SMALL or self.weights == FP32:
            return self.constant(array)
        if self.weights == INT8 and axis is not None and array.ndim > 1:
            whole, scales = in_int8(array, axis)
            return self.node("Mul", [self._float(self.constant(whole)), self.constant(scales)])
        if np.abs(array).max() > _LARGEST:
            return self.constant(array)
        return self._float(self.constant(array.astype(np.float16)))

    def plain(self, value: Value | np.ndarray, shape: Shape | None = None, *, axis: int | None = None) -> str:
        """The name of a tensor whose axes are stored as they are called, repeated to `shape` if that is given."""
        if isinstance(value, np.ndarray):
            if shape is not None and all(isinstance(length, int) for length in shape):
                return self.weight(np.broadcast_to(value, shape), axis=axis)
            name, have = self.weight(value, axis=axis), value.shape
        else:
            name, have = value.name, value.shape
            if value.order != tuple(range(len(have))):
                name = self.node("Transpose", [name], perm=value.stored(range(len(have))))
        if shape is None or same(have, shape):
            return name
        return self.node("Expand", [name, self.lengths(shape)])

    def whole(self, value: Value | np.ndarray, shape: Shape) -> Value:
        """`plain` as a value."""
        dtype = value.dtype
        return Value(self.plain(value, shape), shape, tuple(range(len(shape))), dtype)

    def reshaped(self, name: str, shape: Shape) -> str:
        """A tensor in another shape, of whose lengths one at the most is not known."""
        unknown = [length for length in shape if not isinstance(length, int)]
        if len(unknown) > 1:
            raise UserError(f"onnx: found a shape {shape} with several lengths that follow the batch, expected one")
        return self.node(
            "Reshape", [name, self.integers([length if isinstance(length, int) else -1 for length in shape])]
        )

    def lengths(self, shape: Shape) -> str:
        """A shape as a tensor, when the graph runs."""
        if all(isinstance(length, int) for length in shape):
            return self.integers(list(shape))
        batch = self.node("Shape", [self.inputs[0].name], start=0, end=1)
        parts = []
        for length in shape:
            times = length if isinstance(length, int) else length // self.batch
            fixed = self.integers([times])
            parts.append(fixed if isinstance(length, int) else self.node("Mul", [batch, fixed]))
        return self.node("Concat", parts, axis=0)

    def finished(self, output: Value, name: str) -> Any:
        """The graph as a model of one output, without what nothing reads."""
        onnx = self.onnx
        last = onnx.helper.make_node("Identity", [self.plain(output)], [name])
        kept, wanted = [last], {last.input[0]}
        for node in reversed(self.nodes):
            if node.output[0] in wanted:
                kept.append(node)
                wanted.update(node.input)
        kind = onnx.helper.np_dtype_to_tensor_dtype(output.dtype)
        lengths = [length if isinstance(length, int) else "batch" for length in output.shape]
        graph = onnx.helper.make_graph(
            kept[::-1], "tower", self.inputs, [onnx.helper.make_tensor_value_info(name, kind, lengths)],
            [constant for constant in self.constants if constant.name in wanted],
        )  # fmt: skip
        opset = [onnx.helper.make_opsetid("", OPSET)]
        return onnx.helper.make_model(graph, opset_imports=opset, producer_name="lit_jax", ir_version=10)

    def _float(self, name: str) -> str:
        return self.node("Cast", [name], to=self.onnx.TensorProto.FLOAT)

    def _kept(self, array: np.ndarray) -> str:
        name = self._name("constant")
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def _name(self, what: str) -> str:
        self._count += 1
        return f"{what}_{self._count}"


def in_int8(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """An array as int8 times a float32 scale for each place of an axis, the others of which have length 1."""
    others = tuple(place for place in range(array.ndim) if place != axis % array.ndim)
    scales = np.maximum(np.abs(array).max(others, keepdims=True), 1e-30).astype(np.float32) / np.float32(127)
    return np.clip(np.rint(array / scales), -127, 127).astype(np.int8), scales


def same(one: Shape, other: Shape) -> bool:
    """Whether two shapes have the same lengths."""
    return len(one) == len(other) and all(bool(a == b) for a, b in zip(one, other, strict=True))

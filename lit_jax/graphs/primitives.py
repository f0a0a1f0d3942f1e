"""What each primitive of JAX is in ONNX: one function each, by the primitive's name.

A function takes the graph, the equation and its inputs, which are `Value`s or constant arrays and at least one of which
is a `Value`, and gives the output. Sources: the primitives are those of `jax.lax`, the operators those of ONNX's
operator schemas, opset 20.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lit_jax.errors import UserError
from lit_jax.graphs.graph import Graph, Shape, Value, same

Input = Value | np.ndarray
Handler = Callable[[Graph, Any, Sequence[Input]], Value]


def plain_arithmetic(operator: str) -> Handler:
    """Number by number, where ONNX has one operator for it."""

    def convert(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
        return _arithmetic(graph, operator, inputs, _dtype(equation))

    return convert


def _arithmetic(graph: Graph, operator: str, inputs: Sequence[Input], dtype: np.dtype) -> Value:
    orders = {one.order for one in inputs if isinstance(one, Value) and one.shape}
    order = orders.pop() if len(orders) == 1 else None
    names, shapes = [], []
    for one in inputs:
        shapes.append(one.shape)
        if isinstance(one, Value):
            names.append(one.name if order is not None else graph.plain(one))
        else:
            names.append(graph.weight(one if order is None or not one.ndim else one.transpose(order)))
    shape = _together(shapes)
    return Value(graph.node(operator, names), shape, order or tuple(range(len(shape))), dtype)


def _together(shapes: Sequence[Shape]) -> Shape:
    """The shape of what is computed number by number of values that still repeat along axes of length 1."""
    full = [shape for shape in shapes if shape]
    if not full:
        return ()
    return tuple(next((length for length in lengths if not _is_one(length)), 1) for lengths in zip(*full, strict=True))


def _is_one(length: Any) -> bool:
    return isinstance(length, int) and length == 1


def _dtype(equation: Any) -> np.dtype:
    return np.dtype(equation.outvars[0].aval.dtype)


def _same(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
    (value,) = inputs
    assert isinstance(value, Value)
    return value


def _convert(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
    value, dtype = _same(graph, equation, inputs), _dtype(equation)
    if value.dtype == dtype:
        return value
    kind = graph.onnx.helper.np_dtype_to_tensor_dtype(dtype)
    return dataclasses.replace(graph.value("Cast", [value.name], value, to=kind), dtype=dtype)


def _power(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
    value, exponent = _same(graph, equation, inputs), equation.params["y"]
    if exponent not in (2, 3):
        return graph.value("Pow", [value.name, graph.constant(np.array(exponent, np.float32))], value)
    found = value
    for _ in range(exponent - 1):
        found = graph.value("Mul", [found.name, value.name], value)
    return found


def _square(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
    value = _same(graph, equation, inputs)
    return graph.value("Mul", [value.name, value.name], value)


def _rsqrt(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
    value = _same(graph, equation, inputs)
    return graph.value("Reciprocal", [graph.node("Sqrt", [value.name])], value)


def _erfc(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
    value = _same(graph, equation, inputs)
    return graph.value("Sub", [graph.constant(np.array(1, np.float32)), graph.node("Erf", [value.name])], value)


def _select(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
    which, no, yes = inputs
    if which.dtype != np.bool_:
        raise _unknown("select_n of more than two")
    return _arithmetic(graph, "Where", [which, yes, no], _dtype(equation))


def _not(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
    value = _same(graph, equation, inputs)
    if value.dtype != np.bool_:
        raise _unknown("not of integers")
    return graph.value("Not", [value.name], value)


def _compared(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
    return _arithmetic(graph, "Not", [_arithmetic(graph, "Equal", inputs, np.dtype(bool))], np.dtype(bool))


def _broadcast(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
    (value,), places = inputs, equation.params["broadcast_dimensions"]
    rank = len(equation.outvars[0].aval.shape)
    new = [axis for axis in range(rank) if axis not in places]
    name = graph.node("Unsqueeze", [graph.plain(value), graph.integers(new)]) if new else graph.plain(value)
    shape = [1] * rank
    for axis, length in zip(places, value.shape, strict=True):
        shape[axis] = length
    return Value(name, tuple(shape), tuple(range(rank)), value.dtype)


def repeated_later(array: np.ndarray, equation: Any) -> np.ndarray:
    """A constant for ``broadcast_in_dim`` to a shape that is not known: 1 stands where it will be repeated."""
    shape = [1] * len(equation.outvars[0].aval.shape)
    for axis, length in zip(equation.params["broadcast_dimensions"], array.shape, strict=True):
        shape[axis] = length
    return array.reshape(shape)


def _transpose(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
    return _same(graph, equation, inputs).transposed(equation.params["permutation"])


def _reshape(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
    name = graph.plain(inputs[0], equation.invars[0].aval.shape)
    return _result(equation, graph.reshaped(name, equation.outvars[0].aval.shape))


def _squeeze(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
    value, axes = _same(graph, equation, inputs), equation.params["dimensions"]
    kept = tuple(length for axis, length in enumerate(value.shape) if axis not in axes)
    name = graph.node("Squeeze", [graph.plain(value), graph.integers(axes)])
    return Value(name, kept, tuple(range(len(kept))), value.dtype)


def _concatenate(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
    names = [graph.plain(one, var.aval.shape) for one, var in zip(inputs, equation.invars, strict=True)]
    return _result(equation, graph.node("Concat", names, axis=equation.params["dimension"]))


def _stack(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
    axis = equation.params["axis"]
    names = [
        graph.node("Unsqueeze", [graph.plain(one, var.aval.shape), graph.integers([axis])])
        for one, var in zip(inputs, equation.invars, strict=True)
    ]
    return _result(equation, graph.node("Concat", names, axis=axis))


def _slice(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
    given = equation.invars[0].aval.shape
    params = equation.params
    steps = params["strides"] or [1] * len(given)
    ranges = zip(params["start_indices"], params["limit_indices"], steps, given, strict=True)
    cut = [axis for axis, (start, end, step, length) in enumerate(ranges)
           if not (_is(start, 0) and _is(end, length) and step == 1)]  # fmt: skip
    value = _same(graph, equation, inputs)
    if any(_is_one(value.shape[axis]) for axis in cut):
        value = graph.whole(value, given)
    parts = ([params["start_indices"][axis] for axis in cut], [params["limit_indices"][axis] for axis in cut],
             value.stored(cut), [steps[axis] for axis in cut])  # fmt: skip
    shape = [n if axis in cut else value.shape[axis] for axis, n in enumerate(equation.outvars[0].aval.shape)]
    name = graph.node("Slice", [value.name, *map(graph.integers, parts)]) if cut else value.name
    return dataclasses.replace(value, name=name, shape=tuple(shape))


def split(graph: Graph, equation: Any, inputs: Sequence[Input]) -> list[Value]:
    """The only primitive with several outputs: as slices."""
    axis, start, found = equation.params["axis"], 0, []
    value = graph.whole(inputs[0], equation.invars[0].aval.shape)
    for size, var in zip(equation.params["sizes"], equation.outvars, strict=True):
        parts = ([start], [start + size], [axis])
        name = graph.node("Slice", [value.name, *map(graph.integers, parts)])
        found.append(dataclasses.replace(value, name=name, shape=var.aval.shape))
        start += size
    return found


def _pad(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
    value, filling = inputs
    config = equation.params["padding_config"]
    if any(between for _, _, between in config) or not isinstance(value, Value) or not isinstance(filling, np.ndarray):
        raise _unknown("pad between elements or by a computed value")
    value = graph.whole(value, equation.invars[0].aval.shape) if _repeats(value, equation.invars[0]) else value
    stored = [config[axis] for axis in value.order]
    pads = graph.integers([low for low, _, _ in stored] + [high for _, high, _ in stored])
    name = graph.node("Pad", [value.name, pads, graph.constant(filling.reshape(()).astype(value.dtype))])
    return dataclasses.replace(value, name=name, shape=equation.outvars[0].aval.shape)


def _repeats(value: Value, variable: Any) -> bool:
    return not same(value.shape, variable.aval.shape)


def _reduced(operator: str) -> Handler:
    def convert(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
        value, axes = _same(graph, equation, inputs), equation.params["axes"]
        if any(not _is(value.shape[axis], equation.invars[0].aval.shape[axis]) for axis in axes):
            value = graph.whole(value, equation.invars[0].aval.shape)
        name = graph.node(operator, [value.name, graph.integers(sorted(value.stored(axes)))], keepdims=0)
        return _without(value, axes, name)

    return convert


def _without(value: Value, axes: Sequence[int], name: str) -> Value:
    left = [axis for axis in range(len(value.shape)) if axis not in axes]
    order = tuple(left.index(axis) for axis in value.order if axis in left)
    return Value(name, tuple(value.shape[axis] for axis in left), order, value.dtype)


def _any(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
    value = _same(graph, equation, inputs)
    number = graph.value("Cast", [value.name], value, to=graph.onnx.TensorProto.INT32)
    found = _reduced("ReduceMax")(graph, equation, [number])
    return dataclasses.replace(
        graph.value("Cast", [found.name], found, to=graph.onnx.TensorProto.BOOL), dtype=np.dtype(bool)
    )


def _argmax(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
    value, axes = _same(graph, equation, inputs), equation.params["axes"]
    if value.dtype == np.bool_:
        value = graph.value("Cast", [value.name], value, to=graph.onnx.TensorProto.INT32)
    name = graph.node("ArgMax", [value.name], axis=value.stored(axes)[0], keepdims=0)
    kind = graph.onnx.helper.np_dtype_to_tensor_dtype(_dtype(equation))
    return dataclasses.replace(_without(value, axes, graph.node("Cast", [name], to=kind)), dtype=_dtype(equation))


def _dot(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
    """Any product: axes go to (batch, free, summed) and (batch, summed, free), as few reshapes as there can be."""
    (of_left, of_right), (in_left, in_right) = equation.params["dimension_numbers"]
    left, right = inputs
    shapes = [var.aval.shape for var in equation.invars]
    free = [[axis for axis in range(len(shape)) if axis not in (*summed, *batch)]
            for shape, summed, batch in zip(shapes, (of_left, of_right), (in_left, in_right), strict=True)]  # fmt: skip
    if not in_left and isinstance(left, np.ndarray):
        # The constant comes second, where it is one matrix; then the axes change places.
        turned = _product(graph, (right, shapes[1], of_right, free[1]), (left, shapes[0], of_left, free[0]))
        places = len(free[1])
        return turned.transposed([*range(places, places + len(free[0])), *range(places)])
    if not in_left and isinstance(right, np.ndarray):
        return _product(graph, (left, shapes[0], of_left, free[0]), (right, shapes[1], of_right, free[1]))
    return _batched(graph, equation, free)(left, right)


def _product(graph: Graph, left: Any, right: Any) -> Value:
    """A value by one constant matrix: its axes but the summed ones stay as they are."""
    value, shape, summed, free = left
    constant, their_shape, their_summed, their_free = right
    count = math.prod(shape[axis] for axis in summed)
    array = np.broadcast_to(constant, their_shape).transpose(*their_summed, *their_free).reshape(count, -1)
    moved = graph.plain(_whole(graph, value, shape).transposed([*free, *summed]))
    kept = tuple(shape[axis] for axis in free)
    if len(summed) != 1:
        moved = graph.reshaped(moved, (*kept, count))
    name = graph.node("MatMul", [moved, graph.weight(array, axis=-1)])
    theirs = tuple(their_shape[axis] for axis in their_free)
    if len(theirs) != 1:
        name = graph.reshaped(name, (*kept, *theirs))
    return Value(name, (*kept, *theirs), tuple(range(len(kept) + len(theirs))), value.dtype)


def _whole(graph: Graph, value: Input, shape: Shape) -> Value:
    is_plain = isinstance(value, Value) and same(value.shape, shape)
    return value if is_plain and isinstance(value, Value) else graph.whole(value, shape)


def _batched(graph: Graph, equation: Any, free: Sequence[Sequence[int]]) -> Callable[[Input, Input], Value]:
    summed, batch = equation.params["dimension_numbers"]

    def multiply(left: Input, right: Input) -> Value:
        names = []
        for side, value in enumerate((left, right)):
            shape = equation.invars[side].aval.shape
            groups = [batch[side], free[side], summed[side]] if side == 0 else [batch[side], summed[side], free[side]]
            moved = graph.plain(_whole(graph, value, shape).transposed([axis for group in groups for axis in group]))
            if len(summed[side]) != 1 or len(free[side]) != 1:
                one = [*[shape[axis] for axis in batch[side]], *(_length(shape, group) for group in groups[1:])]
                moved = graph.reshaped(moved, tuple(one))
            names.append(moved)
        name = graph.node("MatMul", names)
        if len(free[0]) != 1 or len(free[1]) != 1:
            name = graph.reshaped(name, equation.outvars[0].aval.shape)
        return _result(equation, name)

    return multiply


def _length(shape: Shape, axes: Sequence[int]) -> Any:
    return math.prod(shape[axis] for axis in axes)


def _convolution(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
    value, kernel = inputs
    params, spec = equation.params, equation.params["dimension_numbers"]
    if not isinstance(kernel, np.ndarray) or set(params["lhs_dilation"]) != {1} or params["batch_group_count"] != 1:
        raise _unknown("conv_general_dilated of two values, transposed or grouped by batch")
    assert isinstance(value, Value)
    pads = [low for low, _ in params["padding"]] + [high for _, high in params["padding"]]
    name = graph.node(
        "Conv", [_in_order(graph, value, spec.lhs_spec), graph.weight(kernel.transpose(spec.rhs_spec), axis=0)],
        strides=list(params["window_strides"]), pads=pads, dilations=list(params["rhs_dilation"]),
        group=params["feature_group_count"],
    )  # fmt: skip
    return Value(name, equation.outvars[0].aval.shape, tuple(spec.out_spec), value.dtype)


def _in_order(graph: Graph, value: Value, order: Sequence[int]) -> str:
    """The tensor with the program's axes stored in this order."""
    if value.order == tuple(order):
        return value.name
    return graph.node("Transpose", [value.name], perm=value.stored(order))


def _largest(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
    value, params = _same(graph, equation, inputs), equation.params
    window = params["window_dimensions"]
    if (
        len(window) != 4
        or window[0] != 1
        or window[3] != 1
        or {*params["base_dilation"], *params["window_dilation"]} != {1}
    ):
        raise _unknown("reduce_window_max but over rows and columns")
    order, padding = (0, 3, 1, 2), params["padding"][1:3]
    name = graph.node(
        "MaxPool", [_in_order(graph, value, order)], kernel_shape=list(window[1:3]),
        strides=list(params["window_strides"][1:3]), pads=[low for low, _ in padding] + [high for _, high in padding],
    )  # fmt: skip
    return Value(name, equation.outvars[0].aval.shape, order, value.dtype)


def _gather(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
    """What indexing is: rows of one axis that are chosen by numbers, or a part of some axes from fixed places on."""
    numbers, shape = equation.params["dimension_numbers"], equation.invars[0].aval.shape
    index, sizes, axes = inputs[1], equation.params["slice_sizes"], tuple(numbers.start_index_map)
    if isinstance(index, np.ndarray) and index.ndim == 1:
        starts = np.clip(index, 0, [shape[axis] - sizes[axis] for axis in axes]).tolist()
        ends = [start + sizes[axis] for start, axis in zip(starts, axes, strict=True)]
        parts = [graph.integers(part) for part in (starts, ends, axes)]
        name = graph.node("Slice", [graph.plain(inputs[0], shape), *parts])
        gone = graph.integers(numbers.collapsed_slice_dims)
        return _result(equation, graph.node("Squeeze", [name, gone]) if numbers.collapsed_slice_dims else name)
    whole = all(_is(sizes[axis], length) for axis, length in enumerate(shape) if axis not in axes)
    if len(axes) != 1 or tuple(numbers.collapsed_slice_dims) != axes or not whole or sizes[axes[0]] != 1:
        raise _unknown("gather but of rows of one axis or of a part")
    return _rows(graph, equation, inputs[0], index)


def _rows(graph: Graph, equation: Any, table: Input, index: Input) -> Value:
    """Rows of one axis; the last axis of `index` has length 1."""
    numbers, (shape, of_index) = (
        equation.params["dimension_numbers"], [variable.aval.shape for variable in equation.invars]
    )  # fmt: skip
    (axis,), last = numbers.start_index_map, len(of_index) - 1
    which = graph.node("Squeeze", [graph.plain(index, of_index), graph.integers([last])])
    name = graph.node("Gather", [graph.plain(table, shape, axis=0), which], axis=axis)
    # ONNX puts the axes of the index where the axis was, JAX where offset_dims leaves room.
    offset = list(numbers.offset_dims)
    theirs = [place for place in range(last + len(offset)) if place not in offset]
    out = equation.outvars[0].aval
    return Value(name, tuple(out.shape), (*offset[:axis], *theirs, *offset[axis:]), np.dtype(out.dtype))


def _scattered(graph: Graph, equation: Any, inputs: Sequence[Input]) -> Value:
    """Adds to places within each row of a batch, none of which lies outside."""
    numbers = equation.params["dimension_numbers"]
    table, index, added = (graph.plain(one, var.aval.shape) for one, var in zip(inputs, equation.invars, strict=True))
    known = (tuple(numbers.operand_batching_dims), tuple(numbers.scatter_dims_to_operand_dims),
             tuple(numbers.inserted_window_dims), tuple(numbers.update_window_dims))  # fmt: skip
    if known != ((0,), (1,), (1,), ()):
        raise _unknown("scatter-add but to places within rows")
    places = graph.node("Cast", [graph.node("Squeeze", [index, graph.integers([2])])], to=graph.onnx.TensorProto.INT64)
    return _result(equation, graph.node("ScatterElements", [table, places, added], axis=1, reduction="add"))


def _result(equation: Any, name: str) -> Value:
    aval = equation.outvars[0].aval
    return Value(name, tuple(aval.shape), tuple(range(len(aval.shape))), np.dtype(aval.dtype))


def _is(one: Any, other: Any) -> bool:
    return bool(one == other)


def _unknown(what: str) -> UserError:
    return UserError(f"onnx: found {what} in the tower, which is not known here, expected another form of it")


ARITHMETIC: dict[str, Handler] = {
    **{name: plain_arithmetic(operator) for name, operator in {
        "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min", "neg": "Neg", "exp": "Exp",
        "log": "Log", "tanh": "Tanh", "logistic": "Sigmoid", "sqrt": "Sqrt", "erf": "Erf", "abs": "Abs", "eq": "Equal",
        "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual", "and": "And", "or": "Or",
    }.items()},
    "ne": _compared, "not": _not, "select_n": _select, "convert_element_type": _convert, "integer_pow": _power,
    "square": _square, "rsqrt": _rsqrt, "erfc": _erfc, "copy": _same, "stop_gradient": _same, "name": _same,
}  # fmt: skip
"""Number by number."""

OTHERS: dict[str, Handler] = {
    "broadcast_in_dim": _broadcast, "transpose": _transpose, "reshape": _reshape, "squeeze": _squeeze,
    "concatenate": _concatenate, "stack": _stack, "slice": _slice, "pad": _pad, "reduce_sum": _reduced("ReduceSum"),
    "reduce_max": _reduced("ReduceMax"), "reduce_or": _any, "argmax": _argmax, "dot_general": _dot,
    "conv_general_dilated": _convolution, "reduce_window_max": _largest, "gather": _gather, "scatter-add": _scattered,
}  # fmt: skip
"""All others but `split`."""

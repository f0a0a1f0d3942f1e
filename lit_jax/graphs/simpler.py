"""Known forms among the nodes of a graph, written as the one operator that they are."""

from collections.abc import Callable
from typing import Any

from lit_jax.graphs.graph import Graph

Back = Callable[..., Any]
"""The node that made a tensor, if it has one of the operators that are named; None otherwise."""


def simplify(graph: Graph) -> None:
    """Writes softmax as one operator, which runtimes compute in one pass instead of five.

    What nothing reads any longer is left for `Graph.finished` to drop.
    """
    made = {node.output[0]: node for node in graph.nodes}
    constants = {one.name: one for one in graph.constants}

    def back(name: str, *operators: str) -> Any:
        node = made.get(name)
        return node if node is not None and node.op_type in operators else None

    for node in graph.nodes:
        if node.op_type != "Div":
            continue
        exponential, widened = back(node.input[0], "Exp"), back(node.input[1], "Unsqueeze")
        total = back(widened.input[0], "ReduceSum") if widened is not None else None
        less = back(exponential.input[0], "Sub") if exponential is not None else None
        if total is None or less is None or total.input[0] != exponential.output[0]:
            continue
        axes, where = (graph.onnx.numpy_helper.to_array(constants[one.input[1]]).tolist() for one in (total, widened))
        if len(axes) == 1 and axes == where and _is_largest(back, less):
            node.op_type = "Softmax"
            del node.input[:]
            node.input.append(less.input[0])
            node.attribute.append(graph.onnx.helper.make_attribute("axis", axes[0]))


def _is_largest(back: Back, less: Any) -> bool:
    """Whether what is subtracted is the largest number of a row, perhaps of that and minus infinity."""
    widened = back(less.input[1], "Unsqueeze")
    node = back(widened.input[0], "ReduceMax", "Max") if widened is not None else None
    if node is not None and node.op_type == "Max":
        node = next((found for name in node.input if (found := back(name, "ReduceMax"))), None)
    return node is not None and node.input[0] == less.input[0]

"""The products of a program, each timed alone: the least time in which this device could carry the program out."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import machine
from lit_jax.planning.arithmetic import Product


def timed(found: list[Product], *, calls: int = 3) -> dict[str, float]:
    """Seconds of all products of a program, each in a program of its own with operands of its own.

    Args:
        found: from `lit_jax.planning.arithmetic.products`.
        calls: after a first one; the quickest counts, since whatever else runs can only slow a call down.

    Returns:
        Seconds by the clock and of CPU time, how many kinds of product there are, how many are carried out, and the
        multiplications and additions of all.
    """
    kinds: dict[str, Product] = {}
    for product in found:
        shapes = [str(one.aval) for one in product.equation.invars]
        kind = f"{product.equation.primitive} {shapes} {product.equation.params}"
        before = kinds[kind].times if kind in kinds else 0
        kinds[kind] = product._replace(times=before + product.times)
    wall, cpu = 0.0, 0.0
    for product in kinds.values():
        quickest = _quickest(product, calls)
        wall, cpu = wall + product.times * quickest[0], cpu + product.times * quickest[1]
    return {
        "wall_s": wall, "cpu_s": cpu, "kinds": len(kinds), "products": sum(product.times for product in found),
        "flops": sum(product.operations for product in found),
    }  # fmt: skip


def _quickest(product: Product, calls: int) -> tuple[float, float]:
    """Seconds of one such product, by the clock and of CPU time."""
    primitive, params = product.equation.primitive, product.equation.params
    rng = np.random.default_rng(0)

    def alone(*operands: Any) -> Any:
        return primitive.bind(*operands, **params)

    avals: list[Any] = [one.aval for one in product.equation.invars]
    operands = [jnp.asarray(rng.standard_normal(aval.shape, np.float32), aval.dtype) for aval in avals]
    compiled = jax.jit(alone).lower(*operands).compile()
    jax.block_until_ready(compiled(*operands))
    clocks = []
    for _ in range(calls):
        with machine.Clock() as clock:
            jax.block_until_ready(compiled(*operands))
        clocks.append(clock)
    return min(clock.wall for clock in clocks), min(clock.cpu for clock in clocks)

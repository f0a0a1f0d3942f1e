"""How published files name the parameters of each tower: tables only, one file a family.

A table goes from our paths to theirs, layer by layer. `lit_jax.models.weights` reads and writes by it.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

Resizer = Callable[[np.ndarray, tuple[int, ...]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Dialect:
    """One way of naming a tower's parameters.

    The longest entry of `names` that a path begins with says what becomes of it; the rest of the path, such as
    ``kernel``, is translated by rule. In their names ``*`` stands for the numbers in our path, in order; ``{n}``,
    ``{2*n}`` and ``{2*n+1}`` for the place on the leading axis of parameters that we stack. ``[1/3]`` at the end
    means the second of three parts, side by side on the first axis. A name that ends in ``_`` is joined to its
    suffix without a dot.

    Attributes:
        name: as people call it.
        names: ours to theirs.
        torch: whether kernels are transposed and called ``weight``, as in PyTorch; otherwise as in Flax.
        prefixes: what may stand before every name.
        left_out: patterns of names, behind the prefix, that are no part of the tower.
        raw: our paths whose arrays are taken as they are.
    """

    name: str
    names: Mapping[str, str]
    torch: bool = True
    prefixes: tuple[str, ...] = ("",)
    left_out: tuple[str, ...] = ()
    raw: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Family:
    """All dialects of a tower, and how parameters of another size become ours.

    Attributes:
        dialects: the first one is what we write by default.
        resize: by the end of our path; gets an array in our layout and the shape wanted, may raise ValueError.
    """

    dialects: tuple[Dialect, ...]
    resize: Mapping[str, Resizer] = dataclasses.field(default_factory=dict)

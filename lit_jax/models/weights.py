"""Published weights to our parameter trees and back, refusing leftovers and gaps by name.

Which names a file may use stands in `lit_jax.models.names`; how bytes become arrays, in `lit_jax.models.weight_files`.
"""

import dataclasses
import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from lit_jax.errors import UserError
from lit_jax.models.names import Dialect, Family
from lit_jax.models.weight_files import Flat, open_weights, wrappers

_PART = re.compile(r"\.?\[(\d+)/(\d+)\]$")
_PLACE = re.compile(r"\{(?:(\d+)\*)?n(?:\+(\d+))?\}")
# What PyTorch calls the parameters of a layer.
_SUFFIXES = {
    "kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias", "mean": "running_mean",
    "var": "running_var",
}  # fmt: skip


class Misfit(UserError):
    """Weights of another tower than the one to be filled."""


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What reading a tower's weights found and did.

    Attributes:
        left_out: names in the file that are no part of the tower.
        resized: arrays that were resized, ``name: old -> new``.
        digest: SHA-256 of the tower's arrays as they stand in the file, before any resizing: its identity on
            every machine.
        dialect: whose names the file uses.
        mapped: how many of its arrays became the tower.
    """

    left_out: tuple[str, ...]
    resized: tuple[str, ...]
    digest: str
    dialect: str = ""
    mapped: int = 0

    def __str__(self) -> str:
        """One line for a person."""
        out = f"{self.mapped} arrays by the names of {self.dialect}"
        out += f"; left out: {_some(list(self.left_out))}" if self.left_out else ""
        return out + (f"; resized: {', '.join(self.resized)}" if self.resized else "")


@dataclasses.dataclass(frozen=True)
class _Source:
    """Where one of our leaves is in a file: one name or one a block, and which part of the array it is."""

    names: tuple[str, ...]
    part: tuple[int, int] | None
    raw: bool


def load_tower(source: str, like: Any, family: Family) -> tuple[Any, LoadReport]:
    """Loads a tower's weights into a tree of a given shape.

    Args:
        source: a file, a folder or a name on the hub, as `files.open_weights` takes it.
        like: the tower's parameters, or their `jax.ShapeDtypeStruct`s: the shapes to fill.
        family: names and resizing rules of the tower, from `lit_jax.models.family`.

    Returns:
        The tree of float32 NumPy arrays, and a report. Position embeddings, patches and tables of another size are
        resized as the family says.

    Raises:
        UserError: a file of another kind.
        Misfit: names that fit nothing or are missing, or a shape that does not fit.
    """
    found = open_weights(source)
    return fill(found.arrays, like, family, source=found.where)


def fill(flat: Mapping[str, np.ndarray], like: Any, family: Family, *, source: str) -> tuple[Any, LoadReport]:
    """`load_tower` from arrays by name; `source` names them in messages."""
    shapes = leaves(like)
    dialect, sources, left_out = _matched(flat, shapes, family, source)
    file = _File(flat, dialect, family, source)
    filled, resized = {}, []
    sha = _Digest()
    for path, leaf in shapes.items():
        value, note = _value(path, leaf.shape, sources[path], file, sha)
        filled[path] = value
        resized += [f"{path}: {note}"] * bool(note)
    mapped = len({name for found in sources.values() for name in found.names})
    report = LoadReport(left_out, tuple(resized), sha.hexdigest(), dialect.name, mapped)
    return unflatten(filled), report


def share_named(flat: Mapping[str, np.ndarray], like: Any, family: Family) -> float:
    """The share of a tower's leaves that a file has names for, whatever their shapes."""
    return _likeliest(flat, leaves(like), family)[0]


def differing(flat: Mapping[str, np.ndarray], like: Any, family: Family) -> list[str] | None:
    """Our paths whose arrays have another shape in a file; None if its names are not those of the tower.

    Of blocks only the first is looked at.
    """
    shapes = leaves(like)
    try:
        dialect, sources, _ = _matched(flat, shapes, family, "")
    except Misfit:
        return None
    found = {path: _ours(path, np.asarray(flat[at.names[0]]), at, dialect).shape for path, at in sources.items()}
    return [path for path, leaf in shapes.items() if not _merges(_one(path, leaf.shape, dialect), found[path])]


def named(params: Any, family: Family, dialect: Dialect | None = None, prefix: str = "") -> Flat:
    """A tower's parameters under the names of a dialect, the family's first by default: the inverse of `fill`.

    Raises:
        KeyError: if the dialect has no name for a parameter.
    """
    dialect = dialect or family.dialects[0]
    parts: dict[str, dict[int, np.ndarray]] = {}
    for path, leaf in leaves(params).items():
        array = np.asarray(leaf, np.float32)
        found = _source(path, array.shape, dialect, prefix)
        stacked = array if len(found.names) > 1 or _is_stacked(path, dialect) else array[None]
        for name, value in zip(found.names, stacked, strict=True):
            theirs = value if not dialect.torch or found.raw else _to_torch(path, value)
            parts.setdefault(name, {})[found.part[0] if found.part else 0] = theirs
    return {
        name: np.ascontiguousarray(np.concatenate([group[i] for i in sorted(group)]) if len(group) > 1 else group[0])
        for name, group in parts.items()
    }


def _matched(
    flat: Mapping[str, np.ndarray], shapes: Mapping[str, Any], family: Family, source: str
) -> tuple[Dialect, dict[str, _Source], tuple[str, ...]]:
    """Whose names a file uses, where each of our leaves is in it, and the names that are no part of the tower."""
    dialect, prefix = _recognised(flat, shapes, family, source)
    sources = {path: _source(path, leaf.shape, dialect, prefix) for path, leaf in shapes.items()}
    wanted = {name for found in sources.values() for name in found.names}
    others = [name for name in flat if name not in wanted]
    left_out = sorted(name for name in others if _is_left_out(name, dialect, prefix))
    missing, unused = sorted(wanted - flat.keys()), sorted(set(others) - set(left_out))
    if missing or unused:
        parts = [f"{_some(unused)} left over"] * bool(unused) + [f"no {_some(missing)}"] * bool(missing)
        raise Misfit(
            f"weights {source}: found {' and '.join(parts)}, by the names of {dialect.name}; expected exactly the "
            "tower of the config; check its preset, or depth, width, patch and pool"
        )
    return dialect, sources, tuple(left_out)


def _likeliest(flat: Mapping[str, np.ndarray], shapes: Mapping[str, Any], family: Family) -> tuple[float, Dialect, str]:
    """The dialect and prefix that most of the tower's names are found by, and which share of them that is."""
    best = (0.0, family.dialects[0], "")
    wrapped = wrappers(flat)
    for candidate in family.dialects:
        known = [path for path in shapes if _entry(path, candidate) is not None]
        further = [wrapper + start for wrapper in wrapped for start in candidate.prefixes] if candidate.torch else []
        for start in dict.fromkeys((*candidate.prefixes, *further)):
            found = sum(
                _source(path, shapes[path].shape, candidate, start).names[0] in flat for path in known
            ) / len(shapes)  # fmt: skip
            if found > best[0]:
                best = (found, candidate, start)
    return best


def _recognised(
    flat: Mapping[str, np.ndarray], shapes: Mapping[str, Any], family: Family, source: str
) -> tuple[Dialect, str]:
    """`_likeliest`, if it is likely at all."""
    best, dialect, prefix = _likeliest(flat, shapes, family)
    if best < 0.5:
        raise Misfit(
            f"weights {source}: found arrays such as {_some(sorted(flat))}, expected those of the tower that the "
            "config names; give its weights, or name the tower of these"
        )
    unknown = [path for path in shapes if _entry(path, dialect) is None]
    if unknown:
        raise Misfit(
            f"weights {source}: found names of {dialect.name}, which know no {_some(unknown)}, expected weights of the "
            "tower that the config names; check its preset and pool"
        )
    return dialect, prefix


def _entry(path: str, dialect: Dialect) -> tuple[str, str, tuple[str, ...]] | None:
    """The entry of the table that a path falls under: our part of it, theirs, and the numbers for the stars."""
    parts = path.split("/")
    for end in range(len(parts), 0, -1):
        head = "/".join(parts[:end])
        if head in dialect.names:
            return head, dialect.names[head], ()
        numbers = tuple(re.findall(r"\d+", head))
        general = re.sub(r"\d+", "*", head)
        if numbers and general in dialect.names:
            return head, dialect.names[general], numbers
    return None


def _source(path: str, shape: tuple[int, ...], dialect: Dialect, prefix: str) -> _Source:
    entry = _entry(path, dialect)
    if entry is None:
        raise KeyError(path)
    head, theirs, numbers = entry
    for number in numbers:
        theirs = theirs.replace("*", number, 1)
    part = _PART.search(theirs)
    theirs = _PART.sub("", theirs) if part else theirs
    rest = path[len(head) + 1 :]
    if rest:
        theirs += _suffix(rest, theirs, dialect.torch)
    names = [prefix + theirs]
    if _PLACE.search(theirs):
        names = [prefix + _PLACE.sub(lambda m, i=i: str(int(m[1] or 1) * i + int(m[2] or 0)), theirs)  # type: ignore[misc]
                 for i in range(shape[0])]  # fmt: skip
    return _Source(tuple(names), (int(part[1]), int(part[2])) if part else None, _is_raw(path, head, dialect))


def _suffix(rest: str, theirs: str, torch: bool) -> str:
    if not torch:
        return "/" + rest
    *middle, last = rest.split("/")
    joint = "" if theirs.endswith("_") and not middle else "."
    return joint + ".".join([*middle, _SUFFIXES.get(last, last)])


def _is_raw(path: str, head: str, dialect: Dialect) -> bool:
    return path in dialect.raw or re.sub(r"\d+", "*", head) in dialect.raw


def _is_stacked(path: str, dialect: Dialect) -> bool:
    entry = _entry(path, dialect)
    return entry is not None and _PLACE.search(entry[1]) is not None


def _is_left_out(name: str, dialect: Dialect, prefix: str) -> bool:
    if not name.startswith(prefix):
        return True  # another part of the file: another tower, a head, the state of an optimizer
    # Counters of PyTorch's batch norms say nothing about the function.
    patterns = (*dialect.left_out, r".*num_batches_tracked")
    return any(re.fullmatch(pattern, name.removeprefix(prefix)) for pattern in patterns)


class _File(NamedTuple):
    """Arrays by name, the dialect of the names, the family of the tower, and what messages call the file."""

    arrays: Mapping[str, np.ndarray]
    dialect: Dialect
    family: Family
    source: str


def _value(path: str, shape: tuple[int, ...], found: _Source, file: _File, sha: "_Digest") -> tuple[np.ndarray, str]:
    """One of our leaves from the file, and what was resized."""
    one = _one(path, shape, file.dialect)
    rows, note = [], ""
    for name in found.names:
        array = np.asarray(file.arrays[name], np.float32)
        sha.add(name, array)
        ours = _ours(path, array, found, file.dialect)
        if not _merges(one, ours.shape):
            before = ours.shape
            resizer = next(
                (f for end, f in file.family.resize.items() if path == end or path.endswith("/" + end)), None
            )
            try:
                if resizer is None:
                    raise ValueError
                ours = resizer(ours, one)
            except ValueError as error:
                raise Misfit(
                    f"weights {file.source}: found {name} of shape {array.shape}, expected one that makes {path} of "
                    f"{one}; check the tower's preset or options{f' ({error})' if str(error) else ''}"
                ) from None
            note = f"{before} -> {ours.shape}"
        rows.append(ours.reshape(one))
    return (np.stack(rows) if _is_stacked(path, file.dialect) else np.ascontiguousarray(rows[0])), note


def _one(path: str, shape: tuple[int, ...], dialect: Dialect) -> tuple[int, ...]:
    """The shape of a leaf, or of one block of it."""
    return shape[1:] if _is_stacked(path, dialect) else shape


def _ours(path: str, array: np.ndarray, found: _Source, dialect: Dialect) -> np.ndarray:
    """The part of a file's array that is ours, in our layout."""
    if found.part:
        rows = array.shape[0] // found.part[1] if array.ndim else 0
        array = array[found.part[0] * rows : (found.part[0] + 1) * rows]
    return _from_torch(path, array) if dialect.torch and not found.raw else array


def _from_torch(path: str, array: np.ndarray) -> np.ndarray:
    """A layer's array from PyTorch's layout to Flax's: `[out, in]` to `[in, out]`, `[O, I, h, w]` to `[h, w, I, O]`."""
    if not path.endswith("/kernel"):
        return array
    return array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def _to_torch(path: str, array: np.ndarray) -> np.ndarray:
    if path.endswith(("/query/bias", "/key/bias", "/value/bias")):
        return array.reshape(-1)
    if not path.endswith("/kernel"):
        return array
    if path.endswith(("/query/kernel", "/key/kernel", "/value/kernel")):
        array = array.reshape(array.shape[0], -1)
    elif path.endswith("/out/kernel"):
        array = array.reshape(-1, array.shape[-1])
    return array.T if array.ndim == 2 else array.transpose(3, 2, 0, 1)


def _merges(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether both become the same by joining neighbouring axes, as (D, H, d) becomes (D, H * d), or by ones."""
    if math.prod(shape) != math.prod(other):
        return False
    few, many = sorted([[n for n in axes if n != 1] for axes in (shape, other)], key=len)
    for size in few:
        product = 1
        while many and product < size:
            product *= many.pop(0)
        if product != size:
            return False
    return not many


class _Digest:
    """SHA-256 over names, shapes and float32 bytes; a name that is read in parts counts once."""

    def __init__(self) -> None:
        self._of: dict[str, bytes] = {}

    def add(self, name: str, array: np.ndarray) -> None:
        if name not in self._of:
            one = hashlib.sha256(f"{name}{array.shape}".encode())
            one.update(np.ascontiguousarray(array).data)
            self._of[name] = one.digest()

    def hexdigest(self) -> str:
        return hashlib.sha256(b"".join(self._of[name] for name in sorted(self._of))).hexdigest()


def digest(params: Any) -> str:
    """SHA-256 over names, shapes and float32 bytes of a tree of arrays."""
    sha = _Digest()
    for path, leaf in leaves(params).items():
        sha.add(path, np.asarray(leaf, np.float32))
    return sha.hexdigest()


def leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree of dictionaries by ``/``-joined path."""
    return dict(_walk(tree))


def _walk(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, Mapping):
        yield prefix, tree
        return
    for key in sorted(tree):
        yield from _walk(tree[key], f"{prefix}/{key}" if prefix else key)


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `leaves`."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def count(tree: Any) -> int:
    """Numbers in a tree of arrays or shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return "nothing" if not names else ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

"""Accuracy at every taxonomic rank, the hardest groups, and what they are mistaken for."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lit_jax.evaluation.intervals import of_mean, wilson
from lit_jax.text.classes import RANKS, ClassTable

SPECIES = "species"
SHOWN = ("genus", "family", "order", "class", "kingdom")
"""Ranks above the species that are reported, narrowest first."""


class Groups(NamedTuple):
    """The classes put together by one rank.

    Attributes:
        of_class: `[K]` int64, the number of each class's group; -1 where the table does not name it.
        names: of each group.
    """

    of_class: np.ndarray
    names: tuple[str, ...]


def grouped(table: ClassTable, rank: str) -> Groups | None:
    """The classes by a rank, or by any other column; None where the table has no such column, or an empty one.

    Two groups are the same only if all ranks above are too: a genus of plants and one of animals may share a name.
    """
    if rank == SPECIES:
        return Groups(np.arange(len(table)), table.names)
    if rank not in table.columns or not any(table.columns[rank]):
        return None
    above = [r for r in RANKS[: RANKS.index(rank)] if r in table.columns] if rank in RANKS else []
    number: dict[tuple[str, ...], int] = {}
    of_class = [
        number.setdefault((*path, name), len(number)) if name else -1
        for *path, name in zip(*(table.columns[column] for column in (*above, rank)), strict=True)
    ]
    return Groups(np.array(of_class), tuple(path[-1] for path in number))


def accuracy(labels: np.ndarray, best: np.ndarray, groups: Groups) -> dict[str, Any]:
    """How often the species named is of the right group.

    Args:
        labels: `[N]` numbers of the right classes.
        best: `[N, k]` numbers of the classes named, the best first, k at least 1.
        groups: of the classes; photos whose class has none are not counted.

    Returns:
        ``top1`` and ``top5`` (any of the first five species is of the right group) as fractions of the photos;
        ``macro_top1``: the mean over groups of each one's own; of each its ``_interval``, see `intervals`;
        ``groups`` with photos and ``images``.
    """
    labels, best = _known(labels, best, groups)
    right = groups.of_class[best] == groups.of_class[labels][:, None]
    hits = {"top1": right[:, 0], "top5": right[:, :5].any(1)}
    of_photo = groups.of_class[labels]
    images = np.bincount(of_photo, minlength=len(groups.names))
    full = images > 0
    macro = np.bincount(of_photo, weights=hits["top1"], minlength=len(groups.names))[full] / images[full]
    rates = {name: float(values.mean()) if len(values) else 0.0 for name, values in hits.items()}
    return {
        **with_intervals(rates, len(labels)),
        "macro_top1": float(macro.mean()) if full.any() else 0.0,
        "macro_top1_interval": of_mean(macro),
        "groups": int(full.sum()),
        "images": len(labels),
    }


def with_intervals(rates: Mapping[str, float], images: int) -> dict[str, Any]:
    """Shares of so many photos by name, and of each its ``_interval``."""
    return {**rates, **{f"{name}_interval": wilson(share, images) for name, share in rates.items()}}


def taken_for(right: np.ndarray, said: np.ndarray) -> dict[int, list[tuple[int, int]]]:
    """What each class is mistaken for: up to three pairs of another class and how often, the most frequent first.

    Args:
        right: `[N]` integers.
        said: `[N]` integers.
    """
    wrong: dict[int, Counter[int]] = defaultdict(Counter)
    for one, other in zip(right[right != said].tolist(), said[right != said].tolist(), strict=True):
        wrong[one][other] += 1
    return {one: sorted(others.items(), key=lambda pair: (-pair[1], pair[0]))[:3] for one, others in wrong.items()}


def hardest(labels: np.ndarray, best: np.ndarray, groups: Groups) -> list[dict[str, Any]]:
    """Every group with photos, the least often recognised first, and what it is taken for.

    Returns:
        ``name``, ``images``, ``top1``, ``top1_interval`` and ``taken_for``: up to three pairs of a wrong group's name
        and the photos that were said to be of it, the most frequent first.
    """
    labels, best = _known(labels, best, groups)
    right, said = groups.of_class[labels], groups.of_class[best[:, 0]]
    images = np.bincount(right, minlength=len(groups.names))
    hits = np.bincount(right[right == said], minlength=len(groups.names))
    others = taken_for(right, said)
    rows = [
        {
            "name": groups.names[group],
            "images": int(images[group]),
            **with_intervals({"top1": float(hits[group] / images[group])}, int(images[group])),
            "taken_for": [[groups.names[o] if o >= 0 else "unknown", n] for o, n in others.get(group, ())],
        }
        for group in np.flatnonzero(images).tolist()
    ]
    return sorted(rows, key=lambda row: (row["top1"], -row["images"], row["name"]))


def by_column(labels: np.ndarray, best: np.ndarray, rank: np.ndarray, groups: Groups) -> list[dict[str, Any]]:
    """Accuracy of species, one row a group of theirs such as a supercategory, the largest first.

    Returns:
        ``name``, ``images``, ``classes`` (with photos), ``top1``, ``top5`` and ``macro_top1`` over its classes, each
        with its ``_interval``.
    """
    rows = []
    of_photo = groups.of_class[labels]
    each = Groups(np.arange(len(groups.of_class)), ("",) * len(groups.of_class))
    for group, name in enumerate(groups.names):
        here = of_photo == group
        if here.any():
            found = accuracy(labels[here], best[here], each)
            images, classes = found.pop("images"), found.pop("groups")
            top5 = with_intervals({"top5": float((rank[here] < 5).mean())}, images)
            rows.append({"name": name, "images": images, "classes": classes, **found, **top5})
    return sorted(rows, key=lambda row: (-row["images"], row["name"]))


def ceiling(images: np.ndarray, same: Sequence[Sequence[int]]) -> float:
    """The highest top-1 that is possible where classes of a group cannot be told apart.

    Args:
        images: `[K]` photos of each class.
        same: groups of class numbers with equal prompts; of each, at best the class with most photos is right.
    """
    lost = sum(int(images[list(group)].sum() - images[list(group)].max()) for group in same)
    total = int(images.sum())
    return 1 - lost / total if total else 1.0


def _known(labels: np.ndarray, best: np.ndarray, groups: Groups) -> tuple[np.ndarray, np.ndarray]:
    known = groups.of_class[labels] >= 0
    return labels[known], best[known]

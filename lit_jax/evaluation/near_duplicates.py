"""Photos that are nearly the same, found by the features of the locked tower: which photo of one split is in another.

The same photo comes back re-encoded, resized or cut a little: its file differs, its features hardly do. Every photo is
compared with every other one, exactly: block by block, as float32 matrix products of NumPy (XLA's take as long on a
CPU), and what lies near the threshold is computed again in float64. Memory does not grow with the number of photos.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

WITHIN = 0.05
"""One minus the cosine of centred features up to which photos are nearly the same; docs/evaluation.md measures it."""

MOST = 10  # pairs kept a photo
QUERIES, KEYS = 1 << 14, 1 << 11  # rows at a time; scores of a block take 128 MiB
_CHUNK = 256  # rows of a block's scores at a time in which pairs are looked for
_SLACK = 1e-5  # more than float32 errs in a product of two unit vectors
_STILL = 1e-6  # shorter than this share of itself, a centred vector is rounding alone

Tick = Callable[[int, int], None]
_Triple = tuple[np.ndarray, np.ndarray, np.ndarray]  # queries, keys, cosine


class Features(Protocol):
    """Rows of features, in memory or not; `lit_jax.data.embedding_store.Rows` is one."""

    def __len__(self) -> int: ...

    def take(self, rows: np.ndarray) -> np.ndarray:
        """`[n]` row numbers to `[n, W]` of any float type."""
        ...


@dataclass(frozen=True)
class Pairs:
    """Photos that are nearly the same, ordered by query, then from the nearest key on.

    Attributes:
        queries: `[P]` int64 rows.
        keys: `[P]` int64 rows.
        cosine: `[P]` float64 of centred features.
        capped: `[C]` int64, ascending: queries with more near keys than are kept.
    """

    queries: np.ndarray
    keys: np.ndarray
    cosine: np.ndarray
    capped: np.ndarray


def mean_of(features: Features) -> np.ndarray:
    """`[W]` float64, the mean of all rows; of training, the centre for all splits."""
    total: np.ndarray | np.float64 = np.float64(0)
    blocks = 0
    for rows in _blocks(len(features), KEYS):
        total = total + np.asarray(features.take(rows), np.float64).sum(0)
        blocks += len(rows)
    return np.asarray(total / max(blocks, 1))


def near_duplicates(
    queries: Features,
    keys: Features,
    centre: np.ndarray,
    *,
    within: float = WITHIN,
    most: int = MOST,
    tick: Tick | None = None,
) -> Pairs:
    """All pairs of a query and a key whose centred features have a cosine of at least ``1 - within``.

    Features of a tower share most of their direction: behind a ReLU all are positive, and any two photos have a cosine
    of 0.5 or 0.9, as the tower will. What is left when the mean is taken away is what tells photos apart; unrelated
    ones then have a cosine about 0 whatever the tower, so that one threshold means much the same for all.

    Args:
        queries: `[Q, W]`; the smaller of two sets, as each block of it goes through all keys.
        keys: `[M, W]`. The very same object as `queries` asks for pairs within one set: each once, the lower row as
            query, and no row with itself.
        centre: `[W]` float64, taken from both.
        within: from 0 to 1.
        most: keys kept a query, the nearest; of equal ones those of the lower rows.
        tick: told the pairs compared and those there are, now and then.

    Returns:
        The pairs. A photo whose features are the centre itself has none.
    """
    same, found = queries is keys, []
    done, total = 0, sum(len(rows) * (len(keys) - same * int(rows[0])) for rows in _blocks(len(queries), QUERIES))
    for rows in _blocks(len(queries), QUERIES):
        own, kept = _unit(queries.take(rows), centre), _none()
        for others in _blocks(len(keys), KEYS, first=int(rows[0]) if same else 0):
            scores = own @ _unit(keys.take(others), centre).T
            if same and others[0] <= rows[-1]:
                scores[others[None] <= rows[:, None]] = -2
            new = _above(scores, 1 - within - _SLACK, most + 1)
            if len(new[0]):
                new = rows[new[0]], others[new[1]], new[2]
                kept = _nearest(*_joined([kept, new]), most + 1)
            done += scores.size
            if tick:
                tick(done, total)
        found.append(_exact(queries, keys, centre, kept, within))
    return _capped(_joined([_none(), *found]), most)


def _blocks(rows: int, size: int, first: int = 0) -> Iterator[np.ndarray]:
    for start in range(first, rows, size):
        yield np.arange(start, min(start + size, rows))


def _none() -> _Triple:
    return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64)


def _unit(features: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """`[n, W]` float32 unit vectors of centred features; zeros where nothing is left of them."""
    values = np.asarray(features, np.float32)
    before = np.linalg.norm(values, axis=1, keepdims=True)
    values = values - centre.astype(np.float32)
    norm = np.linalg.norm(values, axis=1, keepdims=True)
    values /= np.where(norm > _STILL * before, norm, np.inf)
    return values


def _above(scores: np.ndarray, floor: float, most: int) -> _Triple:
    """Row, column and score of the highest scores from a floor on, so many a row at the most."""
    rows = np.flatnonzero(scores.max(1) >= floor)  # hardly any, so that one pass over the block is all it costs
    found = [_none()]
    for start in range(0, len(rows), _CHUNK):
        some = rows[start : start + _CHUNK]
        near, column = np.nonzero(scores[some] >= floor)
        found.append(_nearest(some[near], column, scores[some[near], column].astype(np.float64), most))
    return _joined(found)


def _nearest(queries: np.ndarray, keys: np.ndarray, cosine: np.ndarray, most: int) -> _Triple:
    """The first pairs of each query, ordered by query, then cosine, then key."""
    order = np.lexsort((keys, -cosine, queries))
    queries, keys, cosine = queries[order], keys[order], cosine[order]
    taken = _place(queries) < most
    return queries[taken], keys[taken], cosine[taken]


def _place(queries: np.ndarray) -> np.ndarray:
    """The number of each pair among those of its query; equal queries stand together."""
    return np.arange(len(queries)) - np.searchsorted(queries, queries)


def _exact(
    queries: Features,
    keys: Features,
    centre: np.ndarray,
    pairs: _Triple,
    within: float,
) -> _Triple:
    """The pairs that keep to the threshold in float64, with that cosine."""
    rows, others, _ = pairs
    cosine = np.empty(len(rows))
    for part in _blocks(len(rows), KEYS):
        one, other = (
            np.asarray(of.take(at[part]), np.float64) - centre for of, at in ((queries, rows), (keys, others))
        )
        cosine[part] = (one * other).sum(1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))
    taken = cosine >= 1 - within
    return rows[taken], others[taken], cosine[taken]


def _joined(triples: Sequence[_Triple]) -> _Triple:
    queries, keys, cosine = map(np.concatenate, zip(*triples, strict=True))
    return queries, keys, cosine


def _capped(pairs: _Triple, most: int) -> Pairs:
    queries, keys, cosine = _nearest(*pairs, most + 1)
    place = _place(queries)
    taken = place < most
    return Pairs(queries[taken], keys[taken], cosine[taken], np.unique(queries[place == most]))

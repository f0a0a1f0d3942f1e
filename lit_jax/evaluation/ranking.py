"""Ranks the classes for each photo, a block of photos at a time, and computes the likelihoods that calibration needs.

All from embeddings `[N, D]` and `[K, D]`, in blocks of rows that go over the mesh, so that 100,000 photos by 10,000
classes take the memory of one block. Ties are exact: of equal scores the class with the lower number comes first, and
classes with equal embeddings have equal scores whatever a matrix product does at its edges.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lit_jax.base.sharding import filled_blocks, local_rows, over_batch, put_batch, put_rows
from lit_jax.evaluation.gzsl import Rivals
from lit_jax.evaluation.metrics import KS, TopK, hits_of

BLOCK = 1024  # photos at a time


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Answers for N photos.

    Attributes:
        labels: `[N]` int64, number of the right class.
        best: `[N, k]` int32, numbers of the classes with the highest scores, the highest first.
        rank: `[N]` int32, how many classes come before the right one.
        classes: K, how many there were to choose from.
    """

    labels: np.ndarray
    best: np.ndarray
    rank: np.ndarray
    classes: int

    def hits(self) -> TopK:
        """The hits of each class."""
        return hits_of(self.rank, self.labels, self.classes)


@dataclasses.dataclass(frozen=True)
class Likelihoods:
    """How sure a softmax over the classes is, at one factor of the similarities.

    Attributes:
        confidence: `[N]` float64, probability of the best class.
        loss: `[N]` float64, minus the logarithm of that of the right class.
        slope: `[N]` float64, derivative of the loss by the factor.
    """

    confidence: np.ndarray
    loss: np.ndarray
    slope: np.ndarray


def predict(
    photos: np.ndarray, labels: np.ndarray, classes: np.ndarray, mesh: Mesh, *, k: int = max(KS),
    less: np.ndarray | None = None,
) -> Predictions:  # fmt: skip
    """Ranks the classes for each photo by the product of their embeddings.

    Args:
        photos: `[N, D]` float32.
        labels: `[N]` integers, number of the right class.
        classes: `[K, D]` float32.
        mesh: devices; blocks are split over them.
        k: how many of the best to name; fewer if there are fewer classes.
        less: `[K]` float32, what is taken from the scores of each class, see `lit_jax.evaluation.gzsl`; None for 0.
    """
    best, rank = _by_block(_named(min(k, len(classes))), photos, labels, put_classes(classes, mesh, less), mesh)
    return Predictions(np.asarray(labels, np.int64), best.astype(np.int32), rank.astype(np.int32), len(classes))


class Classes(NamedTuple):
    """Class embeddings on the devices; equal ones once, so that their scores are equal whatever a product does.

    Attributes:
        distinct: `[U, D]` float32.
        columns: `[K]` int32, which of them each class has; None if all differ.
        less: `[K]` float32, what is taken from the scores of each class; None for nothing.
    """

    distinct: jax.Array
    columns: jax.Array | None
    less: jax.Array | None = None


def put_classes(classes: np.ndarray, mesh: Mesh, less: np.ndarray | None = None) -> Classes:
    """Class embeddings `[K, D]` and what is taken from their scores `[K]`, whole on each device."""
    off = None if less is None else put_rows(np.asarray(less, np.float32), mesh, split=False)
    distinct, column = np.unique(classes, axis=0, return_inverse=True)
    if len(distinct) == len(classes):
        return Classes(put_rows(classes, mesh, split=False), None, off)
    columns = put_rows(column.reshape(-1).astype(np.int32), mesh, split=False)
    return Classes(put_rows(distinct, mesh, split=False), columns, off)


def rivals(photos: jax.Array, labels: np.ndarray, classes: Classes, seen: jax.Array, mesh: Mesh) -> Rivals:
    """The best seen and the best unseen species of photos that are on the devices already.

    Args:
        photos: `[B, D]` float32, of all hosts.
        labels: `[B / hosts]` integers, of this host's photos.
        classes: from `put_classes`, K of them.
        seen: `[K]` bool, whole on each device: the species of training.
        mesh: the devices.

    Returns:
        Of this host's photos.
    """
    on_device = put_batch({"labels": np.asarray(labels, np.int32)}, mesh)["labels"]
    found = [local_rows(x) for x in _answering(_compared, mesh)(photos, on_device, classes, seen)]
    return Rivals(found[0].astype(np.float64), found[1], found[2], found[3], np.asarray(labels, np.int64))


def all_rivals(photos: np.ndarray, labels: np.ndarray, classes: np.ndarray, seen: np.ndarray, mesh: Mesh) -> Rivals:
    """`rivals` of any number of photos `[N, D]` that are not on the devices; classes `[K, D]`, seen `[K]` bool."""
    mask = put_rows(np.asarray(seen, bool), mesh, split=False)
    found = _by_block(_compared, photos, labels, put_classes(classes, mesh), mesh, mask)
    return Rivals(found[0].astype(np.float64), found[1], found[2], found[3], np.asarray(labels, np.int64))


def ranks(photos: jax.Array, labels: np.ndarray, classes: Classes, mesh: Mesh) -> np.ndarray:
    """How many classes come before the right one, for photos that are on the devices already.

    Args:
        photos: `[B, D]` float32, of all hosts.
        labels: `[B / hosts]` integers, of this host's photos.
        classes: from `put_classes`.
        mesh: the devices.

    Returns:
        `[B / hosts]` integers, of this host's photos.
    """
    on_device = put_batch({"labels": np.asarray(labels, np.int32)}, mesh)["labels"]
    return local_rows(_answering(_ranked, mesh)(photos, on_device, classes)[0])


def likelihoods(
    photos: np.ndarray, labels: np.ndarray, classes: np.ndarray, mesh: Mesh, *, factor: float,
    less: np.ndarray | None = None,
) -> Likelihoods:  # fmt: skip
    """What the softmax of `factor` times the scores says of each photo; arguments as for `predict`."""
    found = _by_block(_likely, photos, labels, put_classes(classes, mesh, less), mesh, jnp.float32(factor))
    return Likelihoods(*(values.astype(np.float64) for values in found))


def scores(photos: jax.Array, classes: Classes, mesh: Mesh) -> np.ndarray:
    """The scores by which `predict` ranks the classes, of photos that are on the devices already.

    Args:
        photos: `[B, D]` float32, of all hosts.
        classes: from `put_classes`, K of them.
        mesh: the devices.

    Returns:
        `[B / hosts, K]` float32, of this host's photos.
    """
    labels = put_batch({"labels": np.zeros(len(photos), np.int32)}, mesh)["labels"]  # that nobody asks for
    return local_rows(_answering(_scored, mesh)(photos, labels, classes)[0])


@functools.cache
def _named(k: int) -> Callable[..., tuple[jax.Array, ...]]:
    """Numbers of the k best classes, and the rank of the right one, from the scores of a block."""

    def answer(scores: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.lax.top_k(scores, k)[1], *_ranked(scores, label)

    return answer


def _scored(scores: jax.Array, _: jax.Array) -> tuple[jax.Array]:
    """The scores of a block as they are."""
    return (scores,)


def _ranked(scores: jax.Array, label: jax.Array) -> tuple[jax.Array]:
    """How many classes come before the right one, from the scores of a block."""
    own = jnp.take_along_axis(scores, label[:, None], 1)
    before = jnp.arange(scores.shape[1])[None] < label[:, None]
    return (jnp.sum((scores > own) | ((scores == own) & before), 1),)


def _compared(scores: jax.Array, label: jax.Array, seen: jax.Array) -> tuple[jax.Array, ...]:
    """The first four parts of `Rivals` from the scores of a block."""
    sides = [jnp.where(mask[None], scores, -jnp.inf) for mask in (seen, ~seen)]
    best, named = zip(*((jnp.max(side, 1), jnp.argmax(side, 1)) for side in sides), strict=True)
    # Where there is no species of one kind, the other's is named whatever the margin.
    gap = jnp.clip(best[0] - best[1], -1e3, 1e3)
    return gap, named[0] == label, named[1] == label, seen[label]


def _likely(scores: jax.Array, label: jax.Array, factor: jax.Array) -> tuple[jax.Array, ...]:
    """The three parts of `Likelihoods` from the scores of a block."""
    own = jnp.take_along_axis(scores, label[:, None], 1)
    # About the best score, so that no exponential overflows.
    top = jnp.max(scores, 1, keepdims=True)
    weights = jnp.exp(factor * (scores - top))
    total = jnp.sum(weights, 1, keepdims=True)
    mean = jnp.sum(weights * (scores - top), 1, keepdims=True) / total
    loss = jnp.log(total) + factor * (top - own)
    return tuple(x[:, 0] for x in (1 / total, loss, mean + top - own))


def _by_block(
    answer: Callable[..., tuple[jax.Array, ...]],
    photos: np.ndarray,
    labels: np.ndarray,
    keys: Classes,
    mesh: Mesh,
    *more: jax.Array,
) -> list[np.ndarray]:
    """`answer` of the scores of each block of photos, put together."""
    function = _answering(answer, mesh)
    blocks = []
    size = -(-min(BLOCK, len(photos)) // mesh.size) * mesh.size
    for rows, length in filled_blocks(len(photos), size):
        batch = put_batch({"photos": photos[rows], "labels": np.asarray(labels, np.int32)[rows]}, mesh)
        found = function(batch["photos"], batch["labels"], keys, *more)
        blocks.append([local_rows(x)[:length] for x in found])
    return [np.concatenate(parts) for parts in zip(*blocks, strict=True)]


@functools.cache  # the search for a temperature asks many times, and must compile once
def _answering(answer: Callable[..., tuple[jax.Array, ...]], mesh: Mesh) -> Callable[..., tuple[jax.Array, ...]]:
    def of_block(photos: jax.Array, labels: jax.Array, keys: Classes, *more: jax.Array) -> tuple[jax.Array, ...]:
        # Whatever the hardware does by default: ranking must not depend on the place where it is done.
        scores = jnp.matmul(photos, keys.distinct.T, precision=jax.lax.Precision.HIGHEST)
        scores = scores if keys.columns is None else scores[:, keys.columns]
        return answer(scores if keys.less is None else scores - keys.less[None], labels, *more)

    return jax.jit(of_block, out_shardings=over_batch(mesh))

"""Supervised baselines on the features of an embedding store: a linear probe and nearest neighbours.

The supervised yardsticks beside which zero-shot accuracy is read: a linear probe (logistic regression on the frozen
features, as in the supervised rows of the paper's Table 1) and nearest neighbours (with
the votes of DINO, arXiv 2104.14294), from all labels and from a few photos a species. TensorFlow is not needed.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lit_jax.base.sharding import filled_blocks
from lit_jax.data.embedding_store import Rows, Store
from lit_jax.errors import UserError
from lit_jax.evaluation.metrics import TopK, top_k

DECAYS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Weights of the squared norm that are tried; the one that does best on training photos set aside is taken."""

TEMPERATURE = 0.07  # of the votes of neighbours
ASIDE = 4  # photos a class, at the most, on which a few-shot probe chooses its decay
BLOCK, KEYS = 2048, 1 << 16  # rows at a time


class Labelled(NamedTuple):
    """Features with their classes.

    Attributes:
        features: `[N, W]` of any float type.
        labels: `[N]` int64, number of the class.
    """

    features: np.ndarray
    labels: np.ndarray

    def take(self, rows: np.ndarray) -> "Labelled":
        """The features and labels of some rows."""
        return Labelled(self.features[rows], self.labels[rows])


class Linear(NamedTuple):
    """A fitted probe: class scores are ``(features - mean) / std @ kernel + bias``.

    Attributes:
        mean: `[W]` of the training features.
        std: `[W]` likewise; 1 where a feature never moves.
        kernel: `[W, K]`.
        bias: `[K]`.
    """

    mean: jax.Array
    std: jax.Array
    kernel: jax.Array
    bias: jax.Array


def fit(data: Labelled, classes: int, decay: float, *, steps: int = 200, tolerance: float = 1e-5) -> Linear:
    """Logistic regression by L-BFGS over all photos, so that nothing depends on an order or a rate.

    Least is the mean cross entropy plus half of `decay` times the squared norm of the kernel; the bias is free.

    Args:
        data: to learn from.
        classes: K.
        decay: more than 0.
        steps: at the most.
        tolerance: ends when no entry of the gradient is greater.
    """
    mean, std = _moments(data.features)
    problem = _Problem(mean, std, *_in_blocks(data), jnp.float32(decay))
    weights = (jnp.zeros((data.features.shape[1], classes)), jnp.zeros(classes))
    state = optax.lbfgs().init(weights)
    for _ in range(steps):
        weights, state, largest = _step(problem, weights, state)
        if float(largest) <= tolerance:
            break
    return Linear(mean, std, *weights)


class _Problem(NamedTuple):
    """The function that a fit minimises; see `_in_blocks`. One jitted step takes it, so that it is compiled once."""

    mean: jax.Array
    std: jax.Array
    features: jax.Array
    labels: jax.Array
    counts: jax.Array
    decay: jax.Array


def _loss(problem: _Problem, weights: tuple[jax.Array, jax.Array]) -> jax.Array:
    probe = Linear(problem.mean, problem.std, *weights)

    @jax.checkpoint  # scores of one block at a time are held, in the backward pass too
    def of_block(features: jax.Array, labels: jax.Array, counts: jax.Array) -> jax.Array:
        scores = _scores(probe, features)
        own = jnp.take_along_axis(scores, labels[:, None], 1)[:, 0]
        return jnp.sum(counts * (jax.nn.logsumexp(scores, 1) - own))

    blocks = (problem.features, problem.labels, problem.counts)
    total, _ = jax.lax.scan(lambda sum_, block: (sum_ + of_block(*block), None), jnp.float32(0), blocks)
    return total / jnp.sum(problem.counts) + problem.decay / 2 * jnp.sum(probe.kernel**2)


@jax.jit
def _step(problem: _Problem, weights: Any, state: Any) -> tuple[Any, Any, jax.Array]:
    """One step of L-BFGS, and the largest entry of the gradient before it."""
    loss = functools.partial(_loss, problem)
    value, gradient = optax.value_and_grad_from_state(loss)(weights, state=state)
    updates, state = optax.lbfgs().update(gradient, state, weights, value=value, grad=gradient, value_fn=loss)
    largest = functools.reduce(jnp.maximum, [jnp.max(jnp.abs(leaf)) for leaf in gradient])
    return optax.apply_updates(weights, updates), state, largest


def linear_probe(train: Labelled, aside: Labelled, test: Labelled, classes: int, *, refit: bool) -> tuple[TopK, float]:
    """Fits a probe for each of `DECAYS`, takes the best on `aside`, and judges it on `test`.

    Args:
        train: to learn from.
        aside: other training photos, to choose the decay; of equally good ones the larger is taken.
        test: to be judged on.
        classes: K.
        refit: whether the chosen probe learns from both before it is judged.

    Returns:
        Its hits, and the decay.
    """
    probes = {decay: fit(train, classes, decay) for decay in DECAYS}
    hits = {decay: judged(probe, aside).summary()["top1"] for decay, probe in probes.items()}
    best = max(DECAYS, key=lambda decay: (hits[decay], decay))
    both = Labelled(*(np.concatenate(parts) for parts in zip(train, aside, strict=True)))
    return judged(fit(both, classes, best) if refit else probes[best], test), best


def judged(probe: Linear, data: Labelled) -> TopK:
    """Hits of a linear probe."""
    return _counted(lambda features: np.asarray(_scores(probe, features)), data)


def nearest(train: Labelled, test: Labelled, classes: int, neighbours: int) -> TopK:
    """Hits of a vote of the nearest training photos, by cosine, each with the weight exp(cosine / 0.07).

    Args:
        train: the photos to look among.
        test: the photos to name.
        classes: K.
        neighbours: how many vote; of equally near ones those that come first.
    """
    number = min(neighbours, len(train.labels))
    keys, labels = _unit(train.features), jnp.asarray(train.labels, jnp.int32)

    def scores(features: jax.Array) -> np.ndarray:
        queries = _unit(features)
        best, rows = jnp.full((len(queries), number), -jnp.inf), jnp.zeros((len(queries), number), jnp.int32)
        for first in range(0, len(keys), KEYS):
            best, rows = _nearer(queries, keys[first : first + KEYS], first, best, rows)
        return np.asarray(_votes(best, labels[rows], classes))

    return _counted(scores, test)


@jax.jit
def _nearer(features: jax.Array, part: jax.Array, first: int, best: jax.Array, rows: jax.Array) -> Any:
    """The nearest of those known, `[B, k]` cosines and row numbers, and of a part of the photos to look among."""
    found = jnp.matmul(features, part.T, precision=jax.lax.Precision.HIGHEST)
    numbers = jnp.broadcast_to(first + jnp.arange(len(part))[None], found.shape)
    best, chosen = jax.lax.top_k(jnp.concatenate([best, found], 1), best.shape[1])
    return best, jnp.take_along_axis(jnp.concatenate([rows, numbers], 1), chosen, 1)


@functools.partial(jax.jit, static_argnums=2)
def _votes(best: jax.Array, labels: jax.Array, classes: int) -> jax.Array:
    """`[B, K]`: what the nearest photos, of `[B, k]` cosines and labels, give each class."""
    weights = jnp.exp((best - best[:, :1]) / TEMPERATURE)
    queries = jnp.broadcast_to(jnp.arange(len(labels))[:, None], labels.shape)
    return jnp.zeros((len(labels), classes)).at[queries, labels].add(weights)


def drawn(labels: np.ndarray, shots: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of `shots` photos of each class, and of others to choose a probe's decay on.

    Args:
        labels: `[N]` integers.
        shots: photos a class, or 0 for all: then a fifth of each class is set aside, or one photo of each that has two
            where no class has five.
        seed: of the draw.

    Raises:
        UserError: a class with fewer photos than are asked for; no class that has two.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    of_class = np.split(by_class, np.flatnonzero(np.diff(labels[by_class])) + 1)
    largest = max(map(len, of_class))
    if largest < 2:
        raise UserError(
            "training photos: found one of each class, expected two of one to choose the probe's decay on; give more"
        )
    take, aside = [], []
    for rows in of_class:
        if len(rows) <= shots:
            raise UserError(
                f"--shots: found a class of {len(rows)} training photos, expected more than {shots} of "
                "each; ask for fewer"
            )
        first = shots or len(rows) - (len(rows) // 5 if largest >= 5 else min(len(rows) // 2, 1))
        take.append(rows[:first])
        aside.append(rows[first : first + min(shots, ASIDE)] if shots else rows[first:])
    return np.sort(np.concatenate(take)), np.sort(np.concatenate(aside))


class Yardsticks(NamedTuple):
    """From how many labels, and by how many neighbours.

    Attributes:
        shots: photos a class to learn from; 0 for all.
        draws: how often few photos are drawn; all photos are taken once.
        neighbours: how many vote, one yardstick each.
        seed: of the draws.
    """

    shots: Sequence[int] = (0,)
    draws: int = 3
    neighbours: Sequence[int] = (1, 5, 20)
    seed: int = 0


def probe(
    train: Labelled,
    test: Labelled,
    classes: int,
    yardsticks: Yardsticks,
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """All baselines, from all labels and from a few.

    Args:
        train: the training photos.
        test: the photos to be judged on.
        classes: K.
        yardsticks: which.
        tell: hears a line as each result comes.

    Returns:
        One row a method and number of shots: ``method``, ``shots`` (0: all), ``labels`` (photos learnt from), and mean
        and standard deviation over draws of ``top1``, ``top5`` and ``mean_per_class_top1``.

    Raises:
        UserError: as `drawn`.
    """
    rows = []
    for number in yardsticks.shots:
        found: dict[str, list[TopK]] = {}
        learnt = 0
        for draw in range(yardsticks.draws if number else 1):
            taken, aside = (train.take(rows) for rows in drawn(train.labels, number, yardsticks.seed + draw))
            hits, decay = linear_probe(taken, aside, test, classes, refit=not number)
            found.setdefault("linear probe", []).append(hits)
            pool = taken if number else train
            learnt = len(pool.labels)
            for k in dict.fromkeys(min(k, learnt) for k in yardsticks.neighbours):
                found.setdefault(_named(k), []).append(nearest(pool, test, classes, k))
            share = 100 * hits.summary()["top1"]
            tell(f"{number or 'all'} photos a class, draw {draw + 1}: linear probe {share:.2f} %, decay {decay:g}")
        rows += [
            {"method": name, "shots": number, "labels": learnt, **_over_draws(hits)} for name, hits in found.items()
        ]
    return rows


def _named(neighbours: int) -> str:
    return f"{neighbours} nearest neighbours" if neighbours > 1 else "nearest neighbour"


def _over_draws(hits: Sequence[TopK]) -> dict[str, Any]:
    every = [{**one.summary(), "mean_per_class_top1": float(np.nanmean(one.per_class()[:, 0]))} for one in hits]
    out: dict[str, Any] = {"draws": len(hits)}
    for name in ("top1", "top5", "mean_per_class_top1"):
        values = [one[name] for one in every]
        out |= {name: float(np.mean(values)), f"{name}_sd": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0}
    return out


def _moments(features: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Mean and deviation of each feature in float64, block by block."""
    total = np.zeros((2, features.shape[1]))
    for start in range(0, len(features), KEYS):
        block = np.asarray(features[start : start + KEYS], np.float64)
        total += np.stack([block.sum(0), (block**2).sum(0)])
    mean, square = total / len(features)
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return jnp.float32(mean), jnp.float32(np.where(std > 1e-6 * np.abs(mean) + 1e-12, std, 1))


def _in_blocks(data: Labelled) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Features, labels and weights as `[blocks, rows, ...]`; rows that fill up the last block weigh nothing."""
    rows = min(BLOCK, len(data.labels))
    number = -(-len(data.labels) // rows)
    where = np.minimum(np.arange(number * rows), len(data.labels) - 1).reshape(number, rows)
    counts = (np.arange(number * rows) < len(data.labels)).reshape(number, rows)
    features = jnp.asarray(data.features[where])
    return features, jnp.asarray(data.labels[where], jnp.int32), jnp.asarray(counts, jnp.float32)


@jax.jit
def _scores(probe: Linear, features: jax.Array) -> jax.Array:
    standard = (features.astype(jnp.float32) - probe.mean[None]) / probe.std[None]
    return jnp.matmul(standard, probe.kernel, precision=jax.lax.Precision.HIGHEST) + probe.bias[None]


def _unit(features: np.ndarray | jax.Array) -> jax.Array:
    values = jnp.asarray(features).astype(jnp.float32)
    return values / jnp.maximum(jnp.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def _counted(scores: Callable[[jax.Array], np.ndarray], data: Labelled) -> TopK:
    """Hits over all photos, a block at a time; the last block is filled up, so that one shape is compiled."""
    parts = []
    for rows, count in filled_blocks(len(data.labels), min(BLOCK, len(data.labels))):
        mask = np.arange(len(rows)) < count
        parts.append(top_k(scores(jnp.asarray(data.features[rows])), data.labels[rows], mask))
    return functools.reduce(TopK.__add__, parts)


def read_labelled(store: Store, split: str, class_ids: Sequence[int]) -> Labelled:
    """Plain views of a split, and the number of each one's class among `class_ids`.

    Raises:
        UserError: no such split, or a class that is not among them.
    """
    rows = Rows(store, split)
    row_of = {class_id: row for row, class_id in enumerate(class_ids)}
    unknown = sorted(set(rows.class_ids.tolist()) - row_of.keys())
    if unknown:
        raise UserError(
            f"--split {split}: found photos of class id {unknown[0]}, which has none to learn from, expected classes "
            "of the training split; choose a split of the same species"
        )
    labels = np.array([row_of[class_id] for class_id in rows.class_ids.tolist()])
    return Labelled(rows.take(np.arange(len(rows))), labels)

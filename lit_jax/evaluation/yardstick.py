"""What words alone give on the features of a store: the closed form, beside every figure of species without a photo."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lit_jax.data.embedding_store import DTYPES, Rows, Store
from lit_jax.data.inner_holdouts import enough
from lit_jax.evaluation import closed_form, gzsl
from lit_jax.evaluation.closed_form import SHRINKAGES, Photos
from lit_jax.text.classes import RANKS, ClassTable
from lit_jax.text.units import NONE, encode, vocabulary

WAYS = {"photos as they are": (1.0,), "photos whitened": SHRINKAGES}
"""Two forms of the closed form by the whitenings that it may choose among."""


MOST_BYTES = 4 << 30
"""What `measure` may hold at once: it is a line beside a figure, which is not to cost more memory than the figure."""


def kinds_of(table: ClassTable) -> dict[str, np.ndarray]:
    """What a class table says of its classes, each kind `[K, F]`: whole ranks, words of the names, letters in a row."""
    return {name: sets_of(texts, kind) for name, (texts, kind) in _texts_of(table).items()}


def _texts_of(table: ClassTable) -> dict[str, tuple[list[str], str]]:
    """Texts of each class, and the kind of their units, by the name that `kinds_of` gives them."""
    names = [" ".join(row.get(column, "") for column in ("common_name", "name")) for row in table.rows()]
    columns = [c for c in (*RANKS, "name") if any(table.columns.get(c, ())) and len(set(table.columns[c])) > 1]
    ranks = [", ".join(row[column] for column in columns) for row in table.rows()]
    return {
        "ranks": (ranks, "phrases"),
        "words of the names": (names, "words"),
        "letters of the names": (names, "letters"),
    }


def sets_of(texts: Sequence[str], kind: str) -> np.ndarray:
    """`[K, F]` float64: which of the units of all texts each text has, unit vectors if there are few enough of them."""
    known = vocabulary(texts, (kind,))
    numbers = encode(texts, (kind,), known)
    there = np.zeros((len(texts), len(known[0]) + 1))
    rows = np.broadcast_to(np.arange(len(texts))[:, None], numbers.shape)
    np.add.at(there, (rows[numbers != NONE], numbers[numbers != NONE]), 1)
    return there[:, :-1] / np.sqrt(np.maximum(there.sum(1, keepdims=True), 1))


def mixed(kinds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The kinds alone, and all pairs of them in equal parts."""
    names = list(kinds)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    both = {f"{a} and {b}": closed_form.joined(kinds[a], kinds[b]) for a, b in pairs}
    return {name: closed_form.unit(np.asarray(one, np.float64)) for name, one in kinds.items()} | both


def why_not(store: Store, table: ClassTable, splits: tuple[str, str, str]) -> str:
    """Why `measure` is left out, a clause: too few species to hold some out, or too many; empty if it is not."""
    if not enough(len({table.species_of[class_id] for class_id in store.classes_in(splits[0])})):
        return "too few species in training to hold some out inside"
    held = bytes_held(store, table, splits)
    return "" if held <= MOST_BYTES else f"{held / 2**30:,.0f} GiB to hold at once, more than {MOST_BYTES >> 30}"


def bytes_held(store: Store, table: ClassTable, splits: tuple[str, str, str]) -> int:
    """About what `measure` holds at once: words of all kinds and pairs of kinds, features, and scores."""
    units = [len(vocabulary(texts, (kind,))[0]) for texts, kind in _texts_of(table).values()]
    # Each kind as it was made, as a unit vector, and in a pair with each of the others.
    words = 8 * len(table) * sum(units) * (len(units) + 1)
    learnt, *named = (store.examples(split) for split in splits)
    item = np.dtype(DTYPES[store.dtype]).itemsize
    return words + item * store.width * (learnt + sum(named)) + 8 * sum(named) * (store.width + len(table))


def measure(
    store: Store, table: ClassTable, splits: tuple[str, str, str], kinds: Mapping[str, np.ndarray], *, seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:  # fmt: skip
    """The closed form on species without a photo: kind of words, whitening, penalty and margin by inner hold-outs.

    Args:
        store: of the features.
        table: its classes.
        splits: to learn from; of other photos of the same species; of species that are not learnt from.
        kinds: what is known of the classes in words, `[K, F]` each, in the order of the table.
        seed: of the inner hold-outs.
        tell: hears of progress.

    Returns:
        One row for each of `WAYS`: ``method``, ``words``, ``whitening``, ``penalty``, ``inner`` (accuracy of the
        classes held out inside, and ``inner_all`` of every kind), ``top1`` among the species of the last split,
        ``chance``, and ``gzsl`` as `lit_jax.evaluation.gzsl.summary`.

    Raises:
        UserError: too few species for inner hold-outs, see `why_not`.
    """
    row_of = {class_id: table.index_of(table.species_of[class_id]) for class_id in table.ids}
    features, labels = [], []
    for split in splits:
        rows = Rows(store, split)
        features.append(rows.take(np.arange(len(rows))))
        labels.append(np.array([row_of[class_id] for class_id in rows.class_ids.tolist()]))
    photos, words_of, found = Photos(features[0], labels[0]), mixed(kinds), []
    classes = np.unique(np.concatenate(labels))
    seen = np.isin(classes, np.concatenate(labels[:2]))
    # The inner hold-outs are made once: photos as they are stand among all whitenings.
    every = tuple(dict.fromkeys(shrinkage for way in WAYS.values() for shrinkage in way))
    tried = closed_form.try_out(photos, words_of, shrinkages=every, seed=seed, tell=tell)
    for way, shrinkages in WAYS.items():
        choices = closed_form.best_of(tried, shrinkages)
        best = choices[0]
        words = words_of[best.words]
        solved = closed_form.solve(photos, words, shrinkage=best.shrinkage, penalty=best.penalty)
        scores = solved.images(np.concatenate(features[1:])) @ solved.classes(words[classes]).T
        rivals = closed_form.rivals_of(scores, np.concatenate(labels[1:]), classes, seen)
        found.append({
            "method": f"closed form, {way}", "words": best.words, "whitening": 1 - best.shrinkage,
            "penalty": best.penalty, "inner": best.top1, "inner_all": {one.words: one.top1 for one in choices},
            "top1": float(np.mean(rivals.unseen_right[~rivals.of_seen])), "chance": 1 / max(int((~seen).sum()), 1),
            "gzsl": gzsl.summary(rivals, best.margin) | {"harmonic_inside": best.harmonic},
        })  # fmt: skip
    return found

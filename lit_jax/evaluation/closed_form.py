"""Words to photos without a gradient: a ridge regression from what is known of a class in words to its mean photo.

The features of photos are centred, scaled to norm 1 and, if that helps, whitened by their scatter within classes
(Fisher's linear discriminant); a class is the mean of its photos. A linear map from words to these means is fitted on
the classes with photos, and gives a vector to any class that has words. It takes seconds, and is the yardstick of every
figure of species without a photo; `lit_jax.training` can begin where it ends.

Everything is chosen by *inner hold-outs*: some of the classes that have photos are set aside in turn, and are named
from their words by what the others taught. Sources: ridge regression from attributes, Romera-Paredes & Torr 2015, "An
embarrassingly simple approach to zero-shot learning"; its dual form with kernels is that of Gaussian processes. NumPy
alone, in float64.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from lit_jax.data.inner_holdouts import FOLDS, enough
from lit_jax.errors import UserError
from lit_jax.evaluation.gzsl import Rivals, best_margin, curve

PENALTIES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Of the ridge, beside kernels whose diagonal is 1."""
SHRINKAGES = (1.0, 0.9, 0.7, 0.5, 0.3)
"""How far the scatter within classes is drawn to that of a ball before whitening; 1 leaves features as they are."""
PER_CLASS, SCATTER = 30, 200_000  # photos of a class that are named, and of all whose scatter is taken, at the most
MOST_CLASSES, MOST_PHOTOS = 2000, 100_000  # that inner hold-outs are made of
NO_SCATTER = 1e-12  # of unit vectors, a direction: one row a class has none, and nothing to whiten by
ROWS = 1 << 14  # photos at a time


class Images(NamedTuple):
    """How the features of a photo become a vector in which classes are compared: ``unit((x - centre) @ kernel)``.

    Attributes:
        centre: `[W]` float64.
        kernel: `[W, D]` float64.
    """

    centre: np.ndarray
    kernel: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Unit vectors `[N, D]` of features `[N, W]`."""
        return np.concatenate(
            [
                unit((np.asarray(features[start : start + ROWS], np.float64) - self.centre) @ self.kernel)
                for start in range(0, len(features), ROWS)
            ]
        )


class Solution(NamedTuple):
    """A whole closed form.

    Attributes:
        images: of photos.
        kernel: `[F, D]` float64, of words.
        bias: `[D]` float64, the mean of the classes' means.
    """

    images: Images
    kernel: np.ndarray
    bias: np.ndarray

    def classes(self, words: np.ndarray) -> np.ndarray:
        """Unit vectors `[K, D]` of the words of classes `[K, F]`."""
        return unit(words @ self.kernel + self.bias)


class Choice(NamedTuple):
    """What inner hold-outs chose, or may choose among.

    Attributes:
        words: name of the kind of words.
        shrinkage: see `SHRINKAGES`.
        penalty: see `PENALTIES`.
        top1: mean accuracy among the classes held out inside.
        margin: for seen classes, with which the folds' mean harmonic mean is greatest, see `lit_jax.evaluation.gzsl`.
        harmonic: that mean.
        ausuc: mean over the folds.
    """

    words: str
    shrinkage: float
    penalty: float
    top1: float
    margin: float
    harmonic: float
    ausuc: float


Tried = dict[tuple[float, float], list[Rivals]]
"""What each inner hold-out gave, by shrinkage and penalty."""


@dataclasses.dataclass(frozen=True)
class Photos:
    """Photos of the training split by class.

    Attributes:
        features: `[N, W]` of any float type.
        labels: `[N]` int64, row of each photo's class among the words.
    """

    features: np.ndarray
    labels: np.ndarray

    @property
    def classes(self) -> np.ndarray:
        """Rows of the classes with photos, ascending."""
        return np.unique(self.labels)


class Fold(NamedTuple):
    """Which classes one inner hold-out leaves out, and which photos of the others are not learnt from.

    Attributes:
        learnt: `[N]` bool, photos that are learnt from.
        aside: `[N]` bool, photos of the same classes that are named only.
        heldout: `[N]` bool, photos of classes that are not learnt from.
    """

    learnt: np.ndarray
    aside: np.ndarray
    heldout: np.ndarray


def folds_of(labels: np.ndarray, *, folds: int = FOLDS, seed: int = 0) -> list[Fold]:
    """Inner hold-outs: each class is held out once, and of the others a part of the photos is set aside.

    Args:
        labels: `[N]` integers.
        folds: how many.
        seed: of the draw.

    Raises:
        UserError: fewer than two classes a fold, see `enough`.
    """
    classes = np.unique(labels)
    if not enough(len(classes), folds):
        raise UserError(
            f"inner hold-outs: found {len(classes)} classes with photos, expected {2 * folds} or more for {folds} "
            "parts of two; bring photos of more, or hold out fewer"
        )
    rng = np.random.default_rng(seed)
    part_of = dict(zip(rng.permutation(classes).tolist(), np.arange(len(classes)) % folds, strict=True))
    of_class = np.array([part_of[label] for label in labels.tolist()])
    of_photo = rng.permutation(len(labels)) % folds
    return [_fold(labels, of_class == k, of_photo == k) for k in range(folds)]


def _fold(labels: np.ndarray, heldout: np.ndarray, aside: np.ndarray) -> Fold:
    aside = aside & ~heldout
    # A class whose photos are all set aside, such as one with a single row of a classifier's head, is learnt from.
    aside &= np.isin(labels, labels[~heldout & ~aside])
    return Fold(~heldout & ~aside, aside, heldout)


def solve(photos: Photos, words: np.ndarray, *, shrinkage: float, penalty: float, dims: int = 0) -> Solution:
    """The closed form from all photos.

    Args:
        photos: to learn from.
        words: `[K, F]` of all classes; rows of classes without photos are not read.
        shrinkage: see `SHRINKAGES`.
        penalty: see `PENALTIES`; more than 0.
        dims: D; 0 for W. Fewer keep the directions in which photos differ most.
    """
    whitened = _Whitened.of(photos, photos.features.mean(0, dtype=np.float64))
    images = whitened.at(shrinkage, dims)
    classes = photos.classes
    averaging, means = _averaging(photos.labels, classes), np.zeros((len(classes), images.kernel.shape[1]))
    for start in range(0, len(photos.labels), ROWS):  # never all photos at once in float64
        means += averaging[:, start : start + ROWS] @ images(photos.features[start : start + ROWS])
    bias = means.mean(0)
    seen = np.asarray(words[classes], np.float64)
    return Solution(images, seen.T @ _ridge(seen @ seen.T, means - bias, penalty), bias)


def choose(
    photos: Photos, words: Mapping[str, np.ndarray], *, shrinkages: Sequence[float] = SHRINKAGES,
    penalties: Sequence[float] = PENALTIES, folds: int = FOLDS, seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Choice]:  # fmt: skip
    """Tries kinds of words, whitenings and penalties on inner hold-outs.

    Args:
        photos: of the training split.
        words: kinds of words by name, `[K, F]` each.
        shrinkages: to try.
        penalties: to try.
        folds: how many inner hold-outs.
        seed: of the draw.
        tell: hears of progress.

    Returns:
        One choice a kind of words, its best, the best first. Of equally good ones the greater penalty and shrinkage
        are taken.

    Raises:
        UserError: as `folds_of`.
    """
    tried = try_out(photos, words, shrinkages=shrinkages, penalties=penalties, folds=folds, seed=seed, tell=tell)
    return best_of(tried, shrinkages)


def try_out(
    photos: Photos, words: Mapping[str, np.ndarray], *, shrinkages: Sequence[float] = SHRINKAGES,
    penalties: Sequence[float] = PENALTIES, folds: int = FOLDS, seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Tried]:  # fmt: skip
    """What `choose` chooses among, by kind of words; `best_of` chooses, among all of it or some. Arguments as there."""
    grid = [(shrinkage, penalty) for shrinkage in shrinkages for penalty in penalties]
    found: dict[str, Tried] = {name: {at: [] for at in grid} for name in words}
    some = sampled(photos, seed=seed)
    if len(some.labels) < len(photos.labels):
        tell(f"inner hold-outs: {len(some.labels):,} photos of {len(some.classes):,} classes are drawn for them")
    for number, fold in enumerate(_prepared(some, shrinkages, folds, seed)):
        for name, features in words.items():
            kernel = fold.kernel(features)
            for shrinkage, penalty in grid:
                found[name][shrinkage, penalty].append(fold.rivals(kernel, shrinkage, penalty))
        tell(f"inner hold-out {number + 1} of {folds}")
    return found


def sampled(photos: Photos, *, seed: int, classes: int = MOST_CLASSES, number: int = MOST_PHOTOS) -> Photos:
    """All photos, or of a large collection a draw: time grows with the cube of the classes, memory with the photos.

    Args:
        photos: of the training split.
        seed: of the draw.
        classes: that are kept at the most.
        number: of photos that are kept at the most, as equally many of each class as there are.
    """
    rng = np.random.default_rng(seed)
    kept = photos.classes
    if len(kept) > classes:
        kept = rng.choice(kept, classes, replace=False)
    mask = np.isin(photos.labels, kept)
    if mask.all() and len(mask) <= number:
        return photos
    rows = some_of_each(photos.labels, mask, rng, max(2, number // len(kept)))
    return Photos(photos.features[rows], photos.labels[rows])


def best_of(tried: Mapping[str, Tried], shrinkages: Sequence[float]) -> list[Choice]:
    """The best of each kind of words at any of these shrinkages, the best kind first; see `choose`."""
    some = {name: {at: folds for at, folds in found.items() if at[0] in shrinkages} for name, found in tried.items()}
    return sorted((_best(name, found) for name, found in some.items()), key=lambda one: -one.top1)


def _best(words: str, tried: Tried) -> Choice:
    """The best of a grid by the accuracy of photos of classes held out inside, among these classes."""
    top1 = {at: np.mean([np.mean(one.unseen_right[~one.of_seen]) for one in folds]) for at, folds in tried.items()}
    best = max(tried, key=lambda at: (top1[at], at[1], at[0]))
    rivals = tried[best]
    margin, reached = best_margin(rivals)
    area = float(np.mean([curve(one).ausuc for one in rivals]))
    return Choice(words, *best, float(top1[best]), margin, reached, area)


def unit(x: np.ndarray) -> np.ndarray:
    """Scales the last axis to norm 1; a zero vector stays zero."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def joined(*parts: np.ndarray) -> np.ndarray:
    """Several kinds of words as one, of equal weight: the kernel of the result is the mean of their kernels."""
    return np.concatenate([unit(np.asarray(part, np.float64)) / np.sqrt(len(parts)) for part in parts], -1)


def some_of_each(labels: np.ndarray, mask: np.ndarray, rng: np.random.Generator, most: int = PER_CLASS) -> np.ndarray:
    """Row numbers of at most so many photos of each class, `[N]` labels, among those of a mask `[N]` bool."""
    rows = rng.permutation(np.flatnonzero(mask))
    rows = rows[np.argsort(labels[rows], kind="stable")]
    _, starts, counts = np.unique(labels[rows], return_index=True, return_counts=True)
    return np.sort(rows[np.arange(len(rows)) - np.repeat(starts, counts) < most])


@dataclasses.dataclass(frozen=True)
class Products:
    """One inner hold-out by products alone: to try very many kinds of words on photos as they are.

    The vector of a class is its kernel with C classes learnt from, times a matrix, times their mean photos, plus the
    mean of these. So products of photos with mean photos, and of mean photos with each other, are all that is needed,
    and the arithmetic of a kind of words depends on the number of classes and not on the width of features.

    Attributes:
        learnt: `[C]` rows of the classes learnt from.
        heldout: `[H]` rows of those held out.
        aside: how many photos, the first ones, are of classes learnt from.
        labels: `[N]` row of the class of each photo that is named.
        photos: `[N, C]` products of photos with mean photos less their mean.
        centre: `[N]` likewise with that mean.
        means: `[C, C]` products of mean photos, less their mean, with each other.
        bias: `[C]` likewise with that mean.
        square: of that mean's norm.
    """

    learnt: np.ndarray
    heldout: np.ndarray
    aside: int
    labels: np.ndarray
    photos: np.ndarray
    centre: np.ndarray
    means: np.ndarray
    bias: np.ndarray
    square: float

    def right(self, kernel: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        """Photos of classes held out, named among these: `[M]` bool, and `[M]` the rows of their classes.

        Args:
            kernel: `[K, K]` float64 between all classes.
            penalty: see `PENALTIES`.
        """
        named = self.heldout[self._scores(kernel, penalty, self.heldout, first=self.aside).argmax(1)]
        labels = self.labels[self.aside :]
        return named == labels, labels

    def rivals(self, kernel: np.ndarray, penalty: float) -> Rivals:
        """All photos named among all classes; see `right`."""
        classes = np.concatenate([self.learnt, self.heldout])
        scores = self._scores(kernel, penalty, classes, first=0)
        return rivals_of(scores, self.labels, classes, np.arange(len(classes)) < len(self.learnt))

    def _scores(self, kernel: np.ndarray, penalty: float, classes: np.ndarray, first: int) -> np.ndarray:
        own = kernel[np.ix_(self.learnt, self.learnt)]
        weights = _ridge(own, kernel[np.ix_(self.learnt, classes)], penalty)
        squares = (weights * (self.means @ weights)).sum(0) + 2 * self.bias @ weights + self.square
        return (self.photos[first:] @ weights + self.centre[first:, None]) / np.sqrt(np.maximum(squares, 1e-24))


def products(photos: Photos, *, folds: int = FOLDS, seed: int = 0, named: int = PER_CLASS) -> Iterator[Products]:
    """The inner hold-outs of `choose` at shrinkage 1.

    Args:
        photos: of the training split.
        folds: how many inner hold-outs.
        seed: of the draw.
        named: photos of a class at the most.

    Raises:
        UserError: as `folds_of`.
    """
    centre = photos.features.mean(0, dtype=np.float64)
    rng = np.random.default_rng(seed)
    for fold in folds_of(photos.labels, folds=folds, seed=seed):
        parts = [some_of_each(photos.labels, mask, rng, named) for mask in (fold.aside, fold.heldout)]
        rows = np.concatenate(parts)
        labels = photos.labels[fold.learnt]
        learnt = np.unique(labels)
        means = _means(_centred(photos.features[fold.learnt], centre), labels, learnt)
        bias = means.mean(0)
        means, values = means - bias, _centred(photos.features[rows], centre)
        yield Products(
            learnt, np.unique(photos.labels[fold.heldout]), len(parts[0]), photos.labels[rows], values @ means.T,
            values @ bias, means @ means.T, means @ bias, float(bias @ bias),
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Whitened:
    """The scatter of photos within their classes, taken apart when it is asked for.

    Attributes:
        centre: `[W]`.
        within: `[W, W]` scatter of photos around the means of their classes.
        total: `[W, W]` second moments of all photos, for `dims`.
    """

    centre: np.ndarray
    within: np.ndarray
    total: np.ndarray

    @classmethod
    def of(cls, photos: Photos, centre: np.ndarray) -> "_Whitened":
        rows = np.arange(len(photos.labels))
        if len(rows) > SCATTER:
            rows = np.sort(np.random.default_rng(0).choice(rows, SCATTER, replace=False))
        total = np.zeros((len(centre), len(centre)))
        means = _means(_centred(photos.features[rows], centre), photos.labels[rows], photos.classes)
        within, place = np.zeros_like(total), np.searchsorted(photos.classes, photos.labels[rows])
        for start in range(0, len(rows), ROWS):
            block = slice(start, start + ROWS)
            values = _centred(photos.features[rows[block]], centre)
            total += values.T @ values
            values = values - means[place[block]]
            within += values.T @ values
        return cls(centre, within / len(rows), total / len(rows))

    @functools.cached_property
    def directions(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues `[W]` of the scatter, ascending, and its eigenvectors `[W, W]`, one a column."""
        found = np.linalg.eigh(self.within)
        return found.eigenvalues, found.eigenvectors

    def scales(self, shrinkage: float) -> np.ndarray:
        """`[W]`: by how much each of the `directions` is stretched; their mean square is 1."""
        values, _ = self.directions
        if values.mean() <= NO_SCATTER:
            return np.ones_like(values)
        scales = ((1 - shrinkage) * np.maximum(values, 0) + shrinkage * values.mean()) ** -0.5
        return scales / np.sqrt(np.mean(scales**2))

    def at(self, shrinkage: float, dims: int = 0) -> Images:
        """The map of photos at one shrinkage."""
        kernel = np.eye(len(self.centre))
        if shrinkage < 1:
            _, vectors = self.directions
            kernel = (vectors * self.scales(shrinkage)) @ vectors.T
        if 0 < dims < len(kernel):
            kernel = kernel @ np.linalg.eigh(kernel.T @ self.total @ kernel)[1][:, ::-1][:, :dims]
        return Images(self.centre, kernel)


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """One inner hold-out: means of the classes learnt from, and the photos to name, at each shrinkage."""

    learnt: np.ndarray
    heldout: np.ndarray
    means: Mapping[float, np.ndarray]
    aside: Mapping[float, np.ndarray]
    unseen: Mapping[float, np.ndarray]
    aside_labels: np.ndarray
    unseen_labels: np.ndarray

    @property
    def classes(self) -> np.ndarray:
        """Rows of all classes, those learnt from first."""
        return np.concatenate([self.learnt, self.heldout])

    def kernel(self, words: np.ndarray) -> "_Kernel":
        """The words of all classes, in the order of `classes`, beside those learnt from."""
        products = np.asarray(words[self.classes], np.float64) @ np.asarray(words[self.learnt], np.float64).T
        values, vectors = np.linalg.eigh(products[: len(self.learnt)])
        targets = {s: (vectors.T @ (means - means.mean(0)), means.mean(0)) for s, means in self.means.items()}
        return _Kernel(values, products @ vectors, targets)

    def rivals(self, kernel: "_Kernel", shrinkage: float, penalty: float) -> Rivals:
        every = self.classes
        photos = np.concatenate([self.aside[shrinkage], self.unseen[shrinkage]])
        labels = np.concatenate([self.aside_labels, self.unseen_labels])
        scores = photos @ kernel.classes(shrinkage, penalty).T
        return rivals_of(scores, labels, every, np.arange(len(every)) < len(self.learnt))


class _Kernel(NamedTuple):
    """Kinds of words of one inner hold-out, taken apart once for all penalties.

    Attributes:
        values: `[C]` eigenvalues of the products among the classes learnt from.
        products: `[K, C]`, of all classes with those learnt from, in the directions of the eigenvectors.
        targets: at each shrinkage the classes' means in these directions, less their mean `[D]`, and that mean.
    """

    values: np.ndarray
    products: np.ndarray
    targets: Mapping[float, tuple[np.ndarray, np.ndarray]]

    def classes(self, shrinkage: float, penalty: float) -> np.ndarray:
        """`[K, D]` unit vectors, as `solve` would find them."""
        targets, bias = self.targets[shrinkage]
        return unit((self.products / (np.maximum(self.values, 0) + penalty)) @ targets + bias)


def rivals_of(scores: np.ndarray, labels: np.ndarray, classes: np.ndarray, seen: np.ndarray) -> Rivals:
    """The best seen and unseen classes of photos from scores in host memory.

    Args:
        scores: `[N, K]`.
        labels: `[N]`, each photo's class, by its entry in `classes`.
        classes: `[K]` what the columns stand for.
        seen: `[K]` bool, of which there were photos in training.
    """
    sides = [np.where(mask, scores, -np.inf) for mask in (seen, ~seen)]
    best = [side.max(1) for side in sides]
    right = [classes[side.argmax(1)] == labels for side in sides]
    gap = np.clip(best[0] - best[1], -1e3, 1e3)
    return Rivals(gap, right[0], right[1], np.isin(labels, classes[seen]), labels)


def _prepared(photos: Photos, shrinkages: Sequence[float], folds: int, seed: int) -> Iterator[_Prepared]:
    centre = photos.features.mean(0, dtype=np.float64)
    rng = np.random.default_rng(seed)
    for fold in folds_of(photos.labels, folds=folds, seed=seed):
        own = Photos(photos.features[fold.learnt], photos.labels[fold.learnt])
        aside, unseen = (some_of_each(photos.labels, mask, rng) for mask in (fold.aside, fold.heldout))
        whitened = _Whitened.of(own, centre)
        scales = {shrinkage: whitened.scales(shrinkage) for shrinkage in shrinkages}
        # In the directions of the scatter a whitening is one factor each: photos are turned there once.
        learnt, named, guessed = (
            _centred(features, centre) @ whitened.directions[1]
            for features in (own.features, photos.features[aside], photos.features[unseen])
        )
        yield _Prepared(
            own.classes, np.unique(photos.labels[fold.heldout]),
            {s: _means(unit(learnt * by), own.labels, own.classes) for s, by in scales.items()},
            {s: unit(named * by) for s, by in scales.items()},
            {s: unit(guessed * by) for s, by in scales.items()},
            photos.labels[aside], photos.labels[unseen],
        )  # fmt: skip


def _centred(features: np.ndarray, centre: np.ndarray) -> np.ndarray:
    return unit(np.asarray(features, np.float64) - centre)


def _means(vectors: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """`[C, D]` means of unit vectors by class."""
    return np.asarray(_averaging(labels, classes) @ vectors)


def _averaging(labels: np.ndarray, classes: np.ndarray) -> sparse.csc_matrix:
    """`[C, N]`, whose product with rows `[N, D]` gives their means by class."""
    place = np.searchsorted(classes, labels)
    share = 1 / np.bincount(place, minlength=len(classes))[place]
    return sparse.csc_matrix((share, (place, np.arange(len(place)))), (len(classes), len(place)))


def _ridge(kernel: np.ndarray, targets: np.ndarray, penalty: float) -> np.ndarray:
    return np.linalg.solve(kernel + penalty * np.eye(len(kernel)), targets)

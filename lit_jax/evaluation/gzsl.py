"""Species with photos in training and species without, asked together: generalized zero-shot accuracy, and the margin.

A model that has learnt from photos of some species hardly ever names another one. A constant *margin*, taken from the
scores of the species that were in training, balances the two ("calibrated stacking"). The curve of all margins, the
area under it (AUSUC) and the harmonic mean are those of Chao et al. 2016, "An Empirical Study and Analysis of
Generalized Zero-Shot Learning for Object Recognition in the Wild" (arXiv 1605.04253), and of Xian et al. 2018 (arXiv
1707.00600). *Seen* species are those of training; *unseen* ones are named by their words alone.

Everything here is NumPy over numbers of photos; `lit_jax.evaluation.ranking.rivals` makes them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

POINTS = 200  # of a curve that is kept, at the most


class Rivals(NamedTuple):
    """The best seen and the best unseen species for each of N photos.

    Attributes:
        gap: `[N]` float64, score of the best seen species less that of the best unseen one.
        seen_right: `[N]` bool, whether the best seen species is the right one.
        unseen_right: `[N]` bool, whether the best unseen species is.
        of_seen: `[N]` bool, whether the photo's own species is a seen one.
        labels: `[N]` int64, number of the right class.
    """

    gap: np.ndarray
    seen_right: np.ndarray
    unseen_right: np.ndarray
    of_seen: np.ndarray
    labels: np.ndarray

    def __add__(self, other: tuple[Any, ...]) -> "Rivals":
        """The photos of both."""
        return Rivals(*(np.concatenate(parts) for parts in zip(self, other, strict=True)))


@dataclasses.dataclass(frozen=True)
class Curve:
    """Accuracy of photos of seen and of unseen species for every margin that makes a difference.

    Attributes:
        margins: `[M]` ascending; between two of them nothing changes.
        seen: `[M]` float64, share of the photos of seen species that are named rightly.
        unseen: `[M]` float64, likewise of unseen species.
    """

    margins: np.ndarray
    seen: np.ndarray
    unseen: np.ndarray

    @property
    def harmonic(self) -> np.ndarray:
        """`[M]` float64, harmonic means of the two accuracies."""
        return harmonic(self.seen, self.unseen)

    @property
    def ausuc(self) -> float:
        """The area under the curve of seen against unseen accuracy, by the trapezoidal rule."""
        return float(np.trapezoid(self.seen, self.unseen))


def harmonic(seen: Any, unseen: Any) -> Any:
    """2SU / (S + U) of numbers or arrays; 0 where both are 0."""
    total = np.asarray(seen, np.float64) + unseen
    return np.where(total > 0, 2 * np.asarray(seen) * unseen / np.where(total > 0, total, 1), 0.0)


def at(rivals: Rivals, margin: float) -> tuple[float, float]:
    """Accuracy of photos of seen and of unseen species where the margin is taken from the scores of seen ones.

    A photo is given a seen species if that is ahead by more than the margin; of equal scores the unseen one counts.
    """
    named_seen = rivals.gap > margin
    right = np.where(named_seen, rivals.seen_right, rivals.unseen_right)
    return _mean(right[rivals.of_seen]), _mean(right[~rivals.of_seen])


def curve(rivals: Rivals) -> Curve:
    """The accuracies at every margin, from one at which all photos are given a seen species to one at which none is."""
    margins = np.unique(rivals.gap)
    margins = np.concatenate([[margins[0] - 1e-3], margins]) if len(margins) else np.zeros(1)
    order = np.argsort(rivals.gap, kind="stable")
    # As the margin passes a photo's gap, the photo goes over from its best seen species to its best unseen one.
    passed = np.searchsorted(rivals.gap[order], margins, side="right")
    shares = []
    for kind in (rivals.of_seen, ~rivals.of_seen):
        seen_right, unseen_right = (values[order] & kind[order] for values in (rivals.seen_right, rivals.unseen_right))
        still = np.concatenate([[0], np.cumsum(seen_right)])
        over = np.concatenate([[0], np.cumsum(unseen_right)])
        right = still[-1] - still[passed] + over[passed]
        shares.append(right / max(int(kind.sum()), 1))
    return Curve(margins, *shares)


def best_margin(folds: Sequence[Rivals]) -> tuple[float, float]:
    """The margin with the greatest mean harmonic mean over folds, and that mean.

    Of a range of margins that are equally good the middle is taken.
    """
    curves = [curve(fold) for fold in folds]
    margins = np.unique(np.concatenate([one.margins for one in curves]))
    means = np.mean(
        [one.harmonic[np.maximum(np.searchsorted(one.margins, margins, side="right") - 1, 0)] for one in curves], 0
    )
    best = int(np.argmax(means))
    last = best
    while last + 1 < len(means) and means[last + 1] == means[best]:
        last += 1
    after = margins[last + 1] if last + 1 < len(margins) else margins[last]
    return float((margins[best] + after) / 2), float(means[best])


def macro(rivals: Rivals, margin: float) -> tuple[float, float]:
    """Like `at`, but each species counts the same, however many photos it has."""
    right = np.where(rivals.gap > margin, rivals.seen_right, rivals.unseen_right)
    means = []
    for kind in (rivals.of_seen, ~rivals.of_seen):
        images = np.bincount(rivals.labels[kind])
        hits = np.bincount(rivals.labels[kind], weights=right[kind])
        means.append(_mean(hits[images > 0] / images[images > 0]))
    return means[0], means[1]


def summary(rivals: Rivals, margin: float | None) -> dict[str, Any]:
    """What is reported of photos of both kinds.

    Args:
        rivals: photos of seen and of unseen species, each among all species.
        margin: that was fitted inside the training split; None for none.

    Returns:
        ``seen``, ``unseen`` and ``harmonic`` with the margin, ``ausuc``, ``margin``, the same three under
        ``without_margin``, ``macro`` (over species, with the margin), the numbers of photos and of species of each
        kind, and ``curve``: at most 200 pairs of unseen and seen accuracy. Fractions; JSON-ready.
    """
    line = curve(rivals)
    shown = np.unique(np.linspace(0, len(line.margins) - 1, POINTS).astype(int))
    species = {
        f"{name}_{what}": int(number)
        for name, kind in (("seen", rivals.of_seen), ("unseen", ~rivals.of_seen))
        for what, number in (("images", kind.sum()), ("classes", len(np.unique(rivals.labels[kind]))))
    }
    return {
        **_three(*at(rivals, margin or 0.0)),
        "ausuc": line.ausuc,
        "margin": margin,
        "without_margin": _three(*at(rivals, 0.0)),
        "macro": _three(*macro(rivals, margin or 0.0)),
        **species,
        "curve": [[float(line.unseen[i]), float(line.seen[i])] for i in shown],
    }


def _three(seen: float, unseen: float) -> dict[str, float]:
    return {"seen": seen, "unseen": unseen, "harmonic": float(harmonic(seen, unseen))}


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0

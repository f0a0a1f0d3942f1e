"""Calibration: whether a model that is 80 % sure is right in 80 of 100 cases, and the temperature that improves it.

Sources: expected calibration error in equal bins, and temperature scaling, Guo et al., arXiv 1706.04599.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

BINS = 15


class Losses(Protocol):
    """What `fit_factor` reads of `lit_jax.evaluation.ranking.Likelihoods`."""

    @property
    def slope(self) -> np.ndarray:
        """`[N]`, derivative of the loss by the factor."""
        ...

    @property
    def curvature(self) -> np.ndarray:
        """`[N]`, the second derivative."""
        ...


def reliability(confidence: np.ndarray, correct: np.ndarray, *, bins: int = BINS) -> dict[str, Any]:
    """Confidence against accuracy in bins of equal width.

    Args:
        confidence: `[N]` probabilities of the class named.
        correct: `[N]` bool, whether it was the right one.
        bins: how many; a bin holds what is above its lower edge, up to and with its upper one.

    Returns:
        ``ece``: the mean over photos of how far their bin's accuracy is from its confidence; ``confidence`` and
        ``accuracy`` of all; ``bins``: images, confidence and accuracy of each bin that is not empty.
    """
    number = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    images = np.bincount(number, minlength=bins)
    sums = [np.bincount(number, weights=values, minlength=bins) for values in (confidence, correct.astype(float))]
    full = images > 0
    means = [values[full] / images[full] for values in sums]
    rows = zip(images[full].tolist(), means[0].tolist(), means[1].tolist(), strict=True)
    return {
        "ece": float(np.sum(np.abs(sums[0] - sums[1])) / len(confidence)),
        "confidence": float(confidence.mean()),
        "accuracy": float(correct.mean()),
        "bins": [{"images": n, "confidence": said, "accuracy": was} for n, said, was in rows],
    }


def fit_factor(losses: Callable[[float], Losses], start: float, *, low: float = 1e-3, high: float = 1e5) -> float:
    """The factor of the similarities at which the mean loss is least; the temperature is one over it.

    The loss is convex in the factor, so Newton's steps, kept between the bounds that the slope's sign has proved,
    find it.

    Args:
        losses: slope and curvature of photos' losses at a factor.
        start: where to begin, the model's own factor.
        low: never below; also the answer for a model that is better off knowing nothing.
        high: never above; also the answer where every photo is named rightly whatever the factor.

    Returns:
        The factor, to a thousandth of itself.
    """
    factor = float(np.clip(start, low, high))
    for _ in range(60):
        found = losses(factor)
        slope, curvature = float(np.mean(found.slope)), float(np.mean(found.curvature))
        if slope > 0:
            high = factor
        else:
            low = factor
        moved = factor - slope / curvature if curvature > 0 else factor
        if not low < moved < high:
            moved = float(np.sqrt(low * high))
        if abs(moved - factor) <= 1e-3 * factor:
            return moved
        factor = moved
    return factor

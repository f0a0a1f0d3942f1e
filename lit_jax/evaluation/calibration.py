"""Calibration: whether a model that is 80 % sure is right in 80 of 100 cases, and the temperature that improves it.

Sources: expected calibration error in equal bins, and temperature scaling, Guo et al., arXiv 1706.04599.
"""

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from scipy import optimize

BINS = 15
USABLE = (0.02, 50.0)
"""Temperatures that are of use: above, a model is told to believe nothing; below, always to be sure."""


class Losses(Protocol):
    """What `fit_factor` reads of `lit_jax.evaluation.ranking.Likelihoods`."""

    @property
    def slope(self) -> np.ndarray:
        """`[N]`, derivative of the loss by the factor."""
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


def why_unusable(temperature: float) -> str:
    """Why a temperature is not to be used; empty for one that may be."""
    low, high = USABLE
    if temperature > high:
        return "its scores hardly tell what is right, so that the fit would have it believe nothing"
    return (
        "the photos for it are all named rightly, so that the fit would have it ever surer" if temperature < low else ""
    )


def fit_factor(losses: Callable[[float], Losses], *, low: float = 1e-3, high: float = 1e5) -> float:
    """The factor of the similarities at which the mean loss is least.

    The temperature of a model that was trained with a factor is that factor over this one.

    The loss is convex in the factor, so its slope has one root at most, which Brent's method finds.

    Args:
        losses: slope of photos' losses at a factor.
        low: never below; also the answer for a model that is better off knowing nothing.
        high: never above; also the answer where every photo is named rightly whatever the factor.

    Returns:
        The factor, to five digits.
    """

    def slope(logarithm: float) -> float:
        return float(np.mean(losses(math.exp(logarithm)).slope))

    ends = math.log(low), math.log(high)
    if slope(ends[0]) >= 0:
        return low
    if slope(ends[1]) <= 0:
        return high
    return math.exp(optimize.brentq(slope, *ends, xtol=1e-5))

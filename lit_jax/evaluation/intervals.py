"""95 % intervals: how far an accuracy may be off because other photos or species might have been drawn.

Wilson's score interval (1927) is for a share of independent photos. Photos of one species are alike, so what other
species would give is told by drawing species anew: `of_mean`, the percentile bootstrap over them.
"""

import math

import numpy as np

Z = 1.959963984540054  # of a normal distribution 2.5 % lie above it
DRAWS = 2000
_AT_A_TIME = 1 << 20  # drawn numbers that are held at a time


def wilson(share: float, count: int) -> list[float]:
    """Wilson's 95 % score interval of a share of `count` photos; [0, 1] of none.

    Example:
        >>> [round(end, 4) for end in wilson(0.5, 10)]
        [0.2366, 0.7634]
    """
    if not count:
        return [0.0, 1.0]
    middle = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    # Of none and of all one end is the share itself, but for rounding.
    return [max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share))]


def of_mean(values: np.ndarray, *, seed: int = 0, draws: int = DRAWS) -> list[float] | None:
    """The 95 % interval of a mean over species, or any groups, by drawing as many of them anew, with replacement.

    Args:
        values: `[K]` float, one a group.
        seed: of the draws; equal values and seeds give equal intervals.
        draws: how many times all are drawn.

    Returns:
        Its ends, or None of fewer than two groups, which say nothing of others.
    """
    number = len(values)
    if number < 2:
        return None
    draw = np.random.default_rng(seed)
    rows = max(1, min(draws, _AT_A_TIME // number))
    blocks = [min(rows, draws - start) for start in range(0, draws, rows)]
    means = np.concatenate([values[draw.integers(number, size=(block, number))].mean(1) for block in blocks])
    return [float(end) for end in np.quantile(means, (0.025, 0.975))]

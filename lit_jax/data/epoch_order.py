"""The order of the photos in an epoch, drawn from the seed; it is the same for records and for an embedding store.

Chance is a function of (seed, epoch) and a place in the epoch, never of what was drawn before nor of the number of
hosts: a run that resumes at any batch, on any number of hosts, sees what an unbroken one would have seen.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

_ASIDE = 0xA51DE  # makes the draw of `set_aside` another one than those of epochs
DRAW_BITS = 31  # of each of the two numbers in a draw


class Window(NamedTuple):
    """Records that are shuffled together.

    Attributes:
        parts: numbers of the shards in it, in the order in which they are read.
        order: `[n]` int64: the k-th record of the window is number ``order[k]`` of those read.
        draws: `[n]` int64 >= 0: what chance decides about the k-th record, see `caption_drawn` and `view_drawn`.
        first: place of the window's first record in the epoch.
        epoch_seed: of the epoch, for what else is drawn about a record by its place.
    """

    parts: tuple[int, ...]
    order: np.ndarray
    draws: np.ndarray
    first: int
    epoch_seed: int


def windows(lengths: Sequence[int], *, seed: int, epoch: int, window: int) -> Iterator[Window]:
    """The shuffle windows of one epoch: shards in random order, in groups of about `window` records.

    Args:
        lengths: records of each shard.
        seed: of the run.
        epoch: number of the epoch, from 0.
        window: records of a group; a group holds whole shards, at least one.

    Yields:
        Windows that together hold each record once.
    """
    # Each epoch has a stream of random numbers of its own, whatever was drawn before.
    sequence = np.random.SeedSequence([seed, epoch, 0])
    epoch_seed = int(sequence.generate_state(1, np.uint64)[0] >> 2)
    rng = np.random.default_rng(sequence)
    first = 0
    for parts in _grouped(lengths, rng.permutation(len(lengths)).tolist(), window):
        size = sum(lengths[part] for part in parts)
        # A window may be passed over unread; what it draws must not depend on whether it is.
        own = np.random.default_rng([epoch_seed, first])
        draws = own.integers(1 << 2 * DRAW_BITS, size=size)
        yield Window(parts, own.permutation(size), draws, first, epoch_seed)
        first += size


def whole_epoch(lengths: Sequence[int], *, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """The order of an epoch that is shuffled as a whole: that of `windows` with one window for everything.

    Returns:
        (rows, draws), both `[N]` int64: the k-th record is row ``rows[k]`` of all shards one after another.
    """
    (only,) = windows(lengths, seed=seed, epoch=epoch, window=sum(lengths))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    read = np.concatenate([np.arange(starts[part], starts[part + 1]) for part in only.parts])
    return read[only.order], only.draws


def set_aside(examples: int, fraction: float, seed: int) -> np.ndarray:
    """Which photos of the training split are not trained on but chosen by: `[N]` bool, True for about `fraction` of N.

    The same for records and for a store of them, on any number of hosts.
    """
    chosen = np.zeros(examples, bool)
    drawn = np.random.default_rng([seed, _ASIDE]).permutation(examples)
    chosen[drawn[: number_aside(examples, fraction)]] = True
    return chosen


def number_aside(examples: int, fraction: float) -> int:
    """How many photos `set_aside` sets aside of so many: at least one, where it is asked for any."""
    return max(round(fraction * examples), 1) if fraction else 0


def caption_drawn(draws: np.ndarray, captions: np.ndarray | int) -> np.ndarray:
    """Which of a record's captions is taken: `[n]` int64 in [0, captions)."""
    return (draws & (1 << DRAW_BITS) - 1) % captions


def view_drawn(draws: np.ndarray, views: int) -> np.ndarray:
    """Which of a record's stored views is taken: `[n]` int64 in [0, views)."""
    return (draws >> DRAW_BITS) % views


def _grouped(lengths: Sequence[int], order: Sequence[int], window: int) -> Iterator[tuple[int, ...]]:
    group: list[int] = []
    for part in order:
        if group and sum(lengths[i] for i in group) + lengths[part] > window:
            yield tuple(group)
            group = []
        group.append(part)
    yield tuple(group)

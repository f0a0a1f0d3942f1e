"""How long a run is, in batches."""

import math
from typing import NamedTuple

from lit_jax import config as options


class Length(NamedTuple):
    """How long a run is.

    Attributes:
        steps_per_epoch: batches that count as an epoch. Not a whole number, unless the config counts epochs in
            batches: they run on into the next epoch.
        steps: batches of the whole run.
    """

    steps_per_epoch: float
    steps: int


def run_length(train: options.Train, *, photos: int, accumulate: int) -> Length:
    """The length of a run: enough for the epochs asked for, and whole optimizer steps.

    Args:
        train: the options.
        photos: to train on, those that are set aside not counted.
        accumulate: batches of an optimizer step.
    """
    per_epoch = train.epoch_steps or photos / train.batch_size
    # Rounded first: 1.1 times 10 may be a little more than 11.
    updates = round(train.epochs * per_epoch / accumulate, 6)
    return Length(per_epoch, math.ceil(updates) * accumulate)


def shortened(length: Length, *, photos: int, of: int, accumulate: int) -> Length:
    """The length of a run for the same epochs on a part of its photos: whole optimizer steps, and at least one.

    Args:
        length: of the whole run; one of no step stays so.
        photos: that are left.
        of: the photos of the whole run.
        accumulate: batches of an optimizer step.

    Example:
        >>> shortened(Length(10.0, 40), photos=32, of=50, accumulate=2)
        Length(steps_per_epoch=6.4, steps=26)
    """
    share = photos / of
    updates = max(round(length.steps / accumulate * share), 1 if length.steps else 0)
    return Length(length.steps_per_epoch * share, updates * accumulate)

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

"""Every tower and format against other people's code, by the golden outputs that `tests/golden` keeps.

The bound is the same for all: the largest difference is at most 1e-4 of the largest value.
"""

import functools

import jax
import numpy as np
import pytest

from lit_jax import models
from lit_jax.models import presets, weights
from tests.golden import common

BOUND = 1e-4


@functools.cache
def golden(path):
    return common.read(path)


def tower_of(about):
    return models.IMAGE_PRESETS[about["preset"]].build(**about["options"])


def image_error(path):
    """Largest difference of a golden case as a share of the largest value, and what the reader reports."""
    about, expected = golden(path)
    tower = tower_of(about)
    like, width = presets.image_shapes(tower, about["size"])
    assert expected.shape[-1] == width
    params, report = weights.fill(common.arrays(about["shapes"]), like, models.family(tower), source=path.name)
    got = jax.jit(tower.apply)({"params": params}, common.pixels(about["size"]))
    return np.abs(np.asarray(got) - expected).max() / np.abs(expected).max(), report


@pytest.mark.parametrize("path", [path for path in common.cases() if golden(path)[0].get("kind", "image") == "image"],
                         ids=lambda path: path.stem)  # fmt: skip
def test_image_towers_agree_with_other_code(path):
    error, _ = image_error(path)
    assert error <= BOUND

import doctest

import numpy as np
import pytest
from scipy import stats

from lit_jax.evaluation import intervals


def test_intervals_of_shares_are_the_published_ones():
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    for hits, count, ends in (
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ):
        assert intervals.wilson(hits / count, count) == pytest.approx(ends, abs=5e-5)
    for hits, count in ((0, 1), (1, 1), (3, 7), (500, 1000), (1000, 1000)):
        found = stats.binomtest(hits, count).proportion_ci(method="wilson")
        assert intervals.wilson(hits / count, count) == pytest.approx([found.low, found.high], abs=1e-12)
    assert intervals.wilson(0.0, 0) == [0.0, 1.0]


def test_the_bootstrap_over_species_is_that_of_the_mean(rng):
    values = rng.beta(2, 1, size=300)
    low, high = intervals.of_mean(values)
    reference = stats.bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=rng).confidence_interval
    width = reference.high - reference.low
    assert abs(low - reference.low) < 0.1 * width and abs(high - reference.high) < 0.1 * width
    assert intervals.of_mean(values) == [low, high] != intervals.of_mean(values, seed=1)
    assert intervals.of_mean(np.full(5, 0.25)) == [0.25, 0.25]
    assert intervals.of_mean(np.ones(1)) is None and intervals.of_mean(np.zeros(0)) is None


def test_many_groups_are_drawn_in_blocks(rng, monkeypatch):
    values = rng.random(50)
    monkeypatch.setattr(intervals, "_AT_A_TIME", 320)  # six draws at a time, and two at last
    low, high = intervals.of_mean(values, draws=500)
    half = 1.96 * values.std() / np.sqrt(50)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.3 * half)


def test_examples_in_the_documentation_run():
    assert doctest.testmod(intervals).failed == 0

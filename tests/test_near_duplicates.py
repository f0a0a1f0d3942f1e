"""Pairs of near photos against every pair in float64."""

import numpy as np
import pytest

from lit_jax.evaluation import near_duplicates as module
from lit_jax.evaluation.near_duplicates import mean_of, near_duplicates


class InMemory:
    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def take(self, rows):
        return self.values[rows]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "QUERIES", 13)
    monkeypatch.setattr(module, "KEYS", 7)
    monkeypatch.setattr(module, "_CHUNK", 3)


@pytest.fixture
def photos(rng):
    """Positive features as behind a ReLU, with copies a little and a bit more off: 60 of training, 31 others."""
    train = np.abs(rng.normal(size=(60, 12))) + 3
    other = np.abs(rng.normal(size=(31, 12))) + 3
    other[3], other[4], other[30] = (
        train[59],
        train[0] + 0.05 * rng.normal(size=12),
        train[7] + 0.2 * rng.normal(size=12),
    )
    other[9] = other[10] = train[7]
    train[20:24] = train[7]
    return InMemory(train.astype(np.float16)), InMemory(other.astype(np.float16))


def cosines(one, other, centre):
    one, other = (np.float64(x.values) - centre for x in (one, other))
    return one @ other.T / np.linalg.norm(one, axis=1)[:, None] / np.linalg.norm(other, axis=1)


@pytest.mark.parametrize("within", [0.0, 1e-4, 0.02, 0.3, 1.0])
def test_all_pairs_and_no_others(photos, within):
    train, other = photos
    centre = np.float64(train.values).mean(0)
    np.testing.assert_allclose(mean_of(train), centre, rtol=1e-12)
    want = cosines(other, train, centre)
    if within == 0:
        want = np.round(want, 12)  # equal photos, whatever the last bit
        within = 1e-12
    got = near_duplicates(other, train, centre, within=within, most=100)
    pairs = list(zip(got.queries.tolist(), got.keys.tolist(), strict=True))
    assert sorted(pairs) == [tuple(pair) for pair in np.argwhere(want >= 1 - within).tolist()] and len(pairs) >= 11
    np.testing.assert_allclose(got.cosine, want[got.queries, got.keys], atol=1e-9)
    order = sorted(range(len(pairs)), key=lambda i: (pairs[i][0], -got.cosine[i], pairs[i][1]))
    assert order == list(range(len(pairs))) and not len(got.capped)


@pytest.mark.parametrize("off", [1e-9, -1e-9])
def test_the_threshold_is_exact_where_float32_is_not(photos, off):
    train, other = photos
    centre = mean_of(train)
    cosine = cosines(other, train, centre)[30, 7]
    got = near_duplicates(other, train, centre, within=1 - cosine + off, most=100)
    assert ((30, 7) in set(zip(got.queries.tolist(), got.keys.tolist(), strict=True))) == (off > 0)


def test_within_one_split_each_pair_comes_once(photos):
    train, _ = photos
    centre = mean_of(train)
    told = []
    got = near_duplicates(train, train, centre, within=0.1, most=100, tick=lambda *counts: told.append(counts))
    assert told[-1][0] == told[-1][1] < len(train) ** 2
    want = np.argwhere(np.triu(cosines(train, train, centre), 1) >= 0.9)
    assert sorted(zip(got.queries.tolist(), got.keys.tolist(), strict=True)) == [tuple(p) for p in want.tolist()]
    assert {(7, 20), (20, 21), (22, 23)} <= set(map(tuple, want.tolist()))


def test_only_the_nearest_are_kept_and_whose_were_more_is_told(photos):
    train, other = photos
    centre = mean_of(train)
    want = cosines(other, train, centre)
    got = near_duplicates(other, train, centre, within=0.4, most=2)
    near = [np.flatnonzero(row >= 0.6) for row in want]
    assert got.capped.tolist() == [i for i, keys in enumerate(near) if len(keys) > 2] and {9, 10} <= set(got.capped)
    for i, keys in enumerate(near):
        best = want[i, keys][np.argsort(-want[i, keys])][:2]
        np.testing.assert_allclose(got.cosine[got.queries == i], best, atol=1e-9)


def test_the_centre_decides_and_not_what_all_photos_share(rng):
    """Unrelated photos have raw cosines above 0.98 here, and none of them is told."""
    values = rng.normal(size=(50, 64)) + 40
    raw = values @ values.T / np.linalg.norm(values, axis=1)[:, None] / np.linalg.norm(values, axis=1)
    assert raw.min() > 0.98
    photos = InMemory(np.float32(values))
    assert not len(near_duplicates(photos, photos, mean_of(photos)).queries)


def test_odd_sets(photos):
    train, other = photos
    nothing = InMemory(np.empty((0, 12), np.float16))
    for queries, keys in ((nothing, train), (train, nothing), (nothing, nothing)):
        assert not len(near_duplicates(queries, keys, np.zeros(12)).queries)
    alike = InMemory(np.full((9, 12), 0.1, np.float16))  # a tower that says the same of all
    assert not len(near_duplicates(alike, alike, mean_of(alike)).queries)
    # What rounding leaves of them is no direction.
    assert not len(near_duplicates(alike, alike, mean_of(alike) * (1 + 3e-7)).queries)
    told = []
    near_duplicates(other, train, np.zeros(12), tick=lambda done, total: told.append((done, total)))
    assert told[-1] == (31 * 60, 31 * 60) and len(told) == 3 * 9

"""The order of an epoch."""

import numpy as np
import pytest

from lit_jax.data import epoch_order

LENGTHS = [5, 4, 6, 5]


@pytest.mark.parametrize("window", [1, 9, 12, 100])
def test_windows_hold_each_record_once(window):
    found, first = [], 0
    for one in epoch_order.windows(LENGTHS, seed=3, epoch=1, window=window):
        assert one.first == first and sorted(one.order.tolist()) == list(range(len(one.order)))
        assert len(one.draws) == len(one.order) == sum(LENGTHS[part] for part in one.parts)
        assert len(one.parts) == 1 or len(one.order) <= window
        found += one.parts
        first += len(one.order)
    assert sorted(found) == [0, 1, 2, 3] and first == 20


def test_one_window_over_everything_is_the_whole_epoch():
    (only,) = epoch_order.windows(LENGTHS, seed=3, epoch=2, window=20)
    rows, draws = epoch_order.whole_epoch(LENGTHS, seed=3, epoch=2)
    starts = np.cumsum([0, *LENGTHS])
    read = [row for part in only.parts for row in range(starts[part], starts[part + 1])]
    assert rows.tolist() == [read[i] for i in only.order] and draws.tolist() == only.draws.tolist()
    assert sorted(rows.tolist()) == list(range(20))


def test_seed_and_epoch_each_change_the_order():
    orders = {
        tuple(np.concatenate([w.order + 100 * w.parts[0] for w in epoch_order.windows(LENGTHS, window=1, **options)]))
        for options in ({"seed": 0, "epoch": 0}, {"seed": 1, "epoch": 0}, {"seed": 0, "epoch": 1})
    }
    assert len(orders) == 3


def test_captions_and_views_are_drawn_evenly_and_apart():
    _, draws = epoch_order.whole_epoch([60000], seed=0, epoch=0)
    captions, views = epoch_order.caption_drawn(draws, 3), epoch_order.view_drawn(draws, 4)
    counts = np.histogram2d(captions, views, bins=(3, 4))[0]
    # 5,000 expected in each cell; six standard deviations of a binomial count are 406.
    assert captions.max() == 2 and views.max() == 3 and np.abs(counts - 5000).max() < 406

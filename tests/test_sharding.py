import jax
import numpy as np
import pytest

from lit_jax import sharding
from lit_jax.errors import UserError


def test_a_batch_that_does_not_divide_names_the_sizes_that_do():
    with pytest.raises(
        UserError, match=r"train.batch_size: found 100 on 8 devices, expected a multiple of 8; use 96 or 104"
    ):
        sharding.check_divides(100, 8, name="train.batch_size")
    with pytest.raises(UserError, match="use 8$"):
        sharding.check_divides(3, 8, name="train.batch_size")
    sharding.check_divides(96, 8, name="train.batch_size")


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(UserError, match=r"train.devices: found 9, expected 0 \(all\) or at most the 8"):
        sharding.make_mesh(9)


def test_rows_come_back_in_order():
    mesh = sharding.make_mesh(4)
    rows = np.arange(24.0).reshape(8, 3)
    for put in (sharding.put_batch({"x": rows}, mesh)["x"], sharding.put_rows(rows, mesh)):
        assert len(put.addressable_shards) == 4 and put.addressable_shards[0].data.shape == (2, 3)
        assert np.array_equal(sharding.local_rows(put), rows)


def test_a_replicated_tree_is_whole_on_each_device():
    tree = sharding.put_replicated({"a": np.arange(3), "b": jax.numpy.float32(2)}, sharding.make_mesh(2))
    assert [shard.data.tolist() for shard in tree["a"].addressable_shards] == [[0, 1, 2], [0, 1, 2]]
    assert tree["b"].dtype == np.float32

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from lit_jax.base import sharding
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


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("devices", [None, 1, 4])
def test_what_each_device_does_with_its_rows_is_one_function_of_the_whole(devices, axis_type):
    mesh = devices and sharding.make_mesh(devices, axis_type=axis_type)

    def local(x, factor):
        own = sharding.own_rows_of_total(factor * sharding.all_rows(x, mesh), mesh)
        sums = sharding.total(x.sum(0), mesh), sharding.largest(x.max(0), mesh)
        return own, sums

    run = sharding.per_device(local, mesh, inputs=(True, False), outputs=(True, (False, False)))
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    rows = sharding.put_batch({"x": x}, mesh)["x"] if mesh else jax.numpy.asarray(x)
    own, (sums, highest) = jax.jit(run)(rows, jax.numpy.float32(2))
    # Each device adds its copy of all rows: as often as there are devices.
    np.testing.assert_allclose(own, 2 * (devices or 1) * x, rtol=1e-6)
    np.testing.assert_allclose(sums, x.sum(0), rtol=1e-5)
    np.testing.assert_array_equal(highest, x.max(0))
    if mesh:
        assert [shard.data.shape for shard in own.addressable_shards] == [(8 // devices, 3)] * devices
        assert sums.sharding.is_fully_replicated and highest.sharding.is_fully_replicated


def test_row_numbers_are_split_and_count_on():
    mesh = sharding.make_mesh(4)
    numbers = sharding.row_numbers(8, mesh)
    assert numbers.dtype == np.int32 and sharding.local_rows(numbers).tolist() == list(range(8))
    assert [shard.data.tolist() for shard in numbers.addressable_shards] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert sharding.row_numbers(3, None).tolist() == [0, 1, 2]


def test_the_largest_over_devices_has_no_gradient_of_its_own():
    mesh = sharding.make_mesh(2)
    spread = sharding.per_device(
        lambda x: x - sharding.largest(x.max(0), mesh)[None], mesh, inputs=(True,), outputs=True
    )
    by = jax.grad(lambda x: spread(x).sum())(sharding.put_rows(np.float32([[1, 2], [3, 0]]), mesh))
    assert by.tolist() == [[1, 1], [1, 1]]

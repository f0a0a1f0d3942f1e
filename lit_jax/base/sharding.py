"""The device mesh and the placement of arrays on it; no other file names the axis of the mesh.

The axis is of the Auto type: the compiler places what is between the annotated ends of the step. The losses say
themselves what each device does, through `per_device`, and run on explicit axes as well (tests cover both).
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lit_jax.errors import UserError

AXIS = "data"


def make_mesh(devices: int = 0, *, axis_type: AxisType = AxisType.Auto, local: bool = False) -> Mesh:
    """A one-axis mesh over devices of all hosts.

    Args:
        devices: how many; 0 for all.
        axis_type: Auto or Explicit.
        local: devices of this host only; what is put on the mesh concerns no other host.

    Raises:
        UserError: if there are not that many devices, or several hosts would not all take part.
    """
    found = jax.local_devices() if local else jax.devices()
    available = len(found)
    if not 0 <= devices <= available or (devices and not local and jax.process_count() > 1 and devices != available):
        raise UserError(f"train.devices: found {devices}, expected 0 (all) or at most the {available} there are")
    chosen = found[: devices or available]
    return jax.make_mesh((len(chosen),), (AXIS,), axis_types=(axis_type,), devices=chosen)


def is_cpu(mesh: Mesh) -> bool:
    """Whether its devices are those of a CPU, which share the machine's memory and cores."""
    return bool(mesh.local_devices[0].platform == "cpu")


def over_batch(mesh: Mesh) -> NamedSharding:
    """Rows split over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def per_device(function: Callable[..., Any], mesh: Mesh | None, *, inputs: Any, outputs: Any) -> Callable[..., Any]:
    """A function that every device runs on its own rows; inside it `all_rows`, `total` and others communicate.

    Args:
        function: of arrays to arrays, for one device.
        mesh: the devices; None for the one there is, where `function` itself is the answer.
        inputs: one bool for each argument: whether its rows are split over the devices, or whole on each.
        outputs: the same for the results, in their structure.

    Returns:
        The function of global arrays.
    """
    if mesh is None:
        return function
    specs = [
        jax.tree.map(lambda split: PartitionSpec(AXIS) if split else PartitionSpec(), x) for x in (inputs, outputs)
    ]
    # Unchecked: a loop's zero starting values count as equal on all devices, its results do not.
    return jax.shard_map(function, mesh=mesh, in_specs=specs[0], out_specs=specs[1], check_vma=False)


def all_rows(x: jax.Array, mesh: Mesh | None) -> jax.Array:
    """The rows of all devices, in order, inside `per_device`: `[N / devices, ...]` to `[N, ...]`."""
    return x if mesh is None else jax.lax.all_gather(x, AXIS, tiled=True)


def total(x: jax.Array, mesh: Mesh | None) -> jax.Array:
    """The sum over devices, the same on each, inside `per_device`."""
    return x if mesh is None else jax.lax.psum(x, AXIS)


def largest(x: jax.Array, mesh: Mesh | None) -> jax.Array:
    """The elementwise maximum over devices, the same on each, inside `per_device`; without a gradient."""
    x = jax.lax.stop_gradient(x)
    return x if mesh is None else jax.lax.pmax(x, AXIS)


def own_rows_of_total(x: jax.Array, mesh: Mesh | None) -> jax.Array:
    """This device's rows of the sum over devices, inside `per_device`: `[N, ...]` to `[N / devices, ...]`."""
    return x if mesh is None else jax.lax.psum_scatter(x, AXIS, tiled=True)


def row_numbers(rows: int, mesh: Mesh | None) -> jax.Array:
    """``arange(rows)``, split over the devices: `[rows]` int32."""
    if mesh is None:
        return jnp.arange(rows, dtype=jnp.int32)
    own = rows // mesh.size
    return per_device(
        lambda: jax.lax.axis_index(AXIS) * own + jnp.arange(own, dtype=jnp.int32), mesh, inputs=(), outputs=True
    )()


def check_divides(batch_size: int, devices: int, *, name: str) -> None:
    """Refuses a batch that cannot be split evenly over the devices, and says which sizes can.

    Raises:
        UserError: naming both numbers and the two nearest sizes.
    """
    if batch_size < 1 or batch_size % devices:
        below = batch_size // devices * devices
        nearest = " or ".join(str(size) for size in (below, below + devices) if size > 0)
        raise UserError(
            f"{name}: found {batch_size} on {devices} devices, expected a multiple of {devices}; use {nearest}"
        )


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Puts this host's rows on its devices; the result is the global batch.

    Args:
        batch: arrays of `[B / hosts, ...]`.
        mesh: where to.

    Returns:
        Arrays of `[B, ...]`, rows split over the devices of all hosts.
    """
    sharding = over_batch(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


def put_rows(rows: np.ndarray, mesh: Mesh, *, split: bool = True) -> jax.Array:
    """Puts an array that every host holds whole on the mesh: its rows split over the devices, or a copy on each."""
    sharding = over_batch(mesh) if split else replicated(mesh)
    return jax.make_array_from_callback(rows.shape, sharding, lambda index: rows[index])


def filled_blocks(rows: int, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Row numbers of each block of `size`, the last one filled up with the last row so that one shape is compiled.

    Yields:
        `[size]` int64, and how many of them count.
    """
    for start in range(0, rows, size):
        yield np.minimum(np.arange(start, start + size), rows - 1), min(size, rows - start)


def local_rows(x: jax.Array) -> np.ndarray:
    """This host's rows of an array that is split by rows, in order."""
    shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def put_replicated(tree: Any, mesh: Mesh) -> Any:
    """Puts a whole tree on every device. Hosts must hold the same values."""
    return jax.tree.map(lambda leaf: put_rows(np.asarray(leaf), mesh, split=False), tree)


def with_sharding(tree: Any, sharding: NamedSharding) -> Any:
    """Shapes with a sharding, for a compiler or a reader of checkpoints that needs no values."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

"""The device mesh and how arrays lie on it; the only file that spells the mesh's axis.

The axis is of the Auto type: the compiler places what is between the annotated ends of the step. The losses run
on explicit axes as well, through `gathered` (tests cover both).
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lit_jax.errors import UserError

AXIS = "data"


def make_mesh(devices: int = 0, *, axis_type: AxisType = AxisType.Auto) -> Mesh:
    """A one-axis mesh over devices of all hosts.

    Args:
        devices: how many; 0 for all.
        axis_type: Auto or Explicit.

    Raises:
        UserError: if there are not that many devices, or several hosts would not all take part.
    """
    available = jax.device_count()
    if not 0 <= devices <= available or (devices and jax.process_count() > 1 and devices != available):
        raise UserError(f"train.devices: found {devices}, expected 0 (all) or at most the {available} there are")
    chosen = jax.devices()[: devices or available]
    return jax.make_mesh((len(chosen),), (AXIS,), axis_types=(axis_type,), devices=chosen)


def over_batch(mesh: Mesh) -> NamedSharding:
    """Rows split over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def gathered(x: jax.Array) -> jax.Array:
    """Makes a row-sharded array whole on every device, inside a jitted function.

    On explicit axes this is a visible reshard. On automatic ones the compiler sees the need by itself.
    """
    mesh = jax.typeof(x).sharding.mesh
    if AxisType.Explicit in mesh.axis_types:
        return jax.sharding.reshard(x, PartitionSpec())
    return x


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


def local_rows(x: jax.Array) -> np.ndarray:
    """This host's rows of an array that is split by rows, in order."""
    shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def put_replicated(tree: Any, mesh: Mesh) -> Any:
    """Puts a whole tree on every device. Hosts must hold the same values."""
    return jax.tree.map(lambda leaf: put_rows(np.asarray(leaf), mesh, split=False), tree)


def from_all_hosts(rows: np.ndarray) -> np.ndarray:
    """Each host's small array, stacked: `[hosts, ...]`."""
    if jax.process_count() == 1:
        return rows[None]
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(rows))


def ensure_same_on_hosts(values: Sequence[int], *, name: str) -> None:
    """Stops if hosts disagree about something that must be equal, such as where to resume.

    Raises:
        UserError: with what each host found.
    """
    found = from_all_hosts(np.asarray(values, np.int64))
    if (found != found[0]).any():
        raise UserError(f"{name}: found {found.tolist()} on the hosts, expected the same on each; use a shared folder")

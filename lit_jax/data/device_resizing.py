"""Photos to the squares that a tower reads, on the devices: what `lit_jax.data.images` does on the host, in JAX.

The host decodes; a device resizes, as two small products of matrices a photo and view, with the weights of the same
antialiased filter, rounded and clipped once and at the end. Values differ from those that the host makes of the same
decoded photo by 1 at most, in fewer than one of 500 places (`tests/test_device_resize.py`): where sums that are equal
but for the order of their terms lie on either side of a half. So the bound against PIL is the host's.

Random crops differ in the decoding as well: the host decodes the part alone, where colours at half the resolution, as
most JPEGs have them, lack their neighbours at the part's edges; here parts are cut from the whole photo.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lit_jax.base.sharding import is_cpu, over_batch, per_device, put_batch
from lit_jax.data.filters import Axis, centres, weights
from lit_jax.data.images import PLACE, Pictures

_AT_A_TIME = 16  # photos that are in a device's memory as float32

Resizer = Callable[[jax.Array, jax.Array], jax.Array]
"""From photos `[N, H, W, 3]` uint8 and places `[N, V, 9]` int32 to squares `[N * V, S, S, 3]` uint8."""


def squares(photos: jax.Array, places: jax.Array, *, size: int, interpolation: str = "bicubic") -> jax.Array:
    """The squares of photos, a few photos at a time.

    Args:
        photos: `[N, H, W, 3]` uint8, from the upper left corner; what is right of or below a photo is not looked at.
        places: `[N, V, 9]` int32, by `lit_jax.data.images.PLACE`. A part lies within its photo, and a square within
            what the part becomes. Zeros, such as those of a row that fills a batch up, give a black square.
        size: S, side of a square, pixels.
        interpolation: bicubic (Keys, a = -0.5) or bilinear, each with antialiasing.

    Returns:
        `[N, V, S, S, 3]` uint8.
    """
    one = functools.partial(_squares_of, size=size, interpolation=interpolation)
    return jax.lax.map(lambda row: one(*row), (photos, places), batch_size=min(_AT_A_TIME, len(photos)))


@functools.lru_cache(maxsize=8)
def resizer(mesh: Mesh, size: int, interpolation: str) -> Resizer:
    """`squares`, jitted, for rows that are split over the devices of a mesh; each device resizes its own."""
    function = functools.partial(squares, size=size, interpolation=interpolation)
    on_each = per_device(function, mesh, inputs=(True, True), outputs=True)
    return jax.jit(
        lambda photos, places: on_each(photos, places).reshape(-1, size, size, 3), out_shardings=over_batch(mesh)
    )


def settled(pictures: Pictures, mesh: Mesh) -> Pictures:
    """Where photos are resized, settled: ``auto`` is on the devices unless they are CPUs."""
    if pictures.resize_on != "auto":
        return pictures
    return dataclasses.replace(pictures, resize_on="host" if is_cpu(mesh) else "device")


def put_squares(batch: Mapping[str, np.ndarray], mesh: Mesh, pictures: Pictures) -> jax.Array:
    """Puts this host's rows on its devices as squares, whatever the host made of the photos.

    Each host resizes on its own devices: those of others may have photos of other shapes at the same time.

    Args:
        batch: ``image`` `[b, S, S, 3]` uint8 or `[b, V, S, S, 3]`; or ``photo`` `[b, H, W, 3]` and ``place``
            `[b, V, 9]`, for which see `squares`. Others are left alone.
        mesh: where to.
        pictures: what photos are turned into.

    Returns:
        `[B * V, S, S, 3]` uint8 of the global batch, rows split over the devices of all hosts.
    """
    if "image" in batch:
        return put_batch({"image": batch["image"].reshape(-1, *batch["image"].shape[-3:])}, mesh)["image"]
    here = mesh.local_mesh
    placed = put_batch({name: batch[name] for name in ("photo", "place")}, here)
    own = resizer(here, pictures.size, pictures.view.interpolation)(placed["photo"], placed["place"])
    if here.size == mesh.size:
        return own
    shape = (len(own) * mesh.size // here.size, *own.shape[1:])
    by_device = {shard.device: shard.data for shard in own.addressable_shards}
    sharding = over_batch(mesh)
    rows = [by_device[device] for device in sharding.addressable_devices_indices_map(shape)]
    return jax.make_array_from_single_device_arrays(shape, sharding, rows)


def _squares_of(photo: jax.Array, places: jax.Array, *, size: int, interpolation: str) -> jax.Array:
    """`[H, W, 3]` uint8 and `[V, 9]` int32 to `[V, S, S, 3]` uint8."""
    of = {name: places[:, number] for number, name in enumerate(PLACE)}
    along = functools.partial(_weights, size=size, interpolation=interpolation)
    rows = along(of["y"], of["height"], of["full_height"], of["top"], length=photo.shape[0])
    columns = along(of["x"], of["width"], of["full_width"], of["left"], length=photo.shape[1])
    columns = jnp.where(of["mirrored"][:, None, None] == 1, columns[:, ::-1], columns)
    # In full float32: where products are rounded to fewer bits by default, as on GPUs and TPUs, pixels would be wrong.
    product = functools.partial(jnp.einsum, precision="highest", preferred_element_type=jnp.float32)
    narrow = product("vsh,hwc->vswc", rows, photo.astype(jnp.float32))
    pixels = product("vtw,vswc->vstc", columns, narrow)
    return jnp.clip(jnp.rint(pixels), 0, 255).astype(jnp.uint8)


def _weights(
    first: jax.Array, old: jax.Array, new: jax.Array, margin: jax.Array, *, length: int, size: int, interpolation: str
) -> jax.Array:
    """`[V, size, length]` float32: weights of `size` of `new` pixels from `margin` on, made of `old` ones from `first`.

    The barrier keeps the compiler from writing a quotient of a quotient as a product, which is rounded otherwise. They
    are dense: compiled programs need one shape for all photos, and accelerators are made for such products.
    """
    first, old, new, margin = (value[:, None, None] for value in (first, old, new, margin))
    real_old, real_new, margin = (
        value.astype(jnp.float32) for value in (jnp.maximum(old, 1), jnp.maximum(new, 1), margin)
    )
    axis = Axis(old.astype(jnp.float32), jax.lax.optimization_barrier(real_new / real_old), margin)
    places = (jnp.arange(length, dtype=jnp.int32)[None, None] - first).astype(jnp.float32)
    middles = centres(jnp.arange(size, dtype=jnp.float32)[None, :, None], axis)
    found = weights(places, middles, axis, interpolation, jnp)
    total = found.sum(2, keepdims=True)
    return found / jnp.where(total == 0, 1, total)

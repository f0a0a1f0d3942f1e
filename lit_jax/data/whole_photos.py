"""Batches of whole photos, decoded only, for devices that resize them (`lit_jax.data.device_resizing`).

Photos of a batch are filled up with zeros, right and below, to the next height and width of a short ladder, so that few
shapes are compiled. A batch with a photo above the ladder, or one that would be larger than `LIMIT`, is resized on the
host, as all batches are without this: it would take more memory, and more time to the device, than resizing does.

In place of ``image`` such a batch holds ``photo`` `[b, H, W, 3]` uint8 and ``place`` `[b, V, 9]` int32, see
`lit_jax.data.images.PLACE`; where the host resized it, ``image`` `[b, V, S, S, 3]` uint8.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lit_jax.data import images
from lit_jax.data.images import Pictures

LADDER = (256, 384, 512, 768, 1024)
"""Heights and widths of batches, pixels."""

LIMIT = 2**30
"""Bytes of a batch: about five are in memory at a time."""


def row(jpeg: Any, pictures: Pictures, seeds: Sequence[Any] = (), *, plain: bool = True) -> dict[str, Any]:
    """What `batched` takes of a photo: its views are the plain one, where wanted, and a random crop for each seed.

    Args:
        jpeg: `[]` string tensor.
        pictures: what photos are turned into.
        seeds: `[2]` int64 each.
        plain: whether the first view is the plain one.
    """
    tf = images.tensorflow()
    sides = pictures.sides(jpeg)
    places = [pictures.plain_place(sides)] * plain + [pictures.cropped_place(sides, seed) for seed in seeds]
    return {"jpeg": jpeg, "sides": sides, "place": tf.stack(places)}


def batched(stream: Any, batch_size: int, pictures: Pictures) -> Any:
    """Encoded photos to batches, in order; the last one may be short.

    Args:
        stream: a ``tf.data`` set of what `row` gives and other tensors, which stay as they are.
        batch_size: photos a batch.
        pictures: what photos are turned into.

    Returns:
        A ``tf.data`` set of batches with ``photo`` and ``image`` both, one of which has a size of 0: see `chosen`.
    """
    tf = images.tensorflow()

    @tf.autograph.experimental.do_not_convert
    def fitted(rows: dict[str, Any]) -> dict[str, Any]:
        rung = _rung(tf.reduce_max(rows["sides"], axis=0), batch_size)
        return {**rows, "rung": tf.tile(rung[None], [tf.shape(rows["sides"])[0], 1])}

    @tf.autograph.experimental.do_not_convert
    def decoded(one: dict[str, Any]) -> dict[str, Any]:
        others = {name: value for name, value in one.items() if name not in ("jpeg", "sides", "rung")}
        photo, image = _decoded(one, pictures)
        return {**others, "photo": photo, "image": image}

    stream = stream.batch(batch_size).map(fitted).unbatch()
    return stream.map(decoded, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).batch(batch_size)


def chosen(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A batch of `batched` without what of it is empty, and without places where the host has resized."""
    empty = ("image",) if batch["photo"].size else ("photo", "place")
    return {name: value for name, value in batch.items() if name not in empty}


def _rung(sides: Any, batch_size: int) -> Any:
    """Height and width `[2]` int32 that hold the greatest of a batch; zeros if it is to be resized on the host."""
    tf = images.tensorflow()
    rung = tf.gather(tf.constant([*LADDER, 0]), tf.searchsorted(tf.constant(LADDER), sides))
    fits = (rung[0] > 0) & (rung[1] > 0) & (rung[0] * rung[1] <= LIMIT // (3 * batch_size))
    return tf.where(fits, rung, 0)


def _decoded(one: dict[str, Any], pictures: Pictures) -> tuple[Any, Any]:
    """A photo filled up `[H, W, 3]`, or its squares `[V, S, S, 3]`; of the other, nothing."""
    tf = images.tensorflow()
    sides, rung, places = one["sides"], one["rung"], one["place"]
    views, size = places.shape[0], pictures.size

    def whole() -> tuple[Any, Any]:
        missing = tf.stack([rung[0] - sides[0], rung[1] - sides[1], 0])
        photo = tf.pad(pictures.decoded(one["jpeg"]), tf.stack([tf.zeros(3, tf.int32), missing], axis=1))
        return photo, tf.zeros([views, 0, size, 3], tf.uint8)

    def resized() -> tuple[Any, Any]:
        photo = pictures.decoded(one["jpeg"])
        squares = [images.placed(photo, place, pictures) for place in tf.unstack(places)]
        return tf.zeros([0, 0, 3], tf.uint8), tf.stack(squares)

    return tf.cond(rung[0] > 0, whole, resized)

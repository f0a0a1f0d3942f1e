"""Batches of whole photos, decoded only, for devices that resize them (`lit_jax.data.device_resizing`).

Photos of a batch are filled up with zeros, right and below, to the next height and width of a short ladder, so that few
shapes are compiled. A batch with a photo above the ladder is resized on the host, as all batches are without this: it
would take more memory, and more time on its way to the device, than resizing saves.
"""

from typing import Any

import numpy as np

from lit_jax.data import images
from lit_jax.data.images import Pictures

LADDER = (256, 384, 512, 768, 1024)
"""Heights and widths of batches, pixels."""


def batched(stream: Any, batch_size: int, pictures: Pictures) -> Any:
    """Encoded photos to batches, in order; the last one may be short.

    Args:
        stream: a ``tf.data`` set of dictionaries: ``jpeg`` `[]` string, ``seeds`` `[V - 1, 2]` int64 of the random
            crops that follow the plain view, left out where V is 1, and others that stay as they are.
        batch_size: photos a batch.
        pictures: what photos are turned into.

    Returns:
        A ``tf.data`` set of the others and ``place`` `[b, V, 9]` int32, see `lit_jax.data.images.PLACE`, ``photo``
        `[b, H, W, 3]` uint8 and ``image`` `[b, V, S, S, 3]` uint8. One of the last two is empty: of size 0 but for b.
    """
    tf = images.tensorflow()
    as_it_is = tf.autograph.experimental.do_not_convert

    @as_it_is
    def measured(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "sides": images.jpeg_sides(row["jpeg"])}

    @as_it_is
    def fitted(rows: dict[str, Any]) -> dict[str, Any]:
        rung = _rung(tf.reduce_max(rows["sides"], axis=0))
        return {**rows, "rung": tf.tile(rung[None], [tf.shape(rows["sides"])[0], 1])}

    @as_it_is
    def photo(row: dict[str, Any]) -> dict[str, Any]:
        return _decoded(row, pictures)

    wide = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
    stream = stream.map(measured, **wide).batch(batch_size).map(fitted).unbatch()
    return stream.map(photo, **wide).batch(batch_size)


def chosen(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A batch of `batched` without the one of its two pictures that is empty, and without places of what is resized."""
    empty = ("image",) if batch["photo"].size else ("photo", "place")
    return {name: value for name, value in batch.items() if name not in empty}


def _rung(sides: Any) -> Any:
    """Height and width `[2]` int32 that hold the greatest of a batch; zeros if the ladder has none."""
    tf = images.tensorflow()
    number = tf.searchsorted(tf.constant(LADDER), sides)
    rung = tf.gather(tf.constant([*LADDER, 0]), number)
    return rung * tf.cast(tf.reduce_all(rung > 0), tf.int32)


def _decoded(row: dict[str, Any], pictures: Pictures) -> dict[str, Any]:
    tf = images.tensorflow()
    others = {name: value for name, value in row.items() if name not in ("jpeg", "seeds", "sides", "rung")}
    jpeg, sides, rung = row["jpeg"], row["sides"], row["rung"]
    seeds = tf.unstack(row["seeds"]) if "seeds" in row else []
    places = [pictures.plain_place(sides), *(pictures.cropped_place(sides, seed) for seed in seeds)]

    def whole() -> Any:
        missing = tf.stack([rung[0] - sides[0], rung[1] - sides[1], 0])
        photo = tf.pad(images.decoded(jpeg), tf.stack([tf.zeros(3, tf.int32), missing], axis=1))
        return photo, tf.zeros([len(places), 0, 0, 3], tf.uint8)

    def resized() -> Any:
        crops = [pictures.plain(jpeg), *(pictures.cropped(jpeg, seed) for seed in seeds)]
        return tf.zeros([0, 0, 3], tf.uint8), tf.stack(crops)

    photo, image = tf.cond(rung[0] > 0, whole, resized)
    return {**others, "photo": photo, "image": image, "place": tf.stack(places)}

"""Bytes to pixels: decode, crop and resize, inside a ``tf.data`` pipeline on the CPU.

Resizing is bicubic (Keys, a = -0.5) with antialiasing and rounds to bytes, as PIL does: along each axis a product with
a sparse matrix of the weights of `lit_jax.data.filters`, which all ways of ours share. Decoding included, 999 of 1000
values are within one unit of 255 of PIL's. PIL also rounds and clips between its two passes: near an edge from black to
white it loses the filter's overshoot, at most 1/24 of the step, so no value differs by more than 11
(``tests/test_images.py``).
"""

import dataclasses
import functools
import math
import os
import types
from collections.abc import Callable
from typing import Any

from lit_jax.data.filters import RADIUS, Axis, taps
from lit_jax.errors import refuse_without_tensorflow

TRIES = 10  # of the random crop before it falls back on a central one
RATIO = (3 / 4, 4 / 3)  # of its sides, width over height
AT_A_TIME = 2**18  # pixels of a photo that are in memory as float32

INTERPOLATIONS = tuple(RADIUS)
RESIZES = ("short", "square")

KEEPS_MEMORY = "TF_CPU_ALLOCATOR_USE_BFC"
"""The variable of the environment by which TensorFlow keeps its memory, 1, or gives it back to the system, 0."""

PLACE = ("y", "x", "height", "width", "full_height", "full_width", "top", "left", "mirrored")
"""What the numbers of a place say: the part of a photo from row y and column x on, how high and wide that is, how high
and wide it becomes, where in the result the square begins, and 1 where the square is mirrored from left to right."""


@dataclasses.dataclass(frozen=True)
class View:
    """How a photo becomes the square that a tower reads.

    Attributes:
        interpolation: filter of the resizing, bicubic or bilinear, each with antialiasing.
        resize: ``short`` fits the shorter side and cuts the middle square; ``square`` squeezes the whole photo.
        crop_fraction: side of the square as a share of the shorter side: 0.875 resizes to 256 and cuts 224.
    """

    interpolation: str = "bicubic"
    resize: str = "short"
    crop_fraction: float = 1.0

    def side(self, size: int) -> int:
        """What the shorter side becomes before a square is cut, as timm rounds: 256 for 224 pixels at 0.875."""
        return math.floor(size / self.crop_fraction + 1e-6)

    def full(self, height: Any, width: Any, size: int, *, least: Callable[..., Any] = min) -> tuple[Any, Any]:
        """Height and width that a whole photo becomes, of which the middle square is cut.

        Args:
            height: of the photo, an integer or a tensor.
            width: of the photo.
            size: side of the square, pixels.
            least: what takes the lesser of the two.
        """
        side = self.side(size)
        if self.resize == "square":
            return side, side
        short = least(height, width)
        return side * height // short, side * width // short


PLAIN = View()
"""Bicubic, the shorter side, no margin."""


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How training varies its photos.

    Attributes:
        crop: ``random``, or ``centre`` for the photo as evaluation sees it.
        crop_scale: share of the photo's area that a random crop may have.
        flip: whether to mirror half of the random crops.
    """

    crop: str = "random"
    crop_scale: tuple[float, float] = (0.9, 1.0)
    flip: bool = False


@dataclasses.dataclass(frozen=True)
class Pictures:
    """What photos are turned into.

    Attributes:
        size: S, side of the square, pixels.
        view: how a photo becomes it; random crops take its interpolation only.
        augmentation: of training; evaluation has none.
        resize_on: where photos of records are resized: ``host``, ``device``, or ``auto``, which
            `lit_jax.data.device_resizing.settled` settles.
        shrink: whether photos of records that are at least twice as large as needed are decoded at a half, a quarter
            or an eighth of their size: the decoder then leaves out what is fine, which is cheaper and less exact.
    """

    size: int
    view: View = PLAIN
    augmentation: Augmentation = Augmentation()
    resize_on: str = "host"
    shrink: bool = False

    @property
    def whole(self) -> bool:
        """Whether batches hold whole photos, for the devices to resize."""
        return self.resize_on == "device"

    def halvings(self, jpeg: Any) -> Any:
        """How often the sides of a photo are halved while it is decoded, `[]` int32 from 0 to 3.

        As often as all views of it, whichever are asked for, still have at least the pixels that they become.
        """
        if not self.shrink:
            return 0
        tf = tensorflow()
        height, width = (tf.cast(side, tf.float32) for side in tf.unstack(jpeg_sides(jpeg)))
        larger = tf.minimum(height, width) / self.view.side(self.size)
        if self.augmentation.crop == "random":
            # The least side that a part can have, of the least area and the most extreme ratio.
            part = tf.sqrt(height * width * self.augmentation.crop_scale[0] * RATIO[0])
            larger = tf.minimum(larger, part / self.size)
        return tf.reduce_sum(tf.cast(larger >= [2.0, 4.0, 8.0], tf.int32))

    def decoded(self, jpeg: Any) -> Any:
        """The whole photo, `[H, W, 3]` uint8, halved where `shrink` says so."""
        return decoded(jpeg, self.halvings(jpeg))

    def sides(self, jpeg: Any) -> Any:
        """Height and width that a photo has once it is `decoded`, `[2]` int32."""
        return jpeg_sides(jpeg, self.halvings(jpeg))

    def plain(self, jpeg: Any) -> Any:
        """The photo as evaluation sees it, see `centre_crop`."""
        return _centred(self.decoded(jpeg), self.size, self.view)

    def cropped(self, jpeg: Any, seed: Any) -> Any:
        """A random crop, see `random_crop`."""
        vary = self.augmentation
        return random_crop(
            jpeg, seed, size=self.size, scale=vary.crop_scale, flip=vary.flip, interpolation=self.view.interpolation,
            halvings=self.halvings(jpeg),
        )  # fmt: skip

    def plain_place(self, sides: Any) -> Any:
        """What `plain` cuts of a photo: its height and width `[2]` int32 to a `PLACE`, `[9]` int32."""
        tf = tensorflow()
        full, offset = _full_and_offset(tf, sides[0], sides[1], self.size, self.view)
        return tf.stack([0, 0, sides[0], sides[1], *full, *offset, 0])

    def cropped_place(self, sides: Any, seed: Any) -> Any:
        """What `cropped` cuts of a photo with the same seed: its height and width `[2]` int32 to a `PLACE`."""
        tf, vary = tensorflow(), self.augmentation
        box, mirrored = _drawn(tf, sides[0], sides[1], seed, vary.crop_scale)
        square = [self.size, self.size, 0, 0]
        return tf.stack([*tf.unstack(box), *square, tf.cast(mirrored, tf.int32) if vary.flip else 0])


@functools.cache
def tensorflow() -> Any:
    """Imports TensorFlow, once and quietly, and keeps it off the accelerators: it only reads and decodes.

    It keeps the memory of photos and batches for the next ones (docs/decisions.md). It asks for this at its first
    operation, so one that has worked before goes on as it did.
    """
    refuse_without_tensorflow()
    os.environ.setdefault(KEEPS_MEMORY, "1")
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    # Nothing here needs AutoGraph, which would try to translate every function of a pipeline.
    tf.autograph.set_verbosity(0)
    return tf


def random_crop(
    jpeg: Any, seed: Any, *, size: int, scale: tuple[float, float], flip: bool, interpolation: str = "bicubic",
    halvings: Any = 0,
) -> Any:  # fmt: skip
    """Inception-style crop: a random part of the photo, resized to a square.

    Only the part is decoded. The draw is torchvision's RandomResizedCrop: ten tries at an area and a ratio of
    sides, then the largest central part whose ratio is allowed.

    Args:
        jpeg: `[]` string tensor.
        seed: `[2]` int64 tensor; the same seed gives the same crop.
        size: side of the result, pixels.
        scale: least and greatest area of the part, as a share of the photo.
        flip: whether to mirror half of the results.
        interpolation: bicubic or bilinear.
        halvings: how often the photo's sides are halved while it is decoded, see `Pictures.halvings`.

    Returns:
        `[size, size, 3]` uint8.
    """
    tf = tensorflow()
    height, width = tf.unstack(jpeg_sides(jpeg, halvings))
    box, mirrored = _drawn(tf, height, width, seed, scale)
    part = _halved(functools.partial(tf.io.decode_and_crop_jpeg, jpeg, box), halvings)
    small = _resized(tf, part, (size, size), size, (0, 0), interpolation)
    if flip:
        small = tf.cond(mirrored, lambda: small[:, ::-1], lambda: small)
    return small


def centre_crop(jpeg: Any, *, size: int, view: View = PLAIN) -> Any:
    """The photo as evaluation sees it: resized, and its middle square cut, as torchvision and timm do it.

    The pixels outside the square are never computed, but those that the filter reaches are used.

    Args:
        jpeg: `[]` string tensor.
        size: side of the result, pixels.
        view: how to come to a square.

    Returns:
        `[size, size, 3]` uint8.
    """
    return _centred(decoded(jpeg), size, view)


def placed(photo: Any, place: Any, pictures: Pictures) -> Any:
    """The square at a `PLACE` of a decoded photo, `[H, W, 3]` uint8 and `[9]` int32 to `[S, S, 3]` uint8."""
    tf, size = tensorflow(), pictures.size
    y, x, height, width, full_height, full_width, top, left, mirrored = tf.unstack(place)
    part = photo[y : y + height, x : x + width]
    full, offset = (full_height, full_width), (top, left)
    square = _resized(tf, part, full, size, offset, pictures.view.interpolation)
    return tf.cond(mirrored == 1, lambda: square[:, ::-1], lambda: square)


def decoded(jpeg: Any, halvings: Any = 0) -> Any:
    """The whole photo, its sides halved so often: `[]` string tensor to `[H, W, 3]` uint8."""
    return _halved(functools.partial(tensorflow().io.decode_jpeg, jpeg), halvings)


def jpeg_sides(jpeg: Any, halvings: Any = 0) -> Any:
    """Height and width of a photo that is not decoded for it, once they are halved so often, `[2]` int32."""
    tf = tensorflow()
    sides = tf.image.extract_jpeg_shape(jpeg)[:2]
    if isinstance(halvings, int) and not halvings:
        return sides
    # As libjpeg rounds: up.
    times = tf.bitwise.left_shift(1, halvings)
    return (sides + times - 1) // times


def _halved(decode: Callable[..., Any], halvings: Any) -> Any:
    """What a decoder gives, to the last bit, or scaled while it is decoded."""

    def at(ratio: int) -> Any:
        return decode(channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")

    if isinstance(halvings, int) and not halvings:
        return at(1)
    return tensorflow().switch_case(halvings, [functools.partial(at, 2**times) for times in range(4)])


def _centred(photo: Any, size: int, view: View) -> Any:
    """The middle square of a decoded photo."""
    tf = tensorflow()
    full, offset = _full_and_offset(tf, tf.shape(photo)[0], tf.shape(photo)[1], size, view)
    return _resized(tf, photo, full, size, offset, view.interpolation)


def _full_and_offset(tf: Any, height: Any, width: Any, size: int, view: View) -> tuple[tuple[Any, Any], Any]:
    """Height and width that a whole photo becomes, and where its middle square begins."""
    full = view.full(height, width, size, least=tf.minimum)
    # Half to even, as Python's round in torchvision.
    return full, tuple(tf.cast(tf.round((tf.cast(side, tf.float32) - size) / 2), tf.int32) for side in full)


def _drawn(tf: Any, height: Any, width: Any, seed: Any, scale: tuple[float, float]) -> tuple[Any, Any]:
    """The part of a random crop, `[4]` int32, and whether it would be mirrored, `[]` bool."""
    draws = tf.random.stateless_uniform([TRIES + 1, 4], seed)
    return _crop_box(tf, draws[:TRIES], height, width, scale), draws[TRIES, 0] < 0.5


def _crop_box(tf: Any, draws: Any, height: Any, width: Any, scale: tuple[float, float]) -> Any:
    """`[4]` int32: y, x, height, width of the part."""
    h, w = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    area = h * w * (scale[0] + draws[:, 0] * (scale[1] - scale[0]))
    low, high = tf.math.log(RATIO[0]), tf.math.log(RATIO[1])
    ratio = tf.exp(low + draws[:, 1] * (high - low))
    widths, heights = tf.round(tf.sqrt(area * ratio)), tf.round(tf.sqrt(area / ratio))
    fits = (widths <= w) & (heights <= h) & (widths > 0) & (heights > 0)
    first = tf.argmax(tf.cast(fits, tf.int32))
    # The fallback: as much as the ratio allows, from the middle.
    central_w = tf.minimum(w, tf.round(h * RATIO[1]))
    central_h = tf.minimum(h, tf.round(w / RATIO[0]))
    drawn = tf.reduce_any(fits)
    box_h = tf.where(drawn, heights[first], central_h)
    box_w = tf.where(drawn, widths[first], central_w)
    y = tf.where(drawn, tf.floor(draws[first, 2] * (h - box_h + 1)), (h - box_h) // 2)
    x = tf.where(drawn, tf.floor(draws[first, 3] * (w - box_w + 1)), (w - box_w) // 2)
    return tf.cast(tf.stack([y, x, box_h, box_w]), tf.int32)


def _resized(tf: Any, photo: Any, full: tuple[Any, Any], size: int, offset: tuple[Any, Any], interpolation: str) -> Any:
    """Resizes `[h, w, 3]` to `full`, but computes only `[size, size, 3]` of it, from `offset` on.

    Along each axis a product of few weights a row with rows of pixels: first the rows of the photo, then its columns,
    which are the rows of the other way round.
    """
    sides = tf.unstack(tf.shape(photo)[:2])
    axes = [_axis(tf, *numbers) for numbers in zip(sides, full, offset, strict=True)]
    (rows, row_weights), (columns, column_weights) = (
        taps(axis, size, interpolation, _numpy_names(tf)) for axis in axes
    )
    begin, end = tf.cast(columns[0, 0], tf.int32), tf.cast(columns[-1, -1], tf.int32) + 1
    narrow = _narrow(tf, _sparse(tf, rows, row_weights, sides[0]), photo[:, begin:end])
    across = _sparse(tf, columns - columns[0, 0], column_weights, end - begin)
    pixels = tf.raw_ops.SparseMatrixMatMul(a=across, b=tf.reshape(narrow, [end - begin, 3 * size]))
    square = tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)
    return tf.reshape(tf.transpose(tf.reshape(square, [3 * size, size])), [size, size, 3])


def _narrow(tf: Any, down: Any, photo: Any) -> Any:
    """A sparse `[S, h]` by `[h, w, 3]` uint8, the other way round: `[w * 3, S]` float32.

    Of a large photo a few columns at a time, so that little of it is in memory, and in the cache, as float32.
    """
    height, width = tf.unstack(tf.shape(photo)[:2])
    flat = tf.reshape(photo, [height, 3 * width])

    def part(begin: Any, end: Any) -> Any:
        strip = tf.cast(flat[:, begin:end], tf.float32)
        return tf.transpose(tf.raw_ops.SparseMatrixMatMul(a=down, b=strip))

    def parts() -> Any:
        wide = tf.maximum(AT_A_TIME // height, 1) * 3
        count = -(-3 * width // wide)

        def another(number: Any, found: Any) -> tuple[Any, Any]:
            begin = number * wide
            return number + 1, found.write(number, part(begin, tf.minimum(begin + wide, 3 * width)))

        found = tf.TensorArray(tf.float32, size=count, infer_shape=False, element_shape=[None, None])
        return tf.while_loop(lambda number, _: number < count, another, (0, found), parallel_iterations=1)[1].concat()

    return tf.cond(height * width <= AT_A_TIME, lambda: part(0, 3 * width), parts)


def _axis(tf: Any, old: Any, new: Any, margin: Any) -> Axis:
    old, new, margin = (tf.cast(number, tf.float32) for number in (old, new, margin))
    return Axis(old, new / old, margin)


def _sparse(tf: Any, places: Any, weights: Any, length: Any) -> Any:
    """Weights `[S, K]` at their places as a sparse matrix `[S, length]`."""
    rows = tf.broadcast_to(tf.range(places.shape[0], dtype=tf.int64)[:, None], tf.shape(places))
    indices = tf.reshape(tf.stack([rows, tf.cast(places, tf.int64)], 2), [-1, 2])
    shape = tf.cast(tf.stack([places.shape[0], length]), tf.int64)
    return tf.raw_ops.SparseTensorToCSRSparseMatrix(
        indices=indices, values=tf.reshape(weights, [-1]), dense_shape=shape
    )


def _numpy_names(tf: Any) -> Any:
    """TensorFlow's functions under the names that `lit_jax.data.filters` calls them by."""
    return types.SimpleNamespace(
        abs=tf.abs, arange=tf.range, ceil=tf.math.ceil, clip=tf.clip_by_value, maximum=tf.maximum,
        minimum=tf.minimum, sum=tf.reduce_sum, where=tf.where,
    )  # fmt: skip

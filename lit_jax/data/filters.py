"""The antialiased filters of resizing and where they read: one definition for NumPy, TensorFlow and JAX.

Every pixel of the result is a mean of old ones along each axis, weighted by a kernel that is stretched where the photo
shrinks. All numbers are float32 from the first step on, and every step is the same in each library, so that pixels are.
"""

from typing import Any, NamedTuple

import numpy as np

RADIUS = {"bicubic": 2, "bilinear": 1}
"""Of each kernel, in pixels of the result, or of the photo where that has fewer."""

_HALF, _ONE = np.float32(0.5), np.float32(1)


class Axis(NamedTuple):
    """One axis of a photo, or of a part, on its way to the square; float32 scalars, or arrays that broadcast.

    Attributes:
        old: pixels that there are.
        scale: pixels that they become, by `old`.
        margin: which of these is the first of the square.
    """

    old: Any
    scale: Any
    margin: Any


def kernel(x: Any, interpolation: str, arrays: Any = np) -> Any:
    """Keys' cubic with a = -0.5, or the triangle, at distances of at least 0; `arrays` is a library's module."""
    if interpolation == "bilinear":
        return arrays.maximum(1 - x, 0)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return arrays.where(x <= 1, near, arrays.where(x < 2, far, 0))


def centres(numbers: Any, axis: Axis) -> Any:
    """Where on the old axis the middles of the square's pixels of these numbers lie, float32."""
    step = _ONE / axis.scale
    return (numbers + _HALF) * step + step * axis.margin


def weights(places: Any, middles: Any, axis: Axis, interpolation: str, arrays: Any = np) -> Any:
    """Of the old pixels at `places` for those of the square with these `centres`, float32; 0 outside of the photo."""
    stretch = arrays.maximum(_ONE / axis.scale, _ONE)
    found = kernel(arrays.abs((places + _HALF - middles) * (_ONE / stretch)), interpolation, arrays)
    return arrays.where((places >= 0) & (places < axis.old), found, np.float32(0))


def taps(axis: Axis, size: int, interpolation: str, arrays: Any = np) -> tuple[Any, Any]:
    """Which old pixels each pixel of the square is made of, and in which shares.

    Args:
        axis: of scalars.
        size: S, pixels of the square.
        interpolation: bicubic or bilinear.
        arrays: NumPy, or what has its names: abs, arange, ceil, clip, maximum, minimum, sum and where.

    Returns:
        Places `[S, K]` float32, which are whole numbers, next to each other and within the photo; and weights `[S, K]`
        float32 that sum to 1.
    """
    middles = centres(arrays.arange(size, dtype=np.float32)[:, None], axis)
    reach = np.float32(RADIUS[interpolation]) * arrays.maximum(_ONE / axis.scale, _ONE)
    count = arrays.minimum(arrays.ceil(reach + reach) + _ONE, axis.old)
    first = arrays.clip(arrays.ceil(middles - reach - _HALF), np.float32(0), axis.old - count)
    places = first + arrays.arange(count, dtype=np.float32)
    found = weights(places, middles, axis, interpolation, arrays)
    return places, found / arrays.sum(found, 1, keepdims=True)

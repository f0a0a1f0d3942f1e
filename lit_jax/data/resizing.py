"""Pixels to the square that a tower reads, in NumPy: what `lit_jax.data.images.centre_crop` does inside TensorFlow.

The same filter, the same rounding, once and at the end. Values differ from those of TensorFlow by 1 at most, mostly in
fewer than one of 10,000 places and never in one of 500 (`tests/test_predict.py`): where sums that are equal but for the
order of their terms lie on either side of a half.
"""

import math
from typing import Any

import numpy as np

from lit_jax.data.images import Pictures

_RADIUS = {"bicubic": 2, "bilinear": 1}
_ROWS = 8  # of the result at a time: between them and the taps little is multiplied by zero


def square(photo: np.ndarray, pictures: Pictures) -> np.ndarray:
    """The photo as evaluation sees it: resized with antialiasing, and its middle square cut.

    Args:
        photo: `[H, W, 3]` uint8.
        pictures: what photos are turned into.

    Returns:
        `[S, S, 3]` uint8.
    """
    size, view = pictures.size, pictures.view
    # As timm rounds, and so that 0.875 gives the 256 of the papers.
    side = math.floor(size / view.crop_fraction + 1e-6)
    height, width = photo.shape[:2]
    short = min(height, width)
    full = (side, side) if view.resize == "square" else (side * height // short, side * width // short)
    rows, columns = (
        _matrix(old, new, size, view.interpolation) for old, new in zip((height, width), full, strict=True)
    )
    reached = np.flatnonzero(columns.any(0))
    here = slice(reached[0], reached[-1] + 1)
    narrow = _along_first(rows, photo[:, here]).swapaxes(0, 1)
    pixels = _along_first(columns[:, here], narrow).swapaxes(0, 1)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def kernel(x: Any, interpolation: str, arrays: Any = np) -> Any:
    """Keys' cubic with a = -0.5, or the triangle, at distances of at least 0; `arrays` is NumPy or JAX's."""
    if interpolation == "bilinear":
        return arrays.maximum(1 - x, 0)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return arrays.where(x <= 1, near, arrays.where(x < 2, far, 0))


def _matrix(old: int, new: int, cut: int, interpolation: str) -> np.ndarray:
    """`[cut, old]` float32: weights of the middle `cut` of `new` pixels, made of `old` ones.

    In float32 from the first step on, as TensorFlow places its pixels.
    """
    one, half = np.float32(1), np.float32(0.5)
    step = one / (np.float32(new) / np.float32(old))
    stretch, radius = max(step, one), np.float32(_RADIUS[interpolation])
    # Half to even, as Python's round in torchvision.
    margin = np.float32(round((new - cut) / 2))
    centres = (np.arange(cut, dtype=np.float32) + half) * step + step * margin
    first = np.ceil(centres - radius * stretch - half).astype(int)
    places = first[:, None] + np.arange(math.ceil(2 * radius * stretch) + 1)[None]
    distances = places.astype(np.float32) + half - centres[:, None]
    weights = kernel(np.abs(distances * (one / stretch)), interpolation)
    inside = (places >= 0) & (places < old)
    matrix = np.zeros((cut, old), np.float32)
    matrix[np.nonzero(inside)[0], places[inside]] = weights[inside]
    return matrix / matrix.sum(1, keepdims=True)


def _along_first(matrix: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """`[S, H]` weights by `[H, W, 3]` of any dtype: `[S, W, 3]` float32.

    A few rows of the result at a time: of a large photo no more than a strip is in memory as float32.
    """
    out = np.empty((len(matrix), photo.shape[1] * 3), np.float32)
    for start in range(0, len(matrix), _ROWS):
        block = matrix[start : start + _ROWS]
        reached = np.flatnonzero(block.any(0))
        here = slice(reached[0], reached[-1] + 1)
        strip = photo[here].reshape(here.stop - here.start, -1)
        np.matmul(block[:, here], strip.astype(np.float32), out=out[start : start + _ROWS])
    return out.reshape(len(matrix), photo.shape[1], 3)

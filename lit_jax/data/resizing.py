"""Pixels to the square that a tower reads, without TensorFlow: what `lit_jax.data.images.centre_crop` does with it.

The same weights (`lit_jax.data.filters`), the same sums, rounded once and at the end. Values differ from those of
TensorFlow by 1 at most, mostly in fewer than one of 100,000 places and never in one of 1,000 (`tests/test_predict.py`):
where sums that are equal but for how their steps are rounded lie on either side of a half. SciPy's products with a
sparse matrix multiply little by zero, start no threads and hold no lock of Python's.
"""

import math

import numpy as np
from scipy import sparse

from lit_jax.data.filters import Axis, taps
from lit_jax.data.images import AT_A_TIME, Pictures


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
    (rows, down), (columns, across) = (
        taps(_axis(old, new, size), size, view.interpolation) for old, new in zip((height, width), full, strict=True)
    )
    begin, end = int(columns[0, 0]), int(columns[-1, -1]) + 1
    narrow = _narrow(_sparse(rows, down, height), photo[:, begin:end])
    pixels = _sparse(columns - begin, across, end - begin) @ narrow.reshape(end - begin, 3 * size)
    squared = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(squared.reshape(3 * size, size).T).reshape(size, size, 3)


def _axis(old: int, new: int, cut: int) -> Axis:
    """The middle `cut` of `new` pixels."""
    # Half to even, as Python's round in torchvision.
    return Axis(np.float32(old), np.float32(new) / np.float32(old), np.float32(round((new - cut) / 2)))


def _sparse(places: np.ndarray, weights: np.ndarray, length: int) -> sparse.csr_array:
    """Weights `[S, K]` at their places as a sparse matrix `[S, length]`."""
    begins = np.arange(0, places.size + 1, places.shape[1], dtype=np.int32)
    parts = (weights.ravel(), places.ravel().astype(np.int32), begins)
    return sparse.csr_array(parts, shape=(len(places), length))


def _narrow(down: sparse.csr_array, photo: np.ndarray) -> np.ndarray:
    """A sparse `[S, H]` by `[H, W, 3]` uint8, the other way round: `[W * 3, S]` float32.

    Of a large photo a few columns at a time, so that little of it is in memory, and in the cache, as float32.
    """
    flat = photo.reshape(len(photo), -1)
    wide = max(AT_A_TIME // len(photo), 1) * 3
    out = np.empty((flat.shape[1], down.shape[0]), np.float32)
    for begin in range(0, flat.shape[1], wide):
        out[begin : begin + wide] = (down @ flat[:, begin : begin + wide].astype(np.float32)).T
    return out

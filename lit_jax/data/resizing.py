"""Pixels to the square that a tower reads, in NumPy: what `lit_jax.data.images.centre_crop` does inside TensorFlow.

The same weights (`lit_jax.data.filters`), rounded once and at the end. Values differ from those of TensorFlow by 1 at
most, mostly in fewer than one of 100,000 places and never in one of 1,000 (`tests/test_predict.py`): where sums that
are equal but for the order of their terms lie on either side of a half. TensorFlow has products with sparse matrices
for this, NumPy has none: small dense blocks of the same matrices come next.
"""

import numpy as np

from lit_jax.data.filters import Axis, taps
from lit_jax.data.images import Pictures

AT_A_TIME = 2**18
"""Multiplications of one product: as few as OpenBLAS does in the thread that asks, where others read photos too."""


def square(photo: np.ndarray, pictures: Pictures) -> np.ndarray:
    """The photo as evaluation sees it: resized with antialiasing, and its middle square cut.

    Args:
        photo: `[H, W, 3]` uint8.
        pictures: what photos are turned into.

    Returns:
        `[S, S, 3]` uint8.
    """
    size, view = pictures.size, pictures.view
    height, width = photo.shape[:2]
    full = view.full(height, width, size)
    (rows, down), (columns, across) = (
        taps(_axis(old, new, size), size, view.interpolation) for old, new in zip((height, width), full, strict=True)
    )
    begin, end = int(columns[0, 0]), int(columns[-1, -1]) + 1
    narrow = _product(rows, down, photo[:, begin:end].reshape(height, -1))
    # The other way round: columns of the photo are rows now.
    pixels = _product(columns - begin, across, narrow.T.reshape(end - begin, 3 * size))
    squared = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(squared.reshape(3 * size, size).T).reshape(size, size, 3)


def _axis(old: int, new: int, cut: int) -> Axis:
    """The middle `cut` of `new` pixels."""
    # Half to even, as Python's round in torchvision.
    return Axis(np.float32(old), np.float32(new) / np.float32(old), np.float32(round((new - cut) / 2)))


def _product(places: np.ndarray, weights: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Weights `[S, K]` at their places by `[L, N]` of any dtype: `[S, N]` float32.

    A few rows and columns of the result at a time: little is multiplied by zero, and of a large photo no more than a
    part is in memory as float32.
    """
    places = places.astype(int)
    out = np.empty((len(places), pixels.shape[1]), np.float32)
    rows = 16 if places.shape[1] < 16 else 8  # with many taps more of a block would be zero
    for top in range(0, len(places), rows):
        own = places[top : top + rows]
        first, last = own[0, 0], own[-1, -1] + 1
        block = np.zeros((len(own), last - first), np.float32)
        np.put_along_axis(block, own - first, weights[top : top + rows], 1)
        wide = max(AT_A_TIME // block.size, 1)
        for left in range(0, pixels.shape[1], wide):
            part = pixels[first:last, left : left + wide].astype(np.float32, copy=False)
            np.matmul(block, part, out=out[top : top + rows, left : left + wide])
    return out

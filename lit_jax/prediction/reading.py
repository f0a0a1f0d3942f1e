"""Photos as people have them, to the squares that a tower reads: Pillow and NumPy in threads, without TensorFlow."""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image

from lit_jax.base.processes import cores, keep_memory
from lit_jax.data.images import Pictures
from lit_jax.data.photo import BadPhoto, Source, upright_pixels
from lit_jax.data.resizing import square


class Read(NamedTuple):
    """One photo that was looked at.

    Attributes:
        photo: its path, or "photo 3" of an array.
        pixels: `[S, S, 3]` uint8; None if it cannot be read.
        error: why, in a few words.
    """

    photo: str
    pixels: np.ndarray | None
    error: str = ""


def read(photos: Iterable[Source], pictures: Pictures, *, ahead: int) -> Iterator[Read]:
    """Photos in order, each once; broken ones with the reason. No more than `ahead` of them are in memory.

    Threads, not processes: decoding and multiplying need no lock of Python's, and a notebook or a script of a few lines
    can be used as it is.

    Args:
        photos: see `lit_jax.data.photo.upright_pixels`; asked for one after the other.
        pictures: what they are turned into.
        ahead: how many to read before they are asked for.
    """
    keep_memory()
    pool = ThreadPoolExecutor(cores())
    waiting: deque[Future[Read]] = deque()
    try:
        for number, photo in enumerate(photos, 1):
            waiting.append(pool.submit(_read, photo, number, pictures))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def batches(photos: Iterable[Read], size: int) -> Iterator[list[Read]]:
    """The photos, up to `size` at a time."""
    photos = iter(photos)
    while batch := list(itertools.islice(photos, size)):
        yield batch


def label_of(photo: Source, number: int) -> str:
    """What a photo is called: its path, or its number where it has none."""
    name = getattr(photo, "filename", "") if isinstance(photo, Image.Image) else photo
    return f"photo {number}" if isinstance(name, bytes | np.ndarray) or not name else str(name)


def _read(photo: Source, number: int, pictures: Pictures) -> Read:
    label = label_of(photo, number)
    try:
        return Read(label, square(upright_pixels(photo), pictures))
    except BadPhoto as error:
        return Read(label, None, error.reason)
    except MemoryError:
        return Read(label, None, "too large for the memory")

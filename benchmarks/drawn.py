"""Photos that are drawn, as large as those of iNaturalist 2021 and as many bytes, each of them another."""

import io
import pathlib

import numpy as np
from PIL import Image

LONG, SHORT = 500, 375  # pixels of most photos of iNaturalist 2021
CLASSES, SCENES, QUALITY = 20, 8, 90


def photo(number: int) -> bytes:
    """JPEG of about 60 kB, 500 by 375 pixels or upright; equal for equal numbers.

    Coloured blobs of all sizes, down to the grain of a camera: edges and noise are what the bytes of a photo go to.
    """
    rng = np.random.default_rng(number)
    scene = _scene(number % SCENES)
    top, left = rng.integers(scene.shape[0] - SHORT), rng.integers(scene.shape[1] - LONG)
    pixels = scene[top : top + SHORT, left : left + LONG] + rng.normal(0, 4.5, (SHORT, LONG, 1)).astype(np.float32)
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels if number % 4 else pixels.swapaxes(0, 1)).save(content, "JPEG", quality=QUALITY)
    return content.getvalue()


_scenes: dict[int, np.ndarray] = {}


def _scene(number: int) -> np.ndarray:
    """`[700, 900, 3]` float32: noise of many widths, coarse noise the strongest."""
    if number not in _scenes:
        rng = np.random.default_rng(number)
        total = np.full((700, 900, 3), 128, np.float32)
        for cells in (3, 9, 27, 81, 243):
            noise = rng.uniform(0, 255, (cells, cells, 3)).astype(np.uint8)
            wide = np.asarray(Image.fromarray(noise).resize((900, 700), Image.Resampling.BICUBIC), np.float32)
            total += (wide - 128) * (1.2 / cells**0.4)
        _scenes[number] = total
    return _scenes[number]


def folder(where: pathlib.Path, count: int) -> int:
    """Draws `count` photos in folders of `CLASSES` classes, unless as many are there; returns their bytes."""
    paths = [where / f"class {number % CLASSES:02d}" / f"{number:06d}.jpg" for number in range(count)]
    if len(list(where.glob("*/*.jpg"))) != count or not all(path.is_file() for path in paths):
        for path in where.glob("*/*.jpg"):
            path.unlink()
        for number, path in enumerate(paths):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photo(number))
    return sum(path.stat().st_size for path in paths)

"""ImageNet-C's fifteen corruptions of photos at five severities, in NumPy, SciPy and Pillow.

Definitions and parameters: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations" (arXiv 1903.12261), and the parameter tables of the authors' release. They are for squares of 224
pixels, as a tower reads them. On other squares lengths in pixels grow with the side, and what is laid over a photo
(snow, frost, fog) is drawn for 224 pixels and resized, so that a corruption takes the same share of the photo; noise
is drawn for each pixel. Where this differs from the release is in docs/robustness.md.
"""

import dataclasses
import functools
import hashlib
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage, signal

SEVERITIES = (1, 2, 3, 4, 5)
SIDE = 224  # pixels, for which lengths are given
_GREY = np.array([0.299, 0.587, 0.114])  # of ITU-R BT.601
_ELASTIC = 244  # by which the release multiplies; its authors say that 224 was meant, and keep it

Random = np.random.Generator
Parameters = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of corruption.

    Attributes:
        group: noise, blur, weather or digital.
        function: of a photo `[S, S, 3]` float64 in 0..1, one severity's parameters and a generator, to the same form.
        parameters: of severities 1 to 5.
    """

    group: str
    function: Callable[[np.ndarray, Any, Random], np.ndarray]
    parameters: Sequence[Any]


def generator(seed: int, *names: object) -> Random:
    """The generator of one photo, kind and severity: it depends on the seed and names alone, not on what came before.

    Example:
        >>> draws = [generator(0, "validation", 7, "fog", 3).integers(1000) for _ in range(2)]
        >>> bool(draws[0] == draws[1])
        True
    """
    text = "\n".join(map(str, (seed, *names)))
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")))


def corrupt(
    photo: np.ndarray, kind: str, severity: int, random: Random, frosts: Sequence[np.ndarray] = ()
) -> np.ndarray:
    """A corrupted photo.

    Args:
        photo: `[S, S, 3]` uint8, as the tower would read it.
        kind: one of `KINDS`.
        severity: 1 to 5.
        random: what is drawn comes from it, see `generator`.
        frosts: photos of frost `[H, W, 3]` uint8, at least S each way; without any, frost is drawn.

    Returns:
        `[S, S, 3]` uint8.

    Raises:
        ValueError: no square, an unknown kind or severity.
    """
    if photo.ndim != 3 or photo.shape[0] != photo.shape[1] or photo.shape[2] != 3 or photo.dtype != np.uint8:
        raise ValueError(f"photo: found {photo.dtype} {photo.shape}, expected uint8 [S, S, 3]")
    if kind not in KINDS or severity not in SEVERITIES:
        raise ValueError(f"corruption: found {kind!r} at {severity!r}, expected one of {', '.join(KINDS)} at 1 to 5")
    chosen = KINDS[kind]
    values, x = chosen.parameters[severity - 1], photo / 255.0
    if kind == "frost" and frosts:
        found = _laid_over(x, values, _cut(frosts, len(photo), random))
    else:
        found = chosen.function(x, values, random)
    return np.rint(np.clip(found, 0, 1) * 255).astype(np.uint8)


# Noise


def _gaussian_noise(x: np.ndarray, deviation: float, random: Random) -> np.ndarray:
    return x + random.normal(scale=deviation, size=x.shape)


def _shot_noise(x: np.ndarray, photons: float, random: Random) -> np.ndarray:
    """Poisson noise of so many photons at white."""
    return random.poisson(x * photons) / photons


def _impulse_noise(x: np.ndarray, share: float, random: Random) -> np.ndarray:
    """A share of the values of each channel becomes black or white, each as often."""
    hit, white = random.random(x.shape) < share, random.random(x.shape) < 0.5
    return np.where(hit, white, x)


# Blur


def _defocus_blur(x: np.ndarray, values: Parameters, _: Random) -> np.ndarray:
    """A disk, its rim softened by a Gaussian."""
    radius, softness = values
    kernel = _disk(radius * len(x) / SIDE, softness, 1 if radius <= 8 else 2)
    pad = len(kernel) // 2
    padded = np.pad(x, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    return np.asarray(signal.fftconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1)))


@functools.lru_cache(maxsize=16)
def _disk(radius: float, softness: float, reach: int) -> np.ndarray:
    side = int(np.ceil(radius)) + reach
    places = np.arange(-side, side + 1)
    disk = (places[:, None] ** 2 + places[None] ** 2 <= radius**2).astype(float)
    taps = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * softness**2))
    taps /= taps.sum()
    for axis in (0, 1):
        disk = ndimage.convolve1d(disk, taps, axis=axis, mode="constant")
    return disk / disk.sum()


def _glass_blur(x: np.ndarray, values: Parameters, random: Random) -> np.ndarray:
    """Blurred; each pixel changed places with one nearby, some times over; blurred again."""
    sigma, reach, rounds = values
    sigma, reach = sigma * len(x) / SIDE, max(1, round(reach * len(x) / SIDE))
    soft = _blurred(x, sigma)
    places = np.arange(len(x) - reach, reach, -1)
    own = (places[:, None] * len(x) + places[None]).reshape(-1)
    order = list(range(len(x) ** 2))
    for _ in range(rounds):
        down, right = random.integers(-reach, reach, size=(2, len(own)))
        # One after the other: where a pixel goes depends on where it was taken before.
        for one, other in zip(own.tolist(), (own + down * len(x) + right).tolist(), strict=True):
            order[one], order[other] = order[other], order[one]
    return _blurred(soft.reshape(-1, 3)[order].reshape(x.shape), sigma)


def _blurred(x: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest", truncate=4))


def _motion_blur(x: np.ndarray, values: Parameters, random: Random) -> np.ndarray:
    radius, sigma = (value * len(x) / SIDE for value in values)
    return _streaked(x, radius, sigma, random.uniform(-45, 45))


def _streaked(x: np.ndarray, radius: float, sigma: float, angle: float) -> np.ndarray:
    """Half a Gaussian along a line from each pixel, as ImageMagick's motion blur: to one side, at whole pixels.

    Args:
        x: `[S, S, C]`.
        radius: the line has ``2 ceil(radius) + 1`` pixels.
        sigma: of the Gaussian, pixels.
        angle: of the line, degrees.
    """
    steps = np.arange(2 * int(np.ceil(radius)) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    turn = np.deg2rad(angle)
    right, down = (np.ceil(steps * part - 0.5).astype(int) for part in (np.cos(turn), np.sin(turn)))
    pad = len(steps)
    padded = np.pad(x, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    out = np.zeros_like(x)
    for weight, dx, dy in zip(weights, right, down, strict=True):
        out += weight * padded[pad + dy : pad + dy + len(x), pad + dx : pad + dx + x.shape[1]]
    return out


def _zoom_blur(x: np.ndarray, factors: Sequence[float], _: Random) -> np.ndarray:
    """The mean of the photo and of its enlargements."""
    return (x + sum(_enlarged(x, factor) for factor in factors)) / (len(factors) + 1)


def _enlarged(x: np.ndarray, factor: float) -> np.ndarray:
    """The middle of `[S, S, C]`, enlarged to the same size by linear interpolation; its corners stay corners."""
    size = len(x)
    part = int(np.ceil(size / factor))
    first, whole = (size - part) // 2, round(part * factor)
    return _resampled(x, first + (np.arange(size) + (whole - size) // 2) * (part - 1) / max(whole - 1, 1))


def _resampled(x: np.ndarray, places: np.ndarray) -> np.ndarray:
    """`[S, S, C]` at `[N]` places between 0 and S - 1 along both sides, by linear interpolation: `[N, N, C]`."""
    low = np.clip(np.floor(places).astype(int), 0, max(len(x) - 2, 0))
    high, share = np.minimum(low + 1, len(x) - 1), (places - low)[:, None, None]
    rows = x[low] + share * (x[high] - x[low])
    return np.asarray(rows[:, low] + share[:, 0] * (rows[:, high] - rows[:, low]))


# Weather


def _snow(x: np.ndarray, values: Parameters, random: Random) -> np.ndarray:
    """Streaks of flakes, and the photo whitened."""
    mean, deviation, zoom, threshold, radius, sigma, share = values
    flakes = _enlarged(random.normal(mean, deviation, (SIDE, SIDE, 1)), zoom)
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    flakes = _to_side(_streaked(flakes, radius, sigma, random.uniform(-135, -45)), len(x))
    pale = np.maximum(x, (x @ _GREY)[..., None] * 1.5 + 0.5)
    return share * x + (1 - share) * pale + flakes + flakes[::-1, ::-1]


def _frost(x: np.ndarray, values: Parameters, random: Random) -> np.ndarray:
    return _laid_over(x, values, _drawn_frost(len(x), random))


def _laid_over(x: np.ndarray, values: Parameters, frost: np.ndarray) -> np.ndarray:
    return np.asarray(values[0] * x + values[1] * frost)


def _cut(frosts: Sequence[np.ndarray], side: int, random: Random) -> np.ndarray:
    """A random square of a random photo of frost, `[side, side, 3]` in 0..1."""
    frost = frosts[int(random.integers(len(frosts)))]
    top, left = (random.integers(length - side + 1) for length in frost.shape[:2])
    return frost[top : top + side, left : left + side] / 255.0


def _drawn_frost(side: int, random: Random) -> np.ndarray:
    """Needles of ice on a cloudy pane, bluish white: `[side, side, 3]` in 0..1.

    It stands in for the six photographs of the release, which are not ours to ship.
    """
    pane = _plasma(1.8, random)
    ice = np.zeros((SIDE, SIDE, 1))
    for _ in range(4):
        seeds = (random.random((SIDE, SIDE, 1)) > 0.995).astype(float)
        ice += 8 * _streaked(seeds, 20, 14, random.uniform(-180, 180))
    white = np.clip(0.25 + 0.55 * pane[..., None] ** 2 + np.minimum(ice, 0.6) * (0.4 + pane[..., None]), 0, 1)
    return _to_side(white * np.array([0.86, 0.95, 1.0]), side)


def _fog(x: np.ndarray, values: Parameters, random: Random) -> np.ndarray:
    """A plasma fractal added, and the brightest value kept where it was."""
    thickness, decay = values
    brightest = x.max()
    return (x + thickness * _to_side(_plasma(decay, random)[..., None], len(x))) * brightest / (brightest + thickness)


def _plasma(decay: float, random: Random) -> np.ndarray:
    """`[SIDE, SIDE]` in 0..1 by the diamond-square algorithm on a grid of 256 that goes on at its borders.

    At each halving of the grid a point is the mean of its four neighbours and noise, whose amplitude, 10,000 at
    first, falls by the square of `decay`.
    """
    grid = np.zeros((256, 256))
    step, wobble = len(grid), 100.0
    while step >= 2:
        half = step // 2
        corners = grid[::step, ::step]

        def settled(total: np.ndarray, amplitude: float = wobble**2) -> np.ndarray:
            return total / 4 + random.uniform(-amplitude, amplitude, total.shape)

        pairs = corners + np.roll(corners, -1, 0)
        middles = settled(pairs + np.roll(pairs, -1, 1))
        above = settled(corners + np.roll(corners, -1, 1) + middles + np.roll(middles, 1, 0))
        beside = settled(corners + np.roll(corners, -1, 0) + middles + np.roll(middles, 1, 1))
        grid[half::step, half::step] = middles
        grid[::step, half::step] = above
        grid[half::step, ::step] = beside
        step, wobble = half, wobble / decay
    grid = grid - np.min(grid)
    return (grid / np.max(grid))[:SIDE, :SIDE]


def _to_side(layer: np.ndarray, side: int) -> np.ndarray:
    """A layer `[SIDE, SIDE, C]` as `[side, side, C]`."""
    if side == len(layer):
        return layer
    return _resampled(layer, np.linspace(0, len(layer) - 1, side))


# Digital


def _brightness(x: np.ndarray, more: float, _: Random) -> np.ndarray:
    """More value in HSV: hue and saturation stay, so that all three channels grow by one factor."""
    value = x.max(-1, keepdims=True)
    brighter = np.minimum(value + more, 1)
    return np.where(value > 0, x * brighter / np.where(value > 0, value, 1), brighter)


def _contrast(x: np.ndarray, share: float, _: Random) -> np.ndarray:
    """Distances to the mean of each channel are shortened."""
    means = x.mean((0, 1), keepdims=True)
    return (x - means) * share + means


def _elastic_transform(x: np.ndarray, values: Parameters, random: Random) -> np.ndarray:
    """An affine map of which three points are moved at random, then smooth random displacements."""
    size = len(x)
    strength, smooth, shift = (_ELASTIC * value * size / SIDE for value in values)
    middle, arm = size // 2, size // 3
    points = np.array([[middle + arm, middle + arm], [middle + arm, middle - arm], [middle - arm, middle - arm]], float)
    moved = points + random.uniform(-shift, shift, points.shape)
    # Where each pixel comes from: the map that takes the moved points back.
    back = np.linalg.solve(np.c_[moved, np.ones(3)], points).T
    x = np.stack(
        [ndimage.affine_transform(c, back[:, :2], back[:, 2], order=1, mode="mirror") for c in np.moveaxis(x, -1, 0)],
        -1,
    )
    smoother = _smoother(size, smooth)
    down, right = (smoother @ random.uniform(-1, 1, (size, size)) @ smoother.T * strength for _ in range(2))
    places = np.mgrid[:size, :size] + np.stack([down, right])
    return np.stack([ndimage.map_coordinates(c, places, order=1, mode="reflect") for c in np.moveaxis(x, -1, 0)], -1)


@functools.lru_cache(maxsize=16)
def _smoother(size: int, sigma: float) -> np.ndarray:
    """`[S, S]`: a Gaussian filter along one side, reflected at its ends, as a matrix; it may be wider than the side."""
    return np.asarray(ndimage.gaussian_filter1d(np.eye(size), sigma, axis=0, mode="reflect", truncate=3))


def _pixelate(x: np.ndarray, share: float, _: Random) -> np.ndarray:
    """Box means of fewer pixels, each a square then."""
    side, few = len(x), max(1, int(len(x) * share))
    small = _as_picture(x).resize((few, few), Image.Resampling.BOX)
    return np.asarray(small.resize((side, side), Image.Resampling.BOX)) / 255.0


def _jpeg_compression(x: np.ndarray, quality: int, _: Random) -> np.ndarray:
    file = io.BytesIO()
    _as_picture(x).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)) / 255.0


def _as_picture(x: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(x * 255).astype(np.uint8))


def _factors(end: float, step: float) -> tuple[float, ...]:
    """As the release counts, whose last factor is now and then `end` itself, by rounding."""
    return tuple(np.arange(1, end, step).tolist())


KINDS: dict[str, Kind] = {
    "gaussian_noise": Kind("noise", _gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": Kind("noise", _shot_noise, (60, 25, 12, 5, 3)),
    "impulse_noise": Kind("noise", _impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus_blur": Kind("blur", _defocus_blur, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
    "glass_blur": Kind("blur", _glass_blur, ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))),
    "motion_blur": Kind("blur", _motion_blur, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
    "zoom_blur": Kind(
        "blur", _zoom_blur,
        (_factors(1.11, 0.01), _factors(1.16, 0.01), _factors(1.21, 0.02), _factors(1.26, 0.02), _factors(1.31, 0.03)),
    ),
    "snow": Kind(
        "weather", _snow,
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "frost": Kind("weather", _frost, ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))),
    "fog": Kind("weather", _fog, ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
    "brightness": Kind("weather", _brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": Kind("digital", _contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic_transform": Kind(
        "digital", _elastic_transform,
        ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
    ),
    "pixelate": Kind("digital", _pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg_compression": Kind("digital", _jpeg_compression, (25, 18, 15, 10, 7)),
}  # fmt: skip
"""All kinds by name, in the order of the paper."""

"""Draws one invented species as a photo: body plan, pattern, parts, pose, light, background and clutter."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter

VERSION = 2  # raised when the same seed no longer draws the same photo

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 38, 40), "orange": (240, 132, 20), "yellow": (245, 215, 45), "green": (50, 150, 60),
    "blue": (45, 95, 210), "violet": (145, 55, 175), "white": (240, 238, 230), "black": (42, 38, 44),
}  # fmt: skip
PATTERNS = ("banded", "striped", "spotted", "ringed", "halved", "netted")
ACCENT_PARTS = ("tail", "crest", "spine", "eye")

_SPRITE = 160  # side of the square on which a body is drawn, pixels
_HALF = _SPRITE / 2
_INK = (30, 26, 24)

Point = tuple[float, float]
Ink = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Look:
    """What a species looks like. `build` holds four inherited proportions, roughly standard normal."""

    plan: str
    slender: bool
    pattern: str
    base: str
    accent: str
    part: str
    build: tuple[float, ...]


@dataclasses.dataclass
class _Canvas:
    """Layers of one sprite in body coordinates: x to the head, y down, the body within -1 to 1."""

    mask: ImageDraw.ImageDraw  # where the patterned body is
    under: ImageDraw.ImageDraw  # limbs and fins behind the body
    over: ImageDraw.ImageDraw  # eyes, beaks and lines in front of it
    aspect: float  # length over height of the body
    size: float
    base: tuple[int, int, int]
    shade: tuple[int, int, int]


def photo(look: Look, rng: np.random.Generator, *, wildness: float = 1.0) -> Image.Image:
    """Takes one photo of a species.

    Args:
        look: the species.
        rng: decides pose, light, background, clutter, blur and frame.
        wildness: how far the pose strays from the upright, near and centred one, 0 to 1.

    Returns:
        An RGB picture with sides between 80 and 120 pixels, whatever the species.
    """
    width, height = (int(side) for side in rng.integers(80, 121, 2))
    scene = _background(width, height, rng)
    _clutter(scene, rng, count=int(rng.integers(2, 6)))
    _paste(scene, _posed(_sprite(look, rng), min(width, height), rng, wildness), rng, wildness)
    _clutter(scene, rng, count=int(rng.integers(0, 3)))
    return _camera(scene, rng)


# The body.


def _sprite(look: Look, rng: np.random.Generator) -> Image.Image:
    """The species on a transparent square, head to the right."""
    layers = [Image.new("RGBA", (_SPRITE, _SPRITE)) for _ in range(2)]
    mask = Image.new("L", (_SPRITE, _SPRITE))
    base = _tint(COLOURS[look.base], rng, spread=10)
    accent = _tint(COLOURS[look.accent], rng, spread=10)
    canvas = _Canvas(
        ImageDraw.Draw(mask), ImageDraw.Draw(layers[0]), ImageDraw.Draw(layers[1]),
        aspect=(1.5 if look.slender else 0.95) * math.exp(0.06 * look.build[0]),
        size=math.exp(0.05 * look.build[1]), base=base, shade=_darker(base, 0.7),
    )  # fmt: skip
    top = _BODIES[look.plan](canvas, look)
    _part(canvas, look.part, accent, top)
    body = _pattern(look, base, accent, rng)
    body.putalpha(mask)
    sprite = Image.alpha_composite(layers[0], _outlined(body, mask))
    return Image.alpha_composite(sprite, layers[1])


def _outlined(body: Image.Image, mask: Image.Image) -> Image.Image:
    edge = ImageChops.subtract(mask, mask.filter(ImageFilter.MinFilter(3)))
    dark = Image.new("RGBA", body.size, (*_INK, 0))
    dark.putalpha(edge.point(lambda value: value * 0.6))
    return Image.alpha_composite(body, dark)


def _xy(points: list[Point]) -> list[Point]:
    return [(_HALF + x * _HALF, _HALF + y * _HALF) for x, y in points]


def _oval(draw: ImageDraw.ImageDraw, x: float, y: float, rx: float, ry: float, fill: Ink | int) -> None:
    draw.ellipse(_box(x, y, abs(rx), abs(ry)), fill=fill)


def _box(x: float, y: float, rx: float, ry: float) -> list[Point]:
    return _xy([(x - rx, y - ry), (x + rx, y + ry)])


def _blade(length: float, width: float, angle: float, x: float = 0.0, y: float = 0.0) -> list[Point]:
    """A leaf-shaped polygon from (x, y) outwards at an angle, in body coordinates."""
    along = np.linspace(0, 1, 9)
    half = width * np.sin(np.pi * along**0.8)
    outline = np.concatenate([np.stack([along * length, half], 1), np.stack([along[::-1] * length, -half[::-1]], 1)])
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return [(float(px) + x, float(py) + y) for px, py in outline @ turn]


def _eye(canvas: _Canvas, x: float, y: float, radius: float = 0.05) -> None:
    _oval(canvas.over, x, y, radius * 1.5, radius * 1.5, (250, 248, 240))
    _oval(canvas.over, x, y, radius, radius, _INK)


def _fish(canvas: _Canvas, look: Look) -> float:
    rx, ry = 0.55 * canvas.size, 0.52 / canvas.aspect * canvas.size
    _oval(canvas.mask, 0.08, 0, rx, ry, 255)
    fin = 0.24 + 0.04 * look.build[2]
    canvas.under.polygon(_xy([(-0.35, 0), (-0.82, -fin - 0.08), (-0.68, 0), (-0.82, fin + 0.08)]), fill=canvas.shade)
    canvas.under.polygon(_xy([(-0.2, -ry * 0.8), (0.0, -ry - fin * 0.6), (0.25, -ry * 0.8)]), fill=canvas.shade)
    _eye(canvas, 0.08 + rx * 0.66, -ry * 0.2)
    return -ry


def _bird(canvas: _Canvas, look: Look) -> float:
    rx, ry = 0.48 * canvas.size, 0.44 / canvas.aspect * canvas.size
    neck = 0.28 if look.slender else 0.1
    head = 0.17 + 0.015 * look.build[2]
    for x in (-0.06, 0.12):
        canvas.under.line(_xy([(x, ry * 0.8), (x + 0.04, ry + 0.22 + neck)]), fill=(120, 84, 40), width=4)
    canvas.under.polygon(_xy([(-0.3, -0.05), (-0.9, -0.12), (-0.86, 0.14), (-0.3, 0.1)]), fill=canvas.shade)
    _oval(canvas.mask, -0.05, 0, rx, ry, 255)
    canvas.mask.polygon(_xy([(0.15, 0.1), (0.2, -0.2), (0.46, -ry - neck), (0.52, -0.1)]), fill=255)
    _oval(canvas.mask, 0.45, -ry - neck, head, head, 255)
    beak = 0.3 if look.slender else 0.16
    canvas.over.polygon(
        _xy([(0.57, -ry - neck - 0.06), (0.6 + beak, -ry - neck + 0.02), (0.57, -ry - neck + 0.07)]),
        fill=(205, 145, 50),
    )
    _eye(canvas, 0.5, -ry - neck - 0.03, 0.04)
    return -ry - neck - head


def _moth(canvas: _Canvas, look: Look) -> float:
    reach = 0.82 * canvas.size
    width = 0.26 / canvas.aspect**0.7
    for side in (-1, 1):
        canvas.mask.polygon(_xy(_blade(reach, width, side * (math.pi / 2 - 0.35), 0.08)), fill=255)
        canvas.mask.polygon(_xy(_blade(reach * 0.72, width, side * (math.pi / 2 + 0.5), -0.02)), fill=255)
        canvas.over.line(_xy([(0.36, 0), (0.66, side * (0.18 + 0.03 * look.build[2]))]), fill=_INK, width=2)
    _oval(canvas.over, 0.02, 0, 0.38, 0.065, _darker(canvas.base, 0.4))
    return -0.1


def _beetle(canvas: _Canvas, look: Look) -> float:
    rx, ry = 0.56 * canvas.size, 0.54 / canvas.aspect * canvas.size
    for x in (-0.28, 0.0, 0.28):
        for side in (-1, 1):
            foot = (x * 1.7, side * (ry + 0.24))
            canvas.under.line(_xy([(x, 0), (x * 1.3, side * (ry + 0.1)), foot]), fill=_INK, width=4)
    _oval(canvas.under, 0.1 + rx, 0, 0.17, min(ry * 0.6, 0.22), canvas.shade)
    for side in (-1, 1):
        canvas.under.line(_xy([(rx, 0), (rx + 0.34, side * (0.24 + 0.03 * look.build[2]))]), fill=_INK, width=2)
    _oval(canvas.mask, 0, 0, rx, ry, 255)
    canvas.over.line(_xy([(-rx, 0), (rx * 0.55, 0)]), fill=_INK, width=2)
    return -ry


def _snail(canvas: _Canvas, look: Look) -> float:
    foot = _tint_fixed(canvas.base, (190, 170, 140), 0.75)
    canvas.under.polygon(_xy([(-0.75, 0.5), (-0.4, 0.28), (0.45, 0.26), (0.82, 0.02), (0.9, 0.5)]), fill=foot)
    for x in (0.72, 0.84):
        canvas.under.line(_xy([(x, 0.1), (x + 0.08, -0.18 - 0.03 * look.build[2])]), fill=foot, width=3)
    if look.slender:
        canvas.mask.polygon(_xy([(-0.62, 0.36), (0.02, -0.86 * canvas.size), (0.5, 0.36)]), fill=255)
        top = -0.86
    else:
        radius = 0.5 * canvas.size
        _oval(canvas.mask, -0.05, -0.1, radius, radius, 255)
        top = -0.1 - radius
    for turn in (0.32, 0.18):
        canvas.over.arc(_box(-0.05, 0.0, turn, turn), 20, 300, fill=_INK, width=2)
    return top


def _flower(canvas: _Canvas, look: Look) -> float:
    petals = 11 if look.slender else 5
    length = 0.66 * canvas.size
    width = 0.08 if look.slender else 0.24
    canvas.under.line(_xy([(0, 0), (0.04, 0.98)]), fill=(70, 120, 50), width=6)
    canvas.under.polygon(_xy(_blade(0.42, 0.09, -0.5, 0.04, 0.8)), fill=(70, 120, 50))
    for i in range(petals):
        angle = 2 * math.pi * i / petals + 0.1 * look.build[2]
        canvas.mask.polygon(_xy(_blade(length, width, angle)), fill=255)
    _oval(canvas.over, 0, 0, 0.13, 0.13, (150, 110, 40))
    return -length


def _fern(canvas: _Canvas, look: Look) -> float:
    canvas.under.line(_xy([(-0.05, 0.98), (0, -0.75)]), fill=(95, 75, 45), width=4)
    if look.slender:
        for i in range(7):
            y = 0.6 - 0.2 * i
            reach = (0.62 - 0.06 * i) * canvas.size
            for side in (-1, 1):
                angle = math.pi / 2 * (1 - side) + side * (0.45 + 0.03 * look.build[2])
                canvas.mask.polygon(_xy(_blade(reach, 0.075, angle, 0, y)), fill=255)
    else:
        for i in range(7):
            angle = math.pi * (i + 0.5) / 7
            canvas.mask.polygon(_xy(_blade(0.8 * canvas.size, 0.13, angle, 0, 0.12)), fill=255)
    return -0.75


def _mushroom(canvas: _Canvas, look: Look) -> float:
    rx, rise = (0.4, 0.74) if look.slender else (0.68, 0.5)
    rx, rise = rx * canvas.size, rise * (1 + 0.05 * look.build[2])
    stalk = 0.09 if look.slender else 0.17
    pale = _tint_fixed(canvas.base, (232, 222, 200), 0.85)
    canvas.under.polygon(_xy([(-stalk, 0), (stalk, 0), (stalk * 1.4, 0.88), (-stalk * 1.4, 0.88)]), fill=pale)
    canvas.mask.pieslice(_box(0, 0.05, rx, rise), 180, 360, fill=255)
    return 0.05 - rise


_BODIES: dict[str, Callable[[_Canvas, Look], float]] = {
    "fish": _fish, "bird": _bird, "moth": _moth, "beetle": _beetle,
    "snail": _snail, "flower": _flower, "fern": _fern, "mushroom": _mushroom,
}  # fmt: skip


def _part(canvas: _Canvas, part: str, accent: tuple[int, int, int], top: float) -> None:
    """The feature in the accent colour that sets a species apart; `top` is the upper edge of the body."""
    if part == "tail":
        for lean in (0.14, -0.04, -0.22):
            canvas.under.polygon(_xy(_blade(0.9, 0.075, math.pi + lean, -0.1, 0.12)), fill=accent)
    elif part == "crest":
        for x in (-0.24, -0.06, 0.12, 0.3):
            tip = (x - 0.1, max(top - 0.26, -0.99))
            canvas.under.polygon(_xy([(x - 0.1, top + 0.3), tip, (x + 0.12, top + 0.25)]), fill=accent)
    elif part == "spine":
        for i in range(14):
            angle = 2 * math.pi * i / 14
            canvas.under.polygon(_xy(_blade(0.97, 0.05, angle)), fill=accent)
    else:
        _oval(canvas.over, -0.14, 0.0 if top < -0.2 else 0.02, 0.2, 0.2, (245, 243, 235))
        _oval(canvas.over, -0.14, 0.0 if top < -0.2 else 0.02, 0.15, 0.15, accent)
        _oval(canvas.over, -0.14, 0.0 if top < -0.2 else 0.02, 0.05, 0.05, _INK)


def _pattern(
    look: Look, base: tuple[int, int, int], accent: tuple[int, int, int], rng: np.random.Generator
) -> Image.Image:
    """The skin: base colour with the family's pattern in the accent colour, before it is cut to the body."""
    skin = Image.new("RGBA", (_SPRITE, _SPRITE), (*base, 255))
    draw = ImageDraw.Draw(skin)
    fill = (*accent, 255)
    step = 0.3 * math.exp(0.08 * look.build[3])
    shift = float(rng.uniform(0, step))
    ticks = np.arange(-1 + shift, 1, step)
    if look.pattern == "spotted":
        _spots(draw, step, ticks, shift, fill)
    elif look.pattern == "ringed":
        for radius in np.arange(1.2, 0, -step * 0.75):
            draw.ellipse(_box(0, 0, radius, radius), outline=fill, width=int(_HALF * step * 0.3))
    elif look.pattern == "halved":
        draw.rectangle(_xy([(-1, 0.02), (1, 1)]), fill=fill)
    else:
        _lines(draw, look.pattern, step, ticks, shift, fill)
    return skin


def _spots(draw: ImageDraw.ImageDraw, step: float, ticks: np.ndarray, shift: float, fill: Ink) -> None:
    for row, y in enumerate(np.arange(-1 + shift, 1, step * 0.8)):
        for x in ticks + (step / 2 if row % 2 else 0):
            _oval(draw, x, y, step * 0.24, step * 0.24, fill)


def _lines(draw: ImageDraw.ImageDraw, pattern: str, step: float, ticks: np.ndarray, shift: float, fill: Ink) -> None:
    """Bands across the body, stripes along it, or a net of both diagonals."""
    if pattern == "banded":
        for x in ticks:
            draw.rectangle(_xy([(x, -1), (x + step * 0.42, 1)]), fill=fill)
    elif pattern == "striped":
        for y in np.arange(-1 + shift * 0.7, 1, step * 0.7):
            draw.rectangle(_xy([(-1, y), (1, y + step * 0.3)]), fill=fill)
    else:
        for offset in np.arange(-2 + shift, 2, step * 0.9):
            draw.line(_xy([(offset - 1, -1), (offset + 1, 1)]), fill=fill, width=4)
            draw.line(_xy([(offset + 1, -1), (offset - 1, 1)]), fill=fill, width=4)


# The scene.


def _posed(sprite: Image.Image, side: int, rng: np.random.Generator, wildness: float) -> Image.Image:
    """Mirrors, turns, squeezes and scales the sprite."""
    if rng.random() < 0.5:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    sprite = sprite.rotate(float(40 * wildness * rng.uniform(-1, 1)), Image.Resampling.BILINEAR, expand=True)
    scale = side * (1.05 - 0.35 * wildness * rng.random()) / _SPRITE
    squeeze = 1 + 0.15 * wildness * rng.uniform(-1, 1)
    size = (max(8, int(sprite.width * scale * squeeze)), max(8, int(sprite.height * scale / squeeze)))
    return sprite.resize(size, Image.Resampling.BOX)


def _paste(scene: Image.Image, sprite: Image.Image, rng: np.random.Generator, wildness: float) -> None:
    """Puts the sprite near the middle, over a soft shadow."""
    x = int(scene.width / 2 - sprite.width / 2 + 0.14 * wildness * rng.uniform(-1, 1) * scene.width)
    y = int(scene.height / 2 - sprite.height / 2 + 0.14 * wildness * rng.uniform(-1, 1) * scene.height)
    shadow = sprite.getchannel("A").point(lambda value: value * 0.35)
    scene.paste(_INK, (x + 2, y + 3), shadow)
    scene.paste(sprite, (x, y), sprite)


def _background(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """One of four habitats: leaves out of focus, sand, water, undergrowth. None belongs to any species."""
    habitat = int(rng.integers(4))
    tones = [[(70, 95, 55), (130, 150, 90)], [(190, 170, 130), (150, 130, 100)],
             [(60, 110, 130), (140, 180, 190)], [(80, 65, 45), (110, 120, 70)]][habitat]  # fmt: skip
    first, second = (np.array(_tint(tone, rng, spread=28), float) for tone in tones)
    coarse = rng.random((5, 5, 1)) * (second - first) + first + rng.normal(0, 12, (5, 5, 3))
    soft = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8))
    scene = soft.resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(scene)
    for _ in range(int(rng.integers(4, 16)) if habitat != 1 else 0):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        tone = _tint(tones[int(rng.integers(2))], rng, spread=30)
        if habitat == 0:
            radius = rng.uniform(3, 12)
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=tone)
        else:
            draw.line([x, y, x + rng.normal(0, 30), y + rng.normal(0, 30)], fill=tone, width=int(rng.integers(1, 4)))
    return scene.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 2.0))))


def _clutter(scene: Image.Image, rng: np.random.Generator, *, count: int) -> None:
    """Twigs, blades and pebbles in any colour, behind or in front of the subject."""
    draw = ImageDraw.Draw(scene)
    for _ in range(count):
        x, y = rng.uniform(0, scene.width), rng.uniform(0, scene.height)
        dull = _tint_fixed(_tint((128, 128, 128), rng, spread=80), (110, 100, 70), 0.4)
        if rng.random() < 0.6:
            end = (x + rng.normal(0, 35), y + rng.normal(0, 35))
            draw.line([(x, y), end], fill=dull, width=int(rng.integers(1, 4)))
        else:
            radius = rng.uniform(2, 6)
            draw.ellipse([x - radius, y - radius * 0.7, x + radius, y + radius * 0.7], fill=dull)


def _camera(scene: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Light from one side, colour cast, contrast, blur and grain."""
    scene = ImageEnhance.Brightness(scene).enhance(float(rng.uniform(0.65, 1.25)))
    scene = ImageEnhance.Color(scene).enhance(float(rng.uniform(0.7, 1.2)))
    scene = scene.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.0, 0.9))))
    pixels = np.asarray(scene, np.float32)
    height, width = pixels.shape[:2]
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :] * rng.uniform(-0.2, 0.2)
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * rng.uniform(-0.2, 0.2)
    cast = rng.uniform(0.9, 1.1, 3).astype(np.float32)
    grain = rng.normal(0, rng.uniform(1, 9), pixels.shape).astype(np.float32)
    lit = pixels * (1 + across + down)[..., None] * cast + grain
    return Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))


def _tint(colour: tuple[int, int, int], rng: np.random.Generator, *, spread: float) -> tuple[int, int, int]:
    red, green, blue = np.clip(np.array(colour) + rng.normal(0, spread, 3), 0, 255).astype(int).tolist()
    return red, green, blue


def _tint_fixed(colour: tuple[int, int, int], towards: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    red, green, blue = (int(a * (1 - share) + b * share) for a, b in zip(colour, towards, strict=True))
    return red, green, blue


def _darker(colour: tuple[int, int, int], factor: float) -> tuple[int, int, int]:
    return _tint_fixed(colour, (0, 0, 0), 1 - factor)

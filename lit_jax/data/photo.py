"""Decodes a photo of any common format to clean JPEG bytes, or says why it cannot be used.

A sound JPEG stays byte for byte as it is; what training could not decode, or would decode turned, inverted
or see-through, is encoded anew once, here, so that what reads pixels needs no special case. Pillow alone is needed.
"""

import contextlib
import functools
import io
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageOps, features

from lit_jax.base.files import kind_of
from lit_jax.errors import UserError

MAX_PIXELS = 100_000_000  # larger than the photos of any common camera; decodes to 300 MB

_AT_A_TIME = 2 * MAX_PIXELS  # pixels that all threads decode together; each takes about eight bytes meanwhile
_STRIP = 1 << 20  # pixels that change their kind at a time

_LONGEST_SIDE = 65_500  # of a JPEG, by the reference library

HEIF_ENDINGS = ("heic", "heif", "hif", "heics", "heifs")
AVIF_ENDINGS = ("avif", "avifs")

# Formats by their first bytes, with the file endings that are right for each.
_FORMATS = {
    "JPEG": (re.compile(rb"\xff\xd8\xff"), ("jpg", "jpeg", "jpe", "jfif", "mpo")),
    "PNG": (re.compile(rb"\x89PNG\r\n\x1a\n"), ("png",)),
    "GIF": (re.compile(rb"GIF8[79]a"), ("gif",)),
    "WEBP": (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), ("webp",)),
    "BMP": (re.compile(rb"BM.{12}", re.DOTALL), ("bmp", "dib")),
    "TIFF": (re.compile(rb"II[*+]\0|MM\0[*+]"), ("tif", "tiff")),
    "AVIF": (re.compile(rb".{4}ftyp(?=.{0,56}?avi[fs])", re.DOTALL), AVIF_ENDINGS),
    "HEIF": (re.compile(rb".{4}ftyp(?=(?:.{4}){0,14}?(?:hei[cxms]|hev[cxms]|mif1|msf1))", re.DOTALL),
             HEIF_ENDINGS),
}  # fmt: skip

ENDINGS = frozenset(ending for _, endings in _FORMATS.values() for ending in endings)
"""Of the names of files that may be photos, in small letters, without a dot."""

EMPTY = "empty file"
NOT_AN_IMAGE = "not JPEG, PNG, GIF, WebP, AVIF, HEIC, BMP or TIFF"
_NEEDS = {
    "HEIF": "HEIC, which needs pillow-heif: pip install pillow-heif{}, or save them as JPEG",
    "AVIF": "AVIF, which this Pillow cannot read: update it{}, or save them as JPEG",
}
HEIC, AVIF = (text.format(" and convert again with --restart") for text in _NEEDS.values())
BROKEN = "broken data"
TRUNCATED = "truncated"
TOO_MANY_PIXELS = "too many pixels"
UNSUPPORTED = "unsupported kind of pixel"


class BadPhoto(Exception):
    """The photo cannot be used; `reason` is one of this module's few fixed texts, so it can be counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Photo(NamedTuple):
    """A photo ready to be stored.

    Attributes:
        jpeg: Encoded JPEG, 8 bits, RGB or grey, upright.
        width: Pixels, > 0.
        height: Pixels, > 0.
        notes: What was unusual, as fixed texts that can be counted; empty for an ordinary JPEG.
    """

    jpeg: bytes
    width: int
    height: int
    notes: tuple[str, ...]

    @property
    def pixels(self) -> np.ndarray:
        """`[H, W, 3]` uint8, as Pillow decodes the JPEG."""
        with _our_limit, Image.open(io.BytesIO(self.jpeg), formats=["JPEG"]) as image:
            return np.asarray(image.convert("RGB"))


def photo_format(raw: bytes) -> str | None:
    """Name of the image format that the first bytes announce, or None; the file's name plays no part."""
    return next((name for name, (magic, _) in _FORMATS.items() if magic.match(raw)), None)


def open_photo(source: str | os.PathLike[str] | bytes, *, max_pixels: int = MAX_PIXELS) -> Photo:
    """A photo as a conversion would store it, from its file or from the bytes of one.

    Args:
        source: Path of the file, or its content.
        max_pixels: Width times height above which it is refused.

    Raises:
        UserError: no such file, or no photo that can be used.

    Example:
        >>> buffer = io.BytesIO()
        >>> Image.new("RGB", (4, 3), "red").save(buffer, "PNG")
        >>> open_photo(buffer.getvalue()).pixels.shape
        (3, 4, 3)
    """
    where = "photo" if isinstance(source, bytes) else f"photo {os.fspath(source)}"
    try:
        if not isinstance(source, bytes) and not os.path.exists(source):
            raise UserError(f"{where}: found no such file, expected a photo; check the path")
        return clean_photo(source if isinstance(source, bytes) else _content(source), max_pixels=max_pixels)
    except BadPhoto as error:
        raise UserError(f"{where}: found {error.reason}, expected a photo that can be read; give another") from error


def clean_photo(
    raw: bytes, *, max_side: int = 0, quality: int = 95, max_pixels: int = MAX_PIXELS, ending: str = ""
) -> Photo:
    """One file's bytes as an upright 8-bit RGB or grey JPEG.

    An RGB or grey JPEG that is whole, upright and small enough keeps its bytes. Everything else is decoded
    and encoded: EXIF rotation applied, transparency over white, CMYK and 16-bit grey brought to 8 bits, the
    first frame of an animation. ICC profiles are ignored, as the input pipeline ignores them.

    Args:
        raw: The file's content.
        max_side: Longest side in pixels; larger photos are shrunk (Lanczos). 0: any size.
        quality: JPEG quality of what is encoded, 1 to 95.
        max_pixels: Width times height above which the file is refused, by its header, before decoding.
        ending: The file name's ending, with or without dot; a wrong one is noted, nothing more.

    Raises:
        BadPhoto: empty, not an image, broken, truncated, too many pixels, unsupported pixels.
    """
    kind = _readable_format(raw, " and convert again with --restart")
    ending = ending.lower().lstrip(".")
    notes = [f"is {kind}, named .{ending}"] if ending and ending not in _FORMATS[kind][1] else []
    with _pillow():
        sound = _check_whole(raw, kind)
        image = _opened(raw, kind, max_pixels)
        common = sound and image.format == "JPEG" and image.mode in ("RGB", "L")
        turned = _is_turned(image)
        shrunk = 0 < max_side < max(image.size)
        as_it_is, size = common and not turned and not shrunk, image.size
        if as_it_is:
            # Nobody looks at these pixels. All codes are read at an eighth of the size as well, and refused where they
            # are broken; only the arithmetic behind them is left out.
            image.draft(None, (1, 1))
        elif shrunk and kind == "JPEG":
            # The decoder may shrink by 2, 4 or 8 on its way; twice the wanted size is left for the filter.
            image.draft(None, (2 * max_side, 2 * max_side))
        image.load()  # decodes all of it: the only way to know that a photo is whole
        if as_it_is:
            return Photo(raw, *size, tuple(notes))
        if not common:
            notes.append(f"encoded anew from {image.format}" + (" CMYK" if image.mode == "CMYK" else ""))
        if (bits := _depth(image)) < 16:
            notes.append(f"grey of {bits} bits in 16, made as bright as {bits} bits are")
        if turned:
            notes.append("turned upright as its EXIF says")
        image = _upright_rgb_or_grey(image, ink_as_is=_ink_as_is(image, kind))
        if shrunk:
            image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=quality)
    return Photo(encoded.getvalue(), *image.size, tuple(notes))


Source = str | os.PathLike[str] | bytes | Image.Image | np.ndarray
"""A photo as people have it: its path, the content of its file, a picture of Pillow or an array."""


def upright_pixels(source: Source, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The pixels of a photo as a conversion would store them, but without encoding anew what is no plain JPEG.

    Args:
        source: Path of the file, its content, a picture of Pillow, or an array `[H, W, 3]` or `[H, W]` uint8.
        max_pixels: Width times height above which it is refused.

    Returns:
        `[H, W, 3]` uint8: EXIF rotation applied, transparency over white, the first frame of an animation.

    Raises:
        BadPhoto: as `clean_photo`; a path that cannot be read; an array of another kind.
    """
    if isinstance(source, np.ndarray):
        return _checked(source)
    if isinstance(source, Image.Image):
        with _pillow():
            source.load()
            return _pixels(_upright_rgb_or_grey(source, ink_as_is=_ink_as_is(source, source.format)))
    raw = source if isinstance(source, bytes) else _content(source)
    kind = _readable_format(raw)
    with _pillow():
        _check_whole(raw, kind)
        image = _opened(raw, kind, max_pixels)
        with _room.of(image.width * image.height):
            image.load()
            return _pixels(_upright_rgb_or_grey(image, ink_as_is=_ink_as_is(image, kind)))


def _content(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file; of a pipe none would ever come, and of some devices no end."""
    kind = kind_of(Path(path))
    if kind not in ("", "file"):
        raise BadPhoto(f"a {kind} and no file")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadPhoto((error.strerror or "cannot be read").lower()) from error
    except ValueError as error:  # a name with a zero byte
        raise BadPhoto("no name of a file") from error


def _pixels(image: Image.Image) -> np.ndarray:
    """`[H, W, 3]` uint8 of mode RGB or L; Pillow's own way to NumPy has the pixels twice on its way."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top, strip in _strips(image):
        pixels[top : top + strip.height] = strip if strip.mode == "RGB" else strip.convert("RGB")
    return pixels


class Tags(NamedTuple):
    """What EXIF says, by the numbers of its tags.

    Attributes:
        exif: of the photo.
        gps: of its place.
    """

    exif: Mapping[int, Any]
    gps: Mapping[int, Any]


def exif_tags(raw: bytes) -> Tags:
    """The EXIF of a photo of any format, as Pillow reads it; empty where there is none or it is damaged."""
    try:
        kind = _readable_format(raw)
        with _pillow():
            found = _opened(raw, kind, MAX_PIXELS).getexif()
            return Tags(dict(found.get_ifd(_EXIF)), dict(found.get_ifd(_GPS)))
    except BadPhoto:
        return Tags({}, {})


_EXIF, _GPS = 0x8769, 0x8825  # where the tags of each are


def _checked(pixels: np.ndarray) -> np.ndarray:
    """An array of three channels, if it is one of a photo."""
    grey = pixels.ndim == 2
    if pixels.dtype != np.uint8 or not (grey or (pixels.ndim == 3 and pixels.shape[2] == 3)) or 0 in pixels.shape:
        raise BadPhoto(f"array {list(pixels.shape)} of {pixels.dtype}, not [H, W, 3] or [H, W] of uint8")
    return np.repeat(pixels[..., None], 3, 2) if grey else pixels


def _readable_format(raw: bytes, then: str = "") -> str:
    """The format of a file's bytes, if it can be read here; `then` is what to do once it can."""
    kind = photo_format(raw)
    if kind is None:
        raise BadPhoto(NOT_AN_IMAGE if raw else EMPTY)
    if kind in _NEEDS and not can_read(kind):
        raise BadPhoto(_NEEDS[kind].format(then))
    return kind


def _ink_as_is(image: Image.Image, kind: str | None) -> bool:
    """Whether a CMYK picture is a JPEG that is not Adobe's, see `_upright_rgb_or_grey`."""
    return kind == "JPEG" and "adobe" not in image.info


@functools.cache
def can_read(kind: str) -> bool:
    """Whether a format can be read here: HEIF needs pillow-heif, AVIF a Pillow that was built with it."""
    if kind == "HEIF":
        try:
            import pillow_heif
        except ImportError:
            return False
        pillow_heif.register_heif_opener()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a Pillow that has not heard of AVIF
        return kind != "AVIF" or bool(features.check("avif"))


class _OurLimit:
    """Pillow with our limit of pixels instead of its own, and without warnings, as long as anybody reads a photo.

    Both are settings of the whole process: with threads the first that reads sets them, and the last sets them back.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
                Image.MAX_IMAGE_PIXELS = None
                self._before.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module="PIL|pillow_heif")  # odd metadata of photos that decode
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._before.close()


_our_limit = _OurLimit()


class _Room:
    """Room for pixels: who wants more than is left waits, and who finds nobody else inside gets all that it wants."""

    def __init__(self, pixels: int) -> None:
        self._pixels, self._taken, self._changed = pixels, 0, threading.Condition()

    @contextlib.contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        """Takes room for the body."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + pixels <= self._pixels)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


_room = _Room(_AT_A_TIME)


@contextlib.contextmanager
def _pillow() -> Iterator[None]:
    """Pillow with our limit, without warnings, and with `BadPhoto` as its only error; in any number of threads."""
    try:
        with _our_limit:
            yield
    except (BadPhoto, MemoryError):
        raise
    except Exception as error:  # decoders raise nearly anything on broken data
        raise BadPhoto(TRUNCATED if "truncated" in str(error).lower() else BROKEN) from error


def _opened(raw: bytes, kind: str, max_pixels: int) -> Image.Image:
    """The image with its header read and nothing decoded."""
    image = Image.open(io.BytesIO(raw), formats=[kind])
    width, height = image.size
    if width * height > max_pixels or max(width, height) > _LONGEST_SIDE:
        raise BadPhoto(TOO_MANY_PIXELS)
    return image


def _is_turned(image: Image.Image) -> bool:
    """True if EXIF says that the photo is to be turned or mirrored; unreadable EXIF says nothing."""
    if image.format == "PNG":
        # EXIF may come behind the pixels: Pillow decodes them to look for it, and broken pixels are no broken EXIF.
        image.load()
    try:
        return image.getexif().get(0x0112, 1) in range(2, 9)
    except Exception:
        return False


def _upright_rgb_or_grey(image: Image.Image, *, ink_as_is: bool) -> Image.Image:
    """Decoded image of any mode to mode RGB or L."""
    if _is_turned(image):  # asked first, since Pillow would copy what it does not turn
        with contextlib.suppress(Exception):  # EXIF that cannot be read turns nothing
            image = ImageOps.exif_transpose(image)
    if image.mode == "F":  # nothing says which value is white
        raise BadPhoto(UNSUPPORTED)
    if image.mode.startswith("I"):
        return _grey_from_deep(image)
    if image.mode == "CMYK":
        # Pillow takes every CMYK JPEG for Adobe's, with inverted ink. Without Adobe's marker it is not.
        return (ImageChops.invert(image) if ink_as_is else image).convert("RGB")
    if image.has_transparency_data:
        return _in_strips(image, "RGB", _over_white)
    return image if image.mode in ("RGB", "L") else image.convert("L" if image.mode == "1" else "RGB")


def _over_white(strip: Image.Image) -> Image.Image:
    strip = strip.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip).convert("RGB")


def _in_strips(image: Image.Image, mode: str, change: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """The image in another mode, changed some rows at a time: what is in between is as large as a strip."""
    changed = Image.new(mode, image.size)
    for top, strip in _strips(image):
        changed.paste(change(strip), (0, top))
    return changed


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Parts of an image of a few rows, each with the number of its first."""
    rows = max(1, _STRIP // image.width)
    if rows >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _depth(image: Image.Image) -> int:
    """Bits of grey that the values of an image of mode I need: 8, 10, 12 or 16; 16 of any other mode.

    Scanners and microscopes put 12 bits into files of 16 as they are, which look nearly black.
    """
    if not image.mode.startswith("I"):
        return 16
    ranges = [
        (int(values.min()), int(values.max())) for _, strip in _strips(image) if (values := np.asarray(strip)).size
    ]
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    if low < 0 or high > 65535:
        raise BadPhoto(UNSUPPORTED)
    return next(bits for bits in (8, 10, 12, 16) if high < 1 << bits)


def _grey_from_deep(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits, in 0 to 65535, scaled to 8 bits; Pillow's own conversion clips."""
    most = (1 << _depth(image)) - 1
    table = ((510 * np.arange(most + 1, dtype=np.int64) + most) // (2 * most)).astype(np.uint8)  # rounded half up
    return _in_strips(image, "L", lambda strip: Image.fromarray(table[np.asarray(strip)]))


def _check_whole(raw: bytes, kind: str) -> bool:
    """Raises `BadPhoto` where a decoder would not miss the end; False for a JPEG of an uncommon coding."""
    if kind == "JPEG":
        return _jpeg_frame(raw) in _COMMON_FRAMES
    if kind == "PNG":
        if _PNG_END not in raw:
            raise BadPhoto(TRUNCATED)
        Image.open(io.BytesIO(raw), formats=[kind]).verify()  # checksums, which decoding leaves aside
    # A RIFF file begins with its length, less these eight bytes.
    if kind == "WEBP" and len(raw) < 8 + int.from_bytes(raw[4:8], "little"):
        raise BadPhoto(TRUNCATED)
    return True


_PNG_END = b"IEND\xaeB`\x82"
# Start-of-frame markers that every JPEG decoder knows: baseline, extended and progressive Huffman.
_COMMON_FRAMES = (0xC0, 0xC1, 0xC2)
_END_OF_IMAGE = 0xD9
# In coded data a marker is an FF that no stuffed zero, restart number or fill byte follows. The expression begins with
# one fixed byte, which is looked for many times as fast as any repetition of it: this passes over all of a photo.
_NEXT_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")


def _jpeg_frame(raw: bytes) -> int:
    """Walks the markers to the end of the image; returns the start-of-frame marker.

    A decoder is content when all rows are there and does not ask for the end marker; but a file without it
    was cut short, be it by two bytes. The end must be looked for behind the scans, as an embedded preview
    has one as well. Source: ITU-T T.81, annex B.

    Raises:
        BadPhoto: truncated.
    """
    position, frame = 2, 0
    while found := _NEXT_MARKER.search(raw, position):
        marker, position = found[1][0], found.end()
        if marker == _END_OF_IMAGE:
            return frame
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = marker
        position += int.from_bytes(raw[position : position + 2], "big")  # over the segment
    raise BadPhoto(TRUNCATED)

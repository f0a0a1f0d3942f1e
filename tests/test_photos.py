"""What `clean_photo` keeps, mends and refuses."""

import io
import os
import socket
import struct
import subprocess
import sys
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_jax.data import photo as photos
from lit_jax.data.photo import BadPhoto, Photo, clean_photo, open_photo, photo_format
from lit_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def picture(width: int = 64, height: int = 48) -> Image.Image:
    """Left half red, right half blue, with a white top row band: no two turns of it look the same."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 200
    pixels[:, width // 2 :, 2] = 200
    pixels[: height // 4] = 255
    return Image.fromarray(pixels)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def clean(raw: bytes, **options: object) -> Photo:
    return clean_photo(raw, **{"max_pixels": 10**6, **options})


def pixels(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_size(width: int, height: int) -> bytes:
    """A sound header that claims a size, and next to no data."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def without_segment(raw: bytes, marker: bytes) -> bytes:
    start = raw.index(marker)
    return raw[:start] + raw[start + 2 + int.from_bytes(raw[start + 2 : start + 4], "big") :]


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


JPEG = encoded(picture(), "JPEG", quality=95)
PNG = encoded(picture(), "PNG")


@pytest.mark.parametrize(
    "raw",
    [
        JPEG,
        encoded(picture().convert("L"), "JPEG"),
        encoded(picture(), "JPEG", progressive=True),
        encoded(picture(), "JPEG", exif=exif(1)),
        encoded(picture(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0cut short"),
        encoded(picture(), "JPEG", exif=b"Exif\0\0" + b"\xff\xd8\xff\xd9" * 4),
        JPEG + b"bytes behind the end marker",
        JPEG[:-2] + b"\xff\xff\xff\xff\xd9",
    ],
    ids=[
        "rgb",
        "grey",
        "progressive",
        "upright by exif",
        "unreadable exif",
        "preview in exif",
        "junk behind the end",
        "fill bytes before the end",
    ],
)
def test_a_sound_jpeg_keeps_its_bytes_without_a_warning(raw: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        photo = clean(raw, ending=".JPG", max_side=64)
    assert photo.jpeg is raw
    assert photo[1:] == (64, 48, ())


# Rows and columns of the stored picture to those of the upright one, from the EXIF 2.32 table of orientations.
UPRIGHT = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_rotation_is_applied(orientation: int) -> None:
    raw = encoded(picture(), "JPEG", quality=95, subsampling=0, exif=exif(orientation))
    photo = clean(raw)
    expected = UPRIGHT[orientation](pixels(raw))
    assert photo.notes == ("turned upright as its EXIF says",)
    assert (photo.height, photo.width) == expected.shape[:2]
    assert np.abs(pixels(photo.jpeg) - expected).mean() < 4
    assert not Image.open(io.BytesIO(photo.jpeg)).getexif()


@pytest.mark.parametrize("form", ["PNG", "GIF", "WEBP", "BMP", "TIFF", "MPO"])
def test_other_formats_are_encoded_anew_with_the_same_pixels(form: str) -> None:
    # Where a format can, it holds a second picture, which must not be taken.
    more = {"save_all": True, "append_images": [Image.new("RGB", (64, 48), "green")]}
    photo = clean(encoded(picture(), form, **(more if form in ("GIF", "MPO", "TIFF", "WEBP") else {})))
    assert photo[1:] == (64, 48, (f"encoded anew from {form}",))
    assert np.abs(pixels(photo.jpeg) - np.asarray(picture())).mean() < 4


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white(mode: str) -> None:
    if mode == "P":
        image = Image.new("P", (16, 16), 0)
        image.putpalette([10, 20, 30, 0, 0, 0])
        raw = encoded(image, "PNG", transparency=0)
    else:
        raw = encoded(Image.new(mode, (16, 16), (10, 20, 30, 0) if mode == "RGBA" else (10, 0)), "PNG")
    assert pixels(clean(raw).jpeg).min() == 255


def test_half_transparent_red_over_white_is_pink() -> None:
    raw = encoded(Image.new("RGBA", (16, 16), (255, 0, 0, 128)), "PNG")
    np.testing.assert_allclose(pixels(clean(raw).jpeg)[8, 8], [255, 127, 127], atol=3)


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    deep = np.repeat(np.array([0, 257 * 64, 257 * 128, 65535], np.uint16), 16)[None].repeat(16, 0)
    photo = clean(encoded(Image.fromarray(deep), "PNG"))
    np.testing.assert_allclose(pixels(photo.jpeg)[8, [8, 24, 40, 56], 0], [0, 64, 128, 255], atol=2)


def test_one_bit_pictures_are_black_and_white() -> None:
    photo = clean(encoded(Image.new("1", (8, 8), 1), "PNG"))
    assert pixels(photo.jpeg).min() == 255


def cmyk_jpeg(*, adobe: bool) -> bytes:
    """Full magenta and yellow ink, which is red. Adobe's files hold ink inverted and say who wrote them."""
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    if adobe:
        return encoded(ink, "JPEG", quality=95)  # Pillow writes as Adobe does
    raw = encoded(Image.new("CMYK", (16, 16), (255, 0, 0, 255)), "JPEG", quality=95)
    return without_segment(raw, b"\xff\xee")


@pytest.mark.parametrize("adobe", [True, False])
def test_cmyk_with_and_without_adobes_inversion(adobe: bool) -> None:
    raw = cmyk_jpeg(adobe=adobe)
    assert (b"Adobe" in raw) == adobe
    photo = clean(raw)
    assert photo.notes == ("encoded anew from JPEG CMYK",)
    np.testing.assert_allclose(pixels(photo.jpeg)[8, 8], [255, 0, 0], atol=4)


def test_a_coding_that_few_decoders_know_is_not_kept() -> None:
    raw = JPEG.replace(b"\xff\xc0", b"\xff\xc9", 1)  # start of frame: arithmetic coding
    try:
        assert clean(raw).notes == ("encoded anew from JPEG",)
    except BadPhoto as error:  # this Pillow does not know it either
        assert error.reason == "broken data"


def preview_with_end_marker() -> bytes:
    """Cut short, but with an end marker inside its EXIF, as embedded previews have one."""
    return encoded(picture(), "JPEG", exif=b"Exif\0\0" + b"\xff\xd8\xff\xd9" * 4)[:-2]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "empty file"),
        (b"<html>404</html>", "not JPEG, PNG, GIF, WebP, AVIF, HEIC, BMP or TIFF"),
        (b"\0" * 500, "not JPEG, PNG, GIF, WebP, AVIF, HEIC, BMP or TIFF"),
        (JPEG[: len(JPEG) * 3 // 4], "truncated"),
        (JPEG[:-2], "truncated"),
        (JPEG[: len(JPEG) // 2] + bytes(len(JPEG) // 2), "truncated"),
        (preview_with_end_marker(), "truncated"),
        (PNG[: len(PNG) // 2], "truncated"),
        (PNG[:-2], "truncated"),
        (encoded(picture(), "GIF")[:-40], "truncated"),
        (encoded(picture(), "WEBP")[:-20], "truncated"),
        (encoded(picture(), "BMP")[:-20], "truncated"),
        (encoded(picture(), "TIFF")[:500], "truncated"),
        (PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:], "broken data"),
        (without_segment(JPEG, b"\xff\xdb"), "broken data"),  # a table is missing, which only decoding finds
        (b"\xff\xd8\xff\xd9", "broken data"),
        (b"GIF89a", "broken data"),
        (png_of_size(0, 48), "broken data"),
        (encoded(picture().convert("F"), "TIFF"), "unsupported kind of pixel"),
        (png_of_size(60_000, 60_000), "too many pixels"),
        (png_of_size(1001, 1000), "too many pixels"),
        (png_of_size(70_000, 1), "too many pixels"),
    ],
)
def test_refused_with_a_fixed_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(BadPhoto) as refusal:
        clean(raw)
    assert refusal.value.reason == reason


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}], ids=str
)
def test_broken_data_is_found_as_by_decoding_in_full(options: dict, rng: np.random.Generator) -> None:
    """A photo that is kept is decoded at an eighth of its size only."""
    raw = encoded(Image.fromarray(rng.integers(0, 256, (48, 61, 3), np.uint8)), "JPEG", **options)
    refused = 0
    for _ in range(200):
        broken = bytearray(raw)
        for at in rng.integers(2, len(raw) - 2, 3):
            broken[at] = rng.integers(256)
        try:
            clean(bytes(broken))
            kept = True
        except BadPhoto:
            kept = False
        try:
            photos._jpeg_frame(bytes(broken))
            Image.open(io.BytesIO(broken), formats=["JPEG"]).load()
            whole = True
        except Exception:
            whole = False
        assert kept == whole, bytes(broken).hex()
        refused += not kept
    assert 0 < refused < 200


def test_the_pixel_limit_is_inclusive_and_known_from_the_header_alone() -> None:
    assert clean(JPEG, max_pixels=64 * 48).width == 64
    with pytest.raises(BadPhoto, match="too many pixels"):
        clean(JPEG, max_pixels=64 * 48 - 1)
    # At the limit the next thing to go wrong is the data, so the size was judged before any of it was read.
    with pytest.raises(BadPhoto, match=r"truncated|broken data"):
        clean(png_of_size(1000, 1000))


def test_a_limit_above_pillows_own_is_obeyed_and_pillow_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadPhoto, match=r"truncated|broken data"):
            clean(png_of_size(20_000, 20_000), max_pixels=10**9)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_pixels_of_a_large_photo_and_of_odd_metadata_are_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    odd = JPEG[:2] + b"\xff\xe2\x00\x10MPF\0" + b"\xff" * 10 + JPEG[2:]  # an index of several photos that is none
    for raw in (JPEG, odd):
        photo = clean(raw)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert photo.jpeg == raw and photo.pixels.shape == (48, 64, 3)


def test_broken_pixels_of_a_png_are_not_taken_for_broken_exif() -> None:
    """Pillow decodes a PNG to look for EXIF behind its pixels, and does so once only."""
    header = struct.pack(">IIBBBBB", 64, 48, 8, 2, 0, 0, 0)
    data = b"".join(b"\0" + bytes(3 * 64) for _ in range(20)) + b"\x09" + bytes(3 * 64)  # no such filter
    chunks = (png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib.compress(data)), png_chunk(b"IEND", b""))
    raw = b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
    for read in (clean, lambda raw: clean(raw, max_side=16), photos.upright_pixels):
        with pytest.raises(BadPhoto, match="broken data"):
            read(raw)


@pytest.mark.parametrize(
    ("size", "max_side", "expected"),
    [((300, 100), 100, (100, 33)), ((100, 300), 100, (33, 100)), ((2000, 3), 100, (100, 1))],
)
def test_shrinks_the_longest_side(size: tuple[int, int], max_side: int, expected: tuple[int, int]) -> None:
    for form in ("JPEG", "PNG"):
        photo = clean(encoded(picture(*size), form), max_side=max_side)
        assert (photo.width, photo.height) == expected == Image.open(io.BytesIO(photo.jpeg)).size


def test_shrinking_a_jpeg_is_no_note_and_looks_like_a_good_filter() -> None:
    large = picture(800, 600)
    photo = clean(encoded(large, "JPEG", quality=95), max_side=120)
    assert photo[1:] == (120, 90, ())
    expected = np.asarray(large.resize((120, 90), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(pixels(photo.jpeg) - expected).mean() < 4


def test_shrinking_finds_truncation_too() -> None:
    large = encoded(picture(800, 600), "JPEG", quality=95)
    with pytest.raises(BadPhoto, match="truncated"):
        clean(large[: len(large) // 2], max_side=100)


def test_quality_sets_the_size_of_what_is_encoded() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    raw = encoded(noise, "PNG")
    assert len(clean(raw, quality=30).jpeg) < len(clean(raw, quality=95).jpeg) / 2


@pytest.mark.parametrize(
    ("raw", "ending", "notes"),
    [
        (JPEG, ".png", ("is JPEG, named .png",)),
        (JPEG, "jfif", ()),
        (JPEG, "", ()),
        (PNG, ".jpg", ("is PNG, named .jpg", "encoded anew from PNG")),
    ],
)
def test_a_wrong_ending_is_noted_and_nothing_more(raw: bytes, ending: str, notes: tuple[str, ...]) -> None:
    assert clean(raw, ending=ending).notes == notes


def box(major: bytes, *compatible: bytes) -> bytes:
    """The beginning of an ISO base media file (ISO/IEC 14496-12): the box that says what kind it is."""
    brands = major + bytes(4) + b"".join(compatible)
    return struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + bytes(64)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (box(b"heic", b"mif1", b"heic"), "HEIF"),  # an iPhone
        (box(b"mif1", b"mif1", b"heix"), "HEIF"),
        (box(b"avif", b"avif", b"mif1", b"miaf"), "AVIF"),
        (box(b"mif1", b"mif1", b"avif"), "AVIF"),
        (box(b"isom", b"isom", b"mp42"), None),  # a film
        (box(b"qt  "), None),
    ],
)
def test_photos_of_phones_are_known_by_their_first_bytes(raw: bytes, kind: str | None) -> None:
    assert photo_format(raw) == kind


def test_what_cannot_be_read_here_is_called_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "can_read", lambda kind: False)
    with pytest.raises(BadPhoto, match=r"^HEIC, which needs pillow-heif: .* or save them as JPEG$"):
        clean(box(b"heic", b"mif1", b"heic"))
    with pytest.raises(BadPhoto, match=r"^AVIF, which this Pillow cannot read: update it"):
        clean(box(b"avif", b"avif"))


@pytest.mark.parametrize("form", ["HEIF", "AVIF"])
def test_photos_of_phones_are_read_where_pillow_can(form: str) -> None:
    if not photos.can_read(form):
        pytest.skip(f"nothing here reads {form}")
    upright = clean(encoded(picture(), form, quality=95))
    assert upright[1:] == (64, 48, (f"encoded anew from {form}",))
    assert np.abs(pixels(upright.jpeg) - np.asarray(picture())).mean() < 6
    if form == "AVIF":  # in HEIF the turn stands beside the EXIF, where pillow-heif does not write it
        turned = clean(encoded(picture(), form, quality=95, exif=exif(6)))
        assert (turned.width, turned.height) == (48, 64)
        assert np.abs(pixels(turned.jpeg) - UPRIGHT[6](np.asarray(picture()).astype(int))).mean() < 6
    with pytest.raises(BadPhoto, match=r"truncated|broken data"):
        clean(encoded(picture(), form)[:-200])


def test_a_photo_is_opened_by_path_or_by_content_as_a_conversion_stores_it(tmp_path: Path) -> None:
    raw = encoded(picture(), "JPEG", quality=95, exif=exif(6))
    (tmp_path / "photo.jpg").write_bytes(raw)
    by_path = open_photo(tmp_path / "photo.jpg")
    assert by_path == open_photo(str(tmp_path / "photo.jpg")) == open_photo(raw) == clean(raw)
    assert (by_path.pixels.shape, by_path.pixels.dtype) == ((64, 48, 3), np.uint8)
    np.testing.assert_array_equal(by_path.pixels, pixels(by_path.jpeg))
    with pytest.raises(UserError, match=r"photo .*none\.jpg: found no such file, expected a photo; check"):
        open_photo(tmp_path / "none.jpg")
    (tmp_path / "photo.jpg").write_bytes(raw[:-2])
    with pytest.raises(UserError, match=r"photo .*photo\.jpg: found truncated, expected a photo that can be read"):
        open_photo(tmp_path / "photo.jpg")
    with pytest.raises(UserError, match="photo: found too many pixels"):
        open_photo(raw, max_pixels=5)


def test_photos_are_opened_without_tensorflow_and_without_the_conversion() -> None:
    code = "import lit_jax.data.photo, sys; print({'tensorflow', 'jax', 'data_prep', 'pillow_heif'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout == "set()\n"


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_grey_of_fewer_bits_in_sixteen_is_as_bright_as_it_is(bits: int) -> None:
    """As microscopes and scanners write it: nearly black where 16 bits are taken for granted."""
    values = np.linspace(0, 2**bits - 1, 64, dtype=np.uint16)[None].repeat(16, 0)
    raw = encoded(Image.fromarray(values), "PNG")
    exact = np.floor(values.astype(float) * 255 / (2**bits - 1) + 0.5).astype(np.uint8)
    assert (photos.upright_pixels(raw)[..., 0] == exact).all()
    assert f"grey of {bits} bits in 16, made as bright as {bits} bits are" in clean(raw).notes


def test_sixteen_bits_are_rounded_exactly() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    found = photos.upright_pixels(encoded(Image.fromarray(values), "PNG"))
    assert (found == np.rint(values / 257)[..., None]).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "PA", "P", "I;16", "turned"])
def test_strips_give_the_pixels_of_the_whole(
    mode: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = rng.integers(0, 256, (37, 23, 4), np.uint8)
    whole = Image.fromarray(noise, "RGBA")
    if mode in ("P", "PA"):
        image = whole.convert("RGB").quantize(16)
        options = {"transparency": 3}
    elif mode == "I;16":
        image, options = Image.fromarray(rng.integers(0, 65536, (37, 23), np.uint16)), {}
    elif mode == "turned":
        image, exif = whole.convert("RGB"), Image.Exif()
        exif[0x0112] = 6
        options = {"exif": exif}
    else:
        image, options = whole.convert(mode), {}
    raw = encoded(image, "PNG", **options)
    found = []
    for strip in (1 << 20, 60):
        monkeypatch.setattr(photos, "_STRIP", strip)
        found.append(photos.upright_pixels(raw))
    assert (found[0] == found[1]).all()
    opened = Image.open(io.BytesIO(raw))
    if mode == "I;16":
        expected = np.rint(np.asarray(opened) / 257)[..., None].repeat(3, 2)
    else:
        over = opened.convert("RGBA")
        over = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
        expected = np.asarray(over.transpose(Image.Transpose.ROTATE_270) if mode == "turned" else over)
    assert (found[0] == expected).all()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak of the memory")
def test_a_large_photo_of_any_kind_takes_little_memory(tmp_path: Path) -> None:
    """Bytes at the most for a pixel, the three of the result included."""
    code = """
import pathlib, re, sys
from lit_jax.data.photo import upright_pixels

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) * 1024

upright_pixels(sys.argv[1])
before = peak()
upright_pixels(sys.argv[2])
print((peak() - before) / 25e6)
"""
    Image.new("L", (8, 8)).save(tmp_path / "small.png")
    Image.fromarray(np.full((5000, 5000), 30000, np.uint16)).save(tmp_path / "deep.png")
    Image.new("RGBA", (5000, 5000), (10, 20, 30, 128)).save(tmp_path / "clear.png")
    for name, limit in (("deep", 9), ("clear", 14)):
        files = [str(tmp_path / f"{one}.png") for one in ("small", name)]
        found = subprocess.run(
            [sys.executable, "-c", code, *files], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert 3 < float(found.stdout) < limit, name


def test_threads_share_the_room_for_pixels() -> None:
    import threading

    room, inside, most = photos._Room(10), [], []

    def take(pixels: int) -> None:
        with room.of(pixels):
            inside.append(pixels)
            most.append(sum(inside))
            time.sleep(0.005)
            inside.remove(pixels)

    threads = [threading.Thread(target=take, args=(pixels,)) for pixels in (4, 5, 6, 3, 40, 2, 8, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not inside and len(most) == 8 and max(total for total in most if total < 40) <= 10
    assert max(most) == 40  # one that is too large for the room is alone in it


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
def test_what_is_no_file_is_no_photo_and_nobody_waits_for_it(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(BadPhoto, match=f"a {kind} and no file"):
        photos.upright_pixels(path)
    with pytest.raises(UserError, match=f"x.jpg: found a {kind} and no file, expected a photo"):
        open_photo(path)

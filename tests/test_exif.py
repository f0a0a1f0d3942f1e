"""When and where a photo was taken: what is real, and nothing else. The field app is compared with the same values.

`exif.json` has what cameras and editors write, and what is right by the standard (CIPA DC-008, Exif 2.32, sections 4.6.5
and 4.6.6) and by the calendar; the files are made here by the layout of TIFF, without a library that knows EXIF.
"""

import datetime
import io
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, features

from lit_jax.data.exif import Taken, taken
from lit_jax.prediction.answers import Answer, Named
from lit_jax.prediction.formats import DARWIN_CORE, Heading, format_of

CASES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("exif.json").read_text("utf-8"))
FORMS = {"JPEG": "jpeg", "PNG": "png", "WEBP": "webp", "AVIF": "avif"}
"""Formats of Pillow, and what the field app calls them."""


def exif(case: Mapping[str, Any]) -> bytes:
    """The EXIF of a case: three directories of a TIFF."""
    end, order = (">", b"MM\0*") if case.get("big") else ("<", b"II*\0")
    at, parts = 8, []
    inner = {}
    for pointer, name in ((0x8769, "exif"), (0x8825, "gps")):
        if case[name]:
            data = directory(case[name], at, end)
            inner[str(pointer)] = at
            at, parts = at + len(data), [*parts, data]
    main = directory({**case["main"], **inner}, at, end)
    return b"Exif\0\0" + order + struct.pack(f"{end}I", at) + b"".join(parts) + main


def directory(tags: Mapping[str, Any], at: int, end: str) -> bytes:
    """Entries of twelve bytes in the order of their tags, and behind them the values of more than four bytes."""
    behind = at + 2 + 12 * len(tags) + 4
    rows, values = b"", b""
    for tag, value in sorted((int(tag), value) for tag, value in tags.items()):
        if isinstance(value, str):
            kind, count, data = 2, len(value.encode()) + 1, value.encode() + b"\0"
        elif isinstance(value, int):
            kind, count, data = 4, 1, struct.pack(f"{end}I", value)
        else:
            below = min(number for pair in value for number in pair) < 0
            kind, count = 10 if below else 5, len(value)
            data = b"".join(struct.pack(f"{end}{'ii' if below else 'II'}", *pair) for pair in value)
        if len(data) > 4:
            place = behind + len(values)
            values += data + b"\0" * (len(data) % 2)
            data = struct.pack(f"{end}I", place)
        rows += struct.pack(f"{end}HHI", tag, kind, count) + data.ljust(4, b"\0")
    return struct.pack(f"{end}H", len(tags)) + rows + b"\0\0\0\0" + values


def photo(form: str, content: bytes, size: tuple[int, int] = (16, 12)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "green").save(out, form, exif=content)
    return out.getvalue()


@pytest.mark.parametrize("form", FORMS)
def test_time_and_place_are_those_that_are_real(form: str, tmp_path: Path) -> None:
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("a Pillow without AVIF")
    wrong = {}
    for case in CASES:
        time, place = taken(photo(form, exif(case)))
        right = (case["date"], case["place"] and pytest.approx(case["place"]))
        if (time.isoformat() if time else "", place and list(place)) != right:
            wrong[case["why"]] = (time, place)
    assert not wrong


def test_offsets_are_those_of_the_clock() -> None:
    found = taken(photo("JPEG", exif(CASES[0]))).time
    assert found == datetime.datetime(2023, 5, 6, 5, 8, 9, tzinfo=datetime.UTC)


def test_damage_says_nothing(tmp_path: Path) -> None:
    whole = exif(CASES[0])
    for cut in range(len(whole)):
        found = taken(photo("JPEG", whole[:cut]))
        assert found.place in (None, (48.5, 2.25))
    for content in (b"", b"no photo", photo("JPEG", b"Exif\0\0" + b"\xff" * 40), photo("PNG", b"Exif\0\0II*\0")):
        assert taken(content) == Taken()
    assert taken(tmp_path / "gone.jpg") == taken("photo 1") == taken("a\0b") == Taken()


def test_darwin_core_has_time_and_place_where_they_are_real(tmp_path: Path) -> None:
    rows = {}
    form = format_of("dwc", Heading("m", 1, 2, "n", "k"))
    for name, case in (("real", CASES[1]), ("none", CASES[2])):
        path = tmp_path / f"{name}.jpg"
        path.write_bytes(photo("JPEG", exif(case)))
        text = form.text(Named(str(path), (Answer("species", "Parus major", "", {}, 0.5, True),)))
        rows[name] = dict(zip(DARWIN_CORE, text.rstrip("\n").split(",")[-len(DARWIN_CORE) :], strict=True))
    names = ("eventDate", "decimalLatitude", "decimalLongitude", "geodeticDatum")
    assert [rows["real"][name] for name in names] == ["2023-05-06T07:08:09-09:30", "-48.500000", "-2.250000", "WGS84"]
    assert [rows["none"][name] for name in names] == ["", "", "", ""]

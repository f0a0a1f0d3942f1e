"""When and where a photo was taken, as its EXIF says: only what can be true. The field app reads the same: exif.js."""

import datetime
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lit_jax.data.photo import exif_tags

FIRST_PHOTO = 1826  # the year of the first one; a camera without a date writes 0000 or 0001
_FARTHEST = datetime.timedelta(hours=14)  # of a time zone from UTC

# Tags of Exif 2.32 (CIPA DC-008), sections 4.6.5 and 4.6.6. Times with their offsets, the better one first: for a
# digital camera both are the same; DateTime (0x0132) is left out, since it is when the file was changed.
_TIMES = ((0x9003, 0x9011), (0x9004, 0x9012))
_LATITUDE, _LONGITUDE, _STATUS = (1, 2, "NS", 90), (3, 4, "EW", 180), 9
_VOID = "V"  # the receiver knew no place

_TIME = re.compile(r"(\d{4})[:/-](\d\d)[:/-](\d\d)[ T](\d\d):(\d\d):(\d\d)", re.ASCII)
_OFFSET = re.compile(r"([+-])(\d\d):(\d\d)", re.ASCII)


class Taken(NamedTuple):
    """When and where a photo was taken.

    Attributes:
        time: by the clock of the camera, with its offset from UTC where the photo has one; None where it has no time.
        place: latitude and longitude in degrees, north and east of zero; None where it has no place.
    """

    time: datetime.datetime | None = None
    place: tuple[float, float] | None = None


def taken(source: str | os.PathLike[str] | bytes) -> Taken:
    """Time and place of a photo; what is missing, damaged or impossible is None.

    Args:
        source: path of the file, or its content. Of a file that cannot be read nothing is known.
    """
    try:
        raw = source if isinstance(source, bytes) else Path(source).read_bytes()
    except (OSError, ValueError):  # a path may be the name of an array, too
        return Taken()
    tags = exif_tags(raw)
    times = (_time(tags.exif.get(time), tags.exif.get(offset)) for time, offset in _TIMES)
    return Taken(next(filter(None, times), None), _place(tags.gps))


def _time(value: object, offset: object) -> datetime.datetime | None:
    found = _TIME.match(value) if isinstance(value, str) else None
    if not found or int(found[1]) < FIRST_PHOTO:
        return None
    try:
        return datetime.datetime(*map(int, found.groups()), tzinfo=_zone(offset))  # type: ignore[misc,arg-type]
    except ValueError:  # month 0, 30 February, hour 24
        return None


def _zone(value: object) -> datetime.timezone | None:
    found = _OFFSET.match(value) if isinstance(value, str) else None
    if not found or int(found[3]) > 59:
        return None
    apart = datetime.timedelta(hours=int(found[2]), minutes=int(found[3]))
    return datetime.timezone(-apart if found[1] == "-" else apart) if apart <= _FARTHEST else None


def _place(gps: Mapping[int, Any]) -> tuple[float, float] | None:
    latitude, longitude = (_degrees(gps, *side) for side in (_LATITUDE, _LONGITUDE))
    if latitude is None or longitude is None or _word(gps.get(_STATUS)) == _VOID:
        return None
    return (latitude, longitude) if latitude or longitude else None  # 0, 0 is what receivers without a place write


def _degrees(gps: Mapping[int, Any], reference: int, tag: int, sides: str, most: int) -> float | None:
    side, parts = _word(gps.get(reference)), gps.get(tag)
    if len(side) != 1 or side not in sides or not isinstance(parts, tuple) or len(parts) != 3:
        return None
    try:
        degrees, minutes, seconds = map(float, parts)  # a fraction with zero below is nan
    except (TypeError, ValueError):
        return None
    value = degrees + minutes / 60 + seconds / 3600
    if not (math.isfinite(value) and min(degrees, minutes, seconds) >= 0 and max(minutes, seconds) <= 60):
        return None
    return (0 - value if side == sides[1] else value) if value <= most else None


def _word(value: object) -> str:
    return value.strip("\0 ") if isinstance(value, str) else ""

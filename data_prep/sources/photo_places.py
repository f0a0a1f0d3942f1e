"""The place of a photo's bytes: a file of its own, or a part of a larger file, such as a tar or TFRecord.

A place is one text, so that millions of them are cheap: the path, and for a span its offset and size behind it, parted
by a sign that no path can hold. Nothing is unpacked: a span is read from where it lies.
"""

import os
import stat
from pathlib import Path

_MARK = "\0"


def span(file: str | os.PathLike[str], offset: int, size: int) -> str:
    """The place of `size` bytes at `offset` of a file."""
    return _MARK.join((os.fspath(file), str(offset), str(size)))


def file_of(place: str) -> Path:
    """The file that holds the bytes."""
    return Path(place.partition(_MARK)[0])


def size_and_time(place: str) -> tuple[int, int] | str:
    """Bytes of a photo and time of its file's last change in ns, or the reason to leave it out."""
    path, offset, size = _parts(place)
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except OSError:
        return "cannot be read"
    if not stat.S_ISREG(found.st_mode):
        return "not a file"
    if size < 0:
        return found.st_size, found.st_mtime_ns
    return (size, found.st_mtime_ns) if offset + size <= found.st_size else "behind the end of its file"


def read(place: str, limit: int = -1) -> bytes | None:
    """The photo's bytes, or the first `limit` of them; None where they cannot be read."""
    path, offset, size = _parts(place)
    wanted = size if limit < 0 or 0 <= size < limit else limit
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            content = file.read(wanted)
    except OSError:
        return None
    return None if 0 <= wanted == size and len(content) < size else content


def _parts(place: str) -> tuple[str, int, int]:
    """Path, offset and size; size -1 for all of the file."""
    path, mark, rest = place.partition(_MARK)
    if not mark:
        return path, 0, -1
    offset, _, size = rest.partition(_MARK)
    return path, int(offset), int(size)

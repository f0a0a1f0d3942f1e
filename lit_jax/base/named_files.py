"""Files by the names that lists give them, which another system may have spelt otherwise."""

import functools
import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path

_FOLDERS = 1024  # whose entries are kept


def on_disk(base: str | os.PathLike[str], name: str) -> Path | None:
    r"""The file or folder that a list calls by a name; None where there is none.

    First as it is written; then with the backslashes of Windows for slashes; then whatever the form of its accents,
    which macOS takes apart: a list in NFC stands beside files in NFD, or the other way round.

    Args:
        base: the folder from which the name counts; an absolute name stands for itself.
        name: as it is written, ``a/b.jpg`` or ``a\b.jpg``.
    """
    for spelling in dict.fromkeys((name, name.replace("\\", "/"))):
        path = Path(base, spelling)
        if "\0" not in spelling and os.path.lexists(path):
            return path
    return _in_any_form(Path(base, name.replace("\\", "/"))) if not name.isascii() else None


def spelt_out(name: str) -> str:
    r"""A file's name as it can be written: bytes that are not UTF-8 are spelt out.

    Example:
        >>> spelt_out("a\udcff.jpg")
        'a\\xff.jpg'
    """
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        return name.encode("utf-8", "backslashreplace").decode()


def _in_any_form(path: Path) -> Path | None:
    """The path whose parts are spelt as on the disk."""
    if "\0" in str(path):
        return None
    found = Path(path.anchor or ".")
    for part in path.parts[1 if path.anchor else 0 :]:
        below = found / part
        if not os.path.lexists(below):
            name = _entries_now(found).get(unicodedata.normalize("NFC", part))
            if name is None:
                return None
            below = found / name
        found = below
    return found


def _entries_now(folder: Path) -> Mapping[str, str]:
    try:
        return _entries(str(folder), folder.stat().st_mtime_ns)
    except OSError:
        return {}


@functools.lru_cache(_FOLDERS)
def _entries(folder: str, _: int) -> Mapping[str, str]:
    """Entries of a folder with accents, from NFC to how they are spelt; the time of its last change is a key."""
    return {unicodedata.normalize("NFC", name): name for name in os.listdir(folder) if not name.isascii()}

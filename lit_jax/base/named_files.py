"""Files by the names that lists give them, which another system may have spelt otherwise."""

import functools
import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path

_FOLDERS = 1024  # of these the entries are kept


def on_disk(base: str | os.PathLike[str], name: str) -> Path | None:
    r"""The file or folder that a list calls by a name; None where there is none.

    First as it is written; then with the backslashes of Windows for slashes; then whatever the form of its accents,
    which macOS takes apart: a list may be in NFC and the files in NFD, or the other way round. Names on the disk that
    are no UTF-8 are taken for Windows-1252.

    Args:
        base: the folder from which the name counts; an absolute name is used as it is.
        name: as it is written, ``a/b.jpg`` or ``a\b.jpg``.
    """
    for spelling in dict.fromkeys((name, name.replace("\\", "/"))):
        path = Path(base, spelling)
        if "\0" not in spelling and os.path.lexists(path):
            return path
    return _in_any_form(Path(base, name.replace("\\", "/"))) if not name.isascii() else None


def beside(path: str, folder: Path) -> str:
    """Where a relative path leads that is not there from the current folder: beside a folder that was moved with it.

    Args:
        path: as a run remembers it, such as ``data/birds``.
        folder: the run; the path may count from it or from any folder above it.

    Returns:
        The path as it is, if it is there, is absolute, or is nowhere; else that which is there.
    """
    if not path or Path(path).is_absolute() or Path(path).exists():
        return path
    folder = Path(os.path.abspath(folder))
    return next((str(above / path) for above in (folder, *folder.parents) if (above / path).exists()), path)


def spelt_out(name: str) -> str:
    r"""A file's name as it can be written: bytes that are not UTF-8 are spelt out.

    Example:
        >>> spelt_out("a\udcff.jpg")
        'a\\xff.jpg'
    """
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a lone surrogate in place of no byte
        return name.encode("utf-8", "backslashreplace").decode()


def _in_any_form(path: Path) -> Path | None:
    """The path with its parts spelt as on the disk."""
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
    return {unicodedata.normalize("NFC", _read(name)): name for name in os.listdir(folder) if not name.isascii()}


def _read(name: str) -> str:
    """A name as a list has it: bytes that are not UTF-8 mostly come from an old disk, in the code page of Windows."""
    raw = os.fsencode(name)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")

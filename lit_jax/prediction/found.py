"""Which photos a person means: files, folders, patterns, and a list on standard input."""

import difflib
import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lit_jax.data.photo import ENDINGS
from lit_jax.errors import UserError

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What a cell begins with that spreadsheets run, by OWASP's list."""

LIST = "-"  # stands for a list of paths on standard input


class Found(NamedTuple):
    """Photos, and what a person should know of them.

    Attributes:
        photos: paths in the order of the arguments, each once; in a folder by name.
        notes: lines.
    """

    photos: list[str]
    notes: list[str]


def find_photos(arguments: Sequence[str], listed: Iterable[str] = ()) -> Found:
    """The photos that arguments name.

    Of a folder all files below it are taken whose ending is that of a photo, and the others counted; a file that is
    named itself is taken whatever it is called. What is not there is taken too, so that its row says so, if it is
    called like a photo or stands in a list; another argument that is not there is a mistake of who typed it.

    Args:
        arguments: paths, folders, patterns such as ``trap/*/*.JPG`` (``**`` for any depth), or `LIST`.
        listed: lines of standard input, for `LIST`.

    Raises:
        UserError: no photo at all; an argument that is neither there nor called like a photo.
    """
    notes: list[str] = []
    every = (_as_path(path) for argument in arguments for path in _of_argument(argument, listed, notes))
    photos = list(dict.fromkeys(every))
    if not photos:
        more = f" ({'; '.join(notes)})" if notes else ""
        raise UserError(f"photos: found none in {', '.join(arguments)}{more}, expected at least one; check the paths")
    return Found(photos, notes)


def _as_path(name: str) -> str:
    """The same file by a name that a spreadsheet does not take for a formula where it opens a CSV of answers."""
    return os.path.join(".", name) if name.startswith(FORMULA) else name


def _of_argument(argument: str, listed: Iterable[str], notes: list[str]) -> Iterator[str]:
    if argument == LIST:
        named = [line.rstrip("\r\n") for line in listed]
        yield from (path for line in named if line for path in _of_path(line, notes))
    elif glob.has_magic(argument) and not os.path.exists(argument):
        matching = sorted(glob.glob(argument, recursive=True))
        if not matching:
            notes.append(f"nothing is called like {argument}")
        yield from (path for one in matching for path in _of_path(one, notes))
    else:
        if not os.path.lexists(argument) and _ending(argument) not in ENDINGS:
            raise UserError(
                f"photos: found no file or folder {argument}, expected one{_nearest(argument)}; check the path"
            )
        yield from _of_path(argument, notes)


def _ending(path: str) -> str:
    return Path(path).suffix.lower().lstrip(".")


def _nearest(path: str) -> str:
    """What is called nearly like a path that is not there, in words; nothing where nothing is."""
    parent, name = os.path.split(path.rstrip(os.sep))
    beside = os.listdir(parent or ".") if os.path.isdir(parent or ".") else []
    near = difflib.get_close_matches(name, beside, n=1)
    return f", such as {os.path.join(parent, near[0])}" if near else ""


def _of_path(path: str, notes: list[str]) -> Iterator[str]:
    if not os.path.isdir(path):
        yield path
        return
    others: Counter[str] = Counter()
    for parent, folders, files in os.walk(path, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in files if not name.startswith(".")):
            ending = _ending(name)
            if ending in ENDINGS:
                yield os.path.join(parent, name)
            else:
                others[ending] += 1
    if others:
        told = ", ".join(f"{count} {'.' + ending if ending else 'without ending'}" for ending, count in others.items())
        notes.append(f"{path}: left out {sum(others.values())} files that are not called like photos: {told}")

"""Which photos a person means: files, folders, patterns, and a list on standard input."""

import codecs
import difflib
import glob
import itertools
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from lit_jax.base.named_files import on_disk, spelt_out
from lit_jax.base.walking import Walk
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
        listed: names on standard input, for `LIST`.

    Raises:
        UserError: no photo at all; an argument that is neither there nor called like a photo.
    """
    notes: list[str] = []
    every = (_as_path(path) for argument in arguments for path in _of_argument(argument, listed, notes))
    photos = list(dict.fromkeys(every))
    if not photos:
        more = f" ({'; '.join(notes)})" if notes else ""
        raise UserError(f"photos: found none in {', '.join(arguments)}{more}, expected at least one; check the paths")
    return Found(photos, list(dict.fromkeys(notes)))


def names_in(stream: IO[str]) -> Iterator[str]:
    """The names of a list, such as one on standard input: one a line, or each ended by a zero byte (``find -print0``).

    Names are bytes to the system: those that are not UTF-8 are kept as Python keeps them in arguments.
    """
    raw = stream.buffer.read() if hasattr(stream, "buffer") else os.fsencode(stream.read())
    parted = raw.removeprefix(codecs.BOM_UTF8).split(b"\0" if b"\0" in raw else b"\n")
    yield from map(os.fsdecode, parted)


def _as_path(name: str) -> str:
    """The same file by a name that a spreadsheet does not take for a formula where it opens a CSV of answers."""
    return os.path.join(".", name) if name.startswith(FORMULA) else name


def _of_argument(argument: str, listed: Iterable[str], notes: list[str]) -> Iterator[str]:
    if argument == LIST:
        named = (line.rstrip("\r\n") for line in listed)
        yield from (path for line in named if line for path in _of_path(_spelt(line), notes))
        return
    argument = _spelt(argument)
    if glob.has_magic(argument) and not os.path.exists(argument):
        forms = {argument, *(unicodedata.normalize(form, argument) for form in ("NFC", "NFD"))}
        matching = sorted({path for form in forms for path in _matching(form, notes)})
        if not matching:
            notes.append(f"nothing is called like {argument}")
        yield from (path for one in matching for path in _of_path(one, notes))
    else:
        if not os.path.lexists(argument) and _ending(argument) not in ENDINGS:
            raise UserError(
                f"photos: found no file or folder {argument}, expected one{_nearest(argument)}; check the path"
            )
        yield from _of_path(argument, notes)


def _matching(pattern: str, notes: list[str]) -> Iterator[str]:
    """Paths of a pattern; what ``**`` means is walked as a folder is, since links may lead in circles."""
    parts = pattern.split(os.sep)
    if "**" not in parts:
        yield from glob.glob(pattern)
        return
    first = parts.index("**")
    rest = list(itertools.dropwhile(lambda part: part == "**", parts[first:])) or ["*"]
    for base in glob.glob(os.sep.join([*parts[:first], ""])) if first else [""]:
        walk = Walk(base or os.curdir)
        for folder in walk.below(base or os.curdir):
            here = folder if base else os.path.relpath(folder).removeprefix(os.curdir)
            yield from _matching(os.path.join(glob.escape(here), *rest), notes)
        notes += _passed(walk)


def _passed(walk: Walk) -> list[str]:
    return [f"{spelt_out(folder)}: passed over, {reason}" for folder, reason in walk.passed]


def _spelt(path: str) -> str:
    """The path as it is on the disk, where it is there by another spelling only."""
    return path if not path or os.path.lexists(path) else str(on_disk("", path) or path)


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
    walk = Walk(path)
    for found in walk.files(path):
        ending = _ending(found)
        if ending in ENDINGS:
            yield found
        else:
            others[ending] += 1
    if others:
        told = ", ".join(f"{count} {'.' + ending if ending else 'without ending'}" for ending, count in others.items())
        notes.append(f"{path}: left out {sum(others.values())} files that are not called like photos: {told}")
    notes += _passed(walk)

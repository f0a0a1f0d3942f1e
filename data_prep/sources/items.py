"""What a reader of a source yields: photos one by one, with their classes and splits."""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from lit_jax.errors import UserError
from lit_jax.text.classes import ClassTable

TRAIN, VALIDATION, HELDOUT = "train", "validation", "heldout"


SPLIT_NAMES = {"training": TRAIN, "val": VALIDATION, "valid": VALIDATION, "test": VALIDATION}
"""How split names of others are read, unless the user says otherwise."""


class Item(NamedTuple):
    """One photo as a reader found it; what every source yields.

    Attributes:
        path: Where the photo is: a file, or a part of one (`data_prep.sources.photo_places`).
        class_name: The class as the source calls it, looked up by `match_folders`, or its id in the class table as
            an integer; "" if outside any class.
        split: The source's split, or None if it has no splits.
        image_id: The path relative to the source's folder, with ``/``; unique.
    """

    path: str
    class_name: str | int
    split: str | None
    image_id: str


class Skip(NamedTuple):
    """One photo left out: which, the reason (a fixed text, to be counted), and what belongs to this photo."""

    image_id: str
    reason: str
    detail: str = ""


class Request(NamedTuple):
    """What a conversion asks of a source: the options of the command line that readers know.

    Attributes:
        images: Folder of the photos, or a data set's name; "" if not given.
        splits: List of the photos, if any.
        classes: Class table, if any.
        subsets: Parts of the source to take, by its own names; () for its default.
        templates: Captions, for sources that know a photo's class by its caption alone.
        drop_repeats: How they are filled.
        data_dir: Folder in which a data set is looked up by its name; "" for its own default.
        split_names: Names of splits besides those that are known.
        class_level: Which level of folders is named like the classes; 0 for the first, if that does not look wrong.
    """

    images: str
    splits: Path | None = None
    classes: Path | None = None
    subsets: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    drop_repeats: bool = False
    data_dir: str = ""
    split_names: tuple[str, ...] = ()
    class_level: int = 0

    @property
    def folder(self) -> Path:
        """The folder of the photos; raises `UserError` if there is no such folder."""
        folder = Path(self.images)
        if not self.images or not folder.is_dir():
            raise UserError(f"--images: found no folder {self.images!r}, expected that of the photos; check the path")
        return folder


class Source(NamedTuple):
    """What a reader returns.

    Attributes:
        items: The photos one by one, or what it leaves out and why.
        table: The classes.
        archives: Released archives in the folder and their MD5, to be checked before anything is written.
    """

    items: Iterable[Item | Skip]
    table: ClassTable
    archives: Mapping[Path, str] = MappingProxyType({})


def misspelt_split(name: str) -> str:
    """The known name that an unknown one looks like, such as ``train`` for ``tarin``; "" if there is none.

    Names with digits, or of several words, are somebody's own unless their letters are all of a known one.
    """
    known = (TRAIN, VALIDATION, HELDOUT, *SPLIT_NAMES)
    letters = "".join(re.findall(r"[^\W_]", name.casefold()))
    if known_split(name):
        return ""
    near = [one for one in known if letters == one or (name.isalpha() and sorted(letters) == sorted(one))]
    if name.isalpha():
        near += difflib.get_close_matches(letters, known, n=1, cutoff=0.8)
    return near[0] if near else ""


def known_split(name: str) -> str:
    """Our name of a split that others call so, whatever the case; "" for any other name."""
    folded = name.casefold()
    return SPLIT_NAMES.get(folded) or (folded if folded in (TRAIN, VALIDATION, HELDOUT) else "")

"""Walks folders of photos: links are followed once and never in circles, and folders of copies are passed over."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_COPIES = frozenset(
    (
        "@eadir",
        "__macosx",
        "thumbnails",
        "thumbs",
        "#recycle",
        "@recycle",
        "$recycle.bin",
        "system volume information",
        "lost+found",
    )
)
"""Folders in which NAS systems, macOS, cameras and photo managers keep thumbnails, or what was thrown away."""

COPIES = "a folder of thumbnails or of the system, which is not looked into"
SORTED_MARK = ".lit_jax_sorted"
"""Name of the file that says that photos were sorted into a folder: they are copies with a model's answers."""

SORTED = "a folder that photos were sorted into"
LINK = "a link to a folder that is looked at anyway"
CLOSED = "a folder that cannot be read"


class Passed(NamedTuple):
    """A folder that is passed over, and why."""

    path: str
    reason: str


class Walk:
    """A walk below one folder, in the order of names; hidden names are passed over without a word.

    A link to a folder is followed if it leads outside, and not if it leads to a folder that is on the way anyway: one
    below the folder of the walk, one above it, or one where the walk has been.

    Args:
        root: the folder of the walk.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = os.path.realpath(root)
        self._been: set[tuple[int, int]] = set()
        self.passed: list[Passed] = []

    def files(self, folder: str | os.PathLike[str]) -> Iterator[str]:
        """Paths of all files below a folder: those in it first, then those of each folder in it."""
        for _, files in self._below(folder):
            yield from files

    def below(self, folder: str | os.PathLike[str]) -> Iterator[str]:
        """Paths of a folder and of all folders below it."""
        return (here for here, _ in self._below(folder))

    def folders(self, folder: str | os.PathLike[str]) -> list[str]:
        """Paths of the folders in a folder that are to be looked at; the others are added to `passed`."""
        return self._wanted(self._entries(os.fspath(folder))[0])

    def _below(self, folder: str | os.PathLike[str]) -> Iterator[tuple[str, list[str]]]:
        """A folder and all folders below it, with the files in each."""
        waiting = [os.fspath(folder)]
        while waiting:
            here = waiting.pop()
            if self._is_new(here):
                folders, files = self._entries(here)
                yield here, files
                waiting += reversed(self._wanted(folders))

    def _is_new(self, folder: str) -> bool:
        try:
            facts = os.stat(folder)
        except OSError:  # gone meanwhile
            self.passed.append(Passed(folder, CLOSED))
            return False
        is_new = (facts.st_dev, facts.st_ino) not in self._been
        self._been.add((facts.st_dev, facts.st_ino))
        self.passed += [] if is_new else [Passed(folder, LINK)]
        return is_new

    def _wanted(self, folders: Iterable[str]) -> list[str]:
        found = []
        for path in folders:
            if reason := self._why_not(path):
                self.passed.append(Passed(path, reason))
            else:
                found.append(path)
        return found

    def _entries(self, folder: str) -> tuple[list[str], list[str]]:
        """Paths of folders and of files in a folder, by name; the system tells which is which in one reading."""
        folders: list[str] = []
        files: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not entry.name.startswith("."):
                        (folders if _is_folder(entry) else files).append(os.path.join(folder, entry.name))
        except OSError:  # no permission, for the most part
            self.passed.append(Passed(folder, CLOSED))
        return sorted(folders, key=os.path.basename), sorted(files, key=os.path.basename)

    def _why_not(self, path: str) -> str:
        if _is_of_copies(os.path.basename(path)):
            return COPIES
        if os.path.exists(os.path.join(path, SORTED_MARK)):
            return SORTED
        if not os.path.islink(path):
            return ""
        there = os.path.realpath(path)
        if self._root == there or self._root.startswith(os.path.join(there, "")):
            return LINK
        inside = there.startswith(os.path.join(self._root, "")) and Path(there).relative_to(self._root).parts
        # What is below a folder that is passed over itself is not on the way.
        return LINK if inside and not any(part.startswith(".") or _is_of_copies(part) for part in inside) else ""


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in circles
        return False


def _is_of_copies(name: str) -> bool:
    return name.casefold() in _COPIES or name.casefold().endswith(".lrdata")

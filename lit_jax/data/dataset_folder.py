"""Folders of data with a manifest of their content; while one is being written, its name ends in ``.incomplete``.

What record sets and embedding stores have in common. One process at a time works in a folder, see `alone_in`.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from lit_jax.base import foreign
from lit_jax.base.files import INCOMPLETE, file_digest, incomplete
from lit_jax.errors import UserError

MANIFEST = "manifest.json"
HELDOUT = "heldout"  # split of species that training leaves out, where a person names no other


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of folder, and how to speak of it to a person.

    Attributes:
        format: as its manifest calls it.
        version: of the format; newer ones are refused.
        word: for the version.
        noun: for a whole one.
        one: for any one, with its article.
        made_by: the command that makes it.
        finish: what to do with an unfinished one.
        make: what to do where there is none, after `made_by`.
        check: what to do where there is something else.
    """

    format: str
    version: int
    word: str
    noun: str
    one: str
    made_by: str
    finish: str
    make: str
    check: str


def is_of(directory: Path, kind: Kind) -> bool:
    """True if the folder holds a manifest of this format, whatever its version."""
    try:
        manifest = foreign.loaded(directory / MANIFEST)
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("format") == kind.format


class _Counted(Protocol):
    """A shard, which knows how many rows it has."""

    @property
    def examples(self) -> int: ...


ShardOf = TypeVar("ShardOf", bound=_Counted)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetFolder(Generic[ShardOf]):
    """Photos by split, in shards, with the class table and what captions are made of: what all kinds have in common.

    Attributes:
        directory: the folder.
        splits: shards of each split in order, by name of the split.
        class_table: path of ``classes.csv``.
        tokenizer: path of ``tokenizer.model``, or None if there is none.
        templates: the caption templates.
        drop_repeats: how they were filled, see `lit_jax.text.captions.caption`.
        class_ids: ids of the classes that have photos, ascending, by split.
        fingerprint: of the whole; other data has another one, and what is not yet complete none.
    """

    directory: Path
    splits: Mapping[str, tuple[ShardOf, ...]]
    class_table: Path
    tokenizer: Path | None
    templates: tuple[str, ...]
    drop_repeats: bool
    class_ids: Mapping[str, tuple[int, ...]]
    fingerprint: str = ""

    def shards(self, split: str) -> tuple[ShardOf, ...]:
        """The split's shards; raises `UserError` that lists the splits if there is none."""
        check_split(split, self.splits, self.directory)
        return self.splits[split]

    def examples(self, split: str | None = None) -> int:
        """Number of photos in one split, or in all."""
        names = self.splits if split is None else [split]
        return sum(shard.examples for name in names for shard in self.shards(name))

    def classes_in(self, split: str) -> tuple[int, ...]:
        """Ids of the classes that have photos in the split, ascending."""
        self.shards(split)
        return self.class_ids[split]


def read(folder: Path, kind: Kind) -> dict[str, Any]:
    """The manifest of a complete folder.

    Raises:
        UserError: no such folder, a half-written one, one of something else, or a newer version.
    """
    half_written = incomplete(folder)
    if folder.name.endswith(INCOMPLETE):
        raise UserError(f"{folder}: found a half-written {kind.noun}, expected a complete one; {kind.finish}")
    if not folder.is_dir():
        if half_written.is_dir():
            raise UserError(f"{folder}: found only {half_written.name}, expected a complete {kind.noun}; {kind.finish}")
        raise UserError(f"{folder}: found no such folder, expected {kind.one}; make it with {kind.made_by}{kind.make}")
    if not is_of(folder, kind):
        raise UserError(
            f"{folder}: found no {MANIFEST} of {kind.format}, expected a folder made by {kind.made_by}; {kind.check}"
        )
    manifest: dict[str, Any] = foreign.loaded(folder / MANIFEST)
    version = manifest.get("version")
    if isinstance(version, int) and version > kind.version:
        raise UserError(
            f"{folder}: found {kind.word} format {version}, expected at most {kind.version}; update lit_jax"
        )
    return manifest


def check_unchanged(folder: Path, entries: Iterable[Mapping[str, str] | None], remedy: str) -> None:
    """Compares small files with their digests.

    Args:
        folder: where they are.
        entries: ``file`` and, unless it only has to be there, ``sha256`` of each; None is passed over.
        remedy: what to do, for the message.

    Raises:
        UserError: naming the first that is missing or differs.
    """
    for entry in filter(None, entries):
        path = folder / entry["file"]
        if not path.is_file() or ("sha256" in entry and file_digest(path) != entry["sha256"]):
            found = "another content" if path.is_file() else "no file"
            raise UserError(f"{path}: found {found}, expected it as written with the shards; {remedy}")


def check_split(split: str, splits: Iterable[str], folder: Path, *, option: str = "split") -> None:
    """Refuses a split that a folder does not hold.

    Args:
        split: asked for.
        splits: that there are.
        folder: where.
        option: by which it was asked for, for the message.

    Raises:
        UserError: naming the option, the splits and the folder.
    """
    known = tuple(splits)
    if split not in known:
        ones = f"one of {', '.join(known)}" if len(known) > 1 else f"{known[0]}, the only one"
        raise UserError(
            f"{option}: found {split!r}, expected {ones} in {folder}; change it, or make data with that split"
        )

"""An index of photos to search: their embeddings in one file that is mapped into memory, made once and kept up to date.

    index/
      vectors.npy     [N, D] float16, unit norm, a row a photo
      photos.jsonl    N lines: {"row": 0, "photo": path or id, "size": bytes, "changed": nanoseconds}
      index.json      format, version, the digest of the model, checksums of both files; written last

A search is exact: every row is compared. The index is rewritten beside itself, so that it is never half-new. What is in
the folder beside these three files is left alone.
"""

import contextlib
import dataclasses
import io
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lit_jax.base import foreign
from lit_jax.base.files import CHECKED_BYTES, alone_with, changed, checksum, incomplete, is_part, naming, write_json
from lit_jax.base.folders import MARK, begin, recover_locked, replace, resolved
from lit_jax.errors import DAMAGED, UserError, first_line

FORMAT, VERSION = "lit_jax photo index", 2  # the first had no checksums
FOLDER = "photo_index"
"""In the folder of a model, where indices are kept if nobody says where."""
VECTORS, PHOTOS, INDEX = "vectors.npy", "photos.jsonl", "index.json"
ROWS = 1 << 15  # photos at a time
_REMEDY = "delete the folder, but for files of your own"
PART = 2000  # new photos after which an index is written, at the least


class Entry(NamedTuple):
    """One photo of an index.

    Attributes:
        photo: its path, or its id in a store.
        size: of the file in bytes; 0 in a store.
        changed: when the file changed last, in nanoseconds; 0 in a store.
    """

    photo: str
    size: int = 0
    changed: int = 0


class Index(NamedTuple):
    """An index that was opened.

    Attributes:
        folder: where it is.
        vectors: `[N, D]` float16, mapped into memory.
        model: digest of what embedded the photos.
    """

    folder: Path
    vectors: np.ndarray
    model: str

    def entries(self) -> Iterator[Entry]:
        """The photos, in the order of the rows."""
        with open(self.folder / PHOTOS, encoding="utf-8", errors="replace") as file:
            for row, line in enumerate(file):
                yield _entry(self.folder, row, line)

    def photos_of(self, rows: np.ndarray) -> list[str]:
        """Paths or ids of some rows, in their order; the others are passed over."""
        wanted = set(rows.tolist())
        with open(
            self.folder / PHOTOS, encoding="utf-8", errors="replace"
        ) as file:  # of millions only those that are wanted are parsed
            found = {row: _entry(self.folder, row, line).photo for row, line in enumerate(file) if row in wanted}
        if wanted - found.keys():
            raise UserError(f"{self.folder / PHOTOS}: found too few lines, expected one a vector; {_REMEDY}")
        return [found[row] for row in rows.tolist()]


def _entry(folder: Path, row: int, line: str) -> Entry:
    """The photo of a line, which names its row; of an index of before it does not."""
    try:
        found = foreign.parsed(line)
        if found.pop("row", row) != row:
            raise ValueError("the line of another row")
        return Entry(**found)
    except DAMAGED as error:
        raise UserError(
            f"{folder / PHOTOS}, line {row + 1}: found {first_line(error)}, expected the photo of row {row}; delete "
            "the index"
        ) from None


@dataclasses.dataclass(frozen=True)
class Updated:
    """What an update did.

    Attributes:
        index: as it is now.
        kept: photos that were in it.
        added: photos that were embedded.
        gone: photos that are no longer there.
        broken: photos that cannot be read, each with the reason; they are tried again the next time.
    """

    index: Index
    kept: int
    added: int
    gone: int
    broken: list[tuple[str, str]]


def nearest(vectors: np.ndarray, queries: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows most like each query, exactly: of equal scores the earlier row comes first.

    Args:
        vectors: `[N, D]` of any float type, may be mapped into memory.
        queries: `[Q, D]` float32.
        top: k, rows of each query at the most.

    Returns:
        Scores `[Q, min(k, N)]` float32, descending, and rows `[Q, min(k, N)]` int64.
    """
    queries = np.asarray(queries, np.float32)
    scores = np.zeros((len(queries), 0), np.float32)
    rows = np.zeros((len(queries), 0), np.int64)
    for start in range(0, len(vectors), ROWS):
        block = np.asarray(vectors[start : start + ROWS], np.float32)
        new, numbers = _best(queries @ block.T, top)
        scores = np.concatenate([scores, new], 1)
        rows = np.concatenate([rows, numbers + start], 1)
        # Rows of earlier blocks stand first: a stable sort keeps them there where scores are equal.
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        scores, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
    return scores, rows


def _best(scores: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The best of each row of `[Q, N]`, in ascending order of their places, those of equal scores by place."""
    if top >= scores.shape[1]:
        return scores, np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    limit = -np.partition(-scores, top - 1, axis=1)[:, top - 1]
    places = np.empty((len(scores), top), np.int64)
    for place, row, least in zip(places, scores, limit, strict=True):
        better = np.flatnonzero(row > least)
        place[:] = np.sort(np.concatenate([better, np.flatnonzero(row == least)[: top - len(better)]]))
    return np.take_along_axis(scores, places, 1), places


def open_index(folder: Path, model: str, *, verify: bool = False) -> Index | None:
    """The index of a folder, if there is one of this model.

    Args:
        folder: of the index.
        model: digest of what embeds the photos.
        verify: compare its files with their checksums even if they are larger than `CHECKED_BYTES`.

    Raises:
        UserError: a folder of something else, or an index that is not as it was written.
    """
    found = _described(folder)
    if found is None or found.get("model") != model or found.get("version") not in (1, VERSION):
        return None
    try:
        vectors = _vectors(folder, found["photos"])
        checksums = found.get("checksums", {})
        size = sum((folder / name).stat().st_size for name in checksums)
        other = changed(folder, checksums) if verify or size <= CHECKED_BYTES else ""
    except (OSError, *DAMAGED) as error:
        raise UserError(f"{folder}: found {first_line(error)}, expected an index of photos; {_REMEDY}") from None
    if other:
        raise UserError(f"{folder / other}: found other content, expected it as written; {_REMEDY}")
    if len(vectors) != found["photos"]:
        raise UserError(f"{folder}: found {len(vectors)} rows, expected {found['photos']}; {_REMEDY}")
    return Index(folder, vectors, model)


def _vectors(folder: Path, number: int) -> np.ndarray:
    return np.load(folder / VECTORS, mmap_mode="r") if number else np.zeros((0, 1), np.float16)


def _described(folder: Path) -> dict[str, Any] | None:
    """What ``index.json`` says; None where there is no folder, or an empty one.

    Raises:
        UserError: a folder of something else.
    """
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    if not folder.exists() or (folder.is_dir() and not {*names} - {MARK}):
        return None
    try:
        found = foreign.loaded(folder / INDEX)
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        there = f"{names[0]} and no {INDEX} of an index" if names else "a file"
        raise UserError(
            f"{folder}: found {there}, expected the folder of an index, or a new or empty one; give another --index, "
            "or delete it if it is a damaged index"
        )
    return found


def _is_ours(name: str) -> bool:
    return name == MARK or any(name == own or is_part(Path(name), own) for own in (VECTORS, PHOTOS, INDEX))


def update(
    folder: Path, model: str, entries: Sequence[Entry], embed: Callable[[list[str]], Iterable[np.ndarray | str]],
    tell: Callable[[int, int], None] = lambda done, total: None, *, verify: bool = False,
) -> Updated:  # fmt: skip
    """Makes an index of photos, or brings it up to date: rows of photos that did not change are taken over.

    It is written again and again on the way, so that one that is stopped loses a third of its work at the most.

    Args:
        folder: of the index.
        model: digest of what embeds the photos; an index of another one is made anew.
        entries: the photos as they are now, each once.
        embed: gives for each photo, in order, `[D]` of unit norm, or why it cannot be read.
        tell: hears how many new photos are done, and how many there are.
        verify: as in `open_index`.

    Raises:
        UserError: another process is at work on the index, or what `open_index` refuses.
    """
    with alone(folder) as folder:
        old = open_index(folder, model, verify=verify)
        row_of = {entry: row for row, entry in enumerate(old.entries())} if old else {}
        new = [entry for entry in entries if entry not in row_of]
        taken = [entry for entry in entries if entry in row_of]
        gone, added = len(row_of) - len(taken), 0
        broken: list[tuple[str, str]] = []
        current, total = old, len(new)
        rows: Sequence[int] = [row_of[entry] for entry in taken]
        while new or current is None or len(rows) < len(current.vectors):
            size = max(PART, len(taken) // 2)
            part = _Added(new[:size], embed([entry.photo for entry in new[:size]]))
            new = new[size:]
            whole = itertools.chain(_rows_of(current, rows), part.blocks())
            current = write(folder, model, whole, taken, part.entries)
            taken += part.entries
            rows = range(len(taken))
            added, broken = added + len(part.entries), broken + part.broken
            tell(total - len(new), total)
        return Updated(current, len(entries) - added - len(broken), added, gone, broken)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[Path]:
    """The folder of an index, where links lead to, locked against other processes.

    One in a folder that cannot be written to is searched as it is: nobody writes there.

    Raises:
        Busy: another process is at work on the index.
    """
    folder = resolved(folder)
    if folder.is_dir() and not os.access(folder.parent, os.W_OK):
        yield folder
        return
    with alone_with(folder, "search"):
        recover_locked(folder, _is_ours)
        yield folder


class _Added:
    """New photos that could be read, and their vectors, a block at a time; `entries` and `broken` fill meanwhile."""

    def __init__(self, new: Sequence[Entry], found: Iterable[np.ndarray | str]) -> None:
        self.entries: list[Entry] = []
        self.broken: list[tuple[str, str]] = []
        self._new, self._found = new, found

    def blocks(self) -> Iterator[np.ndarray]:
        rows: list[np.ndarray] = []
        for entry, one in zip(self._new, self._found, strict=True):
            if isinstance(one, str):
                self.broken.append((entry.photo, one))
                continue
            self.entries.append(entry)
            rows.append(np.asarray(one, np.float16))
            if len(rows) == ROWS:
                yield np.stack(rows)
                rows = []
        if rows:
            yield np.stack(rows)


def _rows_of(index: Index | None, rows: Sequence[int]) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), ROWS):
        assert index is not None, "rows are taken of one that is there"
        yield np.asarray(index.vectors[np.asarray(rows[start : start + ROWS])])


def write(
    folder: Path, model: str, blocks: Iterable[np.ndarray], entries: Sequence[Entry], more: Sequence[Entry] = ()
) -> Index:
    """Writes an index beside its folder, and renames it into place; `more` is read when the blocks are through.

    Raises:
        UserError: the folder holds something else.
    """
    _described(folder)
    aside = incomplete(folder)
    with naming(folder):
        begin(aside)
        number = _write(aside, blocks, entries, more)
        checksums = {name: checksum(aside / name) for name in (VECTORS, PHOTOS)}
        index = {"format": FORMAT, "version": VERSION, "model": model, "photos": number, "checksums": checksums}
        write_json(aside / INDEX, index)
        replace(aside, folder, _is_ours)
    return Index(folder, _vectors(folder, number), model)


def _write(aside: Path, blocks: Iterable[np.ndarray], entries: Sequence[Entry], more: Sequence[Entry]) -> int:
    """Writes vectors and photos, and returns how many there are."""
    number, width = 0, 1
    with open(aside / VECTORS, "wb") as file:
        file.write(_header(0, 0))
        for block in blocks:
            file.write(np.ascontiguousarray(block, np.float16).tobytes())
            number, width = number + len(block), block.shape[1]
        file.seek(0)
        file.write(_header(number, width))  # as long as the first one
    # Bytes of a name that are not UTF-8 become what JSON spells them by.
    with open(aside / PHOTOS, "w", encoding="utf-8", errors="backslashreplace") as file:
        for row, entry in enumerate((*entries, *more)):
            file.write(json.dumps({"row": row, **entry._asdict()}, ensure_ascii=False) + "\n")
    return number


def _header(number: int, width: int) -> bytes:
    """The head of a .npy file, always of one length."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        out, {"descr": "<f2", "fortran_order": False, "shape": (number, width)}
    )  # fmt: skip
    return out.getvalue()

"""Embeddings computed elsewhere: rows and their names in files, and which photo of a list each is of."""

import dataclasses
import hashlib
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from data_prep.conversion.options import Options
from data_prep.conversion.plan import Placement, Planned, check_heldout_apart, draw_validation, place_items
from data_prep.import_embeddings.arrays import Stored, arrays_in, sound
from data_prep.sources.folder import read_folder
from data_prep.sources.items import Item
from lit_jax.base import tables
from lit_jax.base.console import say
from lit_jax.errors import UserError
from lit_jax.text.classes import ClassTable, some

FLOATS = ("float16", "bfloat16", "float32", "float64")
KEY, FILES_KEY = "emb", "files"  # taken where a file holds several arrays that would do

_SCAN_BYTES = 1 << 26  # looked at at a time
_SHOWN = 3  # names in a note


def _chosen(path: Path, arrays: Mapping[str, Stored], key: str) -> str:
    """The name of the array of embeddings."""
    listed = ", ".join(f"{name} {array}".strip() for name, array in arrays.items()) or "no array"
    if key:
        if key not in arrays:
            raise UserError(f"{path}: found {listed}, expected {key!r}; correct or drop --key")
        return key
    fit = [name for name, array in arrays.items() if array.dtype in FLOATS and len(array.shape) in (2, 3)]
    if len(arrays) == 1:
        return next(iter(arrays))  # unfit or not: what is wrong with it is said elsewhere
    if KEY in fit or len(fit) == 1:
        return KEY if KEY in fit else fit[0]
    raise UserError(f"{path}: found {listed}, expected one array of floats [N, W] or [N, V, W]; choose with --key")


def _load(path: Path, key: str, array: Stored) -> np.ndarray:
    """`[n, V, W]` floats, mapped where that can be."""
    what = f"{path} {key}".strip()
    if array.dtype == "object":
        raise UserError(f"{what}: found pickled objects, expected floats; save numpy.asarray(x, numpy.float32) instead")
    if array.dtype not in FLOATS:
        raise UserError(f"{what}: found {array}, expected {', '.join(FLOATS[:-1])} or {FLOATS[-1]}; convert it")
    if len(array.shape) not in (2, 3) or 0 in array.shape:
        raise UserError(f"{what}: found shape {list(array.shape)}, expected [N, W] or [N, V, W]; reshape it")
    values = sound(path, array.load)
    return values if values.ndim == 3 else values[:, None]


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """Embeddings of N photos that were computed elsewhere.

    Attributes:
        parts: arrays `[n, V, W]` of floats, N rows in all; files that were read have one type.
        names: N image ids as their maker spelt them, or None.
        title: what to call them.
    """

    parts: tuple[np.ndarray, ...]
    names: tuple[str, ...] | None
    title: str

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def views(self) -> int:
        """Views of each photo, V."""
        return int(self.parts[0].shape[1])

    @property
    def width(self) -> int:
        """Width of an embedding, W."""
        return int(self.parts[0].shape[2])

    def take(self, rows: np.ndarray, views: int) -> np.ndarray:
        """The first `views` views of some rows, `[n]` row numbers in any order: `[n, views, W]`."""
        out = np.empty((len(rows), views, self.width), np.result_type(*(part.dtype for part in self.parts)))
        ends = np.cumsum([len(part) for part in self.parts])
        order = np.argsort(rows)  # so that a file is read from its beginning to its end
        part_of = np.searchsorted(ends, rows[order], side="right")
        for number in np.unique(part_of):
            here = order[part_of == number]
            part = self.parts[number]
            out[here] = part[rows[here] - (ends[number] - len(part)), :views]
        return out

    def scan(self) -> tuple[str, np.ndarray]:
        """SHA-256 over all their bytes, hexadecimal, and a 64-bit hash of each row: `[N]` uint64."""
        whole, each = hashlib.sha256(), []
        for block in self._blocks():
            whole.update(block.data)
            each += [hashlib.blake2b(row.data, digest_size=8).digest() for row in block]
        return whole.hexdigest(), np.frombuffer(b"".join(each), np.uint64)

    def _blocks(self) -> Iterator[np.ndarray]:
        """The rows in order as `[n, bytes]` uint8."""
        step = max(1, _SCAN_BYTES // self.parts[0][0].nbytes)
        for part in self.parts:
            for start in range(0, len(part), step):
                block = np.ascontiguousarray(part[start : start + step])
                yield block.reshape(len(block), -1).view(np.uint8)


def read_embeddings(
    paths: Sequence[Path], *, key: str = "", files_key: str = "", names: Path | None = None, by_order: bool = False
) -> Embeddings:
    """Opens files of embeddings, which follow one another.

    Args:
        paths: ``.npy``, ``.npz`` or ``.safetensors``, at least one.
        key: name of the array in each; by default the only one that can be it, or `KEY`.
        files_key: name of the array of image ids in each ``.npz``; by default the only texts as many as the rows,
            or `FILES_KEY`.
        names: a text file of image ids, one a line, instead.
        by_order: pass over image ids in the files.

    Raises:
        UserError: a file that is missing, damaged or of another kind; no such array; an array that is not
            `[N, W]` or `[N, V, W]` floats; files of different V, W or type; image ids that are not one a row.
    """
    parts: list[np.ndarray] = []
    found: list[list[str] | None] = []
    for path in paths:
        arrays = arrays_in(path)
        chosen = _chosen(path, arrays, key)
        parts.append(_load(path, chosen, arrays[chosen]))
        found.append(None if names or by_order else _names_in(path, arrays, files_key, len(parts[-1])))
        if parts[-1].shape[1:] != parts[0].shape[1:] or parts[-1].dtype != parts[0].dtype:
            here, first = (f"{part.dtype.name} [n, {part.shape[1]}, {part.shape[2]}]" for part in (parts[-1], parts[0]))
            raise UserError(f"{path}: found {here}, expected {first} as in {paths[0]}; give files of one tower")
    title = paths[0].name + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
    return Embeddings(tuple(parts), _all_names(paths, found, names, sum(map(len, parts))), title)


def _all_names(
    paths: Sequence[Path], found: Sequence[list[str] | None], listed: Path | None, rows: int
) -> tuple[str, ...] | None:
    if listed:
        lines = _lines(listed)
        if len(lines) != rows:
            raise UserError(f"{listed}: found {len(lines)} names, expected {rows}, one an embedding; correct the list")
        return tuple(lines)
    without = [path for path, names in zip(paths, found, strict=True) if names is None]
    if len(without) == len(paths):
        return None
    if without:
        raise UserError(f"{without[0]}: found no names in it, expected them as in the others; give --names")
    return tuple(name for names in found for name in names or ())


def _names_in(path: Path, arrays: Mapping[str, Stored], files_key: str, rows: int) -> list[str] | None:
    """The image ids in a file, or None if there are none."""
    texts = [key for key, array in arrays.items() if array.is_text and array.shape == (rows,)]
    pickled = [key for key, array in arrays.items() if array.dtype == "object" and array.shape == (rows,)]
    if files_key and files_key not in texts + pickled:
        listed = ", ".join(f"{name} {array}".strip() for name, array in arrays.items())
        raise UserError(f"{path}: found {listed}, expected texts [{rows}] in {files_key!r}; correct --files-key")
    if files_key in pickled or (pickled and not texts):
        raise UserError(
            f"{path} {files_key or pickled[0]}: found pickled objects, expected texts; save "
            "numpy.array(names, dtype=str) instead, or go by the order of the rows with --by-order"
        )
    if not texts:
        return None
    key = files_key or (FILES_KEY if FILES_KEY in texts else texts[0])
    if key not in (files_key, FILES_KEY) and len(texts) > 1:
        raise UserError(f"{path}: found texts in {', '.join(texts)}, expected one array of names; say --files-key")
    values = sound(path, arrays[key].load)
    return sound(path, lambda: [name.decode() if isinstance(name, bytes) else name for name in values.tolist()])


def _lines(path: Path) -> list[str]:
    lines = tables.lines_of(tables.read_text(path, "names, one a line"))
    return [line.strip() for line in lines if line.strip()]


def read_ids(path: Path) -> list[Item]:
    """The rows of a CSV with the columns ``file`` and, if wanted, ``class`` and ``split``; see `read_folder`.

    Raises:
        UserError: no such file, no column ``file``, a row without a file.
    """
    if not path.is_file():
        raise UserError(f"{path}: found no such file, expected a CSV with a row an embedding; check the path")
    return list(read_folder(path.absolute().parent, path.absolute()))


class Given(NamedTuple):
    """Embeddings and the list of their photos.

    Attributes:
        embeddings: N of them, from `read_embeddings`.
        items: the rows of the list, from `read_ids`; N where embeddings have no names.
        folder: where the list lies: relative names of embeddings count from here, as those of the list do.
        tower: what a store tells of the tower that made them; None where they are of files.
    """

    embeddings: Embeddings
    items: Sequence[Item]
    folder: Path = Path()
    tower: Mapping[str, Any] | None = None


class Rows(NamedTuple):
    """Embeddings that are to be stored.

    Attributes:
        embeddings: of them and, it may be, of others.
        photos: which are stored, with their class and split.
        row_of: image id to row number in `embeddings`.
        notes: what a person should know of it, in lines.
        untrained: see `Placement`.
        about: what the store is to tell of its tower besides name and width, JSON values.
    """

    embeddings: Embeddings
    photos: list[Planned]
    row_of: Mapping[str, int]
    notes: tuple[str, ...]
    untrained: str = ""
    about: Mapping[str, Any] = MappingProxyType({})


def placed_rows(given: Given, table: ClassTable, options: Options) -> Rows:
    """Every photo that has an embedding and a class; raises what `match_rows` and `place_embedded` refuse."""
    row_of = match_rows(given)
    photos, placed = place_embedded(given.items, row_of, table, options)
    return Rows(given.embeddings, photos, row_of, placed.notes, placed.untrained)


def match_rows(given: Given) -> dict[str, int]:
    """The row number of each image id that has an embedding: by name where embeddings have names, else by order.

    What one side lacks is told in a line.

    Raises:
        UserError: other numbers, a name that comes twice, or nothing in common.
    """
    embeddings = given.embeddings
    ids = [item.image_id for item in given.items]
    if embeddings.names is None:
        if len(ids) != len(embeddings):
            raise UserError(
                f"ids: found {len(ids)} rows, expected {len(embeddings)}, one an embedding of {embeddings.title}; "
                "correct the list, or name the embeddings with --names"
            )
        names = ids
    else:
        root = str(given.folder.absolute())
        names = _spelt_as(ids, [_as_id(name, root) for name in embeddings.names])
    row_of = {name: row for row, name in enumerate(names)}
    if len(row_of) != len(names):
        twice = next(name for row, name in enumerate(names) if row_of[name] != row)
        what, remedy = (
            ("list of photos", "delete the row and its embedding")
            if embeddings.names is None
            else ("names of embeddings", "drop one, or choose the names with --files-key or --names")
        )
        more = len(names) - len(row_of)
        raise UserError(f"{what}: found {twice!r} twice, expected each once ({more} too many); {remedy}")
    listed = set(ids)
    if not listed & row_of.keys():
        raise UserError(
            f"names of embeddings: found none of the {len(ids)} rows of the list ({ids[0]}) among them "
            f"({names[0]}), expected the same spelling; correct one, or go by the order of the rows with "
            "--by-order"
        )
    note("embeddings left out, for they have no row in the list", [name for name in names if name not in listed])
    note("rows of the list left out, for they have no embedding", [name for name in ids if name not in row_of])
    return row_of


def _spelt_as(ids: Sequence[str], names: Sequence[str]) -> list[str]:
    """The names; those that the list spells with accents in another form, as other systems do, as it spells them."""
    known = set(ids)
    composed = {unicodedata.normalize("NFC", one): one for one in ids if not one.isascii()}
    return [
        name if name in known or name.isascii() else composed.get(unicodedata.normalize("NFC", name), name)
        for name in names
    ]


def _as_id(name: str, root: str) -> str:
    """A name as `read_folder` would write it."""
    path = os.path.join(root, name.strip().replace("\\", "/"))
    return Path(os.path.relpath(path, root)).as_posix()


def place_embedded(
    items: Sequence[Item], row_of: Mapping[str, int], table: ClassTable, options: Options
) -> tuple[list[Planned], Placement]:
    """All photos with an embedding, their class and split, and what `place_items` found; raises what it refuses."""
    placed = place_items(items, table, options)
    note("rows of the list left out, for they name no class", [skip.image_id for skip in placed.skips])
    placed = placed._replace(items=[row for row in placed.items if row[0].image_id in row_of])
    photos = [Planned(item.path, item.image_id, class_id, split, 0) for item, class_id, split in placed.items]
    check_heldout_apart(table, photos)
    empty = placed.present - {photo.class_id for photo in photos}
    note("classes without an embedding", [table.names[table.index_of(class_id)] for class_id in sorted(empty)])
    if placed.drawn:
        photos = draw_validation(photos, options.validation_fraction, options.seed)
    return photos, placed


def note_twins(photos: Sequence[Planned], rows: np.ndarray, hashes: np.ndarray) -> None:
    """Tells which photos of different splits have the same embedding: an evaluation that saw them is too kind."""
    _, group, size = np.unique(hashes[rows], return_inverse=True, return_counts=True)
    members: dict[int, list[Planned]] = defaultdict(list)
    for i in np.flatnonzero(size[group] > 1).tolist():
        members[int(group[i])].append(photos[i])
    twins = [photo for same in members.values() if len({p.split for p in same}) > 1 for photo in same]
    note(
        "equal embeddings in different splits, likely of the same photo, and all stored",
        sorted(photo.image_id for photo in twins),
    )


def note(what: str, names: Sequence[str]) -> None:
    """Tells of some things in a line: what of them, how many and the first ones; nothing if there are none."""
    if names:
        say(f"{what}: {len(names)} ({some(names, _SHOWN)})", flush=True)

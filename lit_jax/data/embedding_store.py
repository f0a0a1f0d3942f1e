"""The format of the embedding store, written and read here: the locked tower's features of every photo, on disk.

A *store* is a folder::

    train-00000-of-00003.features.npy   [n, V, W] float16, float32, or bfloat16 as its uint16 bits; row i, view v
    train-00000-of-00003.class_id.npy   [n] int64, ids of the class table
    train-00000-of-00003.image_id.txt   n lines, a JSON string each
    classes.csv, tokenizer.model        as in the record set, so that a run needs nothing else
    manifest.json                       shapes, checksums of every shard, the tower, its preprocessing, the data

Rows stand in the order of the record set. View 0 is the photo as evaluation sees it; others are crops as training
draws them. Features are those of the tower alone: not projected, not normalised. The arrays are plain ``.npy``
files: any language can map them into memory.

Nothing here knows JAX or TensorFlow.
"""

import dataclasses
import functools
import itertools
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from lit_jax.base import foreign
from lit_jax.base.files import (
    digest,
    file_digest,
    incomplete,
    is_part,
    naming,
    read_sealed,
    write_json,
    write_sealed,
    written_aside,
)
from lit_jax.base.folders import MARK, clear, recover_locked, replace
from lit_jax.data.dataset_folder import MANIFEST, DatasetFolder, Kind, check_unchanged, is_of, read
from lit_jax.errors import DAMAGED, UserError, first_line
from lit_jax.text.tokenizers import load_tokenizer

VERSION = 1  # of the format; a reader refuses a newer one
KIND = Kind(
    format="lit_jax store",
    version=VERSION,
    word="store",
    noun="store",
    one="an embedding store",
    made_by="python -m lit_jax.embed or python -m data_prep.embeddings",
    finish="run the lit_jax.embed or data_prep.embeddings command that began it again, to finish it",
    make=", or set data.store",
    check="check the path",
)
PLAN = "plan.json"
CLASS_TABLE, TOKENIZER = "classes.csv", "tokenizer.model"
DTYPES: dict[str, Any] = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32}
GIVEN = "given"  # kind of tower of embeddings that were computed elsewhere
_PARTS = ("features.npy", "class_id.npy", "image_id.txt")
_OURS = re.compile(
    rf"(.+-\d{{5,}}-of-\d{{5,}}\.({'|'.join(map(re.escape, _PARTS))}|json)|{PLAN}|{MANIFEST}|{CLASS_TABLE}|{TOKENIZER})"
    r"(\.\d+\.part)?"
)


@dataclasses.dataclass(frozen=True)
class StoreShard:
    """One shard, as the manifest lists it.

    Attributes:
        name: of its files, without their endings.
        examples: rows.
        sha256: of each of its files, hexadecimal, by ending.
    """

    name: str
    examples: int
    sha256: Mapping[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Store(DatasetFolder[StoreShard]):
    """A complete store, as `open_store` found it; it answers the same questions as a `RecordSet`.

    Attributes:
        views: V of each split.
        width: W.
        dtype: of the features: float16, bfloat16 or float32.
        record_lengths: records of each shard of the record set, by split; they decide the order of an epoch.
        tower: what made the features: ``kind``, ``digest``, and the options of its shape and preprocessing.
        records: fingerprint of the record set; of given embeddings, a digest over their ids and classes.
    """

    views: Mapping[str, int]
    width: int
    dtype: str
    record_lengths: Mapping[str, tuple[int, ...]]
    tower: Mapping[str, Any]
    records: str

    def nbytes(self, split: str) -> int:
        """Bytes of a split's features."""
        return self.examples(split) * self.views[split] * self.width * np.dtype(DTYPES[self.dtype]).itemsize


def shard_name(split: str, index: int, count: int) -> str:
    """Name of the files of shard `index` of `count`, without their endings."""
    return f"{split}-{index:05d}-of-{count:05d}"


def shard_bounds(examples: int, shard_rows: int) -> list[tuple[int, int]]:
    """First row and row behind the last one of each shard: as many as needed, of almost equal length."""
    count = max(1, math.ceil(examples / shard_rows))
    cuts = [examples * i // count for i in range(count + 1)]
    return list(itertools.pairwise(cuts))


def write_shard(
    directory: Path, name: str, features: np.ndarray, class_ids: np.ndarray, image_ids: Sequence[str], *, dtype: str
) -> StoreShard:
    """Writes one shard; each of its files is whole or absent, and the one that says it is complete comes last.

    Args:
        directory: where to.
        name: from `shard_name`.
        features: `[n, V, W]` of any float type.
        class_ids: `[n]` integers.
        image_ids: n texts.
        dtype: to store the features in.

    Raises:
        UserError: a feature that is not finite, or not in the range of `dtype`; the photo is named.
    """
    with np.errstate(over="ignore"):
        stored = np.asarray(features).astype(DTYPES[dtype])
    bad = ~np.isfinite(stored.astype(np.float32)).all(axis=(1, 2))
    if bad.any():
        row = int(np.argmax(bad))
        value = np.asarray(features[row], np.float64)  # what float32 cannot hold is shown as it is
        worst = value.reshape(-1)[np.argmax(~np.isfinite(stored[row].astype(np.float32)))]
        raise UserError(
            f"embedding of {image_ids[row]}: found {worst:g}, expected a finite number within {dtype}; "
            + ("use --dtype=bfloat16 or float32" if np.isfinite(worst) else "look at the tower and the photo")
        )
    digests = {}
    for part, write in {
        "features.npy": lambda file: np.save(file, _bits(stored)),
        "class_id.npy": lambda file: np.save(file, np.asarray(class_ids, np.int64)),
        "image_id.txt": lambda file: file.write("".join(f"{json.dumps(i)}\n" for i in image_ids).encode()),
    }.items():
        path = directory / f"{name}.{part}"
        with written_aside(path, sync=True) as aside, open(aside, "wb") as file:
            write(file)
        digests[part] = file_digest(path)
    shard = StoreShard(name, len(class_ids), digests)
    write_sealed(directory / f"{name}.json", dataclasses.asdict(shard))
    return shard


def finished_shard(directory: Path, name: str) -> StoreShard | None:
    """The shard if an earlier run has written all of it, else None."""
    try:
        shard = StoreShard(**read_sealed(directory / f"{name}.json"))
    except (OSError, *DAMAGED):
        return None
    return shard if all((directory / f"{name}.{part}").is_file() for part in _PARTS) else None


def refuse_foreign(directory: Path) -> None:
    """Raises `UserError` if there is something of that name, neither a complete store nor an empty folder."""
    is_empty = directory.is_dir() and not any(directory.iterdir())
    if directory.exists() and not is_empty and not is_store(directory):
        raise UserError(f"{directory}: found a folder that is no store, expected none; give another --out")


def is_ours(name: str) -> bool:
    """Whether a name is one that a store has, finished or not."""
    return bool(_OURS.fullmatch(name)) or name == MARK


def begin(directory: Path, plan: Mapping[str, Any], *, restart: bool = False) -> Path:
    """The folder to write shards into: a new one, or that of an earlier run with the same plan.

    Args:
        directory: of the store to be.
        plan: all that decides its bytes, JSON values.
        restart: throw away what an earlier run has written, and a complete store too.

    Raises:
        UserError: a complete store, another folder of that name, or an unfinished one with another plan.
    """
    aside = incomplete(directory)
    recover_locked(directory, is_ours, whole=MANIFEST)
    refuse_foreign(directory)
    if is_store(directory) and not restart:
        raise UserError(f"{directory}: found a complete store, expected none; add --restart to make it anew")
    aside.mkdir(parents=True, exist_ok=True)
    names = sorted(os.listdir(aside))
    other = next((name for name in names if not is_ours(name)), "")
    if other and PLAN not in names:
        raise UserError(f"{aside}: found {other} and no {PLAN}, expected what an embedding wrote; move it away")
    if restart:  # the folder itself is locked by whoever works in it
        clear(aside, is_ours, last=PLAN)
    path = aside / PLAN
    plan = json.loads(json.dumps(dict(plan)))
    is_there = path.exists()
    before = foreign.read_json(path, "what an unfinished store is made of", "add --restart", dict) if is_there else plan
    if before != plan:
        if len(before.keys() ^ plan.keys()) > len(before.keys() & plan.keys()):
            raise UserError(
                f"{aside}: found an unfinished store that another command began, expected one of this command; give "
                "another folder, or add --restart"
            )
        changed = [_shown(key, before.get(key)) for key in sorted({*before, *plan}) if before.get(key) != plan.get(key)]
        raise UserError(
            f"{aside}: found an unfinished store with another {', '.join(changed)}, expected the same; use the same "
            "options to finish it, or add --restart"
        )
    write_json(path, plan)
    return aside


def _shown(key: str, value: Any) -> str:
    """What an unfinished store was begun with, where it is short enough to tell."""
    return f"{key} ({value})" if isinstance(value, int) or len(str(value)) < 20 else key


def finish(made: Store, directory: Path) -> Store:
    """Writes the manifest and gives the folder its name.

    Args:
        made: the store as it lies in the folder of `begin`. Its class table and tokenizer may lie elsewhere, and are
            copied; its fingerprint is still to be found.
        directory: of the store to be.

    Returns:
        The store, opened.
    """
    aside, class_table, tokenizer = made.directory, made.class_table, made.tokenizer
    clear(aside, lambda name: is_ours(name) and is_part(Path(name)))  # of processes that were killed
    if class_table != aside / CLASS_TABLE:
        with naming(aside / CLASS_TABLE):
            shutil.copyfile(class_table, aside / CLASS_TABLE)
    if tokenizer is not None and tokenizer != aside / TOKENIZER:
        (aside / TOKENIZER).write_bytes(load_tokenizer(tokenizer).model_bytes)  # it may be a folder
    has_tokenizer = (aside / TOKENIZER).exists()
    manifest = {
        "format": KIND.format,
        "version": VERSION,
        "splits": {split: [dataclasses.asdict(shard) for shard in shards] for split, shards in made.splits.items()},
        "views": dict(made.views),
        "width": made.width,
        "dtype": made.dtype,
        "record_lengths": {split: list(lengths) for split, lengths in made.record_lengths.items()},
        "tower": dict(made.tower),
        "class_table": {"file": CLASS_TABLE, "sha256": file_digest(aside / CLASS_TABLE)},
        "tokenizer": {"file": TOKENIZER, "sha256": file_digest(aside / TOKENIZER)} if has_tokenizer else None,
        "templates": list(made.templates),
        "drop_repeats": made.drop_repeats,
        "class_ids": {split: sorted(made.class_ids[split]) for split in made.splits},
        "records": made.records,
    }
    write_json(aside / MANIFEST, {**manifest, "fingerprint": digest(manifest)})
    replace(aside, directory, is_ours)
    # Not before: if this process is killed above, the next one finds every shard finished and comes here again.
    opened = open_store(directory)
    clear_progress(opened)
    return opened


def clear_progress(store: Store) -> None:
    """Deletes what says how far an embedding has come, which a kill may leave in a complete store."""
    for shards in store.splits.values():
        for shard in shards:
            (store.directory / f"{shard.name}.json").unlink(missing_ok=True)
    (store.directory / PLAN).unlink(missing_ok=True)


def is_store(directory: Path) -> bool:
    """True if the folder holds a manifest of this format, whatever its version."""
    return is_of(directory, KIND)


def open_store(directory: str | Path) -> Store:
    """Opens a complete store and checks that its files are all there and of the right size.

    Their content is checked when they are read, see `Rows` and `verify`.

    Raises:
        UserError: no such folder, a half-written store, a folder of something else, a newer format, a changed
            manifest, a file that is missing or too short.
    """
    folder = Path(os.path.abspath(directory))
    manifest = read(folder, KIND)
    try:
        fingerprint = manifest.pop("fingerprint")
        sound = fingerprint == digest(manifest)
        tokenizer = manifest["tokenizer"]
        opened = Store(
            directory=folder,
            splits={split: tuple(StoreShard(**s) for s in shards) for split, shards in manifest["splits"].items()},
            views=manifest["views"],
            width=manifest["width"],
            dtype=manifest["dtype"],
            record_lengths={split: tuple(lengths) for split, lengths in manifest["record_lengths"].items()},
            tower=manifest["tower"],
            class_table=folder / manifest["class_table"]["file"],
            tokenizer=folder / tokenizer["file"] if tokenizer else None,
            templates=tuple(manifest["templates"]),
            drop_repeats=manifest["drop_repeats"],
            class_ids={split: tuple(ids) for split, ids in manifest["class_ids"].items()},
            records=manifest["records"],
            fingerprint=fingerprint,
        )
    except (KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise UserError(
            f"{folder / MANIFEST}: found a changed manifest, expected it as written; make it anew with --restart"
        )
    _check_files(opened, manifest)
    return opened


def verify(store: Store) -> int:
    """Reads every file of the store and compares it with its checksum.

    Returns:
        How many files were read.

    Raises:
        UserError: naming the first file that differs.
    """
    checked = 0
    for split, shards in store.splits.items():
        for number in range(len(shards)):
            verify_shard(store, split, number, file_digest)
            checked += len(_PARTS)
    return checked


def verify_shard(store: Store, split: str, number: int, digest_of: Callable[[Path], str]) -> None:
    """Compares the files of one shard with their checksums, which `digest_of` finds.

    Raises:
        UserError: naming the file that differs.
    """
    shard = store.shards(split)[number]
    for part, expected in shard.sha256.items():
        path = store.directory / f"{shard.name}.{part}"
        found = digest_of(path)
        if found != expected:
            raise UserError(
                f"{path}: found checksum {found[:12]}, expected {expected[:12]}; the file was changed or damaged: "
                "copy it again, or make the store anew with --restart"
            )


class Rows:
    """Features of a split, mapped into memory. A shard is compared with its checksum when it is first read.

    Attributes:
        class_ids: `[N]` int64.
    """

    def __init__(self, store: Store, split: str):
        self._store, self._split = store, split
        self._shards = [
            np.load(store.directory / f"{shard.name}.features.npy", mmap_mode="r") for shard in store.shards(split)
        ]
        self._ends = np.cumsum([len(shard) for shard in self._shards])
        self._verified: set[int] = set()

    def __len__(self) -> int:
        return int(self._ends[-1])

    @functools.cached_property
    def class_ids(self) -> np.ndarray:
        """`[N]` int64; reads, and so verifies, every shard."""
        for number in range(len(self._shards)):
            self._verify(number)
        paths = [self._store.directory / f"{s.name}.class_id.npy" for s in self._store.shards(self._split)]
        return np.concatenate([np.load(path) for path in paths])

    def take(self, rows: np.ndarray, views: np.ndarray | int = 0) -> np.ndarray:
        """Features of some rows: `[n]` row numbers and `[n]` views to `[n, W]`, in the store's dtype."""
        views = np.broadcast_to(views, rows.shape)
        shard_of = np.searchsorted(self._ends, rows, side="right")
        out = np.empty((len(rows), self._store.width), self._shards[0].dtype)
        for number in np.unique(shard_of):
            self._verify(int(number))
            here = np.flatnonzero(shard_of == number)
            shard = self._shards[number]
            out[here] = shard[rows[here] - (self._ends[number] - len(shard)), views[here]]
        return _values(out, self._store.dtype)

    def whole(self) -> np.ndarray:
        """All features, in memory: `[N, V, W]`, in the store's dtype."""
        out = np.empty((len(self), *self._shards[0].shape[1:]), self._shards[0].dtype)
        for number, shard in enumerate(self._shards):
            self._verify(number)
            out[self._ends[number] - len(shard) : self._ends[number]] = shard
        return _values(out, self._store.dtype)

    def _verify(self, number: int) -> None:
        if number not in self._verified:
            verify_shard(self._store, self._split, number, _digest_once)
            self._verified.add(number)


def _digest_once(path: Path) -> str:
    """As `file_digest`; a file that has not changed since this process read it is not read again."""
    found = path.stat()
    return _digest_of(path, found.st_ino, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _digest_of(path: Path, *_: int) -> str:
    return file_digest(path)


def image_ids(store: Store, split: str) -> list[str]:
    """Ids of the photos of a split, in the order of the rows."""
    return [image_id for shard in store.shards(split) for image_id in _ids_in(store.directory, shard.name)]


def _ids_in(directory: Path, name: str) -> list[str]:
    path = directory / f"{name}.image_id.txt"
    try:
        return [foreign.parsed(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: found {first_line(error)}, expected ids of photos; copy it again") from None


def _bits(values: np.ndarray) -> np.ndarray:
    """NumPy's file format does not know bfloat16; its bits travel as uint16."""
    return values.view(np.uint16) if values.dtype == ml_dtypes.bfloat16 else values


def _values(bits: np.ndarray, dtype: str) -> np.ndarray:
    return bits.view(ml_dtypes.bfloat16) if dtype == "bfloat16" else bits


def _check_files(store: Store, manifest: Mapping[str, Any]) -> None:
    for split, shards in store.splits.items():
        for shard in shards:
            path = store.directory / f"{shard.name}.features.npy"
            shape = (shard.examples, store.views[split], store.width)
            if not path.is_file():
                raise UserError(f"{path}: found no file, expected an array of {shape}; copy it again")
            try:
                found = np.load(path, mmap_mode="r").shape
            except (OSError, *DAMAGED) as error:
                raise UserError(
                    f"{path}: found {first_line(error)}, expected an array of {shape}; copy it again"
                ) from None
            if found != shape:
                raise UserError(f"{path}: found an array of {found}, expected {shape}; copy it again")
    check_unchanged(store.directory, (manifest["class_table"], manifest["tokenizer"]), "copy it again")

"""Photos in webdataset shards: tars whose members of one key belong together. Nothing is unpacked.

The format is webdataset's: ``000012.jpg`` and ``000012.txt`` are the photo and the caption of key ``000012``, where
the key is the path up to the first dot of its last part, and the ending is what follows, in small letters.
"""

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from data_prep.sources import photo_places
from data_prep.sources.find_class import NONE, ClassFinder
from data_prep.sources.items import HELDOUT, SPLIT_NAMES, TRAIN, VALIDATION, Item, Request, Skip, Source
from lit_jax.base.files import INCOMPLETE
from lit_jax.base.processes import cores, each
from lit_jax.data.records import CLASS_TABLE
from lit_jax.errors import UserError
from lit_jax.text.classes import ClassTable, read_class_table

LISTING = "webdataset.json"  # what `data_prep.to_webdataset` wrote it from; then each sub-folder is a split

_PHOTO = ("jpg", "jpeg", "png", "webp")  # of several photos of a key the first in this order
_TEXT = ("cls", "json", "txt")
_IDS = ("class_id", "label", "class", "category_id")
_NAMES = ("class", "name", "label", "species")
_CAPTIONS = ("caption", "text")
_KEY = re.compile(r"(?:\./)?((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
_COMPRESSED = re.compile(r".*\.(tar\.\w+|tgz|tbz2?|txz)", re.IGNORECASE | re.DOTALL)
_TARS = 8  # that a process of its own pays for


class Part(NamedTuple):
    """A tar and the split of its photos, None where there are no splits; `name` is its path in the folder."""

    path: Path
    name: str
    split: str | None


class Sample(NamedTuple):
    """What a tar holds of a key: offset and size of photos by ending, and its texts by ending."""

    photos: dict[str, tuple[int, int]]
    texts: dict[str, str]


def read_webdataset(request: Request) -> Source:
    """Photos of tars, ``000000.tar`` and so on, in the folder itself or in sub-folders.

    Sub-folders named like splits (train, validation, val, valid, test, heldout) are the splits, and so is every
    sub-folder that `data_prep.to_webdataset` wrote; `Request.subsets` chooses among sub-folders.

    The class of a photo is, in this order: what ``cls`` says, an id of the class table or else a name; an id or a
    name in ``json`` (``class_id``, ``label``, ``class``, ``category_id``; ``class``, ``name``, ``label``,
    ``species``); the class that the caption speaks of, in ``json`` (``caption``, ``text``) or ``txt``, as
    `ClassFinder` finds it. Ids of photos are ``<tar>/<key>.<ending>``, or those that our own ``json`` has.

    Without a class table in the request it is ``classes.csv`` beside the tars. Sixteen tars and more are read in
    several processes, so that a script must call this under ``if __name__ == "__main__":``.

    Raises:
        UserError: no folder, no tar in it, tars in it and in sub-folders too, a tar that is compressed or cut short,
            a class id that the table lacks. What concerns one photo only is a `Skip`.
    """
    folder = request.folder
    beside, tars = folder / CLASS_TABLE, find_tars(folder, request.subsets)
    if request.classes is None and not beside.is_file():
        raise UserError(
            f"--classes: found none, nor {beside}, expected a class table, CSV or JSON, to know captions and ids by; "
            "give it"
        )
    table = read_class_table(request.classes or beside)
    return Source(_items(tars, table, request), table)


def find_tars(folder: Path, subsets: Sequence[str] = ()) -> list[Part]:
    """The tars of a folder by name, or of its sub-folders; see `read_webdataset`.

    Raises:
        UserError: there is none, they are compressed, not whole yet, or lie both here and in sub-folders.
    """
    here = _tars_in(folder)
    below = {path.name: tars for path in sorted(folder.glob("*/")) if (tars := _tars_in(path))}
    for name in subsets:
        if name not in below:
            raise UserError(
                f"--subsets: found {name!r}, expected sub-folders with tars ({', '.join(below) or 'none'}) of "
                f"{folder}; correct it"
            )
    if here and below and not subsets:
        raise UserError(
            f"{folder}: found tars here and in {', '.join(below)}, expected one of both; choose with --subsets or move "
            "them apart"
        )
    chosen = {name: below[name] for name in subsets or below}
    if not here and not chosen:
        raise UserError(f"{folder}: found no tar here or in a sub-folder, expected such as 000000.tar; check the path")
    for name in chosen:
        if name.endswith(INCOMPLETE):
            raise UserError(f"{folder / name}: found half-written shards, expected whole ones; finish or delete them")
    splits = {TRAIN, VALIDATION, HELDOUT, *SPLIT_NAMES}
    by_split = set(chosen) <= splits or (folder / LISTING).is_file()
    parts = [Part(path, f"{name}/{path.name}", name if by_split else None) for name, t in chosen.items() for path in t]
    return parts or [Part(path, path.name, None) for path in here]


def _tars_in(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    for path in files:
        if _COMPRESSED.fullmatch(path.name):
            raise UserError(_compressed(path))
    return [path for path in files if path.suffix.lower() == ".tar"]


def _compressed(path: Path) -> str:
    return f"{path}: found a compressed tar, expected a plain one, since photos are read where they lie; gunzip it"


def _items(parts: Sequence[Part], table: ClassTable, request: Request) -> Iterator[Item | Skip]:
    finder = ClassFinder(table, request.templates, drop_repeats=request.drop_repeats)
    ids = frozenset(table.ids)
    indices = each(read_tar, [part.path for part in parts], min(cores(), len(parts) // _TARS))
    for part, samples in zip(parts, indices, strict=True):
        for key, sample in samples.items():
            yield _item(part, key, sample, finder, ids)


def read_tar(path: Path) -> dict[str, Sample]:
    """The samples of a tar by key. Of members of one name the last one counts, as where a tar is unpacked.

    Raises:
        UserError: it is compressed, damaged or cut short.
    """
    with open(path, "rb") as file:
        if file.read(2) == b"\x1f\x8b":
            raise UserError(_compressed(path))
        file.seek(0)
        try:
            return _samples(file)
        except tarfile.TarError as error:
            raise UserError(
                f"{path}: found a damaged or cut tar ({error}), expected a whole one; copy it again"
            ) from error


def _samples(file: BinaryIO) -> dict[str, Sample]:
    samples: dict[str, Sample] = {}
    with tarfile.open(fileobj=file, mode="r:", errorlevel=0) as tar:
        for member in tar:
            match = _KEY.fullmatch(member.name)
            if not match or not member.isreg():
                continue
            key, ending = match[1], match[2].lower()
            sample = samples.setdefault(key, Sample({}, {}))
            if ending in _PHOTO:
                sample.photos[ending] = member.offset_data, member.size
            elif ending in _TEXT:
                file.seek(member.offset_data)
                sample.texts[ending] = file.read(member.size).decode("utf-8", "replace")
        file.seek(tar.offset)
        # tarfile takes a broken header in the middle, and the end of the file, for the end of the tar.
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"no mark of its end at byte {tar.offset}")
    return samples


def _item(part: Part, key: str, sample: Sample, finder: ClassFinder, ids: frozenset[int]) -> Item | Skip:
    ending = next((ending for ending in _PHOTO if ending in sample.photos), "")
    image_id = _sound(f"{part.name}/{key}.{ending}" if ending else f"{part.name}/{key}")
    if not ending:
        return Skip(image_id, "no photo for its key")
    try:
        facts = json.loads(sample.texts.get("json", "{}"))
    except ValueError:
        return Skip(image_id, "json that cannot be read")
    facts = facts if isinstance(facts, dict) else {}
    if isinstance(facts.get("image_id"), str) and {"class_id", "captions"} <= facts.keys():  # our own
        image_id = _sound(facts["image_id"])
    found = _class(sample.texts, facts, finder)
    if isinstance(found, Skip):
        return found._replace(image_id=image_id)
    if isinstance(found, int) and found not in ids:
        raise UserError(
            f"{part.path} key {key}: found class id {found}, expected one of the {len(ids)} ids from {min(ids)} to "
            f"{max(ids)} in the class table; give the class table that the tars were made with"
        )
    return Item(photo_places.span(part.path, *sample.photos[ending]), found, part.split, image_id)


def _class(texts: dict[str, str], facts: dict[str, Any], finder: ClassFinder) -> int | str | Skip:
    """The class id, or a name of the class, or why there is none; the id of a `Skip` is still to come."""
    if label := texts.get("cls", "").strip():
        class_id = _as_id(label)
        return label if class_id is None else class_id
    for value in (facts.get(name) for name in _IDS):
        if (class_id := _as_id(value)) is not None:
            return class_id
    for value in (facts.get(name) for name in _NAMES):
        if isinstance(value, str) and finder.knows(value.strip()):
            return value.strip()
    captions = [value for name in _CAPTIONS if isinstance(value := facts.get(name), str)]
    captions = [text for text in (*captions, texts.get("txt", "")) if text.strip()]
    if not captions:
        return Skip("", "no class or caption for its key")
    reasons = []
    for text in captions:
        found = finder.of_caption(text)
        if isinstance(found, int):
            return found
        reasons.append(Skip("", found, " ".join(text.split())))
    return next((skip for skip in reasons if skip.reason != NONE), reasons[0])


def _sound(text: str) -> str:
    """Bytes that are not UTF-8, which Python keeps as lone surrogates, spelt out: a record holds UTF-8 only."""
    return text.encode("utf-8", "backslashreplace").decode()


def _as_id(value: Any) -> int | None:
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None

"""Photos in webdataset shards: tars whose members of one key belong together. Nothing is unpacked.

The format is webdataset's: ``000012.jpg`` and ``000012.txt`` are the photo and the caption of key ``000012``, where
the key is the path up to the first dot of its last part, and the ending is what follows, in small letters. A photo
whose name has further dots, such as ``IMG_2023.05.01.jpg``, has all in front of the last one for its key, unless there
is a photo of the shorter key.
"""

import functools
import itertools
import os
import re
import tarfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from data_prep.sources import photo_places
from data_prep.sources.find_class import NONE, ClassFinder
from data_prep.sources.items import HELDOUT, SPLIT_NAMES, TRAIN, VALIDATION, Item, Request, Skip, Source
from lit_jax.base import foreign
from lit_jax.base.files import INCOMPLETE
from lit_jax.base.processes import cores, each
from lit_jax.data.records import CLASS_TABLE
from lit_jax.errors import DAMAGED, UserError, first_line
from lit_jax.text.classes import ClassTable, read_class_table

LISTING = "webdataset.json"  # what `data_prep.to_webdataset` wrote it from; then each sub-folder is a split

_PHOTO = ("jpg", "jpeg", "png", "webp")  # of several formats of a key the first in this order
_TEXT = ("cls", "json", "txt")
_IDS = ("class_id", "label", "class", "category_id")
_NAMES = ("class", "name", "label", "species")
_CAPTIONS = ("caption", "text")
_NAME = re.compile(r"(?:\./)?((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
_FIRST = re.compile(r"(?:.*/)?[^./]*", re.DOTALL)
_LONGEST = 1 << 24  # bytes of a text
_COMPRESSED = re.compile(r".*\.(tar\.\w+|tgz|tbz2?|txz)", re.IGNORECASE | re.DOTALL)
_TARS = 8  # that a process of its own pays for


class Part(NamedTuple):
    """A tar and the split of its photos, None where there are no splits; `name` is its path in the folder."""

    path: Path
    name: str
    split: str | None


class Member(NamedTuple):
    """A file of a tar: its key and ending as webdataset has them, and where its bytes are."""

    key: str
    ending: str
    offset: int
    size: int

    @property
    def dotted(self) -> str:
        """The key of a photo in whose name are further dots; empty for any other file."""
        middle, dot, last = self.ending.rpartition(".")
        return f"{self.key}.{middle}" if dot and last.lower() in _PHOTO else ""


class Sample(NamedTuple):
    """What a tar holds of a key: offset and size of photos by ending, its texts by ending, endings of other photos."""

    photos: dict[str, tuple[int, int]]
    texts: dict[str, str]
    others: list[str]


def read_webdataset(request: Request) -> Source:
    """Photos of tars, ``000000.tar`` and so on, in the folder itself or in sub-folders.

    Sub-folders named like splits (train, validation, val, valid, test, heldout) are the splits, and so is every
    sub-folder that `data_prep.to_webdataset` wrote; `Request.subsets` chooses among sub-folders.

    The class of a photo is, in this order: what ``cls`` says, an id of the class table or else a name; an id or a
    name in ``json`` (``class_id``, ``label``, ``class``, ``category_id``; ``class``, ``name``, ``label``,
    ``species``); the class that the caption speaks of, in ``json`` (``caption``, ``text``) or ``txt``, as
    `ClassFinder` finds it, or any other ``.txt``, such as BioCLIP's ``sci.txt`` and ``com.txt``.

    Ids of photos are ``<tar>/<key>.<ending>``, or those that our own ``json`` has.

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
            yield from _item(part, key, sample, finder, ids)


def read_tar(path: Path) -> dict[str, Sample]:
    """The samples of a tar by key; of a key that comes again with a photo the further ones are ``key~2`` and so on.

    Raises:
        UserError: it is compressed, damaged or cut short.
    """
    with open(path, "rb") as file:
        if file.read(2) == b"\x1f\x8b":
            raise UserError(_compressed(path))
        try:
            members = _members(file)
        except (tarfile.TarError, *DAMAGED) as error:
            raise UserError(
                f"{path}: found a damaged or cut tar ({first_line(error)}), expected a whole one; copy it again"
            ) from error
        return _samples(members, functools.partial(_text_at, file))


def _members(file: BinaryIO) -> list[Member]:
    """The files of a tar that may be photos or texts, in its order."""
    size, found = file.seek(0, os.SEEK_END), []
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:", errorlevel=0) as tar:
        for member in tar:
            if not 0 <= member.size <= size - member.offset_data:
                raise tarfile.ReadError(f"{member.name!r} of {member.size} bytes at byte {member.offset}")
            match = _NAME.fullmatch(member.name)
            if match and member.isreg():
                found.append(Member(match[1], match[2], member.offset_data, member.size))
        file.seek(tar.offset)
        # tarfile takes a broken header in the middle, and the end of the file, for the end of the tar.
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"no mark of its end at byte {tar.offset}")
    return found


def _text_at(file: BinaryIO, member: Member) -> str:
    file.seek(member.offset)
    return file.read(min(member.size, _LONGEST)).decode("utf-8", "replace")


def _samples(members: Sequence[Member], text_of: Callable[[Member], str]) -> dict[str, Sample]:
    """Photos and texts by key."""
    plain = {member.key for member in members if member.ending.lower() in _PHOTO}
    keys = plain | {member.dotted for member in members if member.dotted and member.key not in plain}
    every: dict[str, list[Sample]] = {}
    for member in members:
        key, ending = _placed(member, keys)
        own = every.setdefault(key, [Sample({}, {}, [])])
        if ending in own[-1].photos or ending in own[-1].texts:  # the key comes again
            own.append(Sample({}, {}, []))
        if ending in _PHOTO:
            own[-1].photos[ending] = member.offset, member.size
        elif ending in _TEXT or ending.endswith(".txt"):
            own[-1].texts[ending] = text_of(member)
        elif member.dotted:
            own[-1].others.append(ending)
    found: dict[str, Sample] = {}
    for key, samples in every.items():
        for number, sample in enumerate(_with_photos(samples)):
            names = (f"{key}~{again}" for again in itertools.count(number + 1))
            found[next(name for name in names if name not in every and name not in found) if number else key] = sample
    return {key: _with_texts(key, sample, found) for key, sample in found.items()}


def _with_photos(samples: Sequence[Sample]) -> list[Sample]:
    """The samples of one key that hold photos: what comes later without a photo corrects the texts before."""
    found = [samples[0]]
    for sample in samples[1:]:
        if sample.photos and found[-1].photos:
            found.append(sample._replace(texts=sample.texts or found[-1].texts))
        else:
            found[-1].photos.update(sample.photos)
            found[-1].texts.update(sample.texts)
    return found


def _with_texts(key: str, sample: Sample, found: Mapping[str, Sample]) -> Sample:
    """The sample; without texts of its own it has those of its key up to the first dot."""
    first = _FIRST.match(key)
    beside = found.get(first[0]) if first else None
    return sample._replace(texts=beside.texts) if beside and not sample.texts else sample


def _placed(member: Member, keys: Collection[str]) -> tuple[str, str]:
    """The key of a member and its ending: by the first dot, or a later one where a photo's key has dots itself."""
    parts = member.ending.split(".")
    for length in range(len(parts) - 1, 0, -1):
        key = ".".join((member.key, *parts[:length]))
        if key in keys:
            return key, ".".join(parts[length:]).lower()
    return member.key, member.ending.lower()


def _item(part: Part, key: str, sample: Sample, finder: ClassFinder, ids: frozenset[int]) -> Iterator[Item | Skip]:
    """The photos of a sample; of several formats of one photo the first."""
    endings = [ending for ending in _PHOTO if ending in sample.photos]
    if not endings:
        yield Skip(_sound(f"{part.name}/{key}"), "no photo for its key")
        return
    own, others = (endings[:2], endings[2:]) if endings[:2] == ["jpg", "jpeg"] else (endings[:1], endings[1:])
    found, image_id = _class_of(sample.texts, finder)
    for ending in own:
        name = image_id if image_id and ending == own[0] else _sound(f"{part.name}/{key}.{ending}")
        if isinstance(found, Skip):
            yield found._replace(image_id=name)
            continue
        if isinstance(found, int) and found not in ids:
            raise UserError(
                f"{part.path} key {key}: found class id {found}, expected one of the {len(ids)} ids from {min(ids)} "
                f"to {max(ids)} in the class table; give the class table that the tars were made with"
            )
        yield Item(photo_places.span(part.path, *sample.photos[ending]), found, part.split, name)
    for ending in (*others, *sample.others):
        yield Skip(_sound(f"{part.name}/{key}.{ending}"), "another format or kind of the photo of its key")


def _class_of(texts: Mapping[str, str], finder: ClassFinder) -> tuple[int | str | Skip, str]:
    """The class of a sample, as `_class` has it, and the photo's id where our own ``json`` has one."""
    try:
        facts = foreign.parsed(texts.get("json", "{}"))
    except ValueError:
        return Skip("", "json that cannot be read"), ""
    facts = facts if isinstance(facts, dict) else {}
    is_own = isinstance(facts.get("image_id"), str) and {"class_id", "captions"} <= facts.keys()
    return _class(texts, facts, finder), _sound(facts["image_id"]) if is_own else ""


def _class(texts: Mapping[str, str], facts: dict[str, Any], finder: ClassFinder) -> int | str | Skip:
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
    further = [ending for ending in texts if ending.endswith(".txt")]  # as BioCLIP's: sci.txt, com.txt and so on
    further.sort(key=lambda ending: (not ending.startswith("sci"), ending))
    captions = [text for text in (*captions, *(texts.get(one, "") for one in ("txt", *further))) if text.strip()]
    if not captions:
        return Skip("", "no class or caption for its key")
    reasons = []
    for text in captions:
        found = finder.of_caption(text)
        if isinstance(found, int):
            return found
        reasons.append(Skip("", found, _sound(" ".join(text.split()))))
    return next((skip for skip in reasons if skip.reason != NONE), reasons[0])


def _sound(text: str) -> str:
    """Bytes that are not UTF-8, which Python keeps as lone surrogates, spelt out: a record holds UTF-8 only."""
    return text.encode("utf-8", "backslashreplace").decode()


def _as_id(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,18}(\.0*)?\s*", value):
        return int(value.partition(".")[0])
    if isinstance(value, float) and value.is_integer():  # pandas writes integers beside gaps so
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None

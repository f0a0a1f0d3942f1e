"""iNaturalist 2021 as it was released: COCO-style JSON beside folders or tar files of photos.

The layout is that of the competition's data page: ``<subset>.json`` describes the photos of ``<subset>/``, with
``images`` (``id``, ``file_name``), ``annotations`` (``image_id``, ``category_id``) and ``categories``. Nothing is
unpacked: a JSON is read from its archive too, and photos from a plain tar.
"""

import contextlib
import gzip
import tarfile
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from data_prep.sources import photo_places
from data_prep.sources.archives import published
from data_prep.sources.items import TRAIN, Item, Request, Skip, Source
from data_prep.sources.json_rows import rows
from lit_jax.base.console import say
from lit_jax.errors import DAMAGED, UserError
from lit_jax.text.classes import ClassTable, match_folders, read_class_table, table_of_entries

SPLIT_OF = {"train": TRAIN, "train_mini": TRAIN, "val": "val"}
"""The split of each subset that has labels; `train_mini` is a part of `train`."""

UNLABELLED = "public_test"

NO_ANNOTATION, TWO_CLASSES, MISSING = "no annotation", "annotations of two classes", "missing"
_NONE, _TWO = -1, -2


class Subset(NamedTuple):
    """What the JSON of a subset says.

    Attributes:
        name: Of the subset.
        where: The JSON's path, for errors.
        categories: As they stand there.
        files: N names, such as ``train/00000_Animalia_.../x.jpg``.
        rows: ``[N]`` int32, the number of each photo's category in `categories`; below 0 if it has none or two.
    """

    name: str
    where: str
    categories: list[dict[str, Any]]
    files: list[str]
    rows: np.ndarray


def read_inat2021(request: Request) -> Source:
    """Photos and classes of one or more subsets: ``train`` or ``train_mini``, and ``val``.

    Without `request.subsets`: train if its JSON is there, otherwise train_mini; and val if its JSON is there. Without
    `request.classes` the classes are the categories. With it, categories are looked up in that table, by
    ``image_dir_name`` where it has that column, otherwise by ``name``; it may have more classes and other ids.

    Of each photo the name, and no more than that, is held in memory.

    Raises:
        UserError: no such folder, subset or file; a subset without labels; train and train_mini together; photos in
            a compressed archive only; truncated or bad JSON or tar; subsets of different categories; a class table
            without one of the categories.
    """
    folder = request.folder
    names = _chosen(folder, request.subsets)
    places = {name: _place(folder, name) for name in names}
    subsets = [_read(folder, name) for name in names]
    categories = subsets[0].categories
    for subset in subsets[1:]:
        if subset.categories != categories:
            raise UserError(
                f"{subset.where}: found other categories than in {subsets[0].where}, expected the same; fetch both anew"
            )
    table, ids = _classes(request.classes, categories, subsets[0].where)
    return Source(_items(subsets, places, ids), table, published(folder, names))


def _chosen(folder: Path, wanted: Sequence[str]) -> list[str]:
    """The subsets to read, in the order in which they are always read."""
    known = [*SPLIT_OF, UNLABELLED]
    for name in wanted:
        if name not in known:
            raise UserError(f"--subsets: found {name!r}, expected some of {', '.join(SPLIT_OF)}; correct it")
    if UNLABELLED in wanted:
        raise UserError(
            f"--subsets: found {UNLABELLED}, which has no labels to train on or to evaluate by, expected some of "
            f"{', '.join(SPLIT_OF)}; leave it out"
        )
    there = [name for name in SPLIT_OF if _json_of(folder, name)]
    names = [name for name in SPLIT_OF if name in wanted] or [
        name for name in there if name != "train_mini" or "train" not in there
    ]
    if {"train", "train_mini"} <= set(names):
        raise UserError("--subsets: found train and train_mini, expected one: train holds all photos of both")
    for name in names:
        if name not in there:
            raise UserError(
                f"{folder}: found neither {name}.json nor {name}.json.tar.gz, expected one; fetch it or choose other "
                "--subsets"
            )
    if not names:
        raise UserError(
            f"{folder}: found none of {', '.join(f'{name}.json' for name in SPLIT_OF)}, nor their .tar.gz, expected "
            "the released files; check the path"
        )
    return names


def _json_of(folder: Path, name: str) -> Path | None:
    paths = (folder / f"{name}.json", folder / f"{name}.json.tar.gz")
    return next((path for path in paths if path.is_file()), None)


def _place(folder: Path, name: str) -> Path:
    """The folder of a subset's photos, or else the tar."""
    directory, tar, packed = (folder / f"{name}{ending}" for ending in ("", ".tar", ".tar.gz"))
    if directory.is_dir():
        return directory
    if tar.is_file():
        return tar
    if packed.is_file():
        raise UserError(
            f"{packed}: found the photos in gzip alone, which has no way to a single one, expected {name}.tar or "
            f"{name}/; run gunzip {packed.name}, the tar is hardly larger and is read as it is"
        )
    raise UserError(
        f"{folder}: found neither {name}/ nor {name}.tar, expected the photos of {name}.json; fetch {packed.name} and "
        "gunzip it"
    )


# -- the JSON


def _read(folder: Path, name: str) -> Subset:
    path = _json_of(folder, name)
    if path is None:
        raise UserError(f"{folder}: found no {name}.json, expected it; fetch it")
    files: list[str] = []
    image_ids, pairs, categories = array("q"), (array("q"), array("q")), []
    with _opened(path) as file:
        for key, row in rows(file, ("images", "annotations", "categories"), name=str(path)):
            try:
                if key == "images":
                    files.append(row["file_name"] + "")  # a TypeError if it is no text
                    image_ids.append(row["id"])
                elif key == "annotations":
                    pairs[0].append(row["image_id"])
                    pairs[1].append(row["category_id"])
                else:
                    categories.append({**row, "id": row["id"]})
            except (TypeError, KeyError, OverflowError) as error:
                raise _odd_row(path, key, row) from error
    for what, found in (("images", files), ("categories", categories), ("annotations", pairs[0])):
        if not len(found):
            labels = "; without labels nothing can be trained or evaluated" if what == "annotations" else ""
            raise UserError(f"{path}: found no {what}, expected those of {name}{labels}; fetch the file again")
    found_rows = _rows_of(path, np.array(image_ids), np.array(pairs[0]), np.array(pairs[1]), categories)
    say(f"{path.name}: {len(files)} photos, {len(categories)} classes", flush=True)
    return Subset(name, str(path), categories, files, found_rows)


def _odd_row(path: Path, key: str, row: Any) -> UserError:
    fields = {"images": "id and file_name", "annotations": "image_id and category_id", "categories": "id"}[key]
    return UserError(
        f"{path}: found {repr(row)[:60]} among {key}, expected an object with {fields}, numbers and texts; fetch the "
        "file again"
    )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The JSON, also from inside its archive, which is read as a stream."""
    try:
        with contextlib.ExitStack() as stack:
            if path.suffix == ".json":
                yield stack.enter_context(open(path, "rb"))
                return
            archive = stack.enter_context(tarfile.open(path, "r|gz"))
            for member in archive:
                file = archive.extractfile(member) if member.name.endswith(".json") else None
                if file is not None:
                    yield file  # type: ignore[misc]
                    return
            raise UserError(f"{path}: found no JSON inside, expected one; fetch the file again")
    except (EOFError, zlib.error, tarfile.TarError, gzip.BadGzipFile) as error:
        raise UserError(
            f"{path}: found a truncated or damaged archive ({error}), expected a whole one; fetch it again"
        ) from error


def _rows_of(
    path: Path,
    image_ids: np.ndarray,
    of_image: np.ndarray,
    of_category: np.ndarray,
    categories: Sequence[Mapping[str, Any]],
) -> np.ndarray:
    """The number of the category of each image; `_NONE` without an annotation, `_TWO` with different ones.

    Args:
        path: For errors.
        image_ids: ``[N]`` int64, ids of the images.
        of_image: ``[M]`` int64, the image's id in each annotation.
        of_category: ``[M]`` int64, the category's id in each.
        categories: K categories.
    """
    number_of = _numbers(path, "category", np.array([category["id"] for category in categories]), of_category)
    images = _numbers(path, "image", image_ids, of_image)
    found = np.full(len(image_ids), _NONE, np.int32)
    found[images] = number_of  # the last one, where there are several
    found[images[found[images] != number_of]] = _TWO
    return found


def _numbers(path: Path, what: str, ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The place in `ids` of each of `wanted`, all int64."""
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise UserError(f"{path}: found {what} id {twice[0]} twice, expected each once; fetch the file again")
    places = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    strange = wanted[ordered[places] != wanted]
    if len(strange):
        raise UserError(
            f"{path}: found an annotation with {what} id {strange[0]}, expected one listed there; fetch the file again"
        )
    return order[places]


# -- classes and photos


def _classes(
    path: Path | None, categories: Sequence[Mapping[str, Any]], where: str
) -> tuple[ClassTable, tuple[int, ...]]:
    """The class table, and the class id of each category."""
    if path is None:
        table = table_of_entries(categories, where)
        return table, table.ids
    table = read_class_table(path)
    column = "image_dir_name" if "image_dir_name" in table.columns else "name"
    names = [str(category.get(column) or "") for category in categories]
    if len(set(names)) < len(names) or "" in names:
        raise UserError(f"{where}: found categories with the same {column} or none, expected one each; drop --classes")
    id_of = match_folders(table, names)
    return table, tuple(id_of[name] for name in names)


def _items(subsets: Sequence[Subset], places: Mapping[str, Path], ids: Sequence[int]) -> Iterator[Item | Skip]:
    for subset in subsets:
        place, split = places[subset.name], SPLIT_OF[subset.name]
        paths = _in_folder(place.parent, subset.files) if place.is_dir() else _in_tar(place, subset.files)
        for name, row, path in zip(subset.files, subset.rows.tolist(), paths, strict=True):
            if row < 0:
                yield Skip(name, NO_ANNOTATION if row == _NONE else TWO_CLASSES)
            elif path is None:
                yield Skip(name, MISSING, f"in {place.name}")
            else:
                yield Item(path, ids[row], split, name)
        subset.files.clear()  # each name is the item's now


def _in_folder(folder: Path, names: Sequence[str]) -> Iterator[str]:
    prefix = f"{folder}/"
    return (prefix + name for name in names)


def _in_tar(tar: Path, names: Sequence[str]) -> Iterator[str | None]:
    """Where each photo lies in the tar; None for those that are not in it."""
    number_of, whole = {name: number for number, name in enumerate(names)}, tar.stat().st_size
    offsets, sizes = np.full(len(names), -1, np.int64), np.zeros(len(names), np.int64)
    try:
        with tarfile.open(tar, "r:") as archive:
            while (member := archive.next()) is not None:
                if not 0 <= member.size <= whole:  # by which tarfile would go back without end, or too far
                    raise tarfile.ReadError(f"{member.name!r} of {member.size} bytes")
                number = number_of.get(member.name.removeprefix("./"))
                if number is not None and member.isreg():
                    offsets[number], sizes[number] = member.offset_data, member.size
                archive.members = []  # type: ignore[attr-defined]  # or it would hold a kilobyte of each
    except (tarfile.TarError, *DAMAGED) as error:
        raise UserError(f"{tar}: found a truncated or other file ({error}), expected a tar; make it anew") from error
    del number_of
    for offset, size in zip(offsets.tolist(), sizes.tolist(), strict=True):
        yield photo_places.span(tar, offset, size) if offset >= 0 else None

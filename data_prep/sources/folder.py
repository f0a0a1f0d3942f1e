"""Photos in class folders, or listed in a CSV."""

import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from data_prep.sources import photo_places
from data_prep.sources.items import Item, Skip, known_split
from lit_jax.base import tables
from lit_jax.base.named_files import on_disk, spelt_out
from lit_jax.base.walking import Walk
from lit_jax.data.photo import photo_format
from lit_jax.errors import UserError
from lit_jax.text.classes import ClassTable, is_empty, match_folders, some

NAME_COLUMNS = ("class", "folder", "name", "common_name", "id")

_BREAKS = re.compile(r"[\v\f\x1c-\x1e\x85\u2028\u2029]")  # in a cell, what is left of a line's end in another program
_HEAD = 64  # bytes that tell the format of a photo


def read_folder(
    images: Path,
    splits: Path | None = None,
    *,
    split_names: Collection[str] = (),
    level: int = 0,
    passed: list[Skip] | None = None,
) -> Iterator[Item]:
    """Photos under a folder, in the order of their names.

    Without `splits`: ``images/<class>/<photo>``, or ``images/<split>/<class>/<photo>`` where every folder in
    `images` is named like a split (train, training, validation, val, valid, test, heldout, or one of `split_names`).
    Folders inside a class belong to the class; with `level` 2 the folders in those folders are the classes, with 3
    those in them, and photos that lie higher are outside of any class. Files whose name begins with a dot are passed
    over, and so are folders of thumbnails and links to what is looked at anyway (`lit_jax.base.walking`); all others
    are yielded, whatever their ending; those outside a class folder with class name "".

    With `splits`: a table with a header and the columns ``file``, optionally ``class`` (otherwise the
    name of the folder that holds the file) and optionally ``split``. Files are relative to `images` or, where
    none of them is in there, to the CSV's folder; backslashes and other spellings of accents are seen through. A file
    that is missing is yielded all the same, so that it is counted.

    When all are yielded, `passed` holds the folders that were passed over as well.

    Raises:
        UserError: no such folder or CSV, a table that is broken, no column ``file``, a row without a file; without
            `level`, a folder named like a split beside others, though its photos lie in folders of its own.
    """
    if not images.is_dir():
        raise UserError(f"{images}: found no such folder, expected the photos; check the path")
    if level < 0:
        raise UserError(f"--class-level: found {level}, expected 0 or more; correct it")
    return _from_csv(images, splits) if splits else _from_folders(images, split_names, level, passed)


def read_csv(splits: Path, images: Path | None = None) -> Iterator[Item]:
    """Photos listed in a CSV; files are relative to `images` or, without it, to the CSV's folder. See `read_folder`."""
    return _from_csv(images or splits.absolute().parent, splits)


def read_names(path: Path) -> tuple[str, ...]:
    """Class names from a list: a CSV with one of `NAME_COLUMNS`, or else text with one name a line.

    Raises:
        UserError: no such file, no text, a CSV that is broken or without such a column, or no name.
    """
    if path.suffix.lower() == ".csv":
        rows = [row for _, row in _rows(path, NAME_COLUMNS, "class names")]
        column = next((column for column in NAME_COLUMNS if rows and column in rows[0]), None)
        if column is None:
            raise UserError(
                f"{path}: found none of the columns {', '.join(NAME_COLUMNS)}, expected class names in one; add it"
            )
        names = [row[column] for row in rows]
    else:
        names = tables.lines_of(tables.read_text(path, "class names"))
    names = [name.strip() for name in names if name.strip()]
    if not names:
        raise UserError(f"{path}: found no name, expected one a line; add them or leave the option out")
    return tuple(names)


def check_level(items: Sequence[Item], table: ClassTable | None) -> None:
    """Asks where the folders of `read_folder` may be one level too high for classes, such as sites above species.

    With a class table the table says which folders are the classes. Without one they are the outer folders if one of
    them holds a photo itself, or if there is but one inner folder name.

    Raises:
        UserError: split folders inside; or the table has not the outer folders but the inner ones; or there is no
            table, and no photo but in inner folders of several names.
    """
    outer = {item.class_name: item for item in items if isinstance(item.class_name, str) and item.class_name}
    inner = {name: item for item in items if item.class_name and (name := _inner(item))}
    directly = (item for item in items if item.class_name and not _inner(item))
    if not inner or (_matches(table, outer) if table else any(_is_photo(item.path) for item in directly)):
        return
    above, below = some(sorted(map(str, outer)), 3), some(sorted(inner), 3)
    if all(map(known_split, inner)):
        raise UserError(
            f"folders: found split folders ({below}) in {above}, expected them in --images itself with the class "
            "folders in them; give the folder that holds them, move them, or list the photos with --splits"
        )
    if table and _matches(table, inner):
        raise UserError(
            f"folders: found the classes of the table one level deeper than expected ({below} in {above}), expected "
            "them on top; pass --class-level 2"
        )
    if not table and len(inner) > 1:
        raise UserError(
            f"folders: found no photo in {above} themselves but in folders of theirs ({below}), expected photos in the "
            "folders of the classes; pass --class-level 2 if the inner folders are the classes, --class-level 1 if the "
            "outer ones are"
        )


def _inner(item: Item) -> str:
    """The folder between a photo and the folder of its class, the outermost if there are several; "" for none."""
    inside = item.image_id.split("/")[1 if item.split is None else 2 : -1]
    return inside[0] if inside else ""


def _matches(table: ClassTable, names: Collection[str | int]) -> bool:
    try:
        match_folders(table, map(str, names))
    except UserError:
        return False
    return True


def _is_photo(path: str) -> bool:
    head = photo_places.read(path, _HEAD)
    return bool(head and photo_format(head))


def _from_folders(images: Path, split_names: Collection[str], level: int, passed: list[Skip] | None) -> Iterator[Item]:
    walk = Walk(images)
    folders = [Path(path) for path in walk.folders(images)]
    like_splits = [folder for folder in folders if known_split(folder.name) or folder.name in split_names]
    by_split = bool(folders) and len(like_splits) == len(folders)
    if like_splits and not by_split and not level:
        _refuse_mixture(like_splits, [folder for folder in folders if folder not in like_splits])
    if by_split:
        yield from _strays(images, images)
    for split, parent in [(f.name, f) for f in folders] if by_split else [(None, images)]:
        yield from _strays(images, parent)
        for folder in walk.folders(parent) if by_split else folders:
            for path in map(Path, walk.files(folder)):
                inside = path.relative_to(parent).parts[:-1]
                name = inside[max(level, 1) - 1] if len(inside) >= level else ""
                yield Item(str(path), name, split, _image_id(path, images))
    if passed is not None:
        passed += [Skip(_image_id(Path(path), images), reason) for path, reason in walk.passed]


def _refuse_mixture(like_splits: Sequence[Path], others: Sequence[Path]) -> None:
    """A class may be called test, but then its photos lie in it and not in folders of its own."""
    for folder in like_splits:
        entries = _visible(folder)
        if any(entry.is_dir() for entry in entries) and not any(_is_photo(str(entry)) for entry in entries):
            beside = some([other.name for other in others], 3)
            raise UserError(
                f"folders: found {folder.name}, named like a split, beside {beside}, "
                "expected split folders alone or class folders alone; move one kind away, say which others are splits, "
                f"as with --rename-split {others[0].name}=validation, or pass --class-level 1 if all are classes"
            )


def _strays(images: Path, folder: Path) -> Iterator[Item]:
    """Files beside the class folders."""
    for path in _visible(folder):
        if not path.is_dir():
            yield Item(str(path), "", None, _image_id(path, images))


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _from_csv(images: Path, splits: Path) -> Iterator[Item]:
    rows = [(line, row) for line, row in _rows(splits, ("file",), "a list of photos") if any(row.values())]
    for line, row in rows:
        if "file" not in row:
            raise UserError(f"{splits}: found columns {', '.join(row)}, expected a column file; add or rename one")
        if not row["file"]:
            raise UserError(f"{splits} line {line}: found no file, expected a path; fill it in")
    in_images = images != splits.parent and any(on_disk(images, row["file"]) for _, row in rows)
    base = images if in_images else splits.parent
    for _, row in rows:
        written = base / row["file"].replace("\\", "/")
        is_plain = row["file"].isascii() and "\\" not in row["file"]  # millions need no look at the disk
        path = written if is_plain else on_disk(base, row["file"]) or written
        name = _BREAKS.sub(" ", row.get("class", "")) or written.parent.name
        yield Item(
            str(path), name, row["split"] if not is_empty(row.get("split", "")) else None, _image_id(written, base)
        )


def _rows(path: Path, columns: Sequence[str], what: str) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV that is known by some columns, and the lines on which they begin."""
    table = tables.read_table(path, columns, what)
    return tables.records_of(table, str(path), single=(*columns, "class", "split"))


def _image_id(path: Path, root: Path) -> str:
    """The relative path with ``/``; bytes that are not UTF-8 are spelt out, for a record holds UTF-8 only."""
    return spelt_out(Path(os.path.relpath(path, root)).as_posix())

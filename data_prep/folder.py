"""Photos in class folders, or listed in a CSV."""

import csv
import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from data_prep.plan import HELDOUT, SPLIT_NAMES, TRAIN, VALIDATION, Item
from lit_jax.errors import UserError

NAME_COLUMNS = ("class", "folder", "name", "common_name", "id")
_SPLIT_FOLDERS = {TRAIN, VALIDATION, HELDOUT, *SPLIT_NAMES}


def read_folder(images: Path, splits: Path | None = None) -> Iterator[Item]:
    """Photos under a folder, in the order of their names.

    Without `splits`: ``images/<class>/<photo>``, or ``images/<split>/<class>/<photo>`` where every folder in
    `images` is named like a split (train, validation, val, valid, test, heldout). Folders inside a class
    belong to the class. Files whose name begins with a dot are passed over; all others are yielded, whatever
    their ending; those outside a class folder with class name "".

    With `splits`: a UTF-8 CSV with a header and the columns ``file``, optionally ``class`` (otherwise the
    name of the folder that holds the file) and optionally ``split``. Files are relative to `images` or, where
    none of the first hundred is in there, to the CSV's folder. A file that is missing is yielded all the
    same, so that it is counted.

    Raises:
        UserError: no such folder or CSV, no column ``file``, a row without a file.
    """
    if not images.is_dir():
        raise UserError(f"{images}: found no such folder, expected the photos; check the path")
    return _from_csv(images, splits) if splits else _from_folders(images)


def read_csv(splits: Path, images: Path | None = None) -> Iterator[Item]:
    """Photos listed in a CSV; files are relative to `images` or, without it, to the CSV's folder. See `read_folder`."""
    return _from_csv(images or splits.absolute().parent, splits)


def read_names(path: Path) -> tuple[str, ...]:
    """Class names from a list: a CSV with one of `NAME_COLUMNS`, or else text with one name a line.

    Raises:
        UserError: no such file, not UTF-8, a CSV without such a column, or no name.
    """
    if path.suffix.lower() == ".csv":
        rows = list(_csv_rows(path, "class names"))
        column = next((column for column in NAME_COLUMNS if rows and column in rows[0]), None)
        if column is None:
            raise UserError(
                f"{path}: found none of the columns {', '.join(NAME_COLUMNS)}, expected class names in one; add it"
            )
        names = [row[column] for row in rows]
    else:
        names = _read_text(path, "class names").splitlines()
    names = [name.strip() for name in names if name.strip()]
    if not names:
        raise UserError(f"{path}: found no name, expected one a line; add them or leave the option out")
    return tuple(names)


def _from_folders(images: Path) -> Iterator[Item]:
    folders = [entry for entry in _visible(images) if entry.is_dir()]
    by_split = bool(folders) and all(folder.name in _SPLIT_FOLDERS for folder in folders)
    parents: list[tuple[str | None, Path]] = [(f.name, f) for f in folders] if by_split else [(None, images)]
    if by_split:
        yield from _strays(images, images)
    for split, parent in parents:
        yield from _strays(images, parent)
        for folder in (entry for entry in _visible(parent) if entry.is_dir()):
            for path in _files_below(folder):
                yield Item(str(path), folder.name, split, _image_id(path, images))


def _strays(images: Path, folder: Path) -> Iterator[Item]:
    """Files beside the class folders."""
    for path in _visible(folder):
        if not path.is_dir():
            yield Item(str(path), "", None, _image_id(path, images))


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(parent, name)


def _from_csv(images: Path, splits: Path) -> Iterator[Item]:
    rows = enumerate(_csv_rows(splits, "a list of photos"), 2)
    first = list(itertools.islice(rows, 100))
    in_images = any((images / row.get("file", "")).is_file() for _, row in first)
    base = images if in_images else splits.parent
    for number, row in itertools.chain(first, rows):
        if "file" not in row:
            raise UserError(f"{splits}: found columns {', '.join(row)}, expected a column file; add or rename one")
        if not row["file"]:
            raise UserError(f"{splits} row {number}: found no file, expected a path; fill it in")
        path = base / row["file"].replace("\\", "/")
        yield Item(str(path), row.get("class") or path.parent.name, row.get("split") or None, _image_id(path, base))


def _csv_rows(path: Path, what: str) -> Iterator[Mapping[str, str]]:
    reader = csv.DictReader(_read_text(path, what).splitlines(keepends=True), restval="")
    try:
        for row in reader:
            yield {(key or "").strip(): value.strip() for key, value in row.items() if isinstance(value, str)}
    except csv.Error as error:
        raise UserError(f"{path}: found bad CSV ({error}), expected {what}; mend the quotes") from error


def _read_text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: found {error.strerror}, expected {what}; check the path") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: found other bytes, expected UTF-8; save the file as UTF-8") from error


def _image_id(path: Path, root: Path) -> str:
    """The relative path with ``/``; bytes that are not UTF-8 are spelt out, for a record holds UTF-8 only."""
    relative = Path(os.path.relpath(path, root)).as_posix()
    return os.fsencode(relative).decode("utf-8", "backslashreplace")

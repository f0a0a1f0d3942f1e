"""A class table: one row of metadata a class."""

import csv
import difflib
import io
import json
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lit_jax.errors import UserError

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus")
"""Taxonomic ranks above the species, widest first."""

NAME_COLUMNS = ("name", "common_name")
FOLDER_COLUMNS = ("folder", "image_dir_name", "name", "common_name", "id")


@dataclass(frozen=True)
class ClassTable:
    """K classes and their metadata, in the order of the file.

    Attributes:
        ids: K unique integers >= 0, by which records and predictions call the classes.
        columns: column name to K texts, in the order of the file; an unknown value is the empty text. The
            ids are not among them.

    Example:
        >>> table = ClassTable((7, 9), {"name": ("Pica pica", "Corvus corax")})
        >>> len(table), table.row(1), table.index_of(9)
        (2, {'name': 'Corvus corax'}, 1)
    """

    ids: tuple[int, ...]
    columns: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        for column, values in self.columns.items():
            if len(values) != len(self.ids):
                raise ValueError(f"column {column!r}: found {len(values)} values, expected {len(self.ids)}")

    def __len__(self) -> int:
        return len(self.ids)

    def row(self, i: int) -> dict[str, str]:
        """The metadata of row number i, column name to text."""
        return {column: values[i] for column, values in self.columns.items()}

    def rows(self) -> list[dict[str, str]]:
        """The metadata of all K classes, as `row` gives it."""
        return [self.row(i) for i in range(len(self))]

    def index_of(self, class_id: int) -> int:
        """The row number of a class id.

        Raises:
            UserError: the table has no such class.
        """
        if class_id not in self._row_numbers:
            span = f" from {min(self.ids)} to {max(self.ids)}" if self.ids else ""
            raise UserError(
                f"class id: found {class_id}, expected one of the {len(self)} ids{span} in the class table; "
                "give the class table that the data was made with"
            )
        return self._row_numbers[class_id]

    @property
    def names(self) -> tuple[str, ...]:
        """The K class names: column `name`, else column `common_name`.

        Raises:
            UserError: the table has neither column.
        """
        for column in NAME_COLUMNS:
            if column in self.columns:
                return self.columns[column]
        raise UserError(_no_name_column("class table", self.columns))

    @property
    def same_species(self) -> list[tuple[int, ...]]:
        """Groups of two and more row numbers that bear one name, such as two breeds of a species; see `species_key`."""
        rows: dict[str, list[int]] = {}
        for i, name in enumerate(self.names):
            rows.setdefault(species_key(name), []).append(i)
        return [tuple(group) for group in rows.values() if len(group) > 1]

    def subset(self, ids: Iterable[int]) -> "ClassTable":
        """The table of some classes, in the order of `ids`.

        Raises:
            UserError: an id is not in the table, or comes twice.
        """
        ids = tuple(ids)
        _refuse_repeats("class ids", ((str(i), "") for i in ids))
        chosen = [self.index_of(i) for i in ids]
        return ClassTable(ids, {c: tuple(values[i] for i in chosen) for c, values in self.columns.items()})

    @cached_property
    def _row_numbers(self) -> dict[int, int]:
        return {class_id: i for i, class_id in enumerate(self.ids)}


def species_key(name: str) -> str:
    """What makes two names the same class, wherever they are compared.

    Case, composed or decomposed accents, and blanks or underscores between words say nothing about a species.

    Example:
        >>> species_key("PICA_PICA ") == species_key("Pica  pica")
        True
    """
    return " ".join(_composed(name).replace("_", " ").split()).casefold()


def read_class_table(path: str | Path) -> ClassTable:
    """Reads a class table from CSV or, where the file name ends in `.json`, from JSON.

    CSV: UTF-8 with or without byte order mark, a header, one row a class, RFC 4180 quoting. A column without
    a name (the row numbers that data frames write) is dropped. JSON: a list of objects, or an object with
    such a list under `categories`, which is the COCO layout of iNaturalist 2021; null and absent values
    become the empty text, numbers their text. Any columns are kept; `name` or `common_name` must be among
    them. Column `id` gives the class ids, and where it is absent they are the row numbers from 0.

    Raises:
        UserError: no such file, not UTF-8, bad CSV or JSON, no rows, a row of another length than the header,
            a repeated column or id, an id that is not an integer >= 0, no column with names.
    """
    path = Path(path)
    text = _read_text(path)
    if not text.strip():
        raise UserError(f"{path}: found an empty file, expected a class table; write it anew")
    read = _from_json if path.suffix.lower() == ".json" else _from_csv
    return _table(str(path), *read(path, text))


def table_of_entries(entries: Sequence[Mapping[str, Any]], where: str) -> ClassTable:
    """The class table of JSON objects, one a class, that were read already; see `read_class_table`.

    Args:
        entries: K objects.
        where: Where they stand, for errors.

    Raises:
        UserError: as `read_class_table`.
    """
    return _table(where, *_from_entries(entries, where))


def _table(where: str, header: Sequence[str], places: Sequence[str], rows: Sequence[Sequence[str]]) -> ClassTable:
    """The class table of rows, each with its place in words."""
    _refuse_repeats(f"{where} columns", ((column, "") for column in header if column))
    if not rows:
        raise UserError(f"{where}: found no data rows, expected one row a class; add them")
    columns = {column: tuple(row[i] for row in rows) for i, column in enumerate(header) if column}
    ids = _parse_ids(places, columns.pop("id")) if "id" in columns else tuple(range(len(rows)))
    if not set(NAME_COLUMNS) & set(columns):
        raise UserError(_no_name_column(where, columns))
    return ClassTable(ids, columns)


def write_class_table(table: ClassTable, path: str | Path) -> None:
    """Writes a class table as UTF-8 CSV that `read_class_table` reads back equal, column `id` first.

    The file is written aside and then renamed, so a reader never meets half a table.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(path)
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(aside, "w", encoding="utf-8", newline="") as file:
            # Line ends of RFC 4180: only with them does the csv module quote a carriage return in a value.
            writer = csv.writer(file, lineterminator="\r\n")
            writer.writerow(["id", *table.columns])
            writer.writerows(zip(table.ids, *table.columns.values(), strict=True))
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise UserError(f"{path}: found {error.strerror}, expected a place to write to; name another") from error


def match_folders(table: ClassTable, names: Iterable[str]) -> dict[str, int]:
    """Class names, as folders or a data file spell them, to class ids.

    The columns `folder`, `image_dir_name`, `name`, `common_name` and `id` are tried in this order, and the
    first one under which all names are found is used; names are never mixed from two columns. Composed and
    decomposed accents count as equal, because some file systems store the latter.

    Args:
        table: the classes.
        names: any number of names; repeats are harmless.

    Returns:
        Each name, as given, to its class id.

    Raises:
        UserError: no column has all the names (the column that has most, some names that it lacks and the
            nearest entry are told), or a name stands for two classes in the column used.
    """
    wanted = list(dict.fromkeys(names))
    lookups = {column: ids_of for column, ids_of in _folder_lookups(table)}
    for column, ids_of in lookups.items():
        if all(_composed(name) in ids_of for name in wanted):
            return {name: _only_id(column, name, ids_of[_composed(name)]) for name in wanted}
    raise UserError(_unmatched(lookups, wanted))


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: found {error.strerror}, expected a class table; check the path") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = raw[error.start]
        raise UserError(
            f"{path} line {line}: found byte 0x{byte:02x}, expected UTF-8; save the file as UTF-8"
        ) from error


def _from_csv(path: Path, text: str) -> tuple[list[str], list[str], list[list[str]]]:
    """Header, the place of each row in words for error texts, and the rows."""
    # Strict, because otherwise an unclosed quote swallows the rest of the table in silence.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise UserError(
            f"{path} line {reader.line_num}: found bad CSV ({error}), expected RFC 4180; mend the quotes"
        ) from error
    header = [column.strip() for column in lines[0][1]]
    for number, cells in lines[1:]:
        if len(cells) != len(header):
            raise UserError(
                f"{path} line {number}: found {len(cells)} fields, expected {len(header)} as in the header; "
                "put quotes around values that hold a comma"
            )
    return header, [f"{path} line {number}" for number, _ in lines[1:]], [cells for _, cells in lines[1:]]


def _from_json(path: Path, text: str) -> tuple[list[str], list[str], list[list[str]]]:
    """The same three as `_from_csv`; the header is every key, in the order of first appearance."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} line {error.lineno}: found bad JSON ({error.msg}), expected a class table; mend the file"
        ) from error
    entries = data.get("categories") if isinstance(data, dict) else data
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(
            f"{path}: found other JSON, expected a list of objects or an object with such a list under "
            "'categories'; give the class table or the annotations of iNaturalist"
        )
    return _from_entries(entries, str(path))


def _from_entries(entries: Sequence[Mapping[str, Any]], where: str) -> tuple[list[str], list[str], list[list[str]]]:
    header = list(dict.fromkeys(key for entry in entries for key in entry))
    places = [f"{where} entry {i}" for i in range(len(entries))]
    rows = [
        [_json_text(place, key, entry.get(key)) for key in header] for place, entry in zip(places, entries, strict=True)
    ]
    return [key.strip() for key in header], places, rows


def _json_text(place: str, key: str, value: Any) -> str:
    if isinstance(value, dict | list):
        raise UserError(f"{place} {key!r}: found a list or object, expected a text; leave the key out")
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _parse_ids(places: Sequence[str], texts: Sequence[str]) -> tuple[int, ...]:
    stripped = [text.strip() for text in texts]
    for place, text in zip(places, stripped, strict=True):
        # Not int(text) alone, which also takes "1_000", "+1" and digits of other scripts.
        if not (text.isascii() and text.isdigit()):
            raise UserError(f"{place}: found id {text!r}, expected an integer >= 0; correct it")
    ids = tuple(int(text) for text in stripped)
    _refuse_repeats("id", ((str(i), place) for i, place in zip(ids, places, strict=True)))
    return ids


def _refuse_repeats(what: str, values: Iterable[tuple[str, str]]) -> None:
    """Raises if a value comes twice; each value goes with its place, which may be empty."""
    first: dict[str, str] = {}
    for value, place in values:
        if value in first:
            both = f" ({first[value]} and {place})" if place else ""
            raise UserError(f"{what}: found {value!r} twice{both}, expected each once; drop or rename one")
        first[value] = place


def _no_name_column(what: str, columns: Iterable[str]) -> str:
    found = ", ".join(columns) or "no other column"
    remedy = "separate the columns by commas" if ";" in found else "add or rename one, in small letters"
    return f"{what}: found {found}, expected a column 'name' or 'common_name'; {remedy}"


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _folder_lookups(table: ClassTable) -> Iterator[tuple[str, dict[str, list[int]]]]:
    """Each usable column with its map from value to the class ids that bear it."""
    for column in FOLDER_COLUMNS:
        values = tuple(map(str, table.ids)) if column == "id" else table.columns.get(column)
        if values is not None:
            ids_of: dict[str, list[int]] = {}
            for value, class_id in zip(values, table.ids, strict=True):
                ids_of.setdefault(_composed(value), []).append(class_id)
            yield column, ids_of


def _only_id(column: str, name: str, ids: Sequence[int]) -> int:
    if len(ids) > 1:
        shown = ", ".join(map(str, ids[:4]))
        raise UserError(
            f"class {name!r}: found {len(ids)} classes in column {column!r} (ids {shown}), expected one; "
            "name the classes by another column or add a column 'folder' to the class table"
        )
    return ids[0]


def _unmatched(lookups: Mapping[str, Mapping[str, list[int]]], wanted: Sequence[str]) -> str:
    """The error text for names that no single column holds."""
    missing = {c: [n for n in wanted if _composed(n) not in ids_of] for c, ids_of in lookups.items()}
    nearest = {c: difflib.get_close_matches(names[0], lookups[c], n=1) for c, names in missing.items()}
    # Fewest missing first; among equals a column with a near entry tells the user more.
    best = min(lookups, key=lambda column: (len(missing[column]), not nearest[column]))
    names = missing[best]
    hint = f"; the nearest to {names[0]!r} is {nearest[best][0]!r}" if nearest[best] else ""
    shown = ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
    return (
        f"class names: found {len(names)} of {len(wanted)} not in column {best!r} ({shown}{hint}), expected "
        f"all of them in one of the columns {', '.join(lookups)}; correct them or add a column 'folder'"
    )

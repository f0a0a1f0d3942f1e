"""The class table: a row of metadata for each class."""

import csv
import difflib
import json
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from lit_jax.base import foreign, tables
from lit_jax.base.files import written_aside
from lit_jax.errors import UserError, printable

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus")
"""Taxonomic ranks above the species, widest first."""

NAME_COLUMNS = ("name", "common_name")
FOLDER_COLUMNS = ("folder", "image_dir_name", "name", "common_name", "id")
KNOWN_COLUMNS = (*NAME_COLUMNS, "supercategory", *RANKS, *FOLDER_COLUMNS[:2])
"""Columns that the package itself looks for; all others are the table's own."""

KNOWN_BY = (*NAME_COLUMNS, *FOLDER_COLUMNS)
"""Columns by which a header is known for that of a class table."""

# Whole values by which programs and people say that there is none; case and blanks around do not count.
_NO_VALUE = frozenset({"", "nan", "<na>", "#n/a", "n/a", "null"})  # of programs: nothing is called so
_UNKNOWN = _NO_VALUE | {"na", "none", "nil", "unknown", "not assigned", "unassigned", "not available"}
_UNKNOWN |= {"-", "--", "–", "—", "?"}

_LARGEST, _DIGITS = 2**63 - 1, 4000  # an id is stored in 64 bits with a sign; longer texts Python does not convert
_MISSPELT = 0.82  # ratio of `difflib` from which a column is nearly a known one: a letter of six


@dataclass(frozen=True)
class ClassTable:
    """K classes and their metadata, in the order of the file.

    Attributes:
        ids: K unique integers >= 0, by which records and predictions call the classes.
        columns: column name to K texts, in the order of the file; an unknown value is the empty text. The
            ids are not among them.
        as_written: the table as it is in its file, blanks around values, blank rows and words for nothing included;
            None where that is the same.
        notes: what was left out of the file, and columns that look misspelt, in lines for people.

    Example:
        >>> table = ClassTable((7, 9), {"name": ("Pica pica", "Corvus corax")})
        >>> len(table), table.row(1), table.index_of(9)
        (2, {'name': 'Corvus corax'}, 1)
    """

    ids: tuple[int, ...]
    columns: Mapping[str, tuple[str, ...]]
    # Facts about the reading and not of the classes: a table that is made of this one has none.
    as_written: "ClassTable | None" = field(default=None, init=False, compare=False, repr=False)
    notes: tuple[str, ...] = field(default=(), init=False, compare=False, repr=False)

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
        raise UserError(no_name_column("class table", self.columns))

    @property
    def same_species(self) -> list[tuple[int, ...]]:
        """Groups of two and more row numbers that bear one name, such as two breeds of a species; see `species_key`."""
        rows: dict[str, list[int]] = {}
        for i, name in enumerate(self.names):
            rows.setdefault(species_key(name), []).append(i)
        return [tuple(group) for key, group in rows.items() if key and len(group) > 1]

    @cached_property
    def species_of(self) -> dict[int, int]:
        """Each class id to that of the first row of its species."""
        firsts = {self.ids[i]: self.ids[group[0]] for group in self.same_species for i in group}
        return {class_id: firsts.get(class_id, class_id) for class_id in self.ids}

    def label(self, class_id: int) -> str:
        """The name of a class for people: with its common name, where it has another one."""
        row = self.row(self.index_of(class_id))
        name, common = (row.get(column, "") for column in NAME_COLUMNS)
        both = name and common and species_key(name) != species_key(common)
        return f"{name} ({common})" if both else name or common or f"class {class_id}"

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


Lookup = dict[str, list[int]]
"""Texts to the ids of the classes that bear them."""


def species_key(name: str) -> str:
    """The form of a name by which names are compared: equal keys are the same class.

    Case, composed or decomposed accents, and blanks or underscores between words say nothing about a species.

    Example:
        >>> species_key("PICA_PICA ") == species_key("Pica  pica")
        True
    """
    return " ".join(_composed(name).replace("_", " ").split()).casefold()


def is_empty(value: str, *, of_name: bool = False) -> bool:
    """Whether a value as a whole only says that there is none, such as "nan", "NA", "unknown" or "-".

    Args:
        value: a cell.
        of_name: whether it is the name of a class, which may be called "unknown" or "none", as of photos of traps.

    Example:
        >>> [is_empty(value) for value in ("nan", " Not assigned ", "", "Nanorana", "unknown")]
        [True, True, True, False, True]
        >>> is_empty("unknown", of_name=True), is_empty("NaN", of_name=True)
        (False, True)
    """
    return " ".join(value.split()).casefold() in (_NO_VALUE if of_name else _UNKNOWN)


def read_class_table(path: str | Path) -> ClassTable:
    """Reads a class table from CSV or, where the file name ends in `.json`, from JSON.

    CSV: a header and one row a class, in any form that `lit_jax.base.tables` reads. A column without
    a name (the row numbers that data frames write) is dropped, and so is a row without any value, with a note.
    Blanks around headers and values are dropped, and values that only say that there is none (`is_empty`) become the
    empty text. JSON: a list of objects, or an object with
    such a list under `categories`, which is the COCO layout of iNaturalist 2021; null and absent values
    become the empty text, numbers their text. Any columns are kept; `name` or `common_name` must be among
    them. Column `id` gives the class ids, and where it is absent they are the row numbers from 0.

    Raises:
        UserError: no such file, no text, bad CSV or JSON, no rows, a row of another length than the header,
            a repeated column or id, an id that is not an integer >= 0, no column with names.
    """
    return table_of_rows(str(path), *read_rows(Path(path)))


def table_of_entries(entries: Sequence[Mapping[str, Any]], where: str) -> ClassTable:
    """The class table of JSON objects, one a class, that were read already; see `read_class_table`.

    Args:
        entries: K objects.
        where: Where they stand, for errors.

    Raises:
        UserError: as `read_class_table`.
    """
    return table_of_rows(where, *_from_entries(entries, where))


def table_of_text(text: str, where: str) -> ClassTable:
    """The class table of CSV that is in memory already, as a checkpoint keeps it; see `read_class_table`."""
    return table_of_rows(where, *_from_table(where, tables.table_of(text, KNOWN_BY, where)))


def read_rows(path: Path) -> tuple[list[str], list[str], list[list[str]]]:
    """Header, the place of each row in words for error texts, and the rows, as they stand in a file."""
    text = tables.read_text(path, "a class table")
    if not text.strip():
        raise UserError(f"{path}: found an empty file, expected a class table; write it anew")
    if path.suffix.lower() == ".json":
        return _from_json(path, text)
    table = tables.table_of(text, KNOWN_BY, str(path))
    tables.tell_separator(path, table)
    return _from_table(str(path), table)


def table_of_rows(
    where: str, header: Sequence[str], places: Sequence[str], rows: Sequence[Sequence[str]]
) -> ClassTable:
    """The class table of rows, as `read_rows` gives them; see `read_class_table`."""
    _refuse_repeats(f"{where} columns", ((column, "") for column in header if column))
    named = [i for i, column in enumerate(header) if column]
    full = [number for number, row in enumerate(rows) if any(row[i].strip() for i in named)]
    if not full:
        raise UserError(f"{where}: found no data rows, expected one row a class; add them")
    if not set(NAME_COLUMNS) & set(header):
        raise UserError(no_name_column(where, [column for column in header if column not in ("", "id")]))
    table = _as_table(header, places, rows, full, strip=True)
    # Where the ids are row numbers, blank rows use up theirs.
    written = _as_table(header, places, rows, full if "id" in header else range(len(rows)), strip=False)
    if written != table:
        object.__setattr__(table, "as_written", written)
    notes = [
        f"{where}: found column {column!r}, nearly {meant!r}, which is not there; rename it if it is that (known are "
        f"{', '.join(KNOWN_COLUMNS)}; any other is your own)"
        for column, meant in misspelt(table.columns).items()
    ]
    if blank := sorted(set(range(len(rows))) - set(full)):
        number = "1 blank row" if len(blank) == 1 else f"{len(blank)} blank rows"
        notes.append(f"{where}: {number} left out, beginning with {places[blank[0]].removeprefix(where).strip()}")
    object.__setattr__(table, "notes", tuple(notes))
    return table


def _as_table(
    header: Sequence[str], places: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int], *, strip: bool
) -> ClassTable:
    kept, named = FOLDER_COLUMNS[:2], NAME_COLUMNS[0]

    def value(column: str, cell: str) -> str:
        return cell.strip() if column in (*kept, "id") or not is_empty(cell, of_name=column == named) else ""

    chosen = [list(map(value, header, rows[number])) if strip else rows[number] for number in numbers]
    columns = {column: tuple(row[i] for row in chosen) for i, column in enumerate(header) if column}
    ids = columns.pop("id", None)
    return ClassTable(_parse_ids([places[i] for i in numbers], ids) if ids is not None else tuple(numbers), columns)


def write_class_table(table: ClassTable, path: str | Path) -> None:
    """Writes a class table as UTF-8 CSV that `read_class_table` reads back equal, column `id` first.

    The file is written aside and then renamed, so a reader never meets half a table.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(path)
    try:
        with written_aside(path) as aside, open(aside, "w", encoding="utf-8", newline="") as file:
            # Line ends of RFC 4180: only with them does the csv module quote a carriage return in a value.
            writer = csv.writer(file, lineterminator="\r\n")
            writer.writerow(["id", *table.columns])
            writer.writerows(zip(table.ids, *table.columns.values(), strict=True))
    except OSError as error:
        raise UserError(f"{path}: found {error.strerror}, expected a place to write to; name another") from error


def match_folders(table: ClassTable, names: Iterable[str]) -> dict[str, int]:
    """Class names, as folders or a data file spell them, to class ids.

    The columns `folder`, `image_dir_name`, `name`, `common_name` and `id` are tried in this order, and the
    first one under which all names are found is used; names are never mixed from two columns. If none has all of
    them to the letter, they are tried once more without regard to case and to blanks and underscores (`species_key`).
    Composed and decomposed accents count as equal in any case, because some file systems store the latter.

    Args:
        table: the classes.
        names: any number of names; repeats are harmless.

    Returns:
        Each name, as given, to its class id.

    Raises:
        UserError: no column has all the names (the column that has most, some names that it lacks and the
            nearest entry are told), or a name stands for two classes in the column used.
    """
    column, found = match_in(folder_columns(table), names)
    return {name: ids[0] if len(ids) == 1 else _refuse_several(column, name, ids) for name, ids in found.items()}


def find_species(table: ClassTable, names: Iterable[str]) -> frozenset[int]:
    """Ids of all rows of the species that names stand for, in any spelling that `match_folders` knows.

    Raises:
        UserError: as `match_folders`, but a name may stand for several rows if they are of one species.
    """
    column, found = match_in(folder_columns(table), names)
    chosen = set()
    for name, ids in found.items():
        species = {table.species_of[class_id] for class_id in ids}
        chosen.add(species.pop() if len(species) == 1 else _refuse_several(column, name, ids))
    return frozenset(class_id for class_id in table.ids if table.species_of[class_id] in chosen)


def misspelt(columns: Collection[str]) -> dict[str, str]:
    """Columns that look like a misspelt one of `KNOWN_COLUMNS` that is not among them, each with that.

    Example:
        >>> misspelt(("name", "comon_name", "habitat"))
        {'comon_name': 'common_name'}
    """
    known = {name: sorted(name) for name in KNOWN_COLUMNS if name not in columns}
    found = {}
    for column in columns:
        key = "_".join(species_key(column).split())
        near = [name for name, letters in known.items() if sorted(key) == letters]
        near += difflib.get_close_matches(key, known, n=1, cutoff=_MISSPELT)
        if near and column not in KNOWN_COLUMNS:
            found[column] = near[0]
    return found


def some(names: Sequence[str], shown: int = 5) -> str:
    """The first names, and how many more there are."""
    return ", ".join(map(printable, names[:shown])) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _from_table(where: str, table: tables.Table) -> tuple[list[str], list[str], list[list[str]]]:
    """Header, the place of each row in words for error texts, and the rows."""
    header = [column.strip() for column in table.rows[0].cells]
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise UserError(no_name_column(where, header))
    for number, cells in table.rows[1:]:
        if len(cells) != len(header) and any(map(str.strip, cells)):
            raise UserError(
                f"{where} line {number}: found {len(cells)} fields, expected {len(header)} as in the header; "
                "put quotes around values that hold a comma"
            )
    rows = [cells if any(map(str.strip, cells)) else [""] * len(header) for _, cells in table.rows[1:]]
    return header, [f"{where} line {number}" for number, _ in table.rows[1:]], rows


def _from_json(path: Path, text: str) -> tuple[list[str], list[str], list[list[str]]]:
    """The same three as `_from_table`; the header is every key, in the order of first appearance."""
    data = foreign.value_of(text, path, "a class table")
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
        if len(text) > _DIGITS or int(text) > _LARGEST:
            raise UserError(f"{place}: found id {text[:24]}, expected at most {_LARGEST}; number the classes again")
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


def no_name_column(what: str, columns: Iterable[str]) -> str:
    """The error text for a table of which no column holds names."""
    columns = list(columns)
    found = ", ".join(columns) or "no other column"
    near = [(column, meant) for column, meant in misspelt(columns).items() if meant in NAME_COLUMNS]
    if ";" in found or "\t" in found:
        remedy = "separate the columns by commas"
    else:
        remedy = f"rename {near[0][0]!r} to {near[0][1]!r}" if near else "add or rename one, in small letters"
    return f"{what}: found {found}, expected a column 'name' or 'common_name'; {remedy}"


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def folder_columns(table: ClassTable) -> list[tuple[str, Lookup]]:
    """Each usable column with its map from value to the class ids that bear it."""
    columns = []
    for column in FOLDER_COLUMNS:
        values = tuple(map(str, table.ids)) if column == "id" else table.columns.get(column)
        if values is not None:
            ids_of: Lookup = {}
            for value, class_id in zip(values, table.ids, strict=True):
                ids_of.setdefault(_composed(value), []).append(class_id)
            columns.append((column, ids_of))
    return columns


def match_in(columns: Sequence[tuple[str, Lookup]], names: Iterable[str]) -> tuple[str, dict[str, list[int]]]:
    """The column that has all names, and the class ids of each; see `match_folders`."""
    wanted = list(dict.fromkeys(names))
    for column, ids_of in columns:
        if all(_composed(name) in ids_of for name in wanted):
            return column, {name: ids_of[_composed(name)] for name in wanted}
    alike = {column: _alike(ids_of) for column, ids_of in columns}
    for column, ids_of in columns:
        found = {name: ids_of.get(_composed(name)) or alike[column].get(species_key(name), []) for name in wanted}
        if all(found.values()):
            return column, found
    raise UserError(_unmatched(dict(columns), alike, wanted))


def _alike(ids_of: Lookup) -> Lookup:
    """The same by `species_key`; values of which nothing is left are no one's."""
    found: Lookup = {}
    for value, ids in ids_of.items():
        if key := species_key(value):
            found.setdefault(key, []).extend(ids)
    return found


def _refuse_several(column: str, name: str, ids: Sequence[int]) -> NoReturn:
    shown = ", ".join(map(str, ids[:4]))
    raise UserError(
        f"class {name!r}: found {len(ids)} classes in column {column!r} (ids {shown}), expected one; "
        "name the classes by another column or add a column 'folder' to the class table"
    )


def _unmatched(exact: Mapping[str, Lookup], alike: Mapping[str, Lookup], wanted: Sequence[str]) -> str:
    """The error text for names that no single column holds."""
    missing = {c: [n for n in wanted if _composed(n) not in exact[c] and species_key(n) not in alike[c]] for c in exact}
    # A number is near to any other and tells nobody anything.
    nearest = {c: _nearest(names[0], exact[c]) if c != "id" else "" for c, names in missing.items()}
    # Fewest missing first; among equals a column with a near entry tells the user more.
    best = min(exact, key=lambda column: (len(missing[column]), not nearest[column]))
    names = missing[best]
    hint = f"; the nearest to {names[0]!r} is {nearest[best]!r}" if nearest[best] else ""
    shown = ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
    has = [f"{c} ({'' if i else 'has '}{len(wanted) - len(missing[c])})" for i, c in enumerate(exact)]
    remedy = "column 'folder' of the class table" if "folder" in exact else "add a column 'folder' to the class table"
    return (
        f"class names: found {len(names)} of {len(wanted)} not in column {best!r} ({shown}{hint}), expected "
        f"all of them in one of the columns {', '.join(has)}; correct them or {remedy}, "
        "add a row for a class that it lacks, or take away what is no class"
    )


def _nearest(name: str, values: Iterable[str]) -> str:
    by_key = {species_key(value): value for value in values}
    return next((by_key[key] for key in difflib.get_close_matches(species_key(name), by_key, n=1)), "")

"""Names that somebody else's list holds, such as the labels of a tower's own training, in whatever form they come."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lit_jax.base import foreign, tables
from lit_jax.errors import UserError
from lit_jax.text.classes import NAME_COLUMNS, ClassTable, is_empty, read_class_table

SYNONYM_COLUMNS = ("synonym", "synonyms")
_LISTS = ("label_names", "id2label", "labels", "classes", "names")  # as timm, transformers and others call them
_PATH_OF_RANKS = re.compile(r"\d+(?:_[^_]+){5,}?_([^_]+(?:_[^_]+)*)")
# Columns of lists, as `_column` spells them, the surest first.
_LISTED = ("name", "species", "specificepithet", "scientificname", "commonname", "vernacularname")
_MARK = re.compile(r"\s*(?:\d{1,6}[.)]|[-*•–])\s+(?=\S)")  # before each line of a numbered list
_QUOTED = re.compile(r'^"([^"]*)"$')


def read_labels(path: str | Path) -> list[str]:
    """The names in a file: one a line, a class table (CSV or JSON), or JSON with a list of labels.

    Of a class table these are names, common names and synonyms. JSON is a list of texts, or an object with one under
    ``label_names`` (timm), ``id2label`` (transformers), ``labels``, ``classes`` or ``names``; those may be objects with
    the texts as values.

    Returns:
        The names, each once. A line is also taken apart at commas, where ImageNet's labels hold several names, and a
        folder's name of iNaturalist 2021 is taken for the species at its end.

    Raises:
        UserError: no such file, no text, a quote that is not closed, other JSON, or no names in it.
    """
    names = dict.fromkeys(name for entry in read_entries(path) for name in entry)
    return list(names)


def read_entries(path: str | Path) -> list[list[str]]:
    """The names of each entry of a file, as `read_labels` finds them: one line or one row of a table is an entry."""
    path = Path(path)
    text = tables.read_text(path, "a file of names")
    found = _of_json(path, text) if path.suffix.lower() == ".json" else _of_text(path, text)
    entries = [list(dict.fromkeys(name for label in entry for name in _names_in(label))) for entry in found]
    entries = [names for names in entries if names]
    if not entries:
        raise UserError(f"{path}: found no names, expected one a line or a class table; give another file")
    return entries


def synonyms(row: Mapping[str, str]) -> list[str]:
    """The names in a row's synonym column, which stand apart by semicolons or bars."""
    cells = [row.get(column, "") for column in SYNONYM_COLUMNS]
    return [name.strip() for cell in cells for name in re.split(r"[;|\n]", cell) if name.strip()]


def names_of_row(row: Mapping[str, str]) -> list[str]:
    """Name, common name and synonyms of a row of a class table."""
    return [*filter(None, (row.get(column, "") for column in NAME_COLUMNS)), *synonyms(row)]


def _of_table(table: ClassTable) -> list[list[str]]:
    return [names_of_row(row) for row in table.rows()]


def _of_text(path: Path, text: str) -> list[list[str]]:
    """The names of each entry; the page's ``lists.js`` gives the same."""
    head = tables.header_of(text, _LISTED, _column)
    lines = tables.lines_of(head.body)
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    if not head.known or head.separator not in lines[first]:  # a list, which may have a heading
        lines = [_MARK.sub("", line).strip() for line in lines[first + head.known :]]
        return [[_QUOTED.sub(r"\1", line)] for line in lines]
    table = tables.table_of(text, _LISTED, str(path), _column)
    header = [_column(cell) for cell in table.rows[0].cells]
    return [_of_row(header, cells) for _, cells in table.rows[1:]]


def _column(cell: str) -> str:
    """A column's name without case, blanks, underscores and quotes."""
    return re.sub(r"[\s_\"]", "", cell).lower()


def _of_row(header: Sequence[str], cells: Sequence[str]) -> list[str]:
    """The names in a row of a list, scientific ones first; an epithet has its genus before it."""
    row: dict[str, str] = {}
    for column, cell in zip(header, cells, strict=False):
        is_rank = column in ("genus", "specificepithet")
        row.setdefault(column, "" if is_empty(cell, of_name=not is_rank) else cell.strip())
    genus = row.get("genus", "")
    if genus:
        for column in ("species", "specificepithet"):
            epithet = row.get(column, "")
            if epithet and not re.search(r"\s", epithet):
                row[column] = f"{genus} {epithet}"
    others = [name for column in SYNONYM_COLUMNS for name in re.split(r"[;|\n]", row.get(column, ""))]
    return [*(row.get(column, "") for column in _LISTED), *map(str.strip, others)]


def _of_json(path: Path, text: str) -> list[list[str]]:
    value = foreign.value_of(text, path, "names")
    if isinstance(value, dict):
        value = next((value[key] for key in _LISTS if isinstance(value.get(key), list | dict)), value)
    if isinstance(value, dict) and "categories" not in value:
        value = list(value.values())
    if isinstance(value, list) and all(isinstance(label, str) for label in value):
        return [[label] for label in value]
    return _of_table(read_class_table(path))


def _names_in(label: str) -> list[str]:
    label = label.strip()
    ranks = _PATH_OF_RANKS.fullmatch(label)
    if ranks:
        return [" ".join(label.split("_")[6:])]
    parts = [part.strip(' \t"') for part in re.split(r"[,;\t]", label)]
    return [name for name in dict.fromkeys((label, *parts)) if any(map(str.isalpha, name))]

"""Ranks of a class table that are empty, taken from another class table: by species, and failing that by genus."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lit_jax.errors import UserError
from lit_jax.text.classes import RANKS, ClassTable, species_key
from lit_jax.text.identity import Matches, binomial, epithet, genus, matched

COMMON = "common_name"
EPITHET = "specific_epithet"
FILLED = (*RANKS, "supercategory", COMMON, EPITHET)
"""Columns that are filled; a common name by species only, and only where nothing had to be assumed.

The epithet is that of the class's own name.
"""

SPECIES, GENUS = "species", "genus"


@dataclass
class Report:
    """What was done, and what a person should look at. Lines name the class.

    Attributes:
        cells: filled, by column.
        by: classes found, by species or by genus.
        contradictions: values that stand in the table and differ from those of the source; they were left.
        disagreeing: values left empty because rows of the source do not agree on them.
        ambiguous: classes whose name stands in several kingdoms of the source; nothing was filled.
        missing: classes with empty values of which the source has neither species nor genus.
        near: names that look like a misspelt one of the source, with that one.
        assumed: what was taken for granted.
    """

    cells: dict[str, int] = field(default_factory=dict)
    by: dict[str, int] = field(default_factory=lambda: {SPECIES: 0, GENUS: 0})
    contradictions: list[str] = field(default_factory=list)
    disagreeing: list[str] = field(default_factory=list)
    ambiguous: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    near: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)


def filled(table: ClassTable, source: ClassTable) -> tuple[ClassTable, Report]:
    """The table with its empty cells of `FILLED` taken from the source, and what was done.

    A class takes its values from the rows of the source that are its species by `binomial`; failing that, from those
    of its genus. Rows of another kingdom than its own are left aside. Only what all of them say is taken, and no value
    that stands in the table is changed. A column is added if anything is found for it.

    Raises:
        UserError: a table without scientific names (column `name`), or a source without any column to take.
    """
    for what, one in (("--classes", table), ("--from", source)):
        if "name" not in one.columns:
            raise UserError(f"{what}: found no column 'name', expected one of scientific names; add it")
    columns = [column for column in FILLED if any(source.columns.get(column, ()))]
    if not columns:
        raise UserError(f"--from: found none of the columns {', '.join(FILLED)}, expected some; give another table")
    found, report = matched(table.names, source.names), Report()
    rows_of = _Source(source)
    ranks = [column for column in columns if column != EPITHET]
    rows = [_filled_row(row, ranks, rows_of, found, report) for row in table.rows()]
    if EPITHET in (*columns, *table.columns):
        rows = [_with_epithet(row, report) for row in rows]
    added = [column for column in columns if column not in table.columns and report.cells.get(column)]
    return ClassTable(table.ids, {c: tuple(row[c] for row in rows) for c in (*table.columns, *added)}), report


class _Source:
    """Rows of the source by species and by genus."""

    def __init__(self, source: ClassTable):
        self.by_species: dict[str, list[dict[str, str]]] = {}
        self.by_genus: dict[str, list[dict[str, str]]] = {}
        for row in source.rows():
            if key := binomial(row["name"]):
                self.by_species.setdefault(key, []).append(row)
            if key := _genus_of(row):
                self.by_genus.setdefault(key, []).append(row)

    def rows_for(self, row: Mapping[str, str]) -> tuple[str, list[dict[str, str]]]:
        """How a class was found, and the rows of the source; none if it was not."""
        if own := self.by_species.get(binomial(row["name"])):
            return SPECIES, own
        return GENUS, self.by_genus.get(_genus_of(row), [])


def _genus_of(row: Mapping[str, str]) -> str:
    return genus(row.get("genus", "")) or genus(row["name"])


def _filled_row(
    row: Mapping[str, str], columns: Sequence[str], source: _Source, found: Matches, report: Report
) -> dict[str, str]:
    """One row; `report` is added to."""
    name, own = row["name"], {**dict.fromkeys(columns, ""), **row}
    by, others = source.rows_for(row)
    empty = [column for column in columns if not own[column]]
    if not others:
        report.missing += [name or f"a class without a name ({row.get(COMMON, '')})"] if empty else []
        report.near += [f"{name} ({found.near[name]})"] if empty and name in found.near else []
        return own
    one_kingdom = _of_one_kingdom(own, others)
    if not one_kingdom:
        kingdoms = sorted({other["kingdom"] for other in others if other.get("kingdom")})
        report.ambiguous.append(f"{name}: {', '.join(kingdoms)}")
        return own
    report.by[by] += 1
    if by == GENUS and name in found.near:
        report.near.append(f"{name} ({found.near[name]})")
    if by == SPECIES and name in found.assumed:
        report.assumed.append(f"{name}: {found.assumed[name]}")
    is_sure = by == SPECIES and name not in found.assumed
    for column, values in _values(one_kingdom, columns if is_sure else [c for c in columns if c != COMMON]):
        _settle(own, column, values, report)
    return own


def _with_epithet(row: dict[str, str], report: Report) -> dict[str, str]:
    """The row with the epithet of its name, if it has one and the cell is empty."""
    if own := row.get(EPITHET) or epithet(row["name"]):
        report.cells[EPITHET] = report.cells.get(EPITHET, 0) + (not row.get(EPITHET))
    return {**row, EPITHET: own}


def _settle(own: dict[str, str], column: str, values: Sequence[str], report: Report) -> None:
    """Fills one cell, or tells why not."""
    if own[column]:
        if column != COMMON and species_key(own[column]) not in map(species_key, values):
            report.contradictions.append(f"{own['name']}: {column} {own[column]}, there {' or '.join(values)}")
    elif len(values) == 1:
        own[column] = values[0]
        report.cells[column] = report.cells.get(column, 0) + 1
    else:
        report.disagreeing.append(f"{own['name']}: {column} {' or '.join(values)}")


def _values(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The different values of each column that has any."""
    for column in columns:
        by_key = {species_key(row[column]): row[column] for row in reversed(rows) if row.get(column)}
        if by_key:
            yield column, sorted(by_key.values())


def _of_one_kingdom(own: Mapping[str, str], others: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Rows of the source that may be of the class; none if they are of several kingdoms or of another one.

    Plants and animals may bear one name. Where the class says no kingdom its other ranks may tell which is meant.
    """
    if own.get("kingdom"):
        return [row for row in others if not row.get("kingdom") or _agree(own, row, "kingdom")]
    if len({species_key(row["kingdom"]) for row in others if row.get("kingdom")}) > 1:
        known = [column for column in (*RANKS[1:-1], "supercategory") if own.get(column)]
        others = [row for row in others if any(row.get(column) and _agree(own, row, column) for column in known)]
        return others if len({species_key(row.get("kingdom", "")) for row in others}) == 1 else []
    return list(others)


def _agree(own: Mapping[str, str], row: Mapping[str, str], column: str) -> bool:
    return species_key(own[column]) == species_key(row[column])

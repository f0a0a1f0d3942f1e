"""Classes given in words to choose from: which of them are classes of a data set."""

import difflib
import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from lit_jax.errors import UserError
from lit_jax.text.classes import (
    FOLDER_COLUMNS,
    NAME_COLUMNS,
    ClassTable,
    folder_columns,
    match_in,
    no_name_column,
    read_class_table,
    read_rows,
    some,
    species_key,
    table_of_rows,
)

_NEAR = 0.88  # ratio of `difflib` from which names are near: one letter of nine
_FOLDERS = FOLDER_COLUMNS[:2]
_LONE = ""  # stands for the only word of a name
_NAME, _COMMON = "name", "common name"

_Values = tuple[str, ...]


def read_candidates(path: str | Path, own: ClassTable) -> tuple[ClassTable, list[str]]:
    """The classes of a file to choose from, under the ids of a data set's table where they are the same.

    A row is a class of the data set if their names are the same by `species_key`; failing that if the common names
    are, the name of one is the common name of the other, or the folders are, in this order, as far as that is
    unambiguous. A row that fits several of the data set's rows of one species stands for all of them; of several rows
    that fit, each stands for the one that it agrees with. All others are further classes under new ids. Ids of the
    file play no part, as those of another list would put a wrong name to a photo; but a file without names, of ids or
    folders alone, chooses among the rows of the data set's table, with all that it says of them.

    Args:
        path: as `read_class_table` reads it.
        own: the table of the data set.

    Returns:
        The table, with the file's columns, and what a person should know of it, in lines that begin with the path.

    Raises:
        UserError: what `read_class_table` refuses; ids or folders that the data set's table has not.
    """
    header, places, rows = read_rows(Path(path))
    if not set(NAME_COLUMNS) & set(header) and set(FOLDER_COLUMNS) & set(header):
        return own.subset(_chosen_rows(header, rows, own)), []
    table = table_of_rows(str(path), header, places, rows)
    taken: dict[int, tuple[int, ...]] = {}  # row of the file to class ids
    notes: list[str] = []
    by_column: dict[int, str] = {}
    for column, theirs, ours in _identifying(table, own):
        free = set(own.ids) - {class_id for ids in taken.values() for class_id in ids}
        found = _taken_by(table, own, theirs, ours, free, taken, notes)
        taken |= found
        by_column |= dict.fromkeys(found, column)
    taken = _with_all_of_a_species(own, taken)
    notes += _candidate_notes(table, own, taken, by_column)
    told = [*table.notes, *(f"{path}: {note}" for note in notes)]
    return _under_ids(table, taken, itertools.count(max(own.ids) + 1)), list(dict.fromkeys(told))


def read_class_tables(paths: Sequence[str | Path]) -> tuple[ClassTable, list[str]]:
    """One table of the classes of several files, such as those of a classifier and those of photos.

    The first file is read by `read_class_table`, and its ids stay. A row of a later file that `read_candidates` takes
    for one of its classes adds what the table does not say yet; any other becomes a further class under a new id.
    Folders are those of the latest file that says so: photos lie in them.

    Args:
        paths: at least one.

    Returns:
        The table, and what a person should know of how the files were put together, in lines.

    Raises:
        UserError: what `read_class_table` refuses.
    """
    table = read_class_table(paths[0])
    lines: list[str] = []
    for path in paths[1:]:
        further, notes = read_candidates(path, table)
        same = sum(class_id in table.species_of for class_id in further.ids)
        lines += [f"{path}: {same} of its {len(further)} classes are in the table already", *notes]
        table = _joined(table, further)
    return table, lines


def _joined(own: ClassTable, further: ClassTable) -> ClassTable:
    """The rows of both, those of one id as one."""
    rows = dict(zip(own.ids, own.rows(), strict=True))
    columns = dict.fromkeys([*own.columns, *further.columns])
    used: set[str] = set()  # a folder is of one class
    for class_id, row in zip(further.ids, further.rows(), strict=True):
        folders = {column: row[column] for column in _FOLDERS if row.get(column) and row[column] not in used}
        used |= set(folders.values())
        before = rows.get(class_id)
        says = {column: value for column, value in row.items() if before is None or column not in _FOLDERS}
        rows[class_id] = {**says, **{c: value for c, value in (before or {}).items() if value}, **folders}
    return ClassTable(tuple(rows), {c: tuple(row.get(c, "") for row in rows.values()) for c in columns})


def _with_all_of_a_species(own: ClassTable, taken: Mapping[int, tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
    """The same, and ids that no row has taken though one has taken another id of their species go to that row."""
    row_of: dict[int, int] = {}
    for row, ids in taken.items():
        row_of.setdefault(own.species_of[ids[0]], row)
    used = {class_id for ids in taken.values() for class_id in ids}
    every = {row: [*ids] for row, ids in taken.items()}
    for class_id, species in own.species_of.items():
        if class_id not in used and species in row_of:
            every[row_of[species]].append(class_id)
    return {row: tuple(ids) for row, ids in every.items()}


def _under_ids(table: ClassTable, taken: Mapping[int, tuple[int, ...]], fresh: Iterator[int]) -> ClassTable:
    """The rows under the ids that they stand for, others under fresh ones; of equal rows that stand for none, one."""
    seen: set[tuple[str, ...]] = set()
    chosen: list[tuple[int, int]] = []
    for row in range(len(table)):
        values = tuple(table.row(row).values())
        if row in taken or values not in seen:
            chosen += [(class_id, row) for class_id in taken.get(row) or (next(fresh),)]
        seen.add(values)
    columns = {column: tuple(values[row] for _, row in chosen) for column, values in table.columns.items()}
    return ClassTable(tuple(class_id for class_id, _ in chosen), columns)


def _chosen_rows(header: Sequence[str], rows: Sequence[Sequence[str]], own: ClassTable) -> list[int]:
    """Class ids that a file of folders or ids alone asks for, with those of the same species, in the file's order."""
    column = next(column for column in FOLDER_COLUMNS if column in header)
    values = [row[header.index(column)].strip() for row in rows]
    columns = [(name, of) for name, of in folder_columns(own) if name == column]
    if not columns:
        raise UserError(no_name_column("class table", [name for name in header if name]))
    _, found = match_in(columns, filter(None, values))
    species = dict.fromkeys(own.species_of[class_id] for ids in found.values() for class_id in ids)
    return [class_id for first in species for class_id in own.ids if own.species_of[class_id] == first]


def _identifying(table: ClassTable, own: ClassTable) -> Iterator[tuple[str, _Values, _Values]]:
    """Columns of the two tables that may tell equal classes, the surest first, with that of the data in words."""
    none = ("",) * len(table), ("",) * len(own)
    yield _NAME, table.names, own.names
    common, own_common = (t.columns.get("common_name", blank) for t, blank in zip((table, own), none, strict=True))
    yield from ((_COMMON, common, own_common), (_COMMON, table.names, own_common), (_NAME, common, own.names))
    for column in _FOLDERS:
        yield column, table.columns.get(column, none[0]), own.columns.get(column, none[1])
        yield column, table.names, own.columns.get(column, none[1])


def _taken_by(
    table: ClassTable,
    own: ClassTable,
    theirs: _Values,
    ours: _Values,
    free: Collection[int],
    taken: Collection[int],
    notes: list[str],
) -> dict[int, tuple[int, ...]]:
    """Rows of a file that are not taken yet, and free class ids that bear the same value in one pair of columns."""
    ids_of: dict[str, list[int]] = defaultdict(list)
    for class_id, value in zip(own.ids, ours, strict=True):
        if class_id in free:
            ids_of[species_key(value)].append(class_id)
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, value in enumerate(theirs):
        if row not in taken and (key := species_key(value)) in ids_of and key:
            rows_of[key].append(row)
    found: dict[int, tuple[int, ...]] = {}
    for key, rows in rows_of.items():
        ids = ids_of[key]
        species = dict.fromkeys(own.species_of[class_id] for class_id in ids)
        names = dict.fromkeys(species_key(table.names[row]) for row in rows)
        if len(species) > 1:
            could = " or ".join(own.names[own.index_of(class_id)] for class_id in species)
            notes.append(f"{theirs[rows[0]]} could be {could}, so that it is a further class; say which by its name")
        elif len(names) == 1:
            found |= _shared_out(table, rows, own, ids)
    return found


def _shared_out(
    table: ClassTable, rows: Sequence[int], own: ClassTable, ids: Sequence[int]
) -> dict[int, tuple[int, ...]]:
    """Which rows of a file stand for which class ids of one species: those that agree, and the first for the rest."""
    shared = [column for column in FOLDER_COLUMNS if column in table.columns and column in own.columns]

    def says(of: ClassTable, row: int) -> tuple[str, ...]:
        return tuple(species_key(of.columns[column][row]) for column in shared)

    left, found = list(ids), {}
    for row in rows:
        agreeing = [class_id for class_id in left if says(own, own.index_of(class_id)) == says(table, row)]
        if agreeing:
            found[row] = tuple(agreeing)
            left = [class_id for class_id in left if class_id not in agreeing]
    if left:
        found[rows[0]] = (*found.get(rows[0], ()), *left)
    return found


def _candidate_notes(
    table: ClassTable, own: ClassTable, taken: Mapping[int, tuple[int, ...]], by_column: Mapping[int, str]
) -> list[str]:
    notes = []
    if not taken:
        such = own.label(own.ids[0])
        notes.append(f"none of its {len(table)} rows is a class of the data, such as {such}: all are further ones")
    other = []
    for row, column in by_column.items():
        name, meant = table.columns.get("name", table.names)[row], own.names[own.index_of(taken[row][0])]
        if "name" in table.columns and name and species_key(name) not in (species_key(meant), ""):
            other.append(f"{name} is taken for {meant}, by the {column}")
    if other:
        verb, names = ("has", "the name if it is") if len(other) == 1 else ("have", "the names if they are")
        notes.append(
            f"{len(other)} of its {len(table)} rows {verb} a name that no class of the data has: {some(other)}; "
            f"correct {names} misspelt"
        )
    used = {class_id for ids in taken.values() for class_id in ids}
    theirs = {species_key(name): name for row, name in enumerate(table.names) if row not in taken}
    ours = {species_key(name): name for i, name in zip(own.ids, own.names, strict=True) if i not in used}
    near = [f"{theirs[key]} ({ours[match]})" for key, match in near_keys(theirs, ours)]
    if near:
        notes.append(f"further classes though near to one of the data: {some(near)}; correct them if they are the same")
    return notes


def near_keys(keys: Iterable[str], others: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Keys that look like a misspelt one of the others, with that one.

    Of names of several words one is right mostly, and only names that share a word are compared: to compare ten
    thousand names with as many takes minutes.

    Args:
        keys: names as `species_key`, or any other function that makes equal names equal, gives them.
        others: likewise.

    Example:
        >>> list(near_keys(["pica pika", "corvus corax"], ["pica pica", "parus major"]))
        [('pica pika', 'pica pica')]
    """
    sharing: dict[str, list[str]] = defaultdict(list)
    for other in others:
        for word in set(other.split()) if " " in other else (_LONE,):
            sharing[word].append(other)
    for key in keys:
        words = key.split() if " " in key else [_LONE]
        pool = dict.fromkeys(other for word in words for other in sharing.get(word, ()))
        if match := difflib.get_close_matches(key, pool, n=1, cutoff=_NEAR):
            yield key, match[0]

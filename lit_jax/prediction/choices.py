"""The classes that photos are named among: the model's own, those of a file, or a few words; and parts of them."""

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

import numpy as np

from lit_jax.embedding.about import About
from lit_jax.embedding.class_prompts import species_prompts
from lit_jax.errors import UserError
from lit_jax.text.candidates import read_candidates
from lit_jax.text.classes import (
    NAME_COLUMNS,
    RANKS,
    ClassTable,
    read_class_table,
    read_rows,
    some,
    species_key,
    table_of_text,
)
from lit_jax.text.labels import read_entries
from lit_jax.text.species_lists import find_entries, nearest
from lit_jax.text.tokenizers import tokenizer_from_bytes
from lit_jax.text.units import UNITS, kinds_of, units

Classes = str | os.PathLike[str] | Sequence[str] | None
"""A class table's path, labels, or None for the classes of the model."""

_SAID = ("name", "common_name", "folder")  # what a class may be called, the surest first

Within = Mapping[str, str | Sequence[str]]
"""Column to the value or values that a class must have there."""


@dataclasses.dataclass(frozen=True)
class Candidates:
    """Classes to name photos among.

    Attributes:
        table: rows under the ids of the model's class table where they are the same.
        notes: what a person should know of them, in lines.
    """

    table: ClassTable
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Choices:
    """Classes that are ready to name photos among; from `Model.choices`.

    Attributes:
        table: K species, with the ranks that either the list or the model knows.
        vectors: `[K, D]` unit vectors.
        seen: `[K]` bool, which had photos in training.
        less: `[K]` float32, the margin of seen species; None where only one kind is asked.
        notes: what a person should know of them, in lines.
    """

    table: ClassTable
    vectors: np.ndarray = dataclasses.field(repr=False)
    seen: np.ndarray = dataclasses.field(repr=False)
    less: np.ndarray | None = dataclasses.field(repr=False)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.table)


def own_classes(about: About) -> ClassTable | None:
    """The class table of a model; None of a published one, which has none."""
    return table_of_text(about.class_table, "the model's class table") if about.class_table else None


def candidates(own: ClassTable | None, classes: Classes) -> Candidates:
    """The classes that are asked for, told apart by the identity of species.

    Args:
        own: the model's class table.
        classes: what to choose from. Labels that are names, common names or synonyms of the model's own classes are
            these; others are asked by their bare words.

    Raises:
        UserError: nothing to choose from; a file that is no class table.
    """
    if classes is None:
        if own is None:
            raise UserError(
                "classes: found none, and none in the model, expected some to choose from; give --classes or --labels"
            )
        return Candidates(own)
    if isinstance(classes, str | os.PathLike):
        path = Path(classes)
        if own:
            table, notes = read_candidates(path, own)
        else:
            table = read_class_table(path)
            notes = [*table.notes]
        table, unnamed = _with_names(table, known=set(own.ids) if own else set(), path=path)
        found = Candidates(table, (*notes, *unnamed, *_repeated(path)))
    else:
        found = _labelled(own, list(classes))
    return dataclasses.replace(found, notes=(*found.notes, *unfitted(found.table, own))) if own else found


def _with_names(table: ClassTable, *, known: Container[int], path: Path) -> tuple[ClassTable, list[str]]:
    """The rows that have a name or are classes of the model; where the name lacks, the common name is one.

    Raises:
        UserError: no row has a name.
    """
    said = {i: next(filter(None, (row.get(c, "").strip() for c in _SAID)), "")
            for i, row in zip(table.ids, table.rows(), strict=True)}  # fmt: skip
    kept = [class_id for class_id in table.ids if said[class_id] or class_id in known]
    if not kept:
        raise UserError(f"--classes {path}: found no row with a name, expected one; fill column name or common_name")
    lacking = len(table) - len(kept)
    notes = [f"{path}: left out {lacking} row{'s' * (lacking > 1)} without a name"] * bool(lacking)
    table = table.subset(kept)
    names = tuple(row.get("name", "").strip() or said[i] for i, row in zip(table.ids, table.rows(), strict=True))
    return dataclasses.replace(table, columns={**table.columns, "name": names}), notes


def unfitted(table: ClassTable, own: ClassTable | None) -> list[str]:
    """A line on classes to choose from that the model does not know: its confidence was fitted among others.

    Args:
        table: the classes to choose from, under the ids of the model's own where they are these.
        own: the model's class table.
    """
    others = sum(own is None or class_id not in own.species_of for class_id in table.ids)
    if not others:
        return []
    which = "the classes to choose from are none" if others == len(table) else (
        f"{others} of the {len(table)} classes to choose from {'is' if others == 1 else 'are'} none"
    )  # fmt: skip
    return [f"{which} of the model's own: it was not fitted how sure an answer is for these, or beside these"]


def with_ranks(table: ClassTable, own: ClassTable | None) -> ClassTable:
    """The table, with what the model's own says of the same classes where it says nothing itself."""
    if own is None:
        return table
    known = set(own.ids)
    rows = []
    for class_id, row in zip(table.ids, table.rows(), strict=True):
        more = own.row(own.index_of(class_id)) if class_id in known else {}
        rows.append({c: row.get(c) or more.get(c, "") for c in (*row, *RANKS, "common_name") if c in row or c in more})
    columns = dict.fromkeys(column for row in rows for column in row)
    return ClassTable(table.ids, {column: tuple(row.get(column, "") for row in rows) for column in columns})


def within(table: ClassTable, wanted: Within) -> ClassTable:
    """The classes that have one of the values wanted in each column; case and blanks do not count.

    Raises:
        UserError: a column or a value that the table does not have, or no class that has them all.
    """
    keep = np.ones(len(table), bool)
    for column, values in wanted.items():
        if column not in table.columns:
            raise UserError(f"within: found column {column!r}, expected one of {', '.join(table.columns)}; name one")
        keys = [species_key(value) for value in table.columns[column]]
        asked = [values] if isinstance(values, str) else list(values)
        for value in asked:
            if species_key(value) not in keys:
                distinct = ClassTable(tuple(range(len(keys))), {"name": table.columns[column]})
                near = nearest([value], [key for key in keys if key], distinct)
                hint = f"; the nearest is {near[value]}" if near else ""
                raise UserError(f"within {column}: found {value!r}, expected one of the classes' values{hint}")
        keep &= np.isin(keys, [species_key(value) for value in asked])
    if not keep.any():
        told = ", ".join(f"{column}={values}" for column, values in wanted.items())
        raise UserError(f"within: found no class that has all of {told}, expected some; ask for fewer")
    return table.subset(np.array(table.ids)[keep].tolist())


def only(table: ClassTable, path: str | Path) -> Candidates:
    """The classes that a list names; names without a class are told, with the nearest, and stop nothing.

    Raises:
        UserError: no such list, or no class in it.
    """
    entries = read_entries(path)
    found = find_entries(entries, table)
    wanted = {class_id for ids in found.ids for class_id in ids}
    if not wanted:
        near = [f"{other} (for {name})" for name, other in found.near.items()]
        nearest_ones = f"; the nearest are {some(near)}" if near else ""
        raise UserError(
            f"{path}: found none of its {len(entries)} names among the classes, expected some{nearest_ones}"
        )
    notes = []
    if found.missing:
        told = [f"{name} (nearest: {found.near[name]})" if name in found.near else name for name in found.missing]
        notes.append(
            f"{path}: {len(found.missing)} of its {len(entries)} names are no class to choose from: {some(told, 20)}"
        )
    if found.assumed:
        told = [f"{name}: {reason}" for name, reason in found.assumed.items()]
        notes.append(f"{path}: taken for granted: {some(told)}")
    return Candidates(table.subset([i for i in table.ids if i in wanted]), tuple(notes))


def alike(table: ClassTable, same: Sequence[Sequence[int]]) -> list[str]:
    """A line on classes whose prompts are all the same."""
    told = [" = ".join(table.names[row] for row in group) for group in same]
    return [f"asked by the same words, so that no model can tell them apart: {some(told)}"] if same else []


def unread(names: Sequence[str], about: About, so: str, prompts: Sequence[Sequence[str]] = ()) -> list[str]:
    """Lines on names that the model cannot read: in letters of no caption, or without a unit or piece that it knows.

    Args:
        names: or other texts.
        about: of the model.
        so: what follows from it.
        prompts: by which each is asked in its place, as one of the model's own classes; one that it can read will do.
    """
    known = set("".join([about.class_table, *about.templates]).casefold())
    odd = [name for name in names if about.class_table and _share(name, known) < 0.5]
    rest = [name for name in names if name not in odd]
    silent = {name for name, knows in zip(rest, _known(rest, about), strict=True) if not knows}
    instead = [(name, one) for name, of_name in zip(names, prompts, strict=False) if name in silent for one in of_name]
    read = {name for (name, _), knows in zip(instead, _known([one for _, one in instead], about), strict=True) if knows}
    nothing = [name for name in rest if name in silent - read]
    verb = "is" if len(odd) == 1 else "are"
    lines = [f"{some(odd)} {verb} written in letters that the model has not read; {so}"] if odd else []
    return [*lines, *([f"the model has learnt nothing of {some(nothing)}; {so}"] if nothing else [])]


def _known(texts: Sequence[str], about: About) -> list[bool]:
    """Whether the text tower knows any unit of each text, or any piece of its sentence."""
    if not texts or not about.tokenizer:
        return [True] * len(texts)
    kinds = kinds_of(about.config.get("text.units", ""))
    if about.config.get("text.tower") == UNITS and len(kinds) == len(about.units):
        known = [(kind, set(of_kind)) for kind, of_kind in zip(kinds, about.units, strict=True)]
        return [any(not of_kind.isdisjoint(units(text, kind)) for kind, of_kind in known) for text in texts]
    tokenizer = tokenizer_from_bytes(about.tokenizer)
    return [any(not _NO_PIECE.fullmatch(piece) for piece in tokenizer.pieces(text)) for text in texts]


_NO_PIECE = re.compile(r"\[UNK\]|<unk>|\u2581|<0x[0-9A-F]{2}>|\W*")
"""A piece that says nothing: the unknown one, a single byte of a letter, blanks and signs."""


def _share(name: str, known: set[str]) -> float:
    """Of the letters of a name those that are known."""
    letters = [letter for letter in name.casefold() if letter.isalpha()]
    return sum(letter in known for letter in letters) / len(letters) if letters else 1.0


def _labelled(own: ClassTable | None, labels: list[str]) -> Candidates:
    distinct = {species_key(label): label.strip() for label in reversed(labels) if label.strip()}
    names = list(reversed(distinct.values()))
    if not names:
        raise UserError("labels: found none, expected at least one to choose from; give some")
    full = [label for label in labels if label.strip()]
    notes = [f"labels: {len(full) - len(names)} given more than once"] if len(full) > len(names) else []
    if own is None:
        return Candidates(ClassTable(tuple(range(len(names))), {"name": tuple(names)}), tuple(notes))
    called = next(column for column in NAME_COLUMNS if column in own.columns)
    found = find_entries([[name] for name in names], own)
    rows: dict[int, dict[str, str]] = {}
    for name, ids in zip(names, found.ids, strict=True):
        fresh = max((*own.ids, *rows)) + 1
        rows |= {i: own.row(own.index_of(i)) for i in ids} or {fresh: {called: name}}
    if found.missing:
        near = [f"{name} ({other})" for name, other in found.near.items()]
        nearly = f"; near to classes of the model: {some(near)}" if near else ""
        notes.append(f"labels: no classes of the model, asked by their bare words: {some(found.missing)}{nearly}")
    table = ClassTable(tuple(rows), {c: tuple(row.get(c, "") for row in rows.values()) for c in own.columns})
    return Candidates(table, tuple(notes))


def asked(about: About, texts: Sequence[str], protocol: str) -> tuple[list[Sequence[str]], list[str]]:
    """What a search embeds for each text: the prompts of the class that it names, or else the text itself.

    Args:
        about: of the model.
        texts: names, common names and synonyms of the model's classes, or any words.
        protocol: of naming classes in prompts.

    Returns:
        The prompts of each text, and what a person should know, in lines.
    """
    own = own_classes(about)
    found = find_entries([[text] for text in texts], own).ids if own else ((),) * len(texts)
    prompts: list[Sequence[str]] = []
    notes: list[str] = []
    for text, ids in zip(texts, found, strict=True):
        if own is None or not ids:
            prompts.append([text])
            continue
        firsts = dict.fromkeys(own.species_of[class_id] for class_id in ids)
        rows = own.subset([class_id for class_id in own.ids if own.species_of[class_id] in firsts])
        prompts.append([one for texts in species_prompts(about, rows, protocol).values() for one in texts])
        notes.append(f"{text}: asked as the model's class {some([own.label(first) for first in firsts])}")
    return prompts, notes


def _repeated(path: Path) -> list[str]:
    """A line on names that a file holds more than once."""
    header, _, rows = read_rows(path)
    column = next((header.index(name) for name in NAME_COLUMNS if name in header), None)
    counts = Counter(species_key(row[column]) for row in rows if row[column].strip()) if column is not None else {}
    same = [name for name, count in counts.items() if count > 1]
    return [f"{path}: several rows of one name count as one species: {some(same)}"] if same else []

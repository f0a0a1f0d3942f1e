"""Lists of names that people bring, such as the species of a region: which classes of a table they name."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lit_jax.text.classes import ClassTable, species_key
from lit_jax.text.identity import matched
from lit_jax.text.labels import names_of_row

_SOUGHT = 20  # names for which the nearest is looked for among all, which takes a while each


@dataclass(frozen=True)
class Found:
    """What became of the entries of a list.

    Attributes:
        ids: of each entry the ids of the classes that it names; none where it names none.
        missing: the first names of the entries that name none.
        near: of some of these the nearest name of the table.
        assumed: names that were taken for a class though something had to be set aside, and what.
    """

    ids: tuple[tuple[int, ...], ...]
    missing: tuple[str, ...]
    near: dict[str, str]
    assumed: dict[str, str]


def find_entries(entries: Sequence[Sequence[str]], table: ClassTable) -> Found:
    """The classes that entries name, each by its first name that a class bears.

    Names, common names and synonyms are compared without regard to case, blanks and underscores; what is not found so,
    by genus and epithet alone (`lit_jax.text.identity`). An entry may name several classes, such as rows of a species.

    Args:
        entries: of each its names, such as a line and its parts between commas, or name and common name of a row.
        table: the classes.
    """
    ids_of: dict[str, list[int]] = {}
    for class_id, row in zip(table.ids, table.rows(), strict=True):
        for name in dict.fromkeys(map(species_key, names_of_row(row))):
            ids_of.setdefault(name, []).append(class_id)
    spelled = [next((ids_of[key] for key in map(species_key, names) if key in ids_of), []) for names in entries]
    left = [names for names, ids in zip(entries, spelled, strict=True) if not ids]
    alike = matched([name for names in left for name in names], table.names)
    found = tuple(
        tuple(ids or _by_identity(names, alike.same, ids_of)) for names, ids in zip(entries, spelled, strict=True)
    )
    missing = tuple(names[0] for names, ids in zip(entries, found, strict=True) if not ids)
    near = {name: alike.near[name] for name in missing if name in alike.near}
    sought = [name for name in missing if name not in near][:_SOUGHT]
    return Found(found, missing, near | nearest(sought, ids_of, table), dict(alike.assumed))


def nearest(names: Iterable[str], keys: Iterable[str], table: ClassTable) -> dict[str, str]:
    """Names to the name of the table that is spelled most like them, where one is."""
    written = {species_key(name): name for row in table.rows() for name in reversed(names_of_row(row))}
    close = {name: difflib.get_close_matches(species_key(name), keys, n=1) for name in names}
    return {name: written[found[0]] for name, found in close.items() if found}


def _by_identity(names: Sequence[str], same: object, ids_of: dict[str, list[int]]) -> list[int]:
    assert isinstance(same, dict)
    for name in names:
        if name in same:
            return [class_id for known in same[name] for class_id in ids_of[species_key(known)]]
    return []

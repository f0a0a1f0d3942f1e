"""Which species of a table a model had photos of in training, by their identity."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lit_jax.embedding.about import About
from lit_jax.text.classes import RANKS, ClassTable, species_key, table_of_text
from lit_jax.text.identity import Matches, binomial, genus, matched
from lit_jax.text.labels import names_of_row

Row = Mapping[str, str]
_Known = dict[str, list[tuple[str, Row]]]
_HIGHER = RANKS[:4]  # what revisions of names seldom touch
SHOWN = 20  # names of a list in the results


@dataclasses.dataclass(frozen=True)
class Species:
    """Which classes of a table were in training.

    Attributes:
        seen: `[K]` bool.
        matches: how names were matched, where they are of another collection; None where ids tell.
    """

    seen: np.ndarray
    matches: Matches | None


def among_trained(about: About, table: ClassTable, *, own: bool) -> Species:
    """Which classes of a table were in training; `own` says that its ids are those of the run's class table."""
    if not about.class_table:  # a published model tells nothing of its training
        return Species(np.zeros(len(table), bool), None)
    trained = table_of_text(about.class_table, "the model's class table")
    by_id: dict[int, bool] = {}
    if own and set(about.train_classes) <= set(trained.ids):
        wanted = {trained.species_of[class_id] for class_id in about.train_classes}
        by_id = {class_id: species in wanted for class_id, species in trained.species_of.items()}
        if set(table.ids) <= set(trained.ids):
            return Species(np.array([by_id[class_id] for class_id in table.ids]), None)
    found = _matched(table, [trained.row(trained.index_of(class_id)) for class_id in about.train_classes])
    by_name = [name in found.same for name in table.names]
    seen = [by_id.get(class_id, same) for class_id, same in zip(table.ids, by_name, strict=True)]
    return Species(np.array(seen, bool), found)


def _matched(table: ClassTable, rows: Sequence[Row]) -> Matches:
    """Which names of a table stand for species that the model had photos of, by whatever names a list has for them.

    They are the same by `matched`; failing that, where a name, common name or synonym of one is one of the other; and
    a genus alone may be any species of it. It is safer to count one too many as seen: the others are called unseen. A
    moth and a bird of one common name are two, though, where both tables name their class.
    """
    named = [(names_of_row(row), row) for row in rows if names_of_row(row)]
    found = matched(table.names, [own[0] for own, _ in named])
    same, assumed = dict(found.same), dict(found.assumed)
    by_name, by_genus = _lookups(named)
    for name, row in zip(table.names, table.rows(), strict=True):
        if name in same:
            continue
        for by in names_of_row(row):
            if other := _fitting(row, by_name.get(species_key(by), [])):
                same[name], assumed[name] = (other,), f"by the name {by!r} it is {other!r}"
                break
        else:
            one = (
                by_genus[bool(binomial(name))].get(genus(name), []) if binomial(name) or len(name.split()) == 1 else []
            )
            if other := _fitting(row, one):
                same[name] = (other,)
                assumed[name] = f"a genus alone may be any species of it: {name!r} and {other!r}"
    near = {name: other for name, other in found.near.items() if name not in same}
    return Matches(same, near, assumed)


def _lookups(named: Sequence[tuple[Sequence[str], Row]]) -> tuple[_Known, tuple[_Known, _Known]]:
    """The species of training by each of their names; and by genus, those that are named and genera that are alone."""
    by_name: _Known = {}
    species: _Known = {}
    alone: _Known = {}
    for own, row in named:
        for name in own:
            by_name.setdefault(species_key(name), []).append((own[0], row))
        if key := genus(own[0]):
            kind = species if binomial(own[0]) else alone if len(own[0].split()) == 1 else {}
            kind.setdefault(key, []).append((own[0], row))
    return by_name, (species, alone)


def _fitting(row: Row, known: Sequence[tuple[str, Row]]) -> str:
    """The first of some species that agrees with a row in the higher ranks that both say; empty if none does."""
    for name, other in known:
        said = [(row[rank], other[rank]) for rank in _HIGHER if row.get(rank) and other.get(rank)]
        if all(species_key(one) == species_key(two) for one, two in said):
            return name
    return ""


def held_back(about: About, species: Species) -> np.ndarray | None:
    """What is taken from the scores of each class: the model's margin, where seen and unseen species are candidates."""
    is_mixed = bool(species.seen.any()) and not bool(species.seen.all())
    return about.margin["margin"] * species.seen if about.margin and is_mixed else None


def described(species: Species, table: ClassTable, present: Sequence[int]) -> dict[str, Any]:
    """How species were told apart, JSON-ready: counts of those with photos, and names that a person should look at."""
    here = np.isin(np.arange(len(table)), present)
    facts: dict[str, Any] = {
        "seen": int((species.seen & here).sum()), "unseen": int((~species.seen & here).sum()),
        "by": "ids" if species.matches is None else "binomials",
    }  # fmt: skip
    if species.matches is not None:
        facts["near"] = dict(list(species.matches.near.items())[:SHOWN])
        facts["assumed"] = dict(list(species.matches.assumed.items())[:SHOWN])
    return facts

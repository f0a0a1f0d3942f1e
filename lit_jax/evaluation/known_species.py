"""Which species of a table a model had photos of in training, by their identity."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from lit_jax.embedding.about import About
from lit_jax.text.classes import ClassTable, table_of_text
from lit_jax.text.identity import Matches, matched

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
    names = [trained.names[trained.index_of(class_id)] for class_id in about.train_classes]
    found = matched(table.names, names)
    by_name = [name in found.same for name in table.names]
    seen = [by_id.get(class_id, same) for class_id, same in zip(table.ids, by_name, strict=True)]
    return Species(np.array(seen, bool), found)


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

"""The texts that a model reads for each class."""

import dataclasses
from collections.abc import Mapping, Sequence

from lit_jax.embedding.about import About
from lit_jax.text.captions import fields
from lit_jax.text.classes import ClassTable
from lit_jax.text.prompts import class_prompts, templates_for


def prompts_of(about: About, table: ClassTable, templates: Sequence[str], protocol: str) -> dict[int, Sequence[str]]:
    """Prompts of every class by its id, as `lit_jax.text.prompts.class_prompts` fills them for a model.

    Columns that the model's own templates ask for and the table has not leave no gap.
    """
    # The run's own templates only: a column misspelt in a file of templates must still be refused.
    filled = _with_columns(table, [*about.templates, *about.prompt_templates])
    return class_prompts(filled, about.templates, templates, drop_repeats=about.drop_repeats, protocol=protocol)


def _with_columns(table: ClassTable, templates: Sequence[str]) -> ClassTable:
    """The table with empty columns where a template asks for one that it has not: captions leave no gap there."""
    asked = {column for template in templates for column in fields(template) if column}
    empty = {column: ("",) * len(table) for column in sorted(asked - set(table.columns))}
    return dataclasses.replace(table, columns={**table.columns, **empty})


def prompts_of_species(prompts: Mapping[int, Sequence[str]], species_of: Mapping[int, int]) -> dict[int, Sequence[str]]:
    """Prompts by the id of a species' first row: those of all its rows, where there are several."""
    found: dict[int, Sequence[str]] = {}
    for class_id, texts in prompts.items():
        species = species_of.get(class_id, class_id)
        found[species] = [*found.get(species, ()), *texts]
    return found


def species_prompts(about: About, table: ClassTable, protocol: str) -> dict[int, Sequence[str]]:
    """The prompts of each species of a table, by the id of its first row, as the model was evaluated with."""
    templates = templates_for(protocol, tuple(about.prompt_templates))
    return prompts_of_species(prompts_of(about, table, templates, protocol), table.species_of)

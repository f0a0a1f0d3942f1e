"""The captions of a class table, and what a person should know of the two."""

from collections.abc import Sequence

from data_prep.conversion.options import Options
from lit_jax.errors import UserError
from lit_jax.text.captions import class_captions
from lit_jax.text.classes import ClassTable, some
from lit_jax.text.prompts import duplicates

_SHOWN = 5  # of a kind that are named


def texts_of(table: ClassTable, options: Options) -> list[tuple[str, ...]]:
    """`[K][P]` captions: one tuple a class in the order of the table, one caption a template in it.

    Raises:
        UserError: a class of which each caption is empty, which nothing could be learnt or named by.
    """
    captions = class_captions(table, options.templates, drop_repeats=options.drop_repeats)
    names = silent(table, captions)
    if names:
        raise UserError(
            f"captions: found no word for {len(names)} of {len(table)} classes ({some(names)}), expected some for "
            f"each; fill the columns of {' and '.join(options.templates)}, or add one that each class has, as {{name}}"
        )
    return captions


def silent(table: ClassTable, captions: Sequence[Sequence[str]]) -> list[str]:
    """Names of the classes of which each caption is empty."""
    return [name for name, texts in zip(table.names, captions, strict=True) if not any(texts)]


def table_warnings(table: ClassTable, captions: Sequence[Sequence[str]]) -> list[str]:
    """What a person should know of a class table and its captions, a line each.

    Species of several rows; classes that have an empty caption among others; and species that share all of theirs.

    Args:
        table: K classes.
        captions: ``[K][P]`` texts.
    """
    return [*_species_warnings(table), *_text_warnings(table, captions)]


def _species_warnings(table: ClassTable) -> list[str]:
    """A line for each species of several rows, naming them, since that may be meant or not."""
    lines = []
    for rows in table.same_species[:_SHOWN]:
        described = []
        for row in rows:
            facts = (table.row(row).get(column, "") for column in ("folder", "common_name"))
            inside = ", ".join(dict.fromkeys(filter(None, facts)))
            described.append(f"id {table.ids[row]} ({inside})" if inside else f"id {table.ids[row]}")
        lines.append(
            f"{len(rows)} rows are one species, {table.names[rows[0]]}: {', '.join(described)}; they are held out "
            "together and count as one; if they are two, correct their names"
        )
    if len(table.same_species) > _SHOWN:
        lines.append(f"{len(table.same_species) - _SHOWN} more species have several rows")
    return lines


def _text_warnings(table: ClassTable, captions: Sequence[Sequence[str]]) -> list[str]:
    lines = []
    partly = [table.names[i] for i, texts in enumerate(captions) if not all(texts)]
    if partly:
        lines.append(
            f"classes of which a caption is empty, and is trained on as such ({len(partly)}): {some(partly)}; fill the "
            "columns of its template, or leave that out"
        )
    names = [[table.names[i] for i in group] for group in duplicates(captions)]
    groups = [group for group in names if len(set(group)) > 1]  # rows of one species are told of above
    if groups:
        shown = "; ".join(" = ".join(group) for group in groups[:_SHOWN])
        shown += f" and {len(groups) - _SHOWN} more" if len(groups) > _SHOWN else ""
        lines.append(
            f"classes that share all captions with another ({sum(map(len, groups))} in {len(groups)} groups), so that "
            f"no model can tell them apart: {shown}"
        )
    return lines

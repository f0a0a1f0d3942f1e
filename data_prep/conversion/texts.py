"""The captions of a class table, and what is wrong with them: empty ones, and those that several classes share."""

from collections.abc import Sequence

from data_prep.conversion.options import Options
from lit_jax.errors import UserError
from lit_jax.text.captions import class_captions
from lit_jax.text.classes import ClassTable, some
from lit_jax.text.prompts import duplicates

_SHOWN = 5  # groups of classes in a line


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


def text_warnings(table: ClassTable, captions: Sequence[Sequence[str]]) -> list[str]:
    """A line on classes that have an empty caption among others, and one on species that share all of theirs."""
    lines = []
    partly = [table.names[i] for i, texts in enumerate(captions) if not all(texts)]
    if partly:
        lines.append(
            f"classes of which a caption is empty, and is trained on as such ({len(partly)}): {some(partly)}; fill the "
            "columns of its template, or leave that out"
        )
    names = [[table.names[i] for i in group] for group in duplicates(captions)]
    groups = [group for group in names if len(set(group)) > 1]  # rows of one species are told of elsewhere
    if groups:
        shown = "; ".join(" = ".join(group) for group in groups[:_SHOWN])
        shown += f" and {len(groups) - _SHOWN} more" if len(groups) > _SHOWN else ""
        lines.append(
            f"classes that share all captions with another ({sum(map(len, groups))} in {len(groups)} groups), so that "
            f"no model can tell them apart: {shown}"
        )
    return lines

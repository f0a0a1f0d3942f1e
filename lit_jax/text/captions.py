"""Makes captions of a row of metadata."""

import string
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache

from lit_jax.errors import UserError
from lit_jax.nearest import nearest
from lit_jax.text.classes import ClassTable

TEMPLATE = "A photo of the {common_name} {supercategory} {name}"
"""The captions of the paper (Figure 1): no full stop, and no supercategory where it is `OMIT`."""

OMIT = ("Animalia",)
"""Values that captions leave out: as a supercategory, Animalia only means "no better group was given"."""

SEPARATORS = (",", ";")
"""Literal texts of a template that stand between two values and never beside an absent one."""


def fields(template: str) -> tuple[str, ...]:
    """The column names in a template's braces, in order; `{}` gives the empty name.

    Raises:
        UserError: the braces do not match.

    Example:
        >>> fields("{name}, one of the {order} {{sic}}")
        ('name', 'order')
    """
    return tuple(column for _, column in _parse(template) if column is not None)


def caption(
    row: Mapping[str, str],
    template: str = TEMPLATE,
    *,
    omit: Collection[str] = OMIT,
    drop_repeats: bool = False,
    tidy: bool = True,
) -> str:
    """The caption of one class: the template with its `{column}` fields filled.

    A value that is empty or in `omit` leaves nothing behind: white space, wherever it comes from, becomes
    single spaces with none at the ends, and a comma or semicolon that stands alone between two fields is
    written between values only. `{{` and `}}` are literal braces. Nothing else is added or changed;
    braces inside a value are only text.

    Args:
        row: column name to text.
        template: any text with fields named after columns.
        omit: whole values to leave out, in whatever column.
        drop_repeats: leave out a value that an earlier field already gave, as where the common name of a
            species is its binomial.
        tidy: False leaves all white space as it stands in the table and the template.

    Raises:
        UserError: the template is malformed, or names a column that the row has not.

    Example:
        >>> caption({"common_name": "Pine White", "supercategory": "Insects", "name": "Neophasia menapia"})
        'A photo of the Pine White Insects Neophasia menapia'

    Source: the captions of Figure 1 of the paper that this package follows.
    """
    text: list[str] = []
    used: set[str] = set(omit)
    listed = False  # whether a value stands before in a list that commas keep apart
    for literal, column in _parse(template):
        value = "" if column is None else value_of(row, column)
        plain = value.strip()
        is_said = plain not in used and (bool(plain) or not tidy)
        separates = tidy and column is not None and literal.strip() in SEPARATORS
        if not separates or (is_said and listed):
            text.append(literal)
        if is_said:
            text.append(plain if tidy else value)
        listed = is_said or (separates and listed)
        if drop_repeats and column is not None:
            used.add(plain)
    return " ".join("".join(text).split()) if tidy else "".join(text)


def captions(
    row: Mapping[str, str],
    templates: Iterable[str],
    *,
    omit: Collection[str] = OMIT,
    drop_repeats: bool = False,
) -> tuple[str, ...]:
    """The captions of one class, one a template; see `caption`."""
    return tuple(caption(row, template, omit=omit, drop_repeats=drop_repeats) for template in templates)


def class_captions(
    table: ClassTable,
    templates: Sequence[str],
    *,
    omit: Collection[str] = OMIT,
    drop_repeats: bool = False,
) -> list[tuple[str, ...]]:
    """`[K][P]` captions: one tuple a class in the order of the table, one caption a template in it."""
    return [captions(row, templates, omit=omit, drop_repeats=drop_repeats) for row in table.rows()]


def fitted(template: str, columns: Collection[str]) -> str:
    """The template less the fields of which a table has no column; all of it if none would be left.

    Example:
        >>> fitted(TEMPLATE, ("name", "common_name"))
        'A photo of the {common_name} {name}'
    """
    text = []
    for literal, column in _parse(template):
        text.append(literal.replace("{", "{{").replace("}", "}}"))
        if column in columns:
            text.append(f"{{{column}}}")
    known = any(column in columns for column in fields(template))
    return " ".join("".join(text).split()) if known else template


@lru_cache(maxsize=1024)
def _parse(template: str) -> tuple[tuple[str, str | None], ...]:
    """The template as pairs of literal text and the column that follows it, None after the last text."""
    parts = []
    try:
        for literal, column, spec, conversion in string.Formatter().parse(template):
            if column is not None:
                # A column may be called "a:b" or "a!b"; here a colon has no other meaning.
                column += (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            parts.append((literal, column))
    except ValueError as error:
        raise UserError(
            f"template {template!r}: found bad braces ({error}), expected {{column}}; write {{{{ for a brace"
        ) from error
    return tuple(parts)


def value_of(row: Mapping[str, str], column: str, what: str = "template") -> str:
    """One field of a row; raises `UserError` that names the nearest column if there is none. `what` asked for it."""
    if column in row:
        return row[column]
    if not column:
        raise UserError(f"{what}: found {{}}, expected {{column}}; name a column of the class table")
    near = nearest(column, row)
    hint = f"the nearest is {near!r}" if near else "name one"
    raise UserError(f"{what}: found column {column!r}, expected one of {', '.join(row)}; {hint}")

"""Makes prompts of class names and templates, which are data."""

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_jax.base import tables
from lit_jax.errors import UserError
from lit_jax.text.captions import OMIT, caption, class_captions, fields, fitted
from lit_jax.text.classes import ClassTable

NAME_TEMPLATE = "{common_name} {supercategory} {name}"
"""The class name as the captions of the paper spell it."""

RECORDED_TEMPLATE = "{common_name} {supercategory} {genus}"
"""The class name as the paper's recorded runs were evaluated: the genus only, and "Animalia" kept."""

PROTOCOLS = ("caption", "recorded")
"""How a class is named in prompts: `NAME_TEMPLATE` or `RECORDED_TEMPLATE`."""


def read_templates(path: str | Path) -> tuple[str, ...]:
    """Reads prompt or caption templates, one a line.

    Blank lines and lines that begin with `#` are skipped. A template has either exactly one `{}`, which
    stands for the class name, or named fields such as `{family}`, which stand for columns of the class table.

    Returns:
        The templates in the order of the file, without the white space around them; at least one.

    Raises:
        UserError: no such file, no text, no template, or a bad one (with file and line).
    """
    lines = tables.lines_of(tables.read_text(path, "templates"))
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1)]
    kept = [(number, line) for number, line in numbered if line and not line.startswith("#")]
    for number, line in kept:
        _check(line, f"{path} line {number}")
    if not kept:
        raise UserError(f"{path}: found no template, expected one a line; add for example 'A photo of a {{}}'")
    return tuple(line for _, line in kept)


def prompts(
    rows: Iterable[Mapping[str, str]],
    templates: Sequence[str],
    *,
    name_template: str = "",
    omit: Collection[str] = OMIT,
    drop_repeats: bool = False,
    tidy: bool = True,
) -> list[list[str]]:
    """The texts that stand for each class in zero-shot classification.

    Args:
        rows: K classes, each column name to text.
        templates: P templates. `{}` stands for the class's name, which `name_template` makes by the caption
            rule; a template with named fields is filled by the caption rule itself.
        name_template: the class name from columns, for example "{common_name} {supercategory} {genus}" with
            `omit=()` for the protocol of the recorded runs; empty for `NAME_TEMPLATE`, less the columns that
            the rows do not have.
        omit: values left out of names and fields.
        drop_repeats: leave out what an earlier column said already, as `lit_jax.text.captions.caption` does.
        tidy: likewise.

    Returns:
        `[K][P]` texts, in the order of `rows` and `templates`. Classes may share them: see `duplicates`.

    Raises:
        UserError: a template has neither one `{}` nor named fields, names an unknown column, or says nothing
            of a class because all its values are empty or omitted.

    Example:
        >>> row = {"common_name": "Pine White", "supercategory": "Insects", "name": "Neophasia menapia"}
        >>> prompts([row], ["a drawing of a {}.", "one of the {supercategory}"])
        [['a drawing of a Pine White Insects Neophasia menapia.', 'one of the Insects']]
    """
    for template in templates:
        _check(template, f"template {template!r}")
    if name_template:
        _check(name_template, f"name template {name_template!r}", named=True)
    blank = {template: "" in fields(template) for template in templates}
    result = []
    for number, row in enumerate(rows):
        own = name_template or fitted(NAME_TEMPLATE, row)
        filled = functools.partial(_filled, number, row, omit=omit, drop_repeats=drop_repeats, tidy=tidy)
        name = filled(own) if any(blank.values()) else ""
        result.append(
            [
                caption({"": name}, template, omit=(), tidy=tidy) if blank[template] else filled(template)
                for template in templates
            ]
        )
    return result


def named_by(protocol: str) -> dict[str, Any]:
    """The arguments of `prompts` by which classes are named in one of `PROTOCOLS`."""
    # Two of iNaturalist's common names hold two blanks in a row, and so did the recorded labels.
    return {"name_template": RECORDED_TEMPLATE, "omit": (), "tidy": False} if protocol == "recorded" else {}


def templates_for(protocol: str, templates: Sequence[str]) -> tuple[str, ...]:
    """The prompt templates, or the bare name where the recorded protocol has none: captions name otherwise."""
    return tuple(templates) or (("{}",) if protocol == "recorded" else ())


def duplicates(prompts: Sequence[Sequence[str]]) -> list[tuple[int, ...]]:
    """Groups of classes that no model can tell apart, because all their prompts are equal but for case.

    Case does not count, since the tokenizers of CLIP and of this package fold it.

    Args:
        prompts: `[K][P]` texts.

    Returns:
        The row numbers of each group of two or more, ascending; groups in the order of their first row.
        Without ties to break, K less (members - groups) classes can be right at most.

    Example:
        >>> duplicates([["a Wren"], ["a robin"], ["a wren"]])
        [(0, 2)]
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, texts in enumerate(prompts):
        groups.setdefault(tuple(text.casefold() for text in texts), []).append(number)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _check(template: str, where: str, *, named: bool = False) -> None:
    """Refuses a template that has not exactly one `{}` or, where `named` is False too, named fields only."""
    try:
        found = fields(template)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    blanks = found.count("")
    if (found and not blanks) or (found == ("",) and not named):
        return
    wanted = "named {column} fields" if named else "exactly one {} or named {column} fields"
    raise UserError(
        f"{where}: found {blanks} {{}} and {len(found) - blanks} named fields, expected {wanted}; rewrite it"
    )


def _filled(
    number: int, row: Mapping[str, str], template: str, *, omit: Collection[str], drop_repeats: bool, tidy: bool
) -> str:
    """The template with the row's values; at least one of them must be left to say."""
    text = caption(row, template, omit=omit, drop_repeats=drop_repeats, tidy=tidy)
    if all(row[column].strip() in ("", *omit) for column in fields(template)):
        raise UserError(
            f"class row {number}: found only empty or omitted values for {template!r}, expected a name; "
            "fill in the class table or use other columns"
        )
    return text


def class_prompts(
    table: ClassTable, captions: Sequence[str], templates: Sequence[str], *, drop_repeats: bool, protocol: str
) -> dict[int, Sequence[str]]:
    """Prompts of every class, by class id.

    Args:
        table: the classes.
        captions: templates of the captions.
        templates: prompt templates. Without any, classes are called by their captions or, in the recorded protocol,
            by their bare names.
        drop_repeats: how captions are filled.
        protocol: one of `PROTOCOLS`.

    Raises:
        UserError: a template, or the protocol, asks for a column that the table has not.
    """
    templates = templates_for(protocol, templates)
    if templates:
        filled: Sequence[Sequence[str]] = prompts(
            table.rows(), templates, drop_repeats=drop_repeats, **named_by(protocol)
        )
    else:
        filled = class_captions(table, captions, drop_repeats=drop_repeats)
    return dict(zip(table.ids, filled, strict=True))

"""JSON of others, read without trust: what is damaged, too deep or of another shape is refused in one line."""

import json
from pathlib import Path
from typing import Any

from lit_jax.errors import DAMAGED, UserError, first_line


def parsed(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: bad JSON, of whatever kind: letters that are none, nesting that is too deep, numbers of thousands of
            digits.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except DAMAGED as error:
        raise ValueError(first_line(error)) from error


def loaded(path: Path) -> Any:
    """The value in a JSON file, UTF-8.

    Raises:
        OSError: it cannot be read.
        ValueError: as `parsed`, or no UTF-8.
    """
    return parsed(path.read_text(encoding="utf-8"))


def value_of(
    text: str, where: str | Path, expected: str, remedy: str = "mend the file", kind: type | None = None
) -> Any:
    """The value of a JSON text that a person brought.

    Args:
        text: the JSON.
        where: what to call it in errors.
        expected: what should be in it, likewise.
        remedy: what to do, likewise.
        kind: `dict` or `list`, if it must be one.

    Raises:
        UserError: bad JSON, half of a pair of surrogates, which no file can hold, or a value of another kind.
    """
    try:
        value = parsed(text)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where} line {error.lineno}: found bad JSON ({error.msg}), expected {expected}; {remedy}"
        ) from error
    except ValueError as error:
        raise UserError(f"{where}: found bad JSON ({first_line(error)}), expected {expected}; {remedy}") from error
    if kind is not None and not isinstance(value, kind):
        raise UserError(f"{where}: found {_named(value)}, expected {expected}; {remedy}")
    return value


def read_json(path: Path, expected: str, remedy: str = "mend the file", kind: type | None = None) -> Any:
    """The value in a JSON file, UTF-8; see `value_of`.

    Raises:
        UserError: no such file, no UTF-8, or as `value_of`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: found {error.strerror}, expected {expected}; check the path") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: found other bytes than UTF-8, expected {expected}; {remedy}") from error
    return value_of(text, path, expected, remedy, kind)


def _named(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "nothing"}
    return kinds.get(type(value), "a number")

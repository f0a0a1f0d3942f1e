"""JSON of others, read without trust: what is damaged, too deep or of another shape is refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from lit_jax.errors import DAMAGED, UserError, first_line

_Value = TypeVar("_Value")

LARGEST_ID = 2**63 - 1
"""Ids are stored in 64 bits with a sign."""


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


def read_json(path: Path, expected: str, remedy: str = "mend the file", kind: type | None = None) -> Any:
    """The value in a JSON file.

    Args:
        path: the file, UTF-8.
        expected: what should be in it, for errors.
        remedy: what to do, for errors.
        kind: `dict` or `list`, if it must be one.

    Raises:
        UserError: no such file, bad JSON, or a value of another kind.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        value = parsed(text)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()  # half of a pair of surrogates cannot be written again
    except OSError as error:
        raise UserError(f"{path}: found {error.strerror}, expected {expected}; check the path") from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} line {error.lineno}: found bad JSON ({error.msg}), expected {expected}; {remedy}"
        ) from error
    except ValueError as error:
        raise UserError(f"{path}: found bad JSON ({first_line(error)}), expected {expected}; {remedy}") from error
    if kind is not None and not isinstance(value, kind):
        raise UserError(f"{path}: found {_named(value)}, expected {expected}; {remedy}")
    return value


def shaped(path: Path, expected: str, remedy: str, read: Callable[[], _Value]) -> _Value:
    """What `read` makes of the content of a file; raises `UserError` where that is not as it should be."""
    try:
        return read()
    except UserError:
        raise
    except (OSError, *DAMAGED) as error:
        raise UserError(f"{path}: found {first_line(error)}, expected {expected}; {remedy}") from error


def _named(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "nothing"}
    return kinds.get(type(value), "a number")

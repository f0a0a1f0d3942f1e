"""The parser of every command: what is wrong with arguments in one line, and defaults told in one way."""

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

# What argparse says, and what a person is told.
_FORMS = (
    (r"argument (.+): invalid int value: (.+)", lambda m: f"{m[1]}: found {m[2]}, expected a whole number"),
    (r"argument (.+): invalid \w+ value: (.+)", lambda m: f"{m[1]}: found {m[2]}, expected a number"),
    (
        r"argument (.+): invalid choice: (.+) \(choose from (.+)\)",
        lambda m: f"{m[1]}: found {m[2]}, expected one of {m[3].replace(chr(39), '')}",
    ),
    (r"argument (.+): expected (?:one|at least one) argument", lambda m: f"{m[1]}: found no value, expected one"),
    (
        r"argument (.+): not allowed with argument (.+)",
        lambda m: f"{m[1]}: found it beside {m[2]}, expected one of them",
    ),
    (r"the following arguments are required: (.+)", lambda m: f"{m[1]}: found none, expected {_it(m[1])}"),
    (
        r"one of the arguments (.+) is required",
        lambda m: f"{', '.join(m[1].split())}: found none of them, expected one",
    ),
    (r"argument (.+)", lambda m: m[1]),
)


class Help(argparse.RawDescriptionHelpFormatter):
    """Tells defaults where there are any and the help does not; keeps the lines of texts that have several."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        told = action.help or ""
        takes_none = action.nargs == 0 or action.default in (None, argparse.SUPPRESS)
        if takes_none or action.default in ("", [], ()) or "(default: " in told:
            return action.help
        return f"{told} (default: %(default)s)".strip()

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return super()._fill_text(text, width, indent)
        return argparse.HelpFormatter._fill_text(self, text, width, indent)


class Parser(argparse.ArgumentParser):
    """Refuses arguments in one line, ``error: OPTION: found X, expected Y``, with exit code 2.

    An option that is not known is told before one that is missing, since it may be that one, misspelt.
    """

    def __init__(self, **options: Any):
        super().__init__(**{"formatter_class": Help, **options})

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """As argparse's; refuses what is not known."""
        arguments = list(sys.argv[1:] if args is None else args)
        names = (argument.partition("=")[0] for argument in arguments if argument.startswith("--"))
        known = self._option_string_actions
        self.refuse([name for name in names if not any(option.startswith(name) for option in known)])
        parsed, others = self.parse_known_args(arguments, namespace)
        self.refuse(others)
        return parsed

    def refuse(self, others: Sequence[str]) -> None:
        """Ends the command if there are arguments that it does not know; names the nearest option of the first."""
        if not others:
            return
        name = others[0].partition("=")[0]
        if not name.startswith("-"):
            self.error(f"arguments: found {others[0]!r}, expected options with two dashes only")
        near = difflib.get_close_matches(name, self._option_string_actions, n=1)
        self.error(
            f"{name}: found an unknown option, expected a known one" + "".join(f"; did you mean {n}?" for n in near)
        )

    def error(self, message: str) -> NoReturn:
        """Ends the command with one line."""
        found = next((said(match) for form, said in _FORMS if (match := re.fullmatch(form, message))), message)
        self.exit(2, f"error: {' '.join(found.split())} (--help lists the options)\n")


def positive(text: str) -> int:
    """The type of an option that is a whole number above 0."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"found {text}, expected a whole number above 0")
    return int(text)


def _it(names: str) -> str:
    return "them" if "," in names else "it"

"""The parser of every command: what is wrong with arguments in one line, and defaults told in one way."""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from lit_jax.errors import printable
from lit_jax.nearest import nearest

COMMANDS = {
    **dict.fromkeys(
        (
            "main",
            "embed",
            "evaluate",
            "predict",
            "search",
            "plan",
            "probe",
            "leaks",
            "robustness",
            "export",
            "site",
            "check_cluster",
        ),
        "lit_jax",
    ),
    **dict.fromkeys(
        (
            "convert",
            "captions",
            "ranks",
            "embeddings",
            "to_webdataset",
            "clip_templates",
            "field_guide",
            "pretrain_tower",
        ),
        "data_prep",
    ),
    "train": "lit_jax",
    "import": "data_prep",
}
"""Words that a person types for a command, and the package that it is in."""

_CALLED = {"train": "main", "import": "embeddings"}
_OTHER_WORDS: Mapping[str, tuple[str, ...]] = {
    "photos": ("images", "records"),
    "pictures": ("images", "photos", "records"),
    "images": ("photos", "records"),
    "folder": ("images", "photos", "records"),
    "input": ("images", "photos", "records"),
    "data": ("records", "store", "images"),
    "dataset": ("records", "store", "images"),
    "model": ("checkpoint",),
    "run": ("checkpoint",),
    "workdir": ("checkpoint",),
    "species": ("classes",),
    "names": ("labels", "classes"),
    "labels": ("classes",),
    "destination": ("out",),
    "confidence": ("sure",),
    "threshold": ("sure",),
    "topk": ("top",),
    "top-k": ("top",),
    "gpus": ("devices",),
    "force": ("overwrite", "restart"),
    "held-out": ("heldout",),
    "holdout": ("heldout",),
    "test": ("heldout", "split"),
    "verbose": (),
}
"""What others call an option, and the options that it may be; the first that a command has is named."""

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

    Args:
        elsewhere: an option that is not known, without dashes, and its value, to what to type for it instead, such as
            ``--config.train.epochs=3``; empty if nothing is meant.
        options: of argparse's.
    """

    def __init__(self, *, elsewhere: Callable[[str, str], str] | None = None, **options: Any):
        super().__init__(**{"formatter_class": Help, **options})
        self._elsewhere = elsewhere or (lambda *_: "")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """As argparse's; refuses what is not known."""
        arguments = list(sys.argv[1:] if args is None else args)
        if arguments and not arguments[0].startswith("-") and not self._get_positional_actions():
            self.refuse(arguments)
        known = self._option_string_actions
        for place, argument in enumerate(arguments):
            name = argument.partition("=")[0]
            if argument.startswith("--") and not any(option.startswith(name) for option in known):
                self.refuse(arguments[place:])
        parsed, others = self.parse_known_args(arguments, namespace)
        self.refuse(others)
        return parsed

    def refuse(self, others: Sequence[str]) -> None:
        """Ends the command if there are arguments that it does not know; tells what the first of them may be."""
        if not others:
            return
        name, equals, value = others[0].partition("=")
        if not name.startswith("-"):
            self.error(f"arguments: found {others[0]!r}, expected options with two dashes only{_as_command(name)}")
        if not equals and len(others) > 1 and not others[1].startswith("--"):
            value = others[1]
        meant = self._meant(name.lstrip("-").replace("_", "-"), value)
        hint = f"; did you mean {meant}?" if meant else ""
        self.error(f"{name}: found an unknown option, expected a known one{hint}")

    def _meant(self, name: str, value: str) -> str:
        """What an option may be that is not known: another word for one, one of the config, or one misspelt."""
        for action in self._get_positional_actions():
            if name in (action.dest, *(word for word, meant in _OTHER_WORDS.items() if action.dest in meant)):
                return f"{action.metavar or action.dest} without an option"
        known = [option[2:] for option in self._option_string_actions if option.startswith("--")]
        other = next((option for option in _OTHER_WORDS.get(name, ()) if option in known), "")
        elsewhere = self._elsewhere(name, value)
        near = other or (not elsewhere and nearest(name, known))
        return f"--{near}" if near else elsewhere

    def error(self, message: str) -> NoReturn:
        """Ends the command with one line."""
        found = next((said(match) for form, said in _FORMS if (match := re.fullmatch(form, message))), message)
        self.exit(2, f"error: {printable(' '.join(found.split()))} (--help lists the options)\n")


def _as_command(word: str) -> str:
    """What to type where a word is the name of another command; of a config, how it is given."""
    name = word.replace("-", "_")
    if name in COMMANDS:
        return f"; that command is python -m {COMMANDS[name]}.{_CALLED.get(name, name)}"
    return f"; did you mean --config={word}?" if word.endswith(".py") else ""


def positive(text: str) -> int:
    """The type of an option that is a whole number above 0."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"found {text}, expected a whole number above 0")
    return int(text)


def _it(names: str) -> str:
    return "them" if "," in names else "it"

"""Fills empty ranks of a class table from another one.

    python -m data_prep.ranks --classes mine.csv --from inat2021-categories.csv --out filled.csv

Kingdom to genus, supercategory and common name are taken by species, and failing that by genus where all its species
agree. No value that is there is changed; what differs, what was not found, and names that are near are listed.
"""

import argparse
from collections.abc import Sequence

from data_prep.conversion.ranks import GENUS, SPECIES, Report, filled
from lit_jax.base.command_line import Parser
from lit_jax.base.console import say
from lit_jax.base.files import new_file
from lit_jax.errors import user_errors_in_one_line
from lit_jax.text.classes import read_class_table, write_class_table


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command; `argv` are its arguments, by default those of the process."""
    args = _arguments(argv)
    with user_errors_in_one_line():
        new_file(args.out, overwrite=args.overwrite)
        table, source = read_class_table(args.classes), read_class_table(args.source)
        for note in (*table.notes, *source.notes):
            say(note)
        made, report = filled(table, source)
        say("\n".join(lines_of(report, len(table), args.show)))
        write_class_table(made, args.out)
        say(f"wrote {len(made)} classes to {args.out}")


def lines_of(report: Report, classes: int, show: int) -> list[str]:
    """The report in lines, so many of each kind."""
    by = report.by
    cells = ", ".join(f"{count} of {column}" for column, count in report.cells.items()) or "none"
    lines = [f"of {classes} classes {by[SPECIES]} found by species and {by[GENUS]} by genus; values filled: {cells}"]
    for heading, found in (
        ("not found, with neither species nor genus", report.missing),
        ("near to a name there; correct them if they are the same", report.near),
        ("of several kingdoms there, or of another one; say the kingdom or correct it", report.ambiguous),
        ("differ from the values there and were left", report.contradictions),
        ("left empty, because species there do not agree", report.disagreeing),
        ("taken for granted", report.assumed),
    ):
        if found:
            lines += [f"{heading} ({len(found)}):", *(f"  {line}" for line in found[:show])]
            lines += [f"  and {len(found) - show} more"] if len(found) > show else []
    return lines


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m data_prep.ranks", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--classes", required=True, metavar="FILE", help="class table to fill, CSV or JSON")
    parser.add_argument(
        "--from", required=True, dest="source", metavar="FILE", help="class table to take from, CSV or JSON"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="CSV to write")
    parser.add_argument("--overwrite", action="store_true", help="also if the file is there")
    parser.add_argument("--show", type=int, default=20, metavar="N", help="lines of each list to print")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()

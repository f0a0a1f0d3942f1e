"""Shows what captions a class table gives, and chooses its columns.

    python -m data_prep.captions --classes table.csv
    python -m data_prep.captions --classes table.csv --template "A {common_name}" --template "A {name}"
    python -m data_prep.captions --classes table.csv --select --budget 16 --out captions.csv

Prints a report: whether the captions tell the classes apart, how many tokens they have, and some of them.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from data_prep.conversion.columns import Tokenize, describe, report, select_columns, statistics_lines, words
from lit_jax.errors import user_errors_in_one_line
from lit_jax.text.captions import OMIT, TEMPLATE, class_captions, fitted
from lit_jax.text.classes import ClassTable, read_class_table, write_class_table
from lit_jax.text.prompts import read_templates
from lit_jax.text.tokenizers import load_tokenizer


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command; `argv` are its arguments, by default those of the process."""
    args = _arguments(argv)
    with user_errors_in_one_line():
        table = read_class_table(args.classes)
        for note in table.notes:
            print(note)
        tokenize: Tokenize = load_tokenizer(args.tokenizer).pieces if args.tokenizer else words
        omit = OMIT if args.omit is None else tuple(args.omit)
        if args.select:
            columns = args.columns.split(",") if args.columns else None
            budget = 16 if args.budget is None else args.budget
            chosen = select_columns(table, columns=columns, budget=budget, tokenize=tokenize, omit=omit)
            print(report(chosen))
            templates: tuple[str, ...] = (chosen.template,)
        else:
            written = read_templates(args.templates) if args.templates else tuple(args.template or ())
            templates = written or (fitted(TEMPLATE, table.columns),)
        texts = class_captions(table, templates, omit=omit, drop_repeats=args.drop_repeats)
        if not args.select:
            _print_statistics(table, templates, texts, tokenize)
        _print_some(table, texts, args.show)
        if args.out:
            write_class_table(_with_captions(table, texts), args.out)
            print(f"\nwrote {len(table)} classes with their captions to {args.out}")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m data_prep.captions", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--classes", required=True, metavar="FILE", help="class table, CSV or JSON")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--template", action="append", metavar="TEXT", help="text with {column} fields; repeatable")
    source.add_argument("--templates", metavar="FILE", help="file of templates, one a line")
    source.add_argument("--select", action="store_true", help="choose the columns that tell classes apart best")
    parser.add_argument("--budget", type=int, metavar="N", help="with --select: most tokens a caption (16)")
    parser.add_argument("--columns", metavar="A,B", help="with --select: candidate columns (all but id, folder, ...)")
    parser.add_argument("--tokenizer", metavar="FILE", help="SentencePiece model to count by, instead of words")
    parser.add_argument("--omit", action="append", metavar="VALUE", help="value to leave out (Animalia); repeatable")
    parser.add_argument("--drop-repeats", action="store_true", help="say a value once where two columns agree")
    parser.add_argument("--show", type=int, default=6, metavar="N", help="captions to print (6)")
    parser.add_argument("--out", metavar="FILE", help="CSV to write: id, name and captions of each class")
    args = parser.parse_args(argv)
    if not args.select and (args.columns is not None or args.budget is not None):
        parser.error("--columns, --budget: found without --select, expected with it; add --select")
    if args.select and args.drop_repeats:
        parser.error("--drop-repeats: found with --select, expected with templates; give the chosen one back")
    return args


def _print_statistics(
    table: ClassTable, templates: Sequence[str], texts: Sequence[Sequence[str]], tokenize: Tokenize
) -> None:
    for number, template in enumerate(templates):
        statistics = describe([row[number] for row in texts], table.ids, tokenize=tokenize)
        print("\n".join([f"template  {template}", *statistics_lines(statistics)]))


def _print_some(table: ClassTable, texts: Sequence[Sequence[str]], show: int) -> None:
    """Prints the captions of some classes spread evenly over the table."""
    rows = np.linspace(0, len(table) - 1, num=max(0, min(show, len(table))), dtype=int)
    lines = [f"{table.ids[i]:>9}  {text}" for i in rows for text in texts[i]]
    print("\n".join(["", *lines]))


def _with_captions(table: ClassTable, texts: Sequence[Sequence[str]]) -> ClassTable:
    """A class table of names and captions: column `caption`, or `caption_0`, ... for several templates."""
    columns = list(zip(*texts, strict=True))
    names = ["caption"] if len(columns) == 1 else [f"caption_{i}" for i in range(len(columns))]
    return ClassTable(table.ids, {"name": table.names, **dict(zip(names, columns, strict=True))})


if __name__ == "__main__":
    main()

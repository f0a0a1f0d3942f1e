"""Shows what captions a class table gives, and chooses its columns.

    python -m data_prep.captions --classes table.csv
    python -m data_prep.captions --classes table.csv --template "A {common_name}" --template "A {name}"
    python -m data_prep.captions --classes table.csv --select --budget 16 --out captions.csv
    python -m data_prep.captions --select transfer --store data/mine_store

``--select`` takes the columns that tell the classes apart best, as in the paper; ``--select transfer`` those by which
species are named of which there was no photo, found out on species of the training split of a store that are held out
in turn.

Prints a report: whether the captions tell the classes apart, how many tokens they have, and some of them.
"""

import argparse
import functools
from collections.abc import Sequence

import numpy as np

from data_prep.conversion import transfer
from data_prep.conversion.columns import (
    Tokenize,
    candidates,
    describe,
    report,
    select_columns,
    statistics_lines,
    words,
)
from data_prep.conversion.texts import silent
from lit_jax.base.command_line import Parser
from lit_jax.base.console import say
from lit_jax.base.files import new_file
from lit_jax.data.dataset_folder import check_split
from lit_jax.data.embedding_store import open_store
from lit_jax.errors import UserError, user_errors_in_one_line
from lit_jax.text.candidates import read_candidates
from lit_jax.text.captions import OMIT, TEMPLATE, class_captions, fitted
from lit_jax.text.classes import ClassTable, read_class_table, some, write_class_table
from lit_jax.text.prompts import read_templates
from lit_jax.text.tokenizers import load_tokenizer

DISTINCT, TRANSFER = "distinct", "transfer"
"""What columns are chosen for."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command; `argv` are its arguments, by default those of the process."""
    args = _arguments(argv)
    with user_errors_in_one_line():
        if args.out:
            new_file(args.out, overwrite=args.overwrite)
        tokenize: Tokenize = load_tokenizer(args.tokenizer).pieces if args.tokenizer else words
        omit = OMIT if args.omit is None else tuple(args.omit)
        if args.select == TRANSFER:
            table, templates = _by_transfer(args, omit)
        else:
            table = read_class_table(args.classes)
            for note in table.notes:
                say(note)
            templates = _by_distinction(args, table, tokenize, omit) if args.select else _given(args, table)
        texts = class_captions(table, templates, omit=omit, drop_repeats=args.drop_repeats)
        if args.select != DISTINCT:
            _print_statistics(table, templates, texts, tokenize)
        _print_some(table, texts, args.show)
        if names := silent(table, texts):
            say(f"warning: {len(names)} classes have no caption: {some(names)}; add a column that they have")
        if args.out:
            write_class_table(_with_captions(table, texts), args.out)
            say(f"\nwrote {len(table)} classes with their captions to {args.out}")


def _given(args: argparse.Namespace, table: ClassTable) -> tuple[str, ...]:
    written = read_templates(args.templates) if args.templates else tuple(args.template or ())
    return written or (fitted(TEMPLATE, table.columns),)


def _by_distinction(
    args: argparse.Namespace, table: ClassTable, tokenize: Tokenize, omit: Sequence[str]
) -> tuple[str, ...]:
    columns = args.columns.split(",") if args.columns else None
    budget = 16 if args.budget is None else args.budget
    chosen = select_columns(table, columns=columns, budget=budget, tokenize=tokenize, omit=omit)
    say(report(chosen))
    return (chosen.template,)


def _by_transfer(args: argparse.Namespace, omit: Sequence[str]) -> tuple[ClassTable, tuple[str, ...]]:
    """The store's table, or the given one under the ids of its classes, and the template."""
    if not args.store:
        raise UserError("--store: found none, expected an embedding store with --select transfer; make one and give it")
    if args.budget is not None:
        raise UserError(
            f"--budget: found {args.budget} with --select transfer, expected none: columns are added until they help "
            "no more; leave it out, or name fewer with --columns"
        )
    store = open_store(args.store)
    check_split(args.train_split, store.splits, store.directory, option="--train-split")
    table = read_class_table(store.class_table)
    if args.classes:
        table, notes = read_candidates(args.classes, table)
        for note in notes:
            say(note)
    columns = candidates(table, args.columns.split(",") if args.columns else None)
    tell = functools.partial(print, flush=True)
    task = transfer.task_of(store, table, args.train_split, omit=omit, tell=tell)
    chosen = transfer.choose(task, columns, tell=tell)
    say(transfer.report(task, chosen))
    return table, (chosen.template,)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m data_prep.captions", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--classes",
        metavar="FILE",
        help="class table, CSV or JSON; not needed with --select transfer (default: that of the store)",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--template",
        action="append",
        metavar="TEXT",
        help="text with {column} fields; repeatable (default: the paper's)",
    )
    source.add_argument("--templates", metavar="FILE", help="file of templates, one a line")
    source.add_argument(
        "--select", nargs="?", const=DISTINCT, default="", choices=(DISTINCT, TRANSFER),
        help="choose the columns that tell classes apart best (distinct, if no value is given), or those by which "
        "species without a photo are named best (transfer)",
    )  # fmt: skip
    parser.add_argument(
        "--budget", type=int, metavar="N", help="with --select distinct: most tokens a caption (default: 16)"
    )
    parser.add_argument("--store", metavar="FOLDER", help="with --select transfer: embedding store of training photos")
    parser.add_argument(
        "--train-split", default="train", metavar="SPLIT", help="with --select transfer: split to learn from"
    )
    parser.add_argument(
        "--columns", metavar="A,B", help="with --select: candidate columns (default: all but id, folder, ...)"
    )
    parser.add_argument("--tokenizer", metavar="FILE", help="SentencePiece model to count by (default: words)")
    parser.add_argument(
        "--omit", action="append", metavar="VALUE", help="value to leave out; repeatable (default: Animalia)"
    )
    parser.add_argument("--drop-repeats", action="store_true", help="say a value once where two columns agree")
    parser.add_argument("--show", type=int, default=6, metavar="N", help="captions to print")
    parser.add_argument("--out", metavar="FILE", help="CSV to write: id, name and captions of each class")
    parser.add_argument("--overwrite", action="store_true", help="also if the file is there")
    args = parser.parse_args(argv)
    if not args.classes and args.select != TRANSFER:
        parser.error("the following arguments are required: --classes")
    if args.store and args.select != TRANSFER:
        parser.error("--store: found without --select transfer, expected with it; add it")
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
        say("\n".join([f"template  {template}", *statistics_lines(statistics)]))


def _print_some(table: ClassTable, texts: Sequence[Sequence[str]], show: int) -> None:
    """Prints the captions of some classes spread evenly over the table."""
    rows = np.linspace(0, len(table) - 1, num=max(0, min(show, len(table))), dtype=int)
    lines = [f"{table.ids[i]:>9}  {text}" for i in rows for text in texts[i]]
    say("\n".join(["", *lines]))


def _with_captions(table: ClassTable, texts: Sequence[Sequence[str]]) -> ClassTable:
    """A class table of names and captions: column `caption`, or `caption_0`, ... for several templates."""
    columns = list(zip(*texts, strict=True))
    names = ["caption"] if len(columns) == 1 else [f"caption_{i}" for i in range(len(columns))]
    return ClassTable(table.ids, {"name": table.names, **dict(zip(names, columns, strict=True))})


if __name__ == "__main__":
    main()

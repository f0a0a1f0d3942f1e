"""Embeddings computed elsewhere to an embedding store: `python -m data_prep.embeddings` or `lit-jax-import`."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from data_prep.conversion.arguments import add_shared_options, options_of
from data_prep.import_embeddings.arrays import READERS
from data_prep.import_embeddings.embedding_files import (
    Given,
    read_embeddings,
    read_ids,
)
from data_prep.import_embeddings.embeddings import SHARD_ROWS, Storing, import_embeddings
from data_prep.import_embeddings.heads import HeadUse, read_left_out
from data_prep.import_embeddings.stores import photos_of_store, store_among
from lit_jax.base.command_line import Parser
from lit_jax.base.console import say
from lit_jax.data import embedding_store
from lit_jax.errors import UserError, user_errors_in_one_line
from lit_jax.text.candidates import read_class_tables
from lit_jax.text.classes import NAME_COLUMNS, read_class_table


def main(argv: Sequence[str] | None = None) -> None:
    """The command; see ``--help``."""
    arguments = _parser().parse_args(argv)
    with user_errors_in_one_line("run the same command to go on"):
        store = _store(arguments)
        _check(arguments, bool(store))
        given = photos_of_store(store) if store else _given(arguments)
        tables = [store.class_table, *arguments.classes] if store else arguments.classes
        table, lines = read_class_tables(tables)
        for line in lines:
            say(line, flush=True)
        import_embeddings(
            given,
            table,
            arguments.out,
            options_of(arguments),
            Storing(arguments.dtype, arguments.shard_rows, arguments.tower_name),
            head=_head(arguments, named=bool(store)) if arguments.head else None,
            restart=arguments.restart,
        )


def _store(arguments: argparse.Namespace) -> embedding_store.Store | None:
    """The store that is given instead of files of embeddings."""
    folder = store_among(arguments.embeddings or ())
    return embedding_store.open_store(folder) if folder else None


def _check(arguments: argparse.Namespace, of_store: bool) -> None:
    """Refuses options that do not go together."""
    if of_store and (arguments.ids or arguments.tower_name or not arguments.head):
        raise UserError(
            "--embeddings: found a store, expected --head and neither --ids nor --tower-name beside it: its photos are "
            "listed and its tower has a name"
        )
    if not (arguments.embeddings or arguments.head):
        raise UserError("--embeddings: found none, expected files of embeddings, a classifier with --head, or both")
    if arguments.embeddings and not (arguments.ids or arguments.head):
        raise UserError("--ids: found none, expected the list of the embeddings' photos; give it")
    if arguments.ids and not arguments.embeddings:
        raise UserError("--ids: found a list and no --embeddings, expected both; add them or drop the list")
    if not arguments.head and (arguments.leave_out or arguments.head_name or arguments.head_anyway):
        raise UserError(
            "--head: found none, expected a classifier for --leave-out, --head-name and --head-anyway; give it, or "
            "hold out species with --heldout-classes"
        )


def _given(arguments: argparse.Namespace) -> Given | None:
    if not arguments.embeddings:
        return None
    embeddings = read_embeddings(
        arguments.embeddings,
        key=arguments.key,
        files_key=arguments.files_key,
        names=arguments.names,
        by_order=arguments.by_order,
    )
    return Given(embeddings, read_ids(arguments.ids), arguments.ids.parent) if arguments.ids else Given(embeddings, [])


def _head(arguments: argparse.Namespace, *, named: bool) -> HeadUse:
    from data_prep.import_embeddings.head_files import read_head  # with it comes JAX, which embeddings do without

    head = read_head(arguments.head, arguments.head_name)
    left_out = read_left_out(arguments.leave_out) if arguments.leave_out else ()
    first = read_class_table(arguments.classes[0])
    if named and head.labels is None and len(first) == len(head.weight):
        # The store's table numbers the classes: a head without names goes by its own table's order, and then by name.
        columns = [first.columns.get(column, ("",) * len(first)) for column in NAME_COLUMNS]
        head = dataclasses.replace(head, labels=tuple(zip(*columns, strict=True)))
    return HeadUse(head, first.ids, left_out, arguments.head_anyway)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m data_prep.embeddings",
        description="Embeddings of any tower, computed elsewhere, or the last layer of a classifier, or both, to an "
        "embedding store that lit_jax trains on.",
    )
    add = parser.add_argument
    kinds = ", ".join(READERS)
    add(
        "--embeddings",
        type=Path,
        nargs="+",
        metavar="FILE",
        help=f"[N, W] or [N, V, W]: {kinds}; with --head a store as well",
    )
    add("--ids", type=Path, metavar="CSV", help="row by row: file, and if wanted class and split")
    tables = "class table, CSV or JSON; of several the first numbers the classes"
    add("--classes", type=Path, nargs="+", required=True, metavar="CSV", help=tables)
    add("--out", type=Path, required=True, metavar="DIR", help="folder to make")
    add("--key", default="", metavar="NAME", help="array of the embeddings (default: the only one that can be, or emb)")
    names = parser.add_mutually_exclusive_group()
    names.add_argument("--files-key", default="", metavar="NAME", help="array of names in .npz (default: the only one)")
    names.add_argument("--names", type=Path, metavar="TXT", help="names of the embeddings instead, one a line")
    names.add_argument("--by-order", action="store_true", help="row i of the CSV is embedding i in any case")
    head = parser.add_argument_group("a classifier's last layer, a row a class")
    head.add_argument("--head", metavar="FILE", help="weights, .npz or .npy, a folder, or hf-hub:OWNER/NAME")
    head.add_argument("--head-name", default="", metavar="NAME", help="array of its weight (default: the usual one)")
    head.add_argument("--leave-out", type=Path, metavar="FILE", help="species never to be read: CSV or one a line")
    head.add_argument("--head-anyway", action="store_true", help="even if it does not name the given photos")
    add_shared_options(parser)
    add("--dtype", choices=list(embedding_store.DTYPES), default="float16", help="to store in")
    add("--shard-rows", type=int, default=SHARD_ROWS, help="rows of a shard at most")
    add(
        "--tower-name",
        default="",
        metavar="TEXT",
        help="what made the embeddings: another store of that name "
        "and width counts as of the same tower (default: name of the file)",
    )
    add("--restart", action="store_true", help="replace an earlier store in the same folder")
    return parser


if __name__ == "__main__":
    main()

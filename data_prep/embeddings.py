"""Embeddings computed elsewhere to an embedding store: `python -m data_prep.embeddings` or `lit-jax-import`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from data_prep.conversion.arguments import Help, add_shared_options, options_of
from data_prep.import_embeddings.arrays import READERS
from data_prep.import_embeddings.embedding_files import (
    Given,
    read_embeddings,
    read_ids,
)
from data_prep.import_embeddings.embeddings import SHARD_ROWS, Storing, import_embeddings
from lit_jax.data import embedding_store
from lit_jax.errors import user_errors_in_one_line
from lit_jax.text.classes import read_class_table


def main(argv: Sequence[str] | None = None) -> None:
    """The command; see ``--help``."""
    arguments = _parser().parse_args(argv)
    with user_errors_in_one_line("run the same command to go on"):
        embeddings = read_embeddings(
            arguments.embeddings,
            key=arguments.key,
            files_key=arguments.files_key,
            names=arguments.names,
            by_order=arguments.by_order,
        )
        import_embeddings(
            Given(embeddings, read_ids(arguments.ids), arguments.ids.parent),
            read_class_table(arguments.classes),
            arguments.out,
            options_of(arguments),
            Storing(arguments.dtype, arguments.shard_rows, arguments.tower_name),
            restart=arguments.restart,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.embeddings",
        description="Embeddings of any tower, computed elsewhere, to an embedding store that lit_jax trains on.",
        formatter_class=Help,
    )
    add = parser.add_argument
    kinds = ", ".join(READERS)
    add("--embeddings", type=Path, nargs="+", required=True, metavar="FILE", help=f"[N, W] or [N, V, W]: {kinds}")
    add("--ids", type=Path, required=True, metavar="CSV", help="row by row: file, and if wanted class and split")
    add("--classes", type=Path, required=True, metavar="CSV", help="class table, CSV or JSON")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to make")
    add("--key", default="", metavar="NAME", help="array of the embeddings (the only one that can be, or emb)")
    names = parser.add_mutually_exclusive_group()
    names.add_argument("--files-key", default="", metavar="NAME", help="array of names in .npz (the only one)")
    names.add_argument("--names", type=Path, metavar="TXT", help="names of the embeddings instead, one a line")
    names.add_argument("--by-order", action="store_true", help="row i of the CSV is embedding i in any case")
    add_shared_options(parser)
    add("--dtype", choices=list(embedding_store.DTYPES), default="float16", help="to store in")
    add("--shard-rows", type=int, default=SHARD_ROWS, help="rows of a shard at most")
    add(
        "--tower-name",
        default="",
        metavar="TEXT",
        help="what made the embeddings: another store of that name "
        "and width counts as of the same tower (name of the file)",
    )
    add("--restart", action="store_true", help="replace an earlier store in the same folder")
    return parser


if __name__ == "__main__":
    main()

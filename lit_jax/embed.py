"""Embed once: ``python -m lit_jax.embed --config=configs/cub.py`` runs the frozen tower once over a record set."""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import cast

import jax

from lit_jax import config as options
from lit_jax.base import cluster, hosts
from lit_jax.base.command_line import Parser, positive
from lit_jax.base.console import say
from lit_jax.base.hosts import Host
from lit_jax.config import Config
from lit_jax.data import embedding_store
from lit_jax.data.collection import store_folder
from lit_jax.data.embedding_store import Store
from lit_jax.embedding import to_store
from lit_jax.embedding.to_store import Frozen, Making
from lit_jax.errors import UserError, user_errors_in_one_line
from lit_jax.settling import settle_embedding


def embed(config: Config, out: str | pathlib.Path, making: Making | None = None, *, restart: bool = False) -> Store:
    """Writes the store of a config's records and image tower, or goes on writing it.

    Args:
        config: from `lit_jax.config.load`; its image tower must be locked and have weights.
        out: the folder to make.
        making: dtype, views and so on; None for the defaults.
        restart: make anew what is there already.

    Raises:
        UserError: as `lit_jax.settling.settle_embedding` and `lit_jax.embedding.to_store.embed`.
        Stopped: when asked to; what was embedded is kept.
    """
    # Without a part, what comes out is whole.
    return cast(Store, embed_part(config, out, making or Making(), restart=restart, part=None))


def embed_part(
    config: Config, out: str | pathlib.Path, making: Making, *, restart: bool, part: Host | None
) -> Store | None:
    """As `embed`, or a part of its shards; None while others are missing, see `lit_jax.embedding.to_store.embed`."""
    hosts.ensure_shared(pathlib.Path(out).absolute().parent, option="--out")
    settled, records = settle_embedding(config)
    frozen = Frozen(settled.towers, settled.data)
    return to_store.embed(frozen, records, out, making, restart=restart, notes=settled.notes, part=part)


def main(argv: Sequence[str] | None = None) -> None:
    """The command: writes a store, or verifies one."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with user_errors_in_one_line("run the same command to go on with the shards that are missing"):
        rest, overrides = options.split_arguments(arguments)
        parsed = _parser().parse_args(rest)
        config, prepare = options.load(parsed.config, overrides)
        out = pathlib.Path(parsed.out) if parsed.out else store_folder(config.data)
        if parsed.verify:
            say(f"{out}: {embedding_store.verify(embedding_store.open_store(out))} files are as they were written")
            return
        part = _part(parsed)
        with cluster.joined(parsed, to_store.locks_of(out)):
            if prepare:
                hosts.make_on_first_host(lambda: prepare(config), config.data.records, "records")
            making = Making(parsed.dtype, parsed.views, parsed.batch_size, parsed.shard_rows, config.train.devices)
            made = embed_part(config, out, making, restart=parsed.restart, part=part)
            if made is None:
                say(f"part {parsed.part} is embedded; the last part to end finishes {out}")
            elif jax.process_index() == 0:
                is_usual = out == store_folder(config.data)
                say(described_store(made, "" if is_usual else f" --config.data.store={out}"))


def described_store(made: Store, where: str) -> str:
    """What a store holds, in a line a split, and how to train from it; `where` is the option that finds it."""
    lines = [
        f"{made.directory}: width {made.width}, {made.dtype}",
        *(
            f"  {split}: {made.examples(split):,} photos in {made.views[split]} view{'s' * (made.views[split] > 1)}, "
            f"{made.nbytes(split) / 1e6:,.1f} MB"
            for split in made.splits
        ),
        f"train from it with --config.input=store{where}",
    ]
    return "\n".join(lines)


def _part(parsed: argparse.Namespace) -> Host | None:
    """The part of the shards that ``--part`` asks for."""
    if not parsed.part:
        return None
    index, _, count = parsed.part.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise UserError(f"--part: found {parsed.part}, expected I/N with I from 0 to N - 1, such as 0/16")
    for option, is_given in (
        ("--restart", parsed.restart),
        ("--distributed", parsed.distributed or parsed.coordinator),
    ):
        if is_given:
            raise UserError(f"--part: found it beside {option}, expected one of them")
    return Host(int(index), int(count))


def _parser() -> Parser:
    parser = Parser(
        prog="python -m lit_jax.embed",
        elsewhere=options.as_override,
        description="Runs the frozen image tower of a config once over its records and stores what it says of each "
        "photo. Run again to go on after an interruption. Options of the config are given as for lit_jax.main.",
        epilog=cluster.EXIT_CODES,
    )
    add = parser.add_argument
    add("--config", required=True, help="a Python file such as configs/cub.py")
    add(
        "--out",
        default="",
        help="folder to make (default: data.store of the config, or that of the records and _store)",
    )
    add("--dtype", default="float16", choices=sorted(embedding_store.DTYPES), help="of the stored features")
    add("--views", type=positive, default=1, help="of each training photo: the plain one, then random crops")
    add("--batch-size", type=positive, default=256, help="photos at a time")
    add("--shard-rows", type=positive, default=16384, help="photos of a shard at the most")
    add(
        "--part",
        default="",
        metavar="I/N",
        help="write only part I of N, from 0; processes that know nothing of each other, such as the tasks of an array "
        "of SLURM, write one each into the same folder, and the last finishes the store",
    )
    add("--restart", action="store_true", help="make anew what is there already")
    add("--verify", action="store_true", help="write nothing; compare every file with its checksum")
    cluster.add_hosts(parser)
    return parser


if __name__ == "__main__":
    main()

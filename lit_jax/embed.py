"""Embed once: ``python -m lit_jax.embed --config=configs/cub.py`` runs the frozen tower once over a record set."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import jax

from lit_jax import config as options
from lit_jax.base import hosts
from lit_jax.data import embedding_store
from lit_jax.data.embedding_store import Store
from lit_jax.embedding.to_store import embed
from lit_jax.errors import user_errors_in_one_line
from lit_jax.training import experiment


def main(argv: Sequence[str] | None = None) -> None:
    """The command: writes a store, or verifies one."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with user_errors_in_one_line("run the same command to go on with the shards that are missing"):
        rest, overrides = options.split_arguments(arguments)
        parsed = _parser().parse_args(rest)
        config, prepare = options.load(parsed.config, overrides)
        out = pathlib.Path(parsed.out) if parsed.out else experiment.store_folder(config)
        if parsed.verify:
            print(f"{out}: {embedding_store.verify(embedding_store.open_store(out))} files are as they were written")
            return
        hosts.start_jax(parsed)
        hosts.prepare_on_first_host(prepare, config)
        made = embed(
            config, out, dtype=parsed.dtype, views=parsed.views, batch_size=parsed.batch_size,
            shard_rows=parsed.shard_rows, devices=config.train.devices, restart=parsed.restart,
        )  # fmt: skip
        if jax.process_index() == 0:
            print(
                described_store(made, "" if out == experiment.store_folder(config) else f" --config.data.store={out}")
            )


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lit_jax.embed",
        description="Runs the frozen image tower of a config once over its records and stores what it says of each "
        "photo. Run again to go on after an interruption. Options of the config are given as for lit_jax.main.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--config", required=True, help="a Python file such as configs/cub.py")
    add(
        "--out",
        default="",
        help="folder to make; data.store of the config, or that of the records and _store, if empty",
    )
    add("--dtype", default="float16", choices=sorted(embedding_store.DTYPES), help="of the stored features")
    add("--views", type=_positive, default=1, help="of each training photo: the plain one, then random crops")
    add("--batch-size", type=_positive, default=256, help="photos at a time")
    add("--shard-rows", type=_positive, default=16384, help="photos of a shard at the most")
    add("--restart", action="store_true", help="make anew what is there already")
    add("--verify", action="store_true", help="write nothing; compare every file with its checksum")
    hosts.add_hosts(parser)
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected 1 or more")
    return value


if __name__ == "__main__":
    main()

"""The training command: ``python -m lit_jax.main --config=configs/demo.py``."""

import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from lit_jax import config as options
from lit_jax.base import hosts
from lit_jax.base.command_line import Parser
from lit_jax.config import Config
from lit_jax.errors import Stopped, user_errors_in_one_line


def train(config: Config, workdir: str | pathlib.Path) -> dict[str, Any]:
    """Trains as a config says, from the latest checkpoint in `workdir` if there is one.

    Args:
        config: from `lit_jax.config.load`.
        workdir: folder of checkpoints, metrics and results; made if missing.

    Returns:
        What is written to ``results.json``, see `lit_jax.training.loop.run`.

    Raises:
        UserError: anything that a person can mend.
        Stopped: after SIGTERM, when the state has been saved.
    """
    # Late: reading a config and refusing a bad one takes no more than a moment.
    from lit_jax.settling import settle_run
    from lit_jax.training import loop
    from lit_jax.training.experiment import build

    settled, data = settle_run(config)
    return loop.run(build(settled, data, pathlib.Path(workdir)))


def main(argv: Sequence[str] | None = None) -> None:
    """Reads ``--config``, checks it, makes missing records if the config knows how, and trains."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with user_errors_in_one_line("run the same command to go on from the last checkpoint"):
        rest, overrides = options.split_arguments(arguments)
        parsed = _parser().parse_args(rest)
        config, prepare = options.load(parsed.config, overrides)
        workdir = pathlib.Path(parsed.workdir or config.workdir or f"runs/{pathlib.Path(parsed.config).stem}")
        hosts.start_jax(parsed)
        if prepare:
            _make(config, prepare)
        try:
            train(config, workdir)
        except Stopped as stopped:
            print(stopped, file=sys.stderr)
            sys.exit(143)


def _make(config: Config, prepare: Callable[[Config], None]) -> None:
    """What a config that knows how to make its records trains on: these, or their embedding store."""
    # Late as above.
    from lit_jax.data.collection import store_folder
    from lit_jax.embed import embed

    store = store_folder(config.data) if config.input == "store" else None
    if store is None or not store.exists():
        hosts.make_on_first_host(lambda: prepare(config), config.data.records, "records")
    if store is not None and not store.exists():
        embed(config, store)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m lit_jax.main",
        description="Trains a text tower to read a locked image tower. Run again to resume after an interruption.",
        epilog=options.describe(),
    )
    parser.add_argument("--config", required=True, help="a Python file such as configs/demo.py")
    parser.add_argument(
        "--workdir", default="", help="folder for checkpoints and results (default: runs/NAME_OF_CONFIG)"
    )
    hosts.add_hosts(parser)
    return parser


if __name__ == "__main__":
    main()

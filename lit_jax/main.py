"""The training command: ``python -m lit_jax.main --config=configs/demo.py``."""

import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from lit_jax import config as options
from lit_jax.base import cluster, foreign, hosts
from lit_jax.base.command_line import Parser
from lit_jax.base.files import kind_of
from lit_jax.config import Config
from lit_jax.errors import UserError, user_errors_in_one_line


def train(config: Config, workdir: str | pathlib.Path, *, stuck_after: float | None = None) -> dict[str, Any]:
    """Trains as a config says, from the latest checkpoint in `workdir` if there is one.

    Args:
        config: from `lit_jax.config.load`.
        workdir: folder of checkpoints, metrics and results; made if missing, and the same on all hosts.
        stuck_after: see `lit_jax.training.loop.run`; None for its default.

    Returns:
        What is written to ``results.json``, see `lit_jax.training.loop.run`.

    Raises:
        UserError: anything that a person can mend.
        Stopped: when asked to, and the state has been saved.
    """
    # Late: reading a config and refusing a bad one takes no more than a moment.
    from lit_jax.settling import settle_run
    from lit_jax.training import loop
    from lit_jax.training.experiment import build, ensure_same_on_hosts

    refuse_foreign(pathlib.Path(workdir))
    hosts.ensure_shared(pathlib.Path(workdir), option="--workdir")
    settled, data = settle_run(config)
    ensure_same_on_hosts(config, data)
    experiment = build(settled, data, pathlib.Path(workdir))
    return loop.run(experiment, stuck_after=loop.STUCK_AFTER if stuck_after is None else stuck_after)


def main(argv: Sequence[str] | None = None) -> None:
    """Reads ``--config``, checks it, makes missing records if the config knows how, and trains."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with user_errors_in_one_line("run the same command to go on from the last checkpoint"):
        rest, overrides = options.split_arguments(arguments)
        parsed = _parser().parse_args(rest)
        config, prepare = options.load(parsed.config, overrides)
        workdir = pathlib.Path(parsed.workdir or config.workdir or f"runs/{pathlib.Path(parsed.config).stem}")
        refuse_foreign(workdir)  # before anything is made in it
        with cluster.joined(parsed, workdir / "hosts"):
            if prepare:
                _make(config, prepare)
            train(config, workdir, stuck_after=parsed.stuck_after)


def refuse_foreign(workdir: pathlib.Path) -> None:
    """Refuses a folder that holds other things than a run and logs, lest its files get mixed up with theirs.

    Raises:
        UserError: naming one of them.
    """
    if kind_of(workdir) not in ("", "folder"):
        raise UserError(f"--workdir {workdir}: found a {kind_of(workdir)}, expected a folder or a new name")
    try:
        given = foreign.loaded(workdir / "config.json")
        is_run = isinstance(given, dict) and any(name.startswith("train.") for name in given)
    except (OSError, ValueError):
        is_run = False
    others = [] if is_run or not workdir.is_dir() else [one for one in sorted(os.listdir(workdir)) if not _fits(one)]
    if others:
        raise UserError(
            f"--workdir {workdir}: found {others[0]}, which is of no run, expected a new or empty folder, or that of a "
            "run; give another"
        )


_LOGS = (".log", ".out", ".err", ".txt")


def _fits(name: str) -> bool:
    """Whether a name is one that a run's folder has before the run has written its config, or that of a log."""
    return name in ("checkpoints", "hosts", "margin") or name.startswith(".") or name.endswith(_LOGS)


def _make(config: Config, prepare: Callable[[Config], None]) -> None:
    """What a config that knows how to make its records trains on: these, or their embedding store."""
    # Late as above.
    from lit_jax.data.collection import store_folder
    from lit_jax.embed import embed
    from lit_jax.settling import check_options

    check_options(config)  # before records are made
    store = store_folder(config.data) if config.input == "store" else None
    if store is not None and hosts.asked_of_first_host(store.exists, "whether there is a store"):
        return
    hosts.make_on_first_host(lambda: prepare(config), config.data.records, "records")
    if store is not None:
        embed(config, store)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m lit_jax.main",
        elsewhere=options.as_override,
        description="Trains a text tower to read a locked image tower. Run again to resume after an interruption.",
        epilog=f"{options.describe()}\n\n{cluster.EXIT_CODES}",
    )
    parser.add_argument("--config", required=True, help="a Python file such as configs/demo.py")
    parser.add_argument(
        "--workdir", default="", help="folder for checkpoints and results (default: runs/NAME_OF_CONFIG)"
    )
    cluster.add_hosts(parser)
    return parser


if __name__ == "__main__":
    main()

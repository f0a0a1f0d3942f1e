"""The training command: ``python -m lit_jax.main --config=configs/demo.py``."""

import argparse
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from lit_jax import config as options
from lit_jax.errors import UserError, user_errors_in_one_line


def main(argv: Sequence[str] | None = None) -> None:
    """Reads ``--config``, checks it, makes missing records if the config knows how, and trains."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with user_errors_in_one_line():
        rest, overrides = options.split_arguments(arguments)
        parsed = _parser().parse_args(rest)
        config, prepare = options.load(parsed.config, overrides)
        workdir = pathlib.Path(parsed.workdir or config.workdir or f"runs/{pathlib.Path(parsed.config).stem}")
        _start_jax(parsed)
        if prepare is not None:
            _prepare_on_first_host(prepare, config)
        # Late: reading a config and refusing a bad one takes no more than a moment.
        from lit_jax import loop

        try:
            loop.run(config, workdir)
        except loop.Stopped as stopped:
            print(stopped, file=sys.stderr)
            sys.exit(143)
        except KeyboardInterrupt:
            print("interrupted; run the same command to go on from the last checkpoint", file=sys.stderr)
            sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lit_jax.main",
        description="Trains a text tower to read a locked image tower. Run again to resume after an interruption.",
        epilog=options.describe(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="a Python file such as configs/demo.py")
    parser.add_argument(
        "--workdir", default="", help="folder for checkpoints and results; runs/NAME_OF_CONFIG if not given"
    )
    parser.add_argument("--distributed", action="store_true", help="several hosts, found by SLURM or MPI")
    parser.add_argument("--coordinator", default="", help="HOST:PORT of the first host, where nothing finds the hosts")
    parser.add_argument("--processes", type=int, help="with --coordinator: how many hosts")
    parser.add_argument("--process", type=int, help="with --coordinator: the number of this one")
    return parser


def _start_jax(parsed: argparse.Namespace) -> None:
    import jax

    cache = pathlib.Path.home() / ".cache" / "lit_jax" / "compiled"
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache))
    if parsed.coordinator:
        if parsed.processes is None or parsed.process is None:
            raise UserError("--coordinator: found no --processes or --process, expected both")
        jax.distributed.initialize(parsed.coordinator, parsed.processes, parsed.process)
    elif parsed.processes is not None or parsed.process is not None:
        raise UserError("--processes, --process: found without --coordinator, expected it as well")
    elif parsed.distributed:
        jax.distributed.initialize()


def _prepare_on_first_host(prepare: Callable[[Any], None], config: Any) -> None:
    """Makes missing records. All hosts wait here, whatever each of them can see of the folder."""
    import jax

    if jax.process_index() == 0 and not pathlib.Path(config.data.records).exists():
        prepare(config)
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("records are ready")


if __name__ == "__main__":
    main()

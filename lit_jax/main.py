"""The training command: ``python -m lit_jax.main --config=configs/demo.py``."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from lit_jax import config as options
from lit_jax.base import hosts
from lit_jax.errors import user_errors_in_one_line


def main(argv: Sequence[str] | None = None) -> None:
    """Reads ``--config``, checks it, makes missing records if the config knows how, and trains."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with user_errors_in_one_line("run the same command to go on from the last checkpoint"):
        rest, overrides = options.split_arguments(arguments)
        parsed = _parser().parse_args(rest)
        config, prepare = options.load(parsed.config, overrides)
        workdir = pathlib.Path(parsed.workdir or config.workdir or f"runs/{pathlib.Path(parsed.config).stem}")
        hosts.start_jax(parsed)
        if config.input == "records":
            hosts.prepare_on_first_host(prepare, config)
        # Late: reading a config and refusing a bad one takes no more than a moment.
        from lit_jax.training import loop

        try:
            loop.run(config, workdir)
        except loop.Stopped as stopped:
            print(stopped, file=sys.stderr)
            sys.exit(143)


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
    hosts.add_hosts(parser)
    return parser


if __name__ == "__main__":
    main()

"""One folder of a trained model: ``python -m lit_jax.export --checkpoint=runs/demo --out=exported/demo``."""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from lit_jax import config as options
from lit_jax.base.cluster import refuse_many_tasks
from lit_jax.base.command_line import Parser
from lit_jax.base.console import say
from lit_jax.base.folders import refuse_there
from lit_jax.errors import UserError, user_errors_in_one_line
from lit_jax.graphs.graph import WEIGHTS, library
from lit_jax.models.locking import IMAGE, TEXT
from lit_jax.models.weights import count
from lit_jax.trained import loading as trained_models
from lit_jax.trained.exporting import FORMATS, export
from lit_jax.trained.published import published


def main(argv: Sequence[str] | None = None) -> None:
    """The command; see ``--help``."""
    with user_errors_in_one_line():
        refuse_many_tasks()
        rest, overrides = options.split_arguments(list(sys.argv[1:] if argv is None else argv))
        parsed = _parser().parse_args(rest)
        _check(parsed, overrides)
        if parsed.config:
            trained = published(options.load(parsed.config, overrides)[0])
        else:
            weight_files = {IMAGE: parsed.image_weights, TEXT: parsed.text_weights}
            trained = trained_models.load_whole(parsed.checkpoint, step=parsed.step, weight_files=weight_files)
        notes = list(trained.config.notes) if parsed.config else []
        stored = parsed.weights or WEIGHTS[0]
        notes += export(trained, parsed.out, layout=parsed.format, hub_name=parsed.hub_name, weights=stored)
        for note in notes:
            say(f"note: {note}")
        what = f"step {trained.step} of {parsed.checkpoint}" if parsed.checkpoint else f"towers of {parsed.config}"
        tower = "" if IMAGE in trained.params else ", no image tower: it reads given embeddings"
        say(f"{parsed.out}: {what}, {count(trained.params):,} parameters{tower}, format {parsed.format}")


def _check(parsed: argparse.Namespace, overrides: dict[str, Any]) -> None:
    """What can be refused before anything is read."""
    refuse_there(pathlib.Path(parsed.out), "--out")
    if parsed.checkpoint and overrides:
        raise UserError(f"--config.{next(iter(overrides))}: found it with --checkpoint, expected it with --config only")
    given = [name for name in ("image_weights", "text_weights") if parsed.config and getattr(parsed, name)]
    if given:
        option = given[0].replace("_", ".")
        raise UserError(
            f"--{given[0].replace('_', '-')}: found it with --config, expected it with --checkpoint only; set {option} "
            f"in the config, or --config.{option}"
        )
    if parsed.weights and parsed.format != "onnx":
        raise UserError(f"--weights: found it with format {parsed.format}, expected it with --format onnx only")
    if parsed.format == "onnx":
        library()
    if parsed.hub_name and parsed.format != "open_clip":
        raise UserError(f"--hub-name: found it with format {parsed.format}, expected it with --format open_clip only")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m lit_jax.export",
        elsewhere=options.as_override,
        description="Writes a trained model as one folder, in lit_jax's format, in open_clip's or in ONNX.",
    )
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", default="", help="folder of a run, or of an exported model")
    source.add_argument("--config", default="", help="a Python file: published towers, before any training")
    add("--out", required=True, help="folder to make")
    add("--format", default=FORMATS[0], choices=FORMATS, help="layout of the folder")
    add("--weights", default="", choices=WEIGHTS, help="of format onnx: how numbers are stored (default: fp32)")
    add("--step", default="best", help="best (by top-1 on the seen split), latest or a step")
    add("--image-weights", default="", help="where the locked image tower's weights are now")
    add("--text-weights", default="", help="likewise of a pre-trained text tower")
    add("--hub-name", default="", help="OWNER/NAME on the hub, where open_clip will look for the tokenizer")
    return parser


if __name__ == "__main__":
    main()

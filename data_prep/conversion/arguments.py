"""Options of the command line that several commands share."""

import argparse
import dataclasses
from pathlib import Path

from data_prep.conversion.options import Options
from data_prep.sources.folder import read_names
from lit_jax.text.captions import TEMPLATE
from lit_jax.text.prompts import read_templates


def options_of(arguments: argparse.Namespace) -> Options:
    """Options of the command line; files that they name are read here."""
    names = [field.name for field in dataclasses.fields(Options)]
    values = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    values["templates"] = tuple(arguments.template or ())
    if arguments.templates:
        values["templates"] = read_templates(arguments.templates)
    values["heldout_classes"] = read_names(arguments.heldout_classes) if arguments.heldout_classes else ()
    values["rename_splits"] = dict(arguments.rename_split)
    return Options(**values)


def _renaming(text: str) -> tuple[str, str]:
    theirs, equals, ours = text.partition("=")
    if not (theirs and equals and ours):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected FROM=TO")
    return theirs, ours


def add_shared_options(parser: argparse.ArgumentParser) -> None:
    """Options of captions, splits and tokenizer, the same in each command that makes data; for `options_of`."""
    default, add = Options(), parser.add_argument
    texts = parser.add_mutually_exclusive_group()
    texts.add_argument(
        "--template", action="append", metavar="TEXT", help=f"caption; repeat for more (default: {TEMPLATE})"
    )
    texts.add_argument("--templates", type=Path, metavar="FILE", help="captions, one template a line")
    add("--drop-repeats", action="store_true", help="no value twice in a caption")
    add("--seed", type=int, default=default.seed, help="decides order and all draws")
    add("--validation-fraction", type=float, default=default.validation_fraction, help="of each class, if no splits")
    heldout = parser.add_mutually_exclusive_group()
    heldout.add_argument("--heldout", type=int, default=default.heldout, metavar="N", help="hold out N species")
    heldout.add_argument("--heldout-classes", type=Path, metavar="FILE", help="hold these out: CSV or one a line")
    add(
        "--rename-split", type=_renaming, action="append", default=[], metavar="FROM=TO", help="a split or split folder"
    )
    add("--allow-empty-classes", action="store_true", help="accept classes without a photo")
    add("--allow-no-training", action="store_true", help="accept photos of which none is to train on")
    tokenizer = parser.add_mutually_exclusive_group()
    tokenizer.add_argument("--vocab-size", type=int, default=default.vocab_size, help="of the tokenizer; 0: none")
    tokenizer.add_argument("--tokenizer", type=Path, metavar="FILE", help="file or folder to take instead")

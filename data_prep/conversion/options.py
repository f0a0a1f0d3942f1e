"""What a conversion is asked for: all that decides a record set, besides photos and class table."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_jax.data.photo import MAX_PIXELS
from lit_jax.errors import UserError
from lit_jax.text.tokenizers import load_tokenizer

DROP, KEEP = DUPLICATES = ("drop", "keep")
"""What to do with byte-identical photos."""


@dataclasses.dataclass(frozen=True)
class Options:
    """The options that decide, with the photos and the class table, what a record set holds.

    Attributes:
        templates: Caption templates; a record holds one caption a template. (): the paper's, less the columns that
            the class table has not.
        drop_repeats: Leave out of a caption what an earlier column said already.
        max_side: Longest side of a photo in pixels; larger ones are shrunk. 0: any.
        quality: JPEG quality of photos that are encoded anew, 1 to 95.
        max_pixels: Photos of more pixels are left out.
        shard_mb: Size of a shard in MiB, where `shards` is 0; by the sizes of the files before shrinking.
        shards: Number of shards of each split; never more than its photos.
        seed: Decides order, validation photos, drawn held-out classes and `limit`.
        validation_fraction: Part of each class drawn for validation where the source has no splits.
        heldout: Number of species to hold out, drawn by seed.
        heldout_classes: Their names instead.
        rename_splits: The source's split name to ours.
        allow_empty_classes: Accept classes of the table without any photo.
        allow_no_training: Accept photos of which none is to train on.
        duplicates: Of byte-identical photos `DROP` all but one, or `KEEP` them all and open no file for that.
        limit: At most so many photos, drawn by seed; 0: all.
        vocab_size: Pieces of the tokenizer that is trained on the captions of the training classes; 0: none.
        tokenizer: A tokenizer to take instead: a file or folder of any form that `load_tokenizer` reads.
    """

    templates: tuple[str, ...] = ()
    drop_repeats: bool = False
    max_side: int = 0
    quality: int = 95
    max_pixels: int = MAX_PIXELS
    shard_mb: int = 128
    shards: int = 0
    seed: int = 0
    validation_fraction: float = 0.1
    heldout: int = 0
    heldout_classes: tuple[str, ...] = ()
    rename_splits: Mapping[str, str] = dataclasses.field(default_factory=dict)
    allow_empty_classes: bool = False
    allow_no_training: bool = False
    duplicates: str = DROP
    limit: int = 0
    vocab_size: int = 4096
    tokenizer: Path | None = None


def check_options(options: Options) -> None:
    """Raises `UserError` for an option out of its range, or a tokenizer that is none."""
    ranges = {
        "max_side": (0, None),
        "quality": (1, 95),
        "max_pixels": (1, None),
        "shard_mb": (1, None),
        "shards": (0, 99999),
        "heldout": (0, None),
        "limit": (0, None),
        "vocab_size": (0, None),
    }
    for name, (low, high) in ranges.items():
        value = getattr(options, name)
        if value < low or (high is not None and value > high):
            expected = f"{low} or more" if high is None else f"{low} to {high}"
            raise UserError(f"{name}: found {value}, expected {expected}; correct it")
    if not 0 <= options.validation_fraction < 1:
        found = options.validation_fraction
        raise UserError(f"validation_fraction: found {found}, expected at least 0 and below 1; correct it")
    if options.duplicates not in DUPLICATES:
        raise UserError(f"duplicates: found {options.duplicates!r}, expected {' or '.join(DUPLICATES)}; correct it")
    if options.tokenizer:
        load_tokenizer(options.tokenizer)


def facts(options: Options) -> dict[str, Any]:
    """The options as JSON values, the tokenizer by content: where it lay says nothing.

    An option that sets of before do not know is left out at its default, so that they stay up to date.
    """
    model = load_tokenizer(options.tokenizer).model_bytes if options.tokenizer else None
    tokenizer = hashlib.sha256(model).hexdigest() if model else None
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(options) | {"tokenizer": tokenizer}))
    if options.duplicates == DROP:
        del values["duplicates"]
    del values["allow_no_training"]  # it decides what is refused, and nothing that is stored
    return values

"""What a model says of itself, as ``model.json`` and the files beside it keep it."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from lit_jax.embedding.about import About, config_from_json
from lit_jax.text.tokenizers import is_json

CLASSES = "classes.csv"


def kept(about: About) -> dict[str, Any]:
    """All of a description but the files beside it, JSON-ready."""
    return {
        name: value for name, value in dataclasses.asdict(about).items() if name not in ("tokenizer", "class_table")
    }


def about_of(folder: pathlib.Path, model: Mapping[str, Any]) -> About:
    """The description that was kept, of what ``model.json`` says."""
    (tokenizer,) = (name for name in model["files"] if name.startswith("tokenizer"))
    has_table = CLASSES in model["files"]
    return About(**{
        **model["about"],
        "config": config_from_json(model["about"]["config"]),
        "tokenizer": (folder / tokenizer).read_bytes(),
        "class_table": (folder / CLASSES).read_bytes().decode() if has_table else "",
    })  # fmt: skip


def tokenizer_name(content: bytes) -> str:
    """The name of a tokenizer's file by what is in it."""
    return "tokenizer.json" if is_json(content) else "tokenizer.model"

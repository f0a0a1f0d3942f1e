"""The folder of a trained model: everything that naming a photo takes, in files that need no other.

::

    model.json           version, config, step, captions and prompts, digests of the other files
    model.safetensors    every parameter, float32, by its path: image/..., text/..., projection/kernel
    tokenizer.model      (or .json) of the text tower
    classes.csv          the class table of training
    templates.txt        caption templates, one a line
    README.md            the model card

It is written aside and renamed; `read` compares digests. What comes back is bit-equal to what went in.
"""

import dataclasses
import json
import pathlib
import shutil

import numpy as np

from lit_jax import card
from lit_jax.checkpoint import About
from lit_jax.errors import UserError
from lit_jax.manifest import INCOMPLETE, file_digest
from lit_jax.models.files import open_weights, write_safetensors
from lit_jax.models.two_tower import Params
from lit_jax.models.weights import leaves, unflatten

FORMAT, VERSION = "lit_jax model", 1
MODEL, WEIGHTS, CLASSES, TEMPLATES = "model.json", "model.safetensors", "classes.csv", "templates.txt"


def is_bundle(directory: pathlib.Path) -> bool:
    """True if the folder is a model's, whatever its version."""
    try:
        found = json.loads((directory / MODEL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("format") == FORMAT


def write(directory: pathlib.Path, about: About, step: int, params: Params, facts: card.Facts) -> None:
    """Writes a model's folder.

    Args:
        directory: the folder to make.
        about: what the run's checkpoint says of itself.
        step: batches trained.
        params: every parameter; without ``image`` if the model knows given embeddings only.
        facts: for the card.

    Raises:
        UserError: something is there already.
    """
    aside = begin(directory)
    write_safetensors(aside / WEIGHTS, {name: np.asarray(leaf) for name, leaf in leaves(params).items()})
    tokenizer = tokenizer_name(about.tokenizer)
    (aside / tokenizer).write_bytes(about.tokenizer)
    (aside / CLASSES).write_text(about.class_table, encoding="utf-8")
    (aside / TEMPLATES).write_text("".join(f"{text}\n" for text in about.templates), encoding="utf-8")
    (aside / "README.md").write_text(card.text(about, step, facts), encoding="utf-8")
    kept = {
        name: value for name, value in dataclasses.asdict(about).items() if name not in ("tokenizer", "class_table")
    }
    files = {name: file_digest(aside / name) for name in (WEIGHTS, tokenizer, CLASSES)}
    model = {"format": FORMAT, "version": VERSION, "step": step, "about": kept, "files": files}
    (aside / MODEL).write_text(json.dumps(model, indent=2) + "\n", encoding="utf-8")
    aside.rename(directory)


def read(directory: pathlib.Path) -> tuple[About, int, Params]:
    """Reads a model's folder: what it says of itself, batches trained, float32 parameters.

    Raises:
        UserError: a newer version, or a file that is missing or not as it was written.
    """
    model = json.loads((directory / MODEL).read_text(encoding="utf-8"))
    if model.get("version", 0) > VERSION:
        raise UserError(
            f"{directory}: found model format {model['version']}, expected at most {VERSION}; update lit_jax"
        )
    for name, digest in model["files"].items():
        if not (directory / name).is_file() or file_digest(directory / name) != digest:
            raise UserError(f"{directory / name}: found a file that is not as it was written; copy the folder again")
    (tokenizer,) = (name for name in model["files"] if name.startswith("tokenizer"))
    kept = model["about"]
    about = About(**{
        **kept,
        "config": {name: tuple(v) if isinstance(v, list) else v for name, v in kept["config"].items()},
        "tokenizer": (directory / tokenizer).read_bytes(),
        "class_table": (directory / CLASSES).read_text(encoding="utf-8"),
    })  # fmt: skip
    arrays = open_weights(directory / WEIGHTS).arrays
    return about, model["step"], unflatten({name: np.asarray(arrays[name]) for name in arrays})


def tokenizer_name(content: bytes) -> str:
    """The name of a tokenizer's file by what is in it."""
    return "tokenizer.json" if content.lstrip()[:1] == b"{" else "tokenizer.model"


def begin(directory: pathlib.Path) -> pathlib.Path:
    """The empty folder in which a model's folder is written before it is renamed.

    Raises:
        UserError: the folder is there already.
    """
    if directory.exists():
        raise UserError(f"--out {directory}: found something there already, expected a new folder; give another name")
    aside = directory.with_name(directory.name + INCOMPLETE)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    return aside

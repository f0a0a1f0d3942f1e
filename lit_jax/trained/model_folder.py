"""The folder of an exported model: it holds everything that is needed to name a photo.

::

    model.json           version, config, step, captions and prompts, digests of the other files and of itself
    model.safetensors    every parameter, float32, by its path: image/..., text/..., projection/kernel
    tokenizer.model      (or .json) of the text tower
    classes.csv          the class table of training
    templates.txt        caption templates, one a line: a copy for people
    README.md            the model card, which may be edited

It is written aside and renamed; `read` compares digests. What comes back is bit-equal to what went in.
"""

import pathlib

import numpy as np

from lit_jax.base.folders import made
from lit_jax.embedding.about import About
from lit_jax.models.locking import Params
from lit_jax.models.weight_files import open_weights, write_safetensors
from lit_jax.models.weights import leaves, unflatten
from lit_jax.text.classes import read_class_table
from lit_jax.trained import documents, model_card
from lit_jax.trained.kept_about import CLASSES, about_of, kept, tokenizer_name

FORMAT, VERSION = "lit_jax model", 1
WEIGHTS, TEMPLATES, CARD = "model.safetensors", "templates.txt", "README.md"


def is_model_folder(directory: pathlib.Path) -> bool:
    """True if the folder is a model's, whatever its version and state."""
    return (directory / documents.MODEL).is_file()


def write(directory: pathlib.Path, about: About, step: int, params: Params, facts: model_card.Facts) -> None:
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
    with made(directory, "export") as aside:
        write_safetensors(
            aside / WEIGHTS, {name: np.asarray(leaf, np.float32) for name, leaf in leaves(params).items()}
        )
        tokenizer = tokenizer_name(about.tokenizer)
        (aside / tokenizer).write_bytes(about.tokenizer)
        describe(aside, about, step, facts)
        names = (WEIGHTS, tokenizer, *((CLASSES,) if about.class_table else ()))
        documents.write(aside, FORMAT, VERSION, {"step": step, "about": kept(about)}, names)


def describe(folder: pathlib.Path, about: About, step: int, facts: model_card.Facts) -> None:
    """Writes what goes with a model in any layout: class table, templates and card."""
    table = None
    if about.class_table:
        (folder / CLASSES).write_bytes(about.class_table.encode())
        table = read_class_table(folder / CLASSES)
    (folder / TEMPLATES).write_text("".join(f"{text}\n" for text in about.templates), encoding="utf-8")
    (folder / CARD).write_text(model_card.text(about, step, facts, table), encoding="utf-8")


def read(directory: pathlib.Path) -> tuple[About, int, Params]:
    """Reads a model's folder: what it says of itself, batches trained, float32 parameters.

    Raises:
        UserError: a newer version, or a file that is missing or not as it was written.
    """
    model = documents.read(directory, FORMAT, VERSION)
    arrays = open_weights(directory / WEIGHTS).arrays
    return about_of(directory, model), model["step"], unflatten({name: arrays[name] for name in arrays})

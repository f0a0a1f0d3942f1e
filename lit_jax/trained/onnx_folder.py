"""The folder of a model in ONNX: what onnxruntime needs to name a photo, without JAX and without this package.

::

    model.json           all that is not an array, see below; digests of the other files and of itself
    image.onnx           ``photos`` [N, S, S, 3] uint8 to ``embeddings`` [N, D] float32 of unit norm
    text.onnx            ``texts`` [N, T] int32 to ``embeddings`` [N, D] float32 of unit norm
    classes.safetensors  ``vectors`` [K, D] of the model's classes; int8 with ``scales`` [K] if weights are
    classes.csv          the class table of training
    tokenizer.model      (or .json) of the text tower
    templates.txt, README.md

``model.json`` holds, beside what `lit_jax.trained.model_folder` keeps, ``view`` (size, resize, interpolation and
crop_fraction of a photo), ``scale`` (factor of the similarities), ``text`` (``length`` T; ``context`` tokens, then
``kinds`` of units), ``classes`` (ids of the rows of ``vectors``), ``protocol`` of the prompts, ``embed_dim`` and
``weights``. This module reads it; `lit_jax.trained.onnx_export` writes it.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from lit_jax.embedding.about import About
from lit_jax.errors import UserError
from lit_jax.trained import documents
from lit_jax.trained.kept_about import about_of

FORMAT, VERSION = "lit_jax onnx", 1
IMAGE, TEXT, VECTORS = "image.onnx", "text.onnx", "classes.safetensors"
PHOTOS, TEXTS, EMBEDDINGS = "photos", "texts", "embeddings"  # names of inputs and of the output


@dataclasses.dataclass(frozen=True)
class OnnxModel:
    """A model's folder that was read.

    Attributes:
        folder: where it lies.
        about: what the model says of itself.
        facts: what ``model.json`` says.
        vectors: `[K, D]` float32, of the classes ``facts["classes"]``.
    """

    folder: pathlib.Path
    about: About
    facts: dict[str, Any]
    vectors: np.ndarray = dataclasses.field(repr=False)


def is_onnx_folder(folder: pathlib.Path) -> bool:
    """Whether a folder is a model in ONNX, whatever its version and state."""
    return documents.kind_of(folder) == FORMAT


def read(folder: pathlib.Path) -> OnnxModel:
    """Reads a model's folder; the towers stay in their files.

    Raises:
        UserError: a newer version, or a file that is missing or not as it was written.
    """
    facts = documents.read(folder, FORMAT, VERSION)
    return OnnxModel(folder, about_of(folder, facts), facts, _vectors(folder, facts["embed_dim"]))


def _vectors(folder: pathlib.Path, embed_dim: int) -> np.ndarray:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not (folder / VECTORS).is_file():
        return np.zeros((0, embed_dim), np.float32)
    try:
        arrays = load_file(folder / VECTORS)
    except SafetensorError as error:
        raise UserError(f"{folder / VECTORS}: found no whole file ({error}), expected vectors of classes") from None
    vectors = arrays["vectors"].astype(np.float32)
    return vectors * arrays["scales"][:, None] if "scales" in arrays else vectors

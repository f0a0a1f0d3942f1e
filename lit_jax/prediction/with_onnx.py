"""A model in ONNX that computes with onnxruntime: no JAX is imported."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from lit_jax.base.files import digest
from lit_jax.data.images import Pictures, View
from lit_jax.embedding.class_embeddings import class_embeddings
from lit_jax.embedding.class_prompts import species_prompts
from lit_jax.errors import UserError, first_line
from lit_jax.prediction.engine import TEXTS
from lit_jax.text.classes import table_of_text
from lit_jax.text.tokenizers import tokenizer_from_bytes
from lit_jax.text.units import Reading
from lit_jax.trained import documents, onnx_folder

PROVIDERS = (
    "TensorrtExecutionProvider",
    "CUDAExecutionProvider",
    "ROCMExecutionProvider",
    "CoreMLExecutionProvider",
    "DmlExecutionProvider",
    "CPUExecutionProvider",
)
"""What may compute, the first that is there first: these do it on this machine. Others of onnxruntime ask a service."""


class WithOnnx:
    """See `lit_jax.prediction.engine.Engine`; `model` is the folder, read.

    Args:
        folder: that ``lit_jax.export --format onnx`` wrote.

    Raises:
        UserError: a folder that is not whole, or no onnxruntime.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.model = found = onnx_folder.read(folder)
        facts = found.facts
        self.about, self.step, self.scale = found.about, facts["step"], facts["scale"]
        self.protocol, self.embed_dim, self.multiple = facts["protocol"], facts["embed_dim"], 1
        view = {name: value for name, value in facts["view"].items() if name != "size"}
        self.pictures = Pictures(facts["view"]["size"], View(**view))
        self._image = _session(folder / onnx_folder.IMAGE)

    @property
    def key(self) -> str:
        """A digest of all that decides embeddings."""
        return digest(self.model.facts["files"])

    @property
    def image_key(self) -> str:
        """A digest of what decides the embedding of a photo."""
        files = self.model.facts["files"]
        return digest([files[name] for name in sorted(files) if name.startswith(onnx_folder.IMAGE)])

    def photos(self, pixels: np.ndarray) -> np.ndarray:
        """`[B, S, S, 3]` uint8 to unit vectors `[B, D]` float32."""
        rows: np.ndarray = self._image.run(None, {onnx_folder.PHOTOS: pixels})[0]
        return rows

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """N texts to unit vectors `[N, D]` float32."""
        tokens = self.reading(texts)
        parts = [tokens[start : start + TEXTS] for start in range(0, len(tokens), TEXTS)]
        return np.concatenate([self._text.run(None, {onnx_folder.TEXTS: part})[0] for part in parts])

    def of_each(self, *groups: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """Of groups of classes, each by its prompts: unit vectors `[K, D]` of each group.

        Those of the model's own classes were embedded when it was exported.
        """
        known = self._known
        wanted = {tuple(prompts) for group in groups for prompts in group}
        new = [prompts for prompts in wanted if prompts not in known]
        rows = dict(known)
        if new:
            rows |= dict(zip(new, class_embeddings(self.texts, new), strict=True))
        empty = np.zeros((0, self.embed_dim), np.float32)
        return [np.stack([rows[tuple(one)] for one in group]) if len(group) else empty for group in groups]

    @functools.cached_property
    def _known(self) -> dict[tuple[str, ...], np.ndarray]:
        """Vectors of the model's own classes by their prompts."""
        if not self.about.class_table:
            return {}
        table = table_of_text(self.about.class_table, "the model's class table")
        prompts = species_prompts(self.about, table, self.protocol)
        ids, vectors = self.model.facts["classes"], self.model.vectors
        return {tuple(prompts[class_id]): row for class_id, row in zip(ids, vectors, strict=True)}

    @functools.cached_property
    def _text(self) -> Any:
        return _session(self.model.folder / onnx_folder.TEXT)

    @functools.cached_property
    def reading(self) -> Reading:
        """How texts become what the text tower reads."""
        text = self.model.facts["text"]
        units = tuple(map(tuple, self.about.units))
        tokenizer = dataclasses.replace(tokenizer_from_bytes(self.about.tokenizer), units=units)
        return Reading(tokenizer, text["context"], tuple(text["kinds"]))


def _session(path: pathlib.Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise UserError(
            f"{path}: found no package onnxruntime, expected it for a model in ONNX; pip install onnxruntime"
        ) from None
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    try:
        there = onnxruntime.get_available_providers()
        providers = [name for name in PROVIDERS if name in there]
        return onnxruntime.InferenceSession(str(path), settings, providers=providers)
    except Exception as error:  # onnxruntime raises classes of its own, which it does not export
        raise UserError(
            f"{path}: found a file that onnxruntime cannot use ({first_line(error)}), expected a tower; "
            f"{documents.REMEDY}"
        ) from None

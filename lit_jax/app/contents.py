"""What an app is made of, and the files of it that the page reads."""

import dataclasses
import gzip
import hashlib
import json
from typing import Any

import numpy as np

from lit_jax.app.runtime import VERSION, Runtime
from lit_jax.app.texts import Texts
from lit_jax.base.files import digest
from lit_jax.data.images import Pictures
from lit_jax.graphs.graph import in_int8
from lit_jax.prediction.answers import Confidence
from lit_jax.prediction.choices import Choices
from lit_jax.text.classes import NAME_COLUMNS, RANKS, ClassTable
from lit_jax.text.labels import SYNONYM_COLUMNS
from lit_jax.version import __version__

FORMAT, APP_VERSION = "lit_jax app", 1
DESCRIPTION = "app.json"
STORED = ("fp16", "int8", "fp32")
"""How vectors and weights may be kept in files; they are float32 in use."""
PACKED = ".packed"
"""Ending of files that are compressed, with gzip; ``.gz`` would let some hosts unpack them on the way."""
_WORTH_PACKING = 0.9  # of the bytes
_NEEDED = (*NAME_COLUMNS, *RANKS, *SYNONYM_COLUMNS)
SURE = 0.8  # where the slider stands at first


@dataclasses.dataclass(frozen=True)
class Told:
    """What the app says of itself.

    Attributes:
        title: its name for people.
        model: where the model was read from.
        step: batches trained.
        notes: what a person should know of the classes, in lines.
        no_words: why there are no free-text questions; empty if there are.
    """

    title: str
    model: str
    step: int
    notes: tuple[str, ...] = ()
    no_words: str = ""


@dataclasses.dataclass(frozen=True)
class Contents:
    """All that an app holds.

    Attributes:
        told: what it says of itself.
        pictures: what photos are turned into.
        choices: the classes and their vectors.
        confidence: how scores become probabilities.
        image: the image tower as ONNX: ``photos`` uint8 `[N, S, S, 3]` to ``embeddings`` float32 `[N, D]`.
        text: the text tower as ONNX, ``texts`` int32 `[N, T]` to the same, and how texts are read; None without
            free-text questions.
    """

    told: Told
    pictures: Pictures
    choices: Choices
    confidence: Confidence
    image: bytes = dataclasses.field(repr=False)
    text: tuple[bytes, Texts] | None = dataclasses.field(repr=False, default=None)


def files_of(contents: Contents, runtime: Runtime, stored: str) -> dict[str, bytes]:
    """The files that the page reads, by name: the model's parts, and ``app.json``, which has the digests of the others.

    Args:
        contents: the app.
        runtime: what runs the model.
        stored: one of `STORED`, for the classes' vectors.
    """
    files = {
        "ort.wasm": runtime.wasm,
        "image.onnx": contents.image,
        "vectors.bin": packed(contents.choices.vectors, stored),
    }
    choices = contents.choices
    files["classes.json"] = _json({"seen": np.flatnonzero(choices.seen).tolist(), "columns": _columns(choices.table)})
    if contents.text:
        tower, texts = contents.text
        files["text.onnx"] = tower
        if texts.tokenizer:
            files["tokenizer"] = texts.tokenizer
        if texts.vocabulary:
            files["units.json"] = _json(texts.vocabulary)
    described = _described(contents, stored)
    described["files"], written = {}, {}
    for name, data in files.items():
        small = gzip.compress(data, 6, mtime=0)
        is_packed = len(small) < _WORTH_PACKING * len(data)
        data = small if is_packed else data
        written[name + PACKED * is_packed] = data
        facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        described["files"][name] = {**facts, "gzip": True} if is_packed else facts
    return {**written, DESCRIPTION: _json({**described, "digest": digest(described)})}


def packed(vectors: np.ndarray, stored: str) -> bytes:
    """`[K, D]` unit vectors as bytes, little end first: float32, float16, or K float32 scales and then int8.

    Raises:
        ValueError: another way to store them.
    """
    if stored == "fp32":
        return vectors.astype("<f4").tobytes()
    if stored == "fp16":
        return vectors.astype("<f2").tobytes()
    if stored != "int8":
        raise ValueError(f"stored: found {stored!r}, expected one of {STORED}")
    whole, scales = in_int8(vectors, 0)
    return scales.astype("<f4").tobytes() + whole.tobytes()


def _described(contents: Contents, stored: str) -> dict[str, Any]:
    choices, confidence, told = contents.choices, contents.confidence, contents.told
    count, width = choices.vectors.shape
    return {
        "format": FORMAT,
        "version": APP_VERSION,
        "madeBy": f"lit_jax {__version__}",
        "runtime": VERSION,
        "model": told.model,
        "step": told.step,
        "notes": list(told.notes),
        "textNote": told.no_words,
        "size": contents.pictures.size,
        "view": dataclasses.asdict(contents.pictures.view),
        "sure": SURE,
        # Where all are of one kind the margin is the same for all of them and changes nothing.
        "margin": float(choices.less.max()) if choices.less is not None else 0.0,
        "trained": confidence.trained,
        "factors": dict(confidence.factors),
        "note": confidence.note,
        "vectors": {"rows": count, "width": width, "stored": stored},
        "text": contents.text[1].facts if contents.text else None,
    }  # fmt: skip


def _columns(table: ClassTable) -> dict[str, list[Any]]:
    """Columns by name: the values, or, where they repeat, the distinct ones and the place of each row's among them.

    Left out is what tells each class by itself and is no name, such as that of its folder.
    """
    found: dict[str, list[Any]] = {}
    for column, values in table.columns.items():
        places = {value: place for place, value in enumerate(dict.fromkeys(values))}
        repeats = len(places) <= len(values) // 2
        if any(values) and (repeats or column in _NEEDED):
            found[column] = [list(places), [places[value] for value in values]] if repeats else [list(values), None]
    return found


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

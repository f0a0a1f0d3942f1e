"""Writes a trained model as a folder of ONNX files, see `lit_jax.trained.onnx_folder`."""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np

from lit_jax import models
from lit_jax.base.sharding import make_mesh
from lit_jax.data.embedding_store import GIVEN
from lit_jax.embedding.class_prompts import species_prompts
from lit_jax.embedding.photo_embeddings import embedder
from lit_jax.embedding.trained import Trained
from lit_jax.embedding.vectors import Vectors, on_device
from lit_jax.graphs import graph as graphs
from lit_jax.graphs.from_jax import to_onnx
from lit_jax.models import building
from lit_jax.models.locking import IMAGE, LOGIT_SCALE
from lit_jax.models.weight_files import write_safetensors
from lit_jax.text.classes import table_of_text
from lit_jax.trained import documents, onnx_folder
from lit_jax.trained.kept_about import CLASSES, kept, tokenizer_name
from lit_jax.trained.loading import without_image_tower

PROMPTS = 256  # at a time
_PROTOBUF = 2_000_000_000  # bytes; what is larger keeps its numbers in a file beside it


def write(folder: pathlib.Path, trained: Trained, weights: str) -> list[str]:
    """Writes towers, class vectors, tokenizer and ``model.json``.

    Args:
        folder: that is there, see `lit_jax.base.folders.made`; class table and card are in it already.
        trained: the model, whole.
        weights: how numbers are stored, see `lit_jax.graphs.graph.WEIGHTS`; arithmetic is float32 in any case.

    Returns:
        What a person should know, a line each.

    Raises:
        UserError: a model without an image tower; a tower with a form that is not known; the package onnx is missing.
    """
    if trained.config.image.tower == GIVEN or IMAGE not in trained.params:
        raise without_image_tower("the checkpoint")
    full = _in_float32(trained)
    made = _towers(folder, full, weights)
    classes = _class_vectors(folder, full, weights)
    tokenizer = tokenizer_name(trained.about.tokenizer)
    (folder / tokenizer).write_bytes(trained.about.tokenizer)
    config, read = trained.config, building.reading(trained.config.text, trained.tokenizer)
    view = building.view_of(config.image)
    content = {
        "step": trained.step, "weights": weights, "embed_dim": config.model.embed_dim,
        "scale": float(np.exp(np.asarray(trained.params[LOGIT_SCALE]))),
        "view": {"size": config.image.size, **dataclasses.asdict(view)},
        "text": {"length": building.text_length(config.text), "context": read.context, "kinds": list(read.kinds)},
        "protocol": config.evaluation.protocol, "classes": classes, "about": kept(trained.about),
    }  # fmt: skip
    files = [*made, tokenizer, *[name for name in (onnx_folder.VECTORS, CLASSES) if (folder / name).is_file()]]
    documents.write(folder, onnx_folder.FORMAT, onnx_folder.VERSION, content, files)
    return [f"stored as {weights}, computed in float32"] if weights != graphs.FP32 else []


def _in_float32(trained: Trained) -> Trained:
    """The model with all arithmetic in float32, in the forms that other runtimes compute well."""
    model = building.build_model(dataclasses.replace(trained.config.towers, precision="float32"), trained.tokenizer)
    image: Any = model.image
    if "as_convolutions" in image.__dataclass_fields__:
        model = dataclasses.replace(model, image=image.clone(as_convolutions=True))
    return dataclasses.replace(trained, model=model)


def _towers(folder: pathlib.Path, trained: Trained, weights: str) -> list[str]:
    """Writes both towers and gives the names of their files."""
    model, params, sizes = trained.model, trained.params, trained.config.towers.sizes

    def photos(pixels: jax.Array) -> jax.Array:
        return models.project(model, params, models.image_features(model, params[IMAGE], pixels))

    side = sizes["image_size"]
    image = to_onnx(
        photos, (side, side, 3), np.uint8, names=(onnx_folder.PHOTOS, onnx_folder.EMBEDDINGS), weights=weights
    )
    names = _saved(image, folder / onnx_folder.IMAGE)
    text = to_onnx(
        lambda tokens: models.embed_text(model, params, tokens), (sizes["context"],), np.int32,
        names=(onnx_folder.TEXTS, onnx_folder.EMBEDDINGS), weights=weights,
    )  # fmt: skip
    return [*names, *_saved(text, folder / onnx_folder.TEXT)]


def _saved(model: Any, path: pathlib.Path) -> list[str]:
    onnx = graphs.library()
    if model.ByteSize() < _PROTOBUF:
        path.write_bytes(model.SerializeToString())
        return [path.name]
    beside = f"{path.name}.data"
    onnx.save_model(model, str(path), save_as_external_data=True, location=beside)
    return [path.name, beside]


def _class_vectors(folder: pathlib.Path, trained: Trained, weights: str) -> list[int]:
    """Writes vectors of the model's own classes, as it is asked for them, and gives the ids of the rows."""
    about = trained.about
    if not about.class_table:
        return []
    table = table_of_text(about.class_table, "the model's class table")
    by_species = species_prompts(about, table, trained.config.evaluation.protocol)
    mesh = make_mesh(local=True)
    vectors = Vectors(trained, embedder(trained.model, mesh), on_device(trained, mesh), PROMPTS)
    rows = vectors.of(list(by_species.values()))
    write_safetensors(folder / onnx_folder.VECTORS, _stored(rows, weights))
    return list(by_species)


def _stored(rows: np.ndarray, weights: str) -> dict[str, np.ndarray]:
    if weights == graphs.FP32:
        return {"vectors": rows}
    if weights == graphs.FP16:
        return {"vectors": rows.astype(np.float16)}
    whole, scales = graphs.in_int8(rows, 0)
    return {"vectors": whole, "scales": scales[:, 0]}

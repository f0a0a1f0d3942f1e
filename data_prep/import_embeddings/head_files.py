"""Reads the last layer of a classifier: which of a file's arrays it is, and what its classes are called.

Weights in every form that a tower's may have are read, classifier and all; of a large file the layer alone.
"""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.import_embeddings.arrays import arrays_in, sound
from data_prep.import_embeddings.heads import Head
from lit_jax.errors import UserError
from lit_jax.models.weight_files import WeightFile, documents, open_weights, wrappers
from lit_jax.text.classes import some

# Layers that are the last one of a classifier, by the names of timm, torchvision, Hugging Face, big_vision and others.
LAYERS = (
    "head", "head.fc", "head.head", "heads.head", "head.classifier", "head.l", "classifier", "classifier.1",
    "classifier.fc", "fc", "fc.1", "last_linear", "logits", "output_layer", "linear", "pre_logits.head",
)  # fmt: skip
_PREFIXES = ("", "module.", "model.", "backbone.", "net.", "network.", "visual.", "params.", "params.Transformer.")
_KINDS = ("weight", "kernel")  # of torch [C, W], of Flax [W, C]
_FEW = 8  # arrays of a file that is a head and nothing else, at most
_LISTED = 6
_LABELS = ("labels", "names", "label_names", "classes")


def read_head(source: str, name: str = "") -> Head:
    """Reads the weight and the bias of a classifier's last layer.

    Args:
        source: ``.npz``, ``.npy``, ``.safetensors`` or a PyTorch file, a folder of timm or Hugging Face, or
            ``hf-hub:OWNER/NAME``. Names of classes stand in the folder's ``config.json`` (`label_names` with
            `label_descriptions`, or `id2label`), or as texts, one a class, in the ``.npz``.
        name: of the array of weights; by default the one that bears a usual name or is the only one that can be.

    Returns:
        The head. A bias is the array named like the weight with ``bias`` at the end, and zero where there is none.

    Raises:
        UserError: what `open_weights` refuses; several arrays that may be the head, or none; one that is no
            `[classes, width]` of finite floats; names that are not one a class.
    """
    file = _opened(source)
    chosen = _chosen(file, name)
    weight = _matrix(file, chosen)
    bias = _bias(file, chosen, len(weight))
    sha = hashlib.sha256(np.ascontiguousarray(weight).data)
    sha.update(np.ascontiguousarray(bias).data)
    title = Path(source).name if not source.startswith("hf-hub:") else source
    return Head(weight, bias, _labels(file, len(weight)), title, chosen, sha.hexdigest())


def _opened(source: str) -> WeightFile:
    if source.endswith(".npy"):
        path = Path(source)
        (array,) = arrays_in(path).values()
        return WeightFile(source, {"": sound(path, array.load)}, {})
    file = open_weights(source)
    return WeightFile(file.where, file.arrays, file.documents or documents(source))


def _chosen(file: WeightFile, name: str) -> str:
    """The name of the array of weights."""
    if name:
        if name not in file.arrays:
            raise UserError(f"{file.where}: found no {name!r} ({_listed(file)}), expected it; correct --head-name")
        return name
    wrapped = wrappers(key.replace("/", ".") for key in file.arrays)
    prefixes = {*_PREFIXES, *(wrapper + prefix for wrapper in wrapped for prefix in _PREFIXES)}
    usual = {f"{prefix}{layer}.{kind}" for prefix in prefixes for layer in LAYERS for kind in _KINDS}
    fit = [key for key in file.arrays if key.replace("/", ".") in usual and _can_be(file.arrays[key])]
    if not fit and len(file.arrays) <= _FEW:
        fit = [key for key, array in file.arrays.items() if _can_be(array)]
    if len(fit) == 1:
        return fit[0]
    if fit:
        raise UserError(
            f"{file.where}: found {' and '.join(sorted(fit))}, expected one last layer; choose with --head-name"
        )
    raise UserError(
        f"{file.where}: found no last layer ({_listed(file)}), expected such as head.weight, fc.weight or "
        "classifier.weight; name it with --head-name"
    )


def _listed(file: WeightFile) -> str:
    return some([key or "an array without a name" for key in sorted(file.arrays)], _LISTED) or "no array"


def _is_float(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def _can_be(array: np.ndarray) -> bool:
    """Whether it is a matrix of floats; kernels of 1 x 1 pixels count as one."""
    return _is_float(array) and _flat_shape(array) is not None


def _flat_shape(array: np.ndarray) -> tuple[int, int] | None:
    """`[C, W]` of a matrix or a kernel of 1 x 1 pixels, torch's or Flax's; None for anything else."""
    shape = array.shape
    if array.ndim == 4 and math.prod(shape[2:]) == 1:
        shape = shape[:2]
    elif array.ndim == 4 and math.prod(shape[:2]) == 1:
        shape = shape[2:]
    return (int(shape[0]), int(shape[1])) if len(shape) == 2 else None


def _matrix(file: WeightFile, name: str) -> np.ndarray:
    """`[C, W]` float32."""
    array, what = file.arrays[name], f"{file.where} {name}".strip()
    shape = _flat_shape(array)
    if shape is None or not _is_float(array):
        found = f"{array.dtype} {list(array.shape)}"
        raise UserError(f"{what}: found {found}, expected floats [classes, width]; choose with --head-name")
    matrix = np.asarray(array, np.float32).reshape(shape)
    matrix = matrix.T if name.replace("/", ".").endswith("kernel") else matrix
    if len(matrix) < 2:
        raise UserError(f"{what}: found {len(matrix)} class, expected two or more; choose with --head-name")
    if not np.isfinite(matrix).all():
        raise UserError(f"{what}: found values that are not finite, expected numbers; save it again")
    return matrix


def _bias(file: WeightFile, name: str, classes: int) -> np.ndarray:
    """`[C]` float32."""
    stem = next((name.removesuffix(kind) for kind in _KINDS if name.endswith(kind)), None)
    # In a file of a head alone the bias is what it is, whatever the weight is called.
    wanted = "bias" if stem is None else f"{stem}bias"
    if wanted not in file.arrays:
        return np.zeros(classes, np.float32)
    bias = np.asarray(file.arrays[wanted], np.float32).reshape(-1)
    if bias.shape != (classes,) or not np.isfinite(bias).all():
        found = f"{len(bias)} numbers" if bias.shape != (classes,) else "values that are not finite"
        raise UserError(f"{file.where} {wanted}: found {found}, expected {classes}, one a class; choose --head-name")
    return bias


def _labels(file: WeightFile, classes: int) -> tuple[tuple[str, ...], ...] | None:
    """What each class is called, the surest first; None where the file does not say."""
    config = file.documents.get("config.json")
    found = _of_config(config) if isinstance(config, dict) else None
    if found is None:
        found = _of_arrays(file.arrays, classes)
    if found is not None and len(found) != classes:
        raise UserError(
            f"{file.where}: found {len(found)} names of classes, expected {classes}, one a row of the head; take them "
            "out of its config.json, and give the classes in the order of the head"
        )
    return found


def _of_config(config: Mapping[str, Any]) -> tuple[tuple[str, ...], ...] | None:
    """Of timm, at the top or in `pretrained_cfg`; of Hugging Face, unless its names are numbers only."""
    inner = config.get("pretrained_cfg")
    for place in (config, inner if isinstance(inner, dict) else {}):
        names = place.get("label_names") or place.get("labels")
        if isinstance(names, list | dict):
            told = place.get("label_descriptions")
            return tuple((name, *_description(told, name, i)) for i, name in enumerate(_in_order(names)))
    of = config.get("id2label")
    if isinstance(of, dict) and not all(str(label).upper() == f"LABEL_{i}" for i, label in of.items()):
        return tuple((name,) for name in _in_order(of))
    return None


def _in_order(names: Sequence[Any] | Mapping[str, Any]) -> list[str]:
    if isinstance(names, Mapping):
        if not all(re.fullmatch("[0-9]{1,18}", str(key)) for key in names):
            raise UserError("config.json: found names of classes under words, expected numbers of rows; correct it")
        names = [names[key] for key in sorted(names, key=int)]
    return [str(name) for name in names]


def _description(told: Any, name: str, row: int) -> list[str]:
    if isinstance(told, Mapping):
        told = told.get(name, told.get(str(row)))
    elif isinstance(told, list):
        told = told[row] if row < len(told) else None
    return [told] if isinstance(told, str) else []


def _of_arrays(arrays: Mapping[str, np.ndarray], classes: int) -> tuple[tuple[str, ...], ...] | None:
    if len(arrays) > _FEW:
        return None
    texts = {key: array for key, array in arrays.items() if array.dtype.kind in "US" and array.shape == (classes,)}
    key = next((key for key in _LABELS if key in texts), None) or (next(iter(texts)) if len(texts) == 1 else None)
    if key is None:
        return None
    return tuple((label.decode() if isinstance(label, bytes) else label,) for label in texts[key].tolist())

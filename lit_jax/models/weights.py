"""Published weight files to our parameter trees and back, refusing leftovers and gaps by name.

Files are NumPy ``.npz`` archives with ``/``-joined names, in either of Google's two namings: AugReg's
(``Transformer/encoderblock_0/MultiHeadDotProductAttention_1/...``, google-research/vision_transformer) and the
later one of big_vision (``..._0``). Names may stand under ``params/``, ``opt/target/``, ``img/`` or ``txt/``.
"""

import dataclasses
import hashlib
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import ml_dtypes
import numpy as np

from lit_jax.errors import UserError

Flat = dict[str, np.ndarray]

# Ours on the left; on the right the name inside one block, AugReg's and big_vision's.
_BLOCK_NAMES = {
    "attention_norm": ("LayerNorm_0", "LayerNorm_0"),
    "attention": ("MultiHeadDotProductAttention_1", "MultiHeadDotProductAttention_0"),
    "mlp_norm": ("LayerNorm_2", "LayerNorm_1"),
    "mlp/expand": ("MlpBlock_3/Dense_0", "MlpBlock_0/Dense_0"),
    "mlp/contract": ("MlpBlock_3/Dense_1", "MlpBlock_0/Dense_1"),
}
_POOL_NAMES = {
    "pool/probe": "MAPHead_0/probe",
    "pool/attention": "MAPHead_0/MultiHeadDotProductAttention_0",
    "pool/norm": "MAPHead_0/LayerNorm_0",
    "pool/mlp/expand": "MAPHead_0/MlpBlock_0/Dense_0",
    "pool/mlp/contract": "MAPHead_0/MlpBlock_0/Dense_1",
}
_VIT_NAMES = {
    "class_token": "cls",
    "embedding": "embedding",
    "position_embedding": "Transformer/posembed_input/pos_embedding",
    "encoder/norm": "Transformer/encoder_norm",
    **_POOL_NAMES,
}
_TEXT_NAMES = {
    "embedding/embedding": "Embed_0/embedding",
    "position_embedding": "pos_embedding",
    "encoder/norm": "Encoder_0/encoder_norm",
    "projection": "head",
    **_POOL_NAMES,
}
_ENCODERS = {"image": "Transformer", "text": "Encoder_0"}
_NAMES = {"image": _VIT_NAMES, "text": _TEXT_NAMES}
# A classifier head is no part of a tower.
_LEFT_OUT = ("head/", "pre_logits/")
_PREFIXES = ("opt/target/", "params/", "img/", "txt/")


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What a reader did.

    Attributes:
        left_out: names in the file that are no part of the tower.
        resized: arrays that were resized, ``name: old -> new``.
        digest: SHA-256 of the tower's arrays as they stand in the file, before any resizing: its identity on
            every machine.
    """

    left_out: tuple[str, ...]
    resized: tuple[str, ...]
    digest: str


def read_npz(path: str | os.PathLike[str]) -> Flat:
    """Reads a weight file.

    Args:
        path: an ``.npz`` archive.

    Returns:
        Arrays by name, without optimizer state and common prefixes; 2-byte void arrays are bfloat16.

    Raises:
        UserError: if the file is missing, or is not a whole ``.npz`` archive.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"weights {path}: found no such file, expected an .npz of pretrained weights")
    try:
        with np.load(path, allow_pickle=False) as archive:
            flat = {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, AttributeError) as error:
        raise UserError(f"weights {path}: found {error}, expected a whole .npz archive; fetch it again") from None
    flat = {name: a.view(ml_dtypes.bfloat16) if a.dtype.str[1:] == "V2" else a for name, a in flat.items()}
    for prefix in _PREFIXES:
        if any(name.startswith(prefix) for name in flat):
            flat = {name.removeprefix(prefix): a for name, a in flat.items() if name.startswith(prefix)}
    return flat


def load_tower(path: str | os.PathLike[str], like: Any, kind: str) -> tuple[Any, LoadReport]:
    """Loads a tower's weights into a tree of a given shape.

    Args:
        path: an ``.npz`` file.
        like: the tower's parameters, or their `jax.ShapeDtypeStruct`s: the shapes to fill.
        kind: ``image`` for a ViT, ``text`` for a text transformer.

    Returns:
        The tree of float32 NumPy arrays, and a report. Position embeddings of another grid are resized
        (bicubic with antialiasing); a missing class-token position is taken as zero (big_vision adds it to the
        token itself).

    Raises:
        UserError: names of the file that fit nothing, names that are missing, or a shape that does not fit.
    """
    return fill(read_npz(path), like, kind, source=str(path))


def fill(flat: Mapping[str, np.ndarray], like: Any, kind: str, *, source: str) -> tuple[Any, LoadReport]:
    """`load_tower` from arrays already read; `source` names them in messages."""
    flat = dict(flat)
    left_out = () if kind == "text" else tuple(sorted(name for name in flat if name.startswith(_LEFT_OUT)))
    names = _file_names(like, kind, flat)
    wanted = {name for group in names.values() for name in group}
    missing = sorted(wanted - flat.keys())
    unused = sorted(flat.keys() - wanted - set(left_out))
    if missing or unused:
        raise UserError(
            f"weights {source}: found {_some(unused)} left over and {_some(missing)} missing, expected exactly the "
            f"{kind} tower of the config; check its depth, width, patch and pool"
        )
    leaves, resized = {}, []
    for path, leaf in _leaves(like).items():
        group = [np.asarray(flat[name], np.float32) for name in names[path]]
        value = np.stack(group) if path.startswith("encoder/blocks/") else group[0]
        if path == "position_embedding" and kind == "image" and value.shape != leaf.shape:
            before = value.shape
            value = resize_positions(value, leaf.shape, source=source)
            resized.append(f"{path}: {before} -> {value.shape}")
        if value.shape != leaf.shape:
            raise UserError(f"weights {source}: found {names[path][0]} of shape {group[0].shape}, expected "
                            f"{leaf.shape[-group[0].ndim:]}; check the tower's options")  # fmt: skip
        leaves[path] = value
    identity = digest({name: flat[name] for name in wanted})
    return _unflatten(leaves), LoadReport(left_out, tuple(resized), identity)


def tower_to_npz(params: Any, kind: str) -> Flat:
    """A tower's parameters under AugReg's names (image) or big_vision's (text): the inverse of `fill`."""
    out: Flat = {}
    for path, names in _file_names(params, kind, {}).items():
        value = np.asarray(_leaves(params)[path])
        for i, name in enumerate(names):
            out[name] = value[i] if path.startswith("encoder/blocks/") else value
    return out


def write_npz(path: str | os.PathLike[str], flat: Mapping[str, np.ndarray]) -> None:
    """Writes a compressed ``.npz`` aside and renames it, so that no half-written file is ever read."""
    path = pathlib.Path(path)
    aside = path.with_name(path.name + ".incomplete")
    with open(aside, "wb") as file:
        np.savez_compressed(file, **flat)  # type: ignore[arg-type]
    aside.rename(path)


def resize_positions(value: np.ndarray, shape: tuple[int, ...], *, source: str = "") -> np.ndarray:
    """Position embeddings `[1, N, D]` for another square grid of patches.

    Args:
        value: `[1, g*g, D]` or `[1, 1 + g*g, D]` with a class token's position first.
        shape: the shape wanted, `[1, G*G, D]` or `[1, 1 + G*G, D]`.
        source: named in messages.

    Raises:
        UserError: if one of the two is not a square grid, or widths differ.
    """
    (token, grid), (wants_token, new_grid) = _grid(value.shape[1]), _grid(shape[1])
    if value.ndim != 3 or value.shape[2] != shape[2] or grid is None or new_grid is None:
        raise UserError(f"weights {source}: found position embeddings {value.shape}, expected a form of {shape}")
    first = value[:, :1] if token else np.zeros((1, 1, shape[2]), np.float32)
    square = value[:, int(token) :].reshape(grid, grid, shape[2])
    if new_grid != grid:
        square = np.asarray(jax.image.resize(square, (new_grid, new_grid, shape[2]), "bicubic", antialias=True))
    square = square.reshape(1, new_grid * new_grid, shape[2])
    return np.concatenate([first, square], 1) if wants_token else square


def digest(params: Any) -> str:
    """SHA-256 over names, shapes and float32 bytes of a tree of arrays."""
    sha = hashlib.sha256()
    for path, leaf in sorted(_leaves(params).items()):
        value = np.ascontiguousarray(np.asarray(leaf, np.float32))
        sha.update(f"{path}{value.shape}".encode())
        sha.update(value.tobytes())
    return sha.hexdigest()


def _grid(positions: int) -> tuple[bool, int | None]:
    for token in (False, True):
        side = round((positions - token) ** 0.5)
        if side * side == positions - token:
            return token, side
    return False, None


def _file_names(like: Any, kind: str, flat: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """For each leaf of the tree, its name in the file: one, or one a block."""
    encoder = _ENCODERS[kind]
    modern = kind == "text" or any("MultiHeadDotProductAttention_0" in name and encoder in name for name in flat)
    names = {}
    for path, leaf in _leaves(like).items():
        if path.startswith("encoder/blocks/"):
            inside = _renamed(path.removeprefix("encoder/blocks/"), {k: v[modern] for k, v in _BLOCK_NAMES.items()})
            names[path] = [f"{encoder}/encoderblock_{i}/{inside}" for i in range(leaf.shape[0])]
        else:
            names[path] = [_position_name(_renamed(path, _NAMES[kind]), kind, flat)]
    return names


def _position_name(name: str, kind: str, flat: Mapping[str, np.ndarray]) -> str:
    # big_vision's own ViT files call it plainly `pos_embedding`.
    is_plain = kind == "image" and name.endswith("/pos_embedding") and name not in flat and "pos_embedding" in flat
    return "pos_embedding" if is_plain else name


def _renamed(path: str, names: Mapping[str, str]) -> str:
    for ours, theirs in names.items():
        if path == ours or path.startswith(ours + "/"):
            return theirs + path[len(ours) :]
    raise KeyError(path)


def _leaves(tree: Any) -> dict[str, Any]:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in flat}


def _unflatten(leaves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def _some(names: list[str]) -> str:
    return "nothing" if not names else ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

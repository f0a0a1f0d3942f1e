"""What joins two towers, from the file of a whole model: CLIP, SigLIP, LiT."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lit_jax.errors import UserError
from lit_jax.models.locking import LOGIT_BIAS
from lit_jax.models.names.joint import NAMES, TRANSPOSED
from lit_jax.models.weight_files import open_weights
from lit_jax.models.weights import leaves, unflatten


def load_joint(source: str, like: Mapping[str, Any]) -> dict[str, Any]:
    """Projections, logit scale and logit bias.

    Args:
        source: a file, a folder or a name on the hub, as `files.open_weights` takes it.
        like: shapes of those wanted, by their keys in `lit_jax.models.two_tower`.

    Returns:
        The tree of float32 arrays. A projection without a bias in the file gets zeros.

    Raises:
        UserError: one that the file lacks, one that it has and the config does not want, or another shape.
    """
    found = open_weights(source)
    wanted = leaves(like)
    for ours in ("projection/kernel", "logit_bias"):
        extra = _name(ours, found.arrays)
        if extra and ours not in wanted:
            raise UserError(f"weights {found.where}: found {extra}, expected none of it; {_remedy(ours, True)}")
    return unflatten({ours: _array(ours, leaf.shape, found.arrays, found.where) for ours, leaf in wanted.items()})


def _name(ours: str, arrays: Mapping[str, np.ndarray]) -> str | None:
    return next((name for name in NAMES[ours] if name in arrays), None)


def _array(ours: str, shape: tuple[int, ...], arrays: Mapping[str, np.ndarray], where: str) -> np.ndarray:
    name = _name(ours, arrays)
    if name is None:
        if ours.endswith("/bias"):
            return np.zeros(shape, np.float32)
        raise UserError(
            f"weights {where}: found none of {', '.join(NAMES[ours])}, expected one of them; {_remedy(ours, False)}"
        )
    array = np.asarray(arrays[name], np.float32)
    array = array.T if name in TRANSPOSED else array
    if array.size != np.prod(shape, dtype=int) or (array.ndim > 1 and array.shape != shape):
        raise UserError(
            f"weights {where}: found {name} of shape {array.shape}, expected {shape}; check model.embed_dim and the "
            "towers"
        )
    return np.array(array.reshape(shape), order="C")  # of no axes too, unlike ascontiguousarray


def _remedy(ours: str, there: bool) -> str:
    if ours == LOGIT_BIAS:
        return f'set model.loss to "{"sigmoid" if there else "softmax"}"'
    if ours == "projection/kernel":
        return f"set model.projection to {there}"
    return "check text.tower" if ours.startswith("text_projection") else "give the file of a whole model"

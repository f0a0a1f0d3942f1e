"""Class embeddings kept beside a model, so that its prompts are embedded once and not at each evaluation."""

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from lit_jax.base import files
from lit_jax.errors import DAMAGED
from lit_jax.models import weights
from lit_jax.models.locking import TEXT, TEXT_PROJECTION, Params
from lit_jax.models.presets import Tower
from lit_jax.version import __version__

FOLDER = "class_embeddings"


VERSION = 1
"""Of the code between prompts and class embeddings; what another version made is not read. Raise it with that code."""


def key_of(params: Params, tower: Tower, context: int, tokenizer: bytes, prompts: Sequence[Sequence[str]]) -> str:
    """What decides class embeddings: the text side, its tokenizer, how much it reads, the prompts, and the code.

    Args:
        params: of the whole model.
        tower: the text tower, whose options count.
        context: tokens read at the most.
        tokenizer: the model's bytes.
        prompts: for each of K classes its prompts.

    Returns:
        A hexadecimal digest.
    """
    parts = {
        "version": VERSION,
        "packages": [__version__, jax.__version__],
        "devices": jax.default_backend(),
        "tower": repr(tower),
        "params": weights.digest({name: tree for name, tree in params.items() if name in (TEXT, TEXT_PROJECTION)}),
        "context": context,
        "tokenizer": hashlib.sha256(tokenizer).hexdigest(),
        "prompts": files.digest([list(texts) for texts in prompts]),
    }
    return files.digest(parts)


def kept(folder: Path | None, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array of that key: read from the folder, or computed and saved there.

    A folder that cannot be written to, or a file that is damaged, only costs the making.

    Args:
        folder: the model's own; None to keep nothing.
        key: from `key_of`.
        make: computes `[K, D]` float32.

    Returns:
        The array.
    """
    path = folder / FOLDER / f"{key[:20]}.npz" if folder else None
    if path is not None:
        with (
            contextlib.suppress(OSError, *DAMAGED),
            path.open("rb") as raw,
            np.load(raw) as file,
        ):
            if str(file["key"]) == key:
                found: np.ndarray = file["embeddings"]
                return found
    made = make()
    if path is not None:
        with contextlib.suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            with files.written_aside(path) as aside, open(aside, "wb") as out:
                np.savez(out, embeddings=made, key=np.array(key))
    return made

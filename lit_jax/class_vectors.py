"""Class embeddings kept beside a model, so that its prompts are embedded once and not at each evaluation."""

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lit_jax import manifest
from lit_jax.models import weights
from lit_jax.models.two_tower import Params

FOLDER = "class_embeddings"


def key_of(params: Params, context: int, tokenizer: bytes, prompts: Sequence[Sequence[str]]) -> str:
    """What decides class embeddings: the text side's parameters, its tokenizer, how much it reads, and the prompts.

    Args:
        params: of the whole model.
        context: tokens read at the most.
        tokenizer: the model's bytes.
        prompts: for each of K classes its prompts.

    Returns:
        A hexadecimal digest.
    """
    parts = {
        "params": weights.digest({name: tree for name, tree in params.items() if name in ("text", "text_projection")}),
        "context": context,
        "tokenizer": hashlib.sha256(tokenizer).hexdigest(),
        "prompts": manifest.digest([list(texts) for texts in prompts]),
    }
    return manifest.digest(parts)


def kept(folder: Path | None, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array of that key: read from the folder, or made and left there.

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
        with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile), np.load(path) as file:
            if str(file["key"]) == key:
                found: np.ndarray = file["embeddings"]
                return found
    made = make()
    if path is not None:
        with contextlib.suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            aside = path.with_name(f"{path.name}.{os.getpid()}.part")
            with open(aside, "wb") as out:
                np.savez(out, embeddings=made, key=np.array(key))
            aside.replace(path)
    return made

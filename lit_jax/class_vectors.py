"""Class embeddings kept beside a model, so that its prompts are embedded once and not at each evaluation."""

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lit_jax.models.two_tower import Params
from lit_jax.models.weights import digest

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
    text = {name: tree for name, tree in params.items() if name in ("text", "text_projection")}
    parts: Mapping[str, Any] = {
        "params": digest(text),
        "context": context,
        "tokenizer": hashlib.sha256(tokenizer).hexdigest(),
        "prompts": hashlib.sha256(json.dumps([list(texts) for texts in prompts]).encode()).hexdigest(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def kept(folder: Path | None, key: str, make: Callable[[], np.ndarray]) -> tuple[np.ndarray, bool]:
    """The array of that key: read from the folder, or made and left there.

    A folder that cannot be written to, or a file that is damaged, only costs the making.

    Args:
        folder: the model's own; None to keep nothing.
        key: from `key_of`.
        make: computes `[K, D]` float32.

    Returns:
        The array, and whether it was there before.
    """
    path = folder / FOLDER / f"{key[:20]}.npz" if folder else None
    if path is not None:
        with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile), np.load(path) as file:
            if str(file["key"]) == key:
                return file["embeddings"], True
    made = make()
    if path is not None:
        with contextlib.suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            aside = path.with_name(f"{path.name}.{os.getpid()}.part")
            with open(aside, "wb") as out:
                np.savez(out, embeddings=made, key=np.array(key))
            aside.replace(path)
    return made, False

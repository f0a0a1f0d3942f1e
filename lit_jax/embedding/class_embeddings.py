"""Embeddings of classes, from those of the prompts that name them."""

from collections.abc import Callable, Sequence

import numpy as np

from lit_jax.errors import UserError

EmbedTexts = Callable[[Sequence[str]], np.ndarray]
TEXTS = 1 << 15  # prompts whose embeddings are held at a time


def class_embeddings(
    embed_texts: EmbedTexts, prompts: Sequence[Sequence[str]], *, tick: Callable[[int, int], None] = lambda *_: None
) -> np.ndarray:
    """One unit vector a class: its prompts' unit embeddings, averaged and normalised again.

    Sums are kept, not the embeddings of the prompts: those of 10,000 classes by 80 templates would be gigabytes.

    Args:
        embed_texts: texts to unit-norm `[N, D]`; equal texts are embedded once.
        prompts: for each of K classes its prompts, at least one.
        tick: told the number of texts done, and of all, now and then.

    Returns:
        `[K, D]` float32, in the order of `prompts`.

    Raises:
        UserError: if there is no class.

    Source: CLIP's prompt ensembling (arXiv 2103.00020, section 3.1.4).
    """
    if not prompts:
        raise UserError("classes: found none, expected at least one class to choose from")
    distinct = list(dict.fromkeys(text for texts in prompts for text in texts))
    row_of = {text: row for row, text in enumerate(distinct)}
    text = np.array([row_of[text] for texts in prompts for text in texts])
    owner = np.repeat(np.arange(len(prompts)), [len(texts) for texts in prompts])
    by_text = np.argsort(text, kind="stable")
    text, owner = text[by_text], owner[by_text]
    sums = None
    for start in range(0, len(distinct), TEXTS):
        embedded = embed_texts(distinct[start : start + TEXTS]).astype(np.float64)
        sums = np.zeros((len(prompts), embedded.shape[1])) if sums is None else sums
        here = slice(*np.searchsorted(text, [start, start + TEXTS]))
        np.add.at(sums, owner[here], embedded[text[here] - start])
        tick(min(start + TEXTS, len(distinct)), len(distinct))
    assert sums is not None
    return (sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)).astype(np.float32)

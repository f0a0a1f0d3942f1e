"""Embeddings of classes, from the prompts that name them."""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lit_jax import models
from lit_jax.base.sharding import put_rows
from lit_jax.embedding.photo_embeddings import Embedder
from lit_jax.errors import UserError
from lit_jax.models.locking import Params
from lit_jax.models.two_tower import TwoTower
from lit_jax.text.tokenizers import lengths

Tokenise = Callable[[Sequence[str]], np.ndarray]


EmbedTexts = Callable[[Sequence[str]], np.ndarray]


TEXTS = 1 << 15  # prompts whose embeddings are held at a time
ROWS = 256  # texts at a time, where their features are asked for


def text_embedder(
    parts: Embedder, params: Params, tokenise: Tokenise, *, batch_size: int, end_id: int | None = None
) -> EmbedTexts:
    """A function from texts to unit-norm embeddings `[N, D]` float32, the same on every host.

    Args:
        parts: the jitted functions.
        params: with the text tower.
        tokenise: texts to `[N, T]` int32.
        batch_size: texts at a time; the last batch is padded, so that few shapes are compiled.
        end_id: id of the token behind which the tower reads nothing, so that short texts are cut; None: they must
            not be.
    """

    def embed(texts: Sequence[str]) -> np.ndarray:
        tokens = tokenise(texts)
        ends = np.full(len(tokens), tokens.shape[1]) if end_id is None else lengths(tokens, end_id)
        order, out = np.argsort(ends, kind="stable"), []
        for start in range(0, len(tokens), batch_size):
            rows = order[start : start + batch_size]
            padded = tokens[np.concatenate([rows, np.repeat(rows[-1:], batch_size - len(rows))])]
            whole = parts.texts(params, put_rows(padded[:, : _cut(int(ends[rows[-1]]), tokens.shape[1])], parts.mesh))
            out.append(np.asarray(whole.addressable_data(0))[: len(rows)])
        embedded = np.concatenate(out)
        back = np.empty_like(embedded)
        back[order] = embedded
        return back

    return embed


def _cut(longest: int, context: int) -> int:
    """Tokens to compute for texts of at most `longest`: a power of two, so that few shapes are compiled."""
    return min(max(16, 1 << (longest - 1).bit_length()), context)


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


def text_features(model: TwoTower, tower: Params, tokens: np.ndarray) -> np.ndarray:
    """What the last layer of the text side reads of texts: `[N, T]` int32 to `[N, F]` float32."""
    parts = []
    for start in range(0, len(tokens), ROWS):
        rows = tokens[start : start + ROWS]
        padded = np.concatenate([rows, np.repeat(rows[-1:], ROWS - len(rows), 0)])
        parts.append(np.asarray(_reader(model)(tower, jnp.asarray(padded)), np.float32)[: len(rows)])
    return np.concatenate(parts)


@functools.lru_cache(maxsize=2)
def _reader(model: TwoTower) -> Callable[[Params, jax.Array], jax.Array]:
    return jax.jit(lambda tower, tokens: models.text_features(model, tower, tokens))


def prompts_of_species(prompts: Mapping[int, Sequence[str]], species_of: Mapping[int, int]) -> dict[int, Sequence[str]]:
    """Prompts by the id of a species' first row: those of all its rows, where there are several."""
    found: dict[int, Sequence[str]] = {}
    for class_id, texts in prompts.items():
        species = species_of.get(class_id, class_id)
        found[species] = [*found.get(species, ()), *texts]
    return found

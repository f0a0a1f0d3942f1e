"""Embeddings and features of texts, through the text tower."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lit_jax import models
from lit_jax.base.sharding import put_rows
from lit_jax.embedding.class_embeddings import EmbedTexts
from lit_jax.embedding.photo_embeddings import Embedder
from lit_jax.models.locking import Params
from lit_jax.models.two_tower import TwoTower
from lit_jax.text.tokenizers import lengths

Tokenise = Callable[[Sequence[str]], np.ndarray]
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

"""Retrieval between photos and texts: how often a right answer is among the first k, in both directions.

Rows are compared block by block, so that memory grows with one side only: 100,000 by 100,000 takes a few hundred
megabytes. Ties are exact, as in `lit_jax.evaluation.ranking`: of equal scores the lower number comes first.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lit_jax.base.sharding import filled_blocks
from lit_jax.evaluation.intervals import wilson

KS = (1, 5, 10)
BLOCK = 512  # queries at a time


def first_right(
    queries: np.ndarray, keys: np.ndarray, query_groups: np.ndarray, key_groups: np.ndarray, *, block: int = BLOCK
) -> np.ndarray:
    """How many wrong answers come before the first right one.

    Args:
        queries: `[Q, D]` float.
        keys: `[M, D]` float; a key answers a query rightly if they are of the same group.
        query_groups: `[Q]` integers.
        key_groups: `[M]` integers.
        block: queries at a time; decides memory, block times M, and nothing else.

    Returns:
        `[Q]` int64; M for a query without any right answer.
    """
    if len(queries) == 0 or len(keys) == 0:
        return np.full(len(queries), len(keys), np.int64)
    # Equal keys get one and the same column, so that a matrix product cannot tell them apart.
    distinct, column = np.unique(np.asarray(keys, np.float32), axis=0, return_inverse=True)
    columns = None if len(distinct) == len(keys) else jnp.asarray(column.reshape(-1), jnp.int32)
    on_device = jnp.asarray(keys if columns is None else distinct, jnp.float32)
    groups = jnp.asarray(key_groups, jnp.int32)
    ranks = []
    for rows, count in filled_blocks(len(queries), block):
        found = _first_right(
            jnp.asarray(queries[rows], jnp.float32),
            jnp.asarray(query_groups[rows], jnp.int32),
            on_device,
            groups,
            columns,
        )
        ranks.append(np.asarray(found)[:count])
    return np.concatenate(ranks).astype(np.int64)


@jax.jit
def _first_right(
    queries: jax.Array, wanted: jax.Array, keys: jax.Array, groups: jax.Array, columns: jax.Array | None
) -> jax.Array:
    scores = jnp.matmul(queries, keys.T, precision=jax.lax.Precision.HIGHEST)
    scores = scores if columns is None else scores[:, columns]
    right = wanted[:, None] == groups[None]
    own = jnp.where(right, scores, -jnp.inf)
    best = jnp.max(own, 1, keepdims=True)
    where = jnp.argmax(own, 1, keepdims=True)  # the first of equal ones
    before = (scores > best) | ((scores == best) & (jnp.arange(len(groups))[None] < where))
    return jnp.where(right.any(1), jnp.sum(before & ~right, 1), len(groups))


def summary(ranks: np.ndarray, ks: Sequence[int] = KS) -> dict[str, Any]:
    """Recall at k as fractions with intervals, and mean and median place of the first right answer, counted from 1."""
    places = {"mean_rank": float(ranks.mean() + 1), "median_rank": float(np.floor(np.median(ranks)) + 1)}
    recalls = {f"recall@{k}": float((ranks < k).mean()) for k in ks}
    intervals = {f"{name}_interval": wilson(share, len(ranks)) for name, share in recalls.items()}
    return {**recalls, **intervals, **places}


def both_ways(
    photos: np.ndarray, texts: np.ndarray, text_of: np.ndarray, *, block: int = BLOCK
) -> dict[str, dict[str, Any]]:
    """Recall of texts by photos and of photos by texts.

    Args:
        photos: `[N, D]` unit-norm embeddings.
        texts: `[M, D]` likewise.
        text_of: `[N]` the number of each photo's own text. Photos may share a text: any of them answers it rightly.
            Texts without a photo are wrong answers, and are not asked for.
        block: rows at a time.
    """
    asked = np.unique(text_of)
    numbers = np.arange(len(texts))
    return {
        "image_to_text": summary(first_right(photos, texts, text_of, numbers, block=block)),
        "text_to_image": summary(first_right(texts[asked], photos, asked, text_of, block=block)),
    }

"""Text without waste: each distinct caption of a batch once, no longer than the longest of them.

A text tower's work grows with rows and with tokens. Labelled photos share captions, and captions are far shorter
than a tower's context, so most of both is waste. What is left out here has no influence on the loss: equal rows
have equal embeddings, and what follows the end token is masked. Sizes are rounded up along a short ladder, so that
a run compiles a handful of shapes and not one a batch.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lit_jax.data.epoch_order import caption_drawn
from lit_jax.text.tokenizers import lengths


class Texts(NamedTuple):
    """The captions of a batch.

    Attributes:
        tokens: `[U, T]` int32: distinct rows; those that no pair points to are padding.
        caption: `[B]` int32: pair i has row ``caption[i]``; None if each pair has a row of its own, the i-th.
    """

    tokens: np.ndarray
    caption: np.ndarray | None


class CaptionTable(NamedTuple):
    """All captions of some classes, tokenised once.

    Attributes:
        tokens: `[C, T]` int32, distinct rows; or `[C, F]` float32, what a locked text tower makes of them.
        class_ids: `[K]` int64, ascending.
        rows: `[K, M]` int64: row numbers of each class's captions, in the order of the templates, then padding.
        counts: `[K]` int64: how many captions each class has.
    """

    tokens: np.ndarray
    class_ids: np.ndarray
    rows: np.ndarray
    counts: np.ndarray

    def drawn(self, class_ids: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """One caption for each pair: class ids and draws, both `[B]`, to row numbers `[B]`."""
        position = np.searchsorted(self.class_ids, class_ids)
        return self.rows[position, caption_drawn(draws, self.counts[position])]


def caption_table(captions: Mapping[int, Sequence[str]], encode: Callable[[Sequence[str]], np.ndarray]) -> CaptionTable:
    """Tokenises the captions of every class; captions with equal tokens are one.

    Args:
        captions: texts of each class, at least one, by class id.
        encode: N texts to `[N, T]` int32.
    """
    texts = list(dict.fromkeys(text for group in captions.values() for text in group))
    tokens, number = np.unique(encode(texts), axis=0, return_inverse=True)
    row_of = dict(zip(texts, number.reshape(-1).tolist(), strict=True))
    counts = np.array([len(captions[class_id]) for class_id in sorted(captions)])
    rows = np.zeros((len(captions), counts.max()), np.int64)
    for row, class_id in zip(rows, sorted(captions), strict=True):
        row[: len(captions[class_id])] = [row_of[text] for text in captions[class_id]]
    return CaptionTable(tokens, np.array(sorted(captions)), rows, counts)


def distinct(tokens: np.ndarray) -> Texts:
    """Each distinct row of `[B, T]` once."""
    rows, index = np.unique(tokens, axis=0, return_inverse=True)
    return Texts(rows, index.reshape(-1).astype(np.int32))


def bucketed(texts: Texts, *, end_id: int, rows: int, grain: int) -> Texts:
    """Cuts to the longest sentence and rounds both sides up to the next size of the ladder.

    Args:
        texts: rows that each hold an end token.
        end_id: id of the end token.
        rows: the number of distinct rows is made a multiple of this: of the devices.
        grain: T is made a multiple of this, up to what it was; 0 leaves it.
    """
    tokens = texts.tokens
    if grain:
        longest = int(lengths(tokens, end_id).max())
        tokens = tokens[:, : min(-(-longest // grain) * grain, tokens.shape[1])]
    if texts.caption is None:
        return Texts(tokens, None)
    missing = rounded_up(len(tokens), rows) - len(tokens)
    return Texts(np.concatenate([tokens, np.repeat(tokens[:1], missing, 0)]), texts.caption)


def rounded_up(count: int, multiple: int) -> int:
    """The next size of the ladder, a multiple of 8 and of `multiple`.

    Eight sizes an octave: from 64 on at most an eighth is padding.

    Example:
        >>> [rounded_up(n, 1) for n in (7, 80, 81, 3361)], rounded_up(9, 6)
        ([8, 80, 88, 3584], 18)
    """
    step = 1 << max((count - 1).bit_length() - 4, 3)
    size = -(-count // step) * step
    return -(-size // multiple) * multiple

"""Units of a text that different names share: whole ranks, words, and letters in a row.

A text tower that knows a name only as pieces learns each name by heart. What carries over to a species without a photo
is what its name shares with others: its order, family and genus, the words of its common name, the stems in its
epithet. A text is read here as the set of such units, each given a number by hashing, as in fastText (arXiv
1607.04606); no vocabulary is kept, and a unit never met before is only one that nothing was learnt of.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lit_jax.errors import UserError
from lit_jax.text.classes import species_key
from lit_jax.text.identity import is_placeholder
from lit_jax.text.tokenizers import Tokenizer

KINDS = ("phrases", "words", "letters")
"""What may be a unit: the parts between commas, words, or three to five letters in a row with the ends of words."""
BUCKETS = 4096
"""Numbers of each kind of unit."""
SLOTS = 512
"""Units that are read of a text at the most."""
NONE = -1
"""Fills the places behind the last unit."""
_LETTERS = (3, 4, 5)


def kinds_of(names: str) -> tuple[str, ...]:
    """Kinds of units from an option such as ``phrases,letters``; none from the empty text.

    Raises:
        UserError: an unknown kind, or one given twice.
    """
    kinds = tuple(name.strip() for name in names.split(",")) if names else ()
    if set(kinds) - set(KINDS) or len(set(kinds)) < len(kinds):
        raise UserError(f"text.units: found {names!r}, expected some of {', '.join(KINDS)}, each once, with commas")
    return kinds


def units(text: str, kind: str) -> list[str]:
    """The distinct units of a text, in order; case, accents' composition and repeated blanks do not count.

    A part between commas that only says that nothing is known, such as "sp." or "×", has none.

    Example:
        >>> units("Great Tit, Parus major", "phrases"), units("Great Tit", "words"), units("Tit", "letters")
        (['great tit', 'parus major'], ['great', 'tit'], ['<ti', 'tit', 'it>', '<tit', 'tit>', '<tit>'])
    """
    parts = [part.strip(" .") for part in species_key(text).split(",") if not is_placeholder(part)]
    if kind == "phrases":
        return list(dict.fromkeys(parts))
    words = [word for part in parts for word in re.findall(r"\w+", part)]
    if kind == "letters":
        marked = [f"<{word}>" for word in words]
        words = [word[at : at + n] for word in marked for n in _LETTERS for at in range(len(word) - n + 1)]
    return list(dict.fromkeys(words))


def encode(texts: Sequence[str], kinds: Sequence[str]) -> np.ndarray:
    """Numbers of the units of texts.

    Args:
        texts: N of them.
        kinds: of `KINDS`; the numbers of each have a block of `BUCKETS` of their own, in this order.

    Returns:
        `[N, SLOTS]` int32, `NONE` behind the last unit of each. What is beyond `SLOTS` is not read.
    """
    out = np.full((len(texts), SLOTS), NONE, np.int32)
    for row, text in zip(out, texts, strict=True):
        numbers = [
            block * BUCKETS + zlib.crc32(unit.encode()) % BUCKETS
            for block, kind in enumerate(kinds)
            for unit in units(text, kind)
        ][:SLOTS]
        row[: len(numbers)] = numbers
    return out


@dataclass(frozen=True)
class Reading:
    """How a text becomes what a text tower reads: tokens of the sentence, numbers of units, or both.

    Attributes:
        tokenizer: of the sentence.
        context: tokens of a sentence; 0 where the tower reads none.
        kinds: of units; none where the tower reads none.
    """

    tokenizer: Tokenizer
    context: int
    kinds: tuple[str, ...] = ()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """`[N, T]` int32 of N texts: tokens first, then units."""
        parts = [self.tokenizer.encode(texts, self.context)] if self.context else []
        return np.concatenate([*parts, *([encode(texts, self.kinds)] if self.kinds else [])], 1)

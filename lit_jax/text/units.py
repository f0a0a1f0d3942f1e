"""Units of a text that different names share: whole ranks, words, and letters in a row.

A text tower that knows a name only as pieces learns each name by heart. What carries over to a species without a photo
is what its name shares with others: its order, family and genus, the words of its common name, the stems in its
epithet. A text is read here as the set of such units, as in fastText (arXiv 1607.04606), but numbered by a vocabulary
instead of by hashing: where two units share a number, an order counts as a species that has nothing to do with it. A
unit that is not in the vocabulary is one that nothing was learnt of; it has only its share in the length of the text.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lit_jax.errors import UserError
from lit_jax.text.classes import species_key
from lit_jax.text.identity import is_placeholder
from lit_jax.text.tokenizers import Tokenizer

KINDS = ("phrases", "words", "letters")
"""What may be a unit: the parts between commas, words, or three to five letters in a row with the ends of words."""
AT_MOST = 8192
"""Units of each kind that a vocabulary has at the most: those that are in most texts."""
SLOTS = 512
"""Units that are read of a text at the most."""
UNITS = "units"
"""The text tower that reads units of a text alone, see `lit_jax.models.units`."""
NONE = -1
"""Fills the places behind the last unit."""
Vocabulary = tuple[tuple[str, ...], ...]
"""The units that are known, those of each kind."""
_LETTERS = (3, 4, 5)


def kinds_of(names: str) -> tuple[str, ...]:
    """Kinds of units from an option such as ``phrases:3,letters``; none from the empty text.

    Raises:
        UserError: an unknown kind, one given twice, or a weight that is none.
    """
    return tuple(weights_of(names))


def weights_of(names: str) -> dict[str, float]:
    """Weight of each kind of units of the option `kinds_of` reads, 1 where it gives none; scaled to a sum of 1.

    Raises:
        UserError: as `kinds_of`.
    """
    parts = [part.strip().partition(":") for part in names.split(",")] if names else []
    weights = {kind: float(weight or 1) for kind, _, weight in parts if re.fullmatch(r"\d*\.?\d*", weight)}
    if set(weights) - set(KINDS) or len(weights) < len(parts) or any(weight <= 0 for weight in weights.values()):
        raise UserError(
            f"text.units: found {names!r}, expected some of {', '.join(KINDS)}, each once, with commas between them; a "
            "weight may follow a kind, as in phrases:3,letters"
        )
    return {kind: weight / sum(weights.values()) for kind, weight in weights.items()}


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


def vocabulary(texts: Sequence[str], kinds: Sequence[str]) -> Vocabulary:
    """The units of texts, those of each kind that are in most of them; of equal ones the first in the alphabet."""
    known = []
    for kind in kinds:
        counts = Counter(unit for text in texts for unit in units(text, kind))
        known.append(tuple(sorted(counts, key=lambda unit: (-counts[unit], unit))[:AT_MOST]))
    return tuple(known)


def unlimited(kinds: Sequence[str]) -> Vocabulary:
    """Stands for a vocabulary that is not known where at most its size is asked: as many units as can be."""
    return (("",) * AT_MOST,) * len(kinds)


def encode(texts: Sequence[str], kinds: Sequence[str], known: Vocabulary) -> np.ndarray:
    """Numbers of the units of texts.

    Args:
        texts: N of them.
        kinds: of `KINDS`.
        known: the vocabulary; its units are numbered in its order, kind after kind. Behind all of them there is a
            number for the unknown units of each kind.

    Returns:
        `[N, SLOTS]` int32, `NONE` behind the last unit of each. What is beyond `SLOTS` is not read.
    """
    every = [(kind, unit) for kind, of_kind in zip(kinds, known, strict=True) for unit in of_kind]
    number_of = {unit: number for number, unit in enumerate(every)}
    out = np.full((len(texts), SLOTS), NONE, np.int32)
    for row, text in zip(out, texts, strict=True):
        numbers = [
            number_of.get((kind, unit), len(every) + place)
            for place, kind in enumerate(kinds)
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
        kinds: of units; none where the tower reads none. The tokenizer knows them, see `Tokenizer.units`.
    """

    tokenizer: Tokenizer
    context: int
    kinds: tuple[str, ...] = ()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """`[N, T]` int32 of N texts: tokens first, then units."""
        parts = [self.tokenizer.encode(texts, self.context)] if self.context else []
        return np.concatenate([*parts, *([encode(texts, self.kinds, self.tokenizer.units)] if self.kinds else [])], 1)

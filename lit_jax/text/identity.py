"""Which species a name stands for, whoever wrote it: for telling whether two lists name the same ones.

`lit_jax.text.classes.species_key` says whether two names are spelled alike, as rows of one table are. Lists of
different makers differ in more: authors, subspecies, hybrid signs, doubts. Synonyms are not known here.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from lit_jax.text.candidates import near_keys
from lit_jax.text.classes import species_key

_DOUBTS = frozenset({"cf", "aff", "nr", "?"})
_NO_SPECIES = frozenset({"sp", "spp", "spec", "species", "indet", "nov", "gen", "ssp", "subsp", "var", "forma", "et"})
_BELOW = frozenset({"ssp", "subsp", "subspecies", "var", "f", "forma", "form", "morph", "race", "cv"})
_PARTICLES = frozenset(
    {"de", "di", "da", "du", "del", "della", "von", "van", "der", "den", "ex", "et", "in", "and", "al"}
)
_CROSS = frozenset({"×", "x"})
_NOTHING = _NO_SPECIES | _DOUBTS | _CROSS | {""}
_LETTERS = str.maketrans({"æ": "ae", "œ": "oe", "Æ": "Ae", "Œ": "Oe", "ø": "o", "Ø": "O", "’": "'", "‘": "'", "ʼ": "'"})


@dataclass(frozen=True)
class Matches:
    """Which names of one list are names of another.

    Attributes:
        same: name to all the known names of the same species, as they are written.
        near: of the other names, those that look like a misspelt known one, with that one: to be looked at, and
            counted as another species meanwhile.
        assumed: of the names in `same`, those for which something had to be taken for granted, and what.
    """

    same: Mapping[str, tuple[str, ...]]
    near: Mapping[str, str]
    assumed: Mapping[str, str]


@dataclass(frozen=True)
class _Reading:
    """A name, taken apart.

    Attributes:
        key: genus and epithet, or the only word; empty where no species is named.
        doubt: whether it was qualified by cf., aff. or a question mark.
        crossed: whether it bears a hybrid sign.
        below: epithet of the subspecies or form, if there is one.
        author: first word behind it, if there is one.
        genus: also where no species is named.
    """

    key: str = ""
    doubt: bool = False
    crossed: bool = False
    below: str = ""
    author: str = ""
    genus: str = ""


def binomial(name: str) -> str:
    """The genus and the epithet of a scientific name, in the form by which species of different lists are compared.

    Case, accents, hyphens and underscores, authors and years, subgenera in brackets, subspecies and what follows,
    hybrid signs, and the doubts cf., aff. and "?" are set aside. A cross of two named species, a name with "sp." or a
    number for its epithet, and an abbreviated genus are no species that is named: they give the empty text. So does
    one word alone. A common name of several words gives its first two, which mean nothing: give scientific names only.

    Example:
        >>> binomial("PARUS_MAJOR"), binomial("Parus (Parus) cf. major Linnaeus, 1758"), binomial("Parus sp. 2")
        ('parus major', 'parus major', '')
        >>> binomial("Isoëtes × novae-angliae"), binomial("Anas acuta × A. crecca")
        ('isoetes novaeangliae', '')
    """
    key = _read(name).key
    return key if " " in key else ""


def epithet(name: str) -> str:
    """The epithet of a species as it is written, without a hybrid sign, a doubt or a subgenus before it.

    Empty where `binomial` is.

    Example:
        >>> epithet("Mentha × piperita"), epithet("Parus (Parus) cf. major L."), epithet("Parus sp.")
        ('piperita', 'major', '')
    """
    first, *others = name.replace("_", " ").split() or [""]
    species = binomial(name)
    return next((word.lstrip("×") for word in others if species and binomial(f"{first} {word}") == species), "")


def is_placeholder(value: str) -> bool:
    """Whether a value stands where none is known: a hybrid sign, dash or question mark alone, "sp.", "indet.", "cf.".

    Example:
        >>> [is_placeholder(value) for value in ("×", "sp.", " - ", "?", "", "Parus sp.", "major")]
        [True, True, True, True, True, False, False]
    """
    words = (word.strip("_") for word in re.findall(r"\w+", value.casefold()))
    return all(word in _NOTHING for word in words)


def genus(name: str) -> str:
    """The genus of a scientific name in the form of `binomial`, of "Parus sp." and of a lone genus too.

    Empty where the genus is abbreviated, and for a cross of two named species, which may have two. Of a common name it
    is the first word, which means nothing.

    Example:
        >>> genus("Parus cf. major"), genus("PARUS SP. 2"), genus("P. major"), genus("Anas acuta × Mareca strepera")
        ('parus', 'parus', '', '')
    """
    return _read(name).genus


def matched(names: Iterable[str], known: Iterable[str]) -> Matches:
    """Which names stand for a species that known names stand for too.

    They are the same by `binomial`; names of one word, a genus or an everyday name, are the same if that word is.

    Args:
        names: any number; repeats are harmless.
        known: likewise.

    Returns:
        The names that are the same, nearly the same, and what was assumed; keys in the order of `names`.

    Example:
        >>> found = matched(["Pica pica", "Parus mayor", "Corvus corax"], ["Pica pica bactriana", "Parus major"])
        >>> found.same, found.near
        ({'Pica pica': ('Pica pica bactriana',)}, {'Parus mayor': 'Parus major'})
        >>> found.assumed
        {'Pica pica': "the subspecies or form 'Pica pica bactriana' is taken for its species"}
    """
    known_by: dict[str, list[str]] = {}
    for other in dict.fromkeys(known):
        if key := _read(other).key:
            known_by.setdefault(key, []).append(other)
    names = list(dict.fromkeys(names))
    same = {name: tuple(known_by[key]) for name in names if (key := _read(name).key) in known_by}
    left = {key: name for name in reversed(names) if name not in same and (key := _read(name).key)}
    near_by_key = dict(near_keys(left, known_by))
    near = {name: known_by[near_by_key[key]][0] for name in names if (key := _read(name).key) in near_by_key}
    assumed = {name: reason for name, others in same.items() if (reason := _assumption(name, others))}
    return Matches(same, near, assumed)


def _assumption(name: str, others: Iterable[str]) -> str:
    """What is taken for granted when a name is said to be the same as the others; of the surest of them."""
    if any(species_key(name) == species_key(other) for other in others):
        return ""
    return min(("; ".join(_assumptions(name, other)) for other in others), key=len)


def _assumptions(name: str, other: str) -> list[str]:
    own, theirs = _read(name), _read(other)
    found = []
    for text, reading, opposite in ((name, own, theirs), (other, theirs, own)):
        if reading.doubt and not opposite.doubt:
            found.append(f"the doubt in {text!r} is set aside")
        if reading.crossed and not opposite.crossed:
            found.append(f"the hybrid sign in {text!r} is set aside")
        if reading.below not in ("", opposite.below):
            found.append(f"the subspecies or form {text!r} is taken for its species")
    if own.author and theirs.author and own.author[0] != theirs.author[0]:  # L. and Linnaeus are one
        found.append(f"{name!r} and {other!r} agree in their first two words only")
    return found


@lru_cache(maxsize=1 << 16)
def _read(name: str) -> _Reading:
    words = _words(name)
    doubt = any(word.casefold() in _DOUBTS for word in words)
    words = [word for word in words if word.casefold() not in _DOUBTS]
    signs = [i for i, word in enumerate(words) if word.casefold() in _CROSS]
    if any(i >= 2 and i + 1 < len(words) for i in signs):  # a cross of two named species
        return _Reading(crossed=True)
    words = [word for word in words if word.casefold() not in _CROSS]
    if len(words) < 2:
        key = _plain(words[0]) if words else ""
        key = key if len(key) > 1 else ""
        return _Reading(key, doubt, bool(signs), genus=key)
    first, epithet = map(_plain, words[:2])
    if len(first) < 2 or not _is_epithet(words):
        return _Reading(doubt=doubt, crossed=bool(signs), genus=first if len(first) > 1 else "")
    return _Reading(f"{first} {epithet}", doubt, bool(signs), *_behind(words), first)


def _words(name: str) -> list[str]:
    """The words of a name without accents, brackets and cultivars; a comma, a question mark and × are words."""
    text = unicodedata.normalize("NFD", name.translate(_LETTERS))
    text = unicodedata.normalize("NFC", re.sub(r"([A-Za-z])[\u0300-\u036f]+", r"\1", text))
    text = re.sub(r"\([^)]*\)?|\[[^\]]*\]?|(?<!\w)'[^']*'(?!\w)|\"[^\"]*\"", " ", text)
    text = re.sub(r"([×?,&])", r" \1 ", re.sub(r"[._]", " ", text))
    return [word for word in text.split() if word in ("×", "?", ",", "&") or re.search(r"\w", word)]


def _plain(word: str) -> str:
    """A word by its letters and digits alone: hyphens in epithets come and go."""
    return "".join(letter for letter in word if letter.isalnum()).casefold()


def _is_epithet(words: list[str]) -> bool:
    """Whether the second word names a species: no "sp.", no number or code, and no author of the genus."""
    second = _plain(words[1])
    if second in _NO_SPECIES or len(second) < 2 or not second.isalpha():
        return False
    is_capital = words[1][0].isupper() and not words[0].isupper()
    behind = words[2] if len(words) > 2 else ""
    return not (is_capital and (behind in (",", "&", "et", "ex") or behind.isdecimal()))


def _behind(words: list[str]) -> tuple[str, str]:
    """Epithet of the subspecies or form, and first word of the author, behind the first two words."""
    rest = [word for word in words[2:] if word not in (",", "&") and _plain(word) not in _BELOW]
    below = ""
    if rest and _is_below(rest[0], capitals=words[0].isupper()):
        below, rest = _plain(rest[0]), rest[1:]
    author = next((_plain(word) for word in rest if word[0].isupper()), "")
    return below, author


def _is_below(word: str, *, capitals: bool) -> bool:
    plain = _plain(word)
    return plain.isalpha() and len(plain) > 1 and plain not in _PARTICLES and (capitals or word[0].islower())

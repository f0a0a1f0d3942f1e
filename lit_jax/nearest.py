"""The known name that a person meant, where one is near; no name is better than one that has nothing to do with it."""

import difflib
from collections.abc import Iterable

NEAR = 0.75
"""Share of letters in common from which a name is a misspelling of another; `difflib.SequenceMatcher.ratio`."""
BEGUN = 3  # letters of a name's beginning that tell it


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is most like a given one, in upper or lower case; empty if none is.

    A name that begins with the other one counts too, from three letters on.

    Example:
        >>> nearest("lables", ["labels", "classes"]), nearest("photos", ["out"]), nearest("output", ["out"])
        ('labels', '', 'out')
    """
    by_letters = {one.casefold(): one for one in known}
    given = name.casefold()
    begun = [
        one
        for one in by_letters
        if min(len(one), len(given)) >= BEGUN and (one.startswith(given) or given.startswith(one))
    ]
    found = difflib.get_close_matches(given, by_letters, n=1, cutoff=NEAR) or sorted(begun, key=len)
    return by_letters[found[0]] if found else ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message: ``; did you mean labels?``, or nothing."""
    found = nearest(name, known)
    return f"; did you mean {found}?" if found else ""

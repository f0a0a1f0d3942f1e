"""Finds the class that a text is about, by its caption or by a name in it."""

import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence

from lit_jax.text.captions import OMIT, TEMPLATE, class_captions, fields, fitted
from lit_jax.text.classes import FOLDER_COLUMNS, NAME_COLUMNS, ClassTable
from lit_jax.text.prompts import NAME_TEMPLATE

SEVERAL, NONE = "caption of several classes", "caption of no class"
_CACHE = 1 << 16  # a collection has one caption a class and template, many times over


class ClassFinder:
    """Finds the classes of texts, millions of them, by looking them up in dictionaries.

    In this order:

    1. a text that is a caption of the class by one of the templates, by the template of the paper, or that is
       the class's name;
    2. the same, whatever the case, blanks and a full stop at the end;
    3. a class's name or common name that stands in the text as whole words. Of names that
       share words the longest counts: the American Robin is no Robin.

    Args:
        table: The classes.
        templates: Captions that the texts may have; those that ask for columns that the table lacks are passed over.
        drop_repeats: How they are filled.
    """

    def __init__(self, table: ClassTable, templates: Sequence[str] = (), *, drop_repeats: bool = False) -> None:
        self._exact = _lookup(table.ids, _captions(table, templates, drop_repeats))
        self._folded: dict[str, set[int]] = {}
        for text, class_ids in self._exact.items():
            self._folded.setdefault(_folded(text), set()).update(class_ids)
        self._named = _lookup(table.ids, ([" ".join(_words(name)) for name in names] for names in _names(table)))
        self._longest = max((name.count(" ") + 1 for name in self._named), default=0)
        columns = [table.columns[column] for column in FOLDER_COLUMNS if column in table.columns]
        self._known = frozenset(unicodedata.normalize("NFC", name) for names in columns for name in names)
        self.of_caption = functools.lru_cache(_CACHE)(self._of_caption)

    def knows(self, name: str) -> bool:
        """True for a name of any class, as `lit_jax.text.classes.match_folders` finds it."""
        return unicodedata.normalize("NFC", name) in self._known

    def _of_caption(self, text: str) -> int | str:
        """The id of the class, or `SEVERAL` or `NONE`."""
        found = self._exact.get(text.strip()) or self._folded.get(_folded(text))
        if found is None:
            names = self._names_in(_words(text))
            # Names that two classes share are told apart by another name of one of them.
            found = set.intersection(*names) if names else None
        if found is None:
            return NONE
        return next(iter(found)) if len(found) == 1 else SEVERAL

    def _names_in(self, words: Sequence[str]) -> list[set[int]]:
        """Ids of each name in the text, but for those of which words belong to a longer one."""
        spans: list[range] = []
        found = []
        for length in range(min(self._longest, len(words)), 0, -1):
            for begin in range(len(words) - length + 1):
                class_ids = self._named.get(" ".join(words[begin : begin + length]))
                end = begin + length
                if class_ids and not any(begin < o.stop and o.start < end and len(o) > length for o in spans):
                    spans.append(range(begin, end))
                    found.append(class_ids)
        return found


def _captions(table: ClassTable, templates: Sequence[str], drop_repeats: bool) -> list[list[str]]:
    """Every text of each class that stands for it as a whole."""
    texts = [list(names) for names in _names(table)]
    wanted: list[tuple[str, tuple[str, ...], bool]] = [(template, OMIT, drop_repeats) for template in templates]
    wanted += [
        (fitted(template, table.columns), omit, d)
        for template in (TEMPLATE, NAME_TEMPLATE)
        for omit in (OMIT, ())
        for d in (False, True)
    ]
    for template, omit, drop in dict.fromkeys(wanted):
        columns = set(fields(template))
        if columns and columns <= set(table.columns):
            captions = class_captions(table, [template], omit=omit, drop_repeats=drop)
            for own, (caption,) in zip(texts, captions, strict=True):
                own.append(caption)
    return texts


def _names(table: ClassTable) -> Iterable[tuple[str, ...]]:
    columns = [table.columns[column] for column in NAME_COLUMNS if column in table.columns]
    return zip(*columns, strict=True)


def _lookup(class_ids: Iterable[int], texts: Iterable[Iterable[str]]) -> dict[str, set[int]]:
    """Each text that is not empty to the ids of the classes that bear it."""
    found: dict[str, set[int]] = {}
    for class_id, own in zip(class_ids, texts, strict=True):
        for text in own:
            if text:
                found.setdefault(text, set()).add(class_id)
    return found


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split()).removesuffix(".").rstrip()


def _words(text: str) -> list[str]:
    """Runs of letters and digits; hyphens, apostrophes and underscores part words."""
    return re.findall(r"[^\W_]+", _folded(text))

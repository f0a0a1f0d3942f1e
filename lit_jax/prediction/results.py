"""Answers for many photos: an iterator that shows itself in a notebook, a list, and rows for tables."""

import html
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from lit_jax.errors import UserError
from lit_jax.prediction.answers import Answer, Named, percent
from lit_jax.text.classes import RANKS

SHOWN = 20  # photos in a notebook
COLUMNS = (
    "photo", "answer", "rank", "name", "common_name", *RANKS, "confidence", "in_training", "error",
)  # fmt: skip
"""Of a row: ``answer`` is 1 for the most likely, 2 for the next, or "sure"."""


class NamedPhotos(list[Named]):
    """Photos and their answers, as a list; a table in a notebook.

    Attributes:
        note: on which species the confidence was fitted, and what is odd about the classes.
    """

    def __init__(self, named: Iterable[Named] = (), note: str = "") -> None:
        super().__init__(named)
        self.note = note

    def frame(self) -> Any:
        """A pandas data frame, a row a photo and answer."""
        return frame(self)

    def _repr_html_(self) -> str:
        return _html(self[:SHOWN], self.note, more=len(self) > SHOWN)


class Naming(Iterator[Named]):
    """Photos and their answers, one after the other as they are looked at.

    Shown in a notebook it looks at the first ones, which still come first when it is gone through.

    Attributes:
        note: on which species the confidence was fitted, and what is odd about the classes.
    """

    def __init__(self, named: Iterator[Named], note: str) -> None:
        self._named, self._shown, self.note = named, deque[Named](), note

    def __next__(self) -> Named:
        return self._shown.popleft() if self._shown else next(self._named)

    def all(self) -> NamedPhotos:
        """All that are left, in memory."""
        return NamedPhotos(self, self.note)

    def frame(self) -> Any:
        """A pandas data frame of all that are left, a row a photo and answer."""
        return frame(self)

    def _repr_html_(self) -> str:
        self._shown.extend(itertools.islice(self._named, max(0, SHOWN + 1 - len(self._shown))))
        return _html(list(self._shown)[:SHOWN], self.note, more=len(self._shown) > SHOWN)


def rows_of(named: Named) -> list[dict[str, Any]]:
    """The rows of one photo by `COLUMNS`: the sure answer first where it was asked for; one of a broken photo."""
    if named.error:
        return [{**dict.fromkeys(COLUMNS, ""), "photo": named.photo_text, "error": named.error}]
    sure = [_row(named.photo_text, "sure", named.sure)] if named.sure else []
    return sure + [_row(named.photo_text, number, answer) for number, answer in enumerate(named.answers, 1)]


def frame(named: Iterable[Named]) -> Any:
    """A pandas data frame of photos and answers.

    Raises:
        UserError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise UserError("frame: found no pandas, expected it for a data frame; pip install pandas") from None

    return pandas.DataFrame([row for one in named for row in rows_of(one)], columns=list(COLUMNS))


def _row(photo: str, number: str | int, answer: Answer) -> dict[str, Any]:
    return {
        "photo": photo, "answer": number, "rank": answer.rank, "name": answer.name, "common_name": answer.common_name,
        **{rank: answer.ranks.get(rank, "") for rank in RANKS},
        **({answer.rank: answer.name} if answer.rank in RANKS else {}),
        "confidence": round(answer.confidence, 4), "in_training": answer.in_training if answer.rank else "",
        "error": "",
    }  # fmt: skip


def _html(named: list[Named], note: str, *, more: bool) -> str:
    lines = ["<table><tr><th>photo</th><th>answer</th><th>rank</th><th>confidence</th><th>next</th></tr>"]
    for one in named:
        answer = one.answer
        if answer is None:
            cells = [one.photo_text, one.error, "", "", ""]
        else:
            others = [str(other) for other in one.answers if other != answer][:2]
            both = f"{answer.name} ({answer.common_name})" if answer.common_name else answer.name
            told = percent(answer.confidence)
            cells = [one.photo_text, both, answer.rank or "", told, "; ".join(others)]
        lines.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    lines.append("</table>" + ("<p>and more</p>" if more else "") + f"<p><small>{html.escape(note)}</small></p>")
    return "".join(lines)

"""How answers are written: a table for people, CSV, JSON lines, Darwin Core, Parquet.

A text a photo, so that any number can be written as they come, and what an interrupted command has written can be told
apart by photo.
"""

import csv
import dataclasses
import importlib
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size

from lit_jax.base import foreign
from lit_jax.data.exif import taken
from lit_jax.errors import DAMAGED, UserError, printable
from lit_jax.evaluation.ranks import SPECIES
from lit_jax.prediction.answers import Named, percent
from lit_jax.prediction.results import COLUMNS, rows_of
from lit_jax.text.classes import RANKS
from lit_jax.text.identity import epithet
from lit_jax.version import __version__

DARWIN_CORE = (
    "associatedMedia", "scientificName", "taxonRank", "vernacularName", *RANKS, "specificEpithet", "identifiedBy",
    "identificationVerificationStatus", "identificationRemarks", "eventDate", "decimalLatitude", "decimalLongitude",
    "geodeticDatum",
)  # fmt: skip
"""Terms of https://dwc.tdwg.org/terms/, one row a photo."""

PHOTO_CELLS, NAME_CELLS, MARK = 60, 100, "10. "
"""Of a table: the widest columns in cells of a terminal, and what stands before names."""

ENDINGS = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet", ".txt": "table"}
"""Of files, and the formats that they are taken for."""


@dataclasses.dataclass(frozen=True)
class Heading:
    """What every output says at its head.

    Attributes:
        model: where it was read from.
        step: batches trained.
        classes: how many there were to choose from.
        note: on which species the confidence was fitted.
        key: of model, classes, photos and options: answers under the same key are the same.
    """

    model: str
    step: int
    classes: int
    note: str
    key: str

    @property
    def record(self) -> dict[str, Any]:
        """As JSON."""
        record = {"lit_jax": __version__, **dataclasses.asdict(self)}
        record["confidence"] = record.pop("note")
        return record

    @property
    def line(self) -> str:
        """As a comment."""
        return (
            f"# lit_jax {__version__}, model {self.model}, step {self.step}, {self.classes} classes; {self.note}; "
            f"key {self.key}\n"
        )


@dataclasses.dataclass(frozen=True)
class Format:
    """One way to write answers.

    Attributes:
        head: what comes before the first photo.
        text: of one photo.
        photos: of a text without its head, which may be cut short: each photo, and the text that it has.
        beside: what a file beside it holds, since nothing but its columns may stand at its head; empty for none.
        before: what earlier versions wrote at the head in its place.
    """

    head: str
    text: Callable[[Named], str]
    photos: Callable[[str], Iterator[tuple[str, str]]]
    beside: str = ""
    before: str = ""


def format_of(name: str, heading: Heading, *, photos: Sequence[str] = (), names: Sequence[str] = ()) -> Format:
    """A format that is text.

    Args:
        name: table, csv, jsonl or dwc.
        heading: for its head.
        photos: all of them, for the width of a table's column.
        names: of the classes, likewise.
    """
    beside = json.dumps(heading.record, ensure_ascii=False, indent=1) + "\n"
    if name == "csv":
        return Format(
            _csv([COLUMNS]), lambda named: _csv(map(_cells, rows_of(named))), _photos_of_csv, beside, heading.line
        )
    if name == "dwc":
        return Format(
            _csv([DARWIN_CORE]),
            lambda named: _csv([_darwin_core(named, heading)]),
            _photos_of_csv,
            beside,
            heading.line,
        )
    if name == "jsonl":
        return Format(_json(heading.record), lambda named: _json(record_of(named)), _photos_of_lines)
    return _table(heading, photos, names)


def record_of(named: Named) -> dict[str, Any]:
    """A photo and its answers, JSON-ready."""
    if named.error:
        return {"photo": named.photo_text, "error": named.error}
    rows = [{key: value for key, value in row.items() if value != "" and key != "photo"} for row in rows_of(named)]
    sure = [row for row in rows if row.pop("answer") == "sure"]
    return {"photo": named.photo_text, **({"sure": sure[0]} if sure else {}), "answers": rows[len(sure) :]}


class ParquetFile:
    """Answers as Parquet, some photos at a time.

    Args:
        path: to write.
        heading: kept in the file's metadata under ``lit_jax``.
    """

    def __init__(self, path: str, heading: Heading) -> None:
        pyarrow = arrow()
        parquet = importlib.import_module("pyarrow.parquet")
        kinds = {"confidence": pyarrow.float32(), "in_training": pyarrow.bool_()}
        fields = [(name, kinds.get(name, pyarrow.string())) for name in COLUMNS]
        told = json.dumps(dataclasses.asdict(heading))
        self._schema = pyarrow.schema(fields, metadata={"lit_jax": told})
        self._table, self._writer = pyarrow.Table, parquet.ParquetWriter(path, self._schema)

    def write(self, named: Iterable[Named]) -> None:
        """Adds photos."""
        rows = [
            {name: value if value != "" else None for name, value in {**row, "answer": str(row["answer"])}.items()}
            for one in named
            for row in rows_of(one)
        ]
        self._writer.write_table(self._table.from_pylist(rows, self._schema))

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()


def arrow() -> Any:
    """The library for Parquet.

    Raises:
        UserError: it is not installed.
    """
    try:
        import pyarrow
    except ModuleNotFoundError:
        raise UserError(
            "--format parquet: found no pyarrow, expected it for Parquet; pip install pyarrow, or use csv"
        ) from None
    return pyarrow


def _cells(row: dict[str, Any]) -> list[str]:
    told = {True: "yes", False: "no"}
    return [told.get(value, "") if isinstance(value, bool) else str(value) for value in row.values()]


def _csv(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _photos_of_csv(text: str) -> Iterator[tuple[str, str]]:
    rows = (row for row in csv.reader(io.StringIO(text, newline="")) if row)
    for photo, own in itertools.groupby(rows, key=lambda row: row[0]):
        yield photo, _csv(own)


def _json(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _photos_of_lines(text: str) -> Iterator[tuple[str, str]]:
    for line in re.findall(r".*\n|.+$", text):
        try:
            yield foreign.parsed(line)["photo"], line
        except DAMAGED:  # cut short
            yield "", line


def _darwin_core(named: Named, heading: Heading) -> list[str]:
    answer = named.answer
    row = dict.fromkeys(DARWIN_CORE, "") | {
        "associatedMedia": named.photo_text, "identifiedBy": f"lit_jax {__version__}, model {heading.model}",
    }  # fmt: skip
    if answer is None:
        row["identificationRemarks"] = f"photo could not be read: {named.error}"
    else:
        row |= {**answer.ranks, **_taken(named.photo)}
        row["identificationVerificationStatus"] = "unverified"
        row["identificationRemarks"] = f"confidence {answer.confidence:.4f}; {heading.note}"
        if answer.rank:
            row |= {"scientificName": answer.name, "taxonRank": answer.rank, "vernacularName": answer.common_name}
            row |= {answer.rank: answer.name} if answer.rank in RANKS else {}
        else:
            row["identificationRemarks"] = "not sure at any rank; " + row["identificationRemarks"]
        row["specificEpithet"] = _epithet(answer.name, row["genus"]) if answer.rank == SPECIES else ""
    return list(row.values())


def _taken(photo: str) -> dict[str, str]:
    """When and where, as the EXIF of the photo says; nothing else, such as the file's time, is known to be true."""
    time, place = taken(photo)
    found = {"eventDate": time.isoformat()} if time else {}
    if place:
        latitude, longitude = (f"{value:.6f}" for value in place)
        found |= {"decimalLatitude": latitude, "decimalLongitude": longitude, "geodeticDatum": "WGS84"}
    return found


def _epithet(name: str, genus: str) -> str:
    """The epithet of a species, without a hybrid sign, a doubt or a subgenus before it; empty where none is named."""
    return epithet(name) if (name.split() or [""])[0] == genus else ""


def _filled(text: str, cells: int) -> str:
    """The text with blanks behind it up to a number of cells of a terminal, of which a Chinese character takes two."""
    return text + " " * (cells - cell_len(text))


def _table(heading: Heading, photos: Sequence[str], names: Sequence[str]) -> Format:
    wide, named_wide = (max((cell_len(printable(text)) for text in texts), default=0) for texts in (photos, names))
    wide, named_wide = min(wide, PHOTO_CELLS), min(named_wide, NAME_CELLS) + cell_len(MARK)

    def line(*cells: str) -> str:
        photo, answer, rank, likely, note = map(printable, cells)
        if cell_len(photo) > wide:  # the end tells photos apart
            photo = "…" + set_cell_size(photo[::-1], wide - 1)[::-1].lstrip()
        return f"{_filled(photo, wide)}  {_filled(answer, named_wide)}  {rank:<7}  {likely:>10}  {note}".rstrip() + "\n"

    def text(named: Named) -> str:
        if named.error:
            return line(named.photo_text, "", "", "", named.error)
        numbered = [(f"{number}. ", answer) for number, answer in enumerate(named.answers, 1)]
        answers = ([("", named.sure)] if named.sure else []) + numbered
        marked = answers if len(answers) > 1 else [("", answers[0][1])]
        return "".join(
            line(
                "" if place else named.photo_text,
                mark + answer.name + (f" ({answer.common_name})" if answer.common_name else ""),
                answer.rank, percent(answer.confidence),
                "" if answer.in_training or not answer.rank else "no photo in training",
            )
            for place, (mark, answer) in enumerate(marked)
        )  # fmt: skip

    return Format(heading.line + line("photo", "answer", "rank", "confidence", ""), text, lambda _: iter(()))

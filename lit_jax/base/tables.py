"""Texts and tables that people bring, as editors, spreadsheets and databases write them: the one reader of all.

Lists of photos, class tables, splits, names and region lists come in commas, semicolons or tabs, in UTF-8, UTF-16 or
the Windows code page of Western Europe. What is no sound table is refused with its line: a quote that is not closed
would swallow the rows behind it.
"""

import csv
import functools
import io
import re
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from lit_jax.errors import UserError

SEPARATORS = (",", ";", "\t")
"""Of columns, by spreadsheets in different languages; commas come first where several would do."""

_WINDOWS = "cp1252"
_LINE_END = re.compile(r"\r\n|\n|\r")
_NAMED_SEPARATOR = re.compile(r"[ \t]*\"?sep=([^\w\s\"]|\t)\"?[ \t]*(?:\r\n|\n|\r|$)", re.IGNORECASE)
_NO_TEXTS = (
    (b"PK\x03\x04", "a zip, or a spreadsheet such as .xlsx or .ods"),
    (b"\xd0\xcf\x11\xe0", "a spreadsheet or document of Office"),
    (b"\x1f\x8b", "a file that gzip has packed"),
    (b"%PDF-", "a PDF"),
)
"""What people have in place of a text, by its first bytes: downloads as they came, and tables as they were typed."""
_MARKS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


class Row(NamedTuple):
    """One row of a table: the line of the file on which it begins, and its cells as they are written."""

    line: int
    cells: list[str]


class Header(NamedTuple):
    """What the head of a text says of it as a table.

    Attributes:
        body: the text without a byte order mark and a first line ``sep=;``.
        separator: what parts its columns, or would.
        known: whether it has a header that is known.
        skipped: lines in front of the body.
    """

    body: str
    separator: str
    known: bool
    skipped: int


class Table(NamedTuple):
    """The rows of a table, the header first, blank rows without a cell left out; and what parts its columns."""

    rows: list[Row]
    separator: str


def lines_of(text: str) -> list[str]:
    r"""The lines of a text: they end in ``\n``, ``\r\n`` or ``\r`` alone.

    `str.splitlines` also breaks at form feeds, at U+2028 and at six more, which stand within cells and file names.

    Example:
        >>> lines_of("a\\x0bb\\r\\nc\\n")
        ['a\\x0bb', 'c']
    """
    lines = _LINE_END.split(text)
    return lines[:-1] if not lines[-1] else lines


def read_text(path: str | Path, expected: str) -> str:
    """The text of a file: UTF-8, UTF-16 with its mark, or the code page of Windows in Western Europe.

    The last gets a line on standard error, once a file: no file says of itself that it is in it.

    Args:
        path: the file.
        expected: what should be in it, for errors.

    Raises:
        UserError: no such file; a spreadsheet, a packed file; bytes that are none of these (with the line).
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: found {error.strerror}, expected {expected}; check the path") from error
    if kind := next((kind for mark, kind in _NO_TEXTS if raw.startswith(mark)), ""):
        raise UserError(f"{path}: found {kind}, expected {expected}; give a text or a CSV, unpacked or saved from it")
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            try:
                return raw.decode(encoding)
            except UnicodeDecodeError as error:
                raise UserError(f"{path}: found damaged UTF-16, expected {expected}; save it as UTF-8") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = raw.count(b"\n", 0, error.start) + 1, raw[error.start]
        if (text := _of_windows(raw)) is None:
            raise UserError(
                f"{path} line {line}: found byte 0x{byte:02x}, expected UTF-8; save the file as UTF-8"
            ) from error
        tell(f"{path}: found byte 0x{byte:02x} in line {line}, so that it is read as Windows-1252 and not as UTF-8")
        return text


def _of_windows(raw: bytes) -> str | None:
    """The text in the code page of Western Europe; None of what more likely is damaged, or in another one.

    Its letters with accents come one or two at a time among others. Runs of high bytes are of another script, and
    those that make sense as UTF-8 are of a file that is damaged in one place.
    """
    high = re.findall(rb"[\x80-\xff]+", raw)
    if b"\0" in raw or any(len(run) > 2 or _is_utf8(run) for run in high):
        return None
    try:
        return raw.decode(_WINDOWS)
    except UnicodeDecodeError:
        return None


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


@functools.cache
def tell(note: str) -> None:
    """A line on standard error, once however often a file is read."""
    print(f"note: {note}", file=sys.stderr, flush=True)


def read_table(path: str | Path, columns: Collection[str], expected: str) -> Table:
    """The table in a file, with a line on standard error if commas do not part its columns; see `table_of`."""
    table = table_of(read_text(path, expected), columns, str(path))
    tell_separator(path, table)
    return table


def tell_separator(path: str | Path, table: Table) -> None:
    """A line on standard error if a table's columns are not parted by commas."""
    if table.separator != ",":
        tell(f"{path}: read as columns parted by {_SAID.get(table.separator, repr(table.separator))}s")


def header_of(text: str, columns: Collection[str], key: Callable[[str], str] = str.strip) -> Header:
    """What parts the columns of a table, if its first line that is not blank is a header with one of some columns.

    Args:
        text: with any line ends.
        columns: those by which the header is known.
        key: from a cell of the header to how `columns` spell it.
    """
    body, named, skipped = text.removeprefix("\ufeff"), "", 0
    if match := _NAMED_SEPARATOR.match(body):
        body, named, skipped = body[match.end() :], match[1], 1
    first = next((line for line in lines_of(body) if line.strip()), "")
    marks = (named,) if named else SEPARATORS
    known = next((mark for mark in marks if set(columns) & set(map(key, _cells(first, mark)))), "")
    # A column in other letters is not known, but shows what parts it from the next.
    near = {one.casefold() for one in columns}
    would = next((mark for mark in marks if near & {key(cell).casefold() for cell in _cells(first, mark)}), "")
    return Header(body, known or named or would or ",", bool(known), skipped)


def table_of(text: str, columns: Collection[str], where: str, key: Callable[[str], str] = str.strip) -> Table:
    """The rows of a table in a text.

    What parts the columns is a comma, a semicolon or a tab: what a first line ``sep=;`` says, or else the first under
    which the header has one of some columns, or else a comma. With commas and semicolons the quoting is that of
    RFC 4180. Tables with tabs have quotes as Excel writes them, or none, as GBIF does: where every line has as many
    cells as the header, a line is a row, and only a cell that is quoted as a whole loses its quotes.

    Args:
        text: as in `header_of`.
        columns: likewise.
        where: what to call the table in errors.
        key: as in `header_of`.

    Raises:
        UserError: a quote that is not closed, or letters behind one that is, with the line on which the row begins; a
            row with more cells than the header.
    """
    body, separator, _, skipped = header_of(text, columns, key)
    rows = _rows_of_tabs(body) if separator == "\t" else None
    if rows is None:
        rows = _rows_of_quotes(body, separator, where, skipped)
    full = (number for number, row in enumerate(rows) if any(map(str.strip, row.cells)))
    rows = [Row(row.line + skipped, row.cells) for row in rows[next(full, 0) :]]
    for row in rows[1:]:
        if any(map(str.strip, row.cells[len(rows[0].cells) :])):
            raise UserError(
                f"{where} line {row.line}: found {len(row.cells)} fields, expected {len(rows[0].cells)} as in the "
                f"header; put quotes around values that hold a {_SAID.get(separator, separator)}"
            )
    return Table(rows, separator)


_SAID = {",": "comma", ";": "semicolon", "\t": "tab"}


def _cells(line: str, separator: str) -> list[str]:
    """The cells of a line that need not be sound."""
    try:
        return next(csv.reader([line], delimiter=separator), [""])
    except csv.Error:
        return line.split(separator)


def _rows_of_quotes(text: str, separator: str, where: str, skipped: int) -> list[Row]:
    """The rows by RFC 4180."""
    # Strict, because otherwise an unclosed quote swallows the rest of the table in silence.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows, begin = [], 1
    try:
        for cells in reader:
            if cells:
                rows.append(Row(begin, cells))
            begin = reader.line_num + 1
    except csv.Error as error:
        reason = "a quote that is not closed" if "end of data" in str(error) else str(error)
        raise UserError(
            f"{where} line {begin + skipped}: found bad CSV ({reason}), expected RFC 4180; mend the quotes"
        ) from error
    return rows


def _rows_of_tabs(text: str) -> list[Row] | None:
    """The rows where a line is one, whatever its quotes; None where cells go over several lines."""
    rows = [Row(number, line.split("\t")) for number, line in enumerate(lines_of(text), 1) if line]
    full = [row for row in rows if any(map(str.strip, row.cells))]
    even = bool(full) and all(len(row.cells) == len(full[0].cells) for row in full)
    if not even and _is_quoted(text):
        return None
    return [Row(row.line, [_unquoted(cell) for cell in row.cells]) for row in rows]


def _is_quoted(text: str) -> bool:
    """Whether the quotes of a table with tabs are those of RFC 4180, and its rows even by them."""
    try:
        rows = list(filter(None, csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True)))
    except csv.Error:
        return False
    return all(len(row) == len(rows[0]) for row in rows)


def _unquoted(cell: str) -> str:
    whole = re.fullmatch(r'"((?:[^"]|"")*)"', cell)
    return whole[1].replace('""', '"') if whole else cell


def records_of(table: Table, where: str, single: Sequence[str] = ()) -> list[tuple[int, dict[str, str]]]:
    """The line of each row of a table and its values by column, without blanks around; cells that lack are empty.

    Args:
        table: the header first.
        where: what to call it in errors.
        single: columns that may come only once.

    Raises:
        UserError: one of these comes twice.
    """
    header = [column.strip() for column in table.rows[0].cells] if table.rows else []
    for column in single:
        if header.count(column) > 1:
            raise UserError(f"{where}: found column {column!r} twice, expected each once; drop or rename one")
    blank = [""] * len(header)
    return [
        (line, dict(zip(header, [*map(str.strip, cells), *blank[len(cells) :]], strict=False)))
        for line, cells in table.rows[1:]
    ]

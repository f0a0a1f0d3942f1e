"""Reads the arrays of a large JSON file element by element, in a few megabytes of memory."""

import codecs
import json
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO, NoReturn

from lit_jax.errors import UserError, first_line

_CHUNK = 1 << 20  # bytes
_IN_NUMBERS = ("", *"0123456789+-.eE")
_WORDS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
_LONGEST = 1 << 26  # characters of one element; a gigabyte that never closes a bracket is not read to its end


def rows(file: BinaryIO, keys: Collection[str], *, name: str, chunk: int = _CHUNK) -> Iterator[tuple[str, Any]]:
    """Reads one JSON object, UTF-8, and yields what is in some of its arrays.

    Args:
        file: Open at its beginning; need not be seekable.
        keys: Of the object; their values must be arrays. Values of other keys are passed over, and a key that the
            object does not have is no error.
        name: What the file is called in errors.
        chunk: Bytes to read at a time.

    Yields:
        Key and element, in the order of the file.

    Raises:
        UserError: truncated or bad JSON, with the byte; not UTF-8; another value than an object, or than an array
            under one of the keys.
    """
    text = _Text(file, name, chunk)
    text.expect("{", "an object")
    for _ in _parted(text, "}"):
        key = text.value()
        text.expect(":", "':'")
        if text.next() == "[":
            text.expect("[", "an array")
            for _ in _parted(text, "]"):
                element = text.value()
                if key in keys:
                    yield key, element
        elif key in keys:
            text.fail(f"an array under {key!r}")
        else:
            text.value()
    if text.next():
        text.fail("the end of the file")


def _parted(text: "_Text", end: str) -> Iterator[None]:
    """Stops in front of each part of a list, and behind the sign that ends it."""
    if text.next() != end:
        yield
        while text.next() != end:
            text.expect(",", f"',' or '{end}'")
            yield
    text.expect(end, f"'{end}'")


class _Text:
    """The part of a file that is being read, and the place in it."""

    def __init__(self, file: BinaryIO, name: str, chunk: int) -> None:
        self._file, self._name, self._chunk = file, name, chunk
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._decode = json.JSONDecoder().raw_decode
        self._text, self._at, self._ended = "", 0, False
        self._before = 0  # bytes of the file in front of the text

    def next(self) -> str:
        """The next character that is no white space, which stays where it is; "" at the end."""
        while True:
            while (found := self._text[self._at : self._at + 1]) and found in " \t\r\n":
                self._at += 1
            if found or not self._more():
                return found

    def expect(self, character: str, expected: str) -> None:
        """Passes over one character, and the white space in front."""
        if self.next() != character:
            self.fail(expected)
        self._at += 1

    def value(self) -> Any:
        """The next value, which is passed over."""
        self.next()
        while True:
            try:
                found, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._more():  # as a rule it was only cut
                    continue
                self._fail_in_value(error)
            except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
                self._fail(repr(self._text[self._at : self._at + 20]), self._at, f"JSON ({first_line(error)})")
            # A number that was cut is a number too; only what stands behind it says that it is whole.
            whole = not isinstance(found, int | float) or self._text[end : end + 1] not in _IN_NUMBERS
            if whole or self._ended:
                self._at = end
                return found
            if not self._more() and not self._ended:
                self.fail("a number")

    def fail(self, expected: str) -> NoReturn:
        """Raises `UserError` for what is at this place."""
        if found := self._text[self._at : self._at + 20].strip():
            self._fail(repr(found), self._at, expected)
        self._fail("the end of the file", len(self._text), expected)

    def _fail_in_value(self, error: json.JSONDecodeError) -> NoReturn:
        rest = error.doc[error.pos :]
        cut = error.msg.startswith("Unterminated") or any(word.startswith(rest) for word in _WORDS)
        if self._ended and cut:
            self._fail("the end of the file", len(self._text), "the rest of it")
        self._fail(repr(self._text[self._at : self._at + 20]), self._at, f"JSON ({error.msg})")

    def _fail(self, found: str, at: int, expected: str) -> NoReturn:
        raise UserError(
            f"{self._name}: found {found} at byte {self._bytes(at)}, expected {expected}; the file is truncated or "
            "damaged, fetch it again"
        )

    def _more(self) -> bool:
        """Reads on and forgets what was passed over; False at the end of the file, or if one element never ends."""
        if self._ended or len(self._text) - self._at > _LONGEST:
            return False
        raw = self._file.read(self._chunk)
        self._before, self._text, self._at = self._bytes(self._at), self._text[self._at :], 0
        self._ended = not raw
        try:
            self._text += self._utf8.decode(raw, final=self._ended)
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self._name}: found bytes that are not UTF-8 after byte {self._bytes(len(self._text))}, expected "
                "UTF-8; the file is truncated or damaged, fetch it again"
            ) from error
        return not self._ended

    def _bytes(self, at: int) -> int:
        """Bytes of the file in front of a place of the text."""
        return self._before + len(self._text[:at].encode("utf-8", "surrogatepass"))

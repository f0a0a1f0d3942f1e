"""The exception for mistakes that a user can mend, and the code that prints it as one line."""

import contextlib
import errno
import importlib.util
import io
import logging
import os
import re
import signal
import struct
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from typing import NoReturn

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
"""Numbers of the system's errors where a disk is full or cannot be written to."""

DAMAGED = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    IndexError,
    MemoryError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy and the standard library raise for a file that is damaged, hostile or of another kind.

Among the kinds of `RuntimeError` are those for nesting that is too deep, for a zip that is encrypted, and for one that
is packed by an unknown method.
"""


_LONGEST_REASON, _LONGEST = 300, 4000  # letters
_LINE_END = re.compile("[\\n\\v\\f\\r\\x1c-\\x1e\\x85\\u2028\\u2029]+")


class UserError(ValueError):
    """A mistake the person at the keyboard can mend: bad file, bad value, bad option.

    The message is one line of the form ``what: found X, expected Y; do Z``. Commands print it without a
    traceback and exit with code 2; any other exception is our own fault and keeps its traceback. Line ends in what it
    quotes become blanks; a message that quotes pages is cut in its middle.
    """

    def __init__(self, message: str = "") -> None:
        line = _LINE_END.sub(" ", message)
        super().__init__(line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 4 :]}")


class Busy(UserError):
    """Another process is at work in the folder."""


def refuse_without_tensorflow() -> None:
    """Refuses work on records where TensorFlow is not installed, such as by a Python that it has no wheel for.

    Raises:
        UserError: with what does without it.
    """
    missing = [name for name in ("tensorflow", "tensorflow_datasets") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"{' and '.join(missing)}: found none in Python {sys.version_info.major}.{sys.version_info.minor}, "
            "expected it to write and to read records; use Python 3.11 to 3.13, which it has a wheel for. Training and "
            "evaluation from a store, predict, search, export and site do without"
        )


class Stopped(Exception):
    """The command was asked to stop and has saved its state; the message says where."""


STOPPED = 128 + signal.SIGTERM
"""Exit code of a command that has stopped as asked, whichever signal asked it."""


def disk_trouble(error: BaseException) -> str:
    """What the system says of a disk that is full or cannot be written to, if that is what an error comes from.

    Libraries that write files in languages of their own hide the number of the error in their words.

    Returns:
        The system's words, such as "No space left on device"; empty for any other error.
    """
    for cause in chained(error):
        number = cause.errno if isinstance(cause, OSError) else None  # Rust, Arrow and TensorStore put it in words
        named = re.search(r"(?:os_error_code='?|os error |errno )(\d+)", str(cause))
        number = int(named[1]) if number is None and named else number
        if number is None and re.fullmatch(r"\d+ requested and \d+ written", str(cause)):  # NumPy's tofile
            number = errno.ENOSPC
        if number in NO_ROOM:
            return os.strerror(number)
    return ""


_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""The text as a terminal may show it: on one line, with escapes in place of what it would obey.

    Names of classes and files come from others: control characters and the sequences that they begin move the cursor,
    recolour, hide or rename; marks of direction turn around what is read; halves of letters cannot be written.

    Example:
        >>> printable("a\x1b[2Jb")
        'a\\x1b[2Jb'
    """
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def first_line(error: BaseException) -> str:
    """What an error says in its first line, or its kind: more lines advise a programmer, such as to trust the file.

    Some quote all of a damaged file; what is longer than a person reads is cut.
    """
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}..."


def chained(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


@contextlib.contextmanager
def user_errors_in_one_line(interrupted: str = "") -> Iterator[None]:
    """Turns a `UserError` raised inside into one line on standard error and exit code 2, `Stopped` into 143.

    So does an `OSError` that names a file: no permission, no such folder, a full disk. A reader of a pipe that has gone
    ends the command without a word, with the exit code of the signal; Ctrl-C ends it with one line.

    Signs that the console's encoding lacks, as that of Windows lacks many, are spelt with escapes on standard output,
    as Python does on standard error. Libraries that log through absl (Orbax, TFDS) are heard from their errors on only.

    Args:
        interrupted: how to go on after Ctrl-C, for commands that keep what they have done.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
        sys.stdout.flush()
    except UserError as error:
        _stop(str(error))
    except Stopped as stopped:
        print(printable(str(stopped)), file=sys.stderr, flush=True)
        sys.exit(STOPPED)
    except BrokenPipeError:
        # Whoever read the output, such as head, has gone: nobody is left to tell, now or at the flush when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        print("interrupted" + (f"; {interrupted}" if interrupted else ""), file=sys.stderr, flush=True)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        trouble = disk_trouble(error)
        named = next((cause for cause in chained(error) if isinstance(cause, OSError) and cause.filename), None)
        if named is not None and (isinstance(error, OSError) or trouble):
            where = os.fsdecode(named.filename) if isinstance(named.filename, bytes) else named.filename
            why = os.strerror(named.errno) if named.errno else named.strerror
            if named.errno in (errno.ENOSPC, errno.EDQUOT):
                _stop(f"{where}: found {why}, expected room to write it; make room, then run the same command again")
            _stop(f"{where}: found {why}, expected a place that can be read and written")
        if trouble:
            _stop(f"output: found {trouble}, expected a place that can be written to; make room")
        raise


def _stop(message: str) -> NoReturn:
    print("error: " + printable(" ".join(message.split())), file=sys.stderr, flush=True)
    sys.exit(2)

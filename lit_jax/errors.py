"""The one exception for what a user can mend, and the one place where commands print it."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import NoReturn


class UserError(ValueError):
    """A mistake the person at the keyboard can mend: bad file, bad value, bad option.

    The message is one line of the form ``what: found X, expected Y; do Z``. Commands print it without a
    traceback and exit with code 2; any other exception is our own fault and keeps its traceback.
    """


@contextlib.contextmanager
def user_errors_in_one_line() -> Iterator[None]:
    """Turns a `UserError` raised inside into one line on standard error and exit code 2.

    So does an `OSError` that names a file: no permission, no such folder, a full disk.

    Libraries that log through absl (Orbax, TFDS) are heard from their errors on only.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        yield
    except UserError as error:
        _stop(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        _stop(f"{error.filename}: found {error.strerror}, expected a place that can be read and written")


def _stop(message: str) -> NoReturn:
    print("error: " + " ".join(message.split()), file=sys.stderr, flush=True)
    sys.exit(2)

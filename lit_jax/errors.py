"""The one exception for what a user can mend, and the one place where commands print it."""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn


class UserError(ValueError):
    """A mistake the person at the keyboard can mend: bad file, bad value, bad option.

    The message is one line of the form ``what: found X, expected Y; do Z``. Commands print it without a
    traceback and exit with code 2; any other exception is our own fault and keeps its traceback.
    """


@contextlib.contextmanager
def user_errors_in_one_line(interrupted: str = "") -> Iterator[None]:
    """Turns a `UserError` raised inside into one line on standard error and exit code 2.

    So does an `OSError` that names a file: no permission, no such folder, a full disk. A reader of a pipe that has gone
    ends the command without a word, with the exit code of the signal; Ctrl-C ends it with one line.

    Libraries that log through absl (Orbax, TFDS) are heard from their errors on only.

    Args:
        interrupted: how to go on after Ctrl-C, for commands that keep what they have done.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        yield
        sys.stdout.flush()
    except UserError as error:
        _stop(str(error))
    except BrokenPipeError:
        # Whoever read the output, such as head, has gone: nobody is left to tell, now or at the flush when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        print("interrupted" + (f"; {interrupted}" if interrupted else ""), file=sys.stderr, flush=True)
        sys.exit(128 + signal.SIGINT)
    except OSError as error:
        if error.filename is None:
            raise
        _stop(f"{error.filename}: found {error.strerror}, expected a place that can be read and written")


def _stop(message: str) -> NoReturn:
    print("error: " + " ".join(message.split()), file=sys.stderr, flush=True)
    sys.exit(2)

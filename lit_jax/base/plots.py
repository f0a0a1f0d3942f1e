"""What all plots share: names in them are text as they are, and a plot that fails costs only itself."""

import contextlib
import sys
import warnings
from collections.abc import Iterator

from lit_jax.base.console import say
from lit_jax.errors import first_line


@contextlib.contextmanager
def plain_text() -> Iterator[None]:
    """Matplotlib within which text is text: a dollar begins no formula, and a letter that no font has is no warning."""
    from matplotlib import rc_context

    with rc_context({"text.parse_math": False, "text.usetex": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


@contextlib.contextmanager
def one_less(what: str) -> Iterator[None]:
    """Goes on without a plot that cannot be drawn, with one line; a disk that cannot be written to is an error as ever.

    Args:
        what: is drawn, such as "curves.png".
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # Matplotlib raises nearly anything
        say(f"note: {what}: could not be drawn ({first_line(error)}), and is missing", file=sys.stderr, flush=True)

"""A watchdog: ends a process whose collective never returns. A heartbeat does not notice a host alive but stuck."""

import contextlib
import faulthandler
import pathlib
from collections import deque
from collections.abc import Iterator

SLOW = 1800.0
"""Seconds that compiling, a batch of an evaluation, or saving may take."""


class Watchdog:
    """Python's own timer (`faulthandler.dump_traceback_later`), which runs out whatever the main thread waits for.

    When it runs out, it writes the stacks of all threads and ends the process with exit code 1, and the guard tells why
    (see `lit_jax.base.guard`).
    """

    def __init__(self, seconds: float, stacks: pathlib.Path | None):
        """A watchdog for steps of so many seconds at the most; none if that is 0 or there is no file for stacks."""
        self._seconds = seconds
        self._file = open(stacks, "w", encoding="utf-8") if stacks and seconds > 0 else None  # noqa: SIM115
        # Metrics are read a step late and batches are made ahead: what is waited for may be one of the last few.
        self._limits: deque[float] = deque(maxlen=4)

    def step(self, *, compiles: bool) -> None:
        """Begins the time of one more step; `compiles` if this process has not seen the shapes of its batch."""
        self._limits.append(max(SLOW, self._seconds) if compiles else self._seconds)
        self._set(max(self._limits))

    def slow(self) -> None:
        """Begins the time of something that takes longer than a step."""
        self._set(max(SLOW, self._seconds))

    def close(self) -> None:
        """Sets the timer no more."""
        if self._file is not None:
            faulthandler.cancel_dump_traceback_later()
            self._file.close()
            pathlib.Path(self._file.name).unlink(missing_ok=True)  # empty: nobody was stuck
            self._file = None

    def _set(self, seconds: float) -> None:
        if self._file is not None:
            faulthandler.dump_traceback_later(seconds, exit=True, file=self._file)


@contextlib.contextmanager
def watching(seconds: float, stacks: pathlib.Path | None) -> Iterator[Watchdog]:
    """A `Watchdog` for the body, which begins as something slow."""
    watchdog = Watchdog(seconds, stacks)
    watchdog.slow()
    try:
        yield watchdog
    finally:
        watchdog.close()

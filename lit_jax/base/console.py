"""The terminal: progress, durations and tables of text."""

import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, TextIO

import rich.console
import rich.progress
import rich.table
import rich.text

from lit_jax.errors import printable

WIDEST = 100_000  # cells of a line: no column is cut
Record = dict[str, Any]
"""Metrics of a step by name."""


def say(*texts: object, file: TextIO | None = None, flush: bool = False, end: str = "\n") -> None:
    """Prints lines in which nothing is obeyed by a terminal, see `lit_jax.errors.printable`; otherwise as `print`."""
    lines = " ".join(map(str, texts)).split("\n")
    print("\n".join(map(printable, lines)), file=file, flush=flush, end=end)


class Progress:
    """A progress bar on a terminal, plain lines elsewhere; silent on all hosts but the first.

    `aside` tells it on standard error, where standard output is for what a command makes.
    """

    def __init__(
        self, total: int, *, start: int = 0, quiet: bool = False, every_seconds: float = 20.0, aside: bool = False
    ):
        self._console = _console(quiet=quiet, stderr=aside, soft_wrap=True, highlight=False)
        self._total, self._every, self._printed = total, every_seconds, time.monotonic()
        self._bar = rich.progress.Progress(
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.description}", markup=False),
            rich.progress.TextColumn("ETA"),
            rich.progress.TimeRemainingColumn(),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._bar.add_task("compiling the first step", total=total, completed=start)

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, record: Record) -> None:
        """Shows step, epoch, loss and its lower bound, pairs per second and the time left."""
        rate, left = record["steps_per_s"], self._total - record["step"]
        floor = record.get("loss_floor", 0.0)
        text = (
            f"step {record['step']}/{self._total}, epoch {record['epoch']:.2f}, loss {record['loss']:.4f}"
            f"{f' (at least {floor:.2f})' if floor >= 0.01 else ''}, {record['pairs_per_s']:.0f} pairs/s"
        )
        self.show(record["step"], text, seconds_left=left / rate if rate else math.inf, total=self._total)

    def show(self, done: int, text: str, *, seconds_left: float, total: int | None = None) -> None:
        """Moves the bar, of another total if one is given; where there is none, prints a line now and then."""
        self._bar.update(self._task, completed=done, description=printable(text), total=total)
        if self._bar.disable and time.monotonic() - self._printed > self._every:
            self._printed = time.monotonic()
            self.line(f"{text}, ETA {duration(seconds_left)}" if math.isfinite(seconds_left) else text)

    def line(self, text: str) -> None:
        """Prints a line above the bar."""
        self._bar.console.print("\n".join(map(printable, text.split("\n"))))


def pace(progress: Progress, what: str) -> Callable[[int, int], None]:
    """A function of how many are done and how many there are, which shows that, the rate and the time left."""
    start = time.monotonic()

    def tell(done: int, total: int) -> None:
        rate = done / max(time.monotonic() - start, 1e-9)
        text = f"{done:,} of {total:,} {what}, {rate:.0f} a second"
        progress.show(done, text, seconds_left=(total - done) / rate if rate else math.inf, total=total)

    return tell


def part(progress: Progress, what: str) -> Callable[[str], None]:
    """A function of the part of a work that begins, which shows it."""

    def tell(line: str) -> None:
        progress.show(0, f"{what}: {line}", seconds_left=math.inf)

    return tell


def duration(seconds: float) -> str:
    """Seconds as text for a person.

    Example:
        >>> duration(3725)
        '1 h 02 min'
        >>> duration(42.4)
        '42 s'
    """
    if not math.isfinite(seconds):
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def text_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, left: Collection[int] = (0,)) -> str:
    """Rows as a plain text table; the columns numbered in `left` begin at the left, all others end at the right."""
    table = rich.table.Table(box=rich.table.box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        table.add_column(rich.text.Text(printable(column)), justify="left" if number in left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(rich.text.Text(printable(str(cell))) for cell in row))  # a text is no markup
    return as_text(table)


def _console(**options: Any) -> rich.console.Console:
    """A console that takes texts as they are: a photo may be called ``[x].jpg`` or ``:bird:.jpg``."""
    return rich.console.Console(markup=False, emoji=False, **options)


def as_text(table: rich.table.Table) -> str:
    """A table as plain text, without a limit to its width."""
    console = _console(width=WIDEST, no_color=True, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().split("\n") if line.strip())

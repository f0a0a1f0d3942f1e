"""What a person sees of a run: progress, metrics as JSON lines and TensorBoard events, curves, tables."""

import contextlib
import json
import math
import os
import pathlib
import sys
import time
import types
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import rich.console
import rich.progress
import rich.table

Record = dict[str, Any]


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes JSON aside, then renames it over `path`."""
    path = pathlib.Path(path)
    aside = path.with_name(path.name + ".incomplete")
    aside.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    aside.rename(path)


class MetricsLog:
    """Metrics of a run as ``metrics.jsonl`` and, where tensorboard is installed, as TensorBoard events.

    A run that resumes at a step forgets what was logged after it, in both forms.

    Attributes:
        records: all lines, those of earlier parts of the run included.
    """

    def __init__(self, directory: str | os.PathLike[str], *, step: int = 0, tensorboard: bool = True):
        self._path = pathlib.Path(directory) / "metrics.jsonl"
        self.records = [record for record in read_metrics(self._path) if record["step"] <= step]
        aside = self._path.with_name(self._path.name + ".incomplete")
        aside.write_text("".join(json.dumps(record) + "\n" for record in self.records))
        aside.rename(self._path)
        self._events = _event_writer(str(directory), step) if tensorboard else None

    def add(self, record: Record) -> None:
        """Appends one line; `record` needs a ``step``, other numbers are plotted under their names."""
        # JSON knows no infinity, which a skipped step's gradient norm may be.
        record = {name: value for name, value in record.items() if not isinstance(value, float) or math.isfinite(value)}
        self.records.append(record)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._events is not None:
            _add_events(self._events, record)

    def close(self) -> None:
        """Flushes TensorBoard's file."""
        if self._events is not None:
            self._events.close()


def read_metrics(path: str | os.PathLike[str]) -> list[Record]:
    """Lines of a ``metrics.jsonl``; none if it is missing. A last line cut short by a kill is left out."""
    path = pathlib.Path(path)
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return records


def _event_writer(directory: str, step: int) -> Any:
    # TensorBoard would import all of TensorFlow to open a file, unless it finds a module of this name.
    sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("tensorboard.compat.notf"))
    try:
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        return None
    is_resumed = any(pathlib.Path(directory).glob("events.out.tfevents.*"))
    writer = EventFileWriter(directory)
    if is_resumed:
        # Tells TensorBoard to drop what an interrupted run wrote after this step.
        session = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        writer.add_event(event_pb2.Event(wall_time=time.time(), step=step + 1, session_log=session))
    return writer


def _add_events(writer: Any, record: Record) -> None:
    from tensorboard.compat.proto import event_pb2, summary_pb2

    values = [
        summary_pb2.Summary.Value(tag=name, simple_value=float(value))
        for name, value in record.items()
        if isinstance(value, int | float) and name != "step"
    ]
    summary = summary_pb2.Summary(value=values)
    writer.add_event(event_pb2.Event(wall_time=time.time(), step=record["step"], summary=summary))


class Progress:
    """A progress bar on a terminal, plain lines elsewhere; silent on all hosts but the first."""

    def __init__(self, total: int, *, start: int = 0, quiet: bool = False, every_seconds: float = 20.0):
        self._console = rich.console.Console(quiet=quiet, soft_wrap=True, highlight=False)
        self._total, self._every, self._printed = total, every_seconds, time.monotonic()
        self._bar = rich.progress.Progress(
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.description}"),
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
        """Shows step, epoch, loss, pairs/s and the time left."""
        rate, left = record["steps_per_s"], self._total - record["step"]
        text = (
            f"step {record['step']}/{self._total}, epoch {record['epoch']:.2f}, loss {record['loss']:.4f}, "
            f"{record['pairs_per_s']:.0f} pairs/s"
        )
        self.show(record["step"], text, seconds_left=left / rate if rate else math.inf)

    def show(self, done: int, text: str, *, seconds_left: float) -> None:
        """Moves the bar; where there is none, prints a line now and then."""
        self._bar.update(self._task, completed=done, description=text)
        if self._bar.disable and time.monotonic() - self._printed > self._every:
            self._printed = time.monotonic()
            self.line(f"{text}, ETA {duration(seconds_left)}")

    def line(self, text: str) -> None:
        """Prints a line above the bar."""
        self._bar.console.print(text, markup=False)


def duration(seconds: float) -> str:
    """Seconds as a person says them.

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


def results_table(results: Mapping[str, Any]) -> str:
    """The evaluations in `results` as a table: one row a task, with the accuracy of guessing beside it."""
    table = rich.table.Table(box=rich.table.box.SIMPLE_HEAD)
    for column in ("zero-shot on", "classes", "images", "top-1", "top-5", "chance"):
        table.add_column(column, justify="left" if column == "zero-shot on" else "right", no_wrap=True)
    for name, row in results.items():
        if isinstance(row, Mapping) and "top1" in row:
            candidates = row.get("candidates", row["classes"])
            table.add_row(
                name.replace("_", " "),
                str(candidates),
                str(row["images"]),
                *(f"{100 * row[k]:.2f} %" for k in ("top1", "top5")),
                f"{100 / max(candidates, 1):.2f} %",
            )
    return as_text(table)


def text_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, left: Collection[int] = (0,)) -> str:
    """Rows as a plain text table; the columns numbered in `left` begin at the left, all others end at the right."""
    table = rich.table.Table(box=rich.table.box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number in left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(str, row))
    return as_text(table)


def as_text(table: rich.table.Table) -> str:
    """A table as plain text, however wide."""
    console = rich.console.Console(width=200, no_color=True, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines() if line.strip())


def curves(path: str | os.PathLike[str], records: Sequence[Record], *, title: str) -> None:
    """Draws loss, zero-shot accuracy and learning rate against epochs, as in the paper's figures 2 to 5.

    Args:
        path: the PNG to write.
        records: lines of a `MetricsLog`.
        title: above the plots.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(15, 3.8), constrained_layout=True)
    _plot(axes[0], records, {"loss": ""})
    _plot(axes[1], records, dict(_accuracy_names(records)), scale=100, marker="o")
    _plot(axes[2], records, {"learning_rate": ""})
    for axis, name in zip(axes, ("loss (nats)", "zero-shot accuracy (%)", "learning rate"), strict=True):
        axis.set(xlabel="epoch", title=name)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_ylim(bottom=0)
        axis.set_xlim(left=0)
    if axes[1].lines:
        axes[1].set_ylim(0, 100)
        axes[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.suptitle(title, fontsize=10)
    path = pathlib.Path(path)
    aside = path.with_name(path.name + ".incomplete")
    figure.savefig(aside, dpi=120, format="png")
    aside.rename(path)
    plt.close(figure)


def _accuracy_names(records: Sequence[Record]) -> Iterator[tuple[str, str]]:
    for record in records:
        for name in record:
            task, _, metric = name.partition("/")
            if metric in ("top1", "top5"):
                yield name, f"{task.replace('_', ' ')}, {metric.replace('top', 'top-')}"


def _plot(
    axis: Any, records: Sequence[Record], names: Mapping[str, str], *, scale: float = 1, marker: str | None = None
) -> None:
    colours = {task: f"C{i}" for i, task in enumerate(dict.fromkeys(name.partition("/")[0] for name in names))}
    for name, label in names.items():
        points = [(record["epoch"], scale * record[name]) for record in records if name in record]
        if points:
            style = "--" if name.endswith("top5") else "-"
            colour = colours[name.partition("/")[0]]
            axis.plot(*zip(*points, strict=True), style, c=colour, label=label, marker=marker, ms=3, lw=1.4)

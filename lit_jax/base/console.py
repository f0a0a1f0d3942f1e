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

from lit_jax.evaluation.intervals import wilson

Record = dict[str, Any]

NOTHING = "–"  # in the place of a figure that says nothing
FEW = 10  # held-out species, below which their accuracy is hardly one


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
        """Shows step, epoch, loss and the least that it can be, pairs/s and the time left."""
        rate, left = record["steps_per_s"], self._total - record["step"]
        floor = record.get("loss_floor", 0.0)
        text = (
            f"step {record['step']}/{self._total}, epoch {record['epoch']:.2f}, loss {record['loss']:.4f}"
            f"{f' (at least {floor:.2f})' if floor >= 0.01 else ''}, {record['pairs_per_s']:.0f} pairs/s"
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
    """The evaluations in `results` as a table: one row a task, with intervals and the accuracy of guessing beside it.

    A warning follows where few species were held out.
    """
    rows, notes = [], []
    for name, row in results.items():
        if isinstance(row, Mapping) and "top1" in row:
            candidates = row.get("candidates", row["classes"])
            rates = [cell for k in ("top1", "top5") for cell in _with_range(row, k, candidates)]
            rows.append(
                [name.replace("_", " "), candidates, row["images"], *rates, f"{100 / max(candidates, 1):.2f} %"]
            )
            notes += (
                [f"warning: {line}" for line in few_species(row)]
                if name == "heldout" or row.get("classes_in_training") == 0
                else []
            )
    columns = ["zero-shot on", "classes", "images", "top-1", "95 % range", "top-5", "95 % range", "chance"]
    return "\n".join([text_table(columns, rows), *notes])


def _with_range(row: Mapping[str, Any], name: str, candidates: int) -> list[str]:
    if not tells(name, candidates):
        return [NOTHING, ""]
    return [f"{100 * row[name]:.2f} %", ends(row, name)]


def tells(name: str, candidates: float) -> bool:
    """Whether an accuracy by this name can be wrong: the first five of five species or fewer are all of them."""
    k = int(name[len(name.rstrip("0123456789")) :])
    return k == 1 or candidates > k


def ends(row: Mapping[str, Any], name: str) -> str:
    """The ends of the 95 % interval of an accuracy in per cent, such as ``37.9–45.6``; empty if there is none.

    Args:
        row: with the accuracy and either its ``_interval`` or the number of ``images`` that it is a share of.
        name: of the accuracy.
    """
    key = f"{name}_interval"
    interval = row[key] if key in row else wilson(row[name], row["images"])
    return "–".join(f"{100 * end:.1f}" for end in interval) if interval else ""


def rate(row: Mapping[str, Any], name: str, *, candidates: int) -> str:
    """An accuracy and its 95 % interval for a table of text, or a dash where it cannot be wrong."""
    if not tells(name, candidates):
        return NOTHING
    found = ends(row, name)
    return f"{100 * row[name]:.1f} %" + (f" ({found})" if found else "")


def few_species(row: Mapping[str, Any]) -> list[str]:
    """A warning that a figure of few held-out species says little of others, or nothing."""
    if row["classes"] >= FEW:
        return []
    return [
        f"{row['classes']} held-out species are few; one that is easy or hard moves the figure much, so hold "
        f"out {FEW} or more before you believe it"
    ]


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

    Dotted lines are the least that the loss can be where captions repeat, and the accuracies of guessing.

    Args:
        path: the PNG to write.
        records: lines of a `MetricsLog`.
        title: above the plots.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(15, 3.8), constrained_layout=True)
    _plot(axes[0], records, {"loss": "", **({"loss_floor": "at least"} if _has_floor(records) else {})})
    if _has_floor(records):
        axes[0].legend(fontsize=8, frameon=False)
    _plot(axes[1], records, dict(_accuracy_names(records)), scale=100, marker="o")
    _draw_chance(axes[1], records)
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


def _has_floor(records: Sequence[Record]) -> bool:
    return any(record.get("loss_floor", 0.0) >= 0.01 for record in records)


def _accuracy_names(records: Sequence[Record]) -> Iterator[tuple[str, str]]:
    for record in records:
        for name in record:
            task, _, metric = name.partition("/")
            if metric in ("top1", "top5") and tells(metric, record.get(f"{task}/candidates", math.inf)):
                yield name, f"{task.replace('_', ' ')}, {metric.replace('top', 'top-')}"


def _draw_chance(axis: Any, records: Sequence[Record]) -> None:
    """A line a task at the accuracy of guessing, in the task's colour; none in logs that do not know it."""
    colours = _colours(dict(_accuracy_names(records)))
    found = {name: value for record in records for name, value in record.items() if name.endswith("/candidates")}
    for name, candidates in found.items():
        task = name.partition("/")[0]
        label = f"{task.replace('_', ' ')}, chance"
        axis.axhline(100 / candidates, ls=":", c=colours.get(task, "grey"), lw=1.2, label=label)


def _plot(
    axis: Any, records: Sequence[Record], names: Mapping[str, str], *, scale: float = 1, marker: str | None = None
) -> None:
    colours = _colours(names)
    for name, label in names.items():
        points = [(record["epoch"], scale * record[name]) for record in records if name in record]
        if points:
            style = "--" if name.endswith("top5") else ":" if name.endswith("floor") else "-"
            colour = colours[name.partition("/")[0]]
            axis.plot(*zip(*points, strict=True), style, c=colour, label=label, marker=marker, ms=3, lw=1.4)


def _colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for what stands before the stroke in each name."""
    return {task: f"C{i}" for i, task in enumerate(dict.fromkeys(name.partition("/")[0] for name in names))}

"""Metrics of a run: JSON lines, TensorBoard events, and the curves drawn from them."""

import contextlib
import json
import math
import os
import pathlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lit_jax.base import foreign, plots
from lit_jax.base.console import Record
from lit_jax.base.files import written_aside
from lit_jax.errors import DAMAGED
from lit_jax.evaluation.tables import tells

FLUSH_SECONDS = 20.0


class MetricsLog:
    """Metrics of a run as ``metrics.jsonl`` and as TensorBoard events.

    A run that resumes at a step forgets what was logged after it, in both forms.

    Attributes:
        records: all lines, those of earlier parts of the run included.
    """

    def __init__(self, directory: str | os.PathLike[str], *, step: int = 0, tensorboard: bool = True):
        self._path = pathlib.Path(directory) / "metrics.jsonl"
        self.records = [record for record in read_metrics(self._path) if record["step"] <= step]
        with written_aside(self._path) as aside:
            aside.write_text("".join(json.dumps(record) + "\n" for record in self.records))
        self._events = _Events(str(directory), step) if tensorboard else None

    def add(self, record: Record) -> None:
        """Appends one line; `record` needs a ``step``, other numbers are plotted under their names."""
        # JSON knows no infinity, which a skipped step's gradient norm may be.
        record = {name: value for name, value in record.items() if not isinstance(value, float) or math.isfinite(value)}
        self.records.append(record)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._events is not None:
            self._events.add(record)

    def close(self) -> None:
        """Flushes TensorBoard's file."""
        if self._events is not None:
            self._events.close()


def read_metrics(path: str | os.PathLike[str]) -> list[Record]:
    """Lines of a ``metrics.jsonl``; none if it is missing. Lines cut short by a kill, or damaged, are left out."""
    path = pathlib.Path(path)
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else ():
        with contextlib.suppress(*DAMAGED):
            record = foreign.parsed(line)
            if isinstance(record["step"], int) and all(map(math.isfinite, record.values())):
                records.append(record)
    return records


class _Events:
    """TensorBoard's events, written in this thread.

    What tensorboardX writes in a thread of its own waits for ever on a full disk, without a word.
    """

    def __init__(self, directory: str, step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar

        self._event, self._scalar = Event, scalar
        is_resumed = any(pathlib.Path(directory).glob("events.out.tfevents.*"))
        # Names of files are told apart by the second only, and one would take the place of another.
        self._writer = EventsWriter(os.path.join(directory, "events"), f".{time.time_ns()}")
        if is_resumed:
            # Tells TensorBoard to drop what an interrupted run wrote after this step.
            for told in ({"file_version": "brain.Event:2"}, {"session_log": SessionLog(status=SessionLog.START)}):
                self._writer.write_event(Event(step=step + 1, **told))
        self._flushed = time.monotonic()

    def add(self, record: Record) -> None:
        """Writes an event for each number; to the disk now and then, since a network file system takes long for it."""
        for name, value in record.items():
            if isinstance(value, int | float) and name != "step":
                summary = self._scalar(name, float(value))
                self._writer.write_event(self._event(wall_time=time.time(), step=record["step"], summary=summary))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Writes what is left.

        Raises:
            OSError: the disk is full. What is left then goes nowhere: Python would try again at its end, and say so.
        """
        try:
            self._writer.close()
        except OSError:
            file = self._writer._py_recordio_writer._writer
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, file.fileno())
            os.close(nowhere)
            file.close()
            raise


@plots.plain_text()
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

    records = [record for record in records if "epoch" in record]
    figure, axes = plt.subplots(1, 3, figsize=(15, 3.8), constrained_layout=True)
    _plot(axes[0], records, {"loss": "", **({"loss_floor": "at least"} if _has_floor(records) else {})})
    if _has_floor(records):
        axes[0].legend(fontsize=8, frameon=False)
    _plot(axes[1], records, dict(_accuracy_names(records)), scale=100, marker="o")
    _draw_chance(axes[1], records)
    _plot(axes[2], records, {"learning_rate": ""})
    stepped = any(record["epoch"] > 0 for record in records)
    for axis, name in zip(axes, ("loss (nats)", "zero-shot accuracy (%)", "learning rate"), strict=True):
        axis.set(xlabel="epoch", title=name)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_ylim(bottom=0)
        axis.set_xlim(left=0)
        if not stepped:
            axis.set(xlim=(-1, 1), xticks=[0])
        if not axis.lines:
            axis.text(0.5, 0.5, "no step was taken", transform=axis.transAxes, ha="center", color="grey")
    if axes[1].lines:
        axes[1].set_ylim(0, 100)
        axes[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.suptitle(title, fontsize=10)
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=120, format="png")
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
    """Draws for each task a line at the accuracy of guessing, as far as the log knows it, in the task's colour."""
    colours = _colours(dict(_accuracy_names(records)))
    found = {
        name: value
        for record in records
        for name, value in record.items()
        if name.endswith("/candidates") and value > 0
    }
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
    """A colour for each task, by the part of a metric's name before the slash."""
    return {task: f"C{i}" for i, task in enumerate(dict.fromkeys(name.partition("/")[0] for name in names))}

"""Writes photos to shard files on all cores; a shard that is finished is never written again.

A shard is written under another name and renamed when it is whole; then a small JSON file in ``progress/``
says what is in it. Only a shard that has both counts as finished.
"""

import contextlib
import dataclasses
import hashlib
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Any

from data_prep.conversion.plan import Planned
from data_prep.sources import photo_places
from data_prep.sources.items import Skip
from lit_jax.base.files import read_sealed, write_sealed, written_aside
from lit_jax.base.processes import CONTEXT, pool
from lit_jax.data.photo import BadPhoto, clean_photo
from lit_jax.data.records import Record, Shard, encode
from lit_jax.data.tfrecord import frame
from lit_jax.errors import DAMAGED

CLEANING = ("max_side", "quality", "max_pixels")  # the options of a conversion that `clean_photo` takes
PROGRESS = "progress"  # folder of the JSON files, beside the shards


@dataclasses.dataclass(frozen=True)
class Texts:
    """What a record says of its class: the captions, and names by rank."""

    captions: tuple[str, ...]
    ranks: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Job:
    """One shard to be written.

    Attributes:
        path: The shard's file.
        photos: Its photos, in the order in which they are stored.
        texts: Texts by class id, of the classes of these photos.
        cleaning: `CLEANING` of `lit_jax.data.photo.clean_photo`.
    """

    path: Path
    photos: Sequence[Planned]
    texts: Mapping[int, Texts]
    cleaning: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a `Job`.

    Attributes:
        shard: The file, as the manifest lists it.
        photos_of_class: Number of photos stored, by class id; classes without any are not in it.
        kept: Number of photos whose bytes were stored as they were.
        skips: Photos left out.
        notes: What was unusual about stored photos: the fixed text, and the ids of the photos.
    """

    shard: Shard
    photos_of_class: Mapping[int, int]
    kept: int
    skips: Sequence[Skip]
    notes: Mapping[str, Sequence[str]]


def write_shard(job: Job, tick: Callable[[], None] = lambda: None) -> Outcome:
    """Writes one shard and its progress file; calls `tick` after each photo."""
    digest, size, kept = hashlib.sha256(), 0, 0
    photos_of_class: Counter[int] = Counter()
    skips: list[Skip] = []
    notes: dict[str, list[str]] = defaultdict(list)
    with written_aside(job.path) as aside, open(aside, "wb") as file:
        for planned in job.photos:
            tick()
            raw = photo_places.read(planned.path)
            if raw is None:
                skips.append(Skip(planned.image_id, "cannot be read"))
                continue
            try:
                photo = clean_photo(raw, ending=Path(planned.image_id).suffix, **job.cleaning)
            except BadPhoto as error:
                skips.append(Skip(planned.image_id, error.reason))
                continue
            texts = job.texts[planned.class_id]
            record = Record(photo.jpeg, texts.captions, planned.class_id, planned.image_id, texts.ranks)
            framed = frame(encode(record))
            file.write(framed)
            digest.update(framed)
            size += len(framed)
            kept += photo.jpeg is raw
            photos_of_class[planned.class_id] += 1
            for note in photo.notes:
                notes[note].append(planned.image_id)
    shard = Shard(job.path.name, photos_of_class.total(), size, digest.hexdigest())
    outcome = Outcome(shard, dict(sorted(photos_of_class.items())), kept, skips, dict(notes))
    write_sealed(_progress_file(job.path), _to_json(outcome))
    return outcome


def finished(path: Path) -> Outcome | None:
    """What is in a shard that was finished before, or None if it is to be written."""
    try:
        outcome = _from_json(read_sealed(_progress_file(path)))
        return outcome if path.stat().st_size == outcome.shard.size else None
    except (OSError, *DAMAGED):
        return None


def write_shards(jobs: Iterable[Job], *, workers: int, total: int, done: int = 0) -> list[Outcome]:
    """Writes shards in `workers` processes and shows the progress.

    Args:
        jobs: The shards to write; taken one by one as processes become free.
        workers: Number of processes; 1: no other than this one.
        total: Photos of the whole conversion, for the display.
        done: Photos in shards that were finished before.

    Returns:
        Outcomes, in the order of the jobs.

    Raises:
        UserError: a process died, as by lack of memory.
    """
    with progress_display(total, done) as show:
        if workers == 1:
            count = _Count(show)
            return [write_shard(job, count.tick) for job in jobs]
        return _write_in_processes(iter(jobs), workers, show)


def _write_in_processes(jobs: Iterator[Job], workers: int, show: Callable[[int], None]) -> list[Outcome]:
    counter = CONTEXT.Value("q", 0)
    outcomes: list[Future[Outcome]] = []
    waiting: set[Future[Outcome]] = set()
    remedy = "pass fewer --workers, then run the same command again: finished shards are kept"
    with pool(workers, _share, (counter,), remedy=remedy) as executor:
        while True:
            # No more at a time than keeps all busy: a job carries the names of all its photos.
            while len(waiting) < 2 * workers and (job := next(jobs, None)):
                outcomes.append(executor.submit(_write_counted, job))
                waiting.add(outcomes[-1])
            if not waiting:
                return [future.result() for future in outcomes]
            ready, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            show(counter.value)
            for future in ready:
                future.result()  # raises what the process raised, now and not at the end


_counter: Any = None  # of this process, shared with its parent


def _share(counter: Any) -> None:
    global _counter
    _counter = counter


def _write_counted(job: Job) -> Outcome:
    def tick() -> None:
        with _counter.get_lock():
            _counter.value += 1

    return write_shard(job, tick)


class _Count:
    """Counts photos in this process; `show` hears of each."""

    def __init__(self, show: Callable[[int], None]) -> None:
        self.number, self._show = 0, show

    def tick(self) -> None:
        self.number += 1
        self._show(self.number)


@contextlib.contextmanager
def progress_display(total: int, done: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, otherwise a line every ten seconds; takes the photos done in this run."""
    if not sys.stdout.isatty():
        yield _progress_lines(total, done)
        return
    from rich import progress

    columns = (
        progress.TextColumn("writing shards"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeRemainingColumn(),
    )
    start = time.monotonic()
    with progress.Progress(*columns) as bar:
        task = bar.add_task("", total=total, completed=done, rate="")
        yield lambda count: bar.update(task, completed=done + count, rate=_rate(count, start))


def _progress_lines(total: int, done: int) -> Callable[[int], None]:
    start = latest = time.monotonic()

    def show(count: int) -> None:
        nonlocal latest
        if time.monotonic() - latest > 10:
            latest = time.monotonic()
            print(f"{done + count} of {total} photos, {_rate(count, start)}", flush=True)

    return show


def _rate(count: int, start: float) -> str:
    return f"{count / max(time.monotonic() - start, 1e-3):.0f} photos/s"


def _progress_file(shard: Path) -> Path:
    return shard.parent / PROGRESS / f"{shard.name}.json"


def _to_json(outcome: Outcome) -> dict[str, Any]:
    # A list of pairs, because JSON's keys are texts.
    return dataclasses.asdict(outcome) | {"photos_of_class": list(outcome.photos_of_class.items())}


def _from_json(value: dict[str, Any]) -> Outcome:
    return Outcome(
        shard=Shard(**value["shard"]),
        photos_of_class=dict(map(tuple, value["photos_of_class"])),
        kept=value["kept"],
        skips=[Skip(*skip) for skip in value["skips"]],
        notes=value["notes"],
    )

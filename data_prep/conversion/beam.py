"""Shards written by the workers of a Beam pipeline, on one machine or on many.

The work on a shard is that of a conversion without Beam, `shards.write_shard`, and so is the result, byte for byte. A
worker is told the file of a job, and reads the job from the output folder, in which it also writes the
shard: that folder must be on storage that all workers see under the same path, and so must the photos.
"""

import json
import logging
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from data_prep.conversion.plan import Planned
from data_prep.conversion.shards import CLEANING, PROGRESS, Job, Outcome, Texts, finished, write_shard
from data_prep.conversion.workspace import disk_errors_in_one_line
from lit_jax.base import foreign
from lit_jax.errors import UserError

_ENDING = ".json"
_JOBS = "jobs"  # in the folder of progress files, so that it goes where they go
_ONE_LINE = re.compile(rf"{UserError.__name__}: ([^\n]*?)(?: \[while running|\\n|\n|$)")


class BeamWriter:
    """Does what `data_prep.conversion.shards.write_shards` does, through Beam.

    Args:
        flags: Beam's own flags, as ``--runner=DirectRunner``.

    Raises:
        UserError: apache-beam is not installed, or does not know a flag.
    """

    def __init__(self, flags: Sequence[str] = ()) -> None:
        try:
            from apache_beam.options.pipeline_options import PipelineOptions
        except ImportError as error:
            raise UserError(
                "--beam: found no apache-beam, expected it installed; run: pip install 'lit_jax[beam]'"
            ) from error
        self._options = PipelineOptions([flag for flag in flags if flag != "--"])
        # Beam itself passes over flags that it does not know, and so over a misspelt option of the conversion.
        unknown = set(self._options.get_all_options(retain_unknown_options=True)) - set(
            PipelineOptions([]).get_all_options()
        )
        if unknown:
            raise UserError(
                f"--beam: found --{min(unknown)}, expected an option of this command or of Beam; correct it"
            )

    def __call__(self, jobs: Iterable[Job], *, workers: int, total: int, done: int = 0) -> list[Outcome]:
        """Writes the shards and returns the outcomes, in the order of the jobs.

        Args:
            jobs: The shards to write.
            workers: Not used; how many there are is for Beam's flags to say.
            total: Photos of the whole conversion.
            done: Photos in shards that were finished before.

        Raises:
            UserError: what a worker raised; or a shard is not there in the end.
        """
        paths, files = [], []
        for job in jobs:
            paths.append(job.path)
            files.append(_store(job))
        if not files:
            return []
        print(f"{total - done} photos in {len(files)} shards go to Beam's workers", flush=True)
        self._run(files)
        outcomes = [finished(path) for path in paths]
        missing = [path for path, outcome in zip(paths, outcomes, strict=True) if outcome is None]
        if missing:
            raise UserError(
                f"{missing[0]}: found no such shard after the pipeline, nor {len(missing) - 1} others, expected all "
                f"{len(paths)}; put --out on storage that all workers see, then run the same command again"
            )
        shutil.rmtree(files[0].parent)
        return [outcome for outcome in outcomes if outcome]

    def _run(self, files: Sequence[Path]) -> None:
        import apache_beam

        logging.getLogger("apache_beam.runners.common").addFilter(_is_not_ours)
        try:
            with apache_beam.Pipeline(options=self._options) as pipeline:
                _ = (
                    pipeline
                    | "jobs" >> apache_beam.Create([str(file) for file in files])
                    | "spread" >> apache_beam.Reshuffle()
                    | "write" >> apache_beam.Map(write_stored)
                )
        except Exception as error:
            # Runners wrap what a worker raised, each in its own way; the text is in all of them.
            if found := _ONE_LINE.findall(f"{type(error).__name__}: {error}"):
                raise UserError(found[-1]) from error
            raise


def _is_not_ours(record: logging.LogRecord) -> bool:
    """False for the traceback of a `UserError`, which is told in one line later."""
    return not (record.exc_info and isinstance(record.exc_info[1], UserError))


def write_stored(file: str) -> str:
    """Writes the shard of a stored job, unless it is there already; what a worker does. Returns the job's file."""
    path = Path(file)
    if not path.is_file():
        raise UserError(
            f"{path}: found no such file on a worker, expected it; put --out on storage that all workers see"
        )
    job = _read(path)
    if finished(job.path) is None:
        with disk_errors_in_one_line(job.path.parent):
            write_shard(job)
    return file


def _store(job: Job) -> Path:
    """Puts a job into a file: all jobs together are too large for the description of a pipeline.

    It is plain text, and says nothing of the shard's path, which is where the file lies: a folder that many can write
    to must give none of them power over the workers of others.
    """
    path = job.path.parent / PROGRESS / _JOBS / f"{job.path.name}{_ENDING}"
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [[class_id, texts.captions, texts.ranks] for class_id, texts in job.texts.items()]
    # In ASCII, which spells out what a path holds that is no UTF-8.
    path.write_text(json.dumps({"photos": job.photos, "texts": texts, "cleaning": job.cleaning}), encoding="ascii")
    return path


def _read(path: Path) -> Job:
    """The job in a file; raises `UserError` for anything else."""
    try:
        value = foreign.loaded(path)
        if set(value) != {"photos", "texts", "cleaning"} or set(value["cleaning"]) != set(CLEANING):
            raise ValueError("other fields")
        return Job(
            path=path.parents[2] / path.name.removesuffix(_ENDING),
            photos=[_checked(Planned(*photo)) for photo in value["photos"]],
            texts={int(class_id): Texts(tuple(captions), dict(ranks)) for class_id, captions, ranks in value["texts"]},
            cleaning={name: _integer(number) for name, number in value["cleaning"].items()},
        )
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path}: found no job of this conversion ({error}), expected one as it was written; run the same command "
            "again"
        ) from error


def _checked(photo: Planned) -> Planned:
    _integer(photo.class_id)
    if not all(isinstance(text, str) for text in (photo.path, photo.image_id, photo.split)):
        raise TypeError("a photo without its names")
    return photo


def _integer(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} for a number")
    return value

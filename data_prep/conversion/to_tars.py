"""Writes a record set as webdataset shards: tars in which the members of one key are one photo with its texts."""

import io
import itertools
import json
import os
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.conversion.shards import progress_display
from data_prep.conversion.workspace import disk_errors_in_one_line
from data_prep.sources.webdataset import LISTING
from lit_jax.base import foreign
from lit_jax.base.console import say
from lit_jax.base.files import alone_in, clear_parts, incomplete, write_json, written_aside
from lit_jax.base.processes import cores, each
from lit_jax.data.dataset_folder import check_split
from lit_jax.data.records import CLASS_TABLE, Record, RecordSet, decode, file_part
from lit_jax.data.tfrecord import frame_spans, mapped, read_frames
from lit_jax.errors import UserError

SHARD_MB = 512


SIZES = "sizes.json"  # photos by tar, where open_clip looks for their number


_FORMAT = "lit_jax webdataset"


_DIGITS = 9  # of a key


_TAR_BYTES = 4096  # about what tar headers and texts take beside a record


class Tar(NamedTuple):
    """One shard to be written.

    Attributes:
        path: its file.
        first: number of its first photo in the split.
        parts: where its records are: path of a shard, records to skip, records to take.
    """

    path: Path
    first: int
    parts: Sequence[tuple[Path, int, int]]

    @property
    def photos(self) -> int:
        """Number of photos in the tar."""
        return sum(take for _, _, take in self.parts)


def to_webdataset(
    records: RecordSet, out: str | Path, splits: Sequence[str] = (), *, shard_mb: int = SHARD_MB, workers: int = 1
) -> list[Path]:
    """Writes the splits of a record set as folders of tars, or goes on writing them.

    A script that calls this with more than one worker must do so under ``if __name__ == "__main__":``.

    Args:
        records: The record set.
        out: The folder to make or to add splits to.
        splits: Their names; all, if none is given.
        shard_mb: Size of a tar in MiB, about.
        workers: Number of processes; 0: one a core.

    Returns:
        The folders of the splits.

    Raises:
        UserError: no such split; a folder of something else, or of other records or another shard size; another
            process at work in it; a damaged record; a full disk.
    """
    if shard_mb < 1:
        raise UserError(f"shard_mb: found {shard_mb}, expected 1 or more; correct it")
    if workers < 0:
        raise UserError(f"workers: found {workers}, expected 0 (all cores) or more; correct it")
    splits = tuple(splits) or tuple(records.splits)
    for split in splits:
        check_split(split, records.splits, records.directory, option="--split")
    out = Path(os.path.abspath(out))
    listing = {"format": _FORMAT, "records": records.fingerprint, "shard_mb": shard_mb}
    _refuse_other(out, listing)
    with disk_errors_in_one_line(out), alone_in(out, "conversion"):
        write_json(out / LISTING, listing)
        clear_parts(out)
        with written_aside(out / CLASS_TABLE) as aside:
            shutil.copyfile(records.class_table, aside)
        return [_write_split(records, out, split, shard_mb << 20, workers or cores()) for split in splits]


def plan_tars(records: RecordSet, split: str, folder: Path, tar_bytes: int) -> list[Tar]:
    """The tars of a split, by the sizes of its records; no record is read.

    Args:
        records: The record set.
        split: Name of the split.
        folder: Where the tars are to be.
        tar_bytes: A tar ends with the photo that brings it to this size.
    """
    ends, size, number = [0], 0, 0
    for path in records.files(split):
        with mapped(path) as content:
            for begin, end in frame_spans(content, path):
                number += 1
                size += end - begin + _TAR_BYTES
                if size >= tar_bytes:
                    ends.append(number)
                    size = 0
    ends += [number] if number > ends[-1] else []
    return [
        Tar(folder / f"{i:06d}.tar", first, file_part(records, split, first, end))
        for i, (first, end) in enumerate(itertools.pairwise(ends))
    ]


def write_tar(tar: Tar) -> int:
    """Writes one tar and returns its number of photos. Times, owners and modes are fixed, and so are its bytes."""
    frames = itertools.chain.from_iterable(read_frames(path, skip, take) for path, skip, take in tar.parts)
    with written_aside(tar.path) as aside, tarfile.open(aside, "w", format=tarfile.USTAR_FORMAT) as file:
        for number, frame in enumerate(frames, tar.first):
            for ending, content in _members(decode(frame)).items():
                member = tarfile.TarInfo(f"{number:0{_DIGITS}d}.{ending}")
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
            file.getmembers().clear()  # kept for reading only, and many
    return tar.photos


def _write_split(records: RecordSet, out: Path, split: str, tar_bytes: int, workers: int) -> Path:
    done, work = out / split, incomplete(out / split)
    if done.exists():
        say(f"{done} is up to date", flush=True)
        return done
    work.mkdir(exist_ok=True)
    clear_parts(work)  # of a run that was stopped
    tars, total = plan_tars(records, split, work, tar_bytes), records.examples(split)
    todo = [tar for tar in tars if not tar.path.exists()]
    if len(todo) < len(tars):
        say(f"{split}: {len(tars) - len(todo)} of {len(tars)} tars were finished before", flush=True)
    with progress_display(total, total - sum(tar.photos for tar in todo)) as show:
        for photos in itertools.accumulate(each(write_tar, todo, min(workers, len(todo)))):
            show(photos)
    write_json(work / SIZES, {tar.path.name: tar.photos for tar in tars})
    work.rename(done)
    say(f"wrote {done}: {total} photos in {len(tars)} tar{'s' if len(tars) > 1 else ''}", flush=True)
    return done


def _members(record: Record) -> dict[str, bytes]:
    """Contents by ending, the photo first."""
    facts: dict[str, Any] = {
        "image_id": record.image_id,
        "class_id": record.class_id,
        "captions": list(record.captions),
        "ranks": dict(record.ranks),
    }
    return {
        "jpg": record.jpeg,
        "txt": next(iter(record.captions), "").encode(),
        "cls": str(record.class_id).encode(),
        "json": json.dumps(facts, ensure_ascii=False).encode(),
    }


def _refuse_other(out: Path, listing: Mapping[str, Any]) -> None:
    """Raises `UserError` where `out` holds something else than what the listing says."""
    if not out.exists() or not any(out.iterdir()):
        return
    try:
        found = foreign.loaded(out / LISTING)
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise UserError(f"{out}: found something else, expected a new or empty folder; choose another --out")
    for name, value in listing.items():
        if found.get(name) != value:
            raise UserError(
                f"{out}: found tars of {name} {found.get(name)}, expected {value}; delete them or choose another --out"
            )

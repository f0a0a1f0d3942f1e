"""The folder in which a conversion works: whether it may be used, what is done already, and the final renaming.

Two rules. What two different conversions write never comes together in one folder; and no file is deleted
that a conversion did not write.
"""

import contextlib
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_prep.conversion.shards import PROGRESS
from lit_jax.base import foreign
from lit_jax.base.files import clear_parts, is_part, write_json
from lit_jax.base.folders import MARK, clear, recover, replace
from lit_jax.data.dataset_folder import MANIFEST
from lit_jax.data.records import CLASS_TABLE, NAME, TFDS_FILES, TOKENIZER, is_record_set
from lit_jax.errors import NO_ROOM, UserError

PLAN, REPORT, REPORT_TEXT = "plan.json", "report.json", "report.txt"

_PLAN_FORMAT = "lit_jax conversion"
_SMALL_FILES = (CLASS_TABLE, TOKENIZER, MANIFEST, PLAN, REPORT, REPORT_TEXT, *TFDS_FILES)
_OURS = re.compile(
    rf"({'|'.join(map(re.escape, _SMALL_FILES))}|{NAME}-\w+\.tfrecord-\d+-of-\d+)(\.\d+\.part)?|{PROGRESS}"
)


def refuse_foreign(out: Path, work: Path) -> None:
    """Raises `UserError` if one of the two folders holds something that no conversion made."""
    recover(out, _is_of_set, "conversion", whole=MANIFEST)
    if out.exists() and not is_record_set(out) and not _is_blank(out):
        raise UserError(
            f"{out}: found something that is no record set, expected a new or empty folder; choose another --out"
        )
    if work.exists() and _read_plan(work) is None and not _is_blank(work):
        raise UserError(f"{work}: found no {PLAN}, expected a folder that a conversion made; choose another --out")


def is_up_to_date(out: Path, identity: Mapping[str, Any], *, restart: bool) -> bool:
    """True if `out` is complete and was made by the same conversion.

    Args:
        out: The folder to make.
        identity: JSON values that are equal for equal conversions: ``options`` by name, and other parts.
        restart: Whether an earlier conversion is to be replaced, in which case nothing is up to date.

    Raises:
        UserError: `out` was made by another conversion, and `restart` is False.
    """
    if restart or not is_record_set(out):
        return False
    _refuse_other(out, identity, "delete the folder, choose another --out or pass --restart")
    return True


def prepare(work: Path, identity: Mapping[str, Any], *, restart: bool) -> None:
    """Leaves in `work` the identity, and of an earlier run of the same conversion the finished files.

    Raises:
        UserError: another conversion began there, and `restart` is False.
    """
    if restart:
        clear(work, _OURS.fullmatch, last=PLAN)  # without the plan the folder would look foreign
    elif _read_plan(work) is not None:
        _refuse_other(work, identity, "give the same options and photos, delete the folder or pass --restart")
    clear_parts(work)
    write_json(work / PLAN, {"format": _PLAN_FORMAT, **identity})
    (work / PROGRESS).mkdir(exist_ok=True)


def move_into_place(work: Path, out: Path) -> None:
    """Renames the finished folder; an earlier set there is replaced, and files that no conversion wrote stay."""
    shutil.rmtree(work / PROGRESS)
    replace(work, out, _is_of_set)


def _is_of_set(name: str) -> bool:
    """Whether a name is one that a finished set has."""
    return name == MARK or (name != PROGRESS and bool(_OURS.fullmatch(name)))


@contextlib.contextmanager
def disk_errors_in_one_line(work: Path) -> Iterator[None]:
    """Turns a full disk, or one that cannot be written to, into a `UserError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise UserError(
            f"{error.filename or work}: found {error.strerror}, expected to write there; make room or choose "
            "another --out, then run the same command again: finished shards are kept"
        ) from error


def _refuse_other(folder: Path, identity: Mapping[str, Any], remedy: str) -> None:
    found = _read_plan(folder) or {}
    options, now = found.get("options", {}), identity["options"]
    before = options if isinstance(options, dict) else {}
    for name in {**now, **before}:  # one that has its default may be left out
        found_one, value = (repr(options[name]) if name in options else "its default" for options in (before, now))
        if found_one != value:
            raise UserError(f"{folder}: found a conversion with {name} {found_one}, expected {value}; {remedy}")
    for part, value in identity.items():
        if found.get(part) != value:
            raise UserError(f"{folder}: found a conversion of other {part}, expected these; {remedy}")


def _read_plan(folder: Path) -> dict[str, Any] | None:
    try:
        plan = foreign.loaded(folder / PLAN)
    except (OSError, ValueError):
        return None
    return plan if isinstance(plan, dict) and plan.get("format") == _PLAN_FORMAT else None


def _is_blank(folder: Path) -> bool:
    """True for a folder that is empty, or holds no more than the first file of a conversion half written."""
    return folder.is_dir() and all(path.name.startswith(f"{PLAN}.") and is_part(path) for path in folder.iterdir())

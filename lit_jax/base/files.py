"""Files and folders that are never half-written under their own name: they are written beside it, then renamed."""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_jax.errors import Busy

INCOMPLETE = ".incomplete"  # ending of the folder's name while it is being written
_PART = ".part"  # the same of a file's name


@contextlib.contextmanager
def alone_in(
    folder: Path, what: str, *, file: str = "", name: str = "", remedy: str = "wait for it or stop it"
) -> Iterator[None]:
    """Makes a folder and locks it against other processes; the lock of a process that is killed ends with it.

    A folder that is still empty in the end is taken away again.

    Args:
        folder: to work in. It may be renamed meanwhile, but not be deleted.
        what: works there, for the message.
        file: to lock in the folder, which is left there; without one the folder itself is locked, which some network
            file systems do not know.
        name: of the folder in the message; its path if empty.
        remedy: what to do, for the message.

    Raises:
        Busy: another process is at work in it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        folder.mkdir(parents=True, exist_ok=True)
        yield
        return
    handle, locked = -1, False
    while not locked:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / file
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666) if file else os.open(path, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise Busy(
                        f"{name or folder}: found another {what} at work in it, expected none; {remedy}"
                    ) from None
            # One that has just come to its end may have renamed it in between.
            locked = path.exists() and os.path.samestat(os.fstat(handle), path.stat())
        finally:
            if not locked:
                os.close(handle)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()
        os.close(handle)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes JSON beside `path` and renames it into place, so that no half-written file has its name."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextlib.contextmanager
def written_aside(path: str | os.PathLike[str], *, sync: bool = False) -> Iterator[Path]:
    """A path beside `path` to write a file to; it takes the place of `path` when the body ends without an error.

    It holds the number of the process, which keeps a straggler of a stopped run and its successor out of one file.
    What a killed process leaves is for `clear_parts`.

    Args:
        path: the file.
        sync: whether to wait until the content is on the disk, where the loss of power would cost much.
    """
    path = Path(path)
    aside = path.with_name(f"{path.name}.{os.getpid()}{_PART}")
    try:
        yield aside
        if sync:
            with open(aside, "rb+") as file:
                os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            aside.unlink()
        raise


def is_part(path: Path) -> bool:
    """Whether the file is one that `written_aside` gave, still under that name."""
    return re.fullmatch(rf".+\.\d+{re.escape(_PART)}", path.name) is not None


def clear_parts(folder: Path) -> None:
    """Deletes files of a folder that were half written when their process was killed, and no others."""
    for path in filter(is_part, list(folder.iterdir())):
        path.unlink()


def incomplete(folder: Path) -> Path:
    """Where a folder is made before it is renamed to what it is to be called."""
    return folder.with_name(folder.name + INCOMPLETE)


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, hexadecimal; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

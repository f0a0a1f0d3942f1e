"""Files that are never half-written under their own name: they are written beside it, then renamed.

Folders of this kind are in `lit_jax.base.folders`.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_jax.base import foreign
from lit_jax.errors import NO_ROOM, Busy, UserError, disk_trouble

INCOMPLETE = ".incomplete"  # ending of the folder's name while it is being written
_PART = ".part"  # the same of a file's name


@contextlib.contextmanager
def alone_in(
    folder: Path, what: str, *, file: str = "", name: str = "", remedy: str = "wait for it or stop it"
) -> Iterator[None]:
    """Makes a folder and locks it against other processes; the lock of a process that is killed ends with it.

    A folder that it made and that is still empty in the end is taken away again.

    Args:
        folder: to work in. It may be renamed meanwhile, but not be deleted.
        what: works there, for the message.
        file: to lock in the folder, which is taken away in the end; without one the folder itself is locked, which some
            network file systems do not know.
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
    handle, locked, was_there = -1, False, folder.exists()
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
        # While it is locked: whoever opened it and waits finds that it is gone, and looks again.
        with contextlib.suppress(OSError):
            if file:
                path.unlink()
        with contextlib.suppress(OSError):
            if not was_there:
                folder.rmdir()
        os.close(handle)


@contextlib.contextmanager
def alone_with(path: Path, what: str) -> Iterator[None]:
    """Locks the name of a file or a folder that is being made, by a hidden file beside it that goes in the end.

    Args:
        path: the file or folder, which need not be there.
        what: makes it, for the message.

    Raises:
        Busy: another process is making it.
    """
    with alone_in(path.absolute().parent, what, file=f".{shortened(path.name, 200)}.lit_jax_lock", name=str(path)):
        yield


def shortened(name: str, size: int = 255) -> str:
    """A file's name cut to a number of bytes, which file systems limit; its ending stays, and a digest tells it apart.

    Example:
        >>> shortened("a" * 300 + ".jpg", 40)
        'aaaaaaaaaaaaaaaaaaaaaaa~98c7dacb05a4.jpg'
    """
    whole = os.fsencode(name)
    if len(whole) <= size:
        return name
    ending = os.path.splitext(name)[1] if len(os.fsencode(os.path.splitext(name)[1])) <= 16 else ""
    tail = f"~{hashlib.sha256(whole).hexdigest()[:12]}{ending}"
    return whole[: size - len(os.fsencode(tail))].decode(errors="ignore").rstrip() + tail


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes JSON beside `path` and renames it into place, so that no half-written file has its name."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextlib.contextmanager
def written_aside(path: str | os.PathLike[str], *, sync: bool = False, number: int | None = None) -> Iterator[Path]:
    """A path beside `path` to write a file to; it takes the place of `path` when the body ends without an error.

    It holds the number of the process, which keeps a straggler of a stopped run and its successor out of one file.
    What a killed process leaves is for `clear_parts`. A symbolic link stays, and the file that it points to is written.

    Args:
        path: the file.
        sync: whether to wait until the content is on the disk, where the loss of power would cost much.
        number: in place of that of the process, where a lock keeps others out: what a kill left is written over.

    Raises:
        UserError: `path` is a folder, a device or a pipe.
    """
    path = regular(path)
    aside = path.with_name(f"{shortened(path.name, 200)}.{os.getpid() if number is None else number}{_PART}")
    try:
        with naming(path):
            yield aside
            if sync:
                with open(aside, "rb+") as file:
                    os.fsync(file.fileno())
            aside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            aside.unlink()
        raise


def regular(path: str | os.PathLike[str], option: str = "") -> Path:
    """The file behind symbolic links, which is there or can be made.

    Args:
        path: as a person gave it.
        option: by which it was given, for the message.

    Raises:
        UserError: something is there that is no file: a folder, a device, a pipe, a socket.
    """
    found = behind_links(path, option)
    kind = kind_of(found)
    if kind not in ("", "file"):
        name = f"{option} {path}" if option else str(path)
        raise UserError(f"{name}: found a {kind}, expected a file or a new name; give another name")
    return found


def behind_links(path: str | os.PathLike[str], option: str = "") -> Path:
    """What a path leads to if it is a symbolic link; else the path itself.

    Args:
        path: as a person gave it.
        option: by which it was given, for the message.

    Raises:
        UserError: links that lead in circles.
    """
    found = Path(os.path.realpath(path) if os.path.islink(path) else path)
    if found.is_symlink():
        name = f"{option} {path}" if option else str(path)
        raise UserError(
            f"{name}: found links that lead in circles, expected a file, a folder or a new name; give another name"
        )
    return found


def kind_of(path: Path) -> str:
    """What a path is: ``file``, ``folder``, ``device``, ``pipe`` or ``socket``; empty if nothing is there.

    Symbolic links are followed.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return ""
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    return "pipe" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "device"


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Lets errors of a full or broken disk name `path`, where the body writes; else they name nothing, or a source."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE and (error.filename is None or error.filename2 is not None):
            error.filename, error.filename2 = os.fspath(path), None
        if error.errno is not None:
            raise
        _raise_disk_trouble(error, path)
        raise
    except Exception as error:
        _raise_disk_trouble(error, path)
        raise


def _raise_disk_trouble(error: Exception, path: str | os.PathLike[str]) -> None:
    """Raises the error of the system that a library has put into words of its own, if it is one of the disk."""
    trouble = disk_trouble(error)
    number = next((number for number in NO_ROOM if os.strerror(number) == trouble), None)
    if number is not None and not isinstance(error, UserError):
        raise OSError(number, trouble, os.fspath(path)) from error


def new_file(path: str | os.PathLike[str], *, overwrite: bool, option: str = "--out") -> Path:
    """The file to write, behind symbolic links; refuses a place that cannot be written to before anything is computed.

    Args:
        path: as a person gave it.
        overwrite: whether a file that is there may go.
        option: by which it was given, for the message.

    Raises:
        UserError: no folder, no permission, a file that is there already, or something else than a file.
    """
    path = regular(path, option)
    refuse_unwritable(path, option)
    if path.exists() and not overwrite:
        raise UserError(f"{option} {path}: found it there already, expected a new file; give another, or --overwrite")
    return path


def refuse_unwritable(path: str | os.PathLike[str], option: str = "--out") -> None:
    """Refuses a file to write before there is any work.

    Args:
        path: the file to be.
        option: by which another one can be given.

    Raises:
        UserError: there is no folder for it, or no permission to write there.
    """
    folder = Path(path).parent
    if not folder.is_dir():
        raise UserError(f"{option}: found no folder to write {path} to, expected one; make it or give another {option}")
    if not os.access(folder, os.W_OK):
        raise UserError(
            f"{option}: found no permission to write {path} to its folder, expected it; give another {option}"
        )


def replaceable(path: Path, option: str, keys: Sequence[str]) -> None:
    """Refuses to write a JSON over a file that is not one of the same command.

    Args:
        path: the JSON to write.
        option: by which it was given, for the message.
        keys: that each JSON of this command has.

    Raises:
        UserError: a file that this command did not write, something that is no file, or what `refuse_unwritable` does.
    """
    refuse_unwritable(path, option)
    if not regular(path, option).exists():
        return
    try:
        found = foreign.loaded(path)
    except (OSError, ValueError):
        found = None
    if not (isinstance(found, dict) and all(key in found for key in keys)):
        raise UserError(
            f"{option} {path}: found a file there that this command did not write, expected one of its own or none; "
            "give another name"
        )


def replaceable_beside(path: Path, ending: str, option: str) -> None:
    """Refuses to write a page or a picture beside a JSON over a file that was there without the JSON.

    Args:
        path: the JSON, which is `replaceable`.
        ending: of the other file.
        option: by which the JSON was given, for the message.

    Raises:
        UserError: a file of somebody else, or something that is no file.
    """
    other = path.with_suffix(ending)
    if regular(other, option).exists() and not path.exists():
        raise UserError(f"{option} {path}: found {other.name} there without it, expected neither; give another name")


def is_part(path: Path, name: str = "") -> bool:
    """Whether the file is one that `written_aside` gave, still under that name; of a file of this name, if given."""
    return re.fullmatch(rf"{re.escape(name) or '.+'}\.\d+{re.escape(_PART)}", path.name) is not None


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


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with the digest of itself."""
    value = json.loads(json.dumps({name: one for name, one in value.items() if name != "digest"}))
    return {**value, "digest": digest(value)}


def unsealed(found: object) -> dict[str, Any]:
    """What `sealed` was given, or an object that an earlier version wrote without a digest.

    Raises:
        ValueError: it is damaged.
    """
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    if found.get("digest") is not None and found["digest"] != sealed(found)["digest"]:
        raise ValueError("another content than was written")
    return {name: value for name, value in found.items() if name != "digest"}


def write_sealed(path: str | os.PathLike[str], value: Mapping[str, Any]) -> None:
    """`write_json` of an object, with the digest of itself."""
    write_json(path, sealed(value))


def read_sealed(path: Path) -> dict[str, Any]:
    """What `write_sealed` wrote, see `unsealed`.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
    """
    return unsealed(foreign.loaded(path))


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


CHECKED_BYTES = 1 << 31
"""Files up to this size, together, are compared with their checksums whenever they are opened: under a second."""


def checksum(path: Path) -> str:
    """CRC-32 of a file, hexadecimal: the quickest way to notice that bits have turned."""
    found = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            found = zlib.crc32(block, found)
    return f"{found:08x}"


def changed(folder: Path, checksums: Mapping[str, str]) -> str:
    """The first of some files of a folder that is missing or has another `checksum`; empty if all are as they were."""
    for name, expected in checksums.items():
        path = folder / name
        if not path.is_file() or checksum(path) != expected:
            return name
    return ""

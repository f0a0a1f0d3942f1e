"""Folders that a command makes under a name that a person gave: nothing goes that this program did not write.

A folder is made aside, as ``NAME.incomplete``, and renamed when it is whole. While it is being made, or replaced, it
holds a mark; a folder without the mark is somebody else's, and is left as it is.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from lit_jax.base.files import alone_in, behind_links, incomplete, naming
from lit_jax.errors import Busy, UserError

MARK = ".lit_jax_incomplete"
"""Name of the mark."""

_REPLACED = ".replaced"


@contextlib.contextmanager
def made(folder: Path, what: str, *, option: str = "--out") -> Iterator[Path]:
    """An empty folder aside, which gets its name when the body ends and is removed if it fails.

    Args:
        folder: to make.
        what: makes it, for the message to another process that would make the same.
        option: by which it was given.

    Raises:
        UserError: something of that name is there already, or what is aside is not ours.
        Busy: another process is making it.
    """
    folder = resolved(folder)
    refuse_there(folder, option)
    aside = incomplete(folder)
    with naming(folder), alone_in(aside, what):
        refuse_there(folder, option)  # another process may just have made it
        begin(aside)
        try:
            yield aside
        except BaseException:
            with contextlib.suppress(OSError):
                empty(aside)
                aside.rmdir()
            raise
        aside.rename(folder)
        (folder / MARK).unlink(missing_ok=True)


def resolved(folder: str | os.PathLike[str]) -> Path:
    """The absolute path of a folder, or of the one that it points to if it is a symbolic link.

    Raises:
        UserError: links that lead in circles; the root of the disk, beside which nothing can be made.
    """
    found = Path(os.path.abspath(behind_links(folder)))
    if not found.name:
        raise UserError(f"{folder}: found the root of a disk, expected a folder below it; give another name")
    return found


def refuse_there(folder: Path, option: str) -> None:
    """Refuses a name under which something is there; of a folder that a kill left with its mark, this one goes.

    Raises:
        UserError: with the option.
    """
    if folder.exists() or folder.is_symlink():
        with contextlib.suppress(OSError):
            (folder / MARK).unlink()
        raise UserError(f"{option} {folder}: found something there already, expected a new name; give another one")


def begin(aside: Path) -> None:
    """Makes a folder to work in, empty but for the mark.

    Raises:
        UserError: it holds something and no mark.
    """
    aside.mkdir(parents=True, exist_ok=True)
    empty(aside)
    (aside / MARK).touch()


def empty(aside: Path) -> None:
    """Empties a folder that a command has worked in.

    Raises:
        UserError: it holds something and no mark; then nothing is removed.
    """
    names = sorted(os.listdir(aside))
    if names and MARK not in names:
        raise UserError(
            f"{aside}: found {names[0]}, expected no such folder, or what an interrupted command left; move it away, "
            "or give another name"
        )
    for name in sorted(names, key=lambda name: name == MARK):  # the mark last: what a kill leaves is still ours
        remove(aside / name)


def remove(path: Path) -> None:
    """Removes a file, a link, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def clear(folder: Path, ours: Callable[[str], object], last: str = "") -> None:
    """Removes what has a name of ours in a folder, and nothing else.

    Args:
        folder: to clear.
        ours: whether a name is one that this kind of folder has.
        last: the name to remove last, by which the folder is known.
    """
    for name in sorted(os.listdir(folder), key=lambda name: name == last):
        if ours(name):
            remove(folder / name)


def recover(folder: Path, ours: Callable[[str], object], what: str, *, whole: str = "") -> None:
    """Ends what a kill left of `replace`, unless another process is at it; for those that have not locked the folder.

    Args:
        folder: that was replaced.
        ours: whether a name is one that this kind of folder has.
        what: replaces it, which locks the folder aside.
        whole: name of a file that the folder aside has once nothing but its renaming is missing, which is then left to
            `replace`.

    Raises:
        UserError: as `replace`.
    """
    if _is_left(folder):
        with contextlib.suppress(Busy), alone_in(incomplete(folder), what):
            recover_locked(folder, ours, whole=whole)


def recover_locked(folder: Path, ours: Callable[[str], object], *, whole: str = "") -> None:
    """As `recover`, in a process that has locked the folder: gives it its name back, or the rest of its files."""
    old = _old(folder)
    if not _is_left(folder) or (whole and not folder.exists() and (incomplete(folder) / whole).exists()):
        return
    if not folder.exists():
        old.rename(folder)
    elif old.exists():
        _move_along(old, folder, ours)
    (folder / MARK).unlink(missing_ok=True)


def _is_left(folder: Path) -> bool:
    """Whether a mark is left, or an earlier folder that is put aside, which is empty for a moment in the end."""
    old = _old(folder)
    is_empty = old.is_dir() and not old.is_symlink() and folder.exists() and not os.listdir(old)
    return is_empty or (old / MARK).exists() or (not old.exists() and (folder / MARK).exists())


def replace(aside: Path, folder: Path, ours: Callable[[str], object]) -> None:
    """Renames a finished folder to its name. Of an earlier one there, what is ours goes, and all else moves along.

    Args:
        aside: the finished folder.
        folder: its name.
        ours: whether a name is one that this kind of folder has.

    Raises:
        UserError: a folder of somebody else has the name under which the earlier one is put aside, or files of somebody
            else would take each other's name.
    """
    old = _old(folder)
    if folder.exists():
        recover_locked(folder, ours)  # a kill came before its rest was moved
        _refuse_twice(folder, aside, ours)
    if old.exists() and not (old / MARK).exists():
        raise UserError(f"{old}: found a folder there, expected none; move it away")
    if folder.exists():
        (folder / MARK).touch()
        folder.rename(old)
    aside.rename(folder)
    (folder / MARK).unlink(missing_ok=True)
    if old.exists():
        _move_along(old, folder, ours)


def _refuse_twice(old: Path, new: Path, ours: Callable[[str], object]) -> None:
    """Refuses to move files to where others have their names.

    Raises:
        UserError: naming one.
    """
    both = sorted(name for name in os.listdir(old) if not ours(name) and os.path.lexists(new / name))
    if both:
        raise UserError(f"{new / both[0]}: found one in {old} too, expected one of them; move it away")


def _old(folder: Path) -> Path:
    return folder.with_name(folder.name + _REPLACED)


def _move_along(old: Path, folder: Path, ours: Callable[[str], object]) -> None:
    _refuse_twice(old, folder, lambda name: name == MARK or ours(name))
    for name in os.listdir(old):
        if name == MARK:
            continue
        if ours(name):
            remove(old / name)
        else:
            (old / name).rename(folder / name)
    (old / MARK).unlink(missing_ok=True)
    old.rmdir()

"""Photos sorted into folders by what they show: as copies or links, never over another file."""

import filecmp
import itertools
import os
import re
import shutil
from pathlib import Path

from lit_jax.base.files import kind_of, shortened, written_aside
from lit_jax.base.walking import SORTED_MARK
from lit_jax.errors import UserError
from lit_jax.evaluation.ranks import SPECIES
from lit_jax.prediction.answers import NOT_SURE, Named

UNREADABLE = "unreadable"


def refuse_foreign(into: Path) -> None:
    """Refuses to sort into a folder of somebody else: labelled photos are not to be mixed with answers.

    Raises:
        UserError: it holds something and no mark, or is no folder.
    """
    option = f"--sort-into {into}"
    if kind_of(into) not in ("", "folder"):
        raise UserError(f"{option}: found a {kind_of(into)}, expected a folder or a new name; give another name")
    names = sorted(os.listdir(into)) if into.exists() else []
    if names and SORTED_MARK not in names:
        raise UserError(
            f"{option}: found {names[0]}, expected a new or empty folder, or one that photos were sorted into before; "
            "give another name"
        )


def prepare(into: Path) -> None:
    """Makes the folder to sort into, with its mark; refuses as `refuse_foreign`."""
    refuse_foreign(into)
    into.mkdir(parents=True, exist_ok=True)
    (into / SORTED_MARK).touch()


def folder_name(named: Named) -> str:
    """Of the folder that a photo goes to: the species, ``Parus (genus)``, ``not sure`` or ``unreadable``."""
    answer = named.answer
    if answer is None:
        return UNREADABLE
    if not answer.rank:
        return NOT_SURE
    # What some file system does not take.
    plain = re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", answer.name).strip(" .") or "_"
    return shortened(plain if answer.rank == SPECIES else f"{plain} ({answer.rank})")


def sort_photo(named: Named, into: Path, *, link: bool) -> bool:
    """Copies a photo, or links to it, in the folder of its answer; does nothing if that was done before.

    Args:
        named: a photo that is a file.
        into: the folder of those folders.
        link: a symbolic link instead of a copy.

    Returns:
        Whether the photo is there; a pipe or a device is, and is not copied.

    Raises:
        UserError: links cannot be made here.
    """
    source, folder = Path(named.photo).absolute(), into / folder_name(named)
    if kind_of(source) != "file":
        return bool(kind_of(source))  # a pipe is there, and its row says what it is
    folder.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        target = folder / shortened(source.name if number == 1 else f"{source.stem}-{number}{source.suffix}")
        if not target.exists() and not target.is_symlink():
            break
        if _is_same(source, target, link=link):
            return True
    if link:
        try:
            target.symlink_to(source)
        except (NotImplementedError, OSError) as error:
            raise UserError(f"--link: found {error}, expected links to be possible in {into}; leave it out") from error
        return True
    with written_aside(target, number=0) as aside:  # the folder is locked
        shutil.copy2(source, aside)
    return True


def _is_same(source: Path, target: Path, *, link: bool) -> bool:
    """Whether the photo was put there before: it is that file, or linked to, or one of the same bytes."""
    if os.path.realpath(source) == os.path.realpath(target):
        return link or not target.is_symlink() or source == target
    return (
        not (link or target.is_symlink()) and kind_of(target) == "file" and filecmp.cmp(source, target, shallow=False)
    )

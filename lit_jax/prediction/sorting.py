"""Photos sorted into folders by what they show: as copies or links, never over another file."""

import filecmp
import itertools
import os
import re
import shutil
from pathlib import Path

from lit_jax.base.files import kind_of, shortened, written_aside
from lit_jax.errors import UserError
from lit_jax.evaluation.ranks import SPECIES
from lit_jax.prediction.answers import NOT_SURE, Named

UNREADABLE = "unreadable"


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
        Whether the photo was there to be copied.

    Raises:
        UserError: links cannot be made here.
    """
    source, folder = Path(named.photo).absolute(), into / folder_name(named)
    if not source.is_file():
        return False
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

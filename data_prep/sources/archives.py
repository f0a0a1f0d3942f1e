"""Checks released archives against the MD5 that their publishers give."""

import hashlib
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lit_jax.base import foreign
from lit_jax.base.console import say
from lit_jax.base.files import write_json
from lit_jax.errors import UserError

INAT2021 = {
    "train.tar.gz": "e0526d53c7f7b2e3167b2b43bb2690ed",
    "train_mini.tar.gz": "db6ed8330e634445efc8fec83ae81442",
    "val.tar.gz": "f6f6e0e242e3d4c9569ba56400938afc",
    "public_test.tar.gz": "7124b949fe79bfa7f7019a15ef3dbd06",
    "train.json.tar.gz": "38a7bb733f7a09214d44293460ec0021",
    "train_mini.json.tar.gz": "395a35be3651d86dc3b0d365b8ea5f92",
    "val.json.tar.gz": "4d761e0f6a86cc63e8f7afc91f6a8f0b",
    "public_test.json.tar.gz": "7a9413db55c6fa452824469cc7dd9d3d",
}
"""MD5 of each archive of iNaturalist 2021. Source: the 2021 page of ``visipedia/inat_comp``."""

_BLOCK = 1 << 22
_THREADS = 4  # hashing one gets by far less than a good disk gives


def published(folder: Path, subsets: Sequence[str]) -> dict[Path, str]:
    """The MD5 that each archive of iNaturalist 2021 in a folder should have; those of some subsets only."""
    names = [f"{subset}{ending}" for subset in subsets for ending in (".json.tar.gz", ".tar.gz")]
    return {folder / name: INAT2021[name] for name in names if (folder / name).is_file()}


def check(archives: Mapping[Path, str], known: Path) -> None:
    """Compares each archive with its MD5, and says so in a line each.

    Args:
        archives: The MD5, hexadecimal, by path.
        known: A JSON that keeps name, size and time of those that were found right, so that a conversion that goes on
            need not read them again.

    Raises:
        UserError: one that has another MD5.
    """
    right = _read(known)
    todo = [path for path in archives if _facts(path) not in right]

    if todo:
        size = sum(path.stat().st_size for path in todo)
        say(f"checking the MD5 of {', '.join(path.name for path in todo)}, {size / 1e9:.1f} GB", flush=True)
    stopped = threading.Event()
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for path, found in zip(todo, pool.map(lambda path: _md5(path, stopped), todo), strict=True):
                if found != archives[path]:
                    raise UserError(
                        f"{path}: found MD5 {found}, expected {archives[path]} as published; fetch it again, or pass "
                        "--skip-md5 if it is meant to differ"
                    )
                say(f"{path.name}: MD5 as published", flush=True)
                right.append(_facts(path))
                write_json(known, right)
        finally:
            stopped.set()


def _md5(path: Path, stopped: threading.Event) -> str:
    """The MD5, hexadecimal; nothing of meaning once it is told to stop."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb", buffering=0) as file:
        while not stopped.is_set() and (block := file.read(_BLOCK)):
            digest.update(block)
    return digest.hexdigest()


def _facts(path: Path) -> list[str | int]:
    found = path.stat()
    return [str(path), found.st_size, found.st_mtime_ns]


def _read(known: Path) -> list[list[str | int]]:
    try:
        found = foreign.loaded(known)
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) else []

"""Hosts: how a command starts JAX on one or several, and how they wait for each other and compare values."""

import argparse
import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from lit_jax.errors import UserError

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Host:
    """One of the hosts that share the work.

    Attributes:
        index: its number, from 0.
        count: how many hosts there are.
    """

    index: int = 0
    count: int = 1

    def part(self, total: int) -> range:
        """This host's part of `total` things in order: over the hosts each once, and sizes differ by one at most."""
        return range(total * self.index // self.count, total * (self.index + 1) // self.count)


ALONE = Host()
"""The only host there is."""


def this_host() -> Host:
    """The host that this process is, as JAX counts them."""
    import jax

    return Host(jax.process_index(), jax.process_count())


def add_hosts(parser: argparse.ArgumentParser) -> None:
    """Adds the options by which several hosts find each other."""
    parser.add_argument("--distributed", action="store_true", help="several hosts, found by SLURM or MPI")
    parser.add_argument("--coordinator", default="", help="HOST:PORT of the first host, where nothing finds the hosts")
    parser.add_argument("--processes", type=int, help="with --coordinator: how many hosts")
    parser.add_argument("--process", type=int, help="with --coordinator: the number of this one")


def start_jax(parsed: argparse.Namespace) -> None:
    """Sets the cache of compiled programs and joins the other hosts.

    Raises:
        UserError: options of several hosts that do not go together.
    """
    import jax

    keep_compiled()
    if parsed.coordinator:
        if parsed.processes is None or parsed.process is None:
            raise UserError("--coordinator: found no --processes or --process, expected both")
        jax.distributed.initialize(parsed.coordinator, parsed.processes, parsed.process)
    elif parsed.processes is not None or parsed.process is not None:
        raise UserError("--processes, --process: found without --coordinator, expected it as well")
    elif parsed.distributed:
        jax.distributed.initialize()


def keep_compiled() -> None:
    """Programs that were compiled once are read from the user's cache folder, by every command."""
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path.home() / ".cache" / "lit_jax" / "compiled"))


def make_on_first_host(make: Callable[[], None], folder: str, what: str) -> None:
    """Makes a folder that is missing, on the first host; all hosts wait until it is there.

    Raises:
        UserError: on other hosts, if it failed on the first.
    """
    is_missing = not pathlib.Path(folder).exists()
    on_first_host(lambda: make() if is_missing else None, what)


def on_first_host(work: Callable[[], Result], what: str) -> Result | None:
    """Does work on the first host while the others wait for it.

    Where it fails, the first host raises its error and the others one line, so that none waits for ever.

    Args:
        work: to be done.
        what: comes of it, for the message.

    Returns:
        What the work gives, on the first host; None on the others.

    Raises:
        UserError: on other hosts, if the work failed on the first.
    """
    import jax

    failure, result = None, None
    if jax.process_index() == 0:
        try:
            result = work()
        except BaseException as error:
            failure = error
    failed = bool(from_all_hosts(np.array(failure is not None)).any())
    if failure is not None:
        raise failure
    if failed:
        raise UserError(f"{what}: found an error on the first host, expected none; see what it says")
    return result


def wait_for_all_hosts(what: str) -> None:
    """Returns when every host is here."""
    import jax

    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(what)


def from_all_hosts(rows: np.ndarray) -> np.ndarray:
    """Each host's small array, stacked: `[hosts, ...]`."""
    import jax

    if jax.process_count() == 1:
        return rows[None]
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(rows))


def ensure_same_on_hosts(values: Sequence[int], *, name: str) -> None:
    """Stops if hosts disagree about something that must be equal, such as where to resume.

    Raises:
        UserError: with what each host found.
    """
    found = from_all_hosts(np.asarray(values, np.int64))
    if (found != found[0]).any():
        raise UserError(f"{name}: found {found.tolist()} on the hosts, expected the same on each; use a shared folder")

"""Worker processes that run a function over many jobs and end when this process ends."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from lit_jax.errors import UserError

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


def cores() -> int:
    """The cores that this process may use, which a cluster's scheduler makes fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(function: Callable[[_Job], _Result], jobs: Sequence[_Job], workers: int) -> Iterator[_Result]:
    """Yields the function of each job, in order.

    Args:
        function: of a module, since processes find it by its name.
        jobs: its arguments.
        workers: number of processes; 1: no other than this one.

    Raises:
        UserError: a process died, as by lack of memory; and what the function raises.
    """
    if workers <= 1:
        yield from map(function, jobs)
        return
    # Spawned, not forked: safe with the threads of any library, and the same on every system.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), end_with_parent) as pool:
        try:
            yield from pool.map(function, jobs)
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise UserError(
                    f"workers: found one of {workers} processes dead, expected all alive; if memory ran out give it "
                    "more, then run the same command again"
                ) from error
            raise


def end_with_parent() -> None:
    """Makes this process end when its parent does, and without a word on Ctrl-C, as the parent has the last one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    # A killed parent cannot stop its processes, and they would wait for work for ever.
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)

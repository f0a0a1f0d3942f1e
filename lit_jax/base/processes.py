"""Worker processes that run a function over many jobs and end when this process ends; and what threads keep."""

import contextlib
import ctypes
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from lit_jax.errors import UserError

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


CONTEXT = multiprocessing.get_context("spawn")
"""Spawned, not forked: safe with the threads of any library, and the same on every system."""


def cores() -> int:
    """The cores that this process may use, which a cluster's scheduler makes fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def keep_memory() -> None:
    """Lets threads keep the memory of one photo for the next, where the C library is glibc.

    By itself it gives an array's memory back to the system once that is the last one of its thread, and takes it anew,
    page by page, a moment later: for photos of some hundred pixels that takes longer than to decode and resize them. So
    up to 64 MiB a thread stay. Arrays of 32 MiB and more are given back as before.
    """
    # Numbers of malloc.h: from which size on an array is mapped by itself, and how much stays.
    for parameter, size in ((-3, 32 << 20), (-2, 64 << 20)):
        with contextlib.suppress(OSError, AttributeError, TypeError):  # of other C libraries
            ctypes.CDLL(None).mallopt(parameter, size)


@contextlib.contextmanager
def pool(
    workers: int,
    start: Callable[..., None] | None = None,
    arguments: Sequence[Any] = (),
    *,
    remedy: str = "give it more, then run the same command again",
) -> Iterator[ProcessPoolExecutor]:
    """Worker processes, which end with the body, and at once where it fails.

    They end when this process does, in whatever way, and without a word on Ctrl-C, as this one has the last one.

    Args:
        workers: number of processes.
        start: of a module, called in each process at first.
        arguments: of `start`; what is shared with the processes is of `CONTEXT`.
        remedy: what to do if memory ran out, for the message.

    Raises:
        UserError: a process died, as by lack of memory.
    """
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, CONTEXT, _begin, (start, arguments)) as executor:
        try:
            yield executor
        except BaseException as error:
            executor.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()  # else the pool would wait for the jobs that they are at
            if isinstance(error, BrokenProcessPool):
                raise UserError(
                    f"workers: found one of {workers} processes dead, expected all alive; if memory ran out {remedy}"
                ) from error
            raise


def each(
    function: Callable[[_Job], _Result], jobs: Sequence[_Job], workers: int, *, chunk: int = 1
) -> Iterator[_Result]:
    """Yields the function of each job, in order.

    Args:
        function: of a module, since processes find it by its name.
        jobs: its arguments.
        workers: number of processes; 1: no other than this one.
        chunk: jobs that are sent to a process together, where there are many small ones.

    Raises:
        UserError: a process died, as by lack of memory; and what the function raises.
    """
    if workers <= 1:
        yield from map(function, jobs)
        return
    with pool(workers) as executor:
        yield from executor.map(function, jobs, chunksize=chunk)


def _begin(start: Callable[..., None] | None, arguments: Sequence[Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_wait_for_parent, daemon=True).start()
    if start:
        start(*arguments)


def _wait_for_parent() -> None:
    # A killed parent cannot stop its processes, and they would wait for work for ever.
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)

"""A guard before each of several hosts: it turns the ways in which JAX's C++ ends into one line and an exit code.

Where another host is lost, the runtime below Python aborts the process: no exception, a C++ stack, no exit code that a
launcher could read. So the process that the user or SLURM started stays behind as the guard and a child does the work.
The guard hands signals on, waits, and tells in one line how it ended. What C++ libraries write to standard error goes
to a log.
"""

import contextlib
import datetime
import os
import pathlib
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from typing import NoReturn

from lit_jax.errors import UserError

TRY_AGAIN = 75
"""EX_TEMPFAIL of sysexits.h: nothing is wrong with the command; given again, it goes on."""

HANDED_ON = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)

AGAIN = "give the same command again on all hosts to go on from the last checkpoint"


def stand(folder: pathlib.Path, number: str) -> None:
    """Returns in a child of this process, which stays behind as its guard and ends with the child's exit code.

    Must come before JAX has started a backend: threads do not survive a fork.

    Args:
        folder: for the log and the stacks; made if missing.
        number: of the host.

    Raises:
        UserError: a folder that cannot be made.
    """
    log = folder / f"host-{number}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        raise UserError(f"{log}: found {error.strerror}, expected a place that can be written to") from None
    os.write(handle, f"--- {datetime.datetime.now().isoformat(timespec='seconds')}\n".encode())
    begin = os.fstat(handle).st_size
    stacks_of(log).unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    ours, theirs = os.pipe()
    ending, to_end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX warns of any fork; no backend runs yet
        child = os.fork()
    if child:
        for one in (ours, to_end, handle):
            os.close(one)
        _guard(child, ending, log, begin)
    for one in (theirs, ending):
        os.close(one)
    _to_log(handle)
    threading.Thread(target=_end_with, args=(ours,), daemon=True, name="guard").start()
    _GUARDED.append((stacks_of(log), to_end))


_GUARDED: list[tuple[pathlib.Path, int]] = []
"""Where the stacks of this process go and where it tells its guard how it ends; empty without a guard."""


def stacks() -> pathlib.Path | None:
    """Where the stacks of this process go if it is stuck; None without a guard."""
    return _GUARDED[0][0] if _GUARDED else None


def will_end(line: str, code: int) -> None:
    """Says how this process is about to end: with a last line, if there is one, and an exit code.

    It holds also if JAX's C++ aborts the process meanwhile, as when the first host has ended before it.
    """
    if line:
        print(line, file=sys.stderr, flush=True)
    for _, pipe in _GUARDED:
        os.write(pipe, bytes([code]))


def stacks_of(log: pathlib.Path) -> pathlib.Path:
    """The file of stacks beside a log."""
    return log.with_suffix(".stacks")


def _to_log(handle: int) -> None:
    """Lets C++ write to the log, and Python to where it wrote before."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        before = os.dup(number)
        os.dup2(handle, number)
        buffering = 1 if number == 2 or os.isatty(before) else -1
        opened = os.fdopen(before, "w", buffering, encoding=stream.encoding, errors=stream.errors)
        setattr(sys, "stdout" if number == 1 else "stderr", opened)
    os.close(handle)


def _end_with(pipe: int) -> None:
    # The other end is the guard's alone, so that this returns when the guard has been killed.
    os.read(pipe, 1)
    os._exit(TRY_AGAIN)


def _guard(child: int, ending: int, log: pathlib.Path, begin: int) -> NoReturn:
    """Waits for the child, hands signals on to it, and ends as it did."""
    for one in HANDED_ON:
        signal.signal(one, _handing_on(child))
    while True:
        with contextlib.suppress(InterruptedError):
            _, status = os.waitpid(child, 0)
            break
    code = os.waitstatus_to_exitcode(status)
    os.set_blocking(ending, False)  # what the child has started may hold the other end
    with contextlib.suppress(BlockingIOError):
        if told := os.read(ending, 1):
            os._exit(told[0])
    number = log.stem.removeprefix("host-")
    stuck, line = stacks_of(log), ""
    if code == 1 and stuck.exists():  # a process that ends by itself takes it away; on a full disk it is empty
        line = f"host {number}: waited too long in a step, as where another host is stuck; stacks in {stuck}; {AGAIN}"
    elif code == -signal.SIGABRT:
        line = why_aborted(log.read_bytes()[begin:].decode(errors="replace"), log)
    elif code == -signal.SIGKILL:
        line = f"host {number}: killed, by hand or for want of memory; {AGAIN}"
    elif code < 0:
        name = signal.Signals(-code).name
        print(f"host {number}: ended by {name} before it could save; {AGAIN}", file=sys.stderr, flush=True)
    if line:
        print(line, file=sys.stderr, flush=True)
    os._exit(TRY_AGAIN if line else code if code >= 0 else 128 - code)


def _handing_on(child: int) -> Callable[[int, object], None]:
    def hand_on(number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    return hand_on


def why_aborted(log: str, path: pathlib.Path) -> str:
    """One line for what JAX's coordination service wrote before it aborted the process."""
    if "RegisterTask" in log:
        return f"{missing()}; log in {path}"
    return f"{lost('no answer any more')}; log in {path}"


def missing(seconds: int | None = None) -> str:
    """The line of a host that has waited for the others in vain."""
    time = f"{seconds} s" if seconds else "the time"
    return f"not all hosts came in {time} of --wait-for-hosts; start the same command on all of them"


def lost(why: str) -> str:
    """The line of a host that has lost another one."""
    return f"lost another host ({why}); {AGAIN}"


def leave(code: int) -> NoReturn:
    """Ends the process here: at a usual end JAX would wait for hosts that do not come any more."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(code)

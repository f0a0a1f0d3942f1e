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
import re
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX warns of any fork; no backend runs yet
        child = os.fork()
    if child:
        os.close(ours)
        os.close(handle)
        _guard(child, log, begin)
    os.close(theirs)
    _to_log(handle)
    threading.Thread(target=_end_with, args=(ours,), daemon=True, name="guard").start()
    _STACKS[:] = [stacks_of(log)]


_STACKS: list[pathlib.Path] = []  # of this process, if it has a guard


def stacks() -> pathlib.Path | None:
    """Where the stacks of this process go if it is stuck; None without a guard."""
    return _STACKS[0] if _STACKS else None


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


def _guard(child: int, log: pathlib.Path, begin: int) -> NoReturn:
    """Waits for the child, hands signals on to it, and ends as it did."""
    for one in HANDED_ON:
        signal.signal(one, _handing_on(child))
    while True:
        with contextlib.suppress(InterruptedError):
            _, status = os.waitpid(child, 0)
            break
    code = os.waitstatus_to_exitcode(status)
    number = log.stem.removeprefix("host-")
    stuck = stacks_of(log)
    if code == 1 and stuck.exists() and stuck.stat().st_size:
        leave(
            f"host {number}: waited too long in a step, as where another host is stuck; stacks in {stuck}; {AGAIN}",
            TRY_AGAIN,
        )
    if code == -signal.SIGABRT:
        leave(why_aborted(log.read_bytes()[begin:].decode(errors="replace"), log), TRY_AGAIN)
    if code == -signal.SIGKILL:
        leave(f"host {number}: killed, by hand or for want of memory; {AGAIN}", TRY_AGAIN)
    if code < 0:
        leave(f"host {number}: ended by {signal.Signals(-code).name}; see {log}", 128 - code)
    os._exit(code)


def _handing_on(child: int) -> Callable[[int, object], None]:
    def hand_on(number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    return hand_on


def why_aborted(log: str, path: pathlib.Path) -> str:
    """One line for what JAX's coordination service wrote before it aborted the process."""
    missing = re.search(r"(?:failed to|did not|not) (?:register|connect|join)[^\n]*", log)
    if "RegisterTask" in log or "Barrier failed" in log or missing or "DEADLINE_EXCEEDED" in log:
        return f"a host did not come within --wait-for-hosts; start the same command on all of them; log in {path}"
    return f"{lost('no heartbeat')}; log in {path}"


def lost(why: str) -> str:
    """The line of a host that has lost another one."""
    return f"lost another host ({why}); {AGAIN}"


def leave(line: str, code: int) -> NoReturn:
    """Ends the process here: at a usual end JAX would wait for hosts that do not come any more."""
    print(line, file=sys.stderr, flush=True)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(code)

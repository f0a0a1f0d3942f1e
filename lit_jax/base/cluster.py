"""How a command starts JAX: alone, or with the other hosts of a cluster. What goes wrong is told in one line.

A launcher decides by the exit code of a command on several hosts what to do: 0 done; 2 a mistake that a person can
mend; `TRY_AGAIN` another host was lost, the same command goes on; 143 stopped as asked and saved. Any other is a
defect.
"""

import argparse
import contextlib
import dataclasses
import os
import pathlib
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lit_jax.base import guard, hosts, jax_internals, machine
from lit_jax.base.guard import TRY_AGAIN
from lit_jax.errors import STOPPED, Stopped, UserError, chained, first_line

EXIT_CODES = (
    f"Exit code: 0 done; 2 a mistake that can be mended; {TRY_AGAIN} another host was lost, give the same command "
    f"again; {STOPPED} stopped as asked and saved."
)

LOST = (
    "gloo",
    "nccl",
    "connection",
    "unavailable",
    "deadline_exceeded",
    "heartbeat",
    "coordination",
    "aborted",
    "peer",
)
"""Words of errors that come from hosts that are gone, or from the network between them."""


def add_hosts(parser: argparse.ArgumentParser) -> None:
    """Adds the options by which several hosts find each other."""
    add = parser.add_argument
    add("--distributed", action="store_true", help="several hosts, found by SLURM, Open MPI or Kubernetes")
    add("--coordinator", default="", help="HOST:PORT of the first host, where nothing finds the hosts")
    add("--processes", type=int, help="with --coordinator: how many hosts")
    add("--process", type=int, help="with --coordinator: the number of this one")
    add(
        "--local-devices",
        default="",
        metavar="all|0,1,...",
        help="GPUs of this process: all of the machine, or some by number (default: where SLURM or Open MPI start "
        "several processes a machine, the one of its number; else all)",
    )
    add("--wait-for-hosts", type=int, default=100, metavar="SECONDS", help="until all hosts must have come")
    add("--heartbeat", type=int, default=60, metavar="SECONDS", help="of silence after which a host counts as lost")
    add(
        "--stuck-after",
        type=int,
        default=100,
        metavar="SECONDS",
        help="of one training step after which a host ends itself and leaves its stacks in a file; 0: never",
    )


@contextlib.contextmanager
def joined(parsed: argparse.Namespace, folder: pathlib.Path) -> Iterator[None]:
    """Sets the cache of compiled programs and, where there are several hosts, joins them for the body.

    On several hosts a guard stands before this process, see `lit_jax.base.guard`. A host that fails tells the others,
    who end with the same exit code.

    Args:
        parsed: with the options of `add_hosts`.
        folder: for the logs of JAX's own libraries, a file a host.

    Raises:
        UserError: options that do not go together, no cluster, a coordinator that nobody knows.
    """
    hosts.keep_compiled()
    is_several = bool(parsed.coordinator or parsed.distributed)
    check(parsed, os.environ)
    if not is_several:
        yield
        return
    guard.stand(folder, _number(parsed, os.environ))
    _initialise(parsed)
    with _ends_together():
        _check_devices(os.environ)
        yield


def check(parsed: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Refuses options of several hosts that do not go together, or that fit nothing around.

    Raises:
        UserError: naming the option.
    """
    if parsed.coordinator:
        if parsed.processes is None or parsed.process is None:
            raise UserError("--coordinator: found no --processes or --process, expected both")
        if parsed.processes < 1:
            raise UserError(f"--processes: found {parsed.processes}, expected how many hosts there are")
        if not 0 <= parsed.process < parsed.processes:
            raise UserError(f"--process: found {parsed.process}, expected 0 to {parsed.processes - 1}")
        _check_address(parsed.coordinator)
    elif parsed.processes is not None or parsed.process is not None:
        raise UserError("--processes, --process: found without --coordinator, expected it as well")
    elif not parsed.distributed:
        refuse_many_tasks(environ, expected="expected --distributed, or one task (srun --ntasks=1)")
    elif (address := jax_internals.detected_coordinator(parsed.wait_for_hosts)) == jax_internals.UNKNOWN:
        pass
    elif address is None:
        raise UserError(
            "--distributed: found no job of SLURM, Open MPI or Kubernetes around, expected one; start the command by "
            "srun or mpirun, or give --coordinator, --processes and --process"
        )
    else:
        _check_address(address)


def refuse_many_tasks(
    environ: Mapping[str, str] = os.environ, *, expected: str = "expected one (srun --ntasks=1)"
) -> None:
    """Refuses to run as one of several tasks of a SLURM step, which would all do the same work into the same files.

    Args:
        environ: variables of the process.
        expected: what the command wants, for the message.

    Raises:
        UserError: there are several.
    """
    tasks = int(environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks > 1:
        raise UserError(f"srun: found {tasks} tasks, which would all do the same work; {expected}")


def _check_address(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--coordinator: found {address}, expected HOST:PORT such as node0:1234")
    if not 0 < int(port) < 1 << 16:
        raise UserError(f"--coordinator: found port {port}, expected 1 to 65535")
    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
    except OSError:
        raise UserError(
            f"--coordinator: found {host}, a name that this host cannot resolve; expected that of the first host, or "
            "its number such as 10.0.0.1"
        ) from None


def _number(parsed: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """The number of this host, as far as it is known before JAX has started."""
    if parsed.process is not None:
        return str(parsed.process)
    for name in ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "JOB_COMPLETION_INDEX"):
        if name in environ:
            return environ[name]
    return socket.gethostname()


def _initialise(parsed: argparse.Namespace) -> None:
    """Starts JAX with the other hosts; ends this process with one line where that fails."""
    import jax

    devices = local_devices(parsed.local_devices, os.environ)
    # JAX waits in C++, where Python hears no Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        jax.distributed.initialize(
            parsed.coordinator or None,
            parsed.processes,
            parsed.process,
            local_device_ids=devices,
            cluster_detection_method="deactivate" if parsed.coordinator else None,
            initialization_timeout=parsed.wait_for_hosts,
            heartbeat_timeout_seconds=parsed.heartbeat,
        )
    except Exception as error:
        if "Failed to start RPC server" in str(error):
            raise UserError(
                "--coordinator: found its port in use on this host, expected a free one; give another"
            ) from None
        if "DEADLINE_EXCEEDED" in str(error):
            guard.will_end(guard.missing(parsed.wait_for_hosts), TRY_AGAIN)
            guard.leave(TRY_AGAIN)
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def local_devices(choice: str, environ: Mapping[str, str]) -> Sequence[int] | None:
    """The numbers of the GPUs that this process takes; None leaves it to JAX.

    JAX gives each task of SLURM or Open MPI the one GPU of its number, and all GPUs to a process that was started
    otherwise.

    Args:
        choice: of ``--local-devices``.
        environ: variables of the process.

    Raises:
        UserError: neither ``all`` nor numbers.
    """
    if not choice:
        return None
    if choice == "all":
        return list(range(gpus_here(environ))) or None
    numbers = choice.split(",")
    if not all(number.isdigit() for number in numbers):
        raise UserError(f"--local-devices: found {choice}, expected all or numbers such as 0,1,2,3")
    return [int(number) for number in numbers]


def gpus_here(environ: Mapping[str, str]) -> int:
    """The GPUs that the job has on this machine: those that are visible, that SLURM gave, or that there are."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([one for one in visible.split(",") if one])
    given = given_gpus(environ)
    return len(machine.gpus()) if given is None else given


def _check_devices(environ: Mapping[str, str]) -> None:
    """Prints how many hosts and devices there are; refuses fewer devices than the job was given."""
    import jax

    device = jax.local_devices()[0]
    facts = {"machine": socket.gethostname(), "own": jax.local_device_count(), "given": given_gpus(environ) or 0}
    rows = [dict(zip(facts, row.split("\n"), strict=True)) for row in
            hosts.exchange("devices", "\n".join(str(value) for value in facts.values()))]  # fmt: skip
    refuse_idle(rows)
    if hosts.this_host().index == 0:
        print(described_hosts([int(row["own"]) for row in rows], device.platform.upper()), flush=True)


def given_gpus(environ: Mapping[str, str]) -> int | None:
    """GPUs that SLURM gave to the job on this machine; None where it says nothing of it."""
    count = environ.get("SLURM_GPUS_ON_NODE", "")
    return int(count) if count.isdigit() else None


def refuse_idle(rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuses to leave GPUs of the job idle.

    Args:
        rows: of each host its ``machine``, its ``own`` number of devices, and how many are ``given`` to the machine.

    Raises:
        UserError: the processes of a machine use fewer GPUs than it was given.
    """
    for name in dict.fromkeys(row["machine"] for row in rows):
        here = [row for row in rows if row["machine"] == name]
        used, given = sum(int(row["own"]) for row in here), max(int(row["given"]) for row in here)
        if used < given:
            raise UserError(
                f"{name}: found {len(here)} task{'s' * (len(here) > 1)} with {used} GPU{'s' * (used > 1)} of the "
                f"{given} that the job has there, expected all; start a task for each (srun --ntasks-per-node={given}) "
                "or give --local-devices=all"
            )


def described_hosts(counts: Sequence[int], kind: str) -> str:
    """How many hosts there are with how many devices each.

    Example:
        >>> described_hosts([8, 8], "GPU"), described_hosts([2, 1], "CPU")
        ('2 hosts x 8 GPU', '2 hosts x 2 + 1 CPU')
    """
    each = str(counts[0]) if len(set(counts)) == 1 else " + ".join(map(str, counts))
    return f"{len(counts)} hosts x {each} {kind}"


@contextlib.contextmanager
def _ends_together() -> Iterator[None]:
    """Ends this process with one line and an exit code where the body fails, and the other hosts with it."""
    listener = _Listener()
    try:
        listener.start()
        yield
        listener.close()
        _leave_in_time(0)
    except Stopped:
        listener.close()
        _leave_in_time(STOPPED)
        raise
    except SystemExit:
        listener.close()
        raise
    except BaseException as error:
        listener.close()
        ending, heard = _ending(error), hosts.told("ended")
        if ending.code == 1:
            traceback.print_exc(file=sys.stderr)
        if heard is not None and ending.code == TRY_AGAIN:
            ending = Ending(**_parsed(heard))  # the other one ended first, and knows why
        guard.will_end("" if ending.code == 1 else ending.line, ending.code)
        if heard is None and ending.code != TRY_AGAIN:
            _tell_all(ending)
        hosts.tell(f"heard/{hosts.this_host().index}", "yes")
        guard.leave(ending.code)


LEAVING = 10.0
"""Seconds that JAX's services have to say goodbye when all hosts are done; schedulers give 30."""

SHUTDOWN = 300.0
"""Seconds that a host waits for others that are not done, as long as JAX's own shutdown does."""


def _leave_in_time(code: int) -> None:
    """Waits until all hosts are done, and ends this process some seconds later, unless it has ended until then.

    At the end of a process JAX shuts its services down. A signal that came late has its preemption service wait for
    the other host at a barrier; that host may be further in its own shutdown, and each would wait minutes for the
    other. Once all are done nobody is lost by it.
    """
    try:
        hosts.exchange("the end", "here", seconds=SHUTDOWN)
    except Exception:  # a host that is lost: JAX's own shutdown sees to that
        return

    def leave() -> None:
        guard.will_end("", code)
        guard.leave(code)

    timer = threading.Timer(LEAVING, leave)
    timer.daemon = True
    timer.start()


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a command ends: its exit code and its last line."""

    code: int
    line: str


def _ending(error: BaseException) -> Ending:
    if isinstance(error, KeyboardInterrupt):
        return Ending(130, "interrupted")
    if isinstance(error, UserError):
        return Ending(2, f"error: {' '.join(str(error).split())}")
    if is_lost(error):
        return Ending(TRY_AGAIN, guard.lost(_reason(first_line(error))))
    return Ending(1, f"error: a defect: {type(error).__name__}: {first_line(error)[:160]}")


def _reason(message: str) -> str:
    """The last part of an error of JAX's network, without the line of C++ that it comes from."""
    return re.sub(r"\[[^]]*\.cc:\d+\] ", "", message.rpartition(": ")[2])[:160]


def is_lost(error: BaseException) -> bool:
    """Whether an error comes from a host that is gone, or from the network."""
    import jax

    return any(
        isinstance(one, jax.errors.JaxRuntimeError | TimeoutError | ConnectionError)
        and any(word in str(one).lower() for word in LOST)
        for one in chained(error)
    )


def _tell_all(ending: Ending) -> None:
    """Tells the other hosts that this one ends, and waits a moment until they have heard it.

    The end of the first host takes with it what hosts tell each other.
    """
    host = hosts.this_host()
    hosts.tell("ended", f"{ending.code}\n{host.index}\n{ending.line}")
    until = time.monotonic() + 5
    others = [index for index in range(host.count) if index != host.index]
    while time.monotonic() < until and any(hosts.told(f"heard/{index}") is None for index in others):
        time.sleep(0.1)


def _parsed(told: str) -> dict[str, Any]:
    code, index, line = told.split("\n", 2)
    return {"code": int(code), "line": line.replace("error: ", f"error: host {index}: ", 1)}


class _Listener(threading.Thread):
    """Ends this process when another host has told that it ends: the main thread may wait for it in a collective."""

    def __init__(self) -> None:
        super().__init__(daemon=True, name="listener")
        self._closed = threading.Event()

    def close(self) -> None:
        self._closed.set()

    def run(self) -> None:
        while not self._closed.wait(1.0):
            heard = hosts.told("ended")
            if heard is not None and not self._closed.wait(1.0):  # the main thread may have a word of its own
                ending = Ending(**_parsed(heard))
                guard.will_end(ending.line, ending.code)
                hosts.tell(f"heard/{hosts.this_host().index}", "yes")
                guard.leave(ending.code)

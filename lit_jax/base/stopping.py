"""How a command is asked to stop, alone and on several hosts: SIGTERM, SIGUSR1 and Ctrl-C mean the same."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lit_jax.base import hosts

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""SIGUSR1 is what SLURM's ``--signal`` is often set to; Ctrl-C sends SIGINT."""

TWICE = (
    2.0  # seconds within which Ctrl-C counts once: a terminal sends it to a process and to its guard, who hands it on
)


class Stopping:
    """Whether somebody has asked to stop.

    Several hosts must leave at the same step, though only one of them may have got the signal. JAX's preemption service
    sees to that: the host with the signal tells the others, and all stop at the first step that none has begun.
    """

    def __init__(self, where: str) -> None:
        """`where` the work stops, for the person who has pressed Ctrl-C."""
        self._where = where
        self._told: list[int] = []
        self._calls = 0
        self._reached = False
        self._last_interrupt = -TWICE

    def at_step(self) -> bool:
        """Whether to stop here, which every host asks equally often: after each step, each batch of an evaluation."""
        if hosts.this_host().count == 1:
            return bool(self._told)
        from jax.experimental import multihost_utils

        self._calls += 1
        self._reached = self._reached or multihost_utils.reached_preemption_sync_point(self._calls)
        return self._reached

    def anywhere(self) -> bool:
        """Whether any host was asked to stop, for work that hosts do each at its own pace."""
        if self._told and hosts.this_host().count > 1:
            hosts.tell("stop", "asked")
        return bool(self._told) or hosts.told("stop") is not None

    def hear(self, number: int) -> None:
        """Takes a signal; a second Ctrl-C ends the command at once."""
        now = time.monotonic()
        if number == signal.SIGINT:
            is_same = now - self._last_interrupt < TWICE
            self._last_interrupt = now
            if signal.SIGINT in self._told and not is_same:
                raise KeyboardInterrupt
            if not is_same:
                print(f"stopping {self._where}; press Ctrl-C again to end at once", file=sys.stderr, flush=True)
        self._told.append(number)


@contextlib.contextmanager
def listening(where: str, *, steps: bool = True) -> Iterator[Stopping]:
    """Collects signals instead of ending the process; they arrive in the main thread only.

    Args:
        where: the work stops, such as "after this step".
        steps: whether `Stopping.at_step` is what will be asked. On several hosts SIGTERM then belongs to JAX's
            preemption service, which has caught it since JAX was started, and other signals are handed to it.
    """
    stopping = Stopping(where)
    jax_hears = steps and hosts.this_host().count > 1

    def hear(number: int, _: object) -> None:
        stopping.hear(number)
        if jax_hears:
            os.kill(os.getpid(), signal.SIGTERM)

    with handled(hear, [one for one in SIGNALS if not (jax_hears and one == signal.SIGTERM)]):
        yield stopping


@contextlib.contextmanager
def handled(handler: Callable[[int, Any], Any], signals: Sequence[signal.Signals] = SIGNALS) -> Iterator[None]:
    """Sends signals to a handler for the body; in a thread none can be caught."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = {one: signal.signal(one, handler) for one in signals} if in_main_thread else {}
    try:
        yield
    finally:
        for one, earlier in before.items():
            signal.signal(one, earlier if earlier is not None else signal.SIG_DFL)

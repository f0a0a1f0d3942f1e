"""Hosts: how a command starts JAX on one or several, and how they speak with each other, wait and compare.

What hosts tell each other goes through the key-value store of JAX's coordination service. It needs no device, waits as
long as it is asked to, and names who is missing; collectives are for arrays only.
"""

import collections
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from lit_jax.base import jax_internals
from lit_jax.errors import UserError

Result = TypeVar("Result")

DAY = 86_400.0
"""Seconds that hosts wait for work of another one, such as making records: a dead host is noticed by its heartbeat."""

PREFIX = "lit_jax/"  # of all keys


@dataclasses.dataclass(frozen=True)
class Host:
    """One of the hosts that share the work: a process of JAX, which is a machine or one GPU of it.

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
    path = pathlib.Path(folder)
    on_first_host(lambda: None if path.exists() else make(), what)
    until_seen(path)


def asked_of_first_host(ask: Callable[[], bool], what: str) -> bool:
    """The first host's answer, on all hosts.

    Whether a file is there is a question for one host: a network disk may show it to some hosts before it shows it to
    others, which would then take another way through the program.

    Args:
        ask: answers, on the first host.
        what: is asked, in the same words on every host.

    Raises:
        UserError: on other hosts, if the first one could not answer.
    """
    return exchange(what, str(on_first_host(ask, what)))[0] == "True"


def until_seen(path: pathlib.Path, *, seconds: float = 60.0) -> bool:
    """Waits until this host sees a file that another one has written; a network disk takes a while to show it.

    Returns:
        Whether it does, within `seconds`.
    """
    return bool(seen_in_time(path.parent, path.exists, seconds=seconds))


def seen_in_time(folder: pathlib.Path, look: Callable[[], Result], *, seconds: float = 60.0) -> Result:
    """What `look` finds in a folder, as soon as it finds something that is true, or after `seconds`."""
    until = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < until:
        time.sleep(0.2)
        with contextlib.suppress(OSError):
            os.listdir(folder)  # asks the server again
    return found


def on_first_host(work: Callable[[], Result], what: str) -> Result | None:
    """Does work on the first host while the others wait for it, however long it takes.

    Where it fails, the first host raises its error and the others tell of it, so that none waits for ever.

    Args:
        work: to be done.
        what: comes of it, for the message.

    Returns:
        What the work gives, on the first host; None on the others.

    Raises:
        UserError: on other hosts, if the work failed on the first.
    """
    is_first = this_host().index == 0
    failure, result = None, None
    if is_first:
        try:
            result = work()
        except BaseException as error:
            failure = error
    said = exchange(what, "" if failure is None else _said(failure))[0]
    if failure is not None:
        raise failure
    if said:
        raise UserError(f"{what}: host 0 found an error: {said}")
    return result


def _said(failure: BaseException) -> str:
    return str(failure) if isinstance(failure, UserError) else f"found {type(failure).__name__}: {failure}".strip(": ")


def wait_for_all_hosts(what: str) -> None:
    """Returns when every host is here, however long the slowest takes."""
    exchange(what, "here")


def exchange(what: str, value: str, *, seconds: float = DAY) -> list[str]:
    """Each host's text, by number; all hosts call it.

    Args:
        what: it is about, in the same words on every host. It is the key: a host that asks once too often waits, and
            does not take what is said of something else for its answer.
        value: of this host.
        seconds: to wait for the others.

    Raises:
        UserError: if another host does not come in time.
    """
    host = this_host()
    if host.count == 1:
        return [value]
    place = f"{PREFIX}{what}/{next(_EXCHANGES[what])}/"
    client = jax_internals.coordination_client()
    client.key_value_set(f"{place}{host.index}", "=" + value)  # an empty value is none
    until, found = time.monotonic() + seconds, []
    for index in range(host.count):
        while (value_there := _waited_for(client, f"{place}{index}")) is None:
            if time.monotonic() > until:
                raise UserError(
                    f"{what}: found nothing of host {index} in {seconds:.0f} s, expected it to come this far; see what "
                    "it says"
                )
        found.append(value_there[1:])
    return found


def _waited_for(client: Any, key: str) -> str | None:
    """The value of a key, or None if there is none within a second: signals arrive between two such waits."""
    try:
        return str(client.blocking_key_value_get(key, 1000))
    except Exception as error:
        if "DEADLINE_EXCEEDED" in str(error):
            return None
        raise


_EXCHANGES: dict[str, Iterator[int]] = collections.defaultdict(itertools.count)
"""How often each was exchanged: hosts run the same program, so that they count alike."""


def tell(key: str, value: str) -> None:
    """Tells all hosts, without waiting; the first to tell something under a key has told it."""
    with contextlib.suppress(Exception):  # of two that tell at once, one is heard
        jax_internals.coordination_client().key_value_set(f"{PREFIX}{key}", value)


def told(key: str) -> str | None:
    """What a host has told under a key, if one has."""
    if this_host().count == 1:
        return None
    try:
        return str(jax_internals.coordination_client().key_value_try_get(f"{PREFIX}{key}"))
    except Exception:  # there is nothing, or nobody any more to ask
        return None


def from_all_hosts(rows: np.ndarray) -> np.ndarray:
    """Each host's small array, stacked: `[hosts, ...]`."""
    import jax

    if jax.process_count() == 1:
        return rows[None]
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(rows))


def ensure_same(facts: Mapping[str, Any]) -> None:
    """Stops if hosts disagree about something that must be equal: options, data, weights, versions.

    Args:
        facts: what this host has, JSON-ready, by the name that a message gives it.

    Raises:
        UserError: the first thing that differs, with what each host has.
    """
    found = [json.loads(text) for text in exchange("start", json.dumps(facts))]
    for name in dict.fromkeys(name for one in found for name in one):
        values = [one.get(name) for one in found]
        if any(value != values[0] for value in values):
            other = next(index for index, value in enumerate(values) if value != values[0])
            raise UserError(
                f"{name}: found {_short(values[0])} on host 0 and {_short(values[other])} on host {other}, expected "
                "the same on every host; start the same command with the same files on each"
            )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def ensure_shared(folder: pathlib.Path, *, option: str, seconds: float = 20.0) -> None:
    """Stops if a folder is not the same one on every host: the first host writes a file that the others must see.

    The name of the file is new at each start, since network file systems remember for a while what was not there.

    Args:
        folder: made if missing.
        option: that names the folder, for the message.
        seconds: that a network file system may take to show a new file.

    Raises:
        UserError: naming the host that does not see it.
    """
    host = this_host()
    if host.count == 1:
        return
    mark = pathlib.Path(exchange(option, f".shared-{os.getpid()}-{time.time_ns()}")[0])
    path = folder / mark
    folder.mkdir(parents=True, exist_ok=True)
    if host.index == 0:
        path.touch()
    is_seen = until_seen(path, seconds=seconds)
    # Longer than a host that waits for the file itself.
    seen = exchange(option, "" if is_seen else str(folder.absolute()), seconds=seconds + 20)
    path.unlink(missing_ok=True)
    for index, where in enumerate(seen):
        if where:
            raise UserError(
                f"{option} {where}: found on host {index} without the file that host 0 has just written there, "
                "expected one folder for all hosts; use a shared disk"
            )

"""What hosts do together: where one fails, none waits for ever."""

import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from lit_jax.base import hosts
from lit_jax.errors import UserError


@pytest.fixture
def on_two_hosts(monkeypatch):
    """Runs a function on two threads that take each other for hosts; a wait of more than ten seconds is a failure."""
    number, barrier, told = threading.local(), threading.Barrier(2, timeout=10), [None, None]

    def from_all(rows):
        told[number.host] = rows
        barrier.wait()
        found = np.stack(told)
        barrier.wait()
        return found

    monkeypatch.setattr(jax, "process_index", lambda: number.host)
    monkeypatch.setattr(hosts, "from_all_hosts", from_all)

    def run(work):
        def one(host):
            number.host = host
            try:
                return work(host)
            except Exception as error:
                return error

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(one, range(2)))

    return run


def test_the_first_host_works_while_the_others_wait(on_two_hosts):
    done = []
    assert on_two_hosts(lambda host: hosts.on_first_host(lambda: done.append(host) or "made", "records")) == [
        "made",
        None,
    ]
    assert done == [0]


def test_an_error_on_the_first_host_ends_the_others_too(on_two_hosts, tmp_path):
    def refused():
        raise UserError("images: found none, expected photos; check the path")

    def fails():
        raise ZeroDivisionError

    for work, kind in ((refused, UserError), (fails, ZeroDivisionError)):
        first, second = on_two_hosts(lambda _, work=work: hosts.make_on_first_host(work, tmp_path / "none", "records"))
        assert type(first) is kind
        assert str(second) == "records: found an error on the first host, expected none; see what it says"


def test_a_folder_that_is_there_is_not_made(on_two_hosts, tmp_path):
    assert on_two_hosts(lambda _: hosts.make_on_first_host(lambda: 1 / 0, tmp_path, "records")) == [None, None]

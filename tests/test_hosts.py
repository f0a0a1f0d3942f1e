"""What hosts do together: where one fails, none waits for ever."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lit_jax.base import hosts
from lit_jax.errors import UserError


@pytest.fixture
def on_two_hosts(monkeypatch):
    """Runs a function on two threads that take each other for hosts; a wait of more than ten seconds is a failure."""
    number, barrier, told = threading.local(), threading.Barrier(2, timeout=10), [None, None]

    def exchange(_, value, **__):
        told[number.host] = value
        barrier.wait()
        found = list(told)
        barrier.wait()
        return found

    monkeypatch.setattr(hosts, "this_host", lambda: hosts.Host(number.host, 2))
    monkeypatch.setattr(hosts, "exchange", exchange)

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
    refusal = "images: found none, expected photos; check the path"

    def refused():
        raise UserError(refusal)

    def fails():
        raise ZeroDivisionError("by zero")

    for work, kind, said in (
        (refused, UserError, refusal),
        (fails, ZeroDivisionError, "found ZeroDivisionError: by zero"),
    ):
        first, second = on_two_hosts(lambda _, work=work: hosts.make_on_first_host(work, tmp_path / "none", "records"))
        assert type(first) is kind
        assert isinstance(second, UserError) and str(second) == f"records: host 0 found an error: {said}"


def test_a_folder_that_is_there_is_not_made(on_two_hosts, tmp_path):
    assert on_two_hosts(lambda _: hosts.make_on_first_host(lambda: 1 / 0, tmp_path, "records")) == [None, None]


def test_what_differs_between_hosts_is_named(on_two_hosts):
    facts = [{"seed": "3", "train.batch_size": "16"}, {"seed": "3", "train.batch_size": "8"}]
    for error in on_two_hosts(lambda host: hosts.ensure_same(facts[host])):
        assert isinstance(error, UserError) and str(error).startswith(
            "train.batch_size: found 16 on host 0 and 8 on host 1, expected the same on every host;"
        )
    assert on_two_hosts(lambda _: hosts.ensure_same(facts[0])) == [None, None]
    (first, _) = on_two_hosts(lambda host: hosts.ensure_same({"a": 1} if host else {"a": 1, "b": 2}))
    assert str(first).startswith("b: found 2 on host 0 and None on host 1")


def test_a_folder_that_hosts_do_not_share_is_refused(on_two_hosts, tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for error in on_two_hosts(lambda host: hosts.ensure_shared(folders[host], option="--workdir", seconds=0.5)):
        assert isinstance(error, UserError) and str(error).startswith(
            f"--workdir {folders[1]}: found on host 1 without the file that host 0 has just written there"
        )
    assert on_two_hosts(lambda _: hosts.ensure_shared(folders[0], option="--workdir")) == [None, None]
    assert [list(folder.iterdir()) for folder in folders] == [[], []]

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


def test_a_host_that_asks_once_too_often_waits_and_takes_no_other_answer(monkeypatch):
    """Two hosts as two processes of JAX's coordination service, of which one asks for something more."""
    import socket

    from tests import forked

    code = """
import sys, jax
from lit_jax.base import hosts
from lit_jax.errors import UserError
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]), heartbeat_timeout_seconds=30)
if sys.argv[2] == "1":
    try:
        hosts.exchange("a question more", "lost", seconds=1)
    except UserError as error:
        print(error)
for value in ("first", "second"):
    print(hosts.exchange("the next", value + sys.argv[2]), hosts.asked_of_first_host(lambda: sys.argv[2] == "0", "who"))
"""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    both = [forked.start_code(code, [address, str(number)]) for number in range(2)]
    assert [one.wait(60) for one in both] == [0, 0], [one.stderr for one in both]
    answers = "['first0', 'first1'] True\n['second0', 'second1'] True\n"
    missing = "a question more: found nothing of host 0 in 1 s, expected it to come this far; see what it says\n"
    assert [one.stdout for one in both] == [answers, missing + answers]


def test_the_first_host_alone_is_asked_whether_a_file_is_there(on_two_hosts, tmp_path):
    (tmp_path / "0").touch()  # as a disk that shows a new file to one host before the other
    both = on_two_hosts(lambda host: hosts.asked_of_first_host((tmp_path / str(host)).exists, "a file"))
    assert both == [True, True]
    asked = []
    on_two_hosts(
        lambda host: hosts.make_on_first_host(
            lambda: (asked.append(host), (tmp_path / "made").mkdir()), tmp_path / "made", "a folder"
        )
    )
    assert asked == [0]
    assert hosts.until_seen(tmp_path / "made") and not hosts.until_seen(tmp_path / "never", seconds=0.3)

"""Two hosts as two processes: they start together or say why not, end together, and go on with the numbers of one."""

import importlib
import json
import os
import signal
import socket
import time

import pytest

from lit_jax import check_cluster, config
from lit_jax.base import cluster, guard, machine
from lit_jax.embed import Making, embed
from lit_jax.embed import main as embed_main
from lit_jax.errors import UserError
from lit_jax.main import main, train
from lit_jax.training import loop, metrics_log
from tests import forked
from tests.conftest import QUICK

RUN = """
import os, signal, sys, time
from lit_jax import main
from lit_jax.base import hosts
from lit_jax.training import loop, metrics_log

does, at = sys.argv[1], int(sys.argv[2])
metrics_log.curves = lambda *_, **__: None
if does == "waits little":
    hosts.ensure_shared.__kwdefaults__["seconds"] = 3
steps = loop._steps

def slow(*given):
    for number, step in enumerate(steps(*given), start=1):
        if number == at:
            {"ends": lambda: None, "told": lambda: os.kill(os.getpid(), signal.SIGTERM),
             "dies": lambda: os.kill(os.getpid(), signal.SIGKILL),
             "loses its guard": lambda: os.kill(os.getppid(), signal.SIGKILL),
             "fails": lambda: 1 / 0,
             "is stuck": lambda: time.sleep(600)}[does]()
        if number >= at:
            time.sleep(0.5)
        yield step

if at:
    loop._steps = slow
main.main(sys.argv[3:])
"""
"""The training command; from step `at` on it is slow, and in that step something happens to it."""

LATE = """
import atexit, os, signal, sys, time
from lit_jax import main
from lit_jax.base import cluster

does, steps = sys.argv[1], sys.argv[2]
cluster.LEAVING = 2.0
if does == "told":
    import jax  # what is registered after it ends before its services do

    @atexit.register
    def told():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(2)  # its preemption service now waits for the other host, which is in its shutdown

main.main(sys.argv[3:])
"""
"""The training command; when all is done and the other host is about to leave, something happens to this one."""

EMBED = """
import os, signal, sys
from lit_jax import embed
from lit_jax.data import embedding_store

if sys.argv[1] == "told":
    write = embedding_store.write_shard
    def told(*args, **kwargs):
        write(*args, **kwargs)
        os.kill(os.getppid(), signal.SIGUSR1)  # its guard, who hands it on
    embedding_store.write_shard = told
embed.main(sys.argv[2:])
"""


def on_two_hosts(code, given, arguments, *, more=((), ()), devices=1, seconds=240):
    """Runs code on two hosts; exit codes, outputs and errors of both.

    Args:
        code: to run.
        given: what each host's code reads first, by host.
        arguments: of the command.
        more: arguments of each host alone.
        devices: of each host.
        seconds: after which a host that has not ended is a failure.
    """
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    env = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {QUICK}"}
    hosts = [
        forked.start_code(
            code, [*given[number], *arguments, *more[number], f"--coordinator=localhost:{port}", "--processes=2",
                   f"--process={number}"], env=env,
        )
        for number in range(2)
    ]  # fmt: skip
    until = time.monotonic() + seconds
    codes = [host.wait(max(until - time.monotonic(), 0.1)) for host in hosts]
    return codes, [host.stdout for host in hosts], [host.stderr for host in hosts]


def losses(workdir):
    return [record["loss"] for record in metrics_log.read_metrics(workdir / "metrics.jsonl") if "loss" in record]


@pytest.fixture(scope="module")
def store(tiny_config, tmp_path_factory):
    """The tiny records embedded by one process."""
    made = config.load(tiny_config)[0]
    return embed(made, tmp_path_factory.mktemp("embedded") / "store", Making("float32", batch_size=32, shard_rows=20))


@pytest.fixture(scope="module")
def from_store(tiny_config, store):
    """Arguments of a run of ten steps from that store."""
    return [f"--config={tiny_config}", "--config.input=store", f"--config.data.store={store.directory}"]


@pytest.fixture(scope="module")
def unbroken(from_store, tmp_path_factory):
    """That run, unbroken, on one host of one device: its folder and its results."""
    workdir = tmp_path_factory.mktemp("unbroken") / "run"
    settings = {one.split("=")[0].removeprefix("--config."): one.split("=")[1] for one in from_store[1:]}
    return workdir, train(config.load(from_store[0].split("=")[1], {**settings, "train.devices": "1"})[0], workdir)


def test_a_run_is_stopped_lost_and_resumed_on_two_hosts_and_one(from_store, unbroken, tmp_path, capsys, monkeypatch):
    """2 hosts until SIGTERM to one, 1 host until Ctrl-C, 2 hosts until kill -9 of one, 2 hosts to the end."""
    arguments = [*from_store, f"--workdir={tmp_path / 'run'}", "--config.train.devices=0"]
    codes, outputs, errors = on_two_hosts(
        RUN, (["ends", 2], ["told", 2]), [*arguments, "--config.log.every_steps=1000"]
    )
    assert codes == [143, 143] and "2 hosts x 1 CPU" in outputs[0] and not outputs[1]
    assert errors[0] == errors[1] and errors[0].startswith("stopped as asked after step ")
    first = int(errors[0].split("after step ")[1].split(";")[0])
    assert 2 <= first < 8 and not losses(tmp_path / "run")

    steps = loop._steps

    def pressed(*given):
        for step in steps(*given):
            signal.raise_signal(signal.SIGINT)
            yield step

    with monkeypatch.context() as patched, pytest.raises(SystemExit) as stopped:
        patched.setattr(loop, "_steps", pressed)
        main(arguments)
    said = capsys.readouterr()
    assert stopped.value.code == 143 and f"resuming after step {first}" in said.out
    assert said.err == (
        "stopping after this step; press Ctrl-C again to end at once\n"
        f"stopped as asked after step {first + 1}; run the same command to go on from there\n"
    )

    codes, _, errors = on_two_hosts(RUN, (["ends", 1], ["dies", 1]), arguments)
    assert codes == [guard.TRY_AGAIN] * 2
    assert errors[0].startswith("lost another host (") and errors[1].startswith("host 1: killed, by hand or for want")
    assert all(error.count("\n") == 1 for error in errors)

    codes, *_ = on_two_hosts(RUN, (["ends", 0],) * 2, arguments)
    assert codes == [0, 0]
    whole, results = unbroken
    assert losses(tmp_path / "run") == pytest.approx(losses(whole)[first:], rel=1e-5)
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert found.pop("loss") == pytest.approx(results["loss"], rel=1e-5)
    assert found == {name: value for name, value in results.items() if name != "loss"}


def test_two_hosts_train_from_records_as_one(tiny_config, finished, tmp_path):
    """Random crops, captions each once, and the photos of each evaluation, over four devices."""
    arguments = [f"--config={tiny_config}", f"--workdir={tmp_path / 'run'}", "--config.train.devices=0"]
    short = ["--config.train.epochs=1", "--config.optimizer.horizon_epochs=3"]
    codes, outputs, errors = on_two_hosts(RUN, (["ends", 0],) * 2, [*arguments, *short], devices=2)
    assert codes == [0, 0], errors
    assert "2 hosts x 2 CPU" in outputs[0] and "on 4 devices" in outputs[0]
    assert losses(tmp_path / "run") == pytest.approx(losses(finished[0])[:4], rel=1e-5)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["seen"]["images"], results["heldout"]["images"]) == (24, 28)  # each photo once, over both hosts


def test_a_host_whose_guard_is_killed_ends_and_so_does_the_other(from_store, tmp_path):
    codes, _, errors = on_two_hosts(
        RUN, (["loses its guard", 1], ["ends", 1]), [*from_store, f"--workdir={tmp_path}", "--config.train.devices=0"]
    )
    assert codes == [-signal.SIGKILL, guard.TRY_AGAIN] and errors[1].startswith("lost another host (")


def test_a_defect_on_one_host_ends_both_with_its_traceback_there(from_store, tmp_path):
    codes, _, errors = on_two_hosts(
        RUN, (["ends", 1], ["fails", 1]), [*from_store, f"--workdir={tmp_path}", "--config.train.devices=0"]
    )
    assert codes == [1, 1] and "Traceback" in errors[1] and "ZeroDivisionError" in errors[1]
    assert errors[0] == "error: host 1: a defect: ZeroDivisionError: division by zero\n"


def test_a_host_that_is_alive_and_stuck_ends_with_its_stacks_in_a_file(from_store, tmp_path):
    arguments = [*from_store, f"--workdir={tmp_path}", "--config.train.devices=0", "--stuck-after=8"]
    codes, _, errors = on_two_hosts(RUN, (["ends", 6], ["is stuck", 6]), arguments)
    assert codes == [guard.TRY_AGAIN] * 2
    stacks = tmp_path / "hosts" / "host-1.stacks"
    assert f"host 1: waited too long in a step, as where another host is stuck; stacks in {stacks}" in errors[1]
    assert "Timeout (0:00:08)!" in stacks.read_text() and "in slow" in stacks.read_text()


def test_hosts_that_do_not_share_a_folder_are_told(from_store, tmp_path):
    """After three seconds for a disk to show a new file, which are 20 otherwise."""
    folders = [tmp_path / "a", tmp_path / "b"]
    codes, _, errors = on_two_hosts(
        RUN, (["waits little", 0],) * 2, from_store, more=[[f"--workdir={folder}"] for folder in folders]
    )
    assert codes == [2, 2]
    for error in errors:
        assert error.startswith(f"error: --workdir {folders[1]}: found on host 1 without the file that host 0")
        assert error.count("\n") == 1


def test_hosts_that_differ_are_told_in_what(from_store, tmp_path):
    codes, _, errors = on_two_hosts(
        RUN, (["ends", 0],) * 2, [*from_store, f"--workdir={tmp_path}"],
        more=([], ["--config.optimizer.lr=0.02"]),
    )  # fmt: skip
    assert codes == [2, 2]
    for error in errors:
        assert error.startswith("error: optimizer.lr: found 0.01 on host 0 and 0.02 on host 1, expected the same")


def test_a_signal_when_all_is_done_keeps_no_host_waiting(from_store, tmp_path):
    """Each host would wait three minutes for the other: one in its preemption service, one in the shutdown."""
    arguments = [*from_store, f"--workdir={tmp_path / 'run'}", "--config.train.devices=0"]
    codes, outputs, errors = on_two_hosts(LATE, (["ends", 0], ["told", 0]), arguments, seconds=90)
    assert codes == [0, 0] and "results: " in outputs[0] and errors == ["", ""]


def test_what_is_missing_on_one_host_ends_both_with_one_line(from_store, tmp_path):
    nowhere = f"--config.data.store={tmp_path / 'nowhere'}"
    codes, _, errors = on_two_hosts(
        RUN, (["ends", 0],) * 2, [*from_store, f"--workdir={tmp_path / 'run'}"], more=([], [nowhere])
    )
    assert codes == [2, 2]
    assert errors[1].startswith(f"error: {tmp_path / 'nowhere'}: found no such folder, expected")
    assert errors[0] == errors[1].replace("error: ", "error: host 1: ", 1)


def test_a_host_that_does_not_come_is_told_in_one_line(from_store, tmp_path):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    arguments = [f"--coordinator=localhost:{port}", "--processes=2", "--wait-for-hosts=3", f"--workdir={tmp_path}"]
    first = forked.start_code(RUN, ["ends", 0, *from_store, *arguments, "--process=0"])
    assert first.wait(60) == guard.TRY_AGAIN
    assert first.stderr.startswith("not all hosts came in the time of --wait-for-hosts; start the same command")
    assert first.stderr.count("\n") == 1


def test_ctrl_c_ends_a_host_that_waits_for_the_others(from_store, tmp_path):
    arguments = ["--coordinator=localhost:1", "--processes=2", "--wait-for-hosts=60", f"--workdir={tmp_path}"]
    second = forked.start_code(RUN, ["ends", 0, *from_store, *arguments, "--process=1"])
    time.sleep(4)
    second.send_signal(signal.SIGINT)
    assert second.wait(20) == 128 + signal.SIGINT
    assert second.stderr.startswith("host 1: ended by SIGINT before it could save; give the same command again")


def test_a_store_is_embedded_by_two_hosts_with_a_stop_between(tiny_config, store, tmp_path):
    out = tmp_path / "store"
    arguments = [f"--config={tiny_config}", f"--out={out}", "--dtype=float32", "--batch-size=32", "--shard-rows=20"]
    # As many devices as the store's process had: on some processors the size of a device's batch decides the last bit.
    codes, _, errors = on_two_hosts(EMBED, (["ends"], ["told"]), arguments, devices=8)
    assert codes == [143, 143] and not out.exists()
    assert all("of 7 shards are left; run the same command to go on" in error for error in errors)
    codes, outputs, _ = on_two_hosts(EMBED, (["ends"],) * 2, arguments, devices=8)
    assert codes == [0, 0] and "train from it with" in outputs[0]
    made = {path.name: path.read_bytes() for path in out.iterdir()}
    assert made == {path.name: path.read_bytes() for path in store.directory.iterdir()}


def test_parts_that_know_nothing_of_each_other_make_one_store(tiny_config, store, tmp_path, capsys):
    """Of three parts one is lost and given again last, which finishes the store."""
    out = tmp_path / "store"
    arguments = [f"--config={tiny_config}", f"--out={out}", "--dtype=float32", "--batch-size=32", "--shard-rows=20"]
    for part in ("0/3", "2/3"):
        embed_main([*arguments, f"--part={part}"])
        assert f"part {part} is embedded; the last part to end finishes {out}" in capsys.readouterr().out
        assert not out.exists()
    embed_main([*arguments, "--part=1/3"])
    assert "train from it with" in capsys.readouterr().out
    made = {path.name: path.read_bytes() for path in out.iterdir()}
    assert made == {path.name: path.read_bytes() for path in store.directory.iterdir()}
    embed_main([*arguments, "--part=0/3"])  # given again, it is up to date
    assert "is up to date" in capsys.readouterr().out
    for given, said in (
        (["--part=3/3"], "--part: found 3/3, expected I/N with I from 0 to N - 1"),
        (["--part=0/3", "--restart"], "--part: found it beside --restart, expected one of them"),
    ):
        with pytest.raises(SystemExit):
            embed_main([*arguments, *given])
        assert said in capsys.readouterr().err


def test_a_part_that_cannot_finish_the_store_says_why_at_once(tiny_config, tmp_path, capsys, monkeypatch):
    """Not that another part is at work, after a minute of waiting for it."""
    from lit_jax.data import embedding_store

    def refuses(*_):
        raise UserError("classes.csv: found another content, expected that of the records")

    monkeypatch.setattr(embedding_store, "finish", refuses)
    with pytest.raises(SystemExit):
        embed_main([f"--config={tiny_config}", f"--out={tmp_path / 'store'}", "--dtype=float32", "--part=0/1"])
    assert capsys.readouterr().err == "error: classes.csv: found another content, expected that of the records\n"


def test_options_that_do_not_go_together_are_refused():
    def refused(given, environ=None):
        parser = cluster.argparse.ArgumentParser()
        cluster.add_hosts(parser)
        with pytest.raises(UserError) as caught:
            cluster.check(parser.parse_args(given), environ or {})
        return str(caught.value)

    assert refused(["--coordinator=localhost:1"]).startswith("--coordinator: found no --processes or --process")
    assert refused(["--processes=2"]).startswith("--processes, --process: found without --coordinator")
    assert refused(["--coordinator=localhost:1", "--processes=2", "--process=2"]) == (
        "--process: found 2, expected 0 to 1"
    )
    assert refused(["--coordinator=localhost", "--processes=2", "--process=0"]).startswith(
        "--coordinator: found localhost, expected HOST:PORT"
    )
    assert refused(["--coordinator=nobody.invalid:1", "--processes=2", "--process=0"]).startswith(
        "--coordinator: found nobody.invalid, a name that this host cannot resolve"
    )
    assert refused(["--coordinator=localhost:99999", "--processes=2", "--process=0"]) == (
        "--coordinator: found port 99999, expected 1 to 65535"
    )
    assert refused(["--coordinator=localhost:1", "--processes=0", "--process=0"]).startswith("--processes: found 0, ")
    assert refused(["--distributed"]).startswith("--distributed: found no job of SLURM, Open MPI or Kubernetes around")
    assert refused([], {"SLURM_STEP_NUM_TASKS": "2"}) == (
        "srun: found 2 tasks, which would all do the same work; expected --distributed, or one task (srun --ntasks=1)"
    )


@pytest.mark.parametrize("module", ["lit_jax.evaluate", "lit_jax.probe", "lit_jax.export", "data_prep.convert"])
def test_a_command_of_one_host_refuses_to_be_several_tasks(module, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    where = {"lit_jax.probe": ["--store=x"], "data_prep.convert": [f"--out={tmp_path}"], "lit_jax.export": ["--out=x"]}
    given = ["--checkpoint=x"] if module in ("lit_jax.evaluate", "lit_jax.export") else []
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(module).main([*where.get(module, []), *given])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: srun: found 2 tasks, which would all do the same work; expected")


def test_gpus_of_a_process():
    assert cluster.local_devices("", {}) is None
    assert cluster.local_devices("all", {"CUDA_VISIBLE_DEVICES": "4,5,6"}) == [0, 1, 2]
    assert cluster.local_devices("all", {"SLURM_GPUS_ON_NODE": "8"}) == list(range(8))
    assert cluster.local_devices("0,3", {}) == [0, 3]
    with pytest.raises(UserError, match="--local-devices: found some, expected all or numbers"):
        cluster.local_devices("some", {})


def test_gpus_of_the_job_that_would_be_idle_are_refused():
    def rows(*each):
        return [{"machine": machine, "own": own, "given": given} for machine, own, given in each]

    cluster.refuse_idle(rows(("n1", 1, 0), ("n2", 1, 0)))  # nothing is known
    cluster.refuse_idle(rows(*(("n1", 1, 2),) * 2, ("n2", 2, 2)))
    with pytest.raises(UserError, match="n2: found 1 task with 1 GPU of the 8 that the job has there, expected all; "):
        cluster.refuse_idle(rows(*(("n1", 1, 8),) * 8, ("n2", 1, 8)))


V100, H100 = machine.Gpu("Tesla V100", (7, 0), 32768), machine.Gpu("H100", (9, 0), 81559)
CUDA12 = {"jax-cuda12-plugin": "0.10.2", "nvidia-cudnn-cu12": "9.11.1.4"}


@pytest.mark.parametrize(
    ("cards", "versions", "devices", "given", "said"),
    [
        ([], {}, 0, 0, ""),
        ([V100] * 8, CUDA12, 8, 8, ""),
        ([H100] * 8, {"jax-cuda13-plugin": "0.10.2"}, 8, 8, ""),
        ([H100], CUDA12 | {"nvidia-cudnn-cu12": "9.28.0"}, 1, 1, ""),
        (
            [V100],
            CUDA12 | {"nvidia-cudnn-cu12": "9.28.0"},
            1,
            1,
            "cuDNN 9.28.0 does not start on Tesla V100 (compute cap",
        ),
        ([V100], {"jax-cuda13-plugin": "0.10.2"}, 1, 1, "Tesla V100 needs CUDA 12, and CUDA 13 is installed"),
        ([H100], {}, 0, 1, "there are GPUs and JAX's plugin for CUDA is not installed"),
        ([H100], CUDA12, 0, 1, "there are GPUs and JAX has found none"),
        ([H100] * 7, CUDA12, 7, 8, "8 GPUs were given to the job and the driver knows 7"),
    ],
)
def test_what_is_amiss_with_the_gpus_of_a_machine(cards, versions, devices, given, said):
    found = machine.troubles(cards, versions, devices=devices, given=given)
    assert [one[: len(said)] for one in found] == ([said] if said else [])


def test_gpus_are_read_from_what_the_driver_says():
    listed = "NVIDIA H100 80GB HBM3, 9.0, 81559\nNVIDIA H100 80GB HBM3, 9.0, 81559\n"
    assert machine.parsed_gpus(listed) == [machine.Gpu("NVIDIA H100 80GB HBM3", (9, 0), 81559)] * 2


def test_the_smoke_test_of_a_cluster(tmp_path, capsys):
    code = (
        "import sys\nfrom lit_jax import check_cluster\ncheck_cluster.SIZES = (4096,)\ncheck_cluster.main(sys.argv[1:])"
    )
    codes, outputs, errors = on_two_hosts(code, ([], []), [f"--folder={tmp_path}"], devices=2)
    assert codes == [0, 0] and not outputs[1], errors
    assert "2 hosts x 2 CPU" in outputs[0] and "is seen by all, clocks differ by 0.0" in outputs[0]
    assert "4 KiB" in outputs[0] and outputs[0].endswith("all well\n")
    check_cluster.main(["--here", f"--folder={tmp_path}"])
    assert f"GiB free in {tmp_path}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        check_cluster.main(["--here", f"--folder={__file__}"])
    assert f"--folder {__file__}: Not a directory" in capsys.readouterr().err

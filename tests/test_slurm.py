"""A SLURM of two nodes takes a run through what clusters do; each time the run ends with the numbers of an unbroken one.

Slow, and needs `slurm-wlm`, `munge` and root: python -m pytest -m slow tests/test_slurm.py
"""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import pytest

from lit_jax import config
from lit_jax.embed import Making, embed
from lit_jax.training import metrics_log
from tests import slurm_cluster
from tests.conftest import QUICK, ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(slurm_cluster.missing()), reason=slurm_cluster.missing() or "all there"),
]
SLOWLY = """

import os, time
from lit_jax.training import loop

_steps = loop._steps

def _slowly(*given):
    for step in _steps(*given):
        time.sleep(float(os.environ.get("PAUSE", "0.4")))
        yield step

loop._steps = _slowly
"""
"""Appended to the config: a step lasts long enough for something to happen in it."""


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory):
    with slurm_cluster.cluster(tmp_path_factory.mktemp("slurm")) as made:
        made.env |= {
            "XLA_FLAGS": QUICK, "LIT_JAX_RESTARTS": "10", "PYTHONPATH": str(ROOT),
            "PATH": f"{pathlib.Path(sys.executable).parent}:{made.env['PATH']}",
        }  # fmt: skip
        yield made


@pytest.fixture(scope="module")
def slow_config(tiny_config, tmp_path_factory):
    """A run of 84 steps from a store, half a minute or more."""
    store = embed(
        config.load(tiny_config)[0], tmp_path_factory.mktemp("store") / "store", Making("float32", batch_size=32)
    )
    path = tmp_path_factory.mktemp("config") / "slow.py"
    text = tiny_config.read_text().replace(
        "    return config\n",
        f"""
    config.input = "store"
    config.data.store = {str(store.directory)!r}
    config.train.epochs, config.train.devices = 24.0, 0
    config.evaluation.every_epochs = config.checkpoint.every_epochs = 4.0
    return config
""",
    )
    path.write_text(text + SLOWLY)
    return path


def job_of(two_nodes, slow_config, workdir, *options):
    """Submits the training script with options of sbatch; the job's number."""
    return two_nodes.submit(
        "--gres=none", "--ntasks-per-node=1", "--cpus-per-task=1", f"--chdir={ROOT}",
        f"--output={workdir.with_suffix('.log')}", *options,
        ROOT / "slurm" / "train.sbatch", slow_config, f"--workdir={workdir}", "--heartbeat=15",
    )  # fmt: skip


def losses(workdir):
    path = workdir / "metrics.jsonl"
    return [r["loss"] for r in metrics_log.read_metrics(path) if "loss" in r] if path.exists() else []


def training(two_nodes, job, workdir, steps):
    """Waits until a job has done so many steps."""
    until = time.monotonic() + 240
    while len(losses(workdir)) < steps:
        assert time.monotonic() < until, (two_nodes.state(job), workdir.with_suffix(".log").read_text())
        time.sleep(0.3)


@pytest.fixture(scope="module")
def unbroken(two_nodes, slow_config, tmp_path_factory):
    """What a run of the same script comes to that nothing happens to."""
    workdir = tmp_path_factory.mktemp("unbroken") / "run"
    job = job_of(two_nodes, slow_config, workdir)
    assert two_nodes.wait(job, seconds=300)["JobState"] == "COMPLETED", workdir.with_suffix(".log").read_text()
    return losses(workdir), (workdir / "results.json").read_bytes()


def same_as(unbroken, workdir):
    assert (losses(workdir), (workdir / "results.json").read_bytes()) == unbroken
    print(workdir.with_suffix(".log").read_text())


def test_the_time_is_up(two_nodes, slow_config, unbroken, tmp_path):
    job = job_of(two_nodes, slow_config, tmp_path / "run", "--time=2", "--signal=TERM@30", "--export=ALL,PAUSE=1.2")
    facts = two_nodes.wait(job, seconds=900)
    assert facts["JobState"] == "COMPLETED" and int(facts["Restarts"]) >= 1
    assert "exit code 143: the job comes again" in (tmp_path / "run.log").read_text()
    same_as(unbroken, tmp_path / "run")


def test_a_job_of_higher_priority_takes_the_nodes(two_nodes, slow_config, unbroken, tmp_path):
    job = job_of(two_nodes, slow_config, tmp_path / "run")
    training(two_nodes, job, tmp_path / "run", 10)
    other = two_nodes.submit(
        "--partition=high", "--nodes=2", "--exclusive", f"--output={tmp_path / 'other'}", "--wrap=sleep 3"
    )
    assert two_nodes.wait(other, seconds=200)["JobState"] == "COMPLETED"
    facts = two_nodes.wait(job, seconds=600)
    assert facts["JobState"] == "COMPLETED" and int(facts["Restarts"]) >= 1
    same_as(unbroken, tmp_path / "run")


@pytest.mark.parametrize("host", [0, 1])
def test_a_process_is_killed(two_nodes, slow_config, unbroken, tmp_path, host):
    job = job_of(two_nodes, slow_config, tmp_path / "run")
    training(two_nodes, job, tmp_path / "run", 20)
    subprocess.run(["pkill", "-KILL", "-n", "-f", f"lit_jax.main.*{tmp_path / 'run'}"], check=True)
    facts = two_nodes.wait(job, seconds=600)
    assert facts["JobState"] == "COMPLETED" and int(facts["Restarts"]) == 1
    same_as(unbroken, tmp_path / "run")


def test_a_node_is_lost(two_nodes, slow_config, unbroken, tmp_path):
    job = job_of(two_nodes, slow_config, tmp_path / "run")
    training(two_nodes, job, tmp_path / "run", 20)
    two_nodes.kill_node("n2")
    time.sleep(45)
    two_nodes.start_node("n2")
    facts = two_nodes.wait(job, seconds=900)
    assert facts["JobState"] == "COMPLETED" and int(facts["Restarts"]) >= 1
    same_as(unbroken, tmp_path / "run")


def test_the_disk_is_full(two_nodes, slow_config, unbroken, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], check=False).returncode:
        pytest.skip("no file system may be mounted here")
    try:
        job = job_of(two_nodes, slow_config, disk / "run", f"--output={tmp_path / 'run.log'}")
        facts = two_nodes.wait(job, seconds=300)
        said = (tmp_path / "run.log").read_text()
        assert facts["JobState"] == "FAILED" and facts["ExitCode"] == "2:0", said
        assert "No space left on device, expected to write the run there; make room" in said
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        job = job_of(two_nodes, slow_config, disk / "run", f"--output={tmp_path / 'run.log'}")
        assert two_nodes.wait(job, seconds=300)["JobState"] == "COMPLETED"
        assert (losses(disk / "run"), (disk / "run" / "results.json").read_bytes()) == unbroken
    finally:
        subprocess.run(["umount", "-l", disk], check=False)


def test_an_array_embeds_though_a_task_is_killed(two_nodes, tiny_config, tmp_path):
    whole = embed(config.load(tiny_config)[0], tmp_path / "whole", Making("float32", batch_size=32, shard_rows=20))
    job = two_nodes.submit(
        "--gres=none", "--cpus-per-task=1", "--array=0-3", f"--chdir={ROOT}", f"--output={tmp_path}/log-%a",
        ROOT / "slurm" / "embed.sbatch", tiny_config, f"--out={tmp_path / 'store'}", "--dtype=float32",
        "--batch-size=32", "--shard-rows=20",
    )  # fmt: skip
    until = time.monotonic() + 60
    killed = False
    while not killed and time.monotonic() < until:
        killed = subprocess.run(["pkill", "-KILL", "-f", r"lit_jax\.embed.*--part=2/4"], check=False).returncode == 0
        time.sleep(0.2)
    assert killed
    until = time.monotonic() + 300
    while not (tmp_path / "store").exists() and time.monotonic() < until:
        time.sleep(1)
    logs = {path.name: path.read_text() for path in tmp_path.glob("log-*")}
    assert "this part comes again" in logs["log-2"], (job, logs)
    made = {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir()}
    assert made == {path.name: path.read_bytes() for path in whole.directory.iterdir()}


@pytest.mark.parametrize("seconds", [20, 0])
def test_the_link_between_two_machines_is_cut(slow_config, tmp_path, seconds):
    """Two network namespaces with a cable between them, cut for some seconds or, at 0, for good."""
    names = [f"lit{number}" for number in range(2)]

    def do(*command):
        subprocess.run(["ip", *command], check=True)

    try:
        for name in names:
            do("netns", "add", name)
            # Gloo listens where the machine's own name points to, which each machine has for itself.
            hosts_file = pathlib.Path("/etc/netns") / name / "hosts"
            hosts_file.parent.mkdir(parents=True, exist_ok=True)
            hosts_file.write_text(f"127.0.0.1 localhost\n10.99.0.{names.index(name) + 1} {socket.gethostname()}\n")
        do("link", "add", "veth0", "netns", names[0], "type", "veth", "peer", "name", "veth1", "netns", names[1])
        for number, name in enumerate(names):
            do("-n", name, "addr", "add", f"10.99.0.{number + 1}/24", "dev", f"veth{number}")
            do("-n", name, "link", "set", f"veth{number}", "up")
            do("-n", name, "link", "set", "lo", "up")
    except (OSError, subprocess.CalledProcessError):
        _delete(names)
        pytest.skip("no network namespaces may be made here")
    env = {**os.environ, "XLA_FLAGS": QUICK}
    command = [sys.executable, "-m", "lit_jax.main", f"--config={slow_config}", f"--workdir={tmp_path / 'run'}",
               "--coordinator=10.99.0.1:4321", "--processes=2", "--heartbeat=45"]  # fmt: skip

    def start():
        return [
            subprocess.Popen(
                ["ip", "netns", "exec", name, *command, f"--process={number}"], cwd=ROOT, env=env,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )
            for number, name in enumerate(names)
        ]  # fmt: skip

    try:
        hosts = start()
        until = time.monotonic() + 200
        while len(losses(tmp_path / "run")) < 15:
            assert time.monotonic() < until and not any(host.poll() for host in hosts)
            time.sleep(0.3)
        do("-n", names[0], "link", "set", "veth0", "down")
        if seconds:
            time.sleep(seconds)
            do("-n", names[0], "link", "set", "veth0", "up")
        start_of_end = time.monotonic()
        errors = [host.communicate(timeout=150)[1] for host in hosts]
        if not seconds:
            assert [host.returncode for host in hosts] == [75, 75] and time.monotonic() - start_of_end < 120, errors
            assert all(error.startswith("lost another host (") for error in errors)
            print(errors)
            do("-n", names[0], "link", "set", "veth0", "up")
            hosts = start()
            errors = [host.communicate(timeout=300)[1] for host in hosts]
        assert [host.returncode for host in hosts] == [0, 0], errors
    finally:
        _delete(names)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["step"] == 84 and len(losses(tmp_path / "run")) == 84


def _delete(names):
    for name in names:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        shutil.rmtree(pathlib.Path("/etc/netns") / name, ignore_errors=True)

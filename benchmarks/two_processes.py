r"""Where the time of a step goes when one process becomes two: ``python -m benchmarks.two_processes``.

The demo's transformer trains from its embedding store, with the same batch in all: in one process; in two that share
each batch, over Gloo on this machine; and in two that know nothing of each other and have half a batch each, which is
what the cores can do without any talk. What is left between the last two is talk and waiting. Beside it, sums over both
processes of arrays shaped as the parameters are timed alone: as the step sends them, and as one long vector.

Two processes share the cores of one machine here, so that nothing becomes faster; on a cluster each has its own, and
NCCL, which puts arrays together, takes Gloo's place.
"""

import argparse
import json
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import machine
from lit_jax import config as options
from lit_jax.base.sharding import make_mesh, per_device, put_batch, total
from lit_jax.data.collection import store_folder
from lit_jax.embed import embed
from lit_jax.errors import user_errors_in_one_line
from lit_jax.settling import settle_run
from lit_jax.training.experiment import build

WARM, STEPS = 5, 40
CONFIG = machine.ROOT / "configs" / "demo_records.py"


def work(records: str, batch: int) -> dict[str, Any]:
    """Milliseconds of a step and of the sums, in this process, which may be one of two."""
    given = {"data.records": records, "input": "store", "train.batch_size": str(batch), "train.devices": "0"}
    settled, data = settle_run(options.load(CONFIG, given)[0])
    with tempfile.TemporaryDirectory() as folder:
        run = build(settled, data, pathlib.Path(folder))
    (state, _), stream = run.start(), run.feed(0)
    times = []
    for number, item in zip(range(WARM + STEPS), stream, strict=False):
        start = time.perf_counter()
        state, metrics = run.step(state, run.locked, item)
        jax.block_until_ready(metrics)
        if number >= WARM:
            times.append(time.perf_counter() - start)
    found: dict[str, Any] = {
        "step_ms": 1000 * statistics.median(times),
        "parameters": len(jax.tree.leaves(state.params)),
    }
    if jax.process_count() > 1:
        sizes = [leaf.size for leaf in jax.tree.leaves(state.params)]
        found |= {"sums_ms": _sum_ms(sizes), "one_sum_ms": _sum_ms([sum(sizes)])}
    return found


def _sum_ms(sizes: Sequence[int]) -> float:
    """Milliseconds of a program that sums arrays of so many numbers over all devices."""
    mesh = make_mesh()
    arrays = [put_batch({"x": np.ones((jax.local_device_count(), size), np.float32)}, mesh)["x"] for size in sizes]
    each = (True,) * len(sizes)
    summed: Callable[..., Any] = jax.jit(
        per_device(lambda *xs: tuple(total(x, mesh) for x in xs), mesh, inputs=each, outputs=each)
    )
    jax.block_until_ready(summed(*arrays))
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        jax.block_until_ready(summed(*arrays))
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def measured(records: str, batch: int, *, processes: int, together: bool) -> dict[str, Any]:
    """What the first of some processes says that run at the same time."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.two_processes", f"--records={records}", f"--batch={batch}"]
    with machine.Clock() as clock:
        started = [
            subprocess.Popen(
                [*command, f"--side={number}/{processes if together else 1}:{port}"], cwd=machine.ROOT,
                stdout=subprocess.PIPE, text=True,
            )
            for number in range(processes)
        ]  # fmt: skip
        said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"a process failed: {said}")
    found: dict[str, Any] = json.loads(said[0].splitlines()[-1])
    return {**found, "cpu_s": round(clock.cpu, 1), "wall_s": round(clock.wall, 1)}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs all sides; or, with ``--side``, one process of one of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.two_processes", description=__doc__)
    parser.add_argument("--records", default="data/demo_records", help="the demo's, made if missing")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", default="", help=argparse.SUPPRESS)
    parser.add_argument("--out", default="")
    parsed = parser.parse_args(argv)
    with user_errors_in_one_line():
        if parsed.side:
            place, _, port = parsed.side.partition(":")
            number, _, count = place.partition("/")
            if int(count) > 1:
                jax.distributed.initialize(f"localhost:{port}", int(count), int(number))
            print(json.dumps(work(parsed.records, parsed.batch)))
            return
        config, prepare = options.load(CONFIG, {"data.records": parsed.records})
        if prepare and not pathlib.Path(parsed.records).exists():
            prepare(config)
        if not store_folder(config.data).exists():
            embed(config, store_folder(config.data))
        rounds = []
        for _ in range(parsed.rounds):
            rounds.append({
                "one": measured(parsed.records, parsed.batch, processes=1, together=True),
                "two": measured(parsed.records, parsed.batch, processes=2, together=True),
                "apart": measured(parsed.records, parsed.batch // 2, processes=2, together=False),
            })  # fmt: skip
        rows = [
            [str(number + 1), *(f"{value:.1f}" for value in (
                one["one"]["step_ms"], one["two"]["step_ms"], one["apart"]["step_ms"], one["two"]["sums_ms"],
                one["two"]["one_sum_ms"],
            ))]
            for number, one in enumerate(rounds)
        ]  # fmt: skip
        headings = ("round", "one process", "two together", "two apart", "sums as sent", "one long sum")
        print(machine.table(headings, rows))
        machine.write("two_processes", {"batch": parsed.batch, "steps": STEPS, "rounds": rounds}, parsed.out)


if __name__ == "__main__":
    main()

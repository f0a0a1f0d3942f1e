r"""One training step of the recorded recipe from a store, beside its own matrix products.

    python -m benchmarks.step_floor
    python -m benchmarks.step_floor --batch 4096 --dtype bfloat16      # on a GPU

The recorded text tower of 63.4 M parameters learns from a synthetic store through the package's own feed. One process
measures, in turns, `--rounds` times, of which the quickest counts:

* ``products``: the matrix products of the step's program, each alone, in a program of its own. No step that computes
  the same can be quicker than these are.
* ``step``: the step on one batch that is on the device already.
* ``loop``: steps as a run makes them, with the store's feed before and the metrics read behind, a step late.

The same is measured in a second process with large pages of memory (`benchmarks.machine.LARGE_PAGES`), which one has
to ask for. Two processes more measure how long a run waits for its first step: with an empty cache of compiled
programs, and with what the one before has left there, as `lit_jax.main` finds it in the user's cache folder from its
second start on.
"""

import argparse
import itertools
import json
import pathlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from benchmarks import machine, own_products
from benchmarks.recipe import from_store, synthetic_store
from lit_jax.errors import UserError, user_errors_in_one_line
from lit_jax.planning import arithmetic
from lit_jax.training import train_step


def _run(parsed: argparse.Namespace) -> tuple[train_step.State, Any, Any, Iterator[train_step.Batch]]:
    made = synthetic_store(parsed.store, parsed.photos)
    return from_store(made, batch=parsed.batch, dtype=parsed.dtype, depth=parsed.depth)


def first_step(parsed: argparse.Namespace) -> dict[str, Any]:
    """Seconds from a start to the end of the first step, those of its compilation, or of its reading, among them."""
    state, locked, step, feed = _run(parsed)
    batch = next(feed)
    with machine.Clock() as compiling:
        compiled = step.lower(state, locked, batch).compile()
    with machine.Clock() as stepping:
        jax.block_until_ready(compiled(state, locked, batch))
    return {"compiling_s": compiling.wall, "compiling_cpu_s": compiling.cpu, "step_s": stepping.wall}


def steps(parsed: argparse.Namespace) -> dict[str, Any]:
    """Every side's seconds by round."""
    state, locked, step, feed = _run(parsed)
    shape = next(feed)["tokens"].shape
    feed = (batch for batch in feed if batch["tokens"].shape == shape)  # all rounds do the same work
    batch = next(feed)
    found = arithmetic.products(step, state, locked, batch)
    step = step.lower(state, locked, batch).compile()
    state, metrics = step(state, locked, batch)
    jax.block_until_ready(metrics)
    rounds: dict[str, list[dict[str, float]]] = {"products": [], "step": [], "loop": []}
    for _ in range(parsed.rounds):
        rounds["products"].append(own_products.timed(found))
        with machine.Clock() as clock:
            for _ in range(parsed.steps):
                state, metrics = step(state, locked, batch)
                jax.block_until_ready(metrics)
        rounds["step"].append(_each(clock, parsed.steps))
        with machine.Clock() as clock:
            state = _looped(state, locked, itertools.islice(feed, parsed.steps), step)
        rounds["loop"].append(_each(clock, parsed.steps))
    return {
        "texts": list(shape), "device": jax.devices()[0].device_kind, "rounds": rounds,
        "temporaries": step.memory_analysis().temp_size_in_bytes,
    }  # fmt: skip


def _looped(state: Any, locked: Any, batches: Iterator[train_step.Batch], step: Any) -> Any:
    """The state after steps as a run makes them: metrics come to the host while the next step is on its way."""
    late: train_step.Metrics = {}
    for after, metrics in train_step.run(state, locked, batches, step):
        jax.device_get(late)
        state, late = after, metrics
    jax.device_get(late)
    return state


def _each(clock: machine.Clock, number: int) -> dict[str, float]:
    return {"wall_s": clock.wall / number, "cpu_s": clock.cpu / number}


def main(argv: Sequence[str] | None = None) -> None:
    """The command: all sides, the table and the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_floor", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--batch", type=int, default=256)
    add("--depth", type=int, default=12, help="blocks of the text tower; the recorded one has 12")
    add("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    add("--photos", type=int, default=1 << 17, help="in the synthetic store")
    add("--store", type=pathlib.Path, default="runs/step_floor_store", help="where the synthetic store is or shall be")
    add("--rounds", type=int, default=3)
    add("--steps", type=int, default=3, help="of each round")
    add("--side", default="", choices=("", "first", "steps"), help=argparse.SUPPRESS)
    add("--out", default="")
    parsed = parser.parse_args(argv)
    with user_errors_in_one_line():
        if parsed.side:
            print(json.dumps(first_step(parsed) if parsed.side == "first" else steps(parsed)))
            return
        found = _sides(parsed)
    rows = [
        [name, pages, *(
            f"{x:.3f}" for unit in ("wall_s", "cpu_s") for x in (of[unit], of[unit] / best["products"][unit])
        )]
        for pages, best in found["best"].items() for name, of in best.items()
    ]  # fmt: skip
    print(machine.table(["side", "pages", "s", "by the products'", "CPU s", "by the products'"], rows))
    rows = [[name, f"{one['start_s']:.1f}", f"{one['compiling_s']:.1f}"] for name, one in found["first"].items()]
    print(machine.table(["start", "s to the end of the first step", "s of compiling or reading"], rows))
    what = {name: getattr(parsed, name) for name in ("batch", "depth", "dtype", "photos", "rounds", "steps")}
    machine.write("step_floor", {**what, **found}, parsed.out)


def _sides(parsed: argparse.Namespace) -> dict[str, Any]:
    arguments = [f"--{name}={getattr(parsed, name)}" for name in ("batch", "depth", "dtype", "photos", "store")]
    arguments += [f"--rounds={parsed.rounds}", f"--steps={parsed.steps}"]
    found: dict[str, Any] = {"best": {}, "processes": {}}
    for pages, environment in (("small", None), ("large", machine.LARGE_PAGES)):
        got = machine.side("benchmarks.step_floor", *arguments, "--side=steps", environment=environment)
        if "failed" in got:
            raise UserError(f"steps: found {got['failed']}, expected figures; what it said stands above")
        found["processes"][pages] = got
        found["best"][pages] = {
            name: {unit: min(one[unit] for one in of) for unit in ("wall_s", "cpu_s")}
            for name, of in got["rounds"].items()
        }
    first = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("empty cache", "full cache"):
            since = time.perf_counter()
            first[name] = machine.side(
                "benchmarks.step_floor", *arguments, "--side=first",
                environment={"JAX_COMPILATION_CACHE_DIR": folder},
            )  # fmt: skip
            first[name]["start_s"] = time.perf_counter() - since
    return {**found, "first": first}


if __name__ == "__main__":
    main()

r"""What distinct captions and buckets save: a step over the 10,000 captions of iNaturalist 2021, three ways.

    python -m benchmarks.text_waste --classes inat2021-categories.csv

Photos of 10,000 equally likely classes, batch 4096, features of 1024 numbers from memory, the recorded text tower and
CLIP's tokens (open_clip's tokenizer):

* ``plain``: every caption of the batch, padded to 77 tokens, as the recorded run did it;
* ``bucketed``: every caption, padded to the longest of the batch;
* ``distinct``: each distinct caption once, padded to the longest: what the package does by default.

All three have the same loss. Where the recorded tower takes too long or needs too much memory, ``--depth`` and
``--width`` make it smaller; the arithmetic of the recorded one is counted all the same, which needs no run. Activations
are computed again in the backward pass (``text.remat``) on every side. Each way is a process of its own.
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.recorded import CONTEXT, END, ClipTokens, recorded_text_tower, start
from lit_jax.base.sharding import make_mesh, put_batch
from lit_jax.data import unique_captions
from lit_jax.errors import user_errors_in_one_line
from lit_jax.models.two_tower import TwoTower
from lit_jax.planning import arithmetic
from lit_jax.text.captions import TEMPLATE, class_captions
from lit_jax.text.classes import read_class_table

WIDTH = 1024
WAYS = ("plain", "bucketed", "distinct")


def batch_of(way: str, classes: str, batch: int) -> dict[str, np.ndarray]:
    """The same pairs each way."""
    captions = [group[0] for group in class_captions(read_class_table(classes), [TEMPLATE])]
    rng = np.random.default_rng(0)
    tokens = ClipTokens().encode([captions[i] for i in rng.integers(len(captions), size=batch)], CONTEXT)
    found = unique_captions.distinct(tokens) if way == "distinct" else unique_captions.Texts(tokens, None)
    if way != "plain":
        found = unique_captions.bucketed(found, end_id=END, rows=1, grain=8)
    host = {"features": rng.normal(size=(batch, WIDTH)).astype(np.float16), "tokens": found.tokens}
    return host if found.caption is None else {**host, "caption": found.caption}


def measure(way: str, classes: str, batch: int, steps: int, tower: dict[str, Any]) -> dict[str, Any]:
    """Seconds of a step, and FLOPs of its matrix products, for this tower and for the recorded one."""
    mesh = make_mesh(1)
    host = batch_of(way, classes, batch)
    products = {}
    for name, options in (("recorded", {}), ("timed", tower)):
        text = recorded_text_tower(remat=True, **options)
        state, locked, step = start(TwoTower(None, text, embed_dim=512, width=WIDTH), mesh, image_size=1)
        on_device = put_batch(host, mesh)
        products[name] = arithmetic.count(step, state, locked, on_device)
    compiled = step.lower(state, locked, on_device).compile()
    with machine.Clock() as clock:
        losses = []
        for _ in range(steps):
            state, metrics = compiled(state, locked, on_device)
            losses.append(float(metrics["loss"]))
    return {
        "steps": steps, "wall_s": clock.wall, "cpu_s": clock.cpu, "first_loss": losses[0], "flops": products["timed"],
        "flops_recorded": products["recorded"], "text_rows": len(host["tokens"]),
        "text_tokens": host["tokens"].shape[1],
        "temporaries": compiled.memory_analysis().temp_size_in_bytes,
    }  # fmt: skip


def _row(way: str, one: dict[str, Any]) -> list[str]:
    steps, ratio = one["steps"], one.get("plain_takes", float("nan"))
    times = [f"{one[clock] / steps:.1f}" for clock in ("wall_s", "cpu_s")]
    work = [f"{one['flops_recorded'] / 1e12:.1f}", f"{one.get('plain_computes_recorded', float('nan')):.2f}"]
    return [way, f"{one['text_rows']} x {one['text_tokens']}", *times, f"{ratio:.2f}", *work]


def main(argv: Sequence[str] | None = None) -> None:
    """The command: runs the three ways, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text_waste", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--classes", required=True, help="class table of iNaturalist 2021")
    add("--batch", type=int, default=4096)
    add("--depth", type=int, default=12, help="blocks of the text tower; the recorded one has 12")
    add("--steps", type=int, default=1)
    add("--width", type=int, default=512, help="channels of the text tower; the recorded one has 512")
    add("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    add("--way", default="", help=argparse.SUPPRESS)
    add("--out", default="")
    parsed = parser.parse_args(argv)
    with user_errors_in_one_line():
        if parsed.way:
            tower = {name: getattr(parsed, name) for name in ("depth", "width", "dtype")}
            print(json.dumps(measure(parsed.way, parsed.classes, parsed.batch, parsed.steps, tower)))
            return
        shared = [
            f"--{name}={getattr(parsed, name)}" for name in ("classes", "batch", "depth", "width", "steps", "dtype")
        ]
        found = {}
        for way in reversed(WAYS):
            found[way] = machine.side("benchmarks.text_waste", *shared, f"--way={way}")
            print(way, found[way], flush=True)
    for one in found.values():
        if "failed" not in one and "failed" not in found["plain"]:
            one["plain_takes"] = found["plain"]["wall_s"] / one["wall_s"]
            one["plain_computes"] = found["plain"]["flops"] / one["flops"]
            one["plain_computes_recorded"] = found["plain"]["flops_recorded"] / one["flops_recorded"]
    rows = [_row(way, one) for way, one in found.items() if "failed" not in one]
    headings = ["way", "texts x tokens", "s a step", "CPU s", "plain / this", "recorded, TFLOP", "plain / this"]
    print(machine.table(headings, rows))
    what = {name: getattr(parsed, name) for name in ("batch", "depth", "width", "dtype")}
    machine.write("text_waste", {**what, "ways": found}, parsed.out)


if __name__ == "__main__":
    main()

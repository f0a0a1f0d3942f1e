r"""What distinct captions and buckets save: a step over the 10,000 captions of iNaturalist 2021, three ways.

    python -m benchmarks.text_waste --classes inat2021-categories.csv

Photos of 10,000 equally likely classes, batch 4096, features of 1024 numbers from memory, the recorded text tower and
CLIP's tokens (open_clip's tokenizer):

* ``plain``: every caption of the batch, padded to 77 tokens, as the recorded run did it;
* ``bucketed``: every caption, padded to the longest of the batch;
* ``distinct``: each distinct caption once, padded to the longest: what the package does by default.

All three have the same loss. ``--depth`` makes the tower shallower where twelve blocks take too long; activations are
computed again in the backward pass (``text.remat``) on every side, because the plain path needs more than 100 GB
without. Each way is a process of its own.
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.recorded import CONTEXT, END, ClipTokens, recorded_text_tower, start
from lit_jax import flops, texts
from lit_jax.captions import TEMPLATE, class_captions
from lit_jax.classes import read_class_table
from lit_jax.errors import user_errors_in_one_line
from lit_jax.models.two_tower import TwoTower
from lit_jax.sharding import make_mesh, put_batch

WIDTH = 1024
WAYS = ("plain", "bucketed", "distinct")


def measure(way: str, classes: str, batch: int, depth: int, steps: int, dtype: str) -> dict[str, Any]:
    """Seconds and matrix-product FLOPs of a step."""
    captions = [group[0] for group in class_captions(read_class_table(classes), [TEMPLATE])]
    rng = np.random.default_rng(0)
    tokens = ClipTokens().encode([captions[i] for i in rng.integers(len(captions), size=batch)], CONTEXT)
    mesh = make_mesh()
    found = texts.Texts(tokens, None)
    if way == "distinct":
        found = texts.distinct(tokens)
    if way != "plain":
        found = texts.bucketed(found, end_id=END, rows=mesh.size, grain=8)
    model = TwoTower(None, recorded_text_tower(dtype=dtype, depth=depth, remat=True), embed_dim=512, width=WIDTH)
    state, locked, step = start(model, mesh, image_size=1, dtype=dtype)
    host = {"features": rng.normal(size=(batch, WIDTH)).astype(np.float16), "tokens": found.tokens}
    if found.caption is not None:
        host["caption"] = found.caption
    on_device = put_batch(host, mesh)
    products = flops.count(step, state, locked, on_device)
    compiled = step.lower(state, locked, on_device).compile()
    with machine.Clock() as clock:
        losses = []
        for _ in range(steps):
            state, metrics = compiled(state, locked, on_device)
            losses.append(float(metrics["loss"]))
    return {
        "steps": steps, "wall_s": clock.wall, "cpu_s": clock.cpu, "first_loss": losses[0], "flops": products,
        "text_rows": len(found.tokens), "text_tokens": found.tokens.shape[1],
        "temporaries": compiled.memory_analysis().temp_size_in_bytes,
    }  # fmt: skip


def _row(way: str, one: dict[str, Any]) -> list[str]:
    steps, ratio = one["steps"], one.get("plain_takes", float("nan"))
    times = [f"{one[clock] / steps:.1f}" for clock in ("wall_s", "cpu_s")]
    return [way, f"{one['text_rows']} x {one['text_tokens']}", *times, f"{one['flops'] / 1e12:.1f}", f"{ratio:.2f}"]


def main(argv: Sequence[str] | None = None) -> None:
    """The command: runs the three ways, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text_waste", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--classes", required=True, help="class table of iNaturalist 2021")
    add("--batch", type=int, default=4096)
    add("--depth", type=int, default=12, help="blocks of the text tower; the recorded one has 12")
    add("--steps", type=int, default=1)
    add("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    add("--way", default="", help=argparse.SUPPRESS)
    add("--out", default="")
    parsed = parser.parse_args(argv)
    with user_errors_in_one_line():
        if parsed.way:
            arguments = (parsed.classes, parsed.batch, parsed.depth, parsed.steps, parsed.dtype)
            print(json.dumps(measure(parsed.way, *arguments)))
            return
        shared = [f"--{name}={getattr(parsed, name)}" for name in ("classes", "batch", "depth", "steps", "dtype")]
        found = {}
        for way in reversed(WAYS):
            found[way] = machine.side("benchmarks.text_waste", *shared, f"--way={way}")
            print(way, found[way], flush=True)
    for one in found.values():
        if "failed" not in one and "failed" not in found["plain"]:
            one["plain_takes"] = found["plain"]["wall_s"] / one["wall_s"]
            one["plain_computes"] = found["plain"]["flops"] / one["flops"]
    rows = [_row(way, one) for way, one in found.items() if "failed" not in one]
    headings = ["way", "texts x tokens", "s a step", "CPU s a step", "TFLOP", "plain / this"]
    print(machine.table(headings, rows))
    what = {"batch": parsed.batch, "depth": parsed.depth, "dtype": parsed.dtype}
    machine.write("text_waste", {**what, "ways": found}, parsed.out)


if __name__ == "__main__":
    main()

r"""The recorded recipe from end to end, from a store: 2.6 M pairs x 18 epochs at batch 4096 on one device.

    python -m benchmarks.recipe                                    # a GPU: all 11,448 steps
    python -m benchmarks.recipe --batch 131072 --steps 20 --remat  # one huge batch on one device

A synthetic store of the right shape (2,686,843 photos of 10,000 classes, 1024 numbers each, float16) is written to disk
once and read through the package's own path: checksums, global shuffle, features on the device, distinct captions in
buckets, the recorded text tower of 63.4 M parameters, AdamW. The features are random and so are the captions, whose
lengths are those of iNaturalist's captions in CLIP's tokens; the time of a step does not depend on either. There is no
evaluation and no checkpoint in the time. The share of the peak counts matrix products only, as the step computes them
(`lit_jax.planning.arithmetic`).

``--steps`` of 0 means all of them. What does not fit ``--seconds`` is stopped there, and the JSON says how many steps
were timed; the time of all is then an extrapolation, and is called so.
"""

import argparse
import itertools
import math
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import machine
from benchmarks.recorded import END, drawn_tokens, recorded_text_tower, start
from lit_jax.base.sharding import make_mesh
from lit_jax.data import embedding_store, input_stream
from lit_jax.data.record_batches import Batches
from lit_jax.data.unique_captions import CaptionTable
from lit_jax.errors import user_errors_in_one_line
from lit_jax.models.two_tower import TwoTower
from lit_jax.planning import arithmetic
from lit_jax.training import train_step

PHOTOS, CLASSES, WIDTH, EPOCH, EPOCHS = 2_686_843, 10_000, 1024, 2_600_000, 18
SHARD_ROWS = 1 << 17
# Dense peak of bfloat16 and float16 matrix products in TFLOP/s, from NVIDIA's data sheets, by JAX's name of the device.
PEAKS = {"H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "V100": 125, "L4": 121, "T4": 65}


def synthetic_store(folder: pathlib.Path, photos: int) -> embedding_store.Store:
    """A store of random features, written once."""
    if embedding_store.is_store(folder):
        return embedding_store.open_store(folder)
    aside = embedding_store.begin(folder, {"photos": photos}, restart=True)
    rng = np.random.default_rng(0)
    (aside / embedding_store.CLASS_TABLE).write_text(
        "id,name\n" + "".join(f"{i},species {i}\n" for i in range(CLASSES))
    )
    bounds, shards = embedding_store.shard_bounds(photos, SHARD_ROWS), []
    for number, (first, stop) in enumerate(bounds):
        # Sixteen random bits a number would hold infinities; these lie in [0, 1).
        features = rng.random((stop - first, 1, WIDTH), np.float32).astype(np.float16)
        ids = rng.integers(CLASSES, size=stop - first)
        names = [str(i) for i in range(first, stop)]
        name = embedding_store.shard_name("train", number, len(bounds))
        shards.append(embedding_store.write_shard(aside, name, features, ids, names, dtype="float16"))
    return embedding_store.finish(embedding_store.Store(
        directory=aside, splits={"train": tuple(shards)}, views={"train": 1}, width=WIDTH, dtype="float16",
        record_lengths={"train": tuple(stop - first for first, stop in bounds)}, tower={"kind": "given", "digest": ""},
        class_table=aside / embedding_store.CLASS_TABLE, tokenizer=None, templates=("{name}",), drop_repeats=False,
        class_ids={"train": tuple(range(CLASSES))}, records="synthetic",
    ), folder)  # fmt: skip


def from_store(
    made: embedding_store.Store, *, batch: int, dtype: str, depth: int, remat: bool = False, place: str = "device"
) -> tuple[train_step.State, Any, Any, Iterator[train_step.Batch]]:
    """State, locked parameters, step and batches of the recorded run from a store, on one device."""
    mesh = make_mesh(1)
    captions = CaptionTable(
        drawn_tokens(CLASSES), np.arange(CLASSES), np.arange(CLASSES)[:, None], np.ones(CLASSES, np.int64)
    )
    stream = input_stream.from_store(
        input_stream.open_split(made, "train", mesh, place=place), mesh, batches=Batches(batch, seed=0),
        captions=captions, rows=input_stream.TextRows(END, each_once=True, bucket=8),
    )(0)  # fmt: skip
    text = recorded_text_tower(dtype=dtype, depth=depth, remat=remat)
    model = TwoTower(None, text, embed_dim=512, width=WIDTH, dtype=text.dtype)
    return *start(model, mesh, image_size=1, dtype=dtype), stream


def run(parsed: argparse.Namespace) -> dict[str, Any]:
    """Times the steps."""
    steps = parsed.steps or math.ceil(EPOCH * EPOCHS / parsed.batch)
    with machine.Clock() as preparing:
        made = synthetic_store(pathlib.Path(parsed.store), parsed.photos)
        state, locked, step, stream = from_store(
            made, batch=parsed.batch, dtype=parsed.dtype, depth=parsed.depth, remat=parsed.remat, place=parsed.store_on
        )
        first = next(stream)
        products = arithmetic.count(step, state, locked, first)
        memory = step.lower(state, locked, first).compile().memory_analysis()
        state, metrics = step(state, locked, first)
        first_loss = float(metrics["loss"])
    print(f"ready after {preparing.wall:.0f} s: batch {parsed.batch}, texts {first['tokens'].shape}", flush=True)
    done, lasts = 0, []
    begin = time.perf_counter()
    with machine.Clock() as clock:
        for batch in itertools.islice(stream, steps):
            state, metrics = step(state, locked, batch)
            done += 1
            if done % parsed.every == 0 or done == steps:
                lasts.append((done, time.perf_counter() - begin, float(metrics["loss"])))
                print("step {}, {:.1f} s, loss {:.4f}".format(*lasts[-1]), flush=True)
                if lasts[-1][1] > parsed.seconds:
                    break
        last_loss = float(metrics["loss"])
    seconds = clock.wall / done
    peak = next((value for name, value in PEAKS.items() if name in jax.devices()[0].device_kind), None)
    return {
        "batch": parsed.batch, "dtype": parsed.dtype, "depth": parsed.depth, "remat": parsed.remat,
        "photos": made.examples("train"), "texts": list(first["tokens"].shape), "preparing_s": preparing.wall,
        "steps_timed": done, "wall_s": clock.wall, "cpu_s": clock.cpu, "s_per_step": seconds,
        "pairs_per_s": parsed.batch / seconds, "steps_of_the_recipe": math.ceil(EPOCH * EPOCHS / parsed.batch),
        "all_steps_timed": done >= math.ceil(EPOCH * EPOCHS / parsed.batch),
        "minutes_of_the_recipe": seconds * math.ceil(EPOCH * EPOCHS / parsed.batch) / 60,
        "flops_per_step": products, "share_of_peak": products / seconds / peak / 1e12 if peak else None,
        "temporaries": memory.temp_size_in_bytes, "arguments": memory.argument_size_in_bytes,
        "device_peak_bytes": (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
        "first_loss": first_loss, "last_loss": last_loss, "curve": lasts,
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """The command: prints the figures and writes the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipe", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--batch", type=int, default=4096)
    add("--steps", type=int, default=0, help="0 for all of the recipe")
    add("--seconds", type=float, default=1e9, help="stop after so many")
    add("--every", type=int, default=100, help="steps between looks at the loss and the clock")
    add("--photos", type=int, default=PHOTOS)
    add("--dtype", default="bfloat16", choices=("float32", "bfloat16", "float16"))
    add("--depth", type=int, default=12, help="blocks of the text tower; the recorded one has 12")
    add("--remat", action="store_true", help="compute activations again: for huge batches")
    add("--store", default="runs/recipe_store", help="where the synthetic store is or shall be")
    add("--store-on", default="device", choices=("device", "host"))
    add("--name", default="recipe", help="of the JSON")
    add("--out", default="")
    parsed = parser.parse_args(argv)
    with user_errors_in_one_line():
        found = run(parsed)
    minutes = f"{found['minutes_of_the_recipe']:.1f} min" + ("" if found["all_steps_timed"] else ", extrapolated")
    share = f"{100 * found['share_of_peak']:.1f} %" if found["share_of_peak"] else "unknown"
    rows = [
        [str(found["steps_timed"]), f"{1000 * found['s_per_step']:.1f}", f"{found['pairs_per_s']:,.0f}", share, minutes]
    ]
    print(machine.table(["steps timed", "ms a step", "pairs/s", "of peak", "the recipe"], rows))
    machine.write(parsed.name, found, parsed.out)


if __name__ == "__main__":
    main()

r"""Nearly equal photos across splits: 450,000 of training against 50,000 others, features of width 1,024 in float16.

    python -m benchmarks.near_duplicates

The features are made up: noise about a mean that all share, as behind a ReLU, and 500 of the 50,000 are photos of
training again, with noise that leaves them a cosine of 0.999 to 0.96. They lie in a store on the disk, made once, and
are looked for in a process of its own. Whether exactly the planted ones are found is told beside time and memory.
"""

import argparse
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import machine
from lit_jax.data import embedding_store
from lit_jax.errors import user_errors_in_one_line
from lit_jax.evaluation.near_duplicates import WITHIN, mean_of, near_duplicates
from lit_jax.text.classes import ClassTable, write_class_table

WIDTH, PLANTED, SHARD_ROWS = 1024, 500, 1 << 15
TRAIN, OTHER = "train", "heldout"


def make_store(folder: pathlib.Path, rows: dict[str, int]) -> embedding_store.Store:
    """Noise; the first `PLANTED` rows of the second split are rows of the first, each with more noise than the last."""
    if embedding_store.is_store(folder):
        return embedding_store.open_store(folder)
    aside = embedding_store.begin(folder, {"made by": "benchmarks.near_duplicates"}, restart=True)
    write_class_table(ClassTable((0, 1), {"name": ("Parus major", "Pica pica")}), aside / embedding_store.CLASS_TABLE)
    draw = np.random.default_rng(0)
    mean = np.abs(draw.normal(size=WIDTH)).astype(np.float32) * 2
    planted = np.arange(PLANTED) * (rows[TRAIN] // PLANTED)
    copies = np.empty((PLANTED, WIDTH), np.float32)
    splits = {}
    for number, (split, count) in enumerate(rows.items()):
        shards = []
        bounds = embedding_store.shard_bounds(count, SHARD_ROWS)
        for shard, (first, stop) in enumerate(bounds):
            features = draw.standard_normal((stop - first, WIDTH), np.float32)
            here = np.flatnonzero((planted >= first) & (planted < stop))
            if split == TRAIN:
                copies[here] = features[planted[here] - first]
            elif shard == 0:
                features[:PLANTED] = copies + np.linspace(0.03, 0.28, PLANTED)[:, None] * features[:PLANTED]
            names = [f"{split}/{i}.jpg" for i in range(first, stop)]
            shards.append(embedding_store.write_shard(
                aside, embedding_store.shard_name(split, shard, len(bounds)), (features + mean)[:, None],
                np.full(stop - first, number), names, dtype="float16",
            ))  # fmt: skip
        splits[split] = tuple(shards)
    return embedding_store.finish(embedding_store.Store(
        directory=aside, splits=splits, views=dict.fromkeys(splits, 1), width=WIDTH, dtype="float16",
        record_lengths={split: tuple(shard.examples for shard in shards) for split, shards in splits.items()},
        tower={"kind": embedding_store.GIVEN, "name": "made up", "width": WIDTH, "digest": "made up"},
        class_table=aside / embedding_store.CLASS_TABLE, tokenizer=None, templates=("{name}",), drop_repeats=False,
        class_ids={TRAIN: (0,), OTHER: (1,)}, records="made up",
    ), folder)  # fmt: skip


def searched(folder: pathlib.Path) -> dict[str, Any]:
    """The search, with its time and memory, and what it found."""
    store = embedding_store.open_store(folder)
    train, other = (embedding_store.Rows(store, split) for split in (TRAIN, OTHER))
    with machine.Clock() as clock:
        found = near_duplicates(other, train, mean_of(train))
    right = found.keys == found.queries * (len(train) // PLANTED)
    right &= found.queries < PLANTED
    return {
        "rows": {TRAIN: len(train), OTHER: len(other)},
        "width": WIDTH,
        "within": WITHIN,
        "planted": PLANTED,
        "planted_found": int(right.sum()),
        "others_found": int((~right).sum()),
        "least_cosine": float(found.cosine.min(initial=1.0)),
        "wall_s": clock.wall,
        "cpu_s": clock.cpu,
        "peak_gib": machine.peak_bytes() / 2**30,
        "anonymous_gib": _anonymous_bytes() / 2**30,
        "features_gib": sum(store.nbytes(split) for split in store.splits) / 2**30,
    }


def _anonymous_bytes() -> int:
    """Memory resident now that no file on the disk backs; the rest of the peak is the mapped store."""
    try:
        lines = pathlib.Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def main(argv: Sequence[str] | None = None) -> None:
    """The command: prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.near_duplicates", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/near_duplicates"))
    parser.add_argument("--train", type=int, default=450_000, help="photos of training")
    parser.add_argument("--others", type=int, default=50_000, help="photos of the other split")
    parser.add_argument("--side", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", default="")
    parsed = parser.parse_args(argv)
    folder = parsed.workdir.absolute() / f"store-{parsed.train}-{parsed.others}"
    if parsed.side:
        print(json.dumps(searched(folder)))
        return
    with user_errors_in_one_line():
        make_store(folder, {TRAIN: parsed.train, OTHER: parsed.others})
    given = [f"--workdir={parsed.workdir.absolute()}", f"--train={parsed.train}", f"--others={parsed.others}"]
    found = machine.side("benchmarks.near_duplicates", *given, "--side")
    print(machine.table(["", "value"], [[name, str(value)] for name, value in found.items()]))
    load = os.getloadavg()[1]
    machine.write("near_duplicates", {"load_of_the_last_5_minutes": load, **found}, parsed.out)


if __name__ == "__main__":
    main()

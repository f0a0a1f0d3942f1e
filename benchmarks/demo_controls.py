"""What the demo's accuracy rests on: as it is, with shuffled captions, with a broken lock, with another text tower.

    python -m benchmarks.demo_controls

Writes ``benchmarks/results/demo_controls.json``. Each run is the demo with one thing changed:

* ``demo``: nothing;
* ``shuffled captions``: the training species exchange their names, and with them their captions; the held-out
  species keep theirs. Photos, classes and evaluation stay the same. What a model learns of the names of seen
  species is then worth nothing for others, and held-out accuracy must fall to chance;
* ``broken lock``: the image tower starts from scratch and moves (lock ``uu``), as if its weights had been lost;
* ``end token``: a text tower of two blocks read at the end token, instead of one block and the mean.
"""

import argparse
import dataclasses
import pathlib
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from data_prep.conversion import convert
from data_prep.conversion.options import Options
from data_prep.sources import folder
from data_prep.sources.items import Source
from lit_jax import config as options
from lit_jax.base.files import write_json
from lit_jax.errors import user_errors_in_one_line
from lit_jax.main import train
from lit_jax.text.classes import ClassTable, read_class_table

ROOT = pathlib.Path(__file__).resolve().parent.parent
VARIANTS: dict[str, dict[str, str]] = {
    "demo": {},
    "shuffled captions": {},
    "broken lock": {"train.locks": "uu", "image.weights": ""},
    "end token": {"text.pool": "end", "text.depth": "2"},
}
SEEDS = {"demo": (0, 1, 2), "shuffled captions": (0, 1, 2), "broken lock": (0,), "end token": (0,)}


def shuffled(table: ClassTable, classes: Sequence[int], seed: int) -> ClassTable:
    """The class table in which `classes` have exchanged all their columns; no class keeps its own."""
    rows = np.array([table.index_of(class_id) for class_id in classes])
    order = np.random.default_rng(seed).permutation(rows)
    # A cyclic exchange along a random order leaves nobody in place.
    source = {int(here): int(there) for here, there in zip(order, np.roll(order, 1), strict=True)}
    columns = {
        name: tuple(values[source.get(row, row)] for row in range(len(table))) for name, values in table.columns.items()
    }
    return dataclasses.replace(table, columns=columns)


def shuffled_records(photos: pathlib.Path, out: pathlib.Path, seed: int) -> pathlib.Path:
    """The demo's photos with the captions of the training species shuffled."""
    table = read_class_table(photos / "classes.csv")
    items = list(folder.read_folder(photos, photos / "splits.csv"))
    ids: dict[str | int, int] = dict(zip(table.names, table.ids, strict=True))
    training = sorted({ids[item.class_name] for item in items if item.split == "train"})
    # Photos keep their class id, which no longer goes with its own row.
    by_id = [item._replace(class_name=ids[item.class_name]) for item in items]
    made = Options(shards=4, vocab_size=512)
    return convert.convert(Source(by_id, shuffled(table, training, seed)), out, made).directory


def measure(name: str, seed: int, workdir: pathlib.Path) -> dict[str, Any]:
    """Runs one variant with one seed, or reads the results of a run that is finished already."""
    overrides = {"seed": str(seed), "data.records": str(workdir / "records"), **VARIANTS[name]}
    config, prepare = options.load(ROOT / "configs" / "demo.py", overrides)
    if prepare is not None and not (workdir / "records").exists():
        prepare(config)
    if name == "shuffled captions":
        records = shuffled_records(workdir / "demo_photos", workdir / f"shuffled_{seed}", seed)
        config, _ = options.load(ROOT / "configs" / "demo.py", {**overrides, "data.records": str(records)})
    return {"variant": name, "seed": seed, **train(config, workdir / f"{name.replace(' ', '_')}_{seed}")}


def main(argv: Sequence[str] | None = None) -> None:
    """The command: runs all variants and writes the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.demo_controls", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--workdir", default="runs/demo_controls", help="folder of the runs")
    parser.add_argument("--out", default=str(ROOT / "benchmarks" / "results" / "demo_controls.json"))
    parsed = parser.parse_args(argv)
    with user_errors_in_one_line():
        runs = [measure(name, seed, pathlib.Path(parsed.workdir)) for name in VARIANTS for seed in SEEDS[name]]
    machine = {
        "python": platform.python_version(),
        "processor": platform.machine(),
        **{package: version(package) for package in ("jax", "flax", "optax", "numpy")},
    }
    means: dict[str, dict[str, Any]] = {
        name: {
            task: {
                "top1": [run[task]["top1"] for run in runs if run["variant"] == name],
                "mean": float(np.mean([run[task]["top1"] for run in runs if run["variant"] == name])),
            }
            for task in ("seen", "heldout", "heldout_among_all")
        }
        for name in VARIANTS
    }
    pathlib.Path(parsed.out).parent.mkdir(parents=True, exist_ok=True)
    write_json(parsed.out, {"machine": machine, "summary": means, "runs": runs})
    for name, tasks in means.items():
        shown = ", ".join(f"{task} {100 * found['mean']:.1f} %" for task, found in tasks.items())
        print(f"{name}: mean top-1 over {len(SEEDS[name])} seeds: {shown}")


if __name__ == "__main__":
    main()

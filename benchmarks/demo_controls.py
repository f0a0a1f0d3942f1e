"""What the demo's accuracy rests on: as it is, with shuffled captions, with other text towers, with a broken lock.

    python -m benchmarks.demo_controls

Writes ``benchmarks/results/demo_controls.json``. Each run is the demo with something changed:

* ``demo``: nothing;
* ``shuffled captions``: the training species exchange their names, and with them their captions; the held-out
  species keep theirs. Photos, classes and evaluation stay the same. What a model learns of the names of seen
  species is then worth nothing for others, and held-out accuracy must fall to chance;
* ``from records``: ``configs/demo_records.py``, a transformer from scratch instead of letters and the closed form;
* ``broken lock``: the same, and the image tower starts from scratch and moves (lock ``uu``), as if its weights had been
  lost;
* ``end token``: the same with a text tower of two blocks read at the end token, instead of one block and the mean.
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import machine
from data_prep.conversion import convert
from data_prep.conversion.options import Options
from data_prep.sources import folder
from data_prep.sources.items import Source
from lit_jax.errors import user_errors_in_one_line
from lit_jax.main import main as command
from lit_jax.text.classes import ClassTable, read_class_table

ROOT = pathlib.Path(__file__).resolve().parent.parent
VARIANTS: dict[str, tuple[str, dict[str, str]]] = {
    "demo": ("demo", {}),
    "shuffled captions": ("demo", {}),
    "from records": ("demo_records", {}),
    "broken lock": ("demo_records", {"train.locks": "uu", "image.weights": ""}),
    "end token": ("demo_records", {"text.pool": "end", "text.depth": "2"}),
}
SEEDS = {
    "demo": (0, 1, 2), "shuffled captions": (0, 1, 2), "from records": (0, 1, 2), "broken lock": (0,),
    "end token": (0,),
}  # fmt: skip
TASKS = ("seen", "heldout", "heldout_among_all")
TOGETHER = ("seen", "unseen", "harmonic", "ausuc")


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
    config, overrides = VARIANTS[name]
    records = workdir / "records"
    if name == "shuffled captions":
        if not (workdir / f"shuffled_{seed}").exists():
            shuffled_records(workdir / "demo_photos", workdir / f"shuffled_{seed}", seed)
        records = workdir / f"shuffled_{seed}"
    run = workdir / f"{name.replace(' ', '_')}_{seed}"
    given = {"seed": str(seed), "data.records": str(records), **overrides}
    command([
        f"--config={ROOT / 'configs' / config}.py", f"--workdir={run}",
        *(f"--config.{option}={value}" for option, value in given.items()),
    ])  # fmt: skip
    found = json.loads((run / "results.json").read_text())
    for both in (found["gzsl"], found["best"]["results"]["gzsl"]):
        del both["curve"]  # hundreds of points
    return {"variant": name, "seed": seed, **found}


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean top-1 of each question over the seeds, and where both kinds of species are asked with a margin, of that."""
    found = {task: [run[task]["top1"] for run in runs] for task in TASKS}
    if all(run["gzsl"]["margin"] is not None for run in runs):
        found |= {f"with_margin_{name}": [run["gzsl"][name] for run in runs] for name in TOGETHER}
    return {task: {"top1": values, "mean": float(np.mean(values))} for task, values in found.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """The command: runs all variants and writes the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.demo_controls", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--workdir", default="runs/demo_controls", help="folder of the runs")
    parser.add_argument("--out", default="")
    parsed = parser.parse_args(argv)
    with user_errors_in_one_line():
        runs = [measure(name, seed, pathlib.Path(parsed.workdir)) for name in VARIANTS for seed in SEEDS[name]]
    means = {name: summary([run for run in runs if run["variant"] == name]) for name in VARIANTS}
    machine.write("demo_controls", {"summary": means, "runs": runs}, parsed.out)
    for name, tasks in means.items():
        shown = ", ".join(f"{task} {100 * found['mean']:.1f} %" for task, found in tasks.items())
        print(f"{name}, mean over {len(SEEDS[name])} seeds: {shown}")


if __name__ == "__main__":
    main()

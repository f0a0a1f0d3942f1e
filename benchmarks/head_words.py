r"""Words from a classifier's head: birds whose names were never read, and the head beside photos of some of them.

    python -m benchmarks.head_words --head HEAD/head.npz --head-classes HEAD/classes.csv \
        --embeddings CUB/inat_mobilenetv2.npz --ids CUB/splits.csv --classes CUB/classes.csv

Three questions to ``configs/birds_head.py``. Names never read: the rows of the head without those of any CUB species,
and no photo; all photos among the CUB species. All names: the rows of all species of the head and no photo; the photos
of the species that it has, among the CUB species. Head and photos: for each of the draws 0 to 4 of twenty held-out
species, the head without their rows and the training photos of the other eighty; the twenty among themselves, and all
photos among all species with the margin. The image tower has seen photos of 86 of the 100.
"""

import argparse
import csv
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from benchmarks import machine
from benchmarks.cub_holdouts import DRAWS, HELDOUT, imported
from benchmarks.cub_unseen import figures, spread_of
from data_prep import embeddings
from lit_jax import config as options
from lit_jax.data.embedding_store import open_store
from lit_jax.errors import user_errors_in_one_line
from lit_jax.evaluate import main as evaluate
from lit_jax.main import train
from lit_jax.text.classes import read_class_table

TEMPLATE = "{common_name}, {name}, {genus}, {family}, {order}"
SHOWN = ("top1", "seen", "unseen", "harmonic", "ausuc", "plain_seen", "plain_unseen")


def with_head(parsed: argparse.Namespace, folder: pathlib.Path, ids: str, *more: str) -> pathlib.Path:
    """A store of the head's rows and the photos."""
    if not (folder / "info.json").exists():
        embeddings.main([
            f"--head={parsed.head}", "--classes", parsed.head_classes, parsed.classes, "--embeddings",
            parsed.embeddings, f"--ids={ids}", f"--template={TEMPLATE}", f"--out={folder}", *more,
        ])  # fmt: skip
    return folder


def run(store: pathlib.Path, workdir: pathlib.Path, **overrides: str) -> dict[str, Any]:
    """The results of the config on a store."""
    given = {"data.store": str(store), **{name.replace("__", "."): value for name, value in overrides.items()}}
    config, _ = options.load(machine.ROOT / "configs" / "birds_head.py", given)
    with machine.Clock() as clock:
        results = train(config, workdir)
    return {**results, "cpu_s": clock.cpu, "wall_s": clock.wall}


def never_read(parsed: argparse.Namespace, workdir: pathlib.Path) -> dict[str, Any]:
    """Names of none of the species in the photos are read."""
    store = with_head(parsed, workdir / "store_never", parsed.ids, f"--leave-out={parsed.classes}")
    found = run(store, workdir / "never")
    return {**found["heldout"], "cpu_s": found["cpu_s"], "rows": open_store(store).examples("train")}


def all_names(parsed: argparse.Namespace, workdir: pathlib.Path) -> dict[str, Any]:
    """Names of all species of the head are read, and no photo."""
    with open(parsed.ids, newline="", encoding="utf-8") as file:
        files = [row["file"] for row in csv.DictReader(file)]
    ids = workdir / "all_aside.csv"
    ids.write_text("file,split\n" + "".join(f"{name},validation\n" for name in files), encoding="utf-8")
    store = with_head(parsed, workdir / "store_all", str(ids))
    found = run(store, workdir / "all", data__seen_split="validation")
    out = workdir / "all.json"
    evaluate([f"--checkpoint={workdir / 'all'}", f"--store={store}", f"--classes={parsed.classes}", f"--out={out}",
              "--split=validation", "--no-page"])  # fmt: skip
    known = set(open_store(store).classes_in("train"))
    judged = [row for row in json.loads(out.read_text())["per_class"] if row["id"] in known]
    images = sum(row["images"] for row in judged)
    top1 = sum(row["top1"] * row["images"] for row in judged) / images
    return {"top1": top1, "species": len(judged), "images": images, "cpu_s": found["cpu_s"]}


def beside_photos(parsed: argparse.Namespace, workdir: pathlib.Path, seed: int) -> dict[str, Any]:
    """The head without the twenty species of a draw, and the training photos of the other eighty."""
    drawn = open_store(imported(parsed, workdir / f"store_cub_{seed}", f"--heldout={HELDOUT}", f"--seed={seed}"))
    table = read_class_table(drawn.class_table)
    names = workdir / f"heldout_{seed}.txt"
    held = table.subset(drawn.classes_in("heldout"))
    names.write_text("\n".join(held.columns["common_name"]) + "\n", encoding="utf-8")
    store = with_head(parsed, workdir / f"store_{seed}", parsed.ids, f"--heldout-classes={names}")
    found = run(store, workdir / f"both_{seed}", data__seen_split="validation", evaluation__margin_folds="5",
                seed=str(seed))  # fmt: skip
    return {**figures(found["heldout"]["top1"], found["gzsl"]), "cpu_s": found["cpu_s"]}


def main(argv: Sequence[str] | None = None) -> None:
    """The command: the three questions, the tables, the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.head_words", description=(__doc__ or "").split("\n")[0])
    for name in ("head", "head-classes", "embeddings", "ids", "classes"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--workdir", default="runs/head_words")
    parser.add_argument("--out", default="")
    parsed = parser.parse_args(argv)
    workdir = pathlib.Path(parsed.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    with user_errors_in_one_line():
        never, every = never_read(parsed, workdir), all_names(parsed, workdir)
        draws = [beside_photos(parsed, workdir, seed) for seed in range(DRAWS)]
    spread = {name: spread_of([draw[name] for draw in draws]) for name in SHOWN}
    print(machine.table(["names", "photos", "top-1", "top-5"], [
        ["never read, among 100", str(never["images"]), f"{100 * never['top1']:.1f} %", f"{100 * never['top5']:.1f} %"],
        [f"all read, {every['species']} species among 100", str(every["images"]), f"{100 * every['top1']:.1f} %", ""],
    ]))  # fmt: skip
    print(machine.table(["head and photos of 80", "mean", "each draw"], [
        [name, f"{100 * one['mean']:.1f} ± {100 * one['sd']:.1f}", " ".join(f"{100 * v:.1f}" for v in one["values"])]
        for name, one in spread.items()
    ]))  # fmt: skip
    machine.write("head_words", {
        "never_read": never, "all_names": every, "heldout": HELDOUT, "spread": spread, "draws": draws,
    }, parsed.out)  # fmt: skip


if __name__ == "__main__":
    main()

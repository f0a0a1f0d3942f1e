r"""CUB-100 with one frozen tower: zero-shot at every rank, calibration and retrieval beside what labels could do.

    python -m data_prep.embeddings --embeddings CUB/inat_mobilenetv2.npz --ids CUB/splits.csv \
        --classes CUB/classes.csv --out data/cub_store
    python -m benchmarks.cub_yardsticks --store data/cub_store

Trains ``configs/cub_embeddings.py`` on the store, evaluates it by its captions and by the templates of
``configs/species_templates.txt``, and fits linear probes and asks nearest neighbours on the same features.
"""

import argparse
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import machine
from lit_jax import config as options
from lit_jax.base import console
from lit_jax.data import embedding_store
from lit_jax.errors import user_errors_in_one_line
from lit_jax.evaluation import probe, report
from lit_jax.main import train
from lit_jax.text.prompts import read_templates
from lit_jax.trained import loading

TEMPLATES = machine.ROOT / "configs" / "species_templates.txt"
SHOTS = (1, 2, 4, 8, 16, 0)
KEPT = ("top1", "top5", "mean_per_class_top1", "images", "candidates", "ranks", "calibration", "retrieval")


def zero_shot(folder: pathlib.Path, workdir: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model's evaluations, by its captions and by the templates; the lists of what is hard are left out."""
    config, _ = options.load(
        machine.ROOT / "configs" / "cub_embeddings.py", {"data.store": str(folder), "evaluation.every_epochs": "0"}
    )
    train(config, workdir)
    model, data = loading.load(workdir, step="latest"), embedding_store.open_store(folder)
    found = {}
    for name, templates in (("captions", ()), ("templates", read_templates(TEMPLATES))):
        result = report.evaluate(model, data, "validation", report.Words(templates=templates))
        ranks = {
            rank: {key: value for key, value in row.items() if key != "hardest"}
            for rank, row in result["ranks"].items()
        }
        found[name] = {key: result[key] for key in KEPT} | {"ranks": ranks}
    return found["captions"], found["templates"]


def rows_of(
    captions: Mapping[str, Any], templates: Mapping[str, Any], probes: Sequence[Mapping[str, Any]]
) -> list[list[str]]:
    """The table: one row a way of naming."""
    rows = [
        [
            name,
            "captions of all",
            *_rates(found),
            *(_percent(found["ranks"][rank]["top1"]) for rank in ("genus", "family", "order")),
        ]
        for name, found in (
            ("zero-shot, captions", captions),
            (f"zero-shot, {len(read_templates(TEMPLATES))} templates", templates),
        )
    ]
    for row in probes:
        labels = "all" if not row["shots"] else f"{row['shots']} a species"
        rows.append([row["method"], labels, *_rates(row), "", "", ""])
    return rows


def _rates(found: Mapping[str, Any]) -> list[str]:
    spread = f" ± {100 * found['top1_sd']:.1f}" if found.get("draws", 1) > 1 else ""
    return [f"{100 * found['top1']:.1f}{spread} %", _percent(found["top5"])]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def main(argv: Sequence[str] | None = None) -> None:
    """The command: prints the tables and writes the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cub_yardsticks", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--store", type=pathlib.Path, required=True, help="embedding store of CUB's photos, official split"
    )
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/cub_yardsticks"))
    parser.add_argument("--out", default="")
    parsed = parser.parse_args(argv)
    with user_errors_in_one_line(), machine.Clock() as clock:
        captions, templates = zero_shot(parsed.store, parsed.workdir)
        data = embedding_store.open_store(parsed.store)
        classes = data.classes_in("train")
        train, test = (probe.read_labelled(data, split, classes) for split in ("train", "validation"))
        shots = probe.Yardsticks(SHOTS)
        probes = probe.probe(train, test, len(classes), shots, tell=lambda line: print(line, flush=True))
    headings = ["", "labels", "top-1", "top-5", "genus", "family", "order"]
    print(machine.table(headings, rows_of(captions, templates, probes)))
    for name, found in (("captions", captions), ("templates", templates)):
        measured, ways = found["calibration"], found["retrieval"]
        print(
            f"{name}: calibration error {_percent(measured['before']['ece'])}, {_percent(measured['after']['ece'])} at "
            f"temperature {measured['temperature']:.2f}; recall@1/5/10 photo to caption "
            f"{'/'.join(_percent(ways['image_to_text'][f'recall@{k}']) for k in (1, 5, 10))}, caption to photo "
            f"{'/'.join(_percent(ways['text_to_image'][f'recall@{k}']) for k in (1, 5, 10))}"
        )
    content = {"captions": captions, "templates": templates, "probes": probes}
    machine.write("cub_yardsticks", {**content, "wall_s": clock.wall, "cpu_s": clock.cpu}, parsed.out)
    print(f"in {console.duration(clock.wall)}")


if __name__ == "__main__":
    main()

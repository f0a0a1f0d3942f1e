r"""MiniLM as the text tower, tuned or locked, against the same tower from scratch, on species held out of training.

    python -m benchmarks.pretrained_text --embeddings CUB/inat_mobilenetv2.npz --ids CUB/splits.csv \
        --classes CUB/classes.csv

Five times twenty of the 100 species are drawn and held out, as in `cub_holdouts`, and told apart among themselves by
their names alone. Each draw is trained three ways from the same store, with the same captions, tokens, epochs and
batch: ``LU`` begins with MiniLM's published weights and moves them, ``LL`` keeps them and learns the two projections,
``Lu`` is the same tower with weights drawn at random. Each way has the learning rate that did best for species held out
of the *training* photos (draw 99, which is none of the five).
"""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.cub_holdouts import DRAWS, HELDOUT, imported
from lit_jax import config as options
from lit_jax.errors import user_errors_in_one_line
from lit_jax.main import train

EPOCHS = 8
# Of those tried: LL 1e-3, 1e-2, 3e-2; LU 1e-3 with 0.1, 0.3 and 1 of it for MiniLM; Lu 1e-3, 3e-4, 1e-4.
WAYS: dict[str, dict[str, str]] = {
    "LU": {"optimizer.pretrained_scale": "0.3"},
    "LL": {"optimizer.lr": "1e-2"},
    "Lu": {"text.weights": "", "optimizer.lr": "3e-4"},
}
NAMES = {"LU": "MiniLM, tuned", "LL": "MiniLM, locked", "Lu": "the same tower from scratch"}
TASKS = ("seen", "heldout", "heldout_among_all")


def trained(way: str, folder: pathlib.Path, workdir: pathlib.Path, seed: int) -> dict[str, Any]:
    """Results and times of a run."""
    overrides = {"data.store": str(folder), "seed": str(seed), "train.locks": way, "train.epochs": str(EPOCHS)}
    config, _ = options.load(machine.ROOT / "configs" / "cub_minilm.py", {**overrides, **WAYS[way]})
    with machine.Clock() as clock:
        results = train(config, workdir / f"{way}_{seed}")
    return {"seed": seed, **results, "wall_s": clock.wall, "cpu_s": clock.cpu}


def spread(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean, standard deviation and values of top-1 over the draws, by task."""
    found = {}
    for task in TASKS:
        values = [run[task]["top1"] for run in runs]
        found[task] = {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)), "values": values}
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """The command: fifteen runs, the table, the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pretrained_text", description=(__doc__ or "").split("\n")[0]
    )
    for name in ("embeddings", "ids", "classes"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--workdir", default="runs/pretrained_text")
    parser.add_argument("--out", default="")
    parsed = parser.parse_args(argv)
    workdir = pathlib.Path(parsed.workdir)
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    with user_errors_in_one_line():
        for seed in range(DRAWS):
            folder = imported(parsed, workdir / f"store_{seed}", f"--heldout={HELDOUT}", f"--seed={seed}")
            for way in WAYS:
                runs[way].append(trained(way, folder, workdir, seed))
    found = {way: spread(of) for way, of in runs.items()}
    rows = [
        [NAMES[way], *(f"{100 * one['mean']:.1f} ± {100 * one['sd']:.1f} %" for one in found[way].values()),
         " ".join(f"{100 * value:.1f}" for value in found[way]["heldout"]["values"]),
         f"{np.mean([run['cpu_s'] for run in runs[way]]):.0f}"]
        for way in WAYS
    ]  # fmt: skip
    print(machine.table(["text tower", "seen", "held out, of 20", "among 100", "held out, each draw", "CPU s"], rows))
    paired = {
        way: [a - b for a, b in zip(found[way]["heldout"]["values"], found["Lu"]["heldout"]["values"], strict=True)]
        for way in ("LU", "LL")
    }
    content = {"heldout": HELDOUT, "epochs": EPOCHS, "ways": WAYS, "spread": found, "better_than_scratch": paired}
    machine.write("pretrained_text", {**content, "runs": runs}, parsed.out)


if __name__ == "__main__":
    main()

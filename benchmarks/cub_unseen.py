r"""CUB-100, five times twenty species without a photo: the closed form, the same as a model, and trained from there.

    python -m benchmarks.cub_unseen --embeddings CUB/inat_mobilenetv2.npz --ids CUB/splits.csv --classes CUB/classes.csv

For each of the draws 0 to 4 of twenty held-out species: the closed form as `lit_jax.probe` has it, with photos as they
are and whitened; ``configs/cub_unseen.py``, which keeps the closed form of its text tower as a model; and with
``--trained`` the same trained from there for five epochs. Held-out species are named among themselves (ZSL), and among
all hundred with the margin (GZSL). Kinds of words, whitening, penalty and margin are chosen in each draw on training
species held out in turn; nothing is chosen on the photos that are judged. The tower may know the species: held out
means held out of the text side.
"""

import argparse
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.cub_holdouts import DRAWS, HELDOUT, imported
from lit_jax import config as options
from lit_jax.errors import user_errors_in_one_line
from lit_jax.evaluate import main as evaluate
from lit_jax.main import train

TEMPLATE = "{common_name}, {genus}, {specific_epithet}, {family}, {order}"
KEPT, TRAINED = "cub_unseen: the closed form kept", "cub_unseen: trained from there"
RUNS = {KEPT: {}, TRAINED: {"train.epochs": "5"}}
FIGURES = ("top1", "seen", "unseen", "harmonic", "ausuc", "plain_seen", "plain_unseen")


def figures(top1: float, found: dict[str, Any]) -> dict[str, Any]:
    """What is compared of a draw."""
    plain = found["without_margin"]
    both = {name: found[name] for name in ("seen", "unseen", "harmonic", "ausuc", "margin")}
    return {"top1": top1, **both, "plain_seen": plain["seen"], "plain_unseen": plain["unseen"]}


def spread_of(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation and the values themselves."""
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)), "values": list(values)}


def rows_of(spread: Mapping[str, Mapping[str, Any]], means: Sequence[str]) -> list[list[str]]:
    """A row of a table for each method: among the held-out species, each draw, some means, and H."""
    return [
        [name, f"{100 * one['top1']['mean']:.1f} ± {100 * one['top1']['sd']:.1f} %",
         " ".join(f"{100 * value:.1f}" for value in one["top1"]["values"]),
         *(f"{100 * one[figure]['mean']:.1f} %" for figure in means),
         f"{one['harmonic']['mean']:.3f} ± {one['harmonic']['sd']:.3f}"]
        for name, one in spread.items()
    ]  # fmt: skip


def of_draw(
    folder: pathlib.Path, workdir: pathlib.Path, seed: int, runs: Sequence[str] = (KEPT,)
) -> dict[str, dict[str, Any]]:
    """The figures of each method on one draw."""
    rows = {}
    for name in runs:
        overrides = RUNS[name]
        given = {"data.store": str(folder), "seed": str(seed), **overrides}
        config, _ = options.load(machine.ROOT / "configs" / "cub_unseen.py", given)
        with machine.Clock() as clock:
            results = train(config, workdir / f"{name.split()[-1]}_{seed}")
        rows[name] = figures(results["heldout"]["top1"], results["gzsl"]) | {"cpu_s": clock.cpu, "wall_s": clock.wall}
    out = workdir / f"evaluation_{seed}.json"
    evaluate([f"--checkpoint={workdir / f'kept_{seed}'}", "--split=heldout", f"--store={folder}", f"--out={out}"])
    for row in json.loads(out.read_text())["closed_form"]:
        more = {key: row[key] for key in ("words", "whitening", "penalty", "inner")}
        rows[row["method"]] = figures(row["top1"], row["gzsl"]) | more
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """The command: five draws, the table, the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cub_unseen", description=(__doc__ or "").split("\n")[0])
    for name in ("embeddings", "ids", "classes"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--trained", action="store_true", help="train from the closed form too, which takes longer")
    parser.add_argument("--workdir", default="runs/cub_unseen")
    parser.add_argument("--out", default="")
    parsed = parser.parse_args(argv)
    workdir = pathlib.Path(parsed.workdir)
    draws = []
    with user_errors_in_one_line():
        for seed in range(DRAWS):
            folder = imported(
                parsed, workdir / f"store_{seed}", f"--heldout={HELDOUT}", f"--seed={seed}", f"--template={TEMPLATE}"
            )
            draws.append(of_draw(folder, workdir, seed, tuple(RUNS) if parsed.trained else (KEPT,)))
    spread = {
        name: {figure: spread_of([draw[name][figure] for draw in draws]) for figure in FIGURES} for name in draws[0]
    }
    rows = rows_of(spread, ("plain_seen", "plain_unseen", "seen", "unseen"))
    columns = ["method", "ZSL of 20", "each draw", "S no margin", "U no margin", "S", "U", "H"]
    print(machine.table(columns, rows))
    gain = {
        name: float(np.mean([draw[name]["top1"] - draw["closed form, photos as they are"]["top1"] for draw in draws]))
        for name in spread
    }
    machine.write("cub_unseen", {"heldout": HELDOUT, "spread": spread, "gain": gain, "draws": draws}, parsed.out)


if __name__ == "__main__":
    main()

"""Draws how much is answered and how much of it is right, by how sure an answer must be, for docs/predict.md.

python -m docs.make_sure --model runs/demo --photos data/demo_photos --out docs/sure.png

Photos of the validation split are of species that had photos in training, those of the held-out split of others; all
are named among all classes of the model. The photos' folder holds ``splits.csv`` as the demo draws it. The rows of the
page's table are printed.
"""

import argparse
import csv
import pathlib
from collections.abc import Mapping, Sequence

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import lit_jax
from lit_jax.evaluation.ranks import SPECIES
from lit_jax.prediction.answers import Answer, Ladder, Similarities, ladder
from lit_jax.prediction.choices import Choices
from lit_jax.prediction.model import Model

matplotlib.use("Agg")
matplotlib.rcParams["text.parse_math"] = False

SURE = np.arange(100) / 100
SHOWN = (0, 0.5, 0.8, 0.95)  # at 0 the likeliest species is the answer, as without --sure
NARROW = ((SPECIES,), (SPECIES, "genus", "family"))
KINDS = {"validation": "species with photos in training", "heldout": "species without a photo"}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="runs/demo")
    parser.add_argument("--photos", type=pathlib.Path, default=pathlib.Path("data/demo_photos"))
    parser.add_argument("--out", default="docs/sure.png")
    parsed = parser.parse_args()
    with open(parsed.photos / "splits.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    model = lit_jax.load(parsed.model)
    chosen = model.choices()
    found = {}
    for split in KINDS:
        own = [row for row in rows if row["split"] == split]
        found[split] = curve(
            model, chosen, [str(parsed.photos / row["file"]) for row in own], [r["class"] for r in own]
        )
        for sure in SHOWN:
            shares = " | ".join(f"{100 * share:.1f} %" for share in found[split][np.argmin(np.abs(SURE - sure))])
            print(f"| {KINDS[split]}, {len(own)} | {sure or 'none'} | {shares} |")
    drawn(found).savefig(parsed.out, dpi=90)
    print(f"wrote {parsed.out}")


def curve(model: Model, chosen: Choices, photos: Sequence[str], species: Sequence[str]) -> np.ndarray:
    """The columns of the page's table for each of `SURE`.

    Returns:
        `[len(SURE), 5]`, as shares: photos that are answered, answers that are right, photos named to species, such
        answers that are right, photos named to family or narrower. NaN where there are no such answers.
    """
    scores = Similarities(chosen.vectors, chosen.less)(np.stack(list(model.embed_photos(photos))))
    likely = model.confidence.probabilities(scores, chosen.seen)
    steps = ladder(chosen.table, chosen.seen)
    truth = [chosen.table.names.index(name) for name in species]
    points = []
    for sure in SURE:
        answers = steps.climb(likely, SPECIES, float(sure))
        right = np.array([holds(one, row, steps) for one, row in zip(answers, truth, strict=True)])
        said, named, narrow = (np.array([one.rank in ranks for one in answers]) for ranks in (steps.rungs, *NARROW))
        of = [right[kept].mean() if kept.any() else np.nan for kept in (said, named)]
        points.append([said.mean(), of[0], named.mean(), of[1], narrow.mean()])
    return np.array(points)


def holds(answer: Answer, row: int, steps: Ladder) -> bool:
    """Whether an answer, at whatever rank, is true of a species."""
    if not answer.rank:
        return False
    groups = steps.rungs[answer.rank]
    group = int(groups.of_class[row])
    return group >= 0 and groups.names[group] == answer.name


def drawn(found: Mapping[str, np.ndarray]) -> Figure:
    """Two panels: what `--sure` does, and precision against coverage."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for (split, name), colour in zip(KINDS.items(), ("#00796b", "#c2410c"), strict=True):
        answered, correct, named = 100 * found[split][:, :3].T
        left.plot(100 * SURE, correct, color=colour, label=f"{name}: right")
        left.plot(100 * SURE, answered, color=colour, linestyle="--", label="answered, at any rank")
        left.plot(100 * SURE, named, color=colour, linestyle=":", label="named to species")
        right.plot(answered, correct, color=colour, label=name)
        at = np.argmin(np.abs(SURE - 0.8))
        right.plot(answered[at], correct[at], "o", color=colour)
        right.annotate("--sure 0.8", (answered[at], correct[at]), textcoords="offset points", xytext=(6, 6))
    left.plot([0, 100], [0, 100], color="0.7", linewidth=1, zorder=0)
    left.set(xlabel="--sure, %", ylabel="share of photos or answers, %", xlim=(0, 100), ylim=(0, 101))
    right.set(xlabel="photos answered, %", ylabel="answers that are right, %", ylim=(0, 101))
    for axes in (left, right):
        axes.grid(color="0.92")
        axes.legend(fontsize=8, loc="lower left")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()

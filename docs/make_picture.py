"""Draws the README's picture from a finished demo: held-out species, and what the model called them among all.

python -m docs.make_picture --run runs/demo --out docs/demo.png

The question is the hard one: all species may be the answer, those with photos in training too, held back by the margin
that the run fitted. The photos are drawn at random by a seed, one of each species, and shown whether right or wrong.
"""

import argparse
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from lit_jax import models
from lit_jax.data import record_batches
from lit_jax.data.images import Pictures
from lit_jax.data.records import open_records
from lit_jax.embedding.trained import Trained
from lit_jax.models import building
from lit_jax.text.captions import class_captions
from lit_jax.text.classes import ClassTable, read_class_table
from lit_jax.trained import loading

matplotlib.use("Agg")
matplotlib.rcParams["text.parse_math"] = False

ROWS, COLUMNS = 2, 7


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--run", default="runs/demo")
    parser.add_argument("--out", default="docs/demo.png")
    parser.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args()
    trained = loading.load(parsed.run, step="latest", with_image_tower=True)
    records = open_records(trained.config.data.records)
    table = read_class_table(records.class_table)
    (batch,) = record_batches.evaluation_batches(
        records, "heldout", batch_size=records.examples("heldout"), pictures=Pictures(trained.config.image.size)
    )
    seen = np.isin(table.ids, trained.about.train_classes)
    scores = similarities(trained, batch["image"], class_captions(table, records.templates))
    best = (scores - trained.about.margin["margin"] * seen).argmax(1)
    labels = np.array([table.index_of(class_id) for class_id in batch["class_id"].tolist()])
    figure = drawn(batch["image"], labels, best, table, seen, np.random.default_rng(parsed.seed))
    share = 100 * float((best == labels).mean())
    figure.suptitle(
        f"{int((~seen).sum())} species that no training photo showed, named among all {len(table)} from their names "
        f"alone: {share:.0f} % right, {100 / len(table):.1f} % by guessing; * has photos in training",
        fontsize=11,
    )
    figure.savefig(pathlib.Path(parsed.out), dpi=90)
    print(f"wrote {parsed.out}; top-1 {share:.2f} % of {len(labels)} photos; step {trained.step}")


def similarities(trained: Trained, images: np.ndarray, captions: Sequence[Sequence[str]]) -> np.ndarray:
    """`[N, K]` similarities of photos with the first caption of each class."""
    read = building.reading(trained.config.text, trained.tokenizer)
    classes = models.embed_text(trained.model, trained.params, jnp.asarray(read([texts[0] for texts in captions])))
    features = jax.jit(lambda x: models.image_features(trained.model, trained.params["image"], x))(images)
    return np.asarray(models.project(trained.model, trained.params, features) @ classes.T)


def drawn(
    images: np.ndarray, labels: np.ndarray, best: np.ndarray, table: ClassTable, seen: np.ndarray,
    draw: np.random.Generator,
) -> Figure:  # fmt: skip
    """A random photo of each of some species, and what it was called: green if right."""
    species = draw.permutation(np.unique(labels))[: ROWS * COLUMNS]
    figure, axes = plt.subplots(ROWS, COLUMNS, figsize=(15, 5.6), constrained_layout=True)
    for axis, one in zip(axes.flat, species, strict=True):
        at = int(draw.choice(np.flatnonzero(labels == one)))
        called = int(best[at])
        right = called == one
        axis.imshow(images[at], interpolation="bicubic")
        axis.set_axis_off()
        truth = "" if right else f"\nis {table.row(int(one))['common_name']}"
        name = f"{table.row(called)['common_name']}{'*' * bool(seen[called])}\n{table.names[called]}"
        axis.set_title(name + truth, fontsize=8, color="#1a6b2f" if right else "#b02020")
    return figure


if __name__ == "__main__":
    main()

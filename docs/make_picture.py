"""Draws the README's picture from a finished demo: held-out species, and what the model called them.

python -m docs.make_picture --run runs/demo --out docs/demo.png

The photos are drawn at random by a seed, one of each species, and shown whether right or wrong.
"""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from lit_jax import models
from lit_jax.data import record_batches
from lit_jax.data.images import Pictures
from lit_jax.data.records import open_records
from lit_jax.text.captions import class_captions
from lit_jax.text.classes import read_class_table
from lit_jax.trained import loading

matplotlib.use("Agg")

ROWS, COLUMNS = 2, 7


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--run", default="runs/demo")
    parser.add_argument("--out", default="docs/demo.png")
    parser.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args()
    trained = loading.load(parsed.run, step="latest")
    records = open_records(trained.config.data.records)
    present = records.classes_in("heldout")
    table = read_class_table(records.class_table).subset(present)
    tokens = trained.tokenizer.encode(
        [texts[0] for texts in class_captions(table, records.templates)], trained.config.text.context
    )
    class_emb = models.embed_text(trained.model, trained.params, jnp.asarray(tokens))
    (batch,) = record_batches.evaluation_batches(
        records, "heldout", batch_size=records.examples("heldout"), pictures=Pictures(trained.config.image.size)
    )
    features = jax.jit(lambda x: models.image_features(trained.model, trained.params["image"], x))(batch["image"])
    scores = np.asarray(models.project(trained.model, trained.params, features) @ class_emb.T)
    best = scores.argmax(1)
    labels = np.array([table.index_of(class_id) for class_id in batch["class_id"].tolist()])
    draw = np.random.default_rng(parsed.seed)
    chosen = [int(draw.choice(np.flatnonzero(labels == i))) for i in draw.permutation(len(table))[: ROWS * COLUMNS]]
    figure, axes = plt.subplots(ROWS, COLUMNS, figsize=(15, 5.3), constrained_layout=True)
    for axis, i in zip(axes.flat, chosen, strict=True):
        right = best[i] == labels[i]
        axis.imshow(batch["image"][i], interpolation="bicubic")
        axis.set_axis_off()
        called = f"{table.row(int(best[i]))['common_name']}\n{table.names[best[i]]}"
        truth = "" if right else f"\n(is {table.row(int(labels[i]))['common_name']})"
        axis.set_title(called + truth, fontsize=8, color="#1a6b2f" if right else "#b02020")
    share = 100 * float((best == labels).mean())
    figure.suptitle(
        f"{len(table)} species that no training photo showed, named from their names alone: "
        f"{share:.0f} % right, {100 / len(table):.1f} % by guessing",
        fontsize=11,
    )
    figure.savefig(pathlib.Path(parsed.out), dpi=90)
    print(f"wrote {parsed.out}; top-1 {share:.2f} % of {len(labels)} photos; step {trained.step}")


if __name__ == "__main__":
    main()

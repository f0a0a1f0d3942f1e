r"""Evaluation at iNaturalist's size: 100,000 photos among 10,000 species in 80 templates, from a store.

    python -m data_prep.clip_templates --out data/clip_templates.txt
    python -m benchmarks.evaluation_scale --classes CATEGORIES --templates data/clip_templates.txt

The photos are made up: features of width 1024 in float16, as a ViT-L/16 would leave them, that share parts with the
relatives of their species. The species are the real ones, and so are the prompts. The text tower is small (one block,
128 wide), for a CPU has to embed 800,000 prompts; how long larger ones take is a matter of their arithmetic. Each
command runs in a process of its own: the evaluation with no prompt embedded yet, the same again, and retrieval of
100,000 by 100,000 embeddings of width 512.
"""

import argparse
import json
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import machine
from lit_jax import config as options
from lit_jax import evaluate
from lit_jax.data import embedding_store
from lit_jax.embedding import kept_embeddings
from lit_jax.errors import user_errors_in_one_line
from lit_jax.evaluation import retrieval
from lit_jax.evaluation.ranks import grouped
from lit_jax.main import train
from lit_jax.text.captions import TEMPLATE, class_captions
from lit_jax.text.classes import ClassTable, read_class_table, write_class_table
from lit_jax.text.tokenizers import train_sentencepiece

WIDTH, PHOTOS, SHARD_ROWS = 1024, {"train": 10, "validation": 10}, 1 << 14
PIECES = 4096


def make_store(classes: pathlib.Path, folder: pathlib.Path) -> embedding_store.Store:
    """Ten made-up photos a species to learn from, and ten to be judged on."""
    if embedding_store.is_store(folder):
        return embedding_store.open_store(folder)
    table = read_class_table(classes)
    aside = embedding_store.begin(folder, {"made by": "benchmarks.evaluation_scale"}, restart=True)
    write_class_table(table, aside / embedding_store.CLASS_TABLE)
    captions = (text for texts in class_captions(table, (TEMPLATE,)) for text in texts)
    train_sentencepiece(captions, aside / embedding_store.TOKENIZER, vocab_size=PIECES)
    draw = np.random.default_rng(0)
    centres = _centres(table, draw)
    splits = {split: tuple(_write_split(aside, split, each, table, centres, draw)) for split, each in PHOTOS.items()}
    return embedding_store.finish(embedding_store.Store(
        directory=aside, splits=splits, views=dict.fromkeys(splits, 1), width=WIDTH, dtype="float16",
        record_lengths={split: tuple(shard.examples for shard in shards) for split, shards in splits.items()},
        tower={"kind": embedding_store.GIVEN, "name": "made up", "width": WIDTH, "digest": "made up"},
        class_table=aside / embedding_store.CLASS_TABLE, tokenizer=aside / embedding_store.TOKENIZER,
        templates=(TEMPLATE,), drop_repeats=False, class_ids=dict.fromkeys(splits, table.ids), records="made up",
    ), folder)  # fmt: skip


def _centres(table: ClassTable, draw: np.random.Generator) -> np.ndarray:
    """`[K, WIDTH]`: a part of its own for each species, and parts shared with genus, family, order and class."""
    centres = 0.5 * draw.normal(size=(len(table), WIDTH))
    for rank in ("genus", "family", "order", "class"):
        groups = grouped(table, rank)
        if groups is not None:
            centres += draw.normal(size=(len(groups.names), WIDTH))[groups.of_class]
    return centres.astype(np.float32)


def _write_split(
    aside: pathlib.Path, split: str, each: int, table: ClassTable, centres: np.ndarray, draw: np.random.Generator
) -> list[embedding_store.StoreShard]:
    rows = draw.permutation(np.repeat(np.arange(len(table)), each))
    bounds = embedding_store.shard_bounds(len(rows), SHARD_ROWS)
    shards = []
    for number, (first, stop) in enumerate(bounds):
        here = rows[first:stop]
        features = centres[here] + 1.5 * draw.normal(size=(len(here), WIDTH)).astype(np.float32)
        names = [f"{split}/{i}.jpg" for i in range(first, stop)]
        ids = np.array(table.ids)[here]
        name = embedding_store.shard_name(split, number, len(bounds))
        shards.append(embedding_store.write_shard(aside, name, features[:, None], ids, names, dtype="float16"))
    return shards


def trained_for(folder: pathlib.Path, workdir: pathlib.Path) -> None:
    """A few minutes of training, so that there is something to be evaluated."""
    flat = {
        "input": "store", "data.store": str(folder), "image.tower": "given", "image.width": WIDTH,
        "data.heldout_split": "",
        "text.width": 128, "text.depth": 1, "text.heads": 4, "text.pool": "mean", "optimizer.lr": 3e-3,
        "optimizer.warmup_epochs": 0.5, "train.epochs": 4.0, "train.batch_size": 4096, "evaluation.every_epochs": 0.0,
        "checkpoint.every_epochs": 0.0, "evaluation.batch_size": 1024,
    }  # fmt: skip
    train(options.from_flat(flat, source="benchmark"), workdir)


def evaluated(workdir: pathlib.Path, templates: pathlib.Path, protocol: str) -> dict[str, Any]:
    """The command, with its time and memory."""
    out = workdir / f"scale-{protocol}.json"
    with machine.Clock() as clock:
        evaluate.main(
            [f"--checkpoint={workdir}", "--step=latest", "--split=validation", f"--templates={templates}",
             f"--protocol={protocol}", "--batch-size=1024", f"--out={out}"]
        )  # fmt: skip
    found = json.loads(out.read_text(encoding="utf-8"))
    kept = {name: found[name] for name in ("images", "candidates", "top1", "top5", "ceiling")}
    return {**kept, "templates": len(found["templates"]), **_used(clock)}


def retrieved(rows: int, width: int = 512) -> dict[str, Any]:
    """Recall of random pairs, each with a text of its own."""
    draw = np.random.default_rng(0)
    texts = draw.normal(size=(rows, width)).astype(np.float32)
    photos = texts + 4 * draw.normal(size=(rows, width)).astype(np.float32)
    texts, photos = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (texts, photos))
    with machine.Clock() as clock:
        found = retrieval.both_ways(photos, texts, np.arange(rows))
    return {"rows": rows, "width": width, **found, **_used(clock)}


def _used(clock: machine.Clock) -> dict[str, float]:
    return {"wall_s": clock.wall, "cpu_s": clock.cpu, "peak_gib": machine.peak_bytes() / 2**30}


def main(argv: Sequence[str] | None = None) -> None:
    """The command: prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evaluation_scale", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--classes", type=pathlib.Path, required=True, help="class table of iNaturalist 2021")
    parser.add_argument("--templates", type=pathlib.Path, required=True, help="prompt templates, one a line")
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/evaluation_scale"))
    parser.add_argument("--pairs", type=int, default=100_000, help="rows of each side of the retrieval")
    parser.add_argument("--side", default="", help=argparse.SUPPRESS)
    parser.add_argument("--out", default="")
    parsed = parser.parse_args(argv)
    workdir = parsed.workdir.absolute()
    if parsed.side:
        own = (
            retrieved(parsed.pairs)
            if parsed.side == "retrieval"
            else evaluated(workdir / "run", parsed.templates, parsed.side)
        )
        print(json.dumps(own))
        return
    with user_errors_in_one_line():
        made = make_store(parsed.classes, workdir / "store")
        trained_for(made.directory, workdir / "run")
    shutil.rmtree(workdir / "run" / kept_embeddings.FOLDER, ignore_errors=True)  # of an earlier time
    given = [f"--classes={parsed.classes.absolute()}", f"--templates={parsed.templates.absolute()}"]
    given += [f"--workdir={workdir}", f"--pairs={parsed.pairs}"]
    sides = {"first": "recorded", "again": "recorded", "retrieval": "retrieval"}
    found = {
        name: machine.side("benchmarks.evaluation_scale", *given, f"--side={side}") for name, side in sides.items()
    }
    rows = [
        [name, *(f"{one[key]:,.1f}" for key in ("wall_s", "cpu_s", "peak_gib"))]
        if "failed" not in one
        else [name, one["failed"], "", ""]
        for name, one in found.items()
    ]
    print(machine.table(["", "clock, s", "CPU, s", "peak, GiB"], rows))
    machine.write("evaluation_scale", {"width": WIDTH, **found}, parsed.out)


if __name__ == "__main__":
    main()

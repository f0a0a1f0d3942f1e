"""What labels could do with the same features: ``python -m lit_jax.probe --store=data/cub_store``."""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from lit_jax.base import cluster, console, hosts
from lit_jax.base.command_line import Parser
from lit_jax.base.console import say
from lit_jax.base.files import replaceable, write_json
from lit_jax.data.dataset_folder import HELDOUT, check_split
from lit_jax.data.embedding_store import Store, open_store
from lit_jax.errors import UserError, user_errors_in_one_line
from lit_jax.evaluation import yardstick
from lit_jax.evaluation.probe import Labelled, Yardsticks, probe, read_labelled
from lit_jax.evaluation.tables import NOTHING, closed_form_table, tells
from lit_jax.text.classes import ClassTable, read_class_table

SHOTS = (1, 2, 4, 8, 16, 0)
"""Photos a class to learn from, if nothing else is asked; 0 for all."""
"""The split of species that are not trained on, where a store has it."""


def main(argv: Sequence[str] | None = None) -> None:
    """The command: prints the table and writes the JSON."""
    parsed = _parser().parse_args(argv)
    with user_errors_in_one_line():
        cluster.refuse_many_tasks()
        hosts.keep_compiled()
        store = open_store(parsed.store)
        for option, split in (("--train-split", parsed.train_split), ("--split", parsed.split)):
            check_split(split, store.splits, store.directory, option=option)
        out = pathlib.Path(parsed.out or f"runs/{store.directory.name}-probe-{parsed.split}.json")
        out.parent.mkdir(parents=True, exist_ok=True)
        replaceable(out, "--out", ("store", "rows"))
        table = read_class_table(store.class_table)
        heldout = _heldout(parsed, store, table)
        class_ids = store.classes_in(parsed.train_split)
        train = read_labelled(store, parsed.train_split, class_ids)
        shots = _shots(parsed.shots, train)
        rows = probe(
            train,
            read_labelled(store, parsed.split, class_ids),
            len(class_ids), Yardsticks(shots, parsed.draws, parsed.neighbours, parsed.seed),
            tell=lambda line: say(line, flush=True),
        )  # fmt: skip
        say(table_of(rows, len(class_ids)))
        splits = (parsed.train_split, parsed.split, heldout)
        closed = yardstick.measure(store, table, splits, yardstick.kinds_of(table), seed=parsed.seed) if heldout else []
        if closed:
            say(closed_form_table(closed))
        facts = {"store": store.fingerprint, "split": parsed.split, "classes": len(class_ids), "seed": parsed.seed}
        write_json(out, {**facts, "images": store.examples(parsed.split), "rows": rows, "closed_form": closed})
        say(f"written to {out}")


def _shots(asked: Sequence[int] | None, train: Labelled) -> Sequence[int]:
    """Numbers of photos a class: those that are asked for, else the usual ones for which there are photos.

    Raises:
        UserError: more are asked for than a class has; told before any work.
    """
    least = int(np.bincount(train.labels)[np.unique(train.labels)].min())
    few = [number for number in asked or SHOTS if number >= least]
    if few and asked:
        raise UserError(
            f"--shots: found {few[0]}, expected less than the {least} training photos of the smallest class"
        )
    if few:
        say(f"left out: {', '.join(map(str, few))} photos a class, for the smallest class has {least}", flush=True)
    return asked or [number for number in SHOTS if number < least]


def _heldout(parsed: argparse.Namespace, store: Store, table: ClassTable) -> str:
    """The split for the closed form; empty where there is none, or too few species to choose by, which is told."""
    asked = getattr(parsed, "heldout_split", None)
    if asked == "" or (asked is None and HELDOUT not in store.splits):
        return ""
    heldout = HELDOUT if asked is None else asked
    check_split(heldout, store.splits, store.directory, option="--heldout-split")
    others = [store.classes_in(split) for split in (parsed.train_split, parsed.split)]
    trained = {table.species_of[class_id] for class_ids in others for class_id in class_ids}
    both = [class_id for class_id in store.classes_in(heldout) if table.species_of[class_id] in trained]
    if both:
        raise UserError(
            f"--heldout-split {heldout}: found {len(both)} species that are in {parsed.train_split} or {parsed.split} "
            f"too ({table.label(both[0])}), expected others; choose another split, or '' for none"
        )
    reason = yardstick.why_not(store, table, (parsed.train_split, parsed.split, heldout))
    if reason:
        say(f"{reason}: no closed form for species without a photo", flush=True)
    return "" if reason else str(heldout)


def table_of(rows: Sequence[dict[str, Any]], classes: int) -> str:
    """The results as text, each photo named among so many classes; a dash where an accuracy cannot be below 1."""
    lines = []
    for row in rows:
        rates = []
        for name in ("top1", "top5", "mean_per_class_top1"):
            spread = f" ± {100 * row[f'{name}_sd']:.1f}" if row["draws"] > 1 else ""
            told = tells(name, classes)
            rates.append(f"{100 * row[name]:.2f}{spread} %" if told else NOTHING)
        lines.append([row["shots"] or "all", row["method"], *rates])
    return console.text_table(["labels a class", "method", "top-1", "top-5", "mean over classes"], lines, left=(1,))


def _parser() -> Parser:
    parser = Parser(
        prog="python -m lit_jax.probe",
        description="Linear probe and nearest neighbours on the features of a store: what labels could do with them; "
        "and the closed form from words for species without a photo.",
    )
    add = parser.add_argument
    add("--store", required=True, help="an embedding store")
    add("--train-split", default="train", help="split with the labels to learn from")
    add("--split", default="validation", help="split to be judged on, of the same species")
    add("--heldout-split", default=argparse.SUPPRESS, help="split of species that are not trained on, for the closed "
        f"form from words; '' for none (default: {HELDOUT}, if the store has it)")  # fmt: skip
    add(
        "--shots",
        type=_counts,
        help="photos a class to learn from (default: as many of 1,2,4,8,16 as fit, and all)",
    )
    add("--draws", type=int, default=3, help="how often few photos are drawn")
    add("--neighbours", type=_counts, default="1,5,20", help="how many nearest photos vote")
    add("--seed", type=int, default=0, help="of the draws")
    add("--out", default="", help="JSON to write (default: runs/STORE-probe-SPLIT.json)")
    return parser


def _counts(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part == "all" or (part.isdecimal() and int(part) > 0) for part in parts):
        raise argparse.ArgumentTypeError(f"found {text}, expected whole numbers above 0 such as 1,4,all")
    return tuple(0 if part == "all" else int(part) for part in parts)


if __name__ == "__main__":
    main()

"""What labels could do with the same features: ``python -m lit_jax.probe --store=data/cub_store``."""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

from lit_jax.base import console, hosts
from lit_jax.base.files import write_json
from lit_jax.data.dataset_folder import check_split
from lit_jax.data.embedding_store import open_store
from lit_jax.errors import user_errors_in_one_line
from lit_jax.evaluation.probe import Yardsticks, probe, read_labelled


def main(argv: Sequence[str] | None = None) -> None:
    """The command: prints the table and writes the JSON."""
    parsed = _parser().parse_args(argv)
    with user_errors_in_one_line():
        hosts.keep_compiled()
        store = open_store(parsed.store)
        for option, split in (("--train-split", parsed.train_split), ("--split", parsed.split)):
            check_split(split, store.splits, store.directory, option=option)
        class_ids = store.classes_in(parsed.train_split)
        rows = probe(
            read_labelled(store, parsed.train_split, class_ids),
            read_labelled(store, parsed.split, class_ids),
            len(class_ids), Yardsticks(parsed.shots, parsed.draws, parsed.neighbours, parsed.seed),
            tell=lambda line: print(line, flush=True),
        )  # fmt: skip
        print(table_of(rows))
        out = pathlib.Path(parsed.out or f"runs/{store.directory.name}-probe-{parsed.split}.json")
        out.parent.mkdir(parents=True, exist_ok=True)
        facts = {"store": store.fingerprint, "split": parsed.split, "classes": len(class_ids), "seed": parsed.seed}
        write_json(out, {**facts, "images": store.examples(parsed.split), "rows": rows})
        print(f"written to {out}")


def table_of(rows: Sequence[dict[str, Any]]) -> str:
    """The results as text."""
    lines = []
    for row in rows:
        rates = []
        for name in ("top1", "top5", "mean_per_class_top1"):
            spread = f" ± {100 * row[f'{name}_sd']:.1f}" if row["draws"] > 1 else ""
            rates.append(f"{100 * row[name]:.2f}{spread} %")
        lines.append([row["shots"] or "all", row["method"], *rates])
    return console.text_table(["labels a class", "method", "top-1", "top-5", "mean over classes"], lines, left=(1,))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lit_jax.probe",
        description="Linear probe and nearest neighbours on the features of a store: what labels could do with them.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--store", required=True, help="an embedding store")
    add("--train-split", default="train", help="split with the labels to learn from")
    add("--split", default="validation", help="split to be judged on, of the same species")
    add("--shots", type=_counts, default="1,2,4,8,16,all", help="photos a class to learn from")
    add("--draws", type=int, default=3, help="how often few photos are drawn")
    add("--neighbours", type=_counts, default="1,5,20", help="how many nearest photos vote")
    add("--seed", type=int, default=0, help="of the draws")
    add("--out", default="", help="JSON to write; runs/STORE-probe-SPLIT.json if not given")
    return parser


def _counts(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part == "all" or (part.isdecimal() and int(part) > 0) for part in parts):
        raise argparse.ArgumentTypeError(f"found {text}, expected whole numbers above 0 such as 1,4,all")
    return tuple(0 if part == "all" else int(part) for part in parts)


if __name__ == "__main__":
    main()

"""What a held-out figure may owe to leaks: ``python -m lit_jax.leaks --store=data/cub_store``."""

import argparse
import functools
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from lit_jax.base import console, foreign
from lit_jax.base.command_line import Parser, positive
from lit_jax.base.console import say
from lit_jax.base.files import replaceable, write_json
from lit_jax.data.dataset_folder import HELDOUT, check_split
from lit_jax.data.embedding_store import Store, open_store
from lit_jax.data.records import RecordSet, open_records
from lit_jax.errors import DAMAGED, UserError, user_errors_in_one_line
from lit_jax.evaluation import leaks
from lit_jax.evaluation.near_duplicates import MOST, WITHIN
from lit_jax.text.classes import ClassTable, read_class_table, some
from lit_jax.text.labels import read_labels

SHOWN = 10  # rows of a table


def main(argv: Sequence[str] | None = None) -> None:
    """The command: prints the tables and writes the JSON."""
    parsed = _parser().parse_args(argv)
    with user_errors_in_one_line():
        data: Store | RecordSet = open_store(parsed.store) if parsed.store else open_records(parsed.records)
        splits = parsed.splits.split(",") if parsed.splits else list(data.splits)
        asked = [("--train-split", parsed.train_split), *(("--splits", split) for split in splits)]
        if parsed.heldout:
            asked.append(("--heldout", parsed.heldout))
        for option, split in asked:
            check_split(split, data.splits, data.directory, option=option)
        out = pathlib.Path(parsed.out or f"runs/{data.directory.name}-leaks.json")
        out.parent.mkdir(parents=True, exist_ok=True)
        replaceable(out, "--out", ("data", "train_split"))
        labels = read_labels(parsed.tower_labels) if parsed.tower_labels else []
        per_class = _per_class(parsed.results) if parsed.results else []
        table = read_class_table(data.class_table)
        found: dict[str, Any] = {"data": data.fingerprint, "train_split": parsed.train_split, "splits": splits}
        if isinstance(data, Store):
            found["photos"] = _near_photos(data, splits, parsed)
            say(photos_table(found["photos"], table, parsed.show))
        else:
            say("photos are compared by their features: give a store, see python -m lit_jax.embed")
        heldout = parsed.heldout or HELDOUT
        if heldout in data.splits:
            found |= _of_heldout(data, table, heldout, parsed, labels, per_class)
            say(names_table(found, parsed.show))
        else:
            say(f"no split {heldout!r}: names and relatives of held-out species are left out")
        write_json(out, found)
        say(f"written to {out}")


def _near_photos(store: Store, splits: Sequence[str], parsed: argparse.Namespace) -> dict[str, Any]:
    start = time.monotonic()
    with console.Progress(1_000_000) as progress:

        def tick(done: int, total: int) -> None:
            left = (time.monotonic() - start) * (total - done) / done
            progress.show(1_000_000 * done // total, f"{done:,} of {total:,} pairs of photos", seconds_left=left)

        search = functools.partial(leaks.near_photos, store, parsed.train_split, splits, tick=tick)
        return search(within=parsed.within, most=parsed.most, inside=parsed.inside)


def _of_heldout(
    data: Store | RecordSet,
    table: ClassTable,
    heldout: str,
    parsed: argparse.Namespace,
    labels: Sequence[str],
    per_class: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What the JSON says of held-out species: names in training, relatives, and the tower's labels if there are any."""
    found = leaks.of_heldout(data, table, parsed.train_split, heldout, per_class)
    unseen = found.pop("ids")
    if parsed.tower_labels:
        found["tower"] = leaks.known_to_tower(table, unseen, labels)
    return found


def _per_class(path: str) -> list[dict[str, Any]]:
    try:
        rows = foreign.loaded(pathlib.Path(path))["per_class"]
        found = [{name: row[name] for name in ("class", "id", "images", "top1")} for row in rows]
        for row in found:
            if type(row["id"]) is not int or type(row["images"]) is not int or row["images"] < 1:
                raise TypeError("no whole numbers")
            if not 0 <= row["top1"] <= 1:
                raise ValueError("no share")
        return found
    except (OSError, *DAMAGED) as error:
        reason = error.strerror if isinstance(error, OSError) else "another content"
        raise UserError(
            f"--results {path}: found {reason}, expected an evaluation-SPLIT.json of python -m lit_jax.evaluate; "
            "give that"
        ) from error


def photos_table(found: Mapping[str, Any], table: ClassTable, shown: int = SHOWN) -> str:
    """Near photos as text, for `lit_jax.evaluation.leaks.near_photos`."""
    rows = [
        [one["split"], one["against"], f"{one['photos']:,}", f"{one['near_photos']:,}", f"{len(one['pairs']):,}",
         f"{one['other_class']:,}", f"{len(one['capped']):,}"]
        for one in found["comparisons"]
    ]  # fmt: skip
    headings = ["photos of", "nearly the same in", "photos", "with a near one", "pairs", "of two classes",
                "with more than are told"]  # fmt: skip
    lines = [console.text_table(headings, rows, left=(0, 1))]
    pairs = [pair for one in found["comparisons"] for pair in one["pairs"]]
    for pair in sorted(pairs, key=lambda pair: -pair["cosine"])[:shown]:
        other = "" if pair["class"] == pair["like_class"] else f", and not {table.label(pair['like_class'])}"
        lines.append(
            f"  {pair['cosine']:.4f}  {pair['photo']} is like {pair['like']}: {table.label(pair['class'])}{other}"
        )
    if any(one["capped"] for one in found["comparisons"]):
        lines.append(f"  of photos with more than {found['most']} near ones only the nearest are told")
    return "\n".join([*lines, *_more(len(pairs), shown)])


def names_table(found: Mapping[str, Any], shown: int = SHOWN) -> str:
    """Names, relatives and the tower's labels as text; `found` is what the JSON says of held-out species."""
    names, total = found["names"], found["species"]
    species = len({row["id"] for row in names})
    both = found["in_both"]
    lines = [f"species with photos in training too, and left out here: {len(both)}, {some(both)}"] if both else []
    lines += [f"held-out species of which a name stands in the words of training: {species} of {total}"]
    for row in names[:shown]:
        part = "" if row["whole"] else ", as a part of it or in another spelling"
        assumed = f"; {row['assumed']}" if row["assumed"] else ""
        lines.append(f"  {row['class']}: its {row['by']} in the {row['where']}, {row['as']!r}{part}{assumed}")
    lines += _more(len(names), shown)
    if "tower" in found:
        lines += _tower_lines(found["tower"], total, shown)
    kin = found["kinship"]["rows"]
    judged = any("top1" in row for row in kin)
    rows = [[row["group"], str(row["species"]), *(_rates(row) if "top1" in row else [""] * 4 * judged)] for row in kin]
    headings = ["nearest relative in training, of the same", "species"]
    headings += ["photos", "top-1", "95 % range", "mean over species"] * judged
    hint = "accuracy by relative: give the evaluation of the held-out split with --results"
    return "\n".join([*lines, console.text_table(headings, rows), *([] if judged else [hint])])


def _rates(row: Mapping[str, Any]) -> list[str]:
    low, high = row["top1_interval"]
    rates = [f"{100 * row['top1']:.2f} %", f"{100 * low:.1f}–{100 * high:.1f}", f"{100 * row['macro_top1']:.2f} %"]
    return [f"{row['images']:,}", *rates]


def _tower_lines(tower: Mapping[str, Any], total: int, shown: int) -> list[str]:
    known = tower["known"]
    lines = [f"held-out species among the {tower['labels']:,} names that the tower knows: {len(known)} of {total}"]
    for row in known[:shown]:
        assumed = f"; {row['assumed']}" if row["assumed"] else ""
        lines.append(f"  {row['class']}: its {row['by']}, {row['as']!r}{assumed}")
    lines += _more(len(known), shown)
    lines += [
        f"  {row['class']} is near to {row['as']!r}: look whether it is the same" for row in tower["near"][:shown]
    ]
    return lines


def _more(rows: int, shown: int) -> list[str]:
    return [f"  and {rows - shown:,} more, in the JSON"] if rows > shown else []


def _parser() -> Parser:
    parser = Parser(
        prog="python -m lit_jax.leaks",
        description="Leaks between splits: photos that are nearly the same, names of held-out species that training "
        "or the tower has read, and how near their relatives in training are.",
    )
    add = parser.add_argument
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--store", help="an embedding store")
    data.add_argument("--records", help="a record set instead: names and relatives only")
    add("--splits", default="", help="splits to compare with that of training, as a,b (default: all)")
    add("--train-split", default="train", help="split that was trained on")
    add("--heldout", default="", help=f"split of species that were held out (default: {HELDOUT}, where there is one)")
    add("--within", type=_share, default=WITHIN, help="1 minus the least cosine of nearly equal photos")
    add("--most", type=positive, default=MOST, help="near photos told of each photo, the nearest ones")
    add("--inside", action="store_true", help="compare photos within each split too")
    add("--tower-labels", default="", help="names that the tower was trained on: one a line, a class table or JSON")
    add("--results", default="", help="evaluation JSON of the held-out split, for accuracy by nearest relative")
    add("--show", type=int, default=SHOWN, help="rows of each kind to print")
    add("--out", default="", help="JSON to write (default: runs/NAME-leaks.json)")
    return parser


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected a number from 0 to 1 such as 0.05")
    return value


if __name__ == "__main__":
    main()

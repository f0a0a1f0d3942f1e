"""The checkpoint-to-evaluation command: ``python -m lit_jax.evaluate --checkpoint=runs/demo``.

Names the photos of a split among classes given only in words: those of the record set, or those of any CSV,
species never trained on included.
"""

import argparse
import dataclasses
import itertools
import os
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import rich.box
import rich.table

from lit_jax import config as options
from lit_jax import experiment, report, zeroshot
from lit_jax.captions import fields
from lit_jax.checkpoint import About
from lit_jax.classes import ClassTable, read_class_table
from lit_jax.errors import UserError, user_errors_in_one_line
from lit_jax.metrics import TopK
from lit_jax.precision import DTYPES, cast
from lit_jax.prompts import duplicates, read_templates
from lit_jax.records import open_records
from lit_jax.sharding import check_divides, make_mesh, put_replicated
from lit_jax.store import Store, open_store
from lit_jax.trained import Trained, load

SHOWN = 10  # classes in the printed table, unless all are asked for


def evaluate(
    trained: Trained,
    data: experiment.Data,
    split: str,
    *,
    classes: ClassTable | None = None,
    templates: Sequence[str] = (),
    batch_size: int = 256,
    devices: int = 0,
) -> dict[str, Any]:
    """Classifies every photo of a split once.

    Args:
        trained: the model.
        data: where the photos are, or their features.
        split: which of them.
        classes: the classes to choose from; None for those of the data: for a split of species that were
            trained on, all of those; otherwise the species of the split.
        templates: prompt templates; empty for those of the run, which may be its caption templates.
        batch_size: photos and prompts at a time.
        devices: devices to use; 0 for all.

    Returns:
        ``top1``, ``top5``, ``images``, ``classes`` (with photos), ``candidates``, ``chance``, ``same_prompts``
        (groups of class names that share all prompts), ``per_class`` (name, images, top1, top5) and facts about
        the run; JSON-ready.

    Raises:
        UserError: a split that is not there, classes that do not cover its photos, an odd batch size.
    """
    config = trained.config
    mesh = make_mesh(devices)
    check_divides(batch_size, mesh.size, name="--batch-size")
    own = read_class_table(data.class_table)
    present = data.classes_in(split)
    table = own.subset(_candidates(trained.about, data, present)) if classes is None else classes
    missing = sorted(set(present) - set(table.ids))
    if missing:
        name = own.names[own.index_of(missing[0])]
        raise UserError(
            f"--classes: found no row for {name} (id {missing[0]}), expected one for each class with photos"
        )
    about = trained.about
    templates = tuple(templates) or tuple(about.prompt_templates)
    # The run's own templates only: a column misspelt in a file of templates must still be refused.
    filled = _with_columns(table, [*about.templates, *about.prompt_templates])
    texts = experiment.class_prompts(filled, about.templates, templates, drop_repeats=about.drop_repeats)
    parts = zeroshot.embedder(trained.model, mesh)
    evaluator = zeroshot.Evaluator(
        parts=parts,
        photos=experiment.photos_of(parts, data, config, batch_size=batch_size),
        tasks=[zeroshot.Task(split, split, tuple(table.ids))],
        class_prompts=texts,
        tokenise=lambda batch: trained.tokenizer.encode(batch, config.text.context),
        batch_size=batch_size,
        keep=False,
    )
    dtype = DTYPES[config.train.precision]
    tower = {name: cast(tree, dtype) for name, tree in trained.params.items() if name == "image"}
    hits = evaluator(put_replicated({**trained.params, **tower}, mesh))[split]
    shared = [[table.names[row] for row in group] for group in duplicates([list(texts[i]) for i in table.ids])]
    return {**_summary(hits, table), "same_prompts": shared, **_facts(trained, data, split, templates)}


def _with_columns(table: ClassTable, templates: Sequence[str]) -> ClassTable:
    """The table with empty columns where a template asks for one that it has not: captions leave no gap there."""
    asked = {column for template in templates for column in fields(template) if column}
    empty = {column: ("",) * len(table) for column in sorted(asked - set(table.columns))}
    return dataclasses.replace(table, columns={**table.columns, **empty})


def _candidates(about: About, data: experiment.Data, present: Sequence[int]) -> list[int]:
    """Seen species compete with all species of training, others among themselves."""
    trained_on = set(about.train_classes) if experiment.fingerprint(data) == about.fingerprint else set()
    return sorted(trained_on | set(present) if trained_on & set(present) else set(present))


def _summary(hits: TopK, table: ClassTable) -> dict[str, Any]:
    rates = hits.per_class()
    rows = [
        {"class": table.names[row], "id": table.ids[row], "images": int(hits.images[row]), "top1": top1, "top5": top5}
        for row, (top1, top5) in enumerate(rates.tolist())
        if hits.images[row]
    ]
    return {
        **hits.summary(),
        "mean_per_class_top1": float(np.mean([row["top1"] for row in rows])) if rows else 0.0,
        "candidates": len(table),
        "chance": 1 / len(table),
        "per_class": sorted(rows, key=lambda row: (row["top1"], row["class"])),
    }


def _facts(trained: Trained, data: experiment.Data, split: str, templates: Sequence[str]) -> dict[str, Any]:
    return {
        "split": split,
        "records": experiment.fingerprint(data),
        "store": data.fingerprint if isinstance(data, Store) else "",
        "step": trained.step,
        "config": options.digest(trained.about.config),
        "locked": trained.about.locked,
        "templates": list(templates) or trained.about.prompt_templates or trained.about.templates,
    }


def table_of(result: dict[str, Any], *, all_classes: bool = False) -> str:
    """The result as text: the overall accuracies, then the hardest classes, or all of them."""
    rows = result["per_class"] if all_classes else result["per_class"][:SHOWN]
    lines = [report.results_table({result["split"]: result})]
    if result["same_prompts"]:
        few = "; ".join(" = ".join(group) for group in result["same_prompts"][:3])
        lines.append(f"{len(result['same_prompts'])} groups of classes have the same prompts: {few}")
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    heading = "class" if all_classes else f"hardest {len(rows)} of {len(result['per_class'])} classes"
    for column in (heading, "images", "top-1", "top-5"):
        table.add_column(column, justify="left" if column == heading else "right", no_wrap=True)
    for row in rows:
        table.add_row(row["class"], str(row["images"]), *(f"{100 * row[k]:.1f} %" for k in ("top1", "top5")))
    return "\n\n".join([*lines, report.as_text(table)])


def main(argv: Sequence[str] | None = None) -> None:
    """The command: prints the table and writes the JSON."""
    parsed = _parser().parse_args(argv)
    with user_errors_in_one_line():
        weight_files = {"image": parsed.image_weights, "text": parsed.text_weights}
        with_tower = bool(parsed.records) if parsed.records or parsed.store else None
        trained = load(parsed.checkpoint, step=parsed.step, weight_files=weight_files, with_image_tower=with_tower)
        data = _data(trained, parsed.records, parsed.store)
        split = parsed.split or trained.config.data.seen_split or next(iter(data.splits))
        variant = "".join(f"-{pathlib.Path(path).stem}" for path in (parsed.classes, parsed.templates) if path)
        out = _output(parsed.out, parsed.checkpoint, split + variant)
        result = evaluate(
            trained, data, split,
            classes=_named_classes(parsed.classes, data) if parsed.classes else None,
            templates=read_templates(parsed.templates) if parsed.templates else (),
            batch_size=parsed.batch_size, devices=parsed.devices,
        )  # fmt: skip
        print(f"step {trained.step} ({parsed.step}) of {parsed.checkpoint}")
        print(table_of(result, all_classes=parsed.all))
        report.write_json(out, result)
        print(f"written to {out}")


def _data(trained: Trained, records: str, store: str) -> experiment.Data:
    """What the command evaluates on: what it was told to, else what the run was trained on."""
    if "image" in trained.params:
        folder = records or trained.config.data.records
        if not records and not pathlib.Path(folder).is_dir():
            raise UserError(f"--records: found none, and no folder {folder!r} of the run; give --records, or --store")
        found: experiment.Data = open_records(folder)
    else:
        found = open_store(store or experiment.store_folder(trained.config))
        if found.tower["digest"] != trained.about.locked.get("image"):
            raise UserError(
                f"store {found.directory}: found embeddings of another tower ({found.tower.get('name', 'no name')}), "
                "expected that of the run; if it is the same, import it with the same --tower-name"
            )
    if not (records or store) and experiment.fingerprint(found) != trained.about.fingerprint:
        raise UserError(
            f"records {found.directory}: found others than the run was trained on, expected those; give --records or "
            "--store if that is meant"
        )
    return found


def _named_classes(path: str, records: experiment.Data) -> ClassTable:
    """The classes of a file under the ids of the record set, matched by name.

    A name that the record set does not know is one more class to choose from, under a new id. Ids of the file
    itself play no part: those of another list would put a wrong name to a photo.

    Raises:
        UserError: a name that stands twice.
    """
    table = read_class_table(path)
    own = read_class_table(records.class_table)
    id_of = dict(zip(own.names, own.ids, strict=True))
    repeated = [name for name, count in Counter(table.names).items() if count > 1]
    if repeated:
        raise UserError(f"--classes {path}: found {repeated[0]} more than once, expected each class once")
    fresh = itertools.count(max(own.ids) + 1)
    ids = tuple(id_of[name] if name in id_of else next(fresh) for name in table.names)
    return dataclasses.replace(table, ids=ids)


def _output(out: str, directory: str, name: str) -> pathlib.Path:
    """Where the JSON goes; refused before the evaluation if nothing can be written there."""
    folder = pathlib.Path(directory)
    folder = folder.parent if folder.name == "checkpoints" else folder
    path = pathlib.Path(out) if out else folder / f"evaluation-{name}.json"
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(f"--out: found no folder to write {path} to, expected one; give another --out")
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lit_jax.evaluate", description="Names photos among classes given only in words."
    )
    parser.add_argument("--checkpoint", required=True, help="folder of a run, or of an exported model")
    parser.add_argument(
        "--step", default="best", help="best (by top-1 on the seen split), latest or a step; best if not given"
    )
    parser.add_argument("--split", default="", help="split of the record set; the run's seen split if not given")
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--records", default="", help="another record set than the run's; its photos pass the tower")
    data.add_argument("--store", default="", help="an embedding store instead; no tower is needed")
    parser.add_argument("--classes", default="", help="CSV of the classes to choose from, any species in words")
    parser.add_argument("--templates", default="", help="file of prompt templates, one a line")
    parser.add_argument("--image-weights", default="", help="where the locked image tower's weights are now")
    parser.add_argument("--text-weights", default="", help="likewise of a pre-trained text tower")
    parser.add_argument("--batch-size", type=int, default=256, help="photos and prompts at a time")
    parser.add_argument("--devices", type=int, default=0, help="devices to use; 0 for all")
    parser.add_argument("--all", action="store_true", help="print every class, not only the hardest")
    parser.add_argument(
        "--out",
        default="",
        help="JSON to write; evaluation-SPLIT.json in the run's folder if not given",
    )
    return parser


if __name__ == "__main__":
    main()

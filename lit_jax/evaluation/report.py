"""The checkpoint-to-evaluation command: ``python -m lit_jax.evaluate --checkpoint=runs/demo``.

Names the photos of a split among classes given only in words: those of the record set, or those of any CSV,
species never trained on included. Says how well at every rank, how sure the model may be believed, how well photos and
captions find each other, and what is hardest; as a table, as JSON and as a page.
"""

import argparse
import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from lit_jax import config as options
from lit_jax.base import console, hosts
from lit_jax.base.sharding import check_divides, make_mesh, put_replicated
from lit_jax.data.dataset_folder import check_split
from lit_jax.data.embedding_store import Store, open_store
from lit_jax.data.records import open_records
from lit_jax.embedding import kept
from lit_jax.errors import UserError, user_errors_in_one_line
from lit_jax.evaluation import calibration, page, ranking, ranks, retrieval, zeroshot
from lit_jax.evaluation.intervals import of_mean
from lit_jax.evaluation.ranking import Predictions
from lit_jax.models import building
from lit_jax.models.two_tower import Params
from lit_jax.text.candidates import read_candidates
from lit_jax.text.captions import fields
from lit_jax.text.classes import ClassTable, read_class_table
from lit_jax.text.prompts import PROTOCOLS, duplicates, read_templates, templates_for
from lit_jax.trained.loading import Trained, load
from lit_jax.training import experiment
from lit_jax.training.checkpoint import About

SHOWN = 10  # classes in the printed table, unless all are asked for
HARD = ("genus", "family")  # ranks of which all groups are told, besides the species
FITTED = 20_000  # photos that the temperature is fitted on, at the most


def evaluate(
    trained: Trained,
    data: experiment.Data,
    split: str,
    *,
    classes: ClassTable | None = None,
    templates: Sequence[str] = (),
    protocol: str = "",
    batch_size: int = 256,
    devices: int = 0,
    keep_in: pathlib.Path | None = None,
) -> dict[str, Any]:
    """Classifies every photo of a split once, and says how well at each rank, how surely, and what is hard.

    Args:
        trained: the model.
        data: where the photos are, or their features.
        split: which of them.
        classes: the classes to choose from; None for those of the data: for a split of species that were
            trained on, all of those; otherwise the species of the split.
        templates: prompt templates; empty for those of the run, which may be its caption templates.
        protocol: how classes are named, one of `lit_jax.text.prompts.PROTOCOLS`; empty for that of the run.
        batch_size: photos and prompts at a time.
        devices: devices to use; 0 for all.
        keep_in: folder in which class embeddings are kept for the next evaluation; None to keep none.

    Returns:
        ``top1``, ``top5``, ``images``, ``classes`` (with photos), ``candidates``, ``chance``, ``same_prompts``
        (groups of class names that share all prompts), ``ceiling`` (of top-1, because of those), ``ranks``,
        ``by_supercategory``, ``calibration``, ``retrieval``, ``per_class`` (names, images, top1, top5, taken_for),
        ``common_names`` (of what classes are taken for) and facts about the run; beside each accuracy its
        ``_interval``; JSON-ready.

    Raises:
        UserError: a split that is not there, classes that do not cover its photos, an odd batch size.
    """
    config = trained.config
    mesh = make_mesh(devices)
    check_divides(batch_size, mesh.size, name="--batch-size")
    protocol = protocol or config.evaluation.protocol
    templates = templates_for(protocol, tuple(templates) or tuple(trained.about.prompt_templates))
    table = _table(trained.about, data, split, classes)
    texts = zeroshot.prompts_of_species(_prompts(trained.about, table, templates, protocol), table.species_of)
    species_of, table = table.species_of, table.subset(dict.fromkeys(table.species_of.values()))
    parts = zeroshot.embedder(trained.model, mesh)
    params = _on_device(trained, mesh)
    vectors = _Vectors(trained, parts, params, batch_size, keep_in)
    class_emb = vectors.of([texts[class_id] for class_id in table.ids])
    photos_of = experiment.photos_of(parts, data, config, batch_size=batch_size)
    photos, class_ids = zeroshot.image_embeddings(parts, params, photos_of(split, params))
    row_of = {class_id: row for row, class_id in enumerate(table.ids)}
    labels = np.array([row_of[species_of[class_id]] for class_id in class_ids.tolist()])
    found = ranking.predict(photos, labels, class_emb, mesh)
    same = duplicates([list(texts[i]) for i in table.ids])
    factor = float(np.exp(np.asarray(trained.params["logit_scale"])))
    return {
        **_summary(found, table),
        "same_prompts": [[table.names[row] for row in group] for group in same],
        "ceiling": ranks.ceiling(found.hits().images, same),
        **_by_rank(found, table),
        "calibration": _calibration(photos, found, class_emb, mesh, factor, seed=config.seed),
        "retrieval": _retrieval(trained.about, table, photos, labels, vectors),
        **_facts(trained, data, split, species_of, templates),
        "protocol": protocol,
    }


@dataclasses.dataclass(frozen=True)
class _Vectors:
    """Embeddings of classes and captions, kept if there is a place for them."""

    trained: Trained
    parts: zeroshot.Embedder
    params: Params
    batch_size: int
    keep_in: pathlib.Path | None

    def of(self, prompts: Sequence[Sequence[str]]) -> np.ndarray:
        """`[K, D]` unit vectors of K classes' prompts."""
        context, tokenizer = self.trained.config.text.context, self.trained.tokenizer
        key = kept.key_of(self.trained.params, self.trained.model.text, context, tokenizer.model_bytes, prompts)
        embed = zeroshot.text_embedder(
            self.parts, self.params, lambda batch: tokenizer.encode(batch, context), batch_size=self.batch_size,
            end_id=tokenizer.end_id if self.trained.config.text.bucket else None,
        )  # fmt: skip

        def make() -> np.ndarray:
            with console.Progress(sum(map(len, prompts))) as progress:
                start = time.monotonic()

                def tick(done: int, total: int) -> None:
                    rate = done / max(time.monotonic() - start, 1e-9)
                    text = f"{done:,} of {total:,} distinct prompts, {rate:.0f} a second"
                    progress.show(done, text, seconds_left=(total - done) / rate)

                return zeroshot.class_embeddings(embed, prompts, tick=tick)

        return kept.kept(self.keep_in, key, make)


def _on_device(trained: Trained, mesh: Mesh) -> Params:
    tower = {name: tree for name, tree in trained.params.items() if name == "image"}
    return put_replicated({**trained.params, **building.stored(trained.config, trained.model, tower)}, mesh)


def _table(about: About, data: experiment.Data, split: str, classes: ClassTable | None) -> ClassTable:
    """The classes to choose from; each class with photos must be among them."""
    own = read_class_table(data.class_table)
    present = data.classes_in(split)
    table = own.subset(_candidates(about, data, present)) if classes is None else classes
    missing = sorted(set(present) - set(table.ids))
    if missing:
        name = own.names[own.index_of(missing[0])]
        raise UserError(
            f"--classes: found no row for {name} (id {missing[0]}), expected one for each class with photos"
        )
    return table


def _prompts(about: About, table: ClassTable, templates: Sequence[str], protocol: str) -> dict[int, Sequence[str]]:
    # The run's own templates only: a column misspelt in a file of templates must still be refused.
    filled = _with_columns(table, [*about.templates, *about.prompt_templates])
    return experiment.class_prompts(
        filled, about.templates, templates, drop_repeats=about.drop_repeats, protocol=protocol
    )


def _by_rank(found: Predictions, table: ClassTable) -> dict[str, Any]:
    """Accuracy at each rank that the table has, with the groups that are hardest; and by supercategory."""
    by_rank = {}
    for rank in (ranks.SPECIES, *ranks.SHOWN):
        groups = ranks.grouped(table, rank)
        if groups is not None and (len(groups.names) > 1 or rank == ranks.SPECIES):
            by_rank[rank] = ranks.accuracy(found.labels, found.best, groups)
            if rank in HARD:
                by_rank[rank]["hardest"] = ranks.hardest(found.labels, found.best, groups)
    kinds = ranks.grouped(table, "supercategory")
    rows = ranks.by_column(found.labels, found.best, found.rank, kinds) if kinds else []
    return {"ranks": by_rank, "by_supercategory": rows}


def _calibration(
    photos: np.ndarray, found: Predictions, class_emb: np.ndarray, mesh: Mesh, factor: float, *, seed: int
) -> dict[str, Any] | None:
    """Calibration before and after one temperature, fitted on photos that are not counted; None for a few photos."""
    order = np.random.default_rng(seed).permutation(len(photos))
    fitted, rest = np.split(order, [min(len(photos) // 2, FITTED)])
    if len(fitted) < 2:
        return None

    def at(rows: np.ndarray) -> Callable[[float], ranking.Likelihoods]:
        own, labels = photos[rows], found.labels[rows]
        return lambda factor: ranking.likelihoods(own, labels, class_emb, mesh, factor=factor)

    best = calibration.fit_factor(at(fitted), factor)
    correct = found.rank[rest] == 0
    before, after = (
        {**calibration.reliability(values.confidence, correct), "loss": float(values.loss.mean())}
        for values in map(at(rest), (factor, best))
    )
    return {
        "fitted_on": len(fitted),
        "measured_on": len(rest),
        "temperature": factor / best,
        # Fitted on some photos, a temperature may make others worse; it is not to be used then.
        "helps": after["ece"] <= before["ece"],
        "before": before,
        "after": after,
    }


def _retrieval(
    about: About, table: ClassTable, photos: np.ndarray, labels: np.ndarray, vectors: _Vectors
) -> dict[str, Any]:
    """Photos by captions and captions by photos; classes that share a caption share it here too."""
    captions = _prompts(about, table, (), "caption")
    first = [captions[class_id][0] for class_id in table.ids]
    distinct = {text: row for row, text in enumerate(dict.fromkeys(first))}
    text_of = np.array([distinct[text] for text in first])[labels]
    texts = vectors.of([[text] for text in distinct])
    return {"captions": len(distinct), **retrieval.both_ways(photos, texts, text_of)}


def _with_columns(table: ClassTable, templates: Sequence[str]) -> ClassTable:
    """The table with empty columns where a template asks for one that it has not: captions leave no gap there."""
    asked = {column for template in templates for column in fields(template) if column}
    empty = {column: ("",) * len(table) for column in sorted(asked - set(table.columns))}
    return dataclasses.replace(table, columns={**table.columns, **empty})


def _is_other(about: About, data: experiment.Data) -> bool:
    """Whether the photos are of another collection than the model was trained on; a published model has none."""
    return bool(about.fingerprint) and experiment.fingerprint(data) != about.fingerprint


def _trained_on(about: About, data: experiment.Data) -> set[int] | None:
    """Ids of the classes of training; None for data of another collection, whose ids are others."""
    return set(about.train_classes) if experiment.fingerprint(data) == about.fingerprint else None


def _candidates(about: About, data: experiment.Data, present: Sequence[int]) -> list[int]:
    """Seen species compete with all species of training, others among themselves."""
    trained_on = _trained_on(about, data) or set()
    return sorted(trained_on | set(present) if trained_on & set(present) else set(present))


def _summary(found: Predictions, table: ClassTable) -> dict[str, Any]:
    hits = found.hits()
    rates = hits.per_class()
    mistaken = ranks.taken_for(found.labels, found.best[:, 0])
    common = table.columns.get("common_name", ("",) * len(table))
    rows = [
        {
            "class": table.names[row],
            "common_name": common[row],
            "id": table.ids[row],
            "images": int(hits.images[row]),
            **ranks.with_intervals({"top1": top1, "top5": top5}, int(hits.images[row])),
            "taken_for": [[table.names[other], count] for other, count in mistaken.get(row, ())],
        }
        for row, (top1, top5) in enumerate(rates.tolist())
        if hits.images[row]
    ]
    overall, each = hits.summary(), np.array([row["top1"] for row in rows])
    others = {other for found in mistaken.values() for other, _ in found}
    return {
        **overall,
        **ranks.with_intervals({name: overall[name] for name in ("top1", "top5")}, int(overall["images"])),
        "mean_per_class_top1": float(each.mean()) if rows else 0.0,
        "mean_per_class_top1_interval": of_mean(each),
        "common_names": {table.names[row]: common[row] for row in sorted(others) if common[row]},
        "candidates": len(table),
        "chance": 1 / len(table),
        "per_class": sorted(rows, key=lambda row: (row["top1"], row["top5"], row["class"])),
    }


def _facts(
    trained: Trained,
    data: experiment.Data,
    split: str,
    species_of: Mapping[int, int],
    templates: Sequence[str],
) -> dict[str, Any]:
    trained_on = _trained_on(trained.about, data)
    seen = {species_of.get(i, i) for i in trained_on or ()} & {species_of[i] for i in data.classes_in(split)}
    return {
        "split": split,
        "data": {"name": data.directory.name, "is_other": _is_other(trained.about, data)},
        "chosen_on": trained.about.chosen_on if trained_on is not None else "",
        "classes_in_training": None if trained_on is None else len(seen),
        "records": experiment.fingerprint(data),
        "store": data.fingerprint if isinstance(data, Store) else "",
        "step": trained.step,
        "config": options.digest(trained.about.config),
        "locked": trained.about.locked,
        "templates": list(templates) or trained.about.prompt_templates or trained.about.templates,
    }


def table_of(result: dict[str, Any], *, all_classes: bool = False) -> str:
    """The result as text: overall, by rank, calibration, retrieval, then the hardest classes, or all of them."""
    rows = result["per_class"] if all_classes else result["per_class"][:SHOWN]
    of = result["candidates"]
    parts = [console.results_table({result["split"]: result}), *_notes(result)]
    if len(result["ranks"]) > 1:
        by_rank = [
            [rank, row["groups"], *_rates(row, "top1", "top5", "macro_top1", of=of)]
            for rank, row in result["ranks"].items()
        ]
        parts.append(console.text_table(["rank", "groups", "top-1", "top-5", "macro top-1"], by_rank))
    if len(result["by_supercategory"]) > 1:
        kinds = [
            [row["name"], row["images"], *_rates(row, "top1", "top5", of=of)] for row in result["by_supercategory"]
        ]
        parts.append(console.text_table(["supercategory", "images", "top-1", "top-5"], kinds))
    found = result["retrieval"]
    ways = [
        [way.replace("_", " "), *_rates(found[way], "recall@1", "recall@5", "recall@10", of=number)]
        for way, number in (("image_to_text", found["captions"]), ("text_to_image", result["images"]))
    ]
    parts.append(console.text_table(["retrieval by captions", "recall@1", "recall@5", "recall@10"], ways))
    heading = "class" if all_classes else f"hardest {len(rows)} of {len(result['per_class'])} classes"
    names = result["common_names"] | {row["class"]: row["common_name"] for row in rows}
    hard = [
        [
            _with_common(row["class"], names),
            row["images"],
            *_rates(row, "top1", "top5", of=of),
            _with_common(row["taken_for"][0][0], names) if row["taken_for"] else "",
        ]
        for row in rows
    ]
    return "\n\n".join(
        [*parts, console.text_table([heading, "images", "top-1", "top-5", "mostly taken for"], hard, left=(0, 4))]
    )


def _with_common(name: str, names: Mapping[str, str]) -> str:
    common = names.get(name, "")
    return name if common in ("", name) else f"{name} ({common})"


def _rates(row: Mapping[str, Any], *names: str, of: int) -> list[str]:
    """Accuracies with their intervals, among so many candidates."""
    return [console.rate(row, name, candidates=of) for name in names]


def _notes(result: dict[str, Any]) -> list[str]:
    """Shared prompts and calibration, a sentence each."""
    notes = []
    if result["same_prompts"]:
        few = "; ".join(" = ".join(group) for group in result["same_prompts"][:3])
        members = sum(map(len, result["same_prompts"]))
        notes.append(
            f"{members} classes in {len(result['same_prompts'])} groups have the same prompts: {few}; top-1 cannot "
            f"pass {100 * result['ceiling']:.2f} %"
        )
    measured = result["calibration"]
    if measured:
        before, after = (f"{100 * measured[name]['ece']:.1f} %" for name in ("before", "after"))
        fitted = f"temperature {measured['temperature']:.2f}, fitted on {measured['fitted_on']:,} other photos"
        notes.append(
            f"calibration error {before}, {after} at {fitted}"
            if measured["helps"]
            else f"calibration error {before}; a {fitted}, makes it worse ({after}) and is not to be used"
        )
    if result["data"]["is_other"]:
        notes.append(f"photos of {result['data']['name']}, another collection than the model was trained on")
    elif result["chosen_on"] == result["split"]:
        notes.append(
            f"this checkpoint is the best of its run on {result['split']}, these very photos: their figures are a "
            "little too good for that"
        )
    return notes


def main(argv: Sequence[str] | None = None) -> None:
    """The command: prints the table and writes the JSON."""
    parsed = _parser().parse_args(argv)
    with user_errors_in_one_line():
        hosts.keep_compiled()
        weight_files = {"image": parsed.image_weights, "text": parsed.text_weights}
        with_tower = bool(parsed.records) if parsed.records or parsed.store else None
        trained = load(parsed.checkpoint, step=parsed.step, weight_files=weight_files, with_image_tower=with_tower)
        data = _data(trained, parsed.records, parsed.store)
        split = parsed.split or trained.config.data.seen_split or next(iter(data.splits))
        check_split(split, data.splits, data.directory, option="--split")
        given = (parsed.protocol, parsed.classes, parsed.templates)
        variant = "".join(f"-{pathlib.Path(path).stem}" for path in given if path)
        # Of another collection the name says so, lest the run's own evaluation be overwritten.
        is_other = _is_other(trained.about, data)
        other = f"{data.directory.name}-{experiment.fingerprint(data)[:8]}-" if is_other else ""
        out = _output(parsed.out, parsed.checkpoint, other + split + variant)
        result = evaluate(
            trained, data, split,
            classes=_named_classes(parsed.classes, data) if parsed.classes else None,
            templates=read_templates(parsed.templates) if parsed.templates else (),
            protocol=parsed.protocol, batch_size=parsed.batch_size, devices=parsed.devices,
            keep_in=_folder(parsed.checkpoint),
        )  # fmt: skip
        console.write_json(out, result)  # before anything is printed, which head and the like may cut short
        if not parsed.no_page:
            page.write(out.with_suffix(".html"), result, name=_folder(parsed.checkpoint).name)
        print(f"step {trained.step} ({parsed.step}) of {parsed.checkpoint}")
        print(table_of(result, all_classes=parsed.all))
        print(f"written to {out}" + ("" if parsed.no_page else f"\nas a page: {out.with_suffix('.html')}"))


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


def _named_classes(path: str, data: experiment.Data) -> ClassTable:
    """The classes of a file under the ids of the data set, as `read_candidates` finds them; prints what is odd."""
    table, notes = read_candidates(path, read_class_table(data.class_table))
    for note in notes:
        print(f"--classes {path}: {note}", flush=True)
    return table


def _output(out: str, directory: str, name: str) -> pathlib.Path:
    """Where the JSON goes; refused before the evaluation if nothing can be written there."""
    path = pathlib.Path(out) if out else _folder(directory) / f"evaluation-{name}.json"
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(f"--out: found no folder to write {path} to, expected one; give another --out")
    return path


def _folder(directory: str) -> pathlib.Path:
    """The folder of a run or model, also where that of its checkpoints was given."""
    folder = pathlib.Path(os.path.abspath(directory))
    return folder.parent if folder.name == "checkpoints" else folder


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
    parser.add_argument(
        "--classes", default="", help="CSV of classes to choose from: names, common names, folders or ids"
    )
    parser.add_argument("--templates", default="", help="file of prompt templates, one a line")
    parser.add_argument(
        "--protocol",
        default="",
        choices=("", *PROTOCOLS),
        help="how classes are named in prompts; as the run's config says",
    )
    parser.add_argument("--image-weights", default="", help="where the locked image tower's weights are now")
    parser.add_argument("--text-weights", default="", help="likewise of a pre-trained text tower")
    parser.add_argument("--batch-size", type=int, default=256, help="photos and prompts at a time")
    parser.add_argument("--devices", type=int, default=0, help="devices to use; 0 for all")
    parser.add_argument("--all", action="store_true", help="print every class, not only the hardest")
    parser.add_argument("--no-page", action="store_true", help="no HTML beside the JSON")
    parser.add_argument(
        "--out",
        default="",
        help="JSON to write; evaluation-SPLIT.json in the run's folder if not given",
    )
    return parser


if __name__ == "__main__":
    main()

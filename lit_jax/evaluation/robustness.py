"""How much of a model's accuracy is left on corrupted photos: by kind and severity, for each task of the evaluation.

Photos are read once, a batch at a time, corrupted as the tower would read them, and passed through the tower in every
condition; what is kept of them are counts of hits, so that memory does not grow with photos, kinds or severities. They
are decoded in full and resized on the host, whatever the config says of that: ImageNet-C corrupts the square, and what
corrupts it runs there.
"""

import concurrent.futures
import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lit_jax.base import console, foreign
from lit_jax.base.console import say
from lit_jax.base.sharding import check_divides, make_mesh, put_batch
from lit_jax.data import record_batches
from lit_jax.data.images import Pictures
from lit_jax.data.records import RecordSet
from lit_jax.embedding import photo_embeddings
from lit_jax.embedding.class_prompts import prompts_of, prompts_of_species
from lit_jax.embedding.photo_embeddings import Embedder
from lit_jax.embedding.trained import Trained
from lit_jax.embedding.vectors import Vectors, on_device
from lit_jax.errors import DAMAGED, UserError
from lit_jax.evaluation import known_species, ranking, unseen
from lit_jax.evaluation.corruptions import KINDS, SEVERITIES, corrupt, generator
from lit_jax.evaluation.intervals import wilson
from lit_jax.evaluation.metrics import KS, TopK, hits_of
from lit_jax.evaluation.zeroshot import Task
from lit_jax.models import building
from lit_jax.models.locking import IMAGE, Params
from lit_jax.text.classes import read_class_table
from lit_jax.text.prompts import templates_for

RESULT = "robustness.json"
"""In the folder of a run or model."""
CLEAN = ("clean", 0)
Condition = tuple[str, int]
"""A kind of corruption and its severity, or `CLEAN`."""


@dataclasses.dataclass(frozen=True)
class Conditions:
    """What is done to photos.

    Attributes:
        kinds: of corruption, names in `lit_jax.evaluation.corruptions.KINDS`.
        severities: of each, from 1 to 5.
        seed: decides all that is drawn, together with the split, the photo's number in it, kind and severity.
        photos: how many of each split, drawn by the seed; 0 for all.
        frosts: photos of frost `[H, W, 3]` uint8; without any, frost is drawn.
    """

    kinds: Sequence[str] = tuple(KINDS)
    severities: Sequence[int] = SEVERITIES
    seed: int = 0
    photos: int = 0
    frosts: Sequence[np.ndarray] = ()

    @property
    def all(self) -> list[Condition]:
        """Clean photos first, then each kind at each severity."""
        return [CLEAN, *((kind, severity) for kind in self.kinds for severity in self.severities)]


class _Asked(NamedTuple):
    """A task with its classes on the devices.

    Attributes:
        task: the task.
        classes: their embeddings, seen species held back by the model's margin where others are candidates too.
        row_of: the row of each class id, also of a species' other rows.
        margin: by which they are held back; 0 for none.
    """

    task: Task
    classes: ranking.Classes
    row_of: Mapping[int, int]
    margin: float


def measure(
    trained: Trained,
    records: RecordSet,
    tasks: Sequence[Task],
    conditions: Conditions,
    *,
    batch_size: int = 64,
    devices: int = 0,
) -> dict[str, Any]:
    """Names photos in every condition among the classes of each task.

    Args:
        trained: the model, with its image tower.
        records: the photos.
        tasks: splits and candidates.
        conditions: what is done to the photos.
        batch_size: photos at a time.
        devices: devices to use; 0 for all.

    Returns:
        The conditions, and by task ``split``, ``candidates``, ``chance``, ``margin`` (by which seen species are held
        back where others are candidates too, see `unseen.together`) and accuracies, see `summary`; JSON-ready.

    Raises:
        UserError: a task with photos of a class that is not among its candidates; an odd batch size.
    """
    mesh = make_mesh(devices)
    check_divides(batch_size, mesh.size, name="--batch-size")
    parts, params = photo_embeddings.embedder(trained.model, mesh), on_device(trained, mesh)
    asked = _with_classes(trained, records, tasks, Vectors(trained, parts, params, batch_size))
    pictures = building.pictures_of(trained.config.image)
    chosen = {split: drawn(records.examples(split), conditions, split) for split in {task.split for task in tasks}}
    done, total = 0, sum(int(flags.sum()) for flags in chosen.values()) * len(conditions.all)
    hits: dict[str, dict[Condition, TopK]] = {task.name: {} for task in tasks}
    with console.Progress(total) as progress, concurrent.futures.ThreadPoolExecutor() as pool:
        tick = console.pace(progress, "photos in all conditions")
        for split, flags in sorted(chosen.items()):
            views = _views(records, split, flags, conditions, pictures, batch_size, pool)
            for batch, condition, photos in _embedded(parts, params, views):
                for one in (one for one in asked if one.task.split == split):
                    found, own = _hits(photos, batch, one, parts), hits[one.task.name]
                    own[condition] = own[condition] + found if condition in own else found
                done += int(batch["mask"].sum())
                tick(done, total)
    return {
        "kinds": list(conditions.kinds),
        "severities": list(conditions.severities),
        "seed": conditions.seed,
        "frost": "photos" if conditions.frosts else "drawn",
        "side": pictures.size,
        "tasks": {
            one.task.name: {
                "split": one.task.split,
                "candidates": len(one.task.class_ids),
                "chance": 1 / len(one.task.class_ids),
                "margin": one.margin,
                **summary(hits[one.task.name], conditions),
            }
            for one in asked
        },
    }


def drawn(examples: int, conditions: Conditions, split: str) -> np.ndarray:
    """Which photos of a split are looked at: `[N]` bool."""
    flags = np.ones(examples, bool)
    if 0 < conditions.photos < examples:
        order = generator(conditions.seed, "photos of", split).permutation(examples)
        flags[order[conditions.photos :]] = False
    return flags


def _with_classes(trained: Trained, records: RecordSet, tasks: Sequence[Task], vectors: Vectors) -> list[_Asked]:
    """Each task with the embeddings of its classes, which are species, whatever rows of the table are one species."""
    config, table = trained.config, read_class_table(records.class_table)
    protocol = config.evaluation.protocol
    templates = templates_for(protocol, tuple(trained.about.prompt_templates))
    texts = prompts_of_species(prompts_of(trained.about, table, templates, protocol), table.species_of)
    embedded = vectors.of_each(*([texts[class_id] for class_id in task.class_ids] for task in tasks))
    asked = []
    for task, class_emb in zip(tasks, embedded, strict=True):
        row_of = {class_id: row for row, class_id in enumerate(task.class_ids)}
        row_of |= {one: row_of[species] for one, species in table.species_of.items() if species in row_of}
        unknown = sorted(set(records.classes_in(task.split)) - row_of.keys())
        if unknown:
            raise UserError(
                f"task {task.name}: found photos of {table.label(unknown[0])}, expected only classes to choose from"
            )
        species = unseen.species_in_training(trained.about, records, table.subset(task.class_ids))
        less = known_species.held_back(trained.about, species)
        margin = 0.0 if less is None else float(less.max())
        asked.append(_Asked(task, ranking.put_classes(class_emb, vectors.parts.mesh, less), row_of, margin))
    return asked


_View = tuple[record_batches.HostBatch, Condition, np.ndarray]


def _views(
    records: RecordSet, split: str, flags: np.ndarray, conditions: Conditions, pictures: Pictures, batch_size: int,
    pool: concurrent.futures.Executor,
) -> Iterator[_View]:  # fmt: skip
    """Each batch in each condition: the batch, the condition, and the photos `[B, S, S, 3]` uint8 in it."""
    numbers = np.flatnonzero(flags)
    batches = record_batches.evaluation_batches(
        records, split, batch_size=batch_size, pictures=pictures, only=None if flags.all() else flags
    )
    for place, batch in enumerate(batches):
        own = numbers[place * batch_size : (place + 1) * batch_size].tolist()
        clean = batch["image"]
        for condition in conditions.all:
            if condition == CLEAN:
                yield batch, condition, clean
                continue
            one = functools.partial(_corrupted, split=split, condition=condition, conditions=conditions)
            yield batch, condition, np.stack([*pool.map(one, clean, own), *clean[len(own) :]])


def _corrupted(photo: np.ndarray, number: int, *, split: str, condition: Condition, conditions: Conditions) -> Any:
    random = generator(conditions.seed, split, number, *condition)
    return corrupt(photo, *condition, random, conditions.frosts)


def _embedded(
    parts: Embedder, params: Params, views: Iterator[_View]
) -> Iterator[tuple[record_batches.HostBatch, Condition, jax.Array]]:
    """Photos in the common space, `[B, D]` on the devices; while one condition computes, the next is corrupted."""

    def look(view: _View) -> tuple[record_batches.HostBatch, Condition, jax.Array]:
        batch, condition, photos = view
        image = put_batch({"image": photos}, parts.mesh)["image"]
        return batch, condition, parts.projected(params, parts.features(params[IMAGE], image))

    return record_batches.ahead(views, look, depth=1)


def _hits(photos: jax.Array, batch: record_batches.HostBatch, asked: _Asked, parts: Embedder) -> TopK:
    mask = batch["mask"]
    labels = np.array([asked.row_of.get(class_id, 0) for class_id in batch["class_id"].tolist()])
    ranks = ranking.ranks(photos, labels, asked.classes, parts.mesh)
    return hits_of(ranks[mask], labels[mask], len(asked.task.class_ids))


def summary(hits: Mapping[Condition, TopK], conditions: Conditions) -> dict[str, Any]:
    """Accuracies of one task.

    Args:
        hits: by condition.
        conditions: kinds and severities that `hits` has.

    Returns:
        ``images``; ``clean`` and, in ``corrupted``, each kind at each severity: top-1 and top-5 with Wilson's
        intervals, and ``of_clean``, top-1 as a share of that of clean photos; ``by_kind``: mean over severities of
        ``top1``, of ``error`` (1 - top-1), of ``of_clean`` and of ``more_error`` than on clean photos;
        ``mean_error``: of ``error`` over kinds, and ``mean_more_error`` likewise, both not normalised.
    """
    clean = _rates(hits[CLEAN])
    top1 = clean["top1"]

    def of_clean(value: float) -> float | None:
        return value / top1 if top1 else None

    corrupted: dict[str, dict[str, Any]] = {}
    by_kind = {}
    for kind in conditions.kinds:
        corrupted[kind] = {}
        for severity in conditions.severities:
            rates = _rates(hits[kind, severity])
            corrupted[kind][str(severity)] = {**rates, "of_clean": of_clean(rates["top1"])}
        mean = float(np.mean([row["top1"] for row in corrupted[kind].values()]))
        by_kind[kind] = {"top1": mean, "error": 1 - mean, "of_clean": of_clean(mean), "more_error": top1 - mean}
    return {
        "images": int(hits[CLEAN].images.sum()),
        "clean": clean,
        "corrupted": corrupted,
        "by_kind": by_kind,
        "mean_error": float(np.mean([row["error"] for row in by_kind.values()])),
        "mean_more_error": float(np.mean([row["more_error"] for row in by_kind.values()])),
    }


def _rates(hits: TopK) -> dict[str, Any]:
    found = hits.summary()
    names = [f"top{k}" for k in KS]
    return {
        **{name: found[name] for name in names},
        **{f"{name}_interval": wilson(float(found[name]), int(found["images"])) for name in names},
    }


def of_same_model(folder: pathlib.Path, evaluation: Mapping[str, Any]) -> dict[str, Any] | None:
    """What `lit_jax.robustness` left in a run's folder; None if it is of another model or other photos.

    So is one that is not as the command writes it, with a line.
    """
    path = folder / RESULT
    try:
        found = foreign.loaded(path)
        same = all(found[name] == evaluation[name] for name in ("step", "config", "locked", "records"))
        is_whole = not same or _is_whole(found)
    except OSError:
        return None
    except DAMAGED:
        is_whole = False
    if not is_whole:
        say(f"note: {path}: found no result of lit_jax.robustness, expected one; left out of the page", flush=True)
    return dict(found) if is_whole and same else None


def _is_whole(found: Mapping[str, Any]) -> bool:
    """Whether a result has what a page shows, of the kinds that `measure` gives.

    Raises:
        KeyError, TypeError, AttributeError: it lacks something, or is made in another way.
    """
    kinds, severities, tasks = found["kinds"], found["severities"], found["tasks"]
    shares = [
        share
        for task in tasks.values()
        for each in [[task["corrupted"][kind][str(severity)]["top1"] for severity in severities] for kind in kinds]
        for share in (task["clean"]["top1"], task["mean_error"], *each)
    ]
    return (
        set(kinds) <= set(KINDS)
        and all(type(number) is int for number in (found["seed"], *severities))
        and all(type(share) in (int, float) and 0 <= share <= 1 for share in shares)
    )


def normalised(result: Mapping[str, Any], baseline: Mapping[str, Any], where: str = "baseline") -> dict[str, Any]:
    """The paper's mean corruption error of each task, by the errors of a baseline.

    The errors of a kind at all severities are added and divided by those of the baseline; ``mce`` is the mean over
    kinds of these shares. ``relative_mce`` is the same of errors beyond those on clean photos. 1 is as good as the
    baseline, less is better. Source: Hendrycks and Dietterich (arXiv 1903.12261), section 4.

    Args:
        result: of `measure`.
        baseline: of `measure` of another model, in the same conditions on the same tasks.
        where: the baseline is from, for messages.

    Returns:
        By task ``mce``, ``relative_mce`` (None where the baseline loses nothing in one kind) and ``by_kind``, the
        shares.

    Raises:
        UserError: the baseline has other tasks, kinds, severities, photos or another seed.
    """
    for name in ("kinds", "severities", "seed", "frost", "frost_files", "records", "photos"):
        if baseline.get(name) != result.get(name):
            raise UserError(
                f"{where}: found {name} {baseline.get(name)!r}, expected {result.get(name)!r}, as here; measure the "
                "baseline in the same way"
            )
    found = {}
    for task, own in result["tasks"].items():
        errors = _errors_of(baseline["tasks"].get(task), own)
        if errors is None:
            raise UserError(f"{where}: found another task {task}, expected the same; measure the baseline anew")
        shares, relative = {}, []
        for kind, row in own["by_kind"].items():
            error, more = errors[kind]
            shares[kind] = row["error"] / error if error else None
            relative.append(row["more_error"] / more if more > 0 else None)
        found[task] = {"mce": _mean(list(shares.values())), "relative_mce": _mean(relative), "by_kind": shares}
    return found


def _errors_of(other: Any, own: Mapping[str, Any]) -> dict[str, tuple[float, float]] | None:
    """``error`` and ``more_error`` of each kind in a baseline's JSON; None if it is damaged or of another task."""
    try:
        same = (other["candidates"], other["images"]) == (own["candidates"], own["images"])
        rows = {kind: other["by_kind"][kind] for kind in own["by_kind"]}
        errors = {kind: (float(row["error"]), float(row["more_error"])) for kind, row in rows.items()}
    except DAMAGED:
        return None
    return errors if same else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None

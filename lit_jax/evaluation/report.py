"""The whole evaluation of a trained model on a split of photos.

It names the photos of a split among classes given only in words: those of the record set, or those of any CSV,
species never trained on included. It measures accuracy at every rank, how far the model's confidence can be believed,
how well photos and captions find each other, and which classes are hardest.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from lit_jax import config as options
from lit_jax.base import console
from lit_jax.base.console import say
from lit_jax.base.sharding import check_divides, make_mesh
from lit_jax.data.collection import Collection, at_hand, fingerprint
from lit_jax.data.embedding_store import Rows, Store, image_ids
from lit_jax.embedding import photo_embeddings, text_embeddings
from lit_jax.embedding.about import About
from lit_jax.embedding.class_prompts import prompts_of, prompts_of_species
from lit_jax.embedding.trained import Trained
from lit_jax.embedding.vectors import Vectors, on_device
from lit_jax.errors import UserError
from lit_jax.evaluation import calibration, kinship, known_species, leaks, ranking, ranks, retrieval, unseen, yardstick
from lit_jax.evaluation.intervals import of_mean
from lit_jax.evaluation.ranking import Predictions
from lit_jax.models import building
from lit_jax.models.locking import LOGIT_SCALE, TEXT
from lit_jax.text.classes import ClassTable, read_class_table
from lit_jax.text.prompts import duplicates, templates_for

HARD = ("genus", "family")  # ranks of which all groups are told, besides the species
LARGEST = 8192  # photos at a time, unless there are more in all: a batch is filled up to its size
COMPARED = 50_000  # photos of training and held out that are compared with each other, at the most: seconds
PAIRS = 20  # of near photos that are told
FITTED = 20_000  # photos that the temperature is fitted on, at the most


@dataclasses.dataclass(frozen=True)
class Words:
    """The classes that a model chooses from, and how they are named in prompts.

    Attributes:
        classes: the classes to choose from; None for those of the data: for a split of species that were trained on,
            all of those; otherwise the species of the split.
        templates: prompt templates; empty for those of the run, which may be its caption templates.
        protocol: how classes are named, one of `lit_jax.text.prompts.PROTOCOLS`; empty for that of the run.
    """

    classes: ClassTable | None = None
    templates: Sequence[str] = ()
    protocol: str = ""


def evaluate(
    trained: Trained,
    data: Collection,
    split: str,
    words: Words | None = None,
    *,
    batch_size: int = 256,
    devices: int = 0,
    keep_in: pathlib.Path | None = None,
) -> dict[str, Any]:
    """Classifies every photo of a split once, and measures accuracy by rank, calibration, retrieval and hard cases.

    Args:
        trained: the model.
        data: where the photos are, or their features.
        split: which of them.
        words: the classes and their names; None for those of the data, named as in the run.
        batch_size: photos and prompts at a time.
        devices: devices to use; 0 for all.
        keep_in: folder in which class embeddings are kept for the next evaluation; None to keep none.

    Returns:
        ``top1``, ``top5``, ``images``, ``classes`` (with photos), ``candidates``, ``chance``, ``same_prompts``
        (groups of class names that share all prompts), ``ceiling`` (of top-1, because of those), ``ranks``,
        ``by_supercategory``, ``calibration``, ``retrieval``, ``per_class`` (names, images, top1, top5, taken_for),
        ``common_names`` (of what classes are taken for), ``species`` (how many with photos were in training, and how
        that was told), ``gzsl`` (see `unseen.together`; None where there are not photos of both kinds) and facts about
        the run, and ``closed_form`` (rows of `yardstick.measure`, for held-out species of a store); beside each
        accuracy its ``_interval``; ``near_copies`` (photos that are nearly one of training, and figures
        without them; None where nobody can tell); ``leaks`` (of held-out species, see `leaks.of_heldout`; with
        ``photos`` of a store, near ones in training); JSON-ready.

    Raises:
        UserError: a split that is not there, classes that do not cover its photos, an odd batch size.
    """
    config, words = trained.config, words or Words()
    mesh = make_mesh(devices)
    check_divides(batch_size, mesh.size, name="--batch-size")
    most = max(data.examples(split), LARGEST)
    if batch_size > most:
        raise UserError(f"--batch-size: found {batch_size}, expected at most {most}; use a smaller one")
    protocol = words.protocol or config.evaluation.protocol
    templates = templates_for(protocol, tuple(words.templates) or tuple(trained.about.prompt_templates))
    table = _table(trained.about, data, split, words.classes)
    texts = prompts_of_species(prompts_of(trained.about, table, templates, protocol), table.species_of)
    species_of, table = table.species_of, table.subset(dict.fromkeys(table.species_of.values()))
    parts = photo_embeddings.embedder(trained.model, mesh)
    params = on_device(trained, mesh)
    vectors = Vectors(trained, parts, params, batch_size, keep_in)
    others = _all_species(trained, data, split, (templates, protocol))
    class_emb, other_emb = vectors.of_each(
        [texts[class_id] for class_id in table.ids], others.prompts if others else ()
    )
    features = photo_embeddings.photos_of(
        parts, data, pictures=building.pictures_of(config.image, config.data), batch_size=batch_size
    )

    @functools.cache  # photos of a split may be asked for twice, and pass the tower once
    def photos_of(name: str) -> tuple[np.ndarray, np.ndarray]:
        with console.Progress(data.examples(name)) as progress:
            tell = console.pace(progress, f"photos of split {name}")
            batches = _counted(features(name, params), data.examples(name), tell)
            return photo_embeddings.image_embeddings(parts, params, batches)

    photos, class_ids = photos_of(split)
    labels = _labels(class_ids, species_of, table)
    species = unseen.species_in_training(trained.about, data, table)
    less = known_species.held_back(trained.about, species)
    found = ranking.predict(photos, labels, class_emb, mesh, less=less)
    asked = unseen.Asked(photos, labels, class_emb, table, species.seen)
    if others is not None:
        every, ids = (np.concatenate(both) for both in zip(*map(photos_of, others.splits), strict=True))
        known = unseen.species_in_training(trained.about, data, others.table).seen
        asked = unseen.Asked(every, _labels(ids, others.species_of, others.table), other_emb, others.table, known)
    same = duplicates([list(texts[i]) for i in table.ids])
    factor = float(np.exp(np.asarray(trained.params[LOGIT_SCALE])))
    summary, together = _summary(found, table), _gzsl(trained, asked, mesh)
    near = _near(trained, data, split, class_ids)
    return {
        **summary,
        "near_copies": _without_copies(near, found),
        "same_prompts": [[table.names[row] for row in group] for group in same],
        "ceiling": ranks.ceiling(found.hits().images, same),
        **_by_rank(found, table),
        "calibration": _calibration(photos, found, class_emb, mesh, factor, less, seed=config.seed),
        "species": known_species.described(species, table, np.unique(labels).tolist()),
        "gzsl": together,
        "leaks": _leaks(trained, data, split, summary["per_class"], together, near),
        "closed_form": _closed_form(trained, data, split, templates, protocol),
        "retrieval": _retrieval(trained.about, table, photos, labels, vectors),
        **_facts(trained, data, split, species_of, templates),
        "protocol": protocol,
    }


def _counted(
    batches: Iterable[photo_embeddings.Photos], total: int, tell: Callable[[int, int], None]
) -> Iterator[photo_embeddings.Photos]:
    """The same batches of photos; `tell` hears how many are done, and how many there are."""
    done = 0
    for batch in batches:
        yield batch
        done += int(np.sum(batch.mask))
        tell(done, total)


def _labels(class_ids: np.ndarray, species_of: Mapping[int, int], table: ClassTable) -> np.ndarray:
    """`[N]`: the row of each photo's species in a table of species."""
    row_of = {class_id: row for row, class_id in enumerate(table.ids)}
    return np.array([row_of[species_of[class_id]] for class_id in class_ids.tolist()])


class _Others(NamedTuple):
    """All species of the run's own data, to be asked together.

    Attributes:
        splits: of their photos: seen species, then held-out ones.
        table: of the species.
        species_of: each class id to that of its species.
        prompts: of each species of the table.
    """

    splits: tuple[str, str]
    table: ClassTable
    species_of: Mapping[int, int]
    prompts: Sequence[Sequence[str]]


def _all_species(trained: Trained, data: Collection, split: str, naming: tuple[Sequence[str], str]) -> _Others | None:
    """What is asked together in the run's own data, where the split is its seen or its held-out one; None elsewhere."""
    chosen, about = trained.config.data, trained.about
    own = (chosen.seen_split, chosen.heldout_split)
    if split not in own or fingerprint(data) != about.fingerprint or not all(name in data.splits for name in own):
        return None
    wanted = {i for name in own for i in data.classes_in(name)} | set(about.train_classes)
    table = read_class_table(data.class_table).subset(sorted(wanted))
    species = table.subset(sorted(set(table.species_of.values())))
    texts = prompts_of_species(prompts_of(about, table, *naming), table.species_of)
    return _Others(own, species, table.species_of, [texts[class_id] for class_id in species.ids])


def _gzsl(trained: Trained, asked: unseen.Asked, mesh: Mesh) -> dict[str, Any] | None:
    """Photos of seen and of unseen species named among all; None where there are not both."""
    if asked.seen[asked.labels].all() or not asked.seen[asked.labels].any():
        return None
    factor = float(np.exp(np.asarray(trained.params[LOGIT_SCALE])))
    return unseen.together(asked, trained.about.margin, factor, mesh)


def _leaks(
    trained: Trained,
    data: Collection,
    split: str,
    per_class: Sequence[Mapping[str, Any]],
    together: Mapping[str, Any] | None,
    near: "_Near | None",
) -> dict[str, Any] | None:
    """What figures of held-out species may owe to training, see `leaks.of_heldout`; None of any other split."""
    chosen, about = trained.config.data, trained.about
    if fingerprint(data) != about.fingerprint or split != chosen.heldout_split or chosen.train_split not in data.splits:
        return None
    table = read_class_table(data.class_table)
    species = [table.species_of[class_id] for class_id in data.classes_in(split)]
    if set(species) & {table.species_of[class_id] for class_id in about.train_classes}:
        return None
    found = leaks.of_heldout(data, table, chosen.train_split, split, per_class)
    if together:
        groups = kinship.kinship(table, data.classes_in(chosen.train_split), found["ids"])
        for row, among in zip(
            found["kinship"]["rows"], kinship.accuracy_by_kinship(groups, together["per_class"]), strict=True
        ):
            row["among_all"] = {name: among[name] for name in ("top1", "top1_interval") if name in among}
    photos = sum(data.examples(name) for name in (chosen.train_split, split))
    if near is not None:
        found["photos"] = {"within": near.found["within"], **_shortened(near.found["comparisons"][0], table)}
    else:
        found["photos"] = None
    return {
        **found,
        "train_photos": photos - data.examples(split),
        "store": str(data.directory),
        "is_store": isinstance(data, Store),
    }


class _Near(NamedTuple):
    """Photos of a split that are nearly one of training.

    Attributes:
        found: from `leaks.near_photos`.
        rows: `[N]` bool, which photos of the split, in its order.
    """

    found: Mapping[str, Any]
    rows: np.ndarray


def _near(trained: Trained, data: Collection, split: str, class_ids: np.ndarray) -> _Near | None:
    """Photos of a split of the run's own data that are nearly one of training.

    None where the features of both are not at hand, or too many to be compared in seconds.
    """
    chosen, about = trained.config.data, trained.about
    if fingerprint(data) != about.fingerprint or split == chosen.train_split:
        return None
    store = data if isinstance(data, Store) else _stored(chosen, data)
    if store is None or not {chosen.train_split, split} <= set(store.splits):
        return None
    if store.examples(chosen.train_split) + store.examples(split) > COMPARED:
        return None
    if not np.array_equal(Rows(store, split).class_ids, class_ids):
        return None
    with console.Progress(1) as progress:
        tick = console.pace(progress, "pairs of photos")
        found = leaks.near_photos(store, chosen.train_split, [split], tick=tick)
    near = {pair["photo"] for pair in found["comparisons"][0]["pairs"]}
    return _Near(found, np.array([name in near for name in image_ids(store, split)], bool))


def _stored(chosen: options.Data, data: Collection) -> Store | None:
    """The embedding store of a run's records, if it is at hand."""
    found = at_hand(chosen, as_store=True)
    return found if isinstance(found, Store) and fingerprint(found) == fingerprint(data) else None


def _without_copies(near: _Near | None, found: Predictions) -> dict[str, Any] | None:
    """How many photos are nearly one of training, and accuracies of the others; None where nobody can tell."""
    if near is None:
        return None
    rest = found.rank[~near.rows]
    counts: dict[str, Any] = {"photos": len(near.rows), "near_photos": int(near.rows.sum()), "images": len(rest)}
    if len(rest):
        rates = {f"top{k}": float(np.mean(rest < k)) for k in (1, 5)}
        counts |= ranks.with_intervals(rates, len(rest))
    return counts


def _shortened(comparison: Mapping[str, Any], table: ClassTable) -> dict[str, Any]:
    """Near photos with the nearest pairs only, whose classes are names for people."""
    pairs = [
        {**pair, **{kind: table.label(pair[kind]) for kind in ("class", "like_class")}}
        for pair in comparison["pairs"][:PAIRS]
    ]
    return {**comparison, "pairs": pairs, "capped": len(comparison["capped"])}


def _closed_form(
    trained: Trained, data: Collection, split: str, templates: Sequence[str], protocol: str
) -> list[dict[str, Any]]:
    """What the closed form reaches on the same species, where the features of the run's photos are in a store.

    It reads ranks and names of the class table and, where a pre-trained text tower is locked, what that makes of them.
    """
    chosen, about, text = trained.config.data, trained.about, trained.config.text
    splits = (chosen.train_split, chosen.seen_split, chosen.heldout_split)
    if not isinstance(data, Store) or fingerprint(data) != about.fingerprint or split != chosen.heldout_split:
        return []
    if not all(name in data.splits for name in splits):
        return []
    table = read_class_table(data.class_table)
    if reason := yardstick.why_not(data, table, splits):
        say(f"note: {reason}: no closed form beside these figures", flush=True)
        return []
    kinds = yardstick.kinds_of(table)
    if building.reads_words(trained.config.towers, trained.model, from_store=True):
        prompts = prompts_of(about, table, templates, protocol)
        tokens = building.reading(text, trained.tokenizer)([prompts[class_id][0] for class_id in table.ids])
        kinds["the text tower"] = text_embeddings.text_features(trained.model, trained.params[TEXT], tokens)
    with console.Progress(1) as progress:
        tell = console.part(progress, "closed form")
        return yardstick.measure(data, table, splits, kinds, seed=trained.config.seed, tell=tell)


def _table(about: About, data: Collection, split: str, classes: ClassTable | None) -> ClassTable:
    """The classes to choose from; each class with photos must be among them."""
    own = read_class_table(data.class_table)
    present = data.classes_in(split)
    table = own.subset(candidates(about, data, present)) if classes is None else classes
    missing = sorted(set(present) - set(table.ids))
    if missing:
        name = own.names[own.index_of(missing[0])]
        raise UserError(
            f"--classes: found no row for {name} (id {missing[0]}), expected one for each class with photos"
        )
    return table


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
    photos: np.ndarray,
    found: Predictions,
    class_emb: np.ndarray,
    mesh: Mesh,
    factor: float,
    less: np.ndarray | None,
    *,
    seed: int,
) -> dict[str, Any] | None:
    """Calibration before and after one temperature, fitted on photos that are not counted; None for a few photos."""
    order = np.random.default_rng(seed).permutation(len(photos))
    fitted, rest = np.split(order, [min(len(photos) // 2, FITTED)])
    if len(fitted) < 2:
        return None

    def at(rows: np.ndarray) -> Callable[[float], ranking.Likelihoods]:
        own, labels = photos[rows], found.labels[rows]
        return lambda factor: ranking.likelihoods(own, labels, class_emb, mesh, factor=factor, less=less)

    best = calibration.fit_factor(at(fitted))
    correct = found.rank[rest] == 0
    before, after = (
        {**calibration.reliability(values.confidence, correct), "loss": float(values.loss.mean())}
        for values in map(at(rest), (factor, best))
    )
    return {
        "fitted_on": len(fitted),
        "measured_on": len(rest),
        "temperature": factor / best,
        # Fitted on some photos, a temperature may make others worse, or say nothing; it is not to be used then.
        "helps": after["ece"] <= before["ece"] and not calibration.why_unusable(factor / best),
        "before": before,
        "after": after,
    }


def _retrieval(
    about: About, table: ClassTable, photos: np.ndarray, labels: np.ndarray, vectors: Vectors
) -> dict[str, Any]:
    """Photos by captions and captions by photos; classes that share a caption share it here too."""
    captions = prompts_of(about, table, (), "caption")
    first = [captions[class_id][0] for class_id in table.ids]
    distinct = {text: row for row, text in enumerate(dict.fromkeys(first))}
    text_of = np.array([distinct[text] for text in first])[labels]
    texts = vectors.of([[text] for text in distinct])
    return {"captions": len(distinct), **retrieval.both_ways(photos, texts, text_of)}


def is_other(about: About, data: Collection) -> bool:
    """Whether the photos are of another collection than the model was trained on; a published model has none."""
    return bool(about.fingerprint) and fingerprint(data) != about.fingerprint


def _trained_on(about: About, data: Collection) -> set[int] | None:
    """Ids of the classes of training; None for data of another collection, whose ids are others."""
    return set(about.train_classes) if fingerprint(data) == about.fingerprint else None


def candidates(about: About, data: Collection, present: Sequence[int]) -> list[int]:
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
    data: Collection,
    split: str,
    species_of: Mapping[int, int],
    templates: Sequence[str],
) -> dict[str, Any]:
    trained_on = _trained_on(trained.about, data)
    seen = {species_of.get(i, i) for i in trained_on or ()} & {species_of[i] for i in data.classes_in(split)}
    return {
        "split": split,
        "data": {"name": data.directory.name, "is_other": is_other(trained.about, data)},
        "chosen_on": trained.about.chosen_on if trained_on is not None else "",
        "classes_in_training": None if trained_on is None else len(seen),
        "records": fingerprint(data),
        "store": data.fingerprint if isinstance(data, Store) else "",
        "step": trained.step,
        "config": options.digest(trained.about.config),
        "locked": trained.about.locked,
        "templates": list(templates) or trained.about.prompt_templates or trained.about.templates,
    }

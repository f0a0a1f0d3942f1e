"""The rows of a classifier's last layer as embeddings of its classes, alone or beside photos of the same tower.

A row of the last layer points to where the tower puts photos of a class, but does not lie there. The rows are moved
and scaled so that they do: around the photos' mean, as far from it as photos' class means are. Photos stay as they are.
"""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.conversion.options import Options
from data_prep.conversion.plan import Planned, check_heldout_apart, held_out_classes
from data_prep.import_embeddings.embedding_files import Embeddings, Given, Rows, match_rows, note, placed_rows
from data_prep.sources.folder import read_names
from data_prep.sources.items import HELDOUT, TRAIN
from lit_jax.base.console import say
from lit_jax.errors import UserError
from lit_jax.text.classes import FOLDER_COLUMNS, NAME_COLUMNS, ClassTable, find_species, read_class_table, species_key

_BLOCK = 1 << 13  # photos looked at at a time
_ASKED = 20_000  # photos that the head is tried on, at most: evenly spaced ones of more
_SIGMAS = 3.0  # by which hits must exceed those of chance


@dataclasses.dataclass(frozen=True)
class Head:
    """A classifier's last layer.

    Attributes:
        weight: `[C, W]` float32, a row a class.
        bias: `[C]` float32.
        labels: what each of the C classes is called, in one or more texts, the surest first; None if nobody says.
        title: what to call it.
        array: name of the weight in its file.
        digest: SHA-256 over weight and bias, hexadecimal.
    """

    weight: np.ndarray
    bias: np.ndarray
    labels: tuple[tuple[str, ...], ...] | None
    title: str
    array: str = ""
    digest: str = ""


@dataclasses.dataclass(frozen=True)
class HeadUse:
    """A head and what to do with it.

    Attributes:
        head: the head.
        ordered: class ids of its rows where it has no labels: those of the first class table, in its order.
        leave_out: species that the text side is never to read, each by its names; see `read_left_out`.
        anyway: go on though the head does not name the photos.
    """

    head: Head
    ordered: tuple[int, ...]
    leave_out: tuple[tuple[str, ...], ...] = ()
    anyway: bool = False


class Place(NamedTuple):
    """Where rows of a head are moved to.

    Attributes:
        centre: `[W]` float64.
        scale: factor of their distance from their mean.
        photos: how many photos the centre is the mean of; 0: there are none.
        spread: mean distance of class means, or of photos, from the centre.
        classes: how many class means that are; 0: photos.
    """

    centre: np.ndarray
    scale: float
    photos: int
    spread: float
    classes: int


def read_left_out(path: Path) -> tuple[tuple[str, ...], ...]:
    """The names of each species in a class table (CSV, JSON; name and common name) or a text, one a line.

    Raises:
        UserError: what `read_class_table` or `read_names` refuses.
    """
    if path.suffix.lower() in (".csv", ".json"):
        table = read_class_table(path)
        columns = [table.columns[column] for column in NAME_COLUMNS if column in table.columns]
        rows = list(zip(*columns, strict=True))
    else:
        rows = [(name,) for name in read_names(path)]
    return tuple(tuple(filter(None, row)) for row in rows)


def rows_with_head(given: Given | None, use: HeadUse, table: ClassTable, options: Options) -> Rows:
    """The rows of a head, to train on, and photos of the same tower beside them, if there are any.

    Photos go where `placed_rows` places them, but those of species that are left out go to the held-out split. A head
    row of a species that is left out or held out is not stored.

    Raises:
        UserError: another width than the photos'; labels of which the table has none; photos that the head does not
            name better than chance; nothing left to train on; and what `placed_rows` refuses.
    """
    head = use.head
    class_ids = _class_ids(use, table)
    left = _left_out(use.leave_out, table)
    rows = _photo_rows(given, head, table, options)
    if given is not None and given.embeddings.width != head.weight.shape[1]:
        raise UserError(
            f"head {head.title}: found width {head.weight.shape[1]}, expected {given.embeddings.width} as of the "
            "photos; give head and photos of one tower, before any projection"
        )
    photos = [p._replace(split=HELDOUT) if table.species_of[p.class_id] in left else p for p in rows.photos]
    check_heldout_apart(table, photos)
    if photos:
        _check_belongs(rows._replace(photos=photos), head, class_ids, table, use.anyway)
    held = {table.species_of[p.class_id] for p in photos if p.split == HELDOUT}
    held |= {table.species_of[i] for i in _named_heldout(table, options, class_ids.values(), bool(photos))}
    kept = _kept(class_ids, table, left, held - left)
    place = _place(rows._replace(photos=photos), head.weight, table)
    return _together(rows._replace(photos=photos), head, kept, place, table)


def _photo_rows(given: Given | None, head: Head, table: ClassTable, options: Options) -> Rows:
    """The photos alone; without any, an empty array of the head's width."""
    if given is None:
        return Rows(Embeddings((np.empty((0, 1, head.weight.shape[1]), np.float32),), None, head.title), [], {}, ())
    if not any(item.class_name != "" for item in given.items):
        everything = {str(row): row for row in range(len(given.embeddings))}
        return Rows(given.embeddings, [], _listed(given, match_rows(given)) if given.items else everything, ())
    rows = placed_rows(given, table, dataclasses.replace(options, allow_empty_classes=True))
    return rows._replace(row_of=_listed(given, rows.row_of))


def _listed(given: Given, row_of: Mapping[str, int]) -> dict[str, int]:
    """The rows of photos that stand in the list: what is not in it was left out."""
    return {item.image_id: row_of[item.image_id] for item in given.items if item.image_id in row_of}


# -- which class a row is of


def _class_ids(use: HeadUse, table: ClassTable) -> dict[int, int]:
    """Row number of the head to class id, of all rows that the table has a class for."""
    labels, classes = use.head.labels, len(use.head.weight)
    if labels is None:
        if len(use.ordered) != classes:
            raise UserError(
                f"head {use.head.title}: found {classes} classes without names, expected {len(use.ordered)} as in the "
                "class table, whose order counts then; give the table of the head's classes first, in its order"
            )
        return dict(enumerate(use.ordered))
    find = _Finder(table)
    found = {row: class_id for row, texts in enumerate(labels) if (class_id := find(texts)) is not None}
    if not found:
        raise UserError(
            f"head {use.head.title}: found classes such as {labels[0][0]!r}, expected names of the class table, such "
            f"as {table.names[0]!r}; give the table of the head's classes"
        )
    note(
        "head rows left out, for their labels are no class of the table",
        [texts[0] for row, texts in enumerate(labels) if row not in found],
    )
    return found


class _Finder:
    """Finds the class of a label: by name, by common name, then by folder; of a description by each of its parts."""

    def __init__(self, table: ClassTable) -> None:
        columns = dict.fromkeys([*NAME_COLUMNS, *FOLDER_COLUMNS])
        self._lookups: list[dict[str, set[int]]] = []
        for column in columns:
            of: dict[str, set[int]] = defaultdict(set)
            for class_id, value in zip(table.ids, table.columns.get(column, ("",) * len(table)), strict=True):
                of[species_key(value)].add(table.species_of[class_id])
            of.pop("", None)
            self._lookups.append(of)

    def __call__(self, texts: Sequence[str]) -> int | None:
        """The class id, of the first row of its species; None if no class or more than one species is called so."""
        parts = [part for text in texts for part in re.split(r"[,;()]", text)]
        for text in dict.fromkeys(map(species_key, [*texts, *parts])):
            for of in self._lookups:
                if len(found := of.get(text, ())) == 1:
                    return next(iter(found))
        return None


def _left_out(names: Sequence[Sequence[str]], table: ClassTable) -> set[int]:
    """Ids of the species that bear one of some names, as name or as common name; those of no class are told."""
    of: dict[str, set[int]] = defaultdict(set)
    for column in NAME_COLUMNS:
        for class_id, value in zip(table.ids, table.columns.get(column, ("",) * len(table)), strict=True):
            of[species_key(value)].add(table.species_of[class_id])
    of.pop("", None)
    found = [set().union(*(of.get(species_key(name), ()) for name in row)) for row in names]
    unknown = [row[0] for row, species in zip(names, found, strict=True) if row and not species]
    if names and len(unknown) == len(names):
        raise UserError(
            f"--leave-out: found {len(names)} names and none in the class table ({unknown[0]}), expected names or "
            f"common names such as {table.names[0]}; correct the list"
        )
    note("names to leave out that are no class of the table", unknown)
    return set().union(*found)


def _named_heldout(table: ClassTable, options: Options, of_head: Collection[int], has_photos: bool) -> frozenset[int]:
    """Class ids of species that options hold out and that no photo says; a number is drawn of photos, if any."""
    if has_photos:
        return find_species(table, options.heldout_classes) if options.heldout_classes else frozenset()
    return held_out_classes(table, of_head, options.heldout, options.heldout_classes, options.seed)


def _kept(class_ids: Mapping[int, int], table: ClassTable, left: set[int], held: set[int]) -> dict[int, int]:
    """The rows of the head that are stored, with their class ids."""
    for species, why in ((left, "for they are to be left out"), (held, "for their species is held out")):
        gone = [table.label(class_id) for class_id in class_ids.values() if table.species_of[class_id] in species]
        note(f"head rows not stored, {why}", gone)
    kept = {row: i for row, i in class_ids.items() if table.species_of[i] not in left | held}
    if not kept:
        raise UserError(
            f"head: found {len(class_ids)} classes, all of them left out or held out, expected some to train on; leave "
            "out fewer"
        )
    return kept


# -- do head and photos belong together


def _check_belongs(rows: Rows, head: Head, class_ids: Mapping[int, int], table: ClassTable, anyway: bool) -> None:
    """Names given photos by the head itself, and refuses one that does that no better than chance."""
    species = np.full(len(head.weight), -1)
    for row, class_id in class_ids.items():
        species[row] = table.species_of[class_id]
    known = set(species.tolist())
    asked = [photo for photo in rows.photos if table.species_of[photo.class_id] in known]
    if not asked:
        say("head: no given photo is of a class of the head, so that none tells whether they belong together")
        return
    asked = [asked[i] for i in np.linspace(0, len(asked) - 1, min(_ASKED, len(asked))).astype(int)]
    truth = np.array([table.species_of[photo.class_id] for photo in asked])
    named = np.concatenate([
        species[np.argmax(block @ head.weight.T.astype(np.float64) + head.bias, axis=1)]
        for block in _blocks(rows, asked)
    ])  # fmt: skip
    hits = named == truth
    chance = _chance(named, truth, len(head.weight))
    line = (
        f"top-1 {hits.mean():.1%} of {len(asked)} photos of {len(set(truth.tolist()))} species, among its "
        f"{len(head.weight)} classes (chance {chance:.1%})"
    )
    clearly = hits.mean() > chance + _SIGMAS * (chance * (1 - chance) / len(asked)) ** 0.5
    if not clearly and not anyway:
        raise UserError(
            f"head {head.title}: found {line}, expected clearly more of photos of its own tower; give the "
            "features that the head reads: pooled as the classifier does and behind its last norm (pre-logits, "
            "fc_norm), before any projection; or go on with --head-anyway"
        )
    say(f"the head itself names the photos: {line}", flush=True)


def _chance(named: np.ndarray, truth: np.ndarray, classes: int) -> float:
    """The share of hits that the same answers would have with photos shuffled; at least one of the classes.

    A head that gives one answer to everything is right as often as that species has photos.
    """
    if len(set(truth.tolist())) == 1:
        return 1 / classes
    shuffled = sum(float((named == one).mean() * (truth == one).mean()) for one in set(truth.tolist()))
    return max(1 / classes, shuffled)


def _blocks(rows: Rows, photos: Sequence[Planned]) -> Iterator[np.ndarray]:
    """View 0 of some photos, block by block: `[n, W]` float64."""
    yield from _features(rows.embeddings, np.array([rows.row_of[photo.image_id] for photo in photos]))


def _features(embeddings: Embeddings, numbers: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(numbers), _BLOCK):
        yield embeddings.take(numbers[start : start + _BLOCK], 1)[:, 0].astype(np.float64)


# -- where a row is moved to


def _place(rows: Rows, weight: np.ndarray, table: ClassTable) -> Place:
    """Centre and scale: of the photos to train on, without any of all given ones, without any photo none."""
    numbers = np.array(sorted(rows.row_of.values()), np.int64)
    if not len(numbers):
        say(
            "head: no photos are given, so that its rows lie around 0 and are not scaled; photos to be named must then "
            "be centred: take their mean from their features before they are embedded or imported",
            flush=True,
        )
        return Place(np.zeros(weight.shape[1]), 1.0, 0, 0.0, 0)
    train = [photo for photo in rows.photos if photo.split == TRAIN]
    labelled = train or rows.photos
    numbers = np.array([rows.row_of[photo.image_id] for photo in train]) if train else numbers
    centre = sum((block.sum(0) for block in _features(rows.embeddings, numbers)), np.zeros(weight.shape[1]))
    centre = centre / len(numbers)
    if labelled:
        spread, classes = _spread_of_classes(rows, labelled, centre, table)
    else:
        norms = [np.linalg.norm(block - centre, axis=1).sum() for block in _features(rows.embeddings, numbers)]
        spread, classes = float(sum(norms)) / len(numbers), 0
    around = np.linalg.norm(weight.astype(np.float64) - weight.mean(0, dtype=np.float64), axis=1).mean()
    if not (around > 0 and spread > 0):
        raise UserError(
            f"head: found {'rows' if not around > 0 else 'photos'} that are all equal, expected different ones; give "
            "others"
        )
    kind, of = ("to train on" if train else "given"), f"{classes} class means" if classes else "photos"
    place = Place(centre, float(f"{spread / around:.6g}"), len(numbers), spread, classes)
    say(
        f"head rows are moved to where photos lie: around the mean of all {len(numbers)} photos {kind} (no label is "
        f"used), and scaled by {place.scale:g}, to the mean distance of {of} from it ({spread:.4g})",
        flush=True,
    )
    return place


def _spread_of_classes(
    rows: Rows, photos: Sequence[Planned], centre: np.ndarray, table: ClassTable
) -> tuple[float, int]:
    """The mean distance of class means from the centre, and how many classes there are."""
    species, index = np.unique([table.species_of[photo.class_id] for photo in photos], return_inverse=True)
    sums, start = np.zeros((len(species), len(centre))), 0
    for block in _blocks(rows, photos):
        np.add.at(sums, index[start : start + len(block)], block)
        start += len(block)
    means = sums / np.bincount(index)[:, None]
    return float(np.linalg.norm(means - centre, axis=1).mean()), len(species)


def _together(rows: Rows, head: Head, kept: Mapping[int, int], place: Place, table: ClassTable) -> Rows:
    """Photos, and behind them the rows of the head where they are to lie."""
    weight = head.weight.astype(np.float64)
    moved = (weight[list(kept)] - weight.mean(0)) * place.scale + place.centre
    embeddings = rows.embeddings
    views = embeddings.views if len(embeddings) else 1
    part = np.repeat(moved.astype(np.float32)[:, None], views, axis=1)  # each view is of nothing but the class
    first = len(embeddings)
    parts = (*(embeddings.parts if first else ()), part)
    ids = {row: f"head/{row}/{table.names[table.index_of(class_id)]}" for row, class_id in kept.items()}
    planned = [Planned("", ids[row], class_id, TRAIN, 0) for row, class_id in kept.items()]
    row_of = {photo.image_id: rows.row_of[photo.image_id] for photo in rows.photos}
    twice = next((image_id for image_id in ids.values() if image_id in row_of), None)
    if twice:
        raise UserError(f"ids: found a photo named {twice}, expected no photo in a folder named head; rename it")
    row_of |= {image_id: first + i for i, image_id in enumerate(ids.values())}
    say(
        f"{len(kept)} of {len(weight)} rows of the head and {len(rows.photos)} photos; accuracy on the head's own "
        "species is no zero-shot figure, for it has learnt from photos of them",
        flush=True,
    )
    about: dict[str, Any] = {
        "name": head.title, "array": head.array, "digest": head.digest, "classes": len(weight), "rows": len(kept),
        "centred_on_photos": place.photos, "scale": place.scale, "spread_of_classes": place.classes,
    }  # fmt: skip
    joined = Embeddings(parts, None, embeddings.title)
    return Rows(joined, [*rows.photos, *planned], row_of, rows.notes, about={"head": about})

"""Which photo goes where: its class, its split, its shard, or the reason to leave it out.

Reads sizes and, where two sizes are equal, contents; writes nothing. What names alone decide is in `place_items`.
Every draw by chance is made by hashing the seed with a name, so it depends neither on the order in which photos
are found nor on a library's generator, and a photo that is added later leaves the others where they were.
"""

import hashlib
import itertools
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from data_prep import spans
from lit_jax.classes import ClassTable, match_folders
from lit_jax.errors import UserError
from lit_jax.photo import photo_format

TRAIN, VALIDATION, HELDOUT = "train", "validation", "heldout"
SPLIT_NAMES = {"val": VALIDATION, "valid": VALIDATION, "test": VALIDATION}
"""How split names of others are read, unless the user says otherwise."""

DROP, KEEP = DUPLICATES = ("drop", "keep")
"""What to do with byte-identical photos."""

_HEAD = 1 << 14  # bytes that tell two photos of equal size apart, all but always
_THREADS = 16  # file systems answer many questions at a time, networked ones above all


class Item(NamedTuple):
    """One photo as a reader found it; what every source yields.

    Attributes:
        path: Where the photo is: a file, or a span of one (`data_prep.spans`).
        class_name: The class as the source calls it, looked up by `match_folders`, or its id in the class table as
            an integer; "" if outside any class.
        split: The source's split, or None if it has no splits.
        image_id: The path relative to the source's folder, with ``/``; unique.
    """

    path: str
    class_name: str | int
    split: str | None
    image_id: str


class Planned(NamedTuple):
    """One photo to be stored.

    Attributes:
        path: See `Item`.
        image_id: See `Item`.
        class_id: The class's id in the class table.
        split: The final split.
        size: Bytes of the file.
    """

    path: str
    image_id: str
    class_id: int
    split: str
    size: int


class Skip(NamedTuple):
    """One photo left out: which, the reason (a fixed text, to be counted), and what belongs to this photo."""

    image_id: str
    reason: str
    detail: str = ""


class Request(NamedTuple):
    """What a conversion asks of a source: the options of the command line that readers know.

    Attributes:
        images: Folder of the photos, or a data set's name; "" if not given.
        splits: List of the photos, if any.
        classes: Class table, if any.
        subsets: Parts of the source to take, by its own names; () for its default.
        templates: Captions, for sources that know a photo's class by its caption alone.
        drop_repeats: How they are filled.
        data_dir: Folder in which a data set is looked up by its name; "" for its own default.
    """

    images: str
    splits: Path | None = None
    classes: Path | None = None
    subsets: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    drop_repeats: bool = False
    data_dir: str = ""

    @property
    def folder(self) -> Path:
        """The folder of the photos; raises `UserError` if there is no such folder."""
        folder = Path(self.images)
        if not self.images or not folder.is_dir():
            raise UserError(f"--images: found no folder {self.images!r}, expected that of the photos; check the path")
        return folder


class Source(NamedTuple):
    """What a reader returns.

    Attributes:
        items: The photos one by one, or what it leaves out and why.
        table: The classes.
        archives: Released archives in the folder and their MD5, to be checked before anything is written.
    """

    items: Iterable[Item | Skip]
    table: ClassTable
    archives: Mapping[Path, str] = MappingProxyType({})


class Placement(NamedTuple):
    """What names alone decide.

    Attributes:
        items: Each item once, in the order of the ids, with its class id and its split.
        skips: What belongs to no class.
        present: Ids of the classes that have items.
        drawn: True where the source has no splits, so that `draw_validation` is still to come.
    """

    items: list[tuple[Item, int, str]]
    skips: list[Skip]
    present: frozenset[int]
    drawn: bool


class Plan(NamedTuple):
    """What is to be written.

    Attributes:
        photos: All photos to be stored, in no order that matters.
        skips: What is left out already, by `image_id`.
        present: Ids of the classes that had photos at first.
        inputs: Digest over names, classes, splits, sizes and times of change of all files.
    """

    photos: list[Planned]
    skips: list[Skip]
    present: frozenset[int]
    inputs: str


def plan_photos(
    items: Iterable[Item | Skip],
    table: ClassTable,
    *,
    seed: int = 0,
    validation_fraction: float = 0.1,
    heldout: int = 0,
    heldout_classes: Sequence[str] = (),
    split_names: Mapping[str, str] | None = None,
    allow_empty_classes: bool = False,
    duplicates: str = DROP,
    limit: int = 0,
) -> Plan:
    """Decides on each photo: class, split, or skipped.

    Where the source has splits they are kept, under the names of `split_names`. Where it has none, a fraction
    of each class is drawn for `validation`, and the rest is `train`. In both cases all photos of a held-out
    class go to `heldout`, whatever split they came from. Of byte-identical files one is kept, the one in
    `heldout` before one in another split before one in `train`, so that no evaluation photo is trained on;
    if their classes differ none is kept, because one of the names is wrong.

    Args:
        items: What a reader yields.
        table: The classes; each class name of `items` must be found in it.
        seed: Decides every draw.
        validation_fraction: Part of a class's photos drawn for validation, in [0, 1); rounded up, but at
            least one photo stays in train. Not used where the source has splits.
        heldout: Number of classes to draw for `heldout`.
        heldout_classes: Their names instead, in any spelling that `match_folders` knows.
        split_names: The source's split name to ours; added to `SPLIT_NAMES`.
        allow_empty_classes: Accept classes of the table that have no photo.
        duplicates: `DROP`, or `KEEP` to store each file whatever its bytes; none is opened then.
        limit: Keep only so many photos, drawn over all splits; 0: all.

    Raises:
        UserError: names without a class or classes without a photo; splits on some photos only; a split name
            that is no plain word; two splits that would become one unasked; a photo listed twice with
            different classes or splits; more held-out classes than can be.
    """
    placed = place_items(
        items,
        table,
        seed=seed,
        heldout=heldout,
        heldout_classes=heldout_classes,
        split_names=split_names,
        allow_empty_classes=allow_empty_classes,
    )
    photos, skips, inputs = [], [*placed.skips], hashlib.sha256()
    stats = _in_threads(spans.size_and_time, [item.path for item, _, _ in placed.items])
    for (item, class_id, split), found in zip(placed.items, stats, strict=True):
        inputs.update(repr((item.image_id, class_id, item.split, split, found)).encode())
        if isinstance(found, str):
            skips.append(Skip(item.image_id, found))
        else:
            photos.append(Planned(item.path, item.image_id, class_id, split, found[0]))
    check_heldout_apart(table, photos)
    same = find_duplicates(photos, table) if duplicates == DROP else {}
    photos = [photo for photo in photos if photo.image_id not in same] if same else photos
    if placed.drawn:
        photos = draw_validation(photos, validation_fraction, seed)
    if limit:
        photos = sorted(photos, key=lambda photo: _lot(seed, "limit", photo.image_id))[:limit]
    return Plan(photos, sorted([*skips, *same.values()]), placed.present, inputs.hexdigest())


def place_items(
    items: Iterable[Item | Skip],
    table: ClassTable,
    *,
    seed: int = 0,
    heldout: int = 0,
    heldout_classes: Sequence[str] = (),
    split_names: Mapping[str, str] | None = None,
    allow_empty_classes: bool = False,
) -> Placement:
    """The class and the split of each item, without a look at any file; see `plan_photos` for arguments and errors.

    What is to be stored in the end must still pass `check_heldout_apart` and, where the source has no splits,
    `draw_validation`: both depend on which photos can be used.
    """
    listed, skips = _listed_once(items)
    id_of = _class_ids(table, {item.class_name for item in listed})
    present = {id_of[item.class_name] for item in listed}
    _check_all_classes_present(table, present, allow_empty_classes)
    held = held_out_classes(table, present, heldout, heldout_classes, seed)
    new_name = _renaming({item.split for item in listed}, split_names or {})
    placed = []
    for item in listed:
        class_id = id_of[item.class_name]
        placed.append((item, class_id, HELDOUT if class_id in held else new_name[item.split]))
    return Placement(placed, skips, frozenset(present), None in new_name)


def held_out_classes(
    table: ClassTable, present: Iterable[int], number: int, names: Sequence[str], seed: int
) -> frozenset[int]:
    """Class ids of the held-out species: those named, or `number` of those present, drawn by seed.

    Raises:
        UserError: both ways are asked for, a name is unknown, or nothing would be left to train on.
    """
    if number and names:
        raise UserError(f"heldout: found a number ({number}) and {len(names)} names, expected one of both; drop one")
    present = set(present)
    if names:
        chosen = set(match_folders(table, names).values())
    else:
        chosen = set(sorted(present, key=lambda class_id: _lot(seed, "heldout", str(class_id)))[:number])
    if chosen and (number >= len(present) or chosen >= present):
        raise UserError(
            f"heldout: found {number or len(chosen)}, expected fewer than the {len(present)} classes with "
            "photos; hold out fewer"
        )
    return frozenset(chosen)


def check_heldout_apart(table: ClassTable, photos: Sequence[Planned]) -> None:
    """The source's own `heldout` split must hold whole classes, or its species are seen in training.

    Raises:
        UserError: a class that has photos in `heldout` and in another split.
    """
    held = {photo.class_id for photo in photos if photo.split == HELDOUT}
    for photo in photos:
        if photo.class_id in held and photo.split != HELDOUT:
            name = table.names[table.index_of(photo.class_id)]
            raise UserError(
                f"split heldout: found {name} in {photo.split} too ({photo.image_id}), expected held-out classes "
                "in no other split; correct the list or name them with --heldout-classes"
            )


def draw_validation(photos: Iterable[Planned], fraction: float, seed: int) -> list[Planned]:
    """Moves a fraction of each class from `train` to `validation`; at least one photo a class stays."""
    of_class: dict[int, list[Planned]] = defaultdict(list)
    for photo in photos:
        of_class[photo.class_id].append(photo)
    moved = []
    for members in of_class.values():
        train = sorted(
            (photo for photo in members if photo.split == TRAIN),
            key=lambda photo: _lot(seed, "validation", photo.image_id),
        )
        # Rounded first, because 0.1 * 30 may be a little more than 3.
        number = min(math.ceil(round(fraction * len(train), 6)), len(train) - 1)
        moved += [photo._replace(split=VALIDATION) for photo in train[: max(number, 0)]]
        moved += train[max(number, 0) :]
        moved += [photo for photo in members if photo.split != TRAIN]
    return moved


def find_duplicates(photos: Sequence[Planned], table: ClassTable) -> dict[str, Skip]:
    """Byte-identical photos to leave out, by `image_id`.

    Only files of equal size are opened, and only those with equal beginnings are read in full. Files that do
    not begin like a photo are left to be refused as such.
    """
    groups = _groups(photos, [photo.size for photo in photos])
    for digest in (_head_digest, _full_digest):
        suspects = [photo for group in groups for photo in group]
        groups = _groups(suspects, _in_threads(digest, [photo.path for photo in suspects]))
    skips = {}
    for group in groups:
        class_ids = sorted({photo.class_id for photo in group})
        if len(class_ids) > 1:
            names = ", ".join(table.names[table.index_of(class_id)] for class_id in class_ids)
            skips.update({p.image_id: Skip(p.image_id, "same photo under two classes", names) for p in group})
            continue
        kept, *others = sorted(group, key=_keep_first)
        skips.update({p.image_id: Skip(p.image_id, "duplicate", f"of {kept.image_id}") for p in others})
    return skips


def shard_photos(
    photos: Sequence[Planned], *, seed: int, shards: int = 0, shard_bytes: int = 128 << 20
) -> list[list[Planned]]:
    """One split's photos in shuffled order, cut into shards whose lengths differ by at most one.

    Args:
        photos: The photos of one split, at least one.
        seed: Decides the order.
        shards: How many; never more than photos. 0: as many as `shard_bytes` asks for.
        shard_bytes: Size of a shard, by the sizes of the files as they are now.
    """
    ordered = sorted(photos, key=lambda photo: _lot(seed, "order", photo.image_id))
    wanted = shards or math.ceil(sum(photo.size for photo in photos) / shard_bytes)
    count = max(1, min(wanted, len(ordered)))
    cuts = [len(ordered) * i // count for i in range(count + 1)]
    return [ordered[begin:end] for begin, end in itertools.pairwise(cuts)]


def _listed_once(items: Iterable[Item | Skip]) -> tuple[list[Item], list[Skip]]:
    """Items in the order of their ids, each once; and those that belong to no class."""
    known: dict[str, Item] = {}
    skips = []
    for item in items:
        if isinstance(item, Skip):
            skips.append(item)
        elif item.class_name == "":
            skips.append(Skip(item.image_id, "outside the class folders"))
        elif known.setdefault(item.image_id, item)[1:3] != item[1:3]:
            before = known[item.image_id]
            raise UserError(
                f"{item.image_id}: found it as {before.class_name}/{before.split} and as "
                f"{item.class_name}/{item.split}, expected one class and split; correct the list"
            )
    return [known[image_id] for image_id in sorted(known)], skips


def _class_ids(table: ClassTable, names: set[str | int]) -> dict[str | int, int]:
    """Class names and ids, as a source gives them, to ids of the table."""
    ids: dict[str | int, int] = {name: table.ids[table.index_of(name)] for name in names if isinstance(name, int)}
    texts = sorted(name for name in names if isinstance(name, str))
    ids.update(match_folders(table, texts) if texts else {})
    return ids


def _check_all_classes_present(table: ClassTable, present: set[int], allow_empty: bool) -> None:
    if not present:
        raise UserError("photos: found none in a class, expected at least one; check the path of the photos")
    absent = [table.names[i] for i, class_id in enumerate(table.ids) if class_id not in present]
    if absent and not allow_empty:
        shown = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        raise UserError(
            f"class table: found {len(absent)} of {len(table)} classes without a photo ({shown}), expected photos "
            "of each; add them, drop the rows, or pass --allow-empty-classes"
        )


def _renaming(found: set[str | None], wanted: Mapping[str, str]) -> dict[str | None, str]:
    """Split name of the source to ours, for all that were found; None, for no split, to train."""
    if None in found:
        if len(found) > 1:
            raise UserError(
                "splits: found photos with and without a split, expected it for all or none; fill in the column"
            )
        return {None: TRAIN}
    names = {name: (SPLIT_NAMES | dict(wanted)).get(name, name) for name in sorted(filter(None, found))}
    for ours in names.values():
        # TFDS reads "all" as every split together.
        if not re.fullmatch("[a-z][a-z0-9_]*", ours) or ours == "all":
            raise UserError(
                f"split: found {ours!r}, expected a word such as train or validation; rename it, for example "
                "with --rename-split NAME=validation"
            )
        merged = [name for name in names if names[name] == ours]
        if len(merged) > 1 and not all(name in wanted or name == ours for name in merged):
            raise UserError(
                f"splits: found {' and '.join(merged)}, which would all become {ours}, expected one; say what "
                f"you want, for example --rename-split {merged[0]}={merged[0]}"
            )
    return dict(names.items())


_Value = TypeVar("_Value")


def _in_threads(function: Callable[[str], _Value], paths: Sequence[str]) -> list[_Value]:
    """The function of each path. In blocks, because a future for each of millions of paths costs too much."""
    blocks = [paths[start : start + 1000] for start in range(0, len(paths), 1000)]
    with ThreadPoolExecutor(_THREADS) as pool:
        done = pool.map(lambda block: [function(path) for path in block], blocks)
        return list(itertools.chain.from_iterable(done))


def _head_digest(path: str) -> bytes | None:
    return _digest(path, _HEAD)


def _full_digest(path: str) -> bytes | None:
    return _digest(path, -1)


def _digest(path: str, size: int) -> bytes | None:
    content = spans.read(path, size)
    return hashlib.blake2b(content, digest_size=16).digest() if content and photo_format(content) else None


def _groups(photos: Sequence[Planned], keys: Iterable[object]) -> list[list[Planned]]:
    """Groups of two and more photos with the same key; a key of None or 0 stands alone."""
    groups: dict[object, list[Planned]] = defaultdict(list)
    for photo, key in zip(photos, keys, strict=True):
        if key:
            groups[key].append(photo)
    return [group for group in groups.values() if len(group) > 1]


def _keep_first(photo: Planned) -> tuple[int, str]:
    return {HELDOUT: 0, TRAIN: 2}.get(photo.split, 1), photo.image_id


def _lot(seed: int, purpose: str, name: str) -> bytes:
    """A lot drawn for a name: equal for equal arguments, otherwise as if by chance."""
    return hashlib.blake2b(f"{seed}/{purpose}/{name}".encode(), digest_size=8).digest()

"""Which photo goes where: its class, its split, its shard, or the reason to leave it out.

Reads sizes and, where two sizes are equal, contents; writes nothing. What names alone decide is in `place_items`.
Every draw by chance is made by hashing the seed with a name, so it depends neither on the order in which photos
are found nor on a library's generator, and a photo that is added later leaves the others where they were.
"""

import hashlib
import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from data_prep.conversion.options import DROP, Options
from data_prep.sources import photo_places
from data_prep.sources.items import HELDOUT, TRAIN, VALIDATION, Item, Skip, known_split, misspelt_split
from lit_jax.data.photo import EMPTY, photo_format
from lit_jax.errors import UserError
from lit_jax.text.classes import ClassTable, find_species, match_folders, some

_OURS = f"{TRAIN}, {VALIDATION} and {HELDOUT}"
_HEAD = 1 << 14  # bytes that tell two photos of equal size apart, all but always
_THREADS = 16  # file systems answer many questions at a time, networked ones above all


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


class Placement(NamedTuple):
    """What names alone decide.

    Attributes:
        items: Each item once, in the order of the ids, with its class id and its split.
        skips: What belongs to no class.
        present: Ids of the classes that have items.
        splits: The source's split names to ours; None, for no split, to train.
        notes: What a person should know of it, in lines.
    """

    items: list[tuple[Item, int, str]]
    skips: list[Skip]
    present: frozenset[int]
    splits: Mapping[str | None, str]
    notes: tuple[str, ...]

    @property
    def drawn(self) -> bool:
        """True where the source has no splits, so that `draw_validation` is still to come."""
        return None in self.splits

    @property
    def untrained(self) -> str:
        """The error text for photos of which none is to train on; "" if there are some."""
        if any(split == TRAIN for _, _, split in self.items):
            return ""
        first = next((name for name, ours in self.splits.items() if ours != HELDOUT), None)
        rename = f"pass --rename-split {first}={TRAIN} to train on these, " if first else ""
        return (
            f"splits: found {_split_words(self.splits)} and nothing to train on, expected {TRAIN}; add photos to train "
            f"on, {rename}or --allow-no-training for a set to evaluate on"
        )


class Plan(NamedTuple):
    """What is to be written.

    Attributes:
        photos: All photos to be stored, in no order that matters.
        skips: What is left out already, by `image_id`.
        present: Ids of the classes that had photos at first.
        inputs: Digest over names, classes, splits, sizes and times of change of all files.
        undrawn: Ids of the classes of which `limit` left out photos.
        untrained: See `Placement`.
        notes: See `Placement`.
    """

    photos: list[Planned]
    skips: list[Skip]
    present: frozenset[int]
    inputs: str
    undrawn: frozenset[int] = frozenset()
    untrained: str = ""
    notes: tuple[str, ...] = ()


def plan_photos(items: Iterable[Item | Skip], table: ClassTable, options: Options) -> Plan:
    """Decides on each photo: class, split, or skipped.

    Where the source has splits they are kept, under the names of `rename_splits`. Where it has none, a fraction
    of each class is drawn for `validation`, and the rest is `train`. In both cases all photos of a held-out
    species go to `heldout`, whatever split they came from and whatever row of the table they belong to: rows whose
    names are the same by `classes.species_key` are one species. Of byte-identical files one is kept, the one in
    `heldout` before one in another split before one in `train`, so that no evaluation photo is trained on;
    if their classes differ none is kept, because one of the names is wrong.

    Args:
        items: What a reader yields.
        table: The classes; each class name of `items` must be found in it.
        options: What to draw by which seed, and what to accept. The part drawn for validation is rounded up, but at
            least one photo of a class stays in train; held-out species are named in any spelling that `match_folders`
            knows, and a row's name stands for its species; `rename_splits` is added to `SPLIT_NAMES`; `limit` photos
            are drawn over all splits.

    Raises:
        UserError: names without a class or classes without a photo; splits on some photos only; a split name
            that is no plain word; two splits that would become one unasked; a photo listed twice with
            different classes or splits; more held-out classes than can be.
    """
    placed = place_items(items, table, options)
    photos, skips, inputs = [], [*placed.skips], hashlib.sha256()
    stats = _in_threads(photo_places.size_and_time, [item.path for item, _, _ in placed.items])
    for (item, class_id, split), found in zip(placed.items, stats, strict=True):
        inputs.update(repr((item.image_id, class_id, item.split, split, found)).encode())
        if isinstance(found, str):
            skips.append(Skip(item.image_id, found))
        elif not found[0]:
            skips.append(Skip(item.image_id, EMPTY))
        else:
            photos.append(Planned(item.path, item.image_id, class_id, split, found[0]))
    check_heldout_apart(table, photos)
    same = find_duplicates(photos, table) if options.duplicates == DROP else {}
    photos = [photo for photo in photos if photo.image_id not in same] if same else photos
    if placed.drawn:
        photos = draw_validation(photos, options.validation_fraction, options.seed)
    undrawn: frozenset[int] = frozenset()
    if limit := options.limit:
        photos = sorted(photos, key=lambda photo: _lot(options.seed, "limit", photo.image_id))
        photos, undrawn = photos[:limit], frozenset(photo.class_id for photo in photos[limit:])
    skips = sorted([*skips, *same.values()])
    return Plan(photos, skips, placed.present, inputs.hexdigest(), undrawn, placed.untrained, placed.notes)


def place_items(items: Iterable[Item | Skip], table: ClassTable, options: Options) -> Placement:
    """The class and the split of each item, without a look at any file; see `plan_photos` for arguments and errors.

    What is to be stored in the end must still pass `check_heldout_apart` and, where the source has no splits,
    `draw_validation`: both depend on which photos can be used.
    """
    listed, skips, again = _listed_once(items)
    id_of = _class_ids(table, {item.class_name for item in listed})
    present = {id_of[item.class_name] for item in listed}
    if not present:
        raise UserError(_none_found(skips))
    _check_all_classes_present(table, present, options.allow_empty_classes)
    held = held_out_classes(table, present, options.heldout, options.heldout_classes, options.seed)
    photos_in = Counter(item.split for item in listed)
    new_name = _renaming(photos_in, options.rename_splits)
    placed = []
    for item in listed:
        class_id = id_of[item.class_name]
        placed.append((item, class_id, HELDOUT if class_id in held else new_name[item.split]))
    notes = (*_placement_notes(table, id_of, new_name), *_list_notes(photos_in, new_name, again))
    return Placement(placed, skips, frozenset(present), new_name, notes)


def held_out_classes(
    table: ClassTable, present: Iterable[int], number: int, names: Sequence[str], seed: int
) -> frozenset[int]:
    """Class ids of the held-out species, all rows of each: those named, or `number` of those present, drawn by seed.

    Raises:
        UserError: both ways are asked for, a name is unknown, or nothing would be left to train on.
    """
    if number and names:
        raise UserError(f"heldout: found a number ({number}) and {len(names)} names, expected one of both; drop one")
    present = {table.species_of[class_id] for class_id in present}
    if names:
        try:
            chosen = {table.species_of[class_id] for class_id in find_species(table, names)}
        except UserError as error:
            raise UserError(f"held-out {error}") from error
    else:
        chosen = set(sorted(present, key=lambda class_id: _lot(seed, "heldout", str(class_id)))[:number])
    if chosen and (number >= len(present) or chosen >= present):
        raise UserError(
            f"heldout: found {number or len(chosen)}, expected fewer than the {len(present)} species with "
            "photos; hold out fewer"
        )
    return frozenset(class_id for class_id, species in table.species_of.items() if species in chosen)


def check_heldout_apart(table: ClassTable, photos: Sequence[Planned]) -> None:
    """The source's own `heldout` split must hold whole species, or they are seen in training.

    Raises:
        UserError: a species that has photos in `heldout` and in another split.
    """
    held = {table.species_of[photo.class_id]: photo.class_id for photo in photos if photo.split == HELDOUT}
    for photo in photos:
        other = held.get(table.species_of[photo.class_id])
        if other is not None and photo.split != HELDOUT:
            name, where = table.label(photo.class_id), f"({photo.image_id})"
            found = f"{name} in {photo.split} too {where}"
            if other != photo.class_id:
                found = f"{name} in {photo.split} {where} and the same species as {table.label(other)} in {HELDOUT}"
            raise UserError(
                f"split heldout: found {found}, expected held-out species in no other split; correct the list or name "
                "them with --heldout-classes"
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
        if len({table.species_of[class_id] for class_id in class_ids}) > 1:
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


def _listed_once(items: Iterable[Item | Skip]) -> tuple[list[Item], list[Skip], list[str]]:
    """Items in the order of their ids, each once; those that belong to no class; and ids that came more than once."""
    known: dict[str, Item] = {}
    skips: list[Skip] = []
    again: set[str] = set()
    for item in items:
        if isinstance(item, Skip):
            skips.append(item)
        elif item.class_name == "":
            skips.append(Skip(item.image_id, "outside the class folders"))
        elif (before := known.setdefault(item.image_id, item)) is not item:
            again.add(item.image_id)
            if before[1:3] != item[1:3]:
                both = (f"as class {one.class_name} in {_split_of(one)}" for one in (before, item))
                raise UserError(
                    f"{item.image_id}: found it listed twice, {' and '.join(both)}, expected one row; delete the row "
                    "that is wrong"
                )
    return [known[image_id] for image_id in sorted(known)], skips, sorted(again)


def _split_of(item: Item) -> str:
    return f"split {item.split}" if item.split else "no split"


def _class_ids(table: ClassTable, names: set[str | int]) -> dict[str | int, int]:
    """Class names and ids, as a source gives them, to ids of the table."""
    ids: dict[str | int, int] = {name: table.ids[table.index_of(name)] for name in names if isinstance(name, int)}
    texts = sorted(name for name in names if isinstance(name, str))
    ids.update(match_folders(table, texts) if texts else {})
    return ids


def _none_found(skips: Sequence[Skip]) -> str:
    """The error text where no photo has a class: with what the source says of those that it saw."""
    counts = Counter(skip.reason for skip in skips)
    first = {skip.reason: skip.image_id for skip in reversed(skips)}
    reasons = [f"{count} {reason} ({first[reason]})" for reason, count in counts.most_common(3)]
    why = f": {', '.join(reasons)}" if reasons else ""
    remedy = "mend that or give other photos" if reasons else "check the path of the photos"
    return f"photos: found none in a class{why}, expected at least one; {remedy}"


def _check_all_classes_present(table: ClassTable, present: set[int], allow_empty: bool) -> None:
    absent = [table.names[i] for i, class_id in enumerate(table.ids) if class_id not in present]
    if absent and not allow_empty:
        shown = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        raise UserError(
            f"class table: found {len(absent)} of {len(table)} classes without a photo ({shown}), expected photos "
            "of each; add them, drop the rows, or pass --allow-empty-classes"
        )


def _renaming(found: Mapping[str | None, int], wanted: Mapping[str, str]) -> dict[str | None, str]:
    """Split name of the source to ours, for all that were found with so many photos; None, for no split, to train."""
    if None in found:
        if len(found) > 1:
            raise UserError(
                "splits: found photos with and without a split, expected it for all or none; fill in the column"
            )
        return {None: TRAIN}
    names = {name: wanted.get(name) or known_split(name) or name for name in sorted(filter(None, found))}
    for name in names:
        if name not in wanted and (near := misspelt_split(name)):
            raise UserError(
                f"split: found {name!r} ({found[name]:,} photos), nearly {near!r}, expected one of {_OURS}, or a name "
                f"that is unlike them; pass --rename-split {name}={known_split(near)}, or --rename-split {name}={name} "
                "to keep it as it is"
            )
    for ours in names.values():
        # TFDS reads "all" as every split together.
        if not re.fullmatch("[a-z][a-z0-9_]*", ours) or ours == "all":
            raise UserError(
                f"split: found {ours!r}, expected a word such as train or validation; rename it, for example "
                "with --rename-split NAME=validation"
            )
        merged = [name for name in names if names[name] == ours]
        if len(merged) > 1 and not all(name in wanted or name == ours for name in merged):
            other = next(name for name in merged if name != ours)
            raise UserError(
                f"splits: found {' and '.join(merged)}, which would all become {ours}, expected one; pass "
                + "".join(f"--rename-split {name}={ours} " for name in merged if name != ours)
                + f"to put them together, or another name to keep them apart, as with --rename-split {other}={other}"
            )
    return dict(names.items())


def _placement_notes(
    table: ClassTable, id_of: Mapping[str | int, int], new_name: Mapping[str | None, str]
) -> tuple[str, ...]:
    """The splits as they are understood, the classes by name, and which names of the source are one class."""
    notes = [] if None in new_name else [f"splits: {_split_words(new_name)}"]
    names_of: dict[int, list[str]] = defaultdict(list)
    for name, class_id in id_of.items():
        names_of[class_id].append(str(name))
    classes = [table.names[table.index_of(class_id)] for class_id in sorted(names_of)]
    notes.append(f"classes with photos ({len(classes)}): {some(classes)}")
    together = [" and ".join(sorted(names)) for names in names_of.values() if len(names) > 1]
    if together:
        notes.append(f"names that stand for one class, whose photos are put together: {some(sorted(together))}")
    return tuple(notes)


def _list_notes(
    photos_in: Mapping[str | None, int], new_name: Mapping[str | None, str], again: Sequence[str]
) -> list[str]:
    """What a person may not have meant: splits of other names than ours, and photos that are listed again."""
    notes = [
        f"split {name} ({photos_in[name]:,} photos) is none of {_OURS}: it is kept, and not trained on"
        for name, ours in new_name.items()
        if name and ours not in (TRAIN, VALIDATION, HELDOUT)
    ]
    if again:
        notes.append(f"photos listed more than once, counted once: {len(again)} ({some(again, 3)})")
    return notes


def _split_words(new_name: Mapping[str | None, str]) -> str:
    pairs = sorted((ours, name) for name, ours in new_name.items() if name is not None)
    return ", ".join(ours if ours == name else f"{ours} (from {name})" for ours, name in pairs)


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
    content = photo_places.read(path, size)
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

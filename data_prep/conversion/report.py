"""What a conversion stored, noted and left out: as JSON with every photo, and as a page of text."""

import shutil
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.conversion.plan import Plan, Planned
from data_prep.conversion.shards import Outcome
from data_prep.conversion.texts import table_warnings
from data_prep.conversion.workspace import REPORT
from data_prep.sources.items import HELDOUT, TRAIN, VALIDATION, Skip
from lit_jax.base import foreign
from lit_jax.base.files import incomplete
from lit_jax.data.photo import AVIF, AVIF_ENDINGS, HEIC, HEIF_ENDINGS, can_read
from lit_jax.data.records import Record, encode
from lit_jax.data.tfrecord import frame
from lit_jax.errors import DAMAGED
from lit_jax.text.classes import ClassTable, some

_SHOWN = 5  # examples of each reason in the text; the JSON has all


def report_of(
    table: ClassTable, plan: Plan, outcomes: Mapping[str, Sequence[Outcome]], captions: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """The facts of a conversion as JSON values; equal conversions have equal reports.

    Args:
        table: The classes.
        plan: What was decided before any shard was written.
        outcomes: Shards of each split that was planned, in order.
        captions: ``[K][P]`` texts.

    Returns:
        ``lost``: names of the species of which all photos were left out; ``classes``: names of those that have
        photos; ``splits``: photos, classes, shards and bytes of each; ``kept`` and ``encoded``: photos stored as
        they were, and encoded anew; ``left_out``: reason to ``[image_id, detail]`` pairs; ``notes``: text to
        image ids; ``heldout``: names of the held-out classes; ``warnings``: lines.
    """
    written = {split: _photos_of_class(shards) for split, shards in outcomes.items()}
    every = [outcome for shards in outcomes.values() for outcome in shards]
    stored, kept = sum(o.shard.examples for o in every), sum(o.kept for o in every)
    somewhere = {class_id for counts in written.values() for class_id in counts}
    lost = _lost(table, plan, somewhere)
    return {
        "lost": _names(table, lost),
        "classes": _names(table, somewhere),
        "splits": {
            split: {
                "photos": written[split].total(),
                "classes": len(written[split]),
                "shards": len(shards),
                "bytes": sum(outcome.shard.size for outcome in shards),
            }
            for split, shards in outcomes.items()
        },
        "kept": kept,
        "encoded": stored - kept,
        "left_out": _left_out([*plan.skips, *(skip for outcome in every for skip in outcome.skips)]),
        "notes": _notes(every),
        "heldout": _names(table, written.get(HELDOUT, ())),
        "warnings": _warnings(table, plan.present - lost, written, captions),
    }


def _lost(table: ClassTable, plan: Plan, somewhere: Collection[int]) -> frozenset[int]:
    """Classes that had photos, all of which were left out for a reason; of a species no row of which has one left."""
    species = {table.species_of[class_id] for class_id in (*somewhere, *plan.undrawn)}
    return frozenset(class_id for class_id in plan.present if table.species_of[class_id] not in species)


def lost_species(out: Path) -> list[str]:
    """Names of the species of which a conversion left out all photos; sets of before do not tell."""
    try:
        return list(foreign.loaded(out / REPORT).get("lost", []))
    except (OSError, *DAMAGED):
        return []


def report_lines(report: Mapping[str, Any], *, shown: int = _SHOWN) -> list[str]:
    """The report for people; of each reason and note the first `shown` photos."""
    lost = report["lost"]
    lines = [f"all photos of {len(lost)} species were left out: {some(lost, max(shown, _SHOWN))}"] if lost else []
    lines += [f"{'split':12} {'photos':>9} {'classes':>8} {'shards':>7} {'MB':>9}"]
    lines += [
        f"{name:12} {s['photos']:>9} {s['classes']:>8} {s['shards']:>7} {s['bytes'] / 1e6:>9.1f}"
        for name, s in report["splits"].items()
    ]
    lines.append(f"classes ({len(report['classes'])}): {some(report['classes'], max(shown, _SHOWN))}")
    lines.append(f"{report['kept']} photos kept as they were, {report['encoded']} encoded anew")
    if report["heldout"]:
        lines.append(f"held out: {some(report['heldout'], max(shown, _SHOWN))}")
    left_out = {
        reason: [f"{image_id} {detail}".strip() for image_id, detail in photos]
        for reason, photos in report["left_out"].items()
    }
    lines += _section(f"left out: {sum(map(len, left_out.values()))} photos", left_out, shown)
    lines += _section("stored, but unusual:", report["notes"], shown) if report["notes"] else []
    return lines + [f"warning: {warning}" for warning in report["warnings"]]


def forecast(
    table: ClassTable,
    plan: Plan,
    shards: Mapping[str, Sequence[Sequence[Planned]]],
    captions: Sequence[Sequence[str]],
    out: Path,
) -> list[str]:
    """What a conversion would store, for people; nothing is written.

    Args:
        table: The classes, K.
        plan: What was decided on each photo.
        shards: Photos of each shard, by split.
        captions: ``[K][N]`` texts.
        out: The folder that would be made; it need not be there.
    """
    texts = _text_bytes(table, captions, {photo.class_id: photo for photo in plan.photos})
    size_of = {
        split: sum(photo.size + texts[photo.class_id] for part in parts for photo in part)
        for split, parts in shards.items()
    }
    lines = [f"{'split':12} {'photos':>9} {'classes':>8} {'shards':>7} {'MB':>9}"]
    for split, parts in shards.items():
        classes = {photo.class_id for part in parts for photo in part}
        photos = sum(map(len, parts))
        lines.append(f"{split:12} {photos:>9} {len(classes):>8} {len(parts):>7} {size_of[split] / 1e6:>9.1f}")
    counts = Counter(skip.reason for skip in plan.skips)
    lines.append(f"left out by name, size or content: {len(plan.skips)} photos")
    lines += [f"{number:>9}  {reason}" for reason, number in sorted(counts.items())]
    lines += _space_lines(sum(size_of.values()), out)
    lines += [f"warning: {warning}" for warning in _plan_warnings(table, plan, captions)]
    return lines


def _text_bytes(
    table: ClassTable, captions: Sequence[Sequence[str]], examples: Mapping[int, Planned]
) -> dict[int, int]:
    """Bytes of a record besides its photo, by class id; those of one photo a class stand for all of them."""
    found = {}
    for class_id, photo in examples.items():
        i = table.index_of(class_id)
        record = Record(b"", tuple(captions[i]), class_id, photo.image_id, table.row(i))
        found[class_id] = len(frame(encode(record)))
    return found


def _space_lines(needed: int, out: Path) -> list[str]:
    """Bytes needed and free, by the sizes of the files as they are now."""
    there = next(folder for folder in (out, *out.parents) if folder.is_dir())
    written = sum(path.stat().st_size for path in incomplete(out).glob("*"))
    free = shutil.disk_usage(there).free
    amounts = [f"{value / 1e9:.2f} GB" for value in (needed, written, free)]
    lines = ["disk: about {} needed, {} written before, {} free".format(*amounts)]
    if needed - written > free:
        lines.append(f"warning: {(needed - written - free) / 1e9:.2f} GB too few are free for {out}")
    return lines


def _plan_warnings(table: ClassTable, plan: Plan, captions: Sequence[Sequence[str]]) -> list[str]:
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for photo in plan.photos:
        counts[photo.split][photo.class_id] += 1
    lines = _class_warning(table, set(table.ids) - plan.present, "no photo")
    lines += _warnings(table, plan.present, counts, captions)
    for kind, called, endings, remedy in (("HEIF", "HEIC", HEIF_ENDINGS, HEIC), ("AVIF", "AVIF", AVIF_ENDINGS, AVIF)):
        number = sum(photo.path.lower().endswith(endings) for photo in plan.photos)
        if number and not can_read(kind):
            lines.append(f"photos that by their names are {called} and will be left out ({number}): {remedy}")
    return lines


def _section(title: str, groups: Mapping[str, Sequence[str]], shown: int) -> list[str]:
    lines = [title]
    for text, photos in groups.items():
        lines.append(f"{len(photos):>9}  {text}")
        lines += [f"{'':13}{photo}" for photo in photos[:shown]]
        lines += [f"{'':13}and {len(photos) - shown} more"] if 0 < shown < len(photos) else []
    return lines


def _photos_of_class(shards: Iterable[Outcome]) -> Counter[int]:
    counts: Counter[int] = Counter()
    for outcome in shards:
        counts.update(outcome.photos_of_class)
    return counts


def _left_out(skips: Iterable[Skip]) -> dict[str, list[list[str]]]:
    groups: dict[str, list[list[str]]] = defaultdict(list)
    for skip in sorted(skips):
        groups[skip.reason].append([skip.image_id, skip.detail])
    return dict(sorted(groups.items()))


def _notes(outcomes: Iterable[Outcome]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for outcome in outcomes:
        for note, photos in outcome.notes.items():
            groups[note] += photos
    return {note: sorted(photos) for note, photos in sorted(groups.items())}


def _warnings(
    table: ClassTable,
    present: Collection[int],
    written: Mapping[str, Counter[int]],
    captions: Sequence[Sequence[str]],
) -> list[str]:
    lines = [f"split {split} is empty: no photo of it could be used" for split, n in written.items() if not n]
    somewhere = {class_id for counts in written.values() for class_id in counts}
    lines += _class_warning(table, set(present) - somewhere, "no photo left")
    if written.get(TRAIN):
        untrained = somewhere - set(written[TRAIN]) - set(written.get(HELDOUT, ()))
        lines += _class_warning(table, untrained, "photos to validate with, but none to train on")
        photos: Counter[int] = sum(written.values(), Counter())
        single = {class_id for class_id in written[TRAIN] if photos[class_id] == 1}
        without = not written.get(VALIDATION)
        if single == set(written[TRAIN]) or not without:  # else nobody wants to validate
            lines += _class_warning(table, single, "one photo, which is trained on and none is left to validate with")
        if single == set(written[TRAIN]) and without:
            lines.append("no validation split: no class has a second photo; give more photos, or a split with --splits")
    return lines + table_warnings(table, captions)


def _class_warning(table: ClassTable, class_ids: Collection[int], what: str) -> list[str]:
    names = _names(table, class_ids)
    return [f"classes with {what} ({len(names)}): {some(names)}"] if names else []


def _names(table: ClassTable, class_ids: Collection[int]) -> list[str]:
    return [table.names[table.index_of(class_id)] for class_id in sorted(class_ids)]

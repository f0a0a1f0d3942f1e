"""What a conversion stored, noted and left out: as JSON with every photo, and as a page of text."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from data_prep.plan import HELDOUT, TRAIN, Skip
from data_prep.shards import Outcome
from lit_jax.classes import ClassTable

_SHOWN = 5  # examples of each reason in the text; the JSON has all


def report_of(
    table: ClassTable,
    present: Collection[int],
    skips: Iterable[Skip],
    outcomes: Mapping[str, Sequence[Outcome]],
) -> dict[str, Any]:
    """The facts of a conversion as JSON values; equal conversions have equal reports.

    Args:
        table: The classes.
        present: Ids of the classes that had photos at first.
        skips: What was left out before any shard was written.
        outcomes: Shards of each split that was planned, in order.

    Returns:
        ``splits``: photos, classes, shards and bytes of each; ``kept`` and ``encoded``: photos stored as
        they were, and encoded anew; ``left_out``: reason to ``[image_id, detail]`` pairs; ``notes``: text to
        image ids; ``heldout``: names of the held-out classes; ``warnings``: lines.
    """
    written = {split: _photos_of_class(shards) for split, shards in outcomes.items()}
    every = [outcome for shards in outcomes.values() for outcome in shards]
    stored, kept = sum(o.shard.examples for o in every), sum(o.kept for o in every)
    return {
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
        "left_out": _left_out([*skips, *(skip for outcome in every for skip in outcome.skips)]),
        "notes": _notes(every),
        "heldout": [table.names[table.index_of(class_id)] for class_id in sorted(written.get(HELDOUT, ()))],
        "warnings": _warnings(table, present, written),
    }


def report_lines(report: Mapping[str, Any], *, shown: int = _SHOWN) -> list[str]:
    """The report for people; of each reason and note the first `shown` photos."""
    lines = [f"{'split':12} {'photos':>9} {'classes':>8} {'shards':>7} {'MB':>9}"]
    lines += [
        f"{name:12} {s['photos']:>9} {s['classes']:>8} {s['shards']:>7} {s['bytes'] / 1e6:>9.1f}"
        for name, s in report["splits"].items()
    ]
    lines.append(f"{report['kept']} photos kept as they were, {report['encoded']} encoded anew")
    if report["heldout"]:
        lines.append(f"held out: {_listed(report['heldout'])}")
    left_out = {
        reason: [f"{image_id} {detail}".strip() for image_id, detail in photos]
        for reason, photos in report["left_out"].items()
    }
    lines += _section(f"left out: {sum(map(len, left_out.values()))} photos", left_out, shown)
    lines += _section("stored, but unusual:", report["notes"], shown) if report["notes"] else []
    return lines + [f"warning: {warning}" for warning in report["warnings"]]


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


def _warnings(table: ClassTable, present: Collection[int], written: Mapping[str, Counter[int]]) -> list[str]:
    lines = [f"split {split} is empty: no photo of it could be used" for split, n in written.items() if not n]
    somewhere = {class_id for counts in written.values() for class_id in counts}
    lines += _class_warning(table, set(present) - somewhere, "no photo left")
    if written.get(TRAIN):
        untrained = somewhere - set(written[TRAIN]) - set(written.get(HELDOUT, ()))
        lines += _class_warning(table, untrained, "photos to validate with, but none to train on")
    return lines


def _class_warning(table: ClassTable, class_ids: Collection[int], what: str) -> list[str]:
    names = [table.names[table.index_of(class_id)] for class_id in sorted(class_ids)]
    return [f"classes with {what} ({len(names)}): {_listed(names)}"] if names else []


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")

"""Results of evaluations as text: tables, intervals, and warnings about figures that mean little."""

from collections.abc import Mapping, Sequence
from typing import Any

from lit_jax.base import console
from lit_jax.base.console import text_table
from lit_jax.evaluation.calibration import why_unusable
from lit_jax.evaluation.intervals import wilson

NOTHING = "–"  # in the place of a figure that says nothing


KIN = {
    "genus": "one of their genus in training", "family": "one of their family", "order": "one of their order",
    "none": "no relative", "unknown": "relatives unknown",
}  # fmt: skip

FEW = 10  # held-out species, below which their accuracy is hardly one


def results_table(results: Mapping[str, Any]) -> str:
    """The evaluations in `results` as a table: one row a task, with intervals and the accuracy of guessing beside it.

    A warning follows where few species were held out.
    """
    rows, notes = [], []
    for name, row in results.items():
        if isinstance(row, Mapping) and "top1" in row:
            candidates = row.get("candidates", row["classes"])
            rates = [cell for k in ("top1", "top5") for cell in _with_range(row, k, candidates)]
            rows.append(
                [name.replace("_", " "), candidates, row["images"], *rates, f"{100 / max(candidates, 1):.2f} %"]
            )
            notes += (
                [f"warning: {line}" for line in few_species(row)]
                if name == "heldout" or row.get("classes_in_training") == 0
                else []
            )
            notes += [f"warning: {line}" for line in below_chance(row, candidates, name)]
    columns = ["zero-shot on", "classes", "images", "top-1", "95 % range", "top-5", "95 % range", "chance"]
    together = results.get("gzsl")
    more = ["", gzsl_table(together)] if together else []
    return "\n".join([text_table(columns, rows), *notes, *more])


def gzsl_table(found: Mapping[str, Any], others: Sequence[Mapping[str, Any]] = ()) -> str:
    """Photos of seen and of unseen species, each named among all, as a table.

    Args:
        found: from `lit_jax.evaluation.gzsl.summary`.
        others: rows of `lit_jax.evaluation.yardstick.measure` to stand beside it.
    """

    def cells(row: Mapping[str, float]) -> list[str]:
        return [*(f"{100 * row[name]:.1f} %" for name in ("seen", "unseen")), f"{row['harmonic']:.3f}"]

    rows = [["as trained", "0", *cells(found["without_margin"]), f"{found['ausuc']:.3f}"]]
    notes = []
    if found["margin"] is not None:
        rows.append(["with the margin", f"{found['margin']:.3f}", *cells(found), f"{found['ausuc']:.3f}"])
        rows.append(["mean over species", f"{found['margin']:.3f}", *cells(found["macro"]), ""])
        if inside := found.get("inside"):
            rows.append(["inside training", f"{found['margin']:.3f}", *cells(inside), f"{inside['ausuc']:.3f}"])
    elif found["without_margin"]["seen"] > 2 * found["without_margin"]["unseen"]:
        notes = [
            "no margin was fitted, so that seen species win nearly always; evaluation.margin_folds = 5 fits one while "
            "training from a store"
        ]
    for row in others:
        both = row["gzsl"]
        rows.append([row["method"], f"{both['margin']:.3f}", *cells(both), f"{both['ausuc']:.3f}"])
    columns = ["seen and unseen among all", "margin", "seen S", "unseen U", "harmonic H", "AUSUC"]
    return "\n".join([text_table(columns, rows), *notes])


def closed_form_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of `lit_jax.evaluation.yardstick.measure` as text: what they reach, and each kind of words inside."""
    found = [
        [row["method"], row["words"], f"{row['whitening']:.1f}", f"{row['penalty']:g}", f"{100 * row['top1']:.1f} %",
         f"{100 * row['chance']:.1f} %", *(f"{100 * row['gzsl'][name]:.1f} %" for name in ("seen", "unseen")),
         f"{row['gzsl']['harmonic']:.3f}", f"{row['gzsl']['ausuc']:.3f}"]
        for row in rows
    ]  # fmt: skip
    number = rows[0]["gzsl"]["unseen_classes"]
    columns = [f"{number} species without a photo", "words", "whitening", "penalty", f"ZSL of {number}", "chance"]
    columns += ["seen S", "unseen U", "harmonic H", "AUSUC"]
    kinds = sorted(rows[0]["inner_all"], key=lambda kind: -max(row["inner_all"][kind] for row in rows))
    inside = [[kind, *(f"{100 * row['inner_all'][kind]:.1f} %" for row in rows)] for kind in kinds]
    heads = ["words: ZSL of species held out inside", *(row["method"] for row in rows)]
    return "\n".join([text_table(columns, found, left=(0, 1)), text_table(heads, inside)])


def _with_range(row: Mapping[str, Any], name: str, candidates: int) -> list[str]:
    if not tells(name, candidates):
        return [NOTHING, ""]
    return [f"{100 * row[name]:.2f} %", ends(row, name)]


def tells(name: str, candidates: float) -> bool:
    """Whether an accuracy of this name means anything: among five classes or fewer, top-5 is always 100 %."""
    k = int(name[len(name.rstrip("0123456789")) :])
    return k == 1 or candidates > k


def ends(row: Mapping[str, Any], name: str) -> str:
    """The ends of the 95 % interval of an accuracy in per cent, such as ``37.9–45.6``; empty if there is none.

    Args:
        row: with the accuracy and either its ``_interval`` or the number of ``images`` that it is a share of.
        name: of the accuracy.
    """
    key = f"{name}_interval"
    interval = row[key] if key in row else wilson(row[name], row["images"])
    return "–".join(f"{100 * end:.1f}" for end in interval) if interval else ""


def rate(row: Mapping[str, Any], name: str, *, candidates: int) -> str:
    """An accuracy and its 95 % interval for a table of text, or a dash where it cannot be wrong."""
    if not tells(name, candidates):
        return NOTHING
    found = ends(row, name)
    return f"{100 * row[name]:.1f} %" + (f" ({found})" if found else "")


def few_species(row: Mapping[str, Any]) -> list[str]:
    """A warning that a figure of few held-out species says little of others, or nothing."""
    if row["classes"] >= FEW:
        return []
    return [
        f"{row['classes']} held-out species are few; one that is easy or hard moves the figure much, so hold "
        f"out {FEW} or more before you believe it"
    ]


def below_chance(row: Mapping[str, Any], candidates: int, name: str = "") -> list[str]:
    """A sentence on an accuracy that is worse than guessing, beyond its 95 % range; none for any other.

    Args:
        row: with ``top1`` and either its interval or the number of ``images``.
        candidates: classes to choose from.
        name: of the task; empty to leave it out.
    """
    interval = row.get("top1_interval") or wilson(row["top1"], row["images"])
    if candidates < 2 or not interval or interval[1] >= 1 / candidates:
        return []
    said = f"{name.replace('_', ' ')}: " if name else ""
    why = (
        ", as species with photos in training win there"
        if name == "heldout_among_all"
        else ("; look whether photos, names and splits are those that were meant")
    )
    return [
        f"{said}top-1 of {100 * row['top1']:.2f} % is worse than guessing, {100 / candidates:.2f} %, beyond its 95 % "
        f"range{why}"
    ]


def one_photo_each(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether each of several classes has one photo, which does not say which of them are hardest."""
    return len(rows) > 1 and all(row["images"] == 1 for row in rows)


NO_ORDER = "each class has one photo, which does not say which are hardest"


def why_no_order(rows: Sequence[Mapping[str, Any]], shown: int) -> str:
    """Why it cannot be said which classes are hardest, or which of them are shown; empty where it can.

    Args:
        rows: of all classes with photos, the hardest first.
        shown: how many of them are.
    """
    if one_photo_each(rows):
        return NO_ORDER
    last, after = rows[shown - 1 : shown], rows[shown : shown + 1]
    if not after or any(last[0][name] != after[0][name] for name in ("top1", "top5")):
        return ""
    alike = sum(all(row[name] == last[0][name] for name in ("top1", "top5")) for row in rows)
    return f"{alike} classes are as hard as the last of these; the first by name are shown"


def near_copies(result: Mapping[str, Any]) -> list[str]:
    """A sentence on photos that are nearly one of training, and on accuracy without them; none where there are none."""
    found = result.get("near_copies")
    if not found or not found["near_photos"]:
        return []
    said = f"{found['near_photos']:,} of {found['photos']:,} photos have near-copies in training"
    if "top1" not in found:
        return [f"{said}: these figures say nothing of new photos"]
    rates = ", ".join(
        f"{text} {100 * found[name]:.2f} % ({ends(found, name)})"
        for name, text in (("top1", "top-1"), ("top5", "top-5"))
        if tells(name, result["candidates"])
    )
    return [f"{said}; without them: {rates}, of {found['images']:,} photos"]


SHOWN = 10  # classes in the printed table, unless all are asked for


def table_of(result: dict[str, Any], *, all_classes: bool = False) -> str:
    """The result as text: overall, by rank, calibration, retrieval, then the hardest classes, or all of them."""
    rows = result["per_class"] if all_classes else result["per_class"][:SHOWN]
    of = result["candidates"]
    parts = [*near_copies(result), results_table({result["split"]: result}), *_notes(result)]
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
    if result.get("gzsl"):
        parts.append(gzsl_table(result["gzsl"], result.get("closed_form") or ()))
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
    table = console.text_table([heading, "images", "top-1", "top-5", "mostly taken for"], hard, left=(0, 4))
    if all_classes:
        return "\n\n".join([*parts, table])
    if one_photo_each(result["per_class"]):
        return "\n\n".join([*parts, f"hardest classes: {NO_ORDER}; --all lists every one"])
    why = why_no_order(result["per_class"], len(rows))
    return "\n\n".join([*parts, f"{table}\n{why}" if why else table])


def _with_common(name: str, names: Mapping[str, str]) -> str:
    common = names.get(name, "")
    return name if common in ("", name) else f"{name} ({common})"


def _rates(row: Mapping[str, Any], *names: str, of: int) -> list[str]:
    """Accuracies with their intervals, among so many candidates."""
    return [rate(row, name, candidates=of) for name in names]


def _about_kinds(result: dict[str, Any]) -> list[str]:
    """Which species had photos in training, where names had to tell it, and what a person should look at."""
    species = result.get("species")
    if not species or species["by"] == "ids":
        return []
    notes = [
        f"{species['seen']} of the species with photos were in training and {species['unseen']} were not, by their "
        "binomials"
    ]
    if species["near"]:
        near = "; ".join(f"{name} ({other})" for name, other in list(species["near"].items())[:5])
        notes.append(f"counted as other species though nearly the name of one in training: {near}")
    if species["assumed"]:
        notes.append("assumed: " + "; ".join(list(species["assumed"].values())[:5]))
    return notes


def _about_leaks(found: Mapping[str, Any], candidates: int) -> str:
    """What training knew of held-out species, in a line."""
    read = len({row["id"] for row in found["names"]})
    near = found["photos"]
    photos = f"{near['near_photos']:,} of {near['photos']:,} photos are nearly one of training" if near else (
        "photos were not compared (python -m lit_jax.leaks does)"
    )  # fmt: skip
    kin = ", ".join(
        f"{100 * row['top1']:.1f} % of the photos of {row['judged']} species with {KIN[row['group']]}"
        for row in found["kinship"]["rows"]
        if "top1" in row
    )
    return (
        f"leaks: {photos}; names of {read} of {found['species']} held-out species were read; named rightly among the "
        f"{candidates}: {kin}"
    )


def _notes(result: dict[str, Any]) -> list[str]:
    """Sentences about shared prompts, calibration, and the choice of the checkpoint."""
    notes = _about_kinds(result)
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
        if unusable := why_unusable(measured["temperature"]):
            notes.append(f"calibration error {before}; no usable temperature: {unusable}")
        elif measured["helps"]:
            notes.append(f"calibration error {before}, {after} at {fitted}")
        else:
            notes.append(f"calibration error {before}; a {fitted}, makes it worse ({after}) and is not to be used")
    if result.get("leaks"):
        notes.append(_about_leaks(result["leaks"], result["candidates"]))
    if result["data"]["is_other"]:
        notes.append(f"photos of {result['data']['name']}, another collection than the model was trained on")
    elif result["chosen_on"] == result["split"]:
        notes.append(
            f"this checkpoint is the best of its run on {result['split']}, these very photos: their figures are a "
            "little too good for that"
        )
    return notes

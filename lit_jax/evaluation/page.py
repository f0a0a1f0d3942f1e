"""An evaluation as one HTML file that holds its own plots and styles."""

import html
import importlib.resources
import io
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lit_jax.base import plots
from lit_jax.base.files import written_aside
from lit_jax.evaluation import tables
from lit_jax.evaluation.calibration import why_unusable

HARD_SPECIES, HARD_GROUPS = 25, 15  # rows shown of what is hardest
ALL_CLASSES = 500  # up to so many, every class has its row

_TRUST = {
    "genus": "if training has a species of its genus", "family": "if only one of its family",
    "order": "if only one of its order", "none": "if no relative, not even of its order",
    "unknown": "if it is not known, since ranks are missing",
}  # fmt: skip
NEAR = 3  # leaks of a kind that are named

INK, BLUE, PALE, WARM = "#1d2a33", "#2b6f8f", "#a9cbd8", "#c8763c"


class Html(str):
    """A text that is HTML already; any other is escaped where it comes into a table."""


def _style() -> str:
    return importlib.resources.files("lit_jax.evaluation").joinpath("page.css").read_text(encoding="utf-8")


def write(path: str | os.PathLike[str], result: Mapping[str, Any], *, name: str) -> pathlib.Path:
    """Writes the page of one evaluation, aside and then renamed.

    Args:
        path: the file.
        result: what `lit_jax.evaluation.report.evaluate` returned.
        name: of the model, for the title.

    Returns:
        The path.
    """
    path = pathlib.Path(path)
    with written_aside(path) as aside:
        aside.write_text(page(result, name=name), encoding="utf-8")
    return path


def page(result: Mapping[str, Any], *, name: str) -> str:
    """The HTML text of `write`."""
    sections = [
        _unseen(result),
        _leaks(result),
        _by_rank(result),
        _by_supercategory(result),
        _calibration(result),
        _spread(result),
        _hardest(result),
        _robustness(result),
        _retrieval(result),
        _all_classes(result),
        _method(result),
    ]
    of = f" of {html.escape(result['data']['name'])}" if result["data"]["is_other"] else ""
    title = f"How well {html.escape(name)} names species{of}"
    heading = f"How well <i>{html.escape(name)}</i> names species{of}"
    body = "\n".join(filter(None, [_head(result, heading), *sections]))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>\n{_style()}</style></head>\n'
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _head(result: Mapping[str, Any], title: str) -> str:
    about = (
        f"{result['images']:,} photos of {result['classes']:,} species (split <i>{html.escape(result['split'])}</i>), "
        f"each to be named among {result['candidates']:,} species that are given to the model by their names only. "
        f"Guessing would be right in {_percent(result['chance'], 2)}.{_training(result)}{_choice(result)} "
        f"{_naming(result)}"
    )
    numbers = {
        "named rightly (top-1)": (result, "top1"),
        "right name among the first five": (result, "top5"),
        "mean over species": (result, "mean_per_class_top1"),
    }
    if "genus" in result["ranks"]:
        numbers["genus named rightly"] = (result["ranks"]["genus"], "top1")
    boxes = "".join(
        f"<div><b>{_percent(row[name])}</b><span>{text}<br>{_between(row, name)}</span></div>"
        for text, (row, name) in numbers.items()
        if tables.tells(name, result["candidates"])
    )
    few = tables.few_species(result) if result["classes_in_training"] == 0 else []
    few = [*tables.near_copies(result), *few, *tables.below_chance(result, result["candidates"])]
    warning = "".join(f'<p class="warning">{line}.</p>' for line in few)
    numbers_of = f'<div class="numbers">{boxes}</div>'
    lead = f'<h1>{title}</h1>\n{_trust(result)}<p class="about">{about}</p>\n'
    return f"{lead}{numbers_of}{warning}{_ranges(result)}{_shared(result)}"


def _trust(result: Mapping[str, Any]) -> str:
    """What a person must know first: how often a species without a photo is named rightly, by its relatives."""
    found, known = result.get("gzsl"), result.get("leaks")
    if not found or not known:
        return ""
    parts = [
        f"<li><b>{100 * row['among_all']['top1']:.0f} of 100</b> {words} ({_number_of(row['judged'])})</li>"
        for row in known["kinship"]["rows"]
        if "top1" in row.get("among_all", {}) and (words := _TRUST.get(row["group"]))
    ]
    return (
        f'<div class="trust"><p><b>Of a species that it has no photo of, it names {100 * found["unseen"]:.0f} of 100 '
        f"photos rightly</b>, any of {round(1 / found['chance']):,} species allowed:</p>"
        f"<ul>{''.join(parts)}</ul></div>\n"
    )


def _number_of(number: int) -> str:
    return f"{number:,} species" if number > 1 else "one species only"


def _between(row: Mapping[str, Any], name: str) -> str:
    found = tables.ends(row, name)
    return f"between {found.replace('–', ' and ')}&nbsp;%" if found else ""


def _ranges(result: Mapping[str, Any]) -> str:
    """What the ranges beside the figures mean."""
    return (
        '<p class="about">Ranges are 95&nbsp;% intervals. Those of shares of photos are Wilson\'s, as if photos were '
        "independent; but photos of one species are alike, and other species would give other figures. How other, the "
        f"range of the mean over species says: the {result['classes']:,} species were drawn anew, again and again.</p>"
    )


def _choice(result: Mapping[str, Any]) -> str:
    """That the checkpoint was chosen by these photos, if it was."""
    if result["chosen_on"] != result["split"]:
        return ""
    return " The model is the best of its run on these very photos, so that figures here are a little too good."


def _training(result: Mapping[str, Any]) -> str:
    """Whether other photos of the species were in training: a zero-shot figure means little without it."""
    seen = result["classes_in_training"]
    if seen is None:
        if not result["data"]["is_other"]:
            return ""
        name, fingerprint = html.escape(result["data"]["name"]), html.escape(result["records"][:8])
        return f" The photos are of another collection than the model was trained on: {name}, {fingerprint}."
    of = {0: "None", result["classes"]: "All"}.get(seen, f"{seen:,}")
    return f" {of} of the {result['classes']:,} species had photos in training."


def _naming(result: Mapping[str, Any]) -> str:
    number = len(result["templates"])
    named = "as in captions" if result["protocol"] == "caption" else "by common name, supercategory and genus"
    return f"Species are named {named}, in {number} template{'s' * (number > 1)}."


def _shared(result: Mapping[str, Any]) -> str:
    if not result["same_prompts"]:
        return ""
    members = sum(map(len, result["same_prompts"]))
    return (
        f"<p>{members} of the species share their names in words with another one, in "
        f"{len(result['same_prompts'])} groups; no model could name more than {_percent(result['ceiling'], 2)} of the "
        "photos rightly.</p>"
    )


def _unseen(result: Mapping[str, Any]) -> str:
    """Seen and unseen species asked together: whether a species without a photo may be believed."""
    found = result.get("gzsl")
    if not found:
        return ""
    plain, has_margin = found["without_margin"], found["margin"] is not None
    n = f"{found['unseen_images']:,} photos of {found['unseen_classes']:,} species"
    trust = f"{100 * found['unseen']:.0f} of 100"
    lead = (
        f"<p><b>Of a species that it has no photo of, the model names {trust} photos rightly</b> when any of "
        f"{round(1 / found['chance']):,} species could be meant, and {100 * found['seen']:.0f} of 100 of a species "
        f"with photos in training. Measured on {n} without and {found['seen_images']:,} photos of "
        f"{found['seen_classes']:,} species with photos in training; guessing would be right in "
        f"{_percent(found['chance'], 2)}.</p>"
    )
    held = (
        f"Species of training are held back by a margin of {found['margin']:.3f}, which was fitted inside the training "
        f"split. Without it the model would name {_percent(plain['unseen'])} of the photos of unseen species rightly."
        if has_margin
        else "No margin was fitted: species with photos in training win nearly always."
    )

    def cells(name: str, row: Mapping[str, float]) -> list[str]:
        return [name, _percent(row["seen"]), _percent(row["unseen"]), f"{row['harmonic']:.3f}"]

    rows = [cells("as trained", plain)]
    if has_margin:
        rows += [cells("with the margin", found), cells("mean over species", found["macro"])]
        rows += [cells("inside training", found["inside"])] if found.get("inside") else []
    rows += [cells(row["method"], row["gzsl"]) for row in result.get("closed_form") or ()]
    ranks = [[rank, _percent(row["seen"]), _percent(row["unseen"])] for rank, row in found["by_rank"].items()]

    def draw(axis: Any) -> None:
        lines = [("this model", found, BLUE)]
        lines += [(row["method"], row["gzsl"], colour) for row, colour in
                  zip(result.get("closed_form") or (), (PALE, WARM), strict=False)]  # fmt: skip
        for name, one, colour in reversed(lines):
            axis.plot(*zip(*[(100 * u, 100 * s) for u, s in one["curve"]], strict=True), color=colour, label=name)
        axis.scatter([100 * plain["unseen"]], [100 * plain["seen"]], color=INK, s=22, zorder=3, label="as trained")
        if has_margin:
            axis.scatter([100 * found["unseen"]], [100 * found["seen"]], color=WARM, s=36, zorder=3,
                         label="with the margin")  # fmt: skip
        axis.set(xlabel="photos of unseen species named rightly (%)", ylabel="photos of seen species (%)")
        axis.set(xlim=(0, 100), ylim=(0, 100))
        axis.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)

    table = _table(["named among all species", "seen", "unseen", "harmonic mean"], rows)
    by_rank = _table(["right at the rank of", "seen", "unseen"], ranks)
    text = f"{held} The curve shows what other margins would give; the area under it is {found['ausuc']:.3f}."
    body = (
        f'<div class="pair">{_plot("seen and unseen species", draw, size=(4.6, 4.0))}<div>{table}{by_rank}</div></div>'
    )
    return f"<h2>Species that it has no photo of</h2>\n{lead}<p>{text}</p>\n{body}{_names_told_apart(result)}"


def _names_told_apart(result: Mapping[str, Any]) -> str:
    """What a person should look at where species were told apart by their names."""
    species = result.get("species") or {}
    if not species.get("near"):
        return ""
    near = "; ".join(f"{_named(name, '')} ({_named(other, '')})" for name, other in species["near"].items())
    return f"<p>Counted as unseen though nearly the name of a species of training: {near}.</p>"


def _leaks(result: Mapping[str, Any]) -> str:
    """What figures of held-out species may owe to training: photos and names that it knew, and relatives."""
    found = result.get("leaks")
    if not found:
        return ""
    checks = [*_near_photos(found), *_names_read(found)]
    if found["in_both"]:
        checks.append((False, "Species in training too", f"{html.escape(', '.join(found['in_both'][:NEAR]))}"))
    items = "".join(
        f'<li class="{"clean" if is_clean else "leak"}"><b>{head}</b> {text}</li>' for is_clean, head, text in checks
    )
    text = (
        "A species without a photo is named too well if training saw the same picture, or read its name, and the more "
        "easily the nearer its relatives in training are."
    )
    return _section("Leaks: what it may owe to training", text, f"<ul class=checks>{items}</ul>{_relatives(found)}")


def _near_photos(found: Mapping[str, Any]) -> list[tuple[bool, str, str]]:
    """Photos of held-out species that are nearly one of training: whether there are none, a head, and a text."""
    near = found["photos"]
    if near is None:
        command = (
            f"python -m lit_jax.leaks --store={pathlib.PurePath(found['store']).name}"
            if found["is_store"]
            else "python -m lit_jax.embed"
        )
        why = (
            f"there are more than are compared here; <code>{html.escape(command)}</code> compares them"
            if found["is_store"]
            else f"they are compared by their features, which <code>{command}</code> stores"
        )
        return [(False, "Photos were not compared:", f"{why}.")]
    of = f"{near['photos']:,} photos of held-out species"
    if not near["near_photos"]:
        return [(True, "No photo twice:", f"none of the {of} is nearly one of {found['train_photos']:,} in training.")]
    pairs = "; ".join(
        f"{html.escape(pair['photo'])} ({html.escape(pair['class'])}) is like {html.escape(pair['like'])} "
        f"({html.escape(pair['like_class'])})"
        for pair in near["pairs"][:NEAR]
    )
    share = _percent(near["near_photos"] / near["photos"])
    return [
        (
            False,
            "Photos seen before:",
            f"{near['near_photos']:,} of {of} ({share}) are nearly one of training: {pairs}.",
        )
    ]


def _names_read(found: Mapping[str, Any]) -> list[tuple[bool, str, str]]:
    """Names of held-out species in the words of training, likewise."""
    read = {row["id"]: row for row in reversed(found["names"])}
    if not read:
        text = f"no name of the {found['species']:,} held-out species stands in the captions or classes of training."
        return [(True, "No name was read:", text)]
    rows = "; ".join(
        f"{_named(row['class'], row['common_name'])} as “{html.escape(row['as'])}”"
        for row in list(read.values())[:NEAR]
    )
    more = f" and {len(read) - NEAR} more" if len(read) > NEAR else ""
    return [(False, "Names read before:", f"{len(read):,} of {found['species']:,} held-out species: {rows}{more}.")]


def _relatives(found: Mapping[str, Any]) -> str:
    """Accuracy by the nearest relative in training."""
    words = {
        "genus": "of its genus", "family": "of its family", "order": "of its order", "none": "none in its order",
        "unknown": "not known: ranks are missing",
    }  # fmt: skip
    rows = [row for row in found["kinship"]["rows"] if "top1" in row]
    if not rows:
        return ""
    among_all = all("among_all" in row for row in rows)
    cells = [
        [words[row["group"]], f"{row['judged']:,}", f"{row['images']:,}", _told(row, "top1", 1),
         *([_told(row["among_all"], "top1", 1)] if among_all else [])]
        for row in rows
    ]  # fmt: skip
    heads = ["nearest relative in training", "species", "photos", "right among held-out species"]
    return _table([*heads, *(["right among all"] if among_all else [])], cells)


def _by_rank(result: Mapping[str, Any]) -> str:
    ranks = result["ranks"]
    if len(ranks) < 2:
        return ""
    rows = [[rank, f"{row['groups']:,}", *_rates(row, result, "macro_top1")] for rank, row in ranks.items()]

    def draw(axis: Any) -> None:
        places = range(len(ranks))
        bars = (("top5", PALE, "among the first five"), ("top1", BLUE, "first"))
        for key, colour, label in (bar for bar in bars if tables.tells(bar[0], result["candidates"])):
            axis.bar(places, [100 * row[key] for row in ranks.values()], color=colour, width=0.62, label=label)
        axis.set(xticks=list(places), xticklabels=list(ranks), ylim=(0, 100), ylabel="photos (%)")
        axis.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)

    text = (
        "The species that is named may be wrong and still be of the right genus or family. For each rank: how often "
        "the species named first, or any of the first five, is of the right group. The last column gives each group "
        "the same weight, however many photos it has."
    )
    table = _table(["rank", "groups", "top-1", "top-5", "mean over groups"], rows)
    return _section(
        "How far off it is when it is wrong", text, f'<div class="pair">{_plot("ranks", draw)}{table}</div>'
    )


def _by_supercategory(result: Mapping[str, Any]) -> str:
    kinds = result["by_supercategory"]
    if len(kinds) < 2:
        return ""
    rows = [[row["name"], *(f"{row[k]:,}" for k in ("images", "classes")), *_rates(row, result)] for row in kinds]

    def draw(axis: Any) -> None:
        ordered = sorted(kinds, key=lambda row: row["top1"])
        axis.barh([row["name"] for row in ordered], [100 * row["top1"] for row in ordered], color=BLUE, height=0.62)
        axis.set(xlim=(0, 100), xlabel="photos named rightly (%)")

    table = _table(["group", "photos", "species", "top-1", "top-5"], rows)
    return _section("By group of organisms", "", f'<div class="pair">{_plot("groups of organisms", draw)}{table}</div>')


def _calibration(result: Mapping[str, Any]) -> str:
    measured = result["calibration"]
    if not measured:
        return ""
    unusable = why_unusable(measured["temperature"])
    shown = 1 if unusable else 2  # before and after

    def draw(axis: Any) -> None:
        axis.plot([0, 100], [0, 100], color="#9aa7ac", lw=1, ls="--", label="as sure as it is right")
        for name, colour, label in (("before", WARM, "as trained"), ("after", BLUE, "after one correction"))[:shown]:
            bins = measured[name]["bins"]
            points = [(100 * row["confidence"], 100 * row["accuracy"]) for row in bins]
            axis.plot(*zip(*points, strict=True), color=colour, lw=1.2, label=label)
            # A point's area tells how many photos it stands for: those of a few may lie anywhere.
            areas = [6 + 160 * row["images"] / measured["measured_on"] for row in bins]
            axis.scatter(*zip(*points, strict=True), s=areas, color=colour, zorder=3, clip_on=False)
        axis.set(xlabel="how sure the model says it is (%)", ylabel="how often it is right (%)")
        axis.set(xlim=(0, 100), ylim=(0, 100))
        axis.legend(frameon=False, fontsize=8, loc="lower right")

    rows = [
        [text, *(_percent(measured[name][k]) for k in ("confidence", "accuracy", "ece"))]
        for name, text in (("before", "as trained"), ("after", f"temperature {measured['temperature']:.2f}"))[:shown]
    ]
    table = _table(["", "says", "is right", "calibration error"], rows)
    text = (
        "A model that says it is 80 % sure should be right in 80 of 100 cases. One number, the temperature, was fitted "
        f"on {measured['fitted_on']:,} photos; this is measured on the other {measured['measured_on']:,}. It changes "
        "how sure the model says it is, never which species it names. Larger dots stand for more photos."
    )
    if unusable:
        text += f" <b>Here there is no usable temperature</b>: {unusable}."
    elif not measured["helps"]:
        text += " Here it makes the error worse, and is not to be used."
    return _section(
        "How far it can be believed",
        text,
        f'<div class="pair">{_plot("calibration", draw, size=(4.6, 4.0))}{table}</div>',
    )


def _spread(result: Mapping[str, Any]) -> str:
    rates = [100 * row["top1"] for row in result["per_class"]]
    if len(rates) < 10 or tables.one_photo_each(result["per_class"]):
        return ""

    def draw(axis: Any) -> None:
        axis.hist(rates, bins=[10 * i for i in range(11)], color=BLUE, rwidth=0.9)
        axis.set(xlim=(0, 100), xlabel="photos of a species named rightly (%)", ylabel="species")

    never, always = sum(rate == 0 for rate in rates), sum(rate == 100 for rate in rates)
    text = f"{always:,} of {len(rates):,} species are named rightly in every photo, {never:,} in none."
    return _section("How much species differ", text, _plot("species", draw, size=(7.2, 2.6)))


def _hardest(result: Mapping[str, Any]) -> str:
    names = result["common_names"]
    species = [[_species(row), *_hard_cells(row, names)] for row in result["per_class"][:HARD_SPECIES]]
    why = tables.why_no_order(result["per_class"], len(species))
    of = f"{len(species)} of {len(result['per_class']):,} species, the least often recognised first."
    said = f"{why[0].upper()}{why[1:]}." if why else ""
    if tables.one_photo_each(result["per_class"]):
        parts = [f"<p>{said}</p>"]
    else:
        of += f" {said}" if said else ""
        parts = [f"<p>{of}</p>", _table(["species", "photos", "top-1", "mostly taken for"], species)]
    for rank, row in result["ranks"].items():
        groups = [one for one in row.get("hardest", ()) if one["top1"] < 1][:HARD_GROUPS]
        if groups:
            cells = [[group["name"], *_hard_cells(group)] for group in groups]
            of = f"{len(groups)} of {row['groups']:,}, at the rank of {rank}:"
            parts.append(f"<p>{of}</p>{_table([rank, 'photos', 'top-1', 'mostly taken for'], cells)}")
    return _section("What is hardest, and what it is taken for", "", "\n".join(parts))


def _species(row: Mapping[str, Any]) -> Html:
    return _named(row["class"], row["common_name"])


def _named(name: str, common: str) -> Html:
    """A species by both of its names."""
    small = f" <small>{html.escape(common)}</small>" if common not in ("", name) else ""
    return Html(f"<i>{html.escape(name)}</i>{small}")


def _rates(row: Mapping[str, Any], result: Mapping[str, Any], *more: str) -> list[str]:
    """Top-1, top-5 and more accuracies of a row, each with its range."""
    return [_told(row, name, result["candidates"]) for name in ("top1", "top5", *more)]


def _told(row: Mapping[str, Any], name: str, candidates: int) -> str:
    """An accuracy and its range, or a dash where it cannot be wrong."""
    if not tables.tells(name, candidates):
        return tables.NOTHING
    found = tables.ends(row, name)
    return Html(_percent(row[name]) + (f"<small>{found}</small>" if found else ""))


def _hard_cells(row: Mapping[str, Any], names: Mapping[str, str] | None = None) -> list[str]:
    """Photos, top-1 and what a species is taken for; of groups of species there are no common names."""
    taken = ", ".join(
        f"{html.escape(name) if names is None else _named(name, names.get(name, ''))} ({count})"
        for name, count in row["taken_for"]
    )
    return [f"{row['images']:,}", _told(row, "top1", 1), Html(taken)]


def _robustness(result: Mapping[str, Any]) -> str:
    """What is left on corrupted photos, where `lit_jax.robustness` measured it on the same model."""
    found = result.get("robustness")
    if not found:
        return ""
    severities = [str(severity) for severity in found["severities"]]
    columns = [
        "corruption",
        *(f"{name.replace('_', ' ')}, severity {s}" for name in found["tasks"] for s in severities),
    ]
    clean = [_percent(task["clean"]["top1"]) for task in found["tasks"].values() for _ in severities]
    rows = [["none", *clean]]
    for kind in found["kinds"]:
        cells = [task["corrupted"][kind][s]["top1"] for task in found["tasks"].values() for s in severities]
        rows.append([kind.replace("_", " "), *map(_percent, cells)])
    means = ", ".join(
        f"{_percent(1 - task['mean_error'])} instead of {_percent(task['clean']['top1'])} "
        f"({html.escape(name.replace('_', ' '))})"
        for name, task in found["tasks"].items()
    )
    text = (
        f"Photos named rightly after noise, blur, weather and digital faults of ImageNet-C, drawn by seed "
        f"{found['seed']}: on the mean over kinds and severities {means}."
    )
    return _section("Corrupted photos", text, _table(columns, rows))


def _retrieval(result: Mapping[str, Any]) -> str:
    found = result["retrieval"]
    ways = {
        "image_to_text": ("the right caption for a photo", found["captions"]),
        "text_to_image": ("a right photo for a caption", result["images"]),
    }
    rows = [
        [
            text,
            *(_told(found[way], f"recall@{k}", number) for k in (1, 5, 10)),
            f"{found[way]['median_rank']:,.0f}",
        ]
        for way, (text, number) in ways.items()
    ]
    text = (
        f"How often {result['images']:,} photos and {found['captions']:,} captions find each other: the right one "
        "comes first, or among the first five or ten. Captions are those of training, one a species, whatever the "
        "prompts above."
    )
    table = _table(["recall of", "first", "among 5", "among 10", "median place"], rows)
    return _section("Recall between photos and captions", text, table)


def _all_classes(result: Mapping[str, Any]) -> str:
    if not HARD_SPECIES < len(result["per_class"]) <= ALL_CLASSES:
        return ""
    rows = [
        [_species(row), f"{row['images']:,}", *_rates(row, result)]
        for row in sorted(result["per_class"], key=lambda row: row["class"])
    ]
    table = _table(["species", "photos", "top-1", "top-5"], rows)
    return f"<details><summary>All {len(rows)} species</summary>{table}</details>"


def _method(result: Mapping[str, Any]) -> str:
    templates = result["templates"]
    shown = "; ".join(f"“{html.escape(text)}”" for text in templates[:3]) + (" …" if len(templates) > 3 else "")
    facts = (
        f"{_naming(result)[:-1]}: {shown}. The embeddings of a species' prompts are averaged, and a photo is given the "
        "species whose embedding is nearest. Of equally near ones the first in the list counts."
    )
    known = {key: html.escape(str(result[key]))[:12] for key in ("step", "config", "store") if result.get(key)}
    ids = ", ".join(f"{key} {value}" for key, value in known.items())
    return f"<footer><p>{facts}</p><p>{ids}</p></footer>"


def _section(title: str, text: str, body: str) -> str:
    return f"<h2>{title}</h2>\n{f'<p>{text}</p>' if text else ''}\n{body}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts, and of `Html` that stays as it is; columns but the first, and of words, are right-aligned."""
    left = [i == 0 or "taken" in column for i, column in enumerate(columns)]

    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{'' if is_left else ' class=n'}>{cell if isinstance(cell, Html) else html.escape(cell)}</{tag}>"
            for cell, is_left in zip(cells, left, strict=True)
        )

    body = "\n".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return (
        f"<div class=wide><table><thead><tr>{line(columns, 'th')}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def _plot(what: str, draw: Callable[[Any], None], size: tuple[float, float] = (5.2, 3.2)) -> str:
    """What `draw` draws on an axis, as SVG in which text stays text; a sentence in its place if that fails.

    Args:
        what: is drawn, for the line that says that it is missing.
        draw: on the axis.
        size: in inches.
    """
    found = '<p class="warning">This plot could not be drawn.</p>'
    with plots.one_less(f"plot of {what}"):
        found = _drawn(draw, size)
    return found


def _drawn(draw: Callable[[Any], None], size: tuple[float, float]) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "lit_jax", "font.family": "sans-serif", "font.size": 9}
    settings |= {"axes.edgecolor": "#9aa7ac", "text.color": INK, "axes.labelcolor": INK}
    with rc_context(settings), plots.plain_text():
        figure = Figure(figsize=size, constrained_layout=True)
        axis = figure.subplots()
        draw(axis)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_axisbelow(True)
        axis.grid(alpha=0.25)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    return re.sub(r"^.*?(?=<svg)", "", out.getvalue(), count=1, flags=re.DOTALL)


def _percent(share: float, digits: int = 1) -> Html:
    return Html(f"{100 * share:.{digits}f}&nbsp;%")

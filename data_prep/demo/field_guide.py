"""A field guide that the project draws itself: an invented taxonomy, its names, and photos of every species.

The demo and many tests run on it, so that nothing has to be downloaded. Looks are inherited down the ranks, as
in nature, and names carry the same meaning that the looks do:

===========  ===========================  ==================================================
rank         decides                      shows in the name
===========  ===========================  ==================================================
class        body plan (8)                noun, genus ending, supercategory
order        slender or round             noun, genus ending
family       pattern (6)                  adjective of the common name
genus        base colour (8)              stem of the genus
species      accent colour (8), part (4)  epithet, and adjective of the common name
===========  ===========================  ==================================================

So ``Rubrornis flavicauda``, the Yellow-tailed Banded Wren, is a red bird with a yellow tail. A model that has read
the names of other species can work out what this one looks like, and that is what held-out species measure.

Run ``python -m data_prep.field_guide --out DIR`` to draw it: ``DIR/photos/*.jpg``, ``DIR/splits.csv`` and
``DIR/classes.csv``, in the form that ``python -m data_prep.convert`` reads.
"""

import csv
import dataclasses
import io
import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from data_prep.demo import drawing
from data_prep.demo.drawing import ACCENT_PARTS, COLOURS, PATTERNS, Look
from lit_jax.base.folders import made
from lit_jax.base.processes import cores, each
from lit_jax.errors import UserError

WILDNESS = 0.6
"""Of the poses in a guide. The tower that reads them was pre-trained on wilder ones, as real towers are."""

COLUMNS = (
    "id", "name", "common_name", "supercategory",
    "kingdom", "phylum", "class", "order", "family", "genus", "specific_epithet",
)  # fmt: skip

# Body plan: kingdom, phylum, class, supercategory, then for the slender and the round order its noun and ending.
_BODY_PLANS = {
    "fish": ("Animalia", "Nectozoa", "Nectida", "Fishes", ("Pike", "pristis"), ("Bream", "ichthys")),
    "bird": ("Animalia", "Nectozoa", "Alata", "Birds", ("Heron", "ardea"), ("Wren", "ornis")),
    "moth": ("Animalia", "Articulata", "Papyroptera", "Insects", ("Swift", "ptera"), ("Moth", "psyche")),
    "beetle": (
        "Animalia",
        "Articulata",
        "Durelytra",
        "Insects",
        ("Borer", "buprestis"),
        ("Chafer", "carabus"),
    ),
    # Like 142 classes of iNaturalist 2021, snails have no better supercategory than their kingdom.
    "snail": ("Animalia", "Testacea", "Spiralia", "Animalia", ("Spire", "turris"), ("Snail", "helix")),
    "flower": ("Plantae", "Anthophyta", "Petalida", "Plants", ("Aster", "aster"), ("Poppy", "anthus")),
    "fern": ("Plantae", "Pteridia", "Frondida", "Plants", ("Fern", "pteris"), ("Palm", "phyllum")),
    "mushroom": ("Fungi", "Pileata", "Agarida", "Fungi", ("Bonnet", "mycena"), ("Cap", "boletus")),
}
_COLOUR_STEMS = {
    "red": "rubr", "orange": "aurant", "yellow": "flav", "green": "virid",
    "blue": "caerul", "violet": "viol", "white": "alb", "black": "nigr",
}  # fmt: skip
_PATTERN_NAMES = {
    "banded": ("Banded", "Fasci"), "striped": ("Striped", "Line"), "spotted": ("Spotted", "Gutt"),
    "ringed": ("Ringed", "Annul"), "halved": ("Halved", "Bifid"), "netted": ("Netted", "Ret"),
}  # fmt: skip
_PART_NAMES = {
    "tail": ("tailed", "cauda"), "crest": ("crested", "crista"),
    "spine": ("spined", "spina"), "eye": ("eyed", "ocellus"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Species:
    """One species: its row of the class table (keys are `COLUMNS`) and its `Look`."""

    row: dict[str, str]
    look: Look


@dataclasses.dataclass(frozen=True)
class Guide:
    """A whole field guide. `heldout` and `photos` are aligned with `species`.

    Attributes:
        species: every species, in the order of the class table.
        heldout: True where no photo of the species is ever used for training.
        photos: photos of a species in its main split: train, or heldout for a held-out species.
        validation: further photos of each species that is not held out.
    """

    species: tuple[Species, ...]
    heldout: tuple[bool, ...]
    photos: tuple[int, ...]
    validation: int


def taxonomy(seed: int) -> list[Species]:
    """Invents a tree of life: 8 classes, 16 orders, 40 families, 80 genera, 160 species.

    Args:
        seed: the same seed gives the same tree.

    Returns:
        160 species with distinct binomials; `row["id"]` counts from 0.
    """
    rng = np.random.default_rng([seed, 1])
    species: list[Species] = []
    for plan in _BODY_PLANS:
        for slender in (True, False):
            order_build = rng.normal(0, 1, 4)
            patterns = rng.permutation(PATTERNS)[: 2 if slender else 3]
            colours = iter(rng.permutation(list(COLOURS)))
            for pattern in patterns:
                family_build = order_build + 0.6 * rng.normal(0, 1, 4)
                for _ in range(2):
                    base = str(next(colours))
                    genus_build = family_build + 0.4 * rng.normal(0, 1, 4)
                    for accent, part in _distinct_accents(rng, base, count=2):
                        build = genus_build + 0.3 * rng.normal(0, 1, 4)
                        look = Look(plan, slender, str(pattern), base, accent, part, tuple(build.tolist()))
                        species.append(Species(_names(look, len(species)), look))
    return species


def _distinct_accents(rng: np.random.Generator, base: str, *, count: int) -> list[tuple[str, str]]:
    pairs = [(accent, part) for accent in COLOURS if accent != base for part in ACCENT_PARTS]
    return [pairs[i] for i in rng.choice(len(pairs), size=count, replace=False)]


def _names(look: Look, number: int) -> dict[str, str]:
    kingdom, phylum, rank_class, supercategory, slender, round_ = _BODY_PLANS[look.plan]
    noun, ending = slender if look.slender else round_
    adjective, pattern_stem = _PATTERN_NAMES[look.pattern]
    participle, part_stem = _PART_NAMES[look.part]
    link = "" if ending[0] in "aeiou" else "o"
    genus = (_COLOUR_STEMS[look.base] + link + ending).capitalize()
    epithet = _COLOUR_STEMS[look.accent] + "i" + part_stem
    suffix = "idae" if kingdom == "Animalia" else "aceae"
    values = (
        str(number), f"{genus} {epithet}", f"{look.accent.capitalize()}-{participle} {adjective} {noun}",
        supercategory, kingdom, phylum, rank_class, ending.rstrip("a").capitalize() + "iformes",
        f"{pattern_stem}o{ending.rstrip('a')}{suffix}", genus, epithet,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def guide(seed: int = 0, *, heldout: int = 40, photos: int = 64, rare: int = 6, validation: int = 8) -> Guide:
    """Plans a field guide: which species are held out, and how many photos each one has.

    Args:
        seed: decides the taxonomy and the choice of held-out species.
        heldout: number of held-out species; each gets `2 * validation` photos, none of them for training.
        photos: training photos of the most common species, in photos. Counts fall off as in a real collection:
            the r-th most common of n species has ``photos * (rare / photos) ** (r / (n - 1))``.
        rare: training photos of the rarest species.
        validation: validation photos of each species that is not held out.

    Returns:
        The plan; nothing is drawn yet.

    Raises:
        UserError: if there are not more species than `heldout`.
    """
    species = taxonomy(seed)
    if not 0 <= heldout < len(species):
        raise UserError(f"heldout: found {heldout}, expected 0 to {len(species) - 1}")
    rng = np.random.default_rng([seed, 2])
    order = rng.permutation(len(species))
    is_heldout = np.zeros(len(species), bool)
    is_heldout[order[:heldout]] = True
    seen = order[heldout:]
    counts = np.full(len(species), 2 * validation)
    falloff = np.linspace(0, 1, len(seen))
    counts[seen] = np.round(photos * (rare / photos) ** falloff).astype(int)
    return Guide(tuple(species), tuple(is_heldout.tolist()), tuple(counts.tolist()), validation)


def draw(book: Guide, out: str | os.PathLike[str], *, seed: int = 0, workers: int = 0) -> pathlib.Path:
    """Draws every photo of the guide into `out`, with its class table and its split file.

    The file names are random numbers and their order is shuffled, so that nothing but the pixels tells a
    species. The folder is written aside and renamed when it is whole; a folder that exists is left as it is.

    Args:
        book: what to draw.
        out: folder to make.
        seed: decides pose, light, background and clutter of each photo.
        workers: processes; 0 for one a core.

    Returns:
        The folder: ``photos/000000.jpg`` and on, ``classes.csv``, ``splits.csv`` (columns file, class, split).

    Raises:
        UserError: if `out` exists and holds another guide.
    """
    out = pathlib.Path(out)
    key = _plan_key(book, seed)
    if out.exists():
        found = out / "guide.json"
        if found.is_file() and found.read_text(errors="replace") == key:
            return out
        raise UserError(f"{out}: found a folder with something else in it, expected none; delete it or choose another")
    with made(out, "field guide") as aside:
        (aside / "photos").mkdir()
        jobs = _shuffled_jobs(book, seed)
        _draw_all(jobs, book, aside / "photos", seed, workers or cores())
        _write_tables(book, jobs, aside)
        (aside / "guide.json").write_text(key)
    return out


def _plan_key(book: Guide, seed: int) -> str:
    rows = [species.row["name"] for species in book.species]
    return json.dumps([drawing.VERSION, WILDNESS, seed, rows, book.heldout, book.photos, book.validation])


def _shuffled_jobs(book: Guide, seed: int) -> list[tuple[int, str]]:
    """(species, split) of each photo; its place in the list is its file number."""
    jobs = []
    for number, (is_heldout, count) in enumerate(zip(book.heldout, book.photos, strict=True)):
        jobs += [(number, "heldout" if is_heldout else "train")] * count
        jobs += [] if is_heldout else [(number, "validation")] * book.validation
    order = np.random.default_rng([seed, 3]).permutation(len(jobs))
    return [jobs[i] for i in order]


def _draw_all(jobs: Sequence[tuple[int, str]], book: Guide, folder: pathlib.Path, seed: int, workers: int) -> None:
    tasks = [(book.species[number].look, i, seed, folder) for i, (number, _) in enumerate(jobs)]
    for _ in each(_draw_one, tasks, workers, chunk=64):
        pass


def _draw_one(task: tuple[Look, int, int, pathlib.Path]) -> None:
    look, number, seed, folder = task
    (folder / f"{number:06d}.jpg").write_bytes(photo_jpeg(look, np.random.default_rng([seed, 4, number])))


def photo_jpeg(look: Look, rng: np.random.Generator, *, wildness: float = WILDNESS) -> bytes:
    """Draws one photo of a species and encodes it as JPEG, with a quality drawn between 80 and 95."""
    buffer = io.BytesIO()
    drawing.photo(look, rng, wildness=wildness).save(buffer, "JPEG", quality=int(rng.integers(80, 96)))
    return buffer.getvalue()


def _write_tables(book: Guide, jobs: Sequence[tuple[int, str]], folder: pathlib.Path) -> None:
    with open(folder / "classes.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(species.row for species in book.species)
    with open(folder / "splits.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "class", "split"))
        for i, (number, split) in enumerate(jobs):
            rows.writerow((f"photos/{i:06d}.jpg", book.species[number].row["name"], split))

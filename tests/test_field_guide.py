import collections
import csv
import io
import itertools
import pathlib

import numpy as np
import pytest
from PIL import Image

from data_prep import pretrain_tower
from data_prep.demo import drawing, field_guide
from lit_jax.errors import UserError
from lit_jax.text.classes import RANKS


def test_the_tree_of_life_has_unique_binomials_and_nested_ranks():
    rows = [species.row for species in field_guide.taxonomy(0)]
    assert len(rows) == 160 == len({row["name"] for row in rows})
    assert len({row["genus"] for row in rows}) == 80 and len({row["family"] for row in rows}) == 40
    for upper, lower in itertools.pairwise(RANKS):
        parents = collections.defaultdict(set)
        for row in rows:
            parents[row[lower]].add(row[upper])
        assert all(len(found) == 1 for found in parents.values()), lower


def test_looks_are_inherited_and_names_tell_them():
    for species in field_guide.taxonomy(0):
        look, row = species.look, species.row
        assert row["genus"].lower().startswith(field_guide._COLOUR_STEMS[look.base])
        assert row["specific_epithet"].startswith(field_guide._COLOUR_STEMS[look.accent])
        assert look.accent != look.base
        assert row["common_name"].lower().startswith(look.accent) and look.pattern in row["common_name"].lower()
    families = collections.defaultdict(set)
    for species in field_guide.taxonomy(0):
        families[species.row["family"]].add((species.look.plan, species.look.slender, species.look.pattern))
    assert all(len(looks) == 1 for looks in families.values())


def test_a_seed_is_a_guide_and_another_seed_another():
    assert field_guide.guide(4) == field_guide.guide(4) != field_guide.guide(5)


def test_counts_have_a_long_tail_and_heldout_species_are_apart():
    book = field_guide.guide(0)
    seen = sorted(count for count, out in zip(book.photos, book.heldout, strict=True) if not out)
    assert sum(book.heldout) == 40 and len(seen) == 120
    assert seen[0] == 6 and seen[-1] == 64 and seen[30] < 12
    with pytest.raises(UserError, match="heldout: found 160, expected 0 to 159"):
        field_guide.guide(0, heldout=160)


def test_the_tower_was_pretrained_without_the_held_out_species():
    book = field_guide.guide(0)
    learnt = {pretrain_tower._traits(species.look) for species in pretrain_tower.pretraining_species(book)}
    for species, out in zip(book.species, book.heldout, strict=True):
        assert (pretrain_tower._traits(species.look) in learnt) == (not out)


def test_the_committed_tower_is_small_and_of_the_demo():
    import jax
    import jax.numpy as jnp

    from lit_jax.config import load
    from lit_jax.models import family
    from lit_jax.models.weights import load_tower

    config, _ = load(pathlib.Path(__file__).parents[1] / "configs" / "demo.py")
    assert pathlib.Path(config.image.weights).stat().st_size <= 2_000_000
    shapes = jax.eval_shape(pretrain_tower.TOWER.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    params, report = load_tower(config.image.weights, shapes, family(pretrain_tower.TOWER))
    assert report.left_out == report.resized == () and params["position_embedding"].shape == (1, 65, 96)


def test_photos_are_varied_and_their_size_says_nothing():
    look = field_guide.taxonomy(0)[0].look
    photos = [drawing.photo(look, np.random.default_rng(i)) for i in range(30)]
    assert len({photo.size for photo in photos}) > 20
    assert all(80 <= side <= 120 for photo in photos for side in photo.size)
    small = np.stack([np.asarray(photo.resize((8, 8)), float) for photo in photos])
    assert small.std(0).mean() > 20


@pytest.mark.parametrize("plan", sorted({species.look.plan for species in field_guide.taxonomy(0)}))
def test_each_trait_shows_in_the_pixels(plan):
    """The same scene with one trait changed differs where the body is."""
    base = drawing.Look(plan, True, "banded", "red", "blue", "tail", (0.0, 0.0, 0.0, 0.0))
    changes = [{"slender": False}, {"pattern": "spotted"}, {"base": "green"}, {"accent": "white"}, {"part": "eye"}]
    import dataclasses

    def pixels(look):
        return np.asarray(drawing._sprite(look, np.random.default_rng(0)), float)

    for change in changes:
        assert np.abs(pixels(dataclasses.replace(base, **change)) - pixels(base)).max(-1).mean() > 3, change


def test_a_drawn_folder_holds_what_was_planned_and_leaks_nothing(field_guide_folder):
    with open(field_guide_folder / "splits.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [f"photos/{i:06d}.jpg" for i in range(len(rows))]
    assert collections.Counter(row["split"] for row in rows) == {"train": 56, "validation": 24, "heldout": 28}
    # Neighbours in the listing are no more of one species than a shuffle makes them.
    assert sum(a["class"] == b["class"] for a, b in itertools.pairwise(rows)) < 25
    photo = (field_guide_folder / rows[0]["file"]).read_bytes()
    assert Image.open(io.BytesIO(photo)).format == "JPEG" and not Image.open(io.BytesIO(photo)).getexif()


def test_drawing_again_gives_the_same_bytes_and_another_plan_is_refused(tmp_path, field_guide_folder):
    book = field_guide.Guide(tuple(field_guide.taxonomy(3)[:2]), (False, True), (2, 2), 1)
    first = field_guide.draw(book, tmp_path / "a", workers=1)
    second = field_guide.draw(book, tmp_path / "b", workers=2)
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)
    assert field_guide.draw(book, tmp_path / "a") == tmp_path / "a"
    with pytest.raises(UserError, match="found a folder with something else in it"):
        field_guide.draw(book, tmp_path / "a", seed=1)
    (first / "guide.json").write_bytes(b"\xff")
    with pytest.raises(UserError, match="found a folder with something else in it"):
        field_guide.draw(book, tmp_path / "a")

"""Which species a model had photos of: by whatever names a list has for them."""

import dataclasses

import pytest

from lit_jax.evaluation.known_species import among_trained
from lit_jax.text.classes import ClassTable, read_class_table
from tests.test_checkpoint import ABOUT

TRAINED = dataclasses.replace(
    ABOUT,
    class_table=(
        "id,name,common_name,synonyms\r\n"
        "0,Cyanistes caeruleus,Blue Tit,Parus caeruleus\r\n"
        "1,Geococcyx californianus,Greater Roadrunner,\r\n"
        "2,Corvus,,\r\n"
        "3,Pica pica,Eurasian Magpie,\r\n"
        "4,Turdus merula,Blackbird,\r\n"  # has no photo
    ),
    train_classes=[0, 1, 2, 3],
)


@pytest.mark.parametrize(
    ("name", "common_name", "seen", "assumed"),
    [
        ("PICA PICA", "", True, ""),
        ("Pica pica bactriana", "", True, "subspecies"),
        ("EURASIAN MAGPIE", "", True, "by the name 'EURASIAN MAGPIE' it is 'Pica pica'"),
        ("Pica bottanensis", "eurasian_magpie", True, "by the name 'eurasian_magpie' it is 'Pica pica'"),
        ("Parus caeruleus", "", True, "by the name 'Parus caeruleus' it is 'Cyanistes caeruleus'"),
        ("Geococcyx", "", True, "a genus alone may be any species of it: 'Geococcyx' and 'Geococcyx californianus'"),
        ("Corvus corax", "", True, "a genus alone may be any species of it: 'Corvus corax' and 'Corvus'"),
        ("Geococcyx velox", "Lesser Roadrunner", False, ""),
        ("Pica hudsonia", "Black-billed Magpie", False, ""),
        ("Turdus merula", "Blackbird", False, ""),
        ("Turdus", "", False, ""),
        ("", "", False, ""),
    ],
)
def test_a_name_is_seen_if_training_had_its_species_by_any_name(name, common_name, seen, assumed):
    table = ClassTable((7,), {"name": (name,), "common_name": (common_name,)})
    found = among_trained(TRAINED, table, own=False)
    assert found.seen.tolist() == [seen]
    assert assumed in found.matches.assumed.get(name, "") and bool(found.matches.assumed) == bool(assumed)


def test_a_moth_is_no_bird_though_both_are_common_swifts():
    trained = dataclasses.replace(
        ABOUT, class_table="id,name,common_name,class\r\n0,Apus apus,Common Swift,Aves\r\n", train_classes=[0]
    )
    for known, seen in (("Insecta", False), ("AVES", True), ("", True)):
        columns = {"name": ("Korscheltellus lupulina",), "common_name": ("Common Swift",), "class": (known,)}
        assert among_trained(trained, ClassTable((7,), columns), own=False).seen.tolist() == [seen]


def test_of_the_birds_of_a_real_head_those_that_it_was_trained_on_are_seen(shared_data):
    """86 of the 100 are known by the data's own description; five of them bear another binomial there."""
    head = read_class_table(shared_data / "inat_birds_head" / "classes.csv")
    text = (shared_data / "inat_birds_head" / "classes.csv").read_text(encoding="utf-8")
    trained = dataclasses.replace(ABOUT, class_table=text, train_classes=list(head.ids))
    table = read_class_table(shared_data / "cub100" / "classes.csv")
    found = among_trained(trained, table, own=False)
    assert found.seen.sum() == 86
    assert {name for name, why in found.matches.assumed.items() if why.startswith("by the name")} == {
        "Pyrocephalus obscurus",
        "Hesperiphona vespertina",
        "Cyanocorax luxuosus",
        "Leiothlypis ruficapilla",
        "Dryobates pubescens",
    }

"""Which species a model had photos of: by whatever names a list has for them."""

import dataclasses

import pytest

from lit_jax.evaluation.known_species import among_trained
from lit_jax.text.classes import ClassTable
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

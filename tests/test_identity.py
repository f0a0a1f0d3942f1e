"""Names of species as different people write them; what each stands for is known to whoever reads them."""

import doctest
import pathlib
import unicodedata

import pytest

from lit_jax.text import candidates, identity
from lit_jax.text.classes import read_class_table
from lit_jax.text.identity import binomial, matched


@pytest.mark.parametrize(
    "name",
    [
        "Parus major", "Parus major L.", "Parus major L., 1758", "PARUS_MAJOR", "parus  Major", "Parus major major", "Parus cf. major",
        "Parus major (Linnaeus, 1758)", "Parus major Linnaeus, 1758", "Parus (Parus) major", "Parus aff. major", "cf. Parus major", "Parus major?",
        "Parus ?major", "Parus.major", "Parus cf.major", "Parus major subsp. minor", "Parus major var. minor (L.) Smith & Co", "†Parus major", "Parus mājor",
        "Parus majór", "Parus major 'Golden'", "Parus × major", "Parus ×major", "Parus x major", "× Parus major", "Parus major [sic]", "\ufeffParus\u00a0major",
        "PARUS MAJOR LINNAEUS, 1758", "Parus major (unclosed", "Parus Major",
    ],
)  # fmt: skip
def test_one_species_in_many_spellings(name):
    assert binomial(name) == "parus major"
    assert binomial(unicodedata.normalize("NFD", name)) == "parus major"
    assert binomial(binomial(name)) == binomial(name)


@pytest.mark.parametrize(
    "name",
    [
        "", " ", "?", "×", "Parus", "Parus sp.", "Parus sp", "Parus spp.", "PARUS SP.", "Parus sp. nov.", "Parus sp. 1", "Parus sp1", "Parus species", "Parus indet.", "Parus cf. sp.",
        "Parus L.", "Parus Linnaeus, 1758", "Parus (Linnaeus, 1758)", "Parus Smith & Jones", "P. major", "Parus 2", "Parus BOLD:AAA1234", "Parus 'Golden'",
        "Parus major × Parus caeruleus", "Parus major x caeruleus", "Parus major × P. ater", "gen. sp.",
    ],
)  # fmt: skip
def test_what_names_no_species_has_no_binomial(name):
    assert binomial(name) == ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Isoëtes lacustris", "Isoetes lacustris"), ("Dromaius novae-hollandiae", "Dromaius novaehollandiae"), ("Lygæus equestris", "Lygaeus equestris"),
        ("Parus × hybridus", "Parus hybridus"), ("Polygonia c-album", "POLYGONIA_C-ALBUM"), ("Icterus d'orbignyi", "Icterus dorbignyi"),
    ],
)  # fmt: skip
def test_signs_within_words_come_and_go(one, other):
    assert binomial(one) == binomial(other) != ""


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("Parus major", "parus"), ("PARUS_SP.", "parus"), ("Parus", "parus"), ("× Cuprocyparis leylandii", "cuprocyparis"), ("Parus Linnaeus, 1758", "parus"), ("cf. Parus sp.", "parus"),
        ("P. major", ""), ("", ""), ("Anas acuta × Mareca strepera", ""),
    ],
)  # fmt: skip
def test_a_genus_is_known_of_more_names_than_a_species(name, first):
    assert identity.genus(name) == first


def test_other_species_stay_others():
    names = ["Parus major", "Parus minor", "Pyrus major", "Parus maior", "Xema sabini", "Vulpes vulpes"]
    assert len({binomial(name) for name in names}) == len(names)


def test_matches_tell_what_is_the_same_what_is_near_and_what_was_assumed():
    names = [
        "Parus major",
        "Pica pica",
        "Corvus corax",
        "Sitta europea",
        "Parus sp.",
        "Turdus × hybridus",
        "Apus cf. apus",
        "Parus major",
    ]
    known = [
        "PARUS_MAJOR",
        "Pica pica bactriana",
        "Pica pica melanotos",
        "Sitta europaea",
        "Parus sp.",
        "Turdus hybridus",
        "Apus apus (L.)",
        "Corvus",
    ]
    found = matched(names, known)
    assert list(found.same.items()) == [
        ("Parus major", ("PARUS_MAJOR",)), ("Pica pica", ("Pica pica bactriana", "Pica pica melanotos")), ("Turdus × hybridus", ("Turdus hybridus",)), ("Apus cf. apus", ("Apus apus (L.)",)),
    ]  # fmt: skip
    assert found.near == {"Sitta europea": "Sitta europaea"}
    assert list(found.assumed) == ["Pica pica", "Turdus × hybridus", "Apus cf. apus"]
    assert "bactriana" in found.assumed["Pica pica"] and "subspecies" in found.assumed["Pica pica"]
    assert "hybrid" in found.assumed["Turdus × hybridus"] and "doubt" in found.assumed["Apus cf. apus"]


@pytest.mark.parametrize(
    ("name", "known", "told"),
    [
        ("Parus major", ["Parus major L."], ""),
        ("Parus major L.", ["Parus major Linnaeus, 1758"], ""),
        ("Parus major major", ["Parus major major L."], ""),
        ("Parus major ssp. major", ["Parus major major"], ""),
        ("Parus major minor", ["Parus major", "Parus_major_minor"], ""),  # one of them is the very same
        ("Parus major minor", ["Parus major"], "'Parus major minor' is taken for its species"),
        ("Parus cf. major", ["Parus cf. major L."], ""),
        ("Parus major Gmelin", ["Parus major Linnaeus"], "first two words only"),
        ("Great Blue Heron", ["Great Blue Turaco"], "first two words only"),
    ],
)  # fmt: skip
def test_only_what_differs_is_an_assumption(name, known, told):
    found = matched([name], known)
    assert name in found.same and (told in found.assumed[name] if told else not found.assumed)


def test_single_words_are_the_same_if_spelled_alike_and_codes_are_none():
    found = matched(["Goldfinch", "Robin", "Parus sp.", "12"], ["goldfinch", "Parus sp.", "Parus", "12"])
    assert list(found.same) == ["Goldfinch", "12"] and not found.near and not found.assumed


def test_nothing_matches_nothing():
    for names, known in (([], ["Parus major"]), (["Parus major"], []), ([""], [""])):
        assert matched(names, known) == identity.Matches({}, {}, {})


def test_the_names_of_inaturalist_stay_apart():
    path = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data" / "inat2021-categories.csv"
    if not path.is_file():
        pytest.skip("the class table of iNaturalist 2021 is not here")
    table = read_class_table(path)
    assert all(map(binomial, table.names)) and len(set(map(binomial, table.names))) == len(table)


def test_the_examples():
    for module in (identity, candidates):
        result = doctest.testmod(module)
        assert result.attempted and not result.failed

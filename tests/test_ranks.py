import numpy as np
import pytest

from lit_jax.evaluation import intervals, ranks
from lit_jax.text.classes import ClassTable, read_class_table

TABLE = ClassTable(
    (3, 5, 7, 9, 11),
    {
        "name": ("a a", "a b", "b c", "a d", "e e"),
        "kingdom": ("Animalia", "Animalia", "Animalia", "Plantae", "Plantae"),
        "genus": ("A", "A", "B", "A", ""),  # a genus of plants has the name of one of animals
        "supercategory": ("Birds", "Birds", "Birds", "Plants", "Plants"),
    },
)
LABELS = np.array([0, 0, 1, 2, 3, 3, 4])
BEST = np.array([[0, 1], [1, 0], [2, 0], [2, 1], [0, 3], [3, 4], [3, 0]])


def test_genera_of_the_same_name_in_two_kingdoms_are_two():
    groups = ranks.grouped(TABLE, "genus")
    assert groups.of_class.tolist() == [0, 0, 1, 2, -1] and groups.names == ("A", "B", "A")
    assert ranks.grouped(TABLE, "family") is None


def test_accuracy_of_a_rank_by_hand():
    got = ranks.accuracy(LABELS, BEST, ranks.grouped(TABLE, "genus"))
    # Photo by photo: A, A right; B wrong for A; B right; A (plants) wrong, then right; the last has no genus.
    low, high = got.pop("macro_top1_interval")
    assert 1 / 2 <= low < got["macro_top1"] < high <= 1
    assert got == {
        "top1": 4 / 6,
        "top1_interval": intervals.wilson(4 / 6, 6),
        "top5": 1.0,
        "top5_interval": intervals.wilson(1.0, 6),
        "macro_top1": pytest.approx((2 / 3 + 1 + 1 / 2) / 3),
        "groups": 3,
        "images": 6,
    }
    kingdom = ranks.accuracy(LABELS, BEST, ranks.grouped(TABLE, "kingdom"))
    assert kingdom["top1"] == 6 / 7 and kingdom["images"] == 7


def test_what_is_hard_and_what_it_is_taken_for():
    rows = ranks.hardest(LABELS, BEST, ranks.grouped(TABLE, ranks.SPECIES))
    assert [(row["name"], row["images"], row["top1"], row["taken_for"]) for row in rows] == [
        ("a b", 1, 0.0, [["b c", 1]]), ("e e", 1, 0.0, [["a d", 1]]), ("a a", 2, 0.5, [["a b", 1]]),
        ("a d", 2, 0.5, [["a a", 1]]), ("b c", 1, 1.0, []),
    ]  # fmt: skip
    genera = ranks.hardest(LABELS, BEST, ranks.grouped(TABLE, "genus"))
    assert [(row["name"], row["images"], row["taken_for"]) for row in genera] == [
        ("A", 2, [["A", 1]]), ("A", 3, [["B", 1]]), ("B", 1, []),
    ]  # fmt: skip


def test_supercategories_count_their_own_species():
    rows = ranks.by_column(LABELS, BEST, np.array([0, 1, 3, 0, 7, 0, 2]), ranks.grouped(TABLE, "supercategory"))
    for row in rows:
        assert row.pop("macro_top1_interval") is not None
        assert row.pop("top1_interval") == intervals.wilson(row["top1"], row["images"])
        assert row.pop("top5_interval") == intervals.wilson(row["top5"], row["images"])
    assert rows == [
        {"name": "Birds", "images": 4, "classes": 3, "top1": 0.5, "top5": 1.0, "macro_top1": pytest.approx((0.5 + 0 + 1) / 3)},
        {"name": "Plants", "images": 3, "classes": 2, "top1": 1 / 3, "top5": 2 / 3, "macro_top1": 0.25},
    ]  # fmt: skip


def test_the_ceiling_counts_photos():
    assert ranks.ceiling(np.array([3, 1, 4, 2]), [(0, 1), (2, 3)]) == 0.7
    assert ranks.ceiling(np.array([3, 1]), []) == 1.0


def test_the_real_taxonomy_has_its_published_numbers_of_groups(shared_data):
    table = read_class_table(shared_data / "inat2021-categories.csv")
    found = {rank: ranks.grouped(table, rank).names for rank in ("genus", "family", "order", "class", "kingdom")}
    assert {rank: len(set(names)) for rank, names in found.items()} == {
        "genus": 4884, "family": 1103, "order": 273, "class": 51, "kingdom": 3,
    }  # fmt: skip
    # Sixteen names, Iris and Morus among them, are a genus of plants and one of animals.
    assert {rank: len(names) - len(set(names)) for rank, names in found.items()} == {
        "genus": 16, "family": 0, "order": 0, "class": 0, "kingdom": 0,
    }  # fmt: skip

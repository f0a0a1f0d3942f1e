"""Leaks of names, relatives and photos in small collections whose leaks are known."""

import json

import numpy as np
import pytest

from lit_jax import leaks as command
from lit_jax.data import embedding_store
from lit_jax.errors import UserError
from lit_jax.evaluation import kinship, leaks
from lit_jax.text.classes import ClassTable, read_class_table, write_class_table
from lit_jax.text.labels import read_labels

CAPTION = ("A photo of the {common_name} {name}",)
TABLE = ClassTable(
    tuple(range(10, 19)),
    {
        "name": ("Parus major", "Parus minor", "Pica pica", "Corvus corax", "Sitta europaea", "Iris versicolor", "Turdus merula", "Cygnus olor", "Rana x esculenta"),
        "common_name": ("Great Tit", "Japanese Tit", "Eurasian Magpie", "Raven", "Nuthatch", "Blue Flag", "Blackbird", "Mute Swan", "Edible Frog"),
        "synonyms": ("", "", "", "", "Sitta caesia; Parus  MAJOR major", "", "", "", ""),
        "kingdom": ("Animalia", "Animalia", "", "Animalia", "Animalia", "Plantae", "", "Animalia", "Animalia"),
        "order": ("Passeriformes", "Passeriformes", "Passeriformes", "Passeriformes", "Passeriformes", "Asparagales", "", "Anseriformes", "Anura"),
        "family": ("Paridae", "Paridae", "Corvidae", "Corvidae", "Sittidae", "Iridaceae", "", "Anatidae", "Ranidae"),
        "genus": ("Parus", "", "Pica", "Corvus", "Sitta", "Iris", "", "", "Rana"),
    },
)  # fmt: skip


def altered(class_id, **cells):
    """The table with other cells in one row."""
    row = TABLE.index_of(class_id)
    return ClassTable(TABLE.ids, {c: tuple(cells.get(c, v) if i == row else v for i, v in enumerate(values)) for c, values in TABLE.columns.items()})  # fmt: skip


def found_names(table, seen, unseen, templates=CAPTION):
    return {(row["id"], row["by"], row["where"], row["whole"]) for row in leaks.names_in_training(table, seen, unseen, templates)}  # fmt: skip


def test_names_that_training_has_read():
    assert not found_names(TABLE, (11, 12, 13), (10, 15, 17))
    # A synonym of a seen species is the held-out one, in another spelling.
    assert found_names(TABLE, (14,), (10,)) == {(10, "name", "class table", False)}
    assert found_names(TABLE, (10,), (14,)) == {(14, "synonym", "class table", False)}
    assert found_names(altered(12, name="PARUS_MAJOR"), (12,), (10,)) == {(10, "name", "class table", True)}
    assert found_names(altered(12, common_name="great  tit"), (12,), (10,)) == {
        (10, "common name", "class table", True)
    }
    assert found_names(altered(12, common_name="Northern Great-Tit"), (12,), (10,)) == {
        (10, "common name", "class table", False)
    }
    for name in ("Parus (Parus) major", "Parus cf. major", "Parus ×major"):
        assert found_names(altered(12, name=name), (12,), (10,), ()) == {(10, "name", "class table", False)}
    assert found_names(altered(18, name="Rana esculenta"), (18,), (10,)) == set()
    assert found_names(TABLE, (12,), (10,), ("Not a Parus major: {name}",)) == {(10, "name", "caption", False)}
    assert not found_names(TABLE, (12,), (10,), ("Not a Parus, its major {common_name} Parusmajor",))
    (row,) = leaks.names_in_training(altered(12, name="Parus major minor"), (12,), (10,), CAPTION)
    assert row["training"].startswith("Parus major minor") and "subspecies" in row["assumed"]


def test_what_the_tower_knows():
    labels = ["tit", "Parus major L.", "magpie", "MUTE SWAN", "Sitta europea", "Turdus sp.", "Rana esculenta"]
    found = leaks.known_to_tower(altered(14, synonyms="Sitta caesia"), (10, 12, 14, 16, 17, 18), labels)
    assert [(row["id"], row["by"], row["as"]) for row in found["known"]] == [
        (10, "name", "Parus major L."), (17, "common name", "MUTE SWAN"), (18, "name", "Rana esculenta"),
    ]  # fmt: skip
    assert "hybrid" in found["known"][2]["assumed"] and not found["known"][0]["assumed"]
    assert [(row["id"], row["as"]) for row in found["near"]] == [(14, "Sitta europea")]
    assert found["not_named"] == ["Pica pica", "Sitta europaea", "Turdus merula"] and found["labels"] == 7
    assert leaks.known_to_tower(TABLE, (14,), ["Sitta caesia"])["known"][0]["by"] == "synonym"


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("l.txt", "Parus major\n\nPica pica\nPica pica\n", ["Parus major", "Pica pica"]),
        ("l.txt", "tench, Tinca tinca\n", ["tench, Tinca tinca", "tench", "Tinca tinca"]),
        ("l.csv", "id,name,common_name,synonym\n3,Pica pica,Magpie,Pica caudata|Corvus pica\n", ["Pica pica", "Magpie", "Pica caudata", "Corvus pica"]),
        ("l.json", '["Pica pica", "Parus major"]', ["Pica pica", "Parus major"]),
        ("l.json", '{"architecture": "vit", "label_names": ["Pica pica"]}', ["Pica pica"]),
        ("l.json", '{"id2label": {"0": "Pica pica", "1": "Parus major"}}', ["Pica pica", "Parus major"]),
        ("l.json", '{"0": "Pica pica"}', ["Pica pica"]),
        ("l.json", '{"categories": [{"id": 1, "name": "Pica pica"}]}', ["Pica pica"]),
        ("l.txt", "00012_Animalia_Chordata_Aves_Passeriformes_Corvidae_Pica_pica", ["Pica pica"]),
    ],
)  # fmt: skip
def test_labels_in_any_form(tmp_path, name, text, names):
    (tmp_path / name).write_text(text)
    assert read_labels(tmp_path / name) == names


@pytest.mark.parametrize(
    ("name", "raw", "told"),
    [
        ("a.txt", b"\n1\n", "found no names"), ("a.json", b"[1, 2]", "found other JSON"), ("a.json", b"{", "found bad JSON"), ("a.txt", b"\xff\xfe", "found no names"), ("a.txt", b"a\n\x81", "UTF-8"),
    ],
)  # fmt: skip
def test_labels_that_are_none(tmp_path, name, raw, told):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(UserError, match=told):
        read_labels(tmp_path / name)
    with pytest.raises(UserError, match="check the path"):
        read_labels(tmp_path / "nowhere.txt")


def test_the_nearest_relative():
    groups = kinship.kinship(TABLE, (10, 12, 15), (11, 13, 14, 16, 17, 18))
    assert groups == {"genus": (11,), "family": (13,), "order": (14,), "none": (17, 18), "unknown": (16,)}
    assert kinship.kinship(altered(18, genus="Iris"), (15,), (18,))["none"] == (18,)  # an Iris of the animals
    assert kinship.kinship(altered(18, genus="iris", kingdom=""), (15,), (18,))["genus"] == (18,)
    with pytest.raises(UserError, match="class id"):
        kinship.kinship(TABLE, (10,), (99,))


def test_accuracy_of_each_group():
    rows = [
        {"id": 11, "images": 10, "top1": 0.9},
        {"id": 17, "images": 1, "top1": 0.0},
        {"id": 18, "images": 3, "top1": 1.0},
    ]
    got = kinship.accuracy_by_kinship({"genus": (11,), "family": (13,), "order": (), "none": (17, 18)}, rows)
    assert [row["group"] for row in got] == ["genus", "family", "none"]
    assert got[1] == {"group": "family", "species": 1}
    assert got[2]["top1"] == 0.75 and got[2]["macro_top1"] == 0.5 and got[2]["images"] == 4 and got[2]["judged"] == 2
    with pytest.raises(UserError, match="--results: found an evaluation of other species"):
        kinship.accuracy_by_kinship({"genus": (99,)}, rows)


@pytest.fixture
def store(tmp_path, rng):
    """Training 10, 12, 14; held out 11 and 17: two of its photos are training's, one under another name."""
    classes = {"train": [10, 12, 14], "validation": [10, 12, 14], "heldout": [11, 17]}
    aside = embedding_store.begin(tmp_path / "set", {})
    write_class_table(altered(17, common_name="Great Tit"), aside / embedding_store.CLASS_TABLE)
    features = {split: np.abs(rng.normal(size=(6, 1, 16))) + 2 for split in classes}
    features["heldout"][1], features["heldout"][5] = features["train"][4] * 1.001, features["train"][0]
    features["validation"][2] = features["validation"][3]
    shards = {
        split: [embedding_store.write_shard(aside, embedding_store.shard_name(split, 0, 1), features[split], np.resize(ids, 6), [f"{split}{i}.jpg" for i in range(6)], dtype="float32")]
        for split, ids in classes.items()
    }  # fmt: skip
    embedding_store.finish(embedding_store.Store(
        directory=aside, splits=shards, views=dict.fromkeys(shards, 1), width=16, dtype="float32",
        record_lengths={split: [6] for split in shards}, tower={"kind": "given", "digest": "x"},
        class_table=aside / embedding_store.CLASS_TABLE, tokenizer=None, templates=["{name}"], drop_repeats=False,
        class_ids={split: ids for split, ids in classes.items()}, records="r",
    ), tmp_path / "set")  # fmt: skip
    return tmp_path / "set"


def test_the_command_on_a_store(store, tmp_path, capsys):
    results = tmp_path / "evaluation.json"
    results.write_text(json.dumps({"per_class": [{"class": "Parus minor", "id": 11, "images": 4, "top1": 0.75, "top5": 1.0}]}))  # fmt: skip
    (tmp_path / "labels.txt").write_text("Cygnus olor\n")
    out = tmp_path / "leaks.json"
    command.main(["--store", str(store), "--within", "0.02", "--inside", "--out", str(out), "--results", str(results), "--tower-labels", str(tmp_path / "labels.txt")])  # fmt: skip
    found, printed = json.loads(out.read_text()), capsys.readouterr().out
    pairs = {(pair["photo"], pair["like"]): pair for one in found["photos"]["comparisons"] for pair in one["pairs"]}
    assert set(pairs) == {("heldout1.jpg", "train4.jpg"), ("heldout5.jpg", "train0.jpg"), ("validation2.jpg", "validation3.jpg")}  # fmt: skip
    assert (pairs["heldout5.jpg", "train0.jpg"]["class"], pairs["heldout5.jpg", "train0.jpg"]["like_class"]) == (17, 10)
    counts = {(one["split"], one["against"]): (one["near_photos"], one["other_class"]) for one in found["photos"]["comparisons"]}  # fmt: skip
    assert counts == {("heldout", "train"): (2, 2), ("validation", "train"): (0, 0), ("train", "train"): (0, 0), ("validation", "validation"): (2, 1), ("heldout", "heldout"): (0, 0)}  # fmt: skip
    assert {(row["id"], row["by"]) for row in found["names"]} == {(17, "common name")}
    assert [row["id"] for row in found["tower"]["known"]] == [17] and found["tower"]["not_named"] == ["Parus minor"]
    assert [(row["group"], row.get("top1")) for row in found["kinship"]["rows"]] == [("genus", 0.75), ("none", None)]
    for text in ("heldout5.jpg is like train0.jpg: Cygnus olor (Great Tit), and not Parus major", "stands in the words of training: 1 of 2", "names that the tower knows: 1 of 2", "75.00 %"):  # fmt: skip
        assert text in printed


@pytest.mark.parametrize(
    "change", [{"id": {}}, {"id": "1"}, {"id": True}, {"images": "4"}, {"images": 0}, {"top1": None}, {"top1": 7}]
)
def test_results_of_another_content_are_refused(tmp_path, change):
    row = {"class": "Parus minor", "id": 11, "images": 4, "top1": 0.75}
    (tmp_path / "r.json").write_text(json.dumps({"per_class": [row]}))
    assert command._per_class(str(tmp_path / "r.json")) == [row]
    (tmp_path / "r.json").write_text(json.dumps({"per_class": [row, {**row, **change}]}))
    with pytest.raises(UserError, match=r"r\.json: found another content, expected an evaluation-SPLIT\.json"):
        command._per_class(str(tmp_path / "r.json"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--splits", "train,nowhere"], "--splits: found 'nowhere', expected"),
        (["--train-split", "x"], "--train-split: found 'x', expected"),
        (["--results", "nowhere.json"], "--results nowhere.json: found No such file"),
        (["--tower-labels", "nowhere.txt"], "nowhere.txt: found No such file"),
        (["--heldout", "validation"], "--heldout: found no species in 'validation' that 'train' has not"),
        (["--within", "2"], "expected a number from 0 to 1"),
        (["--most", "0"], "expected a whole number above 0"),
    ],
)
def test_a_mistake_is_one_line(store, tmp_path, capsys, arguments, told):
    with pytest.raises(SystemExit) as stop:
        command.main(["--store", str(store), "--out", str(tmp_path / "o.json"), *arguments])
    assert stop.value.code == 2 and told in capsys.readouterr().err and not (tmp_path / "o.json").exists()


def test_species_of_both_splits_are_told_and_left_out(store, tmp_path, capsys):
    command.main(["--store", str(store), "--train-split", "heldout", "--heldout", "train", "--out", str(tmp_path / "o.json")])  # fmt: skip
    printed = capsys.readouterr().out
    assert "top-1" not in printed and "accuracy by relative: give the evaluation" in printed
    assert json.loads((tmp_path / "o.json").read_text())["in_both"] == []
    overlapping = embedding_store.open_store(store)
    object.__setattr__(overlapping, "class_ids", {**overlapping.class_ids, "heldout": (10, 11, 17)})
    parsed = command._parser().parse_args(["--store", str(store)])
    found = command._of_heldout(overlapping, read_class_table(overlapping.class_table), "heldout", parsed, [], [])
    assert found["in_both"] == ["Parus major (Great Tit)"] and found["species"] == 2
    assert "species with photos in training too, and left out here: 1, Parus major (Great Tit)" in command.names_table(found)  # fmt: skip


def test_without_held_out_species_photos_are_told_alone(store, tmp_path, capsys, monkeypatch):
    arguments = ["--store", str(store), "--out", str(tmp_path / "o.json")]
    with pytest.raises(SystemExit):
        command.main([*arguments, "--heldout", "none"])
    assert "--heldout: found 'none', expected one of" in capsys.readouterr().err and not (tmp_path / "o.json").exists()
    monkeypatch.setattr(command, "HELDOUT", "none")
    command.main(arguments)
    assert "no split 'none'" in capsys.readouterr().out
    assert set(json.loads((tmp_path / "o.json").read_text())) == {"data", "train_split", "splits", "photos"}

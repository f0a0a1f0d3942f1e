"""Learning from a classifier's last layer: which array it is, whose rows, where they go, and what is refused."""

import csv
import json
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from data_prep.conversion.options import Options
from data_prep.embeddings import main
from data_prep.import_embeddings.embedding_files import Given, read_embeddings, read_ids
from data_prep.import_embeddings.head_files import read_head
from data_prep.import_embeddings.heads import Head, HeadUse, read_left_out, rows_with_head
from lit_jax.data import embedding_store
from lit_jax.errors import UserError
from lit_jax.models.weight_files import write_safetensors
from lit_jax.text.candidates import read_class_tables
from lit_jax.text.classes import ClassTable, read_class_table, write_class_table

C, W, PHOTOS = 6, 8, 10
NAMES = ("Pica pica", "Corvus corax", "Parus major", "Turdus merula", "Sitta europaea", "Apus apus")
COMMON = ("Magpie", "Raven", "Great Tit", "Blackbird", "Nuthatch", "Swift")
TABLE = ClassTable((10, 11, 12, 13, 14, 15), {"name": NAMES, "common_name": COMMON, "supercategory": ("Birds",) * C})
FILES = [f"{name}/{i}.jpg" for name in NAMES for i in range(PHOTOS)]


def a_head(seed=0):
    """`[C, W]` float32 that float16 holds exactly, and `[C]`."""
    draw = np.random.default_rng(seed)
    return draw.integers(-64, 64, (C, W)).astype(np.float32) / 16, draw.integers(-8, 8, C).astype(np.float32) / 8


def photos_of(weight, seed=1):
    """`[C * PHOTOS, W]` float32 that lie where the head reads them, around a mean that is not 0."""
    draw = np.random.default_rng(seed)
    features = np.repeat(weight - weight.mean(0), PHOTOS, axis=0) * 5 + draw.normal(size=(C * PHOTOS, W)) + 3
    return features.astype(np.float16).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """A class table, a head without names and photos of its classes, in files."""
    write_class_table(TABLE, tmp_path / "classes.csv")
    weight, bias = a_head()
    np.savez(tmp_path / "head.npz", weight=weight, bias=bias)
    np.savez(tmp_path / "photos.npz", emb=photos_of(weight), files=np.array(FILES))
    write_list(tmp_path / "photos.csv", {file: "test" if i % 2 else "train" for i, file in enumerate(FILES)})
    return tmp_path


def write_list(path, split_of):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("file", "split"), *split_of.items()])
    return path


def store_of(folder, *arguments, photos=True, out="store"):
    given = ["--head", folder / "head.npz", "--classes", folder / "classes.csv", "--out", folder / out]
    given += ["--embeddings", folder / "photos.npz", "--ids", folder / "photos.csv"] if photos else []
    main([str(argument) for argument in [*given, "--vocab-size", 0, *arguments]])
    return embedding_store.open_store(folder / out)


def rows_of(store, split="train"):
    """Class id to the row of the head, and photo to its features, as the store's own reader finds them."""
    rows = embedding_store.Rows(store, split)
    found = dict(zip(embedding_store.image_ids(store, split), rows.take(np.arange(len(rows))), strict=True))
    ids = dict(zip(embedding_store.image_ids(store, split), rows.class_ids.tolist(), strict=True))
    head = {ids[name]: row for name, row in found.items() if name.startswith("head/")}
    return head, {name: row for name, row in found.items() if not name.startswith("head/")}


def refusal(capsys, folder, *arguments, **more):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        store_of(folder, *arguments, **more)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


# -- which array it is


@pytest.mark.parametrize("name", ["head.weight", "head.fc.weight", "classifier.weight", "fc.weight", "model.head.weight", "head.head.kernel", "head/kernel", "classifier.1.weight", "anything"])  # fmt: skip
@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_the_last_layer_is_found_among_the_arrays(tmp_path, name, ending):
    weight, bias = a_head()
    kernel = name.endswith("kernel")
    stem = name.removesuffix("weight").removesuffix("kernel") if name != "anything" else ""
    arrays = {name: weight.T if kernel else weight, f"{stem}bias": bias, "x.scale": np.ones(4, np.float32)}
    if name != "anything":  # then other matrices may stand beside it, more than a head has
        arrays |= {f"blocks.{i}.mlp.fc.weight": np.ones((3, 3), np.float32) for i in range(9)}
    path = tmp_path / f"w{ending}"
    write_safetensors(path, arrays) if ending == ".safetensors" else np.savez(path, **arrays)
    head = read_head(str(path))
    np.testing.assert_array_equal(head.weight, weight)
    np.testing.assert_array_equal(head.bias, bias)
    assert (head.array, head.labels, head.title) == (name, None, path.name)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_a_head_may_have_any_type_of_float_and_no_bias(tmp_path, dtype):
    weight, _ = a_head()
    write_safetensors(tmp_path / "h.safetensors", {"fc.weight": weight.astype(dtype)[:, :, None, None]})
    head = read_head(str(tmp_path / "h.safetensors"))
    np.testing.assert_array_equal(head.weight, weight.astype(dtype).astype(np.float32))
    assert head.weight.dtype == np.float32 and not head.bias.any()
    if dtype is not ml_dtypes.bfloat16:
        np.save(tmp_path / "h.npy", weight.astype(dtype))
        np.testing.assert_array_equal(read_head(str(tmp_path / "h.npy")).weight, weight)


@pytest.mark.parametrize(
    ("config", "labels"),
    [
        ({"label_names": list(NAMES)}, [(name,) for name in NAMES]),
        (
            {"label_names": list(NAMES), "label_descriptions": dict(zip(NAMES, COMMON, strict=True))},
            list(zip(NAMES, COMMON, strict=True)),
        ),
        ({"pretrained_cfg": {"label_names": list(NAMES)}}, [(name,) for name in NAMES]),
        ({"id2label": {str(i): NAMES[i] for i in reversed(range(C))}}, [(name,) for name in NAMES]),
        ({"id2label": {str(i): f"LABEL_{i}" for i in range(C)}}, None),
        ({"architecture": "vit_tiny_patch16_224"}, None),
    ],
)
def test_names_of_classes_stand_in_the_config_of_a_folder(tmp_path, config, labels, monkeypatch):
    from lit_jax.models import weight_files

    weight, bias = a_head()
    write_safetensors(tmp_path / "model.safetensors", {"head.weight": weight, "head.bias": bias})
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(weight_files, "hub_folder", lambda name: {"hf-hub:timm/some": tmp_path}[name])
    for source in (str(tmp_path), str(tmp_path / "model.safetensors"), "hf-hub:timm/some"):
        head = read_head(source)
        assert head.labels == (None if labels is None else tuple(labels))
        np.testing.assert_array_equal(head.weight, weight)


def test_names_may_stand_beside_the_weight(tmp_path):
    weight, bias = a_head()
    np.savez(tmp_path / "h.npz", weight=weight, bias=bias, names=np.array(NAMES), hexes=np.array(["x"] * C))
    assert read_head(str(tmp_path / "h.npz")).labels == tuple((name,) for name in NAMES)


@pytest.mark.parametrize(
    ("arrays", "name", "message"),
    [
        ({"head.weight": (3, 4), "fc.weight": (3, 4)}, "", "found fc.weight and head.weight, expected one last layer; choose with --head-name"),
        ({"a.bias": (3,)}, "", r"found no last layer \(a.bias\), expected such as head.weight"),
        ({"head.weight": (3, 4)}, "fc.weight", r"found no 'fc.weight' \(head.weight\), expected it; correct --head-name"),
        ({"head.weight": (3, 4, 2)}, "head.weight", r"head.weight: found float32 \[3, 4, 2\], expected floats \[classes, width\]"),
        ({"head.weight": (1, 4)}, "", "found 1 class, expected two or more"),
        ({"head.weight": (3, 4), "head.bias": (4,)}, "", "head.bias: found 4 numbers, expected 3, one a class"),
    ],
)  # fmt: skip
def test_an_array_that_is_no_last_layer_is_refused(tmp_path, arrays, name, message):
    np.savez(tmp_path / "h.npz", **{key: np.ones(shape, np.float32) for key, shape in arrays.items()})
    with pytest.raises(UserError, match=message):
        read_head(str(tmp_path / "h.npz"), name)


def test_of_two_layers_the_name_chooses(tmp_path):
    weight, bias = a_head()
    np.savez(tmp_path / "h.npz", **{"head.weight": weight, "head.bias": bias, "fc.weight": weight + 1})
    chosen = read_head(str(tmp_path / "h.npz"), "fc.weight")
    np.testing.assert_array_equal(chosen.weight, weight + 1)
    assert not chosen.bias.any()


def test_numbers_and_names_that_do_not_fit_are_refused(tmp_path):
    weight, _ = a_head()
    np.savez(tmp_path / "h.npz", weight=np.where(weight == weight[0, 0], np.nan, weight))
    with pytest.raises(UserError, match="found values that are not finite"):
        read_head(str(tmp_path / "h.npz"))
    write_safetensors(tmp_path / "model.safetensors", {"head.weight": weight})
    (tmp_path / "config.json").write_text(json.dumps({"label_names": list(NAMES[:4])}))
    with pytest.raises(UserError, match="found 4 names of classes, expected 6, one a row of the head"):
        read_head(str(tmp_path))


# -- whose rows they are


def classes_of(labels, table=TABLE, ordered=()):
    """Class id of each row of the head that is stored."""
    weight, bias = a_head()
    rows = rows_with_head(None, HeadUse(Head(weight, bias, labels, "h"), tuple(ordered)), table, Options())
    return {int(photo.image_id.split("/")[1]): photo.class_id for photo in rows.photos}


@pytest.mark.parametrize(
    "labels",
    [
        [("PICA_PICA ",), ("corvus  corax",), ("Great tit",), ("Turdus merula",), ("Nuthatch",), ("Apus apus",)],
        [("n1", "Pica pica"), ("n2", "Raven, a bird"), *((name,) for name in NAMES[2:5]), ("n6", "Swift (Apus apus)")],
    ],
)
def test_rows_go_by_normalised_name_or_common_name(labels):
    assert classes_of(labels) == dict(enumerate(TABLE.ids))


def test_rows_without_names_go_by_the_order_of_the_table():
    assert classes_of(None, ordered=TABLE.ids[::-1]) == dict(enumerate(TABLE.ids[::-1]))
    with pytest.raises(UserError, match="found 6 classes without names, expected 5 as in the class table, whose order"):
        classes_of(None, ordered=TABLE.ids[:5])


def test_labels_that_no_class_bears_are_listed_and_left_out(capsys):
    labels = [("Pica pica",), ("a",), ("b",), ("c",), ("d",), ("Apus apus",)]
    assert classes_of(labels) == {0: 10, 5: 15}
    lines = capsys.readouterr().out.splitlines()
    assert "head rows left out, for their labels are no class of the table: 4 (a, b, c and 1 more)" in lines
    with pytest.raises(UserError, match="h: found classes such as 'x', expected names of the class table, such as 'Pi"):
        classes_of([("x",)] * C)


def test_a_name_of_two_species_says_nothing():
    two = ClassTable(
        (1, 2, 3), {"name": ("Pica pica", "Pica serica", "Apus apus"), "common_name": ("Magpie", "Magpie", "")}
    )
    labels = [("Magpie",), ("Apus apus",), *((str(i),) for i in range(4))]
    assert classes_of(labels, two) == {1: 3}


def test_tables_of_head_and_photos_become_one(tmp_path):
    write_class_table(TABLE.subset([10, 11, 12]), tmp_path / "head.csv")
    mine = {"folder": ("f1", "f2"), "name": ("Corvus corax", "Struthio camelus"), "order": ("Passeriformes", "")}
    write_class_table(ClassTable((0, 1), mine), tmp_path / "mine.csv")
    table, lines = read_class_tables([tmp_path / "head.csv", tmp_path / "mine.csv"])
    assert table.ids == (10, 11, 12, 13) and table.names == (*NAMES[:3], "Struthio camelus")
    assert table.columns["folder"] == ("", "f1", "", "f2")
    assert table.columns["order"] == ("", "Passeriformes", "", "")
    assert table.columns["common_name"] == (*COMMON[:3], "")
    assert lines == [f"{tmp_path / 'mine.csv'}: 1 of its 2 classes are in the table already"]
    assert read_class_tables([tmp_path / "head.csv"]) == (read_class_table(tmp_path / "head.csv"), [])
    write_class_table(
        ClassTable((0, 1), {**mine, "name": ("Corvus corax", "Struthio camelus"), "order": ("Aves", "x")}),
        tmp_path / "more.csv",
    )
    table, _ = read_class_tables([tmp_path / name for name in ("head.csv", "mine.csv", "more.csv")])
    assert table.columns["order"] == ("", "Passeriformes", "", "x")  # what was said first counts, and gaps are filled


# -- where they go


def expected_rows(weight, centre, distance):
    """By the definition, in float64: rows around the centre, as far from it on average as is asked."""
    weight = weight.astype(np.float64)
    around = weight - np.mean(weight, axis=0)
    return around * (distance / np.mean(np.sqrt(np.sum(around**2, axis=1)))) + centre


def test_rows_lie_around_the_training_photos_as_far_as_their_class_means(folder, capsys):
    weight, bias = a_head()
    store = store_of(folder, "--dtype", "float32")
    head, photos = rows_of(store)
    features = photos_of(weight).astype(np.float64).reshape(C, PHOTOS, W)[:, ::2]  # to train on
    centre = features.mean((0, 1))
    distance = np.linalg.norm(features.mean(1) - centre, axis=1).mean()
    expected = expected_rows(weight, centre, distance)
    np.testing.assert_allclose([head[i] for i in TABLE.ids], expected, rtol=1e-5, atol=1e-5)
    assert np.linalg.norm(expected - centre, axis=1).mean() == pytest.approx(distance)
    for file, row in zip(FILES, photos_of(weight), strict=True):
        np.testing.assert_array_equal((photos | rows_of(store, "validation")[1])[file], row)
    hits = np.mean(np.argmax(photos_of(weight) @ weight.T + bias, 1) == np.repeat(np.arange(C), PHOTOS))
    lines = capsys.readouterr().out.splitlines()
    assert any(
        f"top-1 {hits:.1%} of 60 photos of 6 species, among its 6 classes (chance 16.7%)" in line for line in lines
    )
    assert any("around the mean of all 30 photos to train on (no label is used)" in line for line in lines)
    assert hits > 0.9


def test_without_training_photos_all_given_ones_say_where(folder, capsys):
    (folder / "out.txt").write_text("Magpie\nCORVUS corax\nParus major\nTurdus merula\nUnheard of\n")
    write_list(folder / "photos.csv", dict.fromkeys(FILES[: 4 * PHOTOS], "test"))
    store = store_of(folder, "--leave-out", folder / "out.txt", "--dtype", "float32")
    head, photos = rows_of(store)
    assert set(head) == {14, 15} and not photos
    assert store.classes_in("heldout") == (10, 11, 12, 13) and store.examples("heldout") == 40
    weight, _ = a_head()
    features = photos_of(weight).astype(np.float64).reshape(C, PHOTOS, W)[:4]
    centre = features.mean((0, 1))
    expected = expected_rows(weight, centre, np.linalg.norm(features.mean(1) - centre, axis=1).mean())
    np.testing.assert_allclose([head[14], head[15]], expected[4:], rtol=1e-5, atol=1e-5)
    printed = capsys.readouterr().out
    assert "around the mean of all 40 photos given (no label is used)" in printed
    assert "2 of 6 rows of the head and 40 photos; accuracy on the head's own species is no zero-shot figure" in printed
    assert "head rows not stored, for they are to be left out: 4 (Pica pica (Magpie), " in printed
    assert "names to leave out that are no class of the table: 1 (Unheard of)" in printed


def test_photos_without_labels_say_where_by_themselves(folder, capsys):
    weight, _ = a_head()
    given = ["--embeddings", folder / "photos.npz", "--dtype", "float32"]
    head, photos = rows_of(store_of(folder, *given, photos=False))
    features = photos_of(weight).astype(np.float64)
    centre = features.mean(0)
    expected = expected_rows(weight, centre, np.linalg.norm(features - centre, axis=1).mean())
    np.testing.assert_allclose([head[i] for i in TABLE.ids], expected, rtol=1e-5, atol=1e-5)
    assert not photos and "to the mean distance of photos from it" in capsys.readouterr().out


def test_without_photos_rows_lie_around_zero_and_it_is_said(folder, capsys):
    store = store_of(folder, "--dtype", "float32", photos=False)
    weight, _ = a_head()
    weight = weight.astype(np.float64)
    np.testing.assert_allclose([rows_of(store)[0][i] for i in TABLE.ids], weight - weight.mean(0), rtol=1e-6, atol=1e-6)
    assert "photos to be named must then be centred" in capsys.readouterr().out
    assert store.tower["head"]["scale"] == 1.0 and store.tower["name"] == "head.npz"


def test_the_manifest_tells_what_was_done_and_the_tower_is_that_of_the_photos(folder):
    store = store_of(folder)
    plain = folder / "plain"
    photos = [
        "--embeddings",
        folder / "photos.npz",
        "--ids",
        folder / "photos.csv",
        "--classes",
        folder / "classes.csv",
    ]
    main([str(argument) for argument in [*photos, "--out", plain, "--vocab-size", 0]])
    assert embedding_store.open_store(plain).tower["digest"] == store.tower["digest"]
    assert "head" not in embedding_store.open_store(plain).tower
    about = dict(store.tower["head"])
    assert len(about.pop("digest")) == 64 and 1 < about.pop("scale") < 20
    assert about == {
        "name": "head.npz", "array": "weight", "classes": C, "rows": C, "centred_on_photos": 30,
        "spread_of_classes": C,
    }  # fmt: skip


def test_a_species_held_out_has_no_row_of_the_head(folder, capsys):
    (folder / "held.txt").write_text("Raven\n")
    store = store_of(folder, "--heldout-classes", folder / "held.txt")
    assert set(rows_of(store)[0]) == {10, 12, 13, 14, 15} and store.classes_in("heldout") == (11,)
    assert "for their species is held out: 1 (Corvus corax (Raven))" in capsys.readouterr().out
    alone = store_of(folder, "--heldout-classes", folder / "held.txt", photos=False, out="alone")
    assert set(rows_of(alone)[0]) == {10, 12, 13, 14, 15}


def test_every_view_of_a_row_is_the_row(folder):
    weight, _ = a_head()
    views = np.stack([photos_of(weight), photos_of(weight, seed=2)], axis=1)
    np.savez(folder / "photos.npz", emb=views, files=np.array(FILES))
    store = store_of(folder)
    rows = embedding_store.Rows(store, "train")
    of_head = np.array([name.startswith("head/") for name in embedding_store.image_ids(store, "train")])
    whole = rows.whole()
    np.testing.assert_array_equal(whole[of_head][:, 0], whole[of_head][:, 1])
    assert of_head.sum() == C and not np.array_equal(whole[~of_head][:, 0], whole[~of_head][:, 1])


def test_names_to_leave_out_are_read_from_tables_and_lists(tmp_path):
    write_class_table(TABLE.subset([10]), tmp_path / "t.csv")
    (tmp_path / "t.txt").write_text("Pica_pica\n\nMAGPIE\n")
    assert read_left_out(tmp_path / "t.csv") == (("Pica pica", "Magpie"),)
    assert read_left_out(tmp_path / "t.txt") == (("Pica_pica",), ("MAGPIE",))


# -- what is refused


def test_a_head_of_another_tower_is_refused_unless_it_is_wanted(folder, capsys):
    features, other = photos_of(a_head()[0]), a_head(seed=7)[0]
    hits = np.mean(np.argmax(features @ other.T, 1) == np.repeat(np.arange(C), PHOTOS))
    np.savez(folder / "head.npz", weight=other)
    line = refusal(capsys, folder)
    assert (
        f"top-1 {hits:.1%} of 60 photos of 6 species, among its 6 classes (chance 16.7%), expected clearly more" in line
    )
    assert "behind its last norm (pre-logits, fc_norm)" in line and line.endswith("or go on with --head-anyway")
    assert len(rows_of(store_of(folder, "--head-anyway"))[0]) == C


def test_a_single_answer_is_no_better_than_chance_where_photos_are_uneven(folder, capsys):
    """Of 60 photos 50 are of one species: to give that answer always is right that often."""
    write_list(folder / "photos.csv", {file: "train" for file in FILES})
    names = np.array(["Pica pica"] * 50 + ["Corvus corax"] * 10)
    files = [f"{name}/{i}.jpg" for i, name in enumerate(names)]
    np.savez(folder / "photos.npz", emb=np.random.default_rng(0).normal(size=(60, W)), files=np.array(files))
    write_list(folder / "photos.csv", dict.fromkeys(files, "train"))
    np.savez(folder / "head.npz", weight=a_head()[0] / 100, bias=np.array([9.0, 0, 0, 0, 0, 0], np.float32))
    assert "top-1 83.3% of 60 photos of 2 species, among its 6 classes (chance 83.3%)" in refusal(capsys, folder)


@pytest.mark.parametrize(
    ("arguments", "photos", "message"),
    [
        (["--ids", "x.csv"], False, "--ids: found a list and no --embeddings, expected both"),
        (["--head-name", "fc.weight"], True, "found no 'fc.weight' (bias, weight), expected it; correct --head-name"),
        (["--leave-out", "{folder}/classes.csv"], True, "found 6 classes, all of them left out or held out"),
        (["--leave-out", "{folder}/photos.csv"], True, "photos.csv: found file, split, expected a column 'name'"),
        (["--leave-out", "{folder}/none.txt"], True, "--leave-out: found 1 names and none in the class table (Nemo)"),
        (["--heldout", "6"], False, "heldout: found 6, expected fewer than the 6 species"),
    ],
)
def test_what_does_not_go_together_is_refused(folder, capsys, arguments, photos, message):
    (folder / "none.txt").write_text("Nemo\n")
    assert message in refusal(capsys, folder, *(text.format(folder=folder) for text in arguments), photos=photos)


def test_another_width_is_refused(folder, capsys):
    np.savez(folder / "head.npz", weight=np.eye(C, W + 1, dtype=np.float32))
    assert "head head.npz: found width 9, expected 8 as of the photos" in refusal(capsys, folder)


def test_options_of_a_head_need_one(folder, capsys):
    store = store_of(folder, photos=False).directory
    capsys.readouterr()
    for given, message in (
        ([], "--embeddings: found none"),
        (["--embeddings", "x.npy"], "--ids: found none"),
        (["--embeddings", "x.npy", "--ids", "y.csv", "--head-anyway"], "--head: found none"),
        (["--embeddings", str(store), "x.npy"], "and 1 more, expected one store or files alone"),
        (["--embeddings", str(store)], "--embeddings: found a store, expected --head and neither --ids nor"),
        (["--embeddings", str(folder)], "found no manifest.json of lit_jax store"),
        (["--embeddings", str(store), "--head", "x.npz"], "store: found rows of a classifier, expected photos alone"),
    ):
        with pytest.raises(SystemExit):
            main(["--classes", str(folder / "classes.csv"), "--out", str(folder / "o"), *given])
        assert message in capsys.readouterr().err


def test_photos_may_come_from_a_store(folder):
    """One of given embeddings: the same photos, the same rows, the tower's name kept; a head goes by its own table."""
    plain = folder / "plain"
    given = ["--embeddings", folder / "photos.npz", "--ids", folder / "photos.csv", "--classes", folder / "classes.csv"]
    views = np.stack([photos_of(a_head()[0]), photos_of(a_head()[0], seed=2)], axis=1)
    np.savez(folder / "photos.npz", emb=views, files=np.array(FILES))  # evaluation keeps the first view only
    main([str(argument) for argument in [*given, "--out", plain, "--vocab-size", 0, "--tower-name", "t"]])
    write_class_table(ClassTable(tuple(range(C)), {"name": NAMES[::-1]}), folder / "reversed.csv")
    weight, bias = a_head()
    np.savez(folder / "reversed.npz", weight=weight[::-1], bias=bias[::-1])
    named = ["--head", folder / "reversed.npz", "--classes", folder / "reversed.csv", "--embeddings", plain]
    main([str(argument) for argument in [*named, "--out", folder / "out", "--vocab-size", 0]])
    store = embedding_store.open_store(folder / "out")
    direct = store_of(folder, "--tower-name", "t", out="direct")
    for split in ("train", "validation"):
        ours, theirs = rows_of(store, split), rows_of(direct, split)
        for one, other in zip(ours, theirs, strict=True):
            assert one.keys() == other.keys()
            assert all(np.allclose(one[key], other[key], rtol=1e-3) for key in one)
    assert (store.tower["name"], store.tower["digest"]) == ("t", direct.tower["digest"])
    assert store.views == direct.views == {"train": 2, "validation": 1}


# -- training


def test_a_mixed_store_trains_is_evaluated_and_exported_as_any(folder, tmp_path, undrawn):
    (folder / "out.txt").write_text("Apus apus\nSitta europaea\n")
    store = store_of(folder, "--leave-out", folder / "out.txt", "--vocab-size", 300)
    assert (len(rows_of(store)[0]), store.examples("train"), store.examples("heldout")) == (4, 24, 20)
    path = folder / "config.py"
    path.write_text(f"""
from lit_jax.config import defaults

def get_config():
    config = defaults()
    config.input = "store"
    config.data.store = {str(store.directory)!r}
    config.image.tower, config.image.width = "given", {W}
    config.text.context, config.text.width, config.text.depth, config.text.heads = 24, 16, 1, 2
    config.model.embed_dim = 16
    config.train.devices, config.train.batch_size, config.train.epochs = 1, 16, 1.0
    return config
""")
    from lit_jax import config
    from lit_jax.main import train

    loaded, _ = config.load(path)
    results = train(loaded, tmp_path / "run")
    assert results["heldout"]["images"] == 20 and results["heldout"]["classes"] == 2
    assert np.isfinite(results["seen"]["top1"])
    from lit_jax import evaluate, export

    export.main([f"--checkpoint={tmp_path / 'run'}", f"--out={tmp_path / 'model'}"])
    evaluate.main([f"--checkpoint={tmp_path / 'run'}", "--split=heldout", "--step=latest"])
    assert {"model.safetensors", "README.md"} <= {path.name for path in (tmp_path / "model").iterdir()}
    found = json.loads((tmp_path / "run" / "evaluation-heldout.json").read_text())
    assert found["top1"] == results["heldout"]["top1"]


def test_the_command_loads_jax_for_a_head_only(folder):
    code = "import data_prep.embeddings, sys; print(*sorted(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"jax", "flax", "torch"}.isdisjoint(run.stdout.split())


# -- real birds


def test_a_real_head_names_real_photos(shared_data, tmp_path, capsys):
    birds, head = shared_data / "cub100", shared_data / "inat_birds_head"
    if not (head / "head.npz").is_file():
        pytest.skip("no classifier's head beside the project")
    with open(birds / "splits.csv", newline="") as file:
        test = {row["file"]: "test" for row in csv.DictReader(file) if row["split"] == "test"}
    table, _ = read_class_tables([head / "classes.csv", birds / "classes.csv"])
    use = HeadUse(read_head(str(head / "head.npz")), table.ids[:964], leave_out=read_left_out(birds / "classes.csv"))
    embeddings = read_embeddings([birds / "inat_mobilenetv2.npz"])
    listed = write_list(tmp_path / "test.csv", test)
    rows = rows_with_head(Given(embeddings, read_ids(listed), tmp_path), use, table, Options())
    printed = capsys.readouterr().out
    assert "top-1 87.8% of" in printed and "photos of 86 species, among its 964 classes" in printed
    of_head = [photo for photo in rows.photos if photo.image_id.startswith("head/")]
    assert (len(of_head), len(rows.photos) - len(of_head)) == (878, 2903)
    assert {photo.split for photo in of_head} == {"train"}

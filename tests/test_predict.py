"""Naming one's own photos: pixels, answers, probabilities, the climb, and the command."""

import csv
import dataclasses
import importlib
import io
import itertools
import json
import os
import pathlib
import shutil
import struct
import sys
import types
import unicodedata

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len

import lit_jax
from lit_jax import predict
from lit_jax.base import hosts
from lit_jax.base.files import incomplete
from lit_jax.data import images
from lit_jax.data.images import Pictures, View
from lit_jax.data.photo import BadPhoto, open_photo, upright_pixels
from lit_jax.data.resizing import square
from lit_jax.errors import UserError
from lit_jax.evaluation import ranking, report
from lit_jax.models.locking import LOGIT_SCALE
from lit_jax.prediction import output
from lit_jax.prediction.answers import NOT_SURE, Answer, Confidence, Named, ladder
from lit_jax.prediction.choices import candidates, only, own_classes, with_ranks, within
from lit_jax.prediction.formats import Heading, format_of
from lit_jax.prediction.found import find_photos, names_in
from lit_jax.prediction.model import Model
from lit_jax.prediction.sorting import sort_photo
from lit_jax.prediction.with_jax import WithJax
from lit_jax.text.candidates import read_candidates
from lit_jax.text.classes import ClassTable, read_class_table
from lit_jax.trained.exporting import export
from lit_jax.trained.loading import load, load_whole
from tests.test_images import jpeg, natural

HEIC = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(200)
VIDEO = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2mp41" + bytes(200)


# Pixels


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resize", ["short", "square"])
@pytest.mark.parametrize(("width", "height"), [(501, 375), (97, 61), (33, 640), (20, 31)])
def test_pixels_are_those_of_evaluation(rng, width, height, interpolation, resize):
    data = jpeg(natural(rng, width, height))
    for size, crop in ((64, 0.875), (61, 1.0)):
        pictures = Pictures(size, View(interpolation, resize, crop))
        got, want = square(upright_pixels(data), pictures), pictures.plain(data).numpy()
        difference = np.abs(got.astype(int) - want)
        assert got.shape == (size, size, 3) and difference.max() <= 1 and (difference > 0).mean() <= 1e-3


def test_a_decoded_jpeg_is_the_same_to_the_byte(rng):
    for picture in (natural(rng, 83, 61), natural(rng, 83, 61).convert("L")):
        data = jpeg(picture)
        wanted = images.tensorflow().io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE").numpy()
        np.testing.assert_array_equal(upright_pixels(data), wanted)
        np.testing.assert_array_equal(upright_pixels(data), open_photo(data).pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_photos_in_files_and_in_memory(rng, orientation, tmp_path):
    picture = natural(rng, 40, 24)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "a.png", exif=exif)
    pixels = np.asarray(picture)
    # By the EXIF standard: where the first row and the first column are.
    wanted = {1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.swapaxes(0, 1),
              6: np.rot90(pixels, -1), 7: np.rot90(pixels, 2).swapaxes(0, 1), 8: np.rot90(pixels)}[orientation]  # fmt: skip
    np.testing.assert_array_equal(upright_pixels(tmp_path / "a.png"), wanted)
    with Image.open(tmp_path / "a.png") as opened:
        np.testing.assert_array_equal(upright_pixels(opened), wanted)
    np.testing.assert_array_equal(upright_pixels(pixels), pixels)


def test_arrays_of_another_kind_are_refused(rng):
    for array in (np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(BadPhoto, match=r"^array .* not \[H, W, 3\] or \[H, W\] of uint8$"):
            upright_pixels(array)
    grey = rng.integers(0, 255, (4, 5), np.uint8)
    assert (upright_pixels(grey) == grey[..., None]).all()


# The model


@pytest.fixture(scope="module")
def model(finished):
    return lit_jax.load(finished[0])


@pytest.fixture(scope="module")
def photos(field_guide_folder):
    """Paths and species of the photos of each split, in the order of its list."""
    with open(field_guide_folder / "splits.csv") as file:
        rows = list(csv.DictReader(file))
    return {
        split: ([str(field_guide_folder / row["file"]) for row in own], [row["class"] for row in own])
        for split, own in itertools.groupby(sorted(rows, key=lambda row: row["split"]), lambda row: row["split"])
        for own in [list(own)]
    }


def evaluated(trained, records, split, monkeypatch):
    """Pairs of right and given species, sorted, of an evaluation among all classes of the records."""
    kept, original = [], ranking.predict

    def keep(*arguments, **options):
        kept.append(original(*arguments, **options))
        return kept[-1]

    table, _ = read_candidates(records.class_table, read_class_table(records.class_table))
    with monkeypatch.context() as patch:
        patch.setattr(ranking, "predict", keep)
        report.evaluate(trained, records, split, report.Words(table), batch_size=24)
    found = kept[0]
    return sorted((table.names[a], table.names[b]) for a, b in zip(found.labels, found.best[:, 0], strict=True))


@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_answers_are_those_of_the_evaluation_to_the_last_photo(model, finished, records, photos, margin, monkeypatch):
    trained = load(finished[0], with_image_tower=True)
    fitted = {"margin": margin, "factors": {"seen": 9.0}, "folds": 2, "species": [4, 4]} if margin else {}
    trained = dataclasses.replace(trained, about=dataclasses.replace(trained.about, margin=fitted))
    own = Model(WithJax(trained))
    for split in ("validation", "heldout"):
        paths, right = photos[split]
        answers = [named.answers[0].name for named in own.name(paths)]
        assert sorted(zip(right, answers, strict=True)) == evaluated(trained, records, split, monkeypatch)


def test_a_margin_moves_answers(model, photos):
    """So that the test above can fail: seen species give way to the others."""
    about = dataclasses.replace(model.about, margin={"margin": 5.0, "factors": {}})
    held = Model(WithJax(dataclasses.replace(model.engine.trained, about=about)))
    given = [{named.answers[0].in_training for named in one.name(photos["validation"][0])} for one in (model, held)]
    assert True in given[0] and given[1] == {False}


def test_features_are_those_of_the_tower_on_evaluations_pixels(model, photos):
    paths = photos["heldout"][0][:6]
    pixels = np.stack([model.engine.pictures.plain(open_photo(path).jpeg).numpy() for path in paths])
    by_tensorflow = np.stack(list(model.embed_photos(list(pixels))))
    rows = np.stack(list(model.embed_photos(paths)))
    assert rows.dtype == np.float32 and np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert (rows * by_tensorflow).sum(1).min() > 1 - 1e-4


def test_probabilities_are_the_softmax_at_the_scale_as_trained(model, photos):
    """The scale is stored as a logarithm, and must not be applied twice."""
    chosen = model.choices()
    rows = np.stack(list(model.embed_photos(photos["heldout"][0][:3]))).astype(np.float64)
    factor = np.exp(float(np.asarray(model.engine.trained.params[LOGIT_SCALE])))
    weights = np.exp(factor * rows @ chosen.vectors.T.astype(np.float64))
    wanted = np.sort(weights / weights.sum(1, keepdims=True), 1)[:, ::-1]
    got = [[answer.confidence for answer in named.answers] for named in model.name(photos["heldout"][0][:3], top=12)]
    np.testing.assert_allclose(got, wanted, rtol=1e-4)
    assert "not fitted" in model.name([]).note


def test_texts_are_embedded_as_classes_are(model):
    chosen = model.choices(["a red thing", "a blue thing"])
    (template,) = model.about.templates[:1]
    assert template.startswith("A photo of the")
    rows = model.embed_texts(["A photo of the a red thing", "the a red thing, a kind of", "x"])
    mean = rows[0] + rows[1]
    np.testing.assert_allclose(mean / np.linalg.norm(mean), chosen.vectors[0], atol=1e-5)
    assert model.embed_texts([]).shape == (0, rows.shape[1])
    with pytest.raises(UserError, match="found one text"):
        model.embed_texts("x")


def test_photos_come_in_many_forms_and_none_is_held(model, photos):
    paths = photos["heldout"][0][:3]
    wanted = [named.answers for named in model.name(paths)]
    pictures = [Image.open(path) for path in paths]
    arrays = [upright_pixels(path) for path in paths]
    for given in (pictures, arrays, (pathlib.Path(path).read_bytes() for path in paths)):
        got = list(model.name(given))
        assert [named.answers for named in got] == wanted
    assert [named.photo for named in got] == ["photo 1", "photo 2", "photo 3"]
    assert next(model.name(paths[0])).answers == next(model.name(arrays[0][None])).answers == wanted[0]
    for picture in pictures:
        picture.close()
    asked = itertools.count()
    endless = (arrays[next(asked) % 3] for _ in itertools.count())
    assert len(list(itertools.islice(model.name(endless, batch_size=8), 20))) == 20
    assert next(asked) < 80  # three batches, and what is read ahead


def test_a_list_shows_itself_in_a_notebook_and_becomes_a_frame(model, photos, tmp_path, monkeypatch):
    (tmp_path / "<b>.jpg").write_bytes(b"no photo")
    given = [*photos["heldout"][0][:2], str(tmp_path / "<b>.jpg")]
    naming = model.name(given, sure=0.01, top=2)
    page = naming._repr_html_()
    assert page.count("<tr>") == 4 and "&lt;b&gt;.jpg" in page and "not fitted" in page
    found = naming.all()
    assert [named.photo for named in found] == given and found._repr_html_() == page
    assert found[2].answer is None and str(found[2]).endswith("not JPEG, PNG, GIF, WebP, AVIF, HEIC, BMP or TIFF")
    pandas = types.SimpleNamespace(DataFrame=lambda rows, columns: (rows, columns))
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    rows, columns = found.frame()
    assert [row["answer"] for row in rows] == ["sure", 1, 2, "sure", 1, 2, ""] and set(columns) == set(rows[0])


def test_the_field_notebook_runs_and_maps_every_photo(model, field_guide_folder, tmp_path, monkeypatch, capsys):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    path = pathlib.Path(__file__).parents[1] / "docs" / "field_notebook.ipynb"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "demo_photos").symlink_to(field_guide_folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lit_jax, "load", lambda _: model)
    monkeypatch.setattr(plt, "show", lambda: None)
    names = {}
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"]
            exec("".join(cell["source"]), names)
    plt.close("all")
    counts, seen = names["counts"], dict(zip(names["choices"].table.names, names["choices"].seen, strict=True))
    wanted = {name: 3 if had else 7 for name, had in seen.items()}
    assert {name: counts[place].sum() for name, place in names["place"].items()} == wanted
    assert np.trace(counts) == sum(one.answer.name == names["checked"][one.photo] for one in names["named"])
    assert "species without: " in capsys.readouterr().out and path.stat().st_size < 200_000


def test_importing_the_package_is_light():
    from tests.test_contracts import loaded_by

    assert not {"jax", "numpy", "tensorflow", "PIL"} & loaded_by("import lit_jax; lit_jax.load")


def hub_of(folder, to):
    """A hub that fetches the files of a folder as far as they are asked for."""

    def snapshot_download(name, *, revision, allow_patterns):
        to.mkdir(exist_ok=True)
        for path in folder.iterdir():
            if any(path.match(pattern) for pattern in allow_patterns):
                shutil.copy(path, to)
        return str(to)

    return types.SimpleNamespace(snapshot_download=snapshot_download)


def test_an_exported_folder_names_alike_and_is_refused_when_cut_short(finished, model, photos, tmp_path, monkeypatch):
    export(load_whole(finished[0]), tmp_path / "folder")
    paths = photos["validation"][0][:4]
    wanted = [one.answers for one in model.name(paths)]
    assert [one.answers for one in lit_jax.load(tmp_path / "folder").name(paths)] == wanted
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub_of(tmp_path / "folder", tmp_path / "cache"))
    assert [one.answers for one in lit_jax.load("hf-hub:me/mine").name(paths)] == wanted
    raw = (tmp_path / "folder" / "model.safetensors").read_bytes()
    (tmp_path / "folder" / "model.safetensors").write_bytes(raw[:-100])
    with pytest.raises(UserError, match="model.safetensors: found another content"):
        lit_jax.load(tmp_path / "folder")
    with pytest.raises(UserError, match="found no folder"):
        lit_jax.load(tmp_path / "nowhere")


# Probabilities and the climb


def climbed(probabilities, table, sure):
    """The narrowest rank at which one group has enough, by loops over paths."""
    columns = [c for c in ("kingdom", "order", "genus") if c in table.columns]
    rows = [[*(row[c] for c in columns), row["name"]] for row in table.rows()]
    best = 0.0
    for depth in range(len(columns) + 1, 0, -1):
        sums = {}
        for path, p in zip(rows, probabilities, strict=True):
            if path[depth - 1]:
                sums[tuple(path[:depth])] = sums.get(tuple(path[:depth]), 0.0) + p
        path, best = max(sums.items(), key=lambda pair: pair[1])
        if best >= sure:
            return ([*columns, "species"][depth - 1], path[-1], best)
    return "", NOT_SURE, best


@pytest.mark.parametrize("sure", [0.3, 0.6, 0.8, 0.95, 1.0])
def test_the_climb_is_that_of_a_loop_over_all_groups(rng, sure):
    # One genus of two kingdoms, and a species of which no order is known.
    table = ClassTable(
        tuple(range(8)),
        {
            "name": tuple(f"Genus{i // 2} epithet{i}" for i in range(8)),
            "kingdom": ("A",) * 5 + ("B",) * 3, "order": ("x", "x", "x", "y", "y", "z", "", "z"),
            "genus": ("I", "I", "II", "II", "III", "I", "IV", "IV"),
        },
    )  # fmt: skip
    steps = ladder(table, np.arange(8) < 4)
    assert list(steps.rungs) == ["species", "genus", "order", "kingdom"]
    likely = rng.dirichlet(np.full(8, 0.3), 200)
    found = steps.climb(likely, "species", sure)
    kinds = set()
    for answer, row in zip(found, likely, strict=True):
        rank, name, value = climbed(row, table, sure)
        assert (answer.rank, answer.name) == (rank, name) and answer.confidence == pytest.approx(value)
        kinds.add(rank)
    assert len(kinds) > 1 or sure == 1.0
    assert {one.rank for one in steps.climb(likely, "order", sure)} <= {"order", "kingdom", ""}
    (genus,) = [one for one in steps.top(likely[:1], "genus", 9)[0] if one.name == "III"]
    assert genus.ranks == {"kingdom": "A", "order": "y"} and not genus.in_training
    assert sum(one.confidence for one in steps.top(likely[:1], "genus", 9)[0]) == pytest.approx(1)
    in_training = {(one.ranks.get("order"), one.name): one.in_training for one in steps.top(likely[:1], "genus", 9)[0]}
    assert in_training["x", "I"] and in_training["y", "II"] and not in_training["z", "I"]


def test_what_is_as_likely_as_was_asked_for_is_sure_and_a_group_is_in_training_if_one_of_it_is():
    table = ClassTable(
        (0, 1, 2), {"name": ("Pica pica", "Pica nuttalli", "Corvus corax"), "genus": ("Pica", "Pica", "Corvus")}
    )
    steps = ladder(table, np.array([False, True, False]))
    for likely, sure, wanted in (
        ([1.0, 0.0, 0.0], 1.0, ("species", "Pica pica", False)),
        ([0.5, 0.25, 0.25], 0.5, ("species", "Pica pica", False)),
        ([0.5, 0.25, 0.25], 0.75, ("genus", "Pica", True)),
        ([0.25, 0.25, 0.5], 0.75, ("", NOT_SURE, False)),
    ):
        (answer,) = steps.climb(np.array([likely]), "species", sure)
        assert (answer.rank, answer.name, answer.in_training) == wanted


def test_probabilities_take_the_factor_of_the_kind_that_comes_first(rng):
    scores, seen = rng.normal(size=(50, 6)).astype(np.float32), np.arange(6) < 3
    found = Confidence(10.0, {"seen": 3.0, "unseen": 0.5}, "").probabilities(scores, seen)
    for row, got in zip(scores, found, strict=True):
        weights = [np.exp((3.0 if max(row) in row[:3] else 0.5) * float(value)) for value in row]
        np.testing.assert_allclose(got, np.array(weights) / sum(weights), rtol=1e-6)
    half = Confidence(10.0, {"seen": 3.0}, "").probabilities(scores, np.zeros(6, bool))
    np.testing.assert_allclose(half[0], np.exp(10.0 * scores[0]) / np.exp(10.0 * scores[0]).sum(), rtol=1e-5)


# What to choose from


def test_classes_within_a_group(model):
    table = own_classes(model.about)
    order = table.columns["order"][0]
    names = [name for name, own in zip(table.names, table.columns["order"], strict=True) if own == order]
    assert list(model.choices(within={"order": order.upper()}).table.names) == names
    for wanted, told in (({"ordr": "x"}, "within: found column 'ordr', expected one of"),
                         ({"order": order[:-1]}, rf"within order: found .* the nearest is {order}"),
                         ({"order": order, "name": table.names[-1]}, "found no class that has all of")):  # fmt: skip
        with pytest.raises(UserError, match=told):
            within(table, wanted)


def test_a_regions_list_tells_what_it_does_not_know_and_stops_nothing(model, tmp_path):
    table = own_classes(model.about)
    first, second, third = table.names[:3]
    text = f"{first.upper()}\n{first} Linnaeus, 1758\n{table.columns['common_name'][1]}\n{third[:-1]}x\nDraco volans\n"
    (tmp_path / "list.txt").write_text(text)
    found = only(table, tmp_path / "list.txt")
    assert found.table.names == (first, second)
    (note,) = found.notes
    assert f"2 of its 5 names are no class to choose from: {third[:-1]}x (nearest: {third}), Draco volans" in note
    assert model.choices(only=tmp_path / "list.txt").table.names == (first, second)
    (tmp_path / "none.txt").write_text("Draco volans\n")
    with pytest.raises(UserError, match="found none of its 1 names among the classes"):
        only(table, tmp_path / "none.txt")
    (tmp_path / "none.txt").write_text(f"{first[:-1]}\n{second[:-2]}\n")
    with pytest.raises(UserError, match=rf"nearest are {first} \(for {first[:-1]}\), {second} \(for"):
        only(table, tmp_path / "none.txt")


def test_labels_are_classes_of_the_model_or_bare_words(model):
    table = own_classes(model.about)
    common = table.columns["common_name"][3]
    chosen = model.choices([common.lower(), "a hat", " A  hat", "シジュウカラ"])
    assert chosen.table.names == (table.names[3], "a hat", "シジュウカラ")
    assert chosen.table.row(0)["order"] == table.columns["order"][3] and list(chosen.seen[1:]) == [False, False]
    repeated, bare, own, script = chosen.notes
    assert bare in model.name([], chosen).note
    assert repeated == "labels: 1 given more than once"
    assert bare == "labels: no classes of the model, asked by their bare words: a hat, シジュウカラ"
    assert own.startswith("2 of the 3 classes to choose from are none of the model's own: it was not fitted how sure")
    assert not any("none of the model's own" in note for note in model.choices([common]).notes)
    assert script.startswith("シジュウカラ is written in letters that the model has not read")
    with pytest.raises(UserError, match="labels: found none"):
        model.choices(["", " "])


def test_labels_that_are_no_classes_of_the_model_have_ids_of_their_own():
    own = ClassTable((1, 2, 3), {"name": ("Pica pica", "Corvus corax", "Parus major")})
    found = candidates(own, ["a hat", "Corvus corax", "a shoe"]).table
    ids = dict(zip(found.names, found.ids, strict=True))
    assert ids["Corvus corax"] == 2 and len(ids) == 3 and not {ids["a hat"], ids["a shoe"]} & {1, 2, 3}


def test_answers_among_others_than_the_models_classes_say_that_their_confidence_was_not_fitted(
    model, photos, command, monkeypatch
):
    fitted = {"margin": 0.0, "factors": {"seen": 9.0}, "folds": 2, "species": [4, 4]}
    about = dataclasses.replace(model.about, margin=fitted)
    monkeypatch.setattr(model.engine, "about", about)
    own = own_classes(about).names[0]
    heads = [
        command(photos["heldout"][0][0], "--labels", labels)[0].splitlines()[0] for labels in (own, f"{own},a hat")
    ]
    assert all("was fitted on training photos" in head for head in heads)
    assert ["1 of the 2 classes to choose from is none of the model's own" in head for head in heads] == [False, True]


def test_a_class_table_with_repeats_is_told_and_its_ranks_are_the_models(model, tmp_path):
    table = own_classes(model.about)
    name = table.names[2]
    (tmp_path / "c.csv").write_text(f"name\n{name}\n{name}\nDraco volans\n")
    chosen = model.choices(tmp_path / "c.csv")
    assert chosen.table.names == (name, "Draco volans")
    assert chosen.table.columns["genus"] == (table.columns["genus"][2], "")
    assert any("several rows of one name count as one species" in note for note in chosen.notes)


# Files


def test_what_a_list_says_of_a_class_counts_and_the_model_fills_its_gaps(model, tmp_path):
    own = own_classes(model.about)
    name, genus = own.names[2], own.columns["genus"][2]
    (tmp_path / "c.csv").write_text(f"name,genus,family,habitat\n{name},Novogenus,,rivers\n")
    (table, _), row = read_candidates(tmp_path / "c.csv", own), own.row(2)
    (filled,) = with_ranks(table, own).rows()
    assert (filled["genus"], filled["family"], filled["habitat"]) == ("Novogenus", row["family"], "rivers") and genus
    assert filled["order"] == row["order"] and filled["common_name"] == row["common_name"]
    # Prompts hold what the list says and no more.
    (tmp_path / "c.csv").write_text(f"name\n{name}\n")
    chosen = model.choices(tmp_path / "c.csv")
    rows = model.embed_texts([f"A photo of the {name}", f"the {name}, a kind of"])
    np.testing.assert_allclose(rows.sum(0) / np.linalg.norm(rows.sum(0)), chosen.vectors[0], atol=1e-5)
    assert chosen.table.row(0)["order"] == row["order"]


def test_the_key_of_a_model_changes_with_each_of_its_towers(model):
    trained = model.engine.trained
    kernel = trained.params["projection"]["kernel"]
    moved = {**trained.params, "projection": {**trained.params["projection"], "kernel": kernel + 1}}
    others = [
        dataclasses.replace(trained, about=dataclasses.replace(trained.about, locked={"image": "0" * 64})),
        dataclasses.replace(trained, params=moved),
    ]
    assert len({model.engine.key, *(WithJax(other).key for other in others)}) == 3


def test_answers_by_another_margin_are_not_gone_on_with(model, photos, command, monkeypatch, tmp_path):
    given = (photos["heldout"][0][0], "--format", "csv", "--out", tmp_path / "out.csv")
    for margin, code in ((0.1, 0), (0.1, 0), (0.2, 2)):
        about = dataclasses.replace(model.about, margin={"margin": margin, "factors": {}})
        monkeypatch.setattr(model.engine, "about", about)
        _, err, found = command(*given)
        assert found == code and ("of another command, model or list of photos" in err) == (code == 2)
        if not code:
            for name in ("out.csv", "out.csv.run.json"):
                (tmp_path / name).rename(tmp_path / f"{name}.incomplete")


def test_photos_are_found_by_files_folders_patterns_and_lists(tmp_path):
    for name in ("b/2.JPG", "a.jpg", "b/c/1.png", "b/notes.txt", "b/.hidden.jpg", ".git/x.jpg", "film.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    folder = str(tmp_path)
    found = find_photos([folder])
    assert [os.path.relpath(path, folder) for path in found.photos] == ["a.jpg", "b/2.JPG", "b/c/1.png"]
    assert found.notes == [f"{folder}: left out 2 files that are not called like photos: 1 .mp4, 1 .txt"]
    assert find_photos([f"{folder}/**/*.png", f"{folder}/b/c/1.png"]).photos == [f"{folder}/b/c/1.png"]
    listed = io.StringIO(f"{folder}/film.mp4\n\n{folder}/nowhere.jpg\n")
    assert find_photos(["-"], listed).photos == [f"{folder}/film.mp4", f"{folder}/nowhere.jpg"]
    (tmp_path / "empty").mkdir()
    assert find_photos([f"{folder}/gone.jpg"]).photos == [f"{folder}/gone.jpg"]
    with pytest.raises(UserError, match=r"^photos: found no file or folder .*/emty/, expected one, such as .*/empty; "):
        find_photos([f"{folder}/a.jpg", f"{folder}/emty/"])
    with pytest.raises(UserError, match="^photos: found no file or folder , expected one"):
        find_photos([""])
    for given in (f"{folder}/empty", f"{folder}/*.tif"):
        with pytest.raises(UserError, match="^photos: found none in .* expected at least one; check the paths$"):
            find_photos([given])


@pytest.fixture
def command(model, monkeypatch, capsys):
    """Runs the command with the model in memory; gives what it prints, and its exit code."""
    monkeypatch.setattr(predict, "load", lambda *_, **__: model)
    monkeypatch.setattr(hosts, "keep_compiled", lambda: None)

    def run(*arguments):
        code = 0
        try:
            predict.main(["--checkpoint=x", *map(str, arguments)])
        except SystemExit as stop:
            code = stop.code
        printed = capsys.readouterr()
        return printed.out, printed.err, code

    return run


@pytest.fixture
def messy(photos, tmp_path):
    """A folder of two good photos, an animation, and every kind of file that is none."""
    folder = tmp_path / "messy"
    folder.mkdir()
    good = photos["heldout"][0]
    shutil.copy(good[0], folder / "a.jpg")
    frames = [Image.new("RGB", (30, 20), color) for color in ("red", "blue")]
    frames[0].save(folder / "b.gif", save_all=True, append_images=frames[1:])
    (folder / "c.jpg").write_bytes(pathlib.Path(good[1]).read_bytes()[:-300])
    (folder / "d.jpg").write_bytes(VIDEO)
    (folder / "e.heic").write_bytes(HEIC)
    (folder / "f.jpg").write_bytes(b"")
    (folder / "g.jpg").symlink_to(tmp_path / "gone.jpg")
    (folder / "h.bmp").write_bytes(
        b"BM" + struct.pack("<IIIIiiHHIIiiII", 0, 0, 54, 40, 20_000, 5_001, 1, 24, 0, 0, 0, 0, 0, 0)
    )
    shutil.copy(good[2], folder / "i.jpg")
    return folder


def test_broken_photos_are_rows_and_the_rest_is_answered(command, messy, monkeypatch):
    monkeypatch.setattr("lit_jax.data.photo.can_read", lambda kind: kind != "HEIF")
    out, err, code = command(messy, "--format", "csv", "--top", 1)
    assert code == 0 and "note: lit_jax " in err and "confidence was not fitted" in err
    rows = {os.path.basename(row["photo"]): row for row in csv.DictReader(out.splitlines())}
    assert {name: row["error"] for name, row in rows.items() if row["error"]} == {
        "c.jpg": "truncated", "d.jpg": "not JPEG, PNG, GIF, WebP, AVIF, HEIC, BMP or TIFF",
        "e.heic": "HEIC, which needs pillow-heif: pip install pillow-heif, or save them as JPEG", "f.jpg": "empty file",
        "g.jpg": "no such file or directory", "h.bmp": "too many pixels",
    }  # fmt: skip
    assert [name for name, row in rows.items() if row["name"]] == ["a.jpg", "b.gif", "i.jpg"]
    assert all(row["confidence"] and row["genus"] and row["rank"] == "species" for row in rows.values() if row["name"])
    _, line = err.splitlines()
    assert line.startswith("named 3 photos: 3 to species; 6 could not be read: ") and "1 truncated" in line


def test_only_if_no_photo_can_be_answered_the_command_fails(command, messy):
    out, err, code = command(messy / "f.jpg", messy / "d.jpg")
    assert code == 2 and err.splitlines()[-1].startswith("error: photos: found none of 2 that can be read")
    assert out.count("\n") == 4
    for arguments, told in (
        ((messy, "--within", "order"), "--within: found 'order', expected COLUMN=VALUE"),
        ((messy, "--labels", "a", "--classes", "b"), "--labels: found it beside --classes"),
        ((messy, "--link"), "--link: found it without --sort-into"),
        ((messy, "--sure", "80"), "sure: found 80.0, expected a share"),
        ((messy, "--rank", "tribe"), "rank: found 'tribe', expected one of species, genus"),
        ((messy, "--out", messy / "no" / "x.csv"), "--out: found no folder"),
        ((messy, "--out", messy / "a.jpg"), "found it there already"),
        ((messy, "--out", messy / "x.xls"), "found ending .xls, expected one of .csv"),
        ((messy, "--format", "parquet"), "--format parquet: found no --out"),
        ((messy, "--batch-size", 0), "batch_size: found 0"),
    ):
        out, err, code = command(*arguments)
        assert (code, out) == (2, "") and told in err.splitlines()[-1], err


def test_formats_say_the_same(command, photos, tmp_path):
    paths = photos["heldout"][0][:5]
    texts = {form: command(*paths, "--sure", "0.2", "--top", 2, "--format", form)[0] for form in predict.FORMATS[:4]}
    rows = list(csv.DictReader(texts["csv"].splitlines()))
    head, *records = map(json.loads, texts["jsonl"].splitlines())
    assert "not fitted" in head["confidence"] and len(records) == 5 and len(rows) == 15
    for record, first in zip(records, rows[::3], strict=True):
        assert record["photo"] == first["photo"] and first["answer"] == "sure"
        assert record["sure"]["name"] == first["name"] and str(record["sure"]["confidence"]) == first["confidence"]
        assert [one["rank"] for one in record["answers"]] == ["species", "species"]
    darwin = list(csv.DictReader(texts["dwc"].splitlines()))
    for term, row in zip(darwin, rows[::3], strict=True):
        assert term["associatedMedia"] == row["photo"] and term["identificationVerificationStatus"] == "unverified"
        assert (term["scientificName"] or NOT_SURE, term["taxonRank"]) == (row["name"], row["rank"])
        assert term["genus"] == row["genus"] and f"confidence {row['confidence']}" in term["identificationRemarks"]
        assert term["specificEpithet"] == (row["name"].split()[1] if row["rank"] == "species" else "")
    assert all(row["name"] in texts["table"] for row in rows)
    pyarrow = pytest.importorskip("pyarrow.parquet")
    command(*paths, "--sure", "0.2", "--top", 2, "--out", tmp_path / "x.parquet")
    table = pyarrow.read_table(tmp_path / "x.parquet")
    assert (
        table["name"].to_pylist() == [row["name"] for row in rows]
        and b"not fitted" in table.schema.metadata[b"lit_jax"]
    )


EPITHETS = [
    ("Pica pica", "Pica", "pica"),
    ("Rosa × alba", "Rosa", "alba"),
    ("Rosa ×alba", "Rosa", "alba"),
    ("Isoetes x novae-angliae", "Isoetes", "novae-angliae"),
    ("Parus cf. major", "Parus", "major"),
    ("Parus (Parus) major L.", "Parus", "major"),
    ("Parus major minor", "Parus", "major"),
    ("Parus sp. 2", "Parus", ""),
    ("Anas acuta × A. crecca", "Anas", ""),
    ("Great Tit", "Parus", ""),
    ("Parus", "Parus", ""),
    ("", "", ""),
]


@pytest.mark.parametrize(("name", "genus", "epithet"), EPITHETS)
def test_the_epithet_of_darwin_core_is_that_of_the_species(name, genus, epithet):
    form = format_of("dwc", Heading("m", 1, 2, "note", "key"))
    text = form.text(Named("a.jpg", (Answer("species", name, "", {"genus": genus}, 0.5, True),)))
    (row,) = csv.DictReader(io.StringIO(form.head + text))
    assert (row["scientificName"], row["genus"], row["specificEpithet"]) == (name, genus, epithet)


def test_columns_of_a_table_stand_below_each_other_in_any_script():
    heading = Heading("m", 1, 2, "note", "key")
    long = "Aves (" + "a very long common name " * 3 + ")"
    form = format_of("table", heading, photos=["写真/シジュウカラ.jpg", "b.jpg"], names=["シジュウカラ", long])
    answers = [Answer("species", name, common, {}, share, True)
               for name, common, share in (("シジュウカラ", "", 0.29), ("Aves", long[6:-1], 0.004))]  # fmt: skip
    head, *lines = [form.head.splitlines()[1], *form.text(Named("写真/シジュウカラ.jpg", (*answers,))).splitlines()]
    ends = [cell_len(line.partition(word)[0]) for line in lines for word in ("species",)]
    assert set(ends) == {cell_len(head.partition("rank")[0])} and "29 %" in lines[0] and "<1 %" in lines[1]
    (cut,) = format_of("table", heading, photos=["写" * 50, "b"]).text(Named("写" * 50, answers[:1])).splitlines()
    assert cell_len(cut.partition(" ")[0]) in (59, 60) and cut.startswith("…写")


def test_parquet_without_its_library_is_one_line(command, photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    _, err, code = command(*photos["heldout"][0][:1], "--out", "x.parquet")
    assert code == 2 and err.startswith("error: --format parquet: found no pyarrow") and err.count("\n") == 1


@pytest.mark.parametrize("form", ["csv", "jsonl", "dwc"])
def test_an_interrupted_file_becomes_what_an_unbroken_one_is(command, photos, tmp_path, form):
    paths = [*photos["heldout"][0][:26], str(tmp_path / "odd, \"name\".jpg"), *photos["validation"][0][:3]]  # fmt: skip
    options = (*paths, "--top", 2, "--batch-size", 8, "--format", form)
    command(*options, "--out", tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    kept, begun = tmp_path / "whole.run.json", tmp_path / "again.run.json.incomplete"
    head = whole.index(b"\n") + 1
    assert whole.startswith({"csv": b"photo,", "dwc": b"associatedMedia,", "jsonl": b"{"}[form])
    assert kept.exists() == (form != "jsonl")
    for cut in (0, 30, head - 3, head, head + 10, len(whole) // 2, len(whole) * 2 // 3 + 7, len(whole) - 1, len(whole)):
        (tmp_path / "again.incomplete").write_bytes(whole[:cut])
        if kept.exists():
            begun.write_bytes(kept.read_bytes())
        _, err, code = command(*options, "--out", tmp_path / "again")
        assert code == 0 and (tmp_path / "again").read_bytes() == whole and not (tmp_path / "again.incomplete").exists()
        assert ("were named before" in err) == (cut > len(whole) // 2 - 1)
        (tmp_path / "again").unlink()
        if kept.exists():
            assert (tmp_path / "again.run.json").read_bytes() == kept.read_bytes() and not begun.exists()
    (tmp_path / "again.incomplete").write_bytes(whole)
    _, err, code = command(
        *options[:-4], "--batch-size", 8, "--format", form, "--rank", "genus", "--out", tmp_path / "again"
    )
    assert code == 2 and "of another command, model or list of photos" in err


@pytest.mark.parametrize(
    "encoded",
    [
        "{0}\n{1}\n",
        "\ufeff{0}\r\n{1}\r\n",
        "{0}\0{1}\0",
        "{0}\0{1}",
    ],
)
def test_lists_of_photos_come_as_other_programs_write_them(tmp_path, encoded):
    names = [os.fsdecode(bytes(tmp_path / "a\u2028 é.jpg")), os.fsdecode(bytes(tmp_path) + b"/b\xff.jpg")]
    for name in names:
        pathlib.Path(name).touch()
    raw = encoded.format(*names).encode("utf-8", "surrogateescape")
    stream = io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8")
    assert find_photos(["-"], names_in(stream)).photos == names


@pytest.mark.parametrize(("asked", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_and_backslashes_of_another_system_are_seen_through(tmp_path, asked, stored):
    folder = tmp_path / unicodedata.normalize(stored, "Épervier")
    folder.mkdir()
    photo = folder / unicodedata.normalize(stored, "mésange.jpg")
    photo.touch()
    as_asked = unicodedata.normalize(asked, str(photo))
    assert as_asked != str(photo)
    for given in (
        as_asked,
        os.path.dirname(as_asked),
        f"{tmp_path}\\{folder.name}",
        f"{os.path.dirname(as_asked)}/*.jpg",
    ):
        assert find_photos([given]).photos == [str(photo)], given
    listed = [as_asked, f"{tmp_path}\\{folder.name}\\{photo.name}\n"]
    assert find_photos(["-"], listed).photos == [str(photo)]


@pytest.mark.parametrize("form", ["csv", "jsonl", "dwc", "table", "parquet"])
def test_a_name_that_is_no_utf8_is_spelt_out_in_every_output(command, photos, tmp_path, form):
    named = [os.fsdecode(bytes(tmp_path) + name) for name in (b"/a\xff.jpg", "/bé.jpg".encode(), b"/c\xe9.jpg")]
    named += [f"{tmp_path}/{number}.jpg" for number in range(6)]
    for source, name in zip(photos["heldout"][0], named, strict=False):
        shutil.copy(source, name)
    options = (*named, "--top", 1, "--batch-size", 8, "--format", form)
    _, err, code = command(*options, "--out", tmp_path / "out")
    assert code == 0 and "named 9 photos" in err
    if form == "parquet":
        text = "\n".join(importlib.import_module("pyarrow.parquet").read_table(tmp_path / "out")["photo"].to_pylist())
    else:
        text = (tmp_path / "out").read_text(encoding="utf-8").replace("\\\\", "\\")  # of JSON
    assert all(name in text for name in (r"/a\xff.jpg", "/bé.jpg", r"/c\xe9.jpg"))
    if form in ("csv", "jsonl"):  # and is gone on with
        whole = (tmp_path / "out").read_text()
        (tmp_path / "out").rename(tmp_path / "out.incomplete")
        if form == "csv":
            (tmp_path / "out.run.json").rename(tmp_path / "out.run.json.incomplete")
        _, err, code = command(*options, "--out", tmp_path / "out")
        assert code == 0 and "8 were named before" in err and (tmp_path / "out").read_text() == whole
    if form == "csv":
        out, _, code = command(*options)
        assert code == 0 and r"/a\xff.jpg" in out


@pytest.mark.parametrize("form", ["csv", "jsonl", "dwc"])
def test_of_a_file_cut_anywhere_whole_batches_of_whole_photos_are_kept(tmp_path, form):
    photos = ["a\u2028b\x0b.jpg", 'odd, "name".jpg', "c.jpg", "d.jpg", "e.jpg"]
    answers = tuple(Answer("species", name, "", {}, 0.4, True) for name in ("Pica pica", "Corvus corax"))
    named = [Named(photo, answers) if photo != "c.jpg" else Named(photo, error="no photo") for photo in photos]
    way, path = format_of(form, Heading("m", 1, 2, "note", "key")), tmp_path / "out"
    texts = list(map(way.text, named))
    whole, kept = way.head + "".join(texts), set()
    if way.beside:
        incomplete(output.beside(path)).write_text(way.beside)
    for cut in range(len(way.head), len(whole) + 1):
        incomplete(path).write_text(whole[:cut], newline="")
        done = output.done_before(path, way, photos, 2)
        assert done % 2 == 0 and len(way.head + "".join(texts[:done])) <= cut
        if done:
            assert incomplete(path).read_bytes().decode() == way.head + "".join(texts[:done])
        kept.add(done)
    assert kept == {0, 2, 4}
    incomplete(path).write_text(whole, newline="")
    assert output.done_before(path, way, ["b.jpg", *photos[1:]], 2) == 0
    if way.beside:  # which is damaged
        incomplete(path).write_text(whole, newline="")
        incomplete(output.beside(path)).write_bytes(b"\xff" + way.beside.encode()[1:])
        with pytest.raises(UserError, match="of another command, model or list of photos"):
            output.done_before(path, way, photos, 2)


@pytest.mark.parametrize("form", ["csv", "dwc"])
def test_a_table_begins_with_its_columns_and_one_that_an_earlier_version_began_is_gone_on_with(
    command, photos, tmp_path, form
):
    options = (*photos["heldout"][0][:20], "--top", 1, "--batch-size", 8, "--format", form)
    command(*options, "--out", tmp_path / "whole.csv")
    whole, said = (tmp_path / "whole.csv").read_text(), json.loads((tmp_path / "whole.csv.run.json").read_text())
    assert set(said) == {"lit_jax", "model", "step", "classes", "confidence", "key"} and said["classes"] > 1
    first = (
        f"# lit_jax {said['lit_jax']}, model {said['model']}, step {said['step']}, {said['classes']} classes; "
        f"{said['confidence']}; key {said['key']}\n"
    )
    (tmp_path / "old.csv.incomplete").write_text(first + whole[: len(whole) * 3 // 4])
    _, err, code = command(*options, "--out", tmp_path / "old.csv")
    assert code == 0 and "8 were named before" in err and (tmp_path / "old.csv").read_text() == whole
    assert json.loads((tmp_path / "old.csv.run.json").read_text()) == said
    for text in (first.replace(said["key"], "0" * 12) + whole, whole):  # of another command; nobody knows of which
        (tmp_path / "other.csv.incomplete").write_text(text)
        _, err, code = command(*options, "--out", tmp_path / "other.csv")
        assert code == 2 and "of another command, model or list of photos" in err


def test_photos_are_sorted_by_answer_and_nothing_is_overwritten(command, messy, photos, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(photos["heldout"][0][0], other / "a.jpg")
    os.utime(other / "a.jpg", (1, 1))  # the same picture, copied anew
    (other / "f.jpg").write_bytes(b"another file of the same name")
    into = tmp_path / "sorted"
    for _ in range(2):  # again: nothing is there twice
        out, err, _ = command(messy, other, "--format", "csv", "--top", 1, "--sort-into", into)
        assert "1 were gone before they could be sorted" in err
        found = sorted(str(path.relative_to(into)) for path in into.rglob("*.*") if path.parent != into)
        rows = {row["photo"]: row["name"] for row in csv.DictReader(out.splitlines())}
        name = rows[str(messy / "a.jpg")]
        assert {f"{name}/a.jpg", "unreadable/f-2.jpg", f"{rows[str(messy / 'i.jpg')]}/i.jpg"} <= set(found)
        assert len(found) == 9 and sum(path.startswith("unreadable/") for path in found) == 6
    assert (into / name / "a.jpg").read_bytes() == (messy / "a.jpg").read_bytes()
    for _ in range(2):  # into the folder that is looked through
        command(messy, "--sure", "1", "--sort-into", messy / "links", "--link", "--format", "csv")
        assert len([path for path in (messy / "links").rglob("*") if path.is_symlink()]) == 8
    assert (messy / "links" / NOT_SURE / "a.jpg").resolve() == messy / "a.jpg"


def test_photos_of_one_name_size_and_time_are_sorted_by_their_content(tmp_path):
    for folder, content in (("one", b"first photo"), ("two", b"other photo"), ("three", b"first photo")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "IMG_1.jpg").write_bytes(content)
        os.utime(tmp_path / folder / "IMG_1.jpg", (1, 1))
        assert sort_photo(Named(str(tmp_path / folder / "IMG_1.jpg"), error="x"), tmp_path / "into", link=False)
    found = {path.name: path.read_bytes() for path in (tmp_path / "into" / "unreadable").iterdir()}
    assert found == {"IMG_1.jpg": b"first photo", "IMG_1-2.jpg": b"other photo"}


def test_photos_that_cannot_be_embedded_are_rows_of_nothing(model, messy):
    with pytest.warns(UserWarning, match="f.jpg: empty file"):
        rows = list(model.embed_photos([messy / "a.jpg", messy / "f.jpg", messy / "i.jpg"]))
    assert [bool(np.isnan(row).any()) for row in rows] == [False, True, False]


def test_models_without_an_image_tower_are_refused(model):
    trained = dataclasses.replace(
        model.engine.trained, model=dataclasses.replace(model.engine.trained.model, image=None)
    )
    with pytest.raises(UserError, match="found a model of embeddings computed elsewhere"):
        WithJax(trained, title="x")


def test_rows_of_a_class_list_without_a_name_are_left_out_and_a_common_name_serves(tmp_path):
    from lit_jax.prediction import choices

    path = tmp_path / "list.csv"
    path.write_text("name,common_name,order\nParus major,Great Tit,Passeriformes\n,Blue Tit,Passeriformes\n,,Pisces\n")
    found = choices.candidates(None, path)
    assert found.table.columns["name"] == ("Parus major", "Blue Tit")
    assert any("left out 1 row without a name" in note for note in found.notes)
    path.write_text("name,order\n,Pisces\n")
    with pytest.raises(UserError, match="no row with a name"):
        choices.candidates(None, path)


@pytest.mark.parametrize(("arguments", "match"), [
    (["--sure", "0"], "sure: found 0.0, expected a share above 0"),
    (["--labels", " ,"], "--labels: found none, expected at least one"),
    (["--top", "0"], "--top"),
])  # fmt: skip
def test_values_of_nothing_are_refused(finished, photos, arguments, match, capsys):
    with pytest.raises(SystemExit) as stopped:
        predict.main([f"--checkpoint={finished[0]}", photos["heldout"][0][0], *arguments])
    assert stopped.value.code == 2 and match in capsys.readouterr().err


def test_a_list_of_a_spreadsheet_is_read_whatever_separates_its_columns(tmp_path):
    from lit_jax.text.labels import read_entries

    for separator, header in ((";", "species"), ("\t", "scientificName"), (",", "species")):
        path = tmp_path / "region.csv"
        path.write_text(
            f'n{separator}{header}{separator}note\n1{separator}"Parus major"{separator}x\n2{separator}Pica pica{separator}\n'
        )
        assert read_entries(path) == [["Parus major"], ["Pica pica"]]

import csv
import dataclasses
import html.parser
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from data_prep.conversion import convert
from data_prep.conversion.options import Options
from data_prep.sources import folder
from data_prep.sources.items import Source
from lit_jax import config, evaluate
from lit_jax.base import files
from lit_jax.embedding import class_embeddings, kept_embeddings, photo_embeddings, text_embeddings
from lit_jax.errors import UserError
from lit_jax.evaluation import intervals, page, report, tables
from lit_jax.main import train
from lit_jax.models import locking
from lit_jax.text.classes import read_class_table, write_class_table
from lit_jax.trained import loading
from tests.conftest import QUICK

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    """A copy of the run, in which evaluations are written."""
    return shutil.copytree(finished[0], tmp_path_factory.mktemp("evaluate") / "run"), finished[1]


def command(*arguments):
    evaluate.main([str(argument) for argument in arguments])


def result(run, split="heldout"):
    return json.loads((run[0] / f"evaluation-{split}.json").read_text())


@pytest.mark.parametrize(("split", "task"), [("validation", "seen"), ("heldout", "heldout")])
def test_the_command_finds_what_training_reported(run, capsys, split, task):
    workdir, results = run
    command("--checkpoint", workdir, "--step", "latest", "--split", split)
    got = result(run, split)
    assert {name: got[name] for name in results[task]} == results[task]
    assert sum(row["images"] for row in got["per_class"]) == got["images"]
    hits = sum(row["top1"] * row["images"] for row in got["per_class"])
    assert hits / got["images"] == pytest.approx(got["top1"])
    output = capsys.readouterr().out
    assert f"{100 * got['top1']:.2f} %" in output and "hardest" in output


def test_more_devices_change_nothing(run):
    command("--checkpoint", run[0], "--split", "heldout", "--batch-size", 16, "--devices", 8)
    many = result(run)
    command("--checkpoint", run[0], "--split", "heldout", "--devices", 1)
    one = result(run)
    # Probabilities differ in the last bits of float32; what is named, and where, does not.
    likely = [found.pop("calibration") for found in (many, one)]
    assert many == one
    assert likely[0]["temperature"] == pytest.approx(likely[1]["temperature"], rel=2e-3)
    assert likely[0]["before"]["ece"] == pytest.approx(likely[1]["before"]["ece"], abs=1e-5)


def test_templates_and_classes_in_words_only(run, records, tmp_path):
    table = read_class_table(records.class_table)
    (tmp_path / "templates.txt").write_text("a drawing of a {}\nthe {common_name}\n")
    with open(tmp_path / "species.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "common_name", "supercategory"])
        writer.writerows([row["name"], row["common_name"], row["supercategory"]] for row in table.rows())
        writer.writerow(["Draco volans", "Flying Dragon", "Reptiles"])  # never seen, in no record
    arguments = (
        "--checkpoint",
        run[0],
        "--split",
        "heldout",
        "--classes",
        tmp_path / "species.csv",
        "--out",
        tmp_path / "o.json",
    )
    command(*arguments, "--templates", tmp_path / "templates.txt")
    got = json.loads((tmp_path / "o.json").read_text())
    assert (got["candidates"], got["classes"], got["images"]) == (13, 4, 28) and got["same_prompts"] == []
    assert {row["class"] for row in got["per_class"]} < set(table.names)


def test_classes_that_cannot_be_told_apart_are_said_so(run, tmp_path, capsys):
    (tmp_path / "templates.txt").write_text("a {phylum}\n")
    command("--checkpoint", run[0], "--split", "validation", "--templates", tmp_path / "templates.txt")
    output = capsys.readouterr().out
    assert "have the same prompts" in output and "evaluation-validation-templates.json" in output


def test_a_list_of_bare_names_will_do(run, records, tmp_path):
    (tmp_path / "names.csv").write_text(
        "name\n" + "\n".join(read_class_table(records.class_table).names) + "\nDraco volans\n"
    )
    command("--checkpoint", run[0], "--split", "heldout", "--classes", tmp_path / "names.csv")
    got = json.loads((run[0] / "evaluation-heldout-names.json").read_text())
    assert got["candidates"] == 13 and got["images"] == 28 and got["templates"] == list(records.templates)


@pytest.mark.parametrize("column", ["common_name", "name", "id"])
def test_classes_are_given_by_whatever_identifies_them(run, records, tmp_path, capsys, column):
    table = read_class_table(records.class_table)
    values = table.ids if column == "id" else table.columns[column]
    (tmp_path / "c.csv").write_text(column + "\n" + "".join(f"{str(value).upper()}  \n" for value in values))
    command("--checkpoint", run[0], "--split", "heldout", "--classes", tmp_path / "c.csv", "--out", tmp_path / "o.json")
    got = json.loads((tmp_path / "o.json").read_text())
    assert (got["candidates"], got["images"], got["classes"]) == (12, 28, 4)
    assert "--classes" not in capsys.readouterr().out


def test_the_data_sets_own_table_is_accepted_though_a_species_has_two_rows(records, tmp_path, capsys):
    """Two breeds under one binomial: their own table, and a list of which it is missing, both cover all rows."""
    table = read_class_table(records.class_table)
    names = (table.names[1].upper(), *table.names[1:])
    own = dataclasses.replace(table, columns={**table.columns, "name": names})
    write_class_table(own, tmp_path / "own.csv")
    data = types.SimpleNamespace(class_table=tmp_path / "own.csv")
    assert evaluate._named_classes(str(tmp_path / "own.csv"), data) == own
    (tmp_path / "once.csv").write_text("name\n" + "\n".join(table.names[1:]) + "\nDraco volan\n")
    found = evaluate._named_classes(str(tmp_path / "once.csv"), data)
    assert set(found.ids) == {*table.ids, max(table.ids) + 1}
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "nowhere"], "--split: found 'nowhere', expected one of heldout, train, validation"),
        (["--step", "9999"], "--step: found '9999', expected latest, best or one of"),
        (["--records", "nowhere"], "nowhere"),
        (["--image-weights", "nowhere.npz"], "weights nowhere.npz: found no such file"),
        (["--batch-size", "3", "--devices", "8"], "--batch-size: found 3 on 8 devices"),
        (["--batch-size", "100000000"], "--batch-size: found 100000000, expected at most 8192; use a smaller one"),
        (["--classes", "{tmp}/few.csv"], "--classes: found no row for"),
        (["--templates", "{tmp}/misspelt.txt"], "found column 'common_nme'"),
        (["--out", "{tmp}/no/such/folder.json"], "--out: found no folder to write"),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, capsys, arguments, message):
    (tmp_path / "few.csv").write_text("id,name\n0,Draco volans\n")
    (tmp_path / "misspelt.txt").write_text("a {common_nme}\n")
    with pytest.raises(SystemExit) as caught:
        command("--checkpoint", run[0], *(argument.format(tmp=tmp_path) for argument in arguments))
    error = capsys.readouterr().err
    assert caught.value.code == 2 and message in error and error.count("\n") == 1


def test_ids_of_another_list_do_not_rename_photos(run, records, tmp_path):
    table = read_class_table(records.class_table)
    names = list(table.names)
    (tmp_path / "own_ids.csv").write_text(
        "id,name\n" + "".join(f"{i},{name}\n" for i, name in enumerate(reversed(names)))
    )
    (tmp_path / "t.txt").write_text("a {}\n")
    with_ids = ("--checkpoint", run[0], "--split", "heldout", "--templates", tmp_path / "t.txt", "--classes")
    command(*with_ids, tmp_path / "own_ids.csv", "--out", tmp_path / "a.json")
    (tmp_path / "names.csv").write_text("name\n" + "".join(f"{name}\n" for name in names))
    command(*with_ids, tmp_path / "names.csv", "--out", tmp_path / "b.json")
    a, b = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert a["top1"] == b["top1"] and {row["class"]: row["top1"] for row in a["per_class"]} == {
        row["class"]: row["top1"] for row in b["per_class"]
    }


def test_ctrl_c_in_the_middle_of_the_photos_is_one_line(run, monkeypatch, capsys):
    whole = photo_embeddings.image_embeddings

    def one(photos):
        yield next(iter(photos))  # TensorFlow reads ahead and JAX computes at that moment
        signal.raise_signal(signal.SIGINT)
        yield from photos

    monkeypatch.setattr(
        photo_embeddings, "image_embeddings", lambda parts, params, photos: whole(parts, params, one(photos))
    )
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as stopped:
            command("--checkpoint", run[0], "--split", "train", "--batch-size", 16)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (stopped.value.code, capsys.readouterr().err) == (130, "interrupted\n")
    assert not (run[0] / "evaluation-train.json").exists()


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_to_be_said_where_the_process_ends(run):
    code = """
import os, signal, sys
from lit_jax import evaluate
from lit_jax.embedding import photo_embeddings

def one(photos):
    yield next(iter(photos))  # TensorFlow reads ahead and JAX computes at that moment
    os.kill(os.getpid(), signal.SIGINT)
    yield from photos

whole = photo_embeddings.image_embeddings
photo_embeddings.image_embeddings = lambda parts, params, photos: whole(parts, params, one(photos))
evaluate.main(sys.argv[1:])
"""
    arguments = ["--checkpoint", run[0], "--split", "train", "--batch-size", "16"]
    got = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert (got.returncode, got.stderr) == (130, "interrupted\n")
    assert not (run[0] / "evaluation-train.json").exists()


@pytest.mark.slow
def test_a_run_on_many_devices_is_evaluated_on_one(tiny_config, tmp_path):
    loaded, _ = config.load(tiny_config, {"train.devices": "4", "train.epochs": "1"})
    results = train(loaded, tmp_path / "run")
    code = "import sys; from lit_jax import evaluate; evaluate.main(sys.argv[1:])"
    arguments = ["--checkpoint", tmp_path / "run", "--split", "heldout", "--step", "latest"]
    environment = {**os.environ, "XLA_FLAGS": QUICK}
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, env=environment, cwd=ROOT)
    assert (
        json.loads((tmp_path / "run" / "evaluation-heldout.json").read_text())["images"] == results["heldout"]["images"]
    )


def test_a_run_with_prompt_templates_is_evaluated_with_them(tiny_config, tmp_path):
    (tmp_path / "templates.txt").write_text("an engraving of a {}\n{order}\n")
    loaded, _ = config.load(
        tiny_config, {"evaluation.templates": str(tmp_path / "templates.txt"), "train.devices": "1"}
    )
    results = train(loaded, tmp_path / "run")
    (tmp_path / "templates.txt").unlink()
    command("--checkpoint", tmp_path / "run", "--split", "heldout", "--step", "latest")
    got = json.loads((tmp_path / "run" / "evaluation-heldout.json").read_text())
    assert {name: got[name] for name in results["heldout"]} == results["heldout"]


def test_no_run_and_other_weights_are_refused(run, tmp_path):
    with pytest.raises(UserError, match="--checkpoint: found no folder"):
        loading.load(tmp_path / "none")
    from lit_jax.models.weight_files import read_npz, write_npz

    weights = json.loads((run[0] / "config.json").read_text())["image.weights"]
    write_npz(tmp_path / "other.npz", {name: value * 2 for name, value in read_npz(weights).items()})
    with pytest.raises(UserError, match="found weights .* give the right file with --image-weights"):
        loading.load(run[0], weight_files={"image": str(tmp_path / "other.npz")})


class Text(html.parser.HTMLParser):
    """What a reader sees, and what the page would fetch."""

    def __init__(self):
        super().__init__()
        self.words, self.fetched, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        self.fetched += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value[:1] != "#"]
        self.open += [] if tag in ("meta", "path", "use", "rect", "br", "link") else [tag]

    def handle_endtag(self, tag):
        if tag in ("path", "use", "rect", "br"):
            return
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.fetched += [value for name, value in attrs if name in ("src", "href") and value[:1] != "#"]

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_holds_all_it_needs_and_says_what_the_json_says(run, drawn):
    command("--checkpoint", run[0], "--split", "heldout")
    got, parser = result(run), Text()
    text = (run[0] / "evaluation-heldout.html").read_text()
    parser.feed(text.removeprefix("<!doctype html>"))
    assert (
        parser.fetched == [] and parser.open == [] and "@import" not in text and "url(" not in text.replace("url(#", "")
    )
    # On a narrow screen a table that is too wide scrolls by itself, and not the page.
    assert text.count("<table") == text.count("<div class=wide><table") > 3 and 'name="viewport"' in text
    words = " ".join("".join(parser.words).split())
    assert f"{100 * got['top1']:.1f} %" in words and f"temperature {got['calibration']['temperature']:.2f}" in words
    for row in got["per_class"]:
        assert row["class"] in words and all(name in words for name, _ in row["taken_for"])


def test_accuracies_have_ranges_and_species_both_names(run, records, capsys):
    """Four species are held out: among so few the first five are all, and one of them decides the figure."""
    command("--checkpoint", run[0], "--split", "heldout")
    got, parser, printed = result(run), Text(), capsys.readouterr().out
    for row in (
        got,
        got["ranks"]["genus"],
        *got["per_class"],
        *got["by_supercategory"],
        *got["ranks"]["genus"]["hardest"],
    ):
        for name in {"top1", "top5"} & row.keys():
            assert row[f"{name}_interval"] == intervals.wilson(row[name], row["images"])
            assert row[f"{name}_interval"][0] <= row[name] <= row[f"{name}_interval"][1]
    rates = [row["top1"] for row in got["per_class"]]
    low, high = got["mean_per_class_top1_interval"]
    assert min(rates) <= low <= got["mean_per_class_top1"] <= high <= max(rates)
    found = got["retrieval"]
    assert found["image_to_text"]["recall@1_interval"] == intervals.wilson(found["image_to_text"]["recall@1"], 28)
    parser.feed((run[0] / "evaluation-heldout.html").read_text().removeprefix("<!doctype html>"))
    words = " ".join("".join(parser.words).split())
    ends = tables.ends(got, "top1")
    assert ends in printed and f"between {ends.replace('–', ' and ')} %" in words and "Wilson" in words
    assert "4 held-out species are few" in printed and "4 held-out species are few" in words
    lines = [line.split() for line in printed.splitlines()]
    assert (
        next(line for line in lines if line[:1] == ["heldout"])[-3]
        == next(line for line in lines if line[:1] == ["genus"])[5]
        == "–"
    )
    assert "first five" not in words.split("How far off")[0] and "Search" not in words
    assert "Recall between photos and captions" in words
    table = read_class_table(records.class_table)
    common = dict(zip(table.names, table.columns["common_name"], strict=True))
    taken = {name for row in got["per_class"] for name, _ in row["taken_for"]}
    assert taken and got["common_names"] == {name: common[name] for name in taken}
    for row in got["per_class"]:
        assert (
            f"{row['class']} ({common[row['class']]})" in printed and f"{row['class']} {common[row['class']]}" in words
        )
    for name, count in got["per_class"][0]["taken_for"]:
        assert f"{name} {common[name]} ({count})" in words


def test_names_cannot_break_the_page(run):
    command("--checkpoint", run[0], "--split", "heldout", "--no-page")
    got = result(run)
    for row in got["per_class"]:
        row["class"] = "<script>alert(1)</script> & co"
    text = page.page(got, name="<b>")
    assert "<script" not in text and "&lt;script&gt;" in text and "&lt;b&gt;" in text


def test_an_evaluation_on_other_photos_has_a_name_of_its_own(run, records, field_guide_folder, tmp_path, capsys):
    command("--checkpoint", run[0], "--split", "heldout")
    before = {path.name: path.read_bytes() for path in run[0].glob("evaluation-heldout.*")}
    assert len(before) == 2 and "another collection" not in capsys.readouterr().out
    # The same photos under other captions are another collection.
    items = folder.read_folder(field_guide_folder, field_guide_folder / "splits.csv")
    table = read_class_table(field_guide_folder / "classes.csv")
    options = Options(templates=("a {name}",), vocab_size=0)
    other = convert.convert(Source(items, table), tmp_path / "garden", options, workers=1)
    command("--checkpoint", run[0], "--split", "heldout", "--records", other.directory)
    assert {path.name: path.read_bytes() for path in run[0].glob("evaluation-heldout.*")} == before
    name = f"garden-{other.fingerprint[:8]}-heldout"
    got, page_text = result(run, name), (run[0] / f"evaluation-{name}.html").read_text()
    assert got["data"] == {"name": "garden", "is_other": True} and got["chosen_on"] == ""
    assert "names species of garden</title>" in page_text and other.fingerprint[:8] in page_text
    assert "photos of garden, another collection than the model was trained on" in capsys.readouterr().out


def test_the_photos_by_which_the_best_was_chosen_are_said_to_be_so(run, capsys):
    command("--checkpoint", run[0], "--split", "validation")
    assert result(run, "validation")["chosen_on"] == "validation"
    assert "the best of its run on these very photos" in (run[0] / "evaluation-validation.html").read_text()
    assert "best of its run on validation" in capsys.readouterr().out
    command("--checkpoint", run[0], "--split", "validation", "--step", "latest")
    assert "very photos" not in capsys.readouterr().out
    command("--checkpoint", run[0], "--split", "heldout")
    assert "very photos" not in capsys.readouterr().out


def test_rows_of_one_species_are_one_class(run, records, tmp_path):
    """Two breeds under one binomial: either name is right for photos of both, and chance counts them once."""
    table = read_class_table(records.class_table)
    first, second = records.classes_in("heldout")[:2]
    names = list(table.names)
    names[table.index_of(second)] = names[table.index_of(first)].upper()
    merged = dataclasses.replace(table, columns={**table.columns, "name": tuple(names)})
    trained = loading.load(run[0])
    data = dataclasses.replace(records, class_table=tmp_path / "breeds.csv")
    write_class_table(merged, data.class_table)
    got = report.evaluate(trained, data, "heldout", devices=1)
    plain = report.evaluate(trained, records, "heldout", devices=1)
    assert (got["candidates"], got["classes"], got["images"]) == (3, 3, 28) and got["chance"] == 1 / 3
    images = {row["id"]: row["images"] for row in plain["per_class"]}
    assert {row["id"]: row["images"] for row in got["per_class"]}[first] == images[first] + images[second]
    assert got["calibration"]["helps"] == (got["calibration"]["after"]["ece"] <= got["calibration"]["before"]["ece"])


def test_a_temperature_that_makes_it_worse_is_not_said_to_help(run):
    command("--checkpoint", run[0], "--split", "heldout", "--no-page")
    got = result(run)
    got["calibration"] |= {"temperature": 1.25, "helps": False}
    got["calibration"]["before"]["ece"], got["calibration"]["after"]["ece"] = 0.05, 0.066
    note = next(line for line in tables._notes(got) if "calibration" in line)
    assert note.startswith("calibration error 5.0 %; a temperature 1.25, fitted on")
    assert note.endswith("makes it worse (6.6 %) and is not to be used")
    assert "is not to be used" in page.page(got, name="m")


@pytest.mark.parametrize(("temperature", "why"), [(14155.0, "hardly tell"), (1.4e-4, "all named rightly")])
def test_a_temperature_out_of_all_bounds_is_called_unusable(run, temperature, why):
    command("--checkpoint", run[0], "--split", "heldout", "--no-page")
    got = result(run)
    got["calibration"] |= {"temperature": temperature, "helps": False}
    got["calibration"]["before"]["ece"] = 0.05
    note = next(line for line in tables._notes(got) if "calibration" in line)
    assert note.startswith("calibration error 5.0 %; no usable temperature: ") and why in note
    made = page.page(got, name="m")
    assert "no usable temperature" in made and why in made and "temperature 14155" not in made
    assert "after one correction" not in made  # its curve


def test_a_temperature_at_the_end_of_the_search_does_not_help(run, records, monkeypatch):
    monkeypatch.setattr(
        report.calibration, "fit_factor", lambda _: 1e-3
    )  # as where labels have nothing to do with scores
    trained = loading.load(run[0])
    sure = dataclasses.replace(trained, params={**trained.params, "logit_scale": trained.params["logit_scale"] + 5})
    found = report.evaluate(sure, records, "heldout", devices=1)["calibration"]
    assert found["after"]["ece"] <= found["before"]["ece"]  # of a model that never knows, it would
    assert found["temperature"] > 1000 and not found["helps"]


def test_prompts_are_embedded_once_a_model(run, records, monkeypatch):
    asked = []
    embed = text_embeddings.text_embedder

    def counting(*args, **kwargs):
        inner = embed(*args, **kwargs)
        return lambda texts: asked.extend(texts) or inner(texts)

    monkeypatch.setattr(text_embeddings, "text_embedder", counting)
    (run[0] / "templates.txt").write_text("a print of a {}\na stamp with a {}\n")
    arguments = ("--checkpoint", run[0], "--split", "validation", "--templates", run[0] / "templates.txt")
    command(*arguments)
    first, table = result(run, "validation-templates"), read_class_table(records.class_table)
    prompts = [text for text in asked if text.startswith(("a print", "a stamp"))]
    # Held-out species are asked beside the candidates too, and prompts of both are embedded once.
    every = {table.species_of[i] for split in records.splits for i in records.classes_in(split)}
    assert len(prompts) == len(set(prompts)) == 2 * len(every) and first["candidates"] < len(table)
    asked.clear()
    command(*arguments)
    assert asked == [] and result(run, "validation-templates") == first
    # A file that is damaged, or of other prompts, costs the work again and nothing else.
    for kept in (run[0] / "class_embeddings").iterdir():
        kept.write_bytes(kept.read_bytes()[:100])
    command(*arguments)
    assert asked and result(run, "validation-templates") == first


def test_class_embeddings_are_kept_by_all_that_decides_them_and_by_nothing_else(run):
    trained = loading.load(run[0])
    params, text = trained.params, trained.model.text

    def nudged(part):
        leaves, tree = jax.tree.flatten(params[part])
        return {**params, part: jax.tree.unflatten(tree, [np.nextafter(leaves[0], np.float32(9)), *leaves[1:]])}

    def key(params=params, text=text, context=24, tokenizer=b"words", prompts=(("a", "b"), ("c",))):
        return kept_embeddings.key_of(params, text, context, tokenizer, prompts)

    others = [
        key(params=nudged("text")),
        key(params={**params, locking.TEXT_PROJECTION: params["projection"]}),
        key(text=text.clone(pool="map")),
        key(context=25),
        key(tokenizer=b"other"),
        key(prompts=(("a",), ("b", "c"))),
        key(prompts=(("c",), ("a", "b"))),
        key(prompts=(("a", "b"), ("d",))),
    ]
    assert len({key(), *others}) == 1 + len(others)
    assert key() == key(params=nudged("projection")) == key(params={**params, "logit_scale": np.float32(0)})


def test_seen_species_compete_with_all_of_training_and_others_among_themselves(run, records):
    about = loading.load(run[0]).about
    train, heldout = records.classes_in("train"), records.classes_in("heldout")
    assert report.candidates(about, records, train[:2]) == sorted(train)
    assert report.candidates(about, records, heldout[:2]) == sorted(heldout[:2])
    assert report.candidates(about, records, [train[1], heldout[1]]) == sorted([*train, heldout[1]])
    # Ids of another collection are those of other species.
    other = dataclasses.replace(about, fingerprint="0" * 64)
    assert report.candidates(other, records, train[:2]) == sorted(train[:2])


def test_the_recorded_protocol_names_by_genus(run, records, monkeypatch):
    seen = []
    monkeypatch.setattr(class_embeddings, "class_embeddings", lambda embed, prompts, **_: seen.extend(prompts) or np.ones((len(prompts), 8), np.float32))  # fmt: skip
    (run[0] / "t.txt").write_text("a photo of a {}.\n")
    command("--checkpoint", run[0], "--split", "heldout", "--protocol", "recorded", "--templates", run[0] / "t.txt")
    got, table = result(run, "heldout-recorded-t"), read_class_table(records.class_table)
    rows = {row["name"]: row for row in table.rows()}
    names = [rows[row["class"]] for row in sorted(got["per_class"], key=lambda row: row["id"])]
    assert [texts[0] for texts in seen[: len(names)]] == [
        f"a photo of a {row['common_name']} {row['supercategory']} {row['genus']}." for row in names
    ]
    # All embeddings are equal here: the first class is named each time, and nothing but chance is right.
    assert got["protocol"] == "recorded" and got["top1"] == pytest.approx(1 / 4)


def test_ranks_follow_the_species_that_is_named(run, records):
    command("--checkpoint", run[0], "--split", "validation", "--no-page")
    got, table = result(run, "validation"), read_class_table(records.class_table)
    of_class = dict(zip(table.names, table.columns["family"], strict=True))
    hits = 0
    for row in got["per_class"]:
        wrong = sum(n for _, n in row["taken_for"])
        assert wrong == row["images"] - round(row["top1"] * row["images"])  # three photos a class: none is left out
        hits += row["images"] - sum(n for name, n in row["taken_for"] if of_class[name] != of_class[row["class"]])
    assert got["ranks"]["family"]["top1"] == pytest.approx(hits / got["images"])
    assert got["ranks"]["species"]["top1"] == got["top1"]
    assert got["retrieval"]["image_to_text"]["recall@5"] >= got["retrieval"]["image_to_text"]["recall@1"]


def test_classes_of_one_photo_and_figures_below_chance_are_said_in_the_table_and_on_the_page(run):
    shown = result(run)
    rows = [{**row, "images": 1, "top1": 0.0, "top5": 0.0} for row in shown["per_class"]]
    worse = {**shown, "per_class": rows, "images": 500, "top1": 0.0, "top1_interval": [0.0, 0.001]}
    text, html_text = tables.table_of(worse), page.page(worse, name="x")
    for one in (text, html_text):
        assert "ach class has one photo, which does not say which are hardest" in one
        assert (
            "worse than guessing" in one and rows[0]["class"] not in one.partition("ach class has one photo")[2][:300]
        )
    assert "hardest 10" not in text and "worse than guessing" not in tables.table_of(shown)
    assert rows[0]["class"] in tables.table_of(worse, all_classes=True)


def test_a_folder_without_permission_is_told_as_that(run, records, tmp_path, capsys, monkeypatch):
    allowed = os.access
    locked = os.path.realpath(run[0])
    monkeypatch.setattr(
        os, "access", lambda path, mode, **more: os.path.realpath(path) != locked and allowed(path, mode, **more)
    )  # root may write anywhere
    with pytest.raises(SystemExit) as caught:
        command("--checkpoint", run[0], "--split", "heldout")
    error = capsys.readouterr().err
    assert caught.value.code == 2 and error.count("\n") == 1
    assert re.search(r"--out: found no permission to write \S*/evaluation-heldout.json to its folder, expected", error)
    command("--checkpoint", run[0], "--split", "heldout", "--out", tmp_path / "o.json")


def test_a_run_that_was_moved_finds_its_data_and_weights_beside_itself(run, records, tmp_path, capsys, monkeypatch):
    work = tmp_path / "moved"
    shutil.copytree(run[0], work / "runs" / "mine", ignore=shutil.ignore_patterns("evaluation-*"))
    shutil.copytree(records.directory, work / "data" / "set")
    changes = {"data.records": "data/set/"}
    for path in (work / "runs" / "mine").glob("checkpoints/step_*/about/metadata"):
        about = json.loads(path.read_text())
        weights = pathlib.Path(about["config"]["image.weights"])
        shutil.copy(weights, work / weights.name)
        changes["image.weights"] = weights.name
        path.write_text(json.dumps(files.sealed({**about, "config": {**about["config"], **changes}})))
    monkeypatch.chdir(tmp_path)
    command("--checkpoint", "moved/runs/mine", "--split", "heldout")
    command("--checkpoint", run[0], "--split", "heldout")
    got = json.loads((work / "runs" / "mine" / "evaluation-heldout.json").read_text())
    assert got["top1"] == result(run)["top1"] and got["images"] == result(run)["images"]
    shutil.rmtree(work / "data")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        command("--checkpoint", "moved/runs/mine", "--split", "heldout")
    assert "found none, and no folder 'data/set/' of the run; give --records, or --store" in capsys.readouterr().err


def test_where_a_path_of_a_moved_run_leads(tmp_path, monkeypatch):
    for path in ("here/data", "there/data/set_store", "there/runs/mine"):
        (tmp_path / path).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    about = types.SimpleNamespace(config={"data.records": "data/set", "data.store": "data", "image.weights": ""})
    assert loading._beside(about, tmp_path / "there" / "runs" / "mine") == {
        "data.records": str(tmp_path / "there" / "data" / "set")
    }
    about.config["data.store"] = str(tmp_path / "nowhere")
    about.config["data.records"] = "nowhere"
    assert loading._beside(about, tmp_path / "there" / "runs" / "mine") == {}

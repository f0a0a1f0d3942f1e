import csv
import json

import pytest

from lit_jax import config, evaluate, experiment
from lit_jax.classes import read_class_table
from lit_jax.errors import UserError


@pytest.fixture(scope="module")
def run(tiny_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("evaluate") / "run"
    loaded, _ = config.load(tiny_config, {"train.devices": "1"})
    return workdir, experiment.run(loaded, workdir)


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
    assert many == result(run)


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
    assert "have the same prompts" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "nowhere"], "split: found 'nowhere', expected one of heldout, train, validation"),
        (["--step", "9999"], "--step: found '9999', expected latest, best or one of"),
        (["--records", "nowhere"], "nowhere"),
        (["--image-weights", "nowhere.npz"], "weights nowhere.npz: found no such file"),
        (["--batch-size", "3", "--devices", "8"], "--batch-size: found 3 on 8 devices"),
        (["--classes", "{tmp}/few.csv"], "--classes: found no row for"),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, capsys, arguments, message):
    (tmp_path / "few.csv").write_text("id,name\n0,Draco volans\n")
    with pytest.raises(SystemExit) as caught:
        command("--checkpoint", run[0], *(argument.format(tmp=tmp_path) for argument in arguments))
    error = capsys.readouterr().err
    assert caught.value.code == 2 and message in error and error.count("\n") == 1


def test_no_run_and_other_weights_are_refused(run, tmp_path):
    with pytest.raises(UserError, match="--checkpoint: found no folder"):
        evaluate.load(tmp_path / "none")
    from lit_jax.models.weights import read_npz, write_npz

    weights = json.loads((run[0] / "config.json").read_text())["image.weights"]
    write_npz(tmp_path / "other.npz", {name: value * 2 for name, value in read_npz(weights).items()})
    with pytest.raises(UserError, match="found weights .* give the right file with --image-weights"):
        evaluate.load(run[0], weight_files={"image": str(tmp_path / "other.npz")})

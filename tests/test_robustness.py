"""Accuracy on corrupted photos: against one photo at a time, and what the command writes and refuses."""

import concurrent.futures
import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from benchmarks import cub_robustness
from lit_jax import evaluate, models, robustness
from lit_jax.data import record_batches
from lit_jax.data.images import Pictures
from lit_jax.errors import UserError
from lit_jax.evaluation import robustness as measuring
from lit_jax.evaluation import robustness_tables
from lit_jax.evaluation.corruptions import corrupt, generator
from lit_jax.evaluation.metrics import TopK
from lit_jax.evaluation.robustness import CLEAN, Conditions
from lit_jax.trained.loading import load

FEW = Conditions(("contrast", "shot_noise"), (1, 5), seed=4)


@pytest.fixture(scope="module")
def trained(finished):
    return load(finished[0], with_image_tower=True)


@pytest.fixture(scope="module")
def result(trained, records):
    tasks = robustness.tasks_of(trained, records)
    return measuring.measure(trained, records, tasks, FEW, batch_size=8, devices=1)


def test_tasks_are_those_of_the_evaluation(trained, records, finished):
    tasks = {task.name: task for task in robustness.tasks_of(trained, records)}
    assert list(tasks) == ["seen", "heldout", "heldout_among_all"]
    assert tasks["heldout_among_all"].split == "heldout" and len(tasks["heldout_among_all"].class_ids) == 12
    (one,) = robustness.tasks_of(trained, records, "validation")
    assert one.class_ids == tasks["seen"].class_ids
    with pytest.raises(UserError, match="--split"):
        robustness.tasks_of(trained, records, "nowhere")


def test_clean_accuracies_are_those_of_training(trained, result, finished):
    for name, task in result["tasks"].items():
        found = finished[1]["evaluation"] if "evaluation" in finished[1] else finished[1]
        assert task["clean"]["top1"] == pytest.approx(found[name]["top1"]), name


def test_each_photo_is_corrupted_by_its_number_and_named_by_itself(trained, records, result):
    """One photo at a time in NumPy: corrupted, through the tower, the nearest class by a plain product."""
    (task,) = [task for task in robustness.tasks_of(trained, records) if task.name == "seen"]
    batches = record_batches.evaluation_batches(records, "validation", batch_size=24, pictures=Pictures(16))
    batch = next(batches)
    from lit_jax.base.sharding import make_mesh
    from lit_jax.embedding import photo_embeddings
    from lit_jax.embedding.vectors import Vectors, on_device

    mesh = make_mesh(1)
    vectors = Vectors(trained, photo_embeddings.embedder(trained.model, mesh), on_device(trained, mesh), 8)
    from lit_jax.embedding.class_prompts import prompts_of
    from lit_jax.text.classes import read_class_table
    from lit_jax.text.prompts import templates_for

    table = read_class_table(records.class_table)
    protocol = trained.config.evaluation.protocol
    prompts = prompts_of(trained.about, table, templates_for(protocol, tuple(trained.about.prompt_templates)), protocol)
    classes = vectors.of([prompts[class_id] for class_id in task.class_ids])
    look = jax.jit(lambda p, x: models.project(trained.model, p, models.image_features(trained.model, p["image"], x)))
    for kind, severity in (("shot_noise", 5), ("contrast", 1)):
        photos = np.stack([
            corrupt(photo, kind, severity, generator(4, "validation", number, kind, severity))
            for number, photo in enumerate(batch["image"])
        ])  # fmt: skip
        named = np.asarray(look(trained.params, photos)) @ classes.T
        right = [task.class_ids[row] == label for row, label in zip(named.argmax(1), batch["class_id"], strict=True)]
        assert result["tasks"]["seen"]["corrupted"][kind][str(severity)]["top1"] == pytest.approx(np.mean(right))


@pytest.mark.parametrize("size", [5, 24])
def test_photos_have_the_bytes_of_their_number_in_the_split(records, size):
    pictures, some = Pictures(16), np.arange(24) % 3 != 1
    whole = next(record_batches.evaluation_batches(records, "validation", batch_size=24, pictures=pictures))["image"]
    wanted = [
        corrupt(whole[n], "impulse_noise", 3, generator(7, "validation", n, "impulse_noise", 3))
        for n in np.flatnonzero(some).tolist()
    ]
    conditions = Conditions(("impulse_noise",), (3,), seed=7)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        views = list(measuring._views(records, "validation", some, conditions, pictures, size, pool))
    found = {
        condition: np.concatenate([photos[batch["mask"]] for batch, one, photos in views if one == condition])
        for condition in conditions.all
    }
    assert found[CLEAN].tobytes() == whole[some].tobytes()
    assert found["impulse_noise", 3].tobytes() == np.stack(wanted).tobytes()
    assert all(len(photos) == size for _, _, photos in views)


def test_the_margin_holds_seen_species_back_among_all(trained, records):
    held = dataclasses.replace(
        trained, about=dataclasses.replace(trained.about, margin={"margin": 5.0, "factors": {}, "folds": 2})
    )
    tasks = robustness.tasks_of(trained, records)
    none = Conditions(("contrast",), (1,))
    found = measuring.measure(held, records, tasks, none, batch_size=8, devices=1)["tasks"]
    assert [task["margin"] for task in found.values()] == [0, 0, 5]
    table = robustness_tables.table_of({"kinds": ["contrast"], "severities": [1], "tasks": found})
    assert table.count("seen species held back by 5)") == 1
    # A margin beyond every difference leaves the unseen ones alone.
    assert found["heldout_among_all"]["clean"]["top1"] == found["heldout"]["clean"]["top1"]


def test_neither_batches_nor_devices_nor_other_kinds_change_anything(trained, records, result):
    tasks = robustness.tasks_of(trained, records, "validation")
    one = Conditions(("shot_noise",), (5,), seed=4)
    other = measuring.measure(trained, records, tasks, one, batch_size=16, devices=2)
    wanted = result["tasks"]["seen"]["corrupted"]["shot_noise"]["5"]
    assert other["tasks"]["validation"]["corrupted"]["shot_noise"]["5"] == wanted


def test_a_part_of_the_photos_is_drawn_by_the_seed(trained, records, monkeypatch):
    looked = []
    whole = measuring.corrupt
    monkeypatch.setattr(
        measuring, "corrupt", lambda photo, *more: looked.append(photo.tobytes()) or whole(photo, *more)
    )
    tasks = robustness.tasks_of(trained, records, "validation")
    few = Conditions(("contrast",), (1,), seed=1, photos=5)
    found = measuring.measure(trained, records, tasks, few, batch_size=4, devices=1)["tasks"]["validation"]
    assert found["images"] == 5 == len(set(looked))
    flags = [measuring.drawn(24, Conditions(seed=seed, photos=5), "validation") for seed in (1, 1, 2)]
    assert (flags[0] == flags[1]).all() and (flags[0] != flags[2]).any() and flags[0].sum() == 5
    assert measuring.drawn(24, Conditions(photos=99), "validation").all()


def hits(right, images=20):
    return TopK(np.array([[right, images]]), np.array([images]))


def test_figures_follow_from_the_hits():
    conditions = Conditions(("fog", "snow"), (1, 3))
    counted = {CLEAN: hits(16), ("fog", 1): hits(12), ("fog", 3): hits(8), ("snow", 1): hits(4), ("snow", 3): hits(0)}
    found = measuring.summary(counted, conditions)
    assert found["images"] == 20 and found["clean"]["top1"] == 0.8
    assert found["corrupted"]["fog"]["3"]["of_clean"] == pytest.approx(0.5)
    assert found["by_kind"]["fog"] == pytest.approx({"top1": 0.5, "error": 0.5, "of_clean": 0.625, "more_error": 0.3})
    assert found["mean_error"] == pytest.approx((0.5 + 0.9) / 2)
    assert found["mean_more_error"] == pytest.approx((0.3 + 0.7) / 2)
    nothing = measuring.summary({key: hits(0) for key in counted}, conditions)
    assert nothing["by_kind"]["fog"]["of_clean"] is None
    whole = {
        "kinds": ["fog", "snow"], "severities": [1, 3],
        "tasks": {"seen": {**found, "candidates": 1, "chance": 1.0}, "x": {**nothing, "candidates": 1, "chance": 1.0}},
    }  # fmt: skip
    told = robustness_tables.table_of(whole)
    assert "mean corruption error, not normalised: 70.0 %" in told
    assert "20 photos are few, each moves a figure by 5.0 points" in told


def test_mce_is_the_papers(result):
    """Errors of a kind added over severities, as a share of the baseline's, and the mean over kinds."""
    conditions = Conditions(("fog", "snow"), (1, 3))
    names = {"candidates": 4}
    own = {CLEAN: hits(18), ("fog", 1): hits(15), ("fog", 3): hits(10), ("snow", 1): hits(10), ("snow", 3): hits(5)}
    base = {CLEAN: hits(16), ("fog", 1): hits(10), ("fog", 3): hits(6), ("snow", 1): hits(8), ("snow", 3): hits(0)}
    one, two = (
        {"kinds": ["fog", "snow"], "tasks": {"seen": {**measuring.summary(x, conditions), **names}}}
        for x in (own, base)
    )
    found = measuring.normalised(one, two)["seen"]
    fog, snow = (5 + 10) / (10 + 14), (10 + 15) / (12 + 20)
    assert found["by_kind"] == pytest.approx({"fog": fog, "snow": snow})
    assert found["mce"] == pytest.approx((fog + snow) / 2)
    relative = ((3 + 8) / (6 + 10) + (8 + 13) / (8 + 16)) / 2
    assert found["relative_mce"] == pytest.approx(relative)
    assert measuring.normalised(result, result)["seen"]["mce"] == pytest.approx(1)
    with pytest.raises(UserError, match="baseline: found seed 9, expected 4"):
        measuring.normalised(result, {**result, "seed": 9})
    with pytest.raises(UserError, match="found another task seen"):
        measuring.normalised(one, {**two, "tasks": {}})
    task = two["tasks"]["seen"]
    damaged = (1, [], {}, {**task, "by_kind": {}}, {**task, "by_kind": 1}, {**task, "by_kind": {"fog": {"error": []}}})
    for other in damaged:
        with pytest.raises(UserError, match="found another task seen"):
            measuring.normalised(one, {**two, "tasks": {"seen": other}})


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "run")


def test_the_command_prints_and_writes(drawn, copied, capsys, tmp_path):
    few = ["--kinds", "brightness,fog", "--severities", "2", "--photos", "6", "--batch-size", "8", "--devices", "1"]
    robustness.main([f"--checkpoint={copied}", *few])
    printed, found = capsys.readouterr().out, json.loads((copied / "robustness.json").read_text())
    assert "heldout among all" in printed and "not normalised" in printed and "severity 2" in printed
    assert found["model"] == "run" and found["photos"] == 6 and found["frost"] == "drawn" and found["side"] == 16
    with Image.open(copied / "robustness.png") as picture:
        assert picture.format == "PNG" and picture.width > 400
    again = tmp_path / "again.json"
    robustness.main([f"--checkpoint={copied}", *few, f"--out={again}", f"--baseline={copied / 'robustness.json'}"])
    printed, other = capsys.readouterr().out, json.loads(again.read_text())
    assert other["tasks"] == found["tasks"] and other["normalised"]["seen"]["mce"] in (1, None)
    assert "of 100 for run" in printed


def test_the_page_of_an_evaluation_tells_it_too(copied, capsys):
    few = ["--kinds", "snow", "--severities", "2", "--photos", "6", "--batch-size", "8", "--devices", "1"]
    robustness.main([f"--checkpoint={copied}", *few])
    evaluate.main([f"--checkpoint={copied}", "--split=heldout", "--batch-size=8", "--devices=1"])
    (page,) = copied.glob("evaluation-heldout*.html")
    found = json.loads((copied / "robustness.json").read_text())
    top1 = found["tasks"]["heldout"]["corrupted"]["snow"]["2"]["top1"]
    assert "<h2>Corrupted photos</h2>" in page.read_text() and f"{100 * top1:.1f}&nbsp;%" in page.read_text()
    # Of another model it tells nothing.
    assert measuring.of_same_model(copied, {**found, "step": found["step"] + 1}) is None
    (copied / "robustness.json").write_text("[]")
    assert measuring.of_same_model(copied, found) is None


def test_photos_of_frost_are_laid_over(tmp_path):
    Image.fromarray(np.full((20, 30, 3), 200, np.uint8)).save(tmp_path / "a.png")
    (found,) = robustness._frosts(str(tmp_path), 16)
    assert found.shape == (20, 30, 3)
    for folder, side, told in ((tmp_path, 32, "30 x 20 pixels"), (tmp_path / "none", 16, "no folder")):
        with pytest.raises(UserError, match=told):
            robustness._frosts(str(folder), side)
    whole = (tmp_path / "a.png").read_bytes()
    for content in (b"x", whole[:11] + b"\x05" + whole[12:]):  # Pillow raises OSError and ValueError
        (tmp_path / "b.png").write_bytes(content)
        with pytest.raises(UserError, match=r"b.png: found no photo"):
            robustness._frosts(str(tmp_path), 16)


def test_a_model_without_a_tower_is_refused(finished, monkeypatch, capsys):
    whole = load(finished[0], with_image_tower=False)
    monkeypatch.setattr(robustness, "load_whole", lambda *_, **__: whole)
    with pytest.raises(SystemExit):
        robustness.main(["--checkpoint=x"])
    assert "found a model of embeddings computed elsewhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, told",
    [
        (["--kinds=rain"], "--kinds: found rain, expected different ones of gaussian_noise"),
        (["--severities=6"], "--severities: found 6, expected different ones of 1,2,3,4,5"),
        (["--photos=0"], "--photos"),
        (["--baseline=nowhere.json"], "--baseline nowhere.json: found no result of this command"),
        (["--records=nowhere"], "nowhere"),
        (["--out=nowhere/x.json"], "--out: found no folder"),
    ],
)
def test_mistakes_are_told_in_one_line(finished, options, told, capsys):
    with pytest.raises(SystemExit) as stop:
        robustness.main([f"--checkpoint={finished[0]}", *options])
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and told in line


def test_the_table_of_the_documentation_is_that_of_the_benchmark():
    content = json.loads((cub_robustness.machine.RESULTS / "cub_robustness.json").read_text())
    page = (cub_robustness.machine.ROOT / "docs" / "robustness.md").read_text()
    assert cub_robustness.table(content) in page
    for result in content["results"]:
        for task in result["tasks"].values():
            errors = [1 - row["top1"] for kind in task["corrupted"].values() for row in kind.values()]
            assert task["mean_error"] == pytest.approx(np.mean(errors)) and len(errors) == 45

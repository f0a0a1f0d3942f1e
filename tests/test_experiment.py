"""Runs from a config file to results, in this process and as commands."""

import doctest
import gc
import json
import pathlib
import re
import shutil
import signal
import subprocess
import time

import jax
import numpy as np
import pytest

import lit_jax.evaluation.zeroshot
import lit_jax.text.tokenizers
from lit_jax import config
from lit_jax.base import files
from lit_jax.errors import UserError
from lit_jax.main import main, train
from lit_jax.models import guess
from lit_jax.trained import loading
from lit_jax.training import checkpoint, experiment, loop, metrics_log, optimizer
from lit_jax.training.length import run_length
from tests import forked
from tests.conftest import built_of

ROOT = pathlib.Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.usefixtures("undrawn")


def run(path, workdir, **overrides):
    loaded, _ = config.load(path, {name.replace("__", "."): str(value) for name, value in overrides.items()})
    return train(loaded, workdir)


def losses(workdir):
    return [record["loss"] for record in metrics_log.read_metrics(workdir / "metrics.jsonl") if "loss" in record]


def test_a_run_leaves_what_it_should(finished):
    workdir, results = finished
    names = {path.name for path in workdir.iterdir()}
    assert {"checkpoints", "config.json", "curves.png", "metrics.jsonl", "results.json"} <= names
    assert json.loads((workdir / "results.json").read_text()) == results
    assert results["step"] == 11 and len(losses(workdir)) == 11  # 3 epochs of 56 photos, batches of 16
    assert results["seen"]["images"] == 24 and results["seen"]["candidates"] == 8
    assert results["heldout"]["images"] == 28 - 0 and results["heldout"]["candidates"] == 4
    assert results["heldout_among_all"]["candidates"] == 12
    logged = metrics_log.read_metrics(workdir / "metrics.jsonl")
    # Sixteen photos of 16 captions: some repeat in a batch, and the loss cannot fall below what that costs.
    assert all(0 <= r["loss_floor"] < r["loss"] for r in logged if "loss" in r)
    assert max(r.get("loss_floor", 0) for r in logged) > 0.1
    assert {r["heldout/candidates"] for r in logged if "heldout/top1" in r} == {4}
    evaluated = [r["step"] for r in metrics_log.read_metrics(workdir / "metrics.jsonl") if "seen/top1" in r]
    assert evaluated == [4, 7, 11]
    rates = [r["learning_rate"] for r in metrics_log.read_metrics(workdir / "metrics.jsonl") if "learning_rate" in r]
    assert rates[0] == pytest.approx(0.005) and max(rates) == pytest.approx(0.01) and rates[-1] < 0.001


@pytest.mark.parametrize("devices", [*(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4)), 8])
def test_the_loss_trajectory_is_the_same_on_any_number_of_devices(finished, tiny_config, tmp_path, devices):
    workdir, results = finished
    # The first of its three epochs; every pair's caption by itself, so that one shape is compiled.
    got = run(
        tiny_config,
        tmp_path / "run",
        train__devices=devices,
        train__epochs=1,
        optimizer__horizon_epochs=3,
        text__distinct="false",
    )
    assert losses(tmp_path / "run") == pytest.approx(losses(workdir)[:4], rel=1e-3)
    assert got["seen"]["images"] == results["seen"]["images"]


def test_a_run_of_another_config_is_refused(finished, tiny_config):
    workdir, _ = finished
    with pytest.raises(UserError, match=r"found other options \(optimizer.lr: 0.01 -> 0.5\)"):
        run(tiny_config, workdir, train__devices=1, optimizer__lr=0.5)


def test_a_finished_run_gives_its_results_again(finished, tiny_config, capsys):
    workdir, results = finished
    assert run(tiny_config, workdir, train__devices=1) == results
    assert "resuming after step 11" in capsys.readouterr().out


def test_another_tower_is_refused(finished, tiny_config, tmp_path):
    import numpy as np

    from lit_jax.models.weight_files import read_npz, write_npz

    workdir, _ = finished
    loaded, _ = config.load(tiny_config)
    flat = read_npz(loaded.image.weights)
    write_npz(tmp_path / "other.npz", {name: np.asarray(value) * 1.01 for name, value in flat.items()})
    with pytest.raises(UserError, match="found image tower .* expected the .* of the config's weights"):
        run(tiny_config, workdir, train__devices=1, image__weights=tmp_path / "other.npz")


def test_a_loss_that_is_not_finite_stops_the_run_with_its_step_and_the_last_checkpoint(tiny_config, tmp_path):
    overrides = {
        "train__devices": 1,
        "optimizer__lr": 1e30,
        "optimizer__warmup_epochs": 0,
        "checkpoint__every_epochs": 0.2,
    }
    with pytest.raises(
        UserError, match=r"loss: found nan at step \d+, learning rate .*Last good checkpoint: step 1 in"
    ):
        run(tiny_config, tmp_path / "run", **overrides)


def test_a_run_that_saves_at_the_end_only_has_one_checkpoint(tiny_config, finished, tmp_path, undrawn):
    from lit_jax.training import checkpoint

    assert len(checkpoint.saved_steps(finished[0])) > 1  # with an evaluation an epoch
    results = run(tiny_config, tmp_path / "run", train__devices=1, checkpoint__every_epochs=0, checkpoint__keep=9)
    assert checkpoint.saved_steps(tmp_path / "run") == [results["step"]]
    assert results["seen"] == finished[1]["seen"] and results["best"]["step"] == results["step"]


def test_a_checkpoint_that_was_not_chosen_is_not_called_the_best(tiny_config):
    """A run of no epoch has one, and so has one that saves at the end only."""
    for given in ({"checkpoint.every_epochs": "0"}, {"train.epochs": "0", "model.start": "solve"}):
        assert experiment.chosen_on(config.load(tiny_config, given)[0]) == ""
    assert experiment.chosen_on(config.load(tiny_config)[0]) == "validation"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"train__batch_size": 100, "train__devices": 8},
            "found 100 on 8 devices, expected a multiple of 8; use 96 or 104",
        ),
        ({"image__weights": "nowhere.npz"}, "weights nowhere.npz: found no such file"),
        (
            {"image__weights": ""},
            r"image.weights: found none, expected pre-trained weights, since the image tower is locked \(train.locks Lu\); set it",
        ),
        (
            {"train__locks": "uu"},
            "expected none, since the image tower is trained from scratch .train.locks uu.; leave it out, or set train.locks to Uu to train it further or Lu to lock it",
        ),
        ({"image__weights": "hf-hub:nobody/nothing", "train__locks": "Lx"}, "train.locks: found 'Lx'"),
        ({"image__weights": "hf-hub:nobody/nothing", "image__tower": "resnet5"}, "did you mean resnet50"),
        ({"image__weights": "hf-hub:nobody/nothing", "text__tower": "minilm"}, "did you mean minilm_l6"),
        ({"data__records": "nowhere"}, "nowhere"),
        ({"train__batch_size": 64}, "train.batch_size: found 64, expected at most the 56 photos"),
        (
            {"data__train_split": "trian"},
            "data.train_split: found 'trian', expected one of heldout, train, validation in .*set; ch",
        ),
        ({"optimizer__warmup_steps": 5}, "found warmup_epochs as well"),
        ({"text__width": 15}, "text.width: found 15 with 2 heads"),
        ({"image__size": 20}, "image.size: found 20, expected a multiple of image.patch, 8"),
        ({"image__depth": 2}, "found no Transformer/encoderblock_1/"),
        (
            {"data__heldout_split": "held_out"},
            "data.heldout_split: found 'held_out', expected one of heldout, train, validation",
        ),
        ({"data__crop_scale": "1.0,0.2"}, "data.crop_scale: found .1.0, 0.2., expected two shares of the area"),
        ({"model__projection": "false"}, "model.embed_dim: found 8 without model.projection"),
    ],
)
def test_a_users_mistake_is_one_clear_line(tiny_config, tmp_path, monkeypatch, overrides, message):
    monkeypatch.setattr(guess, "presets_of", lambda *_: [])  # has tests of its own, and traces all towers there are
    with pytest.raises(UserError, match=message) as caught:
        run(tiny_config, tmp_path / "run", **overrides)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "run" / "results.json").exists()


@pytest.fixture(scope="module")
def published(records, tmp_path_factory):
    """Drawn weights of a ViT under timm's names, and of a small text tower, as files."""
    from lit_jax import models
    from lit_jax.models import presets, weight_files, weights
    from lit_jax.models.names.vit import TIMM
    from tests.conftest import random_like
    from tests.golden import common

    folder = tmp_path_factory.mktemp("published")
    tower = models.IMAGE_PRESETS["vit_ti16"].build()
    shapes = presets.image_shapes(tower, 32)[0]
    drawn = weights.unflatten({name: common.array(name, leaf.shape) for name, leaf in weights.leaves(shapes).items()})
    weight_files.write_safetensors(folder / "model.safetensors", weights.named(drawn, models.family(tower), TIMM))
    config = {"architecture": "vit_tiny_patch16_224", "pretrained_cfg": {
        "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.2], "crop_pct": 0.5, "interpolation": "bilinear"}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = lit_jax.text.tokenizers.load_tokenizer(records.tokenizer)
    text = models.TextTransformer(tokenizer.vocab_size, 24, tokenizer.end_id, width=16, depth=1, heads=2, embed_dim=8)
    text_params = random_like(text, np.zeros((1, 24), np.int32))
    weight_files.write_npz(folder / "text.npz", weights.named(text_params, models.family(text)))
    return folder, text_params


def test_published_towers_are_locked_with_the_preprocessing_beside_them(tiny_config, published, tmp_path, capsys):
    folder, text_params = published
    overrides = {
        "image__tower": "vit_ti16", "image__weights": folder, "image__size": 32, "image__patch": 0,
        "image__width": 0, "image__depth": 0, "image__heads": 0, "text__weights": folder / "text.npz",
        "train__locks": "LL", "text__distinct": "false",
    }  # fmt: skip
    got = run(tiny_config, tmp_path / "run", train__devices=1, train__epochs=1, **overrides)
    out = capsys.readouterr().out
    assert "32 px, shorter side, bilinear, crop 0.5, mean 0.4/0.5/0.6, std 0.2/0.2/0.2" in out
    assert "note: preprocessing is not that of vit_ti16 as published (mean 0.4/0.5/0.6, not 0.5" in out
    assert re.search(r"image tower: \d+ arrays by the names of .*timm", out) and got["seen"]["images"] == 24
    after = loading.load(tmp_path / "run")
    assert after.config.image.width == 192 and set(after.about.locked) == {"image", "text"}
    assert np.array_equal(after.params["text"]["projection"]["kernel"], text_params["projection"]["kernel"])


def test_a_published_text_tower_is_tuned(tiny_config, published, tmp_path):
    folder, text_params = published
    overrides = {"text__weights": folder / "text.npz", "train__locks": "LU", "optimizer__pretrained_scale": 0.5}
    # By this seed one batch holds so few captions that the step runs in a second shape.
    run(tiny_config, tmp_path / "run", train__devices=1, train__epochs=1, seed=0, **overrides)
    after = loading.load(tmp_path / "run")
    difference = np.abs(after.params["text"]["projection"]["kernel"] - text_params["projection"]["kernel"])
    # Three or four steps of 0.01 and less, of which half reaches the tower; nothing is drawn anew.
    assert set(after.about.locked) == {"image"} and 0 < difference.max() < 0.025


@pytest.mark.parametrize("overrides", [
    # All of the two below at once, on one device and with one shape to compile.
    {"train__locks": "uu", "image__weights": "", "optimizer__accumulate": 2, "optimizer__clip_norm": 1.0,
     "train__precision": "float16", "text__pool": "map", "text__causal": "true", "text__distinct": "false",
     "train__devices": 1},
    *(pytest.param(settings, marks=pytest.mark.slow) for settings in (
        {"model__loss": "sigmoid", "train__precision": "bfloat16"},
        {"train__locks": "uu", "image__weights": "", "optimizer__accumulate": 2, "optimizer__clip_norm": 1.0},
        {"train__precision": "float16", "text__pool": "map", "text__causal": "true"},
    )),
])  # fmt: skip
def test_other_settings_run_to_the_end(tiny_config, tmp_path, overrides):
    got = run(tiny_config, tmp_path / "run", **{"train__devices": 2, "train__epochs": 1, **overrides})
    assert got["seen"]["images"] == 24


def test_two_runs_in_one_folder_are_refused(tiny_config, tmp_path):
    from lit_jax.base.files import alone_in

    with (
        alone_in(tmp_path / "run", "run", file=".lock"),
        pytest.raises(UserError, match="found another run at work in it"),
    ):
        run(tiny_config, tmp_path / "run", train__devices=1)


def test_accumulated_batches_make_whole_steps(tiny_config):
    loaded, _ = config.load(tiny_config, {"optimizer.accumulate": "4"})
    length = run_length(loaded.train, photos=56, accumulate=4)
    assert length.steps == 12  # three epochs are 10.5 batches
    schedule = optimizer.schedule_of(loaded.optimizer, length)
    assert float(schedule(3)) == pytest.approx(0, abs=1e-9) and float(schedule(2)) > 1e-4


def test_captions_that_are_cut_are_said_so(tiny_config, tmp_path):
    built = built_of(config.load(tiny_config, {"train.devices": "1", "text.context": "8"})[0], tmp_path)
    assert any("are cut to text.context, 8; a larger one reads them whole" in note for note in built.notes)


def test_an_evaluation_that_was_interrupted_is_made_up_for(tiny_config, tmp_path, monkeypatch, finished):
    """SIGTERM in the first photo of the last evaluation: saved, stopped, and evaluated when run again."""

    whole = lit_jax.evaluation.zeroshot.Evaluator.__call__
    calls = []

    def interrupted_at_last(self, params, *, interrupted):
        calls.append(1)
        if len(calls) == 3:
            raise lit_jax.evaluation.zeroshot.Interrupted
        return whole(self, params, interrupted=interrupted)

    monkeypatch.setattr(lit_jax.evaluation.zeroshot.Evaluator, "__call__", interrupted_at_last)
    with pytest.raises(loop.Stopped, match="after step 11"):
        run(tiny_config, tmp_path / "run", train__devices=1)
    assert run(tiny_config, tmp_path / "run", train__devices=1) == finished[1]
    assert scores(tmp_path / "run") == scores(finished[0])  # so the best is the same too
    made = len(calls)
    assert run(tiny_config, tmp_path / "run", train__devices=1) == finished[1]
    assert len(calls) == made  # nothing is owed any more


def scores(workdir):
    """What decides the best checkpoint, and what each says of its own evaluation."""
    manager = checkpoint.open_manager(workdir / "checkpoints", read_only=True)
    found = {}
    for step in manager.all_steps():
        about = checkpoint.read_about(manager, step)
        found[step] = (manager.metrics(step), about.evaluated, about.results)
    return found


def test_the_figures_that_are_printed_are_those_of_the_checkpoint_that_is_used(finished, tiny_config, tmp_path, capsys):
    """A run whose best checkpoint is not its last one."""
    from lit_jax import evaluate

    shutil.copytree(finished[0], tmp_path / "run")
    steps = checkpoint.saved_steps(tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / f"step_{steps[0]}" / "metrics" / "metrics").write_text('{"best": 2.0}')
    about = tmp_path / "run" / "checkpoints" / f"step_{steps[0]}" / "about" / "metadata"
    said = json.loads(about.read_text())
    said["results"]["seen"]["top1"] = 0.875  # the tiny run's figures hardly move
    about.write_text(json.dumps(files.sealed({**said, "score": 2.0})))
    before = scores(tmp_path / "run")[steps[0]][2]
    got = run(tiny_config, tmp_path / "run", train__devices=1)
    said = capsys.readouterr().out
    assert got["best"]["step"] == steps[0] < got["step"] == steps[-1] and got["best"]["results"] == before
    assert {name: got[name] for name in before} == {name: finished[1][name] for name in before}  # of the last, as ever
    assert before["seen"] != finished[1]["seen"]
    table = said.partition(f"step {steps[0]}, the best checkpoint")[2].partition("best checkpoint: step")[0]
    for name in ("seen", "heldout"):
        assert f"{100 * before[name]['top1']:.2f} %" in next(line for line in table.splitlines() if f" {name} " in line)
    assert (
        f"the last step, {steps[-1]}, which --step=latest takes: top-1 seen {100 * got['seen']['top1']:.2f} %" in said
    )
    evaluate.main([f"--checkpoint={tmp_path / 'run'}", "--split=heldout", "--no-page"])
    assert capsys.readouterr().out.startswith(f"step {steps[0]} (best)")


def test_a_run_that_resumes_holds_one_state_on_its_devices(finished, tiny_config, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    loaded, _ = config.load(tiny_config, {"train.devices": "1"})
    before = live_bytes()
    built = built_of(loaded, tmp_path / "run")
    manager = checkpoint.open_manager(tmp_path / "run" / "checkpoints")
    state = loop._resumed(built, manager)
    own = sum(x.nbytes for x in jax.tree.leaves((state, built.locked)))
    assert own <= live_bytes() - before < 1.2 * own  # the rest: batch-independent constants


def live_bytes():
    gc.collect()
    return sum(x.nbytes for x in jax.live_arrays())


@pytest.mark.slow
def test_a_run_without_any_photos_to_evaluate_ends_well(tiny_config, tmp_path, capsys):
    options = {"data__seen_split": "", "data__heldout_split": "", "train__epochs": 1, "train__devices": 1}
    results = run(tiny_config, tmp_path / "run", **options)
    assert results["step"] == 4 and results["best"] == {"step": 4, "chosen_on": "", "results": {}}
    assert "no split to evaluate" in capsys.readouterr().out


def test_species_of_several_rows_are_candidates_once(records, tiny_config):
    loaded, _ = config.load(tiny_config)
    seen, held = records.classes_in("train"), records.classes_in("heldout")
    species_of = {i: i for i in (*seen, *held)} | {seen[1]: seen[0], held[3]: held[2]}
    tasks = {task.name: task.class_ids for task in experiment.training_tasks(loaded.data, records, species_of)}
    assert tasks["seen"] == tuple(i for i in seen if i != seen[1])
    assert set(tasks["heldout"]) == set(held) - {held[3]}
    assert set(tasks["heldout_among_all"]) == {*tasks["seen"], *tasks["heldout"]}


def test_float16_without_any_finite_gradient_is_given_up(tiny_config, tmp_path, monkeypatch):
    import jax.numpy as jnp

    monkeypatch.setattr(loop, "PATIENCE", 3)
    monkeypatch.setattr(
        experiment, "optimizer_and_step", experiment.optimizer_and_step.__wrapped__
    )  # a step of its own
    monkeypatch.setattr("lit_jax.training.train_step.all_finite", lambda tree: jnp.bool_(False))
    with pytest.raises(UserError, match="gradient: found 3 overflows in a row at step 3"):
        run(tiny_config, tmp_path / "run", train__devices=1, train__precision="float16", text__distinct="false")


def test_prompt_templates_from_a_file_change_the_prompts(tiny_config, tmp_path):
    (tmp_path / "templates.txt").write_text("# mine\nan old engraving of a {}\na {name}\n")
    loaded, _ = config.load(tiny_config, {"evaluation.templates": str(tmp_path / "templates.txt")})
    built = built_of(loaded, tmp_path / "run")
    texts = next(iter(built.evaluator.class_prompts.values()))
    assert len(texts) == 2 and texts[0].startswith("an old engraving of a ")


def test_marks_and_their_examples():
    assert doctest.testmod(loop).failed == 0
    assert loop.marks(0.5, 10, 20) == {5, 10, 15, 20}
    assert loop.marks(1, 10, 25) == {10, 20, 25}
    assert loop.marks(100, 10, 25) == {25}


# As a command.


def killed_after(count, arguments, workdir):
    """Kills the command once its log holds `count` lines of loss.

    A process with the flags of this one finds its compiled step.
    """
    process = forked.start("lit_jax.main", arguments, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 240
    while len(losses(workdir)) < count and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    output = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL and len(losses(workdir)) >= count, output


def test_sigterm_saves_and_a_kill_loses_nothing_that_matters(finished, tiny_config, tmp_path, capsys, monkeypatch):
    """The command is told to stop in its fifth step, then killed in its second evaluation, then run to the end."""
    arguments = [f"--config={tiny_config}", f"--workdir={tmp_path / 'run'}", "--config.train.devices=1"]
    steps = loop._steps

    def told(*given):
        for number, step in enumerate(steps(*given), start=1):
            if number == 5:
                signal.raise_signal(signal.SIGTERM)
            yield step

    with monkeypatch.context() as patched, pytest.raises(SystemExit) as stopped:
        patched.setattr(loop, "_steps", told)
        main(arguments)
    assert stopped.value.code == 143 and capsys.readouterr().err.startswith("stopped as asked after step 5;")
    assert len(losses(tmp_path / "run")) == 5
    killed_after(7, arguments, tmp_path / "run")
    assert not (tmp_path / "run" / "results.json").exists()
    assert run(tiny_config, tmp_path / "run", train__devices=1) == finished[1]
    assert "resuming after step 5" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == finished[1]
    assert losses(tmp_path / "run") == losses(finished[0])  # to the last bit

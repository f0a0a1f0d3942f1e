"""Export of a run: the folder gives the run's numbers with nothing else there, says what it is, and is whole or absent."""

import dataclasses
import json
import pathlib
import re
import runpy
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import data_prep.embeddings
import lit_jax
from lit_jax import config, evaluate, export, models
from lit_jax.base import folders
from lit_jax.base.files import digest
from lit_jax.embed import embed
from lit_jax.embedding.to_store import Making
from lit_jax.errors import UserError
from lit_jax.evaluation import tables
from lit_jax.main import train
from lit_jax.models import weight_files, weights
from lit_jax.models.joint import load_joint
from lit_jax.models.names import text as text_names
from lit_jax.models.names import vit
from lit_jax.trained import loading, model_card, open_clip_layout
from tests.golden import export_cases


@pytest.fixture(scope="module")
def run(finished):
    return finished


@pytest.fixture(scope="module")
def model(run, tmp_path_factory):
    """The run as a folder of its own."""
    out = tmp_path_factory.mktemp("models") / "birds"
    command(export, "--checkpoint", run[0], "--out", out)
    return out


@pytest.fixture
def copied(model, tmp_path):
    return pathlib.Path(shutil.copytree(model, tmp_path / "birds"))


def command(module, *arguments):
    module.main([str(argument) for argument in arguments])


def refused(capsys, module, *arguments):
    """The one line of a command that stops."""
    with pytest.raises(SystemExit) as caught:
        command(module, *arguments)
    error = capsys.readouterr().err
    assert caught.value.code == 2 and error.count("\n") == 1
    return error


def same(tree, other):
    tree, other = weights.leaves(tree), weights.leaves(other)
    assert {name: np.shape(leaf) for name, leaf in tree.items()} == {
        name: np.shape(leaf) for name, leaf in other.items()
    }
    return all(np.array_equal(np.asarray(leaf), np.asarray(other[name])) for name, leaf in tree.items())


def test_what_comes_back_is_bit_equal(run, model):
    before, after = loading.load(run[0]), loading.load_whole(model)
    assert after.about == before.about and after.step == before.step and after.about.tokenizer
    assert same(after.params, before.params) and set(after.params) == {"image", "text", "projection", "logit_scale"}
    assert all(np.asarray(leaf).dtype == np.float32 for leaf in jax.tree.leaves(after.params))
    assert (model / "classes.csv").read_text() == before.about.class_table
    assert (model / "tokenizer.model").read_bytes() == before.about.tokenizer
    differing = {name for name, value in config.flattened(after.config).items()
                 if value != config.flattened(before.config)[name]}  # fmt: skip
    assert differing == {"image.weights"}  # there is nothing to look for


def test_a_model_exported_again_is_the_same(model, tmp_path):
    command(export, "--checkpoint", model, "--out", tmp_path / "birds")
    assert {path.name for path in model.iterdir()} == {path.name for path in (tmp_path / "birds").iterdir()}
    for path in model.iterdir():
        assert path.read_bytes() == (tmp_path / "birds" / path.name).read_bytes()


def remembered(model, source):
    """Has the folder of a model remember `source` as the weights of its image tower."""
    document = json.loads((model / "model.json").read_text())
    assert document["about"]["config"]["image.weights"]
    document["about"]["config"]["image.weights"] = str(source)
    del document["digest"]
    (model / "model.json").write_text(json.dumps({**document, "digest": digest(document)}))


def test_it_gives_the_runs_numbers_after_run_and_weights_are_gone(run, tower_file, records, tmp_path):
    for name in ("run", "tower.npz"):
        source = run[0] if name == "run" else tower_file
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    given = ("--image-weights", tmp_path / "tower.npz")
    command(evaluate, "--checkpoint", tmp_path / "run", *given, "--split", "heldout", "--out", tmp_path / "before.json")
    command(export, "--checkpoint", tmp_path / "run", *given, "--out", tmp_path / "model")
    remembered(tmp_path / "model", tmp_path / "tower.npz")
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "tower.npz").unlink()
    command(evaluate, "--checkpoint", tmp_path / "model", "--records", records.directory, "--split", "heldout",
            "--out", tmp_path / "after.json")  # fmt: skip
    assert json.loads((tmp_path / "after.json").read_text()) == json.loads((tmp_path / "before.json").read_text())


def test_weights_on_the_hub_are_not_asked_for(copied, monkeypatch):
    remembered(copied, "hf-hub:someone/tower")

    def asked(source):
        raise AssertionError(source)

    monkeypatch.setattr(weight_files, "hub_folder", asked)
    assert "image" in loading.load(copied).params


def change(path, old, new):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda at: (at / "model.safetensors").write_bytes((at / "model.safetensors").read_bytes()[:-7]),
         "model.safetensors: found another content, expected it as it was written; copy the folder again"),
        (lambda at: change(at / "classes.csv", b"id", b"ID"), "classes.csv: found another content"),
        (lambda at: (at / "tokenizer.model").unlink(), "tokenizer.model: found no such file"),
        (lambda at: change(at / "model.json", b'"step": ', b'"step": 1'), "model.json: found another content"),
        (lambda at: change(at / "model.json", b'"version": 1', b'"version": 2'),
         "found model format 2, expected at most 1; update lit_jax"),
        (lambda at: (at / "model.json").write_bytes(b'{"form'), "model.json: found no whole JSON"),
        (lambda at: (at / "model.json").write_bytes(b'{"a": 1}'), "model.json: found another kind of file"),
        (lambda at: at.rename(at.with_name("birds.incomplete")), "found a half-written model, expected a whole one"),
        (shutil.rmtree, "--checkpoint: found no folder"),
    ],
    ids=lambda value: value.split(";")[0][:40].replace(" ", "_") if isinstance(value, str) else "",
)  # fmt: skip
def test_a_folder_that_is_not_whole_is_refused_in_one_line(copied, capsys, damage, message):
    damage(copied)
    assert message in refused(capsys, evaluate, "--checkpoint", copied, "--split", "heldout")
    assert message in refused(capsys, export, "--checkpoint", copied, "--out", copied.with_name("again"))
    assert not copied.with_name("again").exists()


def test_a_card_may_be_edited(copied):
    (copied / "README.md").write_text("Mine.")
    assert loading.load(copied).step


def test_nothing_half_written_gets_the_name(run, tmp_path, capsys, monkeypatch):
    (tmp_path / "there").mkdir()
    assert "found something there already" in refused(
        capsys, export, "--checkpoint", run[0], "--out", tmp_path / "there"
    )
    (tmp_path / "new.incomplete").mkdir()
    (tmp_path / "new.incomplete" / "left over").write_text("from a kill")
    (tmp_path / "new.incomplete" / folders.MARK).touch()
    monkeypatch.setattr(model_card, "text", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command(export, "--checkpoint", run[0], "--out", tmp_path / "new")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    error = refused(capsys, export, "--checkpoint", run[0], "--out", tmp_path / "new", "--format", "open_clip")
    assert "text.pool: found end, not causal" in error and [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "RUN", "--step", "9999"], "--step: found '9999'"),
        (["--checkpoint", "RUN", "--config.image.size=8"], "--config.image.size: found it with --checkpoint"),
        (["--checkpoint", "RUN", "--hub-name", "a/b"], "--hub-name: found it with format lit_jax"),
        (["--checkpoint", "MODEL", "--image-weights", "x"], "--image-weights: found it with a model's folder"),
        (["--config", "CONFIG", "--image-weights", "x"], "set image.weights in the config"),
        (
            ["--config", "CONFIG"],
            "train.locks: found a tower that starts from scratch (Lu), expected published weights of both",
        ),
        (["--config", "CONFIG", "--config.train.locks=LL"], "text.weights: found none"),
        (["--config", "CONFIG", "--config.train.locks=LL", "--config.text.weights=x"], "model.weights: found none"),
        (["--config", "CONFIG", "--config.image.tower=given"], "image.tower: found given"),
    ],
    ids=lambda value: value.split(":")[0] if isinstance(value, str) else "",
)
def test_arguments_that_do_not_go_together(run, model, tiny_config, tmp_path, capsys, arguments, message):
    places = {"RUN": run[0], "MODEL": model, "CONFIG": tiny_config}
    error = refused(capsys, export, *(places.get(word, word) for word in arguments), "--out", tmp_path / "new")
    assert message in error and not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def by_store(tiny_config, tmp_path_factory):
    """A run from a store, which has never seen the tower's weights but knows where they are."""
    folder = tmp_path_factory.mktemp("by_store")
    loaded, _ = config.load(tiny_config, {"train.devices": "1"})
    stored = embed(loaded, folder / "store", Making(dtype="float32", batch_size=16, devices=1))
    overrides = {"input": "store", "data.store": str(stored.directory), "train.devices": "1", "train.epochs": "1"}
    train(config.load(tiny_config, overrides)[0], folder / "run")
    return folder


def test_a_run_from_a_store_is_exported_with_its_tower(by_store, records, tmp_path, capsys):
    command(export, "--checkpoint", by_store / "run", "--out", tmp_path / "model")
    found = loading.load(tmp_path / "model")
    assert "image" not in found.params and "image" in loading.load_whole(tmp_path / "model").params
    shared = ("--checkpoint", tmp_path / "model", "--split", "heldout", "--out")
    command(evaluate, *shared, tmp_path / "a.json", "--records", records.directory)
    command(evaluate, *shared, tmp_path / "b.json", "--store", by_store / "store")
    a, b = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert a["top1"] == b["top1"] and (a["store"], b["store"] != "") == ("", True)
    capsys.readouterr()
    error = refused(
        capsys, export, "--checkpoint", by_store / "run", "--image-weights", "no.npz", "--out", tmp_path / "n"
    )
    assert "no.npz: found no such file" in error


def test_a_run_that_knows_no_weights_asks_for_them(by_store, tower_file, tiny_config, tmp_path, capsys):
    overrides = {"input": "store", "data.store": str(by_store / "store"), "train.devices": "1", "train.epochs": "1"}
    train(config.load(tiny_config, {**overrides, "image.weights": ""})[0], tmp_path / "run")
    arguments = ("--checkpoint", tmp_path / "run", "--out", tmp_path / "model")
    assert "give the file with --image-weights" in refused(capsys, export, *arguments)
    command(export, *arguments, "--image-weights", tower_file)
    assert "image" in loading.load_whole(tmp_path / "model").params


@pytest.fixture(scope="module")
def on_given(field_guide_folder, tmp_path_factory):
    """A run on embeddings that were computed elsewhere."""

    folder = tmp_path_factory.mktemp("given")
    lines = (field_guide_folder / "splits.csv").read_text().splitlines()
    np.save(folder / "e.npy", np.random.default_rng(0).normal(size=(len(lines) - 1, 12)).astype(np.float32))
    data_prep.embeddings.main(["--embeddings", str(folder / "e.npy"), "--ids", str(field_guide_folder / "splits.csv"), "--classes",
                     str(field_guide_folder / "classes.csv"), "--out", str(folder / "store"), "--vocab-size", "400"])  # fmt: skip
    small = {"text.context": "24", "text.width": "16", "text.depth": "1", "text.heads": "2", "model.embed_dim": "8"}
    path = folder / "given.py"
    path.write_text("from lit_jax.config import defaults\n\n\ndef get_config():\n    return defaults()\n")
    loaded, _ = config.load(path, {
        **small, "input": "store", "data.store": str(folder / "store"), "image.tower": "given", "image.width": "12",
        "train.batch_size": "16", "train.epochs": "1", "train.devices": "1", "evaluation.batch_size": "16",
    })  # fmt: skip
    train(loaded, folder / "run")
    return folder


def test_a_run_on_given_embeddings_has_no_tower(on_given, records, tmp_path, capsys, monkeypatch):
    command(evaluate, "--checkpoint", on_given / "run", "--split", "heldout", "--out", tmp_path / "a.json")
    command(export, "--checkpoint", on_given / "run", "--out", tmp_path / "model")
    assert "no image tower" in capsys.readouterr().out
    command(evaluate, "--checkpoint", tmp_path / "model", "--split", "heldout", "--store", on_given / "store",
            "--out", tmp_path / "b.json")  # fmt: skip
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()
    assert "image" not in loading.load_whole(tmp_path / "model").params
    said = (tmp_path / "model" / "README.md").read_text()
    assert "No image tower: the model reads embeddings of 12 numbers" in said and "photo.jpg" not in said
    np.save(tmp_path / "features.npy", np.ones((1, 12), np.float32))
    assert run_card(said, tmp_path, capsys, monkeypatch)
    found = refused(capsys, evaluate, "--checkpoint", tmp_path / "model", "--records", records.directory)
    assert "found a model of embeddings computed elsewhere" in found
    found = refused(capsys, export, "--checkpoint", on_given / "run", "--out", tmp_path / "n", "--format", "open_clip")
    assert "given embeddings" in found


def run_card(text, folder, capsys, monkeypatch):
    """What the code of a card prints in the folder that holds the model."""
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    (folder / "try.py").write_text(code)
    monkeypatch.chdir(folder)
    capsys.readouterr()
    runpy.run_path("try.py")
    return capsys.readouterr().out.strip()


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "TIFF"])
def test_the_cards_snippet_reads_a_photo_as_a_conversion_does(model, copied, rng, monkeypatch, form):
    """A photo that a phone turned by EXIF, and one of another format, give the pixels of the upright one."""
    stored = Image.fromarray(rng.integers(0, 255, (3, 4, 3), np.uint8)).resize((40, 30))
    turned = Image.Exif()
    turned[0x0112] = 6  # the stored picture is to be turned by a quarter, clockwise
    stored.save(copied.parent / "photo.jpg", form, exif=turned, **({} if form == "TIFF" else {"quality": 95}))
    with Image.open(copied.parent / "photo.jpg") as image:
        # Pillow itself turns a TIFF, which loses nothing.
        upright = Image.fromarray(np.rot90(np.asarray(stored if form == "TIFF" else image.convert("RGB")), -1))
    monkeypatch.chdir(copied.parent)
    (code,) = re.findall(r"```python\n(.*?)```", (model / "README.md").read_text(), re.S)
    (copied.parent / "try.py").write_text(code)
    got = runpy.run_path("try.py")["pixels"]
    upright.save(copied.parent / "photo.jpg", "PNG")
    want = runpy.run_path("try.py")["pixels"]
    np.testing.assert_array_equal(got, want)
    assert want.shape == (16, 16, 3) and np.ptp(want) > 50


def front_matter(text):
    """The card's head, read by YAML where that is installed."""
    yaml = pytest.importorskip("yaml")
    _, head, _ = text.split("---\n", 2)
    return yaml.safe_load(head)


def test_the_card_says_what_a_stranger_needs(run, model, records, copied, capsys, monkeypatch):
    text = (model / "README.md").read_text()
    results = run[1]
    seen = loading.load(model).about.results["seen"]
    for line in (
        "8 classes had training photos", "All 12 classes", f"`{records.templates[0]}`", "image tower, `vit`, locked",
        "text tower, `transformer`, trained from scratch", "`tower.npz`", "shorter side to 16 pixels (bicubic)",
        "mean 0.5/0.5/0.5", f"| {seen['images']} | {seen['candidates']} | {100 * seen['top1']:.2f} %", "softmax loss",
        "it states no licence of its own", "## Limits",
    ):  # fmt: skip
        assert line in text, line
    assert results["seen"]["candidates"] == 8 and "found None" not in text and str(run[0].parent) not in text
    photo = next(pathlib.Path(records.directory).parents[1].rglob("photos*/**/*.jpg"))
    shutil.copy(photo, copied.parent / "photo.jpg")
    captions = re.search(r"captions = (\[.*\])", text)[1]
    assert run_card(text, copied.parent, capsys, monkeypatch) in captions
    (line,) = re.findall(r"```bash\npython -m lit_jax.evaluate (.*)\n```", text)
    command(evaluate, *line.replace("RECORDS", str(records.directory)).split())
    assert (copied / "evaluation-validation.json").is_file()
    head = front_matter(text)
    assert head["library_name"] == "lit_jax" and head["pipeline_tag"] == "zero-shot-image-classification"
    assert "base_model" not in head and all(isinstance(tag, str) for tag in head["tags"])


def test_the_card_of_a_checkpoint_does_not_take_it_for_the_whole_run(run):
    """The best checkpoint of a run of three epochs may be that of the first."""
    about = dataclasses.replace(loading.load(run[0], step="latest").about, evaluated=4)
    facts = model_card.Facts("birds", {})
    first, last = (" ".join(model_card.text(about, step, facts, None).split()) for step in (4, 7))
    assert f" ({tables.ends(about.results['seen'], 'top1')}) |" in first and "Ranges are 95 % intervals." in first
    assert "| – |" in first  # top-5 of the four that are held out
    assert "Measured by the run when it saved this model, with the captions below as prompts." in first
    assert "4 batches of 16 pairs, of a run set to 3 epochs, softmax loss" in first and "of the 4 batches" not in first
    assert "Measured by the run after 4 batches, 3 before it saved this model, with the captions" in last


def test_names_on_the_hub_are_told_and_quoted(model):
    found = loading.load(model)
    about = dataclasses.replace(
        found.about, config={**found.about.config, "image.tower": "vit_b16", "image.weights": "hf-hub:timm/b:x@main"}
    )
    text = model_card.text(about, 0, model_card.Facts("birds", {}), None)
    assert front_matter(text)["base_model"] == ["timm/b:x"] and "(https://huggingface.co/timm/b:x)" in text
    assert "before any training" in text and "under Apache-2.0" in text and "## Training" not in text


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A tiny whole model by open_clip's names in one folder, and a config that reads it."""
    folder = tmp_path_factory.mktemp("published") / "clip"
    folder.mkdir()
    tokenizer = export_cases.tokenizer(folder.parent)
    open_clip_layout._write_tokenizer(folder, tokenizer)
    _, towers, params = export_cases.build(export_cases.CASES["own"], tokenizer)
    weight_files.write_safetensors(folder / open_clip_layout.WEIGHTS, {
        **weights.named(params["image"], models.family(towers.image), vit.OPEN_CLIP, "visual."),
        **weights.named(params["text"], models.family(towers.text), text_names.OPEN_CLIP, "text."),
        "visual.proj": params["projection"]["kernel"], "logit_scale": params["logit_scale"],
    })  # fmt: skip
    wanted = {**export_cases.CASES["own"], "train.locks": "LL", "data.tokenizer": str(folder)}
    wanted |= {f"{section}.weights": str(folder) for section in ("image", "text", "model")}
    lines = [f"    config.{name} = {value!r}" for name, value in wanted.items()]
    path = folder.with_name("clip.py")
    head = ["from lit_jax.config import defaults", "", "", "def get_config():", "    config = defaults()"]
    path.write_text("\n".join([*head, *lines, "    return config", ""]))
    return path, params


def names_a_photo_by_labels(config):
    """The same towers from Python: they know no classes of their own."""
    model = lit_jax.load(config)
    (named,) = model.name(np.full((9, 7, 3), 99, np.uint8), ["a cat", "a dog"])
    assert {answer.name for answer in named.answers} == {"a cat", "a dog"}
    with pytest.raises(UserError, match="classes: found none, and none in the model"):
        model.choices()


@pytest.mark.parametrize("more", [(), ("--config.input=store",)], ids=["records", "store"])
def test_a_published_model_is_exported_as_it_is(published, records, tmp_path, more, capsys):
    path, params = published
    command(export, "--config", path, "--out", tmp_path / "clip", *more)
    found = loading.load_whole(tmp_path / "clip")
    joined = {**params, "projection": {**params["projection"], "bias": np.zeros(24, np.float32)}}
    assert same(found.params, joined) and found.step == 0 and not (tmp_path / "clip" / "classes.csv").exists()
    command(evaluate, "--checkpoint", tmp_path / "clip", "--records", records.directory, "--split", "heldout")
    got = json.loads((tmp_path / "clip" / "evaluation-heldout.json").read_text())
    assert (got["images"], got["candidates"]) == (28, 4)
    assert "before any training" in (tmp_path / "clip" / "README.md").read_text()
    if not more:
        names_a_photo_by_labels(path)
    error = refused(capsys, evaluate, "--checkpoint", tmp_path / "clip", "--split", "heldout")
    assert "data.records" in error or "data.store" in error or "records" in error


def test_a_published_model_goes_to_open_clip_too(published, tmp_path):
    command(
        export,
        "--config",
        published[0],
        "--out",
        tmp_path / "clip",
        "--format",
        "open_clip",
        "--hub-name",
        "me/clip",
    )
    document = json.loads((tmp_path / "clip" / open_clip_layout.CONFIG).read_text())
    assert document["model_cfg"]["text_cfg"]["hf_tokenizer_name"] == "me/clip"
    card_text = (tmp_path / "clip" / "README.md").read_text()
    assert front_matter(card_text)["library_name"] == "open_clip" and 'where = "local-dir:clip"' in card_text


def test_open_clip_reads_it_as_the_card_says(published, field_guide_folder, tmp_path, capsys, monkeypatch):
    pytest.importorskip("open_clip")
    command(export, "--config", published[0], "--out", tmp_path / "clip", "--format", "open_clip")
    shutil.copy(next(field_guide_folder.rglob("*.jpg")), tmp_path / "photo.jpg")
    assert run_card((tmp_path / "clip" / "README.md").read_text(), tmp_path, capsys, monkeypatch).startswith(
        "A photo of"
    )


LAYOUTS = {
    "open_clip": lambda kernel: {"visual.proj": kernel},
    "timm": lambda kernel: {"visual.head.proj.weight": kernel.T},
    "transformers": lambda kernel: {"visual_projection.weight": kernel.T},
    "LiT": lambda kernel: {"img/head/kernel": kernel, "img/head/bias": np.ones(24, np.float32)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_a_projection_is_read(tmp_path, rng, layout):
    kernel = rng.normal(size=(64, 24)).astype(np.float32)
    scale = {"t": np.float32([4.6])} if layout == "LiT" else {"logit_scale": np.float32(4.6)}
    np.savez(tmp_path / "model.npz", **LAYOUTS[layout](kernel), **scale)
    like = {"projection": {"kernel": kernel, "bias": kernel[0]}, "logit_scale": np.zeros(())}
    found = load_joint(str(tmp_path / "model.npz"), like)
    np.testing.assert_array_equal(found["projection"]["kernel"], kernel)
    np.testing.assert_array_equal(found["projection"]["bias"], np.full(24, float(layout == "LiT")))
    assert found["logit_scale"].shape == () and found["logit_scale"] == np.float32(4.6)

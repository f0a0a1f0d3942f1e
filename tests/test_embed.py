"""Embed once, train from the store: the same numbers as from photos, and nothing wrong is taken for right."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from lit_jax import config, models, settling
from lit_jax.base.sharding import make_mesh
from lit_jax.data import embedding_store, input_stream, record_batches
from lit_jax.data.epoch_order import set_aside
from lit_jax.data.images import Pictures
from lit_jax.embed import embed
from lit_jax.embedding import photo_embeddings, to_store
from lit_jax.embedding.to_store import Making
from lit_jax.errors import UserError
from lit_jax.evaluation import report
from lit_jax.main import train
from lit_jax.text.classes import read_class_table
from lit_jax.trained import loading
from lit_jax.training import checkpoint, loop, metrics_log
from tests.conftest import built_of

ROOT = pathlib.Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.usefixtures("undrawn")
MAKING = Making("float32", batch_size=16, shard_rows=20, devices=1)


def load(path, **overrides):
    return config.load(path, {name.replace("__", "."): str(value) for name, value in overrides.items()})[0]


def losses(workdir):
    return [record["loss"] for record in metrics_log.read_metrics(workdir / "metrics.jsonl") if "loss" in record]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def stored(tiny_config, tmp_path_factory):
    """The tiny records through the tiny tower, in shards of at most 20 rows."""
    return embed(load(tiny_config), tmp_path_factory.mktemp("embed") / "store", MAKING)


@pytest.fixture(scope="module")
def trained(stored, tiny_config, tmp_path_factory):
    """A run from the store on one device."""
    workdir = tmp_path_factory.mktemp("runs") / "stored"
    return workdir, train(load(tiny_config, input="store", data__store=stored.directory, train__devices=1), workdir)


def test_the_store_holds_what_the_tower_says_of_each_photo(stored, tiny_config, records):
    settled, _ = settling.settle_embedding(load(tiny_config))
    model, tower, _ = to_store.locked_tower(to_store.Frozen(settled.towers, settled.data), records)
    for split in ("train", "validation", "heldout"):
        whole = next(
            record_batches.evaluation_batches(records, split, batch_size=records.examples(split), pictures=Pictures(16))
        )
        want = models.image_features(model, tower, whole["image"])
        rows = embedding_store.Rows(stored, split)
        np.testing.assert_allclose(rows.whole()[:, 0], want, rtol=1e-4, atol=1e-5)
        assert rows.class_ids.tolist() == whole["class_id"].tolist()
    assert [len(stored.shards(s)) for s in ("train", "validation", "heldout")] == [3, 2, 2]
    assert stored.records == records.fingerprint and stored.record_lengths["train"] == (18, 19, 19)
    assert stored.templates == records.templates and stored.classes_in("heldout") == records.classes_in("heldout")
    assert len(set(embedding_store.image_ids(stored, "train"))) == 56 and embedding_store.image_ids(stored, "train")[
        0
    ].endswith(".jpg")


@pytest.mark.parametrize(
    ("devices", "place"),
    # Several devices: two hosts of two devices each train from the store by default.
    [(1, "device"), (1, "host"), pytest.param(8, "auto", marks=pytest.mark.slow)],
)
def test_photos_and_their_store_give_the_same_run(stored, trained, tiny_config, tmp_path, devices, place, request):
    """One view, no augmentation: every loss and accuracy, to float32's rounding."""
    if devices == 1 and place == "device":
        got = train(load(tiny_config, data__crop="centre", train__devices=1), tmp_path / "run")
    else:
        overrides = {"input": "store", "data__store": stored.directory, "data__store_on": place}
        got = train(load(tiny_config, train__devices=devices, **overrides), tmp_path / "run")
    workdir, want = trained
    rel = 1e-5 if devices == 1 else 1e-3
    assert losses(tmp_path / "run") == pytest.approx(losses(workdir), rel=rel) and len(losses(workdir)) == 11
    if devices == 1:
        assert {task: got[task] for task in ("seen", "heldout")} == {task: want[task] for task in ("seen", "heldout")}


def test_a_feed_starts_anywhere_and_reads_each_photo_once_an_epoch(stored, tiny_config):
    built = built_of(load(tiny_config, input="store", data__store=stored.directory, train__devices=1), ROOT)
    stream = built.feed(0)
    whole = [next(stream) for _ in range(10)]
    later = built.feed(4)
    for batch in whole[4:]:
        again = next(later)
        assert all(np.array_equal(again[name], batch[name]) for name in batch)
    rows = input_stream._picks((18, 19, 19), record_batches.Batches(16, seed=0), first=0)
    epochs = np.concatenate([next(rows)[0] for _ in range(7)])
    assert (
        sorted(epochs[:56]) == sorted(epochs[56:]) == list(range(56)) and epochs[:56].tolist() != epochs[56:].tolist()
    )


def test_the_best_may_be_chosen_on_training_photos_set_aside(stored, tiny_config, tmp_path):
    options = {"input": "store", "data__store": stored.directory, "data__select_fraction": 0.25, "train__devices": 1}
    loaded = load(tiny_config, train__epochs=1.2, optimizer__warmup_epochs=0, **options)
    built = built_of(loaded, tmp_path)
    assert built.length == (42 / 16, 4)
    aside = set_aside(56, 0.25, seed=loaded.seed)
    rows = embedding_store.Rows(stored, "train")
    photos = list(built.evaluator.photos(photo_embeddings.ASIDE, {}))
    found = np.concatenate([np.asarray(photo.features)[photo.mask] for photo in photos])
    np.testing.assert_array_equal(found, rows.take(np.flatnonzero(aside)))
    picks = input_stream._picks((18, 19, 19), record_batches.Batches(14, seed=0, aside=aside), first=0)
    epoch = np.concatenate([next(picks)[0] for _ in range(3)])
    assert sorted(epoch) == np.flatnonzero(~aside).tolist()
    results = train(loaded, tmp_path / "run")
    assert results["set_aside"]["images"] == 14 and results["set_aside"]["candidates"] == 8
    assert results["best"]["chosen_on"] == "set aside"
    manager = checkpoint.open_manager(tmp_path / "run" / "checkpoints", read_only=True)
    for step in manager.all_steps():
        assert manager.metrics(step) == {"best": checkpoint.read_about(manager, step).results["set_aside"]["top1"]}


def test_a_broken_run_goes_on_as_if_it_had_not_stopped(stored, trained, tiny_config, tmp_path, monkeypatch):
    loaded = load(
        tiny_config, input="store", data__store=stored.directory, train__devices=1, checkpoint__every_epochs=0.5
    )
    steps = loop._steps

    def broken(*arguments):
        for number, step in enumerate(steps(*arguments)):
            if number == 6:
                raise KeyboardInterrupt
            yield step

    monkeypatch.setattr(loop, "_steps", broken)
    with pytest.raises(KeyboardInterrupt):
        train(loaded, tmp_path / "run")
    monkeypatch.setattr(loop, "_steps", steps)
    shutil.copytree(tmp_path / "run", tmp_path / "less")
    assert train(loaded, tmp_path / "run") == trained[1]
    assert losses(tmp_path / "run") == losses(trained[0])  # to the last bit
    # After it ran out of memory: what changes memory and no result may be changed.
    leaner = {"text__remat": "true", "text__distinct": "false", "text__bucket": 0, "model__loss_block": 4}
    got = train(
        load(tiny_config, input="store", data__store=stored.directory, train__devices=1, **leaner), tmp_path / "less"
    )
    assert losses(tmp_path / "less") == pytest.approx(losses(trained[0]), rel=1e-4)
    assert {task: got[task] for task in ("seen", "heldout")} == {task: trained[1][task] for task in ("seen", "heldout")}
    with pytest.raises(UserError, match=r"text.distinct: found false with model.same_caption masked"):
        built_of(load(tiny_config, input="store", data__store=stored.directory, train__devices=1,
                              model__same_caption="masked", **leaner), ROOT)  # fmt: skip


def test_a_stopped_embedding_is_finished_with_equal_bytes(stored, tiny_config, tmp_path, monkeypatch):
    write, written = embedding_store.write_shard, []

    def dies(*arguments, **options):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(arguments[1])
        return write(*arguments, **options)

    monkeypatch.setattr(embedding_store, "write_shard", dies)
    with pytest.raises(KeyboardInterrupt):
        embed(load(tiny_config), tmp_path / "store", MAKING)
    with pytest.raises(
        UserError, match="found only store.incomplete, expected a complete store; run the lit_jax.embed"
    ):
        embedding_store.open_store(tmp_path / "store")
    with pytest.raises(
        UserError, match=r"found an unfinished store with another tower, views \(1\), expected the same"
    ):
        embed(load(tiny_config), tmp_path / "store", dataclasses.replace(MAKING, views=2))
    again = []
    monkeypatch.setattr(embedding_store, "write_shard", lambda *a, **o: (again.append(a[1]), write(*a, **o))[1])
    embed(load(tiny_config), tmp_path / "store", MAKING)
    assert len(again) == 4 and not set(again) & set(written)
    assert files(tmp_path / "store") == files(stored.directory)


def test_two_embeddings_do_not_share_a_folder(tiny_config, tmp_path, monkeypatch):
    """Refused before a weight is read; a process that is killed lets go of the folder."""
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "store.incomplete").mkdir()
    handle = os.open(tmp_path / "store.incomplete", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with monkeypatch.context() as patched:
        patched.setattr(to_store, "locked_tower", lambda *_: pytest.fail("weights were read"))
        for restart in (False, True):
            with pytest.raises(UserError, match=r"store.incomplete: found another embedding at work in it, expected"):
                embed(load(tiny_config), tmp_path / "store", MAKING, restart=restart)
    os.close(handle)

    def locked_out(*_, **__):
        with pytest.raises(UserError, match="found another embedding at work in it"):
            embed(load(tiny_config), tmp_path / "store", MAKING, restart=True)
        raise UserError("seen")

    for part in (
        "locked_tower",
        "_Through",
    ):  # from the beginning on, and not only until an earlier one is cleared away
        with monkeypatch.context() as patched, pytest.raises(UserError, match="seen"):
            patched.setattr(to_store, part, locked_out)
            embed(load(tiny_config), tmp_path / "store", MAKING, restart=True)
    assert (tmp_path / "store.incomplete" / embedding_store.PLAN).exists()


def test_what_stands_beside_the_weights_counts_also_where_training_reads_the_store(tiny_config, tmp_path, monkeypatch):
    (tmp_path / "model.npz").write_bytes(b"")
    (tmp_path / "config.json").write_text('{"pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "crop_pct": 0.8}}')
    seen = []
    monkeypatch.setattr(to_store, "_embed", lambda frozen, *_, **__: seen.append(frozen.towers.image))
    for source in ("records", "store"):
        embed(load(tiny_config, image__weights=tmp_path, input=source), tmp_path / "store")
    assert [(image.mean, image.crop_fraction) for image in seen] == [((0.1, 0.2, 0.3), 0.8)] * 2


def test_embedding_again_does_nothing_and_other_options_are_refused(stored, tiny_config):
    before = files(stored.directory)
    assert embed(load(tiny_config), stored.directory, MAKING) == stored
    with pytest.raises(
        UserError, match=r"found a store of other dtype \(float32 there, float16 asked for\), expected the same"
    ):
        embed(load(tiny_config), stored.directory, dataclasses.replace(MAKING, dtype="float16"))
    with pytest.raises(UserError, match=r"found a store of other views \(1 there, 2 asked for\), expected the same"):
        embed(load(tiny_config), stored.directory, dataclasses.replace(MAKING, views=2))
    with pytest.raises(UserError, match="found a store of other tower or crops, expected the same"):
        embed(load(tiny_config, image__mean="0.4,0.4,0.4"), stored.directory, MAKING)
    assert files(stored.directory) == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"image__tower": "given"}, "image.tower: found given, expected a tower to run"),
        (
            {"train__locks": "uu", "image__weights": ""},
            r"found an image tower that is trained \(uu\), expected a locked one to embed with.*set train.locks to Lu, LL or LU",
        ),
        ({"image__weights": ""}, "image.weights: found nothing, expected a file of pre-trained weights"),
        ({"data__records": "nowhere"}, "nowhere: found no such folder, expected a record set"),
    ],
)
def test_a_tower_that_cannot_be_run_once_is_refused(tiny_config, tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        embed(load(tiny_config, **overrides), tmp_path / "store")
    assert not list(tmp_path.iterdir())


def test_views_are_the_plain_photo_and_crops(stored, tiny_config, tmp_path):
    options = {"data__crop_scale": "0.2,0.5", "data__flip": "true"}
    made = embed(load(tiny_config, **options), tmp_path / "store", dataclasses.replace(MAKING, devices=8, views=3))
    assert made.views == {"train": 3, "validation": 1, "heldout": 1}
    found, plain = embedding_store.Rows(made, "train").whole(), embedding_store.Rows(stored, "train").whole()
    np.testing.assert_allclose(found[:, 0], plain[:, 0], rtol=1e-4, atol=1e-5)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (np.abs(found[:, one] - found[:, other]).max(-1) > 1e-3).all()
    run = {"input": "store", "data__store": made.directory, "train__devices": 1}
    built = built_of(load(tiny_config, **run, **options), tmp_path)
    feature = np.concatenate(
        [np.asarray(batch["features"]) for batch, _ in zip(built.feed(0), range(20), strict=False)]
    )
    drawn = {int(np.argwhere((found == row).all(-1))[0, 1]) for row in feature}
    assert drawn == {0, 1, 2}
    with pytest.raises(UserError, match="found data.crop_scale .0.2, 0.5., expected .0.9, 1.0. as in the config"):
        built_of(load(tiny_config, **run), tmp_path)


def test_a_store_of_photos_that_were_halved_is_one_of_its_own(stored, tiny_config, tmp_path):
    shrink = {"data__shrink_decoding": "true", "data__crop": "centre"}
    made = embed(load(tiny_config, **shrink), tmp_path / "store", MAKING)
    found, exact = (embedding_store.Rows(one, "train").whole() for one in (made, stored))
    assert 0 < np.abs(found - exact).max() < np.abs(exact).max()
    assert "data.shrink_decoding" not in stored.tower["options"] and made.tower["options"]["data.crop"] == "centre"
    run = {"input": "store", "train__devices": 1}
    built_of(load(tiny_config, **run, **shrink, data__store=made.directory), tmp_path)
    for store, options, message in (
        (made, {"data__crop": "centre"}, "found data.shrink_decoding True, expected False as in the config"),
        (made, {**shrink, "data__crop_scale": "0.5,1"}, r"found data.crop_scale \[0.9, 1.0\], expected \[0.5, 1.0\]"),
        (stored, shrink, "found data.shrink_decoding False, expected True as in the config; embed again"),
    ):
        with pytest.raises(UserError, match=message):
            built_of(load(tiny_config, **run, **options, data__store=store.directory), tmp_path)
    with pytest.raises(UserError, match="tower or crops"):
        embed(load(tiny_config), tmp_path / "store", MAKING)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"image__mean": "0.4,0.5,0.5"}, r"found image.mean \[0.5, 0.5, 0.5\], expected \[0.4, 0.5, 0.5\]"),
        ({"image__depth": 2}, "found image.depth 1, expected 2 as in the config; embed again"),
        ({"image__tower": "given"}, "found embeddings of tower vit, expected image.tower, given"),
        (
            {"train__locks": "uu", "image__weights": ""},
            r"an image tower that is trained \(uu\), expected a locked one with input .store.",
        ),
        ({"data__store": "nowhere"}, "nowhere: found no such folder, expected an embedding store; make it with"),
        ({"data__train_split": "trian"}, "data.train_split: found 'trian', expected one of"),
    ],
)
def test_a_store_that_does_not_fit_is_refused_in_one_line(stored, tiny_config, tmp_path, overrides, message):
    options = {"input": "store", "data__store": stored.directory, "train__devices": 1, **overrides}
    with pytest.raises(UserError, match=message) as caught:
        train(load(tiny_config, **options), tmp_path / "run")
    assert len(str(caught.value).splitlines()) == 1


def test_a_store_of_another_tower_or_of_other_records_is_refused(stored, tiny_config, tmp_path, records, monkeypatch):
    from lit_jax.models.weight_files import read_npz, write_npz

    options = {"input": "store", "data__store": stored.directory, "train__devices": 1}
    flat = read_npz(load(tiny_config).image.weights)
    write_npz(tmp_path / "other.npz", {name: np.asarray(value) * 1.01 for name, value in flat.items()})
    with pytest.raises(UserError, match="found embeddings by weights .*, expected .* of image.weights"):
        built_of(load(tiny_config, image__weights=tmp_path / "other.npz", **options), tmp_path)
    # Where the weights are not at hand, the store speaks for them.
    built = built_of(load(tiny_config, image__weights="not/here.npz", **options), tmp_path)
    assert built.about.locked == {"image": stored.tower["digest"]} and "image" not in built.locked
    assert any(note.startswith("image.weights not/here.npz: not at hand") for note in built.notes)
    other = records.__class__(**{**vars(records), "fingerprint": "x"})
    monkeypatch.setattr(settling, "open_records", lambda path: other)
    with pytest.raises(UserError, match="found embeddings of other records"):
        built_of(load(tiny_config, **options), tmp_path)


def test_training_finds_a_flipped_byte_at_its_first_read(stored, tiny_config, tmp_path):
    import shutil

    folder = shutil.copytree(stored.directory, tmp_path / "store")
    path = folder / "train-00001-of-00003.features.npy"
    content = bytearray(path.read_bytes())
    content[-100] ^= 4
    path.write_bytes(content)
    for place in ("device", "host"):
        options = {"input": "store", "data__store": folder, "data__store_on": place, "train__devices": 1}
        with pytest.raises(UserError, match="00001-of-00003.features.npy: found checksum"):
            train(load(tiny_config, **options), tmp_path / "run")


@pytest.mark.parametrize("same_caption", ["masked", "multi"])
def test_what_becomes_of_equal_captions_is_a_choice(stored, trained, tiny_config, tmp_path, same_caption):
    options = {"input": "store", "data__store": stored.directory, "train__devices": 1}
    built = built_of(load(tiny_config, model__same_caption=same_caption, **options), tmp_path)
    _, metrics = built.step(built.start()[0], built.locked, next(built.feed(0)))
    # The same first batch, whose eight classes have two captions each: some of 16 pairs share one.
    assert float(metrics["loss"]) < losses(trained[0])[0] - 1e-3


def test_equal_captions_cannot_be_told_without_distinct_texts(stored, tiny_config, tmp_path):
    with pytest.raises(UserError, match="text.distinct: found false with model.same_caption masked, expected true"):
        train(load(tiny_config, model__same_caption="masked", text__distinct="false"), tmp_path / "run")


def test_the_commands_without_tensorflow(stored, trained, tiny_config, tmp_path, capsys, monkeypatch):
    """Training, evaluation and the check of a store, in one process that never imports TensorFlow."""
    code = f"""
import gc, sys
gc.set_threshold(100_000, 50, 100)  # as in tests.conftest
from lit_jax import embed, evaluate, main
from lit_jax.training import metrics_log
metrics_log.curves = lambda *_, **__: None  # as `undrawn` there
shared = ["--config={tiny_config}", "--config.data.store={stored.directory}"]
main.main([*shared, "--config.input=store", "--workdir={tmp_path / "run"}", "--config.train.devices=1"])
evaluate.main(["--checkpoint={tmp_path / "run"}", "--split=heldout", "--step=latest"])
embed.main([*shared, "--verify"])
print("imported:", [name for name in sys.modules if name.split(".")[0] in ("tensorflow", "tensorflow_datasets")])
"""
    got = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert got.returncode == 0 and "imported: []" in got.stdout, got.stdout + got.stderr
    assert "21 files are as they were written" in got.stdout
    found = json.loads((tmp_path / "run" / "evaluation-heldout.json").read_text())
    assert found["top1"] == trained[1]["heldout"]["top1"] and found["store"] == stored.fingerprint


def test_photos_can_be_evaluated_after_training_from_a_store(trained, records, tiny_config):
    by_store = loading.load(trained[0], step="latest")
    assert "image" not in by_store.params
    by_tower = loading.load(trained[0], step="latest", with_image_tower=True)
    found = report.evaluate(by_tower, records, "validation", batch_size=24, devices=1)
    assert found["top1"] == trained[1]["seen"]["top1"]


@pytest.fixture(scope="module")
def with_head(stored, records, tmp_path_factory):
    """The store's photos beside the rows of a classifier that reads the same tower, by the command."""
    from data_prep import embeddings

    table = read_class_table(stored.class_table)
    folder = tmp_path_factory.mktemp("head")
    sums = dict.fromkeys(table.ids, 0.0)
    for split in stored.splits:
        rows = embedding_store.Rows(stored, split)
        for class_id, feature in zip(rows.class_ids, rows.whole()[:, 0].astype(np.float64), strict=True):
            sums[class_id] += feature / np.linalg.norm(feature)
    means = np.stack([sums[i] / np.linalg.norm(sums[i]) for i in table.ids])
    # The nearest mean, as a linear layer.
    weight = 50 * (means - means.mean(0))
    np.savez(folder / "head.npz", weight=weight, bias=-25 * (means**2).sum(1), names=np.array(table.names))
    arguments = ["--head", folder / "head.npz", "--embeddings", stored.directory, "--classes", stored.class_table]
    arguments += ["--out", folder / "store", "--dtype", "float32", "--vocab-size", 300, "--head-anyway"]
    embeddings.main([str(argument) for argument in arguments])
    return embedding_store.open_store(folder / "store"), weight


def features_by_id(store):
    """Split and view 0 of each photo, by its id."""
    found = {}
    for split in store.splits:
        rows = embedding_store.Rows(store, split)
        ids = embedding_store.image_ids(store, split)
        found.update({i: (split, row) for i, row in zip(ids, rows.take(np.arange(len(rows))), strict=True)})
    return found


def test_a_classifiers_rows_stand_beside_the_photos_of_a_store(with_head, stored):
    store, weight = with_head
    described = {name: value for name, value in store.tower.items() if name not in ("head", "import")}
    assert described == dict(stored.tower) and store.records != stored.records
    found, photos = features_by_id(store), features_by_id(stored)
    head = {name: found.pop(name) for name in list(found) if name.startswith("head/")}
    assert found.keys() == photos.keys()
    for name, (split, row) in photos.items():
        assert found[name][0] == split and np.array_equal(found[name][1], row)
    table = read_class_table(stored.class_table)
    held = {table.names[table.index_of(i)] for i in stored.classes_in("heldout")}
    assert {name.split("/")[2] for name in head} == set(table.names) - held
    centre = np.mean([row for split, row in photos.values() if split == "train"], axis=0, dtype=np.float64)
    around = weight - weight.mean(0)
    for name, (split, row) in head.items():
        moved = around[int(name.split("/")[1])] * store.tower["head"]["scale"] + centre
        assert split == "train" and np.allclose(row, moved, atol=1e-4)


def test_a_run_on_rows_of_a_classifier_evaluates_photos_through_the_tower(with_head, tiny_config, records, tmp_path):
    """The config's records are at hand, and are not those of the store: it is a set of its own."""
    store, _ = with_head
    results = train(load(tiny_config, input="store", data__store=store.directory, train__devices=1), tmp_path / "run")
    by_tower = loading.load(tmp_path / "run", step="latest", with_image_tower=True)
    found = report.evaluate(by_tower, records, "validation", batch_size=24, devices=1)
    assert found["top1"] == results["seen"]["top1"]


def test_a_store_goes_to_the_devices_only_where_it_fits(stored, monkeypatch):
    mesh = make_mesh(2)
    assert input_stream.is_on_device(stored, "train", "auto", mesh)
    monkeypatch.setattr(input_stream, "device_memory", lambda mesh: 2 * 2 * stored.nbytes("train") - 1)
    assert not input_stream.is_on_device(stored, "train", "auto", mesh)
    assert input_stream.is_on_device(stored, "train", "device", mesh) and not input_stream.is_on_device(
        stored, "train", "host", mesh
    )


def test_a_config_that_makes_its_records_and_reads_a_store_embeds_them_once(
    tiny_config, records, tmp_path, monkeypatch
):
    from lit_jax import main

    made = tmp_path / "made"
    text = tiny_config.read_text().replace(repr(str(records.directory)), repr(str(made)))
    text = text.replace("    return config\n", "    config.input = 'store'\n    return config\n")
    text += f"""
def prepare(config):
    import shutil
    shutil.copytree({str(records.directory)!r}, config.data.records)
"""
    (tmp_path / "makes.py").write_text(text)
    seen = []
    monkeypatch.setattr(main, "train", lambda config, workdir, **_: seen.append(config.input))
    arguments = [f"--config={tmp_path / 'makes.py'}", f"--workdir={tmp_path / 'run'}"]
    main.main(arguments)
    store = embedding_store.open_store(tmp_path / "made_store")
    assert store.examples("train") == records.examples("train") and seen == ["store"]
    shutil.rmtree(made)  # with the store there, nothing else is needed
    before = sorted((path, path.stat().st_mtime_ns) for path in store.directory.iterdir())
    main.main(arguments)
    assert not made.exists() and seen == ["store"] * 2
    assert sorted((path, path.stat().st_mtime_ns) for path in store.directory.iterdir()) == before

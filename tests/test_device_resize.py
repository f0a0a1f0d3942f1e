"""Photos resized on the devices: the pixels of the host and of Pillow, and the same stores from them."""

import dataclasses
import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lit_jax import config
from lit_jax.base.sharding import make_mesh, put_batch
from lit_jax.data import device_resizing, embedding_store, images, record_batches, whole_photos
from lit_jax.data.images import Augmentation, Pictures, View
from lit_jax.data.resizing import square
from lit_jax.embed import embed
from lit_jax.embedding.to_store import Making
from lit_jax.errors import UserError
from lit_jax.main import train
from tests import test_cluster
from tests.test_images import assert_close, assert_same, in_float64, jpeg, natural

SIDES = [(500, 375), (375, 500), (333, 334), (97, 61), (640, 200), (51, 400)]  # width and height
VIEWS = [View(), View("bilinear", crop_fraction=0.875), View(resize="square")]


@pytest.fixture(scope="module")
def resize():
    """Photos of any size and a table of places for each, resized in one shape; what is outside a photo is not black."""

    @functools.cache
    def compiled(size, interpolation):
        return jax.jit(functools.partial(device_resizing.squares, size=size, interpolation=interpolation))

    def resized(photos, places, size, interpolation="bicubic"):
        whole = np.full((len(photos), 512, 640, 3), 77, np.uint8)
        for row, photo in zip(whole, photos, strict=True):
            row[: photo.shape[0], : photo.shape[1]] = photo
        return np.asarray(compiled(size, interpolation)(whole, np.asarray(places, np.int32)))

    return resized


@pytest.fixture(scope="module")
def photos():
    draw = np.random.default_rng(0)
    return [np.asarray(natural(draw, *sides)) for sides in SIDES]


@pytest.mark.parametrize("size", [96, 33])
@pytest.mark.parametrize("view", VIEWS, ids=["plain", "margin", "squeezed"])
def test_the_plain_view_is_that_of_the_host_and_of_float64(photos, resize, view, size):
    pictures = Pictures(size, view)
    places = [pictures.plain_place(photo.shape[:2]).numpy()[None] for photo in photos]
    got = resize(photos, places, size, view.interpolation)[:, 0]
    assert_same(got, np.stack([square(photo, pictures) for photo in photos]))
    pairs = zip(photos, places, strict=True)
    assert_same(got, np.stack([in_float64(photo, place[0], size, view.interpolation) for photo, place in pairs]))


def test_the_plain_view_is_that_of_tensorflow_on_jpegs(photos, resize):
    pictures = Pictures(96)
    files = [jpeg(Image.fromarray(photo)) for photo in photos]
    decoded = [images.decoded(file).numpy() for file in files]
    places = [pictures.plain_place(images.jpeg_sides(file)).numpy()[None] for file in files]
    assert_same(resize(decoded, places, 96)[:, 0], np.stack([pictures.plain(file).numpy() for file in files]))


def test_random_crops_are_those_of_the_host_mirrored_or_not(photos, resize):
    pictures = Pictures(96, augmentation=Augmentation("random", (0.2, 1.0), flip=True))
    # Without subsampled colours: where they are, a decoded part differs at its edges from the same part of the whole.
    files = [jpeg(Image.fromarray(photo), subsampling=0) for photo in photos]
    seeds = [[3, number] for number in range(6)]
    places = np.stack([[pictures.cropped_place(photo.shape[:2], seed) for seed in seeds] for photo in photos])
    got = resize([images.decoded(file).numpy() for file in files], places, 96)
    assert_same(got, np.stack([[pictures.cropped(file, seed) for seed in seeds] for file in files]))
    assert 0 < places[..., -1].sum() < places[..., -1].size


def test_parts_are_those_of_pillow(photos, resize):
    """What Pillow makes of a part, a photo smaller than the square among them, by the bound of the host."""
    parts = [
        (3, 11, 201, 317),
        (0, 0, 500, 375),
        (100, 7, 111, 333),
        (1, 2, 50, 90),
        (0, 200, 200, 201),
        (90, 0, 77, 51),
    ]
    places = [[[*part, 96, 96, 0, 0, mirrored] for mirrored in (0, 1)] for part in parts]
    got = resize(photos, places, 96)
    for photo, (y, x, height, width), (plain, mirrored) in zip(photos, parts, got, strict=True):
        part = Image.fromarray(photo).crop((x, y, min(x + width, photo.shape[1]), min(y + height, photo.shape[0])))
        if part.size == (width, height):
            assert_close(plain, np.asarray(part.resize((96, 96), Image.Resampling.BICUBIC)))
        assert (mirrored == plain[:, ::-1]).all()


def test_rows_that_fill_up_are_black_and_nothing_is_not_a_number(photos, resize):
    place = Pictures(33).plain_place(photos[3].shape[:2]).numpy()
    got = resize([photos[3]] * 2, [[place], [np.zeros(9, int)]], 33)
    assert got[0].any() and not got[1].any()
    zeros = jnp.zeros(1, jnp.int32)
    weights = device_resizing._weights(zeros, zeros, zeros, zeros, length=8, size=4, interpolation="bicubic")
    assert (np.asarray(weights) == 0).all()  # not NaN, which bytes would hide


def test_each_device_resizes_its_own_rows(photos, resize):
    mesh = make_mesh(2)
    places = np.stack([np.stack([Pictures(33).plain_place(photo.shape[:2]).numpy()] * 3) for photo in photos])
    places[:, 1, -1] = 1
    whole = np.zeros((len(photos), 512, 640, 3), np.uint8)
    for row, photo in zip(whole, photos, strict=True):
        row[: photo.shape[0], : photo.shape[1]] = photo
    placed = put_batch({"photo": whole, "place": places}, mesh)
    got = device_resizing.resizer(mesh, 33, "bicubic")(placed["photo"], placed["place"])
    assert got.shape == (18, 33, 33, 3) and len(got.sharding.device_set) == 2
    assert (np.asarray(got).reshape(6, 3, 33, 33, 3) == resize(photos, places, 33)).all()


def test_devices_resize_unless_they_are_cpus_or_as_asked():
    mesh = make_mesh(1)
    found = [device_resizing.settled(Pictures(16, resize_on=where), mesh) for where in ("auto", "host", "device")]
    assert [pictures.whole for pictures in found] == [False, False, True]


VARIED = Augmentation("random", (0.4, 1.0), flip=True)


def host_and_device(pictures):
    return (dataclasses.replace(pictures, resize_on=where) for where in ("host", "device"))


def squares_of(batch):
    return np.asarray(device_resizing.put_squares(batch, make_mesh(1), Pictures(16)))


def assert_same_rows(ours, theirs, plain=slice(None)):
    """Batches of the device's way and of the host's; of random crops the decoding differs at the edges."""
    for name in set(theirs) - {"image"}:
        assert ours[name].tolist() == theirs[name].tolist(), name
    got, want = squares_of(ours), theirs["image"].reshape(-1, 16, 16, 3)
    if plain is not None:
        assert_same(got[plain], want[plain])
    assert np.abs(got.astype(int) - want).mean() < 1


@pytest.mark.parametrize(("batch_size", "views"), [(5, 1), (24, 3)])
def test_whole_photos_come_in_the_order_of_the_squares(records, batch_size, views):
    options = {"rows": range(1, 13), "batch_size": batch_size, "views": views, "seed": 3}
    host, device = host_and_device(Pictures(16, augmentation=VARIED))
    small = list(record_batches.view_batches(records, "train", pictures=host, **options))
    whole = list(record_batches.view_batches(records, "train", pictures=device, **options))
    assert [set(batch) for batch in whole] == [{"photo", "place", "class_id", "image_id"}] * len(small)
    for ours, theirs in zip(whole, small, strict=True):
        assert set(ours["photo"].shape[1:3]) <= set(whole_photos.LADDER)
        assert_same_rows(ours, theirs, slice(0, None, views))


def test_evaluation_sees_the_same_photos_and_black_ones_behind_them(records):
    def batches(pictures):
        return list(record_batches.evaluation_batches(records, "validation", batch_size=9, pictures=pictures))

    small, whole = map(batches, host_and_device(Pictures(16)))
    assert "photo" in whole[-1] and not whole[-1]["mask"].all()
    for ours, theirs in zip(whole, small, strict=True):
        assert_same_rows(ours, theirs)


@pytest.mark.parametrize("crop", ["random", "centre"])
def test_training_sees_the_same_photos(records, crop):
    def batches(pictures):
        stream = record_batches.training_batches(
            records, "train", batches=record_batches.Batches(12, seed=5), pictures=pictures, position=3,
            tokenise=lambda texts: np.array([[len(text)] for text in texts], np.int32),
        )  # fmt: skip
        return list(itertools.islice(stream, 4))

    small, whole = map(batches, host_and_device(Pictures(16, augmentation=dataclasses.replace(VARIED, crop=crop))))
    for ours, theirs in zip(whole, small, strict=True):
        assert ours["place"].shape == (12, 1, 9)
        assert_same_rows(ours, theirs, None if crop == "random" else slice(None))


def test_shapes_are_those_of_the_ladder_and_what_is_too_large_is_resized_on_the_host(rng, monkeypatch):
    monkeypatch.setattr(whole_photos, "LADDER", (32, 64))
    pictures = Pictures(16, augmentation=VARIED)
    files = [jpeg(natural(rng, *sides), subsampling=0) for sides in [(30, 20), (64, 33), (65, 20), (20, 20), (31, 60)]]
    seeds = [[7, number] for number in (0, 1, 2, 4, 5)]
    mirrored = [int(pictures.cropped_place((20, 20), seed)[-1]) for seed in seeds]
    assert mirrored[2] != mirrored[3]

    def batches(size):
        rows = [whole_photos.row(file, pictures, [seed]) for file, seed in zip(files, seeds, strict=True)]
        rows = {name: [one[name] for one in rows] for name in rows[0]} | {"number": np.arange(5)}
        stream = whole_photos.batched(images.tensorflow().data.Dataset.from_tensor_slices(rows), size, pictures)
        return [whole_photos.chosen(batch) for batch in stream.as_numpy_iterator()]

    first, second, third = batches(2)
    assert first["photo"].shape == (2, 64, 64, 3) and "image" not in first
    assert set(second) == {"image", "number"} and second["number"].tolist() == [2, 3]
    assert third["photo"].shape == (1, 64, 32, 3) and not third["photo"][0, 60:].any()
    want = [[pictures.plain(files[number]), pictures.cropped(files[number], seeds[number])] for number in (2, 3)]
    assert_same(second["image"], np.stack(want))
    # Another batch is as large as one may be, and one above it.
    for limit, kinds in (
        (3 * 64 * 64 * 2, ["photo", "image", "photo"]),
        (3 * 64 * 64 * 2 - 1, ["image", "image", "photo"]),
    ):
        monkeypatch.setattr(whole_photos, "LIMIT", limit)
        assert [next(kind for kind in ("photo", "image") if kind in batch) for batch in batches(2)] == kinds


def test_devices_are_given_photos_that_were_halved(rng, monkeypatch):
    pictures = Pictures(16, augmentation=dataclasses.replace(VARIED, crop_scale=(0.8, 1.0)), shrink=True)
    files = [jpeg(natural(rng, *sides), subsampling=0) for sides in [(200, 150), (90, 97)]]

    def batch():
        rows = [whole_photos.row(file, pictures, [[2, number]]) for number, file in enumerate(files)]
        stream = images.tensorflow().data.Dataset.from_tensor_slices(
            {name: [r[name] for r in rows] for name in rows[0]}
        )
        return whole_photos.chosen(next(whole_photos.batched(stream, 2, pictures).as_numpy_iterator()))

    monkeypatch.setattr(whole_photos, "LADDER", (32, 64))
    whole = batch()
    assert whole["photo"].shape == (2, 32, 32, 3) and whole["place"][:, 0, 2:4].tolist() == [[19, 25], [25, 23]]
    monkeypatch.setattr(whole_photos, "LIMIT", 0)
    small = batch()
    want = [[pictures.plain(file), pictures.cropped(file, [2, number])] for number, file in enumerate(files)]
    np.testing.assert_array_equal(small["image"], np.stack(want))
    assert_same(squares_of(whole), small["image"].reshape(-1, 16, 16, 3))


MAKING = Making("float32", batch_size=16, shard_rows=20, devices=2, views=2)


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("undrawn")
def test_a_store_made_with_the_devices_resizing_is_that_of_the_host(tiny_config, tmp_path, monkeypatch):
    def stored(where, name):
        return embed(config.load(tiny_config, {"data.resize_on": where})[0], tmp_path / name, MAKING)

    made = {where: stored(where, where) for where in ("auto", "host", "device")}
    monkeypatch.setattr(whole_photos, "LIMIT", 0)
    made["too large"] = stored("device", "large")
    assert files_of(made["auto"].directory) == files_of(made["host"].directory)
    for split, kind in itertools.product(made["host"].splits, ("device", "too large")):
        ours, theirs = (embedding_store.Rows(made[where], split) for where in (kind, "host"))
        assert ours.class_ids.tolist() == theirs.class_ids.tolist()
        assert embedding_store.image_ids(made[kind], split) == embedding_store.image_ids(made["host"], split)
        assert ours.whole().shape == theirs.whole().shape
        plain, other = (rows.whole()[:, 0] for rows in (ours, theirs))
        assert np.abs(plain - other).max() < 0.02 * np.abs(other).max()
        assert np.abs(ours.whole() - theirs.whole()).mean() < 0.05 * np.abs(theirs.whole()).mean()


@pytest.mark.usefixtures("undrawn")
def test_a_store_is_not_made_of_both(tiny_config, tmp_path, monkeypatch):
    """An unfinished store is refused where its plan is another one; the plan of the host's is that of before."""
    begin, plans = embedding_store.begin, {}

    def begun(out, plan, *, restart):
        plans[out.name] = dict(plan)
        begin(tmp_path / "store", plan, restart=restart)
        raise RuntimeError("begun")

    monkeypatch.setattr(embedding_store, "begin", begun)
    loaded = {where: config.load(tiny_config, {"data.resize_on": where})[0] for where in ("host", "auto", "device")}
    for where in ("host", "auto"):
        with pytest.raises(RuntimeError, match="begun"):
            embed(loaded[where], tmp_path / where, MAKING)
    with pytest.raises(UserError, match=r"another data.resize_on \(None\), expected the same"):
        embed(loaded["device"], tmp_path / "device", MAKING)
    assert plans["device"].pop("data.resize_on") == "device" and plans["host"] == plans["auto"] == plans["device"]
    assert set(plans["host"]) == {"records", "tower", "dtype", "views", "shard rows"}


@pytest.mark.slow
def test_two_hosts_resize_on_devices_of_their_own_and_train_as_one(tiny_config, tmp_path):
    """Photos of the two are filled up to shapes of their own; losses and figures are those of one host."""
    settings = {"data.resize_on": "device", "train.epochs": "1", "data.crop_scale": "0.5,1"}
    arguments = [f"--config={tiny_config}", *(f"--config.{name}={value}" for name, value in settings.items())]
    arguments += [f"--workdir={tmp_path / 'two'}", "--config.train.devices=0"]
    codes, _, errors = test_cluster.on_two_hosts(test_cluster.RUN, (["ends", 0],) * 2, arguments)
    assert codes == [0, 0], errors
    one = train(config.load(tiny_config, {**settings, "train.devices": "1"})[0], tmp_path / "one")
    found = json.loads((tmp_path / "two" / "results.json").read_text())
    assert found.pop("loss") == pytest.approx(one.pop("loss"), rel=1e-5)
    assert found == one
    assert test_cluster.losses(tmp_path / "two") == pytest.approx(test_cluster.losses(tmp_path / "one"), rel=1e-5)

import json

import numpy as np
import pytest

from lit_jax import probe as command
from lit_jax.data import embedding_store
from lit_jax.errors import UserError
from lit_jax.evaluation import probe
from lit_jax.evaluation.probe import Labelled


@pytest.fixture(scope="module")
def data():
    """Three overlapping clouds, 60 photos each to learn from and 40 to be judged on."""
    draw = np.random.default_rng(3)
    centres = draw.normal(size=(3, 6))
    labels = np.repeat(np.arange(3), 100)
    features = (centres[labels] + 0.9 * draw.normal(size=(300, 6))).astype(np.float16)
    features[:, 5] = 7.0  # a feature that never moves
    order = draw.permutation(300)
    whole = Labelled(features[order], labels[order])
    return whole.take(np.arange(180)), whole.take(np.arange(180, 300))


def test_the_fit_is_where_the_gradient_in_float64_vanishes(data, monkeypatch):
    monkeypatch.setattr(probe, "BLOCK", 64)  # the last block is filled up
    train, _ = data
    found = probe.fit(train, 3, 1e-2)
    x = np.float64(train.features)
    std = x.std(0)
    std[5] = 1
    x = (x - x.mean(0)) / std
    kernel, bias = np.float64(found.kernel), np.float64(found.bias)
    scores = x @ kernel + bias
    softmax = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    error = softmax - np.eye(3)[train.labels]
    np.testing.assert_allclose(x.T @ error / len(x) + 1e-2 * kernel, 0, atol=2e-5)
    np.testing.assert_allclose(error.mean(0), 0, atol=2e-5)


@pytest.mark.parametrize("neighbours", [1, 5, 500])
def test_neighbours_against_a_full_sort(data, monkeypatch, neighbours):
    monkeypatch.setattr(probe, "BLOCK", 50)
    monkeypatch.setattr(probe, "KEYS", 37)
    train, test = data
    train = Labelled(np.concatenate([train.features, train.features[:9]]), np.concatenate([train.labels, (train.labels[:9] + 1) % 3]))  # fmt: skip
    keys, queries = (np.float64(x.features) / np.linalg.norm(np.float64(x.features), axis=1, keepdims=True) for x in (train, test))  # fmt: skip
    similar = np.round(queries @ keys.T, 6)  # equal photos tie, whatever the last bits
    order = np.argsort(-similar, axis=1, kind="stable")[:, :neighbours]
    weights = np.exp((np.take_along_axis(similar, order, 1) - 1) / probe.TEMPERATURE)
    votes = np.stack([(weights * (train.labels[order] == label)).sum(1) for label in range(3)], 1)
    got = probe.nearest(train, test, 3, neighbours)
    assert got.summary()["top1"] == (np.argmax(votes, 1) == test.labels).mean()


def test_each_program_of_the_yardsticks_is_compiled_once(data):
    train, test = data
    counted = (probe._step, probe._scores, probe._nearer, probe._votes)
    probes = [probe.fit(train, 3, decay, steps=3) for decay in (1e-3, 1e-1)]
    sizes = [function._cache_size() for function in counted]
    for one in probes:
        probe.judged(one, test)
        probe.nearest(train, test, 3, 5)
    after = [function._cache_size() for function in counted]
    assert all(new - old <= 1 for new, old in zip(after, sizes, strict=True)), (sizes, after)


def test_few_photos_of_each_class_are_drawn_and_others_set_aside(data):
    labels = data[0].labels
    taken, aside = probe.drawn(labels, 4, 0)
    assert np.bincount(labels[taken]).tolist() == [4, 4, 4] and np.bincount(labels[aside]).tolist() == [4, 4, 4]
    assert not set(taken) & set(aside)
    assert not np.array_equal(taken, probe.drawn(labels, 4, 1)[0])
    every, fifth = probe.drawn(labels, 0, 0)
    assert sorted([*every, *fifth]) == list(range(180))
    assert (np.bincount(labels[fifth]) == np.bincount(labels) // 5).all()
    with pytest.raises(UserError, match="--shots: found a class of"):
        probe.drawn(labels, 1000, 0)


@pytest.mark.parametrize("photos", [(4, 4, 4), (2, 1, 4), (3, 2, 1)])
def test_where_no_class_has_five_photos_one_of_each_that_has_two_is_set_aside(data, photos, monkeypatch):
    labels = np.repeat(np.arange(3), photos)
    every, aside = probe.drawn(labels, 0, 0)
    assert np.bincount(labels[aside], minlength=3).tolist() == [int(number > 1) for number in photos]
    assert sorted([*every, *aside]) == list(range(sum(photos)))
    monkeypatch.setattr(probe, "DECAYS", (1e-1,))
    few = probe.Labelled(data[0].features[np.argsort(data[0].labels, kind="stable")][: len(labels)], labels)
    (row, _) = probe.probe(few, data[1], 3, probe.Yardsticks(neighbours=(1,)))
    assert row["shots"] == 0 and row["labels"] == len(labels)


def test_one_photo_of_each_class_is_too_few_for_a_probe():
    with pytest.raises(UserError, match="training photos: found one of each class, expected two of one to choose"):
        probe.drawn(np.arange(3), 0, 0)


def test_more_labels_help_and_draws_are_averaged(data, monkeypatch):
    monkeypatch.setattr(probe, "DECAYS", (1e-3, 1e-1))
    rows = probe.probe(*data, 3, probe.Yardsticks(shots=(1, 0), draws=2, neighbours=(5,)))
    of = {(row["method"], row["shots"]): row for row in rows}
    assert of["linear probe", 1]["draws"] == 2 and of["linear probe", 1]["labels"] == 3
    assert of["linear probe", 0]["top1"] > of["linear probe", 1]["top1"]
    # Five neighbours of three photos are three.
    assert ("3 nearest neighbours", 1) in of and ("5 nearest neighbours", 0) in of


@pytest.mark.parametrize(("classes", "shown"), [(4, "–"), (5, "–"), (6, "98.00 %")])
def test_top5_is_told_only_where_it_can_be_wrong(classes, shown):
    row = {"shots": 0, "draws": 1, "method": "linear", "top1": 0.5, "top5": 0.98, "mean_per_class_top1": 0.5}
    line = command.table_of([row], classes).splitlines()[-1]
    assert line.split("50.00 %")[1].strip() == shown


def test_the_command_on_a_store(data, tmp_path, capsys):
    aside = embedding_store.begin(tmp_path / "set", {})
    (aside / embedding_store.CLASS_TABLE).write_text("id,name\n10,a\n11,b\n12,c\n")
    shards = {}
    for split, part in zip(("train", "validation"), data, strict=True):
        names = [f"{split}/{i}.jpg" for i in range(len(part.labels))]
        shards[split] = [embedding_store.write_shard(aside, embedding_store.shard_name(split, 0, 1), part.features[:, None], part.labels + 10, names, dtype="float16")]  # fmt: skip
    embedding_store.finish(embedding_store.Store(
        directory=aside, splits=shards, views={split: 1 for split in shards}, width=6, dtype="float16",
        record_lengths={split: [s.examples for s in found] for split, found in shards.items()}, tower={"kind": "given", "digest": "x"},
        class_table=aside / embedding_store.CLASS_TABLE, tokenizer=None, templates=["{name}"], drop_repeats=False,
        class_ids={split: [10, 11, 12] for split in shards}, records="r",
    ), tmp_path / "set")  # fmt: skip
    arguments = [
        "--store",
        str(tmp_path / "set"),
        "--shots",
        "all",
        "--neighbours",
        "5",
        "--out",
        str(tmp_path / "o.json"),
    ]
    command.main(arguments)
    rows = json.loads((tmp_path / "o.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["linear probe", "5 nearest neighbours"]
    assert f"{100 * rows[0]['top1']:.2f} %" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main([*arguments[:2], "--split", "nowhere"])
    assert "--split: found 'nowhere', expected" in capsys.readouterr().err


def test_few_photos_are_told_before_any_work_and_the_usual_numbers_fit_what_there_is(capsys):
    from lit_jax import probe as command

    train = probe.Labelled(np.zeros((12, 2), np.float32), np.repeat([0, 1], [5, 7]))
    assert command._shots(None, train) == [1, 2, 4, 0]
    assert "left out: 8, 16 photos a class, for the smallest class has 5" in capsys.readouterr().out
    assert command._shots((1, 0), train) == (1, 0)
    with pytest.raises(UserError, match="--shots: found 5, expected less than the 5 training photos"):
        command._shots((1, 5), train)

"""What people have on disk: written by the first version of each format, it opens today and says the same."""

import json
import pathlib
import tarfile

import numpy as np
import pytest

from lit_jax import config, embed, evaluate, plan
from lit_jax.base.files import digest
from lit_jax.data.embedding_store import Rows, open_store, verify
from lit_jax.data.records import decode, open_records
from lit_jax.data.tfrecord import read_frames
from lit_jax.main import train
from lit_jax.planning import costs
from lit_jax.training import metrics_log

ARCHIVE = pathlib.Path(__file__).with_name("written") / "written.tar.xz"


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A copy of what was written, in which commands run; paths in configs are relative."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def same(found, expected):
    """Compares JSON values; numbers as those of another machine or JAX."""
    if isinstance(expected, dict):
        missing = expected.keys() - found.keys()
        assert not missing, missing
        for name in expected:
            same(found[name], expected[name])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    else:
        assert found == expected


def test_records_open_and_every_photo_is_read(written):
    records = open_records("records")
    captions = [decode(frame).captions[0] for path in records.files("train") for frame in read_frames(path)]
    assert records.examples() == 30 and len(captions) == 16
    assert "a photo of Apis mellifera, one of the Insecta" in captions
    assert records.fingerprint == json.loads(pathlib.Path("records/manifest.json").read_text())["fingerprint"]


def test_a_store_opens_is_sound_and_is_what_embedding_would_make(written, capsys):
    store = open_store("records_store")
    assert verify(store) == 3 * sum(len(shards) for shards in store.splits.values())
    assert np.isfinite(Rows(store, "train").whole()).all()
    embed.main(["--config=config.py", "--shard-rows=8"])
    assert "is up to date" in capsys.readouterr().out


@pytest.mark.parametrize("source", ["runs/records", "runs/store", "runs/stopped", "model"])
def test_a_model_is_evaluated_as_ever(written, source):
    evaluate.main(
        [f"--checkpoint={source}", "--split=heldout", "--classes=classes.csv", "--out=new.json", "--no-page", "--devices=1"]
    )  # fmt: skip
    expected = json.loads(pathlib.Path(f"evaluation-{source.replace('/', '-')}.json").read_text())
    same(json.loads(pathlib.Path("new.json").read_text()), expected)


def test_a_run_that_was_stopped_goes_on_as_the_code_that_began_it(written):
    settled, _ = config.load("config.py", {"train.epochs": "20", "evaluation.every_epochs": "0", "train.devices": "1"})
    results = train(settled, "runs/stopped")
    same(results, json.loads(pathlib.Path("runs/finished/results.json").read_text()))
    ended, expected = (metrics_log.read_metrics(f"runs/{name}/metrics.jsonl") for name in ("stopped", "finished"))
    same([r["loss"] for r in ended if "loss" in r], [r["loss"] for r in expected if "loss" in r])


def test_a_finished_run_is_known_by_its_name(written):
    """The digest of a config's options is in tables that people have."""
    settled, _ = config.load("config.py", {"train.devices": "1"})
    results = train(settled, "runs/records")
    same(results, json.loads(pathlib.Path("runs/records/results.json").read_text()))


def test_a_plan_has_the_same_figures(written, monkeypatch):
    monkeypatch.setattr(costs, "COMPILES", 1)  # the largest batch is not among the figures
    plan.main(["--config=config.py", "--json=new.json", "--tflops=1", "--memory=1", "--config.train.devices=1"])
    found, expected = (json.loads(pathlib.Path(name).read_text()) for name in ("new.json", "plan.json"))
    assert found["data"].pop("source") == "records" or expected["data"]["source"].endswith("records")
    for part in ("parameters", "store", "flops"):
        same(found[part], expected[part])
    assert digest(found["data"]["photos"]) == digest(expected["data"]["photos"])

"""Each command once as a user starts it: a fresh Python, no flags, nothing patched; and the numbers are those of the tests."""

import csv
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from lit_jax.training.metrics_log import read_metrics

SET_BY_TESTS = ("XLA_", "JAX_", "FLAX_", "TF_")


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Runs a module and gives its output; what it compiles goes to a folder of its own."""
    folder = tmp_path_factory.mktemp("user")
    env = {name: value for name, value in os.environ.items() if not name.startswith(SET_BY_TESTS)}
    env |= {"HOME": str(folder), "PYTHONPATH": str(pathlib.Path(__file__).resolve().parents[1])}

    def run(module, *arguments):
        got = subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)], cwd=folder, env=env, capture_output=True, text=True
        )
        assert got.returncode == 0, got.stderr
        return got.stdout

    run.folder = folder
    return run


@pytest.fixture(scope="module")
def trained(command, tiny_config):
    command("lit_jax.main", f"--config={tiny_config}", "--workdir=run")
    return command.folder / "run"


def test_training_gives_the_numbers_of_the_tests(trained, finished):
    def losses(folder):
        return [record["loss"] for record in read_metrics(folder / "metrics.jsonl") if "loss" in record]

    np.testing.assert_allclose(losses(trained), losses(finished[0]), rtol=1e-4)
    results = json.loads((trained / "results.json").read_text())
    assert results["config"] == finished[1]["config"] and results["step"] == finished[1]["step"]
    assert (trained / "curves.png").stat().st_size > 1000  # which tests do not draw


def test_embedding(command, tiny_config):
    assert "train from it with" in command("lit_jax.embed", f"--config={tiny_config}", "--out=store")


def test_evaluation_prediction_and_export_agree(command, trained, field_guide_folder):
    assert "top-1" in command("lit_jax.evaluate", f"--checkpoint={trained}", "--split=heldout")
    assert "<svg" in (trained / "evaluation-heldout.html").read_text()
    photos = sorted(field_guide_folder.rglob("*.jpg"))[:5]
    command("lit_jax.export", f"--checkpoint={trained}", "--format=onnx", "--out=onnx")
    found = []
    for model in (trained, "onnx"):
        command(
            "lit_jax.predict", f"--checkpoint={model}", *photos, f"--out={command.folder / 'names.csv'}", "--overwrite"
        )
        with open(command.folder / "names.csv", newline="", encoding="utf-8") as file:
            found.append([(row["photo"], row["name"]) for row in csv.DictReader(file)])
    assert found[0] == found[1] and len({file for file, _ in found[0]}) == 5

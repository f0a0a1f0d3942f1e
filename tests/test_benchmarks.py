"""Benchmarks are measured by hand; here only that they start, and that what they compare with is what it should be."""

import importlib
import pathlib

import numpy as np
import pytest

from benchmarks import cub_holdouts, jpeg_to_batch, machine, recorded
from lit_jax.text.tokenizers import lengths

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "benchmarks"
COMMANDS = sorted(
    path.stem
    for path in FOLDER.glob("*.py")
    if path.stem not in ("machine", "recorded", "declared", "comparing", "drawn", "own_products", "__init__")
)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_benchmark_explains_itself_and_is_in_the_docs(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(f"benchmarks.{name}").main(["--help"])
    assert stopped.value.code == 0 and "usage:" in capsys.readouterr().out
    assert f"## {name}\n" in (FOLDER.parent / "docs" / "benchmarks.md").read_text()


def test_drawn_captions_are_as_long_as_those_of_inaturalist():
    tokens = recorded.drawn_tokens(10_000)
    found = lengths(tokens, recorded.END)
    assert (found.min(), found.max()) >= (10, 24) and found.max() <= 27 and abs(found.mean() - 16.7) < 0.1
    assert len(np.unique(tokens, axis=0)) == 10_000


def test_the_ridge_regression_is_that_of_the_normal_equations(rng):
    x, y = rng.normal(size=(60, 5)), np.repeat([3, 7, 9], 20)
    x[y == 7] += 4
    x[y == 9] -= 4
    test, labels = x + 0.1 * rng.normal(size=x.shape), y
    # The same by augmenting the data with a row for each weight, least squares and a free intercept.
    onehot = (y[:, None] == np.array([3, 7, 9])).astype(float)
    rows = np.vstack([np.hstack([x, np.ones((60, 1))]), np.hstack([np.sqrt(2.0) * np.eye(5), np.zeros((5, 1))])])
    weights = np.linalg.lstsq(rows, np.vstack([onehot, np.zeros((5, 3))]), rcond=None)[0]
    want = np.mean(np.array([3, 7, 9])[(np.hstack([test, np.ones((60, 1))]) @ weights).argmax(1)] == labels)
    assert cub_holdouts._ridge_top1(x, y, test, labels, 2.0) == want > 0.5  # a third by guessing


def test_the_clock_counts_both_kinds_of_time():
    with machine.Clock() as clock:
        sum(range(200_000))
    assert clock.wall > 0 and clock.cpu >= 0


def test_streams_are_compared_with_open_clip_and_with_decoding_alone():
    def rounds(*seconds, **made):
        return [{"images": 500, "wall_s": wall, "cpu_s": cpu, "cores": 1, **made} for wall, cpu in seconds]

    found = jpeg_to_batch.compared(
        {
            "ours": rounds((1.0, 0.8), (0.5, 1.0)),
            "open_clip": rounds((2.0, 1.6)),
            "simplejpeg": rounds((0.3, 0.2)),
            "tensorflow": [{"failed": "exit 1"}],
            "resize_numpy": rounds((0.2, 0.1), largest_difference=1, mean_difference=5e-6, differ=5e-6),
        }
    )
    ours = found["ours"]
    assert ours["images_per_s"] == 1000 and ours["cpu_s_per_1000"] == pytest.approx(1.6)
    assert ours["rate_by_open_clips"] == 4 and ours["open_clips_cpu_by_this"] == pytest.approx(2)
    assert ours["share_of_decoding"] == {"simplejpeg": pytest.approx(0.25)}
    assert found["resize_numpy"]["differ"] == 5e-6 and "rate_by_open_clips" not in found["resize_numpy"]
    sets = [{"median_width": 500.0, "by_cores": {"1": found}}]
    streams, alone = jpeg_to_batch.tables([{"image_size": 224, "sets": sets}]).split("\n\n")
    assert "| 500 px | 224 | 1 | lit_jax | 1000 | 1.60 | 4.00 | 2.00 | 25 % |  |" in streams.splitlines()
    assert alone.splitlines()[2:] == ["| 500 px | 224 | NumPy (predict) | 0.20 | 1 | 5 |"]

import doctest
import json

import pytest
from PIL import Image

from lit_jax import report


def test_a_resumed_log_forgets_what_came_after_the_checkpoint(tmp_path):
    log = report.MetricsLog(tmp_path, tensorboard=False)
    for step in (1, 2, 3):
        log.add({"step": step, "loss": 1.0 / step})
    (tmp_path / "metrics.jsonl").open("a").write('{"step": 4, "lo')  # killed in the middle of a line
    resumed = report.MetricsLog(tmp_path, step=2, tensorboard=False)
    resumed.add({"step": 3, "loss": 0.25})
    assert report.read_metrics(tmp_path / "metrics.jsonl") == [
        {"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 0.25},
    ]  # fmt: skip
    assert resumed.records == report.read_metrics(tmp_path / "metrics.jsonl")


def test_tensorboard_reads_the_events_of_a_resumed_run(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for start, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        log = report.MetricsLog(tmp_path, step=start)
        for step in steps:
            log.add({"step": step, "loss": float(10 * start + step)})
        log.close()
    events = event_accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 1), (2, 2), (3, 23), (4, 24)]


def test_the_table_shows_accuracy_beside_chance():
    row = {"top1": 0.5, "top5": 0.9, "classes": 4, "images": 10, "candidates": 8}
    text = report.results_table({"heldout": row, "step": 3})
    (line,) = [line for line in text.splitlines() if "heldout" in line]
    assert line.split() == ["heldout", "8", "10", "50.00", "%", "90.00", "%", "12.50", "%"]


def test_curves_are_a_picture(tmp_path):
    records = [{"step": i, "epoch": i / 2, "loss": 3.0 - i / 10, "learning_rate": 1e-3} for i in range(10)]
    records.append({"step": 9, "epoch": 4.5, "seen/top1": 0.5, "seen/top5": 0.7})
    report.curves(tmp_path / "curves.png", records, title="a run")
    assert Image.open(tmp_path / "curves.png").size[0] > 1000
    report.curves(tmp_path / "none.png", records[:0], title="no step was logged")
    assert [path.name for path in tmp_path.iterdir() if "incomplete" in path.name] == []


def test_json_is_written_whole_or_not_at_all(tmp_path):
    report.write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(TypeError):
        report.write_json(tmp_path / "x.json", {"a": object()})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}


def test_progress_prints_plain_lines_without_a_terminal(capsys):
    record = {"step": 5, "epoch": 0.5, "loss": 1.25, "steps_per_s": 2.0, "pairs_per_s": 512.0}
    with report.Progress(10, every_seconds=0) as progress:
        progress.update(record)
    assert capsys.readouterr().out == "step 5/10, epoch 0.50, loss 1.2500, 512 pairs/s, ETA 2 s\n"
    with report.Progress(10, quiet=True, every_seconds=0) as progress:
        progress.update(record)
    assert capsys.readouterr().out == ""


def test_examples_in_the_documentation_run():
    assert doctest.testmod(report).failed == 0

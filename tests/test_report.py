import doctest
import json

import pytest
from PIL import Image

from lit_jax.base import console
from lit_jax.base.files import write_json
from lit_jax.evaluation import tables
from lit_jax.training import metrics_log


def test_a_resumed_log_forgets_what_came_after_the_checkpoint(tmp_path):
    log = metrics_log.MetricsLog(tmp_path, tensorboard=False)
    for step in (1, 2, 3):
        log.add({"step": step, "loss": 1.0 / step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed in the middle of a line
    resumed = metrics_log.MetricsLog(tmp_path, step=2, tensorboard=False)
    resumed.add({"step": 3, "loss": 0.25})
    assert metrics_log.read_metrics(tmp_path / "metrics.jsonl") == [
        {"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 0.25},
    ]  # fmt: skip
    assert resumed.records == metrics_log.read_metrics(tmp_path / "metrics.jsonl")


def test_names_in_tables_and_lines_are_no_markup(capsys):
    names = ["a+b (1) [x].jpg", "[/] b", "[bold]c", ":bird:.jpg", "[link=x]d[/link]"]
    lines = console.text_table(["photo"], [[name] for name in names]).split("\n")
    assert [line.strip() for line in lines[2:]] == names
    with console.Progress(10, every_seconds=0) as progress:
        for name in names:
            progress.line(name)
            progress.show(1, name, seconds_left=float("inf"))
    assert capsys.readouterr().out.splitlines() == [name for name in names for _ in range(2)]


def test_a_damaged_line_of_a_log_is_left_out(tmp_path):
    sound = {"step": 2, "epoch": 0.5, "loss": 1.0}
    damaged = [b'{"step": 1, "lo\xff', b"[" * 90_000, b"5", b"null", b"[1]", b'{"loss": 1}', b'{"step": "1"}']
    damaged += [b'{"step": 1, "loss": "x"}', b'{"step": 1, "loss": 1e999}', b'{"step": 1, "loss": {}}', b"\xff\xfe"]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([*damaged, json.dumps(sound).encode(), b'{"step": 3}']) + b"\n")
    resumed = metrics_log.MetricsLog(tmp_path, step=3, tensorboard=False)
    assert resumed.records == [sound, {"step": 3}] == metrics_log.read_metrics(tmp_path / "metrics.jsonl")
    metrics_log.curves(
        tmp_path / "curves.png", [*resumed.records, {"step": 3, "epoch": 1, "seen/candidates": 0}], title="x"
    )


def test_tensorboard_reads_the_events_of_a_resumed_run(tmp_path):
    from tensorboard.backend.event_processing import event_accumulator

    for start, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        log = metrics_log.MetricsLog(tmp_path, step=start)
        for step in steps:
            log.add({"step": step, "loss": float(10 * start + step)})
        log.close()
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 2  # though both were made within a second
    events = event_accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 1), (2, 2), (3, 23), (4, 24)]


def test_the_table_shows_accuracy_beside_chance():
    row = {"top1": 0.5, "top5": 0.9, "classes": 4, "images": 10, "candidates": 8}
    text = tables.results_table({"heldout": row, "step": 3})
    (line,) = [line for line in text.splitlines() if "heldout" in line]
    # Wilson's intervals of 5 and 9 in 10, as any table of them has them.
    assert line.split() == ["heldout", "8", "10", "50.00", "%", "23.7–76.3", "90.00", "%", "59.6–98.2", "12.50", "%"]


def test_figures_of_few_species_are_warned_of_and_those_that_cannot_be_wrong_are_not_told():
    row = {"top1": 0.5, "top5": 1.0, "classes": 2, "images": 10, "candidates": 2}
    text = tables.results_table({"seen": row, "heldout": row, "heldout_among_all": row | {"candidates": 9}})
    (line,) = [line for line in text.splitlines() if line.split()[:1] == ["heldout"] and "all" not in line]
    assert line.split() == ["heldout", "2", "10", "50.00", "%", "23.7–76.3", "–", "50.00", "%"]
    assert text.count("warning: ") == 1 and "2 held-out species are few" in text and "100.00" in text
    assert "warning" not in tables.results_table({"heldout": row | {"classes": 10, "candidates": 10}, "seen": row})
    assert "warning" in tables.results_table({"birds": row | {"classes_in_training": 0}})
    assert [tables.tells(name, 5) for name in ("top1", "top5", "macro_top1", "recall@10")] == [
        True,
        False,
        True,
        False,
    ]
    assert tables.tells("recall@5", 6) and tables.rate(row, "top5", candidates=5) == tables.NOTHING
    assert tables.rate(row, "top1", candidates=2) == "50.0 % (23.7–76.3)"
    assert tables.rate({"macro_top1": 0.5, "macro_top1_interval": None}, "macro_top1", candidates=2) == "50.0 %"


def lines_of(monkeypatch):
    """The lines that `report.curves` draws: their labels and heights, by the title of their plot."""
    import matplotlib.pyplot as plt

    found = {}

    def keep(figure):
        for axis in figure.axes:
            found[axis.get_title()] = {line.get_label(): list(line.get_ydata()) for line in axis.lines}

    monkeypatch.setattr(plt, "close", keep)
    return found


def test_curves_are_a_picture(tmp_path, monkeypatch, drawn):
    records = [{"step": i, "epoch": i / 2, "loss": 3.0 - i / 10, "learning_rate": 1e-3} for i in range(10)]
    records.append({"step": 9, "epoch": 4.5, "seen/top1": 0.5, "seen/top5": 0.7})
    metrics_log.curves(tmp_path / "curves.png", records, title="a run")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size[0] > 1000
    lines = lines_of(monkeypatch)
    few = {"few/top1": 0.6, "few/top5": 1.0, "few/candidates": 4, "seen/candidates": 20}
    records = [{**record, "loss_floor": 1.5} for record in records[:-1]] + [records[-1] | few]
    metrics_log.curves(tmp_path / "curves.png", records, title="a run that knows its chance and its floor")
    accuracies = lines["zero-shot accuracy (%)"]
    assert set(accuracies) == {"seen, top-1", "seen, top-5", "few, top-1", "seen, chance", "few, chance"}
    assert set(accuracies["seen, chance"]) == {5.0} and set(accuracies["few, chance"]) == {25.0}
    assert set(lines["loss (nats)"]["at least"]) == {1.5}
    metrics_log.curves(tmp_path / "none.png", records[:0], title="no step was logged")
    assert [path.name for path in tmp_path.iterdir() if "incomplete" in path.name] == []


def test_json_is_written_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"a": object()})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}


def test_progress_prints_plain_lines_without_a_terminal(capsys):
    record = {"step": 5, "epoch": 0.5, "loss": 1.25, "steps_per_s": 2.0, "pairs_per_s": 512.0}
    with console.Progress(10, every_seconds=0) as progress:
        progress.update(record)
    assert capsys.readouterr().out == "step 5/10, epoch 0.50, loss 1.2500, 512 pairs/s, ETA 2 s\n"
    with console.Progress(10, every_seconds=0) as progress:
        progress.update(record | {"loss_floor": 0.75})
    assert "loss 1.2500 (at least 0.75), 512 pairs/s" in capsys.readouterr().out
    with console.Progress(10, quiet=True, every_seconds=0) as progress:
        progress.update(record)
    assert capsys.readouterr().out == ""


def test_examples_in_the_documentation_run():
    assert doctest.testmod(console).failed == 0


def test_a_full_disk_is_an_error_of_the_log_and_no_wait_for_ever(tmp_path):
    log = metrics_log.MetricsLog(tmp_path)
    writer = log._events._writer._py_recordio_writer
    writer.close()
    writer._writer = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    with pytest.raises(OSError, match="No space left on device"):
        for step in range(10_000):
            log.add({"step": step, "loss": 1.0})
    writer.close()


@pytest.mark.parametrize(
    ("right", "images", "candidates", "is_worse"),
    [
        (0, 100, 4, True),
        (15, 100, 4, True),
        (17, 100, 4, False),
        (25, 100, 4, False),
        (0, 10, 40, False),
        (0, 9, 1, False),
        (0, 700, 160, True),
    ],
)
def test_what_is_worse_than_guessing_beyond_its_range_is_said(right, images, candidates, is_worse):
    p, z = right / images, 1.959963984540054  # Wilson's upper end, by hand
    upper = (p + z * z / (2 * images) + z * ((p * (1 - p) + z * z / (4 * images)) / images) ** 0.5) / (
        1 + z * z / images
    )
    assert (candidates > 1 and upper < 1 / candidates) == is_worse
    row = {"top1": p, "top5": p, "images": images, "classes": candidates, "candidates": candidates}
    text = tables.results_table({"seen": row})
    assert ("warning: seen: top-1 of" in text) == is_worse == ("worse than guessing" in text)


def hard(images, top1s):
    return [
        {"class": f"c{number:02}", "common_name": "", "images": images, "top1": top1, "top5": top1, "taken_for": []}
        for number, top1 in enumerate(top1s)
    ]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (hard(1, [0.0] * 9 + [1.0] * 9), "each class has one photo, which does not say which are hardest"),
        (hard(5, [0.0] * 12 + [1.0] * 3), "12 classes are as hard as the last of these; the first by name are shown"),
        (hard(5, [0.1 * n for n in range(15)]), ""),
        (hard(5, [0.0] * 10), ""),
    ],
)
def test_an_order_that_is_the_alphabet_is_no_order_of_hardness(rows, said):
    assert tables.why_no_order(rows, 10) == said

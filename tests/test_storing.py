"""Files and folders that are whole or absent, and the processes that write them."""

import multiprocessing
import os
from multiprocessing import connection
from pathlib import Path

import numpy as np
import pytest

from lit_jax.base import files, processes
from lit_jax.data import embedding_store
from lit_jax.errors import UserError
from lit_jax.evaluation import page
from lit_jax.models import weight_files
from lit_jax.text import classes
from lit_jax.training import metrics_log


class Unwritable:
    """A value at which every writer fails half way."""

    def __array__(self, *_, **__):
        raise OSError("in the middle")

    def __str__(self):
        raise OSError("in the middle")


def failing(*_, **__):
    raise OSError("in the middle")


@pytest.mark.parametrize(
    ("write", "inner"),
    [
        (lambda path: weight_files.write_npz(path, {"a": np.ones(3), "b": Unwritable()}), None),
        (lambda path: weight_files.write_safetensors(path, {"a": np.ones(3)}), "pathlib.Path.chmod"),
        (lambda path: metrics_log.curves(path, [], title="t"), "matplotlib.figure.Figure.savefig"),
        (lambda path: page.write(path, {}, name="m"), "lit_jax.evaluation.page.page"),
        (lambda path: files.write_json(path, 1), "json.dumps"),
        (lambda path: classes.write_class_table(classes.ClassTable((1,), {"name": (Unwritable(),)}), path), None),
    ],
    ids=["npz", "safetensors", "png", "html", "json", "csv"],
)
def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(write, inner, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("old")
    if inner:
        monkeypatch.setattr(inner, failing)
    with pytest.raises((OSError, UserError)):
        write(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "old"


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append(os.fstat(handle).st_size), sync(handle)))
    with files.written_aside(tmp_path / "one") as aside:
        aside.write_text("a")
    assert done == []
    with files.written_aside(tmp_path / "two", sync=True) as aside:
        aside.write_text("abc")
        assert files.is_part(aside) and not (tmp_path / "two").exists()
    assert done == [3] and sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    embedding_store.write_shard(tmp_path, "s", np.ones((2, 1, 3)), np.arange(2), ["a", "b"], dtype="float32")
    assert len(done) == 4 and min(done) > 0  # the three files of a shard


def test_what_a_killed_process_left_is_cleared(tmp_path):
    for name in ("tar.12.part", "tar", "particle", "thesis.part", "film.mkv.part"):  # of a person, the last two
        (tmp_path / name).write_text("")
    files.clear_parts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.mkv.part", "particle", "tar", "thesis.part"]


def test_the_first_error_of_a_write_is_the_one_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ZeroDivisionError), files.written_aside(tmp_path / "file" / "x"):
        raise ZeroDivisionError


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="holds a job up by a pipe")
def test_whoever_stops_early_ends_the_jobs_at_work(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    results = processes.each(Path.read_bytes, [tmp_path / "file", tmp_path / "pipe"], 2)
    assert next(results) == b"x"
    with open(tmp_path / "pipe", "wb"):  # opens once the second job reads, which ends no sooner than this block
        ends = [process.sentinel for process in multiprocessing.active_children()]
        results.close()
        assert len(ends) == 2 and all(connection.wait([end], timeout=20) for end in ends)


# The functions of these jobs are Python's own: a process would import this module, and all that it needs, for others.


def test_jobs_are_done_in_order_and_by_other_processes():
    assert list(processes.each(abs, range(-5, 0), 1)) == list(processes.each(abs, range(-5, 0), 2, chunk=2))
    assert list(processes.each(abs, range(-5, 0), 2)) == [5, 4, 3, 2, 1]


def test_an_error_of_a_process_is_told():
    with pytest.raises(ValueError, match="no number"):
        list(processes.each(int, ["1", "no number"], 2))
    with pytest.raises(UserError, match=r"found one of 2 processes dead.*give it more"):
        list(processes.each(os._exit, [1, 1], 2))

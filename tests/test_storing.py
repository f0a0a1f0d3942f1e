"""Files and folders that are whole or absent, and the processes that write them."""

import os

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
    for name in ("tar.12.part", "tar", "particle"):
        (tmp_path / name).write_text("")
    files.clear_parts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["particle", "tar"]


def of_job(job):
    if job == "dies":
        os._exit(1)
    if job == "fails":
        raise UserError("a job")
    return os.getpid() if job == "who" else job


def test_jobs_are_done_in_order_by_other_processes():
    assert list(processes.each(of_job, [*range(5), "who"], 1)) == [*range(5), os.getpid()]
    *got, who = processes.each(of_job, [*range(5), "who"], 2, chunk=2)
    assert got == [*range(5)] and who != os.getpid()


@pytest.mark.parametrize(
    ("job", "message"), [("fails", "a job"), ("dies", "found one of 2 processes dead.*give it more")]
)
def test_an_error_of_a_process_is_told_and_ends_the_others(job, message):
    with pytest.raises(UserError, match=message):
        list(processes.each(of_job, [job, 1, 2], 2))

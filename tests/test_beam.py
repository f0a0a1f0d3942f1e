"""Shards written by Beam's workers are the shards of a conversion without Beam."""

import json
import logging
import os
import pickle
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.conversion import beam
from data_prep.conversion.plan import Planned
from data_prep.conversion.shards import Job, Texts, finished, write_shard
from data_prep.convert import main
from data_prep.sources import photo_places
from lit_jax.errors import UserError
from lit_jax.text.classes import write_class_table
from tests.test_convert import ROOT, TABLE, contents, encoded, noise, write_photos


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    write_photos(tmp_path / "photos", 4)
    write_class_table(TABLE, tmp_path / "classes.csv")
    given = f"--images {tmp_path}/photos --classes {tmp_path}/classes.csv --shards 3 --vocab-size 0 --workers 1 --out"
    return given.split()


def error_of(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def job_of(tmp_path: Path, number: int = 2) -> Job:
    """A shard of photos, one of them with a name that is no UTF-8, one inside a larger file."""
    name = os.fsdecode(b"caf\xe9.jpg")
    jpegs = [encoded(noise(i), "JPEG") for i in range(number)]
    (tmp_path / name).write_bytes(jpegs[0])
    (tmp_path / "photos.tar").write_bytes(b"abc" + jpegs[1])
    places = [str(tmp_path / name), photo_places.span(tmp_path / "photos.tar", 3, len(jpegs[1]))]
    photos = [Planned(place, f"{i}.jpg", 7, "train", len(jpegs[i])) for i, place in enumerate(places)]
    (tmp_path / "out.incomplete").mkdir(exist_ok=True)
    texts = {7: Texts(("a photo of the Magpie",), {"name": "Pica pica"})}
    cleaning = {"max_side": 0, "quality": 95, "max_pixels": 1000}
    return Job(tmp_path / "out.incomplete" / "photos-train.tfrecord-00000-of-00001", photos, texts, cleaning)


def test_a_stored_job_is_plain_text_and_gives_the_shard(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    (tmp_path / "out.incomplete" / "progress").mkdir()
    expected = write_shard(job)
    whole = job.path.read_bytes()
    shutil.rmtree(tmp_path / "out.incomplete" / "progress")
    file = beam._store(job)
    assert json.loads(file.read_text(encoding="utf-8"))
    assert beam.write_stored(str(file)) == str(file)
    assert job.path.read_bytes() == whole and finished(job.path) == expected and expected.shard.examples == 2


class Payload:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.mark, "ran")


@pytest.mark.parametrize("change", ["pickle", "cut", "list", "cleaning", "photos", "number", "elsewhere"])
def test_a_job_that_somebody_else_wrote_runs_nothing_and_writes_nowhere_else(tmp_path: Path, change: str) -> None:
    """Whoever can write to the output folder can put a file where a worker looks for its job."""
    file, mark = beam._store(job_of(tmp_path)), tmp_path / "mark"
    text = file.read_bytes()
    value = json.loads(text) if text[:1] == b"{" else {"cleaning": {}, "photos": [[]], "texts": []}
    if change == "pickle":
        file.write_bytes(pickle.dumps(Payload(mark)))
    elif change == "cut":
        file.write_bytes(text[:-20])
    elif change == "elsewhere":  # only where the job itself lies says which shard is written
        file.write_text(json.dumps({**value, "path": str(tmp_path / "elsewhere")}))
    else:
        wrong = {"list": [value], "cleaning": {**value, "cleaning": {"exec": 1}}, "photos": {**value, "photos": [["x"]]},
                 "number": {**value, "cleaning": {"max_side": "1", "quality": 95, "max_pixels": 1000}}}  # fmt: skip
        file.write_text(json.dumps(wrong[change]))
    with pytest.raises(
        UserError, match=r"\.json: found no job of this conversion \(.*\), expected .*; run the same com"
    ):
        beam.write_stored(str(file))
    assert not mark.exists() and not (tmp_path / "elsewhere").exists()


def test_beam_gives_the_same_bytes(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("apache_beam")
    main([*command, str(tmp_path / "plain")])
    main([*command, str(tmp_path / "beam"), "--beam", "--runner=DirectRunner", "--direct_num_workers=2"])
    assert "16 photos in 6 shards go to Beam's workers" in capsys.readouterr().out
    assert contents(tmp_path / "plain") == contents(tmp_path / "beam")


def test_workers_of_a_portable_runner_give_the_same_bytes(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job service and a pool of workers, processes of their own, as on other machines."""
    pytest.importorskip("apache_beam")
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            ports.append(str(probe.getsockname()[1]))
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    services = [
        subprocess.Popen([sys.executable, "-m", f"apache_beam.runners.{module}", option, port], env=env)
        for module, option, port in (
            ("portability.local_job_service_main", "--port", ports[0]),
            ("worker.worker_pool_main", "--service_port", ports[1]),
        )
    ]
    try:
        for port in ports:
            until = time.monotonic() + 60
            while socket.socket().connect_ex(("localhost", int(port))) and time.monotonic() < until:
                time.sleep(0.2)
        main([*command, str(tmp_path / "plain")])
        main([
            *command, str(tmp_path / "beam"), "--beam", "--runner=PortableRunner", f"--job_endpoint=localhost:{ports[0]}",
            "--environment_type=EXTERNAL", f"--environment_config=localhost:{ports[1]}",
        ])  # fmt: skip
    finally:
        for service in services:
            service.kill()
    assert "16 photos in 6 shards go to Beam's workers" in capsys.readouterr().out
    assert contents(tmp_path / "plain") == contents(tmp_path / "beam")


def test_beam_goes_on_with_the_shards_that_are_missing(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("apache_beam")
    store = beam._store

    def lose_one(job: Job) -> Path:
        path = store(job)
        if "00001-of" in path.name:
            path.unlink()
        return path

    monkeypatch.setattr(beam, "_store", lose_one)
    line = error_of([*command, str(tmp_path / "out"), "--beam"], capsys)
    assert line.startswith("error: ") and line.endswith(
        "on a worker, expected it; put --out on storage that all workers see"
    )
    monkeypatch.undo()
    main([*command, str(tmp_path / "out"), "--beam", "--", "--runner=DirectRunner"])
    main([*command, str(tmp_path / "plain")])
    assert contents(tmp_path / "plain") == contents(tmp_path / "out")


def test_a_shard_that_no_worker_wrote_is_told_in_one_line(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("apache_beam")
    monkeypatch.setattr(beam.BeamWriter, "_run", lambda *_: None)
    line = error_of([*command, str(tmp_path / "out"), "--beam"], capsys)
    assert (
        "photos-train.tfrecord-00000-of-00003: found no such shard after the pipeline, nor 5 others, expected all 6; put --out on"
        in line
    )


def test_a_full_disk_of_a_worker_is_told_in_one_line_without_a_traceback(
    command: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("apache_beam")

    def full(_: Job) -> None:
        raise OSError(28, "No space left on device", "some file")

    monkeypatch.setattr(beam, "write_shard", full)
    line = error_of([*command, str(tmp_path / "out"), "--beam"], capsys)
    assert line.startswith("error: some file: found No space left on device, expected to write there; make room")
    assert not [record for record in caplog.records if record.exc_info and record.levelno >= logging.ERROR]


def test_a_misspelt_option_is_refused_with_beam_and_without(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = error_of([*command, str(tmp_path / "out"), "--sedd", "3"], capsys)
    assert line.startswith("error: --sedd: found an unknown option, expected a known one; did you mean --seed?")
    pytest.importorskip("apache_beam")
    line = error_of([*command, str(tmp_path / "out"), "--beam", "--sedd", "3"], capsys)
    assert line == "error: --beam: found --sedd, expected an option of this command or of Beam; correct it"


def test_without_beam_installed_one_line_says_how_to_install_it(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "apache_beam"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    line = error_of([*command, str(tmp_path / "out"), "--beam"], capsys)
    assert line == "error: --beam: found no apache-beam, expected it installed; run: pip install 'lit_jax[beam]'"

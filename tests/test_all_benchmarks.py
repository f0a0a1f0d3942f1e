"""The command that runs every benchmark: what may be compared, what is left out, and what becomes of failures."""

import json
import os
import time
from pathlib import Path

import pytest

from benchmarks import all as command
from benchmarks import comparing, declared, drawn, gpu, machine
from benchmarks.comparing import (
    BETTER,
    BUSY,
    NEW,
    OTHER_MACHINE,
    OTHER_SETTINGS,
    SAME,
    WORSE,
    compared,
    values,
    verdict,
)
from benchmarks.declared import ACCURACY, CPU_TIME, ERROR, MEMORY, RATE, TIME, Benchmark, Figure
from tests.test_benchmarks import COMMANDS

HERE = {"processor": "A", "cores": 2, "devices": ["cpu"], "device_count": 1}
STUB = Benchmark(
    (Figure("speed", RATE), Figure("sides.*.s", TIME), Figure("top1", ACCURACY), Figure("error", ERROR)),
    quick=("--small",), full=("--large",), settings=("size",),
)  # fmt: skip


def result(speed=10.0, s=1.0, top1=0.5, error=1e-6, size=8, **facts):
    content = {"speed": speed, "sides": {"a": {"s": s}}, "top1": top1, "error": error, "size": size}
    return {"machine": {**HERE, **facts}, **content}


def verdicts(now, then):
    return {one.figure: one.verdict for one in compared(STUB, now, then)}


def test_every_benchmark_and_every_committed_result_is_declared():
    modules = {one.module or name for name, one in declared.BENCHMARKS.items()}
    assert modules == set(COMMANDS) - {"all"}
    committed = {path.stem for path in machine.RESULTS.glob("*.json")}
    assert committed - {"conversion_before"} <= set(declared.BENCHMARKS)
    assert {name for one in declared.BENCHMARKS.values() for name in one.made} <= set(declared.MADE)


@pytest.mark.parametrize(
    "name", sorted({path.stem for path in machine.RESULTS.glob("*.json")} & set(declared.BENCHMARKS))
)
def test_declared_figures_and_settings_are_in_the_committed_results(name):
    then, benchmark = command.committed(name), declared.BENCHMARKS[name]
    for figure in benchmark.figures:
        assert values(then, figure.path), figure
    for path in benchmark.settings:
        assert comparing._at(then, path) is not None, path
    # Beside itself, all is the same; a result that does not say where it was measured is compared in accuracy only.
    found = {one.verdict for one in compared(benchmark, then, then)}
    assert found <= ({SAME} if "cores" in then["machine"] else {SAME, OTHER_MACHINE})


@pytest.mark.parametrize("name", declared.BENCHMARKS)
def test_arguments_are_ones_that_the_benchmark_knows(name, capsys, tmp_path):
    benchmark = declared.BENCHMARKS[name]
    where = command.places(tmp_path, tmp_path)
    with pytest.raises(SystemExit):
        __import__(f"benchmarks.{benchmark.module or name}", fromlist=["main"]).main(["--help"])
    usage = capsys.readouterr().out
    for arguments in (benchmark.quick or (), benchmark.full, (f"{benchmark.out}=x",)):
        for one in (part.format_map(where) for part in arguments if part.startswith("--")):
            assert one.partition("=")[0] in usage, one


@pytest.mark.parametrize(
    ("kind", "then", "now", "said"),
    [
        (TIME, 1.0, 1.4, SAME), (TIME, 1.0, 1.6, WORSE), (TIME, 1.6, 1.0, BETTER),
        (RATE, 100, 60, WORSE), (RATE, 100, 70, SAME), (RATE, 60, 100, BETTER), (RATE, 100, 0, WORSE),
        (MEMORY, 100, 130, WORSE), (MEMORY, 100, 110, SAME), (MEMORY, 130, 100, BETTER),
        (ACCURACY, 0.5, 0.505, SAME), (ACCURACY, 0.5, 0.48, WORSE), (ACCURACY, 0.5, 0.53, WORSE),
        (ERROR, 3e-5, 1e-4, SAME), (ERROR, 3e-5, 2e-4, WORSE), (ERROR, 0, 9e-6, SAME), (ERROR, 0, 1, WORSE),
        (ERROR, 1e-3, 0, SAME),
    ],
)  # fmt: skip
def test_what_is_the_same(kind, then, now, said):
    assert verdict(kind, then, now) == said


def test_figures_are_divided():
    rows = {one.figure: one for one in compared(STUB, result(speed=5.0), result())}
    assert (rows["speed"].then, rows["speed"].now, rows["speed"].ratio) == (10.0, 5.0, 0.5)
    assert rows["speed"].verdict == WORSE and rows["sides.a.s"].verdict == SAME


@pytest.mark.parametrize("fact", [{"processor": "B"}, {"cores": 4}, {"devices": ["H100"]}, {"device_count": 8}])
def test_times_of_two_machines_are_never_compared_but_accuracy_is(fact):
    now = result(speed=1.0, top1=0.1, **fact)
    found = verdicts(now, result())
    assert found == {"speed": OTHER_MACHINE, "sides.a.s": OTHER_MACHINE, "top1": WORSE, "error": SAME}
    assert all(one.ratio is None for one in compared(STUB, now, result()) if one.verdict == OTHER_MACHINE)


def test_a_result_that_does_not_say_where_it_is_from_is_of_another_machine():
    then = result()
    del then["machine"]["cores"]
    now = json.loads(json.dumps(then))
    assert verdicts(now, then)["speed"] == OTHER_MACHINE and verdicts(now, then)["top1"] == SAME


def test_at_other_settings_only_what_should_hold_at_any_is_compared():
    found = verdicts(result(speed=1.0, top1=0.1, error=1.0, size=2), result())
    assert found == {"speed": OTHER_SETTINGS, "sides.a.s": OTHER_SETTINGS, "top1": OTHER_SETTINGS, "error": WORSE}
    always = Benchmark((Figure("top1", ACCURACY, always=True),), settings=("size",))
    assert compared(always, result(top1=0.1, size=2), result())[0].verdict == WORSE


def test_a_busy_machine_is_not_called_slow_by_the_clock():
    benchmark = Benchmark((Figure("speed", RATE), Figure("sides.a.s", CPU_TIME), Figure("top1", ACCURACY)))
    now = result(speed=1.0, s=9.0, top1=0.1)
    assert [one.verdict for one in compared(benchmark, now, result(), busy=True)] == [BUSY, WORSE, WORSE]
    assert compared(benchmark, result(), now, busy=True)[0].verdict == BETTER


def test_the_share_of_others_is_what_the_cores_do_meanwhile(monkeypatch):
    looks = iter([(1000, 400), (1100, 430)])
    monkeypatch.setattr(command, "_ticks", lambda: next(looks))
    assert command.share_of_others(0) == pytest.approx(0.7)
    monkeypatch.undo()
    total, idle = command._ticks()
    assert 0 < idle < total


def test_what_is_not_committed_is_new():
    assert set(verdicts(result(), None).values()) == {NEW}
    then = result()
    del then["sides"]
    assert verdicts(result(), then)["sides.a.s"] == NEW


def test_entries_of_a_list_are_called_by_what_they_begin_with():
    content = {"cases": [{"case": "a", "error": 1}, {"case": "b", "error": 2.5, "ok": True}], "runs": [{"x": {"s": 3}}]}
    assert values(content, "cases.*.error") == {"cases.a.error": 1.0, "cases.b.error": 2.5}
    assert values(content, "cases.*.case") == {} and values(content, "cases.*.ok") == {"cases.b.ok": 1.0}
    assert values(content, "runs.*.x.s") == {"runs.0.x.s": 3.0}


def test_what_is_missing_is_told(tmp_path, monkeypatch):
    where = command.places(tmp_path / "shared", tmp_path)

    def reason(quick=False, has_gpu=False, **given):
        benchmark = Benchmark((), **{"quick": (), **given})
        return command.lacking(benchmark, where, quick=quick, has_gpu=has_gpu)

    assert reason() == reason(quick=True) == ""
    assert reason(packages=("no_such_package", "json")) == "no no_such_package"
    assert reason(files=("{inat}",)) == f"no {tmp_path}/shared/inat2021-categories.csv"
    assert reason(programs=(("no-such-program", "nor-this"), ("sh",))) == "no no-such-program or nor-this"
    assert reason(gpu=True) == "no GPU" and reason(gpu=True, has_gpu=True) == reason(gpu=True, quick=True) == ""
    assert "no quick run" in command.lacking(Benchmark(()), where, quick=True, has_gpu=False)
    monkeypatch.setitem(
        declared.MADE, "slow", declared.Made("{work}/slow", (), packages=("no_such_package",), takes_long=True)
    )
    monkeypatch.setitem(declared.MADE, "on_top", declared.Made("{work}/top", (), made=("slow",)))
    assert reason(made=("on_top",)) == "no no_such_package"
    assert reason(made=("on_top",), quick=True) == f"no {tmp_path}/work/slow, no_such_package"
    (tmp_path / "work" / "slow").mkdir(parents=True)
    assert reason(made=("on_top",), quick=True) == "" and command.needed(["on_top"]) == ["slow", "on_top"]


def stub(folder, monkeypatch, text):
    (folder / "a_stub.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


def test_a_process_that_fails_is_told_by_its_last_line(tmp_path, monkeypatch):
    stub(tmp_path, monkeypatch, "import sys\nprint('first')\nsys.exit('no room on the disk')")
    assert command.run(["a_stub"], tmp_path / "log", 60) == "exit 1: no room on the disk"
    stub(tmp_path, monkeypatch, "pass")
    assert command.run(["a_stub"], tmp_path / "log", 60) == ""


def test_a_process_that_takes_too_long_ends_with_its_children(tmp_path, monkeypatch):
    stub(tmp_path, monkeypatch, f"import subprocess, sys\nchild = subprocess.Popen(['sleep', '60'])\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\nchild.wait()")  # fmt: skip
    assert command.run(["a_stub"], tmp_path / "log", 1.5) == "stopped after 2 s"
    status = Path(f"/proc/{(tmp_path / 'pid').read_text()}/status")
    for _ in range(100):
        if not status.exists() or "State:\tZ" in status.read_text():  # gone, or only not yet waited for
            return
        time.sleep(0.05)
    pytest.fail("the child lives on")


@pytest.fixture
def stubs(tmp_path, monkeypatch):
    """Three benchmarks, of which one fails and one cannot run; `now` is what the first measures."""
    now, results = {}, tmp_path / "results"
    results.mkdir()
    (results / "good.json").write_text(json.dumps(result()))
    benchmarks = {"good": STUB, "bad": STUB, "absent": Benchmark((), quick=(), packages=("no_such_package",))}
    monkeypatch.setattr(command, "BENCHMARKS", benchmarks)
    monkeypatch.setattr(command, "_has_gpu", lambda: False)
    monkeypatch.setattr(command, "share_of_others", lambda: 0.0)
    monkeypatch.setattr(machine, "RESULTS", results)

    def run(arguments, log, seconds):
        log.touch()
        if arguments[0] == "benchmarks.bad":
            if "interrupted" in now:
                raise KeyboardInterrupt
            return "exit 1: broken"
        out = next(one for one in arguments if one.startswith("--out="))
        with open(out.removeprefix("--out="), "w") as file:
            json.dump(result(**{name: value for name, value in now.items() if name != "interrupted"}), file)
        return ""

    monkeypatch.setattr(command, "run", run)
    return now


def called(tmp_path, *arguments):
    with pytest.raises(SystemExit) as stop:
        command.main([*arguments, f"--out={tmp_path / 'out'}"])
    return stop.value.code


def test_a_failure_is_a_row_and_the_exit_code(stubs, tmp_path, capsys):
    assert called(tmp_path, "--quick") == 1
    out = capsys.readouterr().out
    (bad,) = (line for line in out.splitlines() if "bad failed: " in line)
    assert "exit 1: broken" in bad and "absent left out: no no_such_package" in out
    assert "1 benchmarks ran, 1 failed, 1 were left out; figures: 4 same" in out
    kept = json.loads((tmp_path / "out" / "all.json").read_text())
    assert kept["good"]["figures"][0]["ratio"] == 1.0 and kept["absent"] == {
        "skipped": "no no_such_package",
        "figures": [],
    }


def test_what_was_measured_before_a_stop_is_told(stubs, tmp_path, capsys):
    stubs["interrupted"] = True
    assert called(tmp_path, "--quick") == 130
    assert "1 benchmarks ran, 0 failed, 0 were left out; figures: 4 same" in capsys.readouterr().out
    assert list(json.loads((tmp_path / "out" / "all.json").read_text())) == ["good"]


def test_the_exit_code_tells_a_figure_that_differs(stubs, tmp_path):
    assert called(tmp_path, "--quick", "--only", "good", "absent") == 0
    stubs["top1"] = 0.4
    assert called(tmp_path, "--quick", "--only", "good") == 1
    stubs.update(top1=0.5, speed=1.0, cores=64)  # slower, but elsewhere
    assert called(tmp_path, "--quick", "--only", "good") == 0


def test_committed_results_are_written_over_only_when_asked(stubs, tmp_path, capsys):
    stubs["speed"] = 11.0
    path = machine.RESULTS / "good.json"
    before = path.read_text()
    assert called(tmp_path, "--full", "--only", "good") == 0 and path.read_text() == before
    assert called(tmp_path, "--full", "--over-committed", "--only", "good") == 0
    assert json.loads(path.read_text())["speed"] == 11.0
    assert "1.10" in capsys.readouterr().out  # beside what was there before
    assert called(tmp_path, "--quick", "--over-committed", "--only", "good") == 2
    with pytest.raises(SystemExit) as stop:
        command.main(["--full", f"--out={machine.RESULTS}"])
    assert stop.value.code == 2
    assert called(tmp_path, "--quick", "--only", "goood") == 2


def test_a_benchmark_that_writes_nothing_has_failed(stubs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "run", lambda *_: "")
    assert called(tmp_path, "--quick", "--only", "good") == 1 and "wrote no JSON" in capsys.readouterr().out


def test_drawn_photos_are_as_large_as_real_ones_and_differ(tmp_path):
    nbytes = drawn.folder(tmp_path, 40)
    paths = sorted(tmp_path.glob("*/*.jpg"))
    assert len({path.read_bytes() for path in paths}) == 40 and 55_000 < nbytes / 40 < 70_000
    stamp = paths[0].stat().st_mtime_ns
    assert drawn.folder(tmp_path, 40) == nbytes and paths[0].stat().st_mtime_ns == stamp


def test_a_part_of_the_gpus_benchmark_that_failed_is_the_exit_code(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "part", lambda name, _: {"failed": "exit 2"} if name == "large" else {"pairs_per_s": 5.0})
    arguments = ["--tiny", "--parts", "recipe", "large", f"--workdir={tmp_path}", f"--out={tmp_path / 'gpu.json'}"]
    with pytest.raises(SystemExit) as stop:
        gpu.main(arguments)
    assert stop.value.code == "failed: large"
    assert json.loads((tmp_path / "gpu.json").read_text())["parts"]["recipe"] == {"pairs_per_s": 5.0}


@pytest.mark.slow
def test_one_gpus_embedding_runs_in_small(tmp_path):
    gpu.main(["--tiny", "--parts", "embed", f"--workdir={tmp_path}", f"--out={tmp_path / 'gpu.json'}"])
    assert json.loads((tmp_path / "gpu.json").read_text())["parts"]["embed"]["by_cores"]["1"]["photos"] == 40

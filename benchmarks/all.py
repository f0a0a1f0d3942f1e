r"""Every benchmark that this machine can run, in one table beside the committed figures.

    python -m benchmarks.all --quick                        # small settings: minutes in all on two cores
    python -m benchmarks.all --full --only forward parity   # the settings of the committed results

Each benchmark is a process of its own with a time limit. What lacks a package, a GPU, Chromium or data is left out,
with the reason in its row; one that fails or takes too long is a row as well. What benchmarks read and the package
makes, as records of CUB, is made first, in ``data/`` and ``runs/``.

Figures are divided by the committed ones only where that means something: times, rates and memory on the same kind of
processor with as many cores and the same devices, accuracy and errors on any machine; all but errors at the same
settings only. Figures by the clock that are worse while other work keeps the machine busy are told and not held against
it; measure again when it is idle. Exit code: 0; 1 if a benchmark failed or a figure differs; 2 for what can be mended.

Results go to ``--out``. ``--over-committed`` writes those of a full run over benchmarks/results as well.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks import machine
from benchmarks.comparing import WORSE, Compared, compared
from benchmarks.declared import BENCHMARKS, MADE, Benchmark
from lit_jax.base.files import write_json
from lit_jax.errors import UserError, user_errors_in_one_line

SHARED = machine.ROOT.parent / "shared" / "data"
LIMITS = {"quick": 600.0, "full": 4 * 3600.0}  # seconds a benchmark
BUSY_SHARE = 0.25  # of the cores that other work takes before a benchmark starts
DIFFERS = 1
"""Exit code where a benchmark failed or a figure differs."""


def places(shared: pathlib.Path, out: pathlib.Path) -> dict[str, str]:
    """What the names in braces of `benchmarks.declared` stand for."""
    folders = {
        "root": machine.ROOT, "data": "data", "runs": "runs", "work": out / "work", "cub": shared / "cub100",
        "head": shared / "inat_birds_head", "inat": shared / "inat2021-categories.csv",
    }  # fmt: skip
    return {name: str(folder) for name, folder in folders.items()}


# What can run here ---------------------------------------------------------------------------------------------------


def lacking(benchmark: Benchmark, where: Mapping[str, str], *, quick: bool, has_gpu: bool) -> str:
    """Why a benchmark cannot run here, in a few words; empty if it can."""
    if quick and benchmark.quick is None:
        return "has no quick run, see --full"
    if benchmark.gpu and not quick and not has_gpu:
        return "no GPU"
    missing = _missing(benchmark.files, benchmark.packages, where)
    missing += [" or ".join(names) for names in benchmark.programs if not any(map(shutil.which, names))]
    for name in needed(benchmark.made):
        made = MADE[name]
        if exists(made.product.format_map(where)):
            continue
        if quick and made.takes_long:
            missing.append(made.product.format_map(where))
        missing += _missing(made.files, made.packages, where)
    return f"no {', '.join(dict.fromkeys(missing))}" if missing else ""


def _missing(files: Iterable[str], packages: Iterable[str], where: Mapping[str, str]) -> list[str]:
    absent = [package for package in packages if importlib.util.find_spec(package) is None]
    return absent + [path for path in (file.format_map(where) for file in files) if not exists(path)]


def exists(path: str) -> bool:
    """Whether a file or folder is there, from the root of the checkout."""
    return (machine.ROOT / path).exists()


def needed(names: Iterable[str]) -> list[str]:
    """These of `MADE` and what they are made from, each behind what it needs."""
    found: dict[str, None] = {}
    for name in names:
        found.update(dict.fromkeys([*needed(MADE[name].made), name]))
    return list(found)


# Running -------------------------------------------------------------------------------------------------------------


def run(command: Sequence[str], log: pathlib.Path, seconds: float) -> str:
    """Runs a module with its output in a file; returns what went wrong, empty if nothing.

    The process has a group of its own, which is killed as a whole where the time is over or this process is stopped.
    """
    with open(log, "ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", *command], cwd=machine.ROOT, stdin=subprocess.DEVNULL, stdout=file,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"stopped after {seconds:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if not code:
        return ""
    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
    return f"exit {code}: {last[0][:120]}"


def make(names: Iterable[str], where: Mapping[str, str], log: pathlib.Path, seconds: float) -> str:
    """Makes what is not there yet; returns what went wrong."""
    for name in needed(names):
        made = MADE[name]
        for command in () if exists(made.product.format_map(where)) else made.commands:
            print(f"making {made.product.format_map(where)}: {command[0]}", flush=True)
            if trouble := run([part.format_map(where) for part in command], log, seconds):
                return f"{name}: {trouble}"
    return ""


def measured(
    name: str, benchmark: Benchmark, where: Mapping[str, str], out: pathlib.Path, *, quick: bool, seconds: float
) -> dict[str, Any]:
    """Runs a benchmark; what it found and took, or what went wrong."""
    log, result = out / f"{name}.log", out / f"{name}.json"
    for old in (log, result):
        old.unlink(missing_ok=True)
    trouble = make(benchmark.made, where, log, seconds)
    start = time.perf_counter()
    if not trouble:
        arguments = [part.format_map(where) for part in (benchmark.quick if quick else benchmark.full) or ()]
        trouble = run([f"benchmarks.{benchmark.module or name}", *arguments, f"{benchmark.out}={result}"], log, seconds)
    row: dict[str, Any] = {"seconds": time.perf_counter() - start}
    if not trouble:
        with contextlib.suppress(OSError, ValueError):
            return {**row, "result": json.loads(result.read_text(encoding="utf-8"))}
        trouble = f"wrote no JSON to {result.name}"
    return {**row, "failed": f"{trouble} ({log})"}


# Telling -------------------------------------------------------------------------------------------------------------


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """One table with a row each figure; below it a line for each benchmark that was left out or failed."""
    figures = [
        [name, one.figure, number(one.then), number(one.now), "" if one.ratio is None else f"{one.ratio:.2f}",
         one.verdict]
        for name, row in rows.items()
        for one in row.get("figures", ())
    ]  # fmt: skip
    headings = ["benchmark", "figure", "committed", "now", "now / committed", ""]
    lines = [machine.table(headings, figures)] if figures else []
    for kind, told in (("skipped", "left out"), ("failed", "failed")):
        lines += [f"{name} {told}: {row[kind]}" for name, row in rows.items() if kind in row]
    return "\n".join(lines)


def number(value: float | None) -> str:
    """A figure in four digits; large whole ones in full."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def summary(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """How many benchmarks and figures there were of each kind, in a line."""
    ran = sum("figures" in row for row in rows.values())
    failed, left = (sum(kind in row for row in rows.values()) for kind in ("failed", "skipped"))
    figures = [one for row in rows.values() for one in row.get("figures", ())]
    counts = Counter(one.verdict for one in figures)
    told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())) or "none"
    return f"{ran} benchmarks ran, {failed} failed, {left} were left out; figures: {told}"


def went_wrong(rows: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a benchmark failed or a figure differs."""
    figures: list[Compared] = [one for row in rows.values() for one in row.get("figures", ())]
    return any("failed" in row for row in rows.values()) or any(one.verdict == WORSE for one in figures)


def committed(name: str) -> dict[str, Any] | None:
    """The committed result of a benchmark, if there is one."""
    path = machine.RESULTS / f"{name}.json"
    found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """The command: runs, compares, prints the table and writes all that it holds as JSON."""
    parsed = _parser().parse_args(argv)
    quick, out = parsed.quick, pathlib.Path(parsed.out).absolute()
    with user_errors_in_one_line("run the same command again"):
        if unknown := sorted(set(parsed.only) - set(BENCHMARKS)):
            raise UserError(f"--only: found {unknown[0]}, expected some of {', '.join(BENCHMARKS)}")
        if out == machine.RESULTS:
            raise UserError("--out: found the committed results, expected another folder; see --over-committed")
        if quick and parsed.over_committed:
            raise UserError("--over-committed: found it beside --quick, expected --full; quick figures are no results")
        (out / "work").mkdir(parents=True, exist_ok=True)
        # Else a process that is asked to end would leave its benchmark running.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        rows: dict[str, dict[str, Any]] = {}
        try:
            for name, row in _all(parsed, quick, out):
                rows[name] = row
        finally:  # one that is stopped has measured something, too
            _tell(rows, out / "all.json")
    sys.exit(DIFFERS if went_wrong(rows) else 0)


def _tell(rows: Mapping[str, Mapping[str, Any]], path: pathlib.Path) -> None:
    """Prints the table and writes all that it holds."""
    print(table(rows))
    print(summary(rows))
    write_json(path, {
        name: {**row, "figures": [vars(one) for one in row.get("figures", ())]} for name, row in rows.items()
    })  # fmt: skip
    print(f"written to {path}")


def _all(parsed: argparse.Namespace, quick: bool, out: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each benchmark and what came of it, one after the other."""
    where, has_gpu = places(pathlib.Path(parsed.shared).absolute(), out), _has_gpu()
    seconds = parsed.seconds or LIMITS["quick" if quick else "full"]
    for name in parsed.only or BENCHMARKS:
        if reason := lacking(BENCHMARKS[name], where, quick=quick, has_gpu=has_gpu):
            print(f"{name}: left out, {reason}", flush=True)
            yield name, {"skipped": reason}
            continue
        print(f"{name} ...", flush=True)
        then = committed(name)  # before it may be written over
        busy = share_of_others() > BUSY_SHARE
        row = measured(name, BENCHMARKS[name], where, out, quick=quick, seconds=seconds)
        if "result" in row:
            figures = compared(BENCHMARKS[name], row["result"], then, busy=busy)
            row = {"seconds": row["seconds"], "busy": busy, "figures": figures}
            if parsed.over_committed:
                shutil.copyfile(out / f"{name}.json", machine.RESULTS / f"{name}.json")
        print(f"{name}: {row['seconds']:.0f} s{', ' + row['failed'] if 'failed' in row else ''}", flush=True)
        yield name, row


def share_of_others(seconds: float = 1.0) -> float:
    """Which share of the cores other work takes, while this process waits; 0 where the system does not say."""
    before = _ticks()
    time.sleep(seconds)
    total, idle = (now - then for now, then in zip(_ticks(), before, strict=True))
    return 1 - idle / total if total else 0.0


def _ticks() -> tuple[int, int]:
    """Ticks of all cores since the machine started, and those of them that they were idle or waited for a disk."""
    try:
        fields = pathlib.Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:9]
    except OSError:
        return 0, 0
    return sum(map(int, fields)), int(fields[3]) + int(fields[4])


def _has_gpu() -> bool:
    """Asked in another process: one that has a GPU keeps its memory from the benchmarks."""
    code = "import jax; print(jax.default_backend())"
    return subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True).stdout.strip() == "gpu"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.all", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--quick", action="store_true", help="small settings of each")
    how.add_argument("--full", action="store_true", help="the settings of the committed results")
    add = parser.add_argument
    add("--only", nargs="+", default=[], metavar="NAME", help="these and no others")
    add("--out", default="runs/benchmarks", metavar="DIR", help="where results, logs and work go")
    held = "folder of CUB, the birds' head and the classes (default: %(default)s)"
    add("--shared", default=str(SHARED), metavar="DIR", help=held)
    add("--seconds", type=float, default=0, help="limit of each; 0: 600 where quick, else four hours")
    add("--over-committed", action="store_true", help="write results over benchmarks/results too")
    return parser


if __name__ == "__main__":
    main()

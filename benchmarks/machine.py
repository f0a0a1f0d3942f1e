"""What every benchmark records beside its figures, and how sides of a comparison are kept apart."""

import contextlib
import importlib.util
import json
import os
import pathlib
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from lit_jax.base import console
from lit_jax.base.files import write_json
from lit_jax.base.machine import installed

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = (
    "lit_jax", "jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-cpu", "tensorflow", "torch", "open_clip_torch",
    "webdataset", "simplejpeg", "timm",
)  # fmt: skip


def facts() -> dict[str, Any]:
    """The machine, its devices as JAX sees them, and the versions of what takes part."""
    import jax

    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "devices": sorted({device.device_kind for device in jax.devices()}),
        "device_count": jax.device_count(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": installed(*PACKAGES),
    }


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def write(name: str, content: Mapping[str, Any], out: str = "") -> pathlib.Path:
    """Writes the result of a benchmark with the facts of the machine; returns where."""
    path = pathlib.Path(out) if out else RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"machine": facts(), **content})
    print(f"written to {path}")
    return path


def side(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Runs one side of a comparison in a process of its own and returns the JSON of its last line.

    Libraries keep threads, caches and memory: two of them in one process would disturb each other.
    """
    command = [sys.executable, "-m", module, *arguments]
    got = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **(environment or {})}, stdout=subprocess.PIPE, text=True
    )
    if got.returncode:
        return {"failed": f"exit {got.returncode}"}
    found: dict[str, Any] = json.loads(got.stdout.splitlines()[-1])
    return found


LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Of the environment: glibc, from 2.35 on, asks Linux for pages of 2 MB; a program that takes and gives back large
arrays in every call is then spared most of the work of having them emptied."""


class Clock:
    """Wall-clock and CPU time (user and system, all threads) of a `with` block, in seconds."""

    def __enter__(self) -> "Clock":
        self._wall, self._cpu = time.perf_counter(), _cpu_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self._wall, _cpu_seconds() - self._cpu


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def peak_bytes() -> int:
    """The most memory that this process has had resident."""
    with contextlib.suppress(OSError, StopIteration):
        # Not ru_maxrss alone: on Linux a process begins with that of the one that started it.
        lines = pathlib.Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table for the terminal."""
    return console.text_table(headings, rows)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table of the documentation."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (headings, ["---"] * len(headings), *rows))


def torchvision() -> None:
    """Makes torchvision importable for timm and open_clip, also where it is there without its compiled part."""
    shim = ROOT.parent / "shared" / "peers" / "torchvision_cpu.py"
    if shim.is_file():
        spec = importlib.util.spec_from_file_location("torchvision_cpu", shim)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module(importlib.util.module_from_spec(spec))


def open_clip() -> Any:
    """Imports open_clip."""
    torchvision()
    import open_clip as imported

    return imported

"""Megabytes a second of `data_prep.convert`, beside ``cp`` of the same photos and beside nothing but decoding them.

    python -m benchmarks.conversion

The photos are drawn once: 500 x 375 pixels, about 60 kB, as most of iNaturalist 2021, all of them different, in folders
of 20 classes. Every side is a process of its own and reads photos that lie in memory already; sides take turns,
``--rounds`` times, and of each the round with the most megabytes a second and the one with the least CPU time count:

* ``cp``: ``cp -r`` of the folder;
* ``decoding``: every photo read and decoded in full by Pillow in one process, and nothing written;
* ``convert, 1 process`` and so on: the command, from its start to the last file. It reads a photo once, decodes it to
  be sure that it is whole, and keeps its bytes.

CPU time is user and system time, children included. Nobody waits for the disk: what is written may still lie in memory.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import drawn, machine
from lit_jax.errors import UserError, user_errors_in_one_line

COPY, DECODING = "cp", "decoding"


def one(side: str, photos: pathlib.Path, out: pathlib.Path) -> dict[str, float]:
    """Wall-clock and CPU seconds of one side."""
    shutil.rmtree(out, ignore_errors=True)
    command = ["cp", "-r", str(photos), str(out)]
    if side == DECODING:
        command = [sys.executable, "-m", "benchmarks.conversion", f"--decode={photos}"]
    elif side != COPY:
        command = [
            sys.executable, "-m", "data_prep.convert", f"--images={photos}", f"--out={out}", "--shards=8",
            f"--workers={side}", "--vocab-size=0",
        ]  # fmt: skip
    with machine.Clock() as clock:
        code = subprocess.run(command, cwd=machine.ROOT, stdout=subprocess.DEVNULL).returncode
    shutil.rmtree(out, ignore_errors=True)
    if code:
        raise UserError(f"{title(side)}: found exit code {code}, expected 0; what it said stands above")
    return {"wall_s": clock.wall, "cpu_s": clock.cpu}


def decode(photos: pathlib.Path) -> None:
    """Reads and decodes every photo."""
    from PIL import Image

    for path in sorted(photos.glob("*/*.jpg")):
        with Image.open(path) as image:
            image.load()


def title(side: str) -> str:
    """A side as the table names it."""
    return f"convert, {side} process{'es' * (side != '1')}" if side.isdigit() else side


def merged(runs: Sequence[dict[str, float]], count: int, nbytes: int) -> dict[str, Any]:
    """The rounds of a side as one result."""
    return {
        "mb_per_s": nbytes / 1e6 / min(run["wall_s"] for run in runs),
        "mb_per_s_by_round": [nbytes / 1e6 / run["wall_s"] for run in runs],
        "cpu_s_per_1000": 1000 * min(run["cpu_s"] for run in runs) / count,
        "cpu_s_per_1000_by_round": [1000 * run["cpu_s"] / count for run in runs],
    }


def main(argv: Sequence[str] | None = None) -> None:
    """The command: every side in turns, the table and the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conversion", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--workdir", type=pathlib.Path, default=pathlib.Path("runs/conversion"))
    add("--photos", type=int, default=4000)
    add("--workers", default="1,2", help="numbers of processes")
    add("--rounds", type=int, default=3)
    add("--decode", type=pathlib.Path, help=argparse.SUPPRESS)
    add("--out", default="")
    parsed = parser.parse_args(argv)
    if parsed.decode:
        decode(parsed.decode)
        return
    with user_errors_in_one_line():
        folder = parsed.workdir.absolute()
        nbytes = drawn.folder(folder / "photos", parsed.photos)
        sides = [COPY, DECODING, *parsed.workers.split(",")]
        runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        for _ in range(parsed.rounds):
            for side in sides:
                runs[side].append(one(side, folder / "photos", folder / "out"))
                print(f"{title(side)}: {json.dumps(runs[side][-1])}", flush=True)
        found = {title(side): merged(of, parsed.photos, nbytes) for side, of in runs.items()}
    for result in found.values():
        result["by_cp"] = result["mb_per_s"] / found[COPY]["mb_per_s"]
    rows = [
        [side, f"{of['mb_per_s']:.1f}", f"{of['by_cp']:.3f}", f"{of['cpu_s_per_1000']:.2f}"]
        for side, of in found.items()
    ]
    print(machine.table(["side", "MB/s", "of cp's", "CPU s per 1000"], rows))
    what = {"photos": parsed.photos, "mean_bytes": nbytes / parsed.photos, "workers": parsed.workers}
    machine.write("conversion", {**what, "rounds": parsed.rounds, "sides": found}, parsed.out)


if __name__ == "__main__":
    main()

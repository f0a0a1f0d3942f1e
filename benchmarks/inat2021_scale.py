r"""iNaturalist 2021 at its real number of rows through `data_prep.convert`: time, memory, and a kill on the way.

    python -m benchmarks.inat2021_scale --classes inat2021-categories.csv --out runs/inat2021_scale

Builds a stand-in of the released files: the real class table, ``train.json`` and ``val.json`` with all fields and as
many rows as the real ones (2,686,843 and 100,000), spread evenly over the classes, and a file for each row, hard links
to two hundred tiny JPEGs, so that what is measured is everything but the pixels. Then three runs of the command, each a
process of its own: one from beginning to end, one that is killed with all its processes at 40 % of train's shards, and
one that goes on from there. Files of both record sets are compared by SHA-256.

Memory is the proportional set size, summed over all processes of a run, sampled twice a second. ``--rows`` makes a
smaller one; its figures are printed and, without ``--result``, not written.
"""

import argparse
import hashlib
import io
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import machine
from lit_jax.errors import UserError, user_errors_in_one_line
from lit_jax.text.classes import ClassTable, read_class_table

TRAIN, VAL = 2_686_843, 100_000
POOL = 200  # distinct photos; ext4 allows 65,000 names of one file
KILLED_AT = 0.4
CLASSES = machine.ROOT.parent / "shared" / "data" / "inat2021-categories.csv"


# -- the stand-in


def build(folder: pathlib.Path, table: ClassTable, counts: dict[str, int]) -> float:
    """Writes JSON and photos, unless they are there; returns the seconds."""
    done, start = folder / "built.json", time.perf_counter()
    if done.is_file() and json.loads(done.read_text()) == counts:
        return 0.0
    shutil.rmtree(folder, ignore_errors=True)
    pool = _pool(folder / "pool")
    for subset, number in counts.items():
        for directory in table.columns["image_dir_name"]:
            (folder / subset / directory).mkdir(parents=True)
        with open(folder / f"{subset}.json", "w", encoding="utf-8") as file:
            file.writelines(_coco(subset, table, number))
        for i in range(number):
            os.link(pool[i % POOL], folder / _file_name(subset, table, i, number))
    done.write_text(json.dumps(counts))
    return time.perf_counter() - start


def _pool(folder: pathlib.Path) -> list[pathlib.Path]:
    folder.mkdir(parents=True)
    rng, paths = np.random.default_rng(0), []
    for i in range(POOL):
        encoded = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (*rng.integers(16, 33, 2), 3), np.uint8)).save(encoded, "JPEG")
        paths.append(folder / f"{i}.jpg")
        paths[-1].write_bytes(encoded.getvalue())
    return paths


def _class_of(table: ClassTable, i: int, number: int) -> int:
    return i * len(table) // number


def _file_name(subset: str, table: ClassTable, i: int, number: int) -> str:
    digest = hashlib.blake2b(f"{subset}{i}".encode(), digest_size=16).hexdigest()
    name = "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:]))
    return f"{subset}/{table.columns['image_dir_name'][_class_of(table, i, number)]}/{name}.jpg"


def _coco(subset: str, table: ClassTable, number: int) -> Iterator[str]:
    """The JSON in the form of the released one: one line, and the keys in the same order."""
    first = 0 if subset == "train" else TRAIN  # ids run on from one subset to the next
    yield json.dumps({"info": {"description": "made up", "year": 2021}})[:-1] + ', "images": ['
    for i in range(number):
        place = [None, None, None] if i % 50 == 0 else [43.86 + i % 9, 10.22 - i % 7, i % 999]
        row = {
            "id": first + i, "width": 500, "height": 375 + i % 125, "file_name": _file_name(subset, table, i, number),
            "license": i % 8, "rights_holder": f"Observer Nº {i % 70_000}", "date": "2020-07-05 03:12:09+00:00",
            "latitude": place[0], "longitude": place[1], "location_uncertainty": place[2],
        }  # fmt: skip
        yield (", " if i else "") + json.dumps(row)
    columns = {name: values for name, values in table.columns.items() if name != "label"}
    categories = [
        {"id": class_id, **{name: values[i] for name, values in columns.items()}}
        for i, class_id in enumerate(table.ids)
    ]
    yield f'], "categories": {json.dumps(categories)}, "annotations": ['
    for i in range(number):
        row = {"id": first + i, "image_id": first + i, "category_id": table.ids[_class_of(table, i, number)]}
        yield (", " if i else "") + json.dumps(row)
    yield '], "licenses": ' + json.dumps([{"id": i, "name": f"licence {i}", "url": ""} for i in range(8)]) + "}"


# -- the runs


def converted(arguments: Sequence[str], stop: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Runs the command and measures it; kills all its processes once `stop` says so."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    start, peak, killed = time.perf_counter(), 0, False
    process = subprocess.Popen(
        [sys.executable, "-m", "data_prep.convert", *arguments],
        cwd=machine.ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    lines: list[tuple[float, str]] = []
    reader = threading.Thread(target=_listen, args=(process, start, lines), daemon=True)
    reader.start()
    while process.poll() is None:
        peak = max(peak, sum(map(_proportional_bytes, _family(process.pid))))
        if not killed and stop():
            os.killpg(process.pid, signal.SIGKILL)
            killed = True
        time.sleep(0.5)
    reader.join(10)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode and not killed:
        raise UserError(f"data_prep.convert: found exit {process.returncode}, expected 0; see its message above")
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    found = {"wall_s": wall, "peak_bytes": peak, "until_s": _moments(lines)}
    return found if killed else {**found, "cpu_s": cpu}  # nobody counts the time of those whose parent was killed


def _listen(process: subprocess.Popen[str], start: float, lines: list[tuple[float, str]]) -> None:
    for line in process.stdout or ():
        lines.append((time.perf_counter() - start, line))
        print(f"{lines[-1][0]:8.1f} s  {line}", end="", flush=True)


def _moments(lines: Sequence[tuple[float, str]]) -> dict[str, float]:
    """Seconds from the start until each part of a conversion was over."""
    ends = {"json": "looking at names", "plan": "photos to store", "shards": "a second", "all": "wrote "}
    return {
        part: moment
        for part, text in ends.items()
        for moment in [next((moment for moment, line in lines if text in line), None)]
        if moment is not None
    }


def _family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    try:
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in _family(int(child)))]


def _proportional_bytes(pid: int) -> int:
    """Pages of its own, and its share of those that others use too."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # ended meanwhile
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)


def _digests(folder: pathlib.Path) -> dict[str, str]:
    digests = {}
    for path in sorted(folder.iterdir()):
        with open(path, "rb") as file:
            digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def measure(work: pathlib.Path, photos: pathlib.Path, shards: int, more: Sequence[str]) -> dict[str, Any]:
    """The three runs, and whether both record sets are the same."""
    outs = [work / "whole", work / "killed"]
    for out in (*outs, *(out.with_name(f"{out.name}.incomplete") for out in outs)):
        shutil.rmtree(out, ignore_errors=True)
    command = [
        "--source=inat2021", f"--images={photos}", "--duplicates=keep", f"--shards={shards}", "--vocab-size=4096", *more
    ]  # fmt: skip
    found: dict[str, Any] = {
        "command": [part for part in command if str(photos) not in part],
        "json_bytes": sum(path.stat().st_size for path in photos.glob("*.json")),
    }
    found["whole"] = converted([*command, f"--out={outs[0]}"])
    found["record_set"] = {"files": len(list(outs[0].iterdir())), "bytes": _size(outs[0])}
    progress = outs[1].with_name("killed.incomplete") / "progress"
    found["killed"] = converted(
        [*command, f"--out={outs[1]}"], lambda: len(list(progress.glob("photos-train*.json"))) >= KILLED_AT * shards
    )
    found["killed"]["shards_finished"] = len(list(progress.glob("photos-*.json")))
    found["continued"] = converted([*command, f"--out={outs[1]}"])
    found["identical"] = _digests(outs[0]) == _digests(outs[1])
    shutil.rmtree(outs[1])
    return found


def _size(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def main(argv: Sequence[str] | None = None) -> None:
    """The command: builds, runs, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.inat2021_scale", description=(__doc__ or "").split("\n")[0]
    )
    add = parser.add_argument
    add("--classes", type=pathlib.Path, default=CLASSES, help="class table of iNaturalist 2021")
    add("--out", type=pathlib.Path, default=pathlib.Path("runs/inat2021_scale"), help="folder to work in")
    add("--rows", type=int, default=TRAIN, help="photos of train; val has a proportional number")
    add("--shards", type=int, default=64, help="of each split")
    add("--workers", type=int, default=0)
    add("--result", default="", help="where to write the JSON")
    parsed = parser.parse_args(argv)
    counts = {"train": parsed.rows, "val": round(parsed.rows * VAL / TRAIN)}
    with user_errors_in_one_line():
        table = read_class_table(parsed.classes)
        seconds = build(parsed.out / "released", table, counts)
        print(f"built {counts} in {seconds:.0f} s", flush=True)
        more = [f"--workers={parsed.workers}", *(["--allow-empty-classes"] if parsed.rows < len(table) else [])]
        found = measure(parsed.out, parsed.out / "released", parsed.shards, more)
    rows = [
        [
            name,
            *(f"{found[name][key]:.0f}" if key in found[name] else "" for key in ("wall_s", "cpu_s")),
            f"{found[name]['peak_bytes'] / 2**30:.2f}",
        ]
        for name in ("whole", "killed", "continued")
    ]
    print(machine.table(["run", "s", "CPU s", "GiB at most"], rows))
    print(f"both record sets are {'identical' if found['identical'] else 'DIFFERENT'}")
    if parsed.rows == TRAIN or parsed.result:
        machine.write("inat2021_scale", {"rows": counts, "classes": len(table), **found}, parsed.result)


if __name__ == "__main__":
    main()

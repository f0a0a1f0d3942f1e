r"""Searching an index of 2,700,000 photos of width 512: every row compared, beside a brute-force sort of all scores.

    python -m benchmarks.search_scale

The vectors are made up, unit vectors in float16 in an index on the disk, made once; each of some rows stands in several
places, so that there are ties. Opening the index, searching it and naming the photos is timed in a process of its own,
first after the index was written and then once more. The reference computes every score and sorts all of them, stably.
"""

import argparse
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks import machine
from lit_jax.errors import user_errors_in_one_line
from lit_jax.prediction import photo_index
from lit_jax.prediction.photo_index import Entry

WIDTH, QUERIES, TOP, COPIES, MODEL = 512, 10, 50, 40, "made up"


def queries_of() -> np.ndarray:
    """`[Q, D]` float32 of unit norm; the first half of them have rows that are equal."""
    found = np.random.default_rng(1).standard_normal((QUERIES, WIDTH), np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def make(folder: pathlib.Path, number: int) -> None:
    """The index: noise, and for half of the queries `COPIES` equal rows near them, spread over the index."""
    if photo_index.open_index(folder, MODEL) is not None:
        return
    near = queries_of()[: QUERIES // 2] + 0.05 * np.random.default_rng(2).standard_normal((QUERIES // 2, WIDTH))
    places = np.random.default_rng(3).choice(number, (QUERIES // 2, COPIES), replace=False)

    def blocks() -> Iterator[np.ndarray]:
        draw = np.random.default_rng(0)
        for start in range(0, number, photo_index.ROWS):
            block = draw.standard_normal((min(photo_index.ROWS, number - start), WIDTH), np.float32)
            for row, where in zip(near, places, strict=True):
                block[where[(where >= start) & (where < start + len(block))] - start] = row
            yield block / np.linalg.norm(block, axis=1, keepdims=True)

    folder.parent.mkdir(parents=True, exist_ok=True)
    photo_index.write(folder, MODEL, blocks(), [Entry(f"photos/{i // 1000}/{i}.jpg", 1, 1) for i in range(number)])


def searched(folder: pathlib.Path) -> dict[str, Any]:
    """One search, its time and memory, and which rows it found."""
    with machine.Clock() as clock:
        index = photo_index.open_index(folder, MODEL)
        assert index is not None, "was made before"
        _, rows = photo_index.nearest(index.vectors, queries_of(), TOP)
    with machine.Clock() as naming:
        names = index.photos_of(rows.reshape(-1))
    return {
        "wall_s": clock.wall, "cpu_s": clock.cpu, "naming_cpu_s": naming.cpu, "naming_wall_s": naming.wall,
        "peak_gib": machine.peak_bytes() / 2**30, "rows": rows.tolist(), "first": names[0],
    }  # fmt: skip


def brute_force(folder: pathlib.Path) -> np.ndarray:
    """`[Q, k]`: rows by a stable sort of all scores, of equal ones the earlier first."""
    vectors = np.load(folder / photo_index.VECTORS, mmap_mode="r")
    queries, every = queries_of(), np.empty((QUERIES, len(vectors)), np.float32)
    for start in range(0, len(vectors), 10_000):
        block = vectors[start : start + 10_000].astype(np.float64)
        every[:, start : start + len(block)] = (queries.astype(np.float64) @ block.T).astype(np.float32)
    return np.stack([np.argsort(-row, kind="stable")[:TOP] for row in every])


def main(argv: Sequence[str] | None = None) -> None:
    """The command: prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search_scale", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/search_scale"))
    parser.add_argument("--photos", type=int, default=2_700_000)
    parser.add_argument("--side", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", default="")
    parsed = parser.parse_args(argv)
    folder = parsed.workdir.absolute() / f"index-{parsed.photos}"
    if parsed.side:
        print(json.dumps(searched(folder)))
        return
    with user_errors_in_one_line():
        make(folder, parsed.photos)
    given = [f"--workdir={parsed.workdir.absolute()}", f"--photos={parsed.photos}", "--side"]
    first, again = (machine.side("benchmarks.search_scale", *given) for _ in range(2))
    exact = brute_force(folder)
    recall = float(np.mean([len(set(a) & set(b)) / TOP for a, b in zip(first["rows"], exact.tolist(), strict=True)]))
    in_order = float(np.mean(np.array(first["rows"]) == exact))
    for one in (first, again):
        del one["rows"]
    found = {
        "photos": parsed.photos, "width": WIDTH, "queries": QUERIES, "top": TOP, "recall": recall,
        "same_order": in_order, "index_gib": (folder / photo_index.VECTORS).stat().st_size / 2**30,
        "load_of_the_last_5_minutes": os.getloadavg()[1], "first": first, "again": again,
    }  # fmt: skip
    for name, value in found.items():
        print(f"{name}: {value}")
    machine.write("search_scale", found, parsed.out)


if __name__ == "__main__":
    main()

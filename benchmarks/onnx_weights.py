r"""What it costs to store a model's numbers small: bytes, accuracy and time of a model in ONNX, beside JAX.

    python -m lit_jax.export --checkpoint=runs/cub_efficientnet --out=exported/fp32 --format=onnx
    python -m lit_jax.export --checkpoint=runs/cub_efficientnet --out=exported/fp16 --format=onnx --weights=fp16
    python -m lit_jax.export --checkpoint=runs/cub_efficientnet --out=exported/int8 --format=onnx --weights=int8
    python -m benchmarks.onnx_weights --models runs/cub_efficientnet exported/fp32 exported/fp16 exported/int8 \
        --photos CUB --splits CUB/splits.csv --split test

Each model is a process of its own. Photos are named among all classes of the model, each by itself for the time of the
tower, which is that of one photo after the other, as an app looks at them.
"""

import argparse
import csv
import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import machine
from lit_jax.errors import UserError, user_errors_in_one_line

TIMED = 50  # photos


def named(checkpoint: str, photos: Sequence[str]) -> dict[str, Any]:
    """Names of photos and the time of the tower, by one model."""
    import lit_jax

    model = lit_jax.load(checkpoint)
    chosen = model.choices()
    folders = dict(zip(chosen.table.names, chosen.table.columns["folder"], strict=True))
    answers = [folders[one.answers[0].name] if one.answers else "" for one in model.name(photos, chosen, top=1)]
    size = model.engine.pictures.size
    pixels = np.random.default_rng(0).integers(0, 255, (model.engine.multiple, size, size, 3), np.uint8)
    model.engine.photos(pixels)
    clock, used = time.perf_counter(), time.process_time()
    for _ in range(TIMED):
        model.engine.photos(pixels)
    took = {"ms": 1e3 * (time.perf_counter() - clock) / TIMED, "cpu_ms": 1e3 * (time.process_time() - used) / TIMED}
    return {"answers": answers, **took}


def size_of(checkpoint: pathlib.Path) -> dict[str, int]:
    """Bytes of a folder's parts."""
    kinds = {"image": "image.onnx*", "text": "text.onnx*", "classes": "classes.safetensors"}
    return {kind: sum(path.stat().st_size for path in checkpoint.glob(pattern)) for kind, pattern in kinds.items()}


def photos_of(splits: pathlib.Path, split: str) -> tuple[list[str], list[str]]:
    """Files of a split, below the photos' folder, and the folder that each lies in, which is its class."""
    with open(splits, encoding="utf-8", newline="") as file:
        rows = [row["file"] for row in csv.DictReader(file) if row["split"] == split]
    if not rows:
        raise UserError(f"--split {split}: found no photo of it in {splits}, expected some")
    return rows, [pathlib.PurePosixPath(row).parent.name for row in rows]


def _row(name: str, one: dict[str, Any]) -> list[str]:
    sizes = [f"{size / 1e6:.2f}" if size else "" for size in one["bytes"].values()]
    shares = [f"{100 * one[figure]:.2f} %" for figure in ("top1", "same_as_first")]
    return [name, *sizes, *shares, f"{one['ms']:.0f}", f"{one['cpu_ms']:.0f}"]


def main(argv: Sequence[str] | None = None) -> None:
    """The command: a process a model, the table, the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.onnx_weights", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--models", nargs="+", required=True, help="a run or folder first, then those in ONNX")
    parser.add_argument("--photos", type=pathlib.Path, required=True, help="folder that the files of the splits lie in")
    parser.add_argument("--splits", type=pathlib.Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--out", default="")
    parsed = parser.parse_args(argv)
    with user_errors_in_one_line():
        files, right = photos_of(parsed.splits, parsed.split)
        paths = [str(parsed.photos / file) for file in files]
        if parsed.side:
            print(json.dumps(named(parsed.side, paths)))
            return
        given = ["--models", *parsed.models, "--photos", str(parsed.photos.absolute())]
        given += ["--splits", str(parsed.splits.absolute()), "--split", parsed.split]
        found = {
            one: machine.side("benchmarks.onnx_weights", *given, "--side", str(pathlib.Path(one).absolute()))
            for one in parsed.models
        }
    first = found[parsed.models[0]]["answers"]
    results = {
        pathlib.Path(one).name: {
            "bytes": size_of(pathlib.Path(one)), "ms": side["ms"], "cpu_ms": side["cpu_ms"],
            "top1": float(np.mean([a == b for a, b in zip(side["answers"], right, strict=True)])),
            "same_as_first": float(np.mean([a == b for a, b in zip(side["answers"], first, strict=True)])),
        }
        for one, side in found.items()
    }  # fmt: skip
    rows = [_row(name, one) for name, one in results.items()]
    header = ["model", "image, MB", "text, MB", "classes, MB", "top-1", "as the first", "ms a photo", "CPU ms"]
    print(machine.table(header, rows))
    machine.write("onnx_weights", {"photos": len(paths), "models": results}, parsed.out)


if __name__ == "__main__":
    main()

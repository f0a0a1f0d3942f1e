r"""Photos a second from files to names, beside the bare tower, and beside how pybioclip does it.

    pip install torch timm open_clip_torch
    python -m benchmarks.predict_speed --checkpoint runs/cub_efficientnet --onnx exported/cub_onnx --photos CUB/images

The same tower, EfficientNet-Lite0, and the same photos on each side, each in a process of its own:

* ``lit_jax``, ``lit_jax, ONNX``: `lit_jax.load` and `Model.name`, all that `lit_jax.predict` does but writing;
* ``the tower alone`` of both: photos that are squares in memory already;
* ``open_clip's loader``: photos one after the other by Pillow and open_clip's transform, ten at a time through timm's
  module in PyTorch, a product with the classes and a softmax, as pybioclip does it.
"""

import argparse
import itertools
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks import machine
from lit_jax.errors import user_errors_in_one_line

PEER_BATCH = 10  # pybioclip's own
TIMM = "tf_efficientnet_lite0"
SIDES = ("lit_jax", "lit_jax, ONNX", "the tower alone", "the tower alone, ONNX", "open_clip's loader")


def timed(work: Callable[[], int]) -> dict[str, float]:
    """Photos a second, by the clock and by the time of the processor, of the second call."""
    work()
    clock, used = time.perf_counter(), time.process_time()
    done = work()
    return {"photos_s": done / (time.perf_counter() - clock), "cpu_ms": 1e3 * (time.process_time() - used) / done}


def ours(checkpoint: str, photos: Sequence[str], *, alone: bool) -> dict[str, float]:
    """A model of the package, from files or on squares in memory."""
    import lit_jax

    model = lit_jax.load(checkpoint)
    if alone:
        size = model.engine.pictures.size
        pixels = np.random.default_rng(0).integers(0, 255, (32, size, size, 3), np.uint8)
        return timed(lambda: sum(len(model.engine.photos(pixels)) for _ in range(max(len(photos) // 32, 1))))
    chosen = model.choices()
    return timed(lambda: sum(1 for _ in model.name(photos, chosen)))


def theirs(photos: Sequence[str], classes: int) -> dict[str, float]:
    """The same tower as pybioclip runs its own."""
    import open_clip
    import timm
    import torch
    from PIL import Image

    tower = timm.create_model(TIMM, num_classes=0).eval()
    transform = open_clip.transform.image_transform(224, is_train=False)
    words = torch.nn.functional.normalize(torch.randn(1280, classes), dim=0)

    def batches() -> Iterator[tuple[str, ...]]:
        waiting = iter(photos)
        while batch := tuple(itertools.islice(waiting, PEER_BATCH)):
            yield batch

    def work() -> int:
        done = 0
        with torch.no_grad():
            for batch in batches():
                pixels = torch.stack([transform(Image.open(photo)) for photo in batch])
                features = torch.nn.functional.normalize(tower(pixels), dim=-1)
                done += len((100 * features @ words).softmax(-1).topk(5).indices)
        return done

    return timed(work)


def main(argv: Sequence[str] | None = None) -> None:
    """The command: a process a side, the table, the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.predict_speed", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--onnx", required=True, help="the same model, exported")
    parser.add_argument("--photos", type=pathlib.Path, required=True)
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--out", default="")
    parsed = parser.parse_args(argv)
    with user_errors_in_one_line():
        photos = [str(path) for path in sorted(parsed.photos.rglob("*.jpg"))]
        photos = photos[:: max(len(photos) // parsed.count, 1)][: parsed.count]
        if parsed.side:
            print(json.dumps(_side(parsed, photos)))
            return
        given = ["--checkpoint", str(pathlib.Path(parsed.checkpoint).absolute()), "--count", str(parsed.count)]
        given += ["--onnx", str(pathlib.Path(parsed.onnx).absolute()), "--photos", str(parsed.photos.absolute())]
        found: dict[str, dict[str, Any]] = {
            side: machine.side("benchmarks.predict_speed", *given, "--side", side) for side in SIDES
        }
    rows = [
        [side, f"{one['photos_s']:.1f}", f"{one['cpu_ms']:.0f}"] if "photos_s" in one else [side, one["failed"], ""]
        for side, one in found.items()
    ]
    print(machine.table(["side", "photos a second", "CPU ms a photo"], rows))
    machine.write("predict_speed", {"photos": len(photos), "sides": found}, parsed.out)


def _side(parsed: argparse.Namespace, photos: Sequence[str]) -> dict[str, float]:
    if parsed.side == SIDES[-1]:
        return theirs(photos, 100)
    return ours(
        parsed.onnx if "ONNX" in parsed.side else parsed.checkpoint, photos, alone=parsed.side.startswith("the tower")
    )


if __name__ == "__main__":
    main()

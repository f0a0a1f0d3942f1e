r"""What one GPU does: photos embedded by host cores, the bare tower, the recorded recipe, the loss at 131,072 pairs.

    python -m benchmarks.gpu                                  # one GPU; draws photos, some 10 GB of disk
    python -m benchmarks.gpu --records data/inat2021 --parts embed
    python -m benchmarks.gpu --tiny                           # the same on a CPU: shows that all of it runs

Parts, each in processes of its own:

* ``embed``: `lit_jax.embed.embed`, from JPEG records to a store, with 1, 2, 4, 8 and 16 cores of the host, from the
  first instruction on. Photos a second are the slope between a small set and a large one, both embedded by a process
  that has compiled the tower: what a run costs before and after its photos is told apart (``fixed_s``);
* ``forward``: the tower alone, `benchmarks.forward`, and which share of the peak of large products it reaches.
  Embedding can be no faster; with how many cores it comes near is the question;
* ``recipe``: `benchmarks.recipe` at batch 4096 for ``--seconds``, and ``large``, a few steps of 131,072 pairs;
* ``loss``: `benchmarks.loss_scaling`, ours at 131,072 pairs, values and gradients.

Weights are random numbers, as those of a trained tower would be to the clock; photos are drawn (`benchmarks.drawn`),
500 x 375 pixels and 60 kB, unless ``--records`` are given, whose train split is embedded.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import drawn, machine
from benchmarks.jpeg_to_batch import on_cores
from lit_jax.errors import UserError, user_errors_in_one_line

PARTS = ("embed", "forward", "recipe", "large", "loss")
CONFIG = str(machine.ROOT / "configs" / "inat_vitl.py")
REPEATS = 10  # records of a drawn photo: drawing takes longer than embedding
TINY = {
    "tower": "vit_ti16", "dtype": "float32", "batch": 8, "photos": 40, "small": 16, "loss_batch": 512, "seconds": 1.0,
    "cores": "1",
}  # fmt: skip


def records(folder: pathlib.Path, name: str, count: int) -> pathlib.Path:
    """A record set of `count` drawn photos, made once."""
    made = folder / f"{name}_records"
    if not made.exists():
        shutil.rmtree(folder / name, ignore_errors=True)
        drawn.folder(folder / "drawn", max(drawn.CLASSES, count // REPEATS))
        originals = sorted((folder / "drawn").glob("*/*.jpg"))
        for number in range(count):
            path = originals[number % len(originals)]
            link = folder / name / path.parent.name / f"{number:06d}.jpg"
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, link)
        _run("data_prep.convert", f"--images={folder / name}", f"--out={made}", "--validation-fraction=0",
             "--duplicates=keep", "--allow-empty-classes")  # fmt: skip
    return made


def weights(tower: str, path: pathlib.Path) -> pathlib.Path:
    """A file of random weights for a preset, made once; not compressed, for there is nothing to gain."""
    if not path.exists():
        import jax

        from lit_jax import models
        from lit_jax.models.presets import image_shapes
        from lit_jax.models.weights import named

        chosen = models.IMAGE_PRESETS[tower]
        built = chosen.build()
        shapes, _ = image_shapes(built, chosen.size)
        rng = np.random.default_rng(0)
        drawn_ones = jax.tree.map(lambda leaf: 0.02 * rng.standard_normal(leaf.shape, np.float32), shapes)
        flat = named(drawn_ones, models.family(built))
        np.savez(path, **{name: value.astype(np.float16) for name, value in flat.items()})  # type: ignore[arg-type]
    return path


def embed(parsed: argparse.Namespace) -> dict[str, Any]:
    """Photos a second of an embedding in this process, and the seconds that it takes whatever their number."""
    from lit_jax import config as options
    from lit_jax import embed as command
    from lit_jax.embedding.to_store import Making

    folder = parsed.workdir

    def timed(where: str) -> tuple[int, float, float]:
        config, _ = options.load(CONFIG, {
            "data.records": where, "image.tower": parsed.tower, "image.weights": str(folder / f"{parsed.tower}.npz"),
            "train.precision": parsed.dtype, "text.context": "32",
        })  # fmt: skip
        with machine.Clock() as clock:
            store = command.embed(config, folder / "store", Making(batch_size=parsed.batch), restart=True)
        return store.examples("train"), clock.wall, clock.cpu

    timed(str(folder / "small_records"))  # compiles
    few, begin, begin_cpu = timed(str(folder / "small_records"))
    many, end, end_cpu = timed(parsed.records or str(folder / "large_records"))
    rate = (many - few) / (end - begin)
    return {
        "photos_per_s": rate, "cpu_s_per_1000": 1000 * (end_cpu - begin_cpu) / (many - few),
        "fixed_s": begin - few / rate, "photos": many, "cores": len(os.sched_getaffinity(0)),
    }  # fmt: skip


def _run(module: str, *arguments: str) -> None:
    if code := subprocess.run([sys.executable, "-m", module, *arguments], cwd=machine.ROOT).returncode:
        raise UserError(f"python -m {module}: found exit code {code}, expected 0; what it said stands above")


def _result(module: str, out: pathlib.Path, *arguments: str) -> dict[str, Any]:
    """What another benchmark writes, without the facts of the machine; or that it failed."""
    try:
        _run(module, *arguments, f"--out={out}")
    except UserError as error:
        return {"failed": str(error)}
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return {name: value for name, value in found.items() if name != "machine"}


def _embeds(parsed: argparse.Namespace) -> dict[str, Any]:
    """The embedding by number of cores, as many as there are."""
    folder = parsed.workdir
    records(folder, "small", parsed.small)
    if not parsed.records:
        records(folder, "large", parsed.photos)
    weights(parsed.tower, folder / f"{parsed.tower}.npz")
    shared = [f"--{name}={getattr(parsed, name)}" for name in ("workdir", "records", "tower", "dtype", "batch")]
    found = {}
    for cores in map(int, parsed.cores.split(",")):
        if cores > len(os.sched_getaffinity(0)):
            found[cores] = {"skipped": f"{len(os.sched_getaffinity(0))} cores are here"}
            continue
        with on_cores(cores):
            found[cores] = machine.side("benchmarks.gpu", "--side=embed", *shared)
        print(f"embed, {cores} cores: {found[cores]}", flush=True)
    return {"by_cores": found}


def part(name: str, parsed: argparse.Namespace) -> dict[str, Any]:
    """One part's figures."""
    out = parsed.workdir / f"{name}.json"
    if name == "embed":
        return _embeds(parsed)
    if name == "forward":
        given = (f"--presets={parsed.tower}", f"--batch={parsed.batch}", f"--dtype={parsed.dtype}")
        return machine.side("benchmarks.forward", "--side=lit_jax", *given, f"--seconds={parsed.seconds / 6}")
    if name == "loss":
        sides = "ours_softmax,ours_softmax_captions,ours_sigmoid"
        found = _result("benchmarks.loss_scaling", out, f"--sizes={parsed.loss_batch}", f"--sides={sides}")
        return {side: next(iter(of.values())) for side, of in found["sides"].items()} if "sides" in found else found
    given = (f"--dtype={parsed.dtype}", f"--seconds={parsed.seconds}", f"--store={out.with_name('recipe_store')}")
    small = ("--photos=4096", "--depth=1", "--every=1") if parsed.tiny else ()
    large = (f"--batch={parsed.loss_batch}", "--steps=20", "--every=1", "--remat")
    how = large if name == "large" else (f"--batch={min(4096, parsed.loss_batch)}",)
    return _result("benchmarks.recipe", out, *given, *small, *how)


def main(argv: Sequence[str] | None = None) -> None:
    """The command: every part, the table and the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    add("--records", default="", help="record set whose train split is embedded; else photos are drawn")
    add("--tower", default="vit_l16_384")
    add("--dtype", default="bfloat16", choices=("float32", "bfloat16", "float16"))
    add("--batch", type=int, default=256, help="photos at a time through the tower")
    add("--photos", type=int, default=20_000, help="how many drawn photos are embedded")
    add("--small", type=int, default=1024, help="photos of the small set")
    add("--cores", default="1,2,4,8,16", help="numbers of host cores")
    add("--loss-batch", type=int, default=131_072)
    add("--seconds", type=float, default=60.0, help="of the recipe's steps; the rest is extrapolated")
    add("--workdir", type=pathlib.Path, default=pathlib.Path("runs/gpu"))
    add("--tiny", action="store_true", help="a small tower, few photos and pairs: to see on a CPU that it runs")
    add("--side", default="", help=argparse.SUPPRESS)
    add("--out", default="")
    if "--tiny" in (sys.argv[1:] if argv is None else argv):
        parser.set_defaults(**TINY)
    parsed = parser.parse_args(argv)
    with user_errors_in_one_line():
        if parsed.side:
            print(json.dumps(embed(parsed)))
            return
        parsed.workdir = parsed.workdir.absolute()
        parsed.workdir.mkdir(parents=True, exist_ok=True)
        found = {}
        for name in parsed.parts:
            start = time.perf_counter()
            found[name] = part(name, parsed)
            print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    print(table(found))
    what = {name: getattr(parsed, name) for name in ("tower", "dtype", "batch", "loss_batch")}
    machine.write("gpu", {**what, "parts": found}, parsed.out)
    if failed := sorted(name for name, of in found.items() if "'failed'" in str(of)):
        sys.exit(f"failed: {', '.join(failed)}")


def table(found: dict[str, Any]) -> str:
    """The figures of all parts, or why there are none."""
    rows = [
        [f"embedded by {cores} cores, photos/s", _told(of, "photos_per_s")]
        for cores, of in found.get("embed", {}).get("by_cores", {}).items()
    ]
    shown = {
        ("forward", "photos_per_s"): "through the bare tower, photos/s", ("forward", "share_of_peak"): "share of peak",
        ("recipe", "pairs_per_s"): "the recipe, pairs/s", ("recipe", "share_of_peak"): "share of peak",
        ("recipe", "minutes_of_the_recipe"): "all of the recipe, minutes",
        ("large", "pairs_per_s"): "large batch, pairs/s", ("large", "share_of_peak"): "share of peak",
    }  # fmt: skip
    rows += [[title, _told(found[name], key)] for (name, key), title in shown.items() if name in found]
    rows += [[f"loss, {side}, s", _told(of, "best_s")] for side, of in found.get("loss", {}).items()]
    return machine.table(["figure", ""], rows)


def _told(of: Any, key: str) -> str:
    if not isinstance(of, dict):
        return str(of)
    value = of.get(key)
    return f"{value:.4g}" if value is not None else str(of.get("failed") or of.get("skipped") or "unknown")


if __name__ == "__main__":
    main()

r"""Photos a second through a frozen image tower: ours, and the same tower of timm in PyTorch.

    python -m benchmarks.forward
    python -m benchmarks.forward --presets vit_l16_384 --batch 256 --dtype bfloat16      # on a GPU

Random weights, constant pixels, no decoding: the forward pass alone, in the same type of number and with the same
threads. Sides are processes of their own and take turns, `--rounds` times; the figure of a side is its fastest round,
since whatever else runs on a machine can only slow it down. Of our side it is also said, from the same process, which
share of the device's peak it reaches, as products of large matrices measure it, and how long its own products and
convolutions take alone: what is left is everything between them.

Both sides run once more with large pages of memory (`benchmarks.machine.LARGE_PAGES`), which one has to ask for.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import machine, own_products
from lit_jax.errors import user_errors_in_one_line

# Names of the same towers in timm.
TIMM = {
    "vit_ti16": "vit_tiny_patch16_224",
    "vit_b16": "vit_base_patch16_224",
    "vit_l16_384": "vit_large_patch16_384",
    "resnet50": "resnet50",
    "swin_t": "swin_tiny_patch4_window7_224",
    "efficientnet_lite0": "efficientnet_lite0",
}
LARGE = "_large_pages"
_RATIOS = ("photos_per_s", "cpu_s_per_photo")
SIDES = ("lit_jax", "timm", "lit_jax" + LARGE, "timm" + LARGE)


def timed(run: Callable[[], Any], batch: int, seconds: float) -> dict[str, Any]:
    """Photos a second over some seconds after the first two calls; the median call is kept beside the mean."""
    run(), run()
    calls: list[float] = []
    with machine.Clock() as clock:
        while sum(calls) < seconds or len(calls) < 3:
            start = time.perf_counter()
            run()
            calls.append(time.perf_counter() - start)
    return {
        "photos_per_s": batch * len(calls) / clock.wall,
        "cpu_s_per_photo": clock.cpu / batch / len(calls),
        "calls": len(calls),
        "median_call_s": statistics.median(calls),
    }


def ours(preset: str, batch: int, dtype: str, seconds: float) -> dict[str, Any]:
    """This package."""
    import jax
    import jax.numpy as jnp

    from lit_jax import models
    from lit_jax.base.precision import DTYPES
    from lit_jax.models import storage
    from lit_jax.models.presets import image_shapes
    from lit_jax.planning import arithmetic, costs

    chosen = models.IMAGE_PRESETS[preset]
    tower = chosen.build(dtype=DTYPES[dtype])
    shapes, _ = image_shapes(tower, chosen.size)
    drawn = jax.tree.map(lambda x: jax.random.normal(jax.random.key(0), x.shape) * 0.02, shapes)
    pixels = jnp.ones((batch, chosen.size, chosen.size, 3), DTYPES[dtype])
    params = jax.device_put(storage.as_used(tower, drawn, jax.ShapeDtypeStruct(pixels.shape, pixels.dtype)))
    compiled = jax.jit(tower.apply).lower({"params": params}, pixels).compile()
    found = timed(lambda: compiled({"params": params}, pixels).block_until_ready(), batch, seconds)
    alone = own_products.timed(arithmetic.products(tower.apply, {"params": params}, pixels))
    work = alone["flops"] / batch
    found |= {"flops_per_photo": work, "device": jax.devices()[0].device_kind, "own_products": alone}
    found["cpu_by_own_products"] = found["cpu_s_per_photo"] * batch / alone["cpu_s"]
    peak = costs.measured_peak(DTYPES[dtype])
    return {**found, "measured_peak_flops": peak, "share_of_peak": found["photos_per_s"] * work / peak}


def theirs(preset: str, batch: int, dtype: str, seconds: float) -> dict[str, Any]:
    """PyTorch with timm: in evaluation mode, compiled by nothing, as its users run it."""
    machine.torchvision()
    import timm
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = timm.create_model(TIMM[preset], pretrained=False, num_classes=0).eval().to(device, getattr(torch, dtype))
    size = model.default_cfg["input_size"][-1]
    pixels = torch.ones(batch, 3, size, size, device=device, dtype=getattr(torch, dtype))

    def run() -> None:
        with torch.inference_mode():
            model(pixels)
        if device == "cuda":
            torch.cuda.synchronize()

    return {**timed(run, batch, seconds), "device": device, "threads": torch.get_num_threads()}


def main(argv: Sequence[str] | None = None) -> None:
    """The command: both sides of each tower in turns, the table, the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forward", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--presets", nargs="+", default=["vit_b16", "resnet50", "efficientnet_lite0"], choices=sorted(TIMM))
    add("--batch", type=int, default=16)
    add("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    add("--rounds", type=int, default=3)
    add("--seconds", type=float, default=10.0, help="of each round, at least")
    add("--side", default="", help=argparse.SUPPRESS)
    add("--out", default="")
    parsed = parser.parse_args(argv)
    with user_errors_in_one_line():
        if parsed.side:
            run = ours if parsed.side == "lit_jax" else theirs
            print(json.dumps(run(parsed.presets[0], parsed.batch, parsed.dtype, parsed.seconds)))
            return
        found = {preset: _rounds(preset, parsed) for preset in parsed.presets}
    rows = [_row(preset, of, pages) for preset, of in found.items() for pages in ("", LARGE)]
    headings = ["tower", "memory", "lit_jax, photos/s", "timm, photos/s", "ratio", "CPU time, ratio"]
    print(machine.table([*headings, "CPU by own products'"], rows))
    what = {name: getattr(parsed, name) for name in ("batch", "dtype", "rounds", "seconds")}
    machine.write("forward", {**what, "towers": found}, parsed.out)


def _row(preset: str, of: dict[str, Any], pages: str) -> list[str]:
    mine, other = (of["best"][name + pages] for name in ("lit_jax", "timm"))
    ratios = of["ratios"].get(pages, {})
    return [
        preset, "large pages" if pages else "",
        *(f"{one['photos_per_s']:.1f}" if one else "failed" for one in (mine, other)),
        *(f"{ratios[unit]:.2f}" if ratios else "" for unit in _RATIOS),
        f"{mine['cpu_by_own_products']:.2f}" if mine else "",
    ]  # fmt: skip


def _rounds(preset: str, parsed: argparse.Namespace) -> dict[str, Any]:
    arguments = [
        f"--presets={preset}",
        *(f"--{name}={getattr(parsed, name)}" for name in ("batch", "dtype", "seconds")),
    ]
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in SIDES}
    for _ in range(parsed.rounds):
        for name in SIDES:
            side, environment = name.removesuffix(LARGE), machine.LARGE_PAGES if name.endswith(LARGE) else None
            rounds[name].append(
                machine.side("benchmarks.forward", *arguments, f"--side={side}", environment=environment)
            )
            print(preset, name, rounds[name][-1], flush=True)
    best = {
        name: max((one for one in of if "failed" not in one), key=lambda one: one["photos_per_s"], default=None)
        for name, of in rounds.items()
    }
    ratios = {}
    for pages in ("", LARGE):
        mine, other = best["lit_jax" + pages], best["timm" + pages]
        if mine and other:
            ratios[pages] = {unit: mine[unit] / other[unit] for unit in _RATIOS}
    return {"best": best, "ratios": ratios, "rounds": rounds}


if __name__ == "__main__":
    main()

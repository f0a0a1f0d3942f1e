"""What a run will cost, before it runs: ``python -m lit_jax.plan --config=configs/cub.py``.

Parameters, steps, the store's size, memory by part, arithmetic, the largest batch that fits, and hours. Memory is the
compiler's own plan of the very step; only the hours rest on an assumption, which is printed beside them.
"""

import argparse
import bisect
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lit_jax import config as options
from lit_jax import models
from lit_jax.base import console, hosts
from lit_jax.base.precision import DTYPES
from lit_jax.data import input_stream
from lit_jax.errors import UserError, user_errors_in_one_line
from lit_jax.models import building
from lit_jax.planning import abstract_run
from lit_jax.planning.abstract_run import Run
from lit_jax.training import experiment, optimizer

GIB = 1 << 30
JAX_SHARE = 0.75  # of a GPU's memory, which JAX takes unless XLA_CLIENT_MEM_FRACTION says otherwise
COMPILES = 6  # at the most
EMBEDDED = 256  # photos at a time, of lit_jax.embed
UTILISATION = 0.4  # of the peak that a training run of this kind commonly reaches

# Memory in GiB, and dense peaks of matrix products in TFLOP/s, without the sparsity that some sheets count twofold.
# float32 is TensorFloat-32 from Ampere on: that is what JAX computes there unless told otherwise. float16 and
# bfloat16 add up in float32. Source: NVIDIA's data sheets of V100 (SXM2), T4, A100 (SXM4), H100 (SXM5), H200, L4 and
# L40S, and its white paper on the Ada architecture for the RTX 4090.
_AMPERE = {"float32": 156.0, "float16": 312.0, "bfloat16": 312.0}
_HOPPER = {"float32": 494.7, "float16": 989.4, "bfloat16": 989.4}
DEVICES: dict[str, tuple[int, dict[str, float]]] = {
    "v100-16": (16, {"float32": 15.7, "float16": 125.0}),
    "v100-32": (32, {"float32": 15.7, "float16": 125.0}),
    "t4": (16, {"float32": 8.1, "float16": 65.0}),
    "a100-40": (40, _AMPERE),
    "a100-80": (80, _AMPERE),
    "h100": (80, _HOPPER),
    "h200": (141, _HOPPER),
    "l4": (24, {"float32": 60.0, "float16": 121.0, "bfloat16": 121.0}),
    "l40s": (48, {"float32": 183.0, "float16": 362.0, "bfloat16": 362.0}),
    "rtx4090": (24, {"float32": 82.6, "float16": 165.2, "bfloat16": 165.2}),
}


PARAMETERS = {
    "image": "image tower",
    "text": "text tower",
    "projection": "projection",
    "text_projection": "projection",
    "logit_scale": "scale and bias",
    "logit_bias": "scale and bias",
}


class Device(NamedTuple):
    """One accelerator.

    Attributes:
        name: what to call it.
        memory: bytes that the program may use, and where that figure comes from.
        peak: of matrix products in the run's precision, FLOP/s, and where that figure comes from.
        photos: that pass the image tower in a second, forward, as measured; 0 where that was not.
    """

    name: str
    memory: tuple[int, str]
    peak: tuple[float, str]
    photos: float = 0.0


def chosen_device(run: Run, name: str = "", *, memory_gib: float = 0, tflops: float = 0) -> Device:
    """The device to plan for: one of `DEVICES`, or this machine's; numbers that are given come before.

    Raises:
        UserError: a device without units for the run's precision.
    """
    precision = run.config.train.precision
    here = jax.local_devices()[0]
    if name:
        gib, peaks = DEVICES[name]
        memory = int(gib * GIB * JAX_SHARE), f"{JAX_SHARE:.0%} of {gib} GiB, JAX's share unless told otherwise"
        if not tflops and precision not in peaks:
            raise UserError(
                f"train.precision: found {precision} on {name}, expected {' or '.join(peaks)}, which it has units "
                "for; change it, or give --tflops"
            )
        peak = peaks.get(precision, 0.0) * 1e12, "its data sheet"
    else:
        memory = (
            input_stream.device_memory(run.mesh) // (run.mesh.size if here.platform == "cpu" else 1),
            "of this machine",
        )
        peak = (0.0, "") if tflops else (measured_peak(DTYPES[precision]), "measured here")
    if memory_gib:
        memory = int(memory_gib * GIB), "as given"
    if tflops:
        peak = tflops * 1e12, "as given"
    return Device(name or here.device_kind, memory, peak)


def measured_peak(dtype: Any, *, seconds: float = 1.0) -> float:
    """FLOP/s of products of square matrices, large enough to be limited by arithmetic, on the first device."""
    product = jax.jit(lambda a: a @ a)
    size, took = 128, 0.0
    while took < seconds / 50 and size < 16384:
        size *= 2
        matrix = jnp.full((size, size), 1 / size, dtype)  # its powers neither grow nor vanish
        product(matrix).block_until_ready()
        start = time.perf_counter()
        product(matrix).block_until_ready()
        took = time.perf_counter() - start
    number = max(1, round(seconds / took))
    start = time.perf_counter()
    for _ in range(number):
        matrix = product(matrix)
    matrix.block_until_ready()
    return 2 * number * size**3 / (time.perf_counter() - start)


def measured_photos(run: Run, device: Device) -> float:
    """Photos a second through the locked image tower on this machine's first device; 0 if it has hardly room for it.

    Towers of many small layers reach another share of the peak than large products do, above all on a CPU.
    """
    tower = abstract_run.step_and_shapes(run, "records")[2]["image"]
    if 2 * abstract_run.nbytes(tower) > device.memory[0]:
        return 0.0
    batch = int(min(max(device.peak[0] / abstract_run.photo_flops(run) / 10, 1), EMBEDDED))
    params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tower)
    photos = jnp.zeros((batch, run.config.image.size, run.config.image.size, 3), jnp.uint8)
    look = jax.jit(lambda params, photos: models.image_features(run.model, params, photos))
    look(params, photos).block_until_ready()
    start = time.perf_counter()
    look(params, photos).block_until_ready()
    return batch / (time.perf_counter() - start)


class Largest(NamedTuple):
    """The largest batch that fits.

    Attributes:
        batch: it, or 0 if not even the smallest fits.
        memory: bytes a device at each size that was asked for.
        is_certain: whether the next size does not fit, or there is none; otherwise there may be a larger one.
    """

    batch: int
    memory: dict[int, int]
    is_certain: bool


def largest_batch(
    memory_of: Callable[[int], int],
    sizes_of: Callable[[int], Sequence[int]],
    *,
    start: int,
    unit: int,
    most: int,
    limit: int,
    tries: int = COMPILES,
) -> Largest:
    """Searches with few tries, until neighbours fit and do not fit.

    Args:
        memory_of: bytes by batch, growing; dear to ask.
        sizes_of: what the bytes are about linear in, by batch, growing; cheap.
        start: the first size to ask for.
        unit: sizes are multiples of it.
        most: the largest size that makes sense.
        limit: bytes that there are.
        tries: how often to ask at the most.
    """
    memory: dict[int, int] = {}
    low, high = 0, most // unit + 1  # in units: the largest that fits, the smallest that does not or makes no sense
    number = start // unit
    while low + 1 < high and len(memory) < tries:
        number = min(max(number, low + 1), high - 1)
        memory[number * unit] = memory_of(number * unit)
        low, high = (number, high) if memory[number * unit] <= limit else (low, number)
        guess = _fitted(memory, sizes_of)
        number = bisect.bisect_right(range(low + 1, high), limit, key=lambda n: guess(n * unit)) + low
    return Largest(low * unit, memory, low + 1 >= high)


def _fitted(memory: Mapping[int, int], sizes_of: Callable[[int], Sequence[int]]) -> Callable[[int], int]:
    """The linear function of the sizes that comes nearest to what is known; the flattest if there are several."""
    sizes = np.array([[1, *sizes_of(batch)] for batch in memory], np.float64)
    scale = sizes.max(0)
    weights = np.linalg.lstsq(sizes / scale, np.array(list(memory.values()), np.float64), rcond=None)[0]
    return lambda batch: int(np.array([1, *sizes_of(batch)]) / scale @ weights)


def plan(run: Run, device: Device, *, utilisation: float = UTILISATION) -> dict[str, Any]:
    """All that the command tells, JSON-ready: counts, bytes, operations and hours."""
    config, data = run.config, run.data
    steps = experiment.total_steps(config, data.examples)
    rows, tokens = abstract_run.text_shape(run, config.train.batch_size)
    stored = store_facts(run, device)
    arithmetic = flops_of_run(run, steps)
    return {
        "input": config.input,
        "precision": config.train.precision,
        "devices": run.devices,
        "device": {
            "name": device.name,
            "memory": device.memory[0],
            "memory_is": device.memory[1],
            "peak": device.peak[0],
            "peak_is": device.peak[1],
        },
        "parameters": parameter_counts(run),
        "data": {
            **data._asdict(),
            "batch": config.train.batch_size,
            "texts": rows,
            "tokens": tokens,
            "epochs": config.train.epochs,
            "steps_per_epoch": experiment.steps_per_epoch(config, data.examples),
            "steps": steps,
        },
        "store": stored,
        **memory_facts(run, device, stored),
        "flops": arithmetic,
        "hours": hours_of_run(run, arithmetic, steps, device, utilisation),
    }


def hours_of_run(
    run: Run, arithmetic: Mapping[str, Any], steps: int, device: Device, utilisation: float
) -> dict[str, float]:
    """Hours by input and of the embedding; those of a locked tower by its measured speed, where it was."""
    rate = device.peak[0] * utilisation * run.devices
    seconds = {name: value / rate for name, value in arithmetic["run"].items()}
    photos = device.photos * run.devices
    if photos and "embedding" in seconds:
        tower = arithmetic["step"]["records"]["image tower"] / rate
        seconds["records"] += steps * (run.config.train.batch_size / photos - tower)
        seconds["embedding"] = sum(run.data.rows.values()) / photos
    hours = {name: value / 3600 for name, value in seconds.items()}
    return {**hours, "utilisation": utilisation, "photos_per_s": photos}


def parameter_counts(run: Run) -> dict[str, dict[str, int]]:
    """Parameters by part: how many are trainable and how many frozen."""
    params = building.param_shapes(run.config, run.model)
    moving, _ = optimizer.split_locked(params, run.config.train.locks)
    counts: dict[str, dict[str, int]] = {}
    for key in sorted(params, key=list(PARAMETERS).index):
        part = counts.setdefault(PARAMETERS[key], {"trainable": 0, "frozen": 0})
        number = sum(math.prod(x.shape) for x in jax.tree.leaves(params[key]))
        part["trainable" if key in moving else "frozen"] += number
    return counts


def store_facts(run: Run, device: Device) -> dict[str, Any] | None:
    """Bytes of a store of the whole data, and of what lies on each device in training; None if it cannot be one."""
    if not run.is_locked:
        return None
    config, rows = run.config, run.data.rows
    width = config.image.width
    train = rows[config.data.train_split] * width * abstract_run.STORED_BYTES[run.data.dtype]
    place = config.data.store_on
    fits = train <= input_stream.DEVICE_SHARE * device.memory[0]
    is_on_device = fits if place == "auto" else place == "device"
    return {
        "rows": rows,
        "width": width,
        "bytes": {
            kind: sum(rows.values()) * width * abstract_run.STORED_BYTES[kind] for kind in ("float16", "float32")
        },
        "train_bytes": train,
        "fits_on_device": fits,
        "on_device": is_on_device,
    }


def memory_facts(run: Run, device: Device, stored: Mapping[str, Any] | None) -> dict[str, Any]:
    """Memory of one device by part at the config's batch, and the largest batch that fits."""
    on_device = stored["train_bytes"] if run.config.input == "store" and stored and stored["on_device"] else 0
    asked: dict[int, dict[str, int]] = {}

    def memory_of(batch: int) -> int:
        if batch not in asked:
            asked[batch] = abstract_run.device_memory(run, batch, on_device)
        return asked[batch]["total"]

    batch, limit = run.config.train.batch_size, device.memory[0]
    memory_of(batch)
    unit = math.lcm(8, run.devices)
    # The config's own size is asked for already; where it is no multiple, that is one more.
    tries = COMPILES if batch % unit == 0 else COMPILES - 1
    found = largest_batch(
        memory_of, lambda batch: (batch, abstract_run.text_shape(run, batch)[0]),
        start=batch, unit=unit, most=run.data.examples, limit=limit, tries=tries,
    )  # fmt: skip
    here = jax.local_devices()[0]
    return {
        "memory": {**asked[batch], "limit": limit, "fits": asked[batch]["total"] <= limit},
        "compiler": {"platform": here.platform, "device": here.device_kind, "devices": run.mesh.size},
        "largest_batch": {**found._asdict(), "unit": unit, "most": run.data.examples // unit * unit},
    }


def flops_of_run(run: Run, steps: int) -> dict[str, Any]:
    """Arithmetic of a step by part and of the whole run, from records and from a store, as far as each is possible.

    Returns:
        ``step`` and ``run`` by input; ``run`` has the embedding of all photos, once, too. ``saved`` is the share of
        the arithmetic that a store saves, its making counted in.
    """
    inputs = [name for name, can in (("records", run.has_tower), ("store", run.is_locked)) if can]
    step = {name: abstract_run.step_flops(run, name) for name in inputs}
    whole = {name: steps * parts["step"] for name, parts in step.items()}
    if len(inputs) < 2:
        return {"step": step, "run": whole, "saved": None}
    whole["embedding"] = sum(run.data.rows.values()) * abstract_run.photo_flops(run)
    saved = 1 - (whole["store"] + whole["embedding"]) / whole["records"]
    return {"step": step, "run": whole, "saved": saved}


def shown(found: Mapping[str, Any]) -> str:
    """A plan as tables, for a person."""
    parts = (_about_parameters, _about_data, _about_store, _about_memory, _about_largest, _about_flops, _about_hours)
    return "\n\n".join("\n".join(part(found)) for part in parts)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return console.text_table([title, *columns], rows)


def _about_parameters(found: Mapping[str, Any]) -> Iterator[str]:
    kinds = ("trainable", "frozen")
    counts = found["parameters"]
    rows = [[name, *(f"{part[kind]:,}" for kind in kinds)] for name, part in counts.items()]
    rows.append(["all", *(f"{sum(part[kind] for part in counts.values()):,}" for kind in kinds)])
    yield _table("parameters", kinds, rows)
    if found["input"] == "store" and "image tower" in counts:
        yield "  the image tower is not loaded: the store stands for it"


def _about_data(found: Mapping[str, Any]) -> Iterator[str]:
    data = found["data"]
    longest = f"longest {data['longest']} tokens" if data["longest"] else "of unknown length"
    rows = [
        ["photos to train on", f"{next(iter(data['photos'].values())):,}"],
        ["classes", f"{data['classes']:,}" if data["classes"] else "unknown"],
        [f"distinct captions, {longest}", f"{data['captions']:,}"],
        ["photos a step, on all devices", f"{data['batch']:,}"],
        [f"texts a step of {data['tokens']} tokens, on average, rounded up", f"{data['texts']:,}"],
        ["steps an epoch", f"{data['steps_per_epoch']:,.1f}"],
        [f"steps in {data['epochs']:g} epochs", f"{data['steps']:,}"],
    ]
    yield _table(f"data: {data['source']}", [""], rows)


def _about_store(found: Mapping[str, Any]) -> Iterator[str]:
    stored = found["store"]
    if stored is None:
        yield "no store: the image tower moves"
        return
    rows = [[f"{split}, {rows:,} rows of {stored['width']}"] for split, rows in stored["rows"].items()]
    for row, number in zip(rows, stored["rows"].values(), strict=True):
        row += [_size(number * stored["width"] * abstract_run.STORED_BYTES[kind]) for kind in stored["bytes"]]
    if len(rows) > 1:
        rows.append(["all", *map(_size, stored["bytes"].values())])
    yield _table("embedding store", list(stored["bytes"]), rows)
    fits = "fits" if stored["fits_on_device"] else "does not fit"
    yield (
        f"  its training split in {found['data']['dtype']}, {_size(stored['train_bytes'])}, {fits} into half of a "
        f"device's memory; trained from, it lies {'on each device' if stored['on_device'] else 'on disk, mapped'}"
    )


MEMORY_PARTS = {
    "parameters": "trainable parameters",
    "optimizer": "optimizer's state",
    "locked": "locked towers",
    "batch": "batch",
    "temporaries": "temporaries, gradients among them",
    "waiting": f"{abstract_run.AHEAD} batches that wait",
    "store": "store",
    "gathered": "texts gathered from devices not here",
    "total": "all",
}


def _about_memory(found: Mapping[str, Any]) -> Iterator[str]:
    memory, compiler = found["memory"], found["compiler"]
    rows = [[text, _size(memory[part])] for part, text in MEMORY_PARTS.items() if memory[part]]
    title = f"memory of each of {found['devices']} devices" if found["devices"] > 1 else "memory of the device"
    yield _table(f"{title}, input {found['input']}, {found['precision']}", [""], rows)
    yield f"  gradients, which the compiler counts among the temporaries: {_size(memory['gradients'])}"
    kind = f"{compiler['platform']} ({compiler['device']})"
    yield f"  planned by XLA's compiler for {kind}" + (
        "; one for a GPU plans temporaries differently: ask there for its own figure"
        if compiler["platform"] == "cpu"
        else ""
    )
    if compiler["platform"] == "cpu" and found["precision"] == "bfloat16":
        yield "  a CPU computes bfloat16 in float32: expect about half of the temporaries on a GPU"


def _about_largest(found: Mapping[str, Any]) -> Iterator[str]:
    device, largest = found["device"], found["largest_batch"]
    yield f"device {device['name']}: {_size(device['memory'])} ({device['memory_is']})"
    yield f"  the config's batch {'fits' if found['memory']['fits'] else 'does not fit'}"
    if not largest["batch"]:
        sizes = f"of {largest['unit']}" if largest["is_certain"] else f"of {min(largest['memory'], default=0):,}"
        yield f"  not even a batch {sizes} fits"
        return
    why = "at least" if not largest["is_certain"] else "all photos at once," if _is_most(largest) else "exactly"
    bytes_there = _size(largest["memory"][largest["batch"]])
    yield (
        f"  largest batch over {found['devices']} of it: {why} {largest['batch']:,}, {bytes_there} on each "
        f"({len(largest['memory'])} sizes compiled)"
    )


def _is_most(largest: Mapping[str, Any]) -> bool:
    return bool(largest["batch"] == largest["most"])


def _about_flops(found: Mapping[str, Any]) -> Iterator[str]:
    arithmetic, steps = found["flops"], found["data"]["steps"]
    inputs = list(arithmetic["step"])
    names = list(next(iter(arithmetic["step"].values())))
    rows = [
        [f"a step: {name}" if name != "step" else "a step", *(_flops(arithmetic["step"][i][name]) for i in inputs)]
        for name in names
        if any(arithmetic["step"][i][name] for i in inputs)
    ]
    whole = arithmetic["run"]
    rows.append([f"{steps:,} steps", *(_flops(whole[i]) for i in inputs)])
    if "embedding" in whole:
        rows.append(["embedding all photos once", "0", _flops(whole["embedding"])])
        rows.append(["the whole run", _flops(whole["records"]), _flops(whole["store"] + whole["embedding"])])
    yield _table("arithmetic of matrix products, FLOP", [f"input {i}" for i in inputs], rows)
    if arithmetic["saved"] is not None:
        yield f"  a store saves {100 * arithmetic['saved']:.1f} % of the arithmetic, its making counted in"


def _about_hours(found: Mapping[str, Any]) -> Iterator[str]:
    hours, device = found["hours"], found["device"]
    names = {"records": "training from records", "embedding": "embedding once", "store": "training from the store"}
    rows = [[text, console.duration(3600 * hours[name])] for name, text in names.items() if name in hours]
    yield _table("expected time", [""], rows)
    yield (
        f"  at {hours['utilisation']:.0%} of the peak, {device['peak'] / 1e12:,.4g} TFLOP/s in {found['precision']} "
        f"({device['peak_is']}), on {found['devices']} x {device['name']}; an estimate, without reading "
        "photos, loading a tower and evaluating"
    )
    if hours["photos_per_s"]:
        yield f"  the image tower by its own speed, measured here: {hours['photos_per_s']:,.3g} photos a second"


def _size(nbytes: int) -> str:
    for unit, size in (("GiB", GIB), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if nbytes >= size:
            return f"{nbytes / size:,.2f} {unit}"
    return f"{nbytes} B"


def _flops(number: float) -> str:
    for unit, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:,.2f} {unit}"
    return f"{number:,.0f}"


def main(argv: Sequence[str] | None = None) -> None:
    """The command; see ``--help``."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with user_errors_in_one_line():
        rest, overrides = options.split_arguments(arguments)
        parsed = _parser().parse_args(rest)
        config, _ = options.load(parsed.config, overrides)
        hosts.start_jax(parsed)
        config = experiment.settled(config)
        data = abstract_run.known_data(
            config,
            examples=parsed.examples,
            vocab_size=parsed.vocab_size,
            captions=parsed.captions,
            longest=parsed.longest,
        )
        run = abstract_run.prepare(config, data, parsed.devices)
        device = chosen_device(run, parsed.device, memory_gib=parsed.memory, tflops=parsed.tflops)
        if not (parsed.device or parsed.tflops) and run.has_tower and run.is_locked:
            device = device._replace(photos=measured_photos(run, device))
        found = plan(run, device, utilisation=parsed.utilisation)
        print(shown(found))
        if parsed.json:
            console.write_json(parsed.json, found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lit_jax.plan",
        description="Tells what a run will cost before it runs: parameters, steps, memory, arithmetic, the largest "
        "batch that fits, hours. Options of the config are given as for lit_jax.main.",
    )
    add = parser.add_argument
    add("--config", required=True, help="a Python file such as configs/cub.py")
    add("--examples", type=_above_zero(int), default=0, help="photos to train on, where there are no data yet")
    add("--vocab-size", type=_above_zero(int), default=0, help="of the tokenizer, where there is none yet")
    add("--captions", type=_above_zero(int), default=0, help="distinct captions; those of the data, or one a photo")
    add("--longest", type=_above_zero(int), default=0, help="tokens of the longest caption; text.context if unknown")
    add("--device", choices=list(DEVICES), help="to plan for; this machine's if not given")
    add("--devices", type=_above_zero(int), default=0, help="how many; train.devices, or all of this machine")
    add("--memory", type=_above_zero(float), default=0, help="GiB of each that the program may use, instead")
    add("--tflops", type=_above_zero(float), default=0, help="peak of each in matrix products, instead")
    add("--utilisation", type=_share, default=UTILISATION, help=f"share of the peak reached ({UTILISATION})")
    add("--json", default="", metavar="FILE", help="write the plan there too")
    parser.set_defaults(distributed=False, coordinator="", processes=None, process=None)
    return parser


def _above_zero(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def number(text: str) -> Any:
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"found {text}, expected more than 0")
        return value

    return number


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected more than 0 and at most 1")
    return value


if __name__ == "__main__":
    main()

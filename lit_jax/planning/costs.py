"""The costs of a run before it runs.

Parameters, steps, the store's size, memory by part, arithmetic, the largest batch that fits, and hours. Memory is the
compiler's own plan of the very step; only the hours rest on an assumption, which is printed beside them.
"""

import bisect
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lit_jax import models
from lit_jax.base.precision import DTYPES
from lit_jax.base.sharding import is_cpu
from lit_jax.data import input_stream
from lit_jax.errors import UserError
from lit_jax.models import building, locking
from lit_jax.models.locking import IMAGE, LOGIT_BIAS, LOGIT_SCALE, PROJECTION, TEXT, TEXT_PROJECTION
from lit_jax.planning import abstract_run, cluster
from lit_jax.planning.abstract_run import Run
from lit_jax.planning.device_table import DEVICES, GIB, JAX_SHARE, LINKS, Device

COMPILES = 6  # at the most
EMBEDDED = 256  # photos at a time, of lit_jax.embed
UTILISATION = 0.4  # of the peak that a training run of this kind commonly reaches


PARAMETERS = {
    IMAGE: "image tower",
    TEXT: "text tower",
    PROJECTION: "projection",
    TEXT_PROJECTION: "projection",
    LOGIT_SCALE: "scale and bias",
    LOGIT_BIAS: "scale and bias",
}


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
            input_stream.device_memory(run.mesh) // (run.mesh.size if is_cpu(run.mesh) else 1),
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


def plan(
    run: Run, device: Device, *, utilisation: float = UTILISATION, network: float = cluster.NETWORK
) -> dict[str, Any]:
    """All facts that the command prints, as JSON values: counts, bytes, operations and hours.

    Args:
        run: the run.
        device: each of its devices.
        utilisation: share of the peak reached.
        network: of each host, Gbit/s.
    """
    config, data = run.config, run.data
    steps = run.length.steps
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
            "steps_per_epoch": run.length.steps_per_epoch,
            "steps": steps,
        },
        "store": stored,
        **memory_facts(run, device, stored),
        "flops": arithmetic,
        "hours": hours_of_run(run, arithmetic, steps, device, utilisation),
        "cluster": _on_cluster(run, device, arithmetic, stored, utilisation=utilisation, network=network),
    }


def _on_cluster(
    run: Run, device: Device, arithmetic: Mapping[str, Any], stored: Mapping[str, Any] | None, **speeds: float
) -> dict[str, Any] | None:
    """None on one device, and on a device whose links are not known."""
    if run.devices == 1 or device.name not in LINKS:
        return None
    on_device = bool(stored and stored["on_device"])
    return cluster.cluster_facts(run, device, LINKS[device.name], arithmetic, on_device=on_device, **speeds)


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
    params = building.param_shapes(run.config.towers, run.model)
    moving, _ = locking.split_locked(params, run.config.train.locks)
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
        the arithmetic that a store saves, its making counted in; None where that means nothing.
    """
    inputs = [name for name, can in (("records", run.has_tower), ("store", run.is_locked)) if can]
    step = {name: abstract_run.step_flops(run, name) for name in inputs}
    whole = {name: steps * parts["step"] for name, parts in step.items()}
    if len(inputs) < 2:
        return {"step": step, "run": whole, "saved": None}
    whole["embedding"] = sum(run.data.rows.values()) * abstract_run.photo_flops(run)
    # A run that keeps its start has no steps, of which nothing is saved.
    saved = 1 - (whole["store"] + whole["embedding"]) / whole["records"] if whole["records"] else None
    return {"step": step, "run": whole, "saved": saved}

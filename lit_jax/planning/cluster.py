"""The time of a step over several devices: its arithmetic, and the bytes that it moves over links.

What is moved is what the compiled step moves (a test holds the two against each other):

- the gradients of all trainable parameters are summed over the devices (all-reduce), in the run's precision;
- the loss gathers the embeddings of the texts of all devices (all-gather), `[U, D]` float32, and sums their two
  gradients, by the other images and by the own one, to the device that each row is of (reduce-scatter);
- vectors of U numbers and the gradients of norms, which stay in float32, are left out: they are less than a per cent.

Collectives are those of a ring through all devices, host after host. Of S bytes each of N devices sends
``2 (N - 1) / N * S`` for an all-reduce and ``(N - 1) / N * S`` for an all-gather or a reduce-scatter, and as much
leaves each host by its network. Source: NVIDIA's nccl-tests, doc/PERFORMANCE.md.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from lit_jax.base.precision import DTYPES
from lit_jax.models import building, locking
from lit_jax.models.locking import TEXT, TEXT_PROJECTION
from lit_jax.planning import abstract_run
from lit_jax.planning.abstract_run import Run
from lit_jax.planning.device_table import Device, Links

NETWORK = 100.0  # Gbit/s of a host, an InfiniBand EDR port
LINK_SHARE = 0.8  # of a link's speed on its data sheet that collectives are taken to reach
ARITHMETIC, GRADIENTS, TEXTS, INPUT = "arithmetic", "gradients", "texts", "input"
FLOAT32 = 4


class Moved(NamedTuple):
    """Bytes of one step.

    Attributes:
        gradients: S of the all-reduce.
        gathered: S of the all-gather of texts.
        scattered: S of the reduce-scatter of their gradients.
        input: that come to each device from its host.
    """

    gradients: int
    gathered: int
    scattered: int
    input: int


def moved(run: Run, source: str, *, on_device: bool) -> Moved:
    """What a step moves, from ``records`` or from a ``store``, which may lie on the devices."""
    config = run.config
    params = building.param_shapes(config.towers, run.model)
    moving, _ = locking.split_locked(params, config.train.locks)
    precision = jnp.dtype(DTYPES[config.train.precision]).itemsize
    trainable = abstract_run.nbytes(moving) // FLOAT32
    texts = abstract_run.text_shape(run, config.train.batch_size)[0] * config.model.embed_dim * FLOAT32
    learns_texts = bool({TEXT, TEXT_PROJECTION} & set(moving))
    batch = abstract_run.batch_shapes(run, config.train.batch_size, source)
    if source == "store" and on_device:
        batch.pop("features")
    return Moved(
        trainable * precision, texts, 2 * texts if learns_texts else 0, abstract_run.nbytes(batch) // run.devices
    )


def sent(found: Moved, devices: int) -> dict[str, float]:
    """Bytes that each device, and each host's network, sends in a step around a ring of N devices."""
    around = (devices - 1) / devices
    return {GRADIENTS: 2 * around * found.gradients, TEXTS: around * (found.gathered + found.scattered)}


def step_times(
    run: Run, found: Moved, operations: int, rate: float, links: Links, network: float
) -> tuple[dict[str, dict[str, float]], float]:
    """Seconds of each part of a step by the link that they pass, and of the whole step.

    Arithmetic and collectives follow each other, which is the worst case: a compiler may let them overlap. The next
    batches come meanwhile, so that the input only counts where it takes longer than both.

    Args:
        run: its devices and hosts.
        found: what the step moves.
        operations: of the step, over all devices.
        rate: that each device reaches, FLOP/s.
        links: of a device.
        network: of a host, bytes a second.

    Returns:
        ``{part: {link: seconds}}``, of which the slowest link of a part counts, and the seconds of a step.
    """
    parts: dict[str, dict[str, float]] = {ARITHMETIC: {"device": operations / run.devices / rate}}
    for name, nbytes in sent(found, run.devices).items():
        parts[name] = {}
        if run.devices > run.hosts:
            parts[name]["device"] = nbytes / (LINK_SHARE * links.device)
        if run.hosts > 1:
            parts[name]["network"] = nbytes / (LINK_SHARE * network)
    parts[INPUT] = {"host": found.input / (LINK_SHARE * links.host)}
    slowest = {name: max(seconds.values(), default=0.0) for name, seconds in parts.items()}
    return parts, max(slowest[ARITHMETIC] + slowest[GRADIENTS] + slowest[TEXTS], slowest[INPUT])


def cluster_facts(
    run: Run, device: Device, links: Links, arithmetic: Mapping[str, Any], *, utilisation: float, network: float,
    on_device: bool,
) -> dict[str, Any]:  # fmt: skip
    """Step times, efficiency and hours of a run on a cluster, as JSON values.

    Args:
        run: the run.
        device: each of its devices.
        links: of each.
        arithmetic: as `lit_jax.planning.costs.flops_of_run` returns it.
        utilisation: share of the peak reached.
        network: of a host, Gbit/s.
        on_device: whether a store lies on each device.

    Returns:
        The cluster, and for each input the bytes and seconds of a step by part, ``step_s``, ``efficiency`` against
        one device, ``hours`` of all steps, the parts that take longest, and ``equal_devices``: with how many devices
        about, at the same batch, collectives would take as long as arithmetic.
    """
    rate, wire = device.peak[0] * utilisation, network * 1e9 / 8
    inputs = {}
    for source, parts in arithmetic["step"].items():
        found = moved(run, source, on_device=on_device)
        seconds, step = step_times(run, found, parts["step"], rate, links, wire)
        slowest = {name: max(by_link.values(), default=0.0) for name, by_link in seconds.items()}
        alone = max(parts["step"] / rate, run.devices * slowest[INPUT])
        collectives = slowest[GRADIENTS] + slowest[TEXTS]
        order = sorted(slowest, key=lambda name: -slowest[name])
        inputs[source] = {
            "moved": found._asdict(),
            "sent": sent(found, run.devices),
            "seconds": seconds,
            "step_s": step,
            "alone_s": alone,
            "efficiency": alone / (run.devices * step),
            "hours": run.length.steps * step / 3600,
            "bottleneck": order[0],
            "next": order[1],
            "equal_devices": round(run.devices * slowest[ARITHMETIC] / collectives) if collectives else 0,
            "photos_per_s_host": run.config.train.batch_size / run.hosts / step,
        }
    return {
        "hosts": run.hosts,
        "devices_per_host": run.devices // run.hosts,
        "links": {**links._asdict(), "network": wire, "share": LINK_SHARE},
        "inputs": inputs,
    }

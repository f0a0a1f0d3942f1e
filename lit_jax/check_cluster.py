"""A smoke test of a new cluster, in minutes: ``srun python -m lit_jax.check_cluster --distributed``."""

import os
import pathlib
import platform
import socket
import statistics
import tempfile
import time
from collections.abc import Sequence

from lit_jax.base import cluster, console, hosts, machine
from lit_jax.base.command_line import Parser
from lit_jax.errors import UserError, user_errors_in_one_line

SIZES = (4 << 10, 1 << 20, 64 << 20)
"""Bytes that each device brings to a collective: a loss, the gradient of a small tower, that of a large one."""
PACKAGES = (
    "lit_jax",
    "jax",
    "jaxlib",
    "jax-cuda12-plugin",
    "jax-cuda13-plugin",
    "nvidia-cudnn-cu12",
    "nvidia-nccl-cu12",
)
CLOCKS = 1.0
"""Seconds by which clocks may differ: files would seem to come from the future."""


def main(argv: Sequence[str] | None = None) -> None:
    """The command; see ``--help``."""
    parsed = _parser().parse_args(argv)
    folder = pathlib.Path(parsed.folder)
    with user_errors_in_one_line():
        if parsed.here:
            hosts.keep_compiled()
            print("\n".join(_checked_here(folder)), "all well", sep="\n")
            return
        with cluster.joined(parsed, pathlib.Path(tempfile.gettempdir()) / f"lit_jax_check_cluster_{os.getuid()}"):
            for line in (
                [*_checked_here(folder), "all well"] if hosts.this_host().count == 1 else _checked_together(folder)
            ):
                print(line)


def _checked_here(folder: pathlib.Path) -> list[str]:
    """Lines about this machine.

    Raises:
        UserError: if something is amiss with it.
    """
    import jax

    cards, versions = machine.gpus(), machine.installed(*PACKAGES)
    here = jax.local_devices()
    found = [device for device in here if device.platform == "gpu"]
    amiss = machine.troubles(cards, versions, devices=len(found), given=cluster.given_gpus(os.environ) or 0)
    try:
        free = machine.room(folder)
    except OSError as error:
        amiss.append(f"--folder {folder}: {error.strerror}")
        free = 0
    if not folder.exists():
        amiss.append(f"--folder {folder}: no such folder; make it, or give the one where runs will be")
    if amiss:
        raise UserError(f"{socket.gethostname()}: {'; '.join(amiss)}")
    kinds = sorted({device.device_kind for device in here})
    return [
        f"{socket.gethostname()}: {len(here)} x {', '.join(kinds)}, {len(os.sched_getaffinity(0))} cores, "
        f"{free / 2**30:,.0f} GiB free in {folder}",
        f"Python {platform.python_version()}, {', '.join(f'{name} {number}' for name, number in versions.items())}",
    ]


def _checked_together(folder: pathlib.Path) -> list[str]:
    """Lines about all hosts, on the first one; none on the others.

    Raises:
        UserError: if something is amiss on this host, or between hosts.
    """
    here = _checked_here(folder)
    hosts.ensure_shared(folder, option="--folder")
    lines = hosts.exchange("machines", "\n".join(here))
    hosts.ensure_same({f"version of {name}": found for name, found in machine.installed(*PACKAGES).items()})
    offsets = _clocks()
    if max(offsets) - min(offsets) > CLOCKS:
        far = max(range(len(offsets)), key=lambda index: abs(offsets[index]))
        raise UserError(f"clock: found that of host {far} off by {offsets[far]:+.1f} s; set the clocks by NTP")
    rows = [_timed_sum(size) for size in SIZES]
    if hosts.this_host().index:
        return []
    table = console.text_table(
        ("sum over all devices", "milliseconds", "GB/s a device"),
        [(_bytes(size), f"{1000 * seconds:.2f}", f"{rate / 1e9:.2f}") for size, (seconds, rate) in
         zip(SIZES, rows, strict=True)],
    )  # fmt: skip
    return [
        *lines,
        f"folder {folder} is seen by all, clocks differ by {max(offsets) - min(offsets):.2f} s",
        table,
        "all well",
    ]


def _clocks() -> list[float]:
    """Seconds by which each host's clock is ahead of the first one's, to about a hundredth."""
    hosts.wait_for_all_hosts("clocks")
    times = [float(text) for text in hosts.exchange("clocks", repr(time.time()))]
    return [one - times[0] for one in times]


def _timed_sum(size: int, *, rounds: int = 10) -> tuple[float, float]:
    """The median time of a sum of `size` bytes a device over all devices, and what that moves a second.

    A ring moves ``2 (n - 1) / n`` of the bytes through each device, in whatever way it is done.

    Raises:
        UserError: if the sum is wrong.
    """
    import jax
    import numpy as np

    from lit_jax.base.sharding import local_rows, make_mesh, per_device, put_batch, total

    mesh = make_mesh()
    own = np.full((jax.local_device_count(), size // 4), 1 + jax.process_index(), np.float32)
    rows = put_batch({"x": own}, mesh)["x"]
    summed = jax.jit(per_device(lambda x: total(x, mesh), mesh, inputs=(True,), outputs=True))
    expected = sum(1 + device.process_index for device in mesh.devices.flat)
    times = []
    for number in range(rounds + 1):
        start = time.perf_counter()
        found = jax.block_until_ready(summed(rows))
        if number:  # the first one compiles
            times.append(time.perf_counter() - start)
    sums = local_rows(found)
    if (sums != expected).any():
        raise UserError(f"sum over all devices: found {float(sums.max())}, expected {expected}")
    seconds = statistics.median(times)
    return seconds, 2 * (mesh.size - 1) / mesh.size * size / seconds


def _bytes(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


def _parser() -> Parser:
    parser = Parser(
        prog="python -m lit_jax.check_cluster",
        description="Checks what a run on this machine, or on several, needs: devices, libraries, versions, a shared "
        "folder, clocks, and how fast the devices speak with each other. Nothing of it takes more than minutes.",
        epilog=cluster.EXIT_CODES,
    )
    parser.add_argument("--here", action="store_true", help="this machine alone, whatever is around it")
    parser.add_argument("--folder", default=".", help="where runs will be; on several hosts it must be shared")
    cluster.add_hosts(parser)
    return parser


if __name__ == "__main__":
    main()

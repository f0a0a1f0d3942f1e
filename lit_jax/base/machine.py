"""What a machine has that a run needs: devices, libraries that start on them, room on the disk."""

import dataclasses
import os
import pathlib
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

VOLTA = (7, 0)
CUDNN_OF_VOLTA = (9, 12)
"""cuDNN from this version on does not start on Volta (its support matrix; TUM-DSE/SciMLBenchmarks.jl#1736)."""


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU as ``nvidia-smi`` tells it: its name, compute capability, and memory in MiB."""

    name: str
    capability: tuple[int, int]
    memory: int


def gpus() -> list[Gpu]:
    """The GPUs of this machine; none where there is no ``nvidia-smi``."""
    query = ["nvidia-smi", "--query-gpu=name,compute_cap,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=False)
    except OSError:
        return []
    return parsed_gpus(answer.stdout) if answer.returncode == 0 else []


def parsed_gpus(listed: str) -> list[Gpu]:
    """The lines of ``nvidia-smi --format=csv,noheader,nounits``.

    Example:
        >>> parsed_gpus("Tesla V100-SXM2-32GB, 7.0, 32768")
        [Gpu(name='Tesla V100-SXM2-32GB', capability=(7, 0), memory=32768)]
    """
    found = []
    for line in filter(None, map(str.strip, listed.splitlines())):
        name, capability, memory = (part.strip() for part in line.rsplit(",", 2))
        major, minor = capability.split(".")
        found.append(Gpu(name, (int(major), int(minor)), int(memory)))
    return found


def numbers(text: str) -> tuple[int, ...]:
    """The numbers of a version, for comparison: "9.11.1.4" to (9, 11, 1, 4)."""
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def installed(*names: str) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def troubles(cards: Sequence[Gpu], versions: Mapping[str, str], *, devices: int, given: int) -> list[str]:
    """What is amiss with the GPUs of a machine, a sentence each.

    Args:
        cards: those that the driver knows.
        versions: of the packages ``jax-cuda12-plugin``, ``jax-cuda13-plugin``, ``nvidia-cudnn-cu12``, where installed.
        devices: how many GPUs JAX has found.
        given: how many the scheduler gave; 0 if it says nothing.
    """
    found = []
    oldest = min((card.capability for card in cards), default=None)
    cudnn = versions.get("nvidia-cudnn-cu12", "")
    if given > len(cards):
        found.append(f"{given} GPUs were given to the job and the driver knows {len(cards)}")
    if cards and not any(name in versions for name in ("jax-cuda12-plugin", "jax-cuda13-plugin")):
        found.append("there are GPUs and JAX's plugin for CUDA is not installed; pip install 'lit_jax[cuda12]'")
    elif cards and not devices:
        found.append("there are GPUs and JAX has found none; run python -c 'import jax; jax.devices()' for its reason")
    if oldest is not None and oldest <= VOLTA:
        if "jax-cuda13-plugin" in versions:
            found.append(f"{cards[0].name} needs CUDA 12, and CUDA 13 is installed; pip install 'lit_jax[volta]'")
        elif cudnn and numbers(cudnn) >= CUDNN_OF_VOLTA:
            found.append(
                f"cuDNN {cudnn} does not start on {cards[0].name} (compute capability {oldest[0]}.{oldest[1]}); "
                "pip install 'lit_jax[volta]'"
            )
    return found


def room(folder: pathlib.Path) -> int:
    """Free bytes where a folder is, or will be.

    Raises:
        OSError: the place cannot be written to.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(20, os.strerror(20), str(there))
    if not os.access(there, os.W_OK):
        raise PermissionError(13, os.strerror(13), str(there))
    return shutil.disk_usage(there).free

"""Memory, peaks and links of accelerators that a run can be planned for."""

from typing import NamedTuple

GIB = 1 << 30


JAX_SHARE = 0.75  # of a GPU's memory, which JAX takes unless XLA_CLIENT_MEM_FRACTION says otherwise


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


# The name alone means the one of less memory.
ALIASES = {"v100": "v100-16", "a100": "a100-40"}


class Links(NamedTuple):
    """What a device is connected by, in bytes a second in one direction.

    Attributes:
        kind: of the link to the other devices of its host.
        device: speed of that, all of its lanes together.
        host: speed of the link to its host's memory.
    """

    kind: str
    device: float
    host: float


# One direction, half of what data sheets tell for both. NVLink: generation 2 of V100 (SXM2) 300 GB/s both ways, 3 of
# A100 (SXM4) 600, 4 of H100 (SXM5) and H200 900. PCIe of 16 lanes: generation 3 32 GB/s both ways, 4 64, 5 128.
# Source: the data sheets named above; the RTX 4090's is NVIDIA's page of its specifications.
_PCIE_3, _PCIE_4, _PCIE_5 = 16e9, 32e9, 64e9


LINKS: dict[str, Links] = {
    "v100-16": Links("NVLink 2", 150e9, _PCIE_3),
    "v100-32": Links("NVLink 2", 150e9, _PCIE_3),
    "t4": Links("PCIe 3", _PCIE_3, _PCIE_3),
    "a100-40": Links("NVLink 3", 300e9, _PCIE_4),
    "a100-80": Links("NVLink 3", 300e9, _PCIE_4),
    "h100": Links("NVLink 4", 450e9, _PCIE_5),
    "h200": Links("NVLink 4", 450e9, _PCIE_5),
    "l4": Links("PCIe 4", _PCIE_4, _PCIE_4),
    "l40s": Links("PCIe 4", _PCIE_4, _PCIE_4),
    "rtx4090": Links("PCIe 4", _PCIE_4, _PCIE_4),
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

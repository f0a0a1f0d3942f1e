"""Memory and peaks of accelerators that a run can be planned for."""

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

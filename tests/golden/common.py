"""What the scripts that make golden outputs share with the tests that check them. NumPy only.

No weights are committed. Both sides draw each array from its name and shape, so that a tower of the real size is
compared at the cost of a list of names. ``make_*.py`` beside this file runs timm, transformers and open_clip on them
(torch needed) and writes ``*.npz``; `tests/test_parity.py` runs ours and needs NumPy and JAX only.
"""

import json
import pathlib
import re
import zlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent


def array(name, shape):
    """Weights `shape`, float32, decided by the name: of a size that keeps activations near 1."""
    noise = np.asarray(np.random.default_rng(zlib.crc32(name.encode())).random(shape, np.float32))
    noise *= 2  # in place: the arrays are large
    noise -= 1
    last = re.split(r"[./]", name)[-1]
    if re.search(r"running_var|^var$", last):
        return np.asarray(noise * 0.5 + 1)
    if len([n for n in shape if n > 1]) <= 1 and re.search(r"weight|scale|gamma|lambda", last) and "logit" not in name:
        return np.asarray(noise * 0.2 + 1)
    if len(shape) < 2 or re.search(r"bias|beta|mean|token|cls|probe|latent|pos|table|embed", last):
        return np.asarray(noise * 0.1)
    # Of kernels the inputs decide the size: all axes but the last in Flax, all but the first in PyTorch.
    fan_in = np.prod(shape[1:] if last.startswith(("weight", "in_proj")) else shape[:-1])
    noise *= np.float32(np.sqrt(3 / max(fan_in, 1)))
    return noise


def arrays(shapes):
    """Weights by name for shapes by name."""
    return {name: array(name, tuple(shape)) for name, shape in shapes.items()}


def pixels(size, batch=1):
    """`[B, size, size, 3]` float32 in [-1, 1]: smooth, so that a wrong order of pixels shows, and noisy."""
    rng = np.random.default_rng(size)
    y, x = np.mgrid[:size, :size] / size
    waves = np.stack([np.sin(7 * x + 3 * y), np.cos(5 * y - 2 * x), np.sin(9 * x * y)], -1)
    noise = rng.random((batch, size, size, 3)) * 2 - 1
    return (0.6 * waves + 0.4 * noise).astype(np.float32)


def write(case, *, preset, size, shapes, features, made_by, options=None, **more):
    """Writes a golden output: names and shapes of the weights, and the features `[B, W]` of `pixels(size)`."""
    about = {"preset": preset, "size": size, "shapes": {k: list(v) for k, v in shapes.items()}, "made_by": made_by,
             "options": options or {}, **more}  # fmt: skip
    packed = np.frombuffer(zlib.compress(json.dumps(about).encode(), 9), np.uint8)
    np.savez(FOLDER / f"{case}.npz", about=packed, features=np.asarray(features, np.float32))
    print(f"{case}: {np.asarray(features).shape}, mean |x| {np.abs(features).mean():.3f}")


def read(path):
    """What a golden file says: a dictionary, and the features."""
    with np.load(path) as archive:
        return json.loads(zlib.decompress(archive["about"].tobytes())), archive["features"]


def cases(folder=""):
    """All golden files; of the folder "short", those of towers that were cut to few blocks."""
    return sorted((FOLDER / folder).glob("*.npz"))

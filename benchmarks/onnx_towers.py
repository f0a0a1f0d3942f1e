r"""How far every registered tower in ONNX, computed by onnxruntime, is from the same tower in JAX.

    python -m benchmarks.onnx_towers
    python -m benchmarks.onnx_towers --only vit_b16 minilm_l6

Each preset in its real shape, with weights that are drawn: image towers see two pictures at the preset's size, text
towers three rows of its length. Of towers over 50 million parameters, whose blocks are all of one form, all but the
first two blocks are left out, lest they take the memory of this machine.
"""

import argparse
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import machine
from lit_jax import models
from lit_jax.errors import user_errors_in_one_line
from lit_jax.graphs.from_jax import to_onnx
from lit_jax.models.presets import Preset, Tower, image_shapes
from lit_jax.models.weights import count

LARGE = 50_000_000  # parameters
FEW = 2  # blocks
TEXTS = 3
Draw = Callable[[tuple[int, ...]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Case:
    """A tower, and what it is given.

    Attributes:
        tower: the module.
        params: of it.
        given: a batch.
        cut: whether blocks were left out.
    """

    tower: Tower
    params: Any
    given: np.ndarray
    cut: bool

    def apply(self, given: Any) -> jax.Array:
        """Features of a batch."""
        features: jax.Array = self.tower.apply({"params": self.params}, given)  # type: ignore[assignment]
        return features


def drawn(shape: tuple[int, ...]) -> np.ndarray:
    """Weights that keep activations near 1: scales and variances around 1, kernels by their inputs."""
    rng = np.random.default_rng(shape)
    if len(shape) < 2:
        return np.asarray(rng.random(shape, np.float32) * 0.4 + 0.8)
    return np.asarray(rng.standard_normal(shape, np.float32) / np.sqrt(np.prod(shape[-3:-1])), np.float32)


def case_of(name: str, draw: Draw = drawn) -> Case:
    """A preset of either kind."""
    presets = models.IMAGE_PRESETS | models.TEXT_PRESETS
    preset = presets[name]
    tower, shapes = _built(preset, {})
    cut = count(shapes) > LARGE and ("depth" in preset.options or "depths" in preset.options)
    if cut:
        tower, shapes = _built(preset, _few(preset))
    params = jax.tree.map(lambda leaf: draw(leaf.shape), shapes)
    rng = np.random.default_rng(0)
    if preset.preprocessing is not None:
        return Case(tower, params, rng.standard_normal((2, preset.size, preset.size, 3), np.float32), cut)
    tokens = rng.integers(2, 900, (TEXTS, preset.size)).astype(np.int32)
    tokens[0, 7:] = tokens[1, preset.size // 2 :] = 1
    return Case(tower, params, tokens, cut)


def _few(preset: Preset) -> dict[str, Any]:
    depths = preset.options.get("depths")
    return {"depths": tuple(min(depth, FEW) for depth in depths)} if depths else {"depth": FEW}


def _built(preset: Preset, options: dict[str, Any]) -> tuple[Tower, Any]:
    """The module and the shapes of its parameters."""
    fields = preset.tower.__dataclass_fields__
    if preset.preprocessing is not None:
        tower = preset.build(**options, **({"as_convolutions": True} if "as_convolutions" in fields else {}))
        return tower, image_shapes(tower, preset.size)[0]
    given = {"vocab_size": 1000, "end_id": 1, "context": preset.size, "embed_dim": 64}
    tower = preset.build(**{k: v for k, v in given.items() if k in fields and k not in preset.options}, **options)
    tokens = jax.ShapeDtypeStruct((1, preset.size), np.int32)
    return tower, jax.eval_shape(tower.init, jax.random.key(0), tokens)["params"]


def converted(name: str, draw: Draw = drawn) -> tuple[Case, Any]:
    """A preset in ONNX."""
    case = case_of(name, draw)
    model = to_onnx(case.apply, case.given.shape[1:], case.given.dtype, names=("given", "features"))
    return case, model


def measured(name: str) -> dict[str, Any]:
    """The figures of one preset."""
    import onnxruntime

    start = time.process_time()
    case, model = converted(name)
    seconds = time.process_time() - start
    stored = model.SerializeToString()
    (got,) = onnxruntime.InferenceSession(stored).run(None, {"given": case.given})
    wanted = np.asarray(jax.jit(case.apply)(case.given), np.float32)
    return {
        "parameters": count(case.params), "two_blocks": case.cut, "nodes": len(model.graph.node), "bytes": len(stored),
        "cpu_s": seconds, "difference": float(np.abs(got - wanted).max() / np.abs(wanted).max()),
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """The command: every preset, the table, the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.onnx_towers", description=(__doc__ or "").split("\n")[0]
    )
    known = list(models.IMAGE_PRESETS | models.TEXT_PRESETS)
    parser.add_argument("--only", nargs="*", default=known, choices=known, metavar="PRESET")
    parser.add_argument("--out", default="")
    parsed = parser.parse_args(argv)
    path = pathlib.Path(parsed.out) if parsed.out else machine.RESULTS / "onnx_towers.json"
    # With --only those are measured again, and the others stay.
    found = json.loads(path.read_text())["towers"] if parsed.only != known and path.is_file() else {}
    with user_errors_in_one_line():
        for name in parsed.only:
            found[name] = measured(name)
            print(f"{name}: {found[name]['difference']:.1e}", flush=True)
            jax.clear_caches()
    found = {name: found[name] for name in known if name in found}
    rows = [
        [name, f"{one['parameters'] / 1e6:.1f} M" + (" (two blocks)" if one["two_blocks"] else ""), str(one["nodes"]),
         f"{one['cpu_s']:.1f}", f"{one['difference']:.1e}"]
        for name, one in found.items()
    ]  # fmt: skip
    print(machine.table(["tower", "parameters", "nodes", "CPU s", "largest difference"], rows))
    largest = max(one["difference"] for one in found.values())
    print(f"largest of all: {largest:.1e} of the largest value")
    machine.write("onnx_towers", {"largest": largest, "towers": found}, parsed.out)


if __name__ == "__main__":
    main()

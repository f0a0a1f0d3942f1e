"""Every tower and format against other people's code, by the golden outputs that `tests/golden` keeps.

The bound is the same for all: the largest difference is at most 1e-4 of the largest value. Towers run in JAX, where the
names of other code share a compiled program, most of them cut to two blocks (whole in `-m slow`); those of EfficientNet as exported to ONNX, where their many kinds of block
need no compiling. The other way of each is in `-m slow`; that both agree is shown form by form in `tests/test_onnx.py`.
"""

import functools

import jax
import numpy as np
import onnxruntime
import pytest

from lit_jax import models
from lit_jax.graphs.from_jax import to_onnx
from lit_jax.models import presets, weights
from tests.golden import common

BOUND = 1e-4


@functools.cache
def golden(path):
    return common.read(path)


@functools.cache
def compiled(tower):
    """One program for all dialects of a tower."""
    return jax.jit(tower.apply)


def by_jax(tower, params, given):
    return np.asarray(compiled(tower)({"params": params}, given), np.float32)


def by_onnx(tower, params, given):
    """The same tower, written as ONNX."""
    tower = tower.clone(as_convolutions=True) if hasattr(tower, "as_convolutions") else tower
    model = to_onnx(lambda x: tower.apply({"params": params}, x), given.shape[1:], given.dtype, names=("x", "y"))
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": given})[0]


@functools.cache
def shapes(tower, size):
    return presets.image_shapes(tower, size)


def tower_of(about):
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in about["options"].items()}
    return models.IMAGE_PRESETS[about["preset"]].build(**given)  # JSON has no tuples, and a list cannot be hashed


def image_error(path, run=by_jax):
    """Largest difference of a golden case as a share of the largest value, and what the reader reports."""
    about, expected = golden(path)
    tower = tower_of(about)
    like, width = shapes(tower, about["size"])
    assert expected.shape[-1] == width
    params, report = weights.fill(common.arrays(about["shapes"]), like, models.family(tower), source=path.name)
    got = run(tower, params, common.pixels(about["size"]))
    return np.abs(got - expected).max() / np.abs(expected).max(), report


def usual(path):
    """How the tower of a golden case is computed by default."""
    return by_onnx if isinstance(tower_of(golden(path)[0]), models.efficientnet.InvertedResNet) else by_jax


def of_kind(kind):
    return [path for path in common.cases() if golden(path)[0].get("kind", "image") == kind]


# Cases whose tower and whose names others have already: the same again in another size, or other names for it.
SLOW = {
    "clip_l14.hugging_face", "swinv2_t.timm_from_12", "swin_t.timm_192",
    "swinv2_t_w16.timm", "swin_t.microsoft", "siglip_b16.timm", "bit_r50x1.hugging_face", "mobilenetv2_100.torchvision",
    "tf_mobilenetv2_100.hugging_face", "vit_b16.timm", "mixer_b16.timm",
    "clip_l14_336_two_blocks.timm", "eva02_clip_l14_336_two_blocks.timm",
}  # fmt: skip


def quick(kind):
    """Every case once: cut to few blocks where there is one, else whole; other whole ones are slow."""
    cut = [path for path in common.cases("short") if golden(path)[0].get("kind", "image") == kind]
    short = {path.stem for path in cut}
    whole = [path for path in of_kind(kind) if "real" not in golden(path)[0]]
    return [pytest.param(path, id=f"{path.stem}-short") for path in cut] + [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem in SLOW | short)) for path in whole
    ]


@pytest.mark.parametrize("path", quick("image"))
def test_image_towers_agree_with_other_code(path):
    error, _ = image_error(path, usual(path))
    assert error <= BOUND


@pytest.mark.slow
@pytest.mark.parametrize("path", of_kind("image"), ids=lambda path: path.stem)
def test_image_towers_agree_the_other_way(path):
    assert image_error(path, by_jax if usual(path) is by_onnx else by_onnx)[0] <= BOUND


def text_tower_of(about):
    preset = models.TEXT_PRESETS[about["preset"]]
    given = {"end_id": about["end_id"], "vocab_size": about["vocabulary"]}
    if preset.tower is models.TextTransformer:
        given |= {"context": about["size"], "embed_dim": about["embed_dim"]}
    return preset.build(**{**given, **about["options"]})


def text_error(path, flat=None, run=by_jax, **options):
    """Largest difference of a golden case as a share of the largest value."""
    about, expected = golden(path)
    tower = text_tower_of({**about, "options": {**about["options"], **options}})
    tokens = np.asarray(about["tokens"], np.int32)
    like = jax.eval_shape(tower.init, jax.random.key(0), tokens)["params"]
    flat = common.arrays(about["shapes"]) if flat is None else flat
    params, _ = weights.fill(flat, like, models.family(tower), source=path.name)
    return np.abs(run(tower, params, tokens) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("path", quick("text"))
def test_text_towers_agree_with_other_code(path):
    assert text_error(path) <= BOUND


@pytest.mark.slow
@pytest.mark.parametrize("path", [p for p in of_kind("text") if "real" not in golden(p)[0]], ids=lambda path: path.stem)
def test_text_towers_agree_in_onnx(path):
    assert text_error(path, run=by_onnx) <= BOUND

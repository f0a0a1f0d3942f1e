import json
import struct

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from PIL import Image

from lit_jax.errors import UserError
from lit_jax.models import resize, weight_files, weights
from lit_jax.models.names import text as text_names
from lit_jax.models.names import vit as vit_names
from lit_jax.models.text import TextTransformer
from lit_jax.models.vit import ViT
from tests.conftest import random_like

IMAGE, TEXT = vit_names.FAMILY, text_names.FAMILY


def vit_params(size=12, seed=0, **options):
    tower = ViT(**{"patch": 4, "width": 8, "depth": 2, "heads": 2, **options})
    return random_like(tower, jnp.zeros((1, size, size, 3)), seed=seed)


def text_params(**options):
    tower = TextTransformer(20, 8, 1, width=8, depth=2, heads=2, embed_dim=6, projection_bias=True, **options)
    return random_like(tower, jnp.zeros((1, 8), jnp.int32))


def equal(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and jax.tree.all(
        jax.tree.map(lambda x, y: np.array_equal(x, y), a, b)
    )


@pytest.mark.parametrize("pool", ["token", "gap", "map"])
def test_what_is_written_is_read_back(tmp_path, pool):
    params = vit_params(pool=pool)
    path = tmp_path / "tower.npz"
    weight_files.write_npz(path, weights.named(params, IMAGE))
    got, report = weights.load_tower(path, params, IMAGE)
    assert equal(got, params) and report.left_out == report.resized == ()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tower.npz"]


@pytest.mark.parametrize("pool", ["end", "map"])
def test_text_towers_too(pool):
    params = text_params(pool=pool)
    flat = weights.named(params, TEXT)
    assert "Encoder_0/encoderblock_1/MultiHeadDotProductAttention_0/query/kernel" in flat and "head/kernel" in flat
    assert equal(weights.fill(flat, params, TEXT, source="x")[0], params)


def test_the_names_are_those_of_the_augreg_files():
    flat = weights.named(vit_params(), IMAGE)
    published = {
        "cls": (1, 1, 8),
        "embedding/kernel": (4, 4, 3, 8),
        "Transformer/posembed_input/pos_embedding": (1, 10, 8),
        "Transformer/encoderblock_0/LayerNorm_0/scale": (8,),
        "Transformer/encoderblock_1/LayerNorm_2/bias": (8,),
        "Transformer/encoderblock_1/MultiHeadDotProductAttention_1/query/kernel": (8, 2, 4),
        "Transformer/encoderblock_1/MultiHeadDotProductAttention_1/out/kernel": (2, 4, 8),
        "Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel": (8, 32),
        "Transformer/encoder_norm/scale": (8,),
    }
    assert {name: flat[name].shape for name in published} == published
    assert len(flat) == 4 + 2 * 16 + 2


def test_big_vision_names_prefixes_half_precision_and_heads_are_understood(tmp_path):
    params = jax.tree.map(lambda x: np.asarray(x, ml_dtypes.bfloat16), vit_params())
    modern = {"MultiHeadDotProductAttention_1": "MultiHeadDotProductAttention_0", "LayerNorm_2": "LayerNorm_1",
              "MlpBlock_3": "MlpBlock_0"}  # fmt: skip
    flat = {}
    for name, value in weights.named(params, IMAGE).items():
        for old, new in modern.items():
            name = name.replace(old, new)
        name = name.replace("Transformer/posembed_input/pos_embedding", "pos_embedding")
        flat["params/img/" + name] = value
    flat["params/img/head/kernel"] = np.zeros((8, 3), np.float32)
    flat["opt/state/count"] = np.zeros(1)
    np.savez(tmp_path / "x.npz", **flat)
    got, report = weights.load_tower(tmp_path / "x.npz", params, IMAGE)
    assert equal(got, jax.tree.map(np.float32, params)) and report.left_out == (
        "opt/state/count",
        "params/img/head/kernel",
    )


def test_leftovers_gaps_and_wrong_shapes_are_named():
    params = vit_params()
    flat = weights.named(params, IMAGE)
    with pytest.raises(UserError, match="found extra/thing left over, by"):
        weights.fill({**flat, "extra/thing": np.zeros(1)}, params, IMAGE, source="x")
    less = {name: value for name, value in flat.items() if name != "cls"}
    with pytest.raises(UserError, match="found no cls, by"):
        weights.fill(less, params, IMAGE, source="x")
    with pytest.raises(UserError, match=r"encoderblock_1/.* left over"):
        weights.fill(flat, vit_params(depth=1), IMAGE, source="x")
    with pytest.raises(
        UserError,
        match=r"weights x: found cls of shape \(1, 1, 8\), expected one that makes class_token of \(1, 1, 16\)",
    ):
        weights.fill(flat, vit_params(width=16), IMAGE, source="x")


def test_missing_and_foreign_and_truncated_files(tmp_path):
    with pytest.raises(UserError, match="found no such file"):
        weight_files.read_npz(tmp_path / "no.npz")
    foreign = tmp_path / "foreign.npz"
    foreign.write_bytes(b"this is no archive")
    with pytest.raises(UserError, match="expected a whole .npz archive"):
        weight_files.read_npz(foreign)
    whole = tmp_path / "whole.npz"
    weight_files.write_npz(whole, weights.named(vit_params(), IMAGE))
    whole.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(UserError, match="expected a whole .npz archive"):
        weight_files.read_npz(whole)


def test_positions_are_resized_as_a_picture_would_be(rng):
    grid = rng.normal(size=(6, 6, 1)).astype(np.float32)
    value = np.concatenate([np.full((1, 1, 1), 7.0), grid.reshape(1, 36, 1)], 1)
    got = resize.resize_positions(value, (1, 17, 1))
    pil = Image.fromarray(grid[..., 0], "F").resize((4, 4), Image.Resampling.BICUBIC)
    assert got[0, 0, 0] == 7.0
    np.testing.assert_allclose(got[0, 1:, 0].reshape(4, 4), np.asarray(pil), atol=1e-5)
    assert np.array_equal(resize.resize_positions(value, (1, 36, 1)), value[:, 1:])  # no class token wanted
    with pytest.raises(ValueError, match="found position embeddings"):
        resize.resize_positions(value, (1, 12, 1))


def test_another_image_size_is_reported(tmp_path):
    flat = weights.named(vit_params(size=12), IMAGE)
    got, report = weights.fill(flat, vit_params(size=16), IMAGE, source="x")
    assert got["position_embedding"].shape == (1, 17, 8)
    assert report.resized == ("position_embedding: (1, 10, 8) -> (1, 17, 8)",)


def test_the_digest_knows_values_and_names_but_not_dtype():
    params = vit_params()
    other = jax.tree.map(np.copy, params)
    other["class_token"][0, 0, 0] += 1e-6
    assert weights.digest(params) == weights.digest(jax.tree.map(jnp.asarray, params))
    assert weights.digest(params) != weights.digest(other)
    renamed = {("x" if name == "class_token" else name): tree for name, tree in params.items()}
    assert weights.digest(params) != weights.digest(renamed)


@pytest.mark.parametrize(
    "wrapper",
    [
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "backbone.",
        "teacher.backbone.",
        "model.",
        "student.",
        "module.model.",
        "model.module.",
        "teacher.module.backbone._orig_mod.",
        "net.backbone.",
    ],
)
@pytest.mark.parametrize("dialect", [vit_names.TIMM, vit_names.HF_VIT], ids=lambda one: one.name)
def test_what_wrappers_put_in_front_of_names_is_seen_through(wrapper, dialect):
    params = vit_params()
    flat = {
        wrapper + dialect.prefixes[-1] + name: value for name, value in weights.named(params, IMAGE, dialect).items()
    }
    got, report = weights.fill({**flat, "epoch": np.zeros(1)}, params, IMAGE, source="x")
    assert equal(got, params) and report.left_out == ("epoch",) and report.dialect == dialect.name


def test_of_a_teacher_and_a_student_the_teacher_is_read():
    params, other = vit_params(), vit_params(seed=1)
    named = [weights.named(tree, IMAGE, vit_names.TIMM) for tree in (other, params)]
    flat = {
        who + name: value
        for who, own in zip(("student.backbone.", "teacher.backbone."), named, strict=True)
        for name, value in own.items()
    }
    assert equal(weights.fill(flat, params, IMAGE, source="x")[0], params)


def test_weights_of_8_bits_are_refused_in_one_line(tmp_path):
    for number, kind in enumerate(("F8_E4M3", "F8_E5M2")):
        head = json.dumps({"a": {"dtype": kind, "shape": [3], "data_offsets": [0, 3]}}).encode()
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(struct.pack("<Q", len(head)) + head + bytes(3))
        with pytest.raises(
            UserError, match=rf"{path.name}: found a in 8 bits \({kind}\), expected float32, float16 or"
        ):
            dict(weight_files.open_weights(path).arrays)

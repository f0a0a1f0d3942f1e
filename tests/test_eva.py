"""EVA-02, CLIP's ViTs under timm's names, and classifiers of timm as towers: what the golden outputs do not say."""

import functools
import json

import jax
import numpy as np
import pytest

from lit_jax import config as options
from lit_jax import models
from lit_jax.errors import UserError
from lit_jax.models import building, eva, guess, presets, weight_files, weights
from lit_jax.models.eva import Eva
from lit_jax.models.names import eva as names
from lit_jax.models.vit import ViT
from lit_jax.settling import documents_of, settle
from lit_jax.text.tokenizers import Tokenizer
from tests.conftest import as_stored, random_like
from tests.golden import common

SMALL = Eva(4, 16, 2, 2)
COUNTS = common.read(common.FOLDER / "counts.eva.npz")[0]["counts"]


@functools.cache
def drawn(tower, size=16):
    return random_like(tower, common.pixels(size))


@functools.cache
def shapes(tower, size=16):
    return presets.image_shapes(tower, size)[0]


def apply(tower, params, pixels):
    return np.asarray(jax.jit(tower.apply)({"params": params}, pixels))


def fill(tower, flat, size=16):
    return weights.fill(flat, shapes(tower, size), models.family(tower), source="x")


@pytest.mark.parametrize(("grid", "channels"), [(16, 8), (24, 64), (1, 4)])
def test_patches_are_turned_by_their_place_on_a_grid_of_sixteen(grid, channels):
    """By complex numbers in float64: pairs of channels are numbers, a turn is a product."""
    sine, cosine = eva.rotations(grid, channels)
    patch, pair = grid * grid - 1, np.arange(channels // 2)  # the last one: both places are the largest
    speed = 10_000.0 ** -((pair % (channels // 4)) / (channels // 4))
    angle = (grid - 1) * 16 / grid * speed
    np.testing.assert_allclose(cosine[patch] + 1j * sine[patch], np.exp(1j * angle), atol=1e-6)
    # Rows turn the first half of the pairs, columns the second: of patch 1 in a row only the second.
    if grid > 1:
        assert not sine[1][: channels // 4].any() and sine[1][channels // 4 :].all()
    x = np.random.default_rng(0).normal(size=(2, grid * grid + 1, 3, channels)).astype(np.float32)
    turned = np.asarray(eva.turned(x, sine, cosine), np.float64)
    numbers = x[..., ::2] + 1j * x[..., 1::2]
    expected = numbers[:, 1:] * (cosine + 1j * sine)[None, :, None]
    np.testing.assert_array_equal(turned[:, 0], x[:, 0])
    np.testing.assert_allclose(turned[:, 1:, :, ::2] + 1j * turned[:, 1:, :, 1::2], expected, atol=1e-5)


def test_where_features_are_read():
    """Each pool by the others' outputs: the norm of the mean is not the mean of the norm."""
    params, pixels = drawn(SMALL), common.pixels(16)
    norm = params["norm"]
    mean = {
        **{k: v for k, v in params.items() if k != "norm"},
        "pool_norm": {"scale": np.ones(16), "bias": np.zeros(16)},
    }
    got = apply(SMALL.clone(pool="gap_norm"), mean, pixels)
    assert np.abs(got.mean()) < 1e-5 and got.std() == pytest.approx(1, abs=1e-3)
    scaled = {**mean, "pool_norm": norm}
    expected = got * norm["scale"] + norm["bias"]
    np.testing.assert_allclose(apply(SMALL.clone(pool="gap_norm"), scaled, pixels), expected, atol=1e-5)
    outputs = [apply(SMALL.clone(pool=pool), params, pixels) for pool in ("token", "gap")]
    assert np.abs(outputs[0] - outputs[1]).max() > 0.01 and np.abs(outputs[1] - expected).max() > 0.01


# Presets of one size share what they are built from: the others wait for the long run.
FAST = ("eva02_ti14", "eva02_b14", "eva02_clip_l14_336")


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in sorted(COUNTS)]
)
def test_a_preset_has_as_many_parameters_as_timms(name):
    preset = models.IMAGE_PRESETS[name]
    assert weights.count(presets.image_shapes(preset.build(), preset.size)[0]) == COUNTS[name]


def test_every_preset_is_counted():
    assert {name for name, preset in models.IMAGE_PRESETS.items() if preset.tower is Eva} == set(COUNTS)


@pytest.mark.parametrize(
    ("case", "dialect"),
    [
        ("eva02_ti14.timm", names.FUSED),
        ("eva02_b14_two_blocks.timm", names.TIMM),
        ("eva02_clip_b16_two_blocks.timm", names.TIMM),
    ],
)
def test_what_is_written_has_timms_names_and_shapes_without_the_head(case, dialect):
    about, _ = common.read(common.FOLDER / f"{case}.npz")
    tower = models.IMAGE_PRESETS[about["preset"]].build(**about["options"])
    like, _ = presets.image_shapes(tower, about["size"])
    given = common.arrays(about["shapes"])
    params, report = weights.fill(given, like, models.family(tower), source="x")
    written = weights.named(params, models.family(tower), dialect)
    assert report.left_out == ("head.bias", "head.weight") and "left out: head.bias, head.weight" in str(report)
    assert written.keys() == given.keys() - set(report.left_out)
    for name, value in written.items():
        np.testing.assert_array_equal(value, given[name], err_msg=name)


@pytest.mark.parametrize("dialect", [names.TIMM, names.FUSED])
def test_pre_training_has_its_norm_behind_all_patches_and_what_nobody_needs(dialect):
    tower = SMALL.clone(pool="gap_norm")
    params = drawn(tower)
    flat = weights.named(params, models.family(tower), dialect)
    published = {name.replace("fc_norm", "norm"): value for name, value in flat.items()}
    ballast = ("mask_token", "lm_head.weight", "rope.bands", "blocks.0.attn.k_bias")
    published |= {name: np.zeros(3, np.float32) for name in ballast}
    got, report = fill(tower, published)
    assert set(report.left_out) == set(ballast)
    assert weights.digest(got) == weights.digest(fill(tower, flat)[0]) == weights.digest(params)


def test_another_size_resizes_positions_and_no_more():
    flat = weights.named(drawn(SMALL), models.family(SMALL))
    _, report = fill(SMALL, flat, size=24)
    assert [line.split(":")[0] for line in report.resized] == ["position_embedding"]


def test_in_sixteen_bits_features_stay_near():
    params, pixels = drawn(SMALL), common.pixels(16)
    half = SMALL.clone(dtype=jax.numpy.bfloat16)
    got = apply(half, as_stored(half, params, pixels), pixels).astype(np.float32)
    expected = apply(SMALL, params, pixels)
    assert np.abs(got - expected).max() < 0.05 * np.abs(expected).max()


# -- classifiers of timm


def settled(folder, tower, **changes):
    flat = {"image.tower": tower, "image.weights": str(folder), **changes}
    config = options.from_flat(flat, source="test")
    return settle(config, documents=documents_of(config))


def published(folder, config, flat=None):
    """A folder as timm publishes it."""
    weight_files.write_safetensors(folder / "model.safetensors", flat or {"x": np.zeros(1, np.float32)})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("tower", "config", "pool"),
    [
        ("eva02_clip_l14_336", {"global_pool": "token"}, "token"),
        ("eva02_clip_l14_336", {"global_pool": "avg"}, "gap_norm"),
        ("eva02_clip_l14_336", {"global_pool": "token", "model_args": {"global_pool": "avg"}}, "gap_norm"),
        ("eva02_b14", {"global_pool": "avg", "model_args": {"use_fc_norm": False}}, "gap"),
        ("eva02_b14", {"global_pool": ""}, "gap_norm"),
        ("eva02_b14", {}, "gap_norm"),
        ("vit_b16", {"global_pool": "avg"}, "gap_norm"),
        ("vit_b16", {"global_pool": "avg", "model_args": {"fc_norm": False}}, "gap"),
        ("siglip_b16", {"global_pool": "map"}, "map"),
        ("resnet50", {"global_pool": "avg"}, ""),
    ],
)
def test_features_are_those_that_the_head_reads(tmp_path, tower, config, pool):
    folder = published(tmp_path, {"architecture": "x", **config})
    assert settled(folder, tower).image.pool == pool
    if pool:
        assert settled(folder, tower, **{"image.pool": "gap"}).image.pool == "gap"


def test_a_pool_that_the_tower_has_not_is_refused(tmp_path):
    for folder, changes in (
        (published(tmp_path, {}), {"image.pool": "map"}),
        (published(tmp_path, {"global_pool": "map"}), {}),
    ):
        with pytest.raises(UserError, match=r"image.pool: found map with image.tower eva02_b14, expected token or gap"):
            settled(folder, "eva02_b14", **changes)


def test_a_classifier_loads_as_a_tower(tmp_path):
    """The very case of a golden output: two blocks of EVA-02's CLIP with a head of five classes, read at the mean."""
    about, expected = common.read(common.FOLDER / "eva02_clip_b16_mean.timm.npz")
    published(
        tmp_path, {"architecture": "eva02_base_patch16_clip_224", "global_pool": "avg"}, common.arrays(about["shapes"])
    )
    config = settled(tmp_path, "eva02_clip_b16", **{"image.size": 96})
    model = building.build_model(config.towers, Tokenizer(b"", 1000, 1, 0, None))
    tower = model.image.clone(depth=2)
    params, report = weights.load_tower(str(tmp_path), shapes(tower, 96), models.family(tower))
    got = apply(tower, params, common.pixels(96))
    assert np.abs(got - expected).max() <= 1e-4 * np.abs(expected).max()
    assert "left out: head.bias, head.weight" in str(report)


def test_openai_weights_under_timms_name_have_their_own_activation():
    name = "vit_large_patch14_clip_336"
    of = {"openai": {"architecture": name, "pretrained_cfg": {"tag": "openai"}}}
    of |= {"quick": {"architecture": "vit_large_patch14_clip_quickgelu_336"}}
    of |= {"tuned": {"architecture": name, "pretrained_cfg": {"tag": "openai_ft_in12k_in1k"}}}
    other = {
        (asked, kind): guess.other_tower(asked, "x", {"config.json": config})
        for asked in ("clip_l14_336", "openclip_l14_336") for kind, config in of.items()
    }  # fmt: skip
    wrong = {("clip_l14_336", "tuned"), ("openclip_l14_336", "openai"), ("openclip_l14_336", "quick")}
    assert {key for key, found in other.items() if found} == wrong
    assert all(set(other[key].differing) == {"activation"} for key in wrong)


def test_vits_mean_and_norm_stand_behind_tokens():
    tower = ViT(4, 16, 1, 2, pool="gap_norm", registers=2, distilled=True)
    params = drawn(tower)
    assert "pool_norm" in params and "norm" not in params["encoder"] and "class_token" in params
    pixels = common.pixels(16)
    moved = {**params, "registers": params["registers"] + 100.0}
    assert np.abs(apply(tower, params, pixels) - apply(tower, moved, pixels)).max() > 0  # patches attend to them
    flat = weights.named(params, models.family(tower), models.family(tower).dialects[3])
    assert "fc_norm.weight" in flat and "norm.weight" not in flat


# -- beside timm, where it is installed


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"mlp_norm": False}, {"qkv_fused": True, "scale_mlp": False}),
        ({"pool": "gap_norm"}, {"scale_mlp": True, "global_pool": "avg"}),
        ({"attention_norm": True, "pool": "token"}, {"scale_mlp": True, "scale_attn_inner": True}),
    ],
)
def test_small_towers_agree_with_timm(ours, theirs):
    torch = pytest.importorskip("torch")
    timm_eva = pytest.importorskip("timm.models.eva")
    given = {"qkv_fused": False, "global_pool": "token", **theirs}
    model = timm_eva.Eva(
        img_size=24, patch_size=4, num_classes=3, embed_dim=16, depth=2, num_heads=2, mlp_ratio=8 / 3, swiglu_mlp=True,
        use_rot_pos_emb=True, ref_feat_shape=(16, 16), **given,
    ).eval()  # fmt: skip
    flat = {name: common.array(name, tuple(value.shape)) for name, value in model.state_dict().items()}
    model.load_state_dict({name: torch.from_numpy(value) for name, value in flat.items()})
    pixels = common.pixels(24, 2)
    with torch.no_grad():
        out = model.forward_features(torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))))
        expected = model.forward_head(out, pre_logits=True).numpy()
    tower = SMALL.clone(**ours)
    got = apply(tower, fill(tower, flat, size=24)[0], pixels)
    assert np.abs(got - expected).max() <= 1e-4 * np.abs(expected).max()

"""MLP-Mixer, Swin and SwinV2: what the golden outputs of whole towers do not say."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lit_jax import models
from lit_jax.errors import UserError
from lit_jax.models import presets, resize, swin, swinv2, weights
from lit_jax.models.mixer import Mixer
from lit_jax.models.swin import Swin
from lit_jax.models.swinv2 import SwinV2
from tests.conftest import as_stored, random_like
from tests.golden import common

MIXER = Mixer(4, 8, 3)
SWIN = Swin(8, (4, 2), (2, 4), window=4, patch=2)
SWINV2 = SwinV2(8, (4, 2), (2, 4), window=4, patch=2)
TOWERS = pytest.mark.parametrize("tower", [MIXER, SWIN, SWINV2], ids=["mixer", "swin", "swinv2"])


def images(size, batch=1):
    return common.pixels(size, batch)


@functools.cache
def drawn(tower, size=16):
    return random_like(tower, images(size))


@functools.cache
def compiled(tower):
    return jax.jit(tower.apply)


def apply(tower, params, pixels):
    return np.asarray(compiled(tower)({"params": params}, pixels))


@functools.cache
def shapes(tower, size):
    return presets.image_shapes(tower, size)[0]


def loaded(tower, flat, size=16):
    return weights.fill(flat, shapes(tower, size), models.family(tower), source="x")


GOLDEN = [path for path in common.cases() if common.read(path)[0].get("kind") == "table"]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_resized_parameters_agree_with_other_code(path):
    about, expected = common.read(path)
    value = common.array("value", tuple(about["shapes"]["value"]))
    got = getattr(resize, about["preset"])(value, tuple(about["shapes"]["wanted"]))
    assert np.abs(got - expected).max() <= 1e-4 * np.abs(expected).max()


COUNTS = common.read(common.FOLDER / "counts.swin_mixer.npz")[0]["counts"]
# Presets of one size share what they are built from: the others wait for the long run.
FAST = ("swin_t", "swin_b_384", "swin_l", "swinv2_t")


@pytest.mark.parametrize(
    "name", [name if name in FAST or "mixer" in name else pytest.param(name, marks=pytest.mark.slow) for name in COUNTS]
)
def test_a_preset_has_as_many_parameters_as_timms(name):
    preset = models.IMAGE_PRESETS[name]
    assert weights.count(presets.image_shapes(preset.build(), preset.size)[0]) == COUNTS[name]


def test_every_preset_is_counted():
    towers = (Mixer, Swin, SwinV2)
    assert {name for name, preset in models.IMAGE_PRESETS.items() if issubclass(preset.tower, towers)} == set(COUNTS)


@TOWERS
def test_every_dialect_is_written_and_read_back(tower):
    params = drawn(tower)
    family = models.family(tower)
    for dialect in family.dialects:
        for prefix in dialect.prefixes:
            got, report = loaded(tower, weights.named(params, family, dialect, prefix))
            assert report.dialect == dialect.name and not report.resized and not report.left_out
            assert jax.tree.all(jax.tree.map(np.array_equal, got, params))


@TOWERS
def test_leftovers_gaps_and_another_depth_are_named_in_one_line(tower):
    family = models.family(tower)
    flat = weights.named(drawn(tower), family)
    first = sorted(flat)[0]
    deeper = tower.clone(**({"depths": (6, 2)} if hasattr(tower, "depths") else {"depth": 4}))
    cases = [
        (tower, {**flat, "extra": np.zeros(1)}, "found extra left over, by"),
        (tower, {name: value for name, value in flat.items() if name != first}, f"found no {first}"),
        (deeper, flat, "found no .* more, by"),
    ]
    for wanted, arrays, message in cases:
        with pytest.raises(UserError, match=message) as error:
            loaded(wanted, arrays)
        assert "\n" not in str(error.value)


# The first Swin's blocks are the second's, but for the norms and the scores.
@pytest.mark.parametrize(("tower", "dtype", "bound"), [
    (MIXER, jnp.float16, 0.02), (SWINV2, jnp.float16, 0.02), pytest.param(SWIN, jnp.float16, 0.02, marks=pytest.mark.slow),
    *(pytest.param(tower, jnp.bfloat16, 0.1, marks=pytest.mark.slow) for tower in (MIXER, SWIN, SWINV2)),
])  # fmt: skip
def test_half_precision_stays_close(tower, dtype, bound):
    params = drawn(tower)
    expected = apply(tower, params, images(16))
    half = tower.clone(dtype=dtype)
    got = apply(half, as_stored(half, params, images(16)), images(16))
    assert got.dtype == dtype
    assert np.abs(got.astype(np.float32) - expected).max() < bound * np.abs(expected).max()


def test_a_mixer_refuses_another_image_size_but_takes_another_patch():
    flat = weights.named(drawn(MIXER), models.family(MIXER))
    with pytest.raises(UserError, match=r"token_mixing.*fit one number of patches: keep the image size") as error:
        loaded(MIXER, flat, size=20)
    assert "\n" not in str(error.value)
    _, report = loaded(MIXER.clone(patch=8), flat, size=32)
    assert report.resized == ("embedding/kernel: (4, 4, 3, 8) -> (8, 8, 3, 8)",)


def test_a_mixer_knows_the_order_of_patches():
    params = drawn(MIXER)
    pixels = images(16)
    assert not np.allclose(apply(MIXER, params, pixels), apply(MIXER, params, pixels[:, ::-1]), rtol=1e-2)
    pooled = jax.tree.map(np.zeros_like, params["blocks"]["token_mlp"])
    params = {**params, "blocks": {**params["blocks"], "token_mlp": pooled}}
    moved = pixels.reshape(1, 4, 4, 16, 3)[:, ::-1].reshape(1, 16, 16, 3)  # rows of patches, each as it was
    np.testing.assert_allclose(apply(MIXER, params, pixels), apply(MIXER, params, moved), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "window", "shift"), [((8, 12), (4, 4), (2, 2)), ((7, 9), (4, 4), (2, 2)),
                                                       ((3, 9), (3, 4), (0, 2)), ((5, 5), (5, 5), (0, 0))])  # fmt: skip
def test_windows_come_back_in_place_and_regions_keep_strangers_apart(size, window, shift):
    places = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1)[None] + 1  # zeros are padding
    seen = []

    def attend(x, regions):
        seen.append((np.asarray(x), regions))
        return x

    got = swin.in_windows(jnp.asarray(places), window, shift, attend)
    np.testing.assert_array_equal(got, places)
    ((windows, regions),) = seen
    count = math.prod(-(-side // length) for side, length in zip(size, window, strict=True))
    assert windows.shape == (1, count, window[0] * window[1], 2) and (regions is None) == (not any(shift))
    if any(side % length for side, length in zip(size, window, strict=True)) or regions is None:
        return
    for of_window, numbers in zip(windows[0], regions, strict=True):
        near = (np.abs(of_window[:, None] - of_window[None]) < np.array([[window]])).all(-1)
        np.testing.assert_array_equal(numbers[:, None] == numbers[None], near)


def test_a_small_map_is_one_window_that_does_not_shift():
    assert swin.window_and_shift((7, 7), 7, True) == ((7, 7), (0, 0))
    assert swin.window_and_shift((6, 14), 7, True) == ((6, 7), (0, 3))
    assert swin.window_and_shift((14, 14), 7, False) == ((7, 7), (0, 0))
    small, large = Swin(8, (2,), (2,), window=4, patch=4), Swin(8, (2,), (2,), window=9, patch=4)
    params = drawn(small)
    np.testing.assert_array_equal(apply(small, params, images(16)), apply(large, params, images(16)))


def test_offsets_are_the_same_where_the_relative_position_is():
    index = swin.offsets((2, 3))
    assert index.shape == (6, 6) and sorted(set(index.ravel())) == list(range(3 * 5))
    assert set(index.diagonal()) == {7}
    assert index[0, 5] == 0 and index[5, 0] == 14 and index[1, 0] == index[5, 4] == 8


@pytest.mark.slow
def test_odd_maps_and_pictures_that_are_no_squares_have_features():
    for tower in (SWIN, SWINV2):
        params = drawn(tower, 24)  # both maps hold a whole window
        assert np.isfinite(apply(tower, params, images(48)[:, :26, :46])).all()


def test_tables_are_resized_for_another_window_and_refused_for_other_heads():
    flat = weights.named(drawn(SWIN, 24), models.family(SWIN))
    wider = SWIN.clone(window=6)
    got, report = loaded(wider, flat, size=24)
    assert report.resized and all("attention/table: (49, " in line for line in report.resized)
    assert got["stage0"]["plain"]["attention"]["table"].shape == (2, 121, 2)
    with pytest.raises(UserError, match="relative_position_bias_table"):
        loaded(wider.clone(heads=(4, 4)), flat, size=24)


def test_resizing_a_table_keeps_constants_and_itself_and_refuses_what_is_no_square(rng):
    table = rng.normal(size=(49, 2)).astype(np.float32)
    np.testing.assert_allclose(resize.resize_table(table, (49, 2)), table, rtol=1e-6)
    np.testing.assert_allclose(resize.resize_table(np.ones((49, 2), np.float32), (121, 2)), 1, rtol=1e-6)
    for wrong in ((50, 2), (121, 3)):
        with pytest.raises(ValueError, match="found a table"):
            resize.resize_table(table, wrong)
    with pytest.raises(ValueError, match="found a table"):
        resize.resize_table(table[:, None], (121, 2))


def test_buffers_of_microsofts_files_are_left_out():
    for tower in (SWIN, SWINV2):
        family = models.family(tower)
        flat = weights.named(drawn(tower), family, family.dialects[1])
        assert "layers.0.downsample.reduction.weight" in flat
        flat |= {f"layers.0.blocks.1.{name}": np.zeros(1) for name in ("attn_mask", "attn.relative_position_index")}
        _, report = loaded(tower, flat | {"head.weight": np.zeros((2, 16))})
        assert report.dialect.startswith("Microsoft") and len(report.left_out) == 3


def test_swinv2_bounds_its_scale_and_needs_no_resizing():
    params = drawn(SWINV2)

    def features(logit, **options):
        new = jax.tree_util.tree_map_with_path(
            lambda path, x: np.full_like(x, logit) if "logit_scale" in jax.tree_util.keystr(path) else x, params
        )
        return apply(SWINV2.clone(**options), new, images(16))

    assert np.array_equal(features(5.0), features(50.0)) and not np.allclose(features(4.0), features(5.0), rtol=1e-3)
    own, other = features(1.0, window=3), features(1.0, window=3, pretrained_windows=(4, 4))
    assert not np.allclose(own, other, rtol=1e-4)
    np.testing.assert_array_equal(features(1.0), features(1.0, pretrained_windows=(4, 4)))
    flat = weights.named(params, models.family(SWINV2))
    assert not loaded(SWINV2.clone(window=6), flat, size=48)[1].resized


def test_log_positions_reach_the_same_bounds_in_every_window():
    for side in (2, 8, 16):
        got = swinv2.log_positions((side, side), 0)
        assert got.shape == ((2 * side - 1) ** 2, 2) and np.isclose(got.max(), np.log2(9) / 3)
        np.testing.assert_array_equal(got, -got[::-1])
    np.testing.assert_array_equal(swinv2.log_positions((1, 1), 0), [[0, 0]])
    inner = swinv2.log_positions((8, 8), 16)
    assert np.isclose(inner.max(), np.log2(1 + 8 * 7 / 15) / 3)


def test_unit_vectors_and_their_gradients_are_finite_at_zero():
    x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(swinv2.normalised(x), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    for dtype in (jnp.float32, jnp.float16):
        slope = jax.grad(lambda x: swinv2.normalised(x).sum())(x.astype(dtype))
        assert np.isfinite(slope.astype(np.float32)).all()

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lit_jax import models
from lit_jax.errors import UserError
from lit_jax.models import presets, weights
from lit_jax.models.bit import BiT, StandardisedConv
from lit_jax.models.efficientnet import InvertedResNet
from lit_jax.models.layers import FrozenBatchNorm, convolution
from lit_jax.models.names import bit as bit_names
from lit_jax.models.names import efficientnet as efficientnet_names
from lit_jax.models.names import resnet as resnet_names
from lit_jax.models.resnet import ResNet
from lit_jax.planning import arithmetic
from tests.conftest import as_stored
from tests.golden import common

STAGES = ((1, 3, 1, 1, 8), (2, 5, 2, 6, 16), (1, 3, 2, 6, 24))
TOWERS = {
    "basic": ResNet((1, 1), bottleneck=False),
    "bottleneck": ResNet((1, 1)),
    "bit": BiT((1, 1)),
    "equal": InvertedResNet(STAGES, stem=8, head=40),
    "same": InvertedResNet(STAGES, stem=8, head=40, padding="same", norm_epsilon=1e-3),
}
WIDTHS = {"basic": 128, "bottleneck": 512, "bit": 512, "equal": 40, "same": 40}


@functools.cache
def drawn(tower):
    """Parameters of sizes that keep activations near 1, as those of the golden outputs."""
    shapes = jax.eval_shape(tower.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    flat = {path: common.array(path, leaf.shape) for path, leaf in weights.leaves(shapes).items()}
    return weights.unflatten(flat)


@functools.cache
def compiled(tower):
    return jax.jit(tower.apply)


@functools.cache
def features(name, size, batch=1):
    return features_of(name, common.pixels(size, batch))


def relative(got, expected):
    return np.abs(np.asarray(got, np.float32) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("name", TOWERS)
def test_any_size_of_picture_gives_features_of_the_same_width(name):
    wide = jax.eval_shape(TOWERS[name].apply, {"params": drawn(TOWERS[name])}, jnp.zeros((2, 37, 51, 3)))
    assert wide.shape == (2, WIDTHS[name])
    assert np.isfinite(features(name, 33)).all() and np.abs(features(name, 33)).max() > 0


@pytest.mark.parametrize("name", TOWERS)
def test_a_picture_has_the_same_features_alone_and_in_a_batch(name):
    np.testing.assert_allclose(
        features(name, 33, 3)[:1], features_of(name, common.pixels(33, 3)[:1]), rtol=1e-4, atol=1e-5
    )


def features_of(name, pixels, params=None):
    params = drawn(TOWERS[name]) if params is None else params
    return np.asarray(compiled(TOWERS[name])({"params": params}, pixels))


@pytest.mark.parametrize("dtype", [jnp.float16, pytest.param(jnp.bfloat16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["bottleneck", "bit", "same"])
def test_sixteen_bits_stay_close_to_thirty_two(name, dtype):
    tower = TOWERS[name].clone(dtype=dtype)
    params = stretched(drawn(tower))
    got = jax.jit(tower.apply)({"params": as_stored(tower, params, common.pixels(33))}, common.pixels(33))
    assert got.dtype == dtype
    assert relative(got, features_of(name, common.pixels(33), params)) < (0.005 if dtype == jnp.float16 else 0.04)


def stretched(params):
    """Parameters as published files have them: variances beyond float16, standardised kernels near its smallest."""
    factors = {"var": 1e5, "mean": 1e5**0.5}
    flat = {path: leaf * factors.get(path.rsplit("/", 1)[-1], 1) for path, leaf in weights.leaves(params).items()}
    is_bit = not any(path.endswith("/var") for path in flat)
    if is_bit:
        flat = {p: 3e-4 * leaf / leaf.std() if p.endswith("kernel") else leaf for p, leaf in flat.items()}
    else:  # activations as large as their statistics say
        flat = {p: leaf * 1e5**0.5 if p.endswith("kernel") else leaf for p, leaf in flat.items()}
    return weights.unflatten(flat)


@pytest.mark.parametrize("name", ["basic", "equal"])
def test_statistics_of_batch_norms_get_no_gradient(name):
    tower = TOWERS[name] if name == "basic" else TOWERS[name].clone(stages=STAGES[:1] * 2)
    gradient = jax.jit(jax.grad(lambda params: tower.apply({"params": params}, common.pixels(17)).sum()))(drawn(tower))
    moved = {path: bool(np.any(leaf)) for path, leaf in weights.leaves(gradient).items()}
    statistics = {path for path in moved if path.endswith(("/mean", "/var"))}
    assert len(statistics) >= 10 and not any(moved[path] for path in statistics)
    assert all(moved[path] for path in moved.keys() - statistics)


def test_a_batch_norm_by_its_formula(rng):
    x, scale, bias, mean = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 3, 4, 5), 5, 5, 5))
    var = rng.uniform(0.5, 2, 5).astype(np.float32)
    params = {"scale": scale, "bias": bias, "mean": mean, "var": var}
    got = FrozenBatchNorm(0.01).apply({"params": params}, x)
    np.testing.assert_allclose(got, (x - mean) / np.sqrt(var + 0.01) * scale + bias, rtol=1e-5, atol=1e-5)


def test_scale_and_mean_of_a_standardised_kernel_do_not_matter(rng):
    conv, x = StandardisedConv(4, 3), rng.normal(size=(1, 5, 6, 3)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 3, 4)).astype(np.float32)
    one, other = (conv.apply({"params": {"kernel": k}}, x) for k in (kernel, 3 * kernel + 0.5))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_paddings_agree_where_every_grid_is_odd_and_only_there():
    # A side of 2 ** n + 1 stays odd at every stride of 2; TensorFlow then pads both sides alike.
    tower = TOWERS["equal"]
    params = {"params": drawn(tower)}
    for size, agree in ((33, True), (32, False)):
        one, other = (compiled(tower.clone(padding=how))(params, common.pixels(size)) for how in ("equal", "same"))
        assert (relative(one, np.asarray(other)) < 1e-5) == agree


def counts():
    return common.read(common.FOLDER / "counts.conv.npz")[0]["counts"]


@functools.cache
def shapes_of(tower):
    return presets.image_shapes(tower, 64)[0]


def count_by_stages(tower):
    """The parameters of a tower from one of at most two blocks a stage: those after the first are alike."""
    if isinstance(tower, InvertedResNet):
        depths = [stage[0] for stage in tower.stages]
        stages = tuple((min(stage[0], 2), *stage[1:]) for stage in tower.stages)
        short = tower.clone(stages=stages, padding="equal", norm_epsilon=1e-5)  # one trace for either padding
    else:
        depths, short = tower.depths, tower.clone(depths=tuple(min(depth, 2) for depth in tower.depths))
    shapes = shapes_of(short)
    more = sum((depth - 2) * weights.count(shapes[f"stage{i}_block1"]) for i, depth in enumerate(depths) if depth > 2)
    return weights.count(shapes) + more


@pytest.mark.parametrize("preset", counts())
def test_presets_are_as_large_as_those_of_other_code(preset):
    assert count_by_stages(models.IMAGE_PRESETS[preset].build()) == counts()[preset]


# One of each family; the others are the same code at other depths and widths, which the test above counts.
WHOLE = ("resnet18", "bit_r50x1", "mobilenetv2_100", "efficientnet_lite0")


@pytest.mark.parametrize(
    "preset", [name if name in WHOLE else pytest.param(name, marks=pytest.mark.slow) for name in counts()]
)
def test_towers_are_as_large_as_those_of_other_code(preset):
    chosen = models.IMAGE_PRESETS[preset]
    shapes, _ = presets.image_shapes(chosen.build(), chosen.size)
    assert weights.count(shapes) == counts()[preset]


def test_every_convolutional_preset_is_counted():
    towers = (ResNet, BiT, InvertedResNet)
    assert counts().keys() == {name for name, preset in models.IMAGE_PRESETS.items() if preset.tower in towers}


def thin(depths):
    """An inverted-residual tower of few channels with the depths of a published one."""
    return InvertedResNet(tuple((depth, 3, 1, 6 if i else 1, 2 + i) for i, depth in enumerate(depths)), stem=2, head=4)


DIALECTS = [
    *[(TOWERS["basic"], resnet_names.FAMILY, dialect) for dialect in resnet_names.FAMILY.dialects],
    *[(TOWERS["bottleneck"], resnet_names.FAMILY, dialect) for dialect in resnet_names.FAMILY.dialects],
    *[(TOWERS["bit"], bit_names.FAMILY, dialect) for dialect in bit_names.FAMILY.dialects],
    *[(thin(depths), efficientnet_names.FAMILY, dialect) for depths, dialect in [
        ((1, 2, 3, 4, 3, 3, 1), efficientnet_names.TIMM),
        ((1, 2, 3, 4, 3, 3, 1), efficientnet_names.TORCHVISION),
        ((1, 2, 3, 4, 3, 3, 1), efficientnet_names.HUGGING_FACE),
        ((1, 2, 2, 3, 3, 4, 1), efficientnet_names.LITE_PYTORCH[0]),
        ((1, 3, 3, 4, 4, 5, 1), efficientnet_names.LITE_PYTORCH[1]),
        ((1, 3, 3, 5, 5, 6, 1), efficientnet_names.LITE_PYTORCH[2]),
        ((1, 4, 4, 6, 6, 8, 1), efficientnet_names.LITE_PYTORCH[3]),
    ]],
]  # fmt: skip


@pytest.mark.parametrize(("tower", "family", "dialect"), DIALECTS, ids=lambda x: getattr(x, "name", ""))
def test_what_is_written_is_read_back(tower, family, dialect):
    params = drawn(tower)
    prefix = dialect.prefixes[-1]
    flat = weights.named(params, family, dialect, prefix)
    assert len(flat) == len(weights.leaves(params))
    got, report = weights.fill(flat, params, family, source="x")
    assert report.dialect == dialect.name and report.left_out == ()
    assert weights.digest(got) == weights.digest(params)


def test_heads_and_counters_are_left_out():
    tower = TOWERS["basic"]
    flat = weights.named(drawn(tower), resnet_names.FAMILY)
    more = {"fc.weight": np.zeros((5, 128)), "fc.bias": np.zeros(5), "bn1.num_batches_tracked": np.zeros(())}
    _, report = weights.fill({**flat, **more}, drawn(tower), resnet_names.FAMILY, source="x")
    assert report.left_out == tuple(sorted(more))


def test_the_names_of_google_s_deepest_files():
    names = bit_names.GOOGLE.names
    assert names["stage2_block35/conv2"] == "block3/unit36/b/standardized_conv2d"
    assert names["stage0_block0/shortcut"] == "block1/unit01/a/proj/standardized_conv2d"
    assert names["stage1_block7/norm1/scale"] == "block2/unit08/a/group_norm/gamma"


@pytest.mark.parametrize("wanted", [ResNet((1, 2), bottleneck=False), ResNet((1,), bottleneck=False), ResNet((1, 1))])
def test_another_size_is_refused_in_one_line(wanted):
    flat = weights.named(drawn(TOWERS["basic"]), resnet_names.FAMILY)
    with pytest.raises(UserError, match="found .* expected") as caught:
        weights.fill(flat, drawn(wanted), resnet_names.FAMILY, source="x.pth")
    assert "\n" not in str(caught.value)


def test_the_next_size_of_counted_blocks_is_refused():
    family = efficientnet_names.FAMILY
    flat = weights.named(drawn(thin((1, 3, 3, 4, 4, 5, 1))), family, efficientnet_names.LITE_PYTORCH[1])
    with pytest.raises(UserError, match="_blocks"):
        weights.fill(flat, drawn(thin((1, 2, 2, 3, 3, 4, 1))), family, source="x.pth")


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1])
def test_a_convolution_of_one_pixel_is_one_however_it_is_computed(stride, padding):
    rng = np.random.default_rng(0)
    pixels = jnp.asarray(rng.normal(size=(2, 7, 9, 5)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(1, 1, 5, 4)), jnp.float32)
    edges = ((padding, padding), (padding, padding))
    got = convolution(pixels, kernel, (stride, stride), edges, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    wider = np.pad(pixels, ((0, 0), *edges, (0, 0)))[:, ::stride, ::stride]
    np.testing.assert_allclose(got, np.einsum("bhwc,cd->bhwd", wider, kernel[0, 0]), rtol=1e-5, atol=1e-5)


def test_other_runtimes_are_given_convolutions_only():
    for name in ("resnet50", "bit_r50x1", "efficientnet_lite0"):
        preset = models.IMAGE_PRESETS[name]
        pixels = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
        kinds = {}
        for form in (False, True):
            tower = preset.build(as_convolutions=form)
            shapes = jax.eval_shape(tower.init, jax.random.key(0), pixels)
            found = arithmetic.products(tower.apply, shapes, pixels)
            kinds[form] = {product.equation.primitive.name for product in found}
        assert kinds == {False: {"dot_general", "conv_general_dilated"}, True: {"conv_general_dilated"}}

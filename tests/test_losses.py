import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from lit_jax.base.sharding import make_mesh, over_batch, put_batch, replicated
from lit_jax.training import losses

MODES = losses.SAME_CAPTION
LOSSES = ("softmax", "sigmoid")


def slow(*values):
    """A case whose kind another has already."""
    return pytest.param(*values, marks=pytest.mark.slow)


# Six texts: one of four images, one of three, two of one, and two of none (padding).
CAPTION = np.int32([0, 3, 1, 0, 4, 1, 0, 1, 0])


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def unit_rows(rng, rows, dim=5):
    return unit(rng.normal(size=(rows, dim)))


def drawn(rng, batch, texts, dim=5):
    """Images, texts and captions in float64; about half the texts are named several times, some never."""
    return unit_rows(rng, batch, dim), unit_rows(rng, texts, dim), np.int32(rng.integers(0, texts, batch))


def log_softmax(x, axis):
    x = x - x.max(axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis, keepdims=True))


def naive_softmax(image, text, scale, caption, mode):
    """InfoNCE of the full B x B matrix with repeated texts, in float64: two cross-entropies."""
    logits = scale * image @ text[caption].T
    same, own = caption[:, None] == caption[None, :], np.eye(len(image), dtype=bool)
    if mode == "masked":
        logits = np.where(same & ~own, -np.inf, logits)
    positive = same if mode == "multi" else own
    rows = np.log((np.exp(log_softmax(logits, 1)) * positive).sum(1))
    columns = np.log((np.exp(log_softmax(logits, 0)) * positive).sum(0))
    if mode != "multi":  # without the detour through probabilities, which can be 0
        rows, columns = np.diag(log_softmax(logits, 1)), np.diag(log_softmax(logits, 0))
    return -(rows.mean() + columns.mean()) / 2


def naive_sigmoid(image, text, scale, bias, caption, mode):
    """SigLIP's pseudo-code over the full B x B matrix with repeated texts, in float64."""
    logits = scale * image @ text[caption].T + bias
    same, own = caption[:, None] == caption[None, :], np.eye(len(image), dtype=bool)
    labels = np.where(same if mode == "multi" else own, 1, -1)
    each = np.logaddexp(0, -labels * logits)
    return each[~(same & ~own)].sum() / len(image) if mode == "masked" else each.sum() / len(image)


def test_no_embeddings_have_a_loss_below_the_floor(rng):
    """Images at their texts, as far apart and as sharp as can be, reach it; anything else is above."""
    softmax_floor = jax.jit(losses.softmax_floor, static_argnums=1)
    floor = float(softmax_floor(jnp.array(CAPTION), 6))
    assert floor == pytest.approx((4 * np.log(4) + 3 * np.log(3)) / 9) and floor > np.log(9 / 4)  # of four texts
    apart = np.eye(6)
    assert naive_softmax(apart[CAPTION], apart, 1e3, CAPTION, "plain") == pytest.approx(floor)
    got = losses.softmax_contrastive(
        jnp.float32(apart[CAPTION]), jnp.float32(apart), jnp.float32(100), caption=jnp.array(CAPTION)
    )
    assert float(got) == pytest.approx(floor, rel=1e-4)  # of float32 at logits of 100
    for _ in range(20):
        image, text, caption = drawn(rng, 9, 6)
        least = float(softmax_floor(jnp.array(caption), 6))
        assert naive_softmax(image, text, 20.0, caption, "plain") > least
    assert float(losses.softmax_floor(jnp.arange(5), 8)) == 0
    even = jnp.array([0, 1, 2, 3] * 3)
    assert float(losses.softmax_floor(even, 4)) == pytest.approx(np.log(12 / 4))


def naive(loss, mode, arguments, caption):
    return (naive_softmax if loss == "softmax" else naive_sigmoid)(*arguments, caption, mode)


def blocked(loss, mode, arguments, caption, *, block=0, mesh=None):
    function = losses.softmax_contrastive if loss == "softmax" else losses.sigmoid_contrastive
    return function(*arguments, caption=caption, same_caption=mode, walk=losses.Walk(block, mesh))


compiled_value = jax.jit(blocked, static_argnums=(0, 1), static_argnames=("block", "mesh"))
# Of all arguments that have a gradient.
value_and_grads = jax.jit(
    jax.value_and_grad(blocked, argnums=2), static_argnums=(0, 1), static_argnames=("block", "mesh")
)


def arguments_of(loss, image, text, scale=14.3, bias=-5.0):
    return (image, text, scale) + ((bias,) if loss == "sigmoid" else ())


def in_float32(arguments):
    return tuple(jnp.float32(x) for x in arguments)


def finite_differences(function, arguments, h=1e-5):
    """The gradient of a float64 function by all its arguments."""
    grads = []
    for k, x in enumerate(arguments):
        x = np.asarray(x, np.float64)
        grad = np.zeros_like(x)
        for i in np.ndindex(x.shape):
            step = np.zeros_like(x)
            step[i] = h
            up, down = ([*arguments[:k], x + sign * step, *arguments[k + 1 :]] for sign in (1, -1))
            grad[i] = (function(up) - function(down)) / (2 * h)
        grads.append(grad)
    return grads


def assert_all_close(got, expected, **tolerance):
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), **tolerance)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("loss", LOSSES)
def test_value_equals_the_naive_one_over_repeated_texts(rng, loss, mode):
    image, text, caption = drawn(rng, 23, 12)
    for scale in (1.0, 14.3, 100.0):
        arguments = arguments_of(loss, image, text, scale)
        got = compiled_value(loss, mode, in_float32(arguments), caption)
        np.testing.assert_allclose(got, naive(loss, mode, arguments, caption), rtol=2e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_three_modes_differ_where_texts_repeat_and_only_there(rng, loss):
    image, text, caption = drawn(rng, 23, 23)
    arguments = in_float32(arguments_of(loss, image, text))
    repeated = [float(compiled_value(loss, mode, arguments, caption)) for mode in MODES]
    assert min(abs(np.diff([*repeated, repeated[0]]))) > 1e-2
    order = np.int32(rng.permutation(23))
    distinct = [float(compiled_value(loss, mode, arguments, order)) for mode in MODES]
    np.testing.assert_allclose(distinct, distinct[0], rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_equals_finite_differences_of_the_naive_loss(rng, loss, mode):
    arguments = arguments_of(loss, unit_rows(rng, len(CAPTION)), unit_rows(rng, 6), 7.0, -3.0)
    value, got = value_and_grads(loss, mode, in_float32(arguments), CAPTION, block=4)
    np.testing.assert_allclose(value, naive(loss, mode, arguments, CAPTION), rtol=1e-5)
    expected = finite_differences(lambda arguments: naive(loss, mode, arguments, CAPTION), arguments)
    assert all(np.abs(grad).max() > 1e-2 for grad in expected)
    assert_all_close(got, expected, atol=1e-5)


@pytest.mark.parametrize("block", [1, 5, slow(23), 64, 0])
@pytest.mark.parametrize("loss", LOSSES)
def test_any_block_gives_the_same(rng, loss, block):
    image, text, caption = drawn(rng, 23, 9)
    arguments = arguments_of(loss, image, text)
    value, grads = value_and_grads(loss, "masked", in_float32(arguments), caption, block=block)
    np.testing.assert_allclose(value, naive(loss, "masked", arguments, caption), rtol=1e-5)
    expected = finite_differences(lambda arguments: naive(loss, "masked", arguments, caption), arguments)
    assert_all_close(grads, expected, atol=2e-5)


@pytest.mark.parametrize(("batch", "block"), [slow(64, 8), (64, 64), (70, 8), slow(70, 32)])
def test_chunked_sigmoid_equals_the_dense_one(batch, block):
    """The check SigLIP's chunked implementations publish: seeded features, scale 10, bias -10, uneven chunks."""
    rng = np.random.default_rng(42)
    image, text = (jnp.float32(unit_rows(rng, batch, 32)) for _ in range(2))
    scale, bias = jnp.float32(10), jnp.float32(-10)

    def dense(image, text, scale, bias):
        labels = 2 * jnp.eye(batch) - 1
        return -jnp.sum(jax.nn.log_sigmoid(labels * (scale * image @ text.T + bias))) / batch

    expected = jax.jit(jax.value_and_grad(dense, argnums=(0, 1, 2, 3)))(image, text, scale, bias)
    got = value_and_grads("sigmoid", "plain", (image, text, scale, bias), None, block=block)
    assert_all_close(jax.tree.leaves(got), jax.tree.leaves(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("devices", [1, slow(2), slow(4), 8])
@pytest.mark.parametrize("loss", LOSSES)
def test_value_and_gradient_are_the_same_on_any_number_of_devices_and_kind_of_axis(rng, loss, devices, axis_type):
    image, text, caption = drawn(rng, 24, 16)
    mode = MODES[(devices + (axis_type == AxisType.Auto)) % 3]
    arguments = arguments_of(loss, image, text, 20.0)
    mesh = make_mesh(devices, axis_type=axis_type)
    with jax.set_mesh(mesh):
        rows = {"image": np.float32(image), "text": np.float32(text), "caption": caption}
        rows = put_batch(rows, mesh)
        assert len(rows["image"].addressable_shards) == devices
        split = (rows["image"], rows["text"], *in_float32(arguments[2:]))
        value, grads = value_and_grads(loss, mode, split, rows["caption"], block=2, mesh=mesh)
    assert grads[0].sharding.is_equivalent_to(over_batch(mesh), 2)
    assert grads[1].sharding.is_equivalent_to(over_batch(mesh), 2)
    np.testing.assert_allclose(value, naive(loss, mode, arguments, caption), rtol=1e-5)
    expected = finite_differences(lambda arguments: naive(loss, mode, arguments, caption), arguments)
    assert_all_close(grads, expected, atol=2e-5)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_a_step_with_projections_on_a_mesh_needs_no_context_and_no_caption(rng, axis_type):
    mesh = make_mesh(4, axis_type=axis_type)
    image, text = unit_rows(rng, 8), unit_rows(rng, 8)

    def value(kernel, image, text):
        image = image @ kernel
        image = image / jnp.linalg.norm(image, axis=-1, keepdims=True)
        return losses.softmax_contrastive(image, text, jnp.float32(9), walk=losses.Walk(1, mesh))

    kernel = jax.device_put(np.eye(5, dtype=np.float32), replicated(mesh))
    rows = put_batch({"image": np.float32(image), "text": np.float32(text)}, mesh)
    got, by_kernel = jax.jit(jax.value_and_grad(value))(kernel, rows["image"], rows["text"])

    def twin(arguments):
        return naive_softmax(unit(image @ arguments[0]), text, 9.0, np.arange(8), "plain")

    np.testing.assert_allclose(got, twin([np.eye(5)]), rtol=1e-5)
    assert_all_close([by_kernel], finite_differences(twin, [np.eye(5)]), atol=1e-5)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("loss", LOSSES)
def test_shapes_and_shardings_are_known_without_data(loss, axis_type):
    mesh = make_mesh(8, axis_type=axis_type)
    split, whole = over_batch(mesh), replicated(mesh)

    def shape(*sizes, dtype=jnp.float32, sharding=split):
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=sharding)

    arguments = arguments_of(loss, shape(32, 4), shape(16, 4), shape(sharding=whole), shape(sharding=whole))

    def value(arguments, caption):
        return blocked(loss, "multi", arguments, caption, mesh=mesh)

    function = jax.jit(jax.value_and_grad(value))
    with jax.set_mesh(mesh):
        found, grads = jax.eval_shape(function, arguments, shape(32, dtype=jnp.int32))
        compiled = function.lower(arguments, shape(32, dtype=jnp.int32)).compile()
    assert found.shape == () and found.dtype == np.float32
    assert [grad.shape for grad in grads] == [x.shape for x in arguments]
    assert compiled.output_shardings[1][0].is_equivalent_to(split, 2)
    assert compiled.output_shardings[1][1].is_equivalent_to(split, 2)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_product_of_float32_is_asked_for_in_float32(loss):
    """GPUs since Ampere round the factors of other products to TF32; of a CPU only the program tells."""
    arguments = arguments_of(loss, jnp.zeros((8, 4)), jnp.zeros((6, 4)), jnp.float32(14.3), jnp.float32(-5))
    text = (
        jax.jit(jax.value_and_grad(lambda given: blocked(loss, "plain", given, jnp.zeros(8, jnp.int32), block=4)))
        .lower(arguments)
        .as_text()
    )
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert len(products) >= 3 and all("precision = [HIGHEST, HIGHEST]" in line for line in products), products


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("loss", LOSSES)
def test_low_precision_inputs_are_computed_in_float32(rng, loss, dtype):
    image, text = (jnp.asarray(unit_rows(rng, n), dtype) for n in (len(CAPTION), 6))
    arguments = arguments_of(loss, image, text, jnp.float32(14.3), jnp.float32(-5))
    exact = [np.asarray(x, np.float64) for x in arguments]
    value, grads = value_and_grads(loss, "multi", arguments, CAPTION, block=4)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, naive(loss, "multi", exact, CAPTION), rtol=1e-5)
    assert [grad.dtype for grad in grads[:3]] == [dtype, dtype, jnp.float32]
    expected = finite_differences(lambda arguments: naive(loss, "multi", arguments, CAPTION), exact)
    # Rounded once, at the end: half a unit in the last place.
    assert_all_close(grads[:2], expected[:2], rtol=0.51 * float(jnp.finfo(dtype).eps), atol=1e-5)
    assert_all_close(grads[2:], expected[2:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("loss", LOSSES)
def test_texts_of_no_image_change_nothing_and_get_no_gradient(rng, loss, mode):
    image, text = unit_rows(rng, len(CAPTION)), unit_rows(rng, 6)
    value, grads = value_and_grads(loss, mode, in_float32(arguments_of(loss, image, text)), CAPTION, block=4)
    used = np.isin(np.arange(6), CAPTION)
    # One that would win every softmax, and one of zeros.
    text[~used] = 9 * image[0], np.zeros(5)
    got, by = value_and_grads(loss, mode, in_float32(arguments_of(loss, image, text)), CAPTION, block=4)
    np.testing.assert_allclose(got, value, rtol=1e-6)
    assert not np.asarray(by[1])[~used].any() and np.asarray(by[1])[used].all()
    assert_all_close([by[0], by[1][used], *by[2:]], [grads[0], grads[1][used], *grads[2:]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_of_one_caption_is_finite(rng, loss, mode):
    caption = np.full_like(CAPTION, 1)
    arguments = arguments_of(loss, unit_rows(rng, len(caption)), unit_rows(rng, 6))
    value, grads = value_and_grads(loss, mode, in_float32(arguments), caption, block=4)
    np.testing.assert_allclose(value, naive(loss, mode, arguments, caption), rtol=1e-5, atol=2e-6)
    expected = finite_differences(lambda arguments: naive(loss, mode, arguments, caption), arguments)
    assert_all_close(grads, expected, atol=1e-5)
    if loss == "softmax" and mode == "masked":
        assert value == 0 and not any(np.asarray(grad).any() for grad in grads)


@pytest.mark.parametrize(("devices", "mode"), [(4, "plain"), (1, "masked"), (4, "multi"), *(
    slow(devices, mode) for devices, mode in ((1, "plain"), (4, "masked"), (1, "multi"))
)])  # fmt: skip
def test_columns_far_below_the_highest_logit_are_exact(rng, mode, devices):
    """At scale 100 logits differ by 200, more than float32's exponents: each column needs a maximum of its own."""
    towards = np.eye(5)[0]
    image = unit(towards + 0.02 * rng.normal(size=(8, 5)))
    image = image[np.argsort(image @ towards)]
    text = unit(np.stack([towards, -0.5 * towards + 0.86 * np.eye(5)[1], -towards, np.eye(5)[2]]))
    logits = 100 * image @ text.T
    assert logits.max() - logits[:, 1].max() > 140 and logits.max() - logits[:, 2].max() > 190
    mesh = make_mesh(devices)
    for order in (np.arange(8), np.arange(8)[::-1]):  # the maximum of a column rises, and falls, from block to block
        caption = np.int32([0, 1, 2, 3, 2, 1, 0, 3])[order]
        ordered = (image[order], text, 100.0)
        value, grads = value_and_grads("softmax", mode, in_float32(ordered), caption, block=1, mesh=mesh)
        np.testing.assert_allclose(value, naive("softmax", mode, ordered, caption), rtol=1e-6)
    expected = finite_differences(lambda arguments: naive("softmax", mode, arguments, caption), ordered)
    assert_all_close(grads, expected, rtol=1e-3, atol=1e-3)
    assert np.abs(expected[0]).max() > 1


def test_the_mean_outside_the_log_is_plain_for_identical_captions(rng):
    """UniCL, SupCon's L_out: the mean over an image's positives, and over a text's, of minus the log of each."""
    image, text, caption = drawn(rng, 23, 6)
    logits = 14.3 * image @ text[caption].T
    same = caption[:, None] == caption[None, :]
    rows = -(log_softmax(logits, 1) * same).sum(1) / same.sum(1)
    columns = -(log_softmax(logits, 0) * same).sum(0) / same.sum(0)
    arguments = in_float32((image, text, 14.3))
    got = compiled_value("softmax", "plain", arguments, caption)
    np.testing.assert_allclose(got, (rows.mean() + columns.mean()) / 2, rtol=1e-5)
    inside = compiled_value("softmax", "multi", arguments, caption)
    assert got - inside > 0.1


@pytest.mark.parametrize("mode", MODES)
def test_a_loss_near_zero_keeps_its_digits(mode):
    """Matching pairs at +20, all others at -20: a sum of small numbers, not 20 minus 20."""
    eye, caption = jnp.eye(8), np.arange(8, dtype=np.int32)
    softmax = compiled_value("softmax", mode, in_float32((eye, eye, 40.0)), caption)
    np.testing.assert_allclose(softmax, np.log1p(7 * np.exp(-40)), rtol=1e-5)
    sigmoid = compiled_value("sigmoid", mode, in_float32((eye, eye, 40.0, -20.0)), caption)
    np.testing.assert_allclose(sigmoid, 8 * np.log1p(np.exp(-20)), rtol=1e-5)


def test_softmax_of_constant_embeddings_is_the_log_of_the_batch():
    ones = jnp.ones((8, 4)) / 2
    got = compiled_value("softmax", "plain", (ones, ones, jnp.float32(10)), None)
    np.testing.assert_allclose(got, np.log(8), rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_permuted_images_and_texts_have_the_same_loss(rng, loss):
    image, text, caption = drawn(rng, 23, 9)
    order, names = rng.permutation(23), rng.permutation(9)
    expected = compiled_value(loss, "multi", in_float32(arguments_of(loss, image, text, 30.0)), caption, block=4)
    moved = in_float32(arguments_of(loss, image[order], text[names], 30.0))
    renamed = np.int32(np.argsort(names)[caption[order]])
    np.testing.assert_allclose(compiled_value(loss, "multi", moved, renamed, block=4), expected, rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_memory_does_not_grow_with_the_square_of_the_batch(loss):
    """Compiled, never run. The suite's compiler fuses nothing, so several blocks lie side by side."""

    def temporary_bytes(function):
        rows, number = jax.ShapeDtypeStruct((16384, 32), jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
        arguments = arguments_of(loss, rows, rows, number, number)
        compiled = jax.jit(jax.value_and_grad(function, argnums=(0, 1))).lower(*arguments).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    matrix = 16384**2 * 4
    assert temporary_bytes(lambda *x: blocked(loss, "masked", x, None)) < matrix / 2
    assert temporary_bytes(lambda image, text, *x: jnp.sum(jnp.square(image @ text.T))) >= matrix


def test_what_does_not_fit_is_refused_with_both_shapes():
    ones, scale = jnp.ones, jnp.float32(1)
    with pytest.raises(ValueError, match=r"found \(4, 2\) and \(3, 2\) without caption"):
        losses.softmax_contrastive(ones((4, 2)), ones((3, 2)), scale)
    with pytest.raises(ValueError, match=r"found \(4, 2\) and \(4, 3\), expected \[B, D\] and \[U, D\]"):
        losses.sigmoid_contrastive(ones((4, 2)), ones((4, 3)), scale, scale)
    with pytest.raises(ValueError, match=r"caption: found \(3,\) for images of \(4, 2\), expected \(4,\)"):
        losses.softmax_contrastive(ones((4, 2)), ones((3, 2)), scale, caption=jnp.zeros(3, int))
    with pytest.raises(ValueError, match=r"same_caption: found 'both', expected one of \('plain', 'masked', 'multi'\)"):
        losses.sigmoid_contrastive(ones((4, 2)), ones((4, 2)), scale, scale, same_caption="both")


def test_examples_in_the_documentation_run():
    assert doctest.testmod(losses).failed == 0 and doctest.testmod(losses).attempted > 0

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from lit_jax import losses
from lit_jax.sharding import gathered, make_mesh, put_batch


def unit_pairs(rng, batch=24, dim=16):
    pairs = rng.normal(size=(2, batch, dim))
    pairs /= np.linalg.norm(pairs, axis=-1, keepdims=True)
    return pairs[0], pairs[1]


def log_softmax(x, axis):
    x = x - x.max(axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis, keepdims=True))


def naive_softmax(image, text, scale):
    """InfoNCE as the papers write it, in float64: two cross-entropies of the full matrix."""
    logits = scale * image @ text.T
    rows = -np.diag(log_softmax(logits, 1)).mean()
    columns = -np.diag(log_softmax(logits, 0)).mean()
    return (rows + columns) / 2


def naive_sigmoid(image, text, scale, bias):
    """SigLIP's pseudo-code in float64."""
    logits = scale * image @ text.T + bias
    labels = 2 * np.eye(len(image)) - 1
    return -np.log(1 / (1 + np.exp(-labels * logits))).sum() / len(image)


def finite_differences(function, x, h=1e-5):
    grad = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += h
        down[i] -= h
        grad[i] = (function(up) - function(down)) / (2 * h)
    return grad


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_softmax_equals_the_naive_float64_value(rng, scale):
    image, text = unit_pairs(rng)
    got = losses.softmax_contrastive(jnp.float32(image), jnp.float32(text), jnp.float32(scale))
    np.testing.assert_allclose(got, naive_softmax(image, text, scale), rtol=2e-5)


def test_softmax_gradient_equals_finite_differences(rng):
    image, text = unit_pairs(rng, 6, 5)
    got = jax.grad(losses.softmax_contrastive, argnums=(0, 1, 2))(
        jnp.float32(image), jnp.float32(text), jnp.float32(7.0)
    )
    np.testing.assert_allclose(got[0], finite_differences(lambda x: naive_softmax(x, text, 7.0), image), atol=1e-5)
    np.testing.assert_allclose(got[1], finite_differences(lambda x: naive_softmax(image, x, 7.0), text), atol=1e-5)
    by_scale = (naive_softmax(image, text, 7.001) - naive_softmax(image, text, 6.999)) / 0.002
    np.testing.assert_allclose(got[2], by_scale, atol=1e-5)


def test_softmax_of_constant_embeddings_is_the_log_of_the_batch():
    ones = jnp.ones((8, 4)) / 2
    np.testing.assert_allclose(losses.softmax_contrastive(ones, ones, jnp.float32(10)), np.log(8), rtol=1e-6)


def test_sigmoid_equals_the_naive_float64_value_and_gradient(rng):
    image, text = unit_pairs(rng, 6, 5)
    arguments = (jnp.float32(image), jnp.float32(text), jnp.float32(10.0), jnp.float32(-3.0))
    np.testing.assert_allclose(losses.sigmoid_contrastive(*arguments), naive_sigmoid(image, text, 10, -3), rtol=1e-5)
    got = jax.grad(losses.sigmoid_contrastive, argnums=(0, 3))(*arguments)
    np.testing.assert_allclose(got[0], finite_differences(lambda x: naive_sigmoid(x, text, 10, -3), image), atol=1e-5)
    by_bias = (naive_sigmoid(image, text, 10, -2.999) - naive_sigmoid(image, text, 10, -3.001)) / 0.002
    np.testing.assert_allclose(got[1], by_bias, atol=1e-5)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_value_and_gradient_are_the_same_on_any_number_of_devices_and_kind_of_axis(rng, loss, devices, axis_type):
    image, text = unit_pairs(rng)
    scale, bias = jnp.float32(20.0), jnp.float32(-5.0)

    def value(batch, scale):
        if loss == "softmax":
            return losses.softmax_contrastive(batch["image"], batch["text"], scale, gather=gathered)
        return losses.sigmoid_contrastive(batch["image"], batch["text"], scale, bias, gather=gathered)

    whole = {"image": np.float32(image), "text": np.float32(text)}
    mesh = make_mesh(devices, axis_type=axis_type)
    with jax.set_mesh(mesh):
        batch = put_batch(whole, mesh)
        assert len(batch["image"].addressable_shards) == devices
        got, (grads, by_scale) = jax.jit(jax.value_and_grad(value, argnums=(0, 1)))(batch, scale)
    reference = naive_softmax(image, text, 20) if loss == "softmax" else naive_sigmoid(image, text, 20, -5)
    np.testing.assert_allclose(got, reference, rtol=1e-5)
    expected, (expected_grads, expected_scale) = jax.value_and_grad(value, argnums=(0, 1))(
        jax.tree.map(jnp.asarray, whole), scale
    )
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    np.testing.assert_allclose(by_scale, expected_scale, rtol=1e-4, atol=1e-6)
    for name in grads:
        np.testing.assert_allclose(grads[name], expected_grads[name], atol=1e-6)


def test_permuted_pairs_have_the_same_loss(rng):
    image, text = (jnp.float32(x) for x in unit_pairs(rng))
    order = rng.permutation(len(image))
    scale = jnp.float32(30.0)
    np.testing.assert_allclose(
        losses.softmax_contrastive(image[order], text[order], scale),
        losses.softmax_contrastive(image, text, scale),
        rtol=1e-5,
    )


def test_unequal_shapes_are_refused_with_both():
    with pytest.raises(ValueError, match=r"found \(4, 2\) and \(3, 2\)"):
        losses.softmax_contrastive(jnp.ones((4, 2)), jnp.ones((3, 2)), jnp.float32(1))


def test_examples_in_the_documentation_run():
    assert doctest.testmod(losses).failed == 0 and doctest.testmod(losses).attempted > 0

"""Towers against a plain NumPy float64 version of the papers' formulas, and against published counts."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from lit_jax import models
from lit_jax.models import layers
from lit_jax.models.presets import image_shapes
from lit_jax.models.text import TextTransformer, first_end
from lit_jax.models.two_tower import TwoTower, unit
from lit_jax.models.vit import ViT
from lit_jax.planning import arithmetic
from tests.conftest import random_like
from tests.golden import common

END = 1


# The naive twin.


def norm(x, p, eps):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + eps) * p["scale"] + p["bias"]


def gelu(x, exact):
    if exact:
        from math import erf

        return x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def attend(q_in, kv_in, p, visible):
    """One example: `[T, D]` over `[S, D]`; visible `[T, S]` bool."""
    q = np.einsum("td,dhk->thk", q_in, p["query"]["kernel"]) + p["query"]["bias"]
    k = np.einsum("sd,dhk->shk", kv_in, p["key"]["kernel"]) + p["key"]["bias"]
    v = np.einsum("sd,dhk->shk", kv_in, p["value"]["kernel"]) + p["value"]["bias"]
    scores = np.einsum("thk,shk->hts", q, k) / np.sqrt(q.shape[-1])
    scores = np.where(visible[None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("hts,shk,hkd->td", weights, v, p["out"]["kernel"]) + p["out"]["bias"]


def mlp(x, p, exact=False):
    hidden = gelu(x @ p["expand"]["kernel"] + p["expand"]["bias"], exact)
    return hidden @ p["contract"]["kernel"] + p["contract"]["bias"]


def encode(x, p, visible, *, exact=False, eps=1e-6):
    depth = len(p["blocks"]["mlp_norm"]["scale"])
    for i in range(depth):
        block = jax.tree.map(lambda a, i=i: a[i], p["blocks"])
        y = norm(x, block["attention_norm"], eps)
        x = x + attend(y, y, block["attention"], visible)
        x = x + mlp(norm(x, block["mlp_norm"], eps), block["mlp"], exact)
    return norm(x, p["norm"], eps)


def map_pool(x, p, visible, eps=1e-6, exact=False):
    pooled = attend(p["probe"][0], x, p["attention"], visible[None])
    return (pooled + mlp(norm(pooled, p["norm"], eps), p["mlp"], exact))[0]


def naive_vit(image, p, patch, pool):
    side = image.shape[0] // patch
    tiles = image.reshape(side, patch, side, patch, 3).transpose(0, 2, 1, 3, 4).reshape(side * side, -1)
    x = tiles @ p["embedding"]["kernel"].reshape(patch * patch * 3, -1) + p["embedding"]["bias"]
    if pool == "token":
        x = np.concatenate([p["class_token"][0], x])
    x = x + p["position_embedding"][0]
    x = encode(x, p["encoder"], np.ones((len(x), len(x)), bool))
    return {"token": lambda: x[0], "gap": lambda: x.mean(0),
            "map": lambda: map_pool(x, p["pool"], np.ones(len(x), bool))}[pool]()  # fmt: skip


def naive_text(tokens, p, *, causal, pool, exact, eps):
    length = list(tokens).index(END) + 1
    tokens = tokens[:length]
    x = p["embedding"]["embedding"][tokens] + p["position_embedding"][0, :length]
    visible = np.tril(np.ones((length, length), bool)) if causal else np.ones((length, length), bool)
    x = encode(x, p["encoder"], visible, exact=exact, eps=eps)
    pooled = {"end": lambda: x[-1], "first": lambda: x[0], "mean": lambda: x.mean(0),
              "map": lambda: map_pool(x, p["pool"], np.ones(length, bool), eps, exact)}[pool]()  # fmt: skip
    out = pooled @ p["projection"]["kernel"]
    return out + p["projection"].get("bias", 0)


def drawn(tower, example):
    """Random parameters, as float32 and as float64."""
    params = random_like(tower, example)
    return params, jax.tree.map(np.float64, params)


# Tests.


@pytest.mark.parametrize("pool", ["token", "gap", "map"])
def test_vit_equals_its_formulas(rng, pool):
    tower = ViT(patch=4, width=24, depth=3, heads=3, pool=pool)
    images = rng.normal(size=(2, 12, 12, 3))
    params, exact = drawn(tower, jnp.float32(images))
    got = jax.jit(tower.apply)({"params": params}, jnp.float32(images))
    want = np.stack([naive_vit(image, exact, 4, pool) for image in images])
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("pool", "causal"),
    [
        ("end", True),
        pytest.param("end", False, marks=pytest.mark.slow),
        ("first", False),
        ("mean", False),
        ("map", True),
    ],
)
def test_text_tower_equals_its_formulas_and_padding_has_no_influence(pool, causal):
    options = {
        "activation": "gelu" if causal else "gelu_tanh",
        "norm_epsilon": 1e-5 if causal else 1e-6,
        "projection_bias": not causal,
    }
    tower = TextTransformer(
        vocab_size=20,
        context=8,
        end_id=END,
        width=16,
        depth=2,
        heads=2,
        embed_dim=6,
        causal=causal,
        pool=pool,
        **options,
    )
    tokens = np.array([[5, 6, 7, END, 0, 0, 0, 0], [9, END, 9, END, 3, 3, 3, 3], [2, 3, 4, 5, 6, 7, 8, END]])
    params, exact = drawn(tower, jnp.int32(tokens))
    features = jax.jit(tower.apply)
    got = features({"params": params}, np.int32(tokens))
    want = [
        naive_text(row, exact, causal=causal, pool=pool, exact=causal, eps=options["norm_epsilon"]) for row in tokens
    ]
    np.testing.assert_allclose(got, np.stack(want), rtol=2e-4, atol=2e-5)
    shorter = features({"params": params}, np.int32(tokens[:2, :4]))
    np.testing.assert_allclose(shorter, got[:2], rtol=1e-5, atol=1e-6)


def test_causal_attention_has_no_gradient_from_later_tokens():
    tower = TextTransformer(
        vocab_size=9, context=6, end_id=END, width=8, depth=2, heads=2, embed_dim=4, causal=True, pool="first"
    )
    tokens = jnp.int32([[2, 3, 4, 5, END, 0]])
    params, _ = drawn(tower, tokens)

    def first_position(table):
        changed = {**params, "embedding": {"embedding": table}}
        return jnp.sum(tower.apply({"params": changed}, tokens))

    grads = jax.jit(jax.grad(first_position))(params["embedding"]["embedding"])
    assert np.any(grads[2]) and not np.any(grads[jnp.array([3, 4, 5, END])])


def test_the_first_end_token_counts_and_a_row_without_one_ends_at_its_end():
    tokens = jnp.int32([[5, END, 3, END], [END, 0, 0, 0], [4, 5, 6, 7]])
    assert first_end(tokens, END).tolist() == [1, 0, 3]


def count(tower, example):
    shapes = jax.eval_shape(tower.init, jax.random.key(0), example)["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_parameter_counts_of_the_published_towers():
    image = jnp.zeros((1, 384, 384, 3))
    assert count(ViT(patch=16, width=1024, depth=24, heads=16), image) == 303_690_752  # ViT-L/16-384, no head
    recorded = TextTransformer(49408, 77, 49407, width=512, depth=12, heads=8, embed_dim=512, causal=True)
    assert count(recorded, jnp.zeros((1, 77), jnp.int32)) == 63_428_096  # CLIP's text tower
    small = TextTransformer(32000, 16, 1, width=384, depth=12, heads=6, embed_dim=384, projection_bias=True)
    assert round(count(small, jnp.zeros((1, 16), jnp.int32)) / 1e6, 1) == 33.7  # "33M", head included
    projection = nn.Dense(512)
    assert count(projection, jnp.zeros((1, 1024))) == 524_800


# The others' parameters are counted in test_conv_towers and test_swin_mixer.
COUNTED = set().union(*(common.read(path)[0]["counts"] for path in sorted(common.FOLDER.glob("counts.*.npz"))))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in COUNTED)) for n in sorted(models.IMAGE_PRESETS)]
)
def test_each_image_preset_can_be_made_and_written(name):
    preset = models.IMAGE_PRESETS[name]
    params, width = image_shapes(preset.build(), preset.size)
    assert params and width > 100


def tiny(**options):
    image = ViT(patch=4, width=8, depth=1, heads=2)
    text = TextTransformer(vocab_size=9, context=5, end_id=END, width=8, depth=1, heads=2, embed_dim=6)
    return TwoTower(image, text, embed_dim=6, **options)


def init_of(model):
    return lambda key: models.init(model, key, image_size=8, context=5)


def fresh(model):
    return jax.jit(init_of(model))(jax.random.key(0))


def test_embeddings_have_norm_one_and_the_scale_is_stored_as_a_logarithm(rng):
    model = tiny(scale_init=10.0, bias_init=-2.0)
    params = fresh(model)
    images = rng.integers(0, 256, (3, 8, 8, 3), np.uint8)

    @jax.jit
    def embeddings(params, images, tokens):
        features = models.image_features(model, params["image"], images)
        return models.project(model, params, features), models.embed_text(model, params, tokens)

    image_emb, text_emb = embeddings(params, images, np.int32([[2, 3, END, 0, 0]] * 3))
    for emb in (image_emb, text_emb):
        assert emb.shape == (3, 6) and emb.dtype == jnp.float32
        np.testing.assert_allclose(np.linalg.norm(emb, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(params["logit_scale"], np.log(10), rtol=1e-6)
    assert float(params["logit_bias"]) == -2 and "logit_bias" not in jax.eval_shape(init_of(tiny()), jax.random.key(0))


def test_pixels_are_normalised_by_mean_and_std(rng):
    images = rng.integers(0, 256, (2, 8, 8, 3), np.uint8)
    model = tiny(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    by_hand = np.float32((images / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7])
    params = random_like(model.image, by_hand)
    want = jax.jit(model.image.apply)({"params": params}, by_hand)
    got = jax.jit(models.image_features, static_argnums=0)(model, params, images)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_without_projection_the_widths_must_agree():
    with pytest.raises(
        ValueError, match="embed_dim: found 6 without image projection, expected the image tower's width 8"
    ):
        jax.eval_shape(init_of(tiny(projection=False)), jax.random.key(0))


def test_a_zero_vector_stays_zero_with_a_finite_gradient():
    value, grad = jax.value_and_grad(lambda x: jnp.sum(unit(x)))(jnp.zeros((1, 3)))
    assert float(value) == 0 and np.all(np.isfinite(grad))


def test_half_precision_changes_the_arithmetic_not_the_parameters(rng):
    images = jnp.float32(rng.normal(size=(2, 8, 8, 3)))
    full, half = (ViT(patch=4, width=8, depth=2, heads=2, dtype=d) for d in (jnp.float32, jnp.bfloat16))
    params = random_like(full, images)
    found, want = (jax.jit(tower.apply)({"params": params}, images) for tower in (half, full))
    assert found.dtype == jnp.bfloat16
    assert jax.tree.map(jnp.shape, jax.eval_shape(half.init, jax.random.key(0), images)["params"]) == jax.tree.map(
        jnp.shape, params
    )
    np.testing.assert_allclose(found, want, atol=0.1)


def _rounded_to_bfloat16(rng, *shape):
    return np.asarray(jnp.asarray(rng.normal(size=shape), jnp.bfloat16))


def test_products_of_bfloat16_are_the_exact_ones_rounded_once():
    rng = np.random.default_rng(0)
    left, right = _rounded_to_bfloat16(rng, 5, 300), _rounded_to_bfloat16(rng, 300, 7)
    exact = left.astype(np.float64) @ right.astype(np.float64)

    def product(left, right):
        return layers.product(left, right, (((1,), (0,)), ((), ())))

    got, (by_left, by_right) = jax.jit(lambda a, b: (product(a, b), jax.vjp(product, a, b)[1](product(a, b))))(
        left, right
    )
    assert got.dtype == by_left.dtype == by_right.dtype == jnp.bfloat16
    half_a_digit = 2.0**-8  # the last of eight; a little more for the order of the sum
    got = np.asarray(got, np.float64)
    np.testing.assert_allclose(got, exact, rtol=1.01 * half_a_digit, atol=1e-4)
    np.testing.assert_allclose(np.asarray(by_left, np.float64), got @ right.T.astype(np.float64), rtol=0.01, atol=0.02)
    np.testing.assert_allclose(np.asarray(by_right, np.float64), left.T.astype(np.float64) @ got, rtol=0.01, atol=0.02)


@pytest.mark.parametrize("lead", [(2,), (2, 3)], ids=["pictures", "windows"])
def test_scores_and_sums_of_attention_are_those_of_their_formulas(lead):
    rng = np.random.default_rng(0)
    queries, values = rng.normal(size=(*lead, 4, 3, 8)), rng.normal(size=(*lead, 5, 3, 8))
    weights = rng.normal(size=(*lead, 3, 4, 5))
    scores = layers.scored(jnp.asarray(queries, jnp.float32), jnp.asarray(values, jnp.float32))
    np.testing.assert_allclose(scores, np.einsum("...thd,...shd->...hts", queries, values), rtol=1e-5, atol=1e-5)
    sums = layers.weighted(jnp.asarray(weights, jnp.float32), jnp.asarray(values, jnp.float32))
    np.testing.assert_allclose(sums, np.einsum("...hts,...shd->...thd", weights, values), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_the_backward_pass_keeps_products_and_little_else(dtype, monkeypatch):
    tokens, weights = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 24, 64)), dtype)

    def taken(**options):
        encoder = layers.Encoder(depth=3, heads=2, hidden=256, dtype=dtype, **options)
        params = encoder.init(jax.random.key(0), tokens)
        gradient = jax.grad(lambda params, x: (encoder.apply(params, x) * weights).astype(jnp.float32).mean())
        compiled = jax.jit(gradient).lower(params, tokens).compile()
        work = arithmetic.count(gradient, params, tokens)
        return compiled.memory_analysis().temp_size_in_bytes, work, compiled(params, tokens)

    memory, work, gradient = taken()
    least, again, whole = taken(remat=True)
    monkeypatch.setattr(layers, "remade", lambda block, whole: block)
    all_of_it, once, plain = taken()
    assert least < memory < 0.7 * all_of_it
    assert work == once < again  # no product is carried out twice
    flat, tolerance = ravel_pytree(gradient)[0], 1e-5 if dtype == jnp.float32 else 0.05
    for other in (whole, plain):
        np.testing.assert_allclose(flat, ravel_pytree(other)[0], rtol=0, atol=tolerance * float(jnp.abs(flat).max()))

"""The locked step: what moves, what must not, and that devices and precision change nothing they should not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lit_jax import models
from lit_jax.base import precision
from lit_jax.base.sharding import make_mesh, put_batch, put_replicated
from lit_jax.config import Optimizer
from lit_jax.data import unique_captions
from lit_jax.models import locking, weights
from lit_jax.models.text import TextTransformer
from lit_jax.models.two_tower import TwoTower
from lit_jax.models.vit import ViT
from lit_jax.training import losses, optimizer, train_step

RECIPE = {"weight_decay": 0.1, "b1": 0.9, "b2": 0.98, "eps": 1e-6}


def tiny(dtype=jnp.float32, **options):
    image = ViT(patch=4, width=8, depth=2, heads=2, dtype=dtype)
    text = TextTransformer(vocab_size=11, context=6, end_id=1, width=8, depth=2, heads=2, embed_dim=8, dtype=dtype)
    return TwoTower(image, text, embed_dim=8, **options)


def data(rng, batch=16):
    tokens = rng.integers(2, 11, (batch, 6))
    tokens[:, 4] = 1
    return {"image": rng.integers(0, 256, (batch, 8, 8, 3), np.uint8), "tokens": tokens.astype(np.int32)}


@functools.cache
def fresh(model):
    """Its first parameters, on the host: drawn once, since no dtype changes them."""
    init = jax.jit(lambda key: models.init(model, key, image_size=8, context=6))
    return jax.tree.map(np.array, init(jax.random.key(0)))


@functools.cache
def step_of(model, rate):
    """An optimizer and its step, compiled once for all tests that take it."""
    adamw = optimizer.adamw(Optimizer(**RECIPE), optax.constant_schedule(rate), "Lu")
    dynamic = model.text.dtype == jnp.float16
    return adamw, train_step.make_step(model, adamw, max_scale=100.0, dynamic_scale=dynamic)


def start(model, lock="Lu", *, devices=1, rate=0.05):
    """A state on a mesh, and the step."""
    params = jax.tree.map(np.copy, fresh(tiny(bias_init=model.bias_init)))
    moving, locked = locking.split_locked(params, lock)
    adamw, step = step_of(model, rate)
    mesh = make_mesh(devices)
    scale = precision.initial_loss_scale(jnp.dtype(model.text.dtype).name)
    state = put_replicated(train_step.initial_state(moving, adamw, scale), mesh)
    locked = put_replicated(models.stored(model, locked, image_size=8, context=6), mesh)
    return state, locked, step, mesh


@functools.partial(jax.jit, static_argnums=0)
def embeddings(model, params, batch):
    """What both towers say, by the functions that the step calls."""
    features = models.image_features(model, params["image"], batch["image"])
    return models.project(model, params, features), models.embed_text(model, params, batch["tokens"])


def losses_of(rng, steps=6, *, dtype="float32", model=None, **options):
    model = tiny(precision.DTYPES[dtype], **(model or {}))
    state, locked, step, mesh = start(model, **options)
    if dtype == "float16":
        # The usual first factor is too large for so few pairs: the first steps would be skipped.
        state = state._replace(loss_scale=state.loss_scale._replace(factor=put_replicated(np.float32(64), mesh)))
    out = []
    for _ in range(steps):
        state, metrics = step(state, locked, put_batch(data(rng), mesh))
        out.append(float(metrics["loss"]))
    return np.array(out), state


def moved(before, after):
    """For each leaf, whether it changed."""
    return jax.tree.map(lambda a, b: not np.array_equal(a, b), before, after)


@pytest.mark.parametrize("lock", locking.LOCKS)
def test_each_lock_moves_exactly_the_right_leaves(rng, lock):
    model = tiny()
    state, locked, step, mesh = start(model, lock)
    before = jax.tree.map(np.array, {**state.params, **locked})
    opt_size = sum(leaf.size for leaf in jax.tree.leaves(state.optimizer))
    batch = data(rng)
    # Every piece in use, so that every row of the embedding table has a gradient.
    batch["tokens"][:, 0] = np.arange(16) % 11
    batch["tokens"][batch["tokens"][:, 0] == 1, 0] = 2
    for _ in range(20):
        state, _ = step(state, locked, put_batch(batch, mesh))
    changed = moved(before, jax.tree.map(np.array, {**state.params, **locked}))
    assert all(jax.tree.leaves({name: tree for name, tree in changed.items() if name not in ("image", "text")}))
    for tower, letter in zip(("image", "text"), lock, strict=True):
        assert (tower in locked) == (letter == "L")
        assert all(moves != (letter == "L") for moves in jax.tree.leaves(changed[tower]))
    # No optimizer state for what is locked: two moments of each moving number, and counters.
    moving_size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert 2 * moving_size <= opt_size <= 2 * moving_size + 4


def test_a_locked_tower_has_no_gradient_even_when_asked_for_one(rng):
    model = tiny()
    state, locked, _, mesh = start(model)
    batch = put_batch(data(rng), mesh)
    grads = jax.jit(jax.grad(train_step.pair_loss, argnums=2), static_argnums=0)(model, state.params, locked, batch)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads))


def test_the_compiled_step_has_no_backward_pass_for_a_locked_tower(rng):
    model = tiny()
    flops = {}
    for lock in ("Lu", "uu"):
        state, locked, step, mesh = start(model, lock)
        compiled = step.lower(state, locked, put_batch(data(rng), mesh)).compile()
        flops[lock] = compiled.cost_analysis()["flops"]
    assert flops["Lu"] < 0.75 * flops["uu"]


def test_the_step_descends_the_loss_of_a_naive_twin(rng):
    model = tiny()
    state, locked, step, mesh = start(model)
    batch = data(rng)
    params = {**state.params, **locked}
    image_emb, text_emb = embeddings(model, params, batch)
    logits = np.exp(np.float64(params["logit_scale"])) * np.float64(image_emb) @ np.float64(text_emb).T
    shifted = np.exp(logits)
    naive = -(np.log(np.diag(shifted) / shifted.sum(1)) + np.log(np.diag(shifted) / shifted.sum(0))).mean() / 2
    state, first = step(state, locked, put_batch(batch, mesh))
    np.testing.assert_allclose(first["loss"], naive, rtol=1e-5)
    for _ in range(30):
        state, last = step(state, locked, put_batch(batch, mesh))
    assert float(last["loss"]) < 0.5 * naive


@pytest.mark.parametrize(("loss", "devices"), [
    *(pytest.param("softmax", devices, marks=pytest.mark.slow) for devices in (2, 4)), ("softmax", 8),
    *(pytest.param("sigmoid", devices, marks=pytest.mark.slow) for devices in (2, 4, 8)),
])  # fmt: skip
def test_losses_are_the_same_on_1_2_4_and_8_devices(loss, devices):
    options = {"bias_init": -5.0} if loss == "sigmoid" else {}
    one, _ = losses_of(np.random.default_rng(0), devices=1, model=options)
    many, state = losses_of(np.random.default_rng(0), devices=devices, model=options)
    assert len(state.step.sharding.device_set) == devices
    # The stated tolerance: sums over the batch are added in another order.
    np.testing.assert_allclose(many, one, rtol=1e-4)


def test_the_same_seed_gives_the_same_bits():
    first, second = (losses_of(np.random.default_rng(0), devices=2) for _ in range(2))
    assert np.array_equal(first[0], second[0])
    assert not any(jax.tree.leaves(moved(first[1].params, second[1].params)))


@pytest.mark.parametrize("dtype", [pytest.param("bfloat16", marks=pytest.mark.slow), "float16"])
def test_half_precision_follows_float32(dtype):
    full, _ = losses_of(np.random.default_rng(0))
    half, state = losses_of(np.random.default_rng(0), dtype=dtype)
    np.testing.assert_allclose(half, full, rtol=0.03)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.params))


def test_a_float16_overflow_skips_the_step_and_halves_the_factor(rng):
    model = tiny(jnp.float16)
    state, locked, step, mesh = start(model)
    before = jax.tree.map(np.array, (state.params, state.optimizer))
    huge = state.loss_scale._replace(factor=put_replicated(np.float32(2.0**120), mesh))
    state, metrics = step(state._replace(loss_scale=huge), locked, put_batch(data(rng), mesh))
    assert float(metrics["skipped"]) == 1 and np.isfinite(float(metrics["loss"]))
    assert not any(jax.tree.leaves(moved(before, (state.params, state.optimizer))))
    assert float(state.loss_scale.factor) == 2.0**119 and (int(state.step), int(state.updates)) == (1, 0)
    sound = state.loss_scale._replace(factor=put_replicated(np.float32(2.0**8), mesh))
    state, metrics = step(state._replace(loss_scale=sound), locked, put_batch(data(rng), mesh))
    assert float(metrics["skipped"]) == 0 and int(state.updates) == 1


def test_the_locked_tower_is_held_in_the_compute_dtype():
    _, locked, _, _ = start(tiny(jnp.bfloat16))
    for path, leaf in weights.leaves(locked["image"]).items():
        assert leaf.dtype == ("float32" if "norm" in path else "bfloat16"), path


def test_without_loss_scaling_a_bad_number_reaches_the_loss(rng):
    state, locked, step, mesh = start(tiny())
    bad = {**state.params, "logit_scale": put_replicated(np.float32(np.nan), mesh)}
    _, metrics = step(state._replace(params=bad), locked, put_batch(data(rng), mesh))
    assert np.isnan(float(metrics["loss"])) and float(metrics["skipped"]) == 0


def test_the_logit_scale_is_clamped_from_both_sides(rng):
    for value, clamped in ((9.0, 100.0), (-3.0, 1.0)):
        state, locked, step, mesh = start(tiny())
        params = {**state.params, "logit_scale": put_replicated(np.float32(value), mesh)}
        _, metrics = step(state._replace(params=params), locked, put_batch(data(rng), mesh))
        np.testing.assert_allclose(metrics["logit_scale"], clamped, rtol=1e-4)


def test_the_state_is_donated_and_the_locked_tower_is_not(rng):
    state, locked, step, mesh = start(tiny())
    step(state, locked, put_batch(data(rng), mesh))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params["text"]))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(locked))


def test_the_loop_never_waits_for_the_device(rng):
    state, locked, step, mesh = start(tiny())
    batches = [put_batch(data(rng), mesh) for _ in range(3)]
    with jax.transfer_guard("disallow"):
        metrics = [metrics for _, metrics in train_step.run(state, locked, batches, step)]
    assert len(metrics) == 3 and all(np.isfinite(float(m["loss"])) for m in metrics)


def test_the_sigmoid_loss_is_taken_when_the_model_has_a_bias(rng):
    model = tiny(bias_init=-4.0)
    state, locked, step, mesh = start(model)
    batch = put_batch(data(rng), mesh)
    params = {**state.params, **locked}
    scale, bias = jnp.exp(params["logit_scale"]), params["logit_bias"]
    want = jax.jit(losses.sigmoid_contrastive)(*embeddings(model, params, batch), scale, bias)
    _, metrics = step(state, locked, batch)
    np.testing.assert_allclose(metrics["loss"], want, rtol=1e-5)


@pytest.mark.parametrize(
    ("pool", "loss", "causal", "devices"),
    [
        ("end", "softmax", True, 1),
        ("map", "softmax", False, 2),
        ("mean", "sigmoid", False, 1),
        pytest.param("first", "sigmoid", False, 2, marks=pytest.mark.slow),
    ],
)
def test_distinct_captions_in_buckets_have_the_loss_and_the_gradients_of_the_plain_path(
    rng, pool, loss, causal, devices
):
    """64 pairs of 11 captions, none longer than 6 of 16 tokens, against every pair's caption in full."""
    text = TextTransformer(11, 16, end_id=1, width=8, depth=2, heads=2, embed_dim=8, pool=pool, causal=causal)
    model = TwoTower(None, text, embed_dim=8, width=5, bias_init=-5.0 if loss == "sigmoid" else None)
    captions = np.zeros((11, 16), np.int32)
    captions[:, :5] = rng.integers(2, 11, (11, 5))
    captions[np.arange(11), rng.integers(1, 6, 11)] = 1  # the end token; what follows is padding
    tokens = captions[rng.integers(0, 11, 64)]
    params = jax.jit(lambda key: models.init(model, key, image_size=8, context=16))(jax.random.key(0))
    features = rng.normal(size=(64, 5)).astype(np.float32)
    few = unique_captions.bucketed(unique_captions.distinct(tokens), end_id=1, rows=devices, grain=2)
    assert few.tokens.shape == (16, 6)
    mesh = make_mesh(devices)

    def loss_and_gradients(batch):
        function = jax.value_and_grad(lambda params, batch: train_step.pair_loss(model, params, {}, batch, mesh=mesh))
        return jax.jit(function)(params, put_batch({"features": features, **batch}, mesh))

    plain, plain_gradients = loss_and_gradients({"tokens": tokens})
    got, gradients = loss_and_gradients({"tokens": few.tokens, "caption": few.caption})
    np.testing.assert_allclose(got, plain, rtol=1e-5)
    for found, wanted in zip(jax.tree.leaves(gradients), jax.tree.leaves(plain_gradients), strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-5 * max(1.0, np.abs(wanted).max()))


def test_blocks_that_are_computed_again_have_the_same_gradients(rng):
    options = {"vocab_size": 11, "context": 6, "end_id": 1, "width": 8, "depth": 2, "heads": 2, "embed_dim": 8}
    params = jax.jit(TextTransformer(**options).init)(jax.random.key(0), data(rng)["tokens"])
    tokens = data(rng)["tokens"]

    def gradient(remat):
        tower = TextTransformer(**options, remat=remat)
        function = jax.grad(lambda params: jnp.sum(tower.apply(params, tokens) ** 2))
        lowered = jax.jit(function).lower(params)
        return lowered.compile()(params), lowered.as_text()

    (kept, text), (again, other_text) = gradient(False), gradient(True)
    for found, wanted in zip(jax.tree.leaves(again), jax.tree.leaves(kept), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert other_text.count("dot_general") > text.count("dot_general")

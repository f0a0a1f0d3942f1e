import doctest
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lit_jax.config import Optimizer
from lit_jax.errors import UserError
from lit_jax.models import locking
from lit_jax.training import optimizer
from lit_jax.training.length import Length

RECIPE = {"weight_decay": 0.1, "b1": 0.9, "b2": 0.98, "eps": 1e-6}
TREE = {
    "text": {"layer": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, "norm": {"scale": jnp.ones(3)},
             "embedding": {"embedding": jnp.ones((4, 3))}, "position_embedding": jnp.ones((1, 2, 3)),
             "map_head": {"probe": jnp.ones((1, 1, 3))}},
    "logit_scale": jnp.float32(2.0),
}  # fmt: skip


def open_clip_rate(step, peak=5e-4, warmup=1000, total=20352):
    """The recorded schedule, written from its description: linear warm-up, then half a cosine to zero."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return 0.5 * peak * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


@pytest.mark.parametrize("step", [0, 499, 999, 1000, 1999, 11447, 20351])
def test_the_recorded_schedule_at_chosen_steps(step):
    rate = optimizer.warmup_cosine(peak=5e-4, warmup_steps=1000, horizon_steps=20352)
    np.testing.assert_allclose(rate(step), open_clip_rate(step), rtol=1e-5, atol=1e-7 * 5e-4)  # of the peak, in float32


def test_the_schedule_ends_at_zero_and_stays_there():
    rate = optimizer.warmup_cosine(peak=1.0, warmup_steps=2, horizon_steps=10)
    assert [round(float(rate(step)), 4) for step in (0, 1, 2, 6, 10, 50)] == [0.5, 1.0, 1.0, 0.5, 0.0, 0.0]
    assert float(optimizer.warmup_cosine(peak=1.0, warmup_steps=0, horizon_steps=10)(0)) == 1.0


def test_a_warm_up_longer_than_the_schedule_is_refused():
    with pytest.raises(UserError, match="found 10 steps, expected less than the 10 of the whole schedule"):
        optimizer.warmup_cosine(peak=1.0, warmup_steps=10, horizon_steps=10)


def test_the_cosine_reaches_zero_after_all_the_epochs_of_its_horizon_and_not_before():
    chosen = Optimizer(lr=1.0, horizon_epochs=3.0)  # of 3.5 steps each: 10.5 steps
    rate = optimizer.schedule_of(chosen, Length(steps_per_epoch=3.5, steps=7))
    assert float(rate(10)) == pytest.approx((1 + math.cos(math.pi * 10 / 11)) / 2, rel=1e-4) and float(rate(11)) < 1e-9
    chosen = Optimizer(lr=1.0, horizon_epochs=3.0, accumulate=2)  # 5.25 steps of two batches
    rate = optimizer.schedule_of(chosen, Length(steps_per_epoch=3.5, steps=8))
    assert float(rate(5)) == pytest.approx((1 + math.cos(math.pi * 5 / 6)) / 2, rel=1e-4) and float(rate(6)) < 1e-9


def test_decay_spares_biases_norms_and_the_logit_scale():
    assert optimizer.decayed(TREE) == {
        "text": {"layer": {"kernel": True, "bias": False}, "norm": {"scale": False},
                 "embedding": {"embedding": True}, "position_embedding": True, "map_head": {"probe": True}},
        "logit_scale": False,
    }  # fmt: skip


def test_with_a_zero_gradient_only_decayed_leaves_move_by_rate_times_decay():
    adamw = optimizer.adamw(Optimizer(**RECIPE), optax.constant_schedule(0.5), "Lu")
    zero = jax.tree.map(jnp.zeros_like, TREE)
    updates, _ = adamw.update(zero, adamw.init(TREE), TREE)
    np.testing.assert_allclose(updates["text"]["layer"]["kernel"], -0.05)
    assert not np.any(updates["text"]["layer"]["bias"]) and float(updates["logit_scale"]) == 0


def test_three_steps_equal_adamw_written_out_in_float64(rng):
    weight, grads = rng.normal(size=(3, 2)), rng.normal(size=(3, 3, 2))
    adamw = optimizer.adamw(Optimizer(**RECIPE), optax.constant_schedule(0.01), "Lu")
    params = {"kernel": jnp.float32(weight)}
    state = adamw.init(params)
    m = v = np.zeros_like(weight)
    for t, grad in enumerate(grads, 1):
        updates, state = adamw.update({"kernel": jnp.float32(grad)}, state, params)
        params = optax.apply_updates(params, updates)
        m, v = 0.9 * m + 0.1 * grad, 0.98 * v + 0.02 * grad**2
        direction = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.98**t)) + 1e-6)
        weight = weight - 0.01 * (direction + 0.1 * weight)
    np.testing.assert_allclose(params["kernel"], weight, rtol=1e-5)


def test_clipping_bounds_the_step_of_plain_gradients():
    tree, grads = {"kernel": jnp.zeros((2, 2))}, {"kernel": jnp.full((2, 2), 50.0)}
    clipped = optimizer.adamw(Optimizer(**RECIPE, clip_norm=1.0), optax.constant_schedule(1.0), "Lu")
    _, state = clipped.update(grads, clipped.init(tree), tree)
    first_moment = optax.tree_utils.tree_get(state, "mu")["kernel"]
    np.testing.assert_allclose(first_moment, 0.1 * 0.5, rtol=1e-6)  # norm 100 scaled to 1, over four entries


def test_the_pull_is_the_gradient_of_the_squared_distance_to_the_start_and_spares_the_logits(rng):
    start, moved, grads = (
        {
            "text": {"kernel": rng.normal(size=(3, 2))},
            "projection": {"bias": rng.normal(size=2)},
            "logit_scale": rng.normal(),
            "logit_bias": rng.normal(),
        }
        for _ in range(3)
    )
    single = functools.partial(jax.tree.map, jnp.float32)
    pulled = optimizer.adamw(Optimizer(**RECIPE, pull=0.3), optax.constant_schedule(0.1), "Lu")
    _, state = pulled.update(single(grads), pulled.init(single(start)), single(moved))
    first_moment = optax.tree_utils.tree_get(state, "mu")
    # The loss has 0.3 * sum((p - s) ** 2) more, whose derivative is 0.6 * (p - s); a first moment is a tenth of it.
    expected = jax.tree.map(lambda g, p, s: 0.1 * (g + 0.6 * (p - s)), grads, moved, start)
    expected |= {name: 0.1 * grads[name] for name in ("logit_scale", "logit_bias")}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), first_moment, expected)


def test_accumulated_batches_equal_one_step_of_their_mean(rng):
    tree = {"kernel": jnp.float32(rng.normal(size=(2, 2)))}
    grads = [{"kernel": jnp.float32(rng.normal(size=(2, 2)))} for _ in range(2)]
    twice = optimizer.adamw(Optimizer(**RECIPE, accumulate=2), optax.constant_schedule(0.1), "Lu")
    once = optimizer.adamw(Optimizer(**RECIPE), optax.constant_schedule(0.1), "Lu")
    state = twice.init(tree)
    first, state = twice.update(grads[0], state, tree)
    assert not np.any(first["kernel"])
    second, _ = twice.update(grads[1], state, tree)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *grads)
    np.testing.assert_allclose(second["kernel"], once.update(mean, once.init(tree), tree)[0]["kernel"], rtol=1e-5)


def test_pretrained_towers_may_move_at_a_fraction_of_the_rate():
    plain = optimizer.adamw(Optimizer(**RECIPE), optax.constant_schedule(0.5), "Lu")
    scaled = optimizer.adamw(Optimizer(**RECIPE, pretrained_scale=0.25), optax.constant_schedule(0.5), "LU")
    gradients = jax.tree.map(lambda x: 0.3 * x, TREE)
    want, got = (one.update(gradients, one.init(TREE), TREE)[0] for one in (plain, scaled))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(0.25 * a, b, rtol=1e-6), want["text"], got["text"])
    assert float(want["logit_scale"]) == float(got["logit_scale"]) != 0


def test_locked_towers_leave_the_moving_part():
    params = {"image": 1, "text": 2, "projection": 3, "logit_scale": 4}
    for lock in ("Lu", "LU"):
        moving, locked = locking.split_locked(params, lock)
        assert set(locked) == {"image"} and set(moving) == {"text", "projection", "logit_scale"}
    assert set(locking.split_locked(params, "LL")[1]) == {"image", "text"}
    for lock in ("UU", "Uu", "uu"):
        assert locking.split_locked(params, lock) == (params, {})
    with pytest.raises(UserError, match="train.locks: found 'Ll', expected one of Lu, LL, LU, UU, Uu, uu"):
        locking.split_locked(params, "Ll")


def test_examples_in_the_documentation_run():
    result = doctest.testmod(locking)
    assert result.failed == 0 and result.attempted > 0

import jax.numpy as jnp
import numpy as np

from lit_jax.base import precision


def test_the_factor_halves_on_overflow_and_doubles_after_many_finite_steps():
    scale = precision.initial_loss_scale("float16")
    assert float(scale.factor) == 2**15
    scale = precision.next_loss_scale(scale, jnp.bool_(False), dynamic=True)
    assert float(scale.factor) == 2**14 and int(scale.finite_steps) == 0
    scale = precision.LossScale(scale.factor, jnp.int32(precision.GROW_AFTER - 1))
    scale = precision.next_loss_scale(scale, jnp.bool_(True), dynamic=True)
    assert float(scale.factor) == 2**15 and int(scale.finite_steps) == 0


def test_the_factor_stays_within_bounds():
    low = precision.LossScale(jnp.float32(1), jnp.int32(0))
    assert float(precision.next_loss_scale(low, jnp.bool_(False), dynamic=True).factor) == 1
    high = precision.LossScale(jnp.float32(precision.LARGEST), jnp.int32(precision.GROW_AFTER))
    assert float(precision.next_loss_scale(high, jnp.bool_(True), dynamic=True).factor) == precision.LARGEST


def test_other_dtypes_have_a_constant_factor_of_one():
    for name in ("float32", "bfloat16"):
        scale = precision.initial_loss_scale(name)
        assert float(scale.factor) == 1
        assert precision.next_loss_scale(scale, jnp.bool_(False), dynamic=False) is scale


def test_all_finite_sees_one_bad_number():
    assert bool(precision.all_finite({"a": jnp.ones(3), "b": jnp.zeros(())}))
    assert not bool(precision.all_finite({"a": jnp.ones(3), "b": jnp.array([1.0, np.inf])}))

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lit_jax import models
from lit_jax.models import bert, storage, t5, text, weights

TEXT = {"vocab_size": 11, "end_id": 2, "width": 8, "depth": 1, "heads": 2}
TOWERS = {
    **{name: models.IMAGE_PRESETS[name].build for name in ("bit_r50x1", "resnet50", "swin_t", "swinv2_t")},
    **{name: models.IMAGE_PRESETS[name].build for name in ("vit_b16", "mixer_s32", "efficientnet_lite0", "eva02_ti14")},
    "bert": lambda **more: bert.Bert(**TEXT, context=6, **more),
    "t5": lambda **more: t5.T5Encoder(**TEXT, mlp_dim=4, head_dim=4, **more),
    "transformer": lambda **more: text.TextTransformer(**TEXT, context=6, embed_dim=4, **more),
}
IN_FLOAT32 = ("var", "mean", "scale", "table", "logit_scale")  # and kernels below
KERNELS = {"bit_r50x1": "kernel", "swinv2_t": "position_"}


@pytest.mark.parametrize("name", TOWERS)
def test_what_a_tower_reads_in_float32_stays_and_what_it_casts_is_halved(name):
    tower = TOWERS[name](dtype=jnp.float16)
    example = jax.ShapeDtypeStruct((1, 6), jnp.int32)
    if name in models.IMAGE_PRESETS:
        example = jax.ShapeDtypeStruct((1, *2 * (models.IMAGE_PRESETS[name].size,), 3), jnp.float32)
    shapes = jax.eval_shape(tower.init, jax.random.key(0), example)["params"]
    got = weights.leaves(jax.eval_shape(lambda params: storage.as_used(tower, params, example), shapes))
    for path, leaf in got.items():
        kernel = name in KERNELS and KERNELS[name] in path
        stays = path.rsplit("/", 1)[-1] in IN_FLOAT32 or "norm" in path or kernel
        if stays:
            assert leaf.dtype == jnp.float32, path
        elif path.endswith("kernel"):
            assert leaf.dtype == jnp.float16, path


def test_in_float32_nothing_changes():
    tower = TOWERS["bert"]()
    params = {"a": np.ones(2, np.float32)}
    assert storage.as_used(tower, params, None) is params


def test_a_sum_with_another_number_is_no_cast():
    class Odd(nn.Module):
        dtype: object = jnp.float16

        @nn.compact
        def __call__(self, x):
            moved, used = (self.param(name, nn.initializers.ones, (2, 3)) for name in ("moved", "used"))
            twice = self.param("twice", nn.initializers.ones, (3,))
            y = x.astype(self.dtype) @ moved.T.reshape(3, 2).astype(self.dtype) + (used.T + 1).astype(self.dtype)
            return y @ twice[:2].astype(self.dtype) + twice.sum()

    example = jax.ShapeDtypeStruct((3, 3), jnp.float32)
    params = {"moved": jnp.ones((2, 3)), "used": jnp.ones((2, 3)), "twice": jnp.ones(3)}
    got = storage.as_used(Odd(), params, example)
    assert {name: str(leaf.dtype) for name, leaf in got.items()} == {
        "moved": "float16", "used": "float32", "twice": "float32",
    }  # fmt: skip


def test_results_are_the_same_to_the_bit():
    tower = TOWERS["transformer"](dtype=jnp.float16)
    tokens = np.int32([[3, 4, 5, 2, 0, 0]])
    shapes = jax.eval_shape(tower.init, jax.random.key(0), tokens)["params"]
    draw = np.random.default_rng(0)
    params = jax.tree.map(lambda x: draw.normal(size=x.shape).astype(np.float32), shapes)
    kept = storage.as_used(tower, params, jax.ShapeDtypeStruct(tokens.shape, tokens.dtype))
    assert any(leaf.dtype == np.float16 for leaf in jax.tree.leaves(kept))
    for ours, theirs in zip(*(jax.jit(tower.apply)({"params": p}, tokens) for p in (kept, params)), strict=True):
        np.testing.assert_array_equal(ours, theirs)

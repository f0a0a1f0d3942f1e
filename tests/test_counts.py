"""Numbers of parameters that others published, from our modules' shapes; nothing is computed."""

import functools

import jax
import jax.numpy as jnp
import pytest

from lit_jax import models
from lit_jax.models import TwoTower
from lit_jax.models.weights import count


def big_vision(name, pieces, embed_dim):
    return models.TEXT_PRESETS[name].build(vocab_size=pieces, context=16, end_id=1, embed_dim=embed_dim)


def bert(name):
    return models.TEXT_PRESETS[name].build(end_id=102)


def shapes(model, size=224, context=16):
    return jax.eval_shape(functools.partial(models.init, model, image_size=size, context=context), jax.random.key(0))


@pytest.mark.parametrize(
    ("image", "text", "width", "options", "published"),
    [
        ("vit_b16", bert("lit_bert_base"), 768, {"projection": True, "text_projection": True}, 195_871_489),  # B16B
        ("vit_b16", bert("lit_bert_base"), 768, {"text_projection": True}, 195_280_897),  # B16B_2
        ("vit_l16", bert("lit_bert_large"), 1024, {"text_projection": True}, 638_443_521),  # L16L
        ("vit_l16", big_vision("big_vision_s", 16_000, 1024), 1024, {}, 331_140_353),  # L16S
        ("vit_l16", big_vision("big_vision_ti", 16_000, 1024), 1024, {}, 311_913_089),  # L16Ti
    ],
    ids=["B16B", "B16B_2", "L16L", "L16S", "L16Ti"],
)
def test_googles_lit_models(image, text, width, options, published):
    model = TwoTower(models.IMAGE_PRESETS[image].build(), text, width, **{"projection": False, **options})
    assert count(shapes(model)) == published


def test_the_recorded_run_of_vit_l_and_clips_text_tower():
    text = models.TEXT_PRESETS["clip_text"].build(vocab_size=49_408, context=77, end_id=49_407, embed_dim=512)
    tree = shapes(TwoTower(models.IMAGE_PRESETS["vit_l16_384"].build(), text, 512), size=384, context=77)
    assert {part: count(tree[part]) for part in ("image", "text", "projection")} == {
        "image": 303_690_752, "text": 63_428_096, "projection": 524_800,
    }  # fmt: skip


def test_the_papers_33_million_are_the_s_tower_with_32_thousand_pieces():
    tower = big_vision("big_vision_s", 32_000, 512)
    params = jax.eval_shape(tower.init, jax.random.key(0), jnp.zeros((1, 16), jnp.int32))["params"]
    assert round((count(params) - count(params["projection"])) / 1e6, 1) == 33.6


@pytest.mark.parametrize(
    ("preset", "published"),
    [
        ("bert_base", 109_482_240 - 590_592),  # as transformers counts them, without the pooler
        ("bert_large", 335_141_888 - 1_049_600),
        ("minilm_l6", 22_713_216 - 147_840),
        ("minilm_l12", 33_360_000 - 147_840),
        ("bge_small", 33_360_000 - 147_840),
        ("mt5_small", 146_940_608),  # the encoder and the table
        ("mt5_base", 277_040_256),
        ("t5_v1_1_small", 35_332_800),
        ("t5_v1_1_base", 109_628_544),
    ],
)
def test_text_towers(preset, published):
    tower = models.TEXT_PRESETS[preset].build(end_id=1)
    assert count(jax.eval_shape(tower.init, jax.random.key(0), jnp.zeros((1, 8), jnp.int32))["params"]) == published

"""What makes tests quick hides nothing from them."""

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lit_jax import models
from lit_jax.models import presets
from tests import quick
from tests.conftest import random_like

TOWER = models.ViT(patch=8, width=16, depth=2, heads=2)
PIXELS = jnp.zeros((1, 16, 16, 3))


def test_parameters_of_another_shape_are_refused_each_time():
    params = random_like(TOWER, PIXELS)
    TOWER.apply({"params": params}, PIXELS)  # by now every shape is known
    params["embedding"]["kernel"] = np.zeros((4, 4, 3, 16), np.float32)
    for _ in range(2):
        with pytest.raises(flax.errors.ScopeParamShapeError, match="kernel"):
            TOWER.apply({"params": params}, PIXELS)


@pytest.mark.parametrize("name", ["vit_ti16", "resnet18"])
def test_shapes_of_which_nothing_is_drawn_are_those_of_flax(name, monkeypatch):
    preset = models.IMAGE_PRESETS[name]
    quickly, width = presets.image_shapes(preset.build(), preset.size)
    monkeypatch.setattr(jax, "eval_shape", quick._whole_eval_shape)
    assert (quickly, width) == presets.image_shapes(preset.build(), preset.size)
    drawn = TOWER.init(jax.random.key(0), PIXELS)["params"]
    assert np.abs(drawn["embedding"]["kernel"]).min() > 0

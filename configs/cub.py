r"""Real photographs: 100 bird species of CUB-200-2011, 20 of them held out, through the tower of the demo.

    python -m data_prep.convert --images CUB --splits CUB/splits.csv --classes CUB/classes.csv \
        --heldout 20 --out data/cub_records
    python -m lit_jax.main --config=configs/cub.py

The point is that every part runs on real files. The tower has seen nothing but drawings, so accuracies are a few
times chance and no more; `docs/own_photos.md` says how to lock a tower that has seen the world.
"""

import pathlib

from ml_collections import ConfigDict

from lit_jax.config import defaults

ROOT = pathlib.Path(__file__).resolve().parent.parent


def get_config() -> ConfigDict:
    config = defaults()
    config.data.records = "data/cub_records"
    config.data.flip = True
    config.data.crop_scale = (0.6, 1.0)

    config.image.weights = str(ROOT / "data_prep" / "demo" / "demo_tower.npz")
    config.image.size = 64
    config.image.patch = 8
    config.image.width = 96
    config.image.depth = 6
    config.image.heads = 3

    config.text.context = 32
    config.text.width = 128
    config.text.depth = 1
    config.text.heads = 4
    config.text.pool = "mean"
    config.model.embed_dim = 128

    config.optimizer.lr = 1e-3
    config.optimizer.warmup_epochs = 1.0
    config.train.epochs = 12.0
    config.train.batch_size = 256
    return config

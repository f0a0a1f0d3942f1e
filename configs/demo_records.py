"""The demo from its records: a transformer from scratch, and the locked tower in every step.

    python -m lit_jax.main --config=configs/demo_records.py

The way of collections whose photos are varied at random in each epoch, or whose image tower moves: TFRecords are read
and decoded in every epoch, and the photos pass the tower. `configs/demo.py` reads an embedding store instead, and its
text side carries over better to species without a photo. It is also what the figures of `benchmarks/demo_controls.py`
without the closed form are measured with.
"""

import pathlib

from ml_collections import ConfigDict

import data_prep
from lit_jax.config import defaults

TOWER = pathlib.Path(data_prep.__file__).resolve().parent / "demo" / "demo_tower.npz"


def get_config() -> ConfigDict:
    config = defaults()
    config.data.records = "data/demo_records"

    config.image.weights = str(TOWER)
    config.image.size = 64
    config.image.patch = 8
    config.image.width = 96
    config.image.depth = 6
    config.image.heads = 3

    config.text.context = 24
    config.text.width = 128
    config.text.depth = 1
    config.text.heads = 4
    config.text.pool = "mean"  # a mean over pieces carries over to names never read; see docs/decisions.md
    config.model.embed_dim = 128

    config.optimizer.lr = 2e-3
    config.optimizer.warmup_epochs = 1.0
    config.train.epochs = 6.0
    config.train.batch_size = 256
    config.log.every_steps = 2
    return config


def prepare(config: ConfigDict) -> None:
    """Draws the field guide and converts it, where the records are missing."""
    from data_prep.demo import records

    records.make(config.data.records)

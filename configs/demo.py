"""The demo: an invented field guide, drawn on the spot. A minute or two on two CPU cores.

    python -m lit_jax.main --config=configs/demo.py

160 species of animals, plants and mushrooms whose names tell their looks; 40 of them are held out of training. A small
ViT that has never seen those 40 is locked (`data_prep/pretrain_tower.py` made it), and a text tower learns from
scratch to read it. Every part of a real run takes part: photos, class table, captions, TFRecords, tokenizer,
locked training, checkpoints, zero-shot evaluation of seen and of held-out species.
"""

import pathlib

from ml_collections import ConfigDict

from lit_jax.config import defaults

ROOT = pathlib.Path(__file__).resolve().parent.parent


def get_config() -> ConfigDict:
    config = defaults()
    config.data.records = "data/demo_records"

    config.image.weights = str(ROOT / "data_prep" / "demo" / "demo_tower.npz")
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
    from data_prep.conversion import convert
    from data_prep.conversion.options import Options
    from data_prep.demo import field_guide
    from data_prep.sources import folder
    from data_prep.sources.items import Source
    from lit_jax.text.classes import read_class_table

    records = pathlib.Path(config.data.records)
    photos = records.with_name("demo_photos")
    print("drawing the field guide (once)", flush=True)
    field_guide.draw(field_guide.guide(), photos)
    source = Source(folder.read_folder(photos, photos / "splits.csv"), read_class_table(photos / "classes.csv"))
    convert.convert(source, records, Options(shards=4, vocab_size=512))

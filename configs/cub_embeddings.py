r"""Real photographs through a tower that knows birds: the same 100 species of CUB-200-2011, from given embeddings.

    python -m data_prep.embeddings --embeddings CUB/inat_mobilenetv2.npz --ids CUB/splits.csv \
        --classes CUB/classes.csv --out data/cub_store
    python -m lit_jax.main --config=configs/cub_embeddings.py

The tower is a MobileNetV2 that was trained on iNaturalist's birds elsewhere; only what it says of each photo is at
hand. Add ``--heldout 20`` to the first command to keep twenty species out of training.
"""

from ml_collections import ConfigDict

from lit_jax.config import defaults


def get_config() -> ConfigDict:
    config = defaults()
    config.input = "store"
    config.data.store = "data/cub_store"
    config.image.tower = "given"
    config.image.width = 1280

    config.text.context = 32
    config.text.width = 256
    config.text.depth = 2
    config.text.heads = 4
    config.text.pool = "mean"
    config.model.embed_dim = 256

    config.optimizer.lr = 1e-3
    config.optimizer.warmup_epochs = 2.0
    config.train.epochs = 20.0
    config.train.batch_size = 512
    config.evaluation.every_epochs = 5.0
    config.checkpoint.every_epochs = 5.0
    return config

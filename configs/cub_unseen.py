r"""Birds without a photo: species of CUB-200-2011 that are held out of training, named by their words.

    python -m data_prep.embeddings --embeddings CUB/inat_mobilenetv2.npz --ids CUB/splits.csv \
        --classes CUB/classes.csv --out data/cub_unseen --heldout 20 \
        --template '{common_name}, {genus}, {specific_epithet}, {family}, {order}'
    python -m lit_jax.main --config=configs/cub_unseen.py

The recipe for a collection of ten to a few hundred species. Captions hold the ranks, which a species shares with its
relatives, with commas between them. The text side reads them as whole phrases, of which relatives have some in common,
and a fifth as letters in a row, by which epithets and common names are alike. The last layers of both towers are the
closed form from these words to the mean photos of species; its whitening and penalty are chosen on training species
held out in turn. It is kept as it is: training from there (``--config.train.epochs=5``) gained nothing on those
species. That the text side reads just this was chosen by `benchmarks/cub_recipe.py` in the same way;
`benchmarks/cub_unseen.py` measures what comes of it.
"""

from ml_collections import ConfigDict

from lit_jax.config import defaults


def get_config() -> ConfigDict:
    config = defaults()
    config.input = "store"
    config.data.store = "data/cub_unseen"
    config.image.tower = "given"
    config.image.width = 1280

    config.text.tower = "units"
    config.text.units = "phrases:4,letters"
    config.model.embed_dim = 512
    config.model.start = "solve"
    config.model.scale_init = 20.0
    config.model.same_caption = "multi"

    config.optimizer.lr = 3e-4
    config.optimizer.weight_decay = 0.0
    config.optimizer.pull = 0.1
    config.optimizer.warmup_epochs = 0.5
    config.train.epochs = 0.0
    config.train.batch_size = 512
    config.evaluation.margin_folds = 5
    config.evaluation.every_epochs = 0.0
    config.checkpoint.every_epochs = 0.0
    return config

r"""Words from a classifier's head, no photo read: 964 birds of a MobileNetV2, tried on the photos of CUB-200-2011.

    python -m data_prep.embeddings --head HEAD/head.npz --classes HEAD/classes.csv CUB/classes.csv \
        --embeddings CUB/inat_mobilenetv2.npz --ids CUB/splits.csv --leave-out CUB/classes.csv \
        --template '{common_name}, {name}, {genus}, {family}, {order}' --out data/birds_head_store
    python -m lit_jax.main --config=configs/birds_head.py

``HEAD/head.npz`` holds the classifier's last layer, ``weight`` [964, 1280] and ``bias`` [964]. All species of the
photos are left out of training, so that what is measured are names never read; the image tower has seen photos of 86 of
the 100. A name is read as its ranks and, with a quarter of their weight, as letters in a row; the last layers of both
towers are the closed form from these to the rows of the head, and kept as they are. Which units, and how much each
counts, was chosen by species of the head that were held out in turn, as the penalty is in each run: among 176 of them
the ranks alone name 53 %, these 62 %. ``benchmarks/head_words.py`` measures it.
"""

from ml_collections import ConfigDict

from lit_jax.config import defaults


def get_config() -> ConfigDict:
    config = defaults()
    config.input = "store"
    config.data.store = "data/birds_head_store"
    config.data.seen_split = ""  # no photo is of a species whose name is read
    config.image.tower = "given"
    config.image.width = 1280

    config.text.tower = "units"
    config.text.units = "phrases:4,letters"
    config.model.embed_dim = 1280
    config.model.start = "solve"
    config.model.scale_init = 20.0
    config.model.same_caption = "multi"

    config.optimizer.pull = 0.1
    config.optimizer.warmup_epochs = 0.5
    config.train.batch_size = 512
    config.train.epochs = 0.0
    config.evaluation.every_epochs = 0.0
    config.checkpoint.every_epochs = 0.0
    return config

"""A trained model in memory: its towers and parameters, its tokenizer, and what it says of itself."""

import dataclasses

from lit_jax.embedding.about import About
from lit_jax.models.locking import Params
from lit_jax.models.two_tower import TwoTower
from lit_jax.settling import Settled
from lit_jax.text.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model read from a checkpoint or a model's folder.

    Attributes:
        about: what it says of itself.
        config: of the run.
        step: batches trained.
        model: the towers.
        tokenizer: of the run.
        params: all parameters, locked ones included, on the host; without the image tower if it was not asked for.
    """

    about: About
    config: Settled
    step: int
    model: TwoTower
    tokenizer: Tokenizer
    params: Params

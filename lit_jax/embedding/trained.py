"""A trained model in memory: its towers and parameters, its tokenizer, and what it says of itself."""

import dataclasses

from lit_jax.data.embedding_store import Store
from lit_jax.embedding.about import About
from lit_jax.errors import UserError
from lit_jax.models.locking import IMAGE, Params
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


def check_tower(trained: Trained, store: Store) -> None:
    """Refuses a store whose photos passed another tower than the model's.

    Raises:
        UserError: that it is another one.
    """
    if store.tower["digest"] != trained.about.locked.get(IMAGE):
        raise UserError(
            f"store {store.directory}: found embeddings of another tower ({store.tower.get('name', 'no name')}), "
            "expected that of the model; embed the photos with it, or if it is the same, import them with the same "
            "--tower-name"
        )

"""A trained model: its towers and parameters, its tokenizer, and what it says of itself."""

import dataclasses
from typing import Any

from lit_jax import config as options
from lit_jax.data.embedding_store import Store
from lit_jax.errors import UserError
from lit_jax.models.locking import IMAGE, Params
from lit_jax.models.two_tower import TwoTower
from lit_jax.settling import Settled
from lit_jax.text.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class About:
    """The description that is saved with a model's parameters.

    Attributes:
        config: every option, by dotted name.
        position: batches of the training stream consumed.
        locked: SHA-256 of each locked tower's float32 weights, by tower.
        fingerprint: of the record set, also where a store of it was trained on.
        templates: caption templates of the record set.
        drop_repeats: whether its captions leave out what an earlier column said.
        class_table: the class table as CSV.
        train_classes: ids of the classes with training photos.
        prompt_templates: of the evaluation; empty for the captions.
        hosts: that shared the training stream.
        tokenizer: the SentencePiece model.
        results: of the last evaluation; empty before the first.
        evaluated: batches consumed before the last evaluation.
        store: fingerprint of the embedding store that was trained on; empty for none.
        margin: for seen species where unseen ones are asked beside them, with what was measured of it inside the
            training split, see `lit_jax.training.margin.fit`; empty where none was fitted.
        units: that the text tower knows, those of each kind, see `lit_jax.text.units`; none of a tower that reads none.
        chosen_on: of a model that was taken out of its run as the best: the split by which; empty if it was asked for.
    """

    config: dict[str, Any]
    position: int
    locked: dict[str, str]
    fingerprint: str
    templates: list[str]
    drop_repeats: bool
    class_table: str
    train_classes: list[int]
    prompt_templates: list[str]
    hosts: int
    tokenizer: bytes = dataclasses.field(repr=False)
    results: dict[str, Any] = dataclasses.field(default_factory=dict)
    evaluated: int = 0
    store: str = ""
    chosen_on: str = ""
    margin: dict[str, Any] = dataclasses.field(default_factory=dict)
    units: list[list[str]] = dataclasses.field(default_factory=list, repr=False)

    @property
    def options(self) -> options.Config:
        """The config of the run, settled."""
        return options.from_flat(self.config, source="checkpoint")


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

"""What a trained model says of itself, wherever it runs."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from lit_jax import config as options


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
        hosts: that the order of the training stream depends on: 1; more of runs by earlier versions.
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


def other_types(about: About) -> str:
    """The first field whose value is of another type than it should be, as of a file that was edited; empty if none."""
    for field in dataclasses.fields(About):
        kind: Any = typing.get_origin(field.type) or field.type
        value = getattr(about, field.name)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            return field.name
    return ""


def config_from_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options by dotted name, with lists of JSON turned back into tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}

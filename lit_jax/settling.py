"""A config is settled once, at the door of a command: afterwards nothing in it is open, and nothing settles it again.

A config leaves open what others know: presets the sizes of their towers, files beside the weights their preprocessing,
an embedding store the tower that made it. `settle` asks each of them once and checks what options say together. What
comes out is frozen; below the door, a function takes the part of it that it uses.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lit_jax import config as options
from lit_jax.data.collection import Collection, at_hand, check_splits, open_collection
from lit_jax.data.dataset_folder import check_split
from lit_jax.data.embedding_store import GIVEN, Store
from lit_jax.data.inner_holdouts import A_PART, FOLDS, enough
from lit_jax.data.records import RecordSet, is_record_set, open_records
from lit_jax.errors import UserError
from lit_jax.models import locking, weight_files
from lit_jax.models.building import Towers, check_weights
from lit_jax.models.settled import (
    OWN_TEXT,
    TOWER_OPTIONS,
    beside_weights,
    check_names,
    crop_options,
    described_image,
    preset_notes,
    settled_image,
    settled_text,
)
from lit_jax.text.classes import read_class_table
from lit_jax.text.prompts import read_templates
from lit_jax.text.tokenizers import Tokenizer, load_tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settled(options.Config):
    """A config in which nothing is open.

    Attributes:
        given: the config as it was given.
        templates: prompt templates of the evaluation; empty for the captions.
        notes: what a person should know of weights that are not those of the image tower's preset, a line each.
    """

    given: options.Config
    templates: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def towers(self) -> Towers:
        """What the model is made of."""
        return Towers(
            self.image, self.text, self.model, self.train.locks, self.train.precision,
            from_store=self.input == "store", seed=self.seed,
        )  # fmt: skip


def settle(
    config: options.Config, store: Store | None = None, documents: Mapping[str, Any] = MappingProxyType({})
) -> Settled:
    """Fills in what a config leaves open.

    What the config sets comes first. What it leaves open is as the store's tower had it; without a store, as it
    stands beside the weights (timm's ``config.json``, ``preprocessor_config.json``, ``open_clip_config.json``); else
    as the preset says.

    Args:
        config: as `lit_jax.config.load` gives it, or as a checkpoint remembers it, where nothing is open.
        store: that the run reads, if it is there.
        documents: JSON files beside the weights of the image tower by name, see `documents_of`.

    Raises:
        UserError: letters of locks that there are not, an unknown tower, a size that is the preset's to say,
            preprocessing that is not understood.
    """
    locking.lock_letters(config.train.locks)
    text = settled_text(config.text)
    known: dict[str, Any] = {}
    if store is None and config.image.tower != GIVEN:
        known = beside_weights(config.image, documents)
    elif store is not None and store.tower["kind"] == config.image.tower:
        known = {name.removeprefix("image."): value for name, value in store.tower.get("options", {}).items()}
        known["width"] = store.width
    sections = {field.name: getattr(config, field.name) for field in dataclasses.fields(options.Config)}
    return Settled(**{**sections, "text": text, "image": settled_image(config.image, known)}, given=config)


def documents_of(config: options.Config) -> dict[str, Any]:
    """The JSON files beside the weights of a config's image tower; none where a store stands in for the tower.

    Raises:
        UserError: a tower that there is not; a file that is not whole; a name on the hub that cannot be fetched.
    """
    check_names(config.image, config.text)
    if config.input == "store" or config.image.tower == GIVEN or not config.image.weights:
        return {}
    return weight_files.documents(config.image.weights)


def settle_run(config: options.Config) -> tuple[Settled, Collection]:
    """The settled config of a training run, and its data: a record set, or a store if `input` says so.

    Raises:
        UserError: as `settle`; letters without weights; no data; a store of another tower or of other records; splits
            that the data does not hold; options that do not go together.
    """
    check_weights(config.train.locks, _sources(config))
    if config.image.tower == GIVEN and config.input == "records":
        raise UserError('image.tower: found given with input "records", expected a tower; set input = "store"')
    # What is at hand or not comes first: weights may have to be fetched.
    data = open_collection(config.data, as_store=config.input == "store")
    settled = _settle_with(config, data) if isinstance(data, Store) else None
    check_splits(config.data, data)
    check_options(config)
    check_species(config, data)
    templates = _templates(config)
    documents = documents_of(config)
    settled = settled or settle(config, documents=documents)
    notes = preset_notes(settled.image, documents) if config.input == "records" else []
    return dataclasses.replace(settled, templates=templates, notes=tuple(notes)), data


def settle_embedding(config: options.Config) -> tuple[Settled, RecordSet]:
    """The settled config of an embedding, and the records to embed: as of a run that reads records.

    Raises:
        UserError: a tower that is not locked, has no weights, or is not there; no records; as `settle`.
    """
    if config.image.tower == GIVEN:
        raise UserError("image.tower: found given, expected a tower to run; given embeddings are in a store already")
    locking.check_image_locked(config.train.locks, "to embed with, whose embeddings hold for the whole run")
    if not config.image.weights:
        raise UserError("image.weights: found nothing, expected a file of pre-trained weights")
    # Also of a config that trains from the store, what stands beside the weights counts here, where they are read.
    check_options(dataclasses.replace(config, input="store"))
    config = dataclasses.replace(config, input="records")
    records = open_records(config.data.records)  # before weights are asked for, which may have to be fetched
    check_species(config, records)
    documents = documents_of(config)
    settled = settle(config, documents=documents)
    return dataclasses.replace(settled, notes=tuple(preset_notes(settled.image, documents))), records


def settle_plan(config: options.Config) -> tuple[Settled, Collection | None]:
    """The settled config of a run that is only planned, and its store or records as far as they are at hand.

    Raises:
        UserError: as `settle`; a store of another tower.
    """
    check_options(config)
    found = at_hand(config.data, as_store=config.input == "store")
    if found is not None:
        check_splits(config.data, found)
        check_species(config, found)
    return _settle_with(config, found, documents_of(config)), found


def settle_published(config: options.Config) -> tuple[Settled, Collection | None]:
    """The settled config of published towers that are to be used as they are, and its data, if it names any.

    Raises:
        UserError: a part of the model without weights; a store of another tower; as `settle`.
    """
    _check_published(config)
    check_weights(config.train.locks, {"image": config.image.weights, "text": config.text.weights})
    has_data = config.data.records or config.data.store
    data = open_collection(config.data, as_store=config.input == "store") if has_data else None
    documents = documents_of(dataclasses.replace(config, input="records"))
    settled = _settle_with(config, data, documents)
    notes, templates = preset_notes(settled.image, documents), _templates(config)
    return dataclasses.replace(settled, notes=tuple(notes), templates=templates), data


def check_store(config: Settled, store: Store) -> None:
    """Refuses a store that another tower, another preprocessing or other records made.

    Where the config's records are at hand they are compared with those that the store remembers.

    Args:
        config: settled with this store.
        store: to be read.

    Raises:
        UserError: naming the first thing that differs.
    """
    tower, where = store.tower, f"store {store.directory}"
    locking.check_image_locked(config.train.locks, 'with input "store"')
    if tower["kind"] != config.image.tower:
        raise UserError(
            f"{where}: found embeddings of tower {tower['kind']}, expected image.tower, {config.image.tower}"
        )
    names = ("width",) if tower["kind"] == GIVEN else TOWER_OPTIONS
    wanted = described_image(config.image, names)
    check_split(config.data.train_split, store.splits, store.directory, option="data.train_split")
    if tower["kind"] != GIVEN:
        wanted |= {"data.shrink_decoding": config.data.shrink_decoding}
        wanted |= crop_options(config.data, store.views[config.data.train_split])
    made = {"image.width": store.width, "data.shrink_decoding": False, **tower.get("options", {})}
    for name, value in wanted.items():
        value = list(value) if isinstance(value, tuple) else value
        if made.get(name) != value:
            raise UserError(
                f"{where}: found {name} {made.get(name)}, expected {value} as in the config; embed again with --restart"
            )
    records = pathlib.Path(config.data.records or "nowhere")
    is_of_records = tower["kind"] != GIVEN and "head" not in tower  # with rows of a classifier it is a set of its own
    if is_of_records and is_record_set(records) and open_records(records).fingerprint != store.records:
        raise UserError(
            f"{where}: found embeddings of other records than {records}, expected the same; embed again with --restart"
        )


def tokenizer_path(name: str) -> pathlib.Path | None:
    """The tokenizer that ``data.tokenizer`` names, fetched if it is on the hub; None if it names none."""
    if name.startswith(weight_files.HUB):
        return weight_files.hub_folder(name)
    return pathlib.Path(name) if name else None


def open_tokenizer(name: str, data: Collection | None) -> Tokenizer:
    """The tokenizer that ``data.tokenizer`` names, else that of the data.

    Raises:
        UserError: if neither is there.
    """
    path = tokenizer_path(name) or (data.tokenizer if data else None)
    if not path:
        where = f"in {data.directory}" if data else "any data"
        raise UserError(f"data.tokenizer: found none in the config or {where}, expected a tokenizer's file or folder")
    return load_tokenizer(path)


def _settle_with(
    config: options.Config, found: Collection | None, documents: Mapping[str, Any] = MappingProxyType({})
) -> Settled:
    """`settle` with what was found; where that is a store, it must be of this config."""
    store = found if isinstance(found, Store) else None
    settled = settle(config, store, documents)
    if store is not None:
        check_store(settled, store)
    return settled


def _sources(config: options.Config) -> dict[str, str]:
    """Where the weights of each tower are that will be loaded."""
    text = {"text": config.text.weights}
    return text if config.input == "store" else {"image": config.image.weights, **text}


def check_options(config: options.Config) -> None:
    """Refuses unknown towers and options that contradict each other, whatever the data.

    Raises:
        UserError: naming the option.
    """
    locking.lock_letters(config.train.locks)
    check_names(config.image, config.text)
    scale = config.data.crop_scale
    if not 0 < scale[0] <= scale[1]:
        raise UserError(f"data.crop_scale: found {scale}, expected two shares of the area, the smaller first")
    _check_start(config)
    if config.evaluation.margin_folds == 1:
        raise UserError("evaluation.margin_folds: found 1, expected 0 or two parts or more, which are held out in turn")
    if config.model.same_caption == "plain":
        return
    if not config.text.distinct:
        raise UserError(
            f"text.distinct: found false with model.same_caption {config.model.same_caption}, expected true: it tells "
            "which captions are the same"
        )


def _check_start(config: options.Config) -> None:
    """Refuses a start, or a margin, that asks for what the run has not."""
    for name, asked in (("model.start", config.model.start == "solve"), ("evaluation.margin_folds",
                        config.evaluation.margin_folds > 0)):  # fmt: skip
        if asked and config.input != "store":
            raise UserError(
                f'{name}: found with input "records", expected an embedding store, whose features it needs at once; '
                'make one with python -m lit_jax.embed and set input = "store"'
            )
    if not config.train.epochs and config.model.start != "solve":
        raise UserError("train.epochs: found 0, expected more than 0, or the start to keep: set model.start to solve")
    if config.model.start == "solve" and not config.model.projection:
        raise UserError("model.start: found solve without model.projection, expected one; set model.projection")
    if config.model.start == "solve" and config.text.tower == OWN_TEXT:
        raise UserError(
            f"model.start: found solve with text.tower {config.text.tower}, expected a tower that has words from the "
            "start: units, or one with weights such as minilm_l6"
        )


def check_species(config: options.Config, data: Collection) -> None:
    """Refuses a start, or a margin, for which the training split has too few species or photos.

    Raises:
        UserError: with the lines of the config to change.
    """
    solves, folds = config.model.start == "solve", config.evaluation.margin_folds
    if not (solves or folds):
        return
    split = config.data.train_split
    check_split(split, data.splits, data.directory, option="data.train_split")
    table = read_class_table(data.class_table)
    number = len({table.species_of[class_id] for class_id in data.classes_in(split)})
    found = f"with {number} species in split {split}"
    refused, lines = [], []
    if solves and not enough(number):
        refused.append("model.start: found solve")
        lines.append('config.model.start = ""' + ("" if config.train.epochs else " and config.train.epochs = 10.0"))
    if folds and not enough(number, folds):
        fewer = number // A_PART
        refused.append(f"evaluation.margin_folds: found {folds}")
        lines.append(f"config.evaluation.margin_folds = {fewer if fewer > 1 else 0}")
    if refused:
        least = A_PART * max(FOLDS * solves, folds)
        raise UserError(
            f"{refused[0]} {found}, expected {least} or more, to hold some of them out in turn; bring photos of more "
            f"species, hold out fewer, or set {' and '.join(lines)}"
        )
    if folds and data.examples(split) <= number:
        raise UserError(
            f"evaluation.margin_folds: found {folds} {found} and one photo of each, expected two or more of some, to "
            "name photos of species that are trained on; set config.evaluation.margin_folds = 0"
        )


def _check_published(config: options.Config) -> None:
    """Refuses a model of which a part has no weights yet."""
    if config.image.tower == GIVEN:
        raise UserError("image.tower: found given, expected a tower with published weights")
    if "u" in config.train.locks:
        raise UserError(
            f"train.locks: found a tower that starts from scratch ({config.train.locks}), expected published weights "
            "of both: nothing is trained here; set train.locks to LL"
        )
    for section in ("image", "text", "model"):
        if not getattr(config, section).weights:
            what = (
                f"the {section} tower's"
                if section != "model"
                else "those of the whole model, for what joins its towers"
            )
            raise UserError(f"{section}.weights: found none, expected {what}; without training nothing else has them")


def _templates(config: options.Config) -> tuple[str, ...]:
    return tuple(read_templates(config.evaluation.templates)) if config.evaluation.templates else ()

"""Turns a config into mesh, data, model, optimizer and evaluation.

The only module that sees the whole config. Everything below takes what it uses; `lit_jax.training.loop`
drives the result.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from lit_jax import config as options
from lit_jax.base.precision import initial_loss_scale
from lit_jax.base.sharding import check_divides, make_mesh, put_replicated, replicated, with_sharding
from lit_jax.data import input_stream
from lit_jax.data.dataset_folder import check_split
from lit_jax.data.embedding_store import GIVEN, Store, is_store, open_store
from lit_jax.data.epoch_order import number_aside, set_aside
from lit_jax.data.records import RecordSet, is_record_set, open_records
from lit_jax.data.unique_captions import caption_table
from lit_jax.embedding import class_embeddings, photo_embeddings
from lit_jax.errors import UserError
from lit_jax.evaluation import zeroshot
from lit_jax.models import building, locking
from lit_jax.models.two_tower import Params, TwoTower
from lit_jax.models.weight_files import HUB, exists, hub_folder
from lit_jax.models.weights import LoadReport
from lit_jax.text.captions import class_captions
from lit_jax.text.classes import ClassTable, read_class_table
from lit_jax.text.prompts import named_by, prompts, read_templates, templates_for
from lit_jax.text.tokenizers import Tokenizer, load_tokenizer
from lit_jax.training import optimizer, train_step
from lit_jax.training.checkpoint import About

Config = Any  # ml_collections.FrozenConfigDict, checked by lit_jax.config
Data = RecordSet | Store


@dataclasses.dataclass
class Experiment:
    """A run, built and ready to go. Only `about` and `notes` change on the way.

    The state before the first step is made by `start`, with what is to be noted of its weights: a run that resumes
    never has it. `abstract_state` holds its shapes, dtypes and shardings.
    """

    config: Config
    workdir: pathlib.Path
    mesh: Mesh
    data: Data
    feed: input_stream.Feed
    schedule: optax.Schedule
    step: Callable[[train_step.State, Params, train_step.Batch], tuple[train_step.State, train_step.Metrics]]
    start: Callable[[], tuple[train_step.State, list[str]]]
    abstract_state: train_step.State
    locked: Params
    about: About
    evaluator: zeroshot.Evaluator
    notes: list[str]
    examples: int
    total_steps: int

    @property
    def steps_per_epoch(self) -> float:
        """Not a whole number, unless the config counts epochs in steps: batches run on into the next epoch."""
        return steps_per_epoch(self.config, self.examples)


def build(config: Config, workdir: pathlib.Path) -> Experiment:
    """Opens the data, makes the model, and puts the parameters on the mesh.

    Raises:
        UserError: a batch that does not divide, missing weights, records or tokenizer.
    """
    building.check_weights(config)
    # What is at hand or not comes first: weights may have to be fetched.
    data = open_data(config)
    check_splits(config, data)
    templates = read_templates(config.evaluation.templates) if config.evaluation.templates else ()
    config = settled(config)
    of_weights = building.preset_notes(config) if config.input == "records" else []
    mesh = make_mesh(config.train.devices)
    check_divides(config.train.batch_size, mesh.size, name="train.batch_size")
    check_divides(config.evaluation.batch_size, mesh.size, name="evaluation.batch_size")
    _check_crop(config.data.crop_scale)
    _check_same_caption(config)
    tokenizer = open_tokenizer(config, data)
    model = building.build_model(config, tokenizer)
    if isinstance(data, Store):
        _check_weights(config, model, data)
    moving, still = locking.split_locked(building.param_shapes(config, model), config.train.locks)
    locked, reports = building.initial_params(config, model, parts=still)
    digests = {name: reports[name].digest for name in locked}
    if isinstance(data, Store):
        digests["image"] = data.tower["digest"]
    examples = data.examples(config.data.train_split)
    table = read_class_table(data.class_table)
    aside = set_aside(examples, config.data.select_fraction, config.seed) if config.data.select_fraction else None
    trained_on = examples if aside is None else int(np.sum(~aside))
    if config.train.batch_size > trained_on:
        raise UserError(
            f"train.batch_size: found {config.train.batch_size}, expected at most the {trained_on} photos of "
            f"data.train_split to train on; a tenth of them or less makes good batches"
        )
    schedule = build_schedule(config, examples)
    adamw = build_optimizer(config, schedule)
    texts = class_prompts(
        table, data.templates, templates, drop_repeats=data.drop_repeats, protocol=config.evaluation.protocol
    )
    return Experiment(
        config=config,
        workdir=workdir,
        mesh=mesh,
        data=data,
        feed=build_feed(config, data, tokenizer, table, mesh, aside),
        schedule=schedule,
        step=build_step(config, model, adamw, mesh),
        start=lambda: _start(config, model, adamw, mesh, parts=moving),
        abstract_state=_abstract_state(moving, adamw, config.train.precision, mesh),
        locked=put_replicated(building.stored(config, model, locked), mesh),
        about=About(
            config=options.flattened(config),
            position=0,
            locked=digests,
            fingerprint=fingerprint(data),
            store=data.fingerprint if isinstance(data, Store) else "",
            templates=list(data.templates),
            drop_repeats=data.drop_repeats,
            class_table=data.class_table.read_text(encoding="utf-8"),
            train_classes=list(data.classes_in(config.data.train_split)),
            prompt_templates=list(templates),
            hosts=jax.process_count(),
            tokenizer=tokenizer.model_bytes,
        ),
        evaluator=zeroshot.Evaluator(
            parts=(parts := photo_embeddings.embedder(model, mesh)),
            photos=photos_of(parts, data, config, batch_size=config.evaluation.batch_size, aside=aside),
            tasks=training_tasks(config, data, table.species_of),
            species_of=table.species_of,
            class_prompts=class_embeddings.prompts_of_species(texts, table.species_of),
            tokenise=lambda texts: tokenizer.encode(texts, config.text.context),
            batch_size=config.evaluation.batch_size,
            end_id=tokenizer.end_id if config.text.bucket else None,
            keep=digests.get("image") is not None,
        ),
        notes=[*of_weights, *_notes(config, data, tokenizer, texts, reports), *_about_species(config, data, table)],
        examples=examples,
        total_steps=total_steps(config, examples),
    )


def _start(
    config: Config, model: TwoTower, adamw: optax.GradientTransformation, mesh: Mesh, *, parts: Collection[str]
) -> tuple[train_step.State, list[str]]:
    moving, reports = building.initial_params(config, model, parts=parts)
    state = train_step.initial_state(moving, adamw, initial_loss_scale(config.train.precision))
    return put_replicated(state, mesh), _described(reports)


def _abstract_state(
    moving: Params, adamw: optax.GradientTransformation, precision: str, mesh: Mesh
) -> train_step.State:
    state = jax.eval_shape(
        lambda moving: train_step.initial_state(moving, adamw, initial_loss_scale(precision)), moving
    )
    return with_sharding(state, replicated(mesh))


def _described(reports: Mapping[str, LoadReport]) -> list[str]:
    return [f"{tower} tower: {found}" for tower, found in reports.items()]


def settled(config: Config) -> Config:
    """`towers.settled` with the store of the config, where it reads one that is there.

    Raises:
        UserError: as `towers.settled`.
    """
    has_place = config.data.store or config.data.records
    if config.input == "store" and has_place and is_store(store_folder(config)):
        return building.settled(config, open_store(store_folder(config)))
    return building.settled(config)


def open_data(config: Config) -> Data:
    """The record set, or the store if `input` says so; a store must be of this config's tower and records.

    Raises:
        UserError: nothing there, or a store of something else.
    """
    if config.input == "store":
        store = open_store(store_folder(config))
        check_store(config, store)
        return store
    if config.image.tower == GIVEN:
        raise UserError('image.tower: found given with input "records", expected a tower; set input = "store"')
    return open_records(_required(config.data.records, "data.records", "folder of a record set"))


def check_splits(config: Config, data: Data) -> None:
    """Refuses a config that names splits which the data does not hold.

    Raises:
        UserError: naming the option and the splits that there are.
    """
    for option in ("train_split", "seen_split", "heldout_split"):
        split = config.data[option]
        # A record set may hold nothing out; but a name that was chosen must be there.
        may_lack = option == "heldout_split" and split == options.OPTIONS["data.heldout_split"].default
        if split and not may_lack:
            check_split(split, data.splits, data.directory, option=f"data.{option}")


def store_folder(config: Config) -> pathlib.Path:
    """Where the store of a config is: `data.store`, else beside the records."""
    if config.data.store:
        return pathlib.Path(config.data.store)
    records = _required(config.data.records, "data.store and data.records", "folder of a store, or of its records")
    return pathlib.Path(records.rstrip("/") + "_store")


def check_store(config: Config, store: Store) -> None:
    """Refuses a store that another tower, another preprocessing or other records made.

    Where the config's weights and records are at hand they are compared with what the store remembers of them.

    Raises:
        UserError: naming the first thing that differs.
    """
    config = building.settled(config, store)
    tower, where = store.tower, f"store {store.directory}"
    locking.check_image_locked(config.train.locks, 'with input "store"')
    if tower["kind"] != config.image.tower:
        raise UserError(
            f"{where}: found embeddings of tower {tower['kind']}, expected image.tower, {config.image.tower}"
        )
    wanted = {
        f"image.{name}": config.image[name]
        for name in (("width",) if tower["kind"] == GIVEN else building.TOWER_OPTIONS)
    }
    check_split(config.data.train_split, store.splits, store.directory, option="data.train_split")
    if store.views[config.data.train_split] > 1 and tower["kind"] != GIVEN:
        wanted |= {"data.crop_scale": config.data.crop_scale, "data.flip": config.data.flip}
    made = {"image.width": store.width, **tower.get("options", {})}
    for name, value in wanted.items():
        value = list(value) if isinstance(value, tuple) else value
        if made.get(name) != value:
            raise UserError(f"{where}: found {name} {made.get(name)}, expected {value} as in the config; embed again")
    records = pathlib.Path(config.data.records or "nowhere")
    if tower["kind"] != GIVEN and is_record_set(records) and open_records(records).fingerprint != store.records:
        raise UserError(f"{where}: found embeddings of other records than {records}, expected the same; embed again")


def _check_weights(config: Config, model: TwoTower, store: Store) -> None:
    if model.image is None or not exists(config.image.weights):
        return
    found = building.load_tower(config, model, "image")[1].digest
    if found != store.tower["digest"]:
        raise UserError(
            f"store {store.directory}: found embeddings by weights {store.tower['digest'][:12]}, expected {found[:12]} "
            f"of image.weights; embed again"
        )


def fingerprint(data: Data) -> str:
    """What tells one collection of photos from another, whether they are at hand or only their embeddings."""
    return data.records if isinstance(data, Store) else data.fingerprint


def photos_of(
    parts: photo_embeddings.Embedder, data: Data, config: Config, *, batch_size: int, aside: np.ndarray | None = None
) -> photo_embeddings.PhotosOf:
    """How an evaluation comes by features of photos: through the tower, or from the store.

    `aside` tells which photos of the training split are those of the split `photo_embeddings.ASIDE`.
    """
    part = None if aside is None else (config.data.train_split, aside)
    if isinstance(data, Store):
        return photo_embeddings.from_store(parts, data, batch_size=batch_size, aside=part)
    return photo_embeddings.from_records(
        parts, data, image_size=config.image.size, batch_size=batch_size, view=building.view_of(config), aside=part
    )


def build_feed(
    config: Config, data: Data, tokenizer: Tokenizer, table: ClassTable, mesh: Mesh, aside: np.ndarray | None = None
) -> input_stream.Feed:
    """The stream of training batches, without the photos that are set aside.

    Raises:
        UserError: a store whose shards are not as they were written.
    """
    split = config.data.train_split
    shared: dict[str, Any] = {
        "batch_size": config.train.batch_size,
        "seed": config.seed,
        "each_once": config.text.distinct,
        "bucket": config.text.bucket,
        "aside": aside,
    }
    if not isinstance(data, Store):
        return input_stream.from_records(
            data, split, mesh, tokenizer=tokenizer, context=config.text.context, image_size=config.image.size,
            window=config.data.shuffle_window, crop=config.data.crop, crop_scale=tuple(config.data.crop_scale),
            flip=config.data.flip, view=building.view_of(config), **shared,
        )  # fmt: skip
    texts = class_captions(table, data.templates, drop_repeats=data.drop_repeats)
    captions = caption_table(
        dict(zip(table.ids, texts, strict=True)), lambda batch: tokenizer.encode(batch, config.text.context)
    )
    return input_stream.from_store(
        data, split, mesh, captions=captions, end_id=tokenizer.end_id, place=config.data.store_on, **shared
    )


def build_step(
    config: Config, model: TwoTower, adamw: optax.GradientTransformation, mesh: Mesh
) -> Callable[[train_step.State, Params, train_step.Batch], tuple[train_step.State, train_step.Metrics]]:
    """The jitted training step as the config describes it."""
    return train_step.make_step(
        model, adamw, max_scale=config.model.scale_max, dynamic_scale=config.train.precision == "float16",
        same_caption=config.model.same_caption, block=config.model.loss_block, mesh=mesh,
    )  # fmt: skip


def class_prompts(
    table: ClassTable, captions: Sequence[str], templates: Sequence[str], *, drop_repeats: bool, protocol: str
) -> dict[int, Sequence[str]]:
    """Prompts of every class, by class id.

    Args:
        table: the classes.
        captions: templates of the captions.
        templates: prompt templates. Without any, classes are called by their captions or, in the recorded protocol,
            by their bare names.
        drop_repeats: how captions are filled.
        protocol: one of `lit_jax.text.prompts.PROTOCOLS`.

    Raises:
        UserError: a template, or the protocol, asks for a column that the table has not.
    """
    templates = templates_for(protocol, templates)
    if templates:
        filled: Sequence[Sequence[str]] = prompts(
            table.rows(), templates, drop_repeats=drop_repeats, **named_by(protocol)
        )
    else:
        filled = class_captions(table, captions, drop_repeats=drop_repeats)
    return dict(zip(table.ids, filled, strict=True))


def _check_crop(scale: tuple[float, float]) -> None:
    if not 0 < scale[0] <= scale[1]:
        raise UserError(f"data.crop_scale: found {tuple(scale)}, expected two shares of the area, the smaller first")


def _check_same_caption(config: Config) -> None:
    if config.model.same_caption == "plain":
        return
    if not config.text.distinct:
        raise UserError(
            f"text.distinct: found false with model.same_caption {config.model.same_caption}, expected true: it tells "
            "which captions are the same"
        )
    if config.input == "records" and jax.process_count() > 1:
        raise UserError(
            f"model.same_caption: found {config.model.same_caption} on {jax.process_count()} hosts, expected plain: "
            'they do not know each other\'s captions; set input = "store"'
        )


def _notes(
    config: Config,
    data: Data,
    tokenizer: Tokenizer,
    texts: Mapping[int, Sequence[str]],
    reports: Mapping[str, LoadReport],
) -> list[str]:
    """What a person should know before the run: what the store holds, resized weights, captions that are cut."""
    notes = _described(reports)
    if config.image.tower != GIVEN:
        notes.append(building.described_pixels(config))
    if isinstance(data, Store):
        views = data.views[config.data.train_split]
        what = "one plain view a photo, no augmentation" if views == 1 else f"{views} views a photo"
        if data.tower["kind"] != GIVEN and not is_record_set(pathlib.Path(config.data.records or "nowhere")):
            notes.append(f"records {config.data.records}: not at hand, so not compared with those of the store")
        notes.append(f"store {data.directory}: {what}, {data.dtype}, {data.nbytes(config.data.train_split):,} bytes")
    distinct = {text for group in texts.values() for text in group}
    longest = max(len(tokenizer.pieces(text)) for text in distinct) + len(tokenizer.processor.start) + 1
    if longest > config.text.context:
        notes.append(f"prompts of up to {longest} tokens are cut to text.context, {config.text.context}")
    return notes


def tokenizer_path(config: Config) -> pathlib.Path | None:
    """The tokenizer that a config names, fetched if it is on the hub; None if it names none."""
    name = config.data.tokenizer
    if name.startswith(HUB):
        return hub_folder(name)
    return pathlib.Path(name) if name else None


def open_tokenizer(config: Config, data: Data | None) -> Tokenizer:
    """The tokenizer of the config, else that of the data.

    Raises:
        UserError: if neither is there.
    """
    path = tokenizer_path(config) or (data.tokenizer if data else None)
    if not path:
        where = f"in {data.directory}" if data else "any data"
        raise UserError(f"data.tokenizer: found none in the config or {where}, expected a tokenizer's file or folder")
    return load_tokenizer(path)


def build_schedule(config: Config, examples: int) -> optax.Schedule:
    """The learning rate by optimizer step.

    Raises:
        UserError: a warm-up given both in steps and in epochs, or longer than the schedule.
    """
    accumulate = config.optimizer.accumulate
    per_epoch = steps_per_epoch(config, examples) / accumulate
    if config.optimizer.warmup_steps and config.optimizer.warmup_epochs:
        raise UserError("optimizer.warmup_steps: found warmup_epochs as well, expected one of the two; set one to 0")
    warmup = config.optimizer.warmup_steps or round(config.optimizer.warmup_epochs * per_epoch)
    horizon = total_steps(config, examples) // accumulate
    if config.optimizer.horizon_epochs:
        horizon = math.ceil(config.optimizer.horizon_epochs * per_epoch)
    return optimizer.warmup_cosine(peak=config.optimizer.lr, warmup_steps=warmup, horizon_steps=horizon)


def steps_per_epoch(config: Config, examples: int) -> float:
    """Batches that count as an epoch: those of all photos to train on, or as many as ``train.epoch_steps`` says.

    `examples` counts the training split, those that are set aside included.
    """
    trained_on = examples - number_aside(examples, config.data.select_fraction)
    return config.train.epoch_steps or trained_on / config.train.batch_size


def total_steps(config: Config, examples: int) -> int:
    """Batches of the whole run: enough for the epochs asked for, and whole optimizer steps."""
    accumulate = config.optimizer.accumulate
    # Rounded first: 1.1 times 10 may be a little more than 11.
    steps = round(config.train.epochs * steps_per_epoch(config, examples) / accumulate, 6)
    return math.ceil(steps) * accumulate


def build_optimizer(config: Config, schedule: optax.Schedule) -> optax.GradientTransformation:
    """AdamW as the config describes it."""
    chosen = config.optimizer
    letters = locking.lock_letters(config.train.locks)
    return optimizer.adamw(
        schedule, weight_decay=chosen.weight_decay, b1=chosen.b1, b2=chosen.b2, eps=chosen.eps,
        clip_norm=chosen.clip_norm, accumulate=chosen.accumulate,
        scales={tower: chosen.pretrained_scale for tower, letter in letters.items() if letter == "U"},
    )  # fmt: skip


def training_tasks(config: Config, records: Data, species_of: Mapping[int, int]) -> list[zeroshot.Task]:
    """Seen species among all seen ones; held-out species among themselves, and among all species.

    Where photos are set aside to choose the best checkpoint by, they are the first task.

    Args:
        config: checked.
        records: the data.
        species_of: each class id to that of the first row of its species; candidates are species.
    """
    chosen, tasks = config.data, []
    seen = set(records.classes_in(chosen.train_split))
    if chosen.seen_split:
        seen |= set(records.classes_in(chosen.seen_split))
    known = tuple(sorted({species_of[class_id] for class_id in seen}))
    if chosen.select_fraction:
        tasks.append(zeroshot.Task("set_aside", photo_embeddings.ASIDE, known))
    if chosen.seen_split:
        tasks.append(zeroshot.Task("seen", chosen.seen_split, known))
    split = chosen.heldout_split
    if split in records.splits:
        heldout = set(records.classes_in(split))
        if heldout & seen:
            raise UserError(f"data.heldout_split: found class id {min(heldout & seen)} in training too, expected none")
        heldout, seen = ({species_of[class_id] for class_id in ids} for ids in (heldout, seen))
        tasks.append(zeroshot.Task("heldout", split, tuple(sorted(heldout))))
        tasks.append(zeroshot.Task("heldout_among_all", split, tuple(sorted(heldout | seen))))
    return tasks


def chosen_on(config: Config) -> str:
    """The split by whose top-1 the best checkpoint of a run is chosen; `ASIDE` for photos set aside."""
    chosen = config.data
    return str(photo_embeddings.ASIDE if chosen.select_fraction else chosen.seen_split or chosen.heldout_split)


def _about_species(config: Config, data: Data, table: ClassTable) -> list[str]:
    """Species of several rows that were split between training and held out, before conversion saw to that."""
    split = config.data.heldout_split
    if split not in data.splits:
        return []
    known, held = ({table.species_of[i] for i in data.classes_in(name)} for name in (config.data.train_split, split))
    return [
        f"{table.label(i)} is held out and, in another row of the class table, in training too: no held-out figure "
        "means much for it; convert again"
        for i in sorted(known & held)
    ]


def _required(value: str, name: str, what: str) -> str:
    if not value:
        raise UserError(f"{name}: found nothing, expected a {what}; set it in the config or with --config.{name}=...")
    return value

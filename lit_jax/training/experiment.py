"""A training run, built: mesh, data, model, optimizer and evaluation, from a settled config.

`build` is the one function of training that sees the whole config. Everything below takes what it uses;
`lit_jax.training.loop` drives the result.
"""

import dataclasses
import functools
import importlib.metadata
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from lit_jax import config as options
from lit_jax.base import console, hosts
from lit_jax.base.precision import initial_loss_scale
from lit_jax.base.sharding import check_divides, make_mesh, put_replicated, replicated, with_sharding
from lit_jax.data import collection, input_stream
from lit_jax.data.embedding_store import GIVEN, Store
from lit_jax.data.epoch_order import set_aside
from lit_jax.data.record_batches import Batches
from lit_jax.data.records import is_record_set
from lit_jax.data.unique_captions import CaptionTable, caption_table
from lit_jax.embedding import photo_embeddings, text_embeddings
from lit_jax.embedding.about import About
from lit_jax.embedding.class_prompts import prompts_of_species
from lit_jax.embedding.photo_embeddings import ASIDE
from lit_jax.errors import UserError
from lit_jax.evaluation import zeroshot
from lit_jax.evaluation.closed_form import Choice, Photos
from lit_jax.models import building, locking
from lit_jax.models.locking import IMAGE, TEXT, Params
from lit_jax.models.two_tower import TwoTower
from lit_jax.models.weight_files import HUB, exists
from lit_jax.models.weights import LoadReport
from lit_jax.settling import Settled, open_tokenizer
from lit_jax.text.captions import class_captions
from lit_jax.text.classes import ClassTable, read_class_table
from lit_jax.text.prompts import class_prompts
from lit_jax.text.tokenizers import Tokenizer
from lit_jax.text.units import UNITS, Vocabulary, kinds_of, vocabulary
from lit_jax.training import optimizer, train_step
from lit_jax.training.length import Length, run_length, shortened
from lit_jax.training.start import Taught, choose, from_closed_form

Start = Callable[[], tuple[train_step.State, list[str]]]
Step = Callable[[train_step.State, Params, train_step.Batch], tuple[train_step.State, train_step.Metrics]]


class Shorter(NamedTuple):
    """Trainings like the run, each without some of its photos, for as many epochs and all with the same compiled step.

    Attributes:
        of: from the photos that are not trained on, `[N]` bool of the training split, to the stream and the start.
        step: the training step, with a schedule of this length.
        length: that of the training with the fewest photos.
        aside: `[N]` bool, photos that the run itself does not train on, since the best checkpoint is chosen by them.
    """

    of: Callable[[np.ndarray], tuple[input_stream.Feed, Start]]
    step: Step
    length: Length
    aside: np.ndarray


@dataclasses.dataclass
class Experiment:
    """A run, built and ready to go. Only `about` and `notes` change on the way.

    The state before the first step is made by `start`, with what is to be noted of its weights: a run that resumes
    never has it. `abstract_state` holds its shapes, dtypes and shardings. `without` gives trainings that leave photos
    out, from the photos that each of them leaves out, `[N]` bool of the training split.
    """

    config: Settled
    workdir: pathlib.Path
    mesh: Mesh
    data: collection.Collection
    feed: input_stream.Feed
    schedule: optax.Schedule
    step: Step
    start: Start
    without: Callable[[Sequence[np.ndarray]], Shorter]
    abstract_state: train_step.State
    locked: Params
    about: About
    evaluator: zeroshot.Evaluator
    species_of: Mapping[int, int]
    notes: list[str]
    length: Length


def build(config: Settled, data: collection.Collection, workdir: pathlib.Path) -> Experiment:
    """Makes the model and puts the parameters on the mesh.

    Args:
        config: from `lit_jax.settling.settle_run`, as is `data`.
        data: to train on and to evaluate with.
        workdir: the run's folder.

    Raises:
        UserError: a batch that does not divide, missing weights or tokenizer.
    """
    mesh = make_mesh(config.train.devices)
    check_divides(config.train.batch_size, mesh.size, name="train.batch_size")
    check_divides(config.evaluation.batch_size, mesh.size, name="evaluation.batch_size")
    towers, table = config.towers, read_class_table(data.class_table)
    tokenizer = dataclasses.replace(open_tokenizer(config.data.tokenizer, data), units=known_units(config, data, table))
    model = building.build_model(towers, tokenizer)
    if isinstance(data, Store):
        _check_weights(towers, model, data)
    moving, still = locking.split_locked(building.param_shapes(towers, model), towers.locks)
    locked, reports = building.initial_params(towers, model, parts=still)
    digests = {name: reports[name].digest for name in locked}
    hosts.ensure_same({f"weights of the {name} tower": digest for name, digest in digests.items()})
    if isinstance(data, Store):
        digests[IMAGE] = data.tower["digest"]
    examples, fraction = data.examples(config.data.train_split), config.data.select_fraction
    parts = _Parts(
        config, data, mesh, model, tokenizer, table,
        set_aside(examples, fraction, config.seed) if fraction else None, locked,
    )  # fmt: skip
    if isinstance(data, Store):
        stored = input_stream.open_split(data, config.data.train_split, mesh, place=config.data.store_on)
        parts = dataclasses.replace(parts, stored=stored, captions=parts.read_captions())
    choice = functools.cache(parts.chosen)  # of the whole run, and for trainings without some of its species
    length = run_length(config.train, photos=parts.photos_to_train_on, accumulate=config.optimizer.accumulate)
    adamw, step = optimizer_and_step(
        model, mesh, length, config.optimizer, config.model, towers.locks, config.train.precision
    )
    texts = class_prompts(
        parts.table, data.templates, config.templates, drop_repeats=data.drop_repeats,
        protocol=config.evaluation.protocol,
    )  # fmt: skip
    return Experiment(
        config=config,
        workdir=workdir,
        mesh=mesh,
        data=data,
        feed=parts.feed(),
        schedule=optimizer.schedule_of(config.optimizer, length),
        step=step,
        start=functools.partial(_start, parts, choice, adamw, moving),
        without=functools.partial(_without, parts, choice, moving, length),
        abstract_state=_abstract_state(moving, adamw, config.train.precision, mesh),
        locked=put_replicated(building.stored(towers, model, locked), mesh),
        about=parts.about(digests),
        evaluator=parts.evaluator(texts, keeps=IMAGE in digests),
        species_of=parts.table.species_of,
        notes=[*config.notes, *parts.notes(texts, reports), *_about_species(config.data, data, parts.table)],
        length=length,
    )


def ensure_same_on_hosts(config: options.Config, data: collection.Collection) -> None:
    """Stops before anything is built if hosts differ in options, data or versions.

    Args:
        config: as it was given.
        data: that the run reads.

    Raises:
        UserError: naming the first thing that differs, and where.
    """
    versions = {name: importlib.metadata.version(name) for name in ("lit_jax", "jax", "jaxlib", "flax", "optax")}
    facts = {f"version of {name}": version for name, version in versions.items()}
    facts |= {name: repr(value) for name, value in options.flattened(config).items()}
    facts["fingerprint of the data"] = data.fingerprint
    hosts.ensure_same(facts)


def known_units(config: Settled, data: collection.Collection, table: ClassTable) -> Vocabulary:
    """The units of the training classes' captions, for a text tower that reads units."""
    trained = table.subset(set(data.classes_in(config.data.train_split)))
    captions = class_captions(trained, data.templates, drop_repeats=data.drop_repeats)
    return vocabulary([text for group in captions for text in group], kinds_of(config.text.units))


def _start(
    parts: "_Parts", choose: Callable[[], Choice], adamw: optax.GradientTransformation, wanted: Collection[str]
) -> tuple[train_step.State, list[str]]:
    towers = parts.config.towers
    moving, reports = building.initial_params(towers, parts.model, parts=wanted)
    notes = _described(reports)
    if parts.config.model.start == "solve":
        choice = choose()
        moving = from_closed_form(parts.model, moving, parts.taught({**moving, **parts.locked}[TEXT]), choice)
        notes.append(
            f"starts at the closed form: whitening {1 - choice.shrinkage:.1f}, penalty {choice.penalty:g}, chosen on "
            f"training species held out in turn, of which it named {100 * choice.top1:.1f} % among themselves"
        )
    state = train_step.initial_state(moving, adamw, initial_loss_scale(towers.precision))
    return put_replicated(state, parts.mesh), notes


def _without(
    parts: "_Parts",
    choose: Callable[[], Choice],
    wanted: Collection[str],
    length: Length,
    left_out: Sequence[np.ndarray],
) -> Shorter:
    config, towers = parts.config, parts.config.towers
    accumulate = config.optimizer.accumulate
    fewest = min(parts.without(photos).photos for photos in left_out)
    whole, length = length, shortened(length, photos=fewest, of=parts.photos, accumulate=accumulate)
    # Warm-up in epochs follows the length; in steps it would be all of a short training.
    warmup = config.optimizer.warmup_steps * length.steps // max(whole.steps, 1)
    adamw, step = optimizer_and_step(
        parts.model,
        parts.mesh,
        length,
        dataclasses.replace(config.optimizer, warmup_steps=warmup),
        config.model,
        towers.locks,
        config.train.precision,
    )

    def of(photos: np.ndarray) -> tuple[input_stream.Feed, Start]:
        fewer = parts.without(photos)
        return fewer.feed(), functools.partial(_start, fewer, choose, adamw, wanted)

    aside = np.zeros(parts.data.examples(config.data.train_split), bool) if parts.aside is None else parts.aside
    return Shorter(of, step, length, aside)


def _abstract_state(
    moving: Params, adamw: optax.GradientTransformation, precision: str, mesh: Mesh
) -> train_step.State:
    scale = initial_loss_scale(precision)
    state = jax.eval_shape(lambda moving: train_step.initial_state(moving, adamw, scale), moving)
    return with_sharding(state, replicated(mesh))


def _described(reports: Mapping[str, LoadReport]) -> list[str]:
    return [f"{tower} tower: {found}" for tower, found in reports.items()]


def _not_at_hand(config: Settled) -> list[str]:
    """Lines on records and weights that a store was made of and that are not there to compare it with."""
    notes, weights = [], config.image.weights
    if not is_record_set(pathlib.Path(config.data.records or "nowhere")):
        notes.append(f"records {config.data.records}: not at hand, so not compared with those of the store")
    if weights and not (exists(weights) or weights.startswith(HUB)):
        notes.append(
            f"image.weights {weights}: not at hand, so not compared with those of the store; naming photos and "
            "exporting need them"
        )
    return notes


def _check_weights(towers: building.Towers, model: TwoTower, store: Store) -> None:
    """Refuses a store that other weights made than those of the config, where these are at hand."""
    if model.image is None or not exists(towers.image.weights):
        return
    found = building.load_tower(towers, model, IMAGE)[1].digest
    if found != store.tower["digest"]:
        raise UserError(
            f"store {store.directory}: found embeddings by weights {store.tower['digest'][:12]}, expected {found[:12]} "
            f"of image.weights; embed again with --restart, or to another data.store"
        )


@dataclasses.dataclass(frozen=True)
class _Parts:
    """What a run is built of. `aside` tells which photos of the training split are not trained on, `[N]` bool.

    `locked` are the parameters that do not move. Of a store, `stored` is its training split, opened, checked and put on
    the devices once, and `captions` are those of its classes, see `read_captions`.
    """

    config: Settled
    data: collection.Collection
    mesh: Mesh
    model: TwoTower
    tokenizer: Tokenizer
    table: ClassTable
    aside: np.ndarray | None
    locked: Params
    stored: input_stream.StoredSplit | None = None
    captions: CaptionTable | None = None

    def without(self, photos: np.ndarray) -> "_Parts":
        """The same without some more photos of the training split, `[N]` bool."""
        return dataclasses.replace(self, aside=photos if self.aside is None else photos | self.aside)

    @property
    def photos(self) -> int:
        """Photos of the training split less those that are set aside."""
        examples = self.data.examples(self.config.data.train_split)
        return examples if self.aside is None else int(np.sum(~self.aside))

    @property
    def photos_to_train_on(self) -> int:
        """As `photos`.

        Raises:
            UserError: fewer than a batch.
        """
        number = self.photos
        if self.config.train.batch_size > number and self.config.train.epochs > 0:  # else no batch is drawn
            raise UserError(
                f"train.batch_size: found {self.config.train.batch_size}, expected at most the {number} photos of "
                f"data.train_split to train on; a tenth of them or less makes good batches"
            )
        return number

    def feed(self) -> input_stream.Feed:
        """The stream of training batches, without the photos that are set aside.

        Raises:
            UserError: a store whose shards are not as they were written.
        """
        config, data, tokenizer = self.config, self.data, self.tokenizer
        split = config.data.train_split
        batches = Batches(config.train.batch_size, config.seed, config.data.shuffle_window, self.aside)
        rows = input_stream.TextRows(tokenizer.end_id, config.text.distinct, config.text.bucket)
        if not isinstance(data, Store):
            return input_stream.from_records(
                data, split, self.mesh, batches=batches, pictures=building.pictures_of(config.image, config.data),
                tokenise=self.tokenise, rows=rows,
            )  # fmt: skip
        assert self.stored is not None and self.captions is not None, "of a store"
        if building.reads_words(config.towers, self.model, from_store=True):
            rows = rows._replace(bucket=0)  # features are not cut
        return input_stream.from_store(self.stored, self.mesh, batches=batches, captions=self.captions, rows=rows)

    def read_captions(self) -> CaptionTable:
        """Captions of every class as tokens or, where the text tower is locked, as what it makes of them."""
        texts = class_captions(self.table, self.data.templates, drop_repeats=self.data.drop_repeats)
        captions = caption_table(dict(zip(self.table.ids, texts, strict=True)), self.tokenise)
        if building.reads_words(self.config.towers, self.model, from_store=True):
            words = text_embeddings.text_features(self.model, self.locked[TEXT], captions.tokens)
            captions = captions._replace(tokens=words)
        return captions

    def chosen(self) -> Choice:
        """Whitening and penalty of the closed form."""
        moving = (
            {} if TEXT in self.locked else building.initial_params(self.config.towers, self.model, parts=(TEXT,))[0]
        )
        taught = self.taught({**moving, **self.locked}[TEXT])
        with console.Progress(1, quiet=jax.process_index() != 0) as progress:
            return choose(taught, seed=self.config.seed, tell=console.part(progress, "closed form"))

    def taught(self, tower: Params) -> Taught:
        """What the closed form learns from: photos to train on, and the captions of all classes by the text tower."""
        assert self.stored is not None, "settling refuses the closed form without a store"
        rows = self.stored.rows
        kept = np.arange(len(rows)) if self.aside is None else np.flatnonzero(~self.aside)
        table = self.table.subset(dict.fromkeys(self.table.species_of.values()))
        row_of = {class_id: row for row, class_id in enumerate(table.ids)}
        labels = np.array([row_of[self.table.species_of[i]] for i in rows.class_ids[kept].tolist()])
        texts = class_captions(table, self.data.templates, drop_repeats=self.data.drop_repeats)
        tokens = self.tokenise([text for group in texts for text in group])
        words = text_embeddings.text_features(self.model, tower, tokens).astype(np.float64)
        return Taught(Photos(rows.take(kept), labels), words.reshape(len(table), -1, words.shape[-1]).mean(1))

    def tokenise(self, texts: Sequence[str]) -> np.ndarray:
        """Texts to tokens, `[n, T]` int32."""
        return building.reading(self.config.text, self.tokenizer)(texts)

    def evaluator(self, texts: Mapping[int, Sequence[str]], *, keeps: bool) -> zeroshot.Evaluator:
        """Zero-shot evaluation with the prompts `texts` of each class id; `keeps` features if the tower is locked."""
        config, tokenizer, size = self.config, self.tokenizer, self.config.evaluation.batch_size
        jitted = photo_embeddings.embedder(self.model, self.mesh)
        return zeroshot.Evaluator(
            parts=jitted,
            photos=photo_embeddings.photos_of(
                jitted, self.data, pictures=building.pictures_of(config.image, config.data), batch_size=size,
                aside=None if self.aside is None else (config.data.train_split, self.aside),
            ),
            tasks=training_tasks(config.data, self.data, self.table.species_of),
            species_of=self.table.species_of,
            together=together(config.data, self.data, self.table.species_of),
            class_prompts=prompts_of_species(texts, self.table.species_of),
            tokenise=self.tokenise,
            batch_size=size,
            end_id=tokenizer.end_id if config.text.bucket else None,
            keep=keeps,
        )  # fmt: skip

    def about(self, digests: dict[str, str]) -> About:
        """The description that goes with every checkpoint of the run, as it is before the first step."""
        data = self.data
        return About(
            config=options.flattened(self.config),
            position=0,
            locked=digests,
            fingerprint=collection.fingerprint(data),
            store=data.fingerprint if isinstance(data, Store) else "",
            templates=list(data.templates),
            drop_repeats=data.drop_repeats,
            class_table=data.class_table.read_text(encoding="utf-8"),
            train_classes=list(data.classes_in(self.config.data.train_split)),
            prompt_templates=list(self.config.templates),
            hosts=1,
            tokenizer=self.tokenizer.model_bytes,
            units=list(map(list, self.tokenizer.units)),
        )

    def notes(self, texts: Mapping[int, Sequence[str]], reports: Mapping[str, LoadReport]) -> list[str]:
        """Lines that a person should read first: what the store holds, resized weights, captions that are cut."""
        config, data, notes = self.config, self.data, _described(reports)
        if config.image.tower != GIVEN:
            notes.append(building.described_pixels(config.image))
        if isinstance(data, Store):
            views, size = data.views[config.data.train_split], data.nbytes(config.data.train_split)
            what = "one plain view a photo, no augmentation" if views == 1 else f"{views} views a photo"
            if data.tower["kind"] != GIVEN:
                notes += _not_at_hand(config)
            notes.append(f"store {data.directory}: {what}, {data.dtype}, {size:,} bytes")
        distinct = {text for group in texts.values() for text in group}
        words = self.tokenizer
        longest = max(len(words.pieces(text)) for text in distinct) + len(words.processor.start) + 1
        if config.text.tower != UNITS and longest > config.text.context:
            notes.append(
                f"prompts of up to {longest} tokens, those of held-out classes among them, are cut to text.context, "
                f"{config.text.context}; a larger one reads them whole"
            )
        return notes


@functools.lru_cache(maxsize=8)
def optimizer_and_step(
    model: TwoTower, mesh: Mesh, length: Length, chosen: options.Optimizer, joint: options.Model, locks: str,
    precision: str,
) -> tuple[optax.GradientTransformation, Step]:  # fmt: skip
    """The optimizer and the jitted training step as the options describe them.

    Kept for the next run in this process that is alike, whose step is then neither traced nor compiled again.
    """
    adamw = optimizer.adamw(chosen, optimizer.schedule_of(chosen, length), locks)
    return adamw, train_step.make_step(
        model, adamw, max_scale=joint.scale_max, dynamic_scale=precision == "float16",
        same_caption=joint.same_caption, block=joint.loss_block, mesh=mesh,
    )  # fmt: skip


def training_tasks(
    chosen: options.Data, records: collection.Collection, species_of: Mapping[int, int]
) -> list[zeroshot.Task]:
    """Seen species among all seen ones; held-out species among themselves, and among all species.

    Where photos are set aside to choose the best checkpoint by, they are the first task.

    Args:
        chosen: the splits.
        records: the data.
        species_of: each class id to that of the first row of its species; candidates are species.
    """
    tasks = []
    seen = set(records.classes_in(chosen.train_split))
    if chosen.seen_split:
        seen |= set(records.classes_in(chosen.seen_split))
    known = tuple(sorted({species_of[class_id] for class_id in seen}))
    if chosen.select_fraction:
        tasks.append(zeroshot.Task("set_aside", ASIDE, known))
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


def together(
    chosen: options.Data, records: collection.Collection, species_of: Mapping[int, int]
) -> zeroshot.Together | None:
    """Photos of seen and of held-out species, among all of them; None where the data has not both."""
    splits = (chosen.seen_split, chosen.heldout_split)
    if not all(split in records.splits for split in splits):
        return None
    seen, every = (
        {species_of[class_id] for split in wanted for class_id in records.classes_in(split)}
        for wanted in ((chosen.train_split, chosen.seen_split), (chosen.train_split, *splits))
    )
    return zeroshot.Together(splits, tuple(sorted(every)), frozenset(seen))


def chosen_on(config: options.Config) -> str:
    """The split on which top-1 chooses the best checkpoint of a run; `ASIDE` for photos set aside, empty for no choice.

    A run of no epoch, or one that saves at the end only, has one checkpoint.
    """
    if config.train.epochs == 0 or config.checkpoint.every_epochs == 0:
        return ""
    data = config.data
    return str(ASIDE if data.select_fraction else data.seen_split or data.heldout_split)


def _about_species(chosen: options.Data, data: collection.Collection, table: ClassTable) -> list[str]:
    """Notes about species of which one row of the class table is in training and another is held out."""
    split = chosen.heldout_split
    if split not in data.splits:
        return []
    known, held = ({table.species_of[i] for i in data.classes_in(name)} for name in (chosen.train_split, split))
    return [
        f"{table.label(i)} is held out and, in another row of the class table, in training too: no held-out figure "
        "means much for it; convert again"
        for i in sorted(known & held)
    ]

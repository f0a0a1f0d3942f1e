"""A run as shapes: its memory and its arithmetic, from its config and the size of its data alone.

No parameter is drawn and no photo is read. Memory is what the compiler plans for the training step of the config;
arithmetic is counted in that step's program.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lit_jax import models
from lit_jax.base.precision import DTYPES, initial_loss_scale
from lit_jax.base.sharding import check_divides, make_mesh, over_batch, replicated, with_sharding
from lit_jax.data.collection import Collection
from lit_jax.data.dataset_folder import check_split
from lit_jax.data.embedding_store import DTYPES as STORED
from lit_jax.data.embedding_store import GIVEN, Store
from lit_jax.data.epoch_order import number_aside
from lit_jax.data.unique_captions import rounded_up
from lit_jax.errors import UserError
from lit_jax.models import building, locking
from lit_jax.models.locking import IMAGE, TEXT, Params
from lit_jax.models.two_tower import TwoTower
from lit_jax.planning import arithmetic
from lit_jax.settling import Settled, open_tokenizer
from lit_jax.text.captions import class_captions
from lit_jax.text.classes import read_class_table
from lit_jax.text.tokenizers import END_ID, PAD_ID, Tokenizer, lengths
from lit_jax.text.units import Vocabulary, kinds_of, unlimited
from lit_jax.training import train_step
from lit_jax.training.experiment import known_units, optimizer_and_step
from lit_jax.training.length import Length, run_length

AHEAD = 2  # batches that wait on the device, the depth of `lit_jax.data.record_batches.ahead`
STORED_BYTES = {name: np.dtype(kind).itemsize for name, kind in STORED.items()}
LOSS_COPIES = 4 + 4  # bytes an entry: the loss's texts in float32, and their gradient


class Data(NamedTuple):
    """Facts about the data that decide the sizes of a run.

    Attributes:
        source: where the figures come from.
        photos: of each split, by its name; the training split first.
        views: of each split.
        dtype: of stored features.
        classes: in the training split; 0 if unknown.
        captions: C, distinct ones of the training split.
        longest: tokens of the longest of them; 0 if unknown.
        vocab_size: of the tokenizer.
        units: that the text tower knows, see `lit_jax.text.units`; as many as can be where no captions tell.
    """

    source: str
    photos: dict[str, int]
    views: dict[str, int]
    dtype: str
    classes: int
    captions: int
    longest: int
    vocab_size: int
    units: Vocabulary = ()

    @property
    def examples(self) -> int:
        """Photos of the training split."""
        return next(iter(self.photos.values()))

    @property
    def rows(self) -> dict[str, int]:
        """Embeddings of each split: views times photos."""
        return {split: photos * self.views[split] for split, photos in self.photos.items()}


@dataclasses.dataclass(frozen=True)
class Run:
    """A run as shapes.

    Attributes:
        config: settled.
        data: its sizes.
        model: the towers.
        devices: N, all that the run will have.
        mesh: those of them that are here; each holds what one of the N will hold.
        hosts: over which the N are spread, as many on each.
    """

    config: Settled
    data: Data
    model: TwoTower
    devices: int
    mesh: Mesh
    hosts: int = 1

    @property
    def length(self) -> Length:
        """How many steps it has."""
        config, examples = self.config, self.data.examples
        photos = examples - number_aside(examples, config.data.select_fraction)
        return run_length(config.train, photos=photos, accumulate=config.optimizer.accumulate)

    @property
    def has_tower(self) -> bool:
        """Whether photos can be looked at."""
        return self.model.image is not None

    @property
    def is_locked(self) -> bool:
        """Whether the image tower never moves, so that a store can stand for it."""
        return locking.lock_letters(self.config.train.locks)[IMAGE] == "L"


def known_data(
    config: Settled,
    found: Collection | None,
    *,
    examples: int = 0,
    vocab_size: int = 0,
    captions: int = 0,
    longest: int = 0,
) -> Data:
    """Sizes from the store or the record set of a config; numbers that are given come before what is found.

    Args:
        config: of the run.
        found: the store or the records of the config, as far as they are at hand.
        examples: photos to train on.
        vocab_size: of the tokenizer.
        captions: distinct ones.
        longest: tokens of the longest caption.

    Raises:
        UserError: neither is there, and no numbers are given instead.
    """
    chosen, kinds = config.data, kinds_of(config.text.units)
    split, units = chosen.train_split, unlimited(kinds)
    if found is None and not examples:
        raise UserError(
            "data: found neither a store nor records of this config, expected one of them; make it, or give "
            "--examples and --vocab-size"
        )
    tokenizer = None if vocab_size else _tokenizer(chosen.tokenizer, found)
    if found is not None:
        check_split(split, found.splits, found.directory, option="data.train_split")
    photos = {split: examples or found.examples(split)} if found else {split: examples}
    classes = distinct = tokens = 0
    if found is not None:
        photos |= {name: found.examples(name) for name in found.splits if name != split}
        classes = len(found.classes_in(split))
        distinct, tokens = _captions(found, split, tokenizer, config.text.context)
        units = known_units(config, found, read_class_table(found.class_table))
    stored = found if isinstance(found, Store) else None
    return Data(
        source=str(found.directory) if found else "numbers on the command line",
        photos=photos,
        views={name: stored.views[name] if stored else 1 for name in photos},
        dtype=stored.dtype if stored else "float16",
        classes=classes,
        captions=captions or distinct or examples,
        longest=longest or tokens,
        vocab_size=tokenizer.vocab_size if tokenizer else vocab_size,
        units=units,
    )


def _tokenizer(name: str, found: Collection | None) -> Tokenizer:
    if found is None and not name:
        raise UserError("--vocab-size: found none, and no data.tokenizer, expected one of them; give --vocab-size")
    return open_tokenizer(name, found)


def _captions(found: Collection, split: str, tokenizer: Tokenizer | None, context: int) -> tuple[int, int]:
    """Distinct captions of the training classes, and tokens of the longest; 0 where no tokenizer tells."""
    table, wanted = read_class_table(found.class_table), set(found.classes_in(split))
    groups = class_captions(table, found.templates, drop_repeats=found.drop_repeats)
    texts = {text for class_id, group in zip(table.ids, groups, strict=True) if class_id in wanted for text in group}
    if tokenizer is None:
        return len(texts), 0
    tokens = np.unique(tokenizer.encode(sorted(texts), context), axis=0)
    return len(tokens), int(lengths(tokens, tokenizer.end_id).max())


def prepare(config: Settled, data: Data, devices: int = 0, *, hosts: int = 1) -> Run:
    """The run of a config on N devices of some hosts; 0 for those of the config, or as many on each as are here.

    Raises:
        UserError: a batch that does not divide, or is larger than the data; a store for a tower that is not locked;
            devices that do not divide by hosts.
    """
    here = len(jax.local_devices())
    devices = devices or config.train.devices or hosts * here
    if devices % hosts:
        raise UserError(
            f"train.devices: found {devices} on {hosts} hosts, expected as many on each; give --devices of a host"
        )
    check_divides(config.train.batch_size, devices, name="train.batch_size")
    if config.train.batch_size > data.examples and config.train.epochs > 0:
        raise UserError(
            f"train.batch_size: found {config.train.batch_size}, expected at most {data.examples}, all photos"
        )
    if config.image.tower == GIVEN and config.input == "records":
        raise UserError('image.tower: found given with input "records", expected a tower; set input = "store"')
    # Only sizes are read of it.
    model = building.build_model(config.towers, Tokenizer(b"", data.vocab_size, END_ID, PAD_ID, None, data.units))
    mesh = make_mesh(max(n for n in range(1, min(devices, here) + 1) if devices % n == 0), local=True)
    run = Run(config, data, model, devices, mesh, hosts)
    if config.input == "store":
        locking.check_image_locked(config.train.locks, 'with input "store"')
    return run


def expected_distinct(batch: int, captions: int) -> float:
    """Captions that a batch of photos holds on average, if all are equally likely."""
    return captions * (1 - (1 - 1 / captions) ** batch)


def text_shape(run: Run, batch: int) -> tuple[int, int]:
    """(U, T) of a global batch on average: rows and tokens of its texts."""
    text, data = run.config.text, run.data
    tokens = building.text_length(text)
    if text.bucket and data.longest:
        tokens = min(-(-data.longest // text.bucket) * text.bucket, tokens)
    if not text.distinct:
        return batch, tokens
    return rounded_up(math.ceil(expected_distinct(batch, data.captions)), run.devices), tokens


def batch_shapes(run: Run, batch: int, source: str, *, devices: int = 0) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch as the step takes it, or the part of it that some of the N devices get.

    Args:
        run: the run.
        batch: B, of all devices.
        source: ``records`` or ``store``.
        devices: whose part; 0 for the whole batch.
    """
    config, share = run.config, devices or run.devices
    rows, tokens = text_shape(run, batch)
    photos = batch * share // run.devices
    shapes = {}
    if config.text.distinct:
        rows = rounded_up(-(-rows * share // run.devices), share)
        shapes["caption"] = jax.ShapeDtypeStruct((photos,), jnp.int32)
    else:
        rows = photos
    width = _words_width(run, source)
    shapes["words" if width else "tokens"] = jax.ShapeDtypeStruct(
        (rows, width or tokens), jnp.float32 if width else jnp.int32
    )
    if source == "store":
        shapes["features"] = jax.ShapeDtypeStruct((photos, config.image.width), STORED[run.data.dtype])
    else:
        shapes["image"] = jax.ShapeDtypeStruct((photos, config.image.size, config.image.size, 3), jnp.uint8)
    return shapes


def _words_width(run: Run, source: str) -> int:
    """F, where a locked text tower runs once a caption before training; 0 where it runs in each step."""
    if not building.reads_words(run.config.towers, run.model, from_store=source == "store"):
        return 0
    tokens = jax.ShapeDtypeStruct((1, building.text_length(run.config.text)), jnp.int32)
    tower = building.param_shapes(run.config.towers, run.model)[TEXT]
    return int(jax.eval_shape(lambda tower, x: models.text_features(run.model, tower, x), tower, tokens).shape[-1])


def step_and_shapes(run: Run, source: str) -> tuple[Any, train_step.State, Params]:
    """The jitted step of the config, and its state and locked parameters as shapes."""
    config, towers = run.config, run.config.towers
    params = building.param_shapes(towers, run.model)
    if source == "store":
        params.pop(IMAGE, None)
    moving, locked = locking.split_locked(params, config.train.locks)
    precision = config.train.precision
    adamw, step = optimizer_and_step(
        run.model, run.mesh, run.length, config.optimizer, config.model, towers.locks, precision
    )
    state = jax.eval_shape(
        lambda moving: train_step.initial_state(moving, adamw, initial_loss_scale(precision)), moving
    )
    locked = jax.eval_shape(lambda locked: building.stored(towers, run.model, locked), locked)
    return step, state, locked


def step_memory(run: Run, batch: int) -> dict[str, int]:
    """What one device holds during a step of a batch of B photos, as its compiler plans it.

    Returns:
        Bytes of each part; of ``step``, all of them together, the state counted once although there is an old and a
        new one; and of ``gradients``, which are among the temporaries.
    """
    source, mesh = run.config.input, run.mesh
    step, state, locked = step_and_shapes(run, source)
    shapes = batch_shapes(run, batch, source, devices=mesh.size)
    placed = (
        with_sharding(state, replicated(mesh)),
        with_sharding(locked, replicated(mesh)),
        with_sharding(shapes, over_batch(mesh)),
    )
    found = step.lower(*placed).compile().memory_analysis()
    total = (
        found.argument_size_in_bytes + found.temp_size_in_bytes
        + found.output_size_in_bytes - found.alias_size_in_bytes
    )  # fmt: skip
    parts = {
        "parameters": nbytes(state.params),
        "optimizer": nbytes(state.optimizer),
        "locked": nbytes(locked),
        "batch": nbytes(shapes) // mesh.size,
    }
    return {**parts, "temporaries": total - sum(parts.values()), "step": total, "gradients": parts["parameters"]}


def nbytes(shapes: Any) -> int:
    """Bytes of a tree of shapes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(shapes))


def device_memory(run: Run, batch: int, stored: int) -> dict[str, int]:
    """`step_memory` and what else lies on a device: the store, batches that wait, texts of devices not here.

    Args:
        run: the run.
        batch: B.
        stored: bytes of the store on each device.

    Returns:
        Bytes of each part, and their ``total``.
    """
    parts = step_memory(run, batch)
    # The loss gathers the texts of all devices; the compiler here sees those of the devices that are here.
    elsewhere = text_shape(run, batch)[0] * (run.devices - run.mesh.size) // run.devices
    each = LOSS_COPIES + jnp.dtype(DTYPES[run.config.train.precision]).itemsize
    more = {
        "waiting": AHEAD * parts["batch"],
        "store": stored,
        "gathered": elsewhere * run.config.model.embed_dim * each,
    }
    return {**parts, **more, "total": parts["step"] + sum(more.values())}


def step_flops(run: Run, source: str) -> dict[str, int]:
    """Arithmetic of one step of the whole batch, over all devices, by part; see `lit_jax.planning.arithmetic`.

    Returns:
        Operations of ``image tower``, ``text tower``, ``projection and loss``, each forward and, where it moves,
        backward, and of the ``step``, all of them together.
    """
    model, batch = run.model, batch_shapes(run, run.config.train.batch_size, source)
    step, state, locked = step_and_shapes(run, source)
    parts = {"image tower": 0}
    if source == "records":
        parts["image tower"] = _tower_flops(
            lambda tower, images: models.image_features(model, tower, images),
            "image", state.params, locked, batch["image"],
        )  # fmt: skip
    parts["text tower"] = 0
    if "tokens" in batch:
        parts["text tower"] = _tower_flops(
            lambda tower, tokens: model.text.apply({"params": tower}, tokens),
            "text", state.params, locked, batch["tokens"],
        )  # fmt: skip
    whole = arithmetic.count(step, state, locked, batch)
    return {**parts, "projection and loss": whole - sum(parts.values()), "step": whole}


def _tower_flops(function: Any, name: str, moving: Params, locked: Params, inputs: Any) -> int:
    """Arithmetic of one tower in a step: forward, and backward too where it moves."""
    if name in locked:
        return arithmetic.count(function, locked[name], inputs)
    return arithmetic.forward_and_backward(function, moving[name], inputs)


def photo_flops(run: Run) -> int:
    """Arithmetic of the image tower for one photo, forward."""
    size = run.config.image.size
    photo = jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)
    return arithmetic.count(
        lambda tower, images: models.image_features(run.model, tower, images),
        building.param_shapes(run.config.towers, run.model)[IMAGE],
        photo,
    )

"""Embed once: ``python -m lit_jax.embed --config=configs/cub.py`` runs the frozen tower over a record set.

What comes out is an embedding store (`lit_jax.data.embedding_store`); training with ``input = "store"`` reads it in
place of photos. Work is done in ``STORE.incomplete``, shard by shard; a run that was stopped in whatever way goes on
with the first shard that is missing, and the last step renames the folder. Equal records, tower and options give equal
bytes.
"""

import contextlib
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from lit_jax import config as options
from lit_jax import models
from lit_jax.base import console, hosts
from lit_jax.base.files import INCOMPLETE, alone_in
from lit_jax.base.sharding import check_divides, local_rows, make_mesh, over_batch, put_batch, put_replicated
from lit_jax.data import embedding_store, record_batches
from lit_jax.data.dataset_folder import check_split
from lit_jax.data.embedding_store import Store
from lit_jax.data.records import RecordSet, open_records
from lit_jax.errors import UserError
from lit_jax.models import building, locking
from lit_jax.models.two_tower import Params, TwoTower
from lit_jax.training import experiment


class Piece(NamedTuple):
    """One shard to write: its split, its name, its rows from `first` to `stop`, and how many views of each."""

    split: str
    name: str
    first: int
    stop: int
    views: int


def embed(
    config: Any,
    out: str | pathlib.Path,
    *,
    dtype: str = "float16",
    views: int = 1,
    batch_size: int = 256,
    shard_rows: int = 16384,
    devices: int = 0,
    restart: bool = False,
) -> Store:
    """Writes the store of a config's records and image tower, or goes on writing it.

    Several hosts write shards of their own into the same folder.

    Args:
        config: checked by `lit_jax.config.load`; its image tower must be locked and have weights.
        out: the folder to make.
        dtype: of the stored features: float16, bfloat16 or float32.
        views: V of the training split. View 0 is the photo as evaluation sees it, the others are random crops by
            ``data.crop_scale`` and ``data.flip``. Other splits have one view.
        batch_size: photos at a time, over all devices of a host.
        shard_rows: rows of a shard at the most.
        devices: of each host to use; 0 for all.
        restart: make anew what is there already.

    Raises:
        UserError: no records or weights, a complete store, an unfinished one with other options, another process at
            work on it, a feature that `dtype` cannot hold.
    """
    out = pathlib.Path(out).absolute()
    check_tower(config)
    # Also of a config that trains from the store, what stands beside the weights counts here, where they are read.
    config = ml_collections.FrozenConfigDict(options.nested({**options.flattened(config), "input": "records"}))
    records = open_records(config.data.records)  # before weights are asked for, which may have to be fetched
    mesh = make_mesh(devices, local=True)
    check_divides(batch_size, mesh.size, name="--batch-size")
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0 and (restart or not embedding_store.is_store(out)):
            stack.enter_context(alone_in(_aside(out), "embedding"))
        return _embed(
            building.settled(config), records, out, mesh,
            dtype=dtype, views=views, batch_size=batch_size, shard_rows=shard_rows, restart=restart,
        )  # fmt: skip


def _aside(out: pathlib.Path) -> pathlib.Path:
    return out.with_name(out.name + INCOMPLETE)


def _embed(
    config: Any, records: RecordSet, out: pathlib.Path, mesh: Mesh, *, dtype: str, views: int, batch_size: int,
    shard_rows: int, restart: bool,
) -> Store:  # fmt: skip
    """`embed` with a settled config, in a folder in which no other process is at work."""
    for note in building.preset_notes(config) if jax.process_index() == 0 else ():
        print(f"note: {note}")
    model, tower, digest = locked_tower(config, records)
    made_by = described(config, digest, views)
    pieces = list(all_pieces(records, config.data.train_split, views, shard_rows))
    if embedding_store.is_store(out) and not restart:
        of_split = {piece.split: piece.views for piece in pieces}
        return _unchanged(embedding_store.open_store(out), made_by, records, dtype, of_split)
    plan = {"records": records.fingerprint, "tower": made_by, "dtype": dtype, "views": views, "shard rows": shard_rows}
    if jax.process_index() == 0:
        embedding_store.begin(out, plan, restart=restart)
    hosts.wait_for_all_hosts("the store's folder is there")
    aside = _aside(out)
    tower = building.stored(config, model, {"image": tower})["image"]
    own = pieces[jax.process_index() :: jax.process_count()]
    todo = [piece for piece in own if embedding_store.finished_shard(aside, piece.name) is None]
    _write(aside, todo, records, config, model, put_replicated(tower, mesh), mesh,
           batch_size=batch_size, dtype=dtype, done=len(own) - len(todo))  # fmt: skip
    hosts.wait_for_all_hosts("all shards are written")
    if jax.process_index() == 0:
        _finish(aside, out, pieces, records, config, dtype=dtype, tower=made_by)
    hosts.wait_for_all_hosts("the store is complete")
    return embedding_store.open_store(out)


def _unchanged(found: Store, tower: dict[str, Any], records: RecordSet, dtype: str, views: dict[str, int]) -> Store:
    """A store that is there already, if it is what would be made."""
    other = [f"views ({max(found.views.values())} there, {max(views.values())} asked for)"] * (found.views != views)
    other += [f"dtype ({found.dtype} there, {dtype} asked for)"] * (found.dtype != dtype)
    other += ["records"] * (found.records != records.fingerprint)
    # The crops are part of the tower's description only where there are any: other views differ in them by nature.
    other += ["tower or crops"] * (found.views == views and found.tower != tower)
    if other:
        raise UserError(
            f"{found.directory}: found a store of other {', '.join(other)}, expected the same; make it anew with "
            "--restart, or give another --out"
        )
    if jax.process_index() == 0:
        print(f"{found.directory} is up to date; --verify compares its files with their checksums")
    return found


def check_tower(config: Any) -> None:
    """Refuses a config whose image tower cannot be run once for all.

    Raises:
        UserError: a tower that is not locked, has no weights, or is not there.
    """
    if config.image.tower == embedding_store.GIVEN:
        raise UserError("image.tower: found given, expected a tower to run; given embeddings are in a store already")
    locking.check_image_locked(config.train.locks, "to embed with, whose embeddings hold for the whole run")
    if not config.image.weights:
        raise UserError("image.weights: found nothing, expected a file of pre-trained weights")


def locked_tower(config: Any, records: RecordSet) -> tuple[TwoTower, Params, str]:
    """The model, the image tower's parameters in float32, and their digest.

    Raises:
        UserError: weights that are missing or of another tower.
    """
    config = building.settled(config)
    model = building.build_model(config, experiment.open_tokenizer(config, records))
    params, found = building.load_tower(config, model, "image")
    return model, params, found.digest


def described(config: Any, digest: str, views: int) -> dict[str, Any]:
    """What the store remembers of its tower: enough to refuse it for another one."""
    shape = {f"image.{name}": config.image[name] for name in building.TOWER_OPTIONS}
    crops = {"data.crop_scale": config.data.crop_scale, "data.flip": config.data.flip, "seed": config.seed}
    described = {**shape, **(crops if views > 1 else {})}
    return {
        "kind": config.image.tower,
        "digest": digest,
        "precision": config.train.precision,
        "options": {name: list(v) if isinstance(v, tuple) else v for name, v in described.items()},
    }


def all_pieces(records: RecordSet, train_split: str, views: int, shard_rows: int) -> Iterator[Piece]:
    """Every shard of the store to be."""
    check_split(train_split, records.splits, records.directory, option="data.train_split")
    for split in records.splits:
        bounds = embedding_store.shard_bounds(records.examples(split), shard_rows)
        for number, (first, stop) in enumerate(bounds):
            name = embedding_store.shard_name(split, number, len(bounds))
            yield Piece(split, name, first, stop, views if split == train_split else 1)


def _write(
    aside: pathlib.Path,
    pieces: Sequence[Piece],
    records: RecordSet,
    config: Any,
    model: TwoTower,
    tower: Params,
    mesh: Mesh,
    *,
    batch_size: int,
    dtype: str,
    done: int,
) -> None:
    """Writes shards one after the other, with progress."""
    total = sum(piece.stop - piece.first for piece in pieces)
    features = jax.jit(
        lambda tower, images: models.image_features(model, tower, images), out_shardings=over_batch(mesh)
    )
    with console.Progress(total, quiet=jax.process_index() != 0) as progress:
        if done:
            progress.line(f"{done} of {done + len(pieces)} shards were finished before")
        written, start = 0, time.monotonic()
        for piece in pieces:
            parts = []
            for part in _embedded(piece, records, config, lambda x: features(tower, x), mesh, batch_size):
                parts.append(part)
                written += len(part[1])
                rate = written / max(time.monotonic() - start, 1e-9)
                text = f"{written:,} of {total:,} photos, {rate:.0f} a second"
                progress.show(written, text, seconds_left=(total - written) / rate)
            values, class_ids, image_ids = (np.concatenate(column) for column in zip(*parts, strict=True))
            names = [image_id.decode() for image_id in image_ids]
            embedding_store.write_shard(aside, piece.name, values, class_ids, names, dtype=dtype)
        seconds = time.monotonic() - start
        progress.line(f"{total:,} photos through the tower in {console.duration(seconds)}")


def _embedded(
    piece: Piece, records: RecordSet, config: Any, features: Any, mesh: Mesh, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Features `[b, V, W]`, class ids `[b]` and image ids `[b]` of a shard, a batch at a time."""
    photos = record_batches.view_batches(
        records, piece.split, first=piece.first, stop=piece.stop, batch_size=max(1, batch_size // piece.views),
        image_size=config.image.size, views=piece.views, seed=config.seed, crop_scale=tuple(config.data.crop_scale),
        flip=config.data.flip, view=building.view_of(config),
    )  # fmt: skip
    # One shape is compiled whatever the number of views; all is enqueued before the first result is fetched.
    rows = -(-max(1, batch_size // piece.views) * piece.views // mesh.size) * mesh.size

    def put(batch: record_batches.HostBatch) -> tuple[jax.Array, record_batches.HostBatch]:
        flat = batch["image"].reshape(-1, *batch["image"].shape[2:])
        padded = np.concatenate([flat, np.repeat(flat[:1], rows - len(flat), 0)])
        return features(put_batch({"image": padded}, mesh)["image"]), batch

    for on_device, batch in record_batches.ahead(photos, put):
        count = len(batch["class_id"])
        found = local_rows(on_device)[: count * piece.views].reshape(count, piece.views, -1)
        yield found, batch["class_id"], batch["image_id"]


def _finish(
    aside: pathlib.Path, out: pathlib.Path, pieces: Sequence[Piece], records: RecordSet, config: Any, *, dtype: str,
    tower: dict[str, Any],
) -> Store:  # fmt: skip
    shards: dict[str, list[embedding_store.StoreShard]] = {split: [] for split in records.splits}
    for piece in pieces:
        shard = embedding_store.finished_shard(aside, piece.name)
        if shard is None:
            raise UserError(
                f"{aside / piece.name}: found no such shard, expected one of each host; use a shared folder"
            )
        shards[piece.split].append(shard)
    return embedding_store.finish(
        aside, out,
        splits=shards,
        views={piece.split: piece.views for piece in pieces},
        width=np.load(aside / f"{pieces[0].name}.features.npy", mmap_mode="r").shape[-1],
        dtype=dtype,
        record_lengths={split: [shard.examples for shard in found] for split, found in records.splits.items()},
        tower=tower,
        class_table=records.class_table,
        tokenizer=experiment.tokenizer_path(config) or records.tokenizer,
        templates=records.templates,
        drop_repeats=records.drop_repeats,
        class_ids={split: records.classes_in(split) for split in records.splits},
        records=records.fingerprint,
    )  # fmt: skip

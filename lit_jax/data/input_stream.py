"""The input stream of training: endless batches on the mesh, from records or from an embedding store.

Both streams start at any batch without reading what comes before, and both draw order and captions from
`epoch_order`: where one shuffle window holds the whole split and photos are cropped centrally, the batches of a
store are those of the records, less the work.
"""

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from lit_jax.base.hosts import this_host
from lit_jax.base.sharding import is_cpu, over_batch, put_batch, put_rows
from lit_jax.data import device_resizing, record_batches
from lit_jax.data.embedding_store import Rows, Store
from lit_jax.data.epoch_order import view_drawn, whole_epoch
from lit_jax.data.images import Pictures
from lit_jax.data.record_batches import Batches, Tokenise
from lit_jax.data.records import RecordSet
from lit_jax.data.unique_captions import CaptionTable, Texts, bucketed, distinct
from lit_jax.errors import UserError

Batch = dict[str, jax.Array]
Feed = Callable[[int], Iterator[Batch]]
"""From the number of batches already consumed to the batches that follow."""

DEVICE_SHARE = 0.5  # of a device's memory that a store may take without being asked to


class TextRows(NamedTuple):
    """How the captions of a batch become rows of tokens.

    Attributes:
        end_id: id of the end token.
        each_once: whether each distinct caption is a row of its own.
        bucket: steps in which sentences are cut, see `lit_jax.data.unique_captions.bucketed`.
    """

    end_id: int
    each_once: bool
    bucket: int


def from_records(
    records: RecordSet,
    split: str,
    mesh: Mesh,
    *,
    batches: Batches,
    pictures: Pictures,
    tokenise: Tokenise,
    rows: TextRows,
) -> Feed:
    """Photos: ``image`` `[B, S, S, 3]` uint8, ``tokens`` `[U, T]` and, where each is once, ``caption`` `[B]`.

    Every host reads the captions of the whole batch and decodes the photos of its part of it.

    Args:
        records: where to read.
        split: which of its splits.
        mesh: where to.
        batches: what they are made of; their size is that over all hosts.
        pictures: what photos are turned into.
        tokenise: captions to tokens, T at the most.
        rows: how captions become rows.
    """
    host = this_host()
    pictures = device_resizing.settled(pictures, mesh)

    def put(batch: record_batches.HostBatch) -> Batch:
        tokens = batch["tokens"]
        texts = distinct(tokens) if rows.each_once else Texts(tokens, None)
        texts = bucketed(texts, end_id=rows.end_id, rows=mesh.size, grain=rows.bucket)
        return {"image": device_resizing.put_squares(batch, mesh, pictures), **put_batch(_own_arrays(texts), mesh)}

    def feed(position: int) -> Iterator[Batch]:
        stream = record_batches.training_batches(
            records, split, batches=batches, pictures=pictures, tokenise=tokenise, host=host, position=position
        )
        return record_batches.ahead(stream, put)

    return feed


class StoredSplit(NamedTuple):
    """A split of an embedding store, opened: as many streams as wanted read from it.

    Attributes:
        store: where it is.
        split: its name.
        rows: of the features.
        on_device: `[N, V, W]`, a copy of the features on each device; None where they are mapped from disk.
    """

    store: Store
    split: str
    rows: Rows
    on_device: jax.Array | None


def open_split(store: Store, split: str, mesh: Mesh, *, place: str) -> StoredSplit:
    """Opens a split of a store for `from_store`.

    Args:
        store: where to read.
        split: which of its splits.
        mesh: where to.
        place: ``device``: a copy on each device; ``host``: mapped from disk; ``auto``: on the devices if it takes no
            more than half of the memory of each.

    Raises:
        UserError: a shard that is not as it was written.
    """
    rows = Rows(store, split)
    on_device = put_rows(rows.whole(), mesh, split=False) if is_on_device(store, split, place, mesh) else None
    return StoredSplit(store, split, rows, on_device)


def from_store(stored: StoredSplit, mesh: Mesh, *, batches: Batches, captions: CaptionTable, rows: TextRows) -> Feed:
    """Stored features: ``features`` `[B, W]`, ``tokens`` `[U, T]` and, where each is once, ``caption`` `[B]`.

    Of captions whose features by a locked text tower take the place of their tokens, ``words`` `[U, F]`.

    The whole split is shuffled again each epoch, whatever its size. Every host sees the same order and takes its part
    of each batch.

    Args:
        stored: where to read.
        mesh: where to.
        batches: what they are made of; their size is that over all hosts, and their window has no meaning here.
        captions: of every class of the split.
        rows: how captions become rows.

    Raises:
        UserError: a class without captions; a shard that is not as it was written.
    """
    store, split, class_ids, on_device = stored.store, stored.split, stored.rows.class_ids, stored.on_device
    unknown = np.setdiff1d(class_ids, captions.class_ids)
    if len(unknown):
        raise UserError(f"{store.class_table}: found no class {unknown[0]}, expected one for each class in {split}")
    take = jax.jit(lambda whole, row, view: whole[row, view], out_shardings=over_batch(mesh))

    def put(picked: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Batch:
        row, draws, caption = picked
        view = view_drawn(draws, store.views[split]).astype(np.int32)
        texts = _stored_texts(captions, caption, rows.each_once)
        texts = bucketed(texts, end_id=rows.end_id, rows=mesh.size, grain=rows.bucket)
        arrays = _own_arrays(texts)
        row, view = _own_part(row.astype(np.int32)), _own_part(view)
        if on_device is None:
            return put_batch({"features": stored.rows.take(row, view), **arrays}, mesh)
        placed = put_batch({"row": row, "view": view, **arrays}, mesh)
        return {"features": take(on_device, placed.pop("row"), placed.pop("view")), **placed}

    def feed(position: int) -> Iterator[Batch]:
        picks = _picks(store.record_lengths[split], batches, first=position * batches.size)
        return record_batches.ahead(((row, draws, captions.drawn(class_ids[row], draws)) for row, draws in picks), put)

    return feed


def is_on_device(store: Store, split: str, place: str, mesh: Mesh) -> bool:
    """Whether a split's features go to the devices, as `from_store` says of `place`."""
    if place != "auto":
        return place == "device"
    copies = mesh.local_mesh.size if is_cpu(mesh) else 1
    return store.nbytes(split) * copies <= DEVICE_SHARE * device_memory(mesh)


def device_memory(mesh: Mesh) -> int:
    """Bytes of memory of a device; of a CPU, that of the machine, which its devices share."""
    stats = mesh.local_devices[0].memory_stats() if not is_cpu(mesh) else None
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _picks(lengths: tuple[int, ...], batches: Batches, *, first: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless (rows, draws), both `[B]`; batches run on from one epoch into the next, as those of records do."""
    aside, batch_size = batches.aside, batches.size

    def of_epoch(epoch: int) -> tuple[np.ndarray, np.ndarray]:
        rows, draws = whole_epoch(lengths, seed=batches.seed, epoch=epoch)
        return (rows, draws) if aside is None else (rows[~aside[rows]], draws[~aside[rows]])

    epoch, into = divmod(first, sum(lengths) - (0 if aside is None else int(aside.sum())))
    rows, draws = of_epoch(epoch)
    rows, draws = rows[into:], draws[into:]
    while True:
        while len(rows) < batch_size:
            epoch += 1
            more = of_epoch(epoch)
            rows, draws = np.concatenate([rows, more[0]]), np.concatenate([draws, more[1]])
        yield rows[:batch_size], draws[:batch_size]
        rows, draws = rows[batch_size:], draws[batch_size:]


def _stored_texts(captions: CaptionTable, caption: np.ndarray, each_once: bool) -> Texts:
    if not each_once:
        return Texts(captions.tokens[caption], None)
    used, index = np.unique(caption, return_inverse=True)
    return Texts(captions.tokens[used], index.astype(np.int32))


def _own_arrays(texts: Texts) -> dict[str, np.ndarray]:
    """This host's rows of the captions, and of the numbers that tell which pair has which."""
    name = "tokens" if np.issubdtype(texts.tokens.dtype, np.integer) else "words"
    arrays = {name: texts.tokens} | ({"caption": texts.caption} if texts.caption is not None else {})
    return {name: _own_part(value) for name, value in arrays.items()}


def _own_part(whole: np.ndarray) -> np.ndarray:
    """This host's rows of what every host knows."""
    part = this_host().part(len(whole))
    return whole[part.start : part.stop]

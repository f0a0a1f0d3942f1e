"""The input stream of training: endless batches on the mesh, from records or from an embedding store.

Both streams start at any batch without reading what comes before, and both draw order and captions from
`epoch_order`: where one shuffle window holds the whole split and photos are cropped centrally, the batches of a
store are those of the records, less the work.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lit_jax.base.sharding import over_batch, put_batch, put_rows
from lit_jax.data import record_batches
from lit_jax.data.embedding_store import Rows, Store
from lit_jax.data.epoch_order import view_drawn, whole_epoch
from lit_jax.data.records import RecordSet
from lit_jax.data.unique_captions import CaptionTable, Texts, bucketed, distinct
from lit_jax.errors import UserError
from lit_jax.text.tokenizers import Tokenizer

Batch = dict[str, jax.Array]
Feed = Callable[[int], Iterator[Batch]]
"""From the number of batches already consumed to the batches that follow."""

DEVICE_SHARE = 0.5  # of a device's memory that a store may take without being asked to


def from_records(
    records: RecordSet,
    split: str,
    mesh: Mesh,
    *,
    tokenizer: Tokenizer,
    context: int,
    batch_size: int,
    each_once: bool,
    bucket: int,
    **options: Any,
) -> Feed:
    """Photos: ``image`` `[B, S, S, 3]` uint8, ``tokens`` `[U, T]` and, with `each_once`, ``caption`` `[B]`.

    Args:
        records: where to read.
        split: which of its splits.
        mesh: where to.
        tokenizer: of the captions.
        context: T at the most.
        batch_size: B, over all hosts.
        each_once: whether each distinct caption is a row of its own. Several hosts, who do not know each other's
            captions, give each pair a row of the whole context all the same.
        bucket: steps in which sentences are cut, see `lit_jax.data.unique_captions.bucketed`.
        options: of `lit_jax.data.record_batches.training_batches`.
    """
    hosts, host = jax.process_count(), jax.process_index()

    def put(batch: record_batches.HostBatch) -> Batch:
        tokens = batch["tokens"]
        texts = distinct(tokens) if each_once and hosts == 1 else Texts(tokens, None)
        if hosts == 1:
            texts = bucketed(texts, end_id=tokenizer.end_id, rows=mesh.size, grain=bucket)
        return put_batch({"image": batch["image"], **_arrays(texts)}, mesh)

    def feed(position: int) -> Iterator[Batch]:
        stream = record_batches.training_batches(
            records, split, tokenizer=tokenizer, context=context, batch_size=batch_size // hosts, host=host,
            hosts=hosts, position=position, **options,
        )  # fmt: skip
        return record_batches.ahead(stream, put)

    return feed


def from_store(
    store: Store,
    split: str,
    mesh: Mesh,
    *,
    captions: CaptionTable,
    end_id: int,
    batch_size: int,
    seed: int,
    each_once: bool,
    bucket: int,
    place: str,
    aside: np.ndarray | None = None,
) -> Feed:
    """Stored features: ``features`` `[B, W]`, ``tokens`` `[U, T]` and, with `each_once`, ``caption`` `[B]`.

    The whole split is shuffled anew each epoch, whatever its size. Every host sees the same order and takes its part
    of each batch.

    Args:
        store: where to read.
        split: which of its splits.
        mesh: where to.
        captions: of every class of the split.
        end_id: id of the end token.
        batch_size: B, over all hosts.
        seed: decides order, views and captions, epoch by epoch.
        each_once: whether each distinct caption is a row of its own.
        bucket: steps in which sentences are cut, see `lit_jax.data.unique_captions.bucketed`.
        place: ``device``: a copy on each device; ``host``: mapped from disk; ``auto``: on the devices if it takes no
            more than half of the memory of each.
        aside: `[N]` bool, True for the rows of the split that are left out; None for none.

    Raises:
        UserError: a class without captions; a shard that is not as it was written.
    """
    rows = Rows(store, split)
    class_ids = rows.class_ids
    unknown = np.setdiff1d(class_ids, captions.class_ids)
    if len(unknown):
        raise UserError(f"{store.class_table}: found no class {unknown[0]}, expected one for each class in {split}")
    on_device = put_rows(rows.whole(), mesh, split=False) if is_on_device(store, split, place, mesh) else None
    take = jax.jit(lambda whole, row, view: whole[row, view], out_shardings=over_batch(mesh))

    def put(picked: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Batch:
        row, draws, caption = picked
        view = view_drawn(draws, store.views[split]).astype(np.int32)
        texts = _stored_texts(captions, caption, each_once)
        texts = bucketed(texts, end_id=end_id, rows=mesh.size, grain=bucket)
        arrays = {name: _own_part(value) for name, value in _arrays(texts).items()}
        row, view = _own_part(row.astype(np.int32)), _own_part(view)
        if on_device is None:
            return put_batch({"features": rows.take(row, view), **arrays}, mesh)
        placed = put_batch({"row": row, "view": view, **arrays}, mesh)
        return {"features": take(on_device, placed.pop("row"), placed.pop("view")), **placed}

    def feed(position: int) -> Iterator[Batch]:
        picks = _picks(
            store.record_lengths[split], aside, batch_size=batch_size, seed=seed, first=position * batch_size
        )
        return record_batches.ahead(((row, draws, captions.drawn(class_ids[row], draws)) for row, draws in picks), put)

    return feed


def is_on_device(store: Store, split: str, place: str, mesh: Mesh) -> bool:
    """Whether a split's features go to the devices, as `from_store` says of `place`."""
    if place != "auto":
        return place == "device"
    copies = mesh.local_mesh.size if _is_cpu(mesh) else 1
    return store.nbytes(split) * copies <= DEVICE_SHARE * device_memory(mesh)


def device_memory(mesh: Mesh) -> int:
    """Bytes of memory of a device; of a CPU, that of the machine, which its devices share."""
    stats = mesh.local_devices[0].memory_stats() if not _is_cpu(mesh) else None
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _is_cpu(mesh: Mesh) -> bool:
    return bool(mesh.local_devices[0].platform == "cpu")


def _picks(
    lengths: tuple[int, ...], aside: np.ndarray | None, *, batch_size: int, seed: int, first: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless (rows, draws), both `[B]`; batches run on from one epoch into the next, as those of records do."""

    def of_epoch(epoch: int) -> tuple[np.ndarray, np.ndarray]:
        rows, draws = whole_epoch(lengths, seed=seed, epoch=epoch)
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


def _arrays(texts: Texts) -> dict[str, np.ndarray]:
    return {"tokens": texts.tokens} | ({"caption": texts.caption} if texts.caption is not None else {})


def _own_part(whole: np.ndarray) -> np.ndarray:
    """This host's rows of what every host knows."""
    hosts, host = jax.process_count(), jax.process_index()
    return whole[len(whole) * host // hosts : len(whole) * (host + 1) // hosts]

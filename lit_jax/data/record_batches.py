"""Batches from records: each host's part, shuffled by seed and epoch, cropped and tokenised, resumable at any batch.

Training reads an endless stream: epoch after epoch, each with its own order, so that every record is read exactly
once an epoch over all hosts and no batch is ever short. Batch n of a host is rows ``[n * b, (n + 1) * b)`` of its
stream; a resumed run starts there without decoding what comes before, and reads at most one shuffle window of it.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lit_jax.base.hosts import ALONE, Host
from lit_jax.data import epoch_order as epochs
from lit_jax.data import images
from lit_jax.data.epoch_order import DRAW_BITS
from lit_jax.data.images import Pictures
from lit_jax.data.records import RecordSet, file_instructions, file_part, parse_example
from lit_jax.errors import UserError

HostBatch = dict[str, np.ndarray]
Part = tuple[Path, int, int]  # a shard, records to skip, records to take
Tokenise = Callable[[Sequence[str]], np.ndarray]
"""n texts to tokens `[n, T]` int32."""
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """What the batches of an endless stream are made of.

    Attributes:
        size: B, rows a batch.
        seed: decides order, crops and captions, epoch by epoch.
        window: records that are shuffled together: whole shards, drawn anew each epoch.
        aside: `[N]` bool, True for the rows of the split that are left out, see `epoch_order.set_aside`; None for none.
    """

    size: int
    seed: int
    window: int = 16384
    aside: np.ndarray | None = None


def training_batches(
    record_set: RecordSet,
    split: str,
    *,
    batches: Batches,
    pictures: Pictures,
    tokenise: Tokenise,
    host: Host = ALONE,
    position: int = 0,
) -> Iterator[HostBatch]:
    """This host's endless stream of training batches, from a position on.

    Args:
        record_set: where to read.
        split: which of its splits.
        batches: what they are made of; their size is that of a batch on this host.
        pictures: what photos are turned into.
        tokenise: captions to tokens; one caption of each record is drawn.
        host: which host this is.
        position: batches already consumed.

    Yields:
        ``image`` `[B, S, S, 3]` uint8, ``tokens`` `[B, T]` int32 and ``class_id`` `[B]` int64.

    Raises:
        UserError: if the split has fewer records than there are hosts.
    """
    tf = images.tensorflow()
    parts = file_instructions(record_set, split, host)
    if not parts:
        raise UserError(f"split {split}: found {record_set.examples(split)} records, expected one a host at least")

    wanted = ~_of_host(batches.aside, record_set.examples(split), host)

    def windows() -> Iterator[tuple[Any, ...]]:
        yield from _windows(parts, wanted, batches, host.index, first=position * batches.size)

    @tf.autograph.experimental.do_not_convert
    def prepare(serialized: Any, draw: Any, epoch_seed: Any, number: Any) -> dict[str, Any]:
        example = parse_example(serialized)
        count = tf.cast(tf.shape(example["captions"])[0], tf.int64)
        chosen = tf.bitwise.bitwise_and(draw, (1 << DRAW_BITS) - 1) % count  # as `order.caption_drawn`
        if pictures.augmentation.crop == "centre":
            square = pictures.plain(example["image"])
        else:
            square = pictures.cropped(example["image"], tf.stack([epoch_seed, number]))
        return {"image": square, "caption": example["captions"][chosen], "class_id": example["class_id"]}

    signature = tuple(tf.TensorSpec(shape, dtype) for shape, dtype in (
        ([None], tf.string), ([None], tf.int64), ([None], tf.int64), ([None], tf.int64), ([None], tf.int64),
        ([None], tf.int64), ([], tf.int64),
    ))  # fmt: skip
    stream = tf.data.Dataset.from_generator(windows, output_signature=signature)
    stream = stream.flat_map(tf.autograph.experimental.do_not_convert(_window_records))
    # Encoded records in hand while the next window is being filled.
    stream = stream.prefetch(2 * batches.size)
    stream = stream.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    stream = stream.batch(batches.size, drop_remainder=True).prefetch(2)
    tokens_of = _memoised(tokenise)
    for batch in stream.as_numpy_iterator():
        yield {"image": batch["image"], "tokens": tokens_of(batch["caption"]), "class_id": batch["class_id"]}


def view_batches(
    record_set: RecordSet,
    split: str,
    *,
    rows: range,
    batch_size: int,
    pictures: Pictures,
    views: int = 1,
    seed: int = 0,
) -> Iterator[HostBatch]:
    """Some records of a split in order, each in several views; the last batch may be short.

    Args:
        record_set: where to read.
        split: which of its splits.
        rows: numbers of the records, one by one.
        batch_size: records a batch.
        pictures: what photos are turned into.
        views: V. View 0 is the central crop of evaluation, the others are random crops.
        seed: decides the random crops, with the number of the record and of the view.

    Yields:
        ``image`` `[b, V, S, S, 3]` uint8, ``class_id`` `[b]` int64 and ``image_id`` `[b]` bytes.
    """
    tf = images.tensorflow()
    paths, skips, takes = _columns(file_part(record_set, split, rows.start, rows.stop))

    @tf.autograph.experimental.do_not_convert
    def prepare(number: Any, serialized: Any) -> dict[str, Any]:
        example = parse_example(serialized)
        crops = [pictures.plain(example["image"])]
        for other in range(1, views):
            # Three numbers decide a crop; the generator takes two.
            key = tf.stack([tf.constant(seed + (other << 32), tf.int64), number])
            crops.append(pictures.cropped(example["image"], key))
        return {"image": tf.stack(crops), "class_id": example["class_id"], "image_id": example["image_id"]}

    stream = _part_records(paths, skips, takes).enumerate(rows.start)
    stream = stream.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    yield from stream.batch(batch_size).prefetch(2).as_numpy_iterator()


def evaluation_batches(
    record_set: RecordSet,
    split: str,
    *,
    batch_size: int,
    pictures: Pictures,
    host: Host = ALONE,
    only: np.ndarray | None = None,
) -> Iterator[HostBatch]:
    """Every record of this host's part of a split once, in order; the last batch is padded and masked.

    All hosts yield the same number of batches, so that a step over all devices never waits for one of them.

    Args:
        record_set: where to read.
        split: which of its splits.
        batch_size: rows a batch on this host.
        pictures: what photos are turned into, without augmentation.
        host: which host this is.
        only: `[N]` bool, True for the records of the split that are wanted; None for all.

    Yields:
        ``image`` `[batch_size, S, S, 3]` uint8, ``class_id`` `[batch_size]` int64 and ``mask`` `[batch_size]`
        bool, False where a row is padding.
    """
    tf = images.tensorflow()
    parts = file_instructions(record_set, split, host)

    @tf.autograph.experimental.do_not_convert
    def prepare(serialized: Any) -> dict[str, Any]:
        example = parse_example(serialized)
        return {"image": pictures.plain(example["image"]), "class_id": example["class_id"]}

    hosts = [Host(number, host.count) for number in range(host.count)]
    wanted = [_of_host(only, record_set.examples(split), one, missing=True) for one in hosts]
    largest = max(int(part.sum()) for part in wanted)
    nothing: HostBatch = {
        "image": np.zeros((0, pictures.size, pictures.size, 3), np.uint8),
        "class_id": np.zeros(0, np.int64),
    }
    batches: Iterator[HostBatch] = iter(())
    if parts:
        records = _part_records(*_columns(parts))
        if only is not None:
            flags = tf.data.Dataset.from_tensor_slices(wanted[host.index])
            records = tf.data.Dataset.zip((records, flags)).filter(lambda _, flag: flag).map(lambda record, _: record)
        stream = records.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        batches = stream.batch(batch_size).prefetch(2).as_numpy_iterator()
    for _ in range(-(-largest // batch_size)):
        yield _padded(next(batches, nothing), batch_size)


def ahead(items: Iterable[Item], put: Callable[[Item], Result], *, depth: int = 2) -> Iterator[Result]:
    """Applies `put` to `depth` items before they are asked for: transfers overlap with computing."""
    queue: collections.deque[Result] = collections.deque()
    for item in items:
        queue.append(put(item))
        if len(queue) > depth:
            yield queue.popleft()
    yield from queue


def _of_host(flags: np.ndarray | None, examples: int, host: Host, *, missing: bool = False) -> np.ndarray:
    """The flags of a host's part of a split, as `lit_jax.data.records.file_instructions` cuts it; `missing` if None."""
    part = host.part(examples)
    return np.full(len(part), missing) if flags is None else flags[part.start : part.stop]


def _windows(
    parts: Sequence[Part], wanted: np.ndarray, batches: Batches, host: int, *, first: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]]:
    """Endless shuffle windows, with those records only that are wanted, `[n]` bool.

    Each is paths, skips and takes of its parts; order, draws and numbers of its records in the epoch; its seed.
    `first` is where the stream starts, in records. Windows before it are passed over unread.
    """
    lengths = [take for _, _, take in parts]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    epoch, into = divmod(first, int(wanted.sum()))
    while True:
        for one in epochs.windows(lengths, seed=batches.seed, epoch=epoch, host=host, window=batches.window):
            rows = np.concatenate([np.arange(starts[part], starts[part + 1]) for part in one.parts])
            places = np.flatnonzero(wanted[rows[one.order]])
            into, places = max(into - len(places), 0), places[into:]
            if len(places):
                columns = _columns([parts[part] for part in one.parts])
                yield (*columns, one.order[places], one.draws[places], one.first + places, one.epoch_seed)
        epoch += 1


def _columns(parts: Sequence[Part]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    paths, skips, takes = zip(*parts, strict=True)
    return np.array([str(path) for path in paths]), np.array(skips, np.int64), np.array(takes, np.int64)


def _window_records(paths: Any, skips: Any, takes: Any, order: Any, draws: Any, numbers: Any, epoch_seed: Any) -> Any:
    """One window as a data set of (serialised record, draw, seed of the epoch, number in the epoch), still encoded."""
    tf = images.tensorflow()
    read = _part_records(paths, skips, takes).batch(tf.reduce_sum(takes))

    def shuffled(records: Any) -> Any:
        # One record at a time is copied out of the window, not the whole of it.
        places = tf.data.Dataset.from_tensor_slices((order, draws, numbers))
        return places.map(lambda place, draw, number: (records[place], draw, epoch_seed, number))

    return read.flat_map(shuffled)


def _part_records(paths: Any, skips: Any, takes: Any) -> Any:
    tf = images.tensorflow()
    files = tf.data.Dataset.from_tensor_slices((paths, skips, takes))
    return files.interleave(
        lambda path, skip, take: tf.data.TFRecordDataset(path).skip(skip).take(take),
        cycle_length=1,
        block_length=16,
        num_parallel_calls=1,
        deterministic=True,
    )


def _padded(batch: HostBatch, batch_size: int) -> HostBatch:
    rows = len(batch["class_id"])
    padded = {
        name: np.concatenate([value, np.zeros((batch_size - rows, *value.shape[1:]), value.dtype)])
        for name, value in batch.items()
    }
    return {**padded, "mask": np.arange(batch_size) < rows}


def _memoised(tokenise: Tokenise) -> Callable[[np.ndarray], np.ndarray]:
    """Captions repeat within a class: each distinct one is tokenised once."""
    seen: dict[bytes, np.ndarray] = {}

    def of_bytes(texts: np.ndarray) -> np.ndarray:
        new = list({text for text in texts if text not in seen})
        if new:
            seen.update(zip(new, tokenise([text.decode() for text in new]), strict=True))
        return np.stack([seen[text] for text in texts])

    return of_bytes

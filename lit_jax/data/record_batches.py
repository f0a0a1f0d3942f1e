"""Batches from records: each host's part, shuffled by seed and epoch, cropped and tokenised, resumable at any batch.

Training reads an endless stream: epoch after epoch, each with its own order, so that every record is read exactly
once an epoch over all hosts and no batch is ever short. Batch n of a host is rows ``[n * b, (n + 1) * b)`` of its
stream; a resumed run starts there without decoding what comes before, and reads at most one shuffle window of it.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lit_jax.data import epoch_order as epochs
from lit_jax.data import images
from lit_jax.data.epoch_order import DRAW_BITS
from lit_jax.data.records import RecordSet, file_instructions, file_part, parse_example
from lit_jax.errors import UserError
from lit_jax.text.tokenizers import Tokenizer

HostBatch = dict[str, np.ndarray]
Part = tuple[Path, int, int]  # a shard, records to skip, records to take
Item = TypeVar("Item")
Result = TypeVar("Result")


def training_batches(
    record_set: RecordSet,
    split: str,
    *,
    tokenizer: Tokenizer,
    context: int,
    batch_size: int,
    image_size: int,
    seed: int,
    host: int = 0,
    hosts: int = 1,
    position: int = 0,
    window: int = 16384,
    crop: str = "random",
    crop_scale: tuple[float, float] = (0.9, 1.0),
    flip: bool = False,
    view: images.View = images.PLAIN,
    aside: np.ndarray | None = None,
) -> Iterator[HostBatch]:
    """This host's endless stream of training batches, from a position on.

    Args:
        record_set: where to read.
        split: which of its splits.
        tokenizer: of the captions; one caption of each record is drawn.
        context: T, tokens a caption.
        batch_size: rows a batch on this host.
        image_size: side of the crops, pixels.
        seed: decides order, crops and captions, epoch by epoch.
        host: number of this host.
        hosts: how many there are.
        position: batches already consumed.
        window: records that are shuffled together: whole shards, drawn anew each epoch.
        crop: ``random``, or ``centre`` for the photo as evaluation sees it.
        crop_scale: share of the photo's area that a random crop may have.
        flip: whether to mirror half of the random crops.
        view: how the photo becomes a square; random crops take its interpolation only.
        aside: `[N]` bool, True for the records of the split that are left out, see `epoch_order.set_aside`.

    Yields:
        ``image`` `[batch_size, S, S, 3]` uint8, ``tokens`` `[batch_size, T]` int32 and ``class_id``
        `[batch_size]` int64.

    Raises:
        UserError: if the split has fewer records than there are hosts.
    """
    tf = images.tensorflow()
    parts = file_instructions(record_set, split, host, hosts)
    if not parts:
        raise UserError(f"split {split}: found {record_set.examples(split)} records, expected one a host at least")

    random: dict[str, Any] = {
        "size": image_size, "scale": crop_scale, "flip": flip, "interpolation": view.interpolation,
    }  # fmt: skip

    wanted = ~_of_host(aside, record_set.examples(split), host, hosts)

    def windows() -> Iterator[tuple[Any, ...]]:
        yield from _windows(parts, wanted, seed=seed, host=host, window=window, first=position * batch_size)

    @tf.autograph.experimental.do_not_convert
    def prepare(serialized: Any, draw: Any, epoch_seed: Any, number: Any) -> dict[str, Any]:
        example = parse_example(serialized)
        count = tf.cast(tf.shape(example["captions"])[0], tf.int64)
        chosen = tf.bitwise.bitwise_and(draw, (1 << DRAW_BITS) - 1) % count  # as `order.caption_drawn`
        if crop == "centre":
            square = images.centre_crop(example["image"], size=image_size, view=view)
        else:
            key = tf.stack([epoch_seed, number])
            square = images.random_crop(example["image"], key, **random)
        return {"image": square, "caption": example["captions"][chosen], "class_id": example["class_id"]}

    signature = tuple(tf.TensorSpec(shape, dtype) for shape, dtype in (
        ([None], tf.string), ([None], tf.int64), ([None], tf.int64), ([None], tf.int64), ([None], tf.int64),
        ([None], tf.int64), ([], tf.int64),
    ))  # fmt: skip
    stream = tf.data.Dataset.from_generator(windows, output_signature=signature)
    stream = stream.flat_map(tf.autograph.experimental.do_not_convert(_window_records))
    # Encoded records in hand while the next window is being filled.
    stream = stream.prefetch(2 * batch_size)
    stream = stream.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    stream = stream.batch(batch_size, drop_remainder=True).prefetch(2)
    tokenise = _memoised(tokenizer, context)
    for batch in stream.as_numpy_iterator():
        yield {"image": batch["image"], "tokens": tokenise(batch["caption"]), "class_id": batch["class_id"]}


def view_batches(
    record_set: RecordSet,
    split: str,
    *,
    first: int,
    stop: int,
    batch_size: int,
    image_size: int,
    views: int = 1,
    seed: int = 0,
    crop_scale: tuple[float, float] = (0.9, 1.0),
    flip: bool = False,
    view: images.View = images.PLAIN,
) -> Iterator[HostBatch]:
    """Records `first` to `stop` of a split in order, each in several views; the last batch may be short.

    Args:
        record_set: where to read.
        split: which of its splits.
        first: number of the first record.
        stop: number behind the last one.
        batch_size: records a batch.
        image_size: side of the pictures, pixels.
        views: V. View 0 is the central crop of evaluation, the others are random crops.
        seed: decides the random crops, with the number of the record and of the view.
        crop_scale: share of the photo's area that a random crop may have.
        flip: whether to mirror half of the random crops.
        view: how the photo becomes a square; random crops take its interpolation only.

    Yields:
        ``image`` `[b, V, S, S, 3]` uint8, ``class_id`` `[b]` int64 and ``image_id`` `[b]` bytes.
    """
    tf = images.tensorflow()
    paths, skips, takes = _columns(file_part(record_set, split, first, stop))

    @tf.autograph.experimental.do_not_convert
    def prepare(number: Any, serialized: Any) -> dict[str, Any]:
        example = parse_example(serialized)
        crops = [images.centre_crop(example["image"], size=image_size, view=view)]
        for other in range(1, views):
            # Three numbers decide a crop; the generator takes two.
            key = tf.stack([tf.constant(seed + (other << 32), tf.int64), number])
            crops.append(images.random_crop(
                example["image"], key, size=image_size, scale=crop_scale, flip=flip, interpolation=view.interpolation
            ))  # fmt: skip
        return {"image": tf.stack(crops), "class_id": example["class_id"], "image_id": example["image_id"]}

    stream = _part_records(paths, skips, takes).enumerate(first)
    stream = stream.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    yield from stream.batch(batch_size).prefetch(2).as_numpy_iterator()


def evaluation_batches(
    record_set: RecordSet,
    split: str,
    *,
    batch_size: int,
    image_size: int,
    host: int = 0,
    hosts: int = 1,
    view: images.View = images.PLAIN,
    only: np.ndarray | None = None,
) -> Iterator[HostBatch]:
    """Every record of this host's part of a split once, in order; the last batch is padded and masked.

    All hosts yield the same number of batches, so that a step over all devices never waits for one of them.

    Args:
        record_set: where to read.
        split: which of its splits.
        batch_size: rows a batch on this host.
        image_size: side of the central crop, pixels.
        host: number of this host.
        hosts: how many there are.
        view: how the photo becomes a square.
        only: `[N]` bool, True for the records of the split that are wanted; None for all.

    Yields:
        ``image`` `[batch_size, S, S, 3]` uint8, ``class_id`` `[batch_size]` int64 and ``mask`` `[batch_size]`
        bool, False where a row is padding.
    """
    tf = images.tensorflow()
    parts = file_instructions(record_set, split, host, hosts)

    @tf.autograph.experimental.do_not_convert
    def prepare(serialized: Any) -> dict[str, Any]:
        example = parse_example(serialized)
        square = images.centre_crop(example["image"], size=image_size, view=view)
        return {"image": square, "class_id": example["class_id"]}

    wanted = [_of_host(only, record_set.examples(split), number, hosts, missing=True) for number in range(hosts)]
    largest = max(int(part.sum()) for part in wanted)
    nothing: HostBatch = {
        "image": np.zeros((0, image_size, image_size, 3), np.uint8),
        "class_id": np.zeros(0, np.int64),
    }
    batches: Iterator[HostBatch] = iter(())
    if parts:
        records = _part_records(*_columns(parts))
        if only is not None:
            flags = tf.data.Dataset.from_tensor_slices(wanted[host])
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


def _of_host(flags: np.ndarray | None, examples: int, host: int, hosts: int, *, missing: bool = False) -> np.ndarray:
    """The flags of a host's part of a split, as `lit_jax.data.records.file_instructions` cuts it; `missing` if None."""
    begin, end = examples * host // hosts, examples * (host + 1) // hosts
    return np.full(end - begin, missing) if flags is None else flags[begin:end]


def _windows(
    parts: Sequence[Part], wanted: np.ndarray, *, seed: int, host: int, window: int, first: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]]:
    """Endless shuffle windows, with those records only that are wanted, `[n]` bool.

    Each is paths, skips and takes of its parts; order, draws and numbers of its records in the epoch; its seed.
    `first` is where the stream starts, in records. Windows before it are passed over unread.
    """
    lengths = [take for _, _, take in parts]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    epoch, into = divmod(first, int(wanted.sum()))
    while True:
        for one in epochs.windows(lengths, seed=seed, epoch=epoch, host=host, window=window):
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


def _memoised(tokenizer: Tokenizer, context: int) -> Callable[[np.ndarray], np.ndarray]:
    """Captions repeat within a class: each distinct one is tokenised once."""
    seen: dict[bytes, np.ndarray] = {}

    def tokenise(texts: np.ndarray) -> np.ndarray:
        new = list({text for text in texts if text not in seen})
        if new:
            seen.update(zip(new, tokenizer.encode([text.decode() for text in new], context), strict=True))
        return np.stack([seen[text] for text in texts])

    return tokenise

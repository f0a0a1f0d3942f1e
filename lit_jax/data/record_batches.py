"""Batches from records: shuffled by seed and epoch, cropped and tokenised, resumable at any batch by any hosts.

Training reads an endless stream: epoch after epoch, each with its own order, so that every record is trained on exactly
once an epoch and no batch is ever short. Batch n is rows ``[n * B, (n + 1) * B)`` of the stream, whatever the number of
hosts; each host decodes and crops the photos of its part of the batch. A resumed run starts there without decoding what
comes before, and reads at most one shuffle window of it.

Every host reads all shards, though it decodes only its part of them: the order would otherwise depend on the number of
hosts. Where the disk is too slow for that, train from an embedding store.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from lit_jax.base.hosts import ALONE, Host
from lit_jax.data import epoch_order as epochs
from lit_jax.data import images, whole_photos
from lit_jax.data.epoch_order import DRAW_BITS
from lit_jax.data.images import Pictures
from lit_jax.data.records import RecordSet, file_instructions, file_part, parse_example
from lit_jax.data.tfrecord import read_frames
from lit_jax.errors import UserError, first_line

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
    """The endless stream of training batches, from a position on: the photos of this host's part, and all captions.

    Args:
        record_set: where to read.
        split: which of its splits.
        batches: what they are made of; their size is that over all hosts.
        pictures: what photos are turned into.
        tokenise: captions to tokens; one caption of each record is drawn.
        host: which host this is.
        position: batches already consumed.

    Yields:
        ``image`` `[b, S, S, 3]` uint8, or whole photos in its place, see `lit_jax.data.whole_photos`, and ``class_id``
        `[b]` int64 of this host's part of the batch; ``tokens`` `[B, T]` int32 of the whole batch.
    """
    tokens_of = _memoised(tokenise)

    def rows(what: Callable[..., Any], of: Host) -> Iterator[Any]:
        tf = images.tensorflow()
        split_rows = functools.partial(
            _windows, file_instructions(record_set, split), ~_flags(batches.aside, record_set.examples(split)), batches
        )
        stream = tf.data.Dataset.from_generator(
            lambda: split_rows(of, first=position * batches.size), output_signature=_window_signature()
        )
        stream = stream.flat_map(tf.autograph.experimental.do_not_convert(_window_records))
        size = len(of.part(batches.size))
        # Encoded records in hand while the next window is being filled.
        stream = stream.prefetch(2 * size)
        stream = stream.map(
            tf.autograph.experimental.do_not_convert(what), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        host_pictures = pictures if what is photo else dataclasses.replace(pictures, resize_on="host")
        return _sound(_batched(stream, size, host_pictures), record_set, split)

    def photo(serialized: Any, draw: Any, epoch_seed: Any, number: Any) -> dict[str, Any]:
        tf = images.tensorflow()
        example = parse_example(serialized)
        keys = [] if pictures.augmentation.crop == "centre" else [tf.stack([epoch_seed, number])]
        if pictures.whole:
            square = whole_photos.row(example["image"], pictures, keys, plain=not keys)
        elif keys:
            square = {"image": pictures.cropped(example["image"], keys[0])}
        else:
            square = {"image": pictures.plain(example["image"])}
        return {**square, "caption": _caption(example, draw), "class_id": example["class_id"]}

    def caption(serialized: Any, draw: Any, *_: Any) -> dict[str, Any]:
        return {"caption": _caption(parse_example(serialized), draw)}

    photos = rows(photo, host)
    captions = photos if host.count == 1 else rows(caption, ALONE)
    for own in photos:
        whole = own if host.count == 1 else next(captions)
        pixels = {name: value for name, value in own.items() if name != "caption"}
        yield {**pixels, "tokens": tokens_of(whole["caption"])}


def _caption(example: Any, draw: Any) -> Any:
    """The caption that is drawn, as `epoch_order.caption_drawn` draws it."""
    tf = images.tensorflow()
    count = tf.cast(tf.shape(example["captions"])[0], tf.int64)
    return example["captions"][tf.bitwise.bitwise_and(draw, (1 << DRAW_BITS) - 1) % count]


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
        ``image`` `[b, V, S, S, 3]` uint8, or whole photos in its place, see `lit_jax.data.whole_photos`; ``class_id``
        `[b]` int64 and ``image_id`` `[b]` bytes.
    """
    tf = images.tensorflow()
    paths, skips, takes = _columns(file_part(record_set, split, rows.start, rows.stop))

    @tf.autograph.experimental.do_not_convert
    def prepare(number: Any, serialized: Any) -> dict[str, Any]:
        example = parse_example(serialized)
        # Three numbers decide a crop; the generator takes two.
        keys = [tf.stack([tf.constant(seed + (other << 32), tf.int64), number]) for other in range(1, views)]
        named = {name: example[name] for name in ("class_id", "image_id")}
        if pictures.whole:
            return {**whole_photos.row(example["image"], pictures, keys), **named}
        crops = [pictures.plain(example["image"]), *(pictures.cropped(example["image"], key) for key in keys)]
        return {"image": tf.stack(crops), **named}

    stream = _part_records(paths, skips, takes).enumerate(rows.start)
    stream = stream.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    yield from _sound(_batched(stream, batch_size, pictures), record_set, split)


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
        ``image`` `[batch_size, S, S, 3]` uint8, or whole photos in its place, see `lit_jax.data.whole_photos`;
        ``class_id`` `[batch_size]` int64 and ``mask`` `[batch_size]` bool, False where a row is padding.
    """
    tf = images.tensorflow()
    parts = file_instructions(record_set, split, host)

    @tf.autograph.experimental.do_not_convert
    def prepare(serialized: Any) -> dict[str, Any]:
        example = parse_example(serialized)
        if pictures.whole:
            return {**whole_photos.row(example["image"], pictures), "class_id": example["class_id"]}
        return {"image": pictures.plain(example["image"]), "class_id": example["class_id"]}

    hosts = [Host(number, host.count) for number in range(host.count)]
    flags = _flags(only, record_set.examples(split), missing=True)
    wanted = [flags[part.start : part.stop] for part in (one.part(len(flags)) for one in hosts)]
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
        batches = _sound(_batched(stream, batch_size, pictures), record_set, split)
    for _ in range(-(-largest // batch_size)):
        yield _padded(next(batches, nothing), batch_size)


def _batched(stream: Any, batch_size: int, pictures: Pictures) -> Iterator[HostBatch]:
    """Batches of what a record became, two of them ahead; the last one may be short."""
    if not pictures.whole:
        return iter(stream.batch(batch_size).prefetch(2).as_numpy_iterator())
    stream = whole_photos.batched(stream, batch_size, pictures)
    return map(whole_photos.chosen, stream.prefetch(2).as_numpy_iterator())


def _sound(batches: Iterator[HostBatch], record_set: RecordSet, split: str) -> Iterator[HostBatch]:
    """The batches; a record that was changed is refused with its file, which TensorFlow does not name.

    Raises:
        UserError: a file of the split is damaged.
    """
    tf = images.tensorflow()
    try:
        yield from batches
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        for path in record_set.files(split):
            for _ in read_frames(path):
                pass  # names the first that is damaged
        raise UserError(
            f"{record_set.directory}: found a record of {split} that cannot be read ({first_line(error)}), expected it "
            "as written; convert again with --restart"
        ) from error


def ahead(items: Iterable[Item], put: Callable[[Item], Result], *, depth: int = 2) -> Iterator[Result]:
    """Applies `put` to `depth` items before they are asked for: transfers overlap with computing."""
    queue: collections.deque[Result] = collections.deque()
    for item in items:
        queue.append(put(item))
        if len(queue) > depth:
            yield queue.popleft()
    yield from queue


def _flags(flags: np.ndarray | None, examples: int, *, missing: bool = False) -> np.ndarray:
    """Flags of the records of a split, `[N]` bool; `missing` if None."""
    return np.full(examples, missing) if flags is None else flags


class _Window(NamedTuple):
    """What a host reads of a shuffle window.

    Attributes:
        paths, skips, takes: its shards, or parts of them, in order.
        kept: `[r]` bool: which of the records read are this host's.
        order: `[n]` int64: the k-th of its rows is number ``order[k]`` of those kept.
        draws: `[n]` int64: see `lit_jax.data.epoch_order.Window`.
        numbers: `[n]` int64: places of its rows in the epoch.
        epoch_seed: of the epoch.
    """

    paths: np.ndarray
    skips: np.ndarray
    takes: np.ndarray
    kept: np.ndarray
    order: np.ndarray
    draws: np.ndarray
    numbers: np.ndarray
    epoch_seed: int


def _window_signature() -> tuple[Any, ...]:
    tf = images.tensorflow()
    many = {"paths": tf.string, "kept": tf.bool}
    return tuple(
        tf.TensorSpec([] if name == "epoch_seed" else [None], many.get(name, tf.int64)) for name in _Window._fields
    )


def _windows(
    parts: Sequence[Part], wanted: np.ndarray, batches: Batches, host: Host, *, first: int
) -> Iterator[_Window]:
    """Endless shuffle windows with a host's rows of each batch, of those records only that are wanted, `[N]` bool.

    `first` is where the stream starts, in records. Windows before it are passed over unread.
    """
    lengths = [take for _, _, take in parts]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    own = host.part(batches.size)
    epoch, into = divmod(first, int(wanted.sum()))
    row = first
    while True:
        for one in epochs.windows(lengths, seed=batches.seed, epoch=epoch, window=batches.window):
            read = np.concatenate([np.arange(starts[part], starts[part + 1]) for part in one.parts])
            places = np.flatnonzero(wanted[read[one.order]])
            into, places = max(into - len(places), 0), places[into:]
            in_batch = (row + np.arange(len(places))) % batches.size
            row += len(places)
            places = places[(own.start <= in_batch) & (in_batch < own.stop)]
            if len(places):
                kept = np.zeros(len(read), bool)
                kept[one.order[places]] = True
                order = (np.cumsum(kept) - 1)[one.order[places]]
                columns = _columns([parts[part] for part in one.parts])
                yield _Window(*columns, kept, order, one.draws[places], one.first + places, one.epoch_seed)
        epoch += 1


def _columns(parts: Sequence[Part]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    paths, skips, takes = zip(*parts, strict=True)
    return np.array([str(path) for path in paths]), np.array(skips, np.int64), np.array(takes, np.int64)


def _window_records(*columns: Any) -> Any:
    """A `_Window` as a data set of (serialised record, draw, seed of the epoch, number in the epoch), still encoded."""
    tf = images.tensorflow()
    window = _Window(*columns)
    read = tf.data.Dataset.zip(
        (_part_records(window.paths, window.skips, window.takes), tf.data.Dataset.from_tensor_slices(window.kept))
    )
    read = read.filter(lambda _, kept: kept).map(lambda record, _: record)
    read = read.batch(tf.shape(window.order, tf.int64)[0])

    def shuffled(records: Any) -> Any:
        # One record at a time is copied out of the window, not the whole of it.
        places = tf.data.Dataset.from_tensor_slices((window.order, window.draws, window.numbers))
        return places.map(lambda place, draw, number: (records[place], draw, window.epoch_seed, number))

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

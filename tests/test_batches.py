import collections

import numpy as np
import pytest

from lit_jax.base.hosts import Host
from lit_jax.data import record_batches
from lit_jax.data.images import Augmentation, Pictures
from lit_jax.text.tokenizers import load_tokenizer

CONTEXT = 24


def stream(records, count, *, split="train", **options):
    pictures = Pictures(
        16, augmentation=Augmentation(**{key: options.pop(key) for key in ("crop_scale", "flip") if key in options})
    )
    got = record_batches.training_batches(
        records, split, batches=record_batches.Batches(8, seed=0, window=16), pictures=pictures,
        tokenise=lambda texts: load_tokenizer(records.tokenizer).encode(texts, CONTEXT), **options,
    )  # fmt: skip
    return [batch for batch, _ in zip(got, range(count), strict=False)]


CROPS = {"crop_scale": (0.4, 1.0), "flip": True}


@pytest.fixture(scope="module")
def unbroken(records):
    """The first batches of a stream of random crops: two epochs and more."""
    return stream(records, 17, **CROPS)


def fingerprints(batch):
    """A name for each row's pixels and text."""
    return [
        hash(image.tobytes()) ^ hash(tokens.tobytes())
        for image, tokens in zip(batch["image"], batch["tokens"], strict=True)
    ]


def image_ids(records, *, seed, host=0, hosts=1, position=0, batch_size=8, count=None, aside=None):
    """Ids of the records of a stream, through the same windows but with nothing decoded."""
    from lit_jax.data.images import tensorflow
    from lit_jax.data.records import file_instructions, parse_example

    tf = tensorflow()
    wanted = np.ones(records.examples("train"), bool) if aside is None else ~aside
    batches = record_batches.Batches(batch_size, seed, window=16)

    def windows():
        parts = file_instructions(records, "train")
        yield from record_batches._windows(parts, wanted, batches, Host(host, hosts), first=position * batch_size)

    plain = tf.autograph.experimental.do_not_convert
    found = tf.data.Dataset.from_generator(windows, output_signature=record_batches._window_signature())
    found = found.flat_map(plain(record_batches._window_records))
    found = found.map(plain(lambda serialized, *_: parse_example(serialized)["image_id"])).take(count)
    return [image_id.decode() for image_id in found.as_numpy_iterator()]


def test_shapes_dtypes_and_tokens(records):
    (batch,) = stream(records, 1)
    assert batch["image"].shape == (8, 16, 16, 3) and batch["image"].dtype == np.uint8
    assert batch["tokens"].shape == (8, CONTEXT) and batch["tokens"].dtype == np.int32
    tokenizer = load_tokenizer(records.tokenizer)
    texts = tokenizer.decode(batch["tokens"])
    assert all(text.startswith(("a photo of the", "the ")) for text in texts)


@pytest.mark.parametrize("hosts", [1, 2])
def test_photos_that_are_set_aside_are_evaluated_and_never_trained_on(records, hosts):
    from lit_jax.data.epoch_order import set_aside
    from lit_jax.data.records import decode
    from lit_jax.data.tfrecord import read_frames

    aside = set_aside(56, 0.3, seed=5)
    assert aside.sum() == 17 and not np.array_equal(aside, set_aside(56, 0.3, seed=6))
    every = [decode(raw) for path in records.files("train") for raw in read_frames(path)]
    ids = [record.image_id for record in every]
    whole = image_ids(records, seed=3, aside=aside, count=80)
    left_in = collections.Counter(name for name, left_out in zip(ids, aside, strict=True) if not left_out)
    assert collections.Counter(whole[: 56 - 17]) == left_in
    for host in range(hosts):
        # A restart in the middle of an epoch, and of the next one, counts the same photos: the host's of each batch.
        rows = Host(host, hosts).part(8)
        for position in (1, 4):
            expected = [name for first in range(8 * position, 64, 8) for name in whole[first:][rows.start : rows.stop]]
            assert (
                image_ids(records, seed=3, host=host, hosts=hosts, aside=aside, position=position, count=5)
                == (expected[:5])
            )
    got = [
        class_id
        for host in range(hosts)
        for batch in record_batches.evaluation_batches(
            records, "train", batch_size=4, pictures=Pictures(16), host=Host(host, hosts), only=aside
        )
        for class_id in batch["class_id"][batch["mask"]].tolist()
    ]
    assert got == [record.class_id for record, wanted in zip(every, aside, strict=True) if wanted]


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_every_example_exactly_once_an_epoch_over_all_hosts(records, hosts):
    total = records.examples("train")  # seven batches of eight
    for epoch in range(2):
        seen = collections.Counter()
        for host in range(hosts):
            share = total // hosts
            ids = image_ids(records, seed=5, host=host, hosts=hosts, count=share * 2)
            seen.update(ids[epoch * share : (epoch + 1) * share])
        assert len(seen) == total and set(seen.values()) == {1}


def test_batches_do_not_depend_on_the_number_of_hosts(records, unbroken):
    """Over an epoch and into the next one, with random crops: pixels of each host's part, captions of the whole."""
    hosts = [stream(records, 8, host=Host(host, 2), position=2, **CROPS) for host in range(2)]
    for one, *parts in zip(unbroken[2:10], *hosts, strict=True):
        for name in ("image", "class_id"):
            assert np.array_equal(one[name], np.concatenate([part[name] for part in parts]))
        assert all(np.array_equal(one["tokens"], part["tokens"]) for part in parts)


def test_the_order_is_fixed_by_seed_and_differs_between_epochs_and_seeds(records):
    total = records.examples("train")
    ids = image_ids(records, seed=5, count=2 * total)
    assert ids == image_ids(records, seed=5, count=2 * total)
    assert ids[:total] != ids[total:]
    assert ids[:total] != image_ids(records, seed=6, count=total)


@pytest.mark.parametrize("position", [1, 3, 6, 7, 8, 15])
def test_a_restart_yields_the_very_batches_of_an_unbroken_run(records, unbroken, position):
    rest = stream(records, 17 - position, position=position, **CROPS)
    for name in ("image", "tokens", "class_id"):
        assert np.array_equal(np.stack([b[name] for b in rest]), np.stack([b[name] for b in unbroken[position:]]))


def test_a_restart_decodes_nothing_of_what_is_skipped(records, monkeypatch):
    """Windows before the position are not even opened."""
    from lit_jax.data.records import file_instructions

    def windows(first):
        wanted = np.ones(56, bool)
        return record_batches._windows(
            file_instructions(records, "train"),
            wanted,
            record_batches.Batches(1, seed=0, window=1),
            Host(),
            first=first,
        )

    sizes = [int(window.takes.sum()) for window, _ in zip(windows(0), range(3), strict=False)]
    first = next(windows(sizes[0] + 1))
    again = list(zip(windows(0), range(2), strict=False))[1][0]
    assert first.paths.tolist() == again.paths.tolist()  # the second window's shard
    for name in ("draws", "numbers"):  # one record dropped before decoding
        assert getattr(first, name).tolist() == getattr(again, name).tolist()[1:]
    read = [np.flatnonzero(one.kept)[one.order] for one in (first, again)]
    assert read[0].tolist() == read[1].tolist()[1:]


def test_augmentation_differs_between_epochs(records):
    one = stream(records, 14, crop_scale=(0.3, 0.5))
    first = {h for batch in one[:7] for h in fingerprints(batch)}
    second = {h for batch in one[7:] for h in fingerprints(batch)}
    assert not first & second


def test_every_caption_of_a_record_is_drawn_sometimes(records):
    texts = load_tokenizer(records.tokenizer).decode(np.concatenate([b["tokens"] for b in stream(records, 14)]))
    share = np.mean([text.startswith("a photo") for text in texts])
    assert 0.3 < share < 0.7


def test_evaluation_is_every_example_once_with_the_rest_masked(records):
    got = list(record_batches.evaluation_batches(records, "validation", batch_size=7, pictures=Pictures(16)))
    assert [int(b["mask"].sum()) for b in got] == [7, 7, 7, 3] and all(len(b["image"]) == 7 for b in got)
    assert not got[-1]["image"][3:].any()
    counts = collections.Counter(i for b in got for i in b["class_id"][b["mask"]].tolist())
    assert set(counts.values()) == {3} and len(counts) == 8


@pytest.mark.parametrize("hosts", [2, 5])
def test_hosts_evaluate_the_same_number_of_batches_and_each_photo_once(records, hosts):
    per_host = [
        list(
            record_batches.evaluation_batches(
                records, "validation", batch_size=4, pictures=Pictures(16), host=Host(h, hosts)
            )
        )
        for h in range(hosts)
    ]
    assert len({len(got) for got in per_host}) == 1
    assert sum(int(b["mask"].sum()) for got in per_host for b in got) == 24


def test_looking_ahead_keeps_order_and_depth():
    started = []

    def put(x):
        started.append(x)
        return -x

    got = record_batches.ahead(range(5), put, depth=2)
    assert next(got) == 0 and started == [0, 1, 2]
    assert list(got) == [-1, -2, -3, -4]


def test_a_record_that_was_changed_is_refused_with_its_file(records, tmp_path):
    import shutil

    from lit_jax.data.records import open_records
    from lit_jax.errors import UserError

    shutil.copytree(records.directory, tmp_path / "copy")
    copy = open_records(tmp_path / "copy")
    path = copy.files("train")[-1]
    content = bytearray(path.read_bytes())
    content[-100] ^= 1  # of its last photo or caption
    path.write_bytes(content)
    pictures = Pictures(16)
    readers = {
        "training": lambda: stream(copy, 20),
        "evaluation": lambda: list(record_batches.evaluation_batches(copy, "train", batch_size=8, pictures=pictures)),
        "views": lambda: list(
            record_batches.view_batches(
                copy, "train", rows=range(copy.examples("train")), batch_size=8, pictures=pictures, views=1, seed=0
            )
        ),
    }
    for what, read in readers.items():
        with pytest.raises(UserError, match=rf"/{path.name}: found record \d+ with another checksum, expected it"):
            read()
            pytest.fail(what)

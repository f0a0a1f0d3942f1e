"""The way back from TFRecord files and their examples, against TensorFlow's own writer and parser."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from lit_jax.data.records import RecordSet, decode, encode
from lit_jax.data.tfrecord import (
    bytes_spans,
    decode_example,
    encode_example,
    feature_spans,
    frame,
    frame_spans,
    mapped,
    read_frames,
)
from lit_jax.errors import UserError

RECORDS = [b"", b"a", bytes(range(256)) * 40, b"last"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file.tfrecord"
    path.write_bytes(b"".join(map(frame, RECORDS)))
    return path


def test_records_of_the_conversion_are_read_as_tensorflow_reads_them(records: RecordSet) -> None:
    import tensorflow as tf

    for path in records.files("train"):
        theirs = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
        assert list(read_frames(path)) == theirs
        for serialized in theirs:
            features = tf.train.Example.FromString(serialized).features.feature
            ours = decode_example(serialized)
            assert set(ours) == set(features)
            for name, feature in features.items():
                assert ours[name] == list(feature.int64_list.value or feature.bytes_list.value)
            assert encode(decode(serialized)) == serialized


def test_examples_that_tensorflow_serialises_are_decoded(rng: np.random.Generator) -> None:
    import tensorflow as tf

    example = tf.train.Example()
    values = {
        "numbers": [0, 1, -1, 127, 128, 2**63 - 1, -(2**63)],
        "floats": rng.normal(size=9).astype(np.float32).tolist(),
        "texts": [b"", b"\xff" * 300, "×".encode()],
    }
    example.features.feature["numbers"].int64_list.value.extend(values["numbers"])
    example.features.feature["floats"].float_list.value.extend(values["floats"])
    example.features.feature["texts"].bytes_list.value.extend(values["texts"])
    _ = example.features.feature["nothing"]
    assert decode_example(example.SerializeToString()) == values | {"nothing": []}


def test_numbers_that_are_not_packed_are_decoded() -> None:
    from tensorflow_datasets.proto import tf_example_pb2

    unpacked = b"\x1a\x05\x08\x07\x08\xac\x02"  # int64_list { value: 7 value: 300 }
    entry = b"\x0a\x01n\x12" + bytes([len(unpacked)]) + unpacked
    features = b"\x0a" + bytes([len(entry)]) + entry
    serialized = b"\x0a" + bytes([len(features)]) + features
    assert tf_example_pb2.Example.FromString(serialized).features.feature["n"].int64_list.value == [7, 300]
    assert decode_example(serialized) == {"n": [7, 300]}


def test_bytes_are_found_where_they_lie_in_the_file(file: Path) -> None:
    photos = [b"first photo", b"second", b""]
    file.write_bytes(b"".join(frame(encode_example({"image": [photo], "label": 3})) for photo in photos))
    with mapped(file) as content:
        found = [bytes_spans(content, *feature_spans(content, *span)["image"]) for span in frame_spans(content, file)]
    assert [[file.read_bytes()[begin:end] for begin, end in spans] for spans in found] == [[photo] for photo in photos]


def test_a_part_of_the_records_is_read(file: Path) -> None:
    assert list(read_frames(file)) == RECORDS
    assert list(read_frames(file, 1, 2)) == RECORDS[1:3]
    assert list(read_frames(file, 3)) == RECORDS[3:]
    file.write_bytes(b"")
    assert list(read_frames(file)) == []


def test_damage_is_told_in_one_line(file: Path) -> None:
    whole = file.read_bytes()
    changed = bytearray(whole)
    changed[-6] ^= 1
    for content, message in [
        (bytes(changed), "found record 3 with another checksum, expected it as written"),
        (whole[:-1], f"found {len(whole) - 1} bytes, expected more; the file is cut short"),
        (whole[: len(whole) - 15], "the file is cut short"),
        (gzip.compress(whole), "found no record at byte 0, expected an uncompressed TFRecord file"),
        (b"\xff" * 100, "found no record at byte 0"),
    ]:
        file.write_bytes(content)
        with pytest.raises(UserError, match=message):
            list(read_frames(file))


@pytest.mark.parametrize("serialized", [b"\x0a\x05a", b"\x0a", b"\xff" * 11, b"\x0b", b"\x09abc"])
def test_bytes_that_are_no_message_are_refused(serialized: bytes) -> None:
    with pytest.raises(ValueError, match="message: found"):
        decode_example(serialized)
    with pytest.raises(ValueError, match=r"record: found no feature 'image'"):
        decode(b"")

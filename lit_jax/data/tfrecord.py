"""A `tf.train.Example` and its TFRecord frame as bytes, without TensorFlow, both ways.

Both formats are short: protobuf's wire format for one message, and a length with two checksums a record.
Writing them here keeps the processes of a conversion small and quick to start.
"""

import contextlib
import itertools
import mmap
import os
import struct
from collections.abc import Iterator, Mapping, Sequence

import google_crc32c

from lit_jax.errors import UserError

Buffer = bytes | mmap.mmap
Span = tuple[int, int]
"""Begin and end of a part of a buffer."""

_HEAD, _TAIL = 12, 4  # bytes around a record: its length with a checksum, and the checksum of the record


def encode_example(features: Mapping[str, int | Sequence[bytes]]) -> bytes:
    """A serialised `tf.train.Example`.

    Names are in alphabetical order, so that equal values have one encoding; protobuf itself leaves the order
    of a map open. Source: the protobuf encoding guide; ``tensorflow/core/example/feature.proto``.

    Args:
        features: name to value: an integer >= 0 (stored as int64) or any number of byte strings.

    Raises:
        ValueError: an integer below 0.
    """
    entries = [
        _field(1, *_field(1, key.encode()), *_field(2, *_feature(value))) for key, value in sorted(features.items())
    ]
    # A photo is copied here, once, and not at each of the layers around it.
    return b"".join(_field(1, *itertools.chain.from_iterable(entries)))


def frame(serialized: bytes) -> bytes:
    """One record as it lies in a TFRecord file: length, its checksum, the bytes, their checksum."""
    length = struct.pack("<Q", len(serialized))
    return b"".join((length, _masked_crc(length), serialized, _masked_crc(serialized)))


def read_frames(path: str | os.PathLike[str], skip: int = 0, take: int | None = None) -> Iterator[bytes]:
    """The records of a TFRecord file, in order, each compared with its checksum.

    Args:
        path: the file.
        skip: so many at its beginning are passed over unread.
        take: at most so many; None: all.

    Raises:
        UserError: the file is cut short, compressed, no TFRecord file, or a record was changed.
    """
    with mapped(path) as content:
        stop = None if take is None else skip + take
        for number, (begin, end) in itertools.islice(enumerate(frame_spans(content, path)), skip, stop):
            record = content[begin:end]
            if content[end : end + _TAIL] != _masked_crc(record):
                raise UserError(
                    f"{path}: found record {number} with another checksum, expected it as written; copy or make the "
                    "file anew"
                )
            yield record


@contextlib.contextmanager
def mapped(path: str | os.PathLike[str]) -> Iterator[Buffer]:
    """A file's bytes, of which only those that are looked at are read."""
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:  # which cannot be mapped
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield content


def frame_spans(content: Buffer, path: str | os.PathLike[str]) -> Iterator[Span]:
    """Where each record of a TFRecord file lies. Lengths are compared with their checksums, records are not read.

    Args:
        content: the whole file.
        path: its name, for messages.

    Raises:
        UserError: the file is cut short, compressed, or no TFRecord file.
    """
    position, size = 0, len(content)
    while position < size:
        length = content[position : position + 8]
        begin = position + _HEAD
        if size - position >= _HEAD and content[position + 8 : begin] != _masked_crc(length):
            raise UserError(
                f"{path}: found no record at byte {position}, expected an uncompressed TFRecord file; check the path, "
                "or copy or make the file anew"
            )
        end = begin + int.from_bytes(length, "little")
        if begin > size or end + _TAIL > size:
            raise UserError(f"{path}: found {size} bytes, expected more; the file is cut short, copy it again")
        yield begin, end
        position = end + _TAIL


def decode_example(serialized: bytes) -> dict[str, list[bytes] | list[int] | list[float]]:
    """The features of a serialised `tf.train.Example`, by name; the way back of `encode_example`.

    Source: the protobuf encoding guide; ``tensorflow/core/example/feature.proto``.

    Raises:
        ValueError: the bytes are no such message.
    """
    return {
        name: feature_values(serialized, *span) for name, span in feature_spans(serialized, 0, len(serialized)).items()
    }


def feature_spans(content: Buffer, begin: int, end: int) -> dict[str, Span]:
    """Where each `tf.train.Feature` of the `tf.train.Example` between two positions lies, by name.

    Raises:
        ValueError: there is no such message.
    """
    found = {}
    for number, features in _fields(content, begin, end):
        for inner, entry in _fields(content, *features) if number == 1 else ():
            if inner == 1:
                parts = dict(_fields(content, *entry))  # of a repeated field the last one counts
                name = content[slice(*parts[1])].decode() if 1 in parts else ""
                found[name] = parts.get(2, (end, end))
    return found


def bytes_spans(content: Buffer, begin: int, end: int) -> list[Span]:
    """Where the byte strings of the `tf.train.Feature` between two positions lie; none in one of numbers.

    Raises:
        ValueError: there is no such message.
    """
    lists = [span for number, span in _fields(content, begin, end) if number == 1]
    return [span for one in lists for number, span in _fields(content, *one) if number == 1]


def feature_values(content: Buffer, begin: int, end: int) -> list[bytes] | list[int] | list[float]:
    """What the `tf.train.Feature` between two positions holds.

    Raises:
        ValueError: there is no such message.
    """
    integers: list[int] = []
    floats: list[float] = []
    for kind, values in _fields(content, begin, end):  # 1: byte strings, 2: floats, 3: integers
        for _, (first, last) in _fields(content, *values) if kind in (2, 3) else ():
            if kind == 2:  # packed or not: four bytes each
                floats += struct.unpack(f"<{(last - first) // 4}f", content[first:last])
            while kind == 3 and first < last:
                value, first = _read_varint(content, first, last)
                integers.append(value - (1 << 64) if value >> 63 else value)
    return integers or floats or [content[first:last] for first, last in bytes_spans(content, begin, end)]


def _varint(value: int) -> bytes:
    if value < 0x80:
        return _ONE_BYTE[value]
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


_ONE_BYTE = tuple(bytes([value]) for value in range(0x80))  # most lengths and all keys are one of these


def _field(number: int, *payload: bytes) -> tuple[bytes, ...]:
    """A length-delimited protobuf field (wire type 2), in parts that are to be joined."""
    return (_varint(number << 3 | 2), _varint(sum(map(len, payload))), *payload)


def _feature(value: int | Sequence[bytes]) -> tuple[bytes, ...]:
    """A `tf.train.Feature`: field 1 is a list of byte strings, field 3 a list of integers, here of one."""
    if not isinstance(value, int):
        return _field(1, *itertools.chain.from_iterable(_field(1, item) for item in value))
    if value < 0:
        raise ValueError(f"feature: found {value}, expected 0 or more")
    return _field(3, *_field(1, _varint(value)))


def _fields(content: Buffer, begin: int, end: int) -> Iterator[tuple[int, Span]]:
    """Field numbers of a message and where their values lie; of a length-delimited one without the length."""
    position = begin
    while position < end:
        key, position = _read_varint(content, position, end)
        wire, first = key & 7, position
        if wire == 0:
            _, position = _read_varint(content, position, end)
        elif wire == 2:
            length, first = _read_varint(content, position, end)
            position = first + length
        else:
            position += {1: 8, 5: 4}.get(wire, end)
        if position > end:
            raise ValueError(f"message: found a field behind byte {end}, expected none")
        yield key >> 3, (first, position)


def _read_varint(content: Buffer, position: int, end: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            break
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"message: found no end of a number before byte {end}, expected one")


def _masked_crc(data: bytes) -> bytes:
    """TFRecord's checksum: CRC-32C, rotated and shifted so that a checksum of checksums is not weak."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

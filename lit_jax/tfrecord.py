"""A `tf.train.Example` and its TFRecord frame as bytes, without TensorFlow.

Both formats are short: protobuf's wire format for one message, and a length with two checksums a record.
Writing them here keeps the processes of a conversion small and quick to start.
"""

import functools
import struct
from collections.abc import Iterator, Mapping, Sequence

import numpy as np


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
        _field(1, _field(1, key.encode()) + _field(2, _feature(value))) for key, value in sorted(features.items())
    ]
    return _field(1, b"".join(entries))


def frame(serialized: bytes) -> bytes:
    """One record as it lies in a TFRecord file: length, its checksum, the bytes, their checksum."""
    length = struct.pack("<Q", len(serialized))
    return b"".join((length, _masked_crc(length), serialized, _masked_crc(serialized)))


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of `data`, as TFRecord files use it.

    Long data is cut into 32-bit words, and neighbours are joined level by level: the CRC of two blocks is
    the first one's, moved on by the length of the second, xor the second one's. Each level is one NumPy
    operation over all pairs, so 100 kB take well under a millisecond without a compiled extension.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    if len(data) < 64:
        crc, table = 0xFFFFFFFF, _byte_table()
        for byte in data:
            crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
        return crc ^ 0xFFFFFFFF
    # Zeros in front do not change a CRC that starts from zero; the usual start value is in the first word.
    padding = -len(data) % 4
    buffer = np.zeros(padding + len(data), np.uint8)
    buffer[padding:] = np.frombuffer(data, np.uint8)
    buffer[padding : padding + 4] ^= 0xFF
    words = buffer.view("<u4")
    for move in _move_tables():
        if len(words) == 1:
            break
        if len(words) % 2:
            words = np.concatenate([np.zeros(1, np.uint32), words])
        words = _moved(move, words[::2]) ^ words[1::2]
    return int(_moved(next(_move_tables()), words)[0]) ^ 0xFFFFFFFF


def _varint(value: int) -> bytes:
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field (wire type 2)."""
    return b"".join((_varint(number << 3 | 2), _varint(len(payload)), payload))


def _feature(value: int | Sequence[bytes]) -> bytes:
    """A `tf.train.Feature`: field 1 is a list of byte strings, field 3 a list of integers, here of one."""
    if not isinstance(value, int):
        return _field(1, b"".join(_field(1, item) for item in value))
    if value < 0:
        raise ValueError(f"feature: found {value}, expected 0 or more")
    return _field(3, _field(1, _varint(value)))


def _masked_crc(data: bytes) -> bytes:
    """TFRecord's checksum: CRC-32C, rotated and shifted so that a checksum of checksums is not weak."""
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


@functools.cache
def _byte_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # the reversed Castagnoli polynomial
        table.append(value)
    return tuple(table)


def _moved(table: np.ndarray, words: np.ndarray) -> np.ndarray:
    """`words [N] uint32` moved on by the zeros that `table [4, 256] uint32` stands for."""
    low, second, third, high = (words >> shift & 0xFF for shift in (0, 8, 16, 24))
    return table[0][low] ^ table[1][second] ^ table[2][third] ^ table[3][high]


def _move_tables() -> Iterator[np.ndarray]:
    """Tables that move a CRC on by 1, 2, 4, ... words of zeros."""
    for level in range(32):
        yield _move_table(level)


@functools.cache
def _move_table(level: int) -> np.ndarray:
    if level:
        half = _move_table(level - 1)
        return np.stack([_moved(half, row) for row in half])
    step = np.array(_byte_table(), np.uint32)
    words = np.arange(256, dtype=np.uint32)[None] << np.array([[0], [8], [16], [24]], np.uint32)
    for _ in range(4):
        words = step[words & 0xFF] ^ words >> 8
    return words

"""The format of record sets: features, encoding, shard files and manifest, for writer and reader.

A *record set* is a folder in TFDS's own TFRecord layout, so ``tfds.builder_from_directory(folder)`` opens it::

    photos-train.tfrecord-00000-of-00004 ...   one file a shard, one `tf.train.Example` a record
    features.json, dataset_info.json           what TFDS needs to decode them
    classes.csv, tokenizer.model               the class table and, if one was trained, the tokenizer
    manifest.json                              what `open_records` reads: shards, digests, fingerprint
    plan.json, report.json, report.txt         how it was made and what was left out

Features of a record:

* ``image``: encoded JPEG, decodes to ``[H, W, 3] uint8``;
* ``captions``: any number of UTF-8 texts, ``[N] string``;
* ``class_id``: ``[] int64``, the class's id in the class table;
* ``image_id``: ``[] string``, path of the photo relative to the folder that it came from, with ``/``;
* ``ranks``: dict of ``[] string``: each of `lit_jax.text.classes.RANKS` and ``name``; empty where not in the table.

Only `parse_example` imports TensorFlow, and only when it is called.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lit_jax.base.files import digest, file_digest, write_json
from lit_jax.base.hosts import ALONE, Host
from lit_jax.data.dataset_folder import MANIFEST, DatasetFolder, Kind, check_unchanged, is_of, read
from lit_jax.data.tfrecord import decode_example, encode_example
from lit_jax.errors import UserError
from lit_jax.text.classes import RANKS

VERSION = 1  # of the format; a reader refuses a newer one
KIND = Kind(
    format="lit_jax records",
    version=VERSION,
    word="record",
    noun="record set",
    one="a record set",
    made_by="python -m data_prep.convert",
    finish="run the same python -m data_prep.convert command again to finish it",
    make="",
    check="check the path or convert the photos",
)
NAME = "photos"  # the data set's name in TFDS, and the first word of each shard's file name
CLASS_TABLE, TOKENIZER = "classes.csv", "tokenizer.model"
TFDS_FILES = ("features.json", "dataset_info.json")
RANK_FIELDS = (*RANKS, "name")


@dataclasses.dataclass(frozen=True)
class Record:
    """One photo with its texts, as it is stored.

    Attributes:
        jpeg: Encoded JPEG, stored byte for byte.
        captions: Texts of the photo's class, one a template.
        class_id: The class's id in the class table, >= 0.
        image_id: Path relative to the photos' folder, with ``/``.
        ranks: Taxonomic names by rank, and ``name``; missing ones are stored as "".
    """

    jpeg: bytes
    captions: tuple[str, ...]
    class_id: int
    image_id: str
    ranks: Mapping[str, str]


def encode(record: Record) -> bytes:
    """One record as a serialised `tf.train.Example`, as TFDS's example serialiser makes it of these features.

    One record has one encoding. The photo's bytes pass untouched.
    """
    return encode_example(
        {
            "image": [record.jpeg],
            "captions": [text.encode() for text in record.captions],
            "class_id": record.class_id,
            "image_id": [record.image_id.encode()],
            **{f"ranks/{rank}": [record.ranks.get(rank, "").encode()] for rank in RANK_FIELDS},
        }
    )


def decode(serialized: bytes) -> Record:
    """One record from its serialised `tf.train.Example`, without TensorFlow; the way back of `encode`.

    Raises:
        ValueError: the bytes are no such record.
    """
    features: dict[str, Any] = decode_example(serialized)
    try:
        return Record(
            jpeg=features["image"][0],
            captions=tuple(text.decode() for text in features["captions"]),
            class_id=features["class_id"][0],
            image_id=features["image_id"][0].decode(),
            ranks={rank: features[f"ranks/{rank}"][0].decode() for rank in RANK_FIELDS},
        )
    except (KeyError, IndexError) as error:
        raise ValueError(f"record: found no feature {error}, expected those of a photo") from error


def parse_example(serialized: Any) -> dict[str, Any]:
    """A serialised record as tensors; the photo stays encoded. For use inside a ``tf.data`` map.

    Args:
        serialized: ``[] string`` tensor, one record of a shard.

    Returns:
        ``image [] string`` (JPEG bytes), ``captions [N] string``, ``class_id [] int64``,
        ``image_id [] string``.
    """
    import tensorflow as tf

    return tf.io.parse_single_example(
        serialized,
        {
            "image": tf.io.FixedLenFeature([], tf.string),
            "captions": tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True),
            "class_id": tf.io.FixedLenFeature([], tf.int64),
            "image_id": tf.io.FixedLenFeature([], tf.string),
        },
    )


def tfds_features() -> Any:
    """The features of a record as a documented `tfds.features.FeaturesDict`; does not load TensorFlow."""
    import tensorflow_datasets as tfds

    feature = tfds.features
    ranks = {rank: feature.Text(doc=f"the class's {rank}; empty if unknown") for rank in RANKS}
    ranks["name"] = feature.Text(doc="the class's name in the class table")
    return feature.FeaturesDict(
        {
            "image": feature.Image(shape=(None, None, 3), encoding_format="jpeg", doc="the photo, sRGB"),
            "captions": feature.Sequence(feature.Text(), doc="texts of the class, one a template"),
            "class_id": feature.Scalar(np.int64, doc="id of the class in classes.csv"),
            "image_id": feature.Text(doc="path of the photo relative to the folder that it came from"),
            "ranks": feature.FeaturesDict(ranks, doc="taxonomic names of the class"),
        },
        doc="a photo and the texts of its class",
    )


@dataclasses.dataclass(frozen=True)
class Shard:
    """One finished shard file, as the manifest lists it.

    Attributes:
        file: File name inside the record set.
        examples: Number of records, >= 0.
        size: Bytes of the file.
        sha256: Digest of the file, hexadecimal; it covers each record with its length and checksum.
    """

    file: str
    examples: int
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordSet(DatasetFolder[Shard]):
    """A complete record set, as `open_records` found it.

    Attributes:
        version: Version of the format.
    """

    version: int

    def files(self, split: str) -> tuple[Path, ...]:
        """Paths of the split's shards; raises `UserError` that lists the splits if there is none."""
        return tuple(self.directory / shard.file for shard in self.shards(split))


def shard_name(split: str, index: int, count: int) -> str:
    """File name of shard `index` of `count`, in TFDS's form.

    Example:
        >>> shard_name("train", 0, 4)
        'photos-train.tfrecord-00000-of-00004'
    """
    return f"{NAME}-{split}.tfrecord-{index:05d}-of-{count:05d}"


def file_instructions(record_set: RecordSet, split: str, host: Host = ALONE) -> list[tuple[Path, int, int]]:
    """What a host reads of a split: its contiguous part of the records in order.

    Over the hosts every record is read exactly once, and the parts differ by at most one record.

    Returns:
        (path of a shard, records to skip, records to take), take > 0; empty if the part is empty.

    Raises:
        UserError: the split does not exist.
        ValueError: the host is none of those there are.
    """
    if not 0 <= host.index < host.count:
        raise ValueError(f"host: found {host.index}, expected 0 to {host.count - 1}")
    part = host.part(record_set.examples(split))
    return file_part(record_set, split, part.start, part.stop)


def file_part(record_set: RecordSet, split: str, begin: int, end: int) -> list[tuple[Path, int, int]]:
    """Where the records from number `begin` to `end` of a split lie: (path of a shard, records to skip, to take)."""
    instructions, first = [], 0
    for shard in record_set.splits[split]:
        skip = max(begin - first, 0)
        take = min(end - first, shard.examples) - skip
        if take > 0:
            instructions.append((record_set.directory / shard.file, skip, take))
        first += shard.examples
    return instructions


def write_metadata(
    directory: Path,
    splits: Mapping[str, Sequence[Shard]],
    *,
    templates: Sequence[str],
    drop_repeats: bool = False,
    captions: Iterable[Sequence[str]],
    class_ids: Mapping[str, Iterable[int]],
    options: Mapping[str, Any],
) -> None:
    """Writes TFDS's two files and, last, the manifest. Class table and tokenizer must be in place already.

    Args:
        directory: Where the shards are.
        splits: Shards of each split; a split without a record is left out.
        templates: Caption templates, by which a reader can make the captions of any class.
        drop_repeats: How they were filled.
        captions: Captions of each class, in the order of the class table; only their digest is stored.
        class_ids: Ids of the classes that have records, by name of the split.
        options: Other facts about the making, JSON values without paths or times.
    """
    splits = {name: tuple(shards) for name, shards in splits.items() if any(s.examples for s in shards)}
    tokenizer = directory / TOKENIZER
    manifest = {
        "format": KIND.format,
        "version": VERSION,
        "class_table": {"file": CLASS_TABLE, "sha256": file_digest(directory / CLASS_TABLE)},
        "tokenizer": {"file": TOKENIZER, "sha256": file_digest(tokenizer)} if tokenizer.exists() else None,
        "templates": list(templates),
        "drop_repeats": drop_repeats,
        "captions_sha256": digest([list(texts) for texts in captions]),
        "splits": {name: [dataclasses.asdict(s) for s in shards] for name, shards in splits.items()},
        "class_ids": {name: sorted(class_ids[name]) for name in splits},
        "options": dict(options),
    }
    manifest["fingerprint"] = _fingerprint(manifest)
    _write_tfds_files(directory, splits)
    write_json(directory / MANIFEST, manifest)


def open_records(directory: str | Path) -> RecordSet:
    """Opens a complete record set without TensorFlow and checks that its files are all there.

    Raises:
        UserError: no such folder; a half-written set; a folder of something else; a newer format; a shard
            or the class table is missing or was changed since.
    """
    folder = Path(os.path.abspath(directory))
    manifest = read(folder, KIND)
    try:
        splits = {name: tuple(Shard(**shard) for shard in shards) for name, shards in manifest["splits"].items()}
        tokenizer = manifest["tokenizer"]
        record_set = RecordSet(
            directory=folder,
            splits=splits,
            class_table=folder / manifest["class_table"]["file"],
            tokenizer=folder / tokenizer["file"] if tokenizer else None,
            templates=tuple(manifest["templates"]),
            drop_repeats=manifest["drop_repeats"],
            class_ids={split: tuple(manifest["class_ids"][split]) for split in splits},
            fingerprint=manifest["fingerprint"],
            version=VERSION,
        )
        sound = _fingerprint(manifest) == manifest["fingerprint"] and _is_typed(record_set)
    except (KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise UserError(
            f"{folder / MANIFEST}: found a changed manifest, expected it as written; convert again with --restart"
        )
    _check_files(record_set, manifest)
    return record_set


def is_record_set(directory: Path) -> bool:
    """True if the folder holds a manifest of this format, complete or not, whatever its version."""
    return is_of(directory, KIND)


def _is_typed(record_set: RecordSet) -> bool:
    """Whether that of a manifest which its fingerprint does not cover is at least of the right types."""
    ids = (class_id for ids in record_set.class_ids.values() for class_id in ids)
    return (
        all(type(class_id) is int for class_id in ids)
        and all(isinstance(template, str) for template in record_set.templates)
        and isinstance(record_set.drop_repeats, bool)
    )


def _check_files(record_set: RecordSet, manifest: Mapping[str, Any]) -> None:
    """Sizes of shards and digests of the small files; reading all shards at each start would cost too much."""
    for shard in (shard for shards in record_set.splits.values() for shard in shards):
        path = record_set.directory / shard.file
        found = f"{path.stat().st_size} bytes" if path.is_file() else "no file"
        if found != f"{shard.size} bytes":
            raise UserError(
                f"{path}: found {found}, expected {shard.size} bytes; copy it again or convert with --restart"
            )
    entries = [*({"file": name} for name in TFDS_FILES), manifest["class_table"], manifest["tokenizer"]]
    check_unchanged(record_set.directory, entries, "convert again with --restart")


def _fingerprint(manifest: Mapping[str, Any]) -> str:
    """Digest of what a model learns from: not the options, which differ without any change of the data."""
    shards = {
        split: [[shard["file"], shard["examples"], shard["sha256"]] for shard in shards]
        for split, shards in manifest["splits"].items()
    }
    return digest([manifest["version"], manifest["class_table"]["sha256"], manifest["captions_sha256"], shards])


def _write_tfds_files(directory: Path, splits: Mapping[str, Sequence[Shard]]) -> None:
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        data_dir=directory,
        dataset_name=NAME,
        filetype_suffix="tfrecord",
        template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    )
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=NAME, version=tfds.core.Version(f"{VERSION}.0.0"), data_dir=str(directory), module_name=""
    )
    info = tfds.core.DatasetInfo(
        builder=identity, features=tfds_features(), description="Photos with captions of their classes."
    )
    info.set_file_format("tfrecord")
    info.set_splits(
        tfds.core.splits.SplitDict(
            [
                tfds.core.SplitInfo(
                    name=name,
                    shard_lengths=[shard.examples for shard in shards],
                    num_bytes=sum(shard.size for shard in shards),
                    filename_template=template,
                )
                for name, shards in splits.items()
            ]
        )
    )
    info.write_to_directory(directory)

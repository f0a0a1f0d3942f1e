"""The record format: what is written is what TensorFlow, TFDS and our own reader read."""

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_jax.base.hosts import Host
from lit_jax.data.records import (
    CLASS_TABLE,
    MANIFEST,
    RANK_FIELDS,
    Record,
    RecordSet,
    Shard,
    encode,
    file_instructions,
    open_records,
    parse_example,
    shard_name,
    tfds_features,
    write_metadata,
)
from lit_jax.data.tfrecord import encode_example, frame
from lit_jax.errors import UserError
from lit_jax.text.classes import ClassTable, write_class_table

TABLE = ClassTable((3, 300), {"name": ("Pica pica", "Malus ×domestica"), "genus": ("Pica", "Malus")})

CLASS_IDS = {"train": [300, 3], "validation": [300]}


def jpeg(value: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((5, 7, 3), value, np.uint8)).save(out, "JPEG", quality=95)
    return out.getvalue()


def record(number: int) -> Record:
    row = number % 2
    return Record(
        jpeg=jpeg(number * 20),
        captions=(f"a photo of {TABLE.row(row)['name']}", "zweiter × Text", "")[: number % 4],
        class_id=TABLE.ids[row],
        image_id=f"a/photo {number}.jpg",
        ranks=TABLE.row(row),
    )


def write_set(folder: Path, shards: dict[str, list[int]], first: int = 0) -> list[Record]:
    """A record set with so many records in the shards of each split, numbered through from `first`."""
    folder.mkdir()
    write_class_table(TABLE, folder / CLASS_TABLE)
    records, splits = [], {}
    for split, lengths in shards.items():
        splits[split] = []
        for index, length in enumerate(lengths):
            part = [record(first + len(records) + i) for i in range(length)]
            content = b"".join(frame(encode(r)) for r in part)
            name = shard_name(split, index, len(lengths))
            (folder / name).write_bytes(content)
            splits[split].append(Shard(name, length, len(content), hashlib.sha256(content).hexdigest()))
            records += part
    write_metadata(
        folder, splits, templates=("{name}",), captions=[("a",), ("b",)], class_ids=CLASS_IDS, options={"seed": 1}
    )
    return records


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # A shard without records is what remains if all its photos were broken.
    write_set(tmp_path / "set", {"train": [3, 0, 2], "validation": [1]})
    return tmp_path / "set"


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# -- bytes


def crc32c(data: bytes) -> int:
    """The checksum behind a record, without TFRecord's mask."""
    masked = int.from_bytes(frame(data)[-4:], "little") - 0xA282EAD8 & 0xFFFFFFFF
    return (masked << 15 | masked >> 17) & 0xFFFFFFFF


def test_crc32c_of_published_vectors() -> None:
    # RFC 3720, appendix B.4, and the usual check value.
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 66, 67, 68, 127, 128, 4095, 40_001])
def test_crc32c_equals_the_shift_register(length: int, rng: np.random.Generator) -> None:
    data = rng.bytes(length)
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ 0x82F63B78 * (register & 1)
    assert crc32c(data) == register ^ 0xFFFFFFFF


@pytest.mark.parametrize("number", range(4))
def test_a_record_is_what_tfds_serialises_but_for_the_order_of_its_features(number: int) -> None:
    import tensorflow_datasets as tfds

    one = record(number)
    example = tfds.core.example_serializer.ExampleSerializer(tfds_features().get_serialized_info()).get_tf_example(
        {
            "image": one.jpeg,
            "captions": list(one.captions),
            "class_id": one.class_id,
            "image_id": one.image_id,
            "ranks": {rank: one.ranks.get(rank, "") for rank in RANK_FIELDS},
        }
    )
    # Protobuf leaves the order of a map open, so both sides are brought into its own.
    ours = type(example).FromString(encode(one))
    assert ours == example
    assert ours.SerializeToString(deterministic=True) == example.SerializeToString(deterministic=True)
    assert len(encode(one)) == example.ByteSize()


def test_numbers_of_many_bytes_and_long_strings_are_encoded() -> None:
    from tensorflow_datasets.proto import tf_example_pb2

    texts = [b"x" * length for length in (0, 127, 128, 255, 256, 16_383, 16_384, 70_000)]
    message = tf_example_pb2.Example.FromString(encode_example({"id": 2**62 + 5, "text": texts}))
    assert message.features.feature["id"].int64_list.value == [2**62 + 5]
    assert message.features.feature["text"].bytes_list.value == texts
    with pytest.raises(ValueError, match="found -1, expected 0 or more"):
        encode_example({"id": -1})


def test_tensorflow_reads_the_frames_and_parse_example_the_records(folder: Path) -> None:
    import tensorflow as tf

    files = [str(path) for path in open_records(folder).files("train")]
    parsed = list(tf.data.TFRecordDataset(files).map(parse_example).as_numpy_iterator())
    assert [p["image_id"].decode() for p in parsed] == [f"a/photo {i}.jpg" for i in range(5)]
    for number, found in enumerate(parsed):
        expected = record(number)
        assert found["image"] == expected.jpeg
        assert tuple(text.decode() for text in found["captions"]) == expected.captions
        assert (found["class_id"], found["class_id"].dtype) == (expected.class_id, np.int64)


def test_a_damaged_record_is_noticed_by_tensorflow(folder: Path) -> None:
    import tensorflow as tf

    path = open_records(folder).files("train")[0]
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    with pytest.raises(tf.errors.DataLossError):
        list(tf.data.TFRecordDataset(str(path)))


def test_tfds_opens_the_folder_and_decodes_equal_examples(tmp_path: Path) -> None:
    import tensorflow_datasets as tfds

    records = write_set(tmp_path / "set", {"train": [3, 0, 2], "validation": [1]})
    builder = tfds.builder_from_directory(tmp_path / "set")
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {"train": 5, "validation": 1}
    config = tfds.ReadConfig(interleave_cycle_length=1)
    found = [
        example
        for split in ("train", "validation")
        for example in tfds.as_numpy(builder.as_dataset(split=split, read_config=config))
    ]
    assert len(found) == len(records) == 6
    for example, expected in zip(found, records, strict=True):
        assert example["image"].dtype == np.uint8
        np.testing.assert_array_equal(example["image"], np.asarray(Image.open(io.BytesIO(expected.jpeg))))
        assert tuple(text.decode() for text in example["captions"]) == expected.captions
        assert example["class_id"] == expected.class_id
        assert example["image_id"].decode() == expected.image_id
        assert example["ranks"]["genus"].decode() == expected.ranks["genus"]
        assert example["ranks"]["name"].decode() == expected.ranks["name"]
        assert example["ranks"]["family"] == b""


def test_each_feature_is_documented_for_tfds() -> None:
    features = tfds_features()
    assert all(feature.doc.desc for feature in [*features.values(), *features["ranks"].values()])


# -- opening


def test_open_records_tells_what_is_there(folder: Path) -> None:
    found = open_records(str(folder))
    assert [shard.examples for shard in found.splits["train"]] == [3, 0, 2]
    assert (found.examples("train"), found.examples("validation"), found.examples()) == (5, 1, 6)
    assert found.class_table == folder / "classes.csv"
    assert found.tokenizer is None
    assert found.templates == ("{name}",)
    assert (found.classes_in("train"), found.classes_in("validation")) == ((3, 300), (300,))
    assert found.drop_repeats is False
    with pytest.raises(UserError, match="split: found 'test', expected one of train, validation"):
        found.examples("test")
    with pytest.raises(UserError, match="split: found 'test'"):
        found.classes_in("test")


def test_opening_loads_neither_tensorflow_nor_tfds(folder: Path) -> None:
    code = (
        "import sys; from lit_jax.data.records import open_records; open_records(sys.argv[1]);"
        "print([m for m in ('tensorflow', 'tensorflow_datasets', 'jax') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_fingerprint_changes_with_records_captions_and_classes_only(tmp_path: Path) -> None:
    def fingerprint(name: str, captions: str = "a", table: ClassTable = TABLE, first: int = 0, seed: int = 1) -> str:
        made = tmp_path / name
        write_set(made, {"train": [2]}, first)
        write_class_table(table, made / CLASS_TABLE)
        shards = open_shards(made)
        write_metadata(made, shards, templates=(), captions=[(captions,)], class_ids=CLASS_IDS, options={"seed": seed})
        return open_records(made).fingerprint

    def open_shards(made: Path) -> dict[str, list[Shard]]:
        listed = json.loads((made / MANIFEST).read_text())["splits"]
        return {split: [Shard(**shard) for shard in shards] for split, shards in listed.items()}

    usual = fingerprint("usual")
    assert fingerprint("same", seed=2) == usual
    other_table = ClassTable((3, 301), TABLE.columns)
    others = {
        fingerprint("captions", captions="b"),
        fingerprint("table", table=other_table),
        fingerprint("records", first=2),
    }
    assert len(others | {usual}) == 4


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="found no such folder, expected a record set; make it with python -m data_prep.convert"
    ):
        open_records(tmp_path / "nothing")


def test_a_half_written_set_is_refused(folder: Path) -> None:
    work = folder.rename(folder.with_name("set.incomplete"))
    with pytest.raises(
        UserError, match=r"found only set\.incomplete, .* run the same python -m data_prep.convert command again"
    ):
        open_records(folder)
    with pytest.raises(UserError, match="found a half-written record set, expected a complete one"):
        open_records(work)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    for manifest in ("", "[]", '{"format": "others"}'):
        (tmp_path / MANIFEST).write_text(manifest)
        with pytest.raises(UserError, match=r"found no manifest\.json of lit_jax records, expected a folder made by"):
            open_records(tmp_path)


def test_a_newer_format_is_refused(folder: Path) -> None:
    edit(folder / MANIFEST, version=2, splits="something new")
    with pytest.raises(UserError, match="found record format 2, expected at most 1; update lit_jax"):
        open_records(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"captions_sha256": "0"},
        {"splits": None},
        {"version": "1"},
        {"splits": {}},
        {"templates": [1]},
        {"class_ids": {"train": [[1]], "validation": ["2"]}},
        {"class_ids": {"train": "12", "validation": [True]}},
        {"drop_repeats": "no"},
    ],
)
def test_a_changed_manifest_is_refused(folder: Path, changes: dict[str, object]) -> None:
    edit(folder / MANIFEST, **changes)
    with pytest.raises(
        UserError, match="found a changed manifest, expected it as written; convert again with --restart"
    ):
        open_records(folder)


@pytest.mark.parametrize("name", ["classes.csv", "features.json", "dataset_info.json"])
def test_a_missing_small_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name}: found no file, expected it as written with the shards"):
        open_records(folder)


def test_a_changed_class_table_is_refused(folder: Path) -> None:
    write_class_table(ClassTable((3, 301), TABLE.columns), folder / CLASS_TABLE)
    with pytest.raises(UserError, match=r"classes\.csv: found another content, expected it as written"):
        open_records(folder)


def test_a_missing_or_cut_shard_is_refused(folder: Path) -> None:
    path = open_records(folder).files("validation")[0]
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        UserError, match=f"found {size - 1} bytes, expected {size} bytes; copy it again or convert with"
    ):
        open_records(folder)
    path.unlink()
    with pytest.raises(UserError, match=f"found no file, expected {size} bytes"):
        open_records(folder)


# -- parts of hosts


def of_lengths(*lengths: int) -> RecordSet:
    shards = tuple(Shard(f"{i}", length, 0, "") for i, length in enumerate(lengths))
    return RecordSet(
        directory=Path("set"), splits={"train": shards}, class_table=Path("classes.csv"), tokenizer=None, templates=(),
        drop_repeats=False, class_ids={}, version=1,
    )  # fmt: skip


def test_parts_of_three_hosts_by_hand() -> None:
    records = of_lengths(4, 0, 3, 1)  # 8 records: 0 to 2, 2 to 5, 5 to 8
    assert file_instructions(records, "train", Host(0, 3)) == [(Path("set/0"), 0, 2)]
    assert file_instructions(records, "train", Host(1, 3)) == [(Path("set/0"), 2, 2), (Path("set/2"), 0, 1)]
    assert file_instructions(records, "train", Host(2, 3)) == [(Path("set/2"), 1, 2), (Path("set/3"), 0, 1)]


@pytest.mark.parametrize("hosts", [1, 2, 3, 5, 7, 8, 13, 64, 97])
@pytest.mark.parametrize("lengths", [(1,), (0, 0, 5), (7, 7, 7), (13, 0, 11, 1, 29), (97,), (1,) * 31, ()])
def test_every_record_is_read_exactly_once_in_parts_of_equal_length(lengths: tuple[int, ...], hosts: int) -> None:
    records = of_lengths(*lengths)
    parts = [
        [
            (path.name, i)
            for path, skip, take in file_instructions(records, "train", Host(host, hosts))
            for i in range(skip, skip + take)
        ]
        for host in range(hosts)
    ]
    everything = [(str(shard), i) for shard, length in enumerate(lengths) for i in range(length)]
    assert [one for part in parts for one in part] == everything
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_parts_of_hosts_that_are_not_there() -> None:
    with pytest.raises(ValueError, match="host: found 2, expected 0 to 1"):
        file_instructions(of_lengths(3), "train", Host(2, 2))
    with pytest.raises(UserError, match="split: found 'heldout', expected train, the only one in"):
        file_instructions(of_lengths(3), "heldout")

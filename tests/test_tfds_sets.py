"""Sets that TFDS itself has built: their photos pass byte for byte, their labels become classes."""

import io
import shutil
from pathlib import Path

import pytest

from data_prep.convert import main
from data_prep.sources.by_name import SOURCES
from data_prep.sources.items import Item, Request, Skip
from data_prep.sources.labels import label_table
from lit_jax.data.records import RecordSet, open_records
from lit_jax.data.tfrecord import encode_example, frame
from lit_jax.errors import UserError
from lit_jax.text.classes import read_class_table
from tests.test_convert import noise, records
from tests.test_photos import encoded

LABELS = ("Pica_pica", "Corvus_corax")


def photo(split: str, number: int) -> bytes:
    """Every third one is a PNG."""
    seed = {"train": 0, "test": 100}[split] + number
    return encoded(noise(seed), "PNG" if number % 3 == 2 else "JPEG")


def example(split: str, number: int) -> dict[str, object]:
    """Of the first one in `test` the label is secret, as it is in the test splits of competitions."""
    label = -1 if (split, number) == ("test", 0) else LABELS[number % 2]
    return {"image": io.BytesIO(photo(split, number)), "label": label, "note": f"{number}"}


def build(folder: Path, name: str, features: dict[str, object], splits: dict[str, list[dict[str, object]]]) -> None:
    """Writes a data set as TFDS writes it, five examples a shard."""
    import tensorflow_datasets as tfds

    place = folder / name / "1.0.0"
    place.mkdir(parents=True)
    identity = tfds.core.DatasetIdentity(name, tfds.core.Version("1.0.0"), str(place), "tests")
    info = tfds.core.DatasetInfo(builder=identity, features=tfds.features.FeaturesDict(features))
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=5)
    writer.initialize_splits(list(splits))
    for split, examples in splits.items():
        writer.add_examples({split: examples})
    writer.close_all()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`birds` in two splits, and `pairs` with two labels."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")
    image, label = tfds.features.Image(), tfds.features.ClassLabel(names=LABELS)
    splits = {split: [example(split, i) for i in range(number)] for split, number in (("train", 8), ("test", 3))}
    build(folder, "birds", {"image": image, "label": label, "note": tfds.features.Text()}, splits)
    build(folder, "pairs", {"image": image, "a": label, "b": label}, {"train": []})
    return folder


def test_photos_are_stored_byte_for_byte_under_their_labels(data_dir: Path, tmp_path: Path) -> None:
    main(f"--source tfds --images birds --tfds-dir {data_dir} --out {tmp_path}/out --vocab-size 0 --workers 1".split())
    made = open_records(tmp_path / "out")
    table = read_class_table(made.class_table)
    assert table == label_table(LABELS)
    assert table.names == ("Pica pica", "Corvus corax")
    found = records(made)
    assert {split: len(part) for split, part in found.items()} == {"train": 8, "validation": 2}
    for ours, theirs in (("train", "train"), ("validation", "test")):
        for record in found[ours]:
            file, _, rest = record["image_id"].decode().partition("/")
            shard = int(file.removeprefix(f"birds-{theirs}.tfrecord-"))
            number = 5 * shard + int(rest.partition(".")[0])
            assert record["class_id"] == number % 2
            if number % 3 == 2:
                assert rest.endswith(".png")
            else:
                assert record["image"] == photo(theirs, number)
    report = (tmp_path / "out" / "report.txt").read_text()
    assert "left out: 1 photos\n        1  no class in its record" in report
    assert "is PNG" not in report


@pytest.mark.parametrize("name", ["birds", "birds:1.0.0", "folder"])
def test_a_set_is_found_by_name_version_or_folder(data_dir: Path, name: str) -> None:
    images = str(data_dir / "birds" / "1.0.0") if name == "folder" else name
    items = list(SOURCES["tfds"](Request(images, data_dir=str(data_dir))).items)
    assert [item.split for item in items if isinstance(item, Item)] == ["train"] * 8 + ["test"] * 2
    assert [item.reason for item in items if isinstance(item, Skip)] == ["no class in its record"]


def test_train_alone_counts_as_a_set_without_splits(data_dir: Path) -> None:
    def splits(*subsets: str) -> set[str | None]:
        return {
            item.split
            for item in SOURCES["tfds"](Request("birds", subsets=subsets, data_dir=str(data_dir))).items
            if isinstance(item, Item)
        }

    assert (splits("train"), splits("test"), splits("train", "test")) == ({None}, {"test"}, {"train", "test"})


def test_labels_are_looked_up_in_a_class_table_that_is_given(data_dir: Path, tmp_path: Path) -> None:
    classes = tmp_path / "classes.csv"
    classes.write_text("id,folder,name,family\n7,Corvus_corax,Corvus corax,Corvidae\n5,Pica_pica,Pica pica,Corvidae\n")
    command = f"--source tfds --images birds --tfds-dir {data_dir} --classes {classes} --template {{family}} --limit 6"
    main([*command.split(), "--out", str(tmp_path / "out"), "--vocab-size", "0", "--workers", "1"])
    for record in (record for part in records(open_records(tmp_path / "out")).values() for record in part):
        file, _, rest = record["image_id"].decode().partition("/")
        number = 5 * int(file[-5:]) + int(rest.partition(".")[0])
        assert record["class_id"] == (5, 7)[number % 2]
        assert record["captions"].tolist() == [b"Corvidae"]


def test_what_cannot_be_converted_is_told_in_one_line(data_dir: Path, records: RecordSet, tmp_path: Path) -> None:
    for request, message in [
        (Request(""), "--images: found none, expected the name of a TFDS data set"),
        (
            Request("nothing", data_dir=str(data_dir)),
            rf"found no data set 'nothing' in {data_dir}, .* tfds build nothing --data_dir",
        ),
        (Request("/no/such/folder"), "found no data set '/no/such/folder' in TFDS's own folder"),
        (Request(str(tmp_path)), r"found no features\.json, expected the folder of one version"),
        (Request(str(records.directory)), "found a record set of this package, .* it is converted already"),
        (
            Request("pairs", data_dir=str(data_dir)),
            r"pairs/1\.0\.0: found (image|a|b) .*(Image).*, expected one Image and one ClassLabel",
        ),
        (
            Request("birds", subsets=("val",), data_dir=str(data_dir)),
            "--subsets: found 'val', expected some of",
        ),
    ]:
        with pytest.raises(UserError, match=message) as error:
            SOURCES["tfds"](request)
        assert "\n" not in str(error.value)


def test_other_file_formats_and_damaged_shards_are_told_in_one_line(data_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "birds" / "1.0.0"
    shutil.copytree(data_dir / "birds" / "1.0.0", folder)
    shard = folder / "birds-train.tfrecord-00000"
    request = Request("birds", subsets=("train",), data_dir=str(tmp_path))
    for content, message in [
        (shard.read_bytes()[:-3], "the file is cut short"),
        (frame(b"\xff\xff"), "record 0: found bytes of another form"),
    ]:
        shard.write_bytes(content)
        with pytest.raises(UserError, match=message):
            list(SOURCES["tfds"](request).items)
    shard.write_bytes(frame(encode_example({"label": 0})))
    assert next(iter(SOURCES["tfds"](request).items)).reason == "no photo in its record"
    shard.unlink()
    with pytest.raises(UserError, match="found no such file, expected a shard of the data set; build it again"):
        list(SOURCES["tfds"](request).items)
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"tfrecord"', '"array_record"'))
    with pytest.raises(UserError, match="found files of format array_record, expected tfrecord; build it"):
        SOURCES["tfds"](request)

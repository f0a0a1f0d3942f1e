"""What each kind of source makes of a request, as far as it has no test file of its own."""

from pathlib import Path

import pytest

from data_prep.conversion.convert import convert
from data_prep.convert import main
from data_prep.sources.by_name import SOURCES
from data_prep.sources.items import Item, Request
from lit_jax.data.records import open_records
from lit_jax.errors import UserError
from lit_jax.text.classes import write_class_table
from lit_jax.text.tokenizers import load_tokenizer
from tests.test_convert import QUICK, SPECIES, TABLE, ids, records, write_list, write_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", 3, tuple(name.replace(" ", "_") for name in SPECIES))


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    write_class_table(TABLE, tmp_path / "classes.csv")
    return tmp_path / "classes.csv"


def test_photos_of_a_csv_lie_in_the_folder_that_is_given_or_beside_it(photos: Path, classes: Path) -> None:
    rows = [("Pica_pica/0.jpg", "Magpie", "train"), ("Corvus_corax/1.jpg", "Raven", "val")]
    beside = write_list(photos / "list.csv", rows, ("file", "class", "split"))
    away = write_list(photos.parent / "list.csv", rows, ("file", "class", "split"))
    expected = [Item(str(photos / file), name, split, file) for file, name, split in rows]
    assert list(SOURCES["csv"](Request("", beside, classes)).items) == expected
    source = SOURCES["csv"](Request(str(photos), away, classes))
    assert list(source.items) == expected
    assert source.table == TABLE


def test_a_csv_converts_with_its_splits(photos: Path, classes: Path, tmp_path: Path) -> None:
    rows = [
        (f"{s}_{c}/{i}.jpg", f"{s} {c}", "val" if i else "train") for s, c in map(str.split, SPECIES) for i in (0, 1)
    ]
    listed = write_list(photos / "list.csv", rows, ("file", "class", "split"))
    command = f"--source csv --splits {listed} --classes {classes} --out {tmp_path}/out --vocab-size 0 --workers 1"
    main(command.split())
    made = ids(open_records(tmp_path / "out"))
    assert sorted(made["train"]) == sorted(file for file, _, split in rows if split == "train")
    assert sorted(made["validation"]) == sorted(file for file, _, split in rows if split == "val")


def test_a_csv_source_needs_the_csv(photos: Path) -> None:
    with pytest.raises(UserError, match="--splits: found none, expected the CSV that lists the photos; give it"):
        SOURCES["csv"](Request(str(photos)))


def test_without_a_class_table_one_is_made_of_the_folders_names(photos: Path, tmp_path: Path) -> None:
    main(f"--images {photos} --out {tmp_path}/out --workers 1 --vocab-size 0".split())
    made = open_records(tmp_path / "out")
    found = [record for part in records(made).values() for record in part]
    assert len(found) == 12
    in_order = sorted(SPECIES)
    for record in found:
        folder = record["image_id"].decode().partition("/")[0]
        assert in_order[record["class_id"]] == folder.replace("_", " ")
        assert [text.decode() for text in record["captions"]] == [f"A photo of the {folder.replace('_', ' ')}"]


def test_a_made_class_table_keeps_names_apart_that_differ_by_underscores(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 2, ("Pica_pica", "Pica pica", "_"))
    source = SOURCES["folder"](Request(str(photos)))
    assert source.table.columns["folder"] == ("Pica pica", "Pica_pica", "_")
    assert source.table.names == ("Pica pica", "Pica pica", "_")
    made = convert(source, tmp_path / "out", QUICK, workers=1)
    assert {r["class_id"] for part in records(made).values() for r in part} == {0, 1, 2}


def test_names_of_a_csv_make_a_class_table_too(photos: Path) -> None:
    listed = write_list(
        photos / "list.csv", [("Pica_pica/0.jpg", "Raven"), ("Pica_pica/1.jpg", "Magpie")], ("file", "class")
    )
    assert SOURCES["csv"](Request("", listed)).table.names == ("Magpie", "Raven")


def test_a_folder_without_class_folders_makes_no_class_table(tmp_path: Path) -> None:
    (tmp_path / "0.jpg").write_bytes(b"")
    with pytest.raises(
        UserError, match="photos: found none in a class folder, expected folders named like the classes"
    ):
        SOURCES["folder"](Request(str(tmp_path)))


def test_released_files_are_no_class_folders(photos: Path) -> None:
    (photos / "val.json").write_text("{}")
    with pytest.raises(UserError, match="found val.json, as iNaturalist 2021 was released.*add --source inat2021"):
        SOURCES["folder"](Request(str(photos)))


def test_a_vocabulary_that_captions_cannot_fill_is_said_so(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    main(["--images", str(photos), "--out", str(tmp_path / "out"), "--vocab-size", "3000", "--workers", "1"])
    pieces = load_tokenizer(open_records(tmp_path / "out").tokenizer).vocab_size
    assert f"tokenizer of {pieces} pieces: the captions have no use for 3000" in capsys.readouterr().out

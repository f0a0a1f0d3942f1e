"""From photos to a record set: what goes where, what is left out, and that nothing can come out half done."""

import csv
import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import convert as command
from data_prep.conversion import convert as conversion
from data_prep.conversion.convert import convert
from data_prep.conversion.options import Options
from data_prep.conversion.plan import plan_photos
from data_prep.conversion.shards import Job, write_shards
from data_prep.convert import main
from data_prep.sources.folder import read_folder, read_names
from data_prep.sources.items import Item, Source
from lit_jax.data.records import RecordSet, open_records, parse_example
from lit_jax.errors import UserError
from lit_jax.text.classes import ClassTable, write_class_table
from lit_jax.text.tokenizers import load_tokenizer, train_sentencepiece
from tests.test_photos import JPEG, PNG, cmyk_jpeg, encoded, exif, picture, png_of_size

ROOT = Path(__file__).resolve().parents[1]
SPECIES = ("Pica pica", "Corvus corax", "Malus ×domestica", "Amanita muscaria")
TABLE = ClassTable(
    (10, 20, 30, 40),
    {
        "name": SPECIES,
        "common_name": ("Magpie", "Raven", "Apple", "Fly agaric"),
        "supercategory": ("Birds", "Birds", "Plants", "Fungi"),
        "family": ("Corvidae", "Corvidae", "Rosaceae", "Amanitaceae"),
    },
)
QUICK = Options(vocab_size=0)


def noise(seed: int, side: int = 8) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8))


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_photos(root: Path, number: int = 6, species: tuple[str, ...] = SPECIES) -> Path:
    for s, name in enumerate(species):
        for i in range(number):
            write(root / name / f"{i}.jpg", encoded(noise(100 * s + i), "JPEG"))
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


def write_list(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("file", "split")) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def records(record_set: RecordSet) -> dict[str, list[dict[str, object]]]:
    """All records by split, in order, as `parse_example` reads them."""
    import tensorflow as tf

    return {
        split: list(
            tf.data.TFRecordDataset([str(path) for path in record_set.files(split)])
            .map(parse_example)
            .as_numpy_iterator()
        )
        for split in record_set.splits
    }


def ids(record_set: RecordSet) -> dict[str, list[str]]:
    return {s: [r["image_id"].decode() for r in found] for s, found in records(record_set).items()}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def report(folder: Path) -> dict[str, object]:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


# -- what is written


def test_tfds_decodes_what_was_converted(photos: Path, tmp_path: Path) -> None:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    options = Options(templates=("A photo of the {common_name} {name}", "{family}"), vocab_size=300)
    convert(Source(read_folder(photos), TABLE), tmp_path / "out", options, workers=1)
    builder = tfds.builder_from_directory(tmp_path / "out")
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {"train": 20, "validation": 4}
    for example in tfds.as_numpy(builder.as_dataset(split="train+validation")):
        path = photos / example["image_id"].decode()
        i = SPECIES.index(path.parent.name)
        np.testing.assert_array_equal(example["image"], tf.io.decode_jpeg(path.read_bytes()).numpy())
        captions = [f"A photo of the {TABLE.columns['common_name'][i]} {SPECIES[i]}", TABLE.columns["family"][i]]
        assert [text.decode() for text in example["captions"]] == captions
        assert example["class_id"] == TABLE.ids[i]
        ranks = {rank: name.decode() for rank, name in example["ranks"].items() if name}
        assert ranks == {"family": TABLE.columns["family"][i], "name": SPECIES[i]}


def test_sound_jpegs_are_stored_byte_for_byte(photos: Path, tmp_path: Path) -> None:
    made = convert(Source(read_folder(photos), TABLE), tmp_path / "out", QUICK, workers=1)
    for found in (record for part in records(made).values() for record in part):
        assert found["image"] == (photos / found["image_id"].decode()).read_bytes()
    assert (report(tmp_path / "out")["kept"], report(tmp_path / "out")["encoded"]) == (24, 0)


def test_shards_are_balanced_named_for_tfds_and_shuffled(photos: Path, tmp_path: Path) -> None:
    made = convert(Source(read_folder(photos), TABLE), tmp_path / "out", Options(shards=3, vocab_size=0), workers=1)
    assert [shard.file for shard in made.splits["train"]] == [
        f"photos-train.tfrecord-0000{i}-of-00003" for i in range(3)
    ]
    assert [shard.examples for shard in made.splits["train"]] == [6, 7, 7]
    assert [shard.examples for shard in made.splits["validation"]] == [1, 1, 2]
    order = ids(made)["train"]
    assert order != sorted(order)
    assert len({image_id.split("/")[0] for image_id in order[:6]}) > 1  # not class by class


def test_the_seed_decides_the_order(photos: Path, tmp_path: Path) -> None:
    def order(name: str, seed: int) -> list[str]:
        options = Options(seed=seed, validation_fraction=0, vocab_size=0)
        return ids(convert(Source(read_folder(photos), TABLE), tmp_path / name, options, workers=1))["train"]

    assert sorted(order("a", 0)) == sorted(order("b", 1))
    assert order("a", 0) != order("b", 1)


def test_shard_size_decides_their_number(tmp_path: Path) -> None:
    big = tmp_path / "photos"
    for i in range(4):
        write(big / "Pica pica" / f"{i}.bmp", encoded(noise(i, 500), "BMP"))  # 750 kB each
    options = Options(shard_mb=1, vocab_size=0, allow_empty_classes=True, validation_fraction=0)
    made = convert(Source(read_folder(big), TABLE), tmp_path / "out", options, workers=1)
    assert [shard.examples for shard in made.splits["train"]] == [1, 1, 2]


def test_one_and_two_workers_give_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    options = Options(shards=4, vocab_size=300)
    one = convert(Source(read_folder(photos), TABLE), tmp_path / "one", options, workers=1)
    two = convert(Source(read_folder(photos), TABLE), tmp_path / "two", options, workers=2)
    assert contents(one.directory) == contents(two.directory)
    assert set(contents(one.directory)) >= {"classes.csv", "tokenizer.model", "manifest.json", "report.txt"}
    assert one.fingerprint == two.fingerprint


def test_the_order_in_which_photos_are_found_does_not_matter(photos: Path, tmp_path: Path) -> None:
    one = convert(Source(read_folder(photos), TABLE), tmp_path / "one", QUICK, workers=1)
    two = convert(Source(reversed(list(read_folder(photos))), TABLE), tmp_path / "two", QUICK, workers=1)
    assert contents(one.directory) == contents(two.directory)


def test_options_of_photos_and_captions_take_effect(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    write(root / "Pica pica" / "wide.png", encoded(noise(0, 64).resize((64, 32)), "PNG"))
    write(root / "Pica pica" / "large.png", encoded(noise(0, 200), "PNG"))

    def made(name: str, **changes: object) -> list[dict[str, object]]:
        options = Options(allow_empty_classes=True, vocab_size=0, **changes)
        return records(convert(Source(read_folder(root), TABLE), tmp_path / name, options, workers=1)).get("train", [])

    plain = made("plain", validation_fraction=0)
    assert len(plain) == 2
    small = made("small", validation_fraction=0, max_side=16)
    assert {Image.open(io.BytesIO(one["image"])).size for one in small} == {(16, 8), (16, 16)}
    assert len(made("low", validation_fraction=0, quality=20)[0]["image"]) < len(plain[0]["image"])
    (only,) = made("limit", validation_fraction=0, max_pixels=64 * 32)
    assert only["image_id"] == b"Pica pica/wide.png"
    assert open_records(tmp_path / "plain").drop_repeats is False
    twice = made("twice", validation_fraction=0, templates=("{name} {name}",))
    once = made("once", validation_fraction=0, templates=("{name} {name}",), drop_repeats=True)
    assert (twice[0]["captions"].tolist(), once[0]["captions"].tolist()) == ([b"Pica pica Pica pica"], [b"Pica pica"])
    assert open_records(tmp_path / "once").drop_repeats is True


def test_classes_without_words_are_refused_and_those_of_the_same_words_are_told(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family = ("Corvidae", "Corvidae", "Rosaceae", "")
    table = ClassTable(TABLE.ids, {**TABLE.columns, "family": family})

    def source() -> Source:
        return Source(read_folder(photos), table)

    for run in (convert, conversion.dry_run):
        with pytest.raises(UserError, match=r"found no word for 1 of 4 classes \(Amanita muscaria\), .* \{family\}"):
            run(source(), tmp_path / "set", Options(templates=("{family}",)), workers=1)
    assert not (tmp_path / "set").exists()
    options = Options(templates=("{family}", "{supercategory}"), validation_fraction=0)
    told = (
        "warning: classes of which a caption is empty, and is trained on as such (1): Amanita muscaria; fill",
        "warning: classes that share all captions with another (2 in 1 groups), so that no model can tell them apart: "
        "Pica pica = Corvus corax",
    )
    lines = "\n".join(conversion.dry_run(source(), tmp_path / "set", options, workers=1))
    capsys.readouterr()
    convert(source(), tmp_path / "set", options, workers=1)
    printed, report = capsys.readouterr().out, (tmp_path / "set" / "report.txt").read_text()
    for line in told:
        assert line in lines and line in printed.partition("photos to store")[0] and line in report


def test_limit_draws_over_all_splits_by_seed(photos: Path) -> None:
    def drawn(limit: int, seed: int = 0) -> set[str]:
        return {
            photo.image_id for photo in plan_photos(read_folder(photos), TABLE, Options(limit=limit, seed=seed)).photos
        }

    assert len(drawn(9)) == 9
    assert drawn(5) < drawn(9)
    assert drawn(9) != drawn(9, seed=1)


def test_the_tokenizer_is_trained_on_training_classes_or_copied(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = Options(vocab_size=300, heldout_classes=("Malus ×domestica",), templates=("{name}",))
    made = convert(Source(read_folder(photos), TABLE), out, options, workers=1)
    seen = [name for name in SPECIES if name != "Malus ×domestica"]
    expected = train_sentencepiece(seen, tmp_path / "expected.model", vocab_size=300)
    assert load_tokenizer(made.tokenizer) == expected
    copied = Options(tokenizer=tmp_path / "expected.model")
    made = convert(Source(read_folder(photos), TABLE), tmp_path / "copied", copied, workers=1)
    assert made.tokenizer.read_bytes() == (tmp_path / "expected.model").read_bytes()
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n", encoding="utf-8")
    made = convert(
        Source(read_folder(photos), TABLE), tmp_path / "four", Options(tokenizer=tmp_path / "bert"), workers=1
    )
    assert load_tokenizer(made.tokenizer) == load_tokenizer(tmp_path / "bert")
    assert convert(Source(read_folder(photos), TABLE), tmp_path / "none", QUICK, workers=1).tokenizer is None


# -- which photo goes where


def splits_of(items: object, **options: object) -> dict[str, Counter[str]]:
    """Number of photos of each class folder, by split."""
    found: dict[str, Counter[str]] = {}
    for photo in plan_photos(items, TABLE, Options(**options)).photos:
        found.setdefault(photo.split, Counter())[Path(photo.path).parent.name] += 1
    return found


def test_validation_takes_a_fraction_of_each_class_and_leaves_one_to_train(tmp_path: Path) -> None:
    for number, name in zip((1, 2, 10, 21), SPECIES, strict=True):
        for i in range(number):
            write(tmp_path / name / f"{i}.jpg", f"{name} {i}".encode())
    found = splits_of(read_folder(tmp_path), validation_fraction=0.1)
    assert found["validation"] == {"Corvus corax": 1, "Malus ×domestica": 1, "Amanita muscaria": 3}
    assert found["train"] == {"Pica pica": 1, "Corvus corax": 1, "Malus ×domestica": 9, "Amanita muscaria": 18}
    assert set(splits_of(read_folder(tmp_path), validation_fraction=0)) == {"train"}


def test_a_photo_more_leaves_the_others_where_they_were(photos: Path) -> None:
    before = {photo.image_id: photo.split for photo in plan_photos(read_folder(photos), TABLE, Options()).photos}
    write(photos / SPECIES[0] / "new.jpg", b"new")
    after = {photo.image_id: photo.split for photo in plan_photos(read_folder(photos), TABLE, Options()).photos}
    moved = [image_id for image_id in before if before[image_id] != after[image_id]]
    assert all(image_id.startswith(SPECIES[0]) for image_id in moved)
    assert len(moved) <= 1


@pytest.mark.parametrize("way", [{"heldout": 1}, {"heldout_classes": ["Raven"]}])
@pytest.mark.parametrize("listed", [False, True])
def test_held_out_species_have_no_photo_in_train_or_validation(
    photos: Path, tmp_path: Path, way: dict[str, object], listed: bool
) -> None:
    rows = [(f"{name}/{i}.jpg", "train" if i < 3 else "test") for name in SPECIES for i in range(6)]
    splits = write_list(tmp_path / "splits.csv", rows) if listed else None
    found = splits_of(read_folder(photos, splits), **way)
    (held,) = found["heldout"]
    assert found["heldout"][held] == 6  # all of them, whatever their split was
    assert held not in found["train"] and held not in found["validation"]
    assert set(found["train"]) == set(SPECIES) - {held}
    if "heldout_classes" in way:
        assert held == "Corvus corax"


def test_held_out_species_are_drawn_by_seed(photos: Path) -> None:
    drawn = {tuple(splits_of(read_folder(photos), heldout=1, seed=seed)["heldout"]) for seed in range(12)}
    assert len(drawn) == 4
    with pytest.raises(UserError, match="heldout: found 4, expected fewer than the 4 species with photos"):
        splits_of(read_folder(photos), heldout=4)
    with pytest.raises(UserError, match=r"heldout: found a number \(1\) and 1 names, expected one of both"):
        splits_of(read_folder(photos), heldout=1, heldout_classes=["Raven"])
    with pytest.raises(UserError, match="found 1 of 1 not in column"):
        splits_of(read_folder(photos), heldout_classes=["Dodo"])


def test_official_splits_are_kept_and_renamed(photos: Path, tmp_path: Path) -> None:
    rows = [(f"{name}/{i}.jpg", ("train", "val", "test")[i % 3]) for name in SPECIES for i in range(6)]
    splits = write_list(tmp_path / "splits.csv", rows)
    with pytest.raises(UserError, match="splits: found test and val, which would all become validation"):
        splits_of(read_folder(photos, splits))
    found = splits_of(read_folder(photos, splits), rename_splits={"test": "test"})
    assert {split: n.total() for split, n in found.items()} == {"train": 8, "validation": 8, "test": 8}
    both = {"test": "validation", "val": "validation"}
    assert splits_of(read_folder(photos, splits), rename_splits=both)["validation"].total() == 16
    with pytest.raises(UserError, match="split: found 'Test set', expected a word such as train or validation"):
        splits_of(read_folder(photos, splits), rename_splits={"test": "Test set"})
    write_list(splits, [*rows[:-1], (rows[-1][0], "")])
    with pytest.raises(UserError, match="splits: found photos with and without a split, expected it for all or none"):
        splits_of(read_folder(photos, splits))


def test_a_heldout_split_of_the_source_must_hold_whole_species(photos: Path, tmp_path: Path) -> None:
    rows = [(f"{name}/{i}.jpg", "heldout" if name == SPECIES[0] else "train") for name in SPECIES for i in range(6)]
    assert splits_of(read_folder(photos, write_list(tmp_path / "a.csv", rows)))["heldout"] == {SPECIES[0]: 6}
    rows[0] = (rows[0][0], "train")
    with pytest.raises(UserError, match=r"split heldout: found Pica pica \(Magpie\) in train too \(Pica pica/0\.jpg\)"):
        splits_of(read_folder(photos, write_list(tmp_path / "a.csv", rows)))


def test_class_folders_inside_split_folders(tmp_path: Path) -> None:
    write_photos(tmp_path / "train", 2)
    write_photos(tmp_path / "val", 1, SPECIES[:3])
    write(tmp_path / "train" / SPECIES[0] / "deeper" / "x.jpg", b"x")
    write(tmp_path / "train" / "README", b"x")
    items = list(read_folder(tmp_path))
    assert items[0] == Item(str(tmp_path / "train" / "README"), "", None, "train/README")
    assert Counter(item.split for item in items[1:]) == {"train": 9, "val": 3}
    deep = next(item for item in items if "deeper" in item.path)
    assert (deep.class_name, deep.image_id) == (SPECIES[0], f"train/{SPECIES[0]}/deeper/x.jpg")


def test_a_csv_may_name_classes_and_lie_beside_the_photos(photos: Path, tmp_path: Path) -> None:
    write(photos / "loose.jpg", b"loose")
    header = ("file", "class", "split")
    listed = write_list(photos / "list.csv", [("loose.jpg", "Raven", "train"), ("Pica pica/0.jpg", "", "")], header)
    (tmp_path / "elsewhere").mkdir()
    for images in (photos, tmp_path / "elsewhere"):
        found = list(read_folder(images, listed))
        assert found == [
            Item(str(photos / "loose.jpg"), "Raven", "train", "loose.jpg"),
            Item(str(photos / "Pica pica" / "0.jpg"), "Pica pica", None, "Pica pica/0.jpg"),
        ]


def test_bad_lists_are_refused(photos: Path, tmp_path: Path) -> None:
    def refused(rows: list[tuple[str, ...]], message: str, header: tuple[str, ...] = ("file", "class")) -> None:
        with pytest.raises(UserError, match=message):
            plan_photos(read_folder(photos, write_list(tmp_path / "a.csv", rows, header)), TABLE, Options())

    refused([("x", "y")], "found columns path, class, expected a column file", ("path", "class"))
    refused([("", "Raven")], "line 2: found no file, expected a path")
    refused(
        [("x.jpg", "Raven"), ("x.jpg", "Magpie")],
        "twice, as class Raven in no split and as class Magpie in no split, expected one row; delete",
    )
    with pytest.raises(UserError, match=r"nothing\.csv: found No such file or directory, expected a list of photos"):
        list(read_folder(photos, tmp_path / "nothing.csv"))
    with pytest.raises(UserError, match="found no such folder, expected the photos"):
        read_folder(tmp_path / "nothing")


def test_names_are_read_from_text_and_csv(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "Raven\n\n  Malus ×domestica \n".encode())
    assert read_names(tmp_path / "a.txt") == ("Raven", "Malus ×domestica")
    write(tmp_path / "a.csv", b"rank,name\nx,Corvus corax\n")
    assert read_names(tmp_path / "a.csv") == ("Corvus corax",)
    write(tmp_path / "b.csv", b"rank\nx\n")
    with pytest.raises(UserError, match="found none of the columns class, folder, name, common_name, id"):
        read_names(tmp_path / "b.csv")
    write(tmp_path / "b.txt", b"\n")
    with pytest.raises(UserError, match="found no name, expected one a line"):
        read_names(tmp_path / "b.txt")


def test_class_names_and_class_table_must_agree_both_ways(photos: Path) -> None:
    write(photos / "Dodo" / "1.jpg", JPEG)
    with pytest.raises(UserError, match="class names: found 1 of 5 not in column 'name' \\('Dodo'"):
        plan_photos(read_folder(photos), TABLE, Options())
    (photos / "Dodo" / "1.jpg").unlink()
    for i in range(6):
        (photos / SPECIES[2] / f"{i}.jpg").unlink()
    message = r"class table: found 1 of 4 classes without a photo \(Malus ×domestica\), expected photos of each"
    with pytest.raises(UserError, match=message):
        plan_photos(read_folder(photos), TABLE, Options())
    assert len(plan_photos(read_folder(photos), TABLE, Options(allow_empty_classes=True)).photos) == 18


def test_of_duplicates_the_one_furthest_from_training_is_kept(tmp_path: Path) -> None:
    rows = []
    for number, split in enumerate(("train", "train", "validation", "heldout")):
        write(tmp_path / f"{number}.jpg", JPEG if number != 3 else PNG)
        rows.append((f"{number}.jpg", "Raven" if split != "heldout" else "Apple", split))
    write(tmp_path / "4.png", PNG)
    # Equal size and equal beginning, another end: no duplicate.
    long = JPEG + bytes(20_000)
    write(tmp_path / "5.jpg", long + b"1")
    write(tmp_path / "6.jpg", long + b"2")
    rows += [("4.png", "Apple", "heldout"), ("5.jpg", "Raven", "train"), ("6.jpg", "Raven", "train")]
    listed = write_list(tmp_path / "a.csv", rows, ("file", "class", "split"))
    plan = plan_photos(read_folder(tmp_path, listed), TABLE, Options(allow_empty_classes=True))
    assert {(photo.image_id, photo.split) for photo in plan.photos} == {
        ("2.jpg", "validation"),
        ("3.jpg", "heldout"),
        ("5.jpg", "train"),
        ("6.jpg", "train"),
    }
    assert plan.skips == [
        ("0.jpg", "duplicate", "of 2.jpg"),
        ("1.jpg", "duplicate", "of 2.jpg"),
        ("4.png", "duplicate", "of 3.jpg"),
    ]


def test_one_photo_under_two_classes_is_left_out_altogether(photos: Path) -> None:
    for name in SPECIES[:2]:
        write(photos / name / "twin.jpg", JPEG)
        write(photos / name / "Thumbs.db", b"the same in every folder")  # no photo: refused as such later on
    plan = plan_photos(read_folder(photos), TABLE, Options())
    assert plan.skips == [
        (f"{name}/twin.jpg", "same photo under two classes", "Pica pica, Corvus corax") for name in sorted(SPECIES[:2])
    ]


# -- broken photos


def write_broken(root: Path) -> None:
    """One class of sound but unusual photos, one of those that cannot be used, one of duplicates."""
    usual, bad, same = (root / name for name in SPECIES[:3])
    write(usual / "sound.jpg", JPEG)
    write(usual / "grey.jpg", encoded(picture().convert("L"), "JPEG"))
    write(usual / "turned.jpg", encoded(picture(), "JPEG", exif=exif(6)))
    write(usual / "really a png.jpg", PNG)
    write(usual / "really a jpeg.png", JPEG + b"1")
    write(usual / "transparent.png", encoded(picture().convert("RGBA"), "PNG"))
    write(usual / "palette.png", encoded(picture().convert("P"), "PNG", transparency=0))
    write(usual / "deep grey.png", encoded(Image.fromarray(np.full((9, 9), 40_000, np.uint16)), "PNG"))
    write(usual / "moving.gif", encoded(picture(), "GIF", save_all=True, append_images=[noise(0, 48)]))
    for form in ("webp", "bmp", "tiff"):
        write(usual / f"a.{form}", encoded(picture(), form))
    write(usual / "ink.jpg", cmyk_jpeg(adobe=True))
    write(usual / "other ink.jpg", cmyk_jpeg(adobe=False))
    write(bad / "empty.jpg", b"")
    write(bad / "empty too.jpg", b"")
    write(bad / "page.jpg", b"<html>404</html>")
    write(bad / "notes.txt", b"weather was fine")
    write(bad / "half.jpg", JPEG[: len(JPEG) * 3 // 4])
    write(bad / "no end.jpg", JPEG[:-2])
    write(bad / "half.png", PNG[: len(PNG) // 2])
    write(bad / "flipped bit.png", PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:])
    write(bad / "zero.png", png_of_size(0, 5))
    write(bad / "bomb.png", png_of_size(60_000, 60_000))
    write(bad / "float.tif", encoded(picture().convert("F"), "TIFF"))
    write(bad / ".DS_Store", b"hidden")
    (bad / "dangling.jpg").symlink_to(root / "nothing")
    write(same / "one.jpg", encoded(noise(1), "JPEG"))
    write(same / "two.jpg", encoded(noise(1), "JPEG"))
    write(same / "of two classes.jpg", encoded(noise(2), "JPEG"))
    write(bad / "of two classes.jpg", encoded(noise(2), "JPEG"))
    write(root / "stray.jpg", JPEG)
    write(root / ".hidden.jpg", JPEG)
    write(root / ".hidden" / "photo.jpg", JPEG)


def test_a_folder_of_broken_photos_converts_with_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import tensorflow_datasets as tfds

    root, out = tmp_path / "photos", tmp_path / "out"
    write_broken(root)
    write_class_table(TABLE, tmp_path / "classes.csv")
    arguments = ["--images", str(root), "--classes", str(tmp_path / "classes.csv"), "--out", str(out)]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--vocab-size", "0", "--workers", "1", "--allow-empty-classes", "--validation-fraction", "0"])
    assert stop.value.code == command.LOST
    found = report(out)
    assert {reason: len(left) for reason, left in found["left_out"].items()} == {
        "empty file": 2,
        "not JPEG, PNG, GIF, WebP, AVIF, HEIC, BMP or TIFF": 2,
        "truncated": 3,
        "broken data": 2,
        "too many pixels": 1,
        "unsupported kind of pixel": 1,
        "missing": 1,
        "duplicate": 1,
        "same photo under two classes": 2,
        "outside the class folders": 1,
    }
    assert found["left_out"]["duplicate"] == [[f"{SPECIES[2]}/two.jpg", f"of {SPECIES[2]}/one.jpg"]]
    assert {note: len(photos) for note, photos in found["notes"].items()} == {
        "turned upright as its EXIF says": 1,
        "is PNG, named .jpg": 1,
        "is JPEG, named .png": 1,
        "encoded anew from PNG": 4,
        "encoded anew from GIF": 1,
        "encoded anew from WEBP": 1,
        "encoded anew from BMP": 1,
        "encoded anew from TIFF": 1,
        "encoded anew from JPEG CMYK": 2,
    }
    assert found["splits"]["train"]["photos"] == 15
    assert (found["kept"], found["encoded"]) == (4, 11)
    assert (found["lost"], found["warnings"]) == (["Corvus corax"], [])
    text = (out / "report.txt").read_text(encoding="utf-8")
    assert "left out: 16 photos" in text and "Corvus corax/no end.jpg" in text
    assert "3  truncated" in capsys.readouterr().out
    decoded = tfds.as_numpy(tfds.builder_from_directory(out).as_dataset(split="train"))
    assert sum(example["image"].shape[2] == 3 for example in decoded) == 15


def test_a_photo_that_the_list_has_and_the_folder_has_not_is_missing(photos: Path, tmp_path: Path) -> None:
    rows = [(f"{name}/{i}.jpg", "train") for name in SPECIES for i in range(7)]
    (photos / SPECIES[0] / "6.jpg").mkdir()
    plan = plan_photos(read_folder(photos, write_list(tmp_path / "a.csv", rows)), TABLE, Options())
    reasons = {skip.image_id: skip.reason for skip in plan.skips}
    assert reasons == {f"{name}/6.jpg": "missing" for name in SPECIES[1:]} | {"Pica pica/6.jpg": "not a file"}


def test_a_split_that_ends_empty_is_told_and_left_out(photos: Path, tmp_path: Path) -> None:
    write(photos / SPECIES[0] / "cut.jpg", JPEG[:-2])
    rows = [(f"{name}/{i}.jpg", "train") for name in SPECIES for i in range(6)] + [("Pica pica/cut.jpg", "val")]
    listed = write_list(tmp_path / "a.csv", rows)
    made = convert(Source(read_folder(photos, listed), TABLE), tmp_path / "out", QUICK, workers=1)
    assert list(made.splits) == ["train"]
    assert report(made.directory)["warnings"] == ["split validation is empty: no photo of it could be used"]


def test_a_class_without_a_training_photo_is_told(photos: Path, tmp_path: Path) -> None:
    rows = [(f"{name}/{i}.jpg", "val" if name == SPECIES[1] else "train") for name in SPECIES for i in range(6)]
    listed = write_list(tmp_path / "a.csv", rows)
    made = convert(Source(read_folder(photos, listed), TABLE), tmp_path / "out", QUICK, workers=1)
    assert report(made.directory)["warnings"] == [
        "classes with photos to validate with, but none to train on (1): Corvus corax"
    ]
    assert (made.classes_in("train"), made.classes_in("validation")) == ((10, 30, 40), (20,))


def test_nothing_left_is_an_error_with_a_report(tmp_path: Path) -> None:
    write(tmp_path / "photos" / "Raven" / "cut.jpg", JPEG[:-2])
    options = Options(allow_empty_classes=True, vocab_size=0)
    with pytest.raises(UserError, match=r"photos: found none that can be used, expected at least one; see .*report"):
        convert(Source(read_folder(tmp_path / "photos"), TABLE), tmp_path / "out", options, workers=1)
    assert "truncated" in (tmp_path / "out.incomplete" / "report.txt").read_text()
    assert not (tmp_path / "out").exists()


# -- stopping, going on, and folders of others


def run_command(arguments: list[str]) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-m", "data_prep.convert", *arguments], env=environment, cwd=ROOT)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes by /proc")
def test_a_killed_conversion_goes_on_and_ends_byte_for_byte_the_same(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for i in range(60):
        write(root / SPECIES[i % 4] / f"{i}.bmp", encoded(noise(i, 500), "BMP"))  # slow enough to be hit
    write_class_table(TABLE, tmp_path / "classes.csv")
    arguments = ["--images", str(root), "--classes", str(tmp_path / "classes.csv")]
    arguments += ["--shards", "20", "--vocab-size", "300", "--out", str(tmp_path / "out")]
    work = tmp_path / "out.incomplete"

    process = run_command([*arguments, "--workers", "2"])
    deadline = time.monotonic() + 30
    while not list(work.glob("progress/*.json")) and time.monotonic() < deadline:
        time.sleep(0.005)
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers), "processes outlive their parent"
    finished = {path.stem: (work / path.stem).stat() for path in work.glob("progress/*.json")}
    assert 0 < len(finished) < 40
    with pytest.raises(UserError, match=r"found only out\.incomplete, expected a complete record set"):
        open_records(tmp_path / "out")

    assert run_command([*arguments, "--workers", "1"]).wait() == 0
    assert not work.exists()
    for name, before in finished.items():
        after = (tmp_path / "out" / name).stat()
        assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    options = Options(shards=20, vocab_size=300)
    whole = convert(Source(read_folder(root), TABLE), tmp_path / "whole", options, workers=1)
    assert contents(tmp_path / "out") == contents(whole.directory)


def test_a_shard_that_lost_bytes_is_written_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = convert(Source(read_folder(photos), TABLE), tmp_path / "whole", QUICK, workers=1)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(conversion, "write_metadata", interrupted)
        convert(Source(read_folder(photos), TABLE), tmp_path / "out", QUICK, workers=1)
    shard = next((tmp_path / "out.incomplete").glob("photos-train*"))
    shard.write_bytes(shard.read_bytes()[:-1])
    (tmp_path / "out.incomplete" / "progress" / "photos-validation.tfrecord-00000-of-00001.json").write_text("{")
    convert(Source(read_folder(photos), TABLE), tmp_path / "out", QUICK, workers=1)
    assert contents(tmp_path / "out") == contents(whole.directory)


class Stopped(Exception):
    """The conversion ends here."""


def interrupted(*_: object, **__: object) -> None:
    raise Stopped


def test_stopped_before_the_last_renaming(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = convert(Source(read_folder(photos), TABLE), tmp_path / "whole", QUICK, workers=1)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(conversion, "move_into_place", interrupted)
        convert(Source(read_folder(photos), TABLE), tmp_path / "out", QUICK, workers=1)
    monkeypatch.setattr(conversion, "write_shards", interrupted)  # must not be needed any more
    convert(Source(read_folder(photos), TABLE), tmp_path / "out", QUICK, workers=1)
    assert contents(tmp_path / "out") == contents(whole.directory)


def test_the_same_again_is_up_to_date_and_anything_else_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def again(table: ClassTable = TABLE, **changes: object) -> RecordSet:
        options = Options(**{"vocab_size": 0, **changes})
        return convert(Source(read_folder(photos), table), out, options, workers=1)

    again()
    before = (out / "manifest.json").stat().st_mtime_ns
    assert again().examples() == 24
    assert "up to date" in capsys.readouterr().out
    assert (out / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="found a conversion with quality 95, expected 80; delete the folder, choose"):
        again(quality=80)
    with pytest.raises(UserError, match="found a conversion of other classes, expected these"):
        again(ClassTable(TABLE.ids, {**TABLE.columns, "genus": ("a", "b", "c", "d")}))
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(conversion, "move_into_place", interrupted)
        convert(Source(read_folder(photos), TABLE), tmp_path / "other", QUICK, workers=1)
    with pytest.raises(
        UserError, match=r"other\.incomplete: found a conversion with seed 0, expected 5; give the same"
    ):
        convert(Source(read_folder(photos), TABLE), tmp_path / "other", Options(seed=5, vocab_size=0), workers=1)
    plan = tmp_path / "other.incomplete" / "plan.json"
    plan.write_text(json.dumps({**json.loads(plan.read_text()), "options": [1]}))  # damaged
    with pytest.raises(UserError, match=r"other\.incomplete: found a conversion with \w+ its default, expected"):
        convert(Source(read_folder(photos), TABLE), tmp_path / "other", QUICK, workers=1)
    (photos / SPECIES[0] / "0.jpg").touch()
    with pytest.raises(UserError, match="found a conversion of other photos or splits, expected these"):
        again()


def test_restart_replaces_what_a_conversion_made_and_nothing_else(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = convert(Source(read_folder(photos), TABLE), out, QUICK, workers=1)
    write(out / "my notes.txt", b"mine")
    write(out / "photos-of-my-dog.zip", b"mine")
    again = Options(seed=1, shards=2, vocab_size=0)
    second = convert(Source(read_folder(photos), TABLE), out, again, workers=1, restart=True)
    assert second.fingerprint != first.fingerprint
    assert len(second.splits["train"]) == 2
    fresh = convert(Source(read_folder(photos), TABLE), tmp_path / "fresh", again, workers=1)
    mine = {"my notes.txt": b"mine", "photos-of-my-dog.zip": b"mine"}
    assert contents(out) == {**contents(fresh.directory), **mine}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out.")]


@pytest.mark.parametrize("restart", [False, True])
def test_a_folder_of_the_user_is_never_touched(photos: Path, tmp_path: Path, restart: bool) -> None:
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="found something that is no record set, expected a new or empty folder"):
        convert(Source(read_folder(photos), TABLE), photos, QUICK, workers=1, restart=restart)
    assert {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()} == before
    write(tmp_path / "out.incomplete" / "classes.csv", b"mine")
    with pytest.raises(UserError, match=r"out\.incomplete: found no plan\.json, expected a folder that a conversion"):
        convert(Source(read_folder(photos), TABLE), tmp_path / "out", QUICK, workers=1, restart=restart)
    assert contents(tmp_path / "out.incomplete") == {"classes.csv": b"mine"}


def test_an_empty_folder_is_used(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert convert(Source(read_folder(photos), TABLE), tmp_path / "out", QUICK, workers=1).examples() == 24


def test_two_conversions_do_not_share_a_folder(photos: Path, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "out.incomplete").mkdir()
    handle = os.open(tmp_path / "out.incomplete", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(
        UserError, match="found another conversion at work in it, expected none; wait for it or stop it"
    ):
        convert(Source(read_folder(photos), TABLE), tmp_path / "out", QUICK, workers=1)
    os.close(handle)
    convert(Source(read_folder(photos), TABLE), tmp_path / "out", QUICK, workers=1)


class Deadly:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (1,)


def test_a_process_that_dies_is_told_in_one_line(tmp_path: Path) -> None:
    job = Job(tmp_path / "shard", [], {}, {"max_side": Deadly()})
    with pytest.raises(UserError, match="workers: found one of 2 processes dead, expected all alive"):
        write_shards([job], workers=2, total=0)


def test_a_full_disk_is_told_in_one_line(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "some file")

    monkeypatch.setattr(conversion, "write_shards", full)
    with pytest.raises(UserError, match="some file: found No space left on device, expected to write there; make room"):
        convert(Source(read_folder(photos), TABLE), tmp_path / "out", QUICK, workers=1)


# -- the command


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quality": 96}, "quality: found 96, expected 1 to 95"),
        ({"max_side": -1}, "max_side: found -1, expected 0 or more"),
        ({"shard_mb": 0}, "shard_mb: found 0, expected 1 or more"),
        ({"validation_fraction": 1.0}, r"validation_fraction: found 1\.0, expected at least 0 and below 1"),
        ({"templates": ("{nme}",)}, "found column 'nme'"),
        ({"tokenizer": Path("nothing.model")}, r"nothing\.model: found No such file"),
        ({"vocab_size": 10}, "vocab_size: found 10, expected more than 259"),
    ],
)
def test_bad_options_are_refused_before_any_work(
    photos: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        convert(
            Source(read_folder(photos), TABLE),
            tmp_path / "out",
            Options(**{"vocab_size": 0, **changes}),
            workers=1,
        )
    assert not list(tmp_path.glob("out.incomplete/photos-*"))


def test_every_option_of_the_command_reaches_the_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_class_table(TABLE, tmp_path / "classes.csv")
    write(tmp_path / "held.txt", b"Raven\n")
    write(tmp_path / "templates.txt", b"{name}\n{family}\n")
    seen = {}
    monkeypatch.setattr(
        command,
        "convert",
        lambda source, out, options, **more: seen.update(vars(options), archives=source.archives, **more),
    )
    arguments = f"--images {tmp_path} --classes {tmp_path}/classes.csv --out out".split()
    main(arguments)
    assert Options(**{name: seen[name] for name in vars(Options())}) == Options()
    assert (seen["workers"], seen["restart"]) == (0, False)
    given = (
        "--max-side 1 --quality 2 --max-pixels 3 --shard-mb 4 --shards 5 --seed 6 --validation-fraction 0.7 "
        f"--heldout-classes {tmp_path}/held.txt --rename-split a=b --rename-split c=d --allow-empty-classes --allow-no-training "
        f"--limit 8 --duplicates keep --tokenizer t.model --workers 9 --restart --drop-repeats --templates {tmp_path}/templates.txt"
    )
    main([*arguments, *given.split()])
    assert seen == {
        **vars(
            Options(
                templates=("{name}", "{family}"),
                drop_repeats=True,
                max_side=1,
                quality=2,
                max_pixels=3,
                shard_mb=4,
                shards=5,
                seed=6,
                validation_fraction=0.7,
                heldout_classes=("Raven",),
                rename_splits={"a": "b", "c": "d"},
                allow_empty_classes=True,
                allow_no_training=True,
                duplicates="keep",
                limit=8,
                tokenizer=Path("t.model"),
            )
        ),
        "workers": 9,
        "restart": True,
        "archives": {},
        "write": None,
    }
    main([*arguments, "--heldout", "3", "--vocab-size", "0", "--template", "{name}", "--template", "a {name}"])
    assert (seen["heldout"], seen["vocab_size"], seen["templates"]) == (3, 0, ("{name}", "a {name}"))


def test_user_errors_are_one_line_and_exit_code_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--images", str(tmp_path), "--classes", str(tmp_path / "no.csv"), "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and line.endswith("check the path")


def test_the_conversion_loads_neither_tensorflow_nor_jax(photos: Path, tmp_path: Path) -> None:
    write_class_table(TABLE, tmp_path / "classes.csv")
    code = "import sys; from data_prep.convert import main; main(sys.argv[1:]); print(*sorted(sys.modules))"
    arguments = f"--images {photos} --classes {tmp_path}/classes.csv --out {tmp_path}/out --vocab-size 300 --workers 1"
    command_line = [sys.executable, "-c", code, *arguments.split()]
    run = subprocess.run(command_line, capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = run.stdout.splitlines()[-1].split()
    assert "tensorflow_datasets" in loaded
    assert {"tensorflow", "jax"}.isdisjoint(loaded)


@pytest.mark.slow
def test_the_real_birds_are_stored_byte_for_byte(shared_data: Path, tmp_path: Path) -> None:
    birds = shared_data / "cub100"
    if not birds.is_dir():
        pytest.skip("no bird photos beside the project")
    arguments = ["--images", str(birds), "--splits", str(birds / "splits.csv"), "--heldout", "20"]
    main([*arguments, "--classes", str(birds / "classes.csv"), "--out", str(tmp_path / "out")])
    made = open_records(tmp_path / "out")
    assert made.examples() == 5902
    assert {split: len(made.classes_in(split)) for split in made.splits} == {
        "train": 80, "validation": 80, "heldout": 20,
    }  # fmt: skip
    for record in (record for part in records(made).values() for record in part):
        assert record["image"] == (birds / record["image_id"].decode()).read_bytes()
    assert report(made.directory)["left_out"] == {}

"""iNaturalist 2021 as released: streamed JSON, folders and tars, MD5s, the dry run, and being told to stop."""

import dataclasses
import hashlib
import io
import json
import math
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_prep.conversion import convert as command
from data_prep.conversion.convert import convert, dry_run
from data_prep.conversion.options import Options
from data_prep.convert import main
from data_prep.sources import archives, inat2021
from data_prep.sources.folder import read_folder
from data_prep.sources.inat2021 import read_inat2021
from data_prep.sources.items import Item, Request, Skip, Source
from data_prep.sources.json_rows import rows
from lit_jax.data.records import open_records
from lit_jax.errors import UserError
from lit_jax.text.classes import ClassTable, read_class_table, write_class_table
from tests.test_convert import ROOT, Stopped, children, contents, ids, interrupted, noise, records, write
from tests.test_photos import encoded
from tests.test_webdataset import with_size

NAMES = ("Lumbricus terrestris", "Pica pica", "Malus ×domestica")
PLAIN = Options(templates=("{name}",), vocab_size=0)
CATEGORIES = [
    {
        "id": i, "name": name, "common_name": f"common {i}", "supercategory": "Birds", "kingdom": "Animalia",
        "phylum": "P", "class": "C", "order": "O", "family": "F", "genus": name.split()[0],
        "specific_epithet": name.split()[1], "image_dir_name": f"{i:05d}_Animalia_{name.replace(' ', '_')}",
    }
    for i, name in enumerate(NAMES)
]  # fmt: skip


def coco(subset: str, number: int = 4, first: int = 0) -> dict[str, Any]:
    """A JSON of the released shape; photo i is of class i % 3."""
    images = [
        {
            "id": first + i, "width": 500, "height": 375, "license": 0, "rights_holder": "Zoë",
            "file_name": f"{subset}/{CATEGORIES[i % 3]['image_dir_name']}/{i}.jpg", "date": "2020-07-05",
            "latitude": None, "longitude": 10.2, "location_uncertainty": None,
        }
        for i in range(number)
    ]  # fmt: skip
    annotations = [{"id": i, "image_id": first + i, "category_id": i % 3} for i in range(number)]
    return {
        "info": {"year": 2021}, "images": images, "categories": CATEGORIES,
        "annotations": annotations, "licenses": [{"id": 0, "name": "CC", "url": ""}],
    }  # fmt: skip


def write_subset(folder: Path, subset: str, number: int, first: int = 0) -> dict[str, Any]:
    found = coco(subset, number, first)
    write_coco(folder, subset, found)
    for i, image in enumerate(found["images"]):
        write(folder / image["file_name"], encoded(noise(first + i), "JPEG"))
    return found


def write_coco(folder: Path, subset: str, found: dict[str, Any]) -> None:
    write(folder / f"{subset}.json", json.dumps(found, ensure_ascii=False).encode())


@pytest.fixture
def released(tmp_path: Path) -> Path:
    folder = tmp_path / "inat"
    write_subset(folder, "train", 12)
    write_subset(folder, "val", 3, first=100)
    return folder


def pack(folder: Path, subset: str, mode: str = "w") -> Path:
    """The folder as a tar instead."""
    tar = folder / f"{subset}.tar"
    with tarfile.open(tar, mode) as archive:
        archive.add(folder / subset, arcname=subset)
    (folder / subset).rename(folder / f"unpacked {subset}")
    return tar


def items(folder: Path, *subsets: str, classes: Path | None = None) -> list[Item | Skip]:
    return list(read_inat2021(Request(str(folder), classes=classes, subsets=subsets)).items)


def refusal(folder: Path, *subsets: str, classes: Path | None = None) -> str:
    with pytest.raises(UserError) as caught:
        items(folder, *subsets, classes=classes)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# -- streamed JSON


def drawn(lot: random.Random, depth: int = 3) -> Any:
    """Any JSON value, with everything in its texts that could be taken for a bracket."""
    kind = lot.randrange(9 if depth else 7)
    text = "".join(lot.choice('aé×€😀"\\\n x]},:') for _ in range(lot.randrange(8)))
    plain = (
        None,
        True,
        -math.inf,
        lot.randrange(-(10**9), 10**9),
        lot.random() * 10.0 ** lot.randrange(-20, 20),
        text,
        0,
    )
    if kind < 7:
        return plain[kind]
    many = range(lot.randrange(4))
    return [drawn(lot, depth - 1) for _ in many] if kind == 7 else {f"{i}é": drawn(lot, depth - 1) for i in many}


def documents(number: int) -> Iterator[tuple[dict[str, Any], bytes, int]]:
    """Random objects, their spelling, and how many bytes to read at a time."""
    lot = random.Random(0)
    for i in range(number):
        keys = lot.sample(["images", "info", "annotations", "categories", "licenses"], lot.randrange(6))
        found = {key: drawn(lot) if key == "info" else [drawn(lot) for _ in range(lot.randrange(6))] for key in keys}
        text = json.dumps(found, ensure_ascii=lot.random() < 0.5, indent=lot.choice([None, 0, 2]))
        yield found, text.encode(), i % 50 + 1


def test_rows_are_those_of_json_loads_however_the_file_is_cut() -> None:
    for found, raw, chunk in documents(300):
        wanted = [(key, row) for key in found if key in ("images", "annotations") for row in found[key]]
        assert list(rows(io.BytesIO(raw), ("images", "annotations"), name="x", chunk=chunk)) == wanted


def test_a_truncated_file_is_refused_whatever_byte_is_its_last() -> None:
    for _, raw, chunk in documents(100):
        end = random.Random(len(raw)).randrange(len(raw))
        with pytest.raises(UserError, match=r"^x: found .* byte \d+, expected .*; the file is truncated or damaged"):
            list(rows(io.BytesIO(raw[:end]), ("images",), name="x", chunk=chunk))
    with pytest.raises(UserError, match="found the end of the file at byte 18, expected the rest of it"):
        list(rows(io.BytesIO(b'{"images": [{"id":'), ("images",), name="x"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", r"found '\[1\]' at byte 0, expected an object"),
        ('{"images": {}}', r"found '\{\}\}' at byte 11, expected an array under 'images'"),
        ('{"é": 0, "images": [1 2]}', r"found '2\]\}' at byte 23, expected ',' or '\]'"),
        ('{"images": [1,]}', r"at byte 14, expected JSON"),
        ('{"images": [1]} {', r"found '\{' at byte 16, expected the end of the file"),
    ],
)
def test_bad_json_is_refused_with_its_byte(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(rows(io.BytesIO(text.encode()), ("images",), name="x", chunk=7))


# -- the reader


def test_photos_of_train_and_val_come_with_ids_splits_and_the_categories_as_classes(released: Path) -> None:
    source = read_inat2021(Request(str(released)))
    write(released / "categories.json", json.dumps(CATEGORIES).encode())
    assert source.table == read_class_table(released / "categories.json")
    names = {
        split: [image["file_name"] for image in coco(split, n)["images"]] for split, n in (("train", 12), ("val", 3))
    }
    assert list(source.items) == [
        Item(f"{released}/{name}", i % 3, split, name) for split in names for i, name in enumerate(names[split])
    ]
    assert [item.split for item in items(released, "val")] == ["val"] * 3


def test_a_tar_gives_the_record_set_that_the_folder_gives(released: Path, tmp_path: Path) -> None:
    options = Options(vocab_size=0, shards=2, duplicates="keep")

    def made(name: str) -> dict[str, list[dict[str, Any]]]:
        source = read_inat2021(Request(str(released)))
        return records(convert(source, tmp_path / name, options, workers=1))

    unpacked = made("unpacked")
    for subset in ("train", "val"):
        pack(released, subset)
    packed = made("packed")
    files = {name: contents(tmp_path / name) for name in ("unpacked", "packed")}
    assert all(found.pop("plan.json") for found in files.values())  # tells the time of the files, which is the tar's
    assert files["unpacked"] == files["packed"]
    assert {split: len(found) for split, found in packed.items()} == {"train": 12, "validation": 3}
    for record in (record for found in unpacked.values() for record in found):
        path = released / f"unpacked {record['image_id'].decode()}"
        assert record["image"] == path.read_bytes() and int(path.stem) % 3 == record["class_id"]


def test_a_json_is_read_from_its_archive_too(released: Path) -> None:
    before = items(released)
    with tarfile.open(released / "train.json.tar.gz", "w:gz") as archive:
        archive.add(released / "train.json", arcname="train.json")
    (released / "train.json").unlink()
    assert items(released) == before
    whole = (released / "train.json.tar.gz").read_bytes()
    (released / "train.json.tar.gz").write_bytes(whole[: len(whole) // 2])
    assert "train.json.tar.gz: found a truncated or damaged archive" in refusal(released)


def test_what_cannot_be_used_is_left_out_and_counted(released: Path) -> None:
    found = coco("train", 12)
    names = [image["file_name"] for image in found["images"]]
    found["annotations"] = [
        *(row for row in found["annotations"] if row["image_id"] != 5),
        {"id": 90, "image_id": 7, "category_id": 0},  # it is of class 1 already
        {"id": 91, "image_id": 8, "category_id": 2},  # said twice, but the same
    ]
    write_coco(released, "train", found)
    (released / names[0]).unlink()
    skips = {Skip(names[5], "no annotation"), Skip(names[7], "annotations of two classes")}
    listed = items(released, "train")
    assert {item for item in listed if isinstance(item, Skip)} == skips and len(listed) == 12
    table = read_inat2021(Request(str(released))).table
    report = dry_run(Source(listed, table), released.parent / "out")
    assert [line.split(maxsplit=1) for line in report if line[:9].strip() == "1"] == [
        ["1", "annotations of two classes"], ["1", "missing"], ["1", "no annotation"],
    ]  # fmt: skip
    pack(released, "train")
    assert {item for item in items(released, "train") if isinstance(item, Skip)} == {
        *skips, Skip(names[0], "missing", "in train.tar"),
    }  # fmt: skip


def test_train_mini_stands_in_for_train_and_never_beside_it(released: Path) -> None:
    write_subset(released, "train_mini", 3, first=50)
    assert {item.image_id.split("/")[0] for item in items(released)} == {"train", "val"}
    assert {item.split for item in items(released, "train_mini", "val")} == {"train", "val"}
    assert "found train and train_mini, expected one" in refusal(released, "train_mini", "train")
    (released / "train.json").unlink()
    assert {item.image_id.split("/")[0] for item in items(released)} == {"train_mini", "val"}


def test_subsets_and_places_that_cannot_be_are_refused(released: Path, tmp_path: Path) -> None:
    assert "found public_test, which has no labels" in refusal(released, "public_test")
    assert "found 'test', expected some of train, train_mini, val" in refusal(released, "test")
    assert "found neither train_mini.json nor train_mini.json.tar.gz" in refusal(released, "train_mini")
    (tmp_path / "empty").mkdir()
    assert "found none of train.json, train_mini.json, val.json" in refusal(tmp_path / "empty")
    assert "found no folder" in refusal(tmp_path / "nowhere")
    (released / "val").rename(released / "elsewhere")
    assert "found neither val/ nor val.tar, expected the photos" in refusal(released)
    write(released / "val.tar.gz", b"x")
    assert "val.tar.gz: found the photos in gzip alone" in refusal(released) and "gunzip" in refusal(released)
    write(released / "val.tar", b"x" * 600)
    assert "val.tar: found a truncated or other file" in refusal(released)


def test_json_that_does_not_hang_together_is_refused(released: Path) -> None:
    def refused(key: str, row: Any, message: str) -> None:
        found = coco("val", 3)
        found[key] = [*found[key], row] if row is not None else []
        write_coco(released, "val", found)
        assert message in refusal(released)

    refused("annotations", None, "found no annotations, expected those of val; without labels nothing can be trained")
    refused("annotations", {"image_id": 999, "category_id": 0}, "an annotation with image id 999, expected one listed")
    refused("annotations", {"image_id": 1, "category_id": 7}, "an annotation with category id 7, expected one listed")
    refused("annotations", {"image_id": "1", "category_id": 0}, "among annotations, expected an object with image_id")
    refused("images", {"id": 1, "file_name": "val/x.jpg"}, "found image id 1 twice")
    refused("images", {"id": 9}, "found {'id': 9} among images, expected an object with id and file_name")
    refused("images", 5, "found 5 among images")
    refused("categories", {**CATEGORIES[0], "id": 3}, "found other categories than in")
    write(released / "val.json", (released / "train.json").read_bytes()[:200])
    assert "val.json: found the end of the file at byte 200" in refusal(released)


def test_another_class_table_is_matched_by_folder_or_name_and_keeps_its_ids(released: Path, tmp_path: Path) -> None:
    wider = {column: (*(row[column] for row in reversed(CATEGORIES)), "Dodo") for column in ("name", "image_dir_name")}
    write_class_table(ClassTable((70, 80, 90, 100), wider), tmp_path / "wide.csv")
    assert [item.class_name for item in items(released, "val", classes=tmp_path / "wide.csv")] == [90, 80, 70]
    by_name = ClassTable((7, 8, 9), {"name": NAMES})
    write_class_table(by_name, tmp_path / "names.csv")
    assert [item.class_name for item in items(released, "val", classes=tmp_path / "names.csv")] == [7, 8, 9]
    write_class_table(by_name.subset((7, 8)), tmp_path / "few.csv")
    assert "class names: found 1 of 3 not in column 'name' ('Malus ×domestica'" in refusal(
        released, classes=tmp_path / "few.csv"
    )


# -- archives


def test_archives_are_checked_once_and_a_wrong_one_stops_the_conversion(
    released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {name: write(released / name, name.encode()) for name in ("train.tar.gz", "val.json.tar.gz")}
    write(released / "train_mini.tar.gz", b"not asked for")
    out = tmp_path / "out"
    arguments = ["--source=inat2021", f"--images={released}", f"--out={out}", "--vocab-size=0", "--workers=1"]
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and len(error.splitlines()) == 1 and "as published; fetch it again" in error
    assert not list(out.with_name("out.incomplete").glob("*.tfrecord*"))

    sums = {name: hashlib.md5(name.encode()).hexdigest() for name in content}
    monkeypatch.setattr(archives, "INAT2021", archives.INAT2021 | sums)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(command, "write_metadata", interrupted)
        main(arguments)
    assert [line for line in capsys.readouterr().out.splitlines() if ": MD5" in line] == [
        "train.tar.gz: MD5 as published", "val.json.tar.gz: MD5 as published",
    ]  # fmt: skip
    write(content["train.tar.gz"], b"another")
    with pytest.raises(SystemExit):
        main(arguments)  # what changed since is read again
    assert "train.tar.gz: found MD5" in capsys.readouterr().err
    main([*arguments, "--skip-md5"])
    assert "MD5" not in capsys.readouterr().out and open_records(out).examples() == 15
    assert not (out / "progress").exists()


# -- options


def test_duplicates_are_kept_when_asked_and_then_no_photo_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES[:2]:
        for i in range(2):
            write(tmp_path / "photos" / name / f"{i}.jpg", encoded(noise(0), "JPEG"))
    table = ClassTable((0, 1), {"name": NAMES[:2]})
    with pytest.raises(UserError, match="found none that can be used"):
        convert(Source(read_folder(tmp_path / "photos"), table), tmp_path / "none", PLAIN, workers=1)
    monkeypatch.setattr("data_prep.conversion.plan.find_duplicates", interrupted)
    options = dataclasses.replace(PLAIN, validation_fraction=0, duplicates="keep")
    made = convert(Source(read_folder(tmp_path / "photos"), table), tmp_path / "out", options, workers=1)
    assert len(ids(made)["train"]) == 4
    with pytest.raises(UserError, match="duplicates: found 'some', expected drop or keep"):
        convert(Source([], table), tmp_path / "out", Options(duplicates="some"))


def test_sets_that_were_made_before_the_option_stay_up_to_date(
    released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def again(**changes: Any) -> None:
        source = read_inat2021(Request(str(released), subsets=("train",)))
        options = Options(vocab_size=0, **changes)
        convert(source, tmp_path / "out", options, workers=1)

    again()
    assert "duplicates" not in json.loads((tmp_path / "out" / "plan.json").read_text())["options"]
    again()
    assert "is up to date" in capsys.readouterr().out
    with pytest.raises(UserError, match="found a conversion with duplicates its default, expected 'keep'"):
        again(duplicates="keep")


def test_a_dry_run_tells_what_the_conversion_does_and_writes_nothing(
    released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(released / "train.tar.gz", b"a wrong one, which is not read")
    arguments = ["--source=inat2021", f"--images={released}", f"--out={tmp_path / 'out'}", "--shards=2", "--workers=9"]
    before = sorted(tmp_path.rglob("*"))
    main([*arguments, "--dry-run", "--template={supercategory}"])
    found = capsys.readouterr().out.splitlines()
    assert sorted(tmp_path.rglob("*")) == before
    main([*arguments, "--skip-md5", "--vocab-size=0", "--template={supercategory}", "--workers=1"])
    wrote = capsys.readouterr().out.splitlines()
    main([*arguments, "--dry-run", "--vocab-size=0", "--template={supercategory}"])
    assert f"{tmp_path / 'out'} is up to date: there is nothing to write" in capsys.readouterr().out.splitlines()
    heading = next(i for i, line in enumerate(found) if line.startswith("split "))
    at = next(i for i, line in enumerate(wrote) if line.startswith("split "))
    assert found[heading : heading + 3] == wrote[at : at + 3]  # photos, classes, shards and megabytes
    assert "processes: 4" in found
    assert any("(3 in 1 groups)" in line and "Pica pica" in line for line in found if line.startswith("warning: "))


def test_a_dry_run_warns_of_classes_without_photos_and_of_a_full_disk(
    released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wider = ClassTable((0, 1, 2, 3), {"name": (*NAMES, "Dodo")})
    monkeypatch.setattr("data_prep.conversion.report.shutil.disk_usage", lambda _: type("Usage", (), {"free": 100}))
    lines = dry_run(Source(items(released), wider), tmp_path / "deep" / "out", PLAIN)
    warnings = [line for line in lines if line.startswith("warning: ")]
    assert any("classes with no photo (1): Dodo" in line for line in warnings)
    assert any("pass --allow-empty-classes" in line for line in warnings)
    assert any("GB too few are free" in line for line in warnings)
    wordy = dataclasses.replace(PLAIN, templates=("a {name} " * 25,))
    assert "warning: captions of up to 75 tokens" in "\n".join(
        dry_run(Source(items(released), wider), tmp_path / "out", wordy)
    )


# -- stopping


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes by /proc")
def test_a_conversion_that_is_told_to_stop_does_so_in_one_line_and_at_once(tmp_path: Path) -> None:
    for i in range(60):
        write(tmp_path / "photos" / NAMES[i % 2] / f"{i}.bmp", encoded(noise(i, 700), "BMP"))
    write_class_table(ClassTable((0, 1), {"name": NAMES[:2]}), tmp_path / "classes.csv")
    process = subprocess.Popen(
        [
            sys.executable, "-m", "data_prep.convert", f"--images={tmp_path / 'photos'}", "--shards=2", "--workers=2",
            f"--classes={tmp_path / 'classes.csv'}", f"--out={tmp_path / 'out'}", "--vocab-size=0", "--template={name}",
        ],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while not list((tmp_path / "out.incomplete").glob("photos-*.part")) and time.monotonic() < deadline:
        time.sleep(0.005)
    workers = children(process.pid)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (143, "stopped; run the same command again to go on\n")
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(workers) > 2 and not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert not list((tmp_path / "out.incomplete" / "progress").iterdir())  # not even its first shard was waited for
    assert (tmp_path / "out.incomplete" / "plan.json").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [-512, -(2**40), 2**62])
def test_a_tar_whose_members_have_impossible_sizes_is_told_in_one_line(tmp_path: Path, size: int) -> None:
    tar = with_size(tmp_path / "train.tar", "a.jpg", size)
    with pytest.raises(UserError, match=r"train\.tar: found a truncated or other file \('a\.jpg' of -?\d+ bytes\)"):
        list(inat2021._in_tar(tar, ["a.jpg"]))

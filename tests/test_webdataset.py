"""Tars of photos and captions: read where they lie, written so that others read them."""

import functools
import gzip
import hashlib
import inspect
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.conversion.options import Options
from data_prep.conversion.plan import plan_photos
from data_prep.convert import main
from data_prep.sources.by_name import SOURCES
from data_prep.sources.find_class import NONE, SEVERAL, ClassFinder
from data_prep.sources.items import Item, Request, Skip
from data_prep.sources.photo_places import read, size_and_time, span
from data_prep.to_webdataset import main as to_webdataset
from lit_jax.data.photo import clean_photo
from lit_jax.data.records import RecordSet, decode, open_records
from lit_jax.data.tfrecord import read_frames
from lit_jax.errors import UserError
from lit_jax.text.classes import ClassTable, read_class_table, write_class_table
from tests.test_convert import SPECIES, TABLE, contents, noise
from tests.test_photos import encoded

PICA, RAVEN = 10, 20


def write_tar(path: Path, members: dict[str, bytes | str], form: int = tarfile.GNU_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members.items():
            content = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def with_size(path: Path, name: str, size: int) -> Path:
    """A tar of one member that claims a size, in base 256, as tars say what has no room in octal digits."""
    write_tar(path, {name: b""})
    header = bytearray(path.read_bytes())
    header[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:512]) + 8 * 32)
    path.write_bytes(header)
    return path


def jpeg(seed: int) -> bytes:
    return encoded(noise(seed), "JPEG")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tars").mkdir()
    write_class_table(TABLE, tmp_path / "tars" / "classes.csv")
    return tmp_path / "tars"


def items(folder: Path, **more: object) -> list[Item | Skip]:
    return list(SOURCES["webdataset"](Request(str(folder), **more)).items)


# -- which class


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A photo of the Magpie Birds Pica pica", PICA),
        ("one of the Corvidae: Raven", RAVEN),
        ("Fly agaric", 40),
        ("  a PHOTO of the  magpie birds pica pica. ", PICA),
        ("corvus corax", RAVEN),
        ("Corvus_corax at dusk", RAVEN),
        ("a raven, seen in Norway", RAVEN),
        ("ravens are shy", NONE),
        ("Malus domestica in bloom", 30),
        ("a magpie that chases a raven", SEVERAL),
        ("", NONE),
        ("one of the Corvidae: ", NONE),
    ],
)
def test_the_class_of_a_caption(text: str, expected: int | str) -> None:
    assert ClassFinder(TABLE, ("one of the {family}: {common_name}", "{nothing}")).of_caption(text) == expected


def test_of_names_that_share_words_the_longest_counts_and_shared_names_are_told_apart_by_another() -> None:
    names = {
        "name": ("Turdus migratorius", "Erithacus rubecula", "Petroica multicolor"),
        "common_name": ("American Robin", "Robin", "Robin"),
    }
    finder = ClassFinder(ClassTable((0, 1, 2), names))
    assert finder.of_caption("an American robin on a lawn") == 0
    assert finder.of_caption("a robin on a lawn") == SEVERAL
    assert finder.of_caption("Robin") == SEVERAL
    assert finder.of_caption("the robin Petroica multicolor on a lawn") == 2
    assert finder.of_caption("the American robin next to a robin, Petroica multicolor") == SEVERAL


def test_captions_of_the_real_table_are_all_found(shared_data: Path) -> None:
    table = read_class_table(shared_data / "inat2021-categories.csv")
    finder, rows = ClassFinder(table), table.rows()
    for class_id, row in zip(table.ids, rows, strict=True):
        group = "" if row["supercategory"] == "Animalia" else row["supercategory"] + " "
        assert finder.of_caption(f"A photo of the {row['common_name']} {group}{row['name']}") == class_id
    for class_id, row in list(zip(table.ids, rows, strict=True))[::20]:
        assert finder.of_caption(f"a {row['name'].lower()}, in the wild") == class_id
        assert finder.of_caption(f"close-up of a {row['common_name']} in the wild") in (class_id, SEVERAL)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({"cls": "20\n", "json": '{"class_id": 10}', "txt": "Fly agaric"}, RAVEN),
        ({"cls": "Raven"}, "Raven"),
        ({"json": '{"class_id": "30", "label": 10}'}, 30),
        ({"json": '{"category_id": 40, "species": "Pica pica"}'}, 40),
        ({"json": '{"class": "Aves", "species": "Pica pica"}', "txt": "Fly agaric"}, "Pica pica"),
        ({"json": '{"label": true, "caption": "a magpie"}', "txt": "Fly agaric"}, PICA),
        ({"json": '{"caption": "nothing known"}', "txt": "Fly agaric"}, 40),
        ({"json": "[10]", "txt": "Fly agaric"}, 40),
        ({"cls": "20.0"}, RAVEN),
        ({"json": '{"label": 20.0}'}, RAVEN),
        ({"json": '{"label": 20.5, "species": "Pica pica"}'}, "Pica pica"),
        ({"json": '{"label": NaN, "species": "Pica pica"}'}, "Pica pica"),
    ],
)  # fmt: skip
def test_where_the_class_is_looked_for(folder: Path, texts: dict[str, str], expected: int | str) -> None:
    write_tar(folder / "0.tar", {"a.jpg": b"photo"} | {f"a.{ending}": text for ending, text in texts.items()})
    (item,) = items(folder)
    assert item[1:] == (expected, None, "0.tar/a.jpg")


# -- tars


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_photos_are_spans_of_the_tar(folder: Path, form: int) -> None:
    long = "sub/" + "long" * 20
    photos = {"a": jpeg(0), "./b.c": jpeg(1), long: jpeg(2), "×": jpeg(3)}
    members = {f"{key}.JPG": content for key, content in photos.items()} | {f"{key}.cls": "10" for key in photos}
    members |= {"._a.jpg": b"of macOS", "a.depth.png": b"of another kind", "readme": b""}
    write_tar(folder / "0.tar", members, form)
    found = {item.image_id: item for item in items(folder)}
    assert [*found] == [f"0.tar/{name}" for name in ("a.jpg", "a.depth.png", "b.c.jpg", f"{long}.jpg", "×.jpg")]
    assert isinstance(found.pop("0.tar/a.depth.png"), Skip)
    assert [read(item.path) for item in found.values()] == [jpeg(i) for i in range(4)]


def test_a_span_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    path.write_bytes(b"0123456789")
    assert (size_and_time(span(path, 3, 7)), read(span(path, 3, 7))) == ((7, path.stat().st_mtime_ns), b"3456789")
    assert (size_and_time(span(path, 3, 8)), read(span(path, 3, 8))) == ("behind the end of its file", None)
    assert read(span(path, 3, 8), 4) == read(span(path, 3, 4)) == b"3456" and read(str(path), 2) == b"01"
    assert size_and_time(str(path))[0] == 10 and size_and_time(str(tmp_path)) == "not a file"


def write_members(path: Path, members: list[tuple[str, bytes | str]]) -> None:
    """A tar whose members may come twice."""
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            content = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("order", [("jpg", "cls"), ("cls", "jpg")])
@pytest.mark.parametrize("apart", [False, True])
def test_each_photo_of_a_key_that_comes_twice_is_read_with_its_own_class(
    folder: Path, order: tuple[str, str], apart: bool
) -> None:
    """As in tars that were put behind one another, or whose keys were numbered twice."""
    samples = [{"jpg": jpeg(number), "cls": class_id} for number, class_id in enumerate(("10", "20", "30"))]
    members = [("a." + ending, sample[ending]) for sample in samples for ending in order]
    if apart:
        members[len(order) : len(order)] = [("b.jpg", jpeg(9)), ("b.cls", "40")]
    write_members(folder / "0.tar", members)
    found = {item.image_id: (read(item.path), item.class_name) for item in items(folder)}
    found.pop("0.tar/b.jpg", None)
    assert found == {
        "0.tar/a.jpg": (jpeg(0), 10),
        "0.tar/a~2.jpg": (jpeg(1), 20),
        "0.tar/a~3.jpg": (jpeg(2), 30),
    }


def test_what_was_put_behind_a_tar_corrects_texts_and_adds_photos(folder: Path) -> None:
    members = [("a.jpg", jpeg(0)), ("a.cls", "10"), ("a~2.jpg", jpeg(1)), ("a~2.cls", "20")]
    write_members(folder / "0.tar", [*members, ("a.cls", "30"), ("a.jpg", jpeg(2))])
    found = [(item.image_id, read(item.path), item.class_name) for item in items(folder)]
    assert found == [
        ("0.tar/a.jpg", jpeg(0), 10),
        ("0.tar/a~3.jpg", jpeg(2), 30),
        ("0.tar/a~2.jpg", jpeg(1), 20),
    ]
    write_members(folder / "0.tar", [*members[:2], ("a.jpg", jpeg(2))])  # without a class of its own
    assert [(item.image_id, item.class_name) for item in items(folder)] == [("0.tar/a.jpg", 10), ("0.tar/a~2.jpg", 10)]
    write_members(folder / "0.tar", [*members[:2], ("a.cls", "30")])
    assert [(item.image_id, item.class_name) for item in items(folder)] == [("0.tar/a.jpg", 30)]


def test_of_several_photos_of_a_key_each_is_read_or_told(folder: Path) -> None:
    write_tar(folder / "0.tar", {"a.jpg": jpeg(0), "a.jpeg": jpeg(1), "a.PNG": b"", "a.depth.png": b"", "a.cls": "10"})
    first, second, *others = items(folder)
    assert [read(first.path), read(second.path)] == [jpeg(0), jpeg(1)]
    assert [first.image_id, second.image_id] == ["0.tar/a.jpg", "0.tar/a.jpeg"]
    why = "another format or kind of the photo of its key"
    assert others == [Skip("0.tar/a.png", why), Skip("0.tar/a.depth.png", why)]


def test_dots_in_names_of_photos(folder: Path) -> None:
    names = ["IMG_2023.05.01", "sub.d/IMG_2023.05.02", "x.left", "x.right"]
    members: dict[str, bytes | str] = {f"{name}.jpg": jpeg(i) for i, name in enumerate(names)}
    members |= {f"{names[0]}.txt": "Raven", f"{names[1]}.json": '{"label": 30}', "x.cls": "40"}
    write_tar(folder / "0.tar", members)
    assert [(item.image_id, item.class_name, read(item.path)) for item in items(folder) if isinstance(item, Item)] == [
        (f"0.tar/{name}.jpg", class_id, jpeg(i))
        for i, (name, class_id) in enumerate(zip(names, (RAVEN, 30, 40, 40), strict=True))
    ]


def test_bioclips_texts_say_the_class(folder: Path) -> None:
    texts = {
        "com.txt": "Raven",
        "sci.txt": "Corvus corax",
        "sci_com.txt": "Corvus corax with common name Raven",
        "taxon.txt": "Animalia Chordata Aves Passeriformes Corvidae Corvus corax",
        "taxonTag.txt": "kingdom Animalia",
    }
    write_tar(folder / "0.tar", {"a.jpg": jpeg(0)} | {f"a.{ending}": text for ending, text in texts.items()})
    write_tar(folder / "1.tar", {"b.jpg": jpeg(1), "b.common_name.txt": "Magpie"})
    write_tar(folder / "2.tar", {"c.d.jpg": jpeg(1), "c.d.sci.txt": "Corvus corax", "c.d.com.txt": "?"})
    assert [(item.image_id, item.class_name) for item in items(folder)] == [
        ("0.tar/a.jpg", RAVEN),
        ("1.tar/b.jpg", PICA),
        ("2.tar/c.d.jpg", RAVEN),
    ]


def test_the_shared_tars(shared_data: Path) -> None:
    folder = shared_data.parent / "cases" / "tars"
    if not folder.is_dir():
        pytest.skip("no shared cases beside the project")
    for path in sorted(folder.glob("*/")):
        found = items(path, classes=folder / "classes.csv")
        assert len(found) == 12 and all(isinstance(item, Item) for item in found), path.name
        assert len({item.image_id for item in found}) == len({read(item.path) for item in found}) == 12
        assert {item.class_name for item in found} == {0, 1, 2}


def test_what_is_left_out_and_why(folder: Path) -> None:
    write_tar(
        folder / "x.tar",
        {
            "1.txt": "Raven",
            "2.jpg": b"",
            "3.jpg": b"", "3.txt": " \n",
            "4.webp": b"", "4.txt": "a  dog",
            "5.png": b"", "5.txt": "Raven or magpie",
            "6.jpeg": b"", "6.json": "{",
            "7.jpg": b"", "7.json": "[" * 100_000,
            "8.jpg": b"", "8.json": '{"label": ' + "9" * 5000 + "}",
            "9.jpg": b"", "9.json": '{"caption": "a \\ud83d dog"}',
        },
    )  # fmt: skip
    assert items(folder) == [
        Skip("x.tar/1", "no photo for its key"),
        Skip("x.tar/2.jpg", "no class or caption for its key"),
        Skip("x.tar/3.jpg", "no class or caption for its key"),
        Skip("x.tar/4.webp", NONE, "a dog"),
        Skip("x.tar/5.png", SEVERAL, "Raven or magpie"),
        Skip("x.tar/6.jpeg", "json that cannot be read"),
        Skip("x.tar/7.jpg", "json that cannot be read"),
        Skip("x.tar/8.jpg", "json that cannot be read"),
        Skip("x.tar/9.jpg", NONE, "a \\ud83d dog"),
    ]


def test_where_no_photo_has_a_class_the_reasons_are_told(folder: Path, tmp_path: Path) -> None:
    write_tar(folder / "x.tar", {"1.jpg": b"", "2.jpg": b"", "3.jpg": b"", "3.txt": "a dog"})
    with pytest.raises(
        UserError,
        match=r"^photos: found none in a class: 2 no class or caption for its key \(x.tar/1.jpg\), 1 caption of no class "
        r"\(x.tar/3.jpg\), expected at least one; mend that or give other photos$",
    ):
        plan_photos(items(folder), TABLE, Options())


def test_sub_folders_named_like_splits_are_the_splits(folder: Path) -> None:
    for number, name in enumerate(("train/000000", "train/000001", "val/000000", "other/000000")):
        write_tar(folder / f"{name}.tar", {f"{number}.jpg": b"", f"{number}.cls": "10"})
    assert {item.split for item in items(folder)} == {None}  # since other is no split
    found = items(folder, subsets=("val", "train"))
    assert [(item.split, item.image_id) for item in found] == [
        ("val", "val/000000.tar/2.jpg"), ("train", "train/000000.tar/0.jpg"), ("train", "train/000001.tar/1.jpg"),
    ]  # fmt: skip


def test_tars_that_cannot_be_read_are_told_in_one_line(folder: Path) -> None:
    def refused(message: str, **more: object) -> None:
        with pytest.raises(UserError, match=message) as error:
            items(folder, **more)
        assert "\n" not in str(error.value)

    refused(r"found no tar here or in a sub-folder, expected such as 000000\.tar")
    tar = write_tar(folder / "0.tar", {"a.jpg": jpeg(0), "a.cls": "10", "b.jpg": jpeg(1), "b.cls": "10"})
    whole = tar.read_bytes()
    for cut in (0, 300, 800, 2048, 2 * 1024 + 512 + 100, 1024 * 4):
        tar.write_bytes(whole[:cut])
        refused(r"0\.tar: found a damaged or cut tar \(.*\), expected a whole one; copy it again")
    tar.write_bytes(b"text" * 1000)
    refused("found a damaged or cut tar")
    for size in (-512, -(2**40), 2**40, 2**62):
        with_size(tar, "a.txt", size)
        refused(r"0\.tar: found a damaged or cut tar \('a\.txt' of -?\d+ bytes at byte 0\)")
    tar.write_bytes(gzip.compress(whole))
    refused(r"0\.tar: found a compressed tar, expected a plain one, .*; gunzip it")
    tar.rename(folder / "0.tar.gz")
    refused(r"0\.tar\.gz: found a compressed tar")
    (folder / "0.tar.gz").unlink()
    write_tar(tar, {"a.jpg": b"", "a.cls": "11"})
    refused(r"0\.tar key a: found class id 11, expected one of the 4 ids from 10 to 40 in the class table")
    write_tar(folder / "train" / "0.tar", {})
    refused("found tars here and in train, expected one of both; choose with --subsets")
    refused(r"--subsets: found 'val', expected sub-folders with tars \(train\)", subsets=("val",))
    (folder / "0.tar").unlink()
    (folder / "train").rename(folder / "train.incomplete")
    refused("found half-written shards, expected whole ones; finish or delete them")
    (folder / "train.incomplete").rename(folder / "train")
    (folder / "classes.csv").unlink()
    refused(r"--classes: found none, nor .*classes\.csv, expected a class table")


# -- out and back


def test_records_come_back_as_the_same_bytes(records: RecordSet, tmp_path: Path) -> None:
    to_webdataset(["--records", str(records.directory), "--out", str(tmp_path / "tars")])
    options = ["--shards", "3", "--vocab-size", "400", "--workers", "1"]
    for template in records.templates:
        options += ["--template", template]
    main(["--source", "webdataset", "--images", str(tmp_path / "tars"), "--out", str(tmp_path / "back"), *options])
    before, after = contents(records.directory), contents(tmp_path / "back")
    differing = {name for name in before | after if before.get(name) != after.get(name)}
    assert differing <= {"plan.json"}  # which knows times and places of the photos
    assert open_records(tmp_path / "back").fingerprint == records.fingerprint


def test_members_of_a_key(records: RecordSet, tmp_path: Path) -> None:
    to_webdataset(["--records", str(records.directory), "--out", str(tmp_path), "--split", "heldout"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classes.csv", "heldout", "webdataset.json"]
    stored = [decode(frame) for path in records.files("heldout") for frame in read_frames(path)]
    assert json.loads((tmp_path / "heldout" / "sizes.json").read_text()) == {"000000.tar": 28}
    with tarfile.open(tmp_path / "heldout" / "000000.tar") as tar:
        members = tar.getmembers()
        found = {member.name: tar.extractfile(member).read() for member in members}
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
    assert list(found) == [f"{i:09d}.{ending}" for i in range(28) for ending in ("jpg", "txt", "cls", "json")]
    for i, record in enumerate(stored):
        assert found[f"{i:09d}.jpg"] == record.jpeg
        assert found[f"{i:09d}.txt"].decode() == record.captions[0]
        assert int(found[f"{i:09d}.cls"]) == record.class_id
        facts = json.loads(found[f"{i:09d}.json"])
        assert (facts["image_id"], facts["class_id"]) == (record.image_id, record.class_id)
        assert (tuple(facts["captions"]), facts["ranks"]) == (record.captions, record.ranks)


def test_a_stopped_run_goes_on_and_gives_the_same_bytes(
    records: RecordSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from data_prep.conversion import to_tars as module

    monkeypatch.setattr(module, "_TAR_BYTES", 300_000)  # so that a tar holds few photos
    command = ["--records", str(records.directory), "--shard-mb", "1", "--split", "train", "--workers", "1", "--out"]
    to_webdataset([*command, str(tmp_path / "whole")])
    tars = sorted((tmp_path / "whole" / "train").glob("*.tar"))
    assert len(tars) > 9
    write, written = module.write_tar, []

    def stop(tar: module.Tar) -> int:
        if len(written) == 3:
            tar.path.with_name(f"{tar.path.name}.1.part").write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(tar)
        return write(tar)

    monkeypatch.setattr(module, "write_tar", stop)
    with pytest.raises(SystemExit):
        to_webdataset([*command, str(tmp_path / "stopped")])
    assert not (tmp_path / "stopped" / "train").exists()
    monkeypatch.setattr(module, "write_tar", write)
    capsys.readouterr()
    to_webdataset([*command, str(tmp_path / "stopped"), "--workers", "2"])
    assert f"train: 3 of {len(tars)} tars were finished before" in capsys.readouterr().out
    assert contents(tmp_path / "stopped" / "train") == contents(tmp_path / "whole" / "train")
    to_webdataset([*command, str(tmp_path / "stopped")])
    assert "train is up to date" in capsys.readouterr().out


def test_folders_of_something_else_are_refused(
    records: RecordSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stop:
            to_webdataset(["--records", str(records.directory), "--out", str(tmp_path / "out"), *arguments])
        assert stop.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "shard_mb: found 0, expected 1 or more" in refused("--shard-mb", "0")
    assert "workers: found -1, expected 0 (all cores) or more" in refused("--workers", "-1")
    assert "--split: found 'test', expected one of heldout, train, validation" in refused("--split", "test")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    assert "found something else, expected a new or empty folder; choose another --out" in refused()
    (tmp_path / "out" / "mine").unlink()
    to_webdataset(["--records", str(records.directory), "--out", str(tmp_path / "out"), "--split", "heldout"])
    capsys.readouterr()
    assert "found tars of shard_mb 512, expected 1; delete them or choose another --out" in refused("--shard-mb", "1")


# -- others


def test_what_webdataset_writes_is_converted_without_loss(tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset")
    write_class_table(TABLE, tmp_path / "classes.csv")
    forms = [{"jpg": jpeg(i), "txt": f"A photo of a {name}"} for i, name in enumerate(SPECIES)]
    forms += [{"jpg": jpeg(i + 10), "cls": class_id} for i, class_id in enumerate(TABLE.ids)]
    pictures = [np.asarray(noise(i + 20)) for i in range(4)]
    forms += [{"png": picture, "json": {"species": name}} for picture, name in zip(pictures, SPECIES, strict=True)]
    for start in (0, 4, 8):
        (tmp_path / f"{start}").mkdir()
        with wds.ShardWriter(str(tmp_path / f"{start}" / "%06d.tar"), maxcount=3, verbose=0) as sink:
            for i, form in enumerate(forms[start : start + 4]):
                sink.write({"__key__": f"{start}/{i:04d}", **form})
        out = tmp_path / f"out{start}"
        command = f"--source webdataset --images {tmp_path}/{start} --classes {tmp_path}/classes.csv --out {out}"
        main([*command.split(), "--vocab-size", "0", "--validation-fraction", "0", "--workers", "1"])
        found = sorted(
            (decode(f) for path in open_records(out).files("train") for f in read_frames(path)),
            key=lambda r: r.image_id,
        )
        assert [record.class_id for record in found] == list(TABLE.ids)
        for i, record in enumerate(found):
            if start < 8:
                assert record.jpeg == forms[start + i]["jpg"]
            else:
                assert record.image_id.endswith(".png")
                assert record.jpeg == clean_photo(encoded(noise(i + 20), "PNG")).jpeg


def test_open_clips_own_loader_yields_our_photos_and_captions(
    records: RecordSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("webdataset")
    pytest.importorskip("torch")
    pytest.importorskip("torchvision")
    pytest.importorskip("open_clip_train")
    from benchmarks.machine import open_clip

    tokenizer = open_clip().get_tokenizer("ViT-B-32")
    import torch
    from open_clip_train import data as theirs
    from open_clip_train.params import parse_args

    if "eof_value" in inspect.signature(theirs.tar_file_expander).parameters:
        # Newer webdatasets mark the end of each tar, which open_clip's own grouping of files does not know.
        monkeypatch.setattr(theirs, "tar_file_expander", functools.partial(theirs.tar_file_expander, eof_value=None))

    to_webdataset(["--records", str(records.directory), "--out", str(tmp_path)])
    tars = str(tmp_path / "train" / "000000.tar")
    arguments = [
        "--dataset-type",
        "webdataset",
        "--train-data",
        tars,
        "--val-data",
        tars,
        "--batch-size",
        "8",
        "--workers",
        "0",
    ]
    stored = [decode(frame) for path in records.files("train") for frame in read_frames(path)]

    def digest(image: Image.Image) -> bytes:
        return hashlib.sha256(np.asarray(image.convert("RGB"))).digest()

    def as_tensor(image: Image.Image) -> torch.Tensor:  # photos are of many sizes, digests of one
        return torch.frombuffer(bytearray(digest(image)), dtype=torch.uint8)

    for is_train in (False, True):
        args = parse_args(arguments)
        args.world_size = 1
        data = theirs.get_wds_dataset(args, as_tensor, is_train, tokenizer=tokenizer)
        batches = list(data.dataloader)
        photos = [photo.numpy().tobytes() for images, _ in batches for photo in images]
        texts = [tuple(text.tolist()) for _, batch in batches for text in batch]
        expected = [digest(Image.open(io.BytesIO(record.jpeg))) for record in stored]
        captions = [tuple(tokenizer(record.captions[0])[0].tolist()) for record in stored]
        if is_train:  # shuffled, and known from sizes.json to be 56
            assert data.dataloader.num_samples == 56
            assert sorted(zip(photos, texts, strict=True)) == sorted(zip(expected, captions, strict=True))
        else:
            assert (photos, texts) == (expected, captions)

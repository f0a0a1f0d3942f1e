"""Lists of photos as people have them: no photo is lost without a word, whatever wrote the list."""

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.sources.folder import read_csv, read_folder, read_names
from lit_jax.base.named_files import on_disk
from lit_jax.base.tables import lines_of
from lit_jax.errors import UserError
from lit_jax.text.classes import read_class_table
from lit_jax.text.labels import read_labels
from lit_jax.text.prompts import read_templates

CLASSES = ("Mésange bleue", "Épervier", "Geai")
NAMES = [f"p{i}.jpg" for i in range(12)]


def listing(path: Path, note: Callable[[int], str] = lambda i: f"n{i}", *, encoding: str = "utf-8") -> Path:
    rows = [f"{name},{CLASSES[i % 3]},{note(i)}" for i, name in enumerate(NAMES)]
    path.write_bytes(("\n".join(["file,class,note", *rows]) + "\n").encode(encoding))
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in NAMES:
        (folder / name).touch()
    return folder


def found(photos: Path, path: Path) -> list[tuple[str, str | int]]:
    items = list(read_folder(photos, path))
    assert all(Path(item.path).is_file() for item in items)
    return [(item.image_id, item.class_name) for item in items]


ALL = [(name, CLASSES[i % 3]) for i, name in enumerate(NAMES)]


@pytest.mark.parametrize("sign", ["\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_what_only_python_takes_for_a_line_end_is_a_part_of_its_cell(photos: Path, tmp_path: Path, sign: str) -> None:
    assert found(photos, listing(tmp_path / "l.csv", lambda i: f"seen{sign}twice")) == ALL
    assert found(photos, listing(tmp_path / "l.csv", lambda i: f'"seen{sign}twice"')) == ALL
    (tmp_path / "class.csv").write_text(f"file,class\np0.jpg,Mésange{sign}bleue\n", encoding="utf-8")
    assert found(photos, tmp_path / "class.csv") == ALL[:1]
    assert lines_of(f"a{sign}b\nc") == [f"a{sign}b", "c"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"PK\x03\x04\x14\0\x08\0occurrence.txt", "a zip, or a spreadsheet such as .xlsx or .ods"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a spreadsheet or document of Office"),
        (b"\x1f\x8b\x08\0", "a file that gzip has packed"),
        (b"%PDF-1.7\n", "a PDF"),
    ],
)
def test_a_spreadsheet_or_a_packed_file_is_no_table(content: bytes, found: str, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(content)
    readers = (read_csv, read_names, read_class_table, read_labels, read_templates)
    for read in readers:
        with pytest.raises(UserError) as refusal:
            list(read(path))  # type: ignore[operator, arg-type]
        assert str(refusal.value).startswith(f"{path}: found {found}, expected "), read
        assert str(refusal.value).endswith("; give a text or a CSV, unpacked or saved from it")


@pytest.mark.parametrize(
    ("quotes", "line", "cause"),
    [
        ({4: '"about 5 cm'}, 6, "a quote that is not closed"),
        ({4: '"about 5 cm', 8: '"9 cm'}, 6, "',' expected after '\"'"),
        ({11: '"'}, 13, "a quote that is not closed"),
    ],
)
def test_a_quote_that_is_not_closed_is_refused_with_its_row(
    photos: Path, tmp_path: Path, quotes: dict[int, str], line: int, cause: str
) -> None:
    path = listing(tmp_path / "l.csv", lambda i: quotes.get(i, ""))
    for read in (lambda: found(photos, path), lambda: list(read_csv(path))):
        with pytest.raises(UserError) as refusal:
            read()
        assert str(refusal.value) == (
            f"{path} line {line}: found bad CSV ({cause}), expected RFC 4180; mend the quotes"
        )
    (tmp_path / "names.csv").write_text('name,note\nPica pica,"x\nCorvus corax,y\n')
    with pytest.raises(UserError, match=r"names.csv line 2: found bad CSV \(a quote that is not closed\)"):
        read_names(tmp_path / "names.csv")


def test_a_row_with_more_cells_than_the_header_is_refused(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text("file,class\np0.jpg,Geai\np1.jpg,Geai, adulte\n", encoding="utf-8")
    with pytest.raises(
        UserError, match=r"l.csv line 3: found 3 fields, expected 2 as in the header; put quotes around"
    ):
        found(photos, path)
    path.write_text("file,class,class\np0.jpg,Geai,Merle\n", encoding="utf-8")
    with pytest.raises(UserError, match="found column 'class' twice, expected each once"):
        found(photos, path)
    path.write_text("file,class\np0.jpg,Geai,,\np1.jpg\n", encoding="utf-8")  # as spreadsheets pad rows, and cut them
    assert found(photos, path) == [("p0.jpg", "Geai"), ("p1.jpg", "photos")]


@pytest.mark.parametrize(
    ("encoding", "mark", "notes"),
    [
        ("utf-8-sig", ";", ["read as columns parted by semicolons"]),
        ("utf-16", "\t", ["read as columns parted by tabs"]),
        ("utf-8-sig", ",", []),
        (
            "cp1252",
            ";",
            [
                "found byte 0xe9 in line 2, so that it is read as Windows-1252 and not as UTF-8",
                "read as columns parted by semicolons",
            ],
        ),
    ],
)
def test_tables_of_excel_are_read_with_a_note(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], encoding: str, mark: str, notes: list[str]
) -> None:
    path = listing(tmp_path / "l.csv", encoding=encoding)
    path.write_bytes(path.read_bytes().decode(encoding).replace(",", mark).replace("\n", "\r\n").encode(encoding))
    assert found(photos, path) == found(photos, path) == ALL
    assert capsys.readouterr().err == "".join(f"note: {path}: {note}\n" for note in notes)
    table = tmp_path / "classes.csv"
    table.write_bytes("\r\n".join(["id;name", "4;Mésange bleue", "7;Geai"]).replace(";", mark).encode(encoding))
    assert dict(zip(read_class_table(table).names, read_class_table(table).ids, strict=True)) == {
        "Mésange bleue": 4,
        "Geai": 7,
    }
    assert read_names(table) == ("Mésange bleue", "Geai")


@pytest.mark.parametrize("on_the_disk", ["a/{}", "a\\{}"])
def test_backslashes_part_folders_or_belong_to_the_name(tmp_path: Path, on_the_disk: str) -> None:
    photos = tmp_path / "photos"
    for i in range(3):
        path = photos / on_the_disk.format(f"p{i}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "l.csv").write_text("file,class\n" + "".join(f"a\\p{i}.jpg,Geai\n" for i in range(3)))
    assert found(photos, tmp_path / "l.csv") == [(f"a/p{i}.jpg", "Geai") for i in range(3)]


@pytest.mark.parametrize(("listed", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_are_found_in_whichever_form(tmp_path: Path, listed: str, stored: str) -> None:
    names = [f"{name}/{name}_{i}.jpg" for i, name in enumerate(CLASSES)]
    for name in names:
        path = tmp_path / "photos" / unicodedata.normalize(stored, name)
        path.parent.mkdir(parents=True)
        path.touch()
    rows = [unicodedata.normalize(listed, name) for name in names]
    (tmp_path / "l.csv").write_text("\n".join(["file", *rows]), encoding="utf-8")
    assert [name for name, _ in found(tmp_path / "photos", tmp_path / "l.csv")] == rows
    assert on_disk(tmp_path / "photos", rows[0]) == tmp_path / "photos" / unicodedata.normalize(stored, names[0])
    assert on_disk(tmp_path / "photos", unicodedata.normalize(listed, "Épervier/none.jpg")) is None


def test_names_of_an_old_disk_are_found(tmp_path: Path) -> None:
    path = Path(os.fsdecode(bytes(tmp_path / "photos") + "/Épervier/é.jpg".encode("cp1252")))
    path.parent.mkdir(parents=True)
    path.touch()
    (tmp_path / "l.csv").write_bytes("file\nÉpervier/é.jpg\n".encode("cp1252"))
    assert found(tmp_path / "photos", tmp_path / "l.csv") == [("Épervier/é.jpg", "Épervier")]


def test_a_file_in_the_images_behind_many_that_are_missing_counts(photos: Path, tmp_path: Path) -> None:
    rows = [f"gone{i}.jpg" for i in range(150)]
    (tmp_path / "l.csv").write_text("\n".join(["file", *rows, "p3.jpg"]))
    assert [item.path for item in read_folder(photos, tmp_path / "l.csv")][-1] == str(photos / "p3.jpg")


def test_the_shared_lists(shared_data: Path) -> None:
    folder = shared_data.parent / "cases" / "photo_lists"
    if not folder.is_dir():
        pytest.skip("no shared cases beside the project")
    for name in ("ok", "vt", "ff", "nel", "ls", "ls_quoted", "semi"):
        items = list(read_folder(folder / "photos", folder / f"{name}.csv"))
        assert len(items) == 12 and len({item.class_name for item in items}) == 3, name
    for name in ("unclosed", "two_unclosed"):
        with pytest.raises(UserError, match=rf"/{name}\.csv line 6: found bad CSV"):
            list(read_folder(folder / "photos", folder / f"{name}.csv"))

"""Photos and tables as people have them: what is understood is told, what is not is asked, and nothing is silently wrong."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from data_prep import captions, embeddings
from data_prep.conversion.convert import convert, dry_run
from data_prep.conversion.options import Options
from data_prep.conversion.plan import Planned, find_duplicates, plan_photos
from data_prep.convert import main
from data_prep.sources.folder import read_folder
from data_prep.sources.items import Source
from lit_jax.data import photo as photos
from lit_jax.data.records import open_records
from lit_jax.errors import UserError
from lit_jax.text.captions import TEMPLATE, fitted
from lit_jax.text.classes import ClassTable, read_class_table, write_class_table
from tests.test_convert import contents, encoded, exif, ids, noise, records, write

HEIC = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(200)
DOVES = ClassTable(
    (3, 5, 7, 9),
    {
        "folder": ("Rock_Dove", "Magpie", "Jacobin", "Raven"),
        "name": ("Columba livia", "Pica pica", "columba_livia", "Corvus corax"),
        "common_name": ("Rock Dove", "Magpie", "Jacobin Pigeon", "Raven"),
        "supercategory": ("Birds",) * 4,
    },
)
QUICK = Options(vocab_size=0)


def write_photos(root: Path, folders: tuple[str, ...], number: int = 3, seed: int = 0) -> Path:
    for f, name in enumerate(folders):
        for i in range(number):
            write(root / name / f"{i}.jpg", encoded(noise(1000 * seed + 100 * f + i), "JPEG"))
    return root


def run(*arguments: object) -> int:
    """The command's exit code."""
    try:
        main([str(argument) for argument in (*arguments, "--vocab-size", 0, "--workers", 1)])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line with which the command stops."""
    capsys.readouterr()
    assert run(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def report(folder: Path) -> dict[str, object]:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


# -- rows of one species


@pytest.fixture
def doves(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", DOVES.columns["folder"])


def test_rows_of_one_species_are_held_out_together(doves: Path) -> None:
    for seed in range(8):
        plan = plan_photos(read_folder(doves), DOVES, Options(heldout=1, seed=seed))
        held, seen = ({p.class_id for p in plan.photos if (p.split == "heldout") is out} for out in (True, False))
        assert held in ({3, 7}, {5}, {9}) and not held & seen
    for name in ("Jacobin", "Rock Dove", "COLUMBA LIVIA"):
        plan = plan_photos(read_folder(doves), DOVES, Options(heldout_classes=[name]))
        assert {p.class_id for p in plan.photos if p.split == "heldout"} == {3, 7}, name
    with pytest.raises(UserError, match="heldout: found 3, expected fewer than the 3 species with photos"):
        plan_photos(read_folder(doves), DOVES, Options(heldout=3))
    with pytest.raises(UserError, match="heldout: found 3, expected fewer than the 3 species with photos"):
        plan_photos(read_folder(doves), DOVES, Options(heldout_classes=["Jacobin", "Magpie", "Raven"]))


def test_a_heldout_split_of_the_source_must_hold_all_rows_of_a_species(doves: Path, tmp_path: Path) -> None:
    def listed(held: tuple[str, ...]) -> Path:
        with open(tmp_path / "list.csv", "w", newline="") as file:
            rows = [
                (f"{name}/{i}.jpg", "heldout" if name in held else "train")
                for name in DOVES.columns["folder"]
                for i in range(3)
            ]
            csv.writer(file).writerows([("file", "split"), *rows])
        return tmp_path / "list.csv"

    plan_photos(read_folder(doves, listed(("Jacobin", "Rock_Dove"))), DOVES, Options())
    with pytest.raises(
        UserError,
        match=r"split heldout: found Columba livia \(Rock Dove\) in train \(Rock_Dove/0\.jpg\) and the same species as "
        r"columba_livia \(Jacobin Pigeon\) in heldout, expected held-out species in no other split",
    ):
        plan_photos(read_folder(doves, listed(("Jacobin",))), DOVES, Options())


def test_rows_of_one_species_are_warned_of_with_both_named(
    doves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = (
        "warning: 2 rows are one species, Columba livia: id 3 (Rock_Dove, Rock Dove), id 7 (Jacobin, Jacobin Pigeon); they are held "
        "out together and count as one; if they are two, correct their names"
    )
    assert line in dry_run(Source(read_folder(doves), DOVES), tmp_path / "out", QUICK, workers=1)
    convert(Source(read_folder(doves), DOVES), tmp_path / "out", QUICK, workers=1)
    told = capsys.readouterr().out.splitlines()
    assert told.index(line) < next(i for i, text in enumerate(told) if "photos to store" in text)
    assert line.removeprefix("warning: ") in report(tmp_path / "out")["warnings"]
    # Without a class table, from the names of the folders.
    write_photos(tmp_path / "twice", ("Pica_pica", "pica pica", "Corvus corax"))
    assert run("--images", tmp_path / "twice", "--out", tmp_path / "twice_out", "--heldout", 1) == 0
    assert "2 rows are one species, Pica pica: id 1 (Pica_pica), id 2 (pica pica)" in capsys.readouterr().out


def test_the_import_of_embeddings_keeps_a_species_together(
    doves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    files = [f"{name}/{i}.jpg" for name in DOVES.columns["folder"] for i in range(3)]
    (tmp_path / "list.csv").write_text("file\n" + "\n".join(files) + "\n")
    np.save(tmp_path / "e.npy", np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32))
    write_class_table(DOVES, tmp_path / "classes.csv")
    given = f"--embeddings {tmp_path}/e.npy --ids {tmp_path}/list.csv --classes {tmp_path}/classes.csv --vocab-size 0"
    (tmp_path / "held.txt").write_text("Jacobin\n")
    embeddings.main([*given.split(), "--heldout-classes", f"{tmp_path}/held.txt", "--out", f"{tmp_path}/store"])
    told = capsys.readouterr().out
    assert "warning: 2 rows are one species, Columba livia: id 3" in told
    assert "held out: Columba livia, columba_livia" in told and "classes with photos (4): " in told


def test_the_same_photo_in_two_rows_of_one_species_is_a_duplicate(tmp_path: Path) -> None:
    jpeg = encoded(noise(1), "JPEG")
    for name in ("a", "b", "c"):
        write(tmp_path / name, jpeg)
    same = [Planned(str(tmp_path / name), name, i, "train", len(jpeg)) for name, i in (("a", 3), ("b", 7))]
    assert find_duplicates(same, DOVES) == {"b": ("b", "duplicate", "of a")}
    other = [*same, Planned(str(tmp_path / "c"), "c", 5, "train", len(jpeg))]
    assert {skip.reason for skip in find_duplicates(other, DOVES).values()} == {"same photo under two classes"}


# -- class tables


def test_a_set_made_before_values_were_stripped_is_up_to_date(
    doves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its table held blanks and blank rows as they stood in the file, and so did its identity."""
    padded = {
        c: (*(f"{value} " if c == "common_name" else value for value in values), "")
        for c, values in DOVES.columns.items()
    }
    as_it_was = ClassTable((0, 1, 2, 3, 4), padded)
    assert as_it_was.as_written is None
    options = Options(vocab_size=0, allow_empty_classes=True)
    convert(Source(read_folder(doves), as_it_was), tmp_path / "out", options, workers=1)
    with open(tmp_path / "classes.csv", "w", newline="") as file:
        csv.writer(file).writerows([padded, *zip(*padded.values(), strict=True)])
    table = read_class_table(tmp_path / "classes.csv")
    assert len(table) == 4 and table.columns["common_name"][0] == "Rock Dove"
    before = contents(tmp_path / "out")
    capsys.readouterr()
    convert(Source(read_folder(doves), table), tmp_path / "out", options, workers=1)
    assert "is up to date" in capsys.readouterr().out and contents(tmp_path / "out") == before


def test_blank_rows_are_noted_in_the_dry_run_as_in_the_real_one(
    doves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "classes.csv", b"folder,name,common_name\nRock_Dove,a,\nMagpie,b,\n,,\nJacobin,c,\nRaven,d,\n,,\n")
    arguments = ("--images", doves, "--classes", tmp_path / "classes.csv", "--out", tmp_path / "out")
    for more in (("--dry-run",), ()):
        assert run(*arguments, *more) == 0
        assert f"{tmp_path}/classes.csv: 2 blank rows left out, beginning with line 4\n" in capsys.readouterr().out


@pytest.mark.parametrize(("mark", "said"), [(",", ""), (";", "semicolons"), ("\t", "tabs")])
def test_lists_of_photos_may_hold_blank_rows_and_be_parted_by_any_sign(
    doves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mark: str, said: str
) -> None:
    text = "file,class\nRaven/0.jpg,Raven \n,\nMagpie/1.jpg, Magpie\n,\n".replace(",", mark)
    write(tmp_path / "list.csv", text.encode())
    found = list(read_folder(doves, tmp_path / "list.csv"))
    assert [(item.image_id, item.class_name) for item in found] == [
        ("Raven/0.jpg", "Raven"),
        ("Magpie/1.jpg", "Magpie"),
    ]
    told = f"note: {tmp_path / 'list.csv'}: read as columns parted by {said}\n" if said else ""
    assert capsys.readouterr().err == told


def test_the_default_caption_drops_what_the_table_lacks(
    doves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = ClassTable(DOVES.ids, {column: DOVES.columns[column] for column in ("folder", "name", "common_name")})
    write_class_table(table, tmp_path / "classes.csv")
    arguments = ("--images", doves, "--classes", tmp_path / "classes.csv", "--out")
    assert run(*arguments, tmp_path / "out") == 0
    assert (
        "captions: A photo of the {common_name} {name}, as the class table has no column supercategory"
        in capsys.readouterr().out
    )
    made = open_records(tmp_path / "out")
    assert made.templates == ("A photo of the {common_name} {name}",)
    captions = {record["captions"][0].decode() for record in records(made)["train"]}
    assert "A photo of the Jacobin Pigeon columba_livia" in captions
    # The set is the same as one that is told so, and a template of one's own is not touched.
    options = Options(templates=("A photo of the {common_name} {name}",), vocab_size=0)
    convert(Source(read_folder(doves), table), tmp_path / "out", options, workers=1)
    assert "up to date" in capsys.readouterr().out
    assert "template: found column 'supercategory', expected one of" in refused(
        capsys, *arguments, tmp_path / "o", "--template", TEMPLATE
    )


def test_a_template_is_fitted_to_a_table() -> None:
    assert fitted(TEMPLATE, ("name", "common_name", "supercategory", "x")) == TEMPLATE
    assert fitted(TEMPLATE, ("common_name",)) == "A photo of the {common_name}"
    assert fitted("{a}, {{b}} and {b}", ("b",)) == ", {{b}} and {b}"


# -- splits and levels of folders


@pytest.mark.parametrize("names", [("training", "validation"), ("train", "valid"), ("Train", "VAL"), ("train", "test")])
def test_split_folders_are_understood_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, str]
) -> None:
    for seed, name in enumerate(names):
        write_photos(tmp_path / "photos" / name, ("Pica pica", "Corvus corax"), seed=seed)
    assert run("--images", tmp_path / "photos", "--out", tmp_path / "out") == 0
    made = open_records(tmp_path / "out")
    assert {split: made.examples(split) for split in made.splits} == {"train": 6, "validation": 6}
    told = ", ".join(
        ours if ours == name else f"{ours} (from {name})"
        for name, ours in zip(names, ("train", "validation"), strict=True)
    )
    assert f"splits: {told}\n" in capsys.readouterr().out


def test_split_folders_of_other_names_are_renamed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, name in enumerate(("2019", "2020", "test")):
        write_photos(tmp_path / "photos" / name, ("Pica pica", "Corvus corax"), seed=seed)
    arguments = (
        "--images",
        tmp_path / "photos",
        "--out",
        tmp_path / "out",
        "--rename-split",
        "2019=train",
        "--rename-split",
    )
    assert run(*arguments, "2020=validation", "--rename-split", "test=test") == 0
    assert {split: set(names) for split, names in ids(open_records(tmp_path / "out")).items()} == {
        split: {f"{folder}/{name}/{i}.jpg" for name in ("Pica pica", "Corvus corax") for i in range(3)}
        for split, folder in (("train", "2019"), ("validation", "2020"), ("test", "test"))
    }
    # Two that would become one are refused with a remedy that is one.
    (tmp_path / "photos" / "2019").rename(tmp_path / "photos" / "train")
    (tmp_path / "photos" / "2020").rename(tmp_path / "photos" / "training")
    line = refused(capsys, "--images", tmp_path / "photos", "--out", tmp_path / "o")
    assert "splits: found train and training, which would all become train, expected one" in line
    assert line.endswith(
        "pass --rename-split training=train to put them together, or another name to keep them apart, as with --rename-split training=training"
    )
    assert run("--images", tmp_path / "photos", "--out", tmp_path / "o", "--rename-split", "training=train") == 0


def test_split_folders_beside_others_are_asked_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_photos(tmp_path / "photos" / "train", ("Pica pica", "Corvus corax"))
    write_photos(tmp_path / "photos", ("Larus canus",), seed=1)
    line = refused(capsys, "--images", tmp_path / "photos", "--out", tmp_path / "out")
    assert (
        "folders: found train, named like a split, beside Larus canus, expected split folders alone or class folders alone"
        in line
    )
    assert "--class-level 1" in line and not (tmp_path / "out").exists()
    assert run("--images", tmp_path / "photos", "--out", tmp_path / "out", "--class-level", 1) == 0
    assert report(tmp_path / "out")["classes"] == ["Larus canus", "train"]
    # One of the classes may be called so, as long as its photos lie in it.
    write_photos(tmp_path / "other", ("test", "Larus canus"))
    assert run("--images", tmp_path / "other", "--out", tmp_path / "other_out") == 0


def sites(root: Path) -> Path:
    for seed, site in enumerate(("north", "south", "west")):
        write_photos(root / site, ("Pica pica", "Corvus corax"), number=2, seed=seed)
    write(root / "north" / "Thumbs.db", b"no photo")
    return root


def test_site_folders_above_species_folders_are_asked_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = sites(tmp_path / "photos")
    line = refused(capsys, "--images", root, "--out", tmp_path / "out")
    assert line == (
        "error: folders: found no photo in north, south, west themselves but in folders of theirs (Corvus corax, Pica pica), "
        "expected photos in the folders of the classes; pass --class-level 2 if the inner folders are the classes, "
        "--class-level 1 if the outer ones are"
    )
    assert run("--images", root, "--out", tmp_path / "out", "--class-level", 2) == 0
    assert report(tmp_path / "out")["classes"] == ["Corvus corax", "Pica pica"]
    assert report(tmp_path / "out")["left_out"] == {"outside the class folders": [["north/Thumbs.db", ""]]}
    assert run("--images", root, "--out", tmp_path / "outer", "--class-level", 1) == 0
    assert report(tmp_path / "outer")["classes"] == ["north", "south", "west"]
    # Below split folders the same.
    root.rename(tmp_path / "train")
    (tmp_path / "split").mkdir()
    (tmp_path / "train").rename(tmp_path / "split" / "train")
    assert "--class-level 2" in refused(capsys, "--images", tmp_path / "split", "--out", tmp_path / "s")
    assert run("--images", tmp_path / "split", "--out", tmp_path / "s", "--class-level", 2) == 0
    assert report(tmp_path / "s")["classes"] == ["Corvus corax", "Pica pica"]
    assert "--class-level: found -1, expected 0 or more" in refused(
        capsys, "--images", tmp_path / "split", "--out", tmp_path / "n", "--class-level", -1
    )


@pytest.mark.parametrize("table", [True, False])
def test_split_folders_one_level_too_deep_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table: bool
) -> None:
    for seed, split in enumerate(("training", "validation")):
        write_photos(tmp_path / "all" / "photos" / split, ("Pica pica", "Corvus corax"), seed=seed)
    write(tmp_path / "species.csv", b"name\nPica pica\nCorvus corax\n")
    given = ("--classes", tmp_path / "species.csv") if table else ()
    line = refused(capsys, "--images", tmp_path / "all", "--out", tmp_path / "out", *given)
    assert line.startswith(
        "error: folders: found split folders (training, validation) in photos, expected them in --images itself"
    )
    assert run("--images", tmp_path / "all" / "photos", "--out", tmp_path / "out", *given) == 0


def test_held_out_names_that_miss_are_called_so(doves: Path) -> None:
    with pytest.raises(
        UserError, match=r"^held-out class names: found 1 of 1 not in column 'folder' \('Jacobine'; the nea"
    ):
        plan_photos(read_folder(doves), DOVES, Options(heldout_classes=["Jacobine"]))


def test_a_class_table_says_which_folders_are_the_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = sites(tmp_path / "photos")
    write(tmp_path / "species.csv", b"name\nPica pica\nCorvus corax\n")
    line = refused(capsys, "--images", root, "--classes", tmp_path / "species.csv", "--out", tmp_path / "out")
    assert line.startswith(
        "error: folders: found the classes of the table one level deeper than expected (Corvus corax, Pica pica in "
    )
    assert line.endswith("; pass --class-level 2")
    assert (
        run("--images", root, "--classes", tmp_path / "species.csv", "--out", tmp_path / "out", "--class-level", 2) == 0
    )
    write(tmp_path / "sites.csv", b"name\nnorth\nsouth\nwest\n")
    assert run("--images", root, "--classes", tmp_path / "sites.csv", "--out", tmp_path / "sites") == 0
    write(tmp_path / "other.csv", b"name\nLarus canus\n")
    assert "class names: found 3 of 3 not in column 'name'" in refused(
        capsys, "--images", root, "--classes", tmp_path / "other.csv", "--out", tmp_path / "o"
    )


def test_folders_inside_a_class_belong_to_the_class(tmp_path: Path) -> None:
    """As long as one class has a photo of its own, or there is but one inner folder."""
    for seed, name in enumerate(("Quercus robur", "Tilia cordata")):
        write_photos(tmp_path / "plants" / name, ("leaf", "bark"), seed=seed)
        write_photos(tmp_path / "wrapped" / name, ("photos",), seed=seed)
    write(tmp_path / "plants" / "Tilia cordata" / "whole.jpg", encoded(noise(77), "JPEG"))
    for root, number in (("plants", 13), ("wrapped", 6)):
        assert run("--images", tmp_path / root, "--out", tmp_path / f"{root}_out") == 0
        assert report(tmp_path / f"{root}_out")["classes"] == ["Quercus robur", "Tilia cordata"]
        assert open_records(tmp_path / f"{root}_out").examples() == number


def test_classes_are_listed_by_name_before_and_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = tuple(f"Species {letter}" for letter in "abcdefg")
    write_photos(tmp_path / "photos", names)
    assert run("--images", tmp_path / "photos", "--out", tmp_path / "out") == 0
    told = capsys.readouterr().out
    few = "Species a, Species b, Species c, Species d, Species e and 2 more"
    assert (
        told.index(f"classes with photos (7): {few}")
        < told.index("photos to store")
        < told.index(f"classes (7): {few}")
    )
    assert report(tmp_path / "out")["classes"] == list(names)
    assert all(name in (tmp_path / "out" / "report.txt").read_text() for name in names)
    assert run("--images", tmp_path / "photos", "--out", tmp_path / "new", "--dry-run") == 0
    assert f"classes with photos (7): {few}" in capsys.readouterr().out


def test_a_set_without_training_photos_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_photos(tmp_path / "photos" / "valid", ("Pica pica", "Corvus corax"))
    arguments = ("--images", tmp_path / "photos", "--out", tmp_path / "out")
    assert refused(capsys, *arguments) == (
        "error: splits: found validation (from valid) and nothing to train on, expected train; add photos to train on, pass "
        "--rename-split valid=train to train on these, or --allow-no-training for a set to evaluate on"
    )
    assert not (tmp_path / "out").exists()
    assert run(*arguments, "--dry-run") == 0
    assert "warning: splits: found validation (from valid) and nothing to train on" in capsys.readouterr().out
    assert run(*arguments, "--allow-no-training") == 0
    assert list(open_records(tmp_path / "out").splits) == ["validation"]
    # What was made so before is up to date, whoever asks.
    capsys.readouterr()
    assert run(*arguments) == 0 and "up to date" in capsys.readouterr().out
    assert run("--images", tmp_path / "photos", "--out", tmp_path / "t", "--rename-split", "valid=train") == 0
    assert list(open_records(tmp_path / "t").splits) == ["train"]


def test_training_photos_that_all_turn_out_broken_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(tmp_path / "photos" / "valid", ("Pica pica",))
    write(tmp_path / "photos" / "train" / "Pica pica" / "0.jpg", b"no photo")
    arguments = ("--images", tmp_path / "photos", "--out", tmp_path / "out")
    assert "photos: found none to train on that can be used, expected at least one; see " in refused(capsys, *arguments)
    assert run(*arguments, "--allow-no-training") == 0


# -- photos that cannot be read


def test_a_species_of_which_all_photos_are_left_out_comes_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photos, "can_read", lambda kind: False)
    monkeypatch.setattr("data_prep.conversion.report.can_read", lambda kind: False)
    root = write_photos(tmp_path / "photos", ("Pica pica", "Corvus corax"))
    for i in range(2):
        write(root / "Larus canus" / f"IMG_{i}.HEIC", HEIC + bytes(i))
    arguments = ("--images", root, "--out", tmp_path / "out")
    assert run(*arguments, "--dry-run") == 0
    assert "warning: photos that by their names are HEIC and will be left out (2): " in capsys.readouterr().out
    assert run(*arguments) == 3
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert line == (
        f"warning: all photos of 1 species were left out (Larus canus), see {tmp_path}/out/report.txt; the set is written without, exit code 3"
    )
    first = (tmp_path / "out" / "report.txt").read_text().splitlines()[0]
    assert first == "all photos of 1 species were left out: Larus canus"
    assert first in told.out
    found = report(tmp_path / "out")
    assert found["lost"] == ["Larus canus"] and found["warnings"] == []
    assert list(found["left_out"]) == [photos.HEIC]
    assert run(*arguments) == 3 and "up to date" in capsys.readouterr().out
    # A draw that takes none of its photos is no loss.
    assert run("--images", write_photos(tmp_path / "few", ("a", "b", "c")), "--out", tmp_path / "f", "--limit", 1) == 0
    # Nor is a folder of which another folder of the species has photos.
    write(tmp_path / "doves" / "Rock_Dove" / "cut.jpg", b"no photo")
    write_photos(tmp_path / "doves", ("Magpie", "Jacobin", "Raven"))
    write_class_table(DOVES, tmp_path / "doves.csv")
    assert run("--images", tmp_path / "doves", "--classes", tmp_path / "doves.csv", "--out", tmp_path / "d") == 0
    assert "classes with no photo left (1): Columba livia" in report(tmp_path / "d")["warnings"]


# -- a first user's folder


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """Split folders, synonyms, phone photos, and a table out of a spreadsheet."""
    root = tmp_path / "my photos"
    folders = ("PICA_PICA", "Corvus corax", "Rock_Dove", "Jacobin")
    for seed, split in enumerate(("training", "validation")):
        write_photos(root / split, folders, number=2, seed=seed)
        for i, name in enumerate(folders):
            turned = encoded(noise(50 * seed + i, 24), "JPEG", exif=exif(6))
            write(root / split / name / "phone.JPG", turned)
    write(root / "training" / "Corvus corax" / "IMG_0001.HEIC", HEIC)
    write(root / "training" / "Corvus corax" / "photojpg", encoded(noise(90), "JPEG"))
    write(root / "training" / "Thumbs.db", b"no photo")
    rows = [
        "name,common_name,folder,family",
        "Pica pica ,Magpie,PICA PICA,Corvidae",
        "CORVUS CORAX,Raven ,corvus_corax,Corvidae",
        "Columba livia,Rock Dove,rock dove ,Columbidae",
        "Columba livia,Jacobin Pigeon,Jacobin,Columbidae",
        ",,,",
        ",,,",
    ]
    write(tmp_path / "species.csv", ("\ufeff" + "\r\n".join(rows) + "\r\n").encode())
    return root


def test_the_newcomers_path(
    messy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photos, "can_read", lambda kind: False)
    assert run("--images", messy, "--classes", tmp_path / "species.csv", "--out", tmp_path / "out", "--heldout", 1) == 0
    told = capsys.readouterr().out
    for line in (
        "2 blank rows left out, beginning with line 6",
        "captions: A photo of the {common_name} {name}, as the class table has no column supercategory",
        "splits: train (from training), validation",
        "classes with photos (4): Pica pica, CORVUS CORAX, Columba livia, Columba livia",
        "warning: 2 rows are one species, Columba livia: id 2 (rock dove, Rock Dove), id 3 (Jacobin, Jacobin Pigeon)",
        "26 photos to store, 1 left out before reading",
        "outside the class folders",
        "HEIC, which needs pillow-heif",
        "turned upright as its EXIF says",
    ):
        assert line in told, line
    made = open_records(tmp_path / "out")
    assert made.examples() == 25
    assert made.templates == ("A photo of the {common_name} {name}",)
    held = set(made.classes_in("heldout"))
    assert held in ({0}, {1}, {2, 3}) and not held & set(made.classes_in("train"))
    for found in records(made).values():
        for record in found:
            with Image.open(messy / record["image_id"].decode()) as image:
                turned = image.getexif().get(0x0112) == 6
            assert turned == ("phone" in record["image_id"].decode())
            assert not photos.open_photo(record["image"]).notes


def test_the_caption_report_fits_the_table_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "classes.csv", b"name,common_name\nPica pica,Magpie\n,\n")
    captions.main(["--classes", str(tmp_path / "classes.csv")])
    told = capsys.readouterr().out
    assert "1 blank row left out, beginning with line 3" in told
    assert "template  A photo of the {common_name} {name}\n" in told and "A photo of the Magpie Pica pica" in told


# -- what is amiss is told before anything is written


def listing(path: Path, header: str, *rows: str) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_split_that_is_nearly_one_of_ours_is_asked_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_photos(tmp_path / "photos", ("Pica pica", "Corvus corax"))
    files = [f"{name}/{i}.jpg" for name in ("Pica pica", "Corvus corax") for i in range(3)]
    names = ("train", "tarin", "validation")
    splits = listing(tmp_path / "s.csv", "file,split", *(f"{f},{names[i % 3]}" for i, f in enumerate(files)))
    arguments = ("--images", root, "--splits", splits, "--out", tmp_path / "out")
    for more in ((), ("--dry-run",)):
        line = refused(capsys, *arguments, *more)
        assert line.startswith(
            "error: split: found 'tarin' (2 photos), nearly 'train', expected one of train, validation"
        )
        assert line.endswith("pass --rename-split tarin=train, or --rename-split tarin=tarin to keep it as it is")
    assert run(*arguments, "--rename-split", "tarin=train") == 0
    assert open_records(tmp_path / "out").examples("train") == 4
    arguments = (*arguments[:-1], tmp_path / "kept")
    assert run(*arguments, "--rename-split", "tarin=tarin") == 0
    assert open_records(tmp_path / "kept").examples("tarin") == 2


def test_a_split_of_another_name_is_told_with_its_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_photos(tmp_path / "photos", ("Pica pica", "Corvus corax"))
    files = [f"{name}/{i}.jpg" for name in ("Pica pica", "Corvus corax") for i in range(3)]
    names = ("train", "summer", "validation")
    splits = listing(tmp_path / "s.csv", "file,split", *(f"{f},{names[i % 3]}" for i, f in enumerate(files)))
    assert run("--images", root, "--splits", splits, "--out", tmp_path / "out", "--dry-run") == 0
    told = capsys.readouterr().out
    assert "split summer (2 photos) is none of train, validation and heldout: it is kept, and not trained on" in told


def test_a_dry_run_counts_empty_files_and_those_of_formats_that_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_photos(tmp_path / "photos", ("Pica pica", "Corvus corax"))
    write(root / "Pica pica" / "empty.jpg", b"")
    write(root / "Pica pica" / "new.AVIF", b"\0\0\0\x1cftypavif" + bytes(200))
    monkeypatch.setattr("data_prep.conversion.report.can_read", lambda kind: kind != "AVIF")
    monkeypatch.setattr(photos, "can_read", lambda kind: kind != "AVIF")
    assert run("--images", root, "--out", tmp_path / "out", "--dry-run", "--validation-fraction", 0) == 0
    told = capsys.readouterr().out
    assert "train                7" in told  # the AVIF's name is no proof
    assert f"        1  {photos.EMPTY}\n" in told and "left out by name, size or content: 1 photos" in told
    assert f"photos that by their names are AVIF and will be left out (1): {photos.AVIF}" in told
    assert run("--images", root, "--out", tmp_path / "out", "--validation-fraction", 0) == 0
    left_out = report(tmp_path / "out")["left_out"]
    assert left_out == {photos.AVIF: [["Pica pica/new.AVIF", ""]], photos.EMPTY: [["Pica pica/empty.jpg", ""]]}


def test_what_is_no_photo_is_told_with_all_formats_that_are() -> None:
    for kind in ("JPEG", "PNG", "GIF", "WebP", "AVIF", "HEIC", "BMP", "TIFF"):
        assert kind in photos.NOT_AN_IMAGE


def test_rows_that_come_twice_are_told_or_refused_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_photos(tmp_path / "photos", ("Pica pica", "Corvus corax"))
    rows = [f"{name}/{i}.jpg,{'train' if i else 'val'}" for name in ("Pica pica", "Corvus corax") for i in range(3)]
    same = listing(tmp_path / "same.csv", "file,split", *rows, rows[1], rows[1], rows[4])
    arguments = ("--images", root, "--out", tmp_path / "out", "--splits")
    assert run(*arguments, same, "--dry-run") == 0
    assert (
        "photos listed more than once, counted once: 2 (Corvus corax/1.jpg, Pica pica/1.jpg)" in capsys.readouterr().out
    )
    other = listing(tmp_path / "other.csv", "file,split", *rows, rows[1].replace("train", "val"))
    line = refused(capsys, *arguments, other)
    assert line.startswith(
        "error: Pica pica/1.jpg: found it listed twice, as class Pica pica in split train and as class"
    )
    assert line.endswith("in split val, expected one row; delete the row that is wrong")


def test_a_folder_that_the_table_lacks_is_told_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_photos(tmp_path / "photos", ("Pica pica", "Corvus corax", "unsorted"))
    table = listing(tmp_path / "c.csv", "folder,name", "Pica pica,Pica pica", "Corvus corax,Corvus corax")
    line = refused(capsys, "--images", root, "--classes", table, "--out", tmp_path / "out")
    assert "found 1 of 3 not in column 'folder' ('unsorted'" in line
    assert line.endswith(
        "correct them or column 'folder' of the class table, add a row for a class that it lacks, or take away what is "
        "no class"
    )


def test_species_with_one_photo_and_a_missing_validation_split_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_photos(tmp_path / "photos", ("Pica pica", "Corvus corax"), 1)
    none = "no validation split: no class has a second photo; give more photos, or a split with --splits"
    one = "classes with one photo, which is trained on and none is left to validate with"
    assert run("--images", root, "--out", tmp_path / "a", "--dry-run") == 0
    told = capsys.readouterr().out
    assert f"warning: {one} (2): Corvus corax, Pica pica" in told and f"warning: {none}" in told
    assert run("--images", root, "--out", tmp_path / "a") == 0
    assert {f"{one} (2): Corvus corax, Pica pica", none} <= set(report(tmp_path / "a")["warnings"])
    write_photos(root, ("Pica pica",), 2, seed=1)
    assert run("--images", root, "--out", tmp_path / "b") == 0
    warnings = report(tmp_path / "b")["warnings"]
    assert f"{one} (1): Corvus corax" in warnings and none not in warnings

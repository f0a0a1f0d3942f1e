"""Empty ranks filled from another table: each cell is what a person would write, or stays empty."""

import pathlib

import pytest

from data_prep import ranks as command
from data_prep.conversion.ranks import filled
from lit_jax.errors import UserError
from lit_jax.text.classes import RANKS, ClassTable, read_class_table

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
COLUMNS = ("name", "common_name", "kingdom", "order", "family", "genus", "supercategory")


def table_of(text, columns=COLUMNS):
    rows = [[cell.strip() for cell in line.split(",")] for line in text.strip().splitlines()]
    return ClassTable(tuple(range(5, 5 + len(rows))), dict(zip(columns, zip(*rows, strict=True), strict=True)))


SOURCE = table_of("""
    Parus major,          Great Tit,      Animalia, Passeriformes, Paridae,   Parus,  Birds
    Parus minor,          Japanese Tit,   Animalia, Passeriformes, Paridae,   Parus,  Birds
    Anas platyrhynchos domesticus, Domestic Duck, Animalia, Anseriformes, Anatidae, Anas, Birds
    Iris versicolor,      Blue Flag,      Plantae,  Asparagales,   Iridaceae, Iris,   Plants
    Iris oratoria,        Iris Mantis,    Animalia, Mantodea,      Eremiaphilidae, Iris, Insects
    Mentha x piperita,    Peppermint,     Plantae,  Lamiales,      Lamiaceae, Mentha, Plants
    Larus argentatus,     Herring Gull,   Animalia, Charadriiformes, Laridae, Larus,  Birds
    Larus odd,            ,               Animalia, Charadriiformes, Sternidae, Larus, Birds
""")


def one(name, **cells):
    """The only row filled, and the report."""
    made, report = filled(ClassTable((3,), {"name": (name,), **{column: (cell,) for column, cell in cells.items()}}), SOURCE)  # fmt: skip
    return made.row(0), report


def test_by_species():
    row, report = one("PARUS_MAJOR", genus="", family="")
    assert row == {"name": "PARUS_MAJOR", "common_name": "Great Tit", "kingdom": "Animalia", "order": "Passeriformes", "family": "Paridae", "genus": "Parus", "supercategory": "Birds"}  # fmt: skip
    assert report.by == {"species": 1, "genus": 0} and set(report.cells.values()) == {1}
    assert not any(
        (report.contradictions, report.missing, report.near, report.ambiguous, report.assumed, report.disagreeing)
    )


@pytest.mark.parametrize("name", ["Parus caeruleus", "Parus sp.", "Parus", "Parus cf. ater"])
def test_by_genus_without_a_common_name(name):
    row, report = one(name)
    assert (row["family"], row["genus"], row["supercategory"]) == (
        "Paridae",
        "Parus",
        "Birds",
    ) and "common_name" not in row
    assert report.by == {"species": 0, "genus": 1}


def test_only_what_all_species_of_a_genus_agree_on():
    row, report = one("Larus canus")
    assert row["order"] == "Charadriiformes" and "family" not in row
    assert report.disagreeing == ["Larus canus: family Laridae or Sternidae"]


def test_what_stands_there_is_never_changed_and_contradictions_are_told():
    row, report = one("Parus major", common_name="Kohlmeise", family="Corvidae", order="PASSERIFORMES", kingdom="")
    assert (row["common_name"], row["family"], row["order"], row["kingdom"]) == ("Kohlmeise", "Corvidae", "PASSERIFORMES", "Animalia")  # fmt: skip
    assert report.contradictions == ["Parus major: family Corvidae, there Paridae"]


def test_a_genus_in_two_kingdoms_is_not_guessed():
    row, report = one("Iris germanica", kingdom="", family="")
    assert not any(value for column, value in row.items() if column != "name")
    assert report.ambiguous == ["Iris germanica: Animalia, Plantae"] and report.by == {"species": 0, "genus": 0}
    for known in ({"kingdom": "Plantae"}, {"family": "iridaceae"}, {"supercategory": "Plants"}):
        row, report = one("Iris germanica", **known)
        assert row["order"] == "Asparagales" and not report.ambiguous
    row, report = one("Parus major", kingdom="Plantae")
    assert list(row) == ["name", "kingdom"] and report.ambiguous


def test_names_of_all_kinds():
    row, report = one("Anas platyrhynchos")
    assert row["family"] == "Anatidae" and "common_name" not in row  # a mallard is no domestic duck
    assert "subspecies" in report.assumed[0]
    row, report = one("Mentha × piperita")
    assert row["common_name"] == "Peppermint" and not report.assumed
    for name in ("Parus major × Larus argentatus", "P. major", "Nothing here", ""):
        row, report = one(name, common_name="Something")
        assert row == {"name": name, "common_name": "Something"} and len(report.missing) == 1
    row, report = one("P. major", genus="Parus")
    assert row["family"] == "Paridae"
    assert one("Larvs argentatus")[1].near == ["Larvs argentatus (Larus argentatus)"]
    assert one("Parus majjor")[1].near == ["Parus majjor (Parus major)"]


def test_rows_and_other_columns_stay_as_they_are():
    mine = ClassTable((9, 2), {"folder": ("b", "a"), "name": ("Parus minor", "Unknown one"), "genus": ("", "")})
    made, _ = filled(mine, SOURCE)
    assert made.ids == (9, 2) and made.columns["folder"] == ("b", "a") and made.columns["genus"] == ("Parus", "")
    assert list(made.columns)[:3] == ["folder", "name", "genus"]


def test_tables_that_will_not_do():
    with pytest.raises(UserError, match="--classes: found no column 'name'"):
        filled(ClassTable((1,), {"common_name": ("Great Tit",)}), SOURCE)
    with pytest.raises(UserError, match="--from: found none of the columns"):
        filled(SOURCE, ClassTable((1,), {"name": ("Parus major",), "genus": ("",)}))


def test_the_command(tmp_path, capsys):
    (tmp_path / "mine.csv").write_text("name,family\nParus major,\nSitta x,\nIris sp.,\n")
    (tmp_path / "from.json").write_text('[{"name": "Parus minor", "family": "Paridae"}]')
    arguments = ["--classes", str(tmp_path / "mine.csv"), "--from", str(tmp_path / "from.json"), "--out", str(tmp_path / "o.csv")]  # fmt: skip
    command.main([*arguments, "--show", "1"])
    printed = capsys.readouterr().out
    assert "of 3 classes 0 found by species and 1 by genus; values filled: 1 of family" in printed
    assert "  Sitta x\n  and 1 more" in printed
    assert read_class_table(tmp_path / "o.csv").columns["family"] == ("Paridae", "", "")
    with pytest.raises(SystemExit) as stop:
        command.main([*arguments[:3], str(tmp_path / "nowhere.csv"), "--out", str(tmp_path / "other.csv")])
    assert stop.value.code == 2 and "nowhere.csv: found No such file" in capsys.readouterr().err
    before = (tmp_path / "o.csv").read_bytes()
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert stop.value.code == 2 and "found it there already, expected a new file" in capsys.readouterr().err
    assert (tmp_path / "o.csv").read_bytes() == before
    command.main([*arguments, "--overwrite"])


def test_the_birds_of_a_head_get_back_the_ranks_of_inaturalist():
    head, whole = SHARED / "inat_birds_head" / "classes.csv", SHARED / "inat2021-categories.csv"
    if not (head.is_file() and whole.is_file()):
        pytest.skip("the class tables are not here")
    table = read_class_table(head)
    bare = ClassTable(table.ids, {"name": table.names})
    made, report = filled(bare, read_class_table(whole))
    assert report.by["species"] + report.by["genus"] + len(report.missing) + len(report.ambiguous) == len(table)
    assert report.by["species"] == 904
    for rank in (*RANKS, "supercategory"):
        pairs = [(a, b) for a, b in zip(made.columns[rank], table.columns[rank], strict=True) if a and b]
        assert len(pairs) > 900 and all(a == b for a, b in pairs), rank


def test_the_epithet_is_that_of_the_classs_own_name(tmp_path):
    source = ClassTable(
        (1, 2),
        {
            "name": ("Parus major", "Mentha x piperita"),
            "genus": ("Parus", "Mentha"),
            "specific_epithet": ("major", "piperita"),
        },
    )
    names = (
        "Parus_major",
        "PARUS MINOR",
        "Parus sp.",
        "Mentha × piperita",
        "Parus cf. ater L.",
        "Nothing here",
        "Parus",
    )
    made, report = filled(ClassTable(tuple(range(7)), {"name": names}), source)
    epithets = ("major", "MINOR", "", "piperita", "ater", "here", "")
    assert made.columns["specific_epithet"] == epithets and report.cells["specific_epithet"] == 5
    assert report.missing == ["Nothing here"]
    mine = ClassTable((1,), {"name": ("Parus major",), "genus": ("",), "specific_epithet": ("maior",)})
    assert filled(mine, source)[0].columns["specific_epithet"] == ("maior",)


def test_the_recipes_template_fills_from_a_table_of_inaturalist():
    if not (SHARED / "inat2021-categories.csv").is_file():
        pytest.skip("the class tables are not here")
    from lit_jax.text.captions import caption

    whole = read_class_table(SHARED / "inat2021-categories.csv")
    made, _ = filled(ClassTable((0, 1), {"name": ("Geothlypis trichas", "Parus ater")}), whole)
    template = "{common_name}, {genus}, {specific_epithet}, {family}, {order}"
    assert caption(made.row(0), template) == "Common Yellowthroat, Geothlypis, trichas, Parulidae, Passeriformes"
    assert caption(made.row(1), template) == "Parus, ater, Paridae, Passeriformes"

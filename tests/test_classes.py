import codecs
import json
import os
import re
import unicodedata
from pathlib import Path

import pytest

from lit_jax.errors import UserError
from lit_jax.evaluation.ranks import grouped
from lit_jax.text.candidates import read_candidates
from lit_jax.text.captions import caption
from lit_jax.text.classes import (
    RANKS,
    ClassTable,
    find_species,
    match_folders,
    read_class_table,
    species_key,
    write_class_table,
)

REAL = Path(__file__).parents[2] / "shared" / "data" / "inat2021-categories.csv"
BIRDS = ClassTable(
    (4, 2, 9),
    {
        "folder": ("Pine_Siskin", "Blue_Jay", "House_Wren"),
        "name": ("Spinus pinus", "Cyanocitta cristata", "Troglodytes aedon"),
        "common_name": ("Pine Siskin", "Blue Jay", "House Wren"),
    },
)


def file(folder: Path, content: str | bytes, name: str = "classes.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_ranks_go_from_the_kingdom_to_the_genus():
    assert RANKS == ("kingdom", "phylum", "class", "order", "family", "genus")


def test_a_table_gives_its_rows_names_and_row_numbers():
    assert len(BIRDS) == 3
    assert BIRDS.row(1) == {"folder": "Blue_Jay", "name": "Cyanocitta cristata", "common_name": "Blue Jay"}
    assert BIRDS.rows()[2]["common_name"] == "House Wren"
    assert [BIRDS.index_of(i) for i in BIRDS.ids] == [0, 1, 2]
    assert BIRDS.names == ("Spinus pinus", "Cyanocitta cristata", "Troglodytes aedon")


def test_names_are_common_names_where_there_is_no_column_name():
    assert ClassTable((0,), {"common_name": ("Wren",)}).names == ("Wren",)
    with pytest.raises(UserError, match=r"class table: found genus, expected a column 'name' or 'common_name'; add"):
        _ = ClassTable((0,), {"genus": ("Pica",)}).names


def test_columns_of_another_length_than_the_ids_are_refused():
    with pytest.raises(ValueError, match=r"column 'name': found 1 values, expected 2"):
        ClassTable((0, 1), {"name": ("Pica",)})


def test_a_subset_has_the_order_of_its_ids():
    part = BIRDS.subset([9, 4])
    assert part.ids == (9, 4)
    assert part.columns["common_name"] == ("House Wren", "Pine Siskin")
    assert part.index_of(4) == 1
    with pytest.raises(UserError, match=r"class id: found 5, expected one of the 3 ids from 2 to 9 in the class table"):
        BIRDS.subset([9, 5])
    with pytest.raises(UserError, match=r"class ids: found '9' twice, expected each once"):
        BIRDS.subset([9, 4, 9])


def test_csv_is_read_with_or_without_byte_order_mark_and_without_the_unnamed_column(tmp_path):
    text = ",id, name ,family\n0,7,Malus ×domestica,Rosaceae\n1,3,Pica pica,\n"
    expected = ClassTable((7, 3), {"name": ("Malus ×domestica", "Pica pica"), "family": ("Rosaceae", "")})
    assert read_class_table(file(tmp_path, text)) == expected
    assert read_class_table(file(tmp_path, codecs.BOM_UTF8 + text.encode())) == expected
    assert read_class_table(file(tmp_path, text.replace("\n", "\r\n"))) == expected
    assert list(expected.columns) == ["name", "family"]
    assert read_class_table(file(tmp_path, ",name,\n0,Pica pica,\n")) == ClassTable((0,), {"name": ("Pica pica",)})


def test_ids_are_row_numbers_where_the_file_has_none(tmp_path):
    assert read_class_table(file(tmp_path, "common_name\nWren\n\nJay\n")).ids == (0, 1)


@pytest.mark.parametrize("wrap", [lambda entries: entries, lambda entries: {"images": [], "categories": entries}])
def test_json_is_read_as_a_list_or_as_annotations(tmp_path, wrap):
    entries = [{"id": 5, "name": "Pica pica", "mass": 0.2}, {"id": "6", "name": "日本語", "note": None}]
    table = read_class_table(file(tmp_path, json.dumps(wrap(entries)), "train.JSON"))
    assert table == ClassTable((5, 6), {"name": ("Pica pica", "日本語"), "mass": ("0.2", ""), "note": ("", "")})


def test_what_is_written_is_read_back_equal(tmp_path):
    values = ("a, b", 'say "x"', "two\nlines", "lone\rreturn", "édge", "Malus ×domestica", "", "日本語 Кириллица")
    table = ClassTable(tuple(range(10, 18)), {"name": values, "class": values[::-1]})
    path = tmp_path / "table.csv"
    write_class_table(table, path)
    assert read_class_table(path) == table
    assert list(read_class_table(path).columns) == ["name", "class"]
    assert os.listdir(tmp_path) == ["table.csv"]


def test_writing_leaves_the_old_file_where_the_rename_fails(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    write_class_table(BIRDS, path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"table.csv: found No space left on device, expected a place to write to"):
        write_class_table(BIRDS.subset([4]), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["table.csv"]


def test_writing_into_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"x.csv: found No such file or directory, expected a place to write to"):
        write_class_table(BIRDS, tmp_path / "none" / "x.csv")


REFUSED = {
    "empty": ("", r"classes.csv: found an empty file, expected a class table"),
    "blank": ("\n \n", r"classes.csv: found an empty file"),
    "header only": ("id,name\n", r"classes.csv: found no data rows, expected one row a class"),
    "repeated id": (
        "id,name\n3,a\n4,b\n3,c\n",
        r"id: found '3' twice \(\S*classes.csv line 2 and \S*classes.csv line 4\), expected each once",
    ),
    "word as id": ("id,name\n1,a\nx,b\n", r"classes.csv line 3: found id 'x', expected an integer >= 0"),
    "negative id": ("id,name\n-1,a\n", r"classes.csv line 2: found id '-1', expected an integer >= 0"),
    "underscore in id": ("id,name\n1_0,a\n", r"line 2: found id '1_0', expected an integer >= 0"),
    "fraction as id": ("id,name\n1.0,a\n", r"line 2: found id '1.0', expected an integer >= 0"),
    "short row": ("id,name\n1,a\n2\n", r"classes.csv line 3: found 1 fields, expected 2 as in the header"),
    "long row": ("id,name\n1,a,b\n", r"classes.csv line 2: found 3 fields, expected 2 as in the header"),
    "short row below a value of two lines": ('id,name\n1,"a\nb"\n2\n', r"classes.csv line 4: found 1 fields"),
    "open quote": (
        'id,name\n1,"a\n2,b\n',
        r"classes.csv line 2: found bad CSV \(a quote that is not closed\), expected RFC 4180",
    ),
    "repeated column": ("id,name, name\n1,a,b\n", r"classes.csv columns: found 'name' twice, expected each once"),
    "no names": ("id,genus\n1,Pica\n", r"classes.csv: found genus, expected a column 'name' or 'common_name'"),
    "Latin-1 of a missing code": (b"id,name\n1,a\n2,\x81\n", r"classes.csv line 3: found byte 0x81, expected UTF-8"),
    "damaged UTF-8": ("id,name\n1,ä\n2,".encode() + b"\xe9\n", r"classes.csv line 3: found byte 0xe9, expected UTF-8"),
    "cyrillic": ("id,name\n1,a\n2,Сорока\n".encode("cp1251"), r"classes.csv line 3: found byte 0xd1, expected UTF-8"),
    "tabs without names": ("id\tgenus\n1\ta\n", r"classes.csv: found genus, expected a column 'name'"),
    "semicolons without names": ("order;genus\n1;a\n", r"found order;genus, .*; separate the columns by commas"),
}


@pytest.mark.parametrize(
    "nothing", ["nan", "NaN", "NA", "n/a", "None", "null", "UNKNOWN", "-", "–", "?", " Not  assigned ", ""]
)
def test_a_word_for_nothing_is_no_value(tmp_path, nothing):
    text = f"folder,name,common_name,family,genus\n{nothing},Pica pica,{nothing},{nothing},{nothing}\nx,Nanorana,Nan,Nani,Nonea\n"
    table = read_class_table(file(tmp_path, text))
    assert table.row(0) == {
        "folder": nothing.strip(),
        "name": "Pica pica",
        "common_name": "",
        "family": "",
        "genus": "",
    }
    assert table.row(1) == {"folder": "x", "name": "Nanorana", "common_name": "", "family": "Nani", "genus": "Nonea"}
    assert table.as_written.columns["genus"] == (nothing, "Nonea")  # by which what was made before is known
    assert caption(table.row(0), "the {common_name} {name}, {family}, {genus}") == "the Pica pica"
    assert grouped(table, "genus").of_class.tolist() == [-1, 0] and grouped(table, "genus").names == ("Nonea",)
    assert grouped(table, "family").of_class.tolist() == [-1, 0]


def test_a_class_may_be_called_unknown_but_not_nan(tmp_path):
    table = read_class_table(file(tmp_path, "name,common_name\nunknown,\nnone,\nNaN,Magpie\nnan,Raven\n"))
    assert table.names == ("unknown", "none", "", "") and not table.same_species
    table = read_class_table(file(tmp_path, '[{"name": "Pica pica", "genus": NaN, "family": null}]', "c.json"))
    assert table.row(0) == {"name": "Pica pica", "genus": "", "family": ""}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_csv_is_refused_in_one_line(tmp_path, case):
    content, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as caught:
        read_class_table(file(tmp_path, content))
    assert "\n" not in str(caught.value)
    assert re.search(r"found .*, expected .*; ", str(caught.value))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"name": "a"},\n {]', r"c.json line 2: found bad JSON \(.*\), expected a class table"),
        ('{"images": []}', r"c.json: found other JSON, expected a list of objects or an object with such a list"),
        ('["a"]', r"c.json: found other JSON, expected a list of objects"),
        ("[]", r"c.json: found no data rows"),
        ('[{"name": ["a"]}]', r"c.json entry 0 'name': found a list or object, expected a text"),
        ('[{"name": "a", "id": 1}, {"name": "b", "id": true}]', r"c.json entry 1: found id 'true', expected an int"),
        ('[{"name": "a", "id": 1}, {"name": "b"}]', r"c.json entry 1: found id '', expected an integer >= 0"),
        ('[{"genus": "a"}]', r"c.json: found genus, expected a column 'name'"),
    ],
)
def test_bad_json_is_refused_in_one_line(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_class_table(file(tmp_path, content, "c.json"))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"none.csv: found No such file or directory, expected a class table; check"):
        read_class_table(tmp_path / "none.csv")
    with pytest.raises(UserError, match=r"found Is a directory, expected a class table"):
        read_class_table(tmp_path)


@pytest.mark.parametrize(
    "names",
    [["House_Wren", "Pine_Siskin"], ["Troglodytes aedon", "Spinus pinus"], ["House Wren", "Pine Siskin"], ["9", "4"]],
)
def test_class_names_are_found_in_whichever_column_has_them_all(names):
    assert match_folders(BIRDS, iter([*names, names[0]])) == {names[0]: 9, names[1]: 4}


def test_the_first_column_that_has_all_names_wins():
    table = ClassTable((0, 1), {"folder": ("1", "0"), "name": ("0", "1")})
    assert match_folders(table, ["0", "1"]) == {"0": 1, "1": 0}


def test_composed_and_decomposed_accents_are_the_same_folder():
    composed, decomposed = (unicodedata.normalize(form, "Orchidée") for form in ("NFC", "NFD"))
    assert match_folders(ClassTable((3,), {"name": (composed,)}), [decomposed]) == {decomposed: 3}
    assert match_folders(ClassTable((3,), {"name": (decomposed,)}), [composed]) == {composed: 3}


def test_unmatched_names_are_told_with_the_nearest_entry_of_the_best_column():
    with pytest.raises(
        UserError,
        match=r"class names: found 1 of 2 not in column 'folder' \('Huose Wren'; the nearest to 'Huose Wren' is "
        r"'House_Wren'\), expected all of them in one of the columns folder \(has 1\), name \(0\), common_name \(1\), id "
        r"\(0\); correct them or column 'folder'",
    ):
        match_folders(BIRDS, ["Blue Jay", "Huose Wren"])
    with pytest.raises(UserError, match=r"found 1 of 1 not in column"):
        match_folders(BIRDS, ["q1", "q1"])
    with pytest.raises(UserError, match=r"found 4 of 4 not in column 'folder' \('q1', 'q2', 'q3', ...\), expected all"):
        match_folders(BIRDS, ["q1", "q2", "q3", "q4"])
    # Nothing is found anywhere: the column with a near entry is the one to speak of.
    with pytest.raises(UserError, match=r"not in column 'name' .* is 'Spinus pinus'"):
        match_folders(BIRDS, ["Spinus pinu"])
    # A number is near to nothing: it is the column of folders that is amiss.
    numbered = ClassTable((0, 1), {"folder": ("m10", "m11"), "name": ("Pica pica", "Corvus corax")})
    with pytest.raises(
        UserError, match=r"found 2 of 2 not in column 'folder' .*folder \(has 0\), name \(0\), id \(0\)"
    ):
        match_folders(numbered, ["x0", "x1"])
    with pytest.raises(UserError, match="correct them or add a column 'folder'"):
        match_folders(ClassTable((0,), {"name": ("Pica pica",)}), ["Pyrrhula"])


def test_a_name_of_two_classes_is_refused_only_if_it_is_used():
    table = ClassTable((1, 2, 3), {"common_name": ("Daisy", "Daisy", "Rose")})
    assert match_folders(table, ["Rose"]) == {"Rose": 3}
    with pytest.raises(
        UserError, match=r"class 'Daisy': found 2 classes in column 'common_name' \(ids 1, 2\), expected one; name the"
    ):
        match_folders(table, ["Rose", "Daisy"])


@pytest.mark.skipif(not REAL.exists(), reason="the real class table is not here")
def test_the_real_table_is_read_and_written_back_equal(tmp_path):
    table = read_class_table(REAL)
    assert len(table) == 10_000
    assert set(RANKS) < set(table.columns)
    assert "" not in table.columns
    assert "Malus ×domestica" in table.names
    write_class_table(table, tmp_path / "copy.csv")
    assert read_class_table(tmp_path / "copy.csv") == table
    folders = table.columns["image_dir_name"][::-1]
    assert list(match_folders(table, folders).values()) == list(table.ids[::-1])
    with pytest.raises(
        UserError, match=r"found 1 of 2 not in column 'name' \('Malus ×domestics'; .* 'Malus ×domestica'"
    ):
        match_folders(table, ["Pica pica", "Malus ×domestics"])


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Columba livia", "COLUMBA_LIVIA ", True),
        ("Columba  livia", "columba livia", True),
        ("Lepus \u00e9uropaeus", "Lepus e\u0301uropaeus", True),
        ("Columba livia", "Columba livia domestica", False),
    ],
)
def test_names_are_the_same_species_whatever_their_case_blanks_and_accents(one, other, same):
    assert (species_key(one) == species_key(other)) is same


def test_rows_of_one_species_are_told():
    table = ClassTable((4, 2, 9), {"name": ("Columba livia", "Pica pica", "columba_livia")})
    assert table.same_species == [(0, 2)]


def test_rows_without_a_name_are_not_one_species():
    assert ClassTable((0, 1), {"name": ("", " "), "common_name": ("Wren", "Robin")}).same_species == []


def test_each_class_knows_the_first_row_of_its_species():
    table = ClassTable((4, 2, 9), {"name": ("Columba livia", "Pica pica", "columba_livia")})
    assert table.species_of == {4: 4, 2: 2, 9: 4}


def test_values_are_stripped_as_headers_are(tmp_path):
    table = read_class_table(file(tmp_path, "name , common_name\nPica pica ,\tMagpie\u00a0\n"))
    assert table == ClassTable((0,), {"name": ("Pica pica",), "common_name": ("Magpie",)})
    assert table.as_written == ClassTable((0,), {"name": ("Pica pica ",), "common_name": ("\tMagpie\u00a0",)})
    assert read_class_table(file(tmp_path, "name\nPica pica\n")).as_written is None
    assert read_class_table(file(tmp_path, '[{"name": " Pica pica"}]', "c.json")).names == ("Pica pica",)


def test_blank_rows_of_a_spreadsheet_are_left_out_with_a_note(tmp_path):
    table = read_class_table(file(tmp_path, "name,family\nPica pica,Corvidae\n,\nCorvus corax,\n , \n,\n"))
    assert table == ClassTable((0, 2), {"name": ("Pica pica", "Corvus corax"), "family": ("Corvidae", "")})
    assert table.notes == (f"{tmp_path / 'classes.csv'}: 3 blank rows left out, beginning with line 3",)
    assert table.as_written.ids == (0, 1, 2, 3, 4)  # so that what was made of such a file stays the same
    assert read_class_table(file(tmp_path, "id,name\n7,Pica pica\n,\n")).ids == (7,)
    assert read_class_table(file(tmp_path, ",name\n0,Pica pica\n1,\n")).ids == (0,)  # a data frame's own numbers
    assert read_class_table(file(tmp_path, "name,family\nPica pica,\n,,,\n\n ,\n")).ids == (0,)  # of any length
    assert read_class_table(file(tmp_path, "name\nPica pica\n")).notes == ()
    with pytest.raises(UserError, match="found no data rows"):
        read_class_table(file(tmp_path, "name,family\n,\n"))


@pytest.mark.parametrize(
    "folders",
    [
        ("pine_siskin", "BLUE_JAY"),
        ("Pine_Siskin ", "Blue  Jay"),
        ("SPINUS PINUS", "Cyanocitta_cristata"),
        ("pine siskin", "blue_jay"),
    ],
)
def test_names_are_matched_whatever_their_case_blanks_and_underscores(folders):
    assert match_folders(BIRDS, folders) == {folders[0]: 4, folders[1]: 2}


def test_what_is_equal_to_the_letter_comes_before_what_is_alike():
    table = ClassTable((1, 2), {"folder": ("a", "A"), "name": ("B", "C")})
    assert match_folders(table, ["A", "a"]) == {"A": 2, "a": 1}
    assert match_folders(table, ["C"]) == {"C": 2}
    with pytest.raises(UserError, match=r"class 'A_': found 2 classes in column 'folder' \(ids 1, 2\), expected one"):
        match_folders(table, ["A_"])
    # To the letter in a later column, alike in an earlier one.
    assert match_folders(ClassTable((1, 2), {"folder": ("x", "y"), "name": ("Y", "X")}), ["X"]) == {"X": 2}
    assert match_folders(ClassTable((1, 2), {"folder": ("", "y"), "name": ("b", "a")}), ["a"]) == {"a": 2}
    with pytest.raises(UserError, match="found 1 of 1 not in"):
        match_folders(ClassTable((1, 2), {"folder": ("", "y"), "name": ("b", "a")}), ["_"])


DOVES = ClassTable(
    (4, 2, 9, 5),
    {
        "folder": ("Rock_Dove", "Magpie", "Jacobin", "Raven"),
        "name": ("Columba livia", "Pica pica", "columba_livia", "Corvus corax"),
        "common_name": ("Rock Dove", "Magpie", "Jacobin Pigeon", "Raven"),
    },
)


def test_one_name_finds_all_rows_of_its_species():
    assert find_species(DOVES, ["Jacobin", "Raven"]) == {4, 9, 5}
    assert find_species(DOVES, ["Columba livia"]) == {4, 9}
    daisies = ClassTable((1, 2), {"name": ("Bellis perennis", "Leucanthemum vulgare"), "common_name": ("Daisy",) * 2})
    with pytest.raises(UserError, match=r"class 'Daisy': found 2 classes in column 'common_name' \(ids 1, 2\)"):
        find_species(daisies, ["Daisy"])


def candidates(folder, text, own=DOVES, name="classes.csv"):
    """Ids and names of the classes of a file, and the notes, each of which begins with its path."""
    path = file(folder, text, name)
    table, notes = read_candidates(path, own)
    assert all(note.startswith(f"{path}: ") for note in notes)
    return list(zip(table.ids, table.names, strict=True)), [note.removeprefix(f"{path}: ") for note in notes]


def test_a_runs_own_table_goes_through_and_one_row_stands_for_all_of_its_species(tmp_path):
    write_class_table(DOVES, tmp_path / "own.csv")
    table, notes = read_candidates(tmp_path / "own.csv", DOVES)
    assert table == DOVES and notes == []
    assert candidates(tmp_path, "name\nColumba livia\nPica pica\nCORVUS CORAX\n") == (
        [(4, "Columba livia"), (9, "Columba livia"), (2, "Pica pica"), (5, "CORVUS CORAX")],
        [],
    )
    # The row that says more of one of them is that one's.
    found, _ = read_candidates(
        file(tmp_path, "name,common_name\nColumba livia,Jacobin Pigeon\nColumba livia,Rock dove\n"), DOVES
    )
    assert dict(zip(found.ids, found.columns["common_name"], strict=True)) == {9: "Jacobin Pigeon", 4: "Rock dove"}
    # A name that the data do not have may come twice as well; what is the same to the letter is one class.
    text = "name,common_name\nDraco volans,Dragon\nDraco volans,Lizard\nDraco volans,Dragon\n"
    assert candidates(tmp_path, text)[0] == [(10, "Draco volans"), (11, "Draco volans")]


def test_classes_are_found_by_whatever_identifies_them(tmp_path):
    assert candidates(tmp_path, "common_name\nMagpie\nRAVEN\nRobin\n")[0] == [
        (2, "Magpie"),
        (5, "RAVEN"),
        (10, "Robin"),
    ]
    assert candidates(tmp_path, "name\nmagpie\n")[0] == [(2, "magpie")]  # a common name in column name
    # Whatever row of a species is named, all its rows are there.
    assert candidates(tmp_path, "common_name\nJacobin pigeon\n")[0] == [(9, "Jacobin pigeon"), (4, "Jacobin pigeon")]
    assert candidates(tmp_path, "common_name\nJacobin pigeon\nRock Dove\n")[0] == [
        (9, "Jacobin pigeon"),
        (4, "Rock Dove"),
    ]
    labels = ClassTable((0, 1), {"name": ("Magpie", "Raven"), "common_name": ("", "")})
    assert candidates(tmp_path, "name,common_name\nPica pica,Magpie\n", labels)[0] == [(0, "Pica pica")]
    found, notes = candidates(tmp_path, "name,common_name\nPica serica,Magpie\nCorvus corax,Raven\n")
    assert found == [(2, "Pica serica"), (5, "Corvus corax")]
    assert notes == [
        "1 of its 2 rows has a name that no class of the data has: Pica serica is taken for Pica pica, by the common "
        "name; correct the name if it is misspelt"
    ]
    # Once the species itself is there by its name, another one of that common name is another one.
    assert candidates(tmp_path, "name,common_name\nPica serica,Magpie\nPica pica,Magpie\n")[0] == [
        (10, "Pica serica"),
        (2, "Pica pica"),
    ]
    assert candidates(tmp_path, "folder\nMagpie\nrock_dove\n")[0] == [
        (2, "Pica pica"), (4, "Columba livia"), (9, "columba_livia"),
    ]  # fmt: skip
    assert candidates(tmp_path, "id\n5\n4\n")[0] == [(5, "Corvus corax"), (4, "Columba livia"), (9, "columba_livia")]
    with pytest.raises(UserError, match=r"class names: found 1 of 2 not in column 'id' \('6'\), expected"):
        candidates(tmp_path, "id\n5\n6\n")
    with pytest.raises(UserError, match="found family, expected a column 'name' or 'common_name'"):
        candidates(tmp_path, "family\nCorvidae\n")


def test_names_that_miss_are_told_with_the_nearest(tmp_path):
    found, notes = candidates(tmp_path, "name\nPica pcia\nDraco volans\nCorvus corax\n")
    assert found == [(10, "Pica pcia"), (11, "Draco volans"), (5, "Corvus corax")]
    assert notes == [
        "further classes though near to one of the data: Pica pcia (Pica pica); correct them if they are the same"
    ]
    _, notes = candidates(tmp_path, "name\nmagpei\nRAVENN\n", ClassTable((0, 1), {"name": ("Magpie", "Raven")}))
    assert "such as Magpie: all are further" in notes[0] and "near to one of the data: RAVENN (Raven)" in notes[1]
    _, notes = candidates(tmp_path, "name\nMagpie\nRAVENN\n", ClassTable((0, 1), {"name": ("Magpie", "Raven")}))
    assert notes[0].startswith("further classes though near to one of the data: RAVENN (Raven)")
    found, notes = candidates(tmp_path, "name\nDraco volans\n")
    assert notes == [
        "none of its 1 rows is a class of the data, such as Columba livia (Rock Dove): all are further ones"
    ]
    daisies = ClassTable((1, 2), {"name": ("Bellis perennis", "Leucanthemum vulgare"), "common_name": ("Daisy",) * 2})
    found, notes = candidates(tmp_path, "common_name\nDaisy\n", daisies)
    assert found == [(3, "Daisy")] and "Daisy could be Bellis perennis or Leucanthemum vulgare" in notes[0]


@pytest.mark.parametrize(
    ("column", "meant"),
    [("comon_name", "common_name"), ("nmae", "name"), ("Supercategory", "supercategory"), ("famly", "family")],
)
def test_a_column_that_is_nearly_a_known_one_is_told(tmp_path, column, meant):
    header = [{meant: column}.get(name, name) for name in ("id", "common_name", "name", "supercategory", "family")]
    path = file(tmp_path, f"{','.join(header)}\n1,a,b,c,d\n")
    (note,) = read_class_table(path).notes
    assert note.startswith(f"{path}: found column {column!r}, nearly {meant!r}, which is not there; rename it")
    assert "known are name, common_name, supercategory, kingdom" in note
    (noted,) = read_candidates(path, BIRDS)[1][:1]
    assert noted == note


def test_columns_of_ones_own_and_known_ones_are_not_told(tmp_path):
    path = file(tmp_path, "id,common_name,name,names,bill,habitat,class,familyname\n1,a,b,c,d,e,f,g\n")
    assert read_class_table(path).notes == ()


def test_without_names_the_nearest_column_is_told(tmp_path):
    with pytest.raises(
        UserError, match="expected a column 'name' or 'common_name'; rename 'comon_name' to 'common_name'"
    ):
        read_class_table(file(tmp_path, "id,comon_name,family\n1,a,b\n"))


def test_a_column_in_other_letters_is_named_whatever_parts_the_columns(tmp_path):
    for mark in ",;\t":
        (tmp_path / "c.csv").write_text(f"Name{mark}Gattung\nPica pica{mark}Pica\n")
        with pytest.raises(UserError, match="rename 'Name' to 'name'"):
            read_class_table(tmp_path / "c.csv")

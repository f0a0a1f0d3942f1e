import codecs

import pytest

from data_prep import clip_templates
from lit_jax.errors import UserError
from lit_jax.text.classes import ClassTable
from lit_jax.text.prompts import class_prompts, duplicates, prompts, read_templates

ROWS = [
    {"common_name": "Pine White", "supercategory": "Insects", "name": "Neophasia menapia", "genus": "Neophasia"},
    {"common_name": "Common Blue Crab", "supercategory": "Animalia", "name": "Callinectes sapidus", "genus": ""},
]


def test_templates_are_read_without_comments_and_blank_lines(tmp_path):
    path = tmp_path / "templates.txt"
    text = "# the first\n\n  a bad photo of a {}. \r\n  # two\nthe {name} {{é}}, of {family}\n"
    path.write_bytes(codecs.BOM_UTF8 + text.encode())
    assert read_templates(path) == ("a bad photo of a {}.", "the {name} {{é}}, of {family}")
    path.write_bytes(text.encode())
    assert read_templates(str(path)) == ("a bad photo of a {}.", "the {name} {{é}}, of {family}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a photo", r"found 0 {} and 0 named fields, expected exactly one {} or named {column} fields; rewrite it"),
        ("a {} {}", r"found 2 {} and 0 named fields, expected exactly one {}"),
        ("a {} of {family}", r"found 1 {} and 1 named fields, expected exactly one {}"),
        ("a {{}}", r"found 0 {} and 0 named fields"),
        ("a {name", r"template 'a {name': found bad braces \(.*\), expected {column}"),
    ],
)
def test_a_bad_template_is_refused_with_file_and_line(tmp_path, line, message):
    path = tmp_path / "templates.txt"
    path.write_text(f"# c\na {{}}\n{line}\n")
    with pytest.raises(UserError, match=r"templates.txt line 3: " + message):
        read_templates(path)
    with pytest.raises(UserError, match=r"template '.*': .*" + message):
        prompts(ROWS, ["a {}", line])


def test_files_without_templates_are_refused(tmp_path):
    path = tmp_path / "t.txt"
    with pytest.raises(UserError, match=r"t.txt: found No such file or directory, expected templates; check the path"):
        read_templates(path)
    path.write_text("# only a comment\n\n")
    with pytest.raises(UserError, match=r"t.txt: found no template, expected one a line; add .* 'A photo of a {}'"):
        read_templates(path)
    path.write_bytes("an é {}\n".encode("latin-1") + b"\x81")
    with pytest.raises(UserError, match=r"t.txt line 1: found byte 0xe9, expected UTF-8; save the file as UTF-8"):
        read_templates(path)
    path.write_bytes("a\x0bb é {}\rx {}".encode("cp1252"))
    assert read_templates(path) == ("a\x0bb é {}", "x {}")


def test_a_blank_takes_the_class_name_by_the_caption_rule_and_fields_take_columns():
    assert prompts(ROWS, ["a sketch of a {}.", "{name}, one of the {supercategory}"]) == [
        [
            "a sketch of a Pine White Insects Neophasia menapia.",
            "Neophasia menapia, one of the Insects",
        ],
        ["a sketch of a Common Blue Crab Callinectes sapidus.", "Callinectes sapidus, one of the"],
    ]


def test_the_recorded_names_keep_animalia():
    template = "{common_name} {supercategory} {genus}"
    assert prompts(ROWS, ["a {}"], name_template=template, omit=()) == [
        ["a Pine White Insects Neophasia"],
        ["a Common Blue Crab Animalia"],
    ]


def test_braces_in_a_class_name_are_text():
    assert prompts([{"name": "a {} {name}"}], ["the {}", "{name}"], name_template="{name}") == [
        ["the a {} {name}", "a {} {name}"]
    ]


def test_a_name_equal_to_an_omitted_value_is_kept_when_it_is_said_on_purpose():
    assert prompts([{"name": "Animalia"}], ["a {}"], name_template="{name}", omit=()) == [["a Animalia"]]


@pytest.mark.parametrize("template", ["a {}", "a {genus}", "a {genus} {supercategory}"])
def test_a_class_without_a_name_is_refused(template):
    with pytest.raises(
        UserError, match=r"class row 1: found only empty or omitted values for '.*{genus}.*', expected a name; fill in"
    ):
        prompts(ROWS, [template], name_template="{genus}")


def test_the_name_template_must_have_named_fields_and_known_columns():
    for bad, blanks in (("{}", 1), ("wren", 0), ("{} {name}", 1)):
        with pytest.raises(
            UserError, match=rf"name template '.*': found {blanks} {{}} .*, expected named {{column}} fi"
        ):
            prompts(ROWS, ["a {}"], name_template=bad)
    with pytest.raises(UserError, match=r"template: found column 'gnus', expected one of .*; the nearest is 'genus'"):
        prompts(ROWS, ["a {gnus}"])


def test_a_name_template_is_not_needed_where_no_template_has_a_blank():
    assert prompts([{"family": "Pieridae"}], ["a {family}"]) == [["a Pieridae"]]


def test_duplicates_are_the_classes_that_share_all_their_prompts_but_for_case():
    assert duplicates(
        [["a x", "b x"], ["a y", "b y"], ["a X", "b x"], ["a x", "b y"], ["a y", "b y"], ["a x", "b x"]]
    ) == [
        (0, 2, 5),
        (1, 4),
    ]
    assert duplicates([["a"], ["b"]]) == []
    assert duplicates([]) == []


def test_the_name_is_made_of_the_columns_that_there_are_and_repeats_can_be_dropped():
    assert prompts([{"name": "Pica pica"}], ["a {}"]) == [["a Pica pica"]]
    row = {"name": "Pica pica", "common_name": "Pica pica", "supercategory": "Birds"}
    assert prompts([row], ["a {}"]) == [["a Pica pica Birds Pica pica"]]
    assert prompts([row], ["a {}", "{name}"], drop_repeats=True) == [["a Pica pica Birds", "Pica pica"]]


def test_prompts_of_classes_drop_repeats_as_captions_do():
    table = ClassTable((3, 5), {"name": ("Pica pica", "Corvus corax"), "common_name": ("Pica pica", "Raven")})
    both, found = "{common_name}, {name}", {}
    for drop_repeats in (False, True):
        for templates in ((), ("a {}", both)):
            found[drop_repeats, bool(templates)] = class_prompts(
                table, (both,), templates, drop_repeats=drop_repeats, protocol="caption"
            )
    raven = ["a Raven Corvus corax", "Raven, Corvus corax"]
    assert found[False, False] == {3: ("Pica pica, Pica pica",), 5: ("Raven, Corvus corax",)}
    assert found[True, False] == {3: ("Pica pica",), 5: ("Raven, Corvus corax",)}
    assert found[False, True] == {3: ["a Pica pica Pica pica", "Pica pica, Pica pica"], 5: raven}
    assert found[True, True] == {3: ["a Pica pica", "Pica pica"], 5: raven}


def test_the_recorded_protocol_keeps_animalia_and_blanks_and_says_the_genus():
    columns = {
        "name": ("Actinia equina",),
        "common_name": ("Beadlet  Anemone",),
        "supercategory": ("Animalia",),
        "genus": ("Actinia",),
    }
    found = {
        (protocol, templates): class_prompts(
            ClassTable((7,), columns), ("the {name}",), templates, drop_repeats=False, protocol=protocol
        )[7]
        for protocol in ("recorded", "caption")
        for templates in (("a {}.",), ())
    }
    assert found["recorded", ("a {}.",)] == ["a Beadlet  Anemone Animalia Actinia."]
    assert found["recorded", ()] == ["Beadlet  Anemone Animalia Actinia"]
    assert found["caption", ("a {}.",)] == ["a Beadlet Anemone Actinia equina."]
    assert found["caption", ()] == ("the Actinia equina",)


def test_templates_are_read_from_functions_and_nothing_is_run(tmp_path, capsys):
    source = tmp_path / "zero_shot_metadata.py"
    source.write_text(
        "raise SystemExit\nOPENAI_IMAGENET_TEMPLATES = (\n    lambda c: f'an {c} drawn.',\n    lambda c: f'{c}',\n)\n"
    )
    clip_templates.main(["--file", str(source), "--out", str(tmp_path / "new" / "t.txt")])
    assert read_templates(tmp_path / "new" / "t.txt") == ("an {} drawn.", "{}")
    source.write_text("OPENAI_IMAGENET_TEMPLATES = ['a {}']\n")
    with pytest.raises(SystemExit):
        clip_templates.main(["--file", str(source), "--out", str(tmp_path / "t.txt")])
    assert "line 1: found another form" in capsys.readouterr().err and not (tmp_path / "t.txt").exists()
    for content in (b"OPENAI_IMAGENET_TEMPLATES = (\n", b"\0", b"\xff", b"(" * 9000):
        source.write_bytes(content)
        with pytest.raises(SystemExit) as stop:
            clip_templates.main(["--file", str(source), "--out", str(tmp_path / "t.txt")])
        (line,) = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2 and "expected open_clip's zero_shot_metadata.py; give that file" in line

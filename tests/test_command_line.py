import importlib
import io
import re
import sys

import pytest

from lit_jax.base.command_line import Parser
from lit_jax.errors import user_errors_in_one_line
from lit_jax.nearest import nearest
from tests.test_contracts import COMMANDS

REQUIRED = {
    "lit_jax.main": "--config=x",
    "lit_jax.evaluate": "--checkpoint=x",
    "lit_jax.embed": "--config=x",
    "lit_jax.plan": "--config=x",
    "lit_jax.export": "--checkpoint=x --out=y",
    "lit_jax.probe": "--store=x",
    "lit_jax.leaks": "--store=x",
    "lit_jax.robustness": "--checkpoint=x",
    "lit_jax.predict": "--checkpoint=x photo.jpg",
    "lit_jax.search": "--checkpoint=x --photos=y word",
    "lit_jax.site": "--checkpoint=x --out=y",
    "lit_jax.check_cluster": "--folder=x",
    "data_prep.convert": "--out=x",
    "data_prep.captions": "--classes=x",
    "data_prep.ranks": "--classes=x --from=y --out=z",
    "data_prep.clip_templates": "--out=x",
    "data_prep.field_guide": "--out=x",
    "data_prep.pretrain_tower": "--out=x",
    "data_prep.embeddings": "--classes=x --out=y",
    "data_prep.to_webdataset": "--records=x --out=y",
}


def refused(main, arguments, capsys):
    """The one line that a command says of its arguments."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and line.startswith("error: ") and line.endswith("(--help lists the options)")
    return line


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_arguments_in_one_line(name, capsys):
    main, required = importlib.import_module(name).main, REQUIRED[name].split()
    assert "--no-such-thing: found an unknown option" in refused(main, [*required, "--no-such-thing=1"], capsys)
    least = required[0].partition("=")[0]  # misspelt: told before what is required
    line = refused(main, [least + "z=1", *required[1:]], capsys)
    assert f"{least}z: found an unknown option" in line and f"did you mean {least}?" in line


def parser():
    made = Parser(prog="python -m x")
    made.add_argument("--number", type=int, required=True)
    made.add_argument("--kind", choices=("fast", "slow"))
    either = made.add_mutually_exclusive_group()
    either.add_argument("--left")
    either.add_argument("--right")
    return made


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "--number: found none, expected it"),
        ("--number", "--number: found no value, expected one"),
        ("--number=a", "--number: found 'a', expected a whole number"),
        ("--number=1 --kind=quick", "--kind: found 'quick', expected one of fast, slow"),
        ("--number=1 --left=a --right=b", "--right: found it beside --left, expected one of them"),
        ("--number=1 word", "arguments: found 'word', expected options with two dashes only"),
    ],
)
def test_argument_errors_are_of_the_house_form(arguments, said, capsys):
    assert refused(parser().parse_args, arguments.split(), capsys) == f"error: {said} (--help lists the options)"


def test_one_of_a_group_that_is_required_is_named(capsys):
    main = importlib.import_module("lit_jax.export").main
    line = refused(main, ["--out=x"], capsys)
    assert "--checkpoint, --config: found none of them, expected one" in line


@pytest.mark.parametrize("name", COMMANDS)
def test_help_tells_defaults_in_one_way_and_no_empty_ones(name, capsys):
    with pytest.raises(SystemExit):
        importlib.import_module(name).main(["--help"])
    text = " ".join(capsys.readouterr().out.split("options of the config")[0].split())
    assert not re.search(r"\(default: (None|False|\[\]|\(\))?\)", text)
    assert "if not given" not in text and "if left out" not in text
    assert "{," not in text  # a choice that is empty


def test_help_tells_a_default_of_zero_and_keeps_lines_of_the_epilog(capsys):
    made = Parser(prog="x", description="many words " * 30, epilog="one\n  two")
    made.add_argument("--seed", type=int, default=0, help="of draws")
    made.add_argument("--all", action="store_true", help="all")
    made.add_argument("--out", default="", help="a file (default: one of the run's)")
    text = made.format_help()
    assert "of draws (default: 0)" in text and "\none\n  two\n" in text and "(default: one of the run's)\n" in text
    assert max(map(len, text.splitlines())) <= 200


@pytest.mark.parametrize(
    ("command", "arguments", "meant"),
    [
        ("data_prep.convert", "--photos x", "--images"),
        ("data_prep.convert", "--images=a --output=x", "--out"),
        ("lit_jax.main", "--epochs 3", "--config.train.epochs=3"),
        ("lit_jax.main", "--config=demo --lr=0.1", "--config.optimizer.lr=0.1"),
        ("lit_jax.main", "--config=demo --learning-rate", "--config.optimizer.lr=VALUE"),
        ("lit_jax.embed", "--config=demo --seed 3", "--config.seed=3"),
        ("lit_jax.embed", "--config=demo --batchsize 3", "--config.train.batch_size=3"),
        ("lit_jax.evaluate", "--model=x", "--checkpoint"),
        ("lit_jax.evaluate", "--chekpoint=x", "--checkpoint"),
        ("lit_jax.evaluate", "--labels=x", "--classes"),
        ("lit_jax.predict", "--photos=x --checkpoint=y", "PHOTOS without an option"),
        ("lit_jax.search", "--checkpoint=x --images_=y", "--images"),
    ],
)
def test_what_others_call_an_option_is_answered_with_what_to_type(command, arguments, meant, capsys):
    line = refused(importlib.import_module(command).main, arguments.split(), capsys)
    assert line.endswith(f"expected a known one; did you mean {meant}? (--help lists the options)")


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("lit_jax.main", "--colour=red"),
        ("data_prep.convert", "--verbose"),
        ("lit_jax.main", "--folds=3"),
        ("lit_jax.evaluate", "--workers 3"),
        ("lit_jax.predict", "--zzz=1 x"),
    ],
)
def test_no_option_is_named_that_has_nothing_to_do_with_it(command, arguments, capsys):
    assert "did you mean" not in refused(importlib.import_module(command).main, arguments.split(), capsys)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_stray_name_of_a_command_is_answered_with_that_command(name, capsys):
    for word in {name.rpartition(".")[2], name.rpartition(".")[2].replace("_", "-")}:
        for arguments in ([word, "x"], [word]):
            line = refused(importlib.import_module("lit_jax.main").main, arguments, capsys)
            assert (
                f"arguments: found {word!r}, expected options" in line and f"that command is python -m {name} (" in line
            )


def test_a_stray_config_is_answered_with_how_it_is_given(capsys):
    line = refused(importlib.import_module("lit_jax.main").main, ["mine.py"], capsys)
    assert "found 'mine.py'" in line and "did you mean --config=mine.py?" in line


def levenshtein(one, other):
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row, before = [i], row
        for j, b in enumerate(other, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b)))
    return row[-1]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_signs_that_a_console_lacks_are_spelt_with_escapes(encoding, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    with user_errors_in_one_line():
        print("a–b 日.jpg")
    spelt = {"cp1252": "a\x96b \\u65e5.jpg", "ascii": "a\\u2013b \\u65e5.jpg"}.get(encoding)
    assert written.getvalue() == (spelt.encode("latin-1") if spelt else "a–b 日.jpg".encode()) + b"\n"


def test_a_near_name_is_a_misspelling_or_a_beginning():
    known = ["labels", "classes", "image-weights", "out", "process", "checkpoint", "store"]
    for name in ("lable", "photos", "epochs", "ckeckpoint", "output", "images", "xyz", "sotre", "o", ""):
        found = nearest(name, known)
        begins = found and (name.startswith(found) or found.startswith(name))
        assert not found or begins or levenshtein(name, found) <= len(found) / 2
    assert nearest("lables", known) == "labels" and nearest("Store", known) == "store"
    assert not any(nearest(name, known) for name in ("photos", "epochs", "xyz", "o", ""))

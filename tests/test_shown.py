"""Names from strangers, through everything that is shown: a text is shown as a text, wherever it comes."""

import csv
import dataclasses
import html.parser
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import markdown_it
import pytest
from PIL import Image

from lit_jax import evaluate, robustness
from lit_jax.base import console, plots
from lit_jax.base.command_line import Parser
from lit_jax.errors import UserError, printable, user_errors_in_one_line
from lit_jax.evaluation import page, robustness_tables
from lit_jax.evaluation import robustness as measuring
from lit_jax.prediction import contact_sheet
from lit_jax.prediction.answers import Answer, Named
from lit_jax.prediction.contact_sheet import Hit, Query
from lit_jax.prediction.formats import Heading, format_of
from lit_jax.prediction.found import find_photos
from lit_jax.text.classes import ClassTable, some
from lit_jax.trained import model_card
from lit_jax.trained.loading import load_whole
from lit_jax.training import metrics_log

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a $\\foo$ b",
    "$x^$ and $",
    "\"quoted\" 'name'",
    "two\nlines",
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "a|b|c",
    "`code` and ```python",
    "`<u>x</u>`",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x9b2J",
    "tab\there",
    "[link](javascript:alert(1))",
    "&amp; &lt;b&gt;",
    "</title></style></svg>",
    "\u202etxet",
    "{braces} @TITLE@",
    "[bold]rich[/bold] :bug:",
    "# head\n\n<b>new</b>",
    "--> ]]>",
    "日本の鳥",
)
"""As names of classes, groups, files, tasks and models: markup, formulas, escapes of terminals, quotes and lines."""


class Reader(html.parser.HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words = ""
        self.heads: set[str] = set()
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self._inside = tag

    def handle_data(self, data: str) -> None:
        self.words += data
        if self._inside in ("h1", "h2", "h3"):
            self.heads.add(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


def hostile(value: Any, names: dict[str, str]) -> Any:
    """A result with other names, wherever they are in it."""
    if isinstance(value, dict):
        return {names.get(key, key): hostile(one, names) for key, one in value.items()}
    if isinstance(value, list):
        return [hostile(one, names) for one in value]
    return names.get(value, value) if isinstance(value, str) else value


@pytest.fixture(scope="module")
def evaluated(finished: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("evaluated") / "e.json"
    evaluate.main(
        [
            "--checkpoint",
            str(finished[0]),
            "--split=validation",
            "--batch-size=8",
            "--devices=1",
            f"--out={out}",
            "--no-page",
        ]
    )
    found: dict[str, Any] = json.loads(out.read_text())
    task = {"clean": {"top1": 0.5}, "mean_error": 0.5, "corrupted": {"snow": {"1": {"top1": 0.25}}}}
    corrupted = {"tasks": {"the task": task}, "kinds": ["snow"], "severities": [1], "seed": 0}
    return {**found, "robustness": corrupted}


def names_of(found: dict[str, Any]) -> dict[str, str]:
    """Every name in an evaluation to a hostile one."""
    known = [row["name"] for row in found["by_supercategory"]]  # first, since formulas are, and these are in a plot
    known += [row[key] for row in found["per_class"] for key in ("class", "common_name")]
    known += [name for row in found["per_class"] for name, _ in row["taken_for"]]
    known += [group["name"] for row in found["ranks"].values() for group in row.get("hardest", ())]
    known = [*dict.fromkeys(["the task", found["data"]["name"], *filter(None, known)])]
    return {name: HOSTILE[place % len(HOSTILE)] + " " * (place // len(HOSTILE)) for place, name in enumerate(known)}


@pytest.mark.usefixtures("drawn")
def test_a_page_shows_names_as_they_are(evaluated: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    usual = Reader(page.page(evaluated, name="usual"))
    names = names_of(evaluated)
    for model in HOSTILE[:3]:
        text = page.page(hostile(evaluated, names), name=model)
        shown = Reader(text)
        assert shown.tags <= usual.tags and shown.attributes <= usual.attributes
        assert "could not be drawn" not in text and model in shown.words
    for row in evaluated["per_class"]:
        assert names[row["class"]].strip() in shown.words
    assert names["the task"] in shown.words and text.count("<svg") == 4
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("drawn")
def test_a_plot_that_fails_costs_only_itself(
    evaluated: dict[str, Any],
    finished: tuple[Path, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = page._drawn

    def drawn(draw: Any, size: tuple[float, float]) -> str:
        if draw.__qualname__.startswith("_calibration"):
            raise ValueError("no such font\nin any of these: ...")
        return real(draw, size)

    monkeypatch.setattr(page, "_drawn", drawn)
    page.write(tmp_path / "page.html", evaluated, name="m")
    text = (tmp_path / "page.html").read_text()
    assert text.count("<svg") == 3 and text.count("This plot could not be drawn.") == 1 and "</html>" in text
    told = capsys.readouterr().err
    assert told == "note: plot of calibration: could not be drawn (no such font), and is missing\n"
    with pytest.raises(OSError, match="full"), plots.one_less("x"):
        raise OSError("full")


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("name", ["a $\\foo$ b", "$x^$", "two\nlines", "日本の鳥 \x1b[31m"])
def test_pictures_take_a_dollar_for_a_dollar(tmp_path: Path, name: str, recwarn: pytest.WarningsRecorder) -> None:
    records = [{"step": 1, "epoch": 0.5, "loss": 3.0, "learning_rate": 1e-3, f"{name}/top1": 0.5}]
    metrics_log.curves(tmp_path / "curves.png", records, title=name)
    task = {"clean": {"top1": 0.5}, "chance": 0.1, "corrupted": {"snow": {"1": {"top1": 0.25}}}}
    result = {"tasks": {name: task}, "kinds": ["snow"], "severities": [1]}
    robustness_tables.draw(tmp_path / "robustness.png", result, title=name)
    for path in tmp_path.iterdir():
        with Image.open(path) as picture:
            assert picture.width > 300
    assert [str(one.message) for one in recwarn if "Glyph" in str(one.message)] == []


WRONG = [
    [],
    {},
    5,
    None,
    "text",
    {"tasks": []},
    {"tasks": {"seen": 5}},
    {"severities": 5},
    {"severities": ["1"]},
    {"kinds": [5]},
    {"kinds": ["<b>snow</b>"]},
    {"seed": "<b>"},
    {"tasks": {"seen": {"clean": {"top1": "<i>"}}}},
    {"seed": None},
    {"tasks": {"s": {"clean": {"top1": 7}, "mean_error": 0.5, "corrupted": {"snow": {"1": {"top1": 0.25}}}}}},
    {"tasks": {"s": {"clean": {"top1": True}, "mean_error": 0.5, "corrupted": {"snow": {"1": {"top1": 0.25}}}}}},
]


@pytest.mark.parametrize("changed", WRONG, ids=repr)
def test_a_result_beside_the_model_that_is_none_is_left_out(
    evaluated: dict[str, Any], tmp_path: Path, changed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    same = {name: evaluated[name] for name in ("step", "config", "locked", "records")}
    whole = {**same, **evaluated["robustness"]}
    path = tmp_path / measuring.RESULT
    path.write_text(json.dumps(whole))
    assert measuring.of_same_model(tmp_path, evaluated) == whole and not capsys.readouterr().out
    path.write_text(json.dumps({**whole, **changed} if isinstance(changed, dict) and changed else changed))
    assert measuring.of_same_model(tmp_path, evaluated) is None
    told = capsys.readouterr().out
    assert told == f"note: {path}: found no result of lit_jax.robustness, expected one; left out of the page\n"


def test_a_contact_sheet_shows_names_as_they_are() -> None:
    queries = [Query(name) for name in HOSTILE]
    usual = Reader(contact_sheet.sheet([Query("a bird")], [[Hit("a-b.jpg", 0.5)]], "note"))
    text = contact_sheet.sheet(queries, [[Hit(name, 0.5) for name in HOSTILE]] * len(queries), HOSTILE[0])
    shown = Reader(text)
    assert shown.tags == usual.tags and shown.attributes == usual.attributes
    assert all(name in shown.words for name in HOSTILE)


def test_a_model_card_shows_names_as_they_are(finished: tuple[Path, Any]) -> None:
    """By a reader of Markdown that knows HTML and tables, as those of the hubs."""
    about, ids = load_whole(finished[0]).about, tuple(range(len(HOSTILE)))

    def card(name: str, others: tuple[str, ...]) -> str:
        table = ClassTable(ids, {column: others for column in ("name", "common_name", "order", "supercategory")})
        in_braces = name.replace("{", "{{").replace("}", "}}")
        config = {**about.config, "data.seen_split": name, "data.heldout_split": name, "image.weights": name}
        own = dataclasses.replace(
            about, train_classes=ids, config=config, templates=(f"a photo of {in_braces} {{name}}",)
        )
        return model_card.text(own, 1, model_card.Facts(name, {}), table)

    render = markdown_it.MarkdownIt("commonmark").enable("table").render
    usual = Reader(render(card("usual", ("Parus major",) * len(ids))))
    for place, name in enumerate(HOSTILE):
        text = card(name, HOSTILE[place:] + HOSTILE[:place])
        shown = Reader(render(text))
        assert shown.tags <= usual.tags and shown.attributes <= usual.attributes, name
        assert shown.heads == usual.heads - {"usual"} | {" ".join(printable(name).split())}
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
        assert f"such as {', '.join(map(printable, (HOSTILE[place:] + HOSTILE[:place])[:3]))}." in shown.words


def test_names_are_printed_as_a_terminal_may_show_them(capsys: pytest.CaptureFixture[str]) -> None:
    obeyed = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")
    shown = [console.text_table(["a [b]", "\x1b[2J"], [[name, name] for name in HOSTILE])]
    form = format_of("table", Heading("m", 1, 2, "n", "k"), photos=HOSTILE, names=HOSTILE)
    shown += [form.text(Named(name, (Answer("species", name, name, {}, 0.5, True),))) for name in HOSTILE]
    shown += [some(HOSTILE, 99)]
    assert [text for text in shown if obeyed.search(text)] == []
    table = shown[0]
    assert all(table.count(printable(name)) >= 2 for name in HOSTILE) and "a [b]" in table and ":bug:" in table
    assert len(table.splitlines()) == 2 + len(HOSTILE)
    for name in HOSTILE:
        with pytest.raises(SystemExit), user_errors_in_one_line():
            raise UserError(f"{name}: found it")
        with pytest.raises(SystemExit), user_errors_in_one_line():
            raise FileNotFoundError(2, "No such file", f"{name}.csv")
        with pytest.raises(SystemExit):
            Parser(prog="x").parse_args([f"--{name}"])
        with console.Progress(1, every_seconds=0) as progress:
            progress.line(name)
            progress.show(1, name, seconds_left=1)
        console.say(name, file=sys.stderr)
    told = capsys.readouterr()
    assert not obeyed.search(told.out + told.err)
    assert "[bold]rich[/bold] :bug:" in told.out and printable("\x1b[31mred\x1b[0m") == r"\x1b[31mred\x1b[0m"
    assert printable("日本の鳥 é Ünïcode") == "日本の鳥 é Ünïcode" and printable("a\udcffb") == r"a\udcffb"


def test_a_csv_is_read_back_exactly_and_no_file_is_a_formula(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    form = format_of("csv", Heading("m", 1, 2, "n", "k"))
    text = form.head + "".join(
        form.text(Named(name, (Answer("species", name, name, {}, 0.5, True),))) for name in HOSTILE
    )
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert [(row["photo"], row["name"], row["common_name"]) for row in rows] == [(name,) * 3 for name in HOSTILE]
    monkeypatch.chdir(tmp_path)
    names = ["=1+1.jpg", "+a.jpg", "-b.jpg", "@c.jpg", "\td.jpg", "usual.jpg"]
    for name in names:
        Path(name).write_bytes(b"")
    found = find_photos(["-"], [f"{name}\n" for name in names]).photos
    assert found == ["./=1+1.jpg", "./+a.jpg", "./-b.jpg", "./@c.jpg", "./\td.jpg", "usual.jpg"]
    assert all(Path(photo).exists() for photo in found)


def test_a_picture_of_the_command_that_fails_is_told(
    finished: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr(robustness_tables, "draw", broken)
    few = [
        "--kinds=snow",
        "--severities=2",
        "--photos=6",
        "--batch-size=8",
        "--devices=1",
        f"--out={tmp_path / 'r.json'}",
    ]
    robustness.main([f"--checkpoint={finished[0]}", *few])
    told = capsys.readouterr()
    assert "could not be drawn (no font)" in told.err and "as a picture" not in told.out
    assert (tmp_path / "r.json").exists()

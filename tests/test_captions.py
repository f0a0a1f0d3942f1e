import csv
import random
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path

import pytest

from data_prep import captions as command
from data_prep.conversion.columns import Statistics, describe, report, select_columns, statistics_lines
from lit_jax.errors import UserError
from lit_jax.text.captions import OMIT, TEMPLATE, caption, captions, class_captions, fields
from lit_jax.text.classes import ClassTable, read_class_table
from lit_jax.text.tokenizers import train_sentencepiece

REAL = Path(__file__).parents[2] / "shared" / "data" / "inat2021-categories.csv"
needs_real = pytest.mark.skipif(not REAL.exists(), reason="the real class table is not here")

PUBLISHED = {
    ("Buff-tailed Coronet", "Birds", "Boissonneaua flavescens"): (
        "A photo of the Buff-tailed Coronet Birds Boissonneaua flavescens"
    ),
    ("Common Blue Crab", "Animalia", "Callinectes sapidus"): "A photo of the Common Blue Crab Callinectes sapidus",
    ("Imperial Moth", "Insects", "Eacles imperialis"): "A photo of the Imperial Moth Insects Eacles imperialis",
    ("Oakmoss", "Fungi", "Evernia prunastri"): "A photo of the Oakmoss Fungi Evernia prunastri",
    ("Pacific Purple Sea Urchin", "Animalia", "Strongylocentrotus purpuratus"): (
        "A photo of the Pacific Purple Sea Urchin Strongylocentrotus purpuratus"
    ),
    ("Pine White", "Insects", "Neophasia menapia"): "A photo of the Pine White Insects Neophasia menapia",
}


@pytest.fixture(scope="module")
def real():
    return read_class_table(REAL)


def table(**columns):
    return ClassTable(tuple(range(len(next(iter(columns.values()))))), {c: tuple(v) for c, v in columns.items()})


# Captions


@pytest.mark.parametrize(("row", "text"), PUBLISHED.items())
def test_the_published_captions_come_out_letter_by_letter(row, text):
    assert caption(dict(zip(("common_name", "supercategory", "name"), row, strict=True))) == text


def test_empty_and_omitted_values_leave_no_gap():
    row = {"a": "", "b": " Animalia ", "c": "x  y\n", "d": "Fungi"}
    assert caption(row, " {a} of {b} the {c}, {d}{a}. {a}") == "of the x y, Fungi."
    assert caption(row, "of {b} {d}", omit=()) == "of Animalia Fungi"
    assert caption(row, "of {b} {d}", omit=("Fungi",)) == "of Animalia"
    assert caption({"a": "Animaliaceae"}, "of {a}") == "of Animaliaceae"


def test_repeats_are_dropped_on_request_only():
    row = {"common_name": "Pica pica", "supercategory": "Birds", "name": "Pica pica"}
    assert caption(row) == "A photo of the Pica pica Birds Pica pica"
    assert caption(row, drop_repeats=True) == "A photo of the Pica pica Birds"
    assert caption(row, "{name} {name}", drop_repeats=True) == "Pica pica"
    assert caption({"a": "Pica", "b": "Pica pica"}, "{a} {b}", drop_repeats=True) == "Pica Pica pica"


def test_doubled_braces_and_braces_in_values_are_text():
    assert caption({"name": "{order} {"}, "{{x}} {name} }}") == "{x} {order} { }"


def test_columns_may_have_odd_names():
    assert (
        caption({"a:b": "1", "length (cm)": "2", "x[0]": "3", "a.b": "4"}, "{a:b} {length (cm)} {x[0]} {a.b}")
        == "1 2 3 4"
    )


def test_fields_are_the_columns_in_order():
    assert fields("a {x} {{y}} {z:w} {} {x}") == ("x", "z:w", "", "x")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a {gnus}", r"template: found column 'gnus', expected one of genus, family; the nearest is 'genus'"),
        ("a {genus:>9}", r"template: found column 'genus:>9', expected one of genus, family; the nearest is 'genus'"),
        ("a {}", r"template: found {}, expected {column}; name a column of the class table"),
        ("a {genus", r"template 'a {genus': found bad braces \(expected '}' before end of string\), expected {column}"),
        ("a } b", r"template 'a } b': found bad braces \(.*\), expected {column}; write {{ for a brace"),
    ],
)
def test_bad_templates_are_refused_in_one_line(template, message):
    with pytest.raises(UserError, match=message):
        caption({"genus": "Pica", "family": "Corvidae"}, template)


def test_a_class_has_one_caption_a_template_in_their_order():
    birds = table(name=["Pica pica", "Corvus corax"], group=["Animalia", "Birds"])
    templates = ["the {name} {group}", "{group} {group}"]
    assert captions(birds.row(0), templates) == ("the Pica pica", "")
    assert class_captions(birds, templates, drop_repeats=True) == [
        ("the Pica pica", ""),
        ("the Corvus corax Birds", "Birds"),
    ]
    assert class_captions(birds, templates[:1], omit=()) == [("the Pica pica Animalia",), ("the Corvus corax Birds",)]


# Statistics


def naive_distance(texts):
    pairs = [len(set(a.lower().split()) ^ set(b.lower().split())) for a, b in combinations(texts, 2)]
    return sum(pairs) / len(pairs)


def test_statistics_by_hand():
    facts = describe(["the red kite", "the Red fox", "wren", "The red KITE"], [5, 6, 7, 8])
    assert facts == Statistics(
        count=4,
        distinct=3,
        duplicates={"the red kite": (5, 8)},
        distance=(2 + 4 + 0 + 4 + 2 + 4) / 6,
        min_tokens=1,
        mean_tokens=10 / 4,
        max_tokens=3,
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_mean_distance_is_that_over_all_pairs(seed):
    chance = random.Random(seed)
    texts = [" ".join(chance.choices("abcdefgh", k=chance.randint(0, 6))) for _ in range(40)]
    assert describe(texts, range(40)).distance == pytest.approx(naive_distance(texts), rel=1e-12)


def test_statistics_follow_the_tokenizer():
    facts = describe(["ab", "ba"], [0, 1], tokenize=list)
    assert (facts.distinct, facts.distance, facts.max_tokens) == (2, 0, 2)
    assert describe(["ab", "ba"], [0, 1], tokenize=sorted).duplicates == {"ab": (0, 1)}


def test_one_caption_has_no_distance_and_none_is_refused():
    assert describe(["a b"], [0]).distance == 0
    with pytest.raises(UserError, match=r"captions: found none, expected at least one; give a class table with rows"):
        describe([], [])
    with pytest.raises(ValueError, match="shorter"):
        describe(["a", "b"], [0])


def test_statistics_are_told_in_lines_with_at_most_five_shared_captions():
    texts = [*"aabbccddeeff", *["g"] * 10]
    lines = statistics_lines(describe(texts, range(22)), budget=3)
    assert lines[:2] == ["distinct  7 of 22 captions", "  'a': ids 0, 1"]
    assert lines[6:] == [
        "  and 2 more captions that several classes share",
        "distance  1.56 tokens differ between two captions in the mean",
        "tokens    1 to 1, mean 1.00, budget 3",
    ]
    assert statistics_lines(describe(["g"] * 10, range(10)))[1:] == [
        "  'g': ids 0, 1, 2, 3, 4, 5, 6, 7, ...",
        "distance  0.00 tokens differ between two captions in the mean",
        "tokens    1 to 1, mean 1.00",
    ]


# Choosing columns


def naive_key(classes, subset, budget, prefix):
    """What a subset is worth, from its captions, or None if it is over the budget."""
    names = [list(classes.columns)[i] for i in subset]
    texts = [caption(row, f"{prefix} " + " ".join(f"{{{name}}}" for name in names)).lower() for row in classes.rows()]
    tokens = [len(text.split()) for text in texts]
    pairs = [len(set(a.split()) ^ set(b.split())) for a, b in combinations(texts, 2)]
    order = (-len(subset), *(-i for i in subset))
    return (len(set(texts)), 100 * sum(pairs) // len(pairs), -sum(tokens), order) if max(tokens) <= budget else None


def naive_select(classes, budget, prefix="A photo of a", must=()):
    columns = list(classes.columns)
    subsets = [s for n in range(1, len(columns) + 1) for s in combinations(range(len(columns)), n)]
    subsets = [s for s in subsets if set(must) <= {columns[i] for i in s}]
    keys = [(naive_key(classes, s, budget, prefix), s) for s in subsets]
    return tuple(columns[i] for i in max(k for k in keys if k[0] is not None)[1])


def random_table(seed, columns=5, rows=9):
    # Values of none to two words, with words of the prefix, omitted ones, and sums that collide ("a b" + "").
    chance = random.Random(seed)
    words = ["a", "b", "c", "photo", "d e", "a b", "", "Animalia", "B"]
    few = [chance.sample(words, chance.randint(2, len(words))) for _ in range(columns)]
    return table(**{f"c{i}": chance.choices(few[i], k=rows) for i in range(columns)})


@pytest.mark.parametrize("seed", range(60))
def test_the_choice_is_that_of_brute_force(seed):
    classes = random_table(seed)
    budget = 5 + seed % 8
    must = () if seed % 3 else ("c2",)
    try:
        expected = naive_select(classes, budget, must=must)
    except ValueError:  # nothing fits
        with pytest.raises(UserError, match="budget: found"):
            select_columns(classes, budget=budget, must=must)
        return
    chosen = select_columns(classes, budget=budget, must=must)
    texts = [caption(row, chosen.template) for row in classes.rows()]
    assert chosen.columns == expected
    assert chosen.template == "A photo of a " + " ".join(f"{{{c}}}" for c in expected)
    assert chosen.distance == pytest.approx(naive_distance(texts))
    assert chosen.distinct == len({text.lower() for text in texts})
    assert chosen.max_tokens <= budget


def test_two_short_columns_beat_the_one_that_greed_would_take():
    classes = table(long=["a b", "c d", "e f", "e f"], left=["p", "p", "q", "q"], right=["r", "s", "r", "s"])
    chosen = select_columns(classes, budget=6)
    assert chosen.columns == ("left", "right")
    assert chosen.search == "every subset of 3 free columns considered, 4 within the budget"
    assert [f.verdict for f in chosen.candidates] == ["left out: would make 8 tokens", "chosen", "chosen"]


def test_more_distinct_captions_come_before_a_greater_distance():
    # "far" differs by four tokens in most pairs, but two classes share it.
    classes = table(far=["a b", "c d", "e f", "e f"], near=["u x", "u y", "u z", "u w"])
    assert select_columns(classes, budget=6).columns == ("near",)
    assert select_columns(classes, budget=6, columns=["far"]).columns == ("far",)


def test_a_column_that_repeats_others_is_left_out():
    classes = table(genus=["A", "B", "C"], name=["A x", "B y", "C z"], kingdom=["k", "k", "k"])
    chosen = select_columns(classes, budget=99)
    assert chosen.columns == ("name",)
    assert {f.verdict for f in chosen.candidates if f.column != "name"} == {"left out: adds no difference"}


def test_a_column_that_is_empty_or_omitted_throughout_is_left_out():
    classes = table(kingdom=["Animalia", "Animalia"], name=["u", "v"], note=["", ""])
    assert select_columns(classes, budget=9).columns == ("name",)
    many = {f"k{i}": ["", ""] for i in range(13)}
    assert select_columns(table(**many, name=["u", "v"]), budget=9).columns == ("name",)


def test_of_equal_columns_the_first_is_taken():
    assert select_columns(table(a=["u", "v"], b=["u", "v"]), budget=9).columns == ("a",)


def test_a_column_that_repeats_others_but_for_one_class_in_many_is_left_out():
    n = 300
    names = [f"g{i} s{i}" for i in range(n)]
    again = [f"s{i}" for i in range(n - 1)] + ["other"]  # 2 / n = 0.0067 tokens more distance
    assert select_columns(table(name=names, again=again), budget=99).columns == ("name",)
    assert select_columns(table(name=names[-9:], again=again[-9:]), budget=99).columns == ("name", "again")


def test_a_column_that_makes_captions_more_alike_is_left_out():
    # The union with "b" has the token x in three of four captions instead of two.
    classes = table(a=["x 0", "x 1", "2", "3"], b=["0", "1", "x", "3"])
    chosen = select_columns(classes, budget=9)
    assert chosen.columns == ("a",)
    assert chosen.candidates[1].verdict == "left out: makes captions more alike"


def test_values_that_only_join_differently_are_the_same_caption():
    classes = table(a=["x y", "x"], b=["", "y"])
    assert select_columns(classes, budget=9, must=["a", "b"]).duplicates == {"A photo of a x y": (0, 1)}
    assert select_columns(classes, budget=9).columns == ("b",)


def test_places_and_ids_are_no_candidates_unless_named():
    classes = table(name=["a", "a"], folder=["0", "1"], label=["2", "3"], split=["4", "5"], image_dir_name=["6", "7"])
    assert [f.column for f in select_columns(classes, budget=9).candidates] == ["name"]
    assert select_columns(classes, budget=9, columns=["name", "label"]).columns == ("label",)


def test_the_order_in_the_caption_is_that_of_the_table():
    classes = table(a=["1", "2"], b=["3", "4"], c=["5", "6"])
    chosen = select_columns(classes, budget=6, columns=["c", "a"])
    assert chosen.template == "A photo of a {a} {c}"
    assert [f.column for f in chosen.candidates] == ["a", "c"]


def test_must_prefix_omit_and_tokenizer_are_obeyed():
    classes = table(a=["1", "2"], k=["z", "z"], b=["Animalia", "Fungi"])
    assert select_columns(classes, budget=99, must=["k"]).columns == ("a", "k", "b")
    assert select_columns(classes, budget=99, columns=["b"], must=["k"]).columns == ("k", "b")
    assert select_columns(classes, budget=2, prefix="{one}", columns=["b"]).template == "{{one}} {b}"
    assert select_columns(classes, budget=1, prefix="", columns=["a"]).template == "{a}"
    assert select_columns(classes, budget=9, columns=["b"]).distance == 1
    assert select_columns(classes, budget=9, columns=["b"], omit=()).distance == 2
    letters = select_columns(classes, budget=9, prefix="", tokenize=list, columns=["b", "a"])
    assert letters.max_tokens == 7  # "2 Fungi" with its space
    assert "Animalia" in OMIT


def test_beyond_twelve_columns_the_choice_is_greedy_and_says_so():
    columns = {f"k{i}": ["z"] * 4 for i in range(13)}
    columns["k3"], columns["k7"] = ["a", "b", "c", "d"], ["e", "e", "f", "f"]
    chosen = select_columns(table(**columns), budget=6)
    assert chosen.columns == ("k3", "k7")
    assert chosen.search == "greedy, for 13 free columns are more than 12: the best added one at a time"
    assert select_columns(table(**columns), budget=99).columns == ("k3", "k7")
    assert select_columns(table(**columns), budget=5).columns == ("k3",)
    # One column fixed leaves twelve, of which every subset is tried.
    fixed = select_columns(table(**columns), budget=6, must=["k0"])
    assert fixed.columns == ("k0", "k3")
    assert fixed.search.startswith("every subset of 12 free columns")
    more = {**columns, "k13": ["z"] * 4}
    assert select_columns(table(**more), budget=6, must=["k0"]).columns == ("k0", "k3")
    assert select_columns(table(**{**more, "k7": ["z"] * 4}), budget=99, must=["k3"]).columns == ("k3",)
    for must in ((), ("k0", "k1")):
        with pytest.raises(UserError, match=r"budget: found 4 tokens, expected at least [56] for the prefix and k0"):
            select_columns(table(**more, k14=["z"] * 4), budget=4, must=must)


def test_greedy_equals_brute_force_where_columns_do_not_overlap():
    chance = random.Random(0)
    columns = {f"c{i}": [f"{i}{chance.choice('abcd'[: 2 + i % 3])}" for _ in range(8)] for i in range(13)}
    classes = table(**columns)
    chosen = select_columns(classes, budget=4 + 13)
    assert chosen.search.startswith("greedy")
    assert chosen.columns == naive_select(classes, 4 + 13)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"budget": 4},
            r"budget: found 4 tokens, expected at least 5 for the prefix and genus; raise the budget or name",
        ),
        (
            {"budget": 6, "must": ["name", "genus"]},
            r"found 6 tokens, expected at least 7 for the prefix and name, genus;",
        ),
        (
            {"budget": 9, "columns": ["gnus"]},
            r"columns: found column 'gnus', expected one of .*; the nearest is 'genus'",
        ),
        ({"budget": 9, "must": ["gnus"]}, r"columns: found column 'gnus', expected one of .*; the nearest is 'genus'"),
        ({"budget": 9, "columns": []}, r"columns: found 0 candidates, expected 1 to 62; name them with columns"),
    ],
)
def test_choices_that_cannot_be_made_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        select_columns(table(name=["a b", "c d"], genus=["a", "c"]), **options)


def test_other_impossible_choices_are_refused():
    with pytest.raises(
        UserError, match=r"class table: found no rows, expected at least one; give a table with classes"
    ):
        select_columns(ClassTable((), {"name": ()}), budget=9)
    with pytest.raises(UserError, match=r"columns: found 63 candidates, expected 1 to 62"):
        select_columns(table(**{f"k{i}": ["a", "b"] for i in range(63)}), budget=9)
    with pytest.raises(
        UserError, match=r"tokenize: found 10 tokens in a caption of parts with 5 or fewer, expected tokens that do not"
    ):
        longer = lambda text: text.split() * (2 if len(text.split()) > 4 else 1)  # noqa: E731
        select_columns(table(name=["a", "b"]), budget=5, tokenize=longer)


def test_sixty_two_columns_still_fit():
    columns = {f"k{i}": ["z", "z", "z"] for i in range(61)}
    chosen = select_columns(table(**columns, last=["a", "b", "c"]), budget=9)
    assert chosen.columns == ("last",)


def test_the_report_tells_the_choice_and_the_reasons():
    classes = table(genus=["P", "B", "C"], name=["P x", "B y", "C z"], group=["u v w", "u", "u"])
    assert report(select_columns(classes, budget=7)).splitlines() == [
        "template  A photo of a {name}",
        "search    every subset of 3 free columns considered, 4 within the budget",
        "distinct  3 of 3 captions",
        "distance  4.00 tokens differ between two captions in the mean",
        "tokens    6 to 6, mean 6.00, budget 7",
        "",
        "column  distinct  distance  tokens  verdict",
        "genus          3      2.00    1.00  left out: adds no difference",
        "name           3      4.00    2.00  chosen",
        "group          2      1.33    1.67  left out: would make 9 tokens",
    ]


# The real class table


@needs_real
def test_the_ten_thousand_captions_of_the_real_table_differ(real):
    texts = [text for (text,) in class_captions(real, [TEMPLATE])]
    facts = describe(texts, real.ids)
    assert (facts.count, facts.distinct, facts.duplicates) == (10_000, 10_000, {})
    assert len(set(texts)) == 10_000
    assert (facts.min_tokens, facts.max_tokens) == (7, 12)
    assert set(PUBLISHED.values()) < set(texts)
    assert any(text.endswith("Plants Malus ×domestica") for text in texts)
    assert not any("Animalia" in text or "  " in text or text.endswith(".") for text in texts)


@needs_real
def test_the_real_table_omits_142_supercategories_and_repeats_169_names(real):
    kept = class_captions(real, [TEMPLATE], omit=())
    assert sum(a != b for a, b in zip(class_captions(real, [TEMPLATE]), kept, strict=True)) == 142
    dropped = class_captions(real, [TEMPLATE], drop_repeats=True)
    assert sum(a != b for a, b in zip(class_captions(real, [TEMPLATE]), dropped, strict=True)) == 169


@needs_real
def test_columns_of_the_real_table_are_chosen_in_seconds(real):
    start = time.perf_counter()
    chosen = select_columns(real, budget=16)
    assert time.perf_counter() - start < 20  # half a second on an idle machine
    assert chosen.columns == ("name", "common_name", "supercategory", "phylum", "class", "order", "family")
    assert (chosen.distinct, chosen.max_tokens) == (10_000, 16)
    assert chosen.search == "every subset of 10 free columns considered, 985 within the budget"
    few = real.subset(real.ids[::25])
    texts = [caption(row, chosen.template) for row in few.rows()]
    assert describe(texts, few.ids).distance == pytest.approx(naive_distance(texts))


# The command


def run(capsys, *argv):
    command.main([str(a) for a in argv])
    return capsys.readouterr().out


@pytest.fixture
def csv_file(tmp_path):
    path = tmp_path / "classes.csv"
    rows = [",".join((str(3 * i), c, s, n)) for i, (c, s, n) in enumerate(PUBLISHED)]
    path.write_text("id,common_name,supercategory,name\n" + "\n".join(rows) + "\n15000,Pica pica,Birds,Pica pica\n")
    return path


def test_the_command_reports_on_the_published_captions(capsys, csv_file):
    out = run(capsys, "--classes", csv_file, "--show", 3).splitlines()
    assert out[:2] == [f"template  {TEMPLATE}", "distinct  7 of 7 captions"]
    assert out[3] == "tokens    8 to 10, mean 9.00"
    assert out[4:] == [
        "",
        "        0  A photo of the Buff-tailed Coronet Birds Boissonneaua flavescens",
        "        9  A photo of the Oakmoss Fungi Evernia prunastri",
        "    15000  A photo of the Pica pica Birds Pica pica",
    ]


def test_the_command_takes_templates_omissions_and_repeats(capsys, csv_file, tmp_path):
    out = run(capsys, "--classes", csv_file, "--template", "{name}", "--template", "{name} {common_name}")
    assert out.count("template") == 2
    assert "    15000  Pica pica\n    15000  Pica pica Pica pica\n" in out
    out = run(capsys, "--classes", csv_file, "--template", "{name} {common_name}", "--drop-repeats")
    assert "    15000  Pica pica\n" in out
    out = run(capsys, "--classes", csv_file, "--omit", "Birds", "--show", 99)
    assert "Crab Animalia Call" in out and "Birds" not in out
    (tmp_path / "t.txt").write_text("# two\n{supercategory}\n")
    out = run(capsys, "--classes", csv_file, "--templates", tmp_path / "t.txt", "--show", 0)
    assert out.startswith("template  {supercategory}\ndistinct  4 of 7 captions\n")


def test_the_command_chooses_columns_by_words_or_by_the_pieces_of_a_tokenizer(capsys, csv_file, tmp_path):
    out = run(capsys, "--classes", csv_file, "--select")
    assert "template  A photo of a {common_name} {supercategory} {name}" in out and "budget 16" in out
    assert out.count("template") == 1
    assert "        0  A photo of a Buff-tailed Coronet Birds Boissonneaua flavescens" in out
    out = run(capsys, "--classes", csv_file, "--select", "--budget", 6, "--columns", "supercategory,name")
    assert "template  A photo of a {name}\n" in out and "common_name" not in out and "budget 6" in out
    texts = [f"A photo of a {text}" for text in PUBLISHED.values()]
    train_sentencepiece(texts, tmp_path / "t.model", vocab_size=320)
    with_pieces = run(capsys, "--classes", csv_file, "--tokenizer", tmp_path / "t.model")
    assert "mean 9.00" in run(capsys, "--classes", csv_file)
    assert "mean 9.00" not in with_pieces


@pytest.mark.parametrize("templates", [["{name}"], ["{name}", "a {name}, {common_name}"]])
def test_the_command_writes_a_class_table_of_captions(capsys, csv_file, tmp_path, templates):
    argv = [x for template in templates for x in ("--template", template)]
    out = run(capsys, "--classes", csv_file, *argv, "--out", tmp_path / "captions.csv")
    assert out.endswith(f"wrote 7 classes with their captions to {tmp_path / 'captions.csv'}\n")
    with open(tmp_path / "captions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = ["caption"] if len(templates) == 1 else ["caption_0", "caption_1"]
    assert list(rows[0]) == ["id", "name", *names]
    assert rows[6]["id"] == "15000"
    assert [rows[6][name] for name in names] == ["Pica pica", "a Pica pica, Pica pica"][: len(names)]
    assert read_class_table(tmp_path / "captions.csv").ids == read_class_table(csv_file).ids


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--columns", "name"], "--columns, --budget: found without --select, expected with it; add --select"),
        (["--budget", "9"], "--columns, --budget: found without --select"),
        (["--select", "--drop-repeats"], "--drop-repeats: found with --select, expected with templates"),
        (["--select", "--template", "{name}"], "found it beside --"),
        (["--template", "{nmae}"], "error: template: found column 'nmae', expected one of"),
        (["--select", "--budget", "4"], "error: budget: found 4 tokens, expected at least 5"),
    ],
)
def test_the_command_says_mistakes_in_one_line_and_exits_with_2(capsys, csv_file, argv, message):
    with pytest.raises(SystemExit) as caught:
        command.main(["--classes", str(csv_file), *argv])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_the_command_runs_as_a_module_and_shows_help():
    result = subprocess.run(
        [sys.executable, "-m", "data_prep.captions", "--help"], capture_output=True, text=True, check=True
    )
    assert "--classes" in result.stdout and "Shows what captions a class table gives" in result.stdout

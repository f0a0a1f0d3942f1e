"""The field app, in Chromium: the same answers as Python's, without a network, and sentences where something is amiss."""

import base64
import contextlib
import csv
import dataclasses
import functools
import gzip
import http.server
import io
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import struct
import subprocess
import sys
import threading
import unicodedata
import urllib.error
import urllib.request
import zlib

import numpy as np
import pytest
from PIL import Image, features

import lit_jax
from lit_jax import site
from lit_jax.app import contents, folder, runtime
from lit_jax.app.contents import packed
from lit_jax.app.texts import texts_of
from lit_jax.data.images import Pictures, View
from lit_jax.data.resizing import square
from lit_jax.errors import UserError
from lit_jax.prediction.answers import Confidence, ladder, percent
from lit_jax.prediction.choices import Choices
from lit_jax.prediction.formats import DARWIN_CORE, Heading, format_of
from lit_jax.prediction.with_onnx import WithOnnx
from lit_jax.text import tokenizer_json, units
from lit_jax.text.classes import RANKS, ClassTable, read_class_table, species_key
from lit_jax.text.identity import binomial, is_placeholder
from lit_jax.text.tokenizers import tokenizer_from_bytes, train_sentencepiece
from lit_jax.text.units import Reading
from lit_jax.trained import exporting
from lit_jax.trained.exporting import export
from lit_jax.trained.loading import load_whole
from tests import chromium, test_region_lists
from tests.chromium import Browser
from tests.test_exif import CASES, FORMS, exif, photo
from tests.test_images import natural
from tests.test_predict import EPITHETS, HEIC, VIDEO
from tests.test_shown import HOSTILE

PAGE = folder.PAGE
READY = "document.documentElement.classList.contains('ready')"
STRINGS = json.loads((PAGE / "strings.json").read_text())
ODD = (
    "", " ", "Ⅷ ﬁsh Straße", "ΣΊΣΥΦΟΣ ſtraße İı K", "e\u0301e\u0323\u0307 ﷺ", "日本の鳥 ｶﾞ", "🦋 a🦋b", "a\u200bb\u00adc\ufeff",
    "</s> <unk> <0x41>", "\u0907\u0928\u094d\u0926\u094c\u0930", "x\u0000y\tz\r\nw", "한국 각", "Ꭰꭰ ᏸ ǅ ŉ ẞ", "sp.", "×, Parus sp., ?",
    "Parus_major  (Linnaeus, 1758)", "a" * 300, "ﬀﬃ ½ ² № ™ ㎏", "\u0345\u03b9 ᾳ ῼ",
)  # fmt: skip


# Browser, model, app


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not chromium.found() and not os.environ.get("LIT_JAX_TESTS_NEED_CHROMIUM"):
        pytest.skip(chromium.MISSING)
    opened = Browser(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def model(finished):
    return lit_jax.load(finished[0])


@pytest.fixture(scope="module")
def photos(field_guide_folder):
    return [str(path) for path in sorted(field_guide_folder.rglob("*.jpg"))[::9][:9]]


@pytest.fixture(scope="module")
def onnx(finished, tmp_path_factory):
    """The small run's model as a folder of ONNX."""
    path = tmp_path_factory.mktemp("onnx") / "model"
    export(load_whole(finished[0]), path, layout="onnx", weights="fp32")
    return path


@pytest.fixture(scope="module")
def made(onnx, tmp_path_factory):
    """The app as a folder and as one file, and what the command said."""
    here = tmp_path_factory.mktemp("site")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        for more in (["--out", str(here / "app")], ["--out", str(here / "app.html"), "--one-file"]):
            site.main(["--checkpoint", str(onnx), "--title", "Birds & <beetles>", *more])
    return here, out.getvalue()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def served(directory):
    """The address under which a folder is served, and a function that stops that."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()

    def stop():
        if thread.is_alive():
            server.shutdown()
            thread.join()
            server.server_close()

    try:
        yield f"http://127.0.0.1:{server.server_port}/", stop
    finally:
        stop()


@pytest.fixture(scope="module")
def address(made):
    with served(made[0] / "app") as (where, _):
        yield where


@pytest.fixture(scope="module")
def app(browser, address):
    """The app, ready; tests leave it without limits."""
    page = browser.open(address)
    page.wait(READY)
    return page


def looked(page, paths):
    """Gives photos, and waits until all are looked at."""
    before = page.run("document.querySelectorAll('.card').length")
    page.give("#choose-files", paths)
    page.wait(
        f"document.querySelectorAll('.card').length == {before + len(paths)} && !document.querySelector('.card.busy')"
    )


def forgotten(page):
    page.run("(b => { b.click(); b.click() })(document.getElementById('forget-all'))")
    page.wait("!document.querySelector('.card')")


def sure(page, share):
    page.run(
        f"(s => {{ s.value = {round(100 * share)}; s.dispatchEvent(new Event('input')) }})(document.getElementById('sure'))"
    )


def cards(page):
    """Name, what stands below, confidence and likeliest species of each photo, by file name."""
    return page.run("""(() => {
      const text = (at, selector) => at.querySelector(selector)?.textContent ?? "";
      return Object.fromEntries([...document.querySelectorAll(".card")].map((card) => {
        card.querySelector("details").open = true;
        card.querySelector("details").dispatchEvent(new Event("toggle"));
        const ranked = [...card.querySelectorAll(".ranked")].map((list) => [...list.children].map((row) =>
          [text(row, "i") || text(row, "span"), text(row, "b")]));
        const name = [...card.querySelectorAll(".inside .told")].at(-1).textContent;
        return [name, { name: text(card, ".answer"), below: text(card, ".common"), share: text(card, ".confidence b"), ranked,
          facts: [...card.querySelectorAll(".facts li")].map((one) => one.textContent) }];
      }));
    })()""")


def module(name, call):
    """A script that imports a module of the page as `m` and gives the value of an expression."""
    return f"import('./{name}').then(async (m) => {call})"


# The same as Python


def test_photos_are_answered_as_by_python(app, model, photos, tmp_path):
    looked(app, photos)
    try:
        sure(app, 0)
        found = cards(app)
        wanted = {pathlib.Path(one.photo).name: one for one in model.name(photos, top=12)}
        assert set(found) == set(wanted)
        for name, card in found.items():
            likely = {answer.name: answer.confidence for answer in wanted[name].answers}
            best = wanted[name].answers
            assert likely[card["name"]] > best[0].confidence - 1e-3  # the same but for ties
            assert card["name"] != best[0].name or card["below"] == best[0].common_name
            assert len(card["ranked"][0]) == 5
            for (species, told), answer in zip(card["ranked"][0], best, strict=False):
                assert abs(likely[species] - answer.confidence) < 1e-3  # the same but for ties
                assert told in (percent(likely[species] - 1e-3), percent(likely[species] + 1e-3))
        rows = saved(app, tmp_path)
        for row in rows:
            likely = {answer.name: answer.confidence for answer in wanted[row["associatedMedia"]].answers}
            told = float(re.match(r"confidence ([\d.]+);", row["identificationRemarks"])[1])
            assert abs(told - likely[row["scientificName"]]) < 1e-3
        sure(app, 0.5)
        climbed = {pathlib.Path(one.photo).name: one.sure for one in model.name(photos, sure=0.5)}
        for name, card in cards(app).items():
            answer = climbed[name]
            assert abs(answer.confidence - 0.5) < 1e-3 or card["name"] == (
                answer.name if answer.rank else STRINGS["notSure"]
            )
            assert abs(answer.confidence - 0.5) < 1e-3 or not answer.rank or answer.rank in card["facts"]
    finally:
        sure(app, 0.8)
        forgotten(app)


def test_probabilities_and_the_climb_are_those_of_python(app, rng):
    """Margin, two temperatures, sums over ranks with gaps: of random scores, by the page's module."""
    count, lots = 60, 25
    columns = {"name": tuple(f"Species {k}" for k in range(count))}
    for depth, rank in enumerate(RANKS):
        columns[rank] = tuple(
            "" if rng.random() < 0.1 else f"{rank} {k * 2 ** (depth + 1) // count if depth < 4 else k % (3 * depth)}"
            for k in range(count)
        )
    table, seen = ClassTable(tuple(range(count)), columns), rng.random(count) < 0.6
    scores = rng.uniform(-0.2, 0.9, (lots, count)).astype(np.float32)
    confidence, margin = Confidence(14.0, {"seen": 23.0, "unseen": 6.0}, ""), 0.15
    part = np.sort(rng.choice(count, 40, replace=False))
    for chosen in (np.arange(count), part):
        own = table.subset(chosen.tolist())
        steps = ladder(own, seen[chosen])
        likely = confidence.probabilities(scores[:, chosen] - np.float32(margin) * seen[chosen], seen[chosen])
        given = {
            "scores": scores.tolist(), "chosen": chosen.tolist(), "columns": columns,
            "confidence": {"margin": margin, "trained": 14.0, "factors": confidence.factors, "seen": seen.astype(int).tolist()},
            "sures": [0.2, 0.5, 0.8, 0.95],
        }  # fmt: skip
        found = app.run(module("answers.js", f"""{{
          const g = {json.dumps(given)}, rungs = m.ladder(g.columns);
          return g.scores.map((scores) => {{
            const likely = m.probabilities(scores, g.chosen, g.confidence), steps = m.steps(likely, rungs);
            return {{ likely: [...likely], best: m.best(likely, 5), climbed: g.sures.map((sure) => m.climbed(steps, sure)) }};
          }});
        }}"""))  # fmt: skip
        got = np.array([one["likely"] for one in found])
        np.testing.assert_allclose(got[:, chosen], likely, atol=1e-6)
        assert not np.delete(got, chosen, axis=1).any()
        best = [[answer.name for answer in answers] for answers in steps.top(likely, "species", 5)]
        assert [[columns["name"][k] for k in one["best"]] for one in found] == best
        for number, share in enumerate((0.2, 0.5, 0.8, 0.95)):
            for one, answer in zip(found, steps.climb(likely, "species", share), strict=True):
                step = one["climbed"][number] or {"rank": "", "name": "not sure", "confidence": answer.confidence}
                assert (step["rank"], step["name"]) == (answer.rank, answer.name)
                assert step["confidence"] == pytest.approx(answer.confidence, abs=1e-6)


def test_pixels_are_those_of_python(app, rng):
    total = different = 0
    for width, height in ((501, 375), (97, 61), (33, 640), (20, 31), (64, 64)):
        photo = np.asarray(natural(rng, width, height))
        raw = base64.b64encode(np.dstack([photo, np.full(photo.shape[:2], 255, np.uint8)]).tobytes()).decode()
        views = [
            (size, View(interpolation, resize, crop))
            for (size, crop), interpolation, resize in itertools.product(
                ((64, 0.875), (61, 1.0)), ("bicubic", "bilinear"), ("short", "square")
            )
        ]
        asked = [[size, dataclasses.asdict(view)] for size, view in views]
        got = app.run(module("pixels.js", f"""{{
          const raw = Uint8Array.from(atob({raw!r}), (c) => c.charCodeAt(0));
          const rgba = (top, count) => raw.subarray(top * {width} * 4, (top + count) * {width} * 4);
          return {json.dumps(asked)}.map(([size, view]) =>
            btoa(String.fromCharCode(...m.square({width}, {height}, rgba, size, view))));
        }}"""))  # fmt: skip
        for (size, view), text in zip(views, got, strict=True):
            pixels = np.frombuffer(base64.b64decode(text), np.uint8).reshape(size, size, 3)
            wrong = np.abs(pixels.astype(int) - square(photo, Pictures(size, view)))
            assert wrong.max() <= 1
            total, different = total + wrong.size, different + int((wrong > 0).sum())
    assert different <= 1e-4 * total


def test_names_are_compared_as_in_python(app, names):
    changed = app.run(module("names.js", """{
      const found = {};
      for (let code = 0; code < 0x110000; code++) {
        if (code >= 0xd800 && code < 0xe000) continue;
        const letter = String.fromCodePoint(code), folded = m.casefold(letter);
        if (folded !== letter) found[letter] = folded;
      }
      return found;
    }"""))  # fmt: skip
    known = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) not in ("Cn", "Cs")]
    assert {c: changed.get(c, c) for c in known if changed.get(c, c) != c.casefold()} == {}
    texts = [*ODD, *names[::7], "Parus (Parus) cf. major Linnaeus, 1758", "Anas acuta × A. crecca", "P. major", "PARUS_MAJOR",
             "Isoëtes × novae-angliae", "Parus sp. 2", "Rosa 'Peace'", "Carex L., 1753", "Parus Linnaeus, 1758", "Pica pica [x]"]  # fmt: skip
    got = app.run(
        module("names.js", f"{json.dumps(texts)}.map((t) => [m.speciesKey(t), m.binomial(t), m.isPlaceholder(t)])")
    )
    assert [
        row
        for row, text in zip(got, texts, strict=True)
        if row != [species_key(text), binomial(text), is_placeholder(text)]
    ] == []


@pytest.fixture(scope="module")
def names():
    """All 10,000 names of iNaturalist 2021 where they are at hand, else those of the demo; with ranks."""
    shared = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data" / "inat2021-categories.csv"
    if shared.is_file():
        rows = read_class_table(shared).rows()
    else:
        from data_prep.demo import field_guide

        rows = [one.row for one in field_guide.taxonomy(3)]
    return [f"{row['common_name']} {row['name']}, {row['family']}" for row in rows]


def read_by_page(app, kind, given, tokenizer, texts):
    """The ids of texts by the page's tokenizer."""
    data = base64.b64encode(tokenizer).decode()
    return app.run(module("tokens.js", f"""{{
      const bytes = Uint8Array.from(atob({data!r}), (c) => c.charCodeAt(0));
      const read = m.tokenReader(bytes, {json.dumps({"kind": kind, **given})});
      return {json.dumps(texts)}.map((text) => [...read(text)]);
    }}"""))  # fmt: skip


def test_tokens_are_those_of_sentencepiece(app, names, tmp_path):
    tokenizer = train_sentencepiece(names, tmp_path / "t.model", vocab_size=32000 if len(names) > 5000 else 2000)
    texts = [*ODD, *names]
    told = texts_of(Reading(tokenizer, 24)).facts["tokens"]
    got = np.array(read_by_page(app, told.pop("kind"), told, tokenizer.model_bytes, texts))
    wrong = (got != tokenizer.encode(texts, 24)).any(1)
    assert [text for text, is_wrong in zip(texts, wrong, strict=True) if is_wrong] == []


def test_tokens_are_those_of_bert(app, names):
    pytest.importorskip("tokenizers")
    words = sorted({word.lower() for name in names[:500] for word in re.findall(r"\w+", name)})
    parts = sorted(
        {piece for word in words for piece in (word[:3], f"##{word[3:5]}", f"##{word[5:]}") if piece.strip("#")}
    )
    letters = [f"{mark}{letter}" for letter in "abcdefghijklmnopqrstuvwxyz" for mark in ("", "##")]
    vocabulary = list(
        dict.fromkeys(
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, ",", ".", "-", "'", "(", ")", *parts, "日", "本"]
        )
    )
    tokenizer = tokenizer_from_bytes(tokenizer_json.from_wordpiece(vocabulary).encode())
    told = texts_of(Reading(tokenizer, 24)).facts["tokens"]
    texts = [*ODD, *names[:3000], "Isoëtes novae-angliae", "[SEP] [CLS]", "a" * 101]
    got = np.array(read_by_page(app, told.pop("kind"), told, tokenizer.model_bytes, texts))
    wrong = (got != tokenizer.encode(texts, 24)).any(1)
    assert [text for text, is_wrong in zip(texts, wrong, strict=True) if is_wrong] == []


def test_units_are_those_of_python(app, names):
    kinds, texts = units.KINDS, [*ODD, *names]
    vocabulary = units.vocabulary(names[::3], kinds)
    got = app.run(module("units.js", f"""{{
      const read = m.unitReader({json.dumps({"kinds": kinds, "vocabulary": vocabulary, "slots": units.SLOTS})});
      return {json.dumps(texts)}.map((text) => {{
        const {{ row }} = read(text);
        return [...row.slice(0, row.indexOf(-1) < 0 ? row.length : row.indexOf(-1))];
      }});
    }}"""))  # fmt: skip
    wanted = [row[row != units.NONE].tolist() for row in units.encode(texts, kinds, vocabulary)]
    assert [text for text, one, other in zip(texts, got, wanted, strict=True) if one != other] == []


def test_the_app_knows_which_classes_are_seen_and_how_far_they_are_held_back(rng):
    seen = np.array([True, False, True, False, False])
    table = ClassTable((4, 5, 6, 7, 8), {"name": tuple("abcde"), "genus": ("x", "y", "y", "x", "y")})
    for less, margin in ((0.25 * seen, 0.25), (None, 0.0)):
        chosen = Choices(table, rng.normal(size=(5, 8)).astype(np.float32), seen, less)
        told = contents.Contents(
            contents.Told("t", "m", 1),
            Pictures(16),
            chosen,
            Confidence(10.0, {"seen": 3.0, "unseen": 2.0}, "n"),
            b"image",
        )
        files = contents.files_of(told, runtime.Runtime(b"", b""), "fp32")
        described = json.loads(files["app.json"])
        assert (described["margin"], described["trained"], described["factors"]) == (
            margin,
            10,
            {"seen": 3, "unseen": 2},
        )
        (classes,) = (data for name, data in files.items() if name.startswith("classes.json"))
        is_packed = described["files"]["classes.json"].get("gzip", False)
        found = json.loads(gzip.decompress(classes) if is_packed else classes)
        assert found == {
            "seen": [0, 2],
            "columns": {"name": [list("abcde"), None], "genus": [["x", "y"], [0, 1, 1, 0, 1]]},
        }


def test_vectors_come_back_as_they_were_stored(app, rng):
    vectors = rng.normal(size=(7, 12)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[3] = 0
    for stored, error in (("fp32", 0), ("fp16", 2**-11), ("int8", 0.5 / 127)):
        data = base64.b64encode(packed(vectors, stored)).decode()
        got = app.run(module("files.js", f"""[...m.unpackedVectors(
          Uint8Array.from(atob({data!r}), (c) => c.charCodeAt(0)), {{ rows: 7, width: 12, stored: {stored!r} }})]"""))  # fmt: skip
        assert np.abs(np.array(got, np.float32).reshape(7, 12) - vectors).max() <= error * np.abs(vectors).max() + 1e-9


def test_photos_are_compared_with_phrases_as_in_python(app, model, photos):
    looked(app, photos[:3])
    try:
        phrases = ["a red beetle", "Viridopristis"]
        for phrase in phrases:
            app.run(
                f"(document.getElementById('phrase').value = {phrase!r}, document.getElementById('phrase-add').click())"
            )
            app.wait(f"document.querySelector('#phrases .head')?.textContent.startsWith({phrase!r})")
        got = app.run(
            "[...document.querySelectorAll('#phrases ol')].map((o) => [...o.querySelectorAll('img')].map((i) => i.alt))"
        )
        rows = np.stack(list(model.embed_photos(photos[:3])))
        wanted = rows @ model.embed_texts(phrases).T
        for told, scores in zip(got, wanted.T[::-1], strict=True):
            own = {
                name: float(score) for name, score in (re.match(r"(.+): similarity (.+)", one).groups() for one in told)
            }
            assert list(own.values()) == sorted(own.values(), reverse=True)
            for path, score in zip(photos[:3], scores, strict=True):
                assert own[pathlib.Path(path).name] == pytest.approx(score, abs=1e-3)
        shares = next(iter(cards(app).values()))["ranked"][-1]
        assert {text for text, _ in shares} == set(phrases)
    finally:
        app.run(
            "document.querySelectorAll('#phrases button').forEach(() => document.querySelector('#phrases button').click())"
        )
        forgotten(app)


# What is chosen from


def test_a_list_and_a_group_limit_the_answers(app, model, photos, tmp_path):
    table = model.choices().table
    wanted = [table.names[k] for k in (1, 4, 6)]
    lines = [
        f"{wanted[0].upper()} Linnaeus, 1758",
        table.columns["common_name"][4],
        wanted[2],
        "Parus major",
        wanted[2][:-1] + "x",
    ]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    looked(app, photos)
    try:
        sure(app, 0)
        app.give("#list-file", [tmp_path / "list.txt"])
        app.wait("document.getElementById('list-told').textContent")
        told = app.run(
            "document.getElementById('list-told').innerText || document.getElementById('list-told').textContent"
        )
        assert (
            "3 of 5 names" in told
            and "Parus major" in told
            and f"nearest: {wanted[2]}" in told
            and "Taken for granted" in told
        )
        assert app.run("document.getElementById('among').textContent") == "Among 3 of 12 species"
        (tmp_path / "same.txt").write_text("\n".join(wanted))
        named = {
            pathlib.Path(one.photo).name: one.answers
            for one in model.name(photos, model.choices(only=tmp_path / "same.txt"))
        }
        for name, card in cards(app).items():
            likely = {answer.name: answer.confidence for answer in named[name]}
            assert likely[card["name"]] > named[name][0].confidence - 1e-3
            assert {species for species, _ in card["ranked"][0]} <= set(wanted)
        group(app, "genus", table.columns["genus"][1].upper())
        assert app.run("document.getElementById('among').textContent").startswith("Among 1 of 12")
        group(app, "kingdom", next(k for k in table.columns["kingdom"] if k != table.columns["kingdom"][1]))
        assert app.run("document.getElementById('limit-among').textContent") == STRINGS["limitNone"]
        group(app, "genus", "Nothing")
        assert "no genus Nothing" in app.run("document.getElementById('limit-among').textContent")
        app.run("document.getElementById('limit-clear').click()")
        assert app.run("document.getElementById('among').textContent") == "Among all 12 species of the model"
    finally:
        app.run("document.getElementById('limit-clear').click()")
        sure(app, 0.8)
        forgotten(app)


def group(page, column, value):
    page.run(f"""(() => {{ document.getElementById("limit-column").value = {column!r};
      document.getElementById("limit-value").value = {value!r}; document.getElementById("limit-add").click() }})()""")


def test_photos_and_lists_may_be_dropped(app, model, photos):
    data = base64.b64encode(pathlib.Path(photos[0]).read_bytes()).decode()
    app.run(f"""(() => {{
      const dropped = new DataTransfer();
      dropped.items.add(new File([Uint8Array.from(atob({data!r}), (c) => c.charCodeAt(0))], "dropped.jpg"));
      dropped.items.add(new File([{model.choices().table.names[2]!r}], "region.txt", {{ type: "text/plain" }}));
      dispatchEvent(new DragEvent("drop", {{ dataTransfer: dropped, cancelable: true }}));
    }})()""")
    app.wait("document.querySelector('.card') && !document.querySelector('.card.busy')")
    told = app.run("document.getElementById('among').textContent")
    (card,) = cards(app).values()
    app.run("document.getElementById('limit-clear').click()")
    forgotten(app)
    assert told == "Among 1 of 12 species" and (card["name"], card["share"]) == (
        model.choices().table.names[2],
        "100 %",
    )


def test_the_keyboard_asks_and_closes(app):
    def press(key, number):
        for kind in ("rawKeyDown", "char", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "char" else {}
            app.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=number, **text)

    app.call("Page.bringToFront")
    app.run("(document.getElementById('words-open').focus(), document.getElementById('words-open').click())")
    app.run("(document.getElementById('phrase').focus(), document.getElementById('phrase').value = 'a beetle')")
    press("Enter", 13)
    app.wait("document.querySelector('#phrases .head')?.textContent.startsWith('a beetle')")
    assert app.run("document.getElementById('words').open && document.activeElement.id") == "phrase"
    press("Escape", 27)
    app.wait("!document.getElementById('words').open")
    assert app.run("document.activeElement.id") == "words-open"
    app.run("document.querySelector('#phrases button').click()")


def test_lists_are_read_as_in_python(app):
    cases = test_region_lists.CASES
    for case in cases["lists"]:
        raw = base64.b64encode(test_region_lists.raw(case)).decode()
        script = f"""{{ try {{
          const entries = m.entriesOf(m.textOf(Uint8Array.from(atob({raw!r}), (c) => c.charCodeAt(0))));
          return {{ entries, species: [...m.finder({json.dumps(cases["columns"])})(entries).found].sort() }};
        }} catch (error) {{ return {{ line: error.line ?? String(error) }} }} }}"""
        got = app.run(module("lists.js", script))
        for key in ("species", "line", "entries"):
            assert key not in case or got.get(key) == case[key], (case["what"], got)


def test_a_broken_list_changes_nothing_and_says_its_line(app):
    app.run(
        "(document.getElementById('list').value = 'name,note\\na,\"b\\nc,d', document.getElementById('list-use').click())"
    )
    assert app.run("document.getElementById('list-told').textContent") == STRINGS["listBroken"].replace("{line}", "2")
    assert app.run("document.getElementById('among').textContent") == "Among all 12 species of the model"
    app.run("document.getElementById('list').value = ''")


# Results


def saved(page, where):
    """The rows of the CSV that the page saves."""
    page._browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(where), eventsEnabled=True)
    for old in where.glob("*.csv"):
        old.unlink()
    page.run("document.getElementById('save').click()")
    for _ in range(600):
        if found := list(where.glob("*.csv")):
            break
        page.run("new Promise((done) => setTimeout(done, 50))")
    text = found[0].read_text()
    assert text.startswith("associatedMedia,")
    return list(csv.DictReader(io.StringIO(text)))


def test_epithets_are_those_of_python(app):
    photos = [
        {
            "name": "a.jpg",
            "answer": {"rank": "species", "name": name, "commonName": "", "ranks": {"genus": genus}, "confidence": 1},
        }
        for name, genus, _ in EPITHETS
    ]
    text = app.run(module("records.js", f"m.darwinCore({json.dumps(photos)}, {{madeBy: 'x', model: 'm'}})"))
    rows = csv.DictReader(io.StringIO(text))
    assert [(row["scientificName"], row["genus"], row["specificEpithet"]) for row in rows] == EPITHETS


def test_what_is_as_likely_as_was_asked_for_is_sure(app):
    steps = [{"rank": "species", "confidence": 0.5}, {"rank": "genus", "confidence": 0.75}]
    shares = (0.25, 0.5, 0.625, 0.75, 0.875)
    found = app.run(
        module("answers.js", f"{json.dumps(shares)}.map((sure) => m.climbed({json.dumps(steps)}, sure)?.rank)")
    )
    assert found == ["species", "species", "genus", "genus", None]


def test_names_from_strangers_are_shown_as_texts(browser, onnx, model, photos, tmp_path):
    """Class names, files and a title that are markup, formulas or escapes: letters on the page, and exact in the CSV."""
    own, engine = model.choices(), WithOnnx(onnx)
    names = tuple(f"{HOSTILE[k % len(HOSTILE)]}{k}" for k in range(len(own)))
    table = ClassTable(own.table.ids, {"name": names, "common_name": names[::-1], "genus": HOSTILE[-len(own) :]})
    chosen = Choices(table, own.vectors, own.seen, None, notes=HOSTILE)
    told = contents.Contents(
        contents.Told(HOSTILE[0], HOSTILE[1], 1, HOSTILE, HOSTILE[2]),
        engine.pictures,
        chosen,
        Confidence(10.0, {}, HOSTILE[3]),
        (onnx / "image.onnx").read_bytes(),
    )
    files = contents.files_of(told, runtime.runtime(), "fp32")
    (tmp_path / "app").mkdir()
    for name, data in folder.folder_files(files, runtime.runtime(), HOSTILE[0]).items():
        (tmp_path / "app" / name).write_bytes(data)
    (tmp_path / "app.html").write_text(folder.one_file(files, runtime.runtime(), HOSTILE[0]))
    given = [tmp_path / name for name in ("=1+1.jpg", "<b>x<.jpg", "\x1b[31m.jpg", "-2.jpg")]
    for path in given:
        shutil.copy(photos[0], path)
    count = "[...document.querySelectorAll('script, img, b, u, link')].length"
    with served(tmp_path / "app") as (where, _):
        for address in (where, (tmp_path / "app.html").as_uri()):
            page = browser.open(address)
            page.wait(READY)
            before = page.run(count)
            assert page.run("[document.title, document.querySelector('h1').textContent]") == [HOSTILE[0]] * 2
            looked(page, given)
            sure(page, 0)
            likely = [name for name, _ in next(iter(cards(page).values()))["ranked"][0]]
            assert set(likely) <= set(names) and len(likely) == 5
            # A card has a picture and a number in bold; its inside a number a row.
            parts = page.run("[...document.querySelectorAll('#photos img, #photos b')].length")
            assert page.run(count) - before == parts and page.run("document.querySelectorAll('#photos u').length") == 0
            texts = page.run("[...document.querySelectorAll('#about-text p')].map((one) => one.textContent)")
            assert set(HOSTILE) <= set(texts)
            if address == where:
                rows = saved(page, tmp_path)
                assert {row["associatedMedia"] for row in rows} == {
                    "./=1+1.jpg",
                    "<b>x<.jpg",
                    "\x1b[31m.jpg",
                    "./-2.jpg",
                }
                assert {row["scientificName"] for row in rows} <= set(names)
            forgotten(page)
            page.close()


def test_values_of_the_csv_may_hold_its_own_signs(app):
    odd = ('a, "b".jpg', '"', "two\nlines.jpg", "a;b\tc.jpg", "")
    photos = [{"name": name, "error": f"not {name}"} for name in odd]
    about = {"madeBy": "x", "model": 'm, "n"'}
    text = app.run(module("records.js", f"m.darwinCore({json.dumps(photos)}, {json.dumps(about)})"))
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert tuple(row["associatedMedia"] for row in rows) == odd
    assert {row["identifiedBy"] for row in rows} == {'x, model m, "n"'} and all(None not in row for row in rows)


def test_the_csv_is_darwin_core_as_python_writes_it(app, browser, model, photos, tmp_path):
    (tmp_path / "broken,1.jpg").write_bytes(b"no photo")
    tags = Image.Exif()
    tags.get_ifd(0x8769)[0x9003] = "2026:05:01 10:22:33"
    tags.get_ifd(0x8825).update({1: "S", 2: (46.0, 30.0, 36.0), 3: "W", 4: (7.0, 15.0, 0.0)})
    with Image.open(photos[0]) as picture:
        picture.save(tmp_path / "placed.jpg", exif=tags, quality=95)
    given = [*photos[1:5], str(tmp_path / "broken,1.jpg"), str(tmp_path / "placed.jpg")]
    browser.call("Browser.grantPermissions", permissions=["geolocation"])
    app.call("Emulation.setGeolocationOverride", latitude=51.25, longitude=-0.5, accuracy=12.3)
    looked(app, given)
    try:
        rows = {row["associatedMedia"]: row for row in saved(app, tmp_path)}
        assert not any(row["eventDate"] or row["decimalLatitude"] for row in rows.values())  # nobody allowed it
        about = model.choices()
        heading = Heading("model", model.engine.step, len(about), model.confidence.note, "")
        form = format_of("dwc", heading)
        for one in model.name(given, sure=0.8):
            name = pathlib.Path(one.photo).name
            (wanted,) = csv.DictReader(io.StringIO(form.head + form.text(dataclasses.replace(one, photo=name))))
            assert list(rows[name])[: len(DARWIN_CORE)] == list(DARWIN_CORE)
            if one.error:
                assert rows[name]["identificationRemarks"].startswith(
                    "photo could not be read: "
                ) and "notAPhoto" not in str(rows[name])
            elif abs(one.sure.confidence - 0.8) > 1e-3:
                both = [
                    {k: v for k, v in row.items() if k in DARWIN_CORE and k != "identificationRemarks"}
                    for row in (rows[name], wanted)
                ]
                assert both[0] == both[1]
                numbers = [
                    re.search(r"confidence ([\d.]+); (.*)", row["identificationRemarks"])
                    for row in (rows[name], wanted)
                ]
                assert (
                    float(numbers[0][1]) == pytest.approx(float(numbers[1][1]), abs=1e-3)
                    and numbers[0][2] == numbers[1][2]
                )
        app.run("['with-time', 'with-place'].forEach((id) => document.getElementById(id).click())")
        app.wait(f"document.getElementById('place-told').textContent == {STRINGS['placeKnown']!r}")
        with Image.open(photos[5]) as picture:
            picture.save(tmp_path / "fresh.jpg", quality=95)
        looked(app, [tmp_path / "fresh.jpg"])
        app.run("new Promise((done) => navigator.geolocation.getCurrentPosition(done, done)).then(() => null)")
        rows = {row["associatedMedia"]: row for row in saved(app, tmp_path)}
        placed, fresh = rows["placed.jpg"], rows["fresh.jpg"]
        assert placed["eventDate"] == "2026-05-01T10:22:33" and placed["geodeticDatum"] == "WGS84"
        assert (float(placed["decimalLatitude"]), float(placed["decimalLongitude"])) == (-46.51, -7.25)
        assert (fresh["decimalLatitude"], fresh["coordinateUncertaintyInMeters"]) == ("51.250000", "13")
        assert fresh["eventDate"] == ""  # the file's time is when it was copied
        assert rows[pathlib.Path(photos[1]).name]["decimalLatitude"] == ""  # was looked at before
    finally:
        app.run("['with-time', 'with-place'].forEach((id) => document.getElementById(id).click())")
        forgotten(app)


def test_time_and_place_of_a_photo_are_those_that_are_real(app):
    """By the values that the test of Python's reader has."""
    files = [
        [kind, base64.b64encode(photo(form, exif(case))).decode()]
        for form, kind in FORMS.items()
        for case in CASES
        if form != "AVIF" or features.check("avif")
    ]
    found = app.run(
        module(
            "exif.js",
            f"{json.dumps(files)}.map(([k, t]) => m.taken(Uint8Array.from(atob(t), (c) => c.charCodeAt(0)), k))",
        )
    )
    got = [[one.get("date", ""), list(one.get("place", {}).values()) or None] for one in found]
    for (kind, _), case, one in zip(files, itertools.cycle(CASES), got, strict=False):
        assert one == [case["date"], case["place"] and pytest.approx(case["place"])], (kind, case["why"])


def heif(content, version, how):
    """A HEIC without a picture, by ISO/IEC 14496-12 and 23008-12: its EXIF in the file (0) or in the box idat (1)."""

    def box(name, inside):
        return struct.pack(">I", 8 + len(inside)) + name + inside

    def place(number, at, size):
        method = struct.pack(">H", how) if version else b""
        wide = ">I" if version == 2 else ">H"
        return struct.pack(wide, number) + method + struct.pack(">HHII", 0, 1, at, size)

    item = struct.pack(">I", 6) + content  # six bytes, Exif and two zeros, before the TIFF
    infos = [box(b"infe", struct.pack(">BxxxHH", 2, n, 0) + kind + b"\0") for n, kind in ((1, b"hvc1"), (2, b"Exif"))]
    head = box(b"ftyp", b"heic\0\0\0\0mif1heic")

    def meta(at):
        count = struct.pack(">I" if version == 2 else ">H", 2)
        places = struct.pack(">BxxxBB", version, 0x44, 0) + count + place(1, 0, 0) + place(2, at, len(item))
        inside = (
            box(b"hdlr", bytes(25)) + box(b"iinf", struct.pack(">BxxxH", 0, 2) + b"".join(infos)) + box(b"iloc", places)
        )
        return box(b"meta", bytes(4) + inside + (box(b"idat", b"other" + item) if how else b""))

    start = 5 if how else len(head) + len(meta(0)) + 8
    return head + meta(start) + (b"" if how else box(b"mdat", item))


@pytest.mark.parametrize(("version", "how"), [(0, 0), (1, 0), (1, 1), (2, 0)])
def test_time_and_place_of_a_heic_photo(app, version, how):
    data = base64.b64encode(heif(exif(CASES[0]), version, how)).decode()
    found = app.run(module("exif.js", f"m.taken(Uint8Array.from(atob({data!r}), (c) => c.charCodeAt(0)), 'heic')"))
    assert found == {"date": CASES[0]["date"], "place": {"latitude": 48.5, "longitude": 2.25}}


def test_damaged_exif_says_nothing_and_ends(app):
    rest = random.Random(3)
    files = []
    for form, kind in FORMS.items():
        whole = photo(form, exif(CASES[0])) if form != "AVIF" or features.check("avif") else b""
        for _ in range(100 if whole else 0):
            data = bytearray(whole[: rest.randrange(1, len(whole))] if rest.random() < 0.3 else whole)
            for _ in range(rest.randrange(1, 6)):
                data[rest.randrange(len(data))] = rest.choice((0, 1, 0x7F, 0xFF))
            files.append([kind, base64.b64encode(data).decode()])
    found = app.run(
        module(
            "exif.js",
            f"{json.dumps(files)}.map(([k, t]) => m.taken(Uint8Array.from(atob(t), (c) => c.charCodeAt(0)), k))",
        )
    )
    assert len(found) == len(files)
    places = [one["place"] for one in found if "place" in one]
    assert all(abs(place["latitude"]) <= 90 and abs(place["longitude"]) <= 180 for place in places)


# What a picture must be stored as for a viewer to turn it upright: orientations of Exif, section 4.6.4.
STORED_AS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


def test_photos_of_every_format_are_turned_upright(app, rng, tmp_path):
    """Whatever the browser does by itself, which for WebP differs."""
    upright = np.asarray(natural(rng, 61, 40))
    paths = []
    for form, ending in (("PNG", "png"), ("WEBP", "webp")):
        for turn, stored in STORED_AS.items():
            tags = Image.Exif()
            tags[0x0112] = turn
            paths.append(tmp_path / f"{turn}.{ending}")
            more = {"lossless": True} if form == "WEBP" else {}
            Image.fromarray(np.ascontiguousarray(stored(upright))).save(paths[-1], form, exif=tags, **more)
    looked(app, paths)
    try:
        found = cards(app)
        sizes = app.run(
            "[...document.querySelectorAll('.card .picture')].map((one) => [one.naturalWidth, one.naturalHeight])"
        )
        assert set(map(tuple, sizes)) == {(61, 40)}
        assert all(found[path.name] == found["1.png"] for path in paths)
    finally:
        forgotten(app)


# What is amiss


def png_header(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_files_that_cannot_be_read_get_a_sentence_and_others_an_answer(app, photos, rng, tmp_path):
    whole = pathlib.Path(photos[0]).read_bytes()
    frames = [natural(rng, 40, 30).convert("P") for _ in range(3)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:], duration=100)
    bad = {
        "cut.jpg": (whole[: len(whole) // 2], "truncated"), "a.heic": (HEIC, "heic"), "film.mp4": (VIDEO, "video"),
        "empty.jpg": (b"", "empty"), "notes.jpg": (b"hello", "notAPhoto"), "raw.tif": (b"II*\0" + bytes(200), "tiff"),
        "panorama.png": (png_header(20_000, 6_000), "tooLarge"), "damaged.png": (png_header(50, 50), "broken"),
    }  # fmt: skip
    for name, (data, _) in bad.items():
        (tmp_path / name).write_bytes(data)
    looked(app, [*(tmp_path / name for name in bad), tmp_path / "moving.gif", photos[0]])
    found = cards(app)
    forgotten(app)
    assert {name: found[name]["below"] for name in bad} == {name: STRINGS[key] for name, (_, key) in bad.items()}
    assert STRINGS["firstFrame"] in found["moving.gif"]["facts"] and found[pathlib.Path(photos[0]).name][
        "share"
    ].endswith("%")


def test_photos_of_a_session_are_there_when_the_page_comes_back(app, photos):
    looked(app, photos[:2])
    before = cards(app)
    app.go(app.run("location.href"))
    app.wait(f"{READY} && document.querySelectorAll('.card').length == 2")
    assert cards(app) == before
    forgotten(app)


def test_it_works_when_its_server_has_gone(browser, made, photos):
    with served(made[0] / "app") as (where, stop):
        page = browser.open(where)
        page.wait("document.documentElement.classList.contains('offline-ready')")
        stop()
        page.go(f"{where}?again")
        page.wait(f"location.search == '?again' && {READY}")
        looked(page, photos[:1])
        (card,) = cards(page).values()
        page.close()
    assert card["share"].endswith("%")


def test_what_another_page_of_the_host_keeps_or_damages_does_not_stop_it(browser, made, photos):
    """Pages of one host share what the browser keeps; entries that are none of the app's are set aside in one line."""
    told = "document.getElementById('notices').textContent"
    with served(made[0] / "app") as (where, _):
        page = browser.open(f"{where}LICENCES.txt")
        page.wait("location.pathname == '/LICENCES.txt'")
        page.run("""new Promise((done) => {  // a base that other apps might have, and other keys
          const request = indexedDB.open("lit_jax", 7);
          request.onupgradeneeded = () => request.result.createObjectStore("other");
          request.onsuccess = () => { request.result.close(); done(null) };
          localStorage.setItem("limits", "[");
        })""")
        page.go(where)
        page.wait(READY)
        assert page.run(told) == ""
        looked(page, photos[:1])
        before = cards(page)
        for limits in (
            "not JSON",
            "null",
            '{"model": "DIGEST", "limits": [{"column": "none", "value": 3}]}',
            '{"model": "DIGEST", "limits": [], "list": {"classes": 5}}',
            '{"limits": []}',
        ):
            digest = json.loads((made[0] / "app" / "app.json").read_text())["digest"]
            page.run(f"localStorage.setItem('lit_jax / limits', {limits.replace('DIGEST', digest)!r})")
            page.run("localStorage.setItem('lit_jax / sure', 'surely')")
            page.go(f"{where}?{abs(hash(limits))}")
            page.wait(f"location.search == '?{abs(hash(limits))}' && {READY}")
            assert page.run(told) == STRINGS["keptDamaged"], limits
            assert page.run("document.getElementById('among').textContent").startswith("Among all 12")
            assert page.run("document.getElementById('sure-value').textContent") == "80 %"
            assert page.run("localStorage.getItem('lit_jax / limits')") is None
        page.run("""new Promise((done) => {
          const request = indexedDB.open("lit_jax /");
          request.onsuccess = () => {
            const change = request.result.transaction("photos", "readwrite"), store = change.objectStore("photos");
            store.put({ id: "foreign" });
            store.getAll().onsuccess = ({ target: { result: [own] } }) => {
              for (const [i, part] of [{ vector: null }, { vector: new Float32Array(3) }, { thumbnail: "no picture" }, { name: 5 },
                { place: { latitude: "north" } }, { vector: own.vector.map(() => NaN) }, { added: null }, { model: 5 }].entries()) {
                store.put({ ...own, id: `damaged ${i}`, ...part });
              }
              store.put({ ...own, id: "of an earlier model", model: "earlier" });
            };
            change.oncomplete = () => { request.result.close(); done(null) };
          };
        })""")
        for visit, said in (("first", STRINGS["keptDamaged"]), ("second", "")):
            page.go(f"{where}?{visit}")
            page.wait(f"location.search == '?{visit}' && {READY}")
            assert cards(page) == before and page.run(told) == said
        page.go(f"{where}LICENCES.txt")
        page.wait("location.pathname == '/LICENCES.txt'")
        page.run("""new Promise((done) => {  // a base under the app's own name, which is another one
          indexedDB.deleteDatabase("lit_jax /").onsuccess = () => {
            const request = indexedDB.open("lit_jax /", 1);
            request.onupgradeneeded = () => request.result.createObjectStore("other");
            request.onsuccess = () => { request.result.close(); done(null) };
          };
        })""")
        page.go(where)
        page.wait(f"location.pathname == '/' && {READY}")
        looked(page, photos[:1])
        assert cards(page) == before
        page.close()


# Writes the app's photos as the first version kept them: those of all apps of a host in one base.
AS_BEFORE = """(digest) => new Promise((done) => {
  const base = (name) => new Promise((resolve) => {
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => request.result.createObjectStore("photos", { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
  });
  base("lit_jax /").then((here) => here.transaction("photos").objectStore("photos").getAll().onsuccess = async (event) => {
    const own = event.target.result, before = await base("lit_jax"), change = before.transaction("photos", "readwrite");
    const put = (photo) => change.objectStore("photos").put(photo);
    own.forEach(({ model, ...photo }) => put({ ...photo, where: `/ ${digest}` }));
    put({ ...own[0], id: "other app", where: `/other/ ${digest}` });
    put({ ...own[0], id: "other model", where: "/ earlier" });
    put({ ...own[0], id: "damaged", where: `/ ${digest}`, vector: null });
    change.oncomplete = () => {
      before.close();
      here.close();
      indexedDB.deleteDatabase("lit_jax /").onsuccess = () => done(null);
    };
  });
})"""
IDS_IN = """(name) => new Promise((done) => { const request = indexedDB.open(name); request.onsuccess = () => {
  request.result.transaction("photos").objectStore("photos").getAll().onsuccess = ({ target: { result } }) => {
    request.result.close();
    done(result.map((one) => one.id.length == 36 ? "own" : one.id).sort().join());
  };
} })"""
IDS_BEFORE = f"({IDS_IN})('lit_jax')"
FORGOTTEN = f"""new Promise(async (done) => {{
  for (const name of ["lit_jax", "lit_jax /"]) while ((await ({IDS_IN})(name)).includes("own"));
  done(null);
}})"""


def test_photos_that_the_first_version_kept_are_taken_over_once(browser, made, photos):
    """It kept those of all apps of a host in one base, which stays as it is but for what is forgotten."""
    digest = json.loads((made[0] / "app" / "app.json").read_text())["digest"]
    others = "damaged,other app,other model"
    with served(made[0] / "app") as (where, _):
        page = browser.open(where)
        page.wait(READY)
        looked(page, photos[:2])
        before = cards(page)
        page.go(f"{where}LICENCES.txt")
        page.wait("location.pathname == '/LICENCES.txt'")
        page.run(f"({AS_BEFORE})({digest!r})")
        assert page.run(IDS_BEFORE) == f"{others},own,own"
        for visit in ("first", "second"):  # the second finds its own base, in which they are
            page.go(f"{where}?{visit}")
            page.wait(f"location.search == '?{visit}' && {READY}")
            assert cards(page) == before
            assert page.run("document.getElementById('notices').textContent") == ""
            assert page.run(IDS_BEFORE) == f"{others},own,own"
        forgotten(page)
        page.run(FORGOTTEN)
        page.go(f"{where}?third")
        page.wait(f"location.search == '?third' && {READY}")
        assert cards(page) == {} and page.run(IDS_BEFORE) == others
        page.close()


def test_other_pages_of_the_host_stay_as_they_are(browser, made, photos, tmp_path):
    """The app answers, with and without its server, for its own page and files only, even at the root of a host."""
    shutil.copytree(made[0] / "app", tmp_path / "host")
    others = {"other.html": "other page", "sub/index.html": "page below", "sub/app.js": "script below"}
    (tmp_path / "host" / "sub").mkdir()
    for name, text in others.items():
        (tmp_path / "host" / name).write_text(text)
    with served(tmp_path / "host") as (where, stop):
        page = browser.open(where)
        page.wait("document.documentElement.classList.contains('offline-ready')")
        for name, text in {**others, "sub/": "page below", "LICENCES.txt": "The page: lit_jax"}.items():
            page.go(f"{where}{name}")
            page.wait(f"location.pathname == '/{name}' && document.body?.innerText.startsWith({text!r})")
            assert page.run("Boolean(navigator.serviceWorker.controller)")
        assert page.run("fetch('/none.html').then((answer) => answer.status)") == 404
        stop()
        for address in ("", "index.html", "?some=query"):
            page.go(f"{where}{address}")
            page.wait(f"location.href.endsWith({f'/{address}'!r}) && {READY}")
        page.go(f"{where}LICENCES.txt")
        page.wait("document.body?.innerText.startsWith('The page: lit_jax')")
        assert page.run("caches.match('/other.html').then((one) => one ?? null)") is None
        page.close()


def flipped(path, at=None):
    """Changes a byte of a file, in its middle, and gives its content before that."""
    before = path.read_bytes()
    data = bytearray(before)
    data[len(data) // 2 if at is None else at] ^= 1
    path.write_bytes(data)
    return before


# The scripts are damaged in a comment, which runs as before, and where they do not run any more.
@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("image.onnx", None),
        ("classes.json", None),
        ("text.onnx", None),
        ("app.json", None),
        ("worker.js", 5),
        ("common.js", 5),
        ("app.js", 5),
        ("app.js", 0),
        ("engine.js", 0),
        ("start.js", 0),
        ("ort.js", 5),
        ("style.css", 5),
    ],
)
def test_a_damaged_file_is_told_and_not_kept(browser, made, tmp_path, name, at):
    shutil.copytree(made[0] / "app", tmp_path / "app")
    (path,) = (one for one in (tmp_path / "app").iterdir() if one.name.removesuffix(contents.PACKED) == name)
    whole = flipped(path, at)
    with served(tmp_path / "app") as (where, _):
        page = browser.open(where)
        page.wait("document.getElementById('stop') && !document.getElementById('stop').hidden")
        assert page.run("document.getElementById('stop').textContent") == STRINGS["fileWrong"].replace("{file}", name)
        assert page.run("document.getElementById('bar').hidden")
        path.write_bytes(whole)
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime + 60))  # the server tells of seconds only
        page.go(f"{where}?mended")
        page.wait(f"location.search == '?mended' && {READY}")
        page.close()


def test_a_damaged_file_is_not_kept_for_use_without_a_network(browser, made, tmp_path):
    shutil.copytree(made[0] / "app", tmp_path / "app")
    path = tmp_path / "app" / "icon-512.png"  # which the page does not run, and so does not check
    whole = flipped(path)
    kept = "caches.keys().then((all) => all.filter((one) => one.startsWith('lit_jax page')).length)"
    with served(tmp_path / "app") as (where, _):
        page = browser.open(where)
        page.wait(f"{READY} && document.getElementById('notices').textContent")
        assert page.run("document.getElementById('notices').textContent") == STRINGS["offlineFailed"]
        assert page.run(kept) == 0
        path.write_bytes(whole)
        page.go(f"{where}?mended")
        page.wait("location.search == '?mended' && document.documentElement.classList.contains('offline-ready')")
        assert page.run(kept) == 1
        # What is damaged later, on the device, is fetched again.
        page.run("""caches.keys().then(async (all) => {
          const cache = await caches.open(all.find((one) => one.startsWith("lit_jax page")));
          await cache.put("names.js", new Response("export const speciesKey = 5;", { headers: { "content-type": "text/javascript" } }));
        })""")
        page.go(f"{where}?damaged")
        page.wait(f"location.search == '?damaged' && {READY}")
        assert page.run("caches.match('/names.js').then((one) => one.text())") == (PAGE / "names.js").read_text()
        page.close()


@pytest.mark.parametrize("name", ["image.onnx", "ort.js", "app.json", "comment"])
def test_damage_in_the_one_file_is_told(browser, made, tmp_path, name):
    text = (made[0] / "app.html").read_text()
    at = text.index("// The page: photos in") if name == "comment" else text.index(f'id="file:{name}">') + 400
    (tmp_path / "app.html").write_text(text[: at + 3] + ("A" if text[at + 3] != "A" else "B") + text[at + 4 :])
    page = browser.open((tmp_path / "app.html").as_uri())
    page.wait("document.getElementById('stop') && !document.getElementById('stop').hidden")
    told = page.run("document.getElementById('stop').textContent")
    assert told == STRINGS["fileWrong"].replace("{file}", "app.js" if name == "comment" else name)
    page.close()


def test_sentences_may_be_edited_in_the_folder(browser, made, tmp_path):
    shutil.copytree(made[0] / "app", tmp_path / "app")
    path = tmp_path / "app" / "strings.js"
    path.write_text(path.read_text().replace("What is it?", "Was ist das?"))
    with served(tmp_path / "app") as (where, _):
        page = browser.open(where)
        page.wait("document.documentElement.classList.contains('offline-ready')")
        assert page.run("document.querySelector('#welcome h2').textContent") == "Was ist das?"
        path.write_text("globalThis.STRINGS = {")
        page.go(where.replace("127.0.0.1", "localhost"))  # another origin, where nothing is kept
        page.wait("document.getElementById('stop')?.textContent.startsWith('The file strings.js is damaged')")
        page.close()


def test_a_new_version_is_told_and_there_on_the_next_visit(browser, made, tmp_path):
    shutil.copytree(made[0] / "app", tmp_path / "app")
    with served(tmp_path / "app") as (where, _):
        page = browser.open(where)
        page.wait("document.documentElement.classList.contains('offline-ready')")
        for name, old, new in (("index.html", "Birds", "Other birds"), ("sw.js", 'VERSION = "', 'VERSION = "new ')):
            path = tmp_path / "app" / name
            path.write_text(path.read_text().replace(old, new))
        page.go(f"{where}?again")
        page.wait("location.search == '?again' && document.getElementById('notices')?.textContent")
        told = page.run("document.getElementById('notices').textContent")
        assert page.run("document.title").startswith("Birds") and told == STRINGS["newVersion"]
        page.go(f"{where}?more")
        page.wait(f"location.search == '?more' && {READY}")
        assert page.run("document.title").startswith("Other birds")
        page.close()


def test_one_file_works_from_the_disk(browser, app, made, photos):
    page = browser.open((made[0] / "app.html").as_uri())
    page.wait(READY)
    for one in (page, app):
        looked(one, photos[:2])
    assert cards(page) == cards(app)
    assert page.run("fetch('data:,a').then((r) => r.text())") == "a" and not reaches(page, app.run("location.href"))
    forgotten(app)
    page.close()


def test_a_folder_opened_from_the_disk_says_what_to_do(browser, made):
    page = browser.open((made[0] / "app" / "index.html").as_uri())
    page.wait(f"document.getElementById('stop')?.textContent == {STRINGS['openedAsFolder']!r}")
    assert page.run("!document.getElementById('stop').hidden && document.getElementById('bar').hidden")
    page.close()


def test_a_file_of_another_model_is_refused(browser, made, tmp_path):
    shutil.copytree(made[0] / "app", tmp_path / "app")
    path = tmp_path / "app" / "vectors.bin"
    path.write_bytes(path.read_bytes()[::-1])
    with served(tmp_path / "app") as (where, _):
        page = browser.open(where)
        page.wait("!document.getElementById('stop').hidden")
        assert page.run("document.getElementById('stop').textContent") == STRINGS["fileWrong"].replace(
            "{file}", "vectors.bin"
        )
        path.unlink()
        page.go(where)
        page.wait(
            f"document.getElementById('stop')?.textContent == {STRINGS['fileMissing'].replace('{file}', 'vectors.bin')!r}"
        )
        page.close()


def test_a_device_without_room_is_told_and_the_app_works(browser, made):
    with served(made[0] / "app") as (where, _):
        page = browser.open("about:blank")
        page.call(
            "Page.addScriptToEvaluateOnNewDocument",
            source="Cache.prototype.put = async () => { throw new DOMException('', 'QuotaExceededError') }",
        )
        page.go(where)
        page.wait(READY)
        assert page.run("document.getElementById('notices').textContent") == STRINGS["storageFull"]
        page.close()


def test_an_error_of_the_browsers_own_does_not_stop_it(browser, made):
    with served(made[0] / "app") as (where, _):
        page = browser.open("about:blank")
        error = "new ErrorEvent('error', { filename: 'chrome-extension://x/y.js', message: 'no matter' })"
        page.call(
            "Page.addScriptToEvaluateOnNewDocument",
            source=f"addEventListener('DOMContentLoaded', () => {{ dispatchEvent({error}); window.heard = true }})",
        )
        page.go(where)
        page.wait(f"{READY} && window.heard")
        assert page.run("document.getElementById('stop').hidden")
        page.close()


def reaches(page, address):
    return page.run(f"fetch({address!r}, {{ mode: 'no-cors' }}).then(() => true, () => false)")


def test_nothing_can_be_sent_elsewhere(browser, app, tmp_path):
    with served(tmp_path) as (elsewhere, _):
        own = app.run("location.href")
        assert reaches(app, own) and not reaches(app, elsewhere)
        # Nor from a worker such as the page's.
        script = f"fetch({elsewhere!r}, {{ mode: 'no-cors' }}).then(() => postMessage(true), () => postMessage(false))"
        made = f"new Worker(URL.createObjectURL(new Blob([{script!r}])))"
        assert app.run(f"new Promise((done) => {{ {made}.onmessage = ({{ data }}) => done(data) }})") is False


# For everybody


def test_every_sentence_is_used_and_there(app):
    sources = "".join(path.read_text() for path in PAGE.iterdir() if path.suffix in (".js", ".html"))
    keys = {re.sub(r"_(one|other)$", "", key) for key in STRINGS}
    asked = set(
        re.findall(r"""(?:\bt\(|notice\(|tell\(|BadPhoto\(|BadFile\(|data-text=|data-label=)"(\w+)\"""", sources)
    )
    assert asked <= keys, asked - keys
    words = set(re.findall(r"[A-Za-z]\w*", sources))
    assert {key for key in keys - words if not key.startswith("rank_")} == {"noScript"}  # which the command puts in
    assert app.run("[...document.querySelectorAll('[data-text]')].every((one) => one.textContent.trim())")
    assert app.run("document.title") == "Birds & <beetles>"


def test_colours_stand_out(made):
    """Contrast as WCAG 2 defines it: at least 4.5 for text."""
    css = (PAGE / "style.css").read_text()
    light = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,8})", css.partition("@media")[0]))
    dark = light | dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,8})", css.partition("@media")[2].partition("*")[0]))

    def light_of(colour):
        digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
        values = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for scheme in (light, dark):
        for above, below in (("ink", "paper"), ("ink", "card"), ("ink", "tint"), ("quiet", "paper"), ("quiet", "card"), ("quiet", "tint"), ("blue", "card"),
                             ("blue", "paper"), ("blue", "tint"), ("on-blue", "blue"), ("warm", "card"), ("warm", "warm-tint"), ("ink", "warm-tint")):  # fmt: skip
            one, other = sorted((light_of(scheme[above]), light_of(scheme[below])))
            assert (other + 0.05) / (one + 0.05) >= 4.5, (above, below)


def test_controls_have_names_and_are_large_enough(app):
    app.look(390, 844, phone=True)
    app.run("document.querySelectorAll('dialog').forEach((one) => one.setAttribute('open', ''))")
    try:
        wrong = app.run("""[...document.querySelectorAll("button, input, select, textarea, summary")].filter((one) => {
          const { width, height } = (one.type === "checkbox" ? one.parentElement : one).getBoundingClientRect();
          const named = one.textContent.trim() || one.getAttribute("aria-label") || one.labels?.[0]?.textContent.trim();
          return one.type !== "file" && !one.closest("[hidden]") && (!named || width < 40 || height < 40);
        }).map((one) => one.outerHTML.slice(0, 120))""")
        assert wrong == []
        assert app.run("document.documentElement.scrollWidth <= innerWidth")
    finally:
        app.run("document.querySelectorAll('dialog').forEach((one) => one.removeAttribute('open'))")


# The command


def test_the_command_says_what_it_made(made):
    lines = made[1].splitlines()
    assert (
        re.search(r"app: 12 species, \d\.\d MB; try it with: python -m http.server", lines[0])
        and "open it in a browser" in lines[1]
    )
    told = json.loads((made[0] / "app" / "app.json").read_text())
    assert told["note"].startswith("confidence was") and told["runtime"] == runtime.VERSION
    assert "Copyright (c) Microsoft Corporation" in (made[0] / "app" / "LICENCES.txt").read_text()


def test_what_it_writes_has_no_path_of_its_maker(onnx, model, tmp_path, capsys):
    region = tmp_path / "home" / "region.txt"
    region.parent.mkdir()
    table = model.choices().table
    region.write_text("\n".join([*table.names[:5], "Parus major", f"{table.names[6]} Linnaeus, 1758"]))
    (tmp_path / "home" / "classes.csv").write_text("name\n" + "\n".join([*table.names[:8], table.names[0]]))
    start = ["--checkpoint", str(onnx), "--only", str(region), "--classes", str(region.parent / "classes.csv")]
    site.main([*start, "--out", str(tmp_path / "app")])
    site.main([*start, "--out", str(tmp_path / "app.html"), "--one-file"])
    capsys.readouterr()
    written = [path for path in [*(tmp_path / "app").iterdir(), tmp_path / "app.html"] if path.is_file()]
    assert [path.name for path in written if str(tmp_path).encode() in path.read_bytes()] == []
    notes = json.loads((tmp_path / "app" / "app.json").read_text())["notes"]
    assert any(note.startswith("region.txt: 1 of its 7 names") for note in notes)
    text = base64.b64decode(re.search(r'id="file:app.json">([^<]*)<', (tmp_path / "app.html").read_text())[1])
    assert json.loads(text)["notes"] == notes


def test_a_command_that_is_ended_leaves_no_temporary_folder(finished, tmp_path):
    """By SIGTERM, as by schedulers and `timeout`, while the model is written in ONNX."""
    (tmp_path / "tmp").mkdir()
    script = """
import os, signal, sys
from lit_jax import site
from lit_jax.trained import exporting
exporting.export = lambda trained, out, **_: (out.mkdir(), os.kill(os.getpid(), signal.SIGTERM), print("went on"))
site.main(sys.argv[1:])
"""
    command = [sys.executable, "-c", script, "--checkpoint", str(finished[0]), "--out", str(tmp_path / "app")]
    done = subprocess.run(command, env={**os.environ, "TMPDIR": str(tmp_path / "tmp")}, capture_output=True, text=True)
    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (143, "", [tmp_path / "tmp"])
    assert done.stderr.splitlines()[-1] == "stopped; nothing was written"
    assert [one.name for one in (tmp_path / "tmp").iterdir() if one.name.startswith("lit_jax")] == []


def test_a_run_becomes_a_model_in_onnx_first(browser, finished, onnx, monkeypatch, tmp_path, capsys):
    asked = []

    def copied(trained, out, *, layout, weights):
        asked.append((trained.step, layout, weights))
        shutil.copytree(onnx, out)

    monkeypatch.setattr(exporting, "export", copied)
    site.main(["--checkpoint", str(finished[0]), "--out", str(tmp_path / "app"), "--no-text"])
    assert asked == [(lit_jax.load(onnx).engine.step, "onnx", "fp16")]
    assert "made without free-text questions" in capsys.readouterr().out
    told = json.loads((tmp_path / "app" / "app.json").read_text())
    with served(tmp_path / "app") as (where, _):
        page = browser.open(where)
        page.wait(READY)
        assert page.run("document.getElementById('words-open').hidden && document.title") == site.TITLE
        page.close()
    assert told["text"] is None and told["model"] == "finished" and not (tmp_path / "app" / "text.onnx").exists()
    line = refused(["--checkpoint", str(onnx), "--out", str(tmp_path / "b"), "--weights", "int8"], capsys)
    assert "beside a model in ONNX" in line and not (tmp_path / "b").exists()


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        site.main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    return line


def test_without_a_network_and_a_runtime_there_is_one_line(monkeypatch, tmp_path, capsys):
    def unreachable(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(pathlib.Path, "home", lambda: tmp_path)
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    line = refused(["--checkpoint", "x", "--out", str(tmp_path / "site")], capsys)
    assert "no route to host" in line and f"give npm's {runtime.PACKAGE}" in line and "--runtime" in line
    assert not (tmp_path / "site").exists()


def test_another_runtime_is_refused(made, monkeypatch, tmp_path, capsys):
    start = ["--checkpoint", "x", "--out", str(tmp_path / "site"), "--runtime"]
    (tmp_path / "a.tgz").write_bytes(b"other")
    assert "found sha512-" in refused([*start, str(tmp_path / "a.tgz")], capsys)
    assert "found no ort.wasm.bundle.min.mjs" in refused([*start, str(tmp_path / "nothing")], capsys)
    dist = tmp_path / "package" / "dist"
    dist.mkdir(parents=True)
    kept = pathlib.Path.home() / ".cache" / "lit_jax" / runtime.PACKAGE.removesuffix(".tgz")
    shutil.copy(kept / "ort.js", dist / "ort.wasm.bundle.min.mjs")
    (dist / "ort-wasm-simd-threaded.wasm").write_bytes(b"other")
    assert "found another ort-wasm-simd-threaded.wasm" in refused([*start, str(tmp_path)], capsys)
    shutil.copy(kept / "ort.wasm", dist / "ort-wasm-simd-threaded.wasm")
    for given in (tmp_path, tmp_path / "package", dist):
        assert runtime.runtime(str(given)).wasm == (kept / "ort.wasm").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "app.html"], "found ending .html, expected a folder, or --one-file"),
        (["--out", "app", "--one-file"], "found ending none, expected a name that ends in .html"),
        (["--out", "app", "--title", " "], "--title: found an empty text"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments, said, capsys):
    assert said in refused(["--checkpoint", "x", *arguments], capsys)


def test_a_tokenizer_that_the_page_does_not_know_leaves_out_the_words(tmp_path, monkeypatch):
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a red beetle", "a blue bird on a leaf"] * 9), model_writer=out, vocab_size=30,
        model_type="unigram", hard_vocab_limit=False, minloglevel=3,
    )  # fmt: skip
    reading = Reading(tokenizer_from_bytes(out.getvalue()), 8)
    with pytest.raises(UserError, match="tokenizer: found a SentencePiece model of another kind"):
        texts_of(reading)
    texts, why = site._texts(reading, False)
    assert texts is None and why.startswith("made without free-text questions: tokenizer: found")
    assert site._texts(reading, True) == (None, "made without free-text questions")

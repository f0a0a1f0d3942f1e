"""Searching photos: the index and its exact neighbours against NumPy, and the command."""

import dataclasses
import json
import os
import pathlib
import shutil

import numpy as np
import pytest

import lit_jax
from lit_jax import search
from lit_jax.errors import UserError
from lit_jax.prediction import contact_sheet, photo_index
from lit_jax.prediction.choices import own_classes
from lit_jax.prediction.contact_sheet import Hit, Query
from lit_jax.prediction.photo_index import Entry


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("top", [1, 7, 500])
def test_the_nearest_are_those_of_a_stable_sort_also_where_scores_are_equal(rng, top, monkeypatch):
    monkeypatch.setattr(photo_index, "ROWS", 64)
    vectors = unit(rng.normal(size=(300, 8))).astype(np.float16)
    vectors[[5, 70, 200, 299]] = vectors[70]  # equal rows in several blocks
    vectors[[68, 81, 90]] = vectors[81]  # and in one, more than some searches ask for
    queries = np.concatenate([unit(rng.normal(size=(2, 8))), vectors[[70, 81]].astype(np.float64)]).astype(np.float32)
    scores, rows = photo_index.nearest(vectors, queries, top)
    exact = queries @ vectors.astype(np.float32).T
    order = np.argsort(-exact, axis=1, kind="stable")[:, :top]
    assert (rows == order).all() and rows.shape == (4, min(top, 300))
    np.testing.assert_allclose(scores, np.take_along_axis(exact, order, 1), rtol=1e-6)


def photos(names, changed=1):
    return [Entry(name, 10, changed) for name in names]


def vector_of(name):
    return unit(np.random.default_rng(abs(hash(name)) % 2**32).normal(size=8))


def test_an_index_takes_over_what_did_not_change_and_follows_what_comes_and_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(photo_index, "PART", 2)
    asked = []

    def embed(names):
        asked.extend(names)
        return ["no picture" if name == "broken" else vector_of(name) for name in names]

    folder = tmp_path / "of" / "index"
    first = photo_index.update(folder, "m", photos(["a", "b", "broken", "c", "d"]), embed)
    assert (first.kept, first.added, first.gone, first.broken) == (0, 4, 0, [("broken", "no picture")])
    asked.clear()
    entries = [*photos(["d", "a"]), *photos(["b"], changed=2), *photos(["e"])]
    second = photo_index.update(folder, "m", entries, embed)
    assert asked == ["b", "e"] and (second.kept, second.added, second.gone, second.broken) == (2, 2, 2, [])
    found = [entry.photo for entry in second.index.entries()]
    assert found == ["d", "a", "b", "e"] and second.index.vectors.dtype == np.float16
    for name, row in zip(found, second.index.vectors, strict=True):
        np.testing.assert_allclose(row, vector_of(name), atol=1e-3)
    assert second.index.photos_of(np.array([3, 0])) == ["e", "d"]
    asked.clear()
    again = photo_index.update(folder, "m", entries, embed)
    assert not asked and (again.kept, again.added, again.gone) == (4, 0, 0)
    other = photo_index.update(folder, "another model", entries, embed)  # is made anew
    assert len(asked) == 4 and other.kept == 0 and photo_index.open_index(folder, "m") is None


def test_an_index_that_was_stopped_goes_on_and_one_cut_short_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(photo_index, "PART", 2)
    asked = []

    def stops(names):
        for name in names:
            if name == "d":
                raise KeyboardInterrupt
            asked.append(name)
            yield vector_of(name)

    folder, entries = tmp_path / "index", photos(["a", "b", "c", "d"])
    with pytest.raises(KeyboardInterrupt):
        photo_index.update(folder, "m", entries, stops)
    kept = photo_index.open_index(folder, "m")
    assert [entry.photo for entry in kept.entries()] == ["a", "b"]
    whole = photo_index.update(folder, "m", entries, lambda names: [vector_of(name) for name in names])
    assert (whole.kept, whole.added) == (2, 2)
    (folder / "vectors.npy").write_bytes((folder / "vectors.npy").read_bytes()[:-20])
    with pytest.raises(UserError, match="expected an index of photos; delete the folder"):
        photo_index.open_index(folder, "m")


def test_a_photo_that_was_changed_is_embedded_again_and_one_that_is_gone_is_told(tmp_path):
    from lit_jax.prediction import searching

    asked, paths = [], [str(tmp_path / name) for name in ("a.jpg", "b.jpg")]

    def embedded(names):
        asked.append(names)
        return (vector_of(name) if pathlib.Path(name).exists() else "no such file" for name in names)

    for path in paths:
        pathlib.Path(path).write_bytes(b"a photo")
    searching.of_photos("m", embedded, paths, tmp_path / "index")
    facts = os.stat(paths[0])
    pathlib.Path(paths[0]).write_bytes(b"another")  # as many bytes
    os.utime(paths[0], ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    pathlib.Path(paths[1]).unlink()
    found = searching.of_photos("m", embedded, paths, tmp_path / "index")
    assert asked == [paths, paths] and (found.kept, found.added, found.gone) == (0, 1, 2)
    assert found.broken == [(paths[1], "no such file")]


@pytest.fixture(scope="module")
def searched(finished, field_guide_folder, tmp_path_factory):
    """A folder with a few photos and a broken one, and the arguments that search it with the tiny model."""
    folder = tmp_path_factory.mktemp("to search")
    photos = sorted((field_guide_folder / "photos").glob("*.jpg"))[:6]
    for photo in photos:
        shutil.copy(photo, folder / photo.name)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    arguments = [f"--checkpoint={finished[0]}", f"--photos={folder}", f"--index={folder / 'kept' / 'index'}"]
    return folder, photos, arguments


def test_an_index_of_which_photos_are_gone_and_none_is_new_is_written_again(searched, tmp_path, capsys):
    _, photos, (checkpoint, *_) = searched
    there = [shutil.copy(photo, tmp_path / photo.name) for photo in photos[:3]]
    for number, said in ((3, "3 new, 0 gone"), (2, "0 new, 1 gone")):
        search.main(
            [checkpoint, *(f"--photos={one}" for one in there[:number]), f"--index={tmp_path / 'index'}", "bird"]
        )
        assert said in capsys.readouterr().err


def test_photos_of_any_name_are_indexed_and_found(searched, finished, tmp_path, capsys):
    _, photos, _ = searched
    odd = os.fsdecode(bytes(tmp_path) + b"/a\xff\xe2\x80\xa8.jpg")
    shutil.copy(photos[1], odd)
    shutil.copy(photos[2], tmp_path / "b.jpg")
    arguments = [
        f"--checkpoint={finished[0]}",
        f"--photos={tmp_path}",
        f"--index={tmp_path / 'index'}",
        f"--like={odd}",
    ]
    for known, form in enumerate(("jsonl", "table", "html")):
        search.main([*arguments, f"--format={form}", f"--out={tmp_path / form}"])
        assert f"{2 * bool(known)} photos known, {2 * (not known)} new, 0 gone" in capsys.readouterr().err
        text = (tmp_path / form).read_text(encoding="utf-8")
        assert ("a\\\\xff\u2028.jpg" if form == "jsonl" else "a\\xff") in text
    search.main([*arguments, "--format=jsonl"])
    assert [row["photo"].rpartition("/")[2] for row in rows_of(capsys.readouterr().out)] == [
        "a\\xff\u2028.jpg",
        "b.jpg",
    ]


def rows_of(text):
    return [json.loads(line) for line in text.split("\n") if line.startswith("{")]


def test_a_search_finds_what_the_towers_say_and_a_photo_finds_itself(searched, finished, capsys):
    folder, photos, arguments = searched
    search.main([*arguments, "a red bird", f"--like={photos[2]}", "--format=jsonl", "--top=3"])
    told = capsys.readouterr()
    rows = rows_of(told.out)
    assert "0 photos known, 6 new, 0 gone, 1 cannot be read" in told.err and "broken.jpg" in told.err
    model = lit_jax.load(finished[0])
    vectors = np.stack(list(model.embed_photos(photos)))
    scores = vectors @ model.embed_texts(["a red bird"])[0]
    order = np.argsort(-scores)[:3]
    assert [row["photo"].rpartition("/")[2] for row in rows[:3]] == [photos[at].name for at in order]
    np.testing.assert_allclose([row["score"] for row in rows[:3]], scores[order], atol=2e-3)
    assert rows[3]["photo"].endswith(photos[2].name) and rows[3]["score"] > 0.998
    (folder / photos[0].name).unlink()
    out = folder / "sheet.html"
    search.main([*arguments, "a <red> bird", "--format=html", f"--out={out}"])
    assert "5 photos known, 0 new, 1 gone, 1 cannot be read" in capsys.readouterr().err
    page = out.read_text()
    assert 'class="same"' not in page
    assert page.count("data:image/jpeg;base64,") == 5 and "a &lt;red&gt; bird" in page and str(folder) not in page


def test_paths_are_told_as_they_were_given_and_the_photo_asked_for_is_marked(searched, monkeypatch, capsys):
    folder, photos, arguments = searched
    monkeypatch.chdir(folder.parent)
    asked, out = f"{folder.name}/{photos[3].name}", folder / "liked.html"
    given = [arguments[0], f"--photos={folder.name}", arguments[2]]
    search.main([*given, f"--like={asked}", "--format=jsonl", "--top=2"])
    told = capsys.readouterr()
    assert rows_of(told.out)[0]["photo"] == asked and f"left out: {folder.name}/broken.jpg" in told.err
    search.main([*given, f"--like={asked}", "--top=2", f"--out={out}"])
    page = out.read_text()
    marked = page.partition('<li class="same">')[2].partition("</li>")[0]
    assert photos[3].name in marked and page.count('class="same"') == 1
    assert page.count("data:image/jpeg;base64,") == 3  # what was asked for above what was found


def test_a_contact_sheet_has_no_path_of_its_maker(searched, finished, tmp_path):
    folder, photos, arguments = searched
    search.main([*arguments, f"--like={folder / photos[3].name}", f"--out={tmp_path / 'sheet.html'}"])
    page = (tmp_path / "sheet.html").read_text()
    assert f"<h2>like {photos[3].name}</h2>" in page and f"model {finished[0].name}<" in page
    assert str(folder) not in page and str(finished[0].parent) not in page
    lots = (["/home/me/a/1.jpg", "/srv/b/2.jpg"], ["/home/me/a/1.jpg", "b/2.jpg"])  # nothing, or not a path, in common
    for lot in lots:
        text = contact_sheet.sheet([Query("x")], [[Hit(photo, 0.5) for photo in lot]], "")
        assert "home" not in text and "a/<wbr>1.jpg" in text and "b/<wbr>2.jpg" in text


def test_a_name_of_a_class_is_asked_as_that_class(finished):

    from lit_jax.prediction import searching

    model = lit_jax.load(finished[0])
    table = own_classes(model.about)
    texts = [table.columns["common_name"][2].upper(), "a red bird", table.names[5]]
    vectors, notes = searching.queries_of(model.about, model.engine.protocol, model.embed_texts, texts)
    classes = model.choices().vectors
    for got, wanted in zip(vectors, [classes[2], model.embed_texts(texts[1:2])[0], classes[5]], strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert notes == [
        f"{texts[i]}: asked as the model's class {table.label(table.ids[row])}" for i, row in ((0, 2), (2, 5))
    ]
    _, notes = searching.queries_of(model.about, model.engine.protocol, model.embed_texts, ["зелёный лист"])
    told = "зелёный лист is written in letters that the model has not read; what is found means nothing there"
    assert notes == [told]


def test_texts_without_any_known_unit_are_told_by_search_and_prediction_alike(finished):
    from lit_jax.prediction import choices, searching

    about = lit_jax.load(finished[0]).about
    reads_units = dataclasses.replace(
        about, config={**about.config, "text.tower": "units", "text.units": "letters"}, units=[["<re", "red", "ed>"]]
    )
    known = about.class_table.split()[-1].casefold()
    letters = "".join(sorted({letter for letter in known if letter.isalpha()}))[:3] * 3  # known letters, unknown units
    for texts, odd in (([letters], [letters]), (["red"], []), (["red", letters], [letters]), (["a red one"], [])):
        said = [f"the model has learnt nothing of {odd[0]}; what is found means nothing there"] if odd else []
        assert searching.unread(reads_units, texts, [[text] for text in texts]) == said
        assert choices.unread(texts, reads_units, "what is found means nothing there") == said


def test_a_class_is_read_if_the_model_can_read_the_words_that_it_is_asked_by(finished):
    from lit_jax.prediction import searching
    from lit_jax.text.units import units

    model = lit_jax.load(finished[0])
    table = own_classes(model.about)
    common, name = table.columns["common_name"][2], table.names[2]
    config = {**model.about.config, "text.tower": "units", "text.units": "letters"}
    for known, is_read in ((name, True), ("Qqqq", False)):
        knows = sorted(set(units(known, "letters")) - set(units(common, "letters")))
        about = dataclasses.replace(model.about, config=config, units=[knows])
        _, notes = searching.queries_of(about, model.engine.protocol, model.embed_texts, [common])
        told = f"the model has learnt nothing of {common}; what is found means nothing there"
        assert notes[1:] == ([] if is_read else [told])
        assert "asked as the model's class" in notes[0]


def test_a_class_to_choose_from_is_read_if_the_model_can_read_its_prompts(finished, monkeypatch):
    from lit_jax.text.units import units

    model = lit_jax.load(finished[0])
    common, name = own_classes(model.about).columns["common_name"][2], own_classes(model.about).names[2]
    about = model.about
    config = {**about.config, "text.tower": "units", "text.units": "letters"}
    for known, unread in ((common, "xyzzy"), ("Qqqq", f"{name}, xyzzy")):
        knows = sorted(set(units(known, "letters")) - set(units(name, "letters")))
        monkeypatch.setattr(model.engine, "about", dataclasses.replace(about, config=config, units=[knows]))
        told = [note for note in model.choices([common, "xyzzy"]).notes if "learnt nothing" in note]
        assert told == [f"the model has learnt nothing of {unread}; its confidence means nothing there"]


def test_a_search_in_python_warns_of_what_the_model_cannot_read(searched, finished, tmp_path):
    model = lit_jax.load(finished[0])
    with pytest.warns(UserWarning, match="зелёный лист is written in letters that the model has not read"):
        model.search(searched[0], ["зелёный лист"], index=tmp_path / "index")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "query: found none, expected a text"),
        ([" "], "query: found an empty text"),
        (["x", "--format=html"], "--format html: found no --out"),
        (["x", "--like=no.jpg"], "--like no.jpg: found a photo that cannot be used"),
        (["x", "--out=no/such/file"], "--out: found no folder to write no/such/file to"),
    ],
)
def test_what_cannot_be_searched_is_told_in_a_line(searched, more, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        search.main([*searched[2], *more])
    assert stopped.value.code != 0 and said in capsys.readouterr().err


def test_a_store_is_searched_without_its_photos_and_one_of_another_tower_is_refused(
    finished, records, tiny_config, tmp_path, capsys
):
    from lit_jax import config
    from lit_jax.data.embedding_store import image_ids
    from lit_jax.embed import embed
    from lit_jax.trained import loading

    store = embed(config.load(tiny_config)[0], tmp_path / "store")
    capsys.readouterr()
    arguments = [
        f"--checkpoint={finished[0]}",
        f"--store={store.directory}",
        f"--index={tmp_path / 'not' / 'yet' / 'there'}",
    ]
    search.main([*arguments, "a red bird", "--format=jsonl", "--split=validation", "--top=1000"])
    rows = rows_of(capsys.readouterr().out)
    assert sorted(row["photo"] for row in rows) == sorted(image_ids(store, "validation"))
    search.main([*arguments, "a red bird", "--format=jsonl", "--split=heldout", "--top=1000"])  # into the same index
    rows = rows_of(capsys.readouterr().out)
    assert sorted(row["photo"] for row in rows) == sorted(image_ids(store, "heldout"))
    other = dataclasses.replace(store, tower={**store.tower, "digest": "0" * 64})
    from lit_jax.prediction import searching_store

    trained = loading.load(finished[0], with_image_tower=False)
    with pytest.raises(UserError, match="found embeddings of another tower .*, expected that of the model"):
        searching_store.of_store(trained, other, "", tmp_path / "index")


def test_vectors_of_photos_are_kept_by_tower_projection_and_pixels_alone(finished):
    from lit_jax.prediction.with_jax import image_key
    from lit_jax.trained import loading

    trained = loading.load(finished[0])

    def key(image=trained.config.image, locked=trained.about.locked, **params):
        about, config = (
            dataclasses.replace(trained.about, locked=locked),
            dataclasses.replace(trained.config, image=image),
        )
        return image_key(dataclasses.replace(trained, about=about, config=config, params={**trained.params, **params}))

    others = [
        key(projection={"kernel": trained.params["projection"]["kernel"] + 1}),
        key(locked={"image": "0" * 64}),
        key(image=dataclasses.replace(trained.config.image, size=24)),
    ]
    assert len({key(), *others}) == 4 and key() == key(logit_scale=np.float32(0)) == key(text={})


def test_python_finds_what_the_command_finds(searched, finished, tmp_path, capsys):
    folder, photos, arguments = searched
    capsys.readouterr()
    search.main([*arguments, "a red bird", f"--like={photos[3]}", "--format=jsonl", "--top=3"])
    wanted = [(row["photo"], row["score"]) for row in rows_of(capsys.readouterr().out)]
    model = lit_jax.load(finished[0])
    found = model.search(folder, ["a red bird"], like=[photos[3]], top=3, index=tmp_path / "index")
    assert [len(one) for one in found] == [3, 3]
    got = [(hit.photo, round(hit.similarity, 6)) for hits in found for hit in hits]
    assert [photo for photo, _ in got] == [photo for photo, _ in wanted]
    np.testing.assert_allclose([score for _, score in got], [score for _, score in wanted], atol=2e-6)
    for given in ({"texts": "a bird"}, {}):
        with pytest.raises(UserError, match="texts: found no list of texts"):
            model.search(folder, **given)
    with pytest.raises(UserError, match="broken.jpg: found a photo that cannot be used"):
        model.search(folder, like=[folder / "broken.jpg"], index=tmp_path / "index")


def test_an_index_with_a_damaged_list_of_photos_is_told_in_one_line(tmp_path):
    vectors = np.eye(3, dtype=np.float16)
    for content, told in (
        ('{"photo": "a"}\n{"pho\n{"photo": "c"}\n', ", line [12]: found .*"),
        ("[1]\n[2]\n[3]\n", ", line [12]: found .*"),
        ("[" * 100_000 + "\n\n\n", ", line [12]: found .*"),
        ('{"photo": "a"}\n', ": found too few lines.*"),
    ):
        index = photo_index.write(tmp_path / "index", "m", [vectors], [Entry(name) for name in "abc"])
        assert index.photos_of(np.array([2, 0])) == ["c", "a"]
        (tmp_path / "index" / photo_index.PHOTOS).write_text(content)
        with pytest.raises(UserError, match=rf"photos\.jsonl{told}; delete the (folder|index)"):
            index.photos_of(np.array([0, 1]))


def test_a_name_with_a_line_separator_is_one_line_of_a_table():
    from lit_jax.base import console

    assert len(console.text_table(["", "photo"], [["1", "a\u2028b.jpg"], ["2", "c.jpg"]], left=(1,)).split("\n")) == 4


def indexed(folder, number=40):
    names = [f"{i}.jpg" for i in range(number)]
    return photo_index.update(folder, "m", photos(names), lambda names: [vector_of(name) for name in names]).index


@pytest.mark.parametrize("name", [photo_index.VECTORS, photo_index.PHOTOS])
def test_a_bit_that_turned_in_an_index_is_noticed(name, tmp_path, rng):
    path = indexed(tmp_path / "index").folder / name
    whole = path.read_bytes()
    for place in rng.integers(0, 8 * len(whole), 40):
        turned = bytearray(whole)
        turned[place // 8] ^= 1 << (place % 8)
        path.write_bytes(turned)
        with pytest.raises(UserError, match=r"found .*; delete the (folder|index)"):
            photo_index.open_index(path.parent, "m")
    path.write_bytes(whole)
    assert len(photo_index.open_index(path.parent, "m").vectors) == 40


def test_lines_that_changed_places_and_numbers_that_are_none_are_noticed(tmp_path):
    index = indexed(tmp_path / "index")
    lines = (index.folder / photo_index.PHOTOS).read_text().splitlines(keepends=True)
    lines[3], lines[4] = lines[4], lines[3]
    (index.folder / photo_index.PHOTOS).write_text("".join(lines))
    with pytest.raises(UserError, match=r"photos\.jsonl: found other content, expected it as written; delete"):
        photo_index.open_index(index.folder, "m")
    with pytest.raises(UserError, match=r"line 4: found the line of another row, expected the photo of row 3"):
        list(index.entries())  # where no checksum was compared
    other = indexed(tmp_path / "other")
    vectors = np.load(other.folder / photo_index.VECTORS)
    vectors[5, 2] = np.nan
    np.save(other.folder / photo_index.VECTORS, vectors)
    with pytest.raises(UserError, match=r"vectors\.npy: found other content"):
        photo_index.open_index(other.folder, "m")


def test_a_large_index_is_compared_on_request(tmp_path, monkeypatch):
    index = indexed(tmp_path / "index")
    monkeypatch.setattr(photo_index, "CHECKED_BYTES", 100)
    path = index.folder / photo_index.VECTORS
    turned = bytearray(path.read_bytes())
    turned[-1] ^= 1
    path.write_bytes(turned)
    assert photo_index.open_index(index.folder, "m") is not None
    with pytest.raises(UserError, match="found other content, expected it as written"):
        photo_index.open_index(index.folder, "m", verify=True)


def test_an_index_of_before_opens(tmp_path):
    """The first version had no checksums, and no rows in its list."""
    index = indexed(tmp_path / "index", 3)
    said = json.loads((index.folder / photo_index.INDEX).read_text())
    (index.folder / photo_index.INDEX).write_text(json.dumps({**said, "version": 1, "checksums": {}}))
    (index.folder / photo_index.PHOTOS).write_text(
        "".join(json.dumps({"photo": f"{i}.jpg", "size": 10, "changed": 1}) + "\n" for i in range(3))
    )
    opened = photo_index.open_index(index.folder, "m")
    assert [entry.photo for entry in opened.entries()] == ["0.jpg", "1.jpg", "2.jpg"]


def test_what_a_person_keeps_in_the_folder_of_an_index_stays(tmp_path):
    folder = indexed(tmp_path / "index", 3).folder
    (folder / "found.html").write_text("mine")
    assert len(indexed(folder, 5).vectors) == 5 and (folder / "found.html").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_an_index_that_is_up_to_date_is_searched_where_nothing_can_be_written(tmp_path, monkeypatch):
    folder = indexed(tmp_path / "index", 3).folder
    monkeypatch.setattr(photo_index.os, "access", lambda path, mode: False)
    monkeypatch.setattr(photo_index, "alone_with", lambda *_: 1 / 0)
    assert len(indexed(folder, 3).vectors) == 3

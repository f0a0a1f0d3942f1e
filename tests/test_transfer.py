"""Captions chosen by what carries over to species without a photo."""

import numpy as np
import pytest

from data_prep import captions as command
from data_prep.conversion import transfer
from lit_jax.data import embedding_store
from lit_jax.errors import UserError
from lit_jax.evaluation import closed_form
from lit_jax.evaluation.closed_form import Photos
from lit_jax.text import units
from lit_jax.text.captions import caption
from lit_jax.text.classes import ClassTable, read_class_table

SPECIES, TRAINED, PHOTOS = 40, 30, 12


def table_text(*, heldout="", ids=range(SPECIES)):
    """Six families of features; genera that carry nothing, a column of noise, one that never changes."""
    rng = np.random.default_rng(3)
    rows = ["id,name,guild,genus,noise,realm,common_name"]
    for place, number in enumerate(ids):
        guild = "sp." if place == 3 else f"Guild{place % 6}"
        common = "" if place == 4 else f"Bird {chr(97 + place % 26)}{place}{heldout if place >= TRAINED else ''}"
        rows.append(
            f"{number},Nomen n{place},{guild},Genus{rng.integers(9)},Noise{rng.integers(5)},{'' if place % 2 else '×'},{common}"
        )
    return "\n".join(rows)


def made(folder, *, seed=0, others=1, classes=TRAINED, heldout=""):
    """A store whose features are those of the guild, and a little of the species' own."""
    rng = np.random.default_rng(seed)
    guilds = rng.normal(size=(6, 16))
    means = guilds[np.arange(SPECIES) % 6] + rng.normal(size=(SPECIES, 16)) * 0.3
    aside = embedding_store.begin(folder, {})
    (aside / embedding_store.CLASS_TABLE).write_text(table_text(heldout=heldout))
    shards, ids = {}, {}
    for split, of in (("train", range(classes)), ("validation", range(classes)), ("heldout", range(TRAINED, SPECIES))):
        labels = np.repeat(np.array(of), PHOTOS)
        noise = rng.normal(size=(len(labels), 16)) * 0.4
        features = means[labels] + noise if split == "train" else others * (means[labels] + noise)
        names = [f"{split}{i}.jpg" for i in range(len(labels))]
        shards[split] = [
            embedding_store.write_shard(
                aside, embedding_store.shard_name(split, 0, 1), features.astype(np.float32)[:, None], labels, names,
                dtype="float32",
            )
        ]  # fmt: skip
        ids[split] = list(of)
    embedding_store.finish(embedding_store.Store(
        directory=aside, splits=shards, views=dict.fromkeys(shards, 1), width=16, dtype="float32",
        record_lengths={split: [s.examples for s in found] for split, found in shards.items()},
        tower={"kind": "given", "digest": "x"}, class_table=aside / embedding_store.CLASS_TABLE, tokenizer=None,
        templates=["{name}"], drop_repeats=False, class_ids=ids, records="r",
    ), folder)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return made(tmp_path_factory.mktemp("transfer") / "store")


@pytest.fixture(scope="module")
def task(store):
    opened = embedding_store.open_store(store)
    return transfer.task_of(opened, read_class_table(opened.class_table), "train")


def printed(capsys, *arguments):
    command.main(["--select", "transfer", *arguments])
    return capsys.readouterr().out


def test_products_give_what_the_closed_form_gives():
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(20), 40)  # more than are named of a class
    means = rng.normal(size=(20, 8))
    photos = Photos(means[labels] + rng.normal(size=(800, 8)) + 2, labels)
    words = closed_form.unit(rng.random((20, 6)))
    (choice,) = closed_form.choose(photos, {"w": words}, shrinkages=(1.0,), penalties=(0.3,), seed=4)
    folds = list(closed_form.products(photos, seed=4))
    rivals = [fold.rivals(words @ words.T, 0.3) for fold in folds]
    top1 = np.mean([fold.right(words @ words.T, 0.3)[0].mean() for fold in folds])
    margin, harmonic = closed_form.best_margin(rivals)
    assert (top1, margin, harmonic) == pytest.approx((choice.top1, choice.margin, choice.harmonic))


def test_the_accuracy_of_columns_is_that_of_a_plain_ridge_regression(store, task):
    opened = embedding_store.open_store(store)
    rows = embedding_store.Rows(opened, "train")
    x, y = rows.whole()[:, 0].astype(float), rows.class_ids
    x = x - x.mean(0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    cells = [[v for v in (r["guild"], r["genus"]) if v != "sp."] for r in task.table.rows()]
    kernel = np.array([[len(set(a) & set(b)) / np.sqrt(len(a) * len(b)) for b in cells] for a in cells])
    rates = {p: np.zeros((3, TRAINED)) for p in transfer.PENALTIES}
    for draw in range(3):
        for fold in closed_form.folds_of(y, seed=draw):
            old, new = np.unique(y[fold.learnt]), np.unique(y[fold.heldout])
            means = np.stack([x[fold.learnt & (y == c)].mean(0) for c in old])
            for penalty, found in rates.items():
                inverse = np.linalg.inv(kernel[np.ix_(old, old)] + penalty * np.eye(len(old)))
                vectors = kernel[np.ix_(new, old)] @ inverse @ (means - means.mean(0)) + means.mean(0)
                vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
                named = new[(x[fold.heldout] @ vectors.T).argmax(1)]
                for c in new:
                    found[draw, c] = np.mean(named[y[fold.heldout] == c] == c)
    best = max(rates.values(), key=lambda found: found.mean())
    judged = task.judge(("guild", "genus"), ("phrases",))
    np.testing.assert_allclose(judged.rates, best.mean(0), atol=1e-12)
    assert task.guessing == pytest.approx(np.full(TRAINED, 1 / 6))


def test_the_column_that_carries_over_is_chosen_and_noise_is_not(store, capsys):
    out = printed(capsys, f"--store={store}")
    assert '--template "{guild}" and' in out and 'config.text.units = "' in out
    lines = [line.split() for line in out.splitlines()]
    by_column = {words[0]: words for words in lines if words and words[0] in ("guild", "genus", "noise", "realm")}
    alone = {name: float(by_column[name][1]) for name in ("guild", "genus", "noise")}
    without = {name: float(by_column[name][4]) for name in ("guild", "genus", "noise")}
    assert alone["guild"] > 2 * max(alone["genus"], alone["noise"]) and without["guild"] < without["noise"] - 20
    assert by_column["realm"][1:] == ["says", "the", "same", "of", "all"]  # empty, or a sign alone
    assert next(words for words in lines if words[:2] == ["1", "guild"])
    assert next(words for words in lines if words[:1] == ["2"])[-2:] == ["within", "chance"]


def test_only_photos_of_the_training_split_are_read(store, tmp_path, capsys):
    first = printed(capsys, f"--store={store}", "--show=0")
    assert printed(capsys, f"--store={made(tmp_path / 'a', others=-7, heldout='xyz')}", "--show=0") == first
    assert printed(capsys, f"--store={made(tmp_path / 'b', seed=1)}", "--show=0") != first


def test_absent_values_make_no_unit_and_no_comma():
    template = "{common_name}, {genus}, {family}; {order}"
    row = {"common_name": "Great Tit", "genus": "", "family": "Paridae", "order": ""}
    assert caption(row, template) == "Great Tit, Paridae"
    assert caption({**row, "common_name": "", "order": "x"}, template) == "Paridae; x"
    assert caption(dict.fromkeys(row, ""), template) == ""
    assert caption({**row, "common_name": "Animalia"}, "A {common_name}, {genus}, {family}") == "A Paridae"
    for absent in ("", "×", "sp.", "?", "-", "indet."):
        text = caption({**row, "genus": absent}, template)
        assert units.units(text, "phrases") == ["great tit", "paridae"]
        assert units.units(text, "words") == ["great", "tit", "paridae"]
        assert "<sp" not in units.units(text, "letters")
    assert units.units("Parus sp., Anas × crecca", "phrases") == ["parus sp", "anas × crecca"]


def test_a_gain_must_pass_that_of_the_best_of_many_columns_of_no_worth():
    rng = np.random.default_rng(0)
    gain = rng.normal(size=50)
    error = gain.std(ddof=1) / np.sqrt(50)
    assert transfer.beyond_chance(gain, 1) == pytest.approx(error)
    for tried in (5, 10, 40):
        expected = rng.normal(size=(20_000, tried)).max(1).mean()
        assert transfer.beyond_chance(gain, tried) == pytest.approx(expected * error, rel=0.02)


def test_greed_is_not_fooled_by_columns_of_noise():
    fooled = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        columns = {"guild": [f"g{i % 6}" for i in range(TRAINED)]}
        columns |= {f"noise{k}": [f"n{k}_{v}" for v in rng.integers(0, 6, TRAINED)] for k in range(6)}
        guilds = rng.normal(size=(6, 12))
        labels = np.repeat(np.arange(TRAINED), 10)
        own = rng.normal(size=(TRAINED, 12)) * 0.3
        photos = Photos((guilds[labels % 6] + own[labels] + rng.normal(size=(len(labels), 12)) * 0.4), labels)
        table = ClassTable(tuple(range(TRAINED)), {c: tuple(v) for c, v in columns.items()})
        task = transfer.Task(table, list(closed_form.products(photos, seed=seed)))
        path = transfer.climb(task, list(columns), ("phrases",))
        assert path.steps[0].columns == ("guild",) and len(path.steps) == 7 and path.taken
        fooled += path.taken - 1
    assert fooled <= 1  # the best of six columns of noise gains something in each of them


def test_of_many_classes_and_photos_a_part_is_drawn_and_said(store, monkeypatch, capsys):
    opened = embedding_store.open_store(store)
    table = read_class_table(opened.class_table)
    monkeypatch.setattr(transfer, "MOST_CLASSES", 12)
    first, again, other = (transfer.task_of(opened, table, "train", seed=seed) for seed in (0, 0, 1))
    assert len(first.table) == 12 and first.table.ids == again.table.ids != other.table.ids
    assert first.notes[0].startswith("12 of 30 classes are drawn (seed 0)")
    assert {number for fold in first.folds for number in fold.labels.tolist()} == set(range(12))


def test_another_class_table_is_read_by_its_names(store, tmp_path, capsys):
    (tmp_path / "mine.csv").write_text(table_text(ids=range(100, 100 + SPECIES)))
    assert '--template "{guild}"' in printed(capsys, f"--store={store}", f"--classes={tmp_path / 'mine.csv'}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--store: found none, expected an embedding store with --select transfer"),
        (["--store=STORE", "--budget=9"], "--budget: found 9 with --select transfer, expected none: columns are added"),
        (["--store=STORE", "--columns=realm"], "columns: found 1 (realm), all of them with one value for all classes"),
        (["--store=STORE", "--columns=gild"], "columns: found column 'gild', expected one of"),
        (["--store=STORE", "--train-split=trian"], "--train-split: found 'trian', expected one of"),
        (
            ["--store=STORE", "--classes=FEW"],
            "--classes: found no row for 25 of 30 classes with photos in train (id 5)",
        ),
        (["--store=SMALL"], "found 9 species with photos in train, expected 10 or more to hold some out in turn"),
        (["--store=nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused_in_one_line(store, tmp_path, capsys, arguments, message):
    (tmp_path / "few.csv").write_text("\n".join(table_text().splitlines()[:6]))
    given = [one.replace("STORE", str(store)).replace("FEW", str(tmp_path / "few.csv")) for one in arguments]
    if any("SMALL" in one for one in given):
        given = [f"--store={made(tmp_path / 'small', classes=9)}"]
    with pytest.raises(SystemExit) as stop:
        command.main(["--select", "transfer", *given])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and error.strip().count("\n") == 0, error


def test_columns_that_carry_nothing_over_are_told(task):
    names = {"name": tuple(f"n{i}" for i in range(TRAINED))}
    with pytest.raises(UserError, match="columns: found none by which species held out inside training are named"):
        transfer.choose(transfer.Task(ClassTable(task.table.ids, names), task.folds[:5]), ["name"])


def test_select_without_a_value_is_still_that_of_the_paper(store, capsys):
    outputs = []
    for select in (["--select"], ["--select", "distinct"]):
        command.main([f"--classes={store / embedding_store.CLASS_TABLE}", *select, "--budget=9"])
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] and "every subset of" in outputs[0]
    with pytest.raises(SystemExit):
        command.main([f"--store={store}", "--select"])
    assert "--classes" in capsys.readouterr().err

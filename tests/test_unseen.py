"""Species without a photo: the margin, the closed form, units of a text, and a run that uses all three."""

import json
import re

import numpy as np
import pytest

from lit_jax.errors import UserError
from lit_jax.evaluation import closed_form, gzsl
from lit_jax.evaluation.closed_form import Photos
from lit_jax.text import units


def brute_force(scores, labels, seen, margin):
    """Accuracies of either kind from all scores, one photo after the other."""
    right = {True: [], False: []}
    for row, label in zip(scores, labels, strict=True):
        best = max(range(len(row)), key=lambda k: (row[k] - margin * seen[k], not seen[k]))
        right[bool(seen[label])].append(best == label)
    return np.mean(right[True]), np.mean(right[False])


@pytest.fixture(scope="module")
def scored():
    """Scores of 300 photos over 12 classes, seven of them seen; seen ones are ahead."""
    rng = np.random.default_rng(3)
    seen = np.arange(12) < 7
    labels = rng.integers(0, 12, 300)
    scores = rng.normal(size=(300, 12)) * 0.3 + 0.8 * np.eye(12)[labels] + 0.5 * seen
    return scores, labels, seen, closed_form.rivals_of(scores, labels, np.arange(12), seen)


def test_accuracies_at_a_margin_are_those_of_a_loop_over_all_photos(scored):
    scores, labels, seen, rivals = scored
    for margin in (-1.0, 0.0, 0.3, 0.77, 5.0):
        assert gzsl.at(rivals, margin) == pytest.approx(brute_force(scores, labels, seen, margin))


def test_the_curve_holds_every_margin_and_its_area_is_that_of_a_fine_grid(scored):
    *_, rivals = scored
    line = gzsl.curve(rivals)
    for place in (0, 1, 50, len(line.margins) - 1):
        assert (line.seen[place], line.unseen[place]) == pytest.approx(gzsl.at(rivals, line.margins[place]))
    fine = np.array([gzsl.at(rivals, margin) for margin in np.linspace(-4, 4, 20001)])
    assert line.ausuc == pytest.approx(np.trapezoid(fine[:, 0], fine[:, 1]), abs=1e-3)
    assert line.unseen[0] == 0 and line.seen[-1] == 0  # at the ends only one kind is named


def test_the_best_margin_is_the_best_of_a_fine_grid(scored):
    *_, rivals = scored
    margin, reached = gzsl.best_margin([rivals])
    found = [float(gzsl.harmonic(*gzsl.at(rivals, one))) for one in np.linspace(-2, 3, 4001)]
    assert reached == pytest.approx(max(found)) == pytest.approx(float(gzsl.harmonic(*gzsl.at(rivals, margin))))


def test_a_summary_has_the_shares_with_and_without_a_margin(scored):
    scores, labels, seen, rivals = scored
    found = json.loads(json.dumps(gzsl.summary(rivals, 0.4)))
    s, u = brute_force(scores, labels, seen, 0.4)
    assert (found["seen"], found["unseen"], found["harmonic"]) == pytest.approx((s, u, 2 * s * u / (s + u)))
    assert found["without_margin"]["unseen"] == pytest.approx(brute_force(scores, labels, seen, 0)[1])
    assert (found["seen_classes"], found["unseen_classes"]) == (7, 5)
    assert found["seen_images"] + found["unseen_images"] == 300


def test_means_over_species_count_each_species_once_and_heed_the_margin(scored):
    scores, labels, seen, _ = scored
    kept = np.flatnonzero((labels % 3 > 0) | (np.arange(300) % 4 == 0))  # of some species a quarter of the others'
    scores, labels = scores[kept], labels[kept]
    found = gzsl.summary(closed_form.rivals_of(scores, labels, np.arange(12), seen), 0.4)["macro"]
    named = np.array([max(range(12), key=lambda k: row[k] - 0.4 * seen[k]) for row in scores])
    rates = np.array([np.mean(named[labels == species] == species) for species in range(12)])
    s, u = rates[seen].mean(), rates[~seen].mean()
    assert (found["seen"], found["unseen"], found["harmonic"]) == pytest.approx((s, u, 2 * s * u / (s + u)))
    photos = np.mean((named == labels)[seen[labels]])
    assert abs(photos - s) > 0.01  # so that photos and species are told apart


def test_answers_of_each_kind_are_calibrated_by_their_own_factor(rng):
    from lit_jax.base.sharding import make_mesh
    from lit_jax.evaluation import unseen
    from lit_jax.text.classes import ClassTable

    photos, classes = (rng.normal(size=(n, 6)).astype(np.float32) for n in (90, 9))
    seen, labels = np.arange(9) < 5, rng.integers(0, 9, 90)
    fitted = {"margin": 0.4, "factors": {"seen": 1.5, "unseen": 0.25}}
    table = ClassTable(tuple(range(9)), {"name": tuple("abcdefghi")})
    found = unseen.together(unseen.Asked(photos, labels, classes, table, seen), fitted, 4.0, make_mesh(1))[
        "calibration"
    ]
    scores = photos.astype(float) @ classes.T.astype(float) - 0.4 * seen
    named = scores.argmax(1)
    for kind, rows in (("seen", seen[named]), ("unseen", ~seen[named])):
        assert found[kind]["answers"] == rows.sum() and found[kind]["temperature"] == 4.0 / fitted["factors"][kind]
        for when, factor in (("before", 4.0), ("after", fitted["factors"][kind])):
            weights = np.exp(factor * scores[rows])
            assert found[kind][when]["confidence"] == pytest.approx(np.mean(weights.max(1) / weights.sum(1)), rel=1e-4)
            assert found[kind][when]["accuracy"] == np.mean(named[rows] == labels[rows])


@pytest.fixture(scope="module")
def collection():
    """Photos of 20 classes whose means are a linear function of six known properties, and noise along one direction."""
    rng = np.random.default_rng(0)
    words = (rng.random((20, 6)) < 0.5).astype(float)
    means = words @ rng.normal(size=(6, 24)) * 0.5
    labels = np.repeat(np.arange(20), 15)
    noise = rng.normal(size=(300, 24)) * 0.1 + rng.normal(size=(300, 1)) * rng.normal(size=24)
    return Photos((means[labels] + noise + 3).astype(np.float32), labels), closed_form.unit(words + 0.1)


def test_the_closed_form_is_the_ridge_regression_of_its_formula(collection):
    photos, words = collection
    own = photos.labels < 15
    solved = closed_form.solve(Photos(photos.features[own], photos.labels[own]), words, shrinkage=1.0, penalty=0.3)
    x = photos.features[own].astype(np.float64)
    z = x - x.mean(0)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    means = np.stack([z[photos.labels[own] == c].mean(0) for c in range(15)])
    kernel = words @ words.T
    expected = kernel[15:, :15] @ np.linalg.inv(kernel[:15, :15] + 0.3 * np.eye(15)) @ (means - means.mean(0))
    expected += means.mean(0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(solved.classes(words[15:]), expected, atol=1e-9)
    np.testing.assert_allclose(solved.images(x), z, atol=1e-9)


@pytest.mark.parametrize("shrinkage", [1.0, 0.3])
def test_a_closed_form_of_few_dimensions_keeps_those_in_which_photos_differ_most(collection, shrinkage):
    photos, words = collection
    whole, few = (closed_form.solve(photos, words, shrinkage=shrinkage, penalty=0.3, dims=dims) for dims in (0, 5))
    z = photos.features - photos.features.mean(0, dtype=float)
    z = z / np.linalg.norm(z, axis=1, keepdims=True) @ whole.images.kernel
    strongest = np.linalg.svd(z)[2][:5].T
    images = z @ strongest
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    means = np.stack([images[photos.labels == c].mean(0) for c in range(20)])
    kernel = words @ words.T
    classes = kernel @ np.linalg.inv(kernel + 0.3 * np.eye(20)) @ (means - means.mean(0)) + means.mean(0)
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    got = few.images(photos.features), few.classes(words)
    assert got[0].shape == (300, 5) and got[1].shape == (20, 5)
    # The directions may turn among themselves, which no product of vectors tells.
    np.testing.assert_allclose(got[0] @ got[0].T, images @ images.T, atol=1e-8)
    np.testing.assert_allclose(got[0] @ got[1].T, images @ classes.T, atol=1e-8)


def test_whitened_photos_scatter_alike_in_all_directions(collection):
    photos, words = collection
    z = closed_form.solve(photos, words, shrinkage=1e-6, penalty=1.0).images
    x = photos.features.astype(np.float64) - z.centre
    x = x / np.linalg.norm(x, axis=1, keepdims=True) @ z.kernel
    for label in range(20):
        x[photos.labels == label] -= x[photos.labels == label].mean(0)
    spread = np.linalg.eigvalsh(x.T @ x)
    assert spread.max() / spread.min() < 1.01


def test_inner_hold_outs_prefer_words_that_carry_over_and_whitening_that_removes_noise(collection):
    photos, words = collection
    names = np.eye(20)
    found = closed_form.choose(photos, {"names by heart": names, "properties": words})
    assert [one.words for one in found] == ["properties", "names by heart"]
    assert found[0].shrinkage < 1 and found[0].top1 > 0.5 and 0 < found[0].harmonic <= 1
    with pytest.raises(UserError, match="found 3 classes with photos, expected 10 or more"):
        closed_form.folds_of(np.arange(30) % 3)


def test_inner_hold_outs_learn_from_no_photo_that_they_name(collection):
    """How far the best seen class is ahead of the best unseen one, in both ways to compute it and in plain NumPy."""
    photos, words = collection
    kernel = words @ words.T
    x = photos.features - photos.features.mean(0, dtype=float)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    tried = closed_form.try_out(photos, {"words": words}, shrinkages=(1.0,), penalties=(0.3,), seed=4)["words"]
    both = zip(tried[1.0, 0.3], closed_form.products(photos, seed=4), strict=True)
    for fold, (found, products) in zip(closed_form.folds_of(photos.labels, seed=4), both, strict=True):
        new = np.unique(photos.labels[fold.heldout])
        classes = plain_ridge(x[fold.learnt], photos.labels[fold.learnt], kernel, new, 0.3)
        scores = x[np.concatenate([np.flatnonzero(fold.aside), np.flatnonzero(fold.heldout)])] @ classes.T
        gap = scores[:, : -len(new)].max(1) - scores[:, -len(new) :].max(1)
        np.testing.assert_allclose(found.gap, gap, atol=1e-9)
        np.testing.assert_allclose(products.rivals(kernel, 0.3).gap, gap, atol=1e-9)
        assert found.of_seen.sum() == fold.aside.sum() == products.aside


def test_folds_hold_out_each_class_once_and_set_aside_only_photos_of_others():
    labels = np.repeat(np.arange(11), 10)
    folds = closed_form.folds_of(labels, folds=3)
    held = np.concatenate([np.unique(labels[fold.heldout]) for fold in folds])
    assert sorted(held) == list(range(11))
    for fold in folds:
        assert (fold.learnt.astype(int) + fold.aside + fold.heldout == 1).all()
        assert not set(labels[fold.heldout]) & set(labels[fold.learnt | fold.aside])


def test_units_of_relatives_are_shared_and_spelling_does_not_count():
    names = ["Great Tit, Parus, major, Paridae", "COAL  TIT, Periparus, ater, paridae."]
    kinds = ("phrases", "words")
    known = units.vocabulary(names, kinds)
    sets = [set(row[row != units.NONE].tolist()) for row in units.encode(names, kinds, known)]
    every = [unit for of_kind in known for unit in of_kind]
    assert sorted(every[number] for number in sets[0] & sets[1]) == ["paridae", "paridae", "tit"]
    assert len(sets[0]) == 4 + 5 and known[1][:2] == ("paridae", "tit")  # of most texts first
    stranger = units.encode(["Marsh Tit, Poecile palustris, Paridae"], kinds, known)[0]
    assert sorted(stranger[stranger >= len(every)] - len(every)) == [0, 0, 1, 1, 1]  # unknown phrases and words
    with pytest.raises(UserError, match="text.units: found 'letter', expected some of phrases"):
        units.kinds_of("letter")
    for wrong in ("phrases,phrases", "phrases:0", "words:much", "letters,"):
        with pytest.raises(UserError, match="each once, with commas between them"):
            units.kinds_of(wrong)


def test_a_text_of_more_units_than_are_read_is_cut():
    text = " ".join(f"word{i}" for i in range(2 * units.SLOTS))
    known = units.vocabulary([text], ("words",))
    long = units.encode([text], ("words",), known)
    assert (long >= 0).all() and len(known[0]) == 2 * units.SLOTS


def test_kinds_of_units_have_their_weight_and_unknown_units_count():
    from lit_jax.models.units import sets

    kinds, texts = ("phrases", "words"), ["a b, c", "c"]
    known = units.vocabulary(texts, kinds)
    weights = units.weights_of("phrases:3,words")
    assert weights == {"phrases": 0.75, "words": 0.25}
    numbers = units.encode([*texts, "c, x y"], kinds, known)
    found = np.asarray(sets(numbers, tuple(map(len, known)), tuple(weights.values())))
    c, number_of = (0, len(known[0])), np.array([[2, 3], [1, 1], [2, 3]])  # phrases and words of each text
    np.testing.assert_allclose(found[:, c] ** 2, [0.75, 0.25] / number_of, rtol=1e-6)
    np.testing.assert_allclose((found**2).sum(1), [1, 1, 0.75 / 2 + 0.25 / 3], rtol=1e-6)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Given embeddings of 30 species in ten genera, whose features are those of the genus and a little of their own."""
    from data_prep import embeddings

    folder = tmp_path_factory.mktemp("unseen")
    rng = np.random.default_rng(1)
    genera, own = rng.normal(size=(10, 16)), 0.4 * rng.normal(size=(30, 16))
    rows, features, photos = ["name,genus,family"], [], ["file,class,split"]
    for number in range(30):
        genus = number % 10
        name = f"Genus{'abcdefghij'[genus]} epithet{number}"
        rows.append(f"{name},{name.split()[0]},Family{genus // 2}")
        split = "heldout" if number >= 20 else None
        for place in range(12):
            features.append(genera[genus] + own[number] + 0.4 * rng.normal(size=16))
            if number == 20 and place < 3:  # nearly photos of a relative in training
                features[-1] = features[120 + place] + 0.02 * rng.normal(size=16)
            photos.append(f"{number}_{place}.jpg,{name},{split or ('train' if place < 8 else 'validation')}")
    np.savez(folder / "found.npz", emb=np.array(features, np.float32), files=[one.split(",")[0] for one in photos[1:]])
    (folder / "classes.csv").write_text("\n".join(rows))
    (folder / "photos.csv").write_text("\n".join(photos))
    embeddings.main([
        f"--embeddings={folder / 'found.npz'}", f"--ids={folder / 'photos.csv'}", f"--classes={folder / 'classes.csv'}",
        f"--out={folder / 'store'}", "--template={name}, {genus}, {family}", "--vocab-size=400",
    ])  # fmt: skip
    return folder / "store"


CONFIG = """
from lit_jax.config import defaults
def get_config():
    config = defaults()
    config.input = "store"
    config.data.store = {store!r}
    config.image.tower, config.image.width = "given", 16
    config.text.tower, config.text.units = "units", "phrases"
    config.model.embed_dim, config.model.start = 16, "solve"
    config.optimizer.pull, config.optimizer.lr = 0.1, 1e-3
    config.train.epochs, config.train.batch_size = 0.0, 32
    config.evaluation.batch_size, config.evaluation.margin_folds = 64, 3
    config.log.tensorboard = False
    return config
"""


@pytest.fixture(scope="module")
def kept(store, tmp_path_factory):
    """The results of a run that keeps the closed form, and its folder."""
    from lit_jax import config, main

    folder = tmp_path_factory.mktemp("kept")
    (folder / "config.py").write_text(CONFIG.format(store=str(store)))
    loaded, _ = config.load(folder / "config.py")
    return main.train(loaded, folder / "run"), folder / "run"


def test_the_closed_form_kept_as_a_model_is_that_of_numpy(kept, store):
    from lit_jax.data.embedding_store import Rows, open_store
    from lit_jax.evaluation import yardstick
    from lit_jax.text.captions import class_captions
    from lit_jax.text.classes import read_class_table

    results, _ = kept
    opened = open_store(store)
    table = read_class_table(opened.class_table)
    words = yardstick.sets_of([one[0] for one in class_captions(table, opened.templates)], "phrases")
    train, heldout = (Rows(opened, split) for split in ("train", "heldout"))
    photos = Photos(train.whole()[:, 0], train.class_ids)
    (choice,) = closed_form.choose(photos, {"captions": words})
    solved = closed_form.solve(photos, words, shrinkage=choice.shrinkage, penalty=choice.penalty)
    new = np.unique(heldout.class_ids)
    named = new[(solved.images(heldout.whole()[:, 0]) @ solved.classes(words[new]).T).argmax(1)]
    assert results["heldout"]["top1"] == pytest.approx(np.mean(named == heldout.class_ids), abs=0.02)
    assert results["heldout"]["top1"] > 0.5 and results["step"] == 0


def test_a_margin_is_fitted_inside_training_stored_and_used(kept):
    results, folder = kept
    found, fitted = results["gzsl"], results["margin"]
    assert found["margin"] == fitted["margin"] > 0 and fitted["folds"] == 3 and sum(fitted["species"]) == 20
    assert found["without_margin"]["harmonic"] + 0.1 < found["harmonic"] and fitted["harmonic"] > 0.3
    assert len(list((folder / "margin").glob("trial-*.npz"))) == 3
    from lit_jax.trained.loading import load

    assert load(folder).about.margin == fitted


def trials_of(folder):
    """What is kept of each trial of a margin, in order."""
    return [np.load(path) for path in sorted((folder / "margin").glob("trial-*.npz"))]


def learnt_and_named(store):
    """Features and species of the training split, and its inner hold-outs."""
    from lit_jax.data.embedding_store import Rows, open_store

    train = Rows(open_store(store), "train")
    return train.whole()[:, 0], train.class_ids, closed_form.folds_of(train.class_ids, folds=3, seed=0)


def test_a_trial_knows_the_photos_it_learns_from_and_no_other(kept, store):
    """Vectors of photos and classes are those of a ridge regression on a part of the photos, written in NumPy."""
    from lit_jax.data.embedding_store import open_store
    from lit_jax.text.classes import read_class_table

    words = plain_phrases(read_class_table(open_store(store).class_table))[:20]
    kernel = words @ words.T
    features, species, folds = learnt_and_named(store)
    choice = closed_form.choose(Photos(features, species), {"captions": words})[0]
    for fold, trial in zip(folds, trials_of(kept[1]), strict=True):
        x, y = features[fold.learnt].astype(float), species[fold.learnt]
        images = closed_form.solve(Photos(x, y), words, shrinkage=choice.shrinkage, penalty=choice.penalty).images
        np.testing.assert_allclose(images.centre, x.mean(0))
        vectors = plain_ridge(images(x), y, kernel, np.unique(species[fold.heldout]), choice.penalty)
        order = np.concatenate([np.unique(y), np.unique(species[fold.heldout])])
        np.testing.assert_allclose(trial["classes"][order], vectors, atol=1e-5)
        assert (np.flatnonzero(trial["seen"]) == np.unique(y)).all() and len(trial["seen"]) == 20
        named = fold.aside | fold.heldout  # fewer of each species than are drawn
        assert (trial["labels"] == species[named]).all()
        np.testing.assert_allclose(trial["photos"], images(features[named]), atol=1e-5)


def test_batches_of_a_trial_hold_the_photos_it_learns_from_and_no_other(kept, store, tmp_path):
    import dataclasses

    from lit_jax import config
    from lit_jax.training import margin
    from tests.conftest import built_of

    loaded, _ = config.load(kept[1].parent / "config.py", {"train.epochs": "4", "train.devices": "1"})
    built = built_of(loaded, tmp_path)
    features, _, folds = learnt_and_named(store)
    row_of = {row.tobytes(): number for number, row in enumerate(features)}
    fed = []

    def noted(state, locked, batch):
        fed[-1].update(row_of[row.tobytes()] for row in np.asarray(batch["features"], features.dtype))
        return state, {}

    def without(left_out):
        shorter = built.without(left_out)

        def of(photos):
            fed.append(set())
            return shorter.of(photos)

        return shorter._replace(of=of, step=noted)

    margin.fit(
        dataclasses.replace(built, without=without),
        tell=lambda _: None,
        tick=lambda *_: None,
        interrupted=lambda: False,
    )
    for found, fold in zip(fed, folds, strict=True):
        learnt = set(np.flatnonzero(fold.learnt))
        assert found <= learnt and len(found) > 0.9 * len(learnt)


def test_factors_of_a_margin_are_those_at_which_answers_of_each_kind_are_most_likely(kept):
    fitted = kept[0]["margin"]
    answers = []  # scores of all classes, whether the one named is a seen one, and the score of the right one
    for trial in trials_of(kept[1]):
        scores = trial["photos"].astype(float) @ trial["classes"].T - fitted["margin"] * trial["seen"]
        own = scores[np.arange(len(scores)), trial["labels"]]
        answers.append((scores, trial["seen"][scores.argmax(1)], own))
    scores, named_seen, own = map(np.concatenate, zip(*answers, strict=True))

    def loss(factor, rows):
        return np.mean(np.log(np.exp(factor * scores[rows]).sum(1)) - factor * own[rows])

    grid = np.exp(np.linspace(0, 6, 241))
    for kind, rows in (("seen", named_seen), ("unseen", ~named_seen)):
        best = grid[np.argmin([loss(factor, rows) for factor in grid])]
        assert fitted["factors"][kind] == pytest.approx(best, rel=0.026)
    assert abs(np.log(fitted["factors"]["seen"] / fitted["factors"]["unseen"])) > 0.1  # one for the other is found out


def test_training_starts_at_the_closed_form(kept, trained_on, capsys):
    results, _, out = trained_on
    assert results["step"] == 10 and results["loss"] < 3.5
    assert results["heldout"]["top1"] > 0.5
    assert "starts at the closed form" in out


@pytest.fixture(scope="module")
def trained_on(kept, tmp_path_factory):
    """A run of two epochs that finds the trials of a run of none in its folder: its results, folder and output."""
    import contextlib
    import io
    import shutil

    from lit_jax import config, main

    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(kept[1] / "margin", folder / "run" / "margin")
    loaded, _ = config.load(kept[1].parent / "config.py", {"train.epochs": "2"})
    with contextlib.redirect_stdout(io.StringIO()) as out:
        results = main.train(loaded, folder / "run")
    return results, folder / "run", out.getvalue()


def test_trials_that_other_options_made_are_made_again(kept, trained_on):
    """As if the run had begun in a folder of its own."""
    from lit_jax import config, main

    _, folder, _ = trained_on
    loaded, _ = config.load(kept[1].parent / "config.py", {"train.epochs": "2"})
    alone = main.train(loaded, folder.parent / "alone")
    assert trained_on[0]["margin"] == alone["margin"]
    assert alone["margin"]["margin"] != kept[0]["margin"]["margin"]
    for name in ("trial-0-of-3.npz", "trial-2-of-3.npz"):
        mine, whole, of_none = (np.load(one / "margin" / name) for one in (folder, folder.parent / "alone", kept[1]))
        np.testing.assert_array_equal(mine["classes"], whole["classes"])
        assert str(mine["made_from"]) != str(of_none["made_from"])


def test_trials_of_the_same_run_are_kept_and_damaged_ones_made_again(kept, tmp_path):
    import shutil

    from lit_jax import config, main

    shutil.copytree(kept[1] / "margin", tmp_path / "run" / "margin")
    first, second, third = sorted((tmp_path / "run" / "margin").iterdir())
    old = dict(np.load(second))
    np.savez(second, **{name: old[name] for name in old if name != "made_from"})  # as earlier versions wrote them
    third.write_bytes(third.read_bytes()[:-100])
    (first.parent / f"{first.name}.123.part").write_bytes(b"half")  # of a run that was killed
    before = first.stat().st_mtime_ns
    results = main.train(config.load(kept[1].parent / "config.py")[0], tmp_path / "run")
    assert results["margin"] == kept[0]["margin"] and first.stat().st_mtime_ns == before
    for path in (second, third):
        np.testing.assert_array_equal(np.load(path)["photos"], np.load(kept[1] / "margin" / path.name)["photos"])
        assert "made_from" in np.load(path)
    assert sorted(first.parent.iterdir()) == [first, second, third]


def test_a_margin_of_no_epoch_stops_between_its_trials(kept, tmp_path):
    from lit_jax import config
    from lit_jax.errors import Stopped
    from lit_jax.training import margin
    from tests.conftest import built_of

    # No batch is drawn, so that one may be larger than the collection.
    experiment = built_of(config.load(kept[1].parent / "config.py", {"train.batch_size": "4096"})[0], tmp_path / "run")
    asked = []
    with pytest.raises(Stopped, match="stopped while the margin was fitted"):
        margin.fit(
            experiment, tell=print, tick=lambda *_: None, interrupted=lambda: bool(asked.append(1)) or len(asked) == 2
        )
    assert [path.name for path in (tmp_path / "run" / "margin").iterdir()] == ["trial-0-of-3.npz"]


def test_a_trial_is_of_its_weights_whatever_their_name(tmp_path):
    from lit_jax.training import margin

    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "tower.npz", tmp_path / "folder" / "model.safetensors"):
        named = str(path if path.suffix == ".npz" else path.parent)
        path.write_bytes(b"some")
        before = margin._content(named)
        assert before != [named] and margin._content(named) == before
        path.write_bytes(b"same")  # overwritten, and as long
        assert margin._content(named) != before
    assert margin._content("hf-hub:a/b") == ["hf-hub:a/b"] and margin._content("") == [""]


def test_trials_scale_a_warm_up_in_steps_and_know_what_the_run_sets_aside(store, tmp_path):
    from lit_jax import config
    from tests.conftest import built_of

    (tmp_path / "config.py").write_text(CONFIG.format(store=str(store)))
    given = {
        "train.epochs": "3",
        "train.batch_size": "16",
        "optimizer.warmup_steps": "20",
        "optimizer.warmup_epochs": "0",
        "data.select_fraction": "0.25",
    }
    experiment = built_of(config.load(tmp_path / "config.py", given)[0], tmp_path / "run")
    assert experiment.length.steps == 23  # 3 epochs of 120 photos
    shorter = experiment.without([np.arange(160) < 100])
    assert shorter.aside.sum() == 40 and shorter.length.steps < 20  # the warm-up of the run alone would be longer
    feed, start = shorter.of(np.arange(160) < 100)
    state, _ = start()
    assert int(shorter.step(state, experiment.locked, next(iter(feed(0))))[0].step) == 1


def test_a_trial_that_diverges_is_one_line_and_not_kept(store, tmp_path):
    from lit_jax import config, main
    from lit_jax.errors import UserError

    (tmp_path / "config.py").write_text(CONFIG.format(store=str(store)))
    given = {"train.epochs": "3", "optimizer.lr": "1e30", "optimizer.pull": "0", "optimizer.warmup_epochs": "0"}
    with pytest.raises(
        UserError, match=r"margin_folds: found a training .* not finite, expected .* lower optimizer.lr"
    ):
        main.train(config.load(tmp_path / "config.py", given)[0], tmp_path / "run")
    assert not list((tmp_path / "run").glob("margin/*.npz"))


def test_trainings_without_some_photos_last_the_epochs_of_the_run_and_share_its_features(store, tmp_path):
    """Of 160 photos two trials leave out 64 and 96: 1.2 epochs of the fewest are left of 2, in whole optimizer steps."""
    import jax

    from lit_jax import config
    from tests.conftest import built_of

    def of_photos():
        return sum(x.shape == (160, 1, 16) for x in jax.live_arrays())

    others = of_photos()
    (tmp_path / "config.py").write_text(CONFIG.format(store=str(store)))
    given = {
        "train.epochs": "3",
        "train.batch_size": "16",
        "optimizer.accumulate": "2",
        "optimizer.warmup_epochs": "0.5",
    }
    experiment = built_of(config.load(tmp_path / "config.py", given)[0], tmp_path / "run")
    assert experiment.length.steps == 30
    masks = [np.arange(160) < left_out for left_out in (64, 96)]
    shorter = experiment.without(masks)
    assert shorter.length == pytest.approx((4.0, 12))  # 64 of 160 photos are 0.4 of 30 steps
    feed, start = shorter.of(masks[1])
    assert int(start()[0].step) == 0 and next(iter(feed(0)))["features"].shape == (16, 16)
    feeds = [experiment.feed, feed, *(shorter.of(mask)[0] for mask in masks)]
    assert of_photos() == others + 1 and len(feeds) == 4


def test_a_shard_is_compared_with_its_checksum_once_in_a_process(store, monkeypatch):
    from lit_jax.data import embedding_store

    read = []
    digest = embedding_store.file_digest
    monkeypatch.setattr(embedding_store, "file_digest", lambda path: (read.append(path.name), digest(path))[1])
    embedding_store._digest_of.cache_clear()
    opened = embedding_store.open_store(store)
    read.clear()
    for _ in range(3):
        assert len(embedding_store.Rows(opened, "train").class_ids) == 160
    assert sorted(read) == sorted(set(read)) and len(read) == 3
    embedding_store.verify(opened)  # as it is asked to: every file is read again
    assert len(read) == 3 + 9


def test_a_closed_form_too_large_for_memory_is_left_out_with_a_line(kept, store, tmp_path, capsys, monkeypatch):
    from lit_jax import evaluate
    from lit_jax.data.embedding_store import open_store
    from lit_jax.evaluation import yardstick
    from lit_jax.text.classes import read_class_table

    opened = open_store(store)
    table, splits = read_class_table(opened.class_table), ("train", "validation", "heldout")
    held = yardstick.bytes_held(opened, table, splits)
    words = list(yardstick.kinds_of(table).values()) + list(yardstick.mixed(yardstick.kinds_of(table)).values())
    assert held >= sum(one.nbytes for one in words) + 360 * 16 * 4 and yardstick.why_not(opened, table, splits) == ""
    monkeypatch.setattr(yardstick, "MOST_BYTES", held - 1)
    monkeypatch.setattr(yardstick, "measure", lambda *_, **__: pytest.fail("was measured"))
    evaluate.main([f"--checkpoint={kept[1]}", "--split=heldout", f"--out={tmp_path / 'o.json'}", "--no-page"])
    assert "GiB to hold at once, more than 0: no closed form beside" in capsys.readouterr().out
    assert json.loads((tmp_path / "o.json").read_text())["closed_form"] == []


def test_an_evaluation_tells_seen_from_unseen_on_page_and_card(kept, tmp_path, capsys, drawn):
    from lit_jax import evaluate, export

    results, folder = kept
    evaluate.main([f"--checkpoint={folder}", "--split=heldout"])
    out = capsys.readouterr().out
    assert "seen and unseen among all" in out and "closed form, photos whitened" in out
    result = json.loads((folder / "evaluation-heldout.json").read_text())
    for name in ("seen", "unseen", "harmonic", "ausuc", "margin"):
        assert result["gzsl"][name] == pytest.approx(results["gzsl"][name])
    assert result["species"] == {"seen": 0, "unseen": 10, "by": "ids"}
    assert set(result["gzsl"]["by_rank"]) >= {"species", "genus"}
    assert result["gzsl"]["by_rank"]["genus"]["unseen"] >= result["gzsl"]["by_rank"]["species"]["unseen"]
    page = (folder / "evaluation-heldout.html").read_text()
    assert "Species that it has no photo of" in page and f"{100 * results['gzsl']['unseen']:.0f} of 100" in page
    export.main([f"--checkpoint={folder}", f"--out={tmp_path / 'model'}"])
    card = (tmp_path / "model" / "README.md").read_text()
    assert "## Species without a photo" in card and f"{results['margin']['margin']:.3f}" in card
    capsys.readouterr()
    evaluate.main([f"--checkpoint={tmp_path / 'model'}", "--split=heldout", f"--store={folder_store(folder)}"])
    assert f"{results['margin']['margin']:.3f}" in capsys.readouterr().out


def test_an_evaluation_tells_leaks_and_accuracy_by_relatives(kept, store, capsys, monkeypatch):
    from lit_jax import evaluate
    from lit_jax.data.embedding_store import Rows, open_store
    from lit_jax.evaluation import report

    _, folder = kept
    arguments = [f"--checkpoint={folder}", "--split=heldout"]
    evaluate.main(arguments)
    result = json.loads((folder / "evaluation-heldout.json").read_text())
    page, printed = (folder / "evaluation-heldout.html").read_text(), capsys.readouterr().out
    found, opened = result["leaks"], open_store(store)
    # By NumPy alone: each held-out photo and its nearest of training, without the mean of training.
    train, new = (np.float64(Rows(opened, split).whole()[:, 0]) for split in ("train", "heldout"))
    unit = [(x - train.mean(0)) / np.linalg.norm(x - train.mean(0), axis=1, keepdims=True) for x in (new, train)]
    near = int(((unit[0] @ unit[1].T).max(1) >= 0.95).sum())
    assert 0 < near == found["photos"]["near_photos"] and found["photos"]["photos"] == 120
    assert f"{near:,} of 120 photos of held-out species" in page and "Photos seen before" in page
    (row,) = found["kinship"]["rows"]  # every held-out species has two of its genus in training
    assert (row["group"], row["species"], row["images"]) == ("genus", 10, 120)
    assert row["top1"] == pytest.approx(result["top1"]) and row["among_all"]["top1"] == pytest.approx(
        result["gzsl"]["unseen"]
    )
    trusted = f"<b>{100 * row['among_all']['top1']:.0f} of 100</b> if training has a species of its genus (10 species)"
    assert trusted in page and page.index(trusted) < page.index("Guessing would be right")
    assert found["names"] == [] and "No name was read" in page and "Leaks: what it may owe to training" in page
    assert f"leaks: {near} of 120 photos are nearly one of training; names of 0 of 10 held-out" in printed
    # More photos than are compared in seconds.
    monkeypatch.setattr(report, "COMPARED", 100)
    evaluate.main(arguments)
    text = (folder / "evaluation-heldout.html").read_text()  # which others get: no path of this machine
    assert "python -m lit_jax.leaks --store=store<" in text and str(store) not in text
    # Of seen species there is nothing to leak.
    evaluate.main([arguments[0], "--split=validation", "--no-page"])
    assert json.loads((folder / "evaluation-validation.json").read_text())["leaks"] is None


def folder_store(folder):
    """The store that a run was trained on."""
    return json.loads((folder / "config.json").read_text())["data.store"]


def test_inner_hold_outs_of_both_ways_are_prepared_once_and_choose_the_same(store, monkeypatch):
    from lit_jax.data.embedding_store import Rows, open_store
    from lit_jax.evaluation import yardstick
    from lit_jax.text.classes import read_class_table

    prepared, times = closed_form._prepared, []
    monkeypatch.setattr(closed_form, "_prepared", lambda *given: times.append(given) or prepared(*given))
    opened = open_store(store)
    table = read_class_table(opened.class_table)
    kinds = yardstick.kinds_of(table)
    found = yardstick.measure(opened, table, ("train", "validation", "heldout"), kinds, seed=2)
    assert len(times) == 1
    train = Rows(opened, "train")
    photos = Photos(train.take(np.arange(len(train))), train.class_ids)
    for row, shrinkages in zip(found, yardstick.WAYS.values(), strict=True):
        alone = closed_form.choose(photos, yardstick.mixed(kinds), shrinkages=shrinkages, seed=2)
        words, shrinkage, penalty, top1 = alone[0][:4]
        assert [row[name] for name in ("words", "whitening", "penalty", "inner")] == [
            words,
            1 - shrinkage,
            penalty,
            top1,
        ]
        assert row["inner_all"] == {one.words: one.top1 for one in alone}
        assert row["gzsl"]["margin"] == alone[0].margin and row["gzsl"]["harmonic_inside"] == alone[0].harmonic


def plain_phrases(table):
    """`[K, F]` unit vectors of name, genus and family as whole phrases, without any hashing."""
    rows = [(row["family"], row["genus"], row["name"]) for row in table.rows()]
    vocabulary = sorted({value for row in rows for value in row})
    there = np.array([[value in row for value in vocabulary] for row in rows], float)
    return there / np.linalg.norm(there, axis=1, keepdims=True)


def plain_ridge(x, y, kernel, new, penalty):
    """Unit vectors of classes `new` from centred unit photos of others, by the dual formula, and of the others."""
    old = np.unique(y)
    means = np.stack([x[y == c].mean(0) for c in old])
    weights = np.linalg.inv(kernel[np.ix_(old, old)] + penalty * np.eye(len(old))) @ (means - means.mean(0))
    every = kernel[np.ix_(np.concatenate([old, new]), old)] @ weights + means.mean(0)
    return every / np.linalg.norm(every, axis=1, keepdims=True)


def test_the_probe_prints_and_writes_the_closed_form_that_plain_numpy_gives(store, tmp_path, capsys, monkeypatch):
    from lit_jax import probe
    from lit_jax.data.embedding_store import Rows, open_store
    from lit_jax.evaluation import yardstick
    from lit_jax.text.classes import read_class_table

    kinds_of = yardstick.kinds_of
    monkeypatch.setattr(yardstick, "kinds_of", lambda table: {"ranks": kinds_of(table)["ranks"]})
    monkeypatch.setattr(probe, "probe", lambda *_, **__: [])  # the supervised half has tests of its own
    probe.main([f"--store={store}", f"--out={tmp_path / 'o.json'}"])
    printed = capsys.readouterr().out
    written = json.loads((tmp_path / "o.json").read_text())
    assert written["rows"] == []
    row = written["closed_form"][0]
    assert (row["method"], row["words"], row["whitening"]) == ("closed form, photos as they are", "ranks", 0)

    opened = open_store(store)
    table = read_class_table(opened.class_table)
    splits = {split: Rows(opened, split) for split in ("train", "validation", "heldout")}
    x = {split: rows.whole()[:, 0].astype(float) for split, rows in splits.items()}
    centre = x["train"].mean(0)
    x = {split: (values - centre) / np.linalg.norm(values - centre, axis=1)[:, None] for split, values in x.items()}
    y = {split: np.array([table.index_of(i) for i in rows.class_ids]) for split, rows in splits.items()}
    words = plain_phrases(table)
    kernel = words @ words.T
    inner = {}
    for penalty in closed_form.PENALTIES:
        rates = []
        for fold in closed_form.folds_of(y["train"]):
            new = np.unique(y["train"][fold.heldout])
            vectors = plain_ridge(x["train"][fold.learnt], y["train"][fold.learnt], kernel, new, penalty)[-len(new) :]
            named = new[(x["train"][fold.heldout] @ vectors.T).argmax(1)]
            rates.append(np.mean(named == y["train"][fold.heldout]))
        inner[penalty] = np.mean(rates)
    assert row["inner"] == pytest.approx(max(inner.values())) and inner[row["penalty"]] == max(inner.values())
    seen, new = np.unique(y["train"]), np.unique(y["heldout"])
    vectors = plain_ridge(x["train"], y["train"], kernel, new, row["penalty"])
    scores = np.concatenate([x["validation"], x["heldout"]]) @ vectors.T
    labels = np.concatenate([y["validation"], y["heldout"]])
    columns, of_seen = np.concatenate([seen, new]), np.isin(labels, seen)
    zsl = np.mean(new[scores[~of_seen][:, len(seen) :].argmax(1)] == labels[~of_seen])

    def both(margin):
        right = columns[(scores - margin * np.isin(columns, seen)).argmax(1)] == labels
        return right[of_seen].mean(), right[~of_seen].mean()

    s, u = both(row["gzsl"]["margin"])
    fine = np.array([both(margin) for margin in np.linspace(-2, 2, 4001)])
    assert row["top1"] == pytest.approx(zsl) and row["chance"] == pytest.approx(0.1)
    assert [row["gzsl"][name] for name in ("seen", "unseen", "harmonic")] == pytest.approx([s, u, 2 * s * u / (s + u)])
    assert row["gzsl"]["ausuc"] == pytest.approx(np.trapezoid(fine[:, 0], fine[:, 1]), abs=5e-3)
    line = next(line for line in printed.splitlines() if "photos as they are" in line)
    for value in (f"{100 * zsl:.1f} %", "10.0 %", f"{100 * s:.1f} %", f"{100 * u:.1f} %", f"{row['penalty']:g}"):
        assert value in line
    assert "ZSL of 10" in printed and f"{100 * row['inner']:.1f} %" in printed


def test_the_probe_leaves_the_closed_form_out_or_refuses_a_split_in_one_line(store, tmp_path, capsys, monkeypatch):
    from lit_jax import probe
    from lit_jax.evaluation import yardstick

    monkeypatch.setattr(probe, "probe", lambda *_, **__: [])
    given = [f"--store={store}", f"--out={tmp_path / 'o.json'}"]
    probe.main([*given, "--heldout-split="])
    assert json.loads((tmp_path / "o.json").read_text())["closed_form"] == []
    for split, message in (
        ("validation", "--heldout-split validation: found 20 species that are in train or validation too (Genus"),
        ("nowhere", "--heldout-split: found 'nowhere', expected one of"),
    ):
        with pytest.raises(SystemExit):
            probe.main([*given, f"--heldout-split={split}"])
        assert message in capsys.readouterr().err
    monkeypatch.setattr(yardstick, "enough", lambda classes, folds=11: classes >= 2 * folds)
    probe.main(given)
    assert "too few species in training" in capsys.readouterr().out
    assert json.loads((tmp_path / "o.json").read_text())["closed_form"] == []


def test_only_too_few_species_leave_the_closed_form_out_of_an_evaluation(kept, store, monkeypatch):
    from lit_jax.data.embedding_store import open_store
    from lit_jax.evaluation import report, yardstick
    from lit_jax.trained.loading import load

    given = (load(kept[1]), open_store(store), "heldout", (), "caption")

    def broken(*_, **__):
        raise UserError("store: found a shard of another length, expected that of the manifest; copy it again")

    monkeypatch.setattr(yardstick, "measure", broken)
    with pytest.raises(UserError, match="another length"):
        report._closed_form(*given)
    monkeypatch.setattr(yardstick, "enough", lambda classes, folds=11: classes >= 2 * folds)
    assert report._closed_form(*given) == []


def test_options_that_need_a_store_or_words_are_refused_in_one_line(kept, tmp_path):
    from lit_jax import config
    from lit_jax.settling import settle_run

    _, folder = kept
    for overrides, message in (
        ({"text.tower": "transformer", "text.units": ""}, "model.start: found solve with text.tower transformer"),
        ({"text.tower": "transformer"}, "text.units: found phrases with text.tower transformer"),
        ({"model.start": ""}, "train.epochs: found 0"),
        ({"input": "records", "image.tower": "vit", "image.weights": "x.npz"}, "records"),
        ({"evaluation.margin_folds": "30"}, "evaluation.margin_folds: found 30"),
    ):
        with pytest.raises(UserError, match=message):
            settle_run(config.load(folder.parent / "config.py", overrides)[0])


class _Collection:
    """As many species and photos as asked for, in a training split."""

    def __init__(self, folder, species, photos):
        self.directory, self.splits, self.class_table = folder, ("train",), folder / "classes.csv"
        self.species, self.photos = species, photos
        rows = [f"{number},Genus{number} species{number}" for number in range(species)]
        self.class_table.write_text("\n".join(["id,name", *rows]) + "\n", encoding="utf-8")

    def classes_in(self, split):
        return range(self.species)

    def examples(self, split):
        return self.photos


@pytest.mark.parametrize(
    ("given", "species", "said"),
    [
        ({"model.start": "solve"}, 9, 'model.start: found solve with 9 species .* set config.model.start = ""$'),
        (
            {"model.start": "solve", "train.epochs": 0.0},
            2,
            'found solve with 2 .*, expected 10 or more.*set config.model.start = "" and config.train.epochs = 10.0$',
        ),
        (
            {"model.start": "solve", "evaluation.margin_folds": 5},
            8,
            'model.start = "" and config.evaluation.margin_folds = 4$',
        ),
        (
            {"model.start": "solve", "evaluation.margin_folds": 8},
            12,
            "evaluation.margin_folds: found 8 with 12 species .* expected 16 or more.*set config.evaluation.margin_folds = 6$",
        ),
        ({"evaluation.margin_folds": 5}, 3, "found 5 with 3 .* set config.evaluation.margin_folds = 0$"),
        ({"evaluation.margin_folds": 5}, 10, "and one photo of each, .* set config.evaluation.margin_folds = 0$"),
    ],
)
def test_a_recipe_that_asks_for_more_species_names_the_lines_to_change(tmp_path, given, species, said):
    from lit_jax import config
    from lit_jax.settling import check_species

    photos = species if "one photo" in said else 5 * species
    with pytest.raises(UserError, match=said) as refused:
        check_species(config.from_flat(given, source="test"), _Collection(tmp_path, species, photos))
    check_species(config.from_flat(given, source="test"), _Collection(tmp_path, 20, 100))
    # What is advised is taken.
    advised = re.findall(r'config\.(\S+) = ("?[\d.]*"?)', str(refused.value))
    flat = {**given, **{name: type(config.OPTIONS[name].default)(value.strip('"')) for name, value in advised}}
    check_species(config.from_flat(flat, source="test"), _Collection(tmp_path, species, photos))


@pytest.mark.parametrize("command", ["plan", "embed"])
def test_too_few_species_are_refused_before_anything_is_embedded(command, tiny_config, tmp_path, capsys):
    import importlib

    out = tmp_path / "store"
    given = [f"--config={tiny_config}", "--config.input=store", f"--config.data.store={out}"]
    given += ["--config.evaluation.margin_folds=20"]
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(f"lit_jax.{command}").main(given)
    (line,) = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2 and line.startswith("error: evaluation.margin_folds: found 20 with ")
    assert "set config.evaluation.margin_folds = " in line and not list(tmp_path.glob("store*/*"))


def test_a_tower_that_there_is_not_is_refused_before_records_are_made(tmp_path, capsys):
    from lit_jax import main

    made = tmp_path / "made"
    config = tmp_path / "own.py"
    config.write_text(
        "from lit_jax.config import defaults\nimport pathlib\n"
        "def get_config():\n    config = defaults()\n    config.image.tower = 'resnet5'\n"
        f"    config.data.records = {str(tmp_path / 'records')!r}\n    return config\n"
        f"def prepare(config):\n    pathlib.Path({str(made)!r}).mkdir()\n"
    )
    with pytest.raises(SystemExit):
        main.main([f"--config={config}", f"--workdir={tmp_path / 'run'}"])
    assert "image.tower: found resnet5" in capsys.readouterr().err and not made.exists()


def test_a_large_collection_is_drawn_from_for_inner_hold_outs_and_a_small_one_is_not():
    labels = np.repeat(np.arange(40), 10)
    photos = Photos(np.arange(400.0)[:, None], labels)
    assert closed_form.sampled(photos, seed=0) is photos
    some = closed_form.sampled(photos, seed=0, classes=8, number=40)
    assert len(some.classes) == 8 and (np.bincount(some.labels)[some.classes] == 5).all()
    assert (some.features[:, 0] // 10 == some.labels).all()
    again, other = (closed_form.sampled(photos, seed=seed, classes=8, number=40) for seed in (0, 1))
    assert (again.features == some.features).all() and set(other.classes) != set(some.classes)


def test_a_class_of_one_photo_is_learnt_from_unless_it_is_held_out():
    labels = np.concatenate([np.arange(20), [3, 3, 3]])  # rows of a head, and photos of one class
    for fold in closed_form.folds_of(labels, folds=5):
        assert (fold.learnt.astype(int) + fold.aside + fold.heldout == 1).all()
        assert set(labels[fold.learnt]) | set(labels[fold.heldout]) == set(range(20))
        assert set(labels[fold.aside]) <= {3}


def test_copies_of_training_photos_are_said_first_with_the_figures_without_them(kept, store, tmp_path, capsys):
    from lit_jax import evaluate
    from lit_jax.data.embedding_store import Rows, open_store
    from lit_jax.evaluation import page, tables

    out = tmp_path / "found.json"
    evaluate.main([f"--checkpoint={kept[1]}", "--split=heldout", f"--out={out}"])
    printed, found = capsys.readouterr().out, json.loads(out.read_text())
    train, heldout = (Rows(open_store(store), split).whole()[:, 0].astype(np.float64) for split in ("train", "heldout"))
    one, other = (
        (x - train.mean(0)) / np.linalg.norm(x - train.mean(0), axis=1, keepdims=True) for x in (heldout, train)
    )
    near = (one @ other.T).max(1) >= 0.95
    told = found["near_copies"]
    assert near.sum() == 3 == told["near_photos"] and told["photos"] == 120 and told["images"] == 117
    # The copies are photos of one species: what is right of the others is what is right of all, less what is of these.
    right = round(found["top1"] * 120) - round(told["top1"] * 117)
    assert 0 <= right <= 3 and found["leaks"]["photos"]["near_photos"] == 3
    first, said = printed.splitlines()[1], f"without them: top-1 {100 * told['top1']:.2f} % ("
    assert first.startswith("3 of 120 photos have near-copies in training; ") and said in first and "of 117" in first
    assert "3 of 120 photos have near-copies in training" in out.with_suffix(".html").read_text()
    none = {**found, "near_copies": {**told, "near_photos": 0}}
    for shown in (none, {**found, "near_copies": None}):
        assert "near-copies" not in tables.table_of(shown) + page.page(shown, name="x")


def test_long_work_of_an_evaluation_and_of_a_start_gives_signs_of_life(kept, store, tmp_path, monkeypatch, capsys):
    """As if each part took longer than the time between two lines."""
    from lit_jax import config, main
    from lit_jax.base import console
    from lit_jax.data.embedding_store import open_store
    from lit_jax.evaluation import report
    from lit_jax.trained.loading import load

    monkeypatch.setitem(console.Progress.__init__.__kwdefaults__, "every_seconds", -1.0)
    report.evaluate(load(kept[1]), open_store(store), "heldout")
    said = capsys.readouterr().out
    for sign in ("120 of 120 photos of split heldout", " pairs of photos, ", "closed form: inner hold-out 5 of 5"):
        assert sign in said
    given = {"evaluation.margin_folds": "2", "train.epochs": "1", "optimizer.warmup_epochs": "0"}
    main.train(config.load(kept[1].parent / "config.py", given)[0], tmp_path / "run")
    said = capsys.readouterr().out
    assert "closed form: inner hold-out 1 of 5" in said and "step 5/5, epoch 1.00" in said
    assert "1 of 2 steps of trials for the margin" in said and "2 of 2 steps of trials for the margin" in said


def test_copies_are_not_looked_for_where_that_would_take_long(kept, store, monkeypatch):
    from lit_jax.data.embedding_store import open_store
    from lit_jax.evaluation import report
    from lit_jax.trained.loading import load

    monkeypatch.setattr(report, "COMPARED", 200)
    found = report.evaluate(load(kept[1]), open_store(store), "heldout")
    assert found["near_copies"] is None and found["leaks"]["photos"] is None

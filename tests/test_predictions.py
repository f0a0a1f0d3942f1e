import numpy as np
import pytest

from lit_jax.base.sharding import make_mesh, put_batch
from lit_jax.evaluation import calibration, ranking


def reference(photos, labels, classes, k=5):
    scores = np.float64(photos) @ np.float64(classes).T
    order = np.argsort(-scores, axis=1, kind="stable")
    return order[:, :k], np.argmax(order == labels[:, None], axis=1)


@pytest.mark.parametrize("devices", [1, 8])
def test_best_and_rank_with_ties_in_blocks(rng, monkeypatch, devices):
    monkeypatch.setattr(ranking, "BLOCK", 16)
    photos = (rng.integers(-2, 3, (53, 6)) / 4).astype(np.float32)  # products are exact, ties many
    classes = (rng.integers(-2, 3, (23, 6)) / 4).astype(np.float32)
    classes[[4, 19, 22]] = classes[7]
    labels = rng.integers(0, 23, 53)
    got = ranking.predict(photos, labels, classes, make_mesh(devices))
    best, rank = reference(photos, labels, classes)
    assert np.array_equal(got.best, best) and np.array_equal(got.rank, rank)
    hits = got.hits()
    assert hits.summary()["top1"] == (rank < 1).mean() and hits.summary()["top5"] == (rank < 5).mean()
    assert hits.images.sum() == 53


def test_equal_classes_tie_exactly_although_products_round(rng):
    photos = rng.normal(size=(40, 67)).astype(np.float32)
    classes = np.repeat(rng.normal(size=(1, 67)), 37, 0).astype(np.float32)
    got = ranking.predict(photos, np.full(40, 36), classes, make_mesh(1))
    assert (got.rank == 36).all() and (got.best == np.arange(5)).all()


def test_photos_on_the_devices_have_the_same_ranks_by_the_same_precise_product(rng):
    """Ranking in training and in an evaluation is one function; it asks for precision where hardware would round."""
    photos, classes = (rng.normal(size=(n, 5)).astype(np.float32) for n in (16, 9))
    classes[3] = classes[7]
    labels, mesh = rng.integers(0, 9, 16), make_mesh(8)
    keys, placed = ranking.put_classes(classes, mesh), put_batch({"photos": photos}, mesh)["photos"]
    got = ranking.ranks(placed, labels, keys, mesh)
    np.testing.assert_array_equal(got, reference(photos, labels, classes)[1])
    np.testing.assert_array_equal(got, ranking.predict(photos, labels, classes, mesh).rank)
    function = ranking._answering(ranking._ranked, mesh)
    assert "precision = [HIGHEST, HIGHEST]" in function.lower(placed, labels.astype(np.int32), keys).as_text()


def test_the_search_for_a_temperature_compiles_once(rng):
    photos, classes = (rng.normal(size=(n, 7)).astype(np.float32) for n in (21, 13))
    labels, mesh = rng.integers(0, 13, 21), make_mesh(1)
    function = ranking._answering(ranking._likely, mesh)
    before, asked = function._cache_size(), []

    def at(factor):
        asked.append(factor)
        return ranking.likelihoods(photos, labels, classes, mesh, factor=factor)

    calibration.fit_factor(at)
    assert len(asked) > 2 and function._cache_size() == before + 1


def test_fewer_classes_than_places(rng):
    got = ranking.predict(rng.normal(size=(4, 3)), np.zeros(4, int), rng.normal(size=(2, 3)), make_mesh(1))
    assert got.best.shape == (4, 2)


def test_likelihoods_against_float64_and_finite_differences(rng):
    photos, classes = rng.normal(size=(30, 8)).astype(np.float32), rng.normal(size=(12, 8)).astype(np.float32)
    classes[5] = classes[3]
    labels = rng.integers(0, 12, 30)
    scores = np.float64(photos) @ np.float64(classes).T

    def loss(factor):
        logits = factor * scores
        return np.log(np.exp(logits).sum(1)) - logits[np.arange(30), labels]

    got = ranking.likelihoods(photos, labels, classes, make_mesh(1), factor=0.8)
    softmax = np.exp(0.8 * scores) / np.exp(0.8 * scores).sum(1, keepdims=True)
    np.testing.assert_allclose(got.confidence, softmax.max(1), rtol=1e-5)
    np.testing.assert_allclose(got.loss, loss(0.8), rtol=1e-4, atol=1e-5)
    step = 1e-4
    np.testing.assert_allclose(got.slope, (loss(0.8 + step) - loss(0.8 - step)) / (2 * step), rtol=1e-3, atol=1e-4)


def test_calibration_error_by_hand():
    found = calibration.reliability(np.array([0.05, 0.5, 0.58, 1.0]), np.array([True, True, False, True]), bins=2)
    # Bins (0, 0.5] and (0.5, 1]: |0.275 - 1| for two photos, |0.79 - 0.5| for two.
    assert found["ece"] == pytest.approx((2 * 0.725 + 2 * 0.29) / 4)
    assert [row["images"] for row in found["bins"]] == [2, 2]


def test_the_temperature_of_labels_drawn_from_the_model_is_found(rng):
    photos, classes = rng.normal(size=(4000, 5)).astype(np.float32), rng.normal(size=(7, 5)).astype(np.float32)
    scores = np.float64(photos) @ np.float64(classes).T
    softmax = np.exp(1.7 * scores) / np.exp(1.7 * scores).sum(1, keepdims=True)
    labels = (softmax.cumsum(1) < rng.random(4000)[:, None]).sum(1)
    mesh = make_mesh(1)

    def at(factor):
        return ranking.likelihoods(photos, labels, classes, mesh, factor=factor)

    def slope(factor):
        softmax = np.exp(factor * scores)
        return np.mean(np.sum(softmax * scores, 1) / softmax.sum(1) - scores[np.arange(4000), labels])

    low, high = 1.0, 3.0
    while high - low > 1e-9:
        low, high = ((low + high) / 2, high) if slope((low + high) / 2) < 0 else (low, (low + high) / 2)
    factor = calibration.fit_factor(at)
    assert factor == pytest.approx(low, rel=5e-5) and factor == pytest.approx(1.7, rel=0.06)
    right = np.argmax(scores, 1) == labels
    before, after = (calibration.reliability(at(f).confidence, right)["ece"] for f in (10.0, factor))
    assert after < 0.03 < 0.15 < before


def test_a_model_that_is_always_right_or_never_stays_within_bounds():
    mesh, photos, classes = make_mesh(1), np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)

    def at(labels):
        return lambda factor: ranking.likelihoods(photos, np.array(labels), classes, mesh, factor=factor)

    assert calibration.fit_factor(at([0, 1, 2])) == 1e5
    assert calibration.fit_factor(at([1, 2, 0])) == 1e-3

import numpy as np

from lit_jax.evaluation.metrics import TopK, top_k


def test_hits_of_a_matrix_small_enough_to_read():
    scores = np.array(
        [
            [9, 1, 1, 1, 1, 1, 1],  # right at once
            [5, 4, 9, 3, 2, 1, 0],  # label 1 is third
            [6, 5, 4, 3, 2, 1, 0],  # label 6 is last
        ]
    )
    got = top_k(scores, np.array([0, 1, 6]), np.array([True, True, True]))
    assert got.summary() == {"top1": 1 / 3, "top5": 2 / 3, "classes": 3, "images": 3}
    assert got.hits[1].tolist() == [0, 1] and got.hits[6].tolist() == [0, 0]


def test_a_constant_score_is_right_for_the_first_class_only():
    got = top_k(np.zeros((8, 8)), np.arange(8), np.ones(8, bool))
    assert got.hits[:, 0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert got.hits[:, 1].tolist() == [1, 1, 1, 1, 1, 0, 0, 0]


def test_against_a_sort_on_random_scores_with_ties(rng):
    scores = rng.integers(0, 6, (200, 11)).astype(float)
    labels = rng.integers(0, 11, 200)
    order = np.argsort(-scores, axis=1, kind="stable")
    rank = np.argmax(order == labels[:, None], axis=1)
    got = top_k(scores, labels, np.ones(200, bool)).summary()
    assert got["top1"] == (rank < 1).mean() and got["top5"] == (rank < 5).mean()


def test_padding_counts_nowhere_and_batches_add_up(rng):
    scores, labels = rng.normal(size=(13, 7)), rng.integers(0, 7, 13)
    whole = top_k(scores, labels, np.ones(13, bool))
    padded = np.concatenate([scores[8:], np.full((3, 7), 1e9)])
    first = top_k(scores[:8], labels[:8], np.ones(8, bool))
    second = top_k(padded, np.concatenate([labels[8:], [0, 0, 0]]), np.arange(8) < 5)
    total = first + second
    assert np.array_equal(total.hits, whole.hits) and np.array_equal(total.images, whole.images)
    assert total.images.sum() == 13


def test_a_class_without_photos_has_no_accuracy():
    got = TopK(np.array([[1, 2], [0, 0]]), np.array([4, 0])).per_class()
    assert got[0].tolist() == [0.25, 0.5] and np.isnan(got[1]).all()

import pathlib

import jax
import numpy as np
import pytest

from lit_jax.evaluation import retrieval
from lit_jax.evaluation.intervals import wilson

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "arrays" / "retrieval.open_clip.npz")


def unit(rng, rows, width):
    x = rng.normal(size=(rows, width)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def first_right(scores, right):
    """One stable sort of the whole matrix; wrong answers before the first right one."""
    out = []
    for row, good in zip(scores, right, strict=True):
        order = np.argsort(-row, kind="stable")
        places = np.flatnonzero(good[order])
        out.append(np.sum(~good[order][: places[0]]) if len(places) else len(row))
    return np.array(out)


@pytest.mark.parametrize("block", [3, 4, 512])
@pytest.mark.parametrize("case", ["uneven", "default", "list", "half", "one", "ties"])
def test_open_clips_published_cases(case, block):
    images, texts = GOLDEN[f"{case}/images"], GOLDEN[f"{case}/texts"]
    numbers = np.arange(len(images))
    got = retrieval.both_ways(images, texts, numbers, block=block)
    for way in ("image_to_text", "text_to_image"):
        ranks = GOLDEN[f"{case}/{way}"]
        want = {f"recall@{k}": np.mean(ranks < k) for k in (1, 5, 10)}
        want |= {"mean_rank": ranks.mean() + 1, "median_rank": np.floor(np.median(ranks)) + 1}
        assert {name: got[way][name] for name in want} == pytest.approx(want)
        assert got[way]["recall@5_interval"] == wilson(want["recall@5"], len(ranks))


@pytest.mark.parametrize("block", [1, 7, 64])
def test_photos_that_share_captions_and_ties_among_them(rng, block):
    # Coordinates of quarters: products are exact, and ties are many.
    photos = (rng.integers(-2, 3, (41, 4)) / 4).astype(np.float32)
    texts = (rng.integers(-2, 3, (9, 4)) / 4).astype(np.float32)
    texts[5] = texts[2]
    text_of = rng.integers(0, 8, 41)  # nobody asks for the last
    scores = photos @ texts.T
    got = retrieval.both_ways(photos, texts, text_of, block=block)
    to_text = first_right(scores, text_of[:, None] == np.arange(9)[None])
    asked = np.unique(text_of)
    to_image = first_right(scores.T[asked], asked[:, None] == text_of[None])
    for way, ranks in (("image_to_text", to_text), ("text_to_image", to_image)):
        for name, value in retrieval.summary(ranks).items():
            assert got[way][name] == pytest.approx(value), name


def test_equal_keys_tie_exactly_wherever_they_stand(rng):
    queries, key = unit(rng, 5, 33), unit(rng, 1, 33)
    keys = np.repeat(key, 131, 0)  # no multiple of any vector width
    got = retrieval.first_right(queries, keys, np.array([0, 1, 64, 129, 130]), np.arange(131))
    assert got.tolist() == [0, 1, 64, 129, 130]


def test_a_query_without_an_answer_is_last():
    assert retrieval.first_right(np.eye(2), np.eye(2), np.array([7, 1]), np.array([0, 1])).tolist() == [2, 0]


def test_memory_grows_with_one_side_only():
    arguments = [jax.ShapeDtypeStruct(shape, kind) for shape, kind in (
        ((512, 64), np.float32), ((512,), np.int32), ((20_000, 64), np.float32), ((20_000,), np.int32))]  # fmt: skip
    planned = retrieval._first_right.lower(*arguments, None).compile().memory_analysis()
    if planned is None:
        pytest.skip("no memory analysis on this backend")
    assert planned.temp_size_in_bytes < 8 * 512 * 20_000 * 4

"""Distinct captions and buckets: shapes here; that they change no loss and no gradient is in test_train."""

import doctest

import numpy as np

from lit_jax.data import unique_captions

TOKENS = np.array([[5, 6, 1, 0, 0, 0, 0, 0, 0], [7, 1, 0, 0, 0, 0, 0, 0, 0], [5, 6, 1, 0, 0, 0, 0, 0, 0]], np.int32)


def test_distinct_rows_and_where_they_went():
    found = unique_captions.distinct(TOKENS)
    assert len(found.tokens) == 2 and found.caption.dtype == np.int32
    assert np.array_equal(found.tokens[found.caption], TOKENS)


def test_buckets_cut_to_the_longest_sentence_and_pad_rows():
    found = unique_captions.bucketed(unique_captions.distinct(TOKENS), end_id=1, rows=6, grain=2)
    assert found.tokens.shape == (12, 4) and np.array_equal(found.tokens[found.caption], TOKENS[:, :4])
    assert unique_captions.bucketed(unique_captions.distinct(TOKENS), end_id=1, rows=1, grain=8).tokens.shape == (8, 8)
    # Never longer than it was, and left alone where no grain is given.
    assert unique_captions.bucketed(unique_captions.distinct(TOKENS), end_id=1, rows=1, grain=50).tokens.shape == (8, 9)
    assert unique_captions.bucketed(unique_captions.distinct(TOKENS), end_id=1, rows=1, grain=0).tokens.shape == (8, 9)


def test_without_distinct_rows_only_the_length_changes():
    found = unique_captions.bucketed(unique_captions.Texts(TOKENS, None), end_id=1, rows=8, grain=4)
    assert found.caption is None and np.array_equal(found.tokens, TOKENS[:, :4])


def test_sizes_are_few_and_little_is_padding():
    sizes = {unique_captions.rounded_up(n, 8) for n in range(1, 4097)}
    assert len(sizes) <= 8 * 10
    for n in range(64, 4097):
        assert n <= unique_captions.rounded_up(n, 1) <= n * 9 / 8 + 1


def test_a_caption_table_draws_each_caption_of_a_class():
    encode = lambda batch: np.array([[len(text), 1] for text in batch], np.int32)  # noqa: E731
    table = unique_captions.caption_table({9: ["a", "bb"], 4: ["ccc"], 7: ["a", "dddd"]}, encode)
    assert table.tokens.tolist() == [[1, 1], [2, 1], [3, 1], [4, 1]]  # "a" once
    draws = np.arange(6)
    drawn = table.drawn(np.array([9, 9, 4, 4, 7, 7]), draws)
    assert table.tokens[drawn, 0].tolist() == [1, 2, 3, 3, 1, 4]


def test_examples_run():
    assert doctest.testmod(unique_captions).failed == 0 and doctest.testmod(unique_captions).attempted > 0

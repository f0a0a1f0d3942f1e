import numpy as np
import pytest

from lit_jax import models
from lit_jax.base.sharding import make_mesh, put_replicated
from lit_jax.data.images import Pictures
from lit_jax.data.record_batches import evaluation_batches
from lit_jax.embedding import class_embeddings, photo_embeddings, text_embeddings
from lit_jax.errors import UserError
from lit_jax.evaluation import zeroshot
from lit_jax.models.text import TextTransformer
from lit_jax.models.two_tower import TwoTower
from lit_jax.models.vit import ViT
from lit_jax.text.tokenizers import load_tokenizer
from tests.conftest import random_like

VECTORS = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [-1.0, 0.0]}


def test_class_embeddings_are_normalised_means_of_distinct_prompts():
    asked = []

    def embed(texts):
        asked.append(list(texts))
        return np.array([VECTORS[text] for text in texts])

    got = class_embeddings.class_embeddings(embed, [["a", "b"], ["a"], ["c", "c"]])
    np.testing.assert_allclose(got, [[2**-0.5, 2**-0.5], [1, 0], [-1, 0]], rtol=1e-6)
    assert asked == [["a", "b", "c"]] and got.dtype == np.float32
    with pytest.raises(UserError, match="classes: found none"):
        class_embeddings.class_embeddings(embed, [])


@pytest.fixture(scope="module")
def model_and_params(records):
    import jax.numpy as jnp

    tokenizer = load_tokenizer(records.tokenizer)
    image = ViT(patch=8, width=16, depth=1, heads=2)
    text = TextTransformer(tokenizer.vocab_size, 24, tokenizer.end_id, width=16, depth=1, heads=2, embed_dim=8)
    model = TwoTower(image, text, embed_dim=8)
    params = {
        "image": random_like(image, jnp.zeros((1, 16, 16, 3))),
        "text": random_like(text, jnp.zeros((1, 24), jnp.int32)),
        "projection": {"kernel": np.random.default_rng(1).normal(size=(16, 8)).astype(np.float32), "bias": np.zeros(8, np.float32)},
    }  # fmt: skip
    return model, params, tokenizer


@pytest.mark.parametrize("devices", [1, 8])
def test_accuracy_equals_one_big_matrix_on_any_number_of_devices(records, model_and_params, devices):
    model, params, tokenizer = model_and_params
    mesh = make_mesh(devices)
    parts = photo_embeddings.embedder(model, mesh)
    placed = put_replicated(params, mesh)
    # 24 photos in batches of 16: the last one is half padding.
    photos = list(
        photo_embeddings.from_records(parts, records, pictures=Pictures(16), batch_size=16)("validation", placed)
    )
    embed = text_embeddings.text_embedder(parts, placed, lambda texts: tokenizer.encode(texts, 24), batch_size=8)
    ids = sorted({int(i) for p in photos for i in p.class_id[p.mask]})
    class_emb = class_embeddings.class_embeddings(embed, [[f"number {i}", f"thing {i * i}"] for i in ids])
    got = zeroshot.classify(parts, placed, photos, class_emb, ids)

    (whole,) = evaluation_batches(records, "validation", batch_size=24, pictures=Pictures(16))
    features = models.image_features(model, params["image"], whole["image"])
    emb = np.float64(models.project(model, params, features))
    labels = np.array([ids.index(i) for i in whole["class_id"]])
    order = np.argsort(-(emb @ np.float64(class_emb).T), axis=1)
    rank = np.argmax(order == labels[:, None], axis=1)
    assert got.summary() == {
        "top1": (rank < 1).mean(), "top5": (rank < 5).mean(), "classes": len(ids), "images": 24,
    }  # fmt: skip


def test_seen_and_unseen_are_compared_where_padding_is_of_no_class(model_and_params, rng):
    """Rows that fill up a batch have class id 0, which these collections do not have: `classes.csv` begins at 5."""
    model, params, _ = model_and_params
    parts, mesh = photo_embeddings.embedder(model, make_mesh(1)), make_mesh(1)
    features = rng.normal(size=(4, 16)).astype(np.float32)
    ids, padding = np.array([5, 9, 7, 5]), 2
    batch = photo_embeddings.Photos(
        put_replicated(np.concatenate([features, np.zeros((padding, 16), np.float32)]), mesh),
        np.concatenate([ids, np.zeros(padding, np.int64)]),
        np.arange(4 + padding) < 4,
    )
    class_emb = rng.normal(size=(3, 8)).astype(np.float32)
    together = zeroshot.Together(("heldout",), (5, 7, 9), frozenset({5, 9}))
    found = zeroshot.compare(parts, put_replicated(params, mesh), [batch], class_emb, together, {})
    emb = np.float64(features) @ params["projection"]["kernel"]
    scores = emb / np.linalg.norm(emb, axis=1, keepdims=True) @ np.float64(class_emb).T
    np.testing.assert_allclose(found.gap, scores[:, [0, 2]].max(1) - scores[:, 1], atol=1e-5)
    assert found.seen_right.tolist() == (np.array([5, 9])[scores[:, [0, 2]].argmax(1)] == ids).tolist()
    assert found.unseen_right.tolist() == (ids == 7).tolist() and found.labels.tolist() == [0, 2, 1, 0]


def test_texts_are_embedded_in_order_whatever_the_batch(records, model_and_params):
    model, params, tokenizer = model_and_params
    mesh = make_mesh(2)
    parts, placed = photo_embeddings.embedder(model, mesh), put_replicated(params, make_mesh(2))
    texts = [f"text number {i}" for i in range(7)]
    embed = text_embeddings.text_embedder(parts, placed, lambda t: tokenizer.encode(t, 24), batch_size=4)
    want = models.embed_text(model, params, tokenizer.encode(texts, 24))
    np.testing.assert_allclose(embed(texts), want, atol=1e-5)


def test_a_photo_of_an_unknown_class_is_an_error_not_a_miss(records, model_and_params):
    model, params, _ = model_and_params
    mesh = make_mesh(1)
    parts, placed = photo_embeddings.embedder(model, mesh), put_replicated(params, mesh)
    photos = photo_embeddings.from_records(parts, records, pictures=Pictures(16), batch_size=16)("heldout", placed)
    with pytest.raises(UserError, match="found photos of class id"):
        zeroshot.classify(parts, placed, photos, np.eye(8, dtype=np.float32)[:1], [10**6])


def test_without_a_split_to_evaluate_nothing_is_asked_for():
    hits, rivals = zeroshot.Evaluator(None, None, (), {}, None, batch_size=8, keep=True)({})
    assert hits == {} and rivals is None

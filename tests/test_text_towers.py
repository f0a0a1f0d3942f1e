import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lit_jax import config as options
from lit_jax import models
from lit_jax.errors import UserError
from lit_jax.models import building, weight_files, weights
from lit_jax.models.bert import Bert
from lit_jax.models.names import bert as bert_names
from lit_jax.models.t5 import T5Encoder, buckets_of
from lit_jax.settling import settle
from lit_jax.text.tokenizers import load_tokenizer, train_sentencepiece
from tests import test_parity
from tests.conftest import as_stored, random_like
from tests.golden import common

END = 2
SHAPE = {"vocab_size": 11, "end_id": END, "width": 12, "depth": 2, "heads": 3}
BERT = Bert(**SHAPE, context=9)
T5 = T5Encoder(**{**SHAPE, "heads": 2}, mlp_dim=10, head_dim=4)
TOKENS = np.int32([[3, 4, 5, 6, END, 0, 0], [3, END, 0, 0, 0, 0, 0], [3, 4, 5, 6, 7, 8, END]])
BOTH = pytest.mark.parametrize("tower", [BERT, Bert(**SHAPE, context=9, pool="mean"), T5], ids=["first", "mean", "t5"])


@functools.cache
def drawn(tower):
    return random_like(tower, TOKENS)


@functools.cache
def compiled(tower):
    return jax.jit(tower.apply)


def apply(tower, tokens, params=None):
    return np.asarray(compiled(tower)({"params": drawn(tower) if params is None else params}, tokens), np.float32)


@BOTH
def test_what_follows_the_end_has_no_influence_and_rows_may_be_cut(tower):
    features = apply(tower, TOKENS)
    assert features.shape == (3, 12) and np.abs(features).min(1).max() > 0
    other = np.where(np.arange(7) > (TOKENS == END).argmax(1)[:, None], 9, TOKENS)
    np.testing.assert_array_equal(apply(tower, other), features)
    np.testing.assert_allclose(apply(tower, TOKENS[:2, :5]), features[:2], rtol=1e-4, atol=1e-5)
    moved = TOKENS.copy()
    moved[0, 3] = 10
    assert np.abs(apply(tower, moved)[0] - features[0]).max() > 1e-3


def test_lits_bert_does_not_read_the_end():
    unread = BERT.clone(reads_end=False)
    other_end = unread.clone(end_id=9)
    params = drawn(BERT)
    row = np.int32([[3, 4, 5, END, 0]])
    np.testing.assert_array_equal(apply(unread, row, params), apply(other_end, np.int32([[3, 4, 5, 9, 0]]), params))
    assert np.abs(apply(unread, row, params) - apply(BERT, row, params)).max() > 1e-3


@BOTH
@pytest.mark.parametrize(
    "dtype", [pytest.param(jnp.bfloat16, marks=pytest.mark.slow), jnp.float16], ids=["bfloat16", "float16"]
)
def test_half_precision_is_close_and_computing_again_changes_nothing(tower, dtype):
    features = apply(tower, TOKENS)
    small = tower.clone(dtype=dtype)
    half = compiled(small)({"params": as_stored(small, drawn(tower), TOKENS)}, TOKENS)
    assert half.dtype == dtype
    assert np.abs(np.asarray(half, np.float32) - features).max() < 0.05 * np.abs(features).max()
    np.testing.assert_allclose(apply(tower.clone(remat=True), TOKENS, drawn(tower)), features, rtol=1e-5, atol=1e-6)


def test_t5s_stream_may_grow_beyond_float16():
    large = jax.tree.map(lambda x: x, drawn(T5))
    large["token"] = {"embedding": large["token"]["embedding"] * 3e5}
    large["blocks"] = {**large["blocks"], "contract": {"kernel": large["blocks"]["contract"]["kernel"] * 3e4}}
    expected = apply(T5, TOKENS, large)
    half = T5.clone(dtype=jnp.float16)
    got = apply(half, TOKENS, as_stored(half, large, TOKENS))
    assert np.abs(got - expected).max() < 0.05 * np.abs(expected).max()


def test_near_distances_are_told_apart_and_far_ones_by_logarithm():
    got = buckets_of(np.array([0, -1, -7, -8, -15, -16, -23, -64, -90, -91, -127, -500, 1, 7, 8, 16, 128]), 32, 128)
    assert got.tolist() == [0, 1, 7, 8, 9, 10, 11, 14, 14, 15, 15, 15, 17, 23, 24, 26, 31]


@BOTH
def test_gradients_reach_all_parameters_but_unused_rows(tower):
    grads = jax.jit(jax.grad(lambda params: tower.apply({"params": params}, TOKENS).astype(jnp.float32)[:, 0].sum()))
    found = weights.leaves(grads(drawn(tower)))
    still = [path for path, grad in found.items() if not np.abs(np.asarray(grad)).max() > 0]
    assert still == []
    if "segment/embedding" in found:
        assert np.abs(np.asarray(found["segment/embedding"])[1]).max() == 0
    assert all(np.isfinite(np.asarray(grad)).all() for grad in found.values())


@pytest.mark.parametrize("tower", [BERT, T5], ids=["bert", "t5"])
def test_each_dialect_survives_a_round_trip(tower):
    family = models.family(tower)
    for dialect in family.dialects:
        for prefix in dialect.prefixes:
            flat = weights.named(drawn(tower), family, dialect, prefix)
            params, report = weights.fill(flat, drawn(tower), family, source="x")
            assert report.left_out == () and report.dialect == dialect.name
            jax.tree.map(np.testing.assert_array_equal, params, drawn(tower))


def test_heads_of_other_tasks_are_left_out_and_gaps_are_told():
    family = models.family(BERT)
    flat = {f"bert.{name}": array for name, array in weights.named(drawn(BERT), family).items()}
    extra = {
        name: np.zeros(1)
        for name in ("bert.pooler.dense.weight", "cls.predictions.bias", "bert.embeddings.position_ids")
    }
    _, report = weights.fill({**flat, **extra}, drawn(BERT), family, source="x")
    assert set(report.left_out) == set(extra)
    with pytest.raises(UserError, match="x: found no bert.encoder.layer.2.*, by the names of"):
        weights.fill(flat, drawn(BERT.clone(depth=3)), family, source="x")
    t5 = weights.named(drawn(T5), models.family(T5))
    extra = {
        "encoder.embed_tokens.weight": t5["shared.weight"],
        "decoder.block.0.x.weight": np.zeros(1),
        "lm_head.weight": np.zeros(1),
    }
    _, report = weights.fill({**t5, **extra}, drawn(T5), models.family(T5), source="x")
    assert set(report.left_out) == set(extra)


def test_lits_names_and_layouts_give_the_features_of_hugging_faces():
    """The golden's arrays under the names and in the layouts of LiT's files: square kernels, nothing transposed."""
    path = common.FOLDER / "bert_base.hugging_face.npz"
    hugging_face = common.arrays(common.read(path)[0]["shapes"])
    ours, theirs = bert_names.HF_BERT.names, bert_names.FLAXFORMER.names
    flat = {}
    for name, array in hugging_face.items():
        layer, _, last = name.rpartition(".")
        number = "".join(filter(str.isdigit, layer.partition("encoder.layer.")[2]))
        general = layer.replace(f"layer.{number}.", "layer.{n}.") if number else layer
        if name == "embeddings.position_embeddings.weight":
            flat[f"txt/{theirs['position_embedding']}"] = array
            continue
        part = next((part for part, found in ours.items() if found == general), None)
        if part is None:
            assert name.startswith("pooler.")
            continue
        kind = {
            "weight": "embedding" if array.shape[0] in (2, 30522) else "kernel" if array.ndim == 2 else "scale",
            "bias": "bias",
        }[last]
        flat[f"txt/{theirs[part]}/{kind}".replace("{n}", number)] = array.T if kind == "kernel" else array
    flat |= {
        "t": np.zeros(1),
        "img/cls": np.zeros((1, 1, 8)),
        "txt/head/kernel": np.zeros((768, 768)),
        "txt/head/bias": np.zeros(768),
    }
    assert flat[
        "txt/BertEncoder_0/encoder_block/layer_sequence/layers_1/attention_block/attention_layer/query/kernel"
    ].shape == (768, 768)
    assert test_parity.text_error(path, flat) <= test_parity.BOUND
    assert test_parity.text_error(path, flat, activation="gelu_tanh") <= 5e-3  # LiT's form, close by


def test_minilms_real_weights_and_words_give_what_transformers_gives(minilm_folder):
    path = common.FOLDER / "minilm_l6.real.npz"
    about, _ = common.read(path)
    tokens = load_tokenizer(minilm_folder).encode(about["captions"], about["size"])
    assert tokens.tolist() == about["tokens"]
    assert test_parity.text_error(path, weight_files.open_weights(minilm_folder).arrays) <= test_parity.BOUND


def settled(**changes):
    return settle(options.from_flat(changes, source="test"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_sentencepiece(["a moth"], tmp_path_factory.mktemp("t") / "t.model", vocab_size=300)


@pytest.mark.parametrize(
    ("preset", "pool", "context"),
    [("minilm_l6", "mean", 64), ("bert_base", "first", 64), ("lit_bert_base", "first", 17), ("mt5_small", "mean", 64)],
)
def test_a_preset_fills_the_config_and_gets_a_projection_of_its_own(tokenizer, preset, pool, context):
    config = settled(**{"text.tower": preset, "image.width": 8, "image.depth": 1, "image.heads": 2})
    assert (config.text.pool, config.text.context) == (pool, context)
    model = building.build_model(config.towers, tokenizer)
    shape = models.TEXT_PRESETS[preset].options
    assert (model.text.vocab_size, model.text.pool, model.text.end_id) == (shape["vocab_size"], pool, tokenizer.end_id)
    assert getattr(model.text, "context", 512) == 512
    params = building.param_shapes(config.towers, model)
    assert params["text_projection"]["kernel"].shape == (shape["width"], config.model.embed_dim)
    assert config.text.norm_epsilon == model.text.norm_epsilon


def test_a_pool_that_a_tower_has_not_is_refused():
    with pytest.raises(
        UserError, match="text.pool: found map with text.tower bert_base, expected first or mean; leave it"
    ):
        settled(**{"text.tower": "bert_base", "text.pool": "map"})
    assert settled(**{"text.tower": "bert_base", "text.pool": "mean"}).text.pool == "mean"

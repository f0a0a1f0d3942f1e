"""Names of BERT: Hugging Face's, of today and of the first files, and those of Google's LiT (flaxformer)."""

from lit_jax.models.names import Dialect, Family

_H = "encoder.layer.{n}."
HF_BERT = Dialect(
    "Hugging Face BERT",
    {
        "token": "embeddings.word_embeddings",
        "segment": "embeddings.token_type_embeddings",
        "position_embedding": "embeddings.position_embeddings.weight",
        "embedding_norm": "embeddings.LayerNorm",
        "blocks/attention/query": _H + "attention.self.query",
        "blocks/attention/key": _H + "attention.self.key",
        "blocks/attention/value": _H + "attention.self.value",
        "blocks/attention/out": _H + "attention.output.dense",
        "blocks/attention_norm": _H + "attention.output.LayerNorm",
        "blocks/mlp/expand": _H + "intermediate.dense",
        "blocks/mlp/contract": _H + "output.dense",
        "blocks/mlp_norm": _H + "output.LayerNorm",
    },
    prefixes=("", "bert.", "0.auto_model.", "model.", "text.transformer."),
    left_out=(r"pooler\..*", r"cls\..*", r"embeddings\.position_ids", r"classifier\..*"),
)
_NORMS = {ours: theirs for ours, theirs in HF_BERT.names.items() if ours.endswith("norm")}
HF_BERT_OLD = Dialect(
    "Hugging Face BERT of 2019",
    {
        **{ours: theirs for ours, theirs in HF_BERT.names.items() if ours not in _NORMS},
        **{f"{ours}/scale": f"{theirs}.gamma" for ours, theirs in _NORMS.items()},
        **{f"{ours}/bias": f"{theirs}.beta" for ours, theirs in _NORMS.items()},
    },
    prefixes=HF_BERT.prefixes,
    left_out=HF_BERT.left_out,
)
_G = "BertEncoder_0/encoder_block/layer_sequence/layers_{n}/"
FLAXFORMER = Dialect(
    "LiT's BERT (flaxformer)",
    {
        "token": "BertEncoder_0/embedder/embedders_token_ids",
        "segment": "BertEncoder_0/embedder/embedders_segment_ids",
        "position_embedding": "BertEncoder_0/embedder/embedders_position_ids/embedding",
        "embedding_norm": "BertEncoder_0/layer_norm",
        "blocks/attention/query": _G + "attention_block/attention_layer/query",
        "blocks/attention/key": _G + "attention_block/attention_layer/key",
        "blocks/attention/value": _G + "attention_block/attention_layer/value",
        "blocks/attention/out": _G + "attention_block/dense_layer",
        "blocks/attention_norm": _G + "attention_block/layer_norm",
        "blocks/mlp/expand": _G + "mlp_block/mlp/dense_layer",
        "blocks/mlp/contract": _G + "mlp_block/dense_layer",
        "blocks/mlp_norm": _G + "mlp_block/layer_norm",
    },
    torch=False,
    prefixes=("", "params/", "txt/", "params/txt/", "opt/target/txt/"),
    left_out=(r"head/.*",),
)

FAMILY = Family((HF_BERT, HF_BERT_OLD, FLAXFORMER))

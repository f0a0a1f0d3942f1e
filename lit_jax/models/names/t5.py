"""Names of the encoders of T5 v1.1 and mT5: Hugging Face's."""

from lit_jax.models.names import Dialect, Family

_A, _M = "encoder.block.{n}.layer.0.", "encoder.block.{n}.layer.1."
_NAMES = {
    "relative_position": "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    "blocks/attention_norm": _A + "layer_norm",
    "blocks/attention/query": _A + "SelfAttention.q",
    "blocks/attention/key": _A + "SelfAttention.k",
    "blocks/attention/value": _A + "SelfAttention.v",
    "blocks/attention/out": _A + "SelfAttention.o",
    "blocks/mlp_norm": _M + "layer_norm",
    "blocks/gate": _M + "DenseReluDense.wi_0",
    "blocks/expand": _M + "DenseReluDense.wi_1",
    "blocks/contract": _M + "DenseReluDense.wo",
    "norm": "encoder.final_layer_norm",
}
_DECODER = (r"decoder\..*", r"lm_head\..*")
HF_T5 = Dialect(
    "Hugging Face T5",
    {"token": "shared", **_NAMES},
    prefixes=("", "transformer.", "text.transformer."),
    left_out=(*_DECODER, r"encoder\.embed_tokens\.weight"),  # the same table again
)
HF_T5_ENCODER = Dialect(
    "Hugging Face T5 without shared", {"token": "encoder.embed_tokens", **_NAMES}, prefixes=HF_T5.prefixes,
    left_out=_DECODER,
)  # fmt: skip

FAMILY = Family((HF_T5, HF_T5_ENCODER))

"""Names inside a transformer block and an attention pool, where image and text towers of a format share them."""

BLOCK = "encoder/blocks/"
"""Ours."""


def google(block: str, attention: str, norm: str, mlp: str) -> dict[str, str]:
    """Of a block in Google's files, of which AugReg and big_vision number the layers differently."""
    return {
        BLOCK + "attention_norm": block + "LayerNorm_0",
        BLOCK + "attention": block + attention,
        BLOCK + "mlp_norm": block + norm,
        BLOCK + "mlp/expand": block + mlp + "/Dense_0",
        BLOCK + "mlp/contract": block + mlp + "/Dense_1",
    }


GOOGLE_OLD = ("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")
"""AugReg's numbers of a block's layers."""
GOOGLE_NEW = ("MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")
"""big_vision's."""
GOOGLE_POOL = {
    "pool/probe": "MAPHead_0/probe",
    "pool/attention": "MAPHead_0/MultiHeadDotProductAttention_0",
    "pool/norm": "MAPHead_0/LayerNorm_0",
    "pool/mlp/expand": "MAPHead_0/MlpBlock_0/Dense_0",
    "pool/mlp/contract": "MAPHead_0/MlpBlock_0/Dense_1",
}

_O = "transformer.resblocks.{n}."
OPEN_CLIP = {
    BLOCK + "attention_norm": _O + "ln_1",
    BLOCK + "attention/query": _O + "attn.in_proj_[0/3]",
    BLOCK + "attention/key": _O + "attn.in_proj_[1/3]",
    BLOCK + "attention/value": _O + "attn.in_proj_[2/3]",
    BLOCK + "attention/out": _O + "attn.out_proj",
    BLOCK + "mlp_norm": _O + "ln_2",
    BLOCK + "mlp/expand": _O + "mlp.c_fc",
    BLOCK + "mlp/contract": _O + "mlp.c_proj",
}

_C = "encoder.layers.{n}."
HUGGING_FACE_CLIP = {
    BLOCK + "attention_norm": _C + "layer_norm1",
    BLOCK + "attention/query": _C + "self_attn.q_proj",
    BLOCK + "attention/key": _C + "self_attn.k_proj",
    BLOCK + "attention/value": _C + "self_attn.v_proj",
    BLOCK + "attention/out": _C + "self_attn.out_proj",
    BLOCK + "mlp_norm": _C + "layer_norm2",
    BLOCK + "mlp/expand": _C + "mlp.fc1",
    BLOCK + "mlp/contract": _C + "mlp.fc2",
}
"""Of transformers' CLIP and SigLIP."""

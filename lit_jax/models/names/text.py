"""Names of text transformers: big_vision's, open_clip's (and OpenAI's), Hugging Face's CLIP and SigLIP."""

from lit_jax.models.names import Dialect, Family

_B = "encoder/blocks/"
_G = "Encoder_0/encoderblock_{n}/"
BIG_VISION = Dialect(
    "big_vision",
    {
        "embedding": "Embed_0",
        "position_embedding": "pos_embedding",
        _B + "attention_norm": _G + "LayerNorm_0",
        _B + "attention": _G + "MultiHeadDotProductAttention_0",
        _B + "mlp_norm": _G + "LayerNorm_1",
        _B + "mlp/expand": _G + "MlpBlock_0/Dense_0",
        _B + "mlp/contract": _G + "MlpBlock_0/Dense_1",
        "encoder/norm": "Encoder_0/encoder_norm",
        "projection": "head",
        "pool/probe": "MAPHead_0/probe",
        "pool/attention": "MAPHead_0/MultiHeadDotProductAttention_0",
        "pool/norm": "MAPHead_0/LayerNorm_0",
        "pool/mlp/expand": "MAPHead_0/MlpBlock_0/Dense_0",
        "pool/mlp/contract": "MAPHead_0/MlpBlock_0/Dense_1",
    },
    torch=False,
    prefixes=("", "params/", "txt/", "params/txt/", "opt/target/txt/"),
)
_O = "transformer.resblocks.{n}."
_OPEN_CLIP_NAMES = {
    "embedding": "token_embedding",
    "position_embedding": "positional_embedding",
    _B + "attention_norm": _O + "ln_1",
    _B + "attention/query": _O + "attn.in_proj_[0/3]",
    _B + "attention/key": _O + "attn.in_proj_[1/3]",
    _B + "attention/value": _O + "attn.in_proj_[2/3]",
    _B + "attention/out": _O + "attn.out_proj",
    _B + "mlp_norm": _O + "ln_2",
    _B + "mlp/expand": _O + "mlp.c_fc",
    _B + "mlp/contract": _O + "mlp.c_proj",
    "encoder/norm": "ln_final",
    "projection/kernel": "text_projection",
}
_OTHER_TOWER = (r"visual\..*", "logit_scale", "logit_bias", "attn_mask")
OPEN_CLIP = Dialect(
    "open_clip",
    _OPEN_CLIP_NAMES,
    prefixes=("", "text.", "module.", "module.text."),
    left_out=_OTHER_TOWER,
    raw=("projection/kernel",),
)
OPEN_CLIP_BIAS = Dialect(
    "open_clip with a projection bias",
    {**{ours: theirs for ours, theirs in _OPEN_CLIP_NAMES.items() if ours != "projection/kernel"},
     "projection": "text_projection"},
    prefixes=OPEN_CLIP.prefixes,
    left_out=_OTHER_TOWER,
)  # fmt: skip
_C = "text_model.encoder.layers.{n}."
_HF_NAMES = {
    "embedding": "text_model.embeddings.token_embedding",
    "position_embedding": "text_model.embeddings.position_embedding.weight",
    _B + "attention_norm": _C + "layer_norm1",
    _B + "attention/query": _C + "self_attn.q_proj",
    _B + "attention/key": _C + "self_attn.k_proj",
    _B + "attention/value": _C + "self_attn.v_proj",
    _B + "attention/out": _C + "self_attn.out_proj",
    _B + "mlp_norm": _C + "layer_norm2",
    _B + "mlp/expand": _C + "mlp.fc1",
    _B + "mlp/contract": _C + "mlp.fc2",
    "encoder/norm": "text_model.final_layer_norm",
}
_HF_OTHER = (
    r"vision_model\..*", r"visual_projection\..*", "logit_scale", "logit_bias", r"text_model\.embeddings\.position_ids",
)  # fmt: skip
HF_CLIP = Dialect("Hugging Face CLIP", {**_HF_NAMES, "projection": "text_projection"}, left_out=_HF_OTHER)
HF_SIGLIP = Dialect(
    "Hugging Face SigLIP",
    {**{ours: theirs.removeprefix("text_model.") for ours, theirs in _HF_NAMES.items()}, "projection": "head"},
    prefixes=("text_model.", "", "model.text_model."),
    left_out=(r"embeddings\.position_ids",),
)

FAMILY = Family((BIG_VISION, OPEN_CLIP, OPEN_CLIP_BIAS, HF_CLIP, HF_SIGLIP))

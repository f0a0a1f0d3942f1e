"""Names of ViTs: Google's two, timm's, Hugging Face's (ViT and DeiT, DINOv2, CLIP, SigLIP) and open_clip's."""

from lit_jax.models.names import Dialect, Family
from lit_jax.models.resize import resize_patch, resize_positions

_B = "encoder/blocks/"
_GOOGLE_PREFIXES = ("", "params/", "opt/target/", "img/", "params/img/", "opt/target/img/")
_GOOGLE_LEFT_OUT = ("head/.*", "pre_logits/.*")
_MAP_HEAD = {
    "pool/probe": "MAPHead_0/probe",
    "pool/attention": "MAPHead_0/MultiHeadDotProductAttention_0",
    "pool/norm": "MAPHead_0/LayerNorm_0",
    "pool/mlp/expand": "MAPHead_0/MlpBlock_0/Dense_0",
    "pool/mlp/contract": "MAPHead_0/MlpBlock_0/Dense_1",
}


def _google(name: str, positions: str, attention: str, norm: str, mlp: str) -> Dialect:
    block = "Transformer/encoderblock_{n}/"
    names = {
        "class_token": "cls",
        "embedding": "embedding",
        "position_embedding": positions,
        _B + "attention_norm": block + "LayerNorm_0",
        _B + "attention": block + attention,
        _B + "mlp_norm": block + norm,
        _B + "mlp/expand": block + mlp + "/Dense_0",
        _B + "mlp/contract": block + mlp + "/Dense_1",
        "encoder/norm": "Transformer/encoder_norm",
        **_MAP_HEAD,
    }
    return Dialect(name, names, torch=False, prefixes=_GOOGLE_PREFIXES, left_out=_GOOGLE_LEFT_OUT)


_OLD = ("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")
_NEW = ("MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")
_INNER_POSITIONS = "Transformer/posembed_input/pos_embedding"
AUGREG = _google("AugReg", _INNER_POSITIONS, *_OLD)
LIT = _google("LiT", _INNER_POSITIONS, *_NEW)
BIG_VISION = _google("big_vision", "pos_embedding", *_NEW)

_T = "blocks.{n}."
TIMM = Dialect(
    "timm",
    {
        "class_token": "cls_token",
        "distillation_token": "dist_token",
        "registers": "reg_token",
        "position_embedding": "pos_embed",
        "embedding": "patch_embed.proj",
        "pre_norm": "norm_pre",
        _B + "attention_norm": _T + "norm1",
        _B + "attention/query": _T + "attn.qkv.[0/3]",
        _B + "attention/key": _T + "attn.qkv.[1/3]",
        _B + "attention/value": _T + "attn.qkv.[2/3]",
        _B + "attention/out": _T + "attn.proj",
        _B + "attention_scale/gamma": _T + "ls1.gamma",
        _B + "mlp_norm": _T + "norm2",
        _B + "mlp/expand": _T + "mlp.fc1",
        _B + "mlp/contract": _T + "mlp.fc2",
        _B + "mlp_scale/gamma": _T + "ls2.gamma",
        "encoder/norm": "norm",
        "pool/probe": "attn_pool.latent",
        "pool/attention/query": "attn_pool.q",
        "pool/attention/key": "attn_pool.kv.[0/2]",
        "pool/attention/value": "attn_pool.kv.[1/2]",
        "pool/attention/out": "attn_pool.proj",
        "pool/norm": "attn_pool.norm",
        "pool/mlp/expand": "attn_pool.mlp.fc1",
        "pool/mlp/contract": "attn_pool.mlp.fc2",
    },
    prefixes=("", "visual.trunk.", "trunk.", "module.", "model."),
    left_out=(r"head\..*", r"head_dist\..*", r"head_drop\..*", r"mask_token"),
)

_H = "encoder.layer.{n}."
_HF_ATTENTION = {
    _B + "attention/query": _H + "attention.attention.query",
    _B + "attention/key": _H + "attention.attention.key",
    _B + "attention/value": _H + "attention.attention.value",
    _B + "attention/out": _H + "attention.output.dense",
}
_HF_EMBEDDINGS = {
    "class_token": "embeddings.cls_token",
    "distillation_token": "embeddings.distillation_token",
    "registers": "embeddings.register_tokens",
    "position_embedding": "embeddings.position_embeddings",
    "embedding": "embeddings.patch_embeddings.projection",
    "encoder/norm": "layernorm",
}
HF_VIT = Dialect(
    "Hugging Face ViT",
    {
        **_HF_EMBEDDINGS,
        **_HF_ATTENTION,
        _B + "attention_norm": _H + "layernorm_before",
        _B + "mlp_norm": _H + "layernorm_after",
        _B + "mlp/expand": _H + "intermediate.dense",
        _B + "mlp/contract": _H + "output.dense",
    },
    prefixes=("", "vit.", "deit."),
    left_out=(r"pooler\..*", r"embeddings\.mask_token"),
)
HF_DINOV2 = Dialect(
    "Hugging Face DINOv2",
    {
        **_HF_EMBEDDINGS,
        **_HF_ATTENTION,
        _B + "attention_norm": _H + "norm1",
        _B + "attention_scale/gamma": _H + "layer_scale1.lambda1",
        _B + "mlp_norm": _H + "norm2",
        _B + "mlp/expand": _H + "mlp.fc1",
        _B + "mlp/contract": _H + "mlp.fc2",
        _B + "mlp_scale/gamma": _H + "layer_scale2.lambda1",
    },
    prefixes=("", "dinov2.", "dinov2_with_registers."),
    left_out=(r"embeddings\.mask_token", r"classifier\..*"),
)
HF_DINOV2_GIANT = Dialect(
    "Hugging Face DINOv2 giant",
    {
        **HF_DINOV2.names,
        _B + "mlp/expand": _H + "mlp.weights_in",
        _B + "mlp/contract": _H + "mlp.weights_out",
    },
    prefixes=HF_DINOV2.prefixes,
    left_out=HF_DINOV2.left_out,
)
_C = "encoder.layers.{n}."
HF_CLIP = Dialect(
    "Hugging Face CLIP or SigLIP",
    {
        "class_token": "embeddings.class_embedding",
        "position_embedding": "embeddings.position_embedding.weight",
        "embedding": "embeddings.patch_embedding",
        "pre_norm": "pre_layrnorm",  # sic
        _B + "attention_norm": _C + "layer_norm1",
        _B + "attention/query": _C + "self_attn.q_proj",
        _B + "attention/key": _C + "self_attn.k_proj",
        _B + "attention/value": _C + "self_attn.v_proj",
        _B + "attention/out": _C + "self_attn.out_proj",
        _B + "mlp_norm": _C + "layer_norm2",
        _B + "mlp/expand": _C + "mlp.fc1",
        _B + "mlp/contract": _C + "mlp.fc2",
        "encoder/norm": "post_layernorm",
        "pool/probe": "head.probe",
        "pool/attention/query": "head.attention.in_proj_[0/3]",
        "pool/attention/key": "head.attention.in_proj_[1/3]",
        "pool/attention/value": "head.attention.in_proj_[2/3]",
        "pool/attention/out": "head.attention.out_proj",
        "pool/norm": "head.layernorm",
        "pool/mlp/expand": "head.mlp.fc1",
        "pool/mlp/contract": "head.mlp.fc2",
    },
    prefixes=("vision_model.", "", "model.vision_model."),
    left_out=(r"embeddings\.position_ids", r"visual_projection\..*"),
)
_O = "transformer.resblocks.{n}."
OPEN_CLIP = Dialect(
    "open_clip",
    {
        "class_token": "class_embedding",
        "position_embedding": "positional_embedding",
        "embedding": "conv1",
        "pre_norm": "ln_pre",
        _B + "attention_norm": _O + "ln_1",
        _B + "attention/query": _O + "attn.in_proj_[0/3]",
        _B + "attention/key": _O + "attn.in_proj_[1/3]",
        _B + "attention/value": _O + "attn.in_proj_[2/3]",
        _B + "attention/out": _O + "attn.out_proj",
        _B + "attention_scale/gamma": _O + "ls_1.gamma",
        _B + "mlp_norm": _O + "ln_2",
        _B + "mlp/expand": _O + "mlp.c_fc",
        _B + "mlp/contract": _O + "mlp.c_proj",
        _B + "mlp_scale/gamma": _O + "ls_2.gamma",
        "encoder/norm": "ln_post",
    },
    prefixes=("visual.", "", "module.visual."),
    left_out=("proj",),
)

FAMILY = Family(
    (AUGREG, LIT, BIG_VISION, TIMM, HF_VIT, HF_DINOV2, HF_DINOV2_GIANT, HF_CLIP, OPEN_CLIP),
    resize={"position_embedding": resize_positions, "embedding/kernel": resize_patch},
)

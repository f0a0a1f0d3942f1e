"""Names of ViTs: Google's two, timm's, Hugging Face's (ViT and DeiT, DINOv2, CLIP, SigLIP) and open_clip's."""

from lit_jax.models.names import Dialect, Family, blocks
from lit_jax.models.resize import resize_patch, resize_positions

_B = blocks.BLOCK
_GOOGLE_PREFIXES = ("", "params/", "opt/target/", "img/", "params/img/", "opt/target/img/")
_GOOGLE_LEFT_OUT = ("head/.*", "pre_logits/.*")


def _google(name: str, positions: str, layers: tuple[str, str, str]) -> Dialect:
    names = {
        "class_token": "cls",
        "embedding": "embedding",
        "position_embedding": positions,
        **blocks.google("Transformer/encoderblock_{n}/", *layers),
        "encoder/norm": "Transformer/encoder_norm",
        **blocks.GOOGLE_POOL,
    }
    return Dialect(name, names, torch=False, prefixes=_GOOGLE_PREFIXES, left_out=_GOOGLE_LEFT_OUT)


_INNER_POSITIONS = "Transformer/posembed_input/pos_embedding"
AUGREG = _google("AugReg", _INNER_POSITIONS, blocks.GOOGLE_OLD)
LIT = _google("LiT", _INNER_POSITIONS, blocks.GOOGLE_NEW)
BIG_VISION = _google("big_vision", "pos_embedding", blocks.GOOGLE_NEW)

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
        "pool_norm": "fc_norm",
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
HF_CLIP = Dialect(
    "Hugging Face CLIP or SigLIP",
    {
        "class_token": "embeddings.class_embedding",
        "position_embedding": "embeddings.position_embedding.weight",
        "embedding": "embeddings.patch_embedding",
        "pre_norm": "pre_layrnorm",  # sic
        **blocks.HUGGING_FACE_CLIP,
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
        **blocks.OPEN_CLIP,
        _B + "attention_scale/gamma": _O + "ls_1.gamma",
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

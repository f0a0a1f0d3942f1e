"""Names of text transformers: big_vision's, open_clip's (and OpenAI's), Hugging Face's CLIP and SigLIP."""

from lit_jax.models.names import Dialect, Family, blocks

BIG_VISION = Dialect(
    "big_vision",
    {
        "embedding": "Embed_0",
        "position_embedding": "pos_embedding",
        **blocks.google("Encoder_0/encoderblock_{n}/", *blocks.GOOGLE_NEW),
        "encoder/norm": "Encoder_0/encoder_norm",
        "projection": "head",
        **blocks.GOOGLE_POOL,
    },
    torch=False,
    prefixes=("", "params/", "txt/", "params/txt/", "opt/target/txt/"),
)
_OPEN_CLIP_NAMES = {
    "embedding": "token_embedding",
    "position_embedding": "positional_embedding",
    **blocks.OPEN_CLIP,
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
_HF_NAMES = {
    "embedding": "embeddings.token_embedding",
    "position_embedding": "embeddings.position_embedding.weight",
    **blocks.HUGGING_FACE_CLIP,
    "encoder/norm": "final_layer_norm",
}
_HF_OTHER = (
    r"vision_model\..*", r"visual_projection\..*", "logit_scale", "logit_bias", r"text_model\.embeddings\.position_ids",
)  # fmt: skip
HF_CLIP = Dialect(
    "Hugging Face CLIP",
    {**{ours: f"text_model.{theirs}" for ours, theirs in _HF_NAMES.items()}, "projection": "text_projection"},
    left_out=_HF_OTHER,
)
HF_SIGLIP = Dialect(
    "Hugging Face SigLIP",
    {**_HF_NAMES, "projection": "head"},
    prefixes=("text_model.", "", "model.text_model."),
    left_out=(r"embeddings\.position_ids",),
)

FAMILY = Family((BIG_VISION, OPEN_CLIP, OPEN_CLIP_BIAS, HF_CLIP, HF_SIGLIP))

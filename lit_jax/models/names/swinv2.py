"""Names of SwinV2s: timm's, Microsoft's and Hugging Face's."""

from lit_jax.models.names import Dialect, Family
from lit_jax.models.names.swin import (
    HF_BLOCK,
    HF_LEFT_OUT,
    HF_TRUNK,
    LEFT_OUT,
    TIMM_BLOCK,
    TIMM_PREFIXES,
    TIMM_TRUNK,
    blocks,
    merges,
)
from lit_jax.models.resize import resize_patch

_TIMM = TIMM_TRUNK | blocks(
    "layers",
    {
        **TIMM_BLOCK,
        "attention/query/kernel": "attn.qkv.weight[0/3]",
        "attention/query/bias": "attn.q_bias",
        "attention/key/kernel": "attn.qkv.weight[1/3]",
        "attention/value/kernel": "attn.qkv.weight[2/3]",
        "attention/value/bias": "attn.v_bias",
        "attention/logit_scale": "attn.logit_scale",
        "attention/position_expand": "attn.cpb_mlp.0",
        "attention/position_contract": "attn.cpb_mlp.2",
    },
)
TIMM = Dialect("timm", _TIMM | merges("layers", 1), prefixes=TIMM_PREFIXES, left_out=LEFT_OUT)
MICROSOFT = Dialect("Microsoft's SwinV2", _TIMM | merges("layers", 0), prefixes=TIMM_PREFIXES, left_out=LEFT_OUT)
_MLP = "attention.self.continuous_position_bias_mlp"
HUGGING_FACE = Dialect(
    "Hugging Face SwinV2",
    HF_TRUNK
    | blocks(
        "encoder.layers",
        {
            **HF_BLOCK,
            "attention/logit_scale": "attention.self.logit_scale",
            "attention/position_expand": _MLP + ".0",
            "attention/position_contract": _MLP + ".2",
        },
    ),
    prefixes=("", "swinv2."),
    left_out=HF_LEFT_OUT,
)

FAMILY = Family((TIMM, MICROSOFT, HUGGING_FACE), resize={"embedding/kernel": resize_patch})

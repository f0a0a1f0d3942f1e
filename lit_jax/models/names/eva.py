"""Names of EVA-02s in timm's files: with one layer for queries, keys and values or three, and with either last norm."""

from lit_jax.models.names import Dialect, Family
from lit_jax.models.resize import resize_patch, resize_positions

_T = "blocks.{n}."
_COMMON = {
    "class_token": "cls_token",
    "position_embedding": "pos_embed",
    "embedding": "patch_embed.proj",
    "blocks/attention_norm": _T + "norm1",
    "blocks/attention/norm": _T + "attn.norm",
    "blocks/attention/out": _T + "attn.proj",
    "blocks/mlp_norm": _T + "norm2",
    "blocks/mlp/norm": _T + "mlp.norm",
    "blocks/mlp/contract": _T + "mlp.fc2",
}
_APART = {
    "blocks/attention/query": _T + "attn.q_proj",
    "blocks/attention/key": _T + "attn.k_proj",
    "blocks/attention/value": _T + "attn.v_proj",
    "blocks/mlp/gate": _T + "mlp.fc1_g",
    "blocks/mlp/expand": _T + "mlp.fc1_x",
}
_FUSED = {
    "blocks/attention/query/kernel": _T + "attn.qkv.weight[0/3]",
    "blocks/attention/query/bias": _T + "attn.q_bias",
    "blocks/attention/key/kernel": _T + "attn.qkv.weight[1/3]",
    "blocks/attention/value/kernel": _T + "attn.qkv.weight[2/3]",
    "blocks/attention/value/bias": _T + "attn.v_bias",
    "blocks/mlp/gate": _T + "mlp.fc1.[0/2]",
    "blocks/mlp/expand": _T + "mlp.fc1.[1/2]",
}
_NORMS = {"norm": "norm", "pool_norm": "fc_norm"}
# Pre-training has no mean; timm takes its norm for the one behind the mean.
_PRETRAINING = {"pool_norm": "norm"}
_PREFIXES = ("", "visual.trunk.", "trunk.", "visual.", "module.", "model.")
_LEFT_OUT = (r"head\..*", r"lm_head\..*", "mask_token", r"rope\..*", r"blocks\.\d+\.attn\.(k_bias|rope\..*)")


def _dialect(name: str, *tables: dict[str, str]) -> Dialect:
    names = {ours: theirs for table in (_COMMON, *tables) for ours, theirs in table.items()}
    return Dialect(name, names, prefixes=_PREFIXES, left_out=_LEFT_OUT)


TIMM = _dialect("timm", _APART, _NORMS)
FUSED = _dialect("timm, with one layer for queries, keys and values", _FUSED, _NORMS)

FAMILY = Family(
    (
        TIMM,
        FUSED,
        _dialect("timm, from pre-training", _APART, _PRETRAINING),
        _dialect("timm, from pre-training, with one layer for queries, keys and values", _FUSED, _PRETRAINING),
    ),
    resize={"position_embedding": resize_positions, "embedding/kernel": resize_patch},
)

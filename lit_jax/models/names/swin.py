"""Names of Swins: timm's, Microsoft's and Hugging Face's."""

from lit_jax.models.names import Dialect, Family
from lit_jax.models.resize import resize_patch, resize_table

PLACES = {"plain": "{2*n}", "shifted": "{2*n+1}"}
STAGES = 4


def merges(theirs: str, first: int) -> dict[str, str]:
    """Names of the merging of patches, which some count by the stage before it and some by the one behind."""
    return {f"merge{stage}": f"{theirs}.{stage - 1 + first}.downsample" for stage in range(1, STAGES)}


def blocks(stage: str, layers: dict[str, str]) -> dict[str, str]:
    """Names of the layers of a block, for both kinds of blocks."""
    return {
        f"stage*/{kind}/{ours}": f"{stage}.*.blocks.{place}.{theirs}"
        for kind, place in PLACES.items()
        for ours, theirs in layers.items()
    }


TIMM_TRUNK = {"embedding": "patch_embed.proj", "embedding_norm": "patch_embed.norm", "norm": "norm"}
TIMM_BLOCK = {
    "attention_norm": "norm1",
    "attention/out": "attn.proj",
    "mlp_norm": "norm2",
    "mlp/expand": "mlp.fc1",
    "mlp/contract": "mlp.fc2",
}
TIMM_PREFIXES = ("", "visual.trunk.", "module.", "model.")
# Microsoft's files keep what their code computes from the sizes alone.
LEFT_OUT = (r"head\..*", r".*relative_position_index", r".*relative_coords_table", r".*attn_mask")
HF_TRUNK = {
    "embedding": "embeddings.patch_embeddings.projection",
    "embedding_norm": "embeddings.norm",
    "norm": "layernorm",
    **merges("encoder.layers", 0),
}
HF_BLOCK = {
    "attention_norm": "layernorm_before",
    "attention/query": "attention.self.query",
    "attention/key": "attention.self.key",
    "attention/value": "attention.self.value",
    "attention/out": "attention.output.dense",
    "mlp_norm": "layernorm_after",
    "mlp/expand": "intermediate.dense",
    "mlp/contract": "output.dense",
}
HF_LEFT_OUT = (
    r"classifier\..*", r".*relative_position_index", r".*relative_coords_table", r"embeddings\.mask_token",
)  # fmt: skip

_TIMM = TIMM_TRUNK | blocks(
    "layers",
    {
        **TIMM_BLOCK,
        "attention/query": "attn.qkv.[0/3]",
        "attention/key": "attn.qkv.[1/3]",
        "attention/value": "attn.qkv.[2/3]",
        "attention/table": "attn.relative_position_bias_table",
    },
)
TIMM = Dialect("timm", _TIMM | merges("layers", 1), prefixes=TIMM_PREFIXES, left_out=LEFT_OUT)
MICROSOFT = Dialect("Microsoft's Swin", _TIMM | merges("layers", 0), prefixes=TIMM_PREFIXES, left_out=LEFT_OUT)
HUGGING_FACE = Dialect(
    "Hugging Face Swin",
    HF_TRUNK | blocks("encoder.layers", {**HF_BLOCK, "attention/table": "attention.self.relative_position_bias_table"}),
    prefixes=("", "swin."),
    left_out=HF_LEFT_OUT,
)

FAMILY = Family(
    (TIMM, MICROSOFT, HUGGING_FACE),
    resize={"embedding/kernel": resize_patch, "attention/table": resize_table},
)

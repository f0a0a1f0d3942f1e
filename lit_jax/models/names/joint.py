"""Names of what joins two towers in files of whole models: projections, logit scale and bias."""

# For each of ours, names that files may use. A dot in front of the last part means PyTorch's transposed kernels.
NAMES: dict[str, tuple[str, ...]] = {
    "projection/kernel": (
        "visual.proj",  # open_clip's own ViT, not transposed
        "visual.head.proj.weight",  # open_clip with a timm tower
        "visual_projection.weight",  # transformers' CLIP
        "img/head/kernel",  # LiT
        "params/img/head/kernel",
    ),
    "projection/bias": ("visual.head.proj.bias", "img/head/bias", "params/img/head/bias"),
    "text_projection/kernel": ("txt/head/kernel", "params/txt/head/kernel"),
    "text_projection/bias": ("txt/head/bias", "params/txt/head/bias"),
    "logit_scale": ("logit_scale", "t", "params/t"),
    "logit_bias": ("logit_bias", "b", "params/b"),
}
TRANSPOSED = ("visual.head.proj.weight", "visual_projection.weight")
"""Kernels `[out, in]`."""

"""Names of ResNets: torchvision's, which are timm's too, and Hugging Face's."""

from lit_jax.models.names import Dialect, Family

# Deeper than any stage of a published size.
_BLOCKS = [(stage, block) for stage in range(4) for block in range(48)]

TORCHVISION = Dialect(
    "torchvision or timm",
    {
        "stem": "conv1",
        "stem_norm": "bn1",
        **{
            f"stage{s}_block{b}/{ours}": f"layer{s + 1}.{b}.{theirs}"
            for s, b in _BLOCKS
            for ours, theirs in {
                **{f"conv{i}": f"conv{i}" for i in (1, 2, 3)},
                **{f"norm{i}": f"bn{i}" for i in (1, 2, 3)},
                "shortcut": "downsample.0",
                "shortcut_norm": "downsample.1",
            }.items()
        },
    },
    prefixes=("", "module.", "visual.trunk.", "trunk.", "model."),
    left_out=(r"fc\..*",),
)

HUGGING_FACE = Dialect(
    "Hugging Face ResNet",
    {
        "stem": "embedder.embedder.convolution",
        "stem_norm": "embedder.embedder.normalization",
        **{
            f"stage{s}_block{b}/{ours}": f"encoder.stages.{s}.layers.{b}.{theirs}"
            for s, b in _BLOCKS
            for ours, theirs in {
                **{f"conv{i}": f"layer.{i - 1}.convolution" for i in (1, 2, 3)},
                **{f"norm{i}": f"layer.{i - 1}.normalization" for i in (1, 2, 3)},
                "shortcut": "shortcut.convolution",
                "shortcut_norm": "shortcut.normalization",
            }.items()
        },
    },
    prefixes=("", "resnet."),
    left_out=(r"classifier\..*",),
)

FAMILY = Family((TORCHVISION, HUGGING_FACE))

"""Names of BiT: Google's .npz files, timm's and Hugging Face's."""

from lit_jax.models.names import Dialect, Family

# Deeper than any stage of a published size.
_BLOCKS = [(stage, block) for stage in range(4) for block in range(48)]
_CONV = "standardized_conv2d"


def _google_norm(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}/scale": f"{theirs}/group_norm/gamma", f"{ours}/bias": f"{theirs}/group_norm/beta"}


def _google_block(stage: int, block: int) -> dict[str, str]:
    ours, theirs = f"stage{stage}_block{block}/", f"block{stage + 1}/unit{block + 1:02d}/"
    names = {ours + "shortcut": f"{theirs}a/proj/{_CONV}"}
    for i, letter in enumerate("abc", 1):
        names |= {f"{ours}conv{i}": f"{theirs}{letter}/{_CONV}", **_google_norm(f"{ours}norm{i}", theirs + letter)}
    return names


GOOGLE = Dialect(
    "Google's BiT",
    {
        "stem": f"root_block/{_CONV}",
        **{ours: theirs for place in _BLOCKS for ours, theirs in _google_block(*place).items()},
        "norm/scale": "group_norm/gamma",
        "norm/bias": "group_norm/beta",
    },
    torch=False,
    prefixes=("resnet/", ""),
    left_out=("head/.*",),
)

_PARTS = {"conv*": "conv*", "norm*": "norm*", "shortcut": "downsample.conv"}
TIMM = Dialect(
    "timm",
    {
        "stem": "stem.conv",
        **{f"stage*_block*/{ours}": f"stages.*.blocks.*.{theirs}" for ours, theirs in _PARTS.items()},
        "norm": "norm",
    },
    prefixes=("", "visual.trunk.", "trunk.", "module.", "model."),
    left_out=(r"head\..*",),
)

HUGGING_FACE = Dialect(
    "Hugging Face BiT",
    {
        "stem": "embedder.convolution",
        **{f"stage*_block*/{ours}": f"encoder.stages.*.layers.*.{theirs}" for ours, theirs in _PARTS.items()},
        "norm": "norm",
    },
    prefixes=("", "bit."),
    left_out=(r"classifier\..*",),
)

FAMILY = Family((GOOGLE, TIMM, HUGGING_FACE))

"""Names of EfficientNet-Lite and MobileNetV2: timm's, efficientnet_lite_pytorch's, torchvision's and Hugging Face's.

All but timm count the blocks through all stages, so their tables hold for towers of certain depths.
"""

from collections.abc import Iterator, Mapping

from lit_jax.models.names import Dialect, Family

# Blocks of each stage.
_MOBILE = (1, 2, 3, 4, 3, 3, 1)
_LITE = {
    "0": (1, 2, 2, 3, 3, 4, 1),
    "1 or 2": (1, 3, 3, 4, 4, 5, 1),
    "3": (1, 3, 3, 5, 5, 6, 1),
    "4": (1, 4, 4, 6, 6, 8, 1),
}


def _with(layer: str, conv: str, norm: str) -> dict[str, str]:
    return {f"{layer}/conv": conv, f"{layer}/norm": norm}


TIMM = Dialect(
    "timm",
    {
        **_with("stem", "conv_stem", "bn1"),
        **_with("stage*_block*/expand", "blocks.*.*.conv_pw", "blocks.*.*.bn1"),
        **_with("stage*_block*/filter", "blocks.*.*.conv_dw", "blocks.*.*.bn2"),
        **_with("stage*_block*/contract", "blocks.*.*.conv_pwl", "blocks.*.*.bn3"),
        # Without an expansion all are called by what comes one earlier.
        **_with("stage0_block0/filter", "blocks.0.0.conv_dw", "blocks.0.0.bn1"),
        **_with("stage0_block0/contract", "blocks.0.0.conv_pw", "blocks.0.0.bn2"),
        **_with("head", "conv_head", "bn2"),
    },
    prefixes=("", "visual.trunk.", "trunk.", "module.", "model."),
    left_out=(r"classifier\..*",),
)


def _places(depths: tuple[int, ...]) -> Iterator[tuple[int, str]]:
    """Each block's number through all stages, and our name of it."""
    names = (f"stage{stage}_block{block}" for stage, depth in enumerate(depths) for block in range(depth))
    return enumerate(names)


def _blocks(
    depths: tuple[int, ...], start: str, layers: Mapping[str, tuple[str, str]], less: int = 0
) -> dict[str, str]:
    """Names of all blocks but the first; what `start` counts is `less` fewer than the block's number."""
    return {
        ours: theirs
        for n, place in list(_places(depths))[1:]
        for layer, (conv, norm) in layers.items()
        for ours, theirs in _with(f"{place}/{layer}", f"{start}{n - less}.{conv}", f"{start}{n - less}.{norm}").items()
    }


def _lite(number: str, depths: tuple[int, ...]) -> Dialect:
    layers = {
        "expand": ("_expand_conv", "_bn0"),
        "filter": ("_depthwise_conv", "_bn1"),
        "contract": ("_project_conv", "_bn2"),
    }
    names = {
        **_with("stem", "_conv_stem", "_bn0"),
        **_with("stage0_block0/filter", "_blocks.0._depthwise_conv", "_blocks.0._bn1"),
        **_with("stage0_block0/contract", "_blocks.0._project_conv", "_blocks.0._bn2"),
        **_blocks(depths, "_blocks.", layers),
        **_with("head", "_conv_head", "_bn1"),
    }
    return Dialect(f"efficientnet_lite_pytorch (lite{number})", names, prefixes=("", "module."), left_out=(r"_fc\..*",))


LITE_PYTORCH = tuple(_lite(number, depths) for number, depths in _LITE.items())

_F = "features."
TORCHVISION = Dialect(
    "torchvision MobileNetV2",
    {
        **_with("stem", _F + "0.0", _F + "0.1"),
        **_with("stage0_block0/filter", _F + "1.conv.0.0", _F + "1.conv.0.1"),
        **_with("stage0_block0/contract", _F + "1.conv.1", _F + "1.conv.2"),
        **_blocks(
            _MOBILE, _F,
            {"expand": ("conv.0.0", "conv.0.1"), "filter": ("conv.1.0", "conv.1.1"), "contract": ("conv.2", "conv.3")},
            less=-1,
        ),
        **_with("head", f"{_F}{sum(_MOBILE) + 1}.0", f"{_F}{sum(_MOBILE) + 1}.1"),
    },
    prefixes=("", "module."),
    left_out=(r"classifier\..*",),
)  # fmt: skip

_PARTS = (".convolution", ".normalization")


def _both(layer: str, theirs: str) -> dict[str, str]:
    return _with(layer, *(theirs + part for part in _PARTS))


HUGGING_FACE = Dialect(
    "Hugging Face MobileNetV2",
    {
        **_both("stem", "conv_stem.first_conv"),
        **_both("stage0_block0/filter", "conv_stem.conv_3x3"),
        **_both("stage0_block0/contract", "conv_stem.reduce_1x1"),
        **_blocks(
            _MOBILE, "layer.",
            {ours: (theirs + _PARTS[0], theirs + _PARTS[1])
             for ours, theirs in {"expand": "expand_1x1", "filter": "conv_3x3", "contract": "reduce_1x1"}.items()},
            less=1,
        ),
        **_both("head", "conv_1x1"),
    },
    prefixes=("", "mobilenet_v2."),
    left_out=(r"classifier\..*",),
)  # fmt: skip

FAMILY = Family((TIMM, *LITE_PYTORCH, TORCHVISION, HUGGING_FACE))

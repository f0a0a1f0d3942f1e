"""Names of MLP-Mixers: Google's and timm's."""

import numpy as np

from lit_jax.models.names import Dialect, Family
from lit_jax.models.resize import resize_patch

_B = "blocks/"
_G = "MixerBlock_{n}/"
GOOGLE = Dialect(
    "Google's Mixer",
    {
        "embedding": "stem",
        _B + "token_norm": _G + "LayerNorm_0",
        _B + "token_mlp/expand": _G + "token_mixing/Dense_0",
        _B + "token_mlp/contract": _G + "token_mixing/Dense_1",
        _B + "channel_norm": _G + "LayerNorm_1",
        _B + "channel_mlp/expand": _G + "channel_mixing/Dense_0",
        _B + "channel_mlp/contract": _G + "channel_mixing/Dense_1",
        "norm": "pre_head_layer_norm",
    },
    torch=False,
    prefixes=("", "params/", "opt/target/"),
    left_out=("head/.*",),
)

_T = "blocks.{n}."
TIMM = Dialect(
    "timm",
    {
        "embedding": "stem.proj",
        _B + "token_norm": _T + "norm1",
        _B + "token_mlp/expand": _T + "mlp_tokens.fc1",
        _B + "token_mlp/contract": _T + "mlp_tokens.fc2",
        _B + "channel_norm": _T + "norm2",
        _B + "channel_mlp/expand": _T + "mlp_channels.fc1",
        _B + "channel_mlp/contract": _T + "mlp_channels.fc2",
        "norm": "norm",
    },
    prefixes=("", "visual.trunk.", "module.", "model."),
    left_out=(r"head\..*",),
)


def _refuse(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    raise ValueError("the MLPs over patches fit one number of patches: keep the image size the weights were trained at")


FAMILY = Family(
    (GOOGLE, TIMM),
    resize={
        "embedding/kernel": resize_patch,
        "token_mlp/expand/kernel": _refuse,
        "token_mlp/contract/kernel": _refuse,
        "token_mlp/contract/bias": _refuse,
    },
)

"""The towers by name. A new tower is one file in this folder, one of names beside it, and a line here."""

import flax.linen as nn

from lit_jax.models import bert, bit, efficientnet, eva, mixer, resnet, swin, swinv2, t5, text, units, vit
from lit_jax.models.names import Family
from lit_jax.models.names import bert as bert_names
from lit_jax.models.names import bit as bit_names
from lit_jax.models.names import efficientnet as efficientnet_names
from lit_jax.models.names import eva as eva_names
from lit_jax.models.names import mixer as mixer_names
from lit_jax.models.names import resnet as resnet_names
from lit_jax.models.names import swin as swin_names
from lit_jax.models.names import swinv2 as swinv2_names
from lit_jax.models.names import t5 as t5_names
from lit_jax.models.names import text as text_names
from lit_jax.models.names import vit as vit_names
from lit_jax.models.presets import Preprocessing, Preset
from lit_jax.models.text import TextTransformer
from lit_jax.models.two_tower import (
    TwoTower,
    embed_text,
    image_features,
    init,
    project,
    project_text,
    stored,
    text_features,
)
from lit_jax.models.vit import ViT

IMAGE_PRESETS: dict[str, Preset] = {
    **vit.PRESETS,
    **resnet.PRESETS,
    **bit.PRESETS,
    **efficientnet.PRESETS,
    **mixer.PRESETS,
    **swin.PRESETS,
    **swinv2.PRESETS,
    **eva.PRESETS,
}
"""Every published image tower by name."""
TEXT_PRESETS: dict[str, Preset] = {**text.PRESETS, **bert.PRESETS, **t5.PRESETS}
"""Every published text tower by name."""

_FAMILIES: dict[type[nn.Module], Family] = {
    ViT: vit_names.FAMILY,
    resnet.ResNet: resnet_names.FAMILY,
    bit.BiT: bit_names.FAMILY,
    efficientnet.InvertedResNet: efficientnet_names.FAMILY,
    mixer.Mixer: mixer_names.FAMILY,
    swin.Swin: swin_names.FAMILY,
    swinv2.SwinV2: swinv2_names.FAMILY,
    eva.Eva: eva_names.FAMILY,
    TextTransformer: text_names.FAMILY,
    bert.Bert: bert_names.FAMILY,
    units.BertUnits: bert_names.FAMILY,
    t5.T5Encoder: t5_names.FAMILY,
}


def family(tower: nn.Module) -> Family:
    """Names and resizing rules of a tower's weights."""
    return _FAMILIES[type(tower)]


__all__ = [
    "IMAGE_PRESETS",
    "TEXT_PRESETS",
    "Preprocessing",
    "Preset",
    "TextTransformer",
    "TwoTower",
    "ViT",
    "embed_text",
    "family",
    "image_features",
    "init",
    "project",
    "project_text",
    "stored",
    "text_features",
]

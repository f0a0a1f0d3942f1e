"""Golden outputs of Mixers and Swins: ``PEERS=... python -m tests.golden.make_swin``; torch, timm, transformers."""

import re

import numpy as np
import torch

from tests.golden import common, torch_side
from tests.golden.torch_side import pixels, versions

import timm  # isort: skip
import timm.layers  # isort: skip
import transformers  # isort: skip

TIMM_NAMES = {
    "mixer_s32": "mixer_s32_224", "mixer_s16": "mixer_s16_224", "mixer_b32": "mixer_b32_224",
    "mixer_b16": "mixer_b16_224", "mixer_l32": "mixer_l32_224", "mixer_l16": "mixer_l16_224",
    "swin_t": "swin_tiny_patch4_window7_224", "swin_s": "swin_small_patch4_window7_224",
    "swin_b": "swin_base_patch4_window7_224", "swin_b_384": "swin_base_patch4_window12_384",
    "swin_l": "swin_large_patch4_window7_224", "swin_l_384": "swin_large_patch4_window12_384",
    "swinv2_t": "swinv2_tiny_window8_256", "swinv2_t_w16": "swinv2_tiny_window16_256",
    "swinv2_s": "swinv2_small_window8_256", "swinv2_s_w16": "swinv2_small_window16_256",
    "swinv2_b": "swinv2_base_window8_256", "swinv2_b_w16": "swinv2_base_window16_256",
    "swinv2_b_w12": "swinv2_base_window12_192", "swinv2_b_w12to16": "swinv2_base_window12to16_192to256",
}  # fmt: skip


def timm_case(case, preset, size, ours=None, renamed=None, **options):
    """Features of timm's model; `renamed` makes other people's names of timm's, under which weights are drawn."""
    model = timm.create_model(TIMM_NAMES[preset], pretrained=False, num_classes=0, **options).eval()
    names = {name: renamed(name) if renamed else name for name in torch_side.shapes_of(model.state_dict())}
    shapes = {names[name]: shape for name, shape in torch_side.shapes_of(model.state_dict()).items()}
    drawn = common.arrays(shapes)
    model.load_state_dict({name: torch.from_numpy(drawn[other]) for name, other in names.items()}, strict=False)
    with torch.no_grad():
        common.write(case, preset=preset, size=size, shapes=shapes, features=model(pixels(size)),
                     made_by=versions(timm), options=ours)  # fmt: skip


def google_mixer_case(case="mixer_b16.google", blocks=12):
    """Google's names and layouts; timm has no reader of them, so that kernels are transposed here."""
    model = timm.create_model(TIMM_NAMES["mixer_b16"], pretrained=False, num_classes=0).eval()
    model.blocks = model.blocks[:blocks]
    table = {"stem.proj": "stem", "norm1": "LayerNorm_0", "norm2": "LayerNorm_1", "fc1": "Dense_0", "fc2": "Dense_1",
             "mlp_tokens": "token_mixing", "mlp_channels": "channel_mixing"}  # fmt: skip
    shapes = {"head/kernel": (768, 5), "head/bias": (5,)}
    names = {}
    for name, value in model.state_dict().items():
        new = re.sub(r"^norm\.", "pre_head_layer_norm.", re.sub(r"blocks\.(\d+)", r"MixerBlock_\1", name))
        for old, replacement in table.items():
            new = new.replace(old, replacement)
        new = new.replace("weight", "scale" if value.ndim == 1 else "kernel").replace(".", "/")
        names[name] = new
        shape = tuple(value.shape)
        shapes[new] = {1: shape, 2: shape[::-1], 4: (*shape[2:], *shape[1::-1])}[value.ndim]
    drawn = common.arrays(shapes)
    back = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
    model.load_state_dict({name: torch.from_numpy(drawn[new].transpose(back[drawn[new].ndim]).copy())
                           for name, new in names.items()})  # fmt: skip
    with torch.no_grad():
        common.write(case, preset="mixer_b16", size=224, shapes=shapes, features=model(pixels(224)),
                     made_by=versions(timm), options={"activation": "gelu", **({"depth": blocks} if blocks != 12 else {})})  # fmt: skip


def hugging_face_case(case, cls, config, preset, size, prefix="", ours=None):
    model, shapes = torch_side.filled_pretrained(cls, config)
    with torch.no_grad():
        common.write(case, preset=preset, size=size, shapes={prefix + name: shape for name, shape in shapes.items()},
                     features=model(pixel_values=pixels(size)).pooler_output, made_by=versions(transformers),
                     options=ours)  # fmt: skip


def microsofts(name):
    """Where Microsoft's files have timm's parameters: patches are merged at the end of a stage."""
    return re.sub(r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", name)


def resize_cases():
    """Arrays drawn by ``value``, resized by others."""

    def write(case, function, shape, wanted, resized):
        common.write(case, kind="table", preset=function, size=0, shapes={"value": shape, "wanted": wanted},
                     features=resized, made_by=versions(timm))  # fmt: skip

    for old, new in ((7, 12), (12, 7), (7, 6)):
        shape, wanted = ((2 * old - 1) ** 2, 3), ((2 * new - 1) ** 2, 3)
        square = torch.from_numpy(common.array("value", shape)).T.reshape(1, 3, 2 * old - 1, 2 * old - 1)
        resized = torch.nn.functional.interpolate(square, (2 * new - 1,) * 2, mode="bicubic", align_corners=False)
        write(f"resize.table_{old}_{new}", "resize_table", shape, wanted, resized.reshape(3, -1).T)
    for old, new in ((7, 12), (24, 14)):
        shape, wanted = (1, old * old + 1, 4), (1, new * new + 1, 4)
        resized = timm.layers.resample_abs_pos_embed(torch.from_numpy(common.array("value", shape)), [new, new])
        write(f"resize.positions_{old}_{new}", "resize_positions", shape, wanted, resized)
    for old, new in ((16, 32), (16, 14), (32, 16)):
        shape, wanted = (old, old, 3, 2), (new, new, 3, 2)
        kernel = torch.from_numpy(common.array("value", shape).transpose(3, 2, 0, 1).copy())
        resized = timm.layers.resample_patch_embed(kernel, [new, new]).permute(2, 3, 1, 0)
        write(f"resize.patch_{old}_{new}", "resize_patch", shape, wanted, resized)


def counts_case():
    """Numbers of parameters without classifier of every preset."""
    counts = {}
    with torch.device("meta"):
        for preset, name in TIMM_NAMES.items():
            model = timm.create_model(name, pretrained=False, num_classes=0)
            counts[preset] = sum(value.numel() for value in model.parameters())
    common.write("counts.swin_mixer", kind="counts", preset="", size=0, shapes={}, features=np.zeros(1),
                 made_by=versions(timm), counts=counts)  # fmt: skip


def main():
    google_mixer_case()
    timm_case("mixer_b16.timm", "mixer_b16", 224, {"activation": "gelu"})
    timm_case("swin_t.timm", "swin_t", 224)
    timm_case("swin_t.microsoft", "swin_t", 224, renamed=microsofts)
    # Padded to whole windows in three stages; the last map is smaller than a window.
    timm_case("swin_t.timm_192", "swin_t", 192, img_size=192)
    timm_case("swinv2_t.timm", "swinv2_t", 256)
    timm_case("swinv2_t_w16.timm", "swinv2_t_w16", 256)
    timm_case("swinv2_t.timm_from_12", "swinv2_t", 208, {"window": 7, "pretrained_windows": (12, 12, 12, 6)},
              img_size=208, window_size=7, pretrained_window_sizes=(12, 12, 12, 6))  # fmt: skip
    swin = {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24]}
    hugging_face_case("swin_t.hugging_face", transformers.SwinModel,
                      transformers.SwinConfig(**swin, image_size=224, window_size=7), "swin_t", 224)  # fmt: skip
    hugging_face_case("swinv2_t.hugging_face", transformers.Swinv2Model,
                      transformers.Swinv2Config(**swin, image_size=256, window_size=8), "swinv2_t", 256)  # fmt: skip
    resize_cases()
    counts_case()


if __name__ == "__main__":
    main()

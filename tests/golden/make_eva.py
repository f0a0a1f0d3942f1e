"""Golden outputs of EVA-02s, CLIP's ViTs under timm's names, and what a timm classifier's head reads:
``PEERS=... python -m tests.golden.make_eva`` with torch and timm. Heads are in the files, and no part of the features."""

import torch

from tests.golden import common, torch_side
from tests.golden.torch_side import pixels, versions

import timm  # isort: skip

# Of presets, what timm calls them.
NAMES = {
    "eva02_ti14": "eva02_tiny_patch14_224", "eva02_s14": "eva02_small_patch14_224",
    "eva02_b14": "eva02_base_patch14_224", "eva02_l14": "eva02_large_patch14_224",
    "eva02_ti14_336": "eva02_tiny_patch14_336", "eva02_s14_336": "eva02_small_patch14_336",
    "eva02_b14_448": "eva02_base_patch14_448", "eva02_l14_448": "eva02_large_patch14_448",
    "eva02_clip_b16": "eva02_base_patch16_clip_224", "eva02_clip_l14": "eva02_large_patch14_clip_224",
    "eva02_clip_l14_336": "eva02_large_patch14_clip_336",
}  # fmt: skip


def case(case, preset, name, size, ours=None, **options):
    model, shapes = torch_side.filled(
        timm.create_model(name, pretrained=False, num_classes=5, img_size=size, **options)
    )
    with torch.no_grad():
        features = model.forward_head(model.forward_features(pixels(size)), pre_logits=True)
        common.write(case, preset=preset, size=size, shapes=shapes, features=features, made_by=versions(timm),
                     options=ours)  # fmt: skip


def counts():
    """Parameters of each preset without a head."""
    found = {}
    for preset, name in NAMES.items():
        with torch.device("meta"):
            model = timm.create_model(name, pretrained=False, num_classes=0)
        found[preset] = sum(x.numel() for x in model.parameters())
    common.write("counts.eva", preset="", size=0, shapes={}, features=[0.0], made_by=versions(timm), kind="counts",
                 counts=found)  # fmt: skip


def main():
    two = {"depth": 2}
    case("eva02_ti14.timm", "eva02_ti14", NAMES["eva02_ti14"], 224)
    case("eva02_b14_two_blocks.timm", "eva02_b14", NAMES["eva02_b14"], 112, two, **two)
    case("eva02_clip_b16_two_blocks.timm", "eva02_clip_b16", NAMES["eva02_clip_b16"], 224, two, **two)
    case("eva02_clip_l14_336_two_blocks.timm", "eva02_clip_l14_336", NAMES["eva02_clip_l14_336"], 336, two, **two)
    case("eva02_clip_b16_mean.timm", "eva02_clip_b16", NAMES["eva02_clip_b16"], 96, {**two, "pool": "gap_norm"}, **two,
         global_pool="avg")  # fmt: skip
    case("openclip_l14_336_two_blocks.timm", "openclip_l14_336", "vit_large_patch14_clip_336", 336, two, **two)
    case("clip_l14_336_two_blocks.timm", "clip_l14_336", "vit_large_patch14_clip_quickgelu_336", 168, two, **two)
    case("vit_b16_mean.timm", "vit_b16", "vit_base_patch16_224", 96,
         {**two, "pool": "gap_norm", "activation": "gelu"}, **two, global_pool="avg")  # fmt: skip
    counts()


if __name__ == "__main__":
    main()

"""Golden outputs of towers cut to few blocks: ``PEERS=... python -m tests.golden.make_short``, by the other scripts' means.

Each has the name of a whole tower's case in the folder above, and stands for it where tests are to be quick: every kind of
block and every name is there, a sixth of the numbers.
"""

import torch

from tests.golden import common, make_conv, make_swin, make_text, make_vit, torch_side
from tests.golden.torch_side import pixels, versions

import open_clip  # isort: skip
import transformers  # isort: skip

TWO = {"depth": 2}
ONE_EACH = (1, 1, 1, 1)


def vits():
    exact = {"activation": "gelu", **TWO}
    make_vit.npz_case("short/vit_b16.augreg", depth=2, size=96)
    make_vit.timm_case("short/deit_b16_distilled.timm", "deit_base_distilled_patch16_224", "deit_b16_distilled", 96,
                       lambda model, x: model.forward_features(x)[:, 0], TWO, img_size=96, depth=2)  # fmt: skip
    config = transformers.ViTConfig(layer_norm_eps=1e-6, num_hidden_layers=2, image_size=96)
    make_vit.hugging_face_case("short/vit_b16.hugging_face", transformers.ViTModel, config, "vit_b16",
                               lambda out: out.last_hidden_state[:, 0], 96, exact)  # fmt: skip
    config = transformers.SiglipVisionConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=2,
                                             num_attention_heads=12, image_size=96, patch_size=16)  # fmt: skip
    make_vit.hugging_face_case("short/siglip_b16.hugging_face", transformers.SiglipVisionModel, config, "siglip_b16",
                               lambda out: out.pooler_output, 96, TWO)  # fmt: skip


def of_open_clip():
    """ViT-B-32 with two blocks in each tower and few words; the image tower is read beside the text tower's names."""
    config = open_clip.get_model_config("ViT-B-32")
    config["vision_cfg"]["layers"] = config["text_cfg"]["layers"] = 2
    config["text_cfg"]["vocab_size"] = 1000
    make_text.open_clip_case("short/clip_text.open_clip", open_clip.CLIP(**config), 1000, TWO)
    model, shapes = torch_side.filled(open_clip.CLIP(**config))
    model.visual.proj = None
    with torch.no_grad():
        common.write("short/openclip_b32.open_clip", preset="openclip_b32", size=224, shapes=shapes,
                     features=model.visual(pixels(224)), made_by=versions(open_clip), options=TWO)  # fmt: skip


def others():
    make_text.clip_case("short/clip_text.hugging_face", TWO, num_hidden_layers=2)
    make_text.siglip_case("short/siglip_text_b.hugging_face", TWO, num_hidden_layers=2)
    make_swin.google_mixer_case("short/mixer_b16.google", blocks=2)
    ours, small = {"depths": ONE_EACH}, {"depths": list(ONE_EACH)}
    make_conv.npz_case("short/bit_r50x1.google", ONE_EACH, 96, ours)
    make_conv.timm_case("bit_r50x1", "short/", 96, ours)
    make_conv.timm_case("resnet50", "short/", 96, ours, layers=ONE_EACH)
    make_conv.hugging_face_case("short/resnet50.hugging_face", "resnet50", transformers.ResNetModel,
                                transformers.ResNetConfig(**small), 96, ours)  # fmt: skip
    pairs = {"depths": (2, 2, 2, 2)}
    swin = {"embed_dim": 96, "depths": [2, 2, 2, 2], "num_heads": [3, 6, 12, 24]}
    make_swin.timm_case("short/swin_t.timm", "swin_t", 224, pairs, depths=(2, 2, 2, 2))
    make_swin.timm_case("short/swinv2_t.timm", "swinv2_t", 256, pairs, depths=(2, 2, 2, 2))
    make_swin.hugging_face_case("short/swin_t.hugging_face", transformers.SwinModel,
                                transformers.SwinConfig(**swin, image_size=224, window_size=7), "swin_t", 224, ours=pairs)  # fmt: skip
    make_swin.hugging_face_case("short/swinv2_t.hugging_face", transformers.Swinv2Model,
                                transformers.Swinv2Config(**swin, image_size=256, window_size=8), "swinv2_t", 256, ours=pairs)  # fmt: skip


def main():
    vits()
    of_open_clip()
    others()


if __name__ == "__main__":
    main()

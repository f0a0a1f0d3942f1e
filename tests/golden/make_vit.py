"""Golden outputs of ViTs: ``PEERS=... python -m tests.golden.make_vit`` with torch, timm, transformers, open_clip."""

import tempfile

import numpy as np
import torch

from tests.golden import common, torch_side
from tests.golden.torch_side import pixels, versions

import open_clip  # isort: skip
import timm  # isort: skip
import transformers  # isort: skip


def timm_case(case, name, preset, size=224, features=lambda model, x: model(x), ours=None, **options):
    model, shapes = torch_side.filled(timm.create_model(name, pretrained=False, num_classes=0, **options))
    with torch.no_grad():
        common.write(case, preset=preset, size=size, shapes=shapes, features=features(model, pixels(size)),
                     made_by=versions(timm), options=ours)  # fmt: skip


def hugging_face_case(case, cls, config, preset, features, size=224, ours=None):
    model, shapes = torch_side.filled_pretrained(cls, config)
    with torch.no_grad():
        common.write(case, preset=preset, size=size, shapes=shapes, features=features(model(pixel_values=pixels(size))),
                     made_by=versions(transformers), options=ours)  # fmt: skip


def npz_case(case="vit_b16.augreg", depth=12, size=224):
    """AugReg's file, read by timm's own reader of it."""
    width, heads = 768, 12
    shapes = {"cls": (1, 1, width), "embedding/kernel": (16, 16, 3, width), "embedding/bias": (width,),
              "Transformer/posembed_input/pos_embedding": (1, (size // 16) ** 2 + 1, width),
              "Transformer/encoder_norm/scale": (width,), "Transformer/encoder_norm/bias": (width,),
              "head/kernel": (width, 5), "head/bias": (5,)}  # fmt: skip
    for i in range(depth):
        block = f"Transformer/encoderblock_{i}/"
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            shapes |= {block + norm + "/scale": (width,), block + norm + "/bias": (width,)}
        for part in ("query", "key", "value"):
            shapes[f"{block}MultiHeadDotProductAttention_1/{part}/kernel"] = (width, heads, 64)
            shapes[f"{block}MultiHeadDotProductAttention_1/{part}/bias"] = (heads, 64)
        shapes[block + "MultiHeadDotProductAttention_1/out/kernel"] = (heads, 64, width)
        shapes[block + "MultiHeadDotProductAttention_1/out/bias"] = (width,)
        shapes |= {block + "MlpBlock_3/Dense_0/kernel": (width, 3072), block + "MlpBlock_3/Dense_0/bias": (3072,),
                   block + "MlpBlock_3/Dense_1/kernel": (3072, width), block + "MlpBlock_3/Dense_1/bias": (width,)}  # fmt: skip
    model = timm.create_model(
        "vit_base_patch16_224", pretrained=False, num_classes=5, img_size=size, depth=depth
    ).eval()
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        np.savez(file, **common.arrays(shapes))
        file.flush()
        model.load_pretrained(file.name)
    with torch.no_grad():
        features = model.forward_head(model.forward_features(pixels(size)), pre_logits=True)
    common.write(case, preset="vit_b16", size=size, shapes=shapes, features=features, made_by=versions(timm),
                 options={"activation": "gelu", **({"depth": depth} if depth != 12 else {})})  # fmt: skip


def main():
    npz_case()
    # timm computes GELU in its erf form also where the weights were trained with the other.
    exact = {"activation": "gelu"}
    timm_case("vit_b16.timm", "vit_base_patch16_224", "vit_b16", ours=exact)
    timm_case("deit_b16_distilled.timm", "deit_base_distilled_patch16_224", "deit_b16_distilled",
              features=lambda model, x: model.forward_features(x)[:, 0])  # fmt: skip
    timm_case("dinov2_s14_reg4.timm", "vit_small_patch14_reg4_dinov2", "dinov2_s14_reg4", img_size=224)
    timm_case("siglip_b16.timm", "vit_base_patch16_siglip_224", "siglip_b16", ours=exact)
    timm_case("dinov2_g14_two_blocks.timm", "vit_giant_patch14_dinov2", "dinov2_g14", img_size=224, depth=2,
              ours={"depth": 2})  # fmt: skip
    hugging_face_case("vit_b16.hugging_face", transformers.ViTModel, transformers.ViTConfig(layer_norm_eps=1e-6),
                      "vit_b16", lambda out: out.last_hidden_state[:, 0], ours=exact)  # fmt: skip
    hugging_face_case(
        "dinov2_s14_reg4.hugging_face", transformers.Dinov2WithRegistersModel,
        transformers.Dinov2WithRegistersConfig(hidden_size=384, num_attention_heads=6, image_size=224, patch_size=14),
        "dinov2_s14_reg4", lambda out: out.pooler_output,
    )  # fmt: skip
    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    hugging_face_case("siglip_b16.hugging_face", transformers.SiglipVisionModel,
                      transformers.SiglipVisionConfig(**vision, image_size=224, patch_size=16), "siglip_b16",
                      lambda out: out.pooler_output)  # fmt: skip
    large = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    hugging_face_case("clip_l14.hugging_face", transformers.CLIPVisionModel,
                      transformers.CLIPVisionConfig(**large, image_size=224, patch_size=14), "clip_l14",
                      lambda out: out.pooler_output)  # fmt: skip
    model, shapes = torch_side.filled(open_clip.create_model("ViT-B-32"))
    model.visual.proj = None  # the tower alone
    with torch.no_grad():
        common.write("openclip_b32.open_clip", preset="openclip_b32", size=224, shapes=shapes,
                     features=model.visual(pixels(224)), made_by=versions(open_clip))  # fmt: skip


if __name__ == "__main__":
    main()

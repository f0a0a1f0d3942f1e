"""Golden outputs of convolutional towers: ``PEERS=... python -m tests.golden.make_conv`` with torch, timm, transformers.

The case of efficientnet_lite_pytorch is made where that package can be imported, and left as it is elsewhere.
"""

import tempfile

import numpy as np
import torch

from tests.golden import common, torch_side
from tests.golden.torch_side import pixels, versions

import timm  # isort: skip
import torchvision  # isort: skip
import transformers  # isort: skip

TIMM_NAMES = {
    **{f"resnet{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101, 152)},
    **{f"bit_r{size}": f"resnetv2_{size}_bit" for size in ("50x1", "101x1", "50x3", "101x3", "152x4")},
    **{f"tf_efficientnet_lite{i}": f"tf_efficientnet_lite{i}" for i in range(5)},
    **{name: name for name in ("efficientnet_lite0", "mobilenetv2_100", "mobilenetv2_140")},
}


def cut(model, depths):
    """Leaves the first blocks of each stage of a BiT of timm's, whose number is no option."""
    for stage, depth in zip(model.stages, depths, strict=True):
        stage.blocks = stage.blocks[:depth]


def timm_case(preset, folder="", size=224, ours=None, **options):
    model = timm.create_model(TIMM_NAMES[preset], pretrained=False, num_classes=0, **options)
    if ours and preset.startswith("bit_"):
        cut(model, ours["depths"])
    model, shapes = torch_side.filled(model)
    write(f"{folder}{preset}.timm", preset, model, shapes, size, made_by=versions(timm), options=ours)


def counts_case():
    """How many numbers each tower has without its classifier, statistics of batch norms included."""
    with torch.device("meta"):
        towers = {
            preset: timm.create_model(name, pretrained=False, num_classes=0) for preset, name in TIMM_NAMES.items()
        }
        for percent in (100, 140):
            config = transformers.MobileNetV2Config(depth_multiplier=percent / 100)
            towers[f"tf_mobilenetv2_{percent}"] = transformers.MobileNetV2Model(config)
    counts = {preset: sum(int(np.prod(shape)) for shape in torch_side.shapes_of(tower.state_dict()).values())
              for preset, tower in towers.items()}  # fmt: skip
    common.write("counts.conv", kind="counts", preset="", size=0, shapes={}, features=np.zeros(1),
                 made_by=versions(timm, transformers), counts=counts)  # fmt: skip


def write(case, preset, features, shapes, size=224, **more):
    with torch.no_grad():
        common.write(case, preset=preset, size=size, shapes=shapes, features=features(pixels(size)), **more)


def npz_case(case="bit_r50x1.google", depths=(3, 4, 6, 3), size=224, ours=None):
    """Google's BiT file, read by timm's own reader of it."""
    shapes = {"resnet/root_block/standardized_conv2d/kernel": (7, 7, 3, 64), "resnet/group_norm/gamma": (2048,),
              "resnet/group_norm/beta": (2048,), "resnet/head/conv2d/kernel": (1, 1, 2048, 5),
              "resnet/head/conv2d/bias": (5,)}  # fmt: skip
    before = 64
    for stage, depth in enumerate(depths):
        width = 64 << stage
        for unit in range(depth):
            start = f"resnet/block{stage + 1}/unit{unit + 1:02d}/"
            if not unit:
                shapes[start + "a/proj/standardized_conv2d/kernel"] = (1, 1, before, 4 * width)
            for part, side, inputs, outputs in (
                ("a", 1, before, width),
                ("b", 3, width, width),
                ("c", 1, width, 4 * width),
            ):
                shapes[f"{start}{part}/standardized_conv2d/kernel"] = (side, side, inputs, outputs)
                shapes |= {f"{start}{part}/group_norm/{name}": (inputs,) for name in ("gamma", "beta")}
            before = 4 * width
    model = timm.create_model("resnetv2_50x1_bit", pretrained=False, num_classes=5).eval()
    cut(model, depths)
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        np.savez(file, **common.arrays(shapes))
        file.flush()
        model.load_pretrained(file.name)
    write(case, "bit_r50x1", lambda x: model.forward_head(model.forward_features(x), pre_logits=True).flatten(1),
          shapes, size, made_by=versions(timm), options=ours)  # fmt: skip


def hugging_face_case(case, preset, cls, config, size=224, ours=None):
    model, shapes = torch_side.filled_pretrained(cls, config)
    write(case, preset, lambda x: model(pixel_values=x).pooler_output.flatten(1), shapes, size,
          made_by=versions(transformers), options=ours)  # fmt: skip


def lite_package_case():
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError:
        print("no efficientnet_lite_pytorch here: its case stays as it is")
        return
    model, shapes = torch_side.filled(EfficientNet.from_name("efficientnet-lite0"))
    write("tf_efficientnet_lite0.efficientnet_lite_pytorch", "tf_efficientnet_lite0",
          lambda x: model.extract_features(x).mean((2, 3)), shapes,
          made_by=f"{versions()}, efficientnet_lite_pytorch 0.1.0")  # fmt: skip


def torchvision_case():
    model, shapes = torch_side.filled(torchvision.models.mobilenet_v2())
    write("mobilenetv2_100.torchvision", "mobilenetv2_100", lambda x: model.features(x).mean((2, 3)), shapes,
          made_by=versions(torchvision))  # fmt: skip


def main():
    counts_case()
    timm_case("resnet18")
    timm_case("resnet50")
    timm_case("bit_r50x1")
    timm_case("efficientnet_lite0")
    timm_case("tf_efficientnet_lite0")
    timm_case("mobilenetv2_100")
    npz_case()
    hugging_face_case("resnet50.hugging_face", "resnet50", transformers.ResNetModel, transformers.ResNetConfig())
    hugging_face_case("bit_r50x1.hugging_face", "bit_r50x1", transformers.BitModel, transformers.BitConfig())
    hugging_face_case("tf_mobilenetv2_100.hugging_face", "tf_mobilenetv2_100", transformers.MobileNetV2Model,
                      transformers.MobileNetV2Config())  # fmt: skip
    lite_package_case()
    torchvision_case()


if __name__ == "__main__":
    main()

"""What presets, weights and stores fill into a config, and what is said of weights of another tower."""

import json

import jax
import numpy as np
import pytest

from docs import make_towers
from lit_jax import config as options
from lit_jax import models
from lit_jax.data import embedding_store
from lit_jax.errors import UserError
from lit_jax.models import building, guess, presets, weight_files, weights
from lit_jax.models.settled import preset_notes
from lit_jax.settling import documents_of, settle
from lit_jax.text.tokenizers import Tokenizer
from tests.golden import common

TIMM = {"architecture": "x", "pretrained_cfg": {
    "input_size": [3, 256, 256], "interpolation": "bilinear", "crop_pct": 0.8, "crop_mode": "center",
    "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}  # fmt: skip


def given(**changes):
    """A config with some options changed: `image__tower="vit_b16"`."""
    flat = {name.replace("__", "."): value for name, value in changes.items()}
    return options.from_flat(flat, source="test")


def settled(**changes):
    config = given(**changes)
    return settle(config, documents=documents_of(config))


def refused(match, **changes):
    with pytest.raises(UserError, match=match) as error:
        settled(**changes)
    assert "\n" not in str(error.value)


@pytest.fixture
def folder(tmp_path):
    """A folder of weights as timm publishes them; nothing of this opens the weights."""
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text(json.dumps(TIMM))
    return str(tmp_path)


def test_config_before_documents_before_preset(folder):
    by_preset = settled(image__tower="vit_b16").image
    assert (by_preset.size, by_preset.width, by_preset.pool) == (224, 768, "token")
    assert building.view_of(settled(image__tower="vit_b16").image).crop_fraction == 0.9
    by_documents = settled(image__tower="vit_b16", image__weights=folder).image
    assert (by_documents.size, by_documents.interpolation, by_documents.crop_fraction) == (256, "bilinear", 0.8)
    assert by_documents.mean == (0.1, 0.2, 0.3) and by_documents.std == (0.4, 0.5, 0.6)
    by_config = settled(
        image__tower="vit_b16", image__weights=folder, image__size=160, image__interpolation="bicubic",
        image__mean=(0.5, 0.5, 0.5),
    ).image  # fmt: skip
    assert (by_config.size, by_config.interpolation, by_config.mean) == (160, "bicubic", (0.5, 0.5, 0.5))
    assert by_config.std == (0.4, 0.5, 0.6) and by_config.crop_fraction == 0.8
    own = settled(image__weights=folder).image
    assert (own.size, own.pool, own.width, own.resize) == (256, "token", 768, "short")


def notes_of(**changes):
    config = settled(**changes)
    return preset_notes(config.image, documents_of(config))


def test_weights_that_say_they_are_of_another_preset_are_refused(folder, tmp_path):
    """The arrays fit, and the features would be wrong: TensorFlow pads otherwise, and DeiT has another GELU."""
    for asked, architecture, other, differing in (
        ("efficientnet_lite0", "tf_efficientnet_lite0", "tf_efficientnet_lite0", {"padding", "norm_epsilon"}),
        ("tf_efficientnet_lite0", "efficientnet_lite0", "efficientnet_lite0", {"padding", "norm_epsilon"}),
        ("vit_b16", "deit_base_patch16_224", "deit_b16", {"activation"}),
    ):
        found = guess.other_tower(asked, folder, {"config.json": {"architecture": architecture}})
        assert (found.name, set(found.differing), found.is_certain) == (other, differing, True)
    for asked, architecture in (
        ("efficientnet_lite0", "efficientnet_lite0"), ("vit_b16", "vit_base_patch16_384"), ("resnet18", "resnet18"),
        ("dino_b16", "vit_base_patch16_224"), ("swinv2_b_w16", "swinv2_base_window12_192"), ("vit_b16", "x"),
    ):  # fmt: skip
        assert guess.other_tower(asked, folder, {"config.json": {"architecture": architecture}}) is None, asked
    mobile = {"config.json": {"model_type": "mobilenet_v2", "tf_padding": True, "layer_norm_eps": 0.001}}
    assert guess.other_tower("mobilenetv2_140", folder, mobile).name == "tf_mobilenetv2_140"
    assert guess.other_tower("tf_mobilenetv2_140", folder, mobile) is None
    (tmp_path / "config.json").write_text('{"architecture": "tf_efficientnet_lite0"}')
    with pytest.raises(
        UserError,
        match=r"found efficientnet_lite0 with weights of tf_efficientnet_lite0 .*padding same, not equal.*set image.to",
    ):
        notes_of(image__tower="efficientnet_lite0", image__weights=folder)


def test_names_of_files_that_tell_of_another_preset_are_noted(tmp_path):
    path = tmp_path / "tf_efficientnet_lite0-0aa007d2.pth"
    (note,) = notes_of(image__tower="efficientnet_lite0", image__weights=str(path))
    assert "called after tf_efficientnet_lite0, which is another tower" in note and "padding same, not equal" in note
    assert "mean 0.5/0.5/0.5, not 0.485/0.456/0.406" in note and "set image.tower to tf_efficientnet_lite0" in note
    assert guess.other_tower("vit_b16", "a/deit_base_patch16_224-b5f2ef4d.npz", {}).name == "deit_b16"
    for source in ("a/tf_efficientnet_lite0/", "a/TF_efficientnet_lite0/model.safetensors"):
        assert guess.other_tower("efficientnet_lite0", source, {}).name == "tf_efficientnet_lite0"
    # Others call TensorFlow's weights by the name without tf_: a name that is not the preset's says nothing.
    for tower in ("tf_efficientnet_lite0", "efficientnet_lite0"):
        assert guess.other_tower(tower, "a/efficientnet-lite0-57934424.pth", {}) is None
    assert guess.other_tower("tf_efficientnet_lite0", str(path), {}) is None


def test_preprocessing_that_is_not_the_presets_is_noted(folder):
    (note,) = notes_of(image__tower="vit_b16", image__weights=folder)
    assert "preprocessing is not that of vit_b16 as published (mean 0.1/0.2/0.3, not 0.5/0.5/0.5, std" in note
    assert "interpolation bilinear, not bicubic, crop_fraction 0.8, not 0.9)" in note
    assert notes_of(image__tower="vit_b16") == notes_of(image__weights=folder) == []


def test_a_filter_that_is_not_ours_can_be_overridden(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "preprocessor_config.json").write_text('{"resample": 1, "size": 224}')
    with pytest.raises(UserError, match=r"PIL's filter 1.*set image.interpolation"):
        settled(image__weights=str(tmp_path))
    assert settled(image__weights=str(tmp_path), image__interpolation="bicubic").image.interpolation == "bicubic"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"image__tower": "siglip_b16", "text__tower": "siglip_text_b"},
        {"image__tower": "resnet18", "text__tower": "bert_base"},
        {"image__tower": "clip_b32", "text__tower": "clip_text", "image__size": 256},
        {"image__tower": "swin_t", "text__tower": "mt5_small"},
    ],
)
def test_settling_twice_changes_nothing(changes):
    once = settled(**changes)
    assert options.flattened(settle(once)) == options.flattened(once)


def test_what_is_the_presets_to_say_is_refused():
    refused(
        r"image.tower: found vit_b17, expected one of .*docs/towers.md.*did you mean vit_b16\?", image__tower="vit_b17"
    )
    refused(r"text.tower: found bert_basse, .*did you mean bert_base\?", text__tower="bert_basse")
    refused(
        r"image.depth: found 24 with image.tower vit_b16, .*left to the preset", image__tower="vit_b16", image__depth=24
    )
    refused(
        r"image.pool: found gap with image.tower resnet18, expected none; leave it out",
        image__tower="resnet18",
        image__pool="gap",
    )
    refused("image.size: found 225, expected a multiple of image.patch, 16", image__tower="vit_b16", image__size=225)
    refused(
        "text.width: found 512 with text.tower siglip_text_b, .*set text.tower to transformer",
        text__tower="siglip_text_b",
        text__width=512,
    )
    refused(
        "text.pool: found map with text.tower bert_base, expected first or mean",
        text__tower="bert_base",
        text__pool="map",
    )
    refused("image.std: found", image__std=(0.5, 0.5, 0.0))


@pytest.mark.parametrize(
    ("tower", "shape"),
    [
        ("vit_l16", {"patch": 16, "width": 1024, "depth": 24, "heads": 16}),
        ("vit_b32", {"patch": 32, "width": 768, "depth": 12, "heads": 12}),
        ("siglip_so400m_14", {"patch": 14, "width": 1152, "depth": 27, "heads": 16, "mlp_dim": 4304}),
        ("resnet18", {"patch": 0, "width": 512, "depth": 0, "heads": 0, "mlp_dim": 0}),
    ],
)
def test_what_is_settled_is_the_shape_that_is_built(tower, shape):
    image = settled(image__tower=tower).image
    assert {name: getattr(image, name) for name in shape} == shape


@pytest.mark.parametrize("tower", [*models.IMAGE_PRESETS])
def test_the_settled_patch_and_width_are_those_of_the_parameters(tower):
    image = settled(image__tower=tower).image
    preset = models.IMAGE_PRESETS[tower]
    params, width = presets.image_shapes(preset.build(), preset.size)
    assert image.width == width
    if "embedding" in params and image.patch:
        assert params["embedding"]["kernel"].shape[:2] == (image.patch, image.patch)


@pytest.mark.parametrize("tower", [*models.TEXT_PRESETS])
def test_the_settled_text_tower_is_the_published_one(tower):
    said, text = models.TEXT_PRESETS[tower].options, settled(text__tower=tower).text
    for name in ("width", "depth", "heads", "mlp_dim", "causal", "projection_bias", "activation", "norm_epsilon"):
        assert getattr(text, name) == said.get(
            name, getattr(models.TEXT_PRESETS[tower].tower, name, getattr(text, name))
        )
    assert text.depth and text.heads and text.width


def test_sizes_that_contradict_a_preset_are_refused_those_of_no_other_kind_too():
    refused(
        "image.patch: found 16 with image.tower vit_b32, .*left to the preset", image__tower="vit_b32", image__patch=16
    )
    refused("image.depth: found 12 with image.tower vit_l16", image__tower="vit_l16", image__depth=12)
    refused("image.heads: found 12 with image.tower resnet18", image__tower="resnet18", image__heads=12)
    refused("text.heads: found 6 with text.tower minilm_l6", text__tower="minilm_l6", text__heads=6)
    refused("text.depth: found 12 with text.tower t5_v1_1_small", text__tower="t5_v1_1_small", text__depth=12)
    refused("text.causal: found True with text.tower bert_base", text__tower="bert_base", text__causal=True)
    refused("text.norm_epsilon: found 1e-06 with", text__tower="clip_text", text__norm_epsilon=1e-6)
    assert settled(image__tower="vit_l16", image__depth=24).image.depth == 24


def test_towers_of_ones_own_have_the_sizes_that_they_always_had():
    got = settled()
    assert [getattr(got.image, name) for name in ("patch", "width", "depth", "heads", "mlp_dim")] == [
        16,
        768,
        12,
        12,
        0,
    ]
    assert [getattr(got.text, name) for name in ("width", "depth", "heads", "mlp_dim")] == [384, 12, 6, 0]
    assert (got.text.activation, got.text.norm_epsilon) == ("gelu_tanh", 1e-6)


@pytest.mark.parametrize("tower", ["vit_l16", "resnet18", "given"])
def test_runs_of_earlier_versions_open_keep_their_names_and_go_on(tower):
    """They remembered the sizes of a tower of one's own, whatever was built."""
    now = options.flattened(settled(image__tower=tower, text__tower="units"))
    before = {**now, "image.patch": 16, "image.depth": 12, "image.heads": 12, "image.mlp_dim": 0}
    before |= {"text.width": 384, "text.depth": 12, "text.heads": 6, "text.activation": "gelu_tanh"}
    before |= {"text.norm_epsilon": 1e-6}
    assert options.digest(before) == options.digest(now) and options.difference(before, now) == []
    again = settle(options.from_flat(options.reopened(before), source="test"))
    assert options.flattened(again) == now


def test_pools_of_presets():
    assert settled(image__tower="siglip_b16").image.pool == "map"
    assert settled(image__tower="vit_b16", image__pool="gap").image.pool == "gap"
    assert settled(text__tower="bert_base").text.pool == "first"
    assert settled().text.pool == "end" and settled().text.context == 64 and settled().text.bucket == 8
    last = settled(text__tower="siglip_text_b").text
    assert (last.pool, last.context, last.bucket, last.projection_bias) == ("last", 64, 0, True)
    assert settled(text__pool="last", text__bucket=4).text.bucket == 0


def of_tower(kind, **remembered):
    return embedding_store.Store(
        **{
            **{field: None for field in embedding_store.Store.__dataclass_fields__},
            "tower": {"kind": kind, "options": {f"image.{name}": value for name, value in remembered.items()}},
        }
    )


def test_a_store_says_what_the_config_leaves_open():
    made = of_tower("vit_b16", size=160, mean=[0.1, 0.2, 0.3], interpolation="bilinear")
    got = settle(given(image__tower="vit_b16", input="store"), made).image
    assert (got.size, got.mean, got.interpolation, got.crop_fraction) == (160, (0.1, 0.2, 0.3), "bilinear", 0.9)
    assert settle(given(image__tower="vit_b16", image__size=224), made).image.size == 224
    assert settle(given(image__tower="vit_s16"), made).image.size == 224  # of another tower
    assert settle(given(image__tower="given"), made).image.mean == options.OPTIONS["image.mean"].default


def golden(case):
    return common.arrays(common.read(common.FOLDER / f"{case}.npz")[0]["shapes"])


@pytest.fixture(scope="module")
def small_vit():
    """A ViT-S/16 by timm's names."""
    tower = models.IMAGE_PRESETS["vit_s16"].build()
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), presets.image_shapes(tower, 224)[0])
    return weights.named(params, models.family(tower), models.family(tower).dialects[3])


@pytest.fixture
def few(monkeypatch):
    """Of the presets only some: tracing all of them takes seconds."""
    image = ("vit_s16", "vit_b16", "vit_ti16", "deit_s16", "clip_b32", "resnet18")
    for kind, names in (("IMAGE", image), ("TEXT", ("clip_text", "clip_text_openai", "minilm_l6"))):
        known = getattr(models, f"{kind}_PRESETS")
        monkeypatch.setattr(models, f"{kind}_PRESETS", {name: known[name] for name in names})


def loading(path, tower, flat, name="image"):
    weight_files.write_safetensors(path / "x.safetensors", flat)
    changes = {f"{name}__tower": tower, f"{name}__weights": str(path / "x.safetensors")}
    config = settled(**{"image__tower": "vit_ti16", **changes})
    tokenizer = Tokenizer(b"", 1000, 1, 0, None)
    with pytest.raises(UserError) as error:
        building.load_tower(config.towers, building.build_model(config.towers, tokenizer), name)
    assert "\n" not in str(error.value) and not isinstance(error.value, weights.Misfit)
    return str(error.value)


def test_weights_of_another_preset_are_told_by_its_name(tmp_path, small_vit, few):
    got = loading(tmp_path, "vit_b16", small_vit)
    assert got.endswith("; they look like those of image.tower vit_s16 or deit_s16")
    got = loading(tmp_path, "vit_b16", golden("resnet18.timm"))
    assert "found arrays such as bn1.bias" in got and got.endswith("image.tower resnet18")
    got = loading(tmp_path, "resnet18", golden("minilm_l6.hugging_face"))
    assert got.endswith("; they look like those of text.tower minilm_l6")
    got = loading(tmp_path, "vit_b16", {"a": np.zeros(3, np.float32)})
    assert got.endswith("; give its weights, or name the tower of these")


def test_of_towers_with_equal_names_the_size_of_the_input_decides(small_vit, few):
    assert guess.presets_of(golden("clip_text.hugging_face"), "text") == ["clip_text", "clip_text_openai"]
    larger = {**small_vit, "pos_embed": np.zeros((1, 577, 384), np.float32)}
    assert guess.presets_of(larger, "image") == ["vit_s16", "deit_s16"]
    assert guess.presets_of({**small_vit, "more": np.zeros(1, np.float32)}, "image") == []


def test_the_page_of_towers_is_what_the_script_writes():
    text = make_towers.PAGE.read_text(encoding="utf-8")
    counted = make_towers.counted_in(text)
    everything = {**models.IMAGE_PRESETS, **models.TEXT_PRESETS}
    assert counted.keys() == everything.keys(), "run python -m docs.make_towers"
    assert make_towers.page(text, counted) == text, "run python -m docs.make_towers"
    for name in ("vit_ti16", "resnet18", "minilm_l6"):
        assert make_towers.numbers(everything[name]) == counted[name]


@pytest.mark.parametrize(("tokens", "weight_file", "fits"), [
    (30522, "x", True), (29000, "x", True), (2048, "x", False), (2048, "", True), (30523, "", False)
])  # fmt: skip
def test_pretrained_text_towers_ask_for_their_own_tokenizer(tokens, weight_file, fits):
    config = settled(image__tower="given", image__width=8, text__tower="minilm_l6", text__weights=weight_file)
    tokenizer = Tokenizer(b"", tokens, 1, 0, None)
    if fits:
        assert building.build_model(config.towers, tokenizer).text.vocab_size == 30522
    else:
        with pytest.raises(UserError, match=f"found a tokenizer of {tokens} tokens, expected one of the 30522"):
            building.build_model(config.towers, tokenizer)

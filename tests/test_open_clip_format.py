"""Models in open_clip's layout: what open_clip made of them, what it cannot hold, and that we read them again."""

import functools
import json

import jax
import numpy as np
import pytest

from lit_jax import models
from lit_jax.data.images import centre_crop
from lit_jax.errors import UserError
from lit_jax.models import building, presets, weight_files, weights
from lit_jax.models.joint import load_joint
from lit_jax.trained import open_clip_layout
from tests.golden import common, export_cases

BOUND = 1e-4
# The others take a while; one of each kind is left.
ALWAYS = ("resnet50", "own")
CASES = [case if case in ALWAYS else pytest.param(case, marks=pytest.mark.slow) for case in export_cases.CASES]


@pytest.fixture(scope="session")
def words(tmp_path_factory):
    return export_cases.tokenizer(tmp_path_factory.mktemp("words"))


@functools.lru_cache(maxsize=1)
def drawn(case, words):
    return export_cases.build(export_cases.CASES[case], words)


@pytest.fixture
def written(tmp_path, words):
    def write(case):
        config, model, params = drawn(case, words)
        open_clip_layout.write(tmp_path, config.towers, model, params, words)
        return tmp_path

    return write


def golden(case):
    return common.read(common.FOLDER / f"export.{case}.npz")


@pytest.mark.parametrize("case", CASES)
def test_open_clip_computes_the_same_and_still_reads_what_is_written(case, words, written):
    about, image = golden(case)
    ours = export_cases.features(*drawn(case, words), words)
    assert ours[2].tolist() == about["tokens"]
    assert export_cases.error(ours[0], image) <= BOUND
    assert export_cases.error(ours[1], np.array(about["text"])) <= BOUND
    assert export_cases.written(written(case)) == about["written"]


@pytest.mark.parametrize("case", ["own", "resnet50"])
def test_open_clip_itself(case, words, written):
    open_clip = pytest.importorskip("open_clip")
    from tests.golden import make_export

    folder = written(case)
    config, model, params = drawn(case, words)
    image, text, tokens, scale, bias = make_export.read_by_open_clip(folder, config.image.size)
    ours = export_cases.features(config, model, params, words)
    assert np.array_equal(tokens, ours[2]) and scale == params["logit_scale"] and bias == params.get("logit_bias")
    assert export_cases.error(ours[0], image) <= BOUND and export_cases.error(ours[1], text) <= BOUND
    assert open_clip.create_model_from_pretrained(f"local-dir:{folder}")[1] is not None


def test_open_clips_photos_are_ours_but_for_rounding(shared_data, written):
    """PIL rounds between its two passes; `lit_jax.data.images` says by how much that may differ."""
    open_clip = pytest.importorskip("open_clip")
    from PIL import Image

    folder = written("own")
    _, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    for path in sorted((shared_data / "cub100" / "images").rglob("*.jpg"))[::2500][:3]:
        theirs = preprocess(Image.open(path)).numpy().transpose(1, 2, 0) * 0.5 + 0.5
        assert np.abs(theirs * 255 - centre_crop(path.read_bytes(), size=32).numpy()).max() <= 11


@pytest.mark.parametrize("case", [pytest.param("resnet50", marks=pytest.mark.slow), "dinov2_s14", "own"])
def test_what_was_written_is_read_again(case, words, written):
    """Biases that open_clip has no place for have moved; everything else comes back as it was."""
    folder = str(written(case))
    config, model, params = drawn(case, words)
    text, _ = weights.load_tower(folder, params["text"], models.family(model.text))
    jax.tree.map(np.testing.assert_array_equal, text, params["text"])
    is_timm = case == "resnet50"
    tower = model.image if is_timm else model.image.clone(patch_bias=False)
    family = models.family(tower)
    image, report = weights.load_tower(folder, presets.image_shapes(tower, config.image.size)[0], family)
    dialect = next(dialect for dialect in family.dialects if dialect.name == report.dialect)
    arrays = weight_files.open_weights(folder).arrays
    again = weights.named(image, family, dialect, "visual.trunk." if is_timm else "visual.")
    for name, array in again.items():
        np.testing.assert_array_equal(array.reshape(arrays[name].shape), arrays[name], name)
    assert {name for name in arrays if name.startswith("visual.")} - again.keys() <= {
        "visual.proj", "visual.head.proj.weight", "visual.head.proj.bias"
    }  # fmt: skip
    joined = load_joint(folder, {name: params[name] for name in params if name not in ("image", "text")})
    np.testing.assert_array_equal(joined["projection"]["kernel"], params["projection"]["kernel"])
    assert joined["logit_scale"] == params["logit_scale"] and joined.get("logit_bias") == params.get("logit_bias")
    got = jax.jit(tower.apply)({"params": image}, common.pixels(config.image.size))
    got = got @ joined["projection"]["kernel"] + joined["projection"]["bias"][None]
    assert export_cases.error(got, golden(case)[1]) <= BOUND


OWN = {name: value for name, value in export_cases.CASES["own"].items() if not name.startswith("text.")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({**OWN, "image.pool": "gap"}, "image.tower: found vit, expected a ViT that is read at its class token"),
        ({**OWN, "model.embed_dim": 65}, "expected model.embed_dim of at most the tower's width, 64"),
        ({**OWN, "text.activation": "gelu_quick"}, "expected gelu_quick in both towers or in none"),
        ({**OWN, "text.activation": "relu"}, "text.activation: found relu"),
        ({**OWN, "text.pool": "mean"}, "text.pool: found mean, expected end with text.causal"),
        ({**OWN, "text.causal": False}, "text.pool: found end, not causal"),
        ({**OWN, "text.tower": "mt5_small"}, "text.tower: found mt5_small, expected a text transformer"),
        ({"image.tower": "siglip_b16"}, "image.tower: found siglip_b16, .* GELU in another form"),
        ({"image.tower": "mixer_b16"}, "image.tower: found mixer_b16, .* GELU in another form"),
        ({"image.tower": "vit_b16", "model.embed_dim": 1000}, "GELU in another form"),
        ({"image.tower": "deit_b16_distilled"}, "timm reads both of its tokens"),
        ({"image.tower": "deit_s16", "image.pool": "gap"}, "image.pool: found gap"),
        ({"image.tower": "dinov2_s14_reg4"}, "image.size: found 224, expected 518"),
        ({"image.tower": "tf_mobilenetv2_100"}, "or a preset that timm has"),
        ({"image.tower": "given", "image.width": 8}, "image.tower: found given embeddings"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(map(str, list(value.values())[-2:])),
)
def test_what_open_clip_has_no_counterpart_for_is_refused(words, tmp_path, changes, message):
    own_text = {} if "text.tower" in changes else {**export_cases.SMALL, "text.causal": True}
    config = export_cases.settled({**own_text, **changes})
    model = building.build_model(config.towers, words)
    # Refused before any array is looked at, the text tower's apart.
    shapes = {} if "text.tower" in changes else building.param_shapes(config.towers, model)["text"]
    zeros = {"text": jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)}
    with pytest.raises(UserError, match=message) as error:
        open_clip_layout.write(tmp_path, config.towers, model, zeros, words)
    assert "\n" not in str(error.value) and "for open_clip's layout; --format lit_jax holds any" in str(error.value)
    assert not list(tmp_path.iterdir())


def test_hidden_widths_survive_open_clips_multiplication():
    for width in range(1, 200):
        for hidden in range(1, 4 * width, 7):
            assert int(width * open_clip_layout._mlp_ratio(width, hidden)) == hidden


def test_a_projection_without_full_rank_holds_no_bias(words, tmp_path):
    config, model, params = drawn("own", words)
    flat = {**params, "projection": {**params["projection"], "kernel": np.zeros((64, 24), np.float32)}}
    with pytest.raises(UserError, match="a projection of full rank"):
        open_clip_layout.write(tmp_path, config.towers, model, flat, words)
    assert not list(tmp_path.iterdir())


def test_the_config_says_what_open_clip_asks_for(words, tmp_path):
    _, model, params = drawn("own", words)
    with_margin = export_cases.settled({**export_cases.CASES["own"], "image.crop_fraction": 0.9})
    notes = open_clip_layout.write(tmp_path, with_margin, model, params, words, "someone/birds")
    document = json.loads((tmp_path / open_clip_layout.CONFIG).read_text())
    assert document["model_cfg"]["text_cfg"]["hf_tokenizer_name"] == "someone/birds"
    assert "crop_fraction" in notes[0] and len(notes) == 1

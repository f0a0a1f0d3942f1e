"""Towers in ONNX: every form of tower beside JAX, how numbers are stored, and prediction where there is no JAX."""

import csv
import dataclasses
import json
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

import lit_jax
from lit_jax import export as export_command
from lit_jax import models, predict
from lit_jax.errors import UserError
from lit_jax.graphs.from_jax import to_onnx
from lit_jax.graphs.graph import WEIGHTS
from lit_jax.models.units import BertUnits, Units
from lit_jax.prediction.with_onnx import WithOnnx
from lit_jax.text.units import SLOTS
from lit_jax.trained import documents, onnx_folder
from lit_jax.trained.exporting import export
from lit_jax.trained.loading import load, load_whole
from tests.conftest import random_like

BOUND = 1e-5  # of the largest value


def preset(name, **options):
    return (models.IMAGE_PRESETS | models.TEXT_PRESETS)[name].build(**options)


SHORT = {"depth": 2, "width": 24}
TINY_SWIN = {"width": 16, "depths": (2, 1), "heads": (1, 2), "window": 4}  # the second block shifts its windows
LITE = {"stages": ((1, 3, 1, 1, 8), (2, 5, 2, 6, 16)), "head": 32, "as_convolutions": True}
WORDS = {"vocab_size": 40, "end_id": 1}
# Every form that a preset of the package has, small: the towers of one form differ in their sizes alone.
IMAGE = {
    "vit": (preset("vit_ti16", **SHORT, heads=3), 32),
    "deit distilled": (preset("deit_b16_distilled", **SHORT, heads=3), 32),
    "dinov2, registers and swiglu": (preset("dinov2_g14_reg4", **SHORT, heads=3, mlp_dim=16), 28),
    "clip": (preset("clip_b32", **SHORT, heads=3), 64),
    "siglip": (preset("siglip_b16", **SHORT, heads=3), 32),
    "resnet": (preset("resnet18", depths=(1, 1), as_convolutions=True), 32),
    "resnet, bottlenecks": (preset("resnet50", depths=(1, 1), as_convolutions=True), 32),
    "bit": (preset("bit_r50x1", depths=(1, 1), as_convolutions=True), 32),
    "efficientnet": (preset("efficientnet_lite0", **LITE), 32),
    "efficientnet as tensorflow pads": (preset("tf_efficientnet_lite0", **LITE), 35),
    "mixer": (preset("mixer_s32", patch=8, **SHORT), 32),
    "swin": (preset("swin_t", **TINY_SWIN), 32),
    "swinv2": (preset("swinv2_t", **TINY_SWIN), 32),
    "eva02": (preset("eva02_ti14", **SHORT, heads=3), 28),
    "eva02 of clip": (preset("eva02_clip_b16", **SHORT, heads=3), 32),
}
TEXT = {
    "clip": (preset("clip_text_openai", **WORDS, **SHORT, heads=3, context=16, embed_dim=8), 16),
    "siglip": (preset("siglip_text_b", **WORDS, **SHORT, heads=3, context=16, embed_dim=8), 16),
    "map": (preset("big_vision_ti", **WORDS, **SHORT, heads=3, context=16, embed_dim=8, pool="map"), 16),
    "bert": (preset("minilm_l6", **WORDS, **SHORT, heads=3, context=16), 16),
    "bert of lit": (preset("lit_bert_base", **WORDS, **SHORT, heads=3, context=16), 16),
    "t5": (preset("mt5_small", **WORDS, **SHORT, heads=3, mlp_dim=16), 16),
    "units": (Units((9, 30), (0.8, 0.2), 8), SLOTS),
    "bert and units": (BertUnits(**WORDS, **SHORT, heads=3, context=16, sizes=(9, 30), weights=(0.8, 0.2)), 16 + SLOTS),
}


def with_variances(params):
    """With variances of batch norms above zero: of less, all that follows is not a number."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: np.abs(x) + np.float32(0.1) if path[-1] == jax.tree_util.DictKey("var") else x, params
    )


def agree(tower, example, given):
    """The largest difference between ONNX and JAX as a share of the largest value, of three rows traced as one."""
    params = with_variances(random_like(tower, example, scale=0.2))

    def apply(x):
        return tower.apply({"params": params}, x)

    made = to_onnx(apply, example.shape[1:], example.dtype, names=("x", "y"))
    session = onnxruntime.InferenceSession(made.SerializeToString())
    wanted = np.asarray(jax.jit(apply)(given))
    assert np.isfinite(wanted).all() and np.abs(wanted).max() > 0
    worst = 0.0
    for rows in (given, given[:1]):  # of any batch
        (got,) = session.run(None, {"x": rows})
        assert got.shape == wanted[: len(rows)].shape
        worst = max(worst, float(np.abs(got - wanted[: len(rows)]).max() / np.abs(wanted).max()))
    return worst


@pytest.mark.parametrize("name", IMAGE)
def test_every_form_of_image_tower_agrees_with_jax(name, rng):
    tower, size = IMAGE[name]
    given = rng.normal(size=(3, size, size, 3)).astype(np.float32)
    assert agree(tower, jnp.zeros((1, size, size, 3)), given) <= BOUND


@pytest.mark.parametrize("name", TEXT)
def test_every_form_of_text_tower_agrees_with_jax(name, rng):
    tower, length = TEXT[name]
    given = rng.integers(2, 38, (3, length)).astype(np.int32)
    given[0, 4:16] = given[1, 9:16] = 1
    given[:, 20:] = -1  # units end early
    assert agree(tower, jnp.zeros((1, length), jnp.int32), given) <= BOUND


def test_every_preset_has_a_form_that_is_tested():
    forms = {type(tower) for tower, _ in [*IMAGE.values(), *TEXT.values()]}
    assert {one.tower for one in (models.IMAGE_PRESETS | models.TEXT_PRESETS).values()} <= forms


@pytest.mark.slow
@pytest.mark.parametrize("name", models.IMAGE_PRESETS | models.TEXT_PRESETS)
def test_every_preset_is_known_to_the_primitive(name):
    """Of the real shape, with weights of zeros; what they come to is `benchmarks.onnx_towers`'s."""
    from benchmarks import onnx_towers

    onnx_towers.converted(name, draw=np.zeros)


def test_a_primitive_that_is_missing_is_named():
    with pytest.raises(UserError, match="found the primitive cumsum in the tower"):
        to_onnx(lambda x: jnp.cumsum(x, 1), (4,), np.float32, names=("x", "y"))
    with pytest.raises(UserError, match="does not depend on its input"):
        to_onnx(lambda x: jnp.ones(3), (4,), np.float32, names=("x", "y"))


@pytest.mark.parametrize("function", [
    lambda x: jnp.stack([x[..., ::2], x[..., 1::2]], -1).reshape(x.shape[0], 4, 3),
    lambda x: jnp.einsum("bij,bkj->bki", x, 2 * x) @ jnp.ones((3, 2)),
    lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 0)), constant_values=3.0).sum(1),
    lambda x: jnp.where(x > 0, x, -x).max((1, 2)) + jax.nn.softmax(x, 1)[:, 1, 2],
    lambda x: jnp.concatenate([x, jnp.broadcast_to(jnp.arange(4.0)[None, None], (x.shape[0], 1, 4))], 1),
    lambda x: x.transpose(0, 2, 1).reshape(x.shape[0], 2, 2, 3)[:, 1] ** 3,
    lambda x: jnp.split(x, 2, -1)[1] * jnp.any(x > 1, -1, keepdims=True),
    lambda x: jnp.arange(8.0).reshape(2, 4)[jnp.argmax(x[:, :2], 1)],
])  # fmt: skip
def test_single_forms(function, rng):
    given = rng.normal(size=(5, 3, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(to_onnx(function, (3, 4), np.float32, names=("x", "y")).SerializeToString())
    np.testing.assert_allclose(session.run(None, {"x": given})[0], function(given), atol=1e-5)


def test_softmax_is_one_operator():
    made = to_onnx(lambda x: jax.nn.softmax(x, -1), (3, 4), np.float32, names=("x", "y"))
    assert [node.op_type for node in made.graph.node] == ["Softmax", "Identity"]


def test_batch_norms_and_positions_leave_nothing_but_their_results():
    tower, size = IMAGE["resnet"]
    params = with_variances(random_like(tower, jnp.zeros((1, size, size, 3))))
    made = to_onnx(lambda x: tower.apply({"params": params}, x), (size, size, 3), np.float32, names=("x", "y"))
    kinds = [node.op_type for node in made.graph.node]
    assert kinds.count("Transpose") == 1 and {"Sqrt", "Reciprocal", "Sub", "Expand"}.isdisjoint(kinds)


@pytest.mark.parametrize(
    ("weights", "share", "bound"), [("fp32", 1.0, 1e-6), ("fp16", 0.52, 2e-3), ("int8", 0.28, 0.05)]
)
def test_numbers_are_stored_small_and_computed_with_in_float32(weights, share, bound, rng):
    kernel = rng.normal(size=(64, 96)).astype(np.float32) * np.exp(rng.normal(size=96)).astype(np.float32)
    made = to_onnx(lambda x: x @ kernel, (64,), np.float32, names=("x", "y"), weights=weights)
    stored = made.SerializeToString()
    assert len(stored) <= share * kernel.nbytes + 2000
    given = rng.normal(size=(7, 64)).astype(np.float32)
    (got,) = onnxruntime.InferenceSession(stored).run(None, {"x": given})
    wanted = given @ kernel
    # Each column by itself: a scale a channel keeps small columns too.
    assert got.dtype == np.float32 and (np.abs(got - wanted).max(0) <= bound * np.abs(wanted).max(0)).all()


# The folder


@pytest.fixture(scope="module")
def folders(finished, tmp_path_factory):
    trained = load_whole(finished[0])
    inside = {"seen": 0.5, "unseen": 0.5, "harmonic": 0.5, "ausuc": 0.25}
    fitted = {"margin": 0.05, "factors": {"seen": 9.0, "unseen": 5.0}, "folds": 2, **inside}
    trained = dataclasses.replace(trained, about=dataclasses.replace(trained.about, margin=fitted))
    root = tmp_path_factory.mktemp("onnx")
    export(trained, root / "own")
    for weights in WEIGHTS:
        export(trained, root / weights, layout="onnx", weights=weights)
    return root


@pytest.fixture(scope="module")
def paths(field_guide_folder):
    with open(field_guide_folder / "splits.csv") as file:
        return [str(field_guide_folder / row["file"]) for row in csv.DictReader(file)][:60]


def test_a_model_in_onnx_says_what_it_says_in_jax(folders, paths):
    own, other = lit_jax.load(folders / "own"), lit_jax.load(folders / "fp32")
    assert own.confidence == other.confidence and repr(other.about.margin) == repr(own.about.margin)
    for classes in (None, ["a nest", own.choices().table.names[2]]):
        for one, two in zip(own.name(paths, classes, sure=0.5), other.name(paths, classes, sure=0.5), strict=True):
            assert [a.name for a in one.answers] == [a.name for a in two.answers]
            assert one.sure.name == two.sure.name
            np.testing.assert_allclose(
                [a.confidence for a in one.answers], [a.confidence for a in two.answers], atol=1e-4
            )
    assert own.choices().seen.tolist() == other.choices().seen.tolist()
    rows = [np.stack(list(model.embed_photos(paths[:5]))) for model in (own, other)]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)


def test_a_browser_reads_the_same_square_and_the_same_texts(folders, paths):
    """Inputs are what the documents say, given by hand."""
    facts = json.loads((folders / "fp32" / documents.MODEL).read_text())
    model = lit_jax.load(folders / "own")
    session = onnxruntime.InferenceSession(folders / "fp32" / onnx_folder.IMAGE)
    (given,) = session.get_inputs()
    size = facts["view"]["size"]
    assert (given.name, given.type, given.shape[1:]) == ("photos", "tensor(uint8)", [size, size, 3])
    pixels = np.random.default_rng(0).integers(0, 255, (2, size, size, 3), np.uint8)
    (rows,) = session.run(["embeddings"], {"photos": pixels})
    np.testing.assert_allclose(rows, model.engine.photos(np.tile(pixels, (4, 1, 1, 1)))[:2], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    (text,) = onnxruntime.InferenceSession(folders / "fp32" / onnx_folder.TEXT).get_inputs()
    assert (text.name, text.type, text.shape[1]) == ("texts", "tensor(int32)", facts["text"]["length"])


@pytest.mark.parametrize(("weights", "least"), [("fp16", 1.0), ("int8", 0.9)])
def test_small_folders_nearly_agree(folders, paths, weights, least):
    names = [[one.answers[0].name for one in lit_jax.load(folders / kind).name(paths)] for kind in ("fp32", weights)]
    assert np.mean([a == b for a, b in zip(*names, strict=True)]) >= least
    large, small = ((folders / kind / onnx_folder.IMAGE).stat().st_size for kind in ("fp32", weights))
    assert small < large


WITHOUT = """
import sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {
            "jax", "jaxlib", "ml_dtypes", "flax", "optax", "orbax", "tensorflow", "scipy", "matplotlib", "onnx", "google_crc32c"}:
            raise ImportError(f"no {name} here")
sys.meta_path.insert(0, Refused())
from lit_jax import predict, search
checkpoint, index, *photos = sys.argv[1:]
predict.main(["--checkpoint", checkpoint, *photos, "--format", "csv", "--labels", "a nest,a hand"])
search.main(["--checkpoint", checkpoint, "--index", index, *(f"--photos={one}" for one in photos), "a nest", "--format", "jsonl"])
"""


def test_the_command_names_photos_where_there_is_no_jax(folders, paths, tmp_path):
    ours = [sys.executable, "-c", WITHOUT, str(folders / "fp32"), str(tmp_path / "index"), *paths[:4]]
    done = subprocess.run(ours, capture_output=True, text=True, check=True)
    given = ["--checkpoint", str(folders / "fp32"), *paths[:4]]
    predict.main([*given, "--format", "csv", "--labels", "a nest,a hand", "--out", str(tmp_path / "a.csv")])
    found = "".join(line for line in done.stdout.splitlines(keepends=True) if not line.startswith("{"))
    assert found == (tmp_path / "a.csv").read_text()
    hits = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert sorted(hit["photo"] for hit in hits) == sorted(paths[:4])


def one_line(call, match):
    with pytest.raises(UserError, match=match) as error:
        call()
    assert "\n" not in str(error.value)


def test_broken_folders_are_told_in_a_line(folders, tmp_path):
    other = shutil.copytree(folders / "fp32", tmp_path / "other")
    (other / onnx_folder.IMAGE).write_bytes((folders / "int8" / onnx_folder.IMAGE).read_bytes())
    one_line(lambda: lit_jax.load(other), r"image.onnx: found another content, expected it as it was written")
    (other / onnx_folder.IMAGE).unlink()
    one_line(lambda: lit_jax.load(other), r"image.onnx: found no such file")
    one_line(lambda: lit_jax.load(folders / "fp32", step="7"), "found a step or weights beside a model in ONNX")
    one_line(
        lambda: load(folders / "fp32"), "found a model in ONNX, expected a run or a folder in lit_jax's own format"
    )
    cut = shutil.copytree(folders / "fp32", tmp_path / "cut")
    (cut / onnx_folder.IMAGE).write_bytes((cut / onnx_folder.IMAGE).read_bytes()[:5000])
    facts = json.loads((cut / documents.MODEL).read_text())
    kept = {name: facts[name] for name in facts if name not in ("format", "version", "files", "digest")}
    documents.write(cut, onnx_folder.FORMAT, onnx_folder.VERSION, kept, list(facts["files"]))
    one_line(lambda: lit_jax.load(cut), r"image.onnx: found a file that onnxruntime cannot use")


def test_packages_that_are_missing_are_told_in_a_line(folders, finished, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        one_line(lambda: lit_jax.load(folders / "fp32"), "found no package onnxruntime")
    for arguments, match in (
        (["--format", "onnx"], "onnx: found no such package"),
        (["--weights", "fp16"], "--weights: found it with format lit_jax, expected it with --format onnx only"),
    ):
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
            patch.setitem(sys.modules, "onnx", None)
            export_command.main([f"--checkpoint={finished[0]}", f"--out={tmp_path / 'x'}", *arguments])
        assert stopped.value.code == 2 and match in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_model_of_given_embeddings_has_nothing_to_look_at(finished, tmp_path):
    trained = load(finished[0], with_image_tower=True)
    params = {name: tree for name, tree in trained.params.items() if name != "image"}
    one_line(
        lambda: export(dataclasses.replace(trained, params=params), tmp_path / "x", layout="onnx"),
        "found a model of embeddings computed elsewhere",
    )
    assert not (tmp_path / "x").exists()


def test_only_this_machine_computes(folders, monkeypatch):
    """onnxruntime has ways to compute elsewhere, such as Azure's; a model takes those that are named."""
    asked = []
    real = onnxruntime.InferenceSession

    def session(path, settings, providers):
        asked.append(providers)
        return real(path, settings, providers=["CPUExecutionProvider"])

    there = ["AzureExecutionProvider", "CUDAExecutionProvider", "FutureCloudExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    WithOnnx(folders / "fp32")
    assert asked == [["CUDAExecutionProvider", "CPUExecutionProvider"]]

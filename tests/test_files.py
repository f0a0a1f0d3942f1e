"""Weights in every form in which people have them, and what stands beside them."""

import json
import pathlib
import sys
import types

import ml_dtypes
import numpy as np
import pytest

from lit_jax.errors import UserError
from lit_jax.models import preprocessing, weight_files
from lit_jax.models.joint import load_joint

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b.c": np.float32([0.5, -2])}


def refused(call, *parts):
    """The message of a UserError: one line that holds all parts."""
    with pytest.raises(UserError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message and all(part in message for part in parts), message
    return message


def same(got, want=ARRAYS):
    assert sorted(got) == sorted(want) and len(got) == len(want)
    for name, value in want.items():
        np.testing.assert_array_equal(np.float32(got[name]), value)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_numpy_and_safetensors_of_every_precision(tmp_path, ending, dtype):
    write = {"npz": weight_files.write_npz, "safetensors": weight_files.write_safetensors}[ending]
    path = tmp_path / f"x.{ending}"
    write(path, {name: value.astype(dtype) for name, value in ARRAYS.items()})
    found = weight_files.open_weights(path)
    same(found.arrays)
    assert found.arrays["a"].dtype == dtype and found.documents == {} and found.folder is None
    assert weight_files.exists(str(path)) and not weight_files.exists("") and not weight_files.exists("hf-hub:a/b")


def test_a_folder_and_what_stands_beside_the_weights(tmp_path):
    weight_files.write_safetensors(tmp_path / "model.safetensors", ARRAYS)
    weight_files.write_safetensors(tmp_path / "other.safetensors", {})
    (tmp_path / "config.json").write_text('{"architecture": "x"}')
    found = weight_files.open_weights(tmp_path)
    same(found.arrays)
    assert found.folder == tmp_path and found.documents == {"config.json": {"architecture": "x"}}
    for source in (tmp_path, tmp_path / "model.safetensors"):
        assert weight_files.documents(str(source)) == found.documents
    assert weight_files.documents(str(tmp_path / "other.safetensors")) == {}  # not known to be of this model
    (tmp_path / "config.json").write_text('{"architecture": ')
    refused(
        lambda: weight_files.open_weights(tmp_path),
        "config.json line 1: found bad JSON",
        "expected a JSON object; fetch it again",
    )


def test_a_model_in_several_files(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {"a": "one.safetensors", "b.c": "two.safetensors"}})
    )
    weight_files.write_safetensors(tmp_path / "one.safetensors", {"a": ARRAYS["a"]})
    refused(
        lambda: weight_files.open_weights(tmp_path), "found no two.safetensors, expected every file of its index; fetch"
    )
    weight_files.write_safetensors(tmp_path / "two.safetensors", {"b.c": ARRAYS["b.c"]})
    same(weight_files.open_weights(tmp_path).arrays)
    weight_files.write_safetensors(tmp_path / "two.safetensors", {"b.d": ARRAYS["b.c"]})
    refused(
        lambda: weight_files.open_weights(tmp_path),
        "two.safetensors: found no b.c, expected it as the index says; fetch",
    )
    for text in ("{", "{}", "[]"):
        (tmp_path / "model.safetensors.index.json").write_text(text)
        refused(
            lambda: weight_files.open_weights(tmp_path),
            "model.safetensors.index.json",
            "expected an index of .safetensors files; fetch it again",
        )


def test_what_is_not_whole_or_not_weights_is_refused_in_a_line(tmp_path):
    npz, tensors = tmp_path / "x.npz", tmp_path / "x.safetensors"
    weight_files.write_npz(npz, {"x": np.random.default_rng(0).random((300, 10), np.float32)})
    weight_files.write_safetensors(tensors, ARRAYS)
    whole = {npz: npz.read_bytes(), tensors: tensors.read_bytes()}
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n"
    middle = whole[npz][:2000] + b"\xff" * 40 + whole[npz][2040:]
    broken = {npz: (b"", whole[npz][:-100], middle, pointer), tensors: (b"", whole[tensors][:-3], pointer)}
    for path, contents in broken.items():
        for content in contents:
            path.write_bytes(content)
            refused(
                lambda path=path: weight_files.open_weights(path),
                str(path),
                f"a whole {path.suffix}",
                "; fetch it again",
            )
    np.save(tmp_path / "one.npy", np.ones(3))
    refused(
        lambda: weight_files.open_weights(tmp_path / "one.npy"),
        "found a file of kind .npy, expected .npz, .safetensors",
    )
    (tmp_path / "one.npy").rename(npz)
    refused(lambda: weight_files.open_weights(npz), "expected a whole .npz archive; fetch it again")
    refused(lambda: weight_files.open_weights(tmp_path / "no.npz"), "found no such file", "; check the path")
    (tmp_path / "empty").mkdir()
    refused(
        lambda: weight_files.open_weights(tmp_path / "empty"),
        "a folder without weights",
        "model.safetensors",
        "in it; ",
    )


def without(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)


def test_pytorch_files_without_torch(tmp_path, monkeypatch):
    without(monkeypatch, "torch")
    for ending in ("pth", "pt", "bin"):
        (tmp_path / f"x.{ending}").write_bytes(b"PK")
        refused(
            lambda ending=ending: weight_files.open_weights(tmp_path / f"x.{ending}"), "no torch", "; pip install torch"
        )


class Tensor:
    """What the reader asks of torch's tensors."""

    def __init__(self, value):
        self.value, self.dtype = value, value.dtype

    def to(self, dtype):
        return Tensor(self.value.astype(dtype))

    def numpy(self):
        return self.value


@pytest.fixture
def torch(monkeypatch):
    """A stand-in for torch whose files hold what `content` is."""
    module = types.ModuleType("torch")
    module.float32, module.is_tensor, module.content = np.float32, lambda x: isinstance(x, Tensor), {}

    def load(path, *, map_location, weights_only):
        assert map_location == "cpu" and weights_only
        if isinstance(module.content, Exception):
            raise module.content
        return module.content

    module.load = load
    monkeypatch.setitem(sys.modules, "torch", module)
    return module


def test_pytorch_files(tmp_path, torch):
    path = tmp_path / "x.pth"
    path.write_bytes(b"")
    state = {name: Tensor(value.astype(np.float16)) for name, value in ARRAYS.items()}
    for content in (
        state,
        {**state, "step": 3},
        {"epoch": 1, "state_dict": state, "optimizer": {"a": 1}},
        {"model": {"state_dict": state}},
        {"teacher": state, "args": "x"},
    ):
        torch.content = content
        same(weight_files.open_weights(path).arrays)
    for content in ([1], {"epoch": 1}, {"model": {"x": 1}}):
        torch.content = content
        refused(lambda: weight_files.open_weights(path), "found no arrays by name, expected a state_dict; ")
    for error in (RuntimeError("invalid header\nand more"), EOFError()):
        torch.content = error
        refused(
            lambda: weight_files.open_weights(path),
            "found a file that is damaged or of another kind",
            "expected a PyTorch file of weights alone; ",
        )
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    torch.content = state
    same(weight_files.open_weights(tmp_path).arrays)


def test_real_pytorch_files(tmp_path):
    torch = pytest.importorskip("torch")
    state = {name: torch.tensor(value).to(torch.bfloat16) for name, value in ARRAYS.items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "x.pth")
    same(weight_files.open_weights(tmp_path / "x.pth").arrays)
    (tmp_path / "x.pth").write_bytes((tmp_path / "x.pth").read_bytes()[:300])
    for content, found in (
        ((tmp_path / "x.pth").read_bytes()[:300], "a file that is damaged or of another kind"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n",
            "a pointer of Git LFS and not the file",
        ),
    ):
        (tmp_path / "x.pth").write_bytes(content)
        refused(
            lambda: weight_files.open_weights(tmp_path / "x.pth"),
            f"found {found}",
            "expected a PyTorch file of weights alone",
        )
    for kind in (torch.float8_e4m3fn, torch.float8_e5m2):
        torch.save({name: value.to(kind) for name, value in state.items()}, tmp_path / "x.pth")
        refused(
            lambda: weight_files.open_weights(tmp_path / "x.pth"), "in 8 bits (float8_e", "expected float32, float16"
        )
    torch.save({"state_dict": state, "args": pathlib.Path("x")}, tmp_path / "x.pth")
    refused(lambda: weight_files.open_weights(tmp_path / "x.pth"), "Python objects that torch does not read")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A stand-in for huggingface_hub: `files` are what the model has, `asked` what was asked for."""
    module = types.ModuleType("huggingface_hub")
    module.files, module.asked, folder = {}, [], tmp_path / "cache"
    folder.mkdir()

    def snapshot_download(name, *, revision, allow_patterns):
        module.asked.append((name, revision, allow_patterns))
        if isinstance(module.files, Exception):
            raise module.files
        for file, content in module.files.items():
            if any(pathlib.PurePath(file).match(pattern) for pattern in allow_patterns):
                (folder / file).write_bytes(content)
        return str(folder)

    module.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return module


def test_names_on_the_hub(hub, tmp_path):
    weight_files.write_safetensors(tmp_path / "x.safetensors", ARRAYS)
    content = (tmp_path / "x.safetensors").read_bytes()
    hub.files = {"model.safetensors": content, "pytorch_model.bin": b"large", "config.json": b"{}"}
    found = weight_files.open_weights("hf-hub:owner/name@v2")
    same(found.arrays)
    assert found.where == "hf-hub:owner/name@v2" and found.documents == {"config.json": {}}
    assert [asked[:2] for asked in hub.asked] == [("owner/name", "v2")]
    assert not (found.folder / "pytorch_model.bin").exists()
    assert weight_files.documents("hf-hub:owner/name") == {"config.json": {}} and hub.asked[-1][:2] == (
        "owner/name",
        None,
    )


def test_pytorch_files_are_fetched_only_where_there_is_nothing_else(hub, torch):
    hub.files = {"pytorch_model.bin": b"x", "tf_model.h5": b"large"}
    torch.content = {name: Tensor(value) for name, value in ARRAYS.items()}
    found = weight_files.open_weights("hf-hub:owner/old")
    same(found.arrays)
    assert len(hub.asked) == 2 and not (found.folder / "tf_model.h5").exists()


def test_what_the_hub_refuses_is_one_line(hub, monkeypatch):
    hub.files = OSError("401 Client Error.\n\nRepository Not Found for url: x")
    refused(
        lambda: weight_files.open_weights("hf-hub:owner/no"),
        "hf-hub:owner/no: found nothing to fetch (401 Client Error",
        "; check the name",
    )
    hub.files = TimeoutError()
    refused(
        lambda: weight_files.open_weights("hf-hub:owner/no"), "(TimeoutError", "fetch the files and give their folder"
    )
    hub.files = {"README.md": b""}
    refused(
        lambda: weight_files.open_weights("hf-hub:owner/empty"), "hf-hub:owner/empty: found a folder without weights"
    )
    without(monkeypatch, "huggingface_hub")
    refused(
        lambda: weight_files.open_weights("hf-hub:owner/name"), "no huggingface_hub", "; pip install 'lit_jax[hub]'"
    )


HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
FLAGS = {"do_normalize": True, "do_rescale": True, "do_resize": True, "rescale_factor": 0.00392156862745098}
# As published, less what nobody here reads.
AUGREG = {
    "architecture": "vit_base_patch16_224", "num_classes": 21843, "num_features": 768, "global_pool": "token",
    "pretrained_cfg": {
        "tag": "augreg_in21k", "custom_load": False, "input_size": [3, 224, 224], "fixed_input_size": True,
        "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center", "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5], "num_classes": 21843, "pool_size": None, "first_conv": "patch_embed.proj",
        "classifier": "head",
    },
}  # fmt: skip
GOOGLE = {**FLAGS, **HALF, "image_processor_type": "ViTFeatureExtractor", "resample": 2}
OPENAI = {
    **FLAGS, **CLIP, "do_center_crop": True, "do_convert_rgb": True, "image_processor_type": "CLIPImageProcessor",
    "resample": 3, "size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224},
}  # fmt: skip
OPENAI_2021 = {
    **CLIP, "do_center_crop": True, "do_normalize": True, "do_resize": True, "crop_size": 224, "resample": 3,
    "feature_extractor_type": "CLIPFeatureExtractor", "size": 224,
}  # fmt: skip
DINOV2 = {
    **FLAGS, **IMAGENET, "do_center_crop": True, "do_convert_rgb": True, "image_processor_type": "BitImageProcessor",
    "resample": 3, "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224},
}  # fmt: skip
SIGLIP = {
    **FLAGS, **HALF, "image_processor_type": "SiglipImageProcessor", "processor_class": "SiglipProcessor",
    "resample": 3, "size": {"height": 224, "width": 224},
}  # fmt: skip
RESNET = {
    **IMAGENET, "crop_pct": 0.875, "do_normalize": True, "do_resize": True, "resample": 3, "size": 224,
    "feature_extractor_type": "ConvNextFeatureExtractor",
}  # fmt: skip
OPEN_CLIP = {
    "model_cfg": {
        "embed_dim": 512, "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
    },
    "preprocess_cfg": {"mean": CLIP["image_mean"], "std": CLIP["image_std"]},
}  # fmt: skip
OPEN_CLIP_SIGLIP = {
    "model_cfg": {"embed_dim": 768, "vision_cfg": {"image_size": 256, "timm_model_name": "vit_base_patch16_siglip_256"}},
    "preprocess_cfg": {
        "size": [256, 256], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic",
        "resize_mode": "squash",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "document", "want"),
    [
        ("config.json", AUGREG, ("bicubic", "short", 0.9, 224)),
        ("config.json", AUGREG["pretrained_cfg"] | {"architecture": "x"}, ("bicubic", "short", 0.9, 224)),
        ("preprocessor_config.json", {**GOOGLE, "size": 224}, ("bilinear", "square", 1.0, 224)),
        ("preprocessor_config.json", {**GOOGLE, "size": {"height": 384, "width": 384}}, ("bilinear", "square", 1.0, 384)),
        ("preprocessor_config.json", OPENAI, ("bicubic", "short", 1.0, 224)),
        ("preprocessor_config.json", OPENAI_2021, ("bicubic", "short", 1.0, 224)),
        ("preprocessor_config.json", DINOV2, ("bicubic", "short", 0.875, 224)),
        ("preprocessor_config.json", SIGLIP, ("bicubic", "square", 1.0, 224)),
        ("preprocessor_config.json", RESNET, ("bicubic", "short", 0.875, 224)),
        ("preprocessor_config.json", {**RESNET, "size": {"shortest_edge": 384}}, ("bicubic", "square", 1.0, 384)),
        ("open_clip_config.json", OPEN_CLIP, (None, None, 1.0, 224)),
        ("open_clip_config.json", OPEN_CLIP_SIGLIP, ("bicubic", "square", 1.0, 256)),
    ],
)  # fmt: skip
def test_preprocessing_as_it_is_published(name, document, want):
    found = preprocessing.read({name: document, "else.json": {}}, source="x")
    assert tuple(found.get(key) for key in ("interpolation", "resize", "crop_fraction", "size")) == want
    inner = document.get("preprocess_cfg") or document.get("pretrained_cfg") or document
    for ours, theirs in (("mean", "image_mean"), ("std", "image_std")):
        assert found[ours] == tuple(inner.get(ours) or inner[theirs])


def test_preprocessing_that_is_not_ours_is_named_unless_the_config_says_what_to_take():
    lanczos = {"preprocessor_config.json": {**GOOGLE, "size": 224, "resample": 1}}
    refused(lambda: preprocessing.read(lanczos, source="x"), "PIL's filter 1, expected bicubic or bilinear; set image.")
    assert "interpolation" not in preprocessing.read(lanczos, source="x", given=["interpolation"])
    padded = {**OPEN_CLIP_SIGLIP["preprocess_cfg"], "resize_mode": "longest"}
    documents = {"open_clip_config.json": {**OPEN_CLIP_SIGLIP, "preprocess_cfg": padded}}
    refused(
        lambda: preprocessing.read(documents, source="x"), "resize longest, expected short or square; set image.res"
    )
    random = {"config.json": {**AUGREG, "pretrained_cfg": {**AUGREG["pretrained_cfg"], "interpolation": "random"}}}
    assert preprocessing.read(random, source="x")["interpolation"] == "bilinear"
    assert preprocessing.read({"config.json": {"model_type": "vit"}}, source="x") == {}


def shape(*sizes):
    return types.SimpleNamespace(shape=sizes)


SCALE = {"logit_scale": shape()}
CLIP_LIKE = {"projection": {"kernel": shape(4, 3)}, **SCALE}


def saved(path, **arrays):
    weight_files.write_npz(
        path / "x.npz", {name.replace("__", "/"): np.float32(value) for name, value in arrays.items()}
    )
    return str(path / "x.npz")


def test_what_joins_the_towers_of_whole_models(tmp_path, rng):
    kernel = rng.normal(size=(4, 3)).astype(np.float32)
    for flat in ({"visual.proj": kernel}, {"visual_projection.weight": kernel.T}, {"visual.head.proj.weight": kernel.T},
                 {"img__head__kernel": kernel, "t": [2.0]}, {"params__img__head__kernel": kernel, "params__t": [2.0]}):  # fmt: skip
        got = load_joint(saved(tmp_path, **{"logit_scale": 2.0, **flat}), CLIP_LIKE)
        np.testing.assert_array_equal(got["projection"]["kernel"], kernel)
        assert got["logit_scale"].shape == () and got["logit_scale"] == 2.0
    like = {"projection": {"kernel": shape(4, 3), "bias": shape(3)}, **SCALE, "logit_bias": shape()}
    got = load_joint(saved(tmp_path, **{"visual.proj": kernel}, logit_scale=[2.0], logit_bias=[-10.0]), like)
    assert got["logit_bias"] == -10 and got["projection"]["bias"].tolist() == [0, 0, 0]
    like = {"text_projection": {"kernel": shape(4, 3), "bias": shape(3)}, **SCALE}
    got = load_joint(saved(tmp_path, txt__head__kernel=kernel, txt__head__bias=[1, 2, 3], t=[2.0]), like)
    assert got["text_projection"]["bias"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("arrays", "like", "part"),
    [
        ({"visual.proj": np.ones((5, 3)), "logit_scale": 1}, CLIP_LIKE, "found visual.proj of shape (5, 3), expected (4, 3); check"),
        ({"visual.proj": np.ones((4, 3)), "logit_scale": 1}, SCALE, "found visual.proj, expected none of it; set model.projection to True"),
        ({"logit_scale": 1}, CLIP_LIKE, "found none of visual.proj"),
        ({"logit_scale": 1, "logit_bias": 1}, SCALE, 'found logit_bias, expected none of it; set model.loss to "sigmoid"'),
        ({"logit_scale": 1}, {**SCALE, "logit_bias": shape()}, 'set model.loss to "softmax"'),
        ({"cls": np.ones(3)}, SCALE, "found none of logit_scale"),
        ({"logit_scale": np.ones(2)}, SCALE, "found logit_scale of shape (2,), expected ()"),
    ],
)  # fmt: skip
def test_what_does_not_join_them_is_named(tmp_path, arrays, like, part):
    refused(lambda: load_joint(saved(tmp_path, **arrays), like), "x.npz: ", part)

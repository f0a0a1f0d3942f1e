"""Models with drawn weights that `make_export` gives to open_clip and `tests/test_open_clip_format.py` checks. No torch."""

import json
import zlib

import numpy as np

from lit_jax import config as options
from lit_jax import models
from lit_jax.models import building, weight_files, weights
from lit_jax.models.names import text as text_names
from lit_jax.models.names import vit as vit_names
from lit_jax.settling import settle
from lit_jax.text.tokenizers import train_sentencepiece
from lit_jax.trained import open_clip_layout
from tests.golden import common

CAPTIONS = [
    "A photo of the Buff-tailed Coronet Birds Boissonneaua flavescens",
    "a photo of the Apple Plants Malus ×domestica",
    "Épinette à fleurs, Größe, naïve Ærøskøbing",
    "  double  spaces,\ttabs\nand lines ",
    "Thunnus thynnus " * 60,
]
SMALL = {"text.width": 32, "text.depth": 2, "text.heads": 2, "text.context": 16}
_LAST = {"text.pool": "last", "text.projection_bias": True, "model.loss": "sigmoid"}
CASES = {
    # AugReg's GELU, patch bias and projection bias.
    "vit_b16": {"image.tower": "vit_b16", "text.tower": "clip_text", "model.embed_dim": 512},
    "resnet50": {
        "image.tower": "resnet50", "image.size": 160, "text.tower": "big_vision_ti", "model.loss": "sigmoid",
        "model.embed_dim": 192,
    },
    "clip_b32": {"image.tower": "clip_b32", "text.tower": "clip_text_openai", "model.embed_dim": 512},
    # A CLIP tower with a text tower of another GELU, which open_clip's own ViT cannot have beside it.
    "clip_b32.timm": {"image.tower": "clip_b32", **SMALL, **_LAST, "model.embed_dim": 48},
    "swin_t": {"image.tower": "swin_t", **SMALL, **_LAST, "model.projection": False, "model.embed_dim": 768},
    # LayerScale, and positions for other sizes than timm's.
    "dinov2_s14": {"image.tower": "dinov2_s14", **SMALL, "text.causal": True, "model.embed_dim": 384},
    "own": {
        "image.tower": "vit", "image.size": 32, "image.patch": 8, "image.width": 64, "image.depth": 2, "image.heads": 4,
        "image.mlp_dim": 100, **SMALL, "text.causal": True, "text.mlp_dim": 50, "text.activation": "gelu",
        "model.embed_dim": 24,
    },
}  # fmt: skip
"""Options that differ from the defaults, by case."""
MORE = {
    "dinov2_s14_reg4": {"image.tower": "dinov2_s14_reg4", "image.size": 518, **SMALL, **_LAST, "model.embed_dim": 48},
    "deit_s16": {"image.tower": "deit_s16", **SMALL, **_LAST, "model.embed_dim": 400},
    "openclip_b32": {"image.tower": "openclip_b32", **SMALL, "text.causal": True, "model.embed_dim": 512},
    "swinv2_t": {"image.tower": "swinv2_t", **SMALL, **_LAST, "model.embed_dim": 48},
    "eva02_ti14": {"image.tower": "eva02_ti14", **SMALL, **_LAST, "model.embed_dim": 48},
    "eva02_clip_b16": {"image.tower": "eva02_clip_b16", **SMALL, **_LAST, "model.embed_dim": 48},
    "bit_r50x1": {"image.tower": "bit_r50x1", **SMALL, **_LAST, "model.embed_dim": 48},
    "mobilenetv2_100": {"image.tower": "mobilenetv2_100", "image.size": 128, **SMALL, **_LAST, "model.embed_dim": 48},
    "tf_efficientnet_lite1": {"image.tower": "tf_efficientnet_lite1", **SMALL, **_LAST, "model.embed_dim": 48},
}  # fmt: skip
"""Cases of which no golden output is kept."""


def tokenizer(folder):
    return train_sentencepiece(CAPTIONS, folder / "words.model", vocab_size=400)


def settled(changes):
    return settle(options.from_flat(changes, source="test"))


def build(changes, tokenizer):
    """Config, towers, and parameters that are drawn by the names of published files."""
    config = settled(changes)
    model = building.build_model(config.towers, tokenizer)
    shapes = building.param_shapes(config.towers, model)
    params = {name: common.array(name, shapes[name].shape) for name in ("logit_scale", "logit_bias") if name in shapes}
    if "projection" in shapes:
        params["projection"] = {
            part: common.array(f"projection/{part}", leaf.shape) for part, leaf in shapes["projection"].items()
        }
    params["image"] = _drawn(model.image, shapes["image"], _image_dialect(model.image))
    bias = model.text.projection_bias
    params["text"] = _drawn(model.text, shapes["text"], text_names.OPEN_CLIP_BIAS if bias else text_names.OPEN_CLIP)
    return config, model, params


def _image_dialect(tower):
    if isinstance(tower, models.ViT):
        return vit_names.TIMM
    return next(dialect for dialect in models.family(tower).dialects if "timm" in dialect.name)


def _drawn(tower, shapes, dialect):
    family = models.family(tower)
    zeros = weights.unflatten({path: np.zeros(leaf.shape, np.float32) for path, leaf in weights.leaves(shapes).items()})
    names = {name: value.shape for name, value in weights.named(zeros, family, dialect).items()}
    return weights.fill(common.arrays(names), shapes, family, source="drawn")[0]


def written(folder):
    """What is in the written files: the config, and shape and checksum of each array."""
    arrays = weight_files.open_weights(folder / open_clip_layout.WEIGHTS).arrays
    sums = {name: [list(arrays[name].shape), zlib.crc32(arrays[name].tobytes())] for name in sorted(arrays)}
    # The solution of a linear system: its last bits are the machine's.
    return {"config": json.loads((folder / open_clip_layout.CONFIG).read_text()),
            "arrays": {name: found for name, found in sums.items() if name != "visual.ln_post.bias"}}  # fmt: skip


def features(config, model, params, tokenizer):
    """Our features of `common.pixels` `[1, D]` and of the captions `[N, D]`, not normalised, and the tokens."""
    import jax

    tokens = tokenizer.encode(CAPTIONS, config.text.context)
    image = jax.jit(model.image.apply)({"params": params["image"]}, common.pixels(config.image.size))
    if model.projection:
        image = image @ params["projection"]["kernel"] + params["projection"]["bias"][None]
    return np.asarray(image), np.asarray(jax.jit(model.text.apply)({"params": params["text"]}, tokens)), tokens


def error(found, expected):
    """The largest difference as a share of the largest value."""
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())

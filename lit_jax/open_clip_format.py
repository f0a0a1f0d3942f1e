"""A trained model in open_clip's layout, so that ``open_clip.create_model_and_transforms("local-dir:...")`` reads it.

Two files, ``open_clip_config.json`` and ``open_clip_model.safetensors``, and the tokenizer's. A ViT read at its class
token becomes open_clip's own VisionTransformer, which has no bias in its patch embedding and none in its projection:
the first goes into the positions, the second into the last norm, both exactly. Other towers become timm models.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from lit_jax import models, tokens
from lit_jax.errors import UserError
from lit_jax.models.files import Flat, write_safetensors
from lit_jax.models.names import text, vit
from lit_jax.models.presets import Preset
from lit_jax.models.two_tower import Params, TwoTower
from lit_jax.models.weights import named

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"

# Models of timm whose weights our presets name on other shelves of the hub.
_TIMM_NAMES = {
    "dinov2_s14": "vit_small_patch14_dinov2",
    "dinov2_b14": "vit_base_patch14_dinov2",
    "dinov2_l14": "vit_large_patch14_dinov2",
    "dinov2_s14_reg4": "vit_small_patch14_reg4_dinov2",
    "dinov2_b14_reg4": "vit_base_patch14_reg4_dinov2",
    "dinov2_l14_reg4": "vit_large_patch14_reg4_dinov2",
}
# Sides of the input that timm's models have, where ours differ: open_clip cannot ask timm for another.
_TIMM_SIZES = {name: 518 for name in _TIMM_NAMES}
_ACTIVATIONS: dict[str, dict[str, Any]] = {
    "gelu": {}, "gelu_tanh": {"act_kwargs": {"approximate": "tanh"}}, "gelu_quick": {},
}  # fmt: skip


def write(folder: pathlib.Path, config: Any, model: TwoTower, params: Params, tokenizer: tokens.Tokenizer) -> list[str]:
    """Writes a model's files into a folder.

    Args:
        folder: an empty one.
        config: of the run, settled.
        model: the towers.
        params: every parameter.
        tokenizer: of the text tower.

    Returns:
        What a person should know of the result, a line each.

    Raises:
        UserError: a tower or a way of reading it that open_clip has no counterpart for.
    """
    quick = _quick_gelu(model)
    text_cfg, text_flat = _text(config, model.text, params, tokenizer)
    vision_cfg, vision_flat = _vision(config, model, params, quick)
    flat: Flat = {f"text.{name}": value for name, value in text_flat.items()}
    flat |= {f"visual.{name}": value for name, value in vision_flat.items()}
    flat["logit_scale"] = np.asarray(params["logit_scale"], np.float32)
    model_cfg: dict[str, Any] = {"embed_dim": model.embed_dim, "custom_text": True, "vision_cfg": vision_cfg,
                                 "text_cfg": text_cfg}  # fmt: skip
    if quick:
        model_cfg["quick_gelu"] = True
    if "logit_bias" in params:
        flat["logit_bias"] = np.asarray(params["logit_bias"], np.float32)
        model_cfg["init_logit_bias"] = 0.0  # so that there is one to fill
    image = config.image
    pixels = {
        "size": [image.size, image.size], "mean": list(image.mean), "std": list(image.std),
        "interpolation": image.interpolation, "resize_mode": "squash" if image.resize == "square" else "shortest",
    }  # fmt: skip
    document = {"model_cfg": model_cfg, "preprocess_cfg": pixels}
    (folder / CONFIG).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    write_safetensors(folder / WEIGHTS, flat, {"format": "pt"})
    _write_tokenizer(folder, tokenizer)
    if image.crop_fraction == 1:
        return []
    return [f"open_clip resizes to {image.size} pixels without the margin of crop_fraction {image.crop_fraction:g}"]


def _refused(option: str, found: Any, expected: str) -> UserError:
    return UserError(
        f"{option}: found {found}, expected {expected} for open_clip's layout; --format lit_jax holds any model"
    )


def _quick_gelu(model: TwoTower) -> bool:
    """open_clip has one switch for both of its own towers."""
    image = getattr(model.image, "activation", "")
    other = getattr(model.text, "activation", "")
    if other == "gelu_quick" and image != "gelu_quick" and _own_kind(model) is None:
        raise _refused("text.activation", "gelu_quick", "the image tower's activation")
    return "gelu_quick" in (image, other) and image == other


def _own_kind(model: TwoTower) -> str | None:
    """Why open_clip's own ViT cannot be this image tower; None if it can."""
    tower = model.image
    if not isinstance(tower, models.ViT) or tower.pool != "token":
        return "a ViT that is read at its class token"
    if tower.registers or tower.distilled or tower.activation not in _ACTIVATIONS:
        return "a ViT without registers, distillation token and SwiGLU"
    if not model.projection:
        return "model.projection"
    if model.embed_dim > tower.width:
        return "model.embed_dim of at most the tower's width"
    if tower.activation == "gelu_quick" and getattr(model.text, "activation", "") != "gelu_quick":
        return "the text tower's activation, gelu_quick too"
    return None


def _vision(config: Any, model: TwoTower, params: Params, quick: bool) -> tuple[dict[str, Any], Flat]:
    if model.image is None:
        raise _refused("image.tower", "given embeddings", "a tower")
    reason = _own_kind(model)
    if reason is None:
        return _own_vision(config, model.image, params)
    return _timm_vision(config, model, params, reason)


def _own_vision(config: Any, tower: Any, params: Params) -> tuple[dict[str, Any], Flat]:
    flat = named(params["image"], models.family(tower), vit.OPEN_CLIP)
    width = tower.width
    flat = {name: value.reshape(_own_shape(name, value)) for name, value in flat.items()}
    if "conv1.bias" in flat:
        # Every patch adds the same bias before its position.
        flat["positional_embedding"] = flat["positional_embedding"].copy()
        flat["positional_embedding"][1:] += flat.pop("conv1.bias")[None]
    kernel, bias = (np.asarray(params["projection"][name], np.float64) for name in ("kernel", "bias"))
    # (norm + shift) P = norm P + b, which has a solution as long as P has as many rows as columns.
    shift = np.linalg.lstsq(kernel.T, bias, rcond=None)[0]
    flat["ln_post.bias"] = (flat["ln_post.bias"] + shift).astype(np.float32)
    flat["proj"] = kernel.astype(np.float32)
    vision: dict[str, Any] = {
        "image_size": config.image.size, "layers": tower.depth, "width": width, "head_width": width // tower.heads,
        "patch_size": tower.patch, "mlp_ratio": (tower.mlp_dim or 4 * width) / width, "no_ln_pre": not tower.pre_norm,
        "norm_kwargs": {"eps": tower.norm_epsilon}, **_ACTIVATIONS[tower.activation],
    }  # fmt: skip
    if tower.layer_scale:
        vision["ls_init_value"] = 1e-5
    return vision, flat


def _own_shape(name: str, value: np.ndarray) -> tuple[int, ...]:
    """open_clip keeps the class token and the positions without a batch axis."""
    return (
        value.shape[1:]
        if name == "positional_embedding"
        else value.shape[-1:]
        if name == "class_embedding"
        else value.shape
    )


def _timm_vision(config: Any, model: TwoTower, params: Params, reason: str) -> tuple[dict[str, Any], Flat]:
    name, tower = config.image.tower, model.image
    assert tower is not None
    preset = models.IMAGE_PRESETS.get(name)
    timm = _timm_name(name, preset)
    if not timm or not model.projection or preset is None:
        raise _refused("image.tower", name, f"{reason}, or a preset that timm has")
    size = _TIMM_SIZES.get(name, preset.size)
    if config.image.size != size:
        raise _refused("image.size", config.image.size, f"timm's {size}")
    if isinstance(tower, models.ViT) and config.image.pool != preset.options.get("pool", "token"):
        raise _refused("image.pool", config.image.pool, "that of the preset")
    if getattr(tower, "activation", "") == "gelu_tanh":
        raise _refused("image.tower", name, f"{reason}; timm computes its GELU in another form")
    family = models.family(tower)
    dialect = next(dialect for dialect in family.dialects if "timm" in dialect.name)
    flat = {f"trunk.{key}": value for key, value in named(params["image"], family, dialect).items()}
    flat["head.proj.weight"] = np.asarray(params["projection"]["kernel"], np.float32).T
    flat["head.proj.bias"] = np.asarray(params["projection"]["bias"], np.float32)
    vision = {"image_size": size, "timm_model_name": timm, "timm_model_pretrained": False, "timm_pool": "",
              "timm_proj": "linear", "timm_proj_bias": True}  # fmt: skip
    return vision, flat


def _timm_name(name: str, preset: Preset | None) -> str:
    if preset is not None and preset.weights.startswith("timm/"):
        return preset.weights.removeprefix("timm/").split(".")[0]
    return _TIMM_NAMES.get(name, "")


def _text(config: Any, tower: Any, params: Params, tokenizer: tokens.Tokenizer) -> tuple[dict[str, Any], Flat]:
    if not isinstance(tower, models.TextTransformer):
        raise _refused("text.tower", config.text.tower, "a text transformer, such as clip_text")
    if tower.pool != "last" and not (tower.causal and tower.pool == "end"):
        raise _refused(
            "text.pool", f"{tower.pool}{'' if tower.causal else ', not causal'}",
            "end with text.causal, or last: open_clip reads padding like words",
        )  # fmt: skip
    if tower.activation not in _ACTIVATIONS:
        raise _refused("text.activation", tower.activation, " or ".join(_ACTIVATIONS))
    dialect = text.OPEN_CLIP_BIAS if tower.projection_bias else text.OPEN_CLIP
    flat = named(params["text"], models.family(tower), dialect)
    flat["positional_embedding"] = flat["positional_embedding"].reshape(tower.context, tower.width)
    shape: dict[str, Any] = {
        "context_length": tower.context, "vocab_size": tower.vocab_size, "width": tower.width, "heads": tower.heads,
        "layers": tower.depth, "mlp_ratio": (tower.mlp_dim or 4 * tower.width) / tower.width,
        "proj_bias": tower.projection_bias, "norm_kwargs": {"eps": tower.norm_epsilon},
        "pool_type": "last" if tower.pool == "last" else "eos", "eos_id": tower.end_id, "pad_id": tokenizer.pad_id,
        "no_causal_mask": not tower.causal, "hf_tokenizer_name": ".", **_ACTIVATIONS[tower.activation],
    }  # fmt: skip
    return shape, flat


def _write_tokenizer(folder: pathlib.Path, tokenizer: tokens.Tokenizer) -> None:
    """The tokenizer as transformers reads it from a folder."""
    document: Mapping[str, Any] = json.loads(tokens.to_tokenizer_json(tokenizer))
    (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    names = {number: piece for piece, number in _vocabulary(document).items()}
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": names[tokenizer.end_id],
             "pad_token": names[tokenizer.pad_id], "clean_up_tokenization_spaces": False}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _vocabulary(document: Mapping[str, Any]) -> dict[str, int]:
    added = {token["content"]: token["id"] for token in document.get("added_tokens", ())}
    return {**document["model"]["vocab"], **added}

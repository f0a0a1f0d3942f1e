"""A trained model in open_clip's layout, so that ``open_clip.create_model_and_transforms("local-dir:...")`` reads it.

Two files, ``open_clip_config.json`` and ``open_clip_model.safetensors``, and the tokenizer's. A ViT read at its class
token becomes open_clip's own VisionTransformer, which has no bias in its patch embedding and none in its projection:
the first goes into the positions, the second into the last norm, both exactly. Other towers become timm models.
"""

import json
import pathlib
from typing import Any

import numpy as np

from lit_jax import config as options
from lit_jax import models
from lit_jax.errors import UserError
from lit_jax.models import bit, efficientnet, eva, resnet
from lit_jax.models.building import Towers
from lit_jax.models.locking import IMAGE, LOGIT_BIAS, LOGIT_SCALE, PROJECTION, TEXT, Params
from lit_jax.models.names import eva as eva_names
from lit_jax.models.names import text, vit
from lit_jax.models.two_tower import TwoTower
from lit_jax.models.weight_files import Flat, write_safetensors
from lit_jax.models.weights import named
from lit_jax.text import tokenizer_json, tokenizers

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"

_DINOV2 = {
    f"dinov2_{letter}14{ours}": f"vit_{size}_patch14{theirs}_dinov2"
    for letter, size in (("s", "small"), ("b", "base"), ("l", "large"), ("g", "giant"))
    for ours, theirs in (("", ""), ("_reg4", "_reg4"))
}
# Models of timm whose weights our presets name on other shelves of the hub.
_TIMM_NAMES = {
    **_DINOV2,
    "clip_b32": "vit_base_patch32_clip_quickgelu_224",
    "clip_b16": "vit_base_patch16_clip_quickgelu_224",
    "clip_l14": "vit_large_patch14_clip_quickgelu_224",
    "clip_l14_336": "vit_large_patch14_clip_quickgelu_336",
    "openclip_b32": "vit_base_patch32_clip_224",
    "openclip_b16": "vit_base_patch16_clip_224",
    "openclip_l14": "vit_large_patch14_clip_224",
    "openclip_h14": "vit_huge_patch14_clip_224",
    "openclip_g14": "vit_giant_patch14_clip_224",
    "openclip_bigg14": "vit_gigantic_patch14_clip_224",
}
# Sides of the input that timm's models have, where ours differ: open_clip cannot ask timm for another.
_TIMM_SIZES = dict.fromkeys(_DINOV2, 518)
_ANY_SIZE = (resnet.ResNet, bit.BiT, efficientnet.InvertedResNet)
_ACTIVATIONS: dict[str, dict[str, Any]] = {
    "gelu": {}, "gelu_tanh": {"act_kwargs": {"approximate": "tanh"}}, "gelu_quick": {},
}  # fmt: skip


def write(
    folder: pathlib.Path,
    chosen: Towers,
    model: TwoTower,
    params: Params,
    tokenizer: tokenizers.Tokenizer,
    hub_name: str = ".",
) -> list[str]:
    """Writes a model's files into a folder.

    Args:
        folder: an empty one.
        chosen: options of the towers, settled.
        model: the towers.
        params: every parameter.
        tokenizer: of the text tower.
        hub_name: ``OWNER/NAME`` under which open_clip looks for the tokenizer if it reads the model from the hub; in
            a local folder it looks beside the model, whatever this is.

    Returns:
        What a person should know of the result, a line each.

    Raises:
        UserError: a tower or a way of reading it that open_clip has no counterpart for.
    """
    if model.image is None:
        raise _refused("image.tower", "given embeddings", "a tower")
    text_cfg, text_flat = _text(chosen.text.tower, model.text, params, tokenizer)
    vision_cfg, vision_flat = _vision(chosen.image, model, params)
    flat: Flat = {f"text.{name}": value for name, value in text_flat.items()}
    flat |= {f"visual.{name}": value for name, value in vision_flat.items()}
    flat["logit_scale"] = np.asarray(params[LOGIT_SCALE], np.float32)
    model_cfg: dict[str, Any] = {"embed_dim": model.embed_dim, "custom_text": True, "vision_cfg": vision_cfg,
                                 "text_cfg": {**text_cfg, "hf_tokenizer_name": hub_name}}  # fmt: skip
    if _is_quick(model.text):
        model_cfg["quick_gelu"] = True
    if LOGIT_BIAS in params:
        flat["logit_bias"] = np.asarray(params[LOGIT_BIAS], np.float32)
        model_cfg["init_logit_bias"] = 0.0  # so that there is one to fill
    document = {"model_cfg": model_cfg, "preprocess_cfg": _preprocess(chosen.image)}
    _write_tokenizer(folder, tokenizer)
    (folder / CONFIG).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    write_safetensors(folder / WEIGHTS, flat, {"format": "pt"})
    if chosen.image.crop_fraction == 1:
        return []
    return [
        f"open_clip knows no crop_fraction: its preprocess resizes photos to {chosen.image.size} pixels and cuts no "
        f"margin, where this model was trained with {chosen.image.crop_fraction:g}; accuracies may differ a little"
    ]


def _preprocess(image: Any) -> dict[str, Any]:
    return {
        "size": [image.size, image.size], "mean": list(image.mean), "std": list(image.std),
        "interpolation": image.interpolation, "resize_mode": "squash" if image.resize == "square" else "shortest",
    }  # fmt: skip


def _refused(option: str, found: Any, expected: str) -> UserError:
    return UserError(
        f"{option}: found {found}, expected {expected} for open_clip's layout; --format lit_jax holds any model"
    )


def _is_quick(tower: Any) -> bool:
    return getattr(tower, "activation", "") == "gelu_quick"


def _mlp_ratio(width: int, hidden: int) -> float:
    """A ratio that open_clip makes the hidden width of: it multiplies, and drops what is behind the point."""
    return hidden / width if int(hidden / width * width) == hidden else (hidden + 0.5) / width


def _projection(model: TwoTower, params: Params, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Kernel `[W, D]` and bias `[D]` of the image projection, float64; where there is none, one that does nothing."""
    if not model.projection:
        return np.eye(width), np.zeros(width)
    return np.asarray(params[PROJECTION]["kernel"], np.float64), np.asarray(params[PROJECTION]["bias"], np.float64)


def _vision(image: options.Image, model: TwoTower, params: Params) -> tuple[dict[str, Any], Flat]:
    reason = _not_own(model)
    if reason:
        return _timm_vision(image, model, params, reason)
    found = _own_vision(image, model, params)
    return found or _timm_vision(image, model, params, "a projection of full rank")


def _not_own(model: TwoTower) -> str:
    """Why open_clip's own ViT cannot be this image tower; empty if it can."""
    tower = model.image
    if not isinstance(tower, models.ViT) or tower.pool != "token":
        return "a ViT that is read at its class token"
    if tower.registers or tower.distilled or tower.activation not in _ACTIVATIONS:
        return "a ViT without registers, distillation token and SwiGLU"
    if model.embed_dim > tower.width:
        return f"model.embed_dim of at most the tower's width, {tower.width}"
    if _is_quick(tower) != _is_quick(model.text):
        return "gelu_quick in both towers or in none"
    return ""


def _own_vision(image: options.Image, model: TwoTower, params: Params) -> tuple[dict[str, Any], Flat] | None:
    """open_clip's own ViT; None if the projection's bias does not go into the last norm."""
    tower: Any = model.image
    width = tower.width
    flat = named(params[IMAGE], models.family(tower), vit.OPEN_CLIP)
    # Without batch axes.
    flat["class_embedding"] = flat["class_embedding"].reshape(width)
    positions = flat["positional_embedding"].reshape(-1, width).copy()
    if "conv1.bias" in flat:
        # Every patch adds the same bias before its position.
        positions[1:] += flat.pop("conv1.bias")[None]
    flat["positional_embedding"] = positions
    kernel, bias = _projection(model, params, width)
    # (norm + shift) P = norm P + b, which has a solution as long as P has full rank and no more columns than rows.
    shift = np.linalg.lstsq(kernel.T, bias, rcond=None)[0]
    moved = (flat["ln_post.bias"] + shift).astype(np.float32)
    if np.abs((moved - flat["ln_post.bias"].astype(np.float64)) @ kernel - bias).max() > 1e-4 * np.abs(bias).max():
        return None
    flat |= {"ln_post.bias": moved, "proj": kernel.astype(np.float32)}
    vision: dict[str, Any] = {
        "image_size": image.size, "layers": tower.depth, "width": width, "head_width": width // tower.heads,
        "patch_size": tower.patch, "mlp_ratio": _mlp_ratio(width, tower.mlp_dim or 4 * width),
        "no_ln_pre": not tower.pre_norm, "norm_kwargs": {"eps": tower.norm_epsilon}, **_ACTIVATIONS[tower.activation],
    }  # fmt: skip
    if tower.layer_scale:
        vision["ls_init_value"] = 1e-5  # so that there is one to fill
    return vision, flat


def _timm_vision(image: options.Image, model: TwoTower, params: Params, reason: str) -> tuple[dict[str, Any], Flat]:
    tower: Any = model.image
    name, size = _timm_model(image, tower, reason), image.size
    family = models.family(tower)
    dialect = next(dialect for dialect in family.dialects if "timm" in dialect.name)
    if isinstance(tower, eva.Eva) and not tower.mlp_norm:
        dialect = eva_names.FUSED
    trunk = named(params[IMAGE], family, dialect)
    if getattr(tower, "registers", 0):
        # timm's has no position for the class token, whose own is added to it.
        trunk["cls_token"] = trunk["cls_token"] + trunk["pos_embed"][:, :1]
        trunk["pos_embed"] = trunk["pos_embed"][:, 1:]
    flat = {f"trunk.{key}": value for key, value in trunk.items()}
    kernel, bias = _projection(model, params, image.width)
    flat |= {"head.proj.weight": kernel.T.astype(np.float32), "head.proj.bias": bias.astype(np.float32)}
    vision = {"image_size": size, "timm_model_name": name, "timm_model_pretrained": False, "timm_pool": "",
              "timm_proj": "linear", "timm_proj_bias": True}  # fmt: skip
    return vision, flat


def _timm_model(image: options.Image, tower: Any, reason: str) -> str:
    """The name of timm's model that computes what a tower does.

    Raises:
        UserError: there is none.
    """
    name = image.tower
    preset = models.IMAGE_PRESETS.get(name)
    theirs = _TIMM_NAMES.get(name, "")
    if preset is not None and preset.weights.startswith("timm/"):
        theirs = preset.weights.removeprefix("timm/").split(".")[0]
    if preset is not None and getattr(tower, "activation", "") == "gelu_tanh":
        raise _refused("image.tower", name, f"{reason}, since timm computes its GELU in another form")
    if preset is None or not theirs:
        raise _refused("image.tower", name, f"{reason}, or a preset that timm has")
    if getattr(tower, "distilled", False):
        raise _refused("image.tower", name, f"{reason}, since timm reads both of its tokens")
    usual = preset.options.get("pool", "token")
    if getattr(tower, "pool", usual) != usual:
        raise _refused("image.pool", tower.pool, f"{reason}, or the pool of the preset")
    size = _TIMM_SIZES.get(name, preset.size)
    if image.size != size and not isinstance(tower, _ANY_SIZE):
        raise _refused("image.size", image.size, f"{size}, the size of timm's {theirs},")
    return theirs


def _text(name: str, tower: Any, params: Params, tokenizer: tokenizers.Tokenizer) -> tuple[dict[str, Any], Flat]:
    if not isinstance(tower, models.TextTransformer):
        raise _refused("text.tower", name, "a text transformer, such as clip_text")
    if tower.pool != "last" and not (tower.causal and tower.pool == "end"):
        raise _refused(
            "text.pool", f"{tower.pool}{'' if tower.causal else ', not causal'}",
            "end with text.causal, or last, since open_clip reads padding like words,",
        )  # fmt: skip
    if tower.activation not in _ACTIVATIONS:
        raise _refused("text.activation", tower.activation, " or ".join(_ACTIVATIONS))
    dialect = text.OPEN_CLIP_BIAS if tower.projection_bias else text.OPEN_CLIP
    flat = named(params[TEXT], models.family(tower), dialect)
    flat["positional_embedding"] = flat["positional_embedding"].reshape(tower.context, tower.width)
    shape: dict[str, Any] = {
        "context_length": tower.context, "vocab_size": tower.vocab_size, "width": tower.width, "heads": tower.heads,
        "layers": tower.depth, "mlp_ratio": _mlp_ratio(tower.width, tower.mlp_dim or 4 * tower.width),
        "proj_bias": tower.projection_bias, "norm_kwargs": {"eps": tower.norm_epsilon},
        "pool_type": "last" if tower.pool == "last" else "eos", "eos_id": tower.end_id, "pad_id": tokenizer.pad_id,
        "no_causal_mask": not tower.causal, **_ACTIVATIONS[tower.activation],
    }  # fmt: skip
    return shape, flat


def _write_tokenizer(folder: pathlib.Path, tokenizer: tokenizers.Tokenizer) -> None:
    """The tokenizer as transformers reads it from a folder."""
    document = tokenizers.to_tokenizer_json(tokenizer)
    (folder / "tokenizer.json").write_text(document, encoding="utf-8")
    name_of = tokenizer_json.library().Tokenizer.from_str(document).id_to_token
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": name_of(tokenizer.end_id),
             "pad_token": name_of(tokenizer.pad_id), "clean_up_tokenization_spaces": False}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")

"""Preprocessing as it comes with weights: the JSON files of timm, transformers and open_clip."""

from collections.abc import Collection, Mapping
from typing import Any

from lit_jax.data.images import INTERPOLATIONS, RESIZES
from lit_jax.errors import UserError

# PIL's numbers, which transformers writes.
_RESAMPLE = {2: "bilinear", 3: "bicubic"}
_OPEN_CLIP_RESIZE = {"shortest": "short", "squash": "square"}


def read(documents: Mapping[str, Any], *, source: str, given: Collection[str] = ()) -> dict[str, Any]:
    """Options of the image tower that the files beside its weights decide; what they do not say is left out.

    Args:
        documents: JSON files by name, from `files.documents`.
        source: named in messages.
        given: options that the config sets; what the files say of them is not looked at.

    Returns:
        Some of ``mean``, ``std``, ``interpolation``, ``resize``, ``crop_fraction``, ``size`` and, of a timm classifier,
        the ``pool`` that its head reads, for towers that have a choice.

    Raises:
        UserError: a filter or a way of resizing that is not ours, where the config does not say what to take.
    """
    config = documents.get("config.json", {})
    if "open_clip_config.json" in documents:
        found = _open_clip(documents["open_clip_config.json"])
    elif "preprocessor_config.json" in documents:
        found = _transformers(documents["preprocessor_config.json"])
    elif "pretrained_cfg" in config or "architecture" in config:
        found = _timm(config.get("pretrained_cfg", config))
    else:
        found = {}
    if pool := _timm_pool(config):
        found = {**found, "pool": pool}
    found = {name: value for name, value in found.items() if name not in given}
    for name, ours in (("interpolation", tuple(INTERPOLATIONS)), ("resize", RESIZES)):
        if found.get(name, ours[0]) not in ours:
            raise UserError(
                f"weights {source}: found {name} {found[name]}, expected {' or '.join(ours)}; set image.{name} to the "
                "one that is nearest"
            )
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def _timm_pool(config: Mapping[str, Any]) -> str:
    """Where the head of a timm model reads, by our names; empty if the file does not say."""
    options = config.get("model_args") or {}
    pool = options.get("global_pool", config.get("global_pool"))
    if pool == "avg":
        # Its default: one norm, behind the mean.
        return "gap" if options.get("fc_norm", options.get("use_fc_norm")) is False else "gap_norm"
    return {"token": "token", "map": "map"}.get(str(pool), "")


def _timm(config: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: config[name] for name in ("mean", "std") if name in config}
    if "interpolation" in config:
        # What was trained with a filter drawn at random is read with either.
        found["interpolation"] = {"random": "bilinear"}.get(config["interpolation"], config["interpolation"])
    if "crop_pct" in config:
        found["crop_fraction"] = float(config["crop_pct"])
    if "crop_mode" in config:
        found["resize"] = "square" if config["crop_mode"] == "squash" else "short"
    if "input_size" in config:
        found["size"] = int(config["input_size"][-1])
    return found


def _transformers(config: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        ours: config[theirs] for ours, theirs in (("mean", "image_mean"), ("std", "image_std")) if theirs in config
    }
    if "resample" in config:
        found["interpolation"] = _RESAMPLE.get(config["resample"], f"PIL's filter {config['resample']}")
    size = _side(config.get("size"))
    if size is not None and "crop_pct" in config:
        # ConvNeXt's way, which ResNets have too: the middle of a larger photo, but from 384 pixels on all of it.
        small = size < 384
        crop = float(config["crop_pct"]) if small else 1.0
        return {**found, "size": size, "resize": "short" if small else "square", "crop_fraction": crop}
    cut = _side(config.get("crop_size")) if config.get("do_center_crop", "crop_size" in config) else None
    if size is not None:
        squeezes = isinstance(config.get("size"), int) or "height" in config.get("size", {})
        found["size"] = cut or size
        found["resize"] = "square" if squeezes and cut is None else "short"
        found["crop_fraction"] = cut / size if cut else 1.0
    return found


def _side(size: Any) -> int | None:
    """One number from the forms in which transformers writes a size."""
    if isinstance(size, Mapping):
        size = size.get("shortest_edge", size.get("height"))
    return int(size) if size else None


def _open_clip(config: Mapping[str, Any]) -> dict[str, Any]:
    pixels = config.get("preprocess_cfg", {})
    found = {name: pixels[name] for name in ("mean", "std", "interpolation") if name in pixels}
    if "resize_mode" in pixels:
        found["resize"] = _OPEN_CLIP_RESIZE.get(pixels["resize_mode"], pixels["resize_mode"])
    size = pixels.get("size") or config.get("model_cfg", {}).get("vision_cfg", {}).get("image_size")
    size = size[0] if isinstance(size, list) else size
    if size:
        found |= {"size": int(size), "crop_fraction": 1.0}
    return found

"""Preprocessing as it comes with weights: the JSON files of timm, transformers and open_clip."""

from collections.abc import Mapping
from typing import Any

from lit_jax.errors import UserError
from lit_jax.images import INTERPOLATIONS

# PIL's numbers, which transformers writes.
_RESAMPLE = {2: "bilinear", 3: "bicubic"}


def read(documents: Mapping[str, Any], *, source: str) -> dict[str, Any]:
    """Options of the image tower that the files beside its weights decide; what they do not say is left out.

    Args:
        documents: JSON files by name, from `files.documents`.
        source: named in messages.

    Returns:
        Some of ``mean``, ``std``, ``interpolation``, ``resize``, ``crop_fraction`` and ``size``.

    Raises:
        UserError: a filter other than bicubic and bilinear, or sides that differ.
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
    if found.get("interpolation", "bicubic") not in INTERPOLATIONS:
        raise UserError(
            f"weights {source}: found resizing by {found['interpolation']}, expected {' or '.join(INTERPOLATIONS)}; "
            "set image.interpolation to the one that is nearest"
        )
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


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
        found["resize"] = "square" if pixels["resize_mode"] == "squash" else "short"
    size = pixels.get("size") or config.get("model_cfg", {}).get("vision_cfg", {}).get("image_size")
    size = size[0] if isinstance(size, list) else size
    if size:
        found |= {"size": int(size), "crop_fraction": 1.0}
    return found

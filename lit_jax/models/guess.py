"""Which published towers a file may hold: for messages about weights that do not fit, or fit and are of another."""

import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lit_jax import models
from lit_jax.models import weights
from lit_jax.models.names import Family
from lit_jax.models.presets import Preprocessing, Preset

# What is of another shape with another input size, vocabulary or common embedding.
_FREE = ("position_embedding", "embedding/embedding", "token/embedding", "projection/kernel", "projection/bias")

# What weights are right for and no array shows.
_UNSEEN = ("padding", "norm_epsilon", "activation")
_TIMM = "timm/"
_OPENAI = "openai/"


class Other(NamedTuple):
    """The image tower that weights say they are of, where it is another one.

    Attributes:
        name: its preset.
        differing: what it does otherwise, by name: there, and in the tower that was asked for.
        is_certain: whether a file beside the weights says so, and not their name only.
    """

    name: str
    differing: dict[str, tuple[Any, Any]]
    is_certain: bool


def other_tower(name: str, source: str, documents: Mapping[str, Any]) -> Other | None:
    """Whether weights whose arrays fit a preset are of another one, which computes otherwise.

    Args:
        name: of the image preset that was asked for.
        source: of the weights, as a config gives it.
        documents: the JSON files beside them; where there are none, the name of the file or folder is believed.

    Returns:
        The one that is nearest, or None: nothing is known, or nothing differs.
    """
    names = _by_documents(documents.get("config.json", {}), name) if documents else _by_name(source)
    ours = models.IMAGE_PRESETS[name]
    differing = {
        other: _differing(models.IMAGE_PRESETS[other], ours, pixels=not documents)
        for other in names
        if models.IMAGE_PRESETS[other].tower is ours.tower
    }
    if not differing or not all(differing.values()):
        return None
    nearest = min(differing, key=lambda other: len(differing[other]))
    return Other(nearest, differing[nearest], bool(documents))


def _by_documents(config: Mapping[str, Any], name: str) -> list[str]:
    """Presets that timm's or transformers' JSON tells of."""
    presets = models.IMAGE_PRESETS
    if _is_quick(config):
        shape = _seen(presets[name])
        return [other for other, preset in presets.items() if _OPENAI in preset.weights and _seen(preset) == shape]
    if config.get("architecture"):
        return [other for other, preset in presets.items() if _timm_name(preset) == config["architecture"]]
    if "tf_padding" not in config:  # which transformers writes for mobile nets
        return []
    padding, shape = "same" if config["tf_padding"] else "equal", _seen(presets[name])
    return [
        other
        for other, preset in presets.items()
        if _seen(preset) == shape and getattr(preset.build(), "padding", "") == padding
    ]


def _is_quick(config: Mapping[str, Any]) -> bool:
    """Whether timm's file is of OpenAI's own CLIP, whose activation is another one whatever timm's name of it."""
    of = config.get("pretrained_cfg") or {}
    return "_clip_quickgelu_" in str(config.get("architecture")) or (
        of.get("tag") == "openai" and "_clip_" in str(config.get("architecture"))
    )


def _seen(preset: Preset) -> Any:
    return preset.tower, {option: value for option, value in preset.options.items() if option not in _UNSEEN}


def _by_name(source: str) -> list[str]:
    """Presets after which a file is called, or else its folder; of several names that are in it the longest."""
    for part in list(pathlib.PurePath(source).parts)[:-3:-1]:
        found: dict[str, list[str]] = {}
        for name, preset in models.IMAGE_PRESETS.items():
            for called in {name, _timm_name(preset)} - {""}:
                if re.search(rf"(?<![a-z0-9_]){re.escape(called)}(?![a-z0-9])", part.lower()):
                    found.setdefault(called, []).append(name)
        if found:
            return found[max(found, key=len)]
    return []


def _timm_name(preset: Preset) -> str:
    """``vit_base_patch16_224`` of ``timm/vit_base_patch16_224.augreg_in21k``; empty if they are published elsewhere."""
    name = preset.weights.removeprefix(_TIMM)
    return "" if name == preset.weights else name.partition(".")[0]


def _differing(theirs: Preset, ours: Preset, *, pixels: bool) -> dict[str, tuple[Any, Any]]:
    """What two presets of one tower do otherwise, and with `pixels` how photos are prepared for them."""
    both = theirs.build(), ours.build()
    pairs = {option: tuple(getattr(tower, option, None) for tower in both) for option in _UNSEEN}
    if pixels and theirs.preprocessing and ours.preprocessing:
        pairs |= _pixel_pairs(theirs.preprocessing, ours.preprocessing)
    return {option: (one, other) for option, (one, other) in pairs.items() if one != other}


def _pixel_pairs(*both: Preprocessing) -> dict[str, Any]:
    pairs: dict[str, Any] = {name: tuple(getattr(like, name) for like in both) for name in ("mean", "std")}
    views: Iterable[str] = ("interpolation", "resize", "crop_fraction")
    return pairs | {name: tuple(getattr(like.view, name) for like in both) for name in views}


def presets_of(arrays: Mapping[str, np.ndarray], kind: str) -> list[str]:
    """Names of the presets whose tower a file fills; only those of its very input size if there are some.

    Args:
        arrays: by name, as `lit_jax.models.weight_files.open_weights` gives them.
        kind: ``image`` or ``text``.

    Returns:
        Several where towers differ in nothing that a file shows, such as the activation; none if nothing fits.
    """
    presets = models.IMAGE_PRESETS if kind == "image" else models.TEXT_PRESETS
    first = {preset.tower: preset for preset in reversed(presets.values())}
    shares = {tower: weights.share_named(arrays, *_traced(preset)) for tower, preset in first.items()}
    likeliest = max(shares, key=lambda tower: shares[tower])
    if shares[likeliest] < 0.5:
        return []
    sides = {side for array in arrays.values() for side in np.shape(array)}
    found: dict[str, int] = {}
    for name, preset in presets.items():
        # Tracing takes long: only those whose width is a side of some array, where they have one width.
        if preset.tower is likeliest and ("width" not in preset.options or preset.options["width"] in sides):
            differing = weights.differing(arrays, *_traced(preset))
            if differing is not None and all(path.endswith(_FREE) for path in differing):
                found[name] = len(differing)
    return [name for name, count in found.items() if count == min(found.values())]


def _traced(preset: Preset) -> tuple[Any, Family]:
    """Parameters of a preset as shapes, and how they are named."""
    run = {"vocab_size": 2, "end_id": 1, "context": preset.size, "embed_dim": 2}
    fields = preset.tower.__dataclass_fields__
    tower = preset.build(**{name: value for name, value in run.items() if name in fields})
    example = jax.ShapeDtypeStruct((1, preset.size), jnp.int32)
    if preset.preprocessing:
        example = jax.ShapeDtypeStruct((1, preset.size, preset.size, 3), jnp.float32)
    return jax.eval_shape(tower.init, jax.random.key(0), example)["params"], models.family(tower)

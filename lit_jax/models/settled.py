"""What options of a tower leave open is filled in: by its preset, by what stands beside its weights, by a store."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from lit_jax import config as options
from lit_jax import models
from lit_jax.data.embedding_store import GIVEN
from lit_jax.errors import UserError
from lit_jax.models import guess, preprocessing
from lit_jax.models.bert import Bert
from lit_jax.models.presets import HALF, Preset, Tower, image_shapes
from lit_jax.nearest import did_you_mean
from lit_jax.text.units import UNITS, kinds_of

OWN_IMAGE, OWN_TEXT = "vit", "transformer"
"""Towers whose sizes stand in the config itself."""

TOWER_OPTIONS = (
    "size", "patch", "width", "depth", "heads", "mlp_dim", "pool", "mean", "std", "interpolation", "resize",
    "crop_fraction",
)  # fmt: skip
"""Options of the image tower that decide its features of a photo, as a store remembers them."""

_SWITCHES = ("causal", "projection_bias")  # of a text tower; false where it has none, and where nobody says


def crop_options(data: options.Data, views: int) -> dict[str, Any]:
    """Options of the data that decide the features of a photo as well, by name, where a store has so many views.

    By how much a photo is halved while it is decoded depends on the crops.
    """
    halved = {"data.shrink_decoding": True, "data.crop": data.crop, "data.crop_scale": data.crop_scale}
    cropped = {"data.crop_scale": data.crop_scale, "data.flip": data.flip}
    return {**(halved if data.shrink_decoding else {}), **(cropped if views > 1 else {})}


def described_image(image: options.Image, names: Collection[str] = TOWER_OPTIONS) -> dict[str, Any]:
    """Options of a settled image tower by dotted name, as stores remember them, those by earlier versions too."""
    shape = {f"image.{name}": getattr(image, name) for name in names}
    found = options.as_ever({"image.tower": image.tower, **shape})
    return {name: found[name] for name in shape}


def settled_image(image: options.Image, known: Mapping[str, Any]) -> options.Image:
    """The options of an image tower with nothing left open. Settling twice changes nothing.

    What is set comes first; what is open is as `known` has it, else as the preset says.

    Args:
        image: as the config gives them.
        known: values of some options, as they stand beside the weights or in a store.

    Raises:
        UserError: an unknown tower, a size that is the preset's to say, preprocessing that is not understood.
    """
    if image.tower == GIVEN:
        width = image.width or known.get("width") or options.OWN_SHAPE["image"]["width"]
        return dataclasses.replace(image, **{**_nothing("image"), "width": width})
    preset = None if image.tower == OWN_IMAGE else _preset("image", image.tower, models.IMAGE_PRESETS)
    image = _with_preprocessing(image, preset, known)
    if preset is None:
        return dataclasses.replace(image, pool=image.pool or "token", **_own("image", image))
    tower = preset.build()
    has_pool = "pool" in tower.__dataclass_fields__
    if image.pool and not has_pool:
        raise UserError(f"image.pool: found {image.pool} with image.tower {image.tower}, expected none; leave it out")
    if has_pool:
        pool = image.pool or known.get("pool") or preset.options.get("pool", "token")
        pools = getattr(preset.tower, "POOLS", ())
        if pools and pool not in pools:
            raise UserError(
                f"image.pool: found {pool} with image.tower {image.tower}, expected {' or '.join(pools)}; leave it out"
            )
        tower = preset.build(pool=pool)
        image = dataclasses.replace(image, pool=tower.pool)
    if image.size != preset.size:  # as published a tower may leave a strip unread: SigLIP's of 14 in 384 pixels does
        check_patch(tower, image.size)
    built = {**_built("image", tower), "width": image_shapes(tower, image.size)[1]}
    _leave_to_preset("image", image, built)
    return dataclasses.replace(image, **built)


def _with_preprocessing(image: options.Image, preset: Preset | None, known: Mapping[str, Any]) -> options.Image:
    like = preset.preprocessing if preset and preset.preprocessing else HALF
    by_preset = {
        "size": preset.size if preset else 224,
        "mean": like.mean,
        "std": like.std,
        "interpolation": like.view.interpolation,
        "resize": like.view.resize,
        "crop_fraction": like.view.crop_fraction,
    }
    found = {name: known.get(name, value) for name, value in by_preset.items() if _is_open("image", image, name)}
    found = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
    image = dataclasses.replace(image, **found)
    if min(image.std) <= 0:
        raise UserError(
            f"image.std: found {image.std}, expected three numbers above 0, or 0,0,0 for what the weights expect"
        )
    return image


def check_names(image: options.Image, text: options.Text) -> None:
    """Raises `UserError`, with the nearest name, for a tower that there is not: weights to fetch may be large."""
    if image.tower not in (OWN_IMAGE, GIVEN):
        _preset("image", image.tower, models.IMAGE_PRESETS)
    if text.tower not in (OWN_TEXT, UNITS):
        _preset("text", text.tower, models.TEXT_PRESETS)


def beside_weights(image: options.Image, documents: Mapping[str, Any]) -> dict[str, Any]:
    """Preprocessing by option as it stands beside the weights of an image tower.

    Args:
        image: as the config gives the options; what they set is not looked up.
        documents: JSON files by name, from `weight_files.documents`.

    Raises:
        UserError: as `preprocessing.read`.
    """
    given = [name for name in dataclasses.asdict(image) if not _is_open("image", image, name)]
    return preprocessing.read(documents, source=image.weights, given=given)


def settled_text(text: options.Text) -> options.Text:
    """The options of a text tower with nothing left open, from its preset.

    Raises:
        UserError: an unknown tower, a size that is the preset's to say, a pool that it does not have.
    """
    preset = None if text.tower in (OWN_TEXT, UNITS) else _preset("text", text.tower, models.TEXT_PRESETS)
    units = _settled_units(text, preset)
    pool = text.pool or _default_pool(preset)
    pools = getattr(preset.tower, "POOLS", ()) if preset else ()
    if pools and pool not in pools:
        raise UserError(
            f"text.pool: found {pool} with text.tower {text.tower}, expected {' or '.join(pools)}; leave it out"
        )
    if preset is not None:
        # Vocabulary and context are the tokenizer's and the config's to say, and the result's width the model's.
        free = {"vocab_size": 1, "context": 1, "end_id": 0, "embed_dim": 1}
        fields = preset.tower.__dataclass_fields__
        tower = preset.tower(**{**{name: free[name] for name in free if name in fields}, **preset.options})
        shape = {**_built("text", tower), **{name: getattr(tower, name, False) for name in _SWITCHES}}
        _leave_to_preset("text", text, shape)
    else:
        shape = _own("text", text) if text.tower == OWN_TEXT else _nothing("text")
    # Where padding is read too, every sentence has the whole context.
    bucket = 0 if pool == "last" or units else text.bucket
    context = text.context or (preset.size if preset else 64)
    return dataclasses.replace(text, pool=pool, context=context, bucket=bucket, units=units, **shape)


def _own(section: str, values: options.Image | options.Text) -> dict[str, Any]:
    """The shape of a tower of one's own: as it is set, else as towers are here."""
    return {name: getattr(values, name) or own for name, own in options.OWN_SHAPE[section].items()}


def _nothing(section: str) -> dict[str, Any]:
    """The shape that is remembered of a tower without any: every option as where it is left open."""
    return {name: options.OPTIONS[f"{section}.{name}"].default for name in options.OWN_SHAPE[section]}


def _built(section: str, tower: Tower) -> dict[str, Any]:
    """The shape of a preset's tower as it is built; of what it has none, or one for each stage, as left open."""
    nothing = _nothing(section)
    found = {name: getattr(tower, name, none) for name, none in nothing.items()}
    return {name: value if isinstance(value, int | float | str) else nothing[name] for name, value in found.items()}


def _settled_units(text: options.Text, preset: Preset | None) -> str:
    kinds = kinds_of(text.units)
    if kinds and text.tower != UNITS and (preset is None or preset.tower is not Bert):
        raise UserError(
            f"text.units: found {text.units} with text.tower {text.tower}, expected none; units are read by the tower "
            "units alone, or beside a tower of BERT's form such as minilm_l6"
        )
    return text.units or ("letters" if text.tower == UNITS else "")


def _default_pool(preset: Preset | None) -> str:
    if preset is None:
        return "end"
    fields = preset.tower.__dataclass_fields__
    return str(preset.options.get("pool", fields["pool"].default))


def _is_open(section: str, values: options.Image | options.Text, name: str) -> bool:
    return bool(getattr(values, name) == options.OPTIONS[f"{section}.{name}"].default)


def _preset(section: str, name: str, presets: Mapping[str, Preset]) -> Preset:
    if name in presets:
        return presets[name]
    others = (OWN_IMAGE, GIVEN) if section == "image" else (OWN_TEXT, UNITS)
    raise UserError(
        f"{section}.tower: found {name}, expected one of the towers in docs/towers.md, or {' or '.join(others)}"
        f"{did_you_mean(name, [*presets, *others])}"
    )


def _leave_to_preset(section: str, values: options.Image | options.Text, shape: Mapping[str, Any]) -> None:
    for name, value in shape.items():
        if not _is_open(section, values, name) and getattr(values, name) != value:
            own = OWN_IMAGE if section == "image" else OWN_TEXT
            found = getattr(values, name)
            raise UserError(
                f"{section}.{name}: found {found} with {section}.tower {values.tower}, expected it left to the preset; "
                f"leave it out, or set {section}.tower to {own} for sizes of your own"
            )


def check_patch(tower: Tower, size: int) -> None:
    """Raises `UserError` for a size that no whole number of a tower's patches covers."""
    patch = getattr(tower, "patch", 1)
    if size % patch:
        raise UserError(f"image.size: found {size}, expected a multiple of image.patch, {patch}")


def preset_notes(image: options.Image, documents: Mapping[str, Any]) -> list[str]:
    """What a person should know of image weights that are not the preset's own.

    Args:
        image: settled.
        documents: JSON files beside the weights by name, from `weight_files.documents`.

    Returns:
        A line for preprocessing that is not the preset's, and one for weights that are called after another preset.

    Raises:
        UserError: what stands beside the weights says that they are of another preset, which computes otherwise.
    """
    preset = models.IMAGE_PRESETS.get(image.tower)
    if preset is None or not image.weights:
        return []
    other = guess.other_tower(image.tower, image.weights, documents)
    notes = []
    if other:
        how = ", ".join(f"{name} {_said(a)}, not {_said(b)}" for name, (a, b) in other.differing.items())
        if other.is_certain:
            raise UserError(
                f"image.tower: found {image.tower} with weights of {other.name} ({image.weights}), which computes "
                f"otherwise ({how}), expected {other.name}; set image.tower to it"
            )
        notes.append(
            f"image.weights {image.weights} are called after {other.name}, which is another tower than {image.tower} "
            f"({how}): if they are its weights, set image.tower to {other.name}, or features will be wrong"
        )
    assert preset.preprocessing is not None, "of every image tower"
    usual = dataclasses.asdict(preset.preprocessing) | dataclasses.asdict(preset.preprocessing.view)
    pixels = ("mean", "std", "interpolation", "resize", "crop_fraction")
    names = [name for name in pixels if getattr(image, name) != usual[name]]
    if names:
        changed = ", ".join(f"{name} {_said(getattr(image, name))}, not {_said(usual[name])}" for name in names)
        notes.append(
            f"preprocessing is not that of {image.tower} as published ({changed}): so says the config, or what stands "
            "beside the weights"
        )
    return notes


def _said(value: Any) -> str:
    return "/".join(f"{x:.4g}" for x in value) if isinstance(value, tuple) else str(value)

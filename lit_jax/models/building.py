"""From options to towers: presets and weights settle what a config leaves open; then modules, then parameters."""

import dataclasses
import difflib
from collections.abc import Collection, Mapping
from typing import Any

import jax
import ml_collections

from lit_jax import config as options
from lit_jax import models
from lit_jax.base.precision import DTYPES
from lit_jax.data.embedding_store import GIVEN, Store
from lit_jax.data.images import INTERPOLATIONS, PLAIN, View
from lit_jax.errors import UserError
from lit_jax.models import guess, locking, preprocessing, weight_files, weights
from lit_jax.models.joint import load_joint
from lit_jax.models.presets import HALF, Preset, Tower, image_shapes
from lit_jax.models.two_tower import Params, TwoTower
from lit_jax.models.weights import LoadReport
from lit_jax.text.tokenizers import Tokenizer

Config = Any  # ml_collections.FrozenConfigDict, checked by lit_jax.config

OWN_IMAGE, OWN_TEXT = "vit", "transformer"
"""Towers whose sizes stand in the config itself."""

# Options of the image tower that decide what it says of a photo, as a store remembers them.
TOWER_OPTIONS = (
    "size", "patch", "width", "depth", "heads", "mlp_dim", "pool", "mean", "std", "interpolation", "resize",
    "crop_fraction",
)  # fmt: skip
_SHAPE = ("patch", "width", "depth", "heads", "mlp_dim")
_TEXT_SHAPE = (
    "width", "depth", "heads", "mlp_dim", "causal", "projection_bias", "activation", "norm_epsilon",
)  # fmt: skip


def settled(config: Config, store: Store | None = None) -> Config:
    """The config with everything filled in that presets, weights or a store say. Settling twice changes nothing.

    What the config sets comes first. What it leaves open is as the store's tower had it; without a store, as it
    stands beside the weights (timm's ``config.json``, ``preprocessor_config.json``, ``open_clip_config.json``); else
    as the preset says.

    Raises:
        UserError: an unknown tower, a size that is the preset's to say, preprocessing that is not understood.
    """
    # Names first: weights on the hub may be large.
    locking.lock_letters(config.train.locks)
    flat = options.flattened(config)
    flat |= _text(flat)
    if config.image.tower != GIVEN:
        preset = _image_preset(config.image.tower)
        flat |= _image(flat, preset, _known(config) if store is None else _known_by(store, config.image.tower))
    return ml_collections.FrozenConfigDict(options.nested(options.check(flat, source="config")))


def _known_by(store: Store, tower: str) -> dict[str, Any]:
    return store.tower.get("options", {}) if store.tower["kind"] == tower else {}


def _known(config: Config) -> dict[str, Any]:
    """What stands beside the weights, by option."""
    source = config.image.weights
    if not source or config.input == "store":
        return {}  # nothing is fetched that will not be used
    given = [name for name in config.image if not _is_open(f"image.{name}", config.image[name])]
    found = preprocessing.read(weight_files.documents(source), source=source, given=given)
    return {f"image.{name}": value for name, value in found.items()}


def _image_preset(name: str) -> Preset | None:
    return None if name == OWN_IMAGE else _preset(name, models.IMAGE_PRESETS, "image.tower", (OWN_IMAGE, GIVEN))


def _image(flat: Mapping[str, Any], preset: Preset | None, known: Mapping[str, Any]) -> dict[str, Any]:
    name = flat["image.tower"]
    like = preset.preprocessing if preset and preset.preprocessing else HALF
    by_preset = {
        "image.size": preset.size if preset else 224,
        "image.mean": like.mean,
        "image.std": like.std,
        "image.interpolation": like.view.interpolation,
        "image.resize": like.view.resize,
        "image.crop_fraction": like.view.crop_fraction,
    }
    found = {option: known.get(option, value) for option, value in by_preset.items() if _is_open(option, flat[option])}
    found = {option: tuple(value) if isinstance(value, list) else value for option, value in found.items()}
    std = found.get("image.std", flat["image.std"])
    if min(std) <= 0:
        raise UserError(f"image.std: found {std}, expected three numbers above 0, or 0,0,0 for what the weights expect")
    if preset is None:
        return {**found, "image.pool": flat["image.pool"] or "token"}
    tower = preset.build()
    size = found.get("image.size", flat["image.size"])
    has_pool = "pool" in tower.__dataclass_fields__
    if flat["image.pool"] and not has_pool:
        raise UserError(f"image.pool: found {flat['image.pool']} with image.tower {name}, expected none; leave it out")
    if has_pool:
        tower = preset.build(pool=flat["image.pool"] or preset.options.get("pool", "token"))
        found["image.pool"] = tower.pool
    _check_patch(tower, size)
    width = image_shapes(tower, size)[1]
    _leave_to_preset(flat, {f"image.{part}": None for part in _SHAPE} | {"image.width": width}, name)
    return {**found, "image.width": width}


def _text(flat: Mapping[str, Any]) -> dict[str, Any]:
    name = flat["text.tower"]
    preset = None if name == OWN_TEXT else _preset(name, models.TEXT_PRESETS, "text.tower", (OWN_TEXT,))
    said: Mapping[str, Any] = preset.options if preset else {}
    pool = flat["text.pool"] or _default_pool(preset)
    pools = getattr(preset.tower, "POOLS", ()) if preset else ()
    if pools and pool not in pools:
        raise UserError(f"text.pool: found {pool} with text.tower {name}, expected {' or '.join(pools)}; leave it out")
    found = {"text.pool": pool, "text.context": flat["text.context"] or (preset.size if preset else 64)}
    if pool == "last":
        found["text.bucket"] = 0  # where padding is read too, every sentence has the whole context
    if preset:
        shape = {f"text.{part}": said[part] for part in _TEXT_SHAPE if part in said}
        _leave_to_preset(flat, shape, name)
        found |= shape
    return found


def _default_pool(preset: Preset | None) -> str:
    if preset is None:
        return "end"
    fields = preset.tower.__dataclass_fields__
    return str(preset.options.get("pool", fields["pool"].default))


def _is_open(option: str, value: Any) -> bool:
    return value == options.OPTIONS[option].default


def _preset(name: str, presets: Mapping[str, Preset], option: str, others: tuple[str, ...]) -> Preset:
    if name in presets:
        return presets[name]
    near = difflib.get_close_matches(name, [*presets, *others], n=1, cutoff=0)
    raise UserError(
        f"{option}: found {name}, expected one of the towers in docs/towers.md, or {' or '.join(others)}; did you "
        f"mean {near[0]}?"
    )


def _leave_to_preset(flat: Mapping[str, Any], shape: Mapping[str, Any], name: str) -> None:
    for option, value in shape.items():
        if not _is_open(option, flat[option]) and flat[option] != value:
            section = option.split(".")[0]
            raise UserError(
                f"{option}: found {flat[option]} with {section}.tower {name}, expected it left to the preset; leave it "
                f"out, or set {section}.tower to {OWN_IMAGE if section == 'image' else OWN_TEXT} for sizes of your own"
            )


def _check_patch(tower: Tower, size: int) -> None:
    patch = getattr(tower, "patch", 1)
    if size % patch:
        raise UserError(f"image.size: found {size}, expected a multiple of image.patch, {patch}")


def view_of(config: Config) -> View:
    """How a photo becomes the square that the image tower reads."""
    image = config.image
    if image.interpolation not in INTERPOLATIONS:
        return PLAIN  # of a config that was not settled, such as one of given embeddings
    return View(image.interpolation, image.resize, image.crop_fraction)


def described_pixels(config: Config) -> str:
    """The preprocessing of a settled config in a line."""
    image = config.image
    how = "squeezed to a square" if image.resize == "square" else "shorter side"
    return (
        f"photos at {image.size} px, {how}, {image.interpolation}, crop {image.crop_fraction:g}, "
        f"mean {'/'.join(f'{x:.3g}' for x in image.mean)}, std {'/'.join(f'{x:.3g}' for x in image.std)}"
    )


def build_model(config: Config, tokenizer: Tokenizer) -> TwoTower:
    """The towers as a settled config describes them.

    Raises:
        UserError: sizes that do not go together.
    """
    image, joint = config.image, config.model
    dtype = DTYPES[config.train.precision]
    if not joint.projection and joint.embed_dim != image.width:
        raise UserError(
            f"model.embed_dim: found {joint.embed_dim} without model.projection, expected image.width, {image.width}"
        )
    text = _text_tower(config, tokenizer, dtype)
    return TwoTower(
        image=_image_tower(config, dtype) if image.tower != GIVEN else None,
        text=text,
        embed_dim=joint.embed_dim,
        projection=joint.projection,
        mean=tuple(image.mean),
        std=tuple(image.std),
        scale_init=joint.scale_init,
        bias_init=joint.bias_init if joint.loss == "sigmoid" else None,
        width=image.width,
        dtype=dtype,
        text_projection="embed_dim" not in text.__dataclass_fields__,
    )


def _image_tower(config: Config, dtype: Any) -> Tower:
    image = config.image
    if image.tower != OWN_IMAGE:
        pool = {"pool": image.pool} if image.pool else {}
        return models.IMAGE_PRESETS[image.tower].build(dtype=dtype, **pool)
    _check_heads("image", image)
    tower = models.ViT(
        patch=image.patch, width=image.width, depth=image.depth, heads=image.heads, mlp_dim=image.mlp_dim,
        pool=image.pool, dtype=dtype,
    )  # fmt: skip
    _check_patch(tower, image.size)
    return tower


def _text_tower(config: Config, tokenizer: Tokenizer, dtype: Any) -> Tower:
    text = config.text
    given = {"vocab_size": tokenizer.vocab_size, "end_id": tokenizer.end_id, "dtype": dtype, "remat": text.remat}
    if text.tower != OWN_TEXT and models.TEXT_PRESETS[text.tower].tower is not models.TextTransformer:
        preset = models.TEXT_PRESETS[text.tower]
        _check_vocabulary(config, tokenizer, preset.options["vocab_size"])
        given["vocab_size"] = preset.options["vocab_size"]
        if "context" in preset.options:  # rows of a table of positions, of which a run may read the first only
            given["context"] = max(text.context, preset.options["context"])
        return preset.build(**given, pool=text.pool)
    _check_heads("text", text)
    return models.TextTransformer(
        **given, context=text.context, width=text.width, depth=text.depth, heads=text.heads,
        embed_dim=config.model.embed_dim, mlp_dim=text.mlp_dim, causal=text.causal, pool=text.pool,
        projection_bias=text.projection_bias, activation=text.activation, norm_epsilon=text.norm_epsilon,
    )  # fmt: skip


def _check_heads(name: str, tower: Any) -> None:
    if tower.width % tower.heads:
        raise UserError(f"{name}.width: found {tower.width} with {tower.heads} heads, expected a multiple")


def _check_vocabulary(config: Config, tokenizer: Tokenizer, rows: int) -> None:
    # Published tables are rounded up, and never by a tenth: fewer tokens are another language to the weights.
    is_other = bool(config.text.weights) and tokenizer.vocab_size < 0.9 * rows
    if tokenizer.vocab_size > rows or is_other:
        raise UserError(
            f"data.tokenizer: found a tokenizer of {tokenizer.vocab_size} tokens, expected one of the {rows} that "
            f"text.tower {config.text.tower} knows; give the one that came with its weights"
        )


def check_weights(config: Config) -> None:
    """Weights are given for the towers whose letter asks for them, and for no other.

    Raises:
        UserError: naming the tower.
    """
    for name, letter in locking.lock_letters(config.train.locks).items():
        path = config[name].weights
        if name == "image" and config.input == "store":
            continue
        what = f"since the {name} tower is {locking.LETTERS[letter]} (train.locks {config.train.locks})"
        if path and letter == "u":
            ways = _other_letters(config.train.locks, name)
            raise UserError(f"{name}.weights: found {path!r}, expected none, {what}; leave it out, or {ways}")
        if not path and letter != "u":
            remedy = "set it to a file, a folder or hf-hub:OWNER/NAME"
            raise UserError(f"{name}.weights: found none, expected pre-trained weights, {what}; {remedy}")


def _other_letters(lock: str, tower: str) -> str:
    """How to say that a tower which starts from scratch has weights."""
    ways = []
    for letter, what in (("U", "to train it further"), ("L", "to lock it")):
        letters = locking.lock_letters(lock) | {tower: letter}
        other = "".join(letters[name] for name in locking.TOWERS)
        ways += [f"{other} {what}"] * (other in locking.LOCKS)
    return f"set train.locks to {' or '.join(ways)}"


def preset_notes(config: Config) -> list[str]:
    """What a person should know of image weights that are not the preset's own; of a settled config.

    Returns:
        A line for preprocessing that is not the preset's, and one for weights that are called after another preset.

    Raises:
        UserError: what stands beside the weights says that they are of another preset, which computes otherwise.
    """
    image = config.image
    preset = models.IMAGE_PRESETS.get(image.tower)
    if preset is None or not image.weights:
        return []
    other = guess.other_tower(image.tower, image.weights, weight_files.documents(image.weights))
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
    names = [name for name in ("mean", "std", "interpolation", "resize", "crop_fraction") if image[name] != usual[name]]
    if names:
        changed = ", ".join(f"{name} {_said(image[name])}, not {_said(usual[name])}" for name in names)
        notes.append(
            f"preprocessing is not that of {image.tower} as published ({changed}): so says the config, or what stands "
            "beside the weights"
        )
    return notes


def _said(value: Any) -> str:
    return "/".join(f"{x:.4g}" for x in value) if isinstance(value, tuple) else str(value)


def initial_params(
    config: Config, model: TwoTower, *, parts: Collection[str] | None = None
) -> tuple[Params, dict[str, LoadReport]]:
    """Parameters before the first step: from scratch or from files, as the lock's letters say.

    With a store there are none of the image tower: it does not run.

    Args:
        config: settled.
        model: the towers.
        parts: those that are wanted, by their names in the tree; None for all.

    Returns:
        Float32 parameters, and what the reader reports of each pre-trained tower, by tower.

    Raises:
        UserError: a letter L or U without a weight file, or u with one.
    """
    check_weights(config)
    letters = locking.lock_letters(config.train.locks)
    shapes = param_shapes(config, model)
    wanted = set(shapes) if parts is None else {*parts}
    pretrained = {name for name in letters if letters[name] in "LU" and name in wanted}
    joint = {name: shapes[name] for name in shapes if name not in letters and name in wanted and config.model.weights}
    fresh = wanted - pretrained - set(joint)
    # Only what is used is initialised: a locked ViT-L is not drawn at random first.
    drawn = jax.jit(
        lambda key: {name: tree for name, tree in fresh_params(config, model, key).items() if name in fresh}
    )
    params = drawn(jax.random.key(config.seed)) if fresh else {}
    reports = {}
    for name in pretrained - ({"image"} if config.input == "store" else set()):
        params[name], reports[name] = load_tower(config, model, name)
    if joint:
        params |= load_joint(config.model.weights, joint)
    return params, reports


def load_tower(config: Config, model: TwoTower, name: str) -> tuple[Params, LoadReport]:
    """The float32 parameters of the image or text tower from its weights, and what the reader reports.

    Raises:
        UserError: weights that are missing or of another tower.
    """
    tower = model.image if name == "image" else model.text
    assert tower is not None, "given embeddings have no tower to load"
    source = config[name].weights
    try:
        return weights.load_tower(source, param_shapes(config, model)[name], models.family(tower))
    except weights.Misfit as error:
        raise UserError(f"{error}{_fitting(source, name)}") from None


def _fitting(source: str, name: str) -> str:
    """Which presets weights fit that do not fit the config's tower, for a message."""
    arrays = weight_files.open_weights(source).arrays
    for kind in dict.fromkeys((name, "image", "text")):
        found = guess.presets_of(arrays, kind)
        if found:
            return f"; they look like those of {kind}.tower {' or '.join(found)}"
    return ""


def stored(config: Config, model: TwoTower, params: Params) -> Params:
    """Parameters that do not move, as they lie on the devices; see `lit_jax.models.stored`."""
    return models.stored(model, params, image_size=config.image.size, context=config.text.context)


def param_shapes(config: Config, model: TwoTower) -> Params:
    """All parameters as shapes; nothing is drawn."""
    return jax.eval_shape(lambda key: fresh_params(config, model, key), jax.random.key(0))


def fresh_params(config: Config, model: TwoTower, key: jax.Array) -> Params:
    """All parameters from scratch, for the sizes of a settled config."""
    return models.init(model, key, image_size=config.image.size, context=config.text.context)

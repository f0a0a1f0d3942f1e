"""From settled options to towers: modules, then parameters, from scratch or from files."""

import dataclasses
import functools
from collections.abc import Callable, Collection
from typing import Any

import jax

from lit_jax import config as options
from lit_jax import models
from lit_jax.base.precision import DTYPES
from lit_jax.data.embedding_store import GIVEN
from lit_jax.data.images import INTERPOLATIONS, PLAIN, Augmentation, Pictures, View
from lit_jax.errors import UserError
from lit_jax.models import guess, weight_files, weights
from lit_jax.models.joint import load_joint
from lit_jax.models.locking import IMAGE, LETTERS, LOCKS, TEXT, TOWERS, Params, lock_letters
from lit_jax.models.presets import Tower
from lit_jax.models.settled import OWN_IMAGE, OWN_TEXT, UNITS, check_patch
from lit_jax.models.two_tower import TwoTower
from lit_jax.models.units import BertUnits, Units
from lit_jax.models.weights import LoadReport
from lit_jax.text.tokenizers import Tokenizer
from lit_jax.text.units import SLOTS, Reading, kinds_of, weights_of


@dataclasses.dataclass(frozen=True)
class Towers:
    """The settled options that a model is built of.

    Attributes:
        image: the image tower.
        text: the text tower.
        joint: what joins them.
        locks: LiT's letters of both, see `lit_jax.models.locking`.
        precision: dtype of the arithmetic.
        from_store: whether features are read from a store, so that the image tower is not loaded.
        seed: of parameters that are drawn.
    """

    image: options.Image
    text: options.Text
    joint: options.Model
    locks: str
    precision: str
    from_store: bool = False
    seed: int = 0

    @property
    def sizes(self) -> dict[str, int]:
        """Side of the pictures, and tokens of a sentence, as `lit_jax.models.init` takes them."""
        return {"image_size": self.image.size, "context": text_length(self.text)}


def text_length(text: options.Text) -> int:
    """T: numbers that a text tower reads of a text, tokens and units."""
    return (text.context if text.tower != UNITS else 0) + (SLOTS if text.units else 0)


def reading(text: options.Text, tokenizer: Tokenizer) -> Reading:
    """How texts become what the text tower of settled options reads."""
    return Reading(tokenizer, text.context if text.tower != UNITS else 0, kinds_of(text.units))


def reads_words(towers: Towers, model: TwoTower, *, from_store: bool) -> bool:
    """Whether a locked text tower runs once a caption, before training, instead of in each step."""
    return from_store and lock_letters(towers.locks)[TEXT] == "L" and model.text_projection


def view_of(image: options.Image) -> View:
    """How a photo becomes the square that the image tower reads."""
    if image.interpolation not in INTERPOLATIONS:
        return PLAIN  # of a config that was not settled, such as one of given embeddings
    return View(image.interpolation, image.resize, image.crop_fraction)


def pictures_of(image: options.Image, data: options.Data | None = None) -> Pictures:
    """What photos are turned into for the image tower; as training varies them, and where, if `data` is given."""
    if data is None:
        return Pictures(image.size, view_of(image))
    augmentation = Augmentation(data.crop, data.crop_scale, data.flip)
    return Pictures(image.size, view_of(image), augmentation, data.resize_on, data.shrink_decoding)


def described_pixels(image: options.Image) -> str:
    """The preprocessing of photos, settled, as one line for a person."""
    how = "squeezed to a square" if image.resize == "square" else "shorter side"
    return (
        f"photos at {image.size} px, {how}, {image.interpolation}, crop {image.crop_fraction:g}, "
        f"mean {'/'.join(f'{x:.3g}' for x in image.mean)}, std {'/'.join(f'{x:.3g}' for x in image.std)}"
    )


def build_model(towers: Towers, tokenizer: Tokenizer) -> TwoTower:
    """The towers as settled options describe them.

    Raises:
        UserError: sizes that do not go together.
    """
    image, joint = towers.image, towers.joint
    dtype = DTYPES[towers.precision]
    if not joint.projection and joint.embed_dim != image.width:
        raise UserError(
            f"model.embed_dim: found {joint.embed_dim} without model.projection, expected image.width, {image.width}"
        )
    text = _text_tower(towers.text, joint.embed_dim, tokenizer, dtype)
    return TwoTower(
        image=_image_tower(image, dtype) if image.tower != GIVEN else None,
        text=text,
        embed_dim=joint.embed_dim,
        projection=joint.projection,
        mean=image.mean,
        std=image.std,
        scale_init=joint.scale_init,
        bias_init=joint.bias_init if joint.loss == "sigmoid" else None,
        width=image.width,
        dtype=dtype,
        text_projection="embed_dim" not in text.__dataclass_fields__,
    )


def _image_tower(image: options.Image, dtype: Any) -> Tower:
    if image.tower != OWN_IMAGE:
        pool = {"pool": image.pool} if image.pool else {}
        return models.IMAGE_PRESETS[image.tower].build(dtype=dtype, **pool)
    _check_heads("image", image.width, image.heads)
    tower = models.ViT(
        patch=image.patch, width=image.width, depth=image.depth, heads=image.heads, mlp_dim=image.mlp_dim,
        pool=image.pool, dtype=dtype,
    )  # fmt: skip
    check_patch(tower, image.size)
    return tower


def _text_tower(text: options.Text, embed_dim: int, tokenizer: Tokenizer, dtype: Any) -> Tower:
    given = {"vocab_size": tokenizer.vocab_size, "end_id": tokenizer.end_id, "dtype": dtype, "remat": text.remat}
    sizes = tuple(len(known) for known in tokenizer.units)
    weights = tuple(weights_of(text.units).values())
    if len(sizes) != len(weights):
        raise UserError(
            f"text.units: found {text.units} without classes to take units from, expected a store or records with "
            "training photos"
        )
    if text.tower == UNITS:
        return Units(sizes, weights, embed_dim, dtype)
    if text.tower != OWN_TEXT and models.TEXT_PRESETS[text.tower].tower is not models.TextTransformer:
        preset = models.TEXT_PRESETS[text.tower]
        if sizes:
            units = {"sizes": sizes, "weights": weights}
            preset = dataclasses.replace(preset, tower=BertUnits, options={**preset.options, **units})
        _check_vocabulary(text, tokenizer, preset.options["vocab_size"])
        given["vocab_size"] = preset.options["vocab_size"]
        if "context" in preset.options:  # rows of a table of positions, of which a run may read the first only
            given["context"] = max(text.context, preset.options["context"])
        return preset.build(**given, pool=text.pool)
    _check_heads("text", text.width, text.heads)
    return models.TextTransformer(
        **given, context=text.context, width=text.width, depth=text.depth, heads=text.heads,
        embed_dim=embed_dim, mlp_dim=text.mlp_dim, causal=text.causal, pool=text.pool,
        projection_bias=text.projection_bias, activation=text.activation, norm_epsilon=text.norm_epsilon,
    )  # fmt: skip


def _check_heads(name: str, width: int, heads: int) -> None:
    if width % heads:
        raise UserError(f"{name}.width: found {width} with {heads} heads, expected a multiple")


def _check_vocabulary(text: options.Text, tokenizer: Tokenizer, rows: int) -> None:
    # Published tables are rounded up, and never by a tenth: fewer tokens are another language to the weights.
    is_other = bool(text.weights) and tokenizer.vocab_size < 0.9 * rows
    if tokenizer.vocab_size > rows or is_other:
        raise UserError(
            f"data.tokenizer: found a tokenizer of {tokenizer.vocab_size} tokens, expected one of the {rows} that "
            f"text.tower {text.tower} knows; give the one that came with its weights"
        )


def check_weights(locks: str, sources: dict[str, str]) -> None:
    """Weights are given for the towers whose letter asks for them, and for no other.

    Args:
        locks: the letters.
        sources: ``image.weights`` and ``text.weights`` by the name of the tower; one that is left out is not looked at.

    Raises:
        UserError: naming the tower.
    """
    letters = lock_letters(locks)
    for name, source in sources.items():
        letter = letters[name]
        what = f"since the {name} tower is {LETTERS[letter]} (train.locks {locks})"
        if source and letter == "u":
            ways = _other_letters(locks, name)
            raise UserError(f"{name}.weights: found {source!r}, expected none, {what}; leave it out, or {ways}")
        if not source and letter != "u":
            remedy = "set it to a file, a folder or hf-hub:OWNER/NAME"
            raise UserError(f"{name}.weights: found none, expected pre-trained weights, {what}; {remedy}")


def _other_letters(lock: str, tower: str) -> str:
    """How to say that a tower which starts from scratch has weights."""
    ways = []
    for letter, what in (("U", "to train it further"), ("L", "to lock it")):
        letters = lock_letters(lock) | {tower: letter}
        other = "".join(letters[name] for name in TOWERS)
        ways += [f"{other} {what}"] * (other in LOCKS)
    return f"set train.locks to {' or '.join(ways)}"


def initial_params(
    towers: Towers, model: TwoTower, *, parts: Collection[str] | None = None
) -> tuple[Params, dict[str, LoadReport]]:
    """Parameters before the first step: from scratch or from files, as the lock's letters say.

    With a store there are none of the image tower: it does not run.

    Args:
        towers: settled; letters and weights are as `check_weights` wants them.
        model: what `build_model` makes of them.
        parts: those that are wanted, by their names in the tree; None for all.

    Returns:
        Float32 parameters, and what the reader reports of each pre-trained tower, by tower.

    Raises:
        UserError: weights that are missing or of another tower.
    """
    letters = lock_letters(towers.locks)
    shapes = param_shapes(towers, model)
    wanted = set(shapes) if parts is None else {*parts}
    pretrained = {name for name in letters if letters[name] in "LU" and name in wanted}
    whole_model = towers.joint.weights
    joint = {name: shapes[name] for name in shapes if name not in letters and name in wanted and whole_model}
    fresh = wanted - pretrained - set(joint)
    # Only what is used is initialised: a locked ViT-L is not drawn at random first.
    params = _init_of(model, frozenset(fresh), **towers.sizes)(jax.random.key(towers.seed)) if fresh else {}
    reports = {}
    for name in pretrained - ({IMAGE} if towers.from_store else set()):
        params[name], reports[name] = load_tower(towers, model, name)
    if joint:
        params |= load_joint(whole_model, joint)
    return params, reports


def load_tower(towers: Towers, model: TwoTower, name: str) -> tuple[Params, LoadReport]:
    """The float32 parameters of the image or text tower from its weights, and what the reader reports.

    Raises:
        UserError: weights that are missing or of another tower.
    """
    tower, source = (model.image, towers.image.weights) if name == IMAGE else (model.text, towers.text.weights)
    assert tower is not None, "given embeddings have no tower to load"
    try:
        return weights.load_tower(source, param_shapes(towers, model)[name], models.family(tower))
    except weights.Misfit as error:
        raise UserError(f"{error}{_fitting(source, name)}") from None


def _fitting(source: str, name: str) -> str:
    """Which presets weights fit that do not fit the config's tower, for a message."""
    arrays = weight_files.open_weights(source).arrays
    for kind in dict.fromkeys((name, *TOWERS)):
        found = guess.presets_of(arrays, kind)
        if found:
            return f"; they look like those of {kind}.tower {' or '.join(found)}"
    return ""


def stored(towers: Towers, model: TwoTower, params: Params) -> Params:
    """Parameters that do not move, as they lie on the devices; see `lit_jax.models.stored`."""
    return models.stored(model, params, **towers.sizes)


def param_shapes(towers: Towers, model: TwoTower) -> Params:
    """All parameters as shapes; nothing is drawn. A run asks several times, and tracing takes a while."""
    return jax.eval_shape(_init_of(model, **towers.sizes), jax.random.key(0))


@functools.lru_cache(maxsize=8)
def _init_of(
    model: TwoTower, parts: frozenset[str] | None = None, *, image_size: int, context: int
) -> Callable[[jax.Array], Params]:
    if parts is None:
        return jax.jit(lambda key: models.init(model, key, image_size=image_size, context=context))
    whole = _init_of(model, image_size=image_size, context=context)
    return jax.jit(lambda key: {name: tree for name, tree in whole(key).items() if name in parts})

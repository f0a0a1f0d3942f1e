"""Two towers and what joins them: the image projection, the logit scale, and unit-norm embeddings.

Parameters are one plain dictionary::

    {"image": tree, "text": tree, "projection": {"kernel": [W, D], "bias": [D]},
     "text_projection": {"kernel": [V, D], "bias": [D]}, "logit_scale": [], "logit_bias": []}

The projections are there only if the model has them, `logit_bias` only for the sigmoid loss. `logit_scale` is the
logarithm of the factor that multiplies cosine similarities (CLIP, arXiv 2103.00020).
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lit_jax.models import storage
from lit_jax.models.locking import IMAGE, LOGIT_BIAS, LOGIT_SCALE, PROJECTION, TEXT, TEXT_PROJECTION, Params


@dataclasses.dataclass(frozen=True)
class TwoTower:
    """The shape of a model; it holds no parameters.

    Attributes:
        image: Flax module, `[B, H, W, 3]` to `[B, W]`; None where features are given and no tower runs.
        text: Flax module, `[B, T]` int32 to `[B, D]`.
        embed_dim: D.
        projection: whether image embeddings pass a trainable linear layer; otherwise W must equal D.
        mean: of the pixels, 0 to 1, one a channel; what the image tower's weights expect.
        std: likewise.
        scale_init: initial factor of the similarities, not its logarithm.
        bias_init: initial bias of the similarities, None for none (softmax loss).
        width: W, where there is no image tower to tell it.
        dtype: computation dtype, to which given features are cast.
        text_projection: whether text embeddings pass a trainable linear layer: those of towers such as BERT, which
            have none of their own, so that it moves although the tower is locked.
    """

    image: nn.Module | None
    text: nn.Module
    embed_dim: int
    projection: bool = True
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    scale_init: float = 1 / 0.07
    bias_init: float | None = None
    width: int = 0
    dtype: Any = jnp.float32
    text_projection: bool = False


def init(model: TwoTower, key: jax.Array, *, image_size: int, context: int) -> Params:
    """Fresh float32 parameters of both towers and of what joins them; none of the image tower if there is none.

    Raises:
        ValueError: if there is no projection and the image tower's width is not `embed_dim`.
    """
    image_key, text_key, projection_key = jax.random.split(key, 3)
    tokens = jnp.zeros((1, context), jnp.int32)
    pixels = jnp.zeros((1, image_size, image_size, 3))
    width, params = model.width, {}
    if model.image is not None:
        features, variables = model.image.init_with_output(image_key, pixels)
        width, params[IMAGE] = features.shape[-1], variables["params"]
    if not model.projection and width != model.embed_dim:
        raise ValueError(
            f"embed_dim: found {model.embed_dim} without image projection, expected the image tower's width {width}"
        )
    text_features, variables = model.text.init_with_output(text_key, tokens)
    params[TEXT] = variables["params"]
    params[LOGIT_SCALE] = jnp.log(jnp.float32(model.scale_init))
    if model.projection:
        params[PROJECTION] = _linear(projection_key, width, model.embed_dim)
    if model.text_projection:
        params[TEXT_PROJECTION] = _linear(
            jax.random.fold_in(projection_key, 1), text_features.shape[-1], model.embed_dim
        )
    if model.bias_init is not None:
        params[LOGIT_BIAS] = jnp.float32(model.bias_init)
    return params


def stored(model: TwoTower, params: Params, *, image_size: int, context: int) -> Params:
    """Parameters that do not move, each in the dtype in which the towers use it; see `lit_jax.models.storage`.

    Args:
        model: the towers; their computation dtype decides.
        params: float32, of either tower or both; what joins them is left as it is.
        image_size: side of the pictures in pixels.
        context: tokens of a sentence.
    """
    examples = {
        IMAGE: (model.image, jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)),
        TEXT: (model.text, jax.ShapeDtypeStruct((1, context), jnp.int32)),
    }
    towers = {
        name: storage.as_used(tower, params[name], x)
        for name, (tower, x) in examples.items()
        if tower is not None and name in params
    }
    return {**params, **towers}


def _linear(key: jax.Array, width: int, embed_dim: int) -> Params:
    return {"kernel": nn.initializers.lecun_normal()(key, (width, embed_dim)), "bias": jnp.zeros(embed_dim)}


def image_features(model: TwoTower, tower_params: Params, images: jax.Array) -> jax.Array:
    """Features of a batch of pictures by the image tower alone.

    Pictures travel to the device as bytes, a quarter of the traffic of floats, and are normalised there.

    Args:
        model: the towers.
        tower_params: parameters of the image tower.
        images: `[B, H, W, 3]` uint8.

    Returns:
        `[B, W]` in the tower's computation dtype, not normalised.

    Raises:
        ValueError: if the model has no image tower.
    """
    if model.image is None:
        raise ValueError("image: found no image tower, expected one; this model reads given features only")
    mean, std = (jnp.array(value).reshape(1, 1, 1, 3) for value in (model.mean, model.std))
    pixels = (images.astype(jnp.float32) / 255 - mean) / std
    features: jax.Array = model.image.apply({"params": tower_params}, pixels)  # type: ignore[assignment]
    return features


def project(model: TwoTower, params: Params, features: jax.Array) -> jax.Array:
    """Image features `[B, W]` of any float type to unit-norm float32 embeddings `[B, D]`."""
    features = features.astype(model.dtype)
    return unit(_projected(params[PROJECTION], features) if model.projection else features)


def embed_text(model: TwoTower, params: Params, tokens: jax.Array) -> jax.Array:
    """Tokens `[B, T]` to unit-norm float32 embeddings `[B, D]`."""
    features: jax.Array = model.text.apply({"params": params[TEXT]}, tokens)  # type: ignore[assignment]
    return project_text(model, params, features) if model.text_projection else unit(features)


def text_features(model: TwoTower, tower_params: Params, tokens: jax.Array) -> jax.Array:
    """What the last layer of the text side reads: tokens `[B, T]` to `[B, F]`; see `last_layer`.

    Raises:
        ValueError: if that layer is within a tower that does not tell it apart.
    """
    if not model.text_projection and not hasattr(model.text, "features"):
        raise ValueError(f"text: found {type(model.text).__name__}, expected a tower whose last layer is apart")
    method = None if model.text_projection else "features"
    features: jax.Array = model.text.apply({"params": tower_params}, tokens, method=method)  # type: ignore[assignment]
    return features


def project_text(model: TwoTower, params: Params, features: jax.Array) -> jax.Array:
    """Features `[B, F]` of texts, by a tower that has no projection, to unit-norm float32 embeddings `[B, D]`."""
    return unit(_projected(params[TEXT_PROJECTION], features.astype(model.dtype)))


def with_last_layer(model: TwoTower, params: Params, layer: Params) -> Params:
    """The parameters with another last layer of the text side, ``{"kernel": [F, D], "bias": [D]}``."""
    if model.text_projection:
        return {**params, TEXT_PROJECTION: layer}
    return {**params, TEXT: {**params[TEXT], "projection": layer}}


def _projected(layer: Params, features: jax.Array) -> jax.Array:
    return features @ layer["kernel"].astype(features.dtype) + layer["bias"].astype(features.dtype)[None]


def unit(x: jax.Array) -> jax.Array:
    """Scales the last axis to norm 1, in float32; a zero vector stays zero, with a zero gradient."""
    x = x.astype(jnp.float32)
    # The floor stands under the root: the norm itself has no derivative at zero.
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), 1e-16))

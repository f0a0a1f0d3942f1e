"""Where training starts: the last layers of both towers at the closed form from words to the mean photos of classes.

Gradient training from a random start forgets what carries over to a species without a photo; from the closed form, and
held near it (``optimizer.pull``), it has to improve on it. See `lit_jax.evaluation.closed_form`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from lit_jax.evaluation import closed_form
from lit_jax.evaluation.closed_form import Choice, Photos
from lit_jax.models.locking import PROJECTION, Params
from lit_jax.models.two_tower import TwoTower, with_last_layer


class Taught(NamedTuple):
    """What the closed form learns from.

    Attributes:
        photos: features of the training photos, and the row of each one's class.
        words: `[K, F]` float64: what the last layer of the text side reads of each class, the mean over its captions.
    """

    photos: Photos
    words: np.ndarray


def choose(taught: Taught, *, seed: int, tell: Callable[[str], None] = lambda _: None) -> Choice:
    """Whitening and penalty, chosen by holding out some of the training classes in turn; `tell` hears of progress.

    Raises:
        UserError: too few classes for that.
    """
    words, _ = _scaled(taught)
    return closed_form.choose(taught.photos, {"captions": words}, seed=seed, tell=tell)[0]


def from_closed_form(model: TwoTower, params: Params, taught: Taught, choice: Choice) -> Params:
    """Parameters with the last layers of both towers at the closed form.

    Args:
        model: the towers, with an image projection and a text tower whose last layer is apart.
        params: of the parts that move.
        taught: what to learn from.
        choice: see `choose`.
    """
    words, size = _scaled(taught)
    found = closed_form.solve(
        taught.photos, words, shrinkage=choice.shrinkage, penalty=choice.penalty, dims=model.embed_dim
    )
    params = with_last_layer(model, params, _layer(found.kernel / size, found.bias))
    return {**params, PROJECTION: _layer(found.images.kernel, -found.images.centre @ found.images.kernel)}


def _scaled(taught: Taught) -> tuple[np.ndarray, float]:
    """Words of a mean square norm of 1, for which penalties are meant, and what they were divided by."""
    size = float(np.sqrt(np.mean(np.sum(taught.words[taught.photos.classes] ** 2, 1))))
    return taught.words / size, size


def _layer(kernel: np.ndarray, bias: np.ndarray) -> Params:
    return {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}

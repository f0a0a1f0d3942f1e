"""Text towers that read units of a text, see `lit_jax.text.units`: alone, or beside a sentence.

They have the simplest form in which names share what they have in common: a text is the sum of one vector a unit. So
the vector of a genus is shared by all its species, and a species without a photo is placed by what others share.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lit_jax.models.bert import Bert
from lit_jax.models.layers import Dense, Dtype
from lit_jax.models.two_tower import unit
from lit_jax.text.units import SLOTS


def sets(numbers: jax.Array, sizes: Sequence[int], weights: Sequence[float]) -> jax.Array:
    """Which units a text has.

    Args:
        numbers: `[B, SLOTS]` int32 as `lit_jax.text.units.encode` gives them.
        sizes: how many units of each kind are known.
        weights: share of each kind in a product of two texts, 1 in all.

    Returns:
        `[B, sum(sizes)]` float32. With an entry for each unknown unit the norm would be 1, if the text has units of
        every kind.
    """
    total = sum(sizes)
    places = jnp.where(numbers < 0, total + len(sizes), numbers)  # the place behind the last is not read

    def counted(row: jax.Array) -> jax.Array:
        return jnp.zeros(total + len(sizes) + 1).at[row].add(1.0, mode="promise_in_bounds")

    there = jax.vmap(counted)(places)
    ends = np.cumsum(sizes).tolist()
    parts = []
    for place, (end, size, weight) in enumerate(zip(ends, sizes, weights, strict=True)):
        known = there[:, end - size : end]
        number = known.sum(-1) + there[:, total + place]
        parts.append(known * jnp.sqrt(weight / jnp.maximum(number, 1))[:, None])
    return jnp.concatenate(parts, -1)


class Units(nn.Module):
    """A text as the sum of its units' vectors.

    Attributes:
        sizes: how many units of each kind are known.
        weights: of each kind, 1 in all.
        embed_dim: D, width of the result.
        dtype: computation dtype.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    embed_dim: int
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        """Names the one layer as other towers name their last."""
        self.projection = Dense(self.embed_dim, dtype=self.dtype)

    def __call__(self, numbers: jax.Array) -> jax.Array:
        """Embeds `[B, SLOTS]` int32 units as `[B, D]`, not normalised."""
        return self.projection(self.features(numbers))

    def features(self, numbers: jax.Array) -> jax.Array:
        """`[B, F]`: what the last layer reads, see `sets`."""
        return sets(numbers, self.sizes, self.weights)


class BertUnits(Bert):
    """A sentence as BERT reads it, and beside it its units: unit vectors of equal weight.

    Attributes:
        sizes: how many units of each kind are known.
        weights: of each kind among the units, 1 in all.
    """

    sizes: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Embeds `[B, T + SLOTS]` int32, tokens and units, as `[B, width + sum(sizes)]`."""
        sentence = super().__call__(tokens[:, :-SLOTS]).astype(jnp.float32)
        both = [unit(sentence) * jnp.sqrt(1 / 2), sets(tokens[:, -SLOTS:], self.sizes, self.weights) * jnp.sqrt(1 / 2)]
        return jnp.concatenate(both, -1).astype(self.dtype)

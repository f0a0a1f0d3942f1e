"""Text towers that read units of a text, see `lit_jax.text.units`: alone, or beside a sentence.

They have the simplest form in which names share what they have in common: a text is the sum of one vector a unit. So
the vector of a genus is shared by all its species, and a species without a photo is placed by what others share.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from lit_jax.models.bert import Bert
from lit_jax.models.layers import Dtype
from lit_jax.models.two_tower import unit
from lit_jax.text.units import BUCKETS, SLOTS


def sets(numbers: jax.Array, kinds: int) -> jax.Array:
    """Which units a text has, each kind as a unit vector and all of equal weight.

    Args:
        numbers: `[B, SLOTS]` int32 as `lit_jax.text.units.encode` gives them.
        kinds: how many kinds of units.

    Returns:
        `[B, kinds * BUCKETS]` float32; its norm is 1 if the text has units of every kind.
    """
    rows = jnp.broadcast_to(jnp.arange(len(numbers))[:, None], numbers.shape)
    # A number behind the last is dropped; one that two units share counts once.
    places = jnp.where(numbers < 0, kinds * BUCKETS, numbers)
    there = jnp.zeros((len(numbers), kinds * BUCKETS)).at[rows, places].max(1.0, mode="drop")
    there = there.reshape(len(numbers), kinds, BUCKETS)
    return (unit(there) / jnp.sqrt(kinds)).reshape(len(numbers), kinds * BUCKETS)


class Units(nn.Module):
    """A text as the sum of its units' vectors.

    Attributes:
        kinds: how many kinds of units.
        embed_dim: D, width of the result.
        dtype: computation dtype.
    """

    kinds: int
    embed_dim: int
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        """Names the one layer as other towers name their last."""
        self.projection = nn.Dense(self.embed_dim, dtype=self.dtype)

    def __call__(self, numbers: jax.Array) -> jax.Array:
        """Embeds `[B, SLOTS]` int32 units as `[B, D]`, not normalised."""
        return self.projection(self.features(numbers))

    def features(self, numbers: jax.Array) -> jax.Array:
        """`[B, F]`: what the last layer reads, see `sets`."""
        return sets(numbers, self.kinds)


class BertUnits(Bert):
    """A sentence as BERT reads it, and beside it its units: unit vectors of equal weight.

    Attributes:
        kinds: how many kinds of units.
    """

    kinds: int = 1

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Embeds `[B, T + SLOTS]` int32, tokens and units, as `[B, width + kinds * BUCKETS]`."""
        sentence = super().__call__(tokens[:, :-SLOTS]).astype(jnp.float32)
        both = [unit(sentence) * jnp.sqrt(1 / 2), sets(tokens[:, -SLOTS:], self.kinds) * jnp.sqrt(1 / 2)]
        return jnp.concatenate(both, -1).astype(self.dtype)

"""The Vision Transformer image tower (arXiv 2010.11929), of any width, depth and patch."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from lit_jax.models.layers import AttentionPool, Dtype, Encoder


class ViT(nn.Module):
    """A picture to one vector.

    Attributes:
        patch: side of a patch, pixels.
        width: D, channels.
        depth: L, blocks.
        heads: attention heads.
        mlp_dim: hidden width of the MLPs; 0 for 4 times the width.
        pool: ``token`` reads the class token, ``gap`` the mean of the patches, ``map`` attention pooling.
        dtype: computation dtype.
    """

    patch: int
    width: int
    depth: int
    heads: int
    mlp_dim: int = 0
    pool: str = "token"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Embeds `[B, H, W, 3]` normalised pixels as `[B, D]`; H and W are multiples of the patch."""
        hidden = self.mlp_dim or 4 * self.width
        strides = (self.patch, self.patch)
        x = nn.Conv(self.width, strides, strides, padding="VALID", dtype=self.dtype, name="embedding")(images)
        x = x.reshape(x.shape[0], -1, self.width)
        if self.pool == "token":
            token = self.param("class_token", nn.initializers.zeros, (1, 1, self.width))
            x = jnp.concatenate([jnp.broadcast_to(token.astype(x.dtype), (x.shape[0], 1, self.width)), x], 1)
        # With a class token its own position comes first, as in the published files.
        shape = (1, x.shape[1], self.width)
        position = self.param("position_embedding", nn.initializers.normal(0.02), shape)
        x = Encoder(self.depth, self.heads, hidden, dtype=self.dtype, name="encoder")(x + position.astype(x.dtype))
        if self.pool == "token":
            return x[:, 0]
        if self.pool == "gap":
            return x.mean(1)
        return AttentionPool(self.heads, hidden, dtype=self.dtype, name="pool")(x)

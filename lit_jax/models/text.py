"""The text tower: a transformer over tokens, in CLIP's form (arXiv 2103.00020), big_vision's or SigLIP's."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lit_jax.models.layers import AttentionPool, Dense, Dtype, Encoder
from lit_jax.models.presets import Preset


class TextTransformer(nn.Module):
    """A tokenised sentence to one vector.

    A sentence ends at its first end token; what follows is padding and has no influence on the result (but see `pool`).

    Attributes:
        vocab_size: V, tokens known.
        context: T, tokens read at the most.
        end_id: id of the end token.
        width: channels.
        depth: L, blocks.
        heads: attention heads.
        embed_dim: D, width of the result.
        mlp_dim: hidden width of the MLPs; 0 for 4 times the width.
        causal: a position sees only what stands before it (CLIP); otherwise the whole sentence.
        pool: ``end`` reads the end token, ``first`` the first one, ``mean`` the mean up to the end token,
            ``map`` attention pooling, ``last`` the last position of all, padding included. With ``last`` padding
            is read like words and nothing is hidden from any position: the form of big_vision and SigLIP.
        projection_bias: whether the last projection has a bias (big_vision: yes, CLIP: no).
        activation: of the MLPs, a name of `layers.ACTIVATIONS`.
        norm_epsilon: of the layer norms.
        dtype: computation dtype.
        remat: whether blocks are computed again as a whole in the backward pass.
    """

    vocab_size: int
    context: int
    end_id: int
    width: int
    depth: int
    heads: int
    embed_dim: int
    mlp_dim: int = 0
    causal: bool = False
    pool: str = "end"
    projection_bias: bool = False
    activation: str = "gelu_tanh"
    norm_epsilon: float = 1e-6
    dtype: Dtype = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Embeds `[B, T]` int32 tokens as `[B, D]`, not normalised; T may be shorter than `context`."""
        hidden = self.mlp_dim or 4 * self.width
        table = nn.Embed(
            self.vocab_size,
            self.width,
            dtype=self.dtype,
            embedding_init=nn.initializers.normal(0.02),
            name="embedding",
        )
        shape = (1, self.context, self.width)
        position = self.param("position_embedding", nn.initializers.normal(0.01), shape)
        x = table(tokens) + position[:, : tokens.shape[1]].astype(self.dtype)
        last = first_end(tokens, self.end_id)
        mask = None if self.pool == "last" else jnp.arange(tokens.shape[1])[None, :] <= last[:, None]
        options = (
            self.depth,
            self.heads,
            hidden,
            self.causal,
            self.activation,
            self.norm_epsilon,
            self.dtype,
            self.remat,
        )
        x = Encoder(*options, name="encoder")(x, mask)
        return Dense(self.embed_dim, use_bias=self.projection_bias, dtype=self.dtype, name="projection")(
            self._pooled(x, mask, last, hidden)
        )

    def _pooled(self, x: jax.Array, mask: jax.Array | None, last: jax.Array, hidden: int) -> jax.Array:
        if self.pool == "first":
            return x[:, 0]
        if mask is None:
            return x[:, -1]
        if self.pool == "end":
            # A masked sum rather than a gather: it has one gradient rule on every kind of mesh axis.
            return jnp.sum(x * (jnp.arange(x.shape[1])[None, :] == last[:, None])[..., None].astype(x.dtype), 1)
        if self.pool == "mean":
            weights = mask[..., None].astype(jnp.float32)
            return (jnp.sum(x * weights, 1) / jnp.sum(weights, 1)).astype(x.dtype)
        return AttentionPool(self.heads, hidden, self.norm_epsilon, self.dtype, self.activation, name="pool")(x, mask)


def first_end(tokens: jax.Array, end_id: int) -> jax.Array:
    """Position of the first end token in each row of `[B, T]`: `[B]` int32; the last position if there is none."""
    found = tokens == end_id
    return jnp.where(found.any(1), jnp.argmax(found, 1), tokens.shape[1] - 1).astype(jnp.int32)


def _text(
    width: int,
    depth: int,
    heads: int,
    context: int,
    weights: str,
    licence: str,
    activation: str = "gelu_tanh",
    **more: Any,
) -> Preset:
    shape = {"width": width, "depth": depth, "heads": heads, "activation": activation}
    return Preset(TextTransformer, {**shape, **more}, context, None, weights, licence)


_CLIP: dict[str, Any] = {"causal": True, "pool": "end", "norm_epsilon": 1e-5}
_BIG_VISION: dict[str, Any] = {"pool": "last", "projection_bias": True}
_NONE = "from scratch"

# Vocabulary and width of the result are those of the tokenizer and of the model.
PRESETS = {
    "clip_text": _text(512, 12, 8, 77, "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "MIT", "gelu", **_CLIP),
    "clip_text_openai": _text(512, 12, 8, 77, "openai/clip-vit-base-patch32", "MIT", "gelu_quick", **_CLIP),
    "clip_text_l": _text(768, 12, 12, 77, "laion/CLIP-ViT-L-14-laion2B-s32B-b82K", "MIT", "gelu", **_CLIP),
    "clip_text_l_openai": _text(768, 12, 12, 77, "openai/clip-vit-large-patch14", "MIT", "gelu_quick", **_CLIP),
    "siglip_text_b": _text(768, 12, 12, 64, "google/siglip-base-patch16-224", "Apache-2.0", **_BIG_VISION),
    "siglip_text_l": _text(1024, 24, 16, 64, "google/siglip-large-patch16-256", "Apache-2.0", **_BIG_VISION),
    "big_vision_ti": _text(192, 12, 3, 16, "LiT-L16Ti.npz", "Apache-2.0", **_BIG_VISION),
    "big_vision_s": _text(384, 12, 6, 16, "LiT-L16S.npz", "Apache-2.0", **_BIG_VISION),
    "big_vision_b": _text(768, 12, 12, 16, _NONE, "", **_BIG_VISION),
    "big_vision_l": _text(1024, 24, 16, 16, _NONE, "", **_BIG_VISION),
}

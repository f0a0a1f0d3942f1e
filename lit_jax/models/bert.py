"""BERT's encoder as a text tower (arXiv 1810.04805), and towers of its form: MiniLM, BGE, those of Google's LiT."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lit_jax.models.layers import Attention, Dtype, Mlp, remade
from lit_jax.models.presets import Preset
from lit_jax.models.text import first_end


class PostNormBlock(nn.Module):
    """One transformer block that normalises the sums, not what goes into the branches."""

    heads: int
    hidden: int
    activation: str
    norm_epsilon: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, None]:
        """Maps `[B, T, D]` to `[B, T, D]`; `mask` is `[B, T]` bool, False where padded."""
        y = Attention(self.heads, self.dtype, name="attention")(x, x, mask=mask)
        x = nn.LayerNorm(self.norm_epsilon, dtype=self.dtype, name="attention_norm")(x + y)
        y = Mlp(self.hidden, self.activation, self.dtype, name="mlp")(x)
        return nn.LayerNorm(self.norm_epsilon, dtype=self.dtype, name="mlp_norm")(x + y), None


class Bert(nn.Module):
    """A tokenised sentence to one vector, without a projection of its own.

    A sentence ends at its first end token, ``[SEP]``; what follows is padding and has no influence.

    Attributes:
        vocab_size: V, tokens known.
        context: rows of the position table, tokens read at the most.
        end_id: id of the end token.
        width: D, channels.
        depth: L, blocks.
        heads: attention heads.
        mlp_dim: hidden width of the MLPs; 0 for 4 times the width.
        pool: ``first`` reads the start token, ``[CLS]``; ``mean`` the mean up to the end token.
        activation: of the MLPs, a name of `layers.ACTIVATIONS`.
        norm_epsilon: of the layer norms.
        dtype: computation dtype.
        remat: whether blocks are computed again as a whole in the backward pass.
        reads_end: whether the end token itself is read. Google's LiT towers never saw one: there it only marks
            where the sentence ends.
    """

    POOLS = ("first", "mean")

    vocab_size: int
    context: int
    end_id: int
    width: int
    depth: int
    heads: int
    mlp_dim: int = 0
    pool: str = "first"
    activation: str = "gelu"
    norm_epsilon: float = 1e-12
    dtype: Dtype = jnp.float32
    remat: bool = False
    reads_end: bool = True

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Embeds `[B, T]` int32 tokens as `[B, D]`; T may be shorter than `context`."""
        last = first_end(tokens, self.end_id) - (not self.reads_end)
        mask = jnp.arange(tokens.shape[1])[None] <= last[:, None]
        x = self._embedded(tokens)
        blocks = nn.scan(
            remade(PostNormBlock, whole=self.remat), variable_axes={"params": 0}, split_rngs={"params": True},
            in_axes=nn.broadcast, length=self.depth,
        )  # fmt: skip
        hidden = self.mlp_dim or 4 * self.width
        x, _ = blocks(self.heads, hidden, self.activation, self.norm_epsilon, self.dtype, name="blocks")(x, mask)
        return x[:, 0] if self.pool == "first" else mean(x, mask)

    def _embedded(self, tokens: jax.Array) -> jax.Array:
        normal = nn.initializers.normal(0.02)
        table = nn.Embed(self.vocab_size, self.width, dtype=self.dtype, embedding_init=normal, name="token")
        # Both rows are kept, as in the files, though one sentence alone is always of the first kind.
        segment = nn.Embed(2, self.width, dtype=self.dtype, embedding_init=normal, name="segment")
        position = self.param("position_embedding", normal, (1, self.context, self.width))
        x = table(tokens) + segment(jnp.zeros_like(tokens)) + position[:, : tokens.shape[1]].astype(self.dtype)
        return nn.LayerNorm(self.norm_epsilon, dtype=self.dtype, name="embedding_norm")(x)


def mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean over the positions of `[B, T, D]` where `mask`, `[B, T]` bool, is True; summed in float32."""
    weights = mask[..., None].astype(jnp.float32)
    return (jnp.sum(x.astype(jnp.float32) * weights, 1) / jnp.maximum(jnp.sum(weights, 1), 1)).astype(x.dtype)


_TOKENS = 64  # captions are short; the tables would take more


def _bert(width: int, depth: int, heads: int, weights: str, licence: str, size: int = _TOKENS, **more: Any) -> Preset:
    shape = {"vocab_size": 30522, "context": 512, "width": width, "depth": depth, "heads": heads}
    form = {"activation": "gelu", "norm_epsilon": 1e-12}
    return Preset(Bert, {**shape, **form, **more}, size, None, weights, licence)


_APACHE, _MIT = "Apache-2.0", "MIT"
# Google's LiT read 16 tokens without an end token; ours stands behind them.
_LIT: dict[str, Any] = {"activation": "gelu_tanh", "reads_end": False, "size": 17}
_MEAN: dict[str, Any] = {"pool": "mean"}

PRESETS = {
    "bert_base": _bert(768, 12, 12, "google-bert/bert-base-uncased", _APACHE),
    "bert_large": _bert(1024, 24, 16, "google-bert/bert-large-uncased", _APACHE),
    "lit_bert_base": _bert(768, 12, 12, "LiT-B16B_2.npz", _APACHE, **_LIT),
    "lit_bert_large": _bert(1024, 24, 16, "LiT-L16L.npz", _APACHE, **_LIT),
    "minilm_l6": _bert(384, 6, 12, "sentence-transformers/all-MiniLM-L6-v2", _APACHE, **_MEAN),
    "minilm_l12": _bert(384, 12, 12, "sentence-transformers/all-MiniLM-L12-v2", _APACHE, **_MEAN),
    "bge_small": _bert(384, 12, 12, "BAAI/bge-small-en-v1.5", _MIT),
}

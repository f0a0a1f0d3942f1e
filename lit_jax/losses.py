"""Contrastive losses of embeddings, nothing else."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Gather = Callable[[jax.Array], jax.Array]


def softmax_contrastive(
    image_emb: jax.Array, text_emb: jax.Array, logit_scale: jax.Array, *, gather: Gather = lambda x: x
) -> jax.Array:
    """Symmetric InfoNCE: the mean cross-entropy of image to text and of text to image over the global batch.

    With ``s = logit_scale * image_emb @ text_emb.T`` the loss of pair i is
    ``(logsumexp(s[i, :]) + logsumexp(s[:, i])) / 2 - s[i, i]``.

    The positives are row-wise products: the diagonal of a matrix that is sharded over devices would be an
    ambiguous gather on a mesh with explicit axes, and a costly one elsewhere.

    Args:
        image_emb: `[B, D]` float32, unit norm; row i belongs to row i of `text_emb`. May be sharded by rows.
        text_emb: `[B, D]` float32, unit norm.
        logit_scale: `[]` float32, > 0: the factor itself, not its logarithm.
        gather: makes a row-sharded array whole on every device; `lit_jax.sharding.gathered` on a mesh.

    Returns:
        `[]` float32, nats; ``log(B)`` for constant embeddings.

    Raises:
        ValueError: if the two shapes differ.

    Example:
        >>> import jax.numpy as jnp
        >>> eye = jnp.eye(4)
        >>> round(float(softmax_contrastive(eye, eye, jnp.float32(100.0))), 6)
        0.0

    Source: CLIP (arXiv 2103.00020), LiT (arXiv 2111.07991).
    """
    _check_shapes(image_emb, text_emb)
    positive = logit_scale * jnp.sum(image_emb * text_emb, -1)
    to_text = jax.nn.logsumexp(logit_scale * image_emb @ gather(text_emb).T, axis=1)
    to_image = jax.nn.logsumexp(logit_scale * text_emb @ gather(image_emb).T, axis=1)
    return jnp.mean((to_text + to_image) / 2 - positive)


def sigmoid_contrastive(
    image_emb: jax.Array,
    text_emb: jax.Array,
    logit_scale: jax.Array,
    logit_bias: jax.Array,
    *,
    gather: Gather = lambda x: x,
) -> jax.Array:
    """Sigmoid loss: every pair of the batch is a question of its own, matching or not.

    With ``l = logit_scale * image_emb @ text_emb.T + logit_bias`` the loss is
    ``(sum(softplus(l)) - trace(l)) / B``, which is the mean over images of ``-sum(log sigmoid(+-l))``.

    Args:
        image_emb: `[B, D]` float32, unit norm. May be sharded by rows.
        text_emb: `[B, D]` float32, unit norm.
        logit_scale: `[]` float32, > 0: the factor itself, not its logarithm.
        logit_bias: `[]` float32.
        gather: as in `softmax_contrastive`.

    Returns:
        `[]` float32, nats.

    Raises:
        ValueError: if the two shapes differ.

    Source: SigLIP (arXiv 2303.15343).
    """
    _check_shapes(image_emb, text_emb)
    positive = logit_scale * jnp.sum(image_emb * text_emb, -1) + logit_bias
    logits = logit_scale * image_emb @ gather(text_emb).T + logit_bias
    return jnp.mean(jnp.sum(jax.nn.softplus(logits), axis=1) - positive)


def _check_shapes(image_emb: jax.Array, text_emb: jax.Array) -> None:
    if image_emb.shape != text_emb.shape or image_emb.ndim != 2:
        raise ValueError(f"embeddings: found {image_emb.shape} and {text_emb.shape}, expected two equal [B, D]")

"""Contrastive losses of embeddings, in blocks of images against distinct texts.

The matrix of logits `[B, U]` never exists: each device walks through its images a block of rows at a time, and the
gradients are computed by hand, block by block as well. Memory grows with block x U.

With ``s[i, u] = logit_scale * image_emb[i] @ text_emb[u]``, ``c = caption`` and ``m[u]`` the number of images of
text u, each loss equals the one over all B x B pairs in which text u is repeated ``m[u]`` times. What
``same_caption`` says of two images i, j with the same text:

- ``plain``: j's text is a negative of image i, as in the papers, although it is the text of i.
- ``masked``: the pair (i, text of j) is left out; image i has its own text and those that differ.
- ``multi``: the pair is a positive as well.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lit_jax.base import sharding

SAME_CAPTION = ("plain", "masked", "multi")

# Entries of a block of logits, 32 MiB in float32, and the least rows at which matrix products are efficient.
BLOCK_ENTRIES = 2**23
LEAST_ROWS = 256


class Walk(NamedTuple):
    """How the logits are gone through.

    Attributes:
        block: rows of images at a time on each device; 0 to choose.
        mesh: the devices over which the rows are split; None for one.
    """

    block: int = 0
    mesh: Mesh | None = None


ONE_DEVICE = Walk()
"""With as many rows at a time as are efficient."""


def softmax_floor(caption: jax.Array, texts: int) -> jax.Array:
    """The least that the ``plain`` softmax loss of a batch can be: the mean over its images of ``log(m[c[i]])``.

    An image cannot be nearer to its own text than to the copies of it that are other images' texts, nor a text nearer
    to its own image than to the others that it describes: of m equals, the right one has a probability of 1/m at best,
    on average. Where each of U texts has as many images that is ``log(B / U)``; otherwise it is more.

    Args:
        caption: `[B]` int32, the row of each image's text.
        texts: U, rows of texts; those that no caption names change nothing.

    Returns:
        `[]` float32, nats; 0 where no caption repeats.
    """
    images = jnp.zeros(texts, jnp.float32).at[caption].add(1.0)
    return jnp.mean(jnp.log(images[caption]))


def softmax_contrastive(
    image_emb: jax.Array,
    text_emb: jax.Array,
    logit_scale: jax.Array,
    *,
    caption: jax.Array | None = None,
    same_caption: str = "plain",
    walk: Walk = ONE_DEVICE,
) -> jax.Array:
    """Symmetric InfoNCE: the mean cross-entropy of image to text and of text to image over the global batch.

    With ``pos[i] = s[i, c[i]]``, ``R[i] = logsumexp_u(s[i, u] + log m[u])`` and ``C[u] = logsumexp_i(s[i, u])``
    the loss of image i is

    - ``plain``: ``(R[i] + C[c[i]]) / 2 - pos[i]``;
    - ``masked``: the same, where R and C run over pairs of different captions and the own pair;
    - ``multi``: ``(R[i] - log(m[c[i]]) - pos[i] + C[c[i]] - P[c[i]]) / 2`` with P the logsumexp of ``pos`` over the
      images of one text: minus the log of the probability of all positives together (MIL-NCE, SupCon's L_in). The
      other form, the mean over positives of minus the log of each (UniCL, SupCon's L_out), needs no mode: for
      identical captions it is ``plain``.

    Args:
        image_emb: `[B, D]` float32, float16 or bfloat16, unit norm. Rows split over the devices of the walk.
        text_emb: `[U, D]` as `image_emb`, the distinct texts. Rows that no caption names are padding: they
            change nothing and their gradient is zero.
        logit_scale: `[]` float32, > 0: the factor itself, not its logarithm.
        caption: `[B]` int32, the row of each image's text, split as `image_emb`; None for ``arange(B)``.
        same_caption: one of `SAME_CAPTION`.
        walk: how to go through the logits; its devices must divide B and U.

    Returns:
        `[]` float32, nats; ``log(B)`` for constant embeddings in ``plain``.

    Raises:
        ValueError: if the shapes do not fit, or `same_caption` is none of the three.

    Example:
        >>> import jax.numpy as jnp
        >>> eye = jnp.eye(4)
        >>> round(float(softmax_contrastive(eye, eye, jnp.float32(100.0))), 6)
        0.0

    Source: CLIP (arXiv 2103.00020), LiT (arXiv 2111.07991); repeated captions: SupCon (arXiv 2004.11362),
    MIL-NCE (arXiv 1912.06430), UniCL (arXiv 2204.03610).
    """
    mesh, block = walk.mesh, walk.block or _rows_at_a_time(len(text_emb))
    caption = _checked_caption(image_emb, text_emb, caption, same_caption, mesh)
    count = _count(caption, len(text_emb), mesh)
    settings = (block, jnp.promote_types(image_emb.dtype, text_emb.dtype), mesh)
    image, text, scale = _in_float32(image_emb, text_emb, logit_scale)
    row, column = _row_and_column(settings, image, text, scale, jnp.log(count), caption)
    mean = sharding.per_device(
        partial(_softmax_mean, same_caption, mesh),
        mesh,
        inputs=(True, True, False, False, True),
        outputs=False,
    )
    return mean(_positives(image, text, scale, caption, mesh), row, column, count, caption)


def sigmoid_contrastive(
    image_emb: jax.Array,
    text_emb: jax.Array,
    logit_scale: jax.Array,
    logit_bias: jax.Array,
    *,
    caption: jax.Array | None = None,
    same_caption: str = "plain",
    walk: Walk = ONE_DEVICE,
) -> jax.Array:
    """Sigmoid loss: every pair of the batch is a question of its own, matching or not.

    With ``l = s + logit_bias`` and ``pos[i] = l[i, c[i]]`` the loss is, over B,

    - ``plain``: ``sum_iu(m[u] * softplus(l[i, u])) - sum_i(pos[i])``: only image i's own pair matches;
    - ``masked``: the same without the other pairs of one caption;
    - ``multi``: ``sum_iu(m[u] * softplus(l[i, u])) - sum_i(m[c[i]] * pos[i])``: all pairs of one caption match.

    Args:
        image_emb: `[B, D]`, as in `softmax_contrastive`.
        text_emb: `[U, D]`, as there.
        logit_scale: `[]` float32, > 0: the factor itself, not its logarithm.
        logit_bias: `[]` float32.
        caption: `[B]` int32, as there.
        same_caption: one of `SAME_CAPTION`.
        walk: as there.

    Returns:
        `[]` float32, nats.

    Raises:
        ValueError: if the shapes do not fit, or `same_caption` is none of the three.

    Source: SigLIP (arXiv 2303.15343).
    """
    mesh, block = walk.mesh, walk.block or _rows_at_a_time(len(text_emb))
    caption = _checked_caption(image_emb, text_emb, caption, same_caption, mesh)
    count = _count(caption, len(text_emb), mesh)
    settings = (block, jnp.promote_types(image_emb.dtype, text_emb.dtype), mesh)
    image, text, scale, bias = _in_float32(image_emb, text_emb, logit_scale, logit_bias)
    other_texts = _softplus_total(settings, image, text, scale, bias, count, caption)
    same_text = sharding.per_device(
        partial(_same_text_sigmoid, same_caption, mesh),
        mesh,
        inputs=(True, False, True),
        outputs=False,
    )
    own = _positives(image, text, scale, caption, mesh) + bias
    return (other_texts + same_text(own, count, caption)) / len(image_emb)


def _checked_caption(
    image_emb: jax.Array, text_emb: jax.Array, caption: jax.Array | None, same_caption: str, mesh: Mesh | None
) -> jax.Array:
    """The caption of each image, after the arguments are found to fit."""
    if same_caption not in SAME_CAPTION:
        raise ValueError(f"same_caption: found {same_caption!r}, expected one of {SAME_CAPTION}")
    shapes = image_emb.shape, text_emb.shape
    if image_emb.ndim != 2 or text_emb.ndim != 2 or image_emb.shape[1] != text_emb.shape[1]:
        raise ValueError(f"embeddings: found {shapes[0]} and {shapes[1]}, expected [B, D] and [U, D]")
    if caption is None:
        if shapes[0] != shapes[1]:
            raise ValueError(f"embeddings: found {shapes[0]} and {shapes[1]} without caption, expected equal [B, D]")
        return sharding.row_numbers(len(image_emb), mesh)
    if caption.shape != shapes[0][:1]:
        raise ValueError(f"caption: found {caption.shape} for images of {shapes[0]}, expected ({shapes[0][0]},)")
    return caption


def _rows_at_a_time(texts: int) -> int:
    return max(BLOCK_ENTRIES // texts, LEAST_ROWS)


def _in_float32(*arrays: jax.Array) -> list[jax.Array]:
    """From here on, so that the parts of a gradient add up before they are rounded to the type of the input."""
    return [jnp.asarray(x, jnp.float32) for x in arrays]


def _count(caption: jax.Array, texts: int, mesh: Mesh | None) -> jax.Array:
    """Images of each text: `[U]` float32, whole on every device; 0 for padding."""

    def local(caption: jax.Array) -> jax.Array:
        return sharding.total(jnp.zeros(texts, jnp.float32).at[caption].add(1.0), mesh)

    return sharding.per_device(local, mesh, inputs=(True,), outputs=False)(caption)


def _over_blocks(step: Callable[..., Any], carry: Any, rows: tuple[jax.Array, ...], block: int) -> tuple[Any, Any]:
    """`lax.scan` over blocks of rows; the last block may be smaller.

    Args:
        step: of (carry, rows of a block) to (carry, results with as many rows).
        carry: where it starts.
        rows: arrays `[N, ...]`.
        block: rows at a time.

    Returns:
        The last carry, and the results of all rows, `[N, ...]`.
    """
    number = rows[0].shape[0]
    full = number // block * block
    parts = []
    if full:
        stacked = [x[:full].reshape(-1, block, *x.shape[1:]) for x in rows]
        carry, out = jax.lax.scan(step, carry, tuple(stacked))
        parts.append(jax.tree.map(lambda x: x.reshape(full, *x.shape[2:]), out))
    if full < number:
        carry, out = step(carry, tuple(x[full:] for x in rows))
        parts.append(out)
    return carry, parts[0] if len(parts) == 1 else jax.tree.map(lambda *x: jnp.concatenate(x), *parts)


def _logits(image: jax.Array, text: jax.Array, scale: jax.Array, caption: jax.Array, low: Any) -> jax.Array:
    """``scale * image @ text.T`` `[N, U]` float32, products of type `low`; -inf at each image's own text.

    What an image has with its own text is added later, once an image: so all three ways to treat repeated captions
    share one walk, and a loss near zero is a sum of small numbers instead of a difference of large ones.
    """
    product = jax.lax.dot_general(
        image.astype(low), text, (((1,), (1,)), ((), ())), precision=_precision(low), preferred_element_type=jnp.float32
    )
    return jnp.where(caption[:, None] == jnp.arange(len(text))[None], -jnp.inf, scale * product)


def _precision(low: Any) -> jax.lax.Precision:
    """Of products of type `low`: float32 is float32 here, which GPUs since Ampere would otherwise round to TF32."""
    return jax.lax.Precision.HIGHEST if jnp.dtype(low) == jnp.float32 else jax.lax.Precision.DEFAULT


def _product(a: jax.Array, b: jax.Array, low: Any) -> jax.Array:
    """``a @ b`` of float32 matrices, for the gradient of logits of type `low`."""
    return jnp.matmul(a, b, precision=_precision(low))


def _finite(x: jax.Array) -> jax.Array:
    """0 for the -inf of an empty logsumexp: -inf minus it stays -inf, where -inf minus -inf were NaN."""
    return jnp.where(x == -jnp.inf, 0.0, x)


# The logsumexps over the other texts and images, and their gradient -------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _row_and_column(
    settings: tuple, image: jax.Array, text: jax.Array, scale: jax.Array, log_count: jax.Array, caption: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The two logsumexps of the matrix of logits without each image's own text.

    Args:
        settings: (rows at a time, type of the products, mesh).
        image: `[B, D]` float32.
        text: `[U, D]` float32.
        scale: `[]`.
        log_count: `[U]`, added to the logits of a row; -inf for padding.
        caption: `[B]` int32.

    Returns:
        R `[B]` over texts and C `[U]` over images, float32; -inf where there is nothing to sum.
    """
    block, low, mesh = settings

    def local(image: jax.Array, text: jax.Array, scale: jax.Array, log_count: jax.Array, caption: jax.Array) -> Any:
        text = sharding.all_rows(text.astype(low), mesh)

        def step(carry: tuple[jax.Array, jax.Array], rows: tuple[jax.Array, jax.Array]) -> Any:
            top, mass = carry
            logits = _logits(rows[0], text, scale, rows[1], low)
            higher = jnp.maximum(top, jnp.max(logits, 0))
            mass = mass * jnp.exp(top - _finite(higher)) + jnp.sum(jnp.exp(logits - _finite(higher)[None]), 0)
            return (higher, mass), jax.nn.logsumexp(logits + log_count[None], axis=1)

        start = jnp.full_like(log_count, -jnp.inf), jnp.zeros_like(log_count)
        (top, mass), row = _over_blocks(step, start, (image, caption), block)
        highest = _finite(sharding.largest(top, mesh))
        return row, highest + jnp.log(sharding.total(mass * jnp.exp(top - highest), mesh))

    inputs = (True, True, False, False, True)
    run = sharding.per_device(local, mesh, inputs=inputs, outputs=(True, False))
    return run(image, text, scale, log_count, caption)


def _row_and_column_fwd(settings: tuple, *arrays: jax.Array) -> tuple[Any, Any]:
    row, column = _row_and_column(settings, *arrays)
    return (row, column), (*arrays, row, column)


def _row_and_column_bwd(settings: tuple, saved: tuple, by: tuple[jax.Array, jax.Array]) -> tuple:
    """Each entry's derivative is ``by_R exp(s + log m - R) + by_C exp(s - C)``: the two softmaxes, block by block."""
    block, low, mesh = settings

    def local(
        image: jax.Array, text: jax.Array, scale: jax.Array, log_count: jax.Array, caption: jax.Array, *ends: jax.Array
    ) -> Any:
        row, column, by_row, by_column = ends
        text = sharding.all_rows(text.astype(low), mesh)
        wide = text.astype(jnp.float32)
        column = _finite(column)

        def step(by_text: jax.Array, rows: tuple[jax.Array, ...]) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            image, caption, row, by_row = rows
            logits = _logits(image, text, scale, caption, low)
            by = by_row[:, None] * jnp.exp(logits + log_count[None] - _finite(row)[:, None])
            by = by + by_column[None] * jnp.exp(logits - column[None])
            by_image = _product(by, wide, low)
            return by_text + _product(by.T, image, low), (scale * by_image, jnp.sum(image * by_image, 1))

        rows = (image, caption, row, by_row)
        by_text, (by_image, by_scale) = _over_blocks(step, jnp.zeros_like(wide), rows, block)
        return by_image, sharding.own_rows_of_total(scale * by_text, mesh), sharding.total(jnp.sum(by_scale), mesh)

    inputs = (True, True, False, False, True, True, False, True, False)
    run = sharding.per_device(local, mesh, inputs=inputs, outputs=(True, True, False))
    return (*run(*saved, *by), None, None)


_row_and_column.defvjp(_row_and_column_fwd, _row_and_column_bwd)


def _positives(image: jax.Array, text: jax.Array, scale: jax.Array, caption: jax.Array, mesh: Mesh | None) -> jax.Array:
    """The logit of each image with its own text: `[B]`."""

    def local(image: jax.Array, text: jax.Array, scale: jax.Array, caption: jax.Array) -> jax.Array:
        return scale * jnp.sum(image * sharding.all_rows(text, mesh)[caption], -1)

    return sharding.per_device(local, mesh, inputs=(True, True, False, True), outputs=True)(image, text, scale, caption)


def _softmax_mean(
    same_caption: str,
    mesh: Mesh | None,
    positive: jax.Array,
    row: jax.Array,
    column: jax.Array,
    count: jax.Array,
    caption: jax.Array,
) -> jax.Array:
    """The loss from the two logsumexps; costs B, and JAX differentiates it."""
    # All relative to the own pair: the others, and those of the same text, itself among them.
    row, column = row - positive, column[caption] - positive
    same_row = jnp.log(count)[caption]
    same_column = _same_text_logsumexp(positive, caption, len(count), mesh) - positive
    if same_caption == "plain":
        both = jnp.logaddexp(row, same_row) + jnp.logaddexp(column, same_column)
    elif same_caption == "masked":
        both = jax.nn.softplus(row) + jax.nn.softplus(column)
    else:
        both = jax.nn.softplus(row - same_row) + jax.nn.softplus(column - same_column)
    return sharding.total(jnp.sum(both), mesh) / (2 * jnp.sum(count))


def _same_text_logsumexp(positive: jax.Array, caption: jax.Array, texts: int, mesh: Mesh | None) -> jax.Array:
    """For each image of this device the logsumexp of `positive` over all images of its text: `[B / devices]`."""
    highest = jnp.full(texts, -jnp.inf).at[caption].max(jax.lax.stop_gradient(positive))
    highest = sharding.largest(highest, mesh)
    mass = jnp.zeros(texts).at[caption].add(jnp.exp(positive - highest[caption]))
    return highest[caption] + jnp.log(sharding.total(mass, mesh)[caption])


# The sum of softplus over the other texts, and its gradient ---------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _softplus_total(settings: tuple, *arrays: jax.Array) -> jax.Array:
    """``sum_iu(m[u] * softplus(s[i, u] + bias))`` without each image's own text.

    Args:
        settings: as in `_row_and_column`.
        *arrays: image `[B, D]`, text `[U, D]`, scale `[]`, bias `[]`, count `[U]`, all float32; caption `[B]`.

    Returns:
        `[]` float32.
    """
    block, low, mesh = settings

    def local(image: jax.Array, text: jax.Array, *rest: jax.Array) -> jax.Array:
        scale, bias, count, caption = rest
        text = sharding.all_rows(text.astype(low), mesh)

        def step(carry: None, rows: tuple[jax.Array, jax.Array]) -> tuple[None, jax.Array]:
            logits = _logits(rows[0], text, scale, rows[1], low) + bias
            return carry, jnp.sum(count[None] * _softplus_and_slope(logits)[0], 1)

        return sharding.total(jnp.sum(_over_blocks(step, None, (image, caption), block)[1]), mesh)

    inputs = (True, True, False, False, False, True)
    return sharding.per_device(local, mesh, inputs=inputs, outputs=False)(*arrays)


def _softplus_total_fwd(settings: tuple, *arrays: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """The value and all gradients in one walk: the derivative of an entry, ``m * sigmoid(l)``, needs no other."""
    block, low, mesh = settings

    def local(image: jax.Array, text: jax.Array, *rest: jax.Array) -> Any:
        scale, bias, count, caption = rest
        text = sharding.all_rows(text.astype(low), mesh)
        wide = text.astype(jnp.float32)

        def step(by_text: jax.Array, rows: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, tuple[jax.Array, ...]]:
            image, caption = rows
            logits = _logits(image, text, scale, caption, low) + bias
            value, slope = _softplus_and_slope(logits)
            by = count[None] * slope
            by_image = _product(by, wide, low)
            sums = jnp.sum(count[None] * value, 1), jnp.sum(image * by_image, 1), jnp.sum(by, 1)
            return by_text + _product(by.T, image, low), (scale * by_image, *sums)

        by_text, (by_image, *sums) = _over_blocks(step, jnp.zeros_like(wide), (image, caption), block)
        value, by_scale, by_bias = (sharding.total(jnp.sum(x), mesh) for x in sums)
        return value, (by_image, sharding.own_rows_of_total(scale * by_text, mesh), by_scale, by_bias)

    inputs = (True, True, False, False, False, True)
    outputs = (False, (True, True, False, False))
    return sharding.per_device(local, mesh, inputs=inputs, outputs=outputs)(*arrays)


def _softplus_total_bwd(settings: tuple, saved: tuple[jax.Array, ...], by: jax.Array) -> tuple:
    return (*(by * x for x in saved), None, None)


_softplus_total.defvjp(_softplus_total_fwd, _softplus_total_bwd)


def _softplus_and_slope(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``log(1 + exp(x))`` and its derivative from one exponential; 0 and 0 for -inf."""
    small = jnp.exp(-jnp.abs(x))
    return jnp.maximum(x, 0) + jnp.log1p(small), jnp.where(x > 0, 1.0, small) / (1 + small)


def _same_text_sigmoid(
    same_caption: str, mesh: Mesh | None, positive: jax.Array, count: jax.Array, caption: jax.Array
) -> jax.Array:
    """What the pairs of one caption add to the sum of softplus; costs B, and JAX differentiates it."""
    matching, others = jax.nn.softplus(-positive), (count[caption] - 1)
    if same_caption == "plain":
        pairs = matching + others * jax.nn.softplus(positive)
    elif same_caption == "masked":
        pairs = matching
    else:
        pairs = matching + others * matching
    return sharding.total(jnp.sum(pairs), mesh)

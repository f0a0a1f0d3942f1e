"""The warm-up-cosine schedule, which parameters have weight decay, and AdamW as an optax chain."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import optax

from lit_jax import config as options
from lit_jax.errors import UserError
from lit_jax.models.locking import LOGIT_BIAS, LOGIT_SCALE, Params, lock_letters
from lit_jax.training.length import Length


def warmup_cosine(*, peak: float, warmup_steps: int, horizon_steps: int) -> optax.Schedule:
    """Linear from 0 to the peak, then half a cosine to 0 at the horizon.

    Step t, from 0, has ``peak * (t + 1) / warmup`` while t < warmup, as in open_clip, so that the first step
    moves; then ``peak / 2 * (1 + cos(pi * (t - warmup) / (horizon - warmup)))``; 0 from the horizon on.

    Args:
        peak: the highest learning rate.
        warmup_steps: optimizer steps of the linear part; may be 0.
        horizon_steps: step at which the rate is 0; must be greater than `warmup_steps`.

    Returns:
        A function of the step.

    Raises:
        UserError: if the warm-up does not end before the horizon.
    """
    if not 0 <= warmup_steps < horizon_steps:
        raise UserError(
            f"optimizer.warmup_steps or warmup_epochs: found {warmup_steps} steps, expected less than the "
            f"{horizon_steps} of the whole schedule; shorten it or train longer"
        )

    def rate(step: Any) -> jax.Array:
        warm = peak * (step + 1) / max(warmup_steps, 1)
        along = (step - warmup_steps) / (horizon_steps - warmup_steps)
        # cos(x / 2) ** 2 is (1 + cos(x)) / 2 without its cancellation near the end.
        cosine = peak * jax.numpy.cos(jax.numpy.pi / 2 * jax.numpy.clip(along, 0, 1)) ** 2
        return jax.numpy.where(step < warmup_steps, warm, cosine)

    return rate


def decayed(params: Params) -> Any:
    """True at each parameter with weight decay: matrices and embeddings, not biases, norms or the logit scale."""

    def is_decayed(path: tuple[Any, ...], _: Any) -> bool:
        return path[-1].key in ("kernel", "embedding", "position_embedding", "probe")

    return jax.tree_util.tree_map_with_path(is_decayed, params)


def schedule_of(chosen: options.Optimizer, length: Length) -> optax.Schedule:
    """The learning rate by optimizer step, as the options describe it.

    Raises:
        UserError: a warm-up given both in steps and in epochs, or longer than the schedule.
    """
    per_epoch = length.steps_per_epoch / chosen.accumulate
    if chosen.warmup_steps and chosen.warmup_epochs:
        raise UserError("optimizer.warmup_steps: found warmup_epochs as well, expected one of the two; set one to 0")
    warmup = (chosen.warmup_steps or round(chosen.warmup_epochs * per_epoch)) if length.steps else 0
    horizon = max(length.steps // chosen.accumulate, 1)  # of a run without steps too
    if chosen.horizon_epochs:
        horizon = max(math.ceil(chosen.horizon_epochs * per_epoch), 1)
    return warmup_cosine(peak=chosen.lr, warmup_steps=warmup, horizon_steps=horizon)


def adamw(chosen: options.Optimizer, schedule: optax.Schedule, locks: str) -> optax.GradientTransformation:
    """AdamW with the masks of `decayed`; the decay is multiplied by the learning rate, as in torch.

    Args:
        chosen: the options. Gradients of `accumulate` batches are averaged into one step, but each batch is contrasted
            only with itself.
        schedule: learning rate of each optimizer step.
        locks: the model's letters; towers with a U learn `pretrained_scale` times as fast.

    Returns:
        An optax optimizer.
    """
    chain = optax.adamw(schedule, chosen.b1, chosen.b2, chosen.eps, weight_decay=chosen.weight_decay, mask=decayed)
    unlocked = [tower for tower, letter in lock_letters(locks).items() if letter == "U"]
    if unlocked and chosen.pretrained_scale != 1:
        chain = optax.chain(chain, _scaled(dict.fromkeys(unlocked, chosen.pretrained_scale)))
    if chosen.pull:
        chain = optax.chain(_pulled(chosen.pull), chain)
    if chosen.clip_norm:
        chain = optax.chain(optax.clip_by_global_norm(chosen.clip_norm), chain)
    if chosen.accumulate > 1:
        return optax.MultiSteps(chain, chosen.accumulate).gradient_transformation()
    return chain


def _pulled(weight: float) -> optax.GradientTransformation:
    """Adds the gradient of `weight` times the squared distance to the start; logit scale and bias are free.

    Source: L2-SP, Li et al. 2018, "Explicit Inductive Bias for Transfer Learning" (arXiv 1802.01483). The start is part
    of the optimizer's state, so that a run that resumes is held to the same one.
    """

    def update(gradient: Any, start: Any, params: Any) -> tuple[Any, Any]:
        def pulled(path: tuple[Any, ...], g: jax.Array, p: jax.Array, s: jax.Array) -> jax.Array:
            return g if path[0].key in (LOGIT_SCALE, LOGIT_BIAS) else g + 2 * weight * (p - s)

        return jax.tree_util.tree_map_with_path(pulled, gradient, params, start), start

    return optax.GradientTransformation(lambda params: jax.tree.map(jax.numpy.array, params), update)


def _scaled(scales: Mapping[str, float]) -> optax.GradientTransformation:
    def scaled(path: tuple[Any, ...], update: jax.Array) -> jax.Array:
        return update * scales.get(path[0].key, 1.0)

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scaled, updates))

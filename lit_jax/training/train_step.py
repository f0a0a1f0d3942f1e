"""The state of a run, one locked training step, and the loop as a generator."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from lit_jax import models
from lit_jax.base.precision import LossScale, all_finite, next_loss_scale
from lit_jax.models.locking import IMAGE, LOGIT_BIAS, LOGIT_SCALE, Params
from lit_jax.models.two_tower import TwoTower
from lit_jax.training import losses

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


class State(NamedTuple):
    """All that training changes.

    Attributes:
        step: `[]` int32, batches consumed.
        updates: `[]` int32, batches whose gradient was finite and counted.
        params: the moving parameters, float32.
        optimizer: the optimizer's state for them.
        loss_scale: of float16; constant otherwise.
    """

    step: jax.Array
    updates: jax.Array
    params: Params
    optimizer: Any
    loss_scale: LossScale


def initial_state(moving: Params, optimizer: optax.GradientTransformation, loss_scale: LossScale) -> State:
    """The state before the first step; arrays are copied, so that donating the state spares the arguments."""
    return State(
        jnp.int32(0),
        jnp.int32(0),
        jax.tree.map(jnp.copy, moving),
        optimizer.init(moving),
        jax.tree.map(jnp.copy, loss_scale),
    )


def pair_loss(
    model: TwoTower,
    moving: Params,
    locked: Params,
    batch: Batch,
    *,
    same_caption: str = "plain",
    block: int = 0,
    mesh: Mesh | None = None,
) -> jax.Array:
    """The contrastive loss of one global batch.

    Args:
        model: the towers.
        moving: parameters that get gradients.
        locked: parameters that get none: they are under `stop_gradient`.
        batch: ``image`` `[B, H, W, 3]` uint8, or ``features`` `[B, W]`, the locked tower's features of the photos;
            ``tokens`` `[U, T]` int32, or ``words`` `[U, F]` float32, what a locked text tower makes of them; and,
            unless U is B and pair i has row i, ``caption`` `[B]` int32, the row of
            each pair.
        same_caption: what becomes of other pairs with the same caption, see `lit_jax.training.losses`.
        block: photos at a time in the loss; 0 to choose.
        mesh: over whose devices the batch is split; None for one device.

    Returns:
        `[]` float32: InfoNCE, or the sigmoid loss if the model has a bias.
    """
    params = {**moving, **jax.lax.stop_gradient(locked)}
    features = batch["features"] if "features" in batch else _tower(model, params, locked, batch["image"])
    image_emb = models.project(model, params, features)
    if "words" in batch:
        text_emb = models.project_text(model, params, batch["words"])
    else:
        text_emb = models.embed_text(model, params, batch["tokens"])
    scale = jnp.exp(params[LOGIT_SCALE])
    options: dict[str, Any] = {
        "caption": batch.get("caption"),
        "same_caption": same_caption,
        "walk": losses.Walk(block, mesh),
    }
    if LOGIT_BIAS in params:
        return losses.sigmoid_contrastive(image_emb, text_emb, scale, params[LOGIT_BIAS], **options)
    return losses.softmax_contrastive(image_emb, text_emb, scale, **options)


def _tower(model: TwoTower, params: Params, locked: Params, images: jax.Array) -> jax.Array:
    features = models.image_features(model, params[IMAGE], images)
    # Nothing behind a locked tower moves; XLA drops its whole backward pass.
    return jax.lax.stop_gradient(features) if IMAGE in locked else features


def make_step(
    model: TwoTower,
    optimizer: optax.GradientTransformation,
    *,
    max_scale: float,
    dynamic_scale: bool,
    same_caption: str = "plain",
    block: int = 0,
    mesh: Mesh | None = None,
) -> Callable[[State, Params, Batch], tuple[State, Metrics]]:
    """Builds the jitted step. The state is donated; the locked parameters are not.

    Args:
        model: the towers.
        optimizer: over the moving parameters.
        max_scale: the logit scale is clamped to [1, max_scale] after each update.
        dynamic_scale: whether the loss scale adapts (float16).
        same_caption: as in `pair_loss`, and so are `block` and `mesh`.
        block: photos at a time in the loss.
        mesh: of the devices.

    Returns:
        A function of (state, locked parameters, batch) to (state, metrics). Metrics are float32 scalars on the
        device: loss, gradient_norm, logit_scale, loss_scale, skipped (1 where a gradient overflowed and nothing
        moved), and loss_floor of the plain softmax loss where captions are told apart, see `losses.softmax_floor`.
    """

    def scaled_loss(moving: Params, locked: Params, batch: Batch, factor: jax.Array) -> tuple[jax.Array, jax.Array]:
        loss = pair_loss(model, moving, locked, batch, same_caption=same_caption, block=block, mesh=mesh)
        return loss * factor, loss

    def step(state: State, locked: Params, batch: Batch) -> tuple[State, Metrics]:
        factor = state.loss_scale.factor
        grads, loss = jax.grad(scaled_loss, has_aux=True)(state.params, locked, batch, factor)
        grads = jax.tree.map(lambda g: g.astype(jnp.float32) / factor, grads)
        # Without loss scaling nothing is skipped: a NaN must reach the loss and stop the run.
        finite = all_finite(grads) if dynamic_scale else jnp.bool_(True)
        updates, opt_state = optimizer.update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        params[LOGIT_SCALE] = jnp.clip(params[LOGIT_SCALE], 0.0, jnp.log(max_scale))
        params, opt_state = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old), (params, opt_state), (state.params, state.optimizer)
        )
        metrics = {
            "loss": loss,
            "gradient_norm": optax.tree.norm(grads),
            "logit_scale": jnp.exp(params[LOGIT_SCALE]),
            "loss_scale": factor,
            "skipped": 1.0 - finite.astype(jnp.float32),
        }
        if has_floor(state.params, batch, same_caption):
            metrics["loss_floor"] = losses.softmax_floor(
                batch["caption"], len(batch["words" if "words" in batch else "tokens"])
            )
        loss_scale = next_loss_scale(state.loss_scale, finite, dynamic=dynamic_scale)
        return State(state.step + 1, state.updates + finite, params, opt_state, loss_scale), metrics

    return jax.jit(step, donate_argnums=0)


def has_floor(params: Params, batch: Batch, same_caption: str) -> bool:
    """Whether captions that repeat keep the loss from 0, and the batch tells which do."""
    return same_caption == "plain" and "caption" in batch and LOGIT_BIAS not in params


def run(
    state: State,
    locked: Params,
    batches: Iterable[Batch],
    step: Callable[[State, Params, Batch], tuple[State, Metrics]],
) -> Iterator[tuple[State, Metrics]]:
    """Yields after each batch. It reads no file and no clock, and fetches nothing from the device.

    The state yielded is donated to the next step: a caller that keeps it must copy it before asking for more.
    """
    for batch in batches:
        state, metrics = step(state, locked, batch)
        yield state, metrics

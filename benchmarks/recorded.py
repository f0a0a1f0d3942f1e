"""The recorded run's text tower, tokens and step, as several benchmarks use them."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from benchmarks import machine
from lit_jax import models
from lit_jax.base import precision
from lit_jax.base.precision import DTYPES
from lit_jax.base.sharding import put_replicated
from lit_jax.config import Optimizer
from lit_jax.models import locking
from lit_jax.models.two_tower import TwoTower
from lit_jax.training import optimizer, train_step

VOCABULARY, CONTEXT, END = 49408, 77, 49407
SHORTEST, MEAN, LONGEST = 10, 16.7, 27  # tokens of the 10,000 captions of iNaturalist 2021


class ClipTokens:
    """open_clip's tokenizer in the form of ours."""

    end_id = END

    def __init__(self) -> None:
        self._tokenizer = machine.open_clip().get_tokenizer("ViT-B-16")

    def encode(self, texts: Sequence[str], context: int) -> np.ndarray:
        """`[N, T]` int32."""
        return np.asarray(self._tokenizer(list(texts), context_length=context), np.int32)


def drawn_tokens(captions: int, seed: int = 0) -> np.ndarray:
    """Random captions `[captions, 77]` whose lengths are spread as those of iNaturalist's."""
    rng = np.random.default_rng(seed)
    share = (MEAN - SHORTEST) / (LONGEST - SHORTEST)
    lengths = SHORTEST + rng.binomial(LONGEST - SHORTEST, share, captions)
    tokens = rng.integers(1, END - 1, (captions, CONTEXT), dtype=np.int32)
    tokens[np.arange(CONTEXT)[None] > lengths[:, None] - 1] = 0
    tokens[np.arange(captions), lengths - 1] = END
    return tokens


def recorded_text_tower(
    *, dtype: str = "float32", depth: int = 12, width: int = 512, remat: bool = False
) -> models.TextTransformer:
    """63,428,096 parameters at depth 12 and width 512: CLIP's form, heads of 64 numbers."""
    return models.TextTransformer(
        VOCABULARY, CONTEXT, END, width=width, depth=depth, heads=width // 64, embed_dim=512, causal=True,
        activation="gelu", dtype=DTYPES[dtype], remat=remat,
    )  # fmt: skip


def start(model: TwoTower, mesh: Mesh, *, image_size: int, dtype: str = "float32") -> tuple[train_step.State, Any, Any]:
    """State, locked parameters and step of a run with the recorded optimizer, weights random."""
    params = jax.jit(lambda key: models.init(model, key, image_size=image_size, context=CONTEXT))(jax.random.key(0))
    moving, locked = locking.split_locked(params, "Lu")
    adamw = optimizer.adamw(Optimizer(weight_decay=0.1, b1=0.9, b2=0.98, eps=1e-6), optax.constant_schedule(5e-4), "Lu")
    state = train_step.initial_state(moving, adamw, precision.initial_loss_scale(dtype))
    step = train_step.make_step(model, adamw, max_scale=100.0, dynamic_scale=dtype == "float16", mesh=mesh)
    return (
        put_replicated(state, mesh),
        put_replicated(models.stored(model, locked, image_size=image_size, context=CONTEXT), mesh),
        step,
    )

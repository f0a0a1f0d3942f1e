"""Pre-trains the small ViT that the demo locks: a classifier of other invented species, on two CPU cores.

Run ``python -m data_prep.pretrain_tower --out data_prep/demo/demo_tower.npz`` to make such a file again; the committed
one took 77 minutes on two cores that did other work as well. It stands to the demo as an ImageNet tower stands to
iNaturalist: it has seen many species, labelled at every rank, and none of those that the demo holds out. Names play no
part: labels are numbers.
"""

import argparse
import io
import os
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

from data_prep.demo import field_guide
from data_prep.demo.drawing import Look
from data_prep.demo.field_guide import Species
from lit_jax.base import processes
from lit_jax.base.command_line import Parser
from lit_jax.base.files import new_file
from lit_jax.errors import user_errors_in_one_line
from lit_jax.models import ViT, family
from lit_jax.models.weight_files import write_npz
from lit_jax.models.weights import named

SIZE = 64
TOWER = ViT(patch=8, width=96, depth=6, heads=3)
RANKS = ("order", "family", "genus", "species")
# Guide 0 is the demo's. Tests and examples may use low seeds, so the other trees of life are far from those.
OTHER_GUIDES = tuple(range(1000, 1006))


def pretraining_species(demo: field_guide.Guide) -> list[Species]:
    """Species to learn from: all that the demo trains on and those of other guides, less the held-out ones.

    A species of another guide that looks like a held-out one in every trait is dropped too.
    """
    heldout = {_traits(s.look) for s, out in zip(demo.species, demo.heldout, strict=True) if out}
    others = [s for seed in OTHER_GUIDES for s in field_guide.taxonomy(seed)]
    return [s for s in [*demo.species, *others] if _traits(s.look) not in heldout]


def _traits(look: Look) -> tuple[Any, ...]:
    return (look.plan, look.slender, look.pattern, look.base, look.accent, look.part)


def labels(species: Sequence[Species]) -> dict[str, np.ndarray]:
    """For each of `RANKS` the class numbers of the species, `[N]` int32. One look has one number."""
    keys = {
        "order": [s.row["order"] for s in species],
        "family": [s.row["family"] for s in species],
        "genus": [s.row["genus"] for s in species],
        "species": [s.row["family"] + " " + s.row["name"] for s in species],
    }
    return {rank: np.unique(names, return_inverse=True)[1].astype(np.int32) for rank, names in keys.items()}


def _draw(task: tuple[Look, int]) -> np.ndarray:
    look, number = task
    jpeg = field_guide.photo_jpeg(look, np.random.default_rng([77, number]), wildness=1.0)
    return np.asarray(Image.open(io.BytesIO(jpeg)).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def draw_photos(species: Sequence[Species], each: int) -> np.ndarray:
    """`each` photos of each species in turn: `[N * each, 64, 64, 3]` uint8."""
    tasks = [(s.look, i * each + j) for i, s in enumerate(species) for j in range(each)]
    return np.stack(list(processes.each(_draw, tasks, processes.cores(), chunk=256)))


def _loss(params: Any, images: jax.Array, targets: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
    features = TOWER.apply({"params": params["tower"]}, images.astype(jnp.float32) / 127.5 - 1)
    losses, right = [], {}
    for rank, target in targets.items():
        logits = features @ params["heads"][rank]
        soft = optax.smooth_labels(jax.nn.one_hot(target, logits.shape[-1]), 0.1)
        losses.append(optax.softmax_cross_entropy(logits, soft).mean())
        right[rank] = (logits.argmax(-1) == target).mean()
    return sum(losses, jnp.float32(0)), right


def _augment(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirrors half of the batch and shifts each picture by up to four pixels."""
    flip = rng.random(len(images)) < 0.5
    images = np.where(flip[:, None, None, None], images[:, :, ::-1], images)
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="reflect")
    shifts = rng.integers(0, 9, (len(images), 2))
    return np.stack([p[y : y + SIZE, x : x + SIZE] for p, (y, x) in zip(padded, shifts, strict=True)])


def pretrain(species: Sequence[Species], *, each: int, epochs: int, batch_size: int = 256) -> Any:
    """Trains the tower with one linear classifier a rank; returns the tower's parameters."""
    images = draw_photos(species, each)
    targets = {rank: np.repeat(numbers, each) for rank, numbers in labels(species).items()}
    is_validation = np.tile(np.arange(each) == 0, len(species))
    train = np.flatnonzero(~is_validation)
    steps = epochs * (len(train) // batch_size)
    rng = np.random.default_rng(0)
    tower = TOWER.init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))["params"]
    heads = {rank: jnp.zeros((TOWER.width, int(numbers.max()) + 1)) for rank, numbers in targets.items()}
    params = {"tower": tower, "heads": heads}
    optimizer = optax.adamw(optax.warmup_cosine_decay_schedule(0, 1.5e-3, steps // 20, steps), weight_decay=0.05)
    state = optimizer.init(params)

    @jax.jit
    def step(params: Any, state: Any, images: jax.Array, targets: dict[str, jax.Array]) -> Any:
        (loss, right), grads = jax.value_and_grad(_loss, has_aux=True)(params, images, targets)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss, right

    evaluate = jax.jit(lambda *arguments: _loss(*arguments)[1])
    held = np.flatnonzero(is_validation)
    started = time.time()
    for epoch in range(epochs):
        order = rng.permutation(train)
        for i in range(len(train) // batch_size):
            take = order[i * batch_size : (i + 1) * batch_size]
            batch = {rank: numbers[take] for rank, numbers in targets.items()}
            params, state, loss, _ = step(params, state, _augment(images[take], rng), batch)
        right = evaluate(params, images[held], {rank: numbers[held] for rank, numbers in targets.items()})
        shown = ", ".join(f"{rank} {float(value):.3f}" for rank, value in right.items())
        print(f"epoch {epoch + 1}/{epochs} {time.time() - started:.0f} s, loss {float(loss):.3f}, new photos: {shown}")
    return params["tower"]


def main(argv: Sequence[str] | None = None) -> None:
    """The command: draws, trains and writes the tower in float16."""
    parser = Parser(prog="python -m data_prep.pretrain_tower", description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, help="the .npz file to write")
    parser.add_argument("--epochs", type=int, default=16, help="passes over the photos")
    parser.add_argument("--photos", type=int, default=36, help="photos of each species")
    parser.add_argument("--overwrite", action="store_true", help="also if the file is there")
    arguments = parser.parse_args(argv)
    with user_errors_in_one_line():
        new_file(arguments.out, overwrite=arguments.overwrite)
        _write(arguments)


def _write(arguments: argparse.Namespace) -> None:
    species = pretraining_species(field_guide.guide(0))
    print(f"{len(species)} species, {arguments.photos} photos each")
    tower = pretrain(species, each=arguments.photos, epochs=arguments.epochs)
    # Half precision halves the file; `load_tower` gives float32 again.
    write_npz(
        arguments.out,
        {name: value.astype(np.float16) for name, value in named(tower, family(TOWER)).items()},
    )
    print(f"wrote {arguments.out}, {os.path.getsize(arguments.out) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()

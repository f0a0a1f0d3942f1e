"""Features of photos, through the image tower or from an embedding store, and their embeddings in the common space."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from lit_jax import models
from lit_jax.base.hosts import this_host
from lit_jax.base.sharding import local_rows, over_batch, put_batch, replicated
from lit_jax.data import device_resizing, record_batches
from lit_jax.data.collection import Collection
from lit_jax.data.embedding_store import Rows, Store
from lit_jax.data.images import Pictures
from lit_jax.data.records import RecordSet
from lit_jax.errors import UserError
from lit_jax.models.locking import IMAGE, Params
from lit_jax.models.two_tower import TwoTower

ASIDE = "set aside"
"""A split of no record set: photos of the training split that are not trained on, see `epoch_order.set_aside`."""


Part = tuple[str, np.ndarray]
"""A split, and `[N]` bool: which of its photos."""


@dataclasses.dataclass(frozen=True)
class Photos:
    """One batch of photos as features of the image tower.

    Attributes:
        features: `[B, W]` of the global batch, on the devices.
        class_id: `[B / hosts]` int64, this host's rows.
        mask: `[B / hosts]` bool, False where a row is padding.
    """

    features: jax.Array
    class_id: np.ndarray
    mask: np.ndarray


@dataclasses.dataclass(frozen=True)
class Embedder:
    """The jitted parts of an evaluation."""

    model: TwoTower
    mesh: Mesh
    features: Callable[[Params, jax.Array], jax.Array]
    texts: Callable[[Params, jax.Array], jax.Array]
    projected: Callable[[Params, jax.Array], jax.Array]


@functools.lru_cache(maxsize=8)
def embedder(model: TwoTower, mesh: Mesh) -> Embedder:
    """The jitted functions for a model on a mesh, the same ones for all who ask in this process."""
    return Embedder(
        model,
        mesh,
        jax.jit(lambda tower, images: models.image_features(model, tower, images), out_shardings=over_batch(mesh)),
        jax.jit(lambda params, tokens: models.embed_text(model, params, tokens), out_shardings=replicated(mesh)),
        jax.jit(lambda params, features: models.project(model, params, features), out_shardings=over_batch(mesh)),
    )


PhotosOf = Callable[[str, Params], Iterator[Photos]]
"""From the name of a split and the model's parameters to its photos, each once, a batch at a time."""


def from_records(
    parts: Embedder,
    records: RecordSet,
    *,
    pictures: Pictures,
    batch_size: int,
    aside: Part | None = None,
) -> PhotosOf:
    """Photos of records through the image tower.

    Args:
        parts: the jitted functions.
        records: where the photos are.
        pictures: what photos are turned into.
        batch_size: photos at a time, over all hosts.
        aside: what the split `ASIDE` is a part of.
    """
    host = this_host()
    pictures = device_resizing.settled(pictures, parts.mesh)

    def photos(split: str, params: Params) -> Iterator[Photos]:
        split, only = aside if aside is not None and split == ASIDE else (split, None)
        for batch in record_batches.evaluation_batches(
            records, split, batch_size=batch_size // host.count, pictures=pictures, host=host, only=only
        ):
            image = device_resizing.put_squares(batch, parts.mesh, pictures)
            yield Photos(parts.features(params[IMAGE], image), batch["class_id"], batch["mask"])

    return photos


def from_store(parts: Embedder, store: Store, *, batch_size: int, aside: Part | None = None) -> PhotosOf:
    """Photos of an embedding store: the locked tower's features of view 0.

    Args:
        parts: the jitted functions; only their mesh is used.
        store: where the features are.
        batch_size: photos at a time, over all hosts.
        aside: what the split `ASIDE` is a part of.
    """
    host = this_host()
    size = batch_size // host.count

    def photos(split: str, _: Params) -> Iterator[Photos]:
        split, only = aside if aside is not None and split == ASIDE else (split, None)
        rows = Rows(store, split)
        numbers = np.arange(len(rows)) if only is None else np.flatnonzero(only)
        part = host.part(len(numbers))
        # All hosts yield the same number of batches; padding repeats the first row and is not counted.
        for start in range(part.start, part.start + -(-len(numbers) // host.count), size):
            places = np.arange(start, start + size)
            mask = places < part.stop
            wanted = numbers[np.where(mask, places, 0)]
            features = put_batch({"features": rows.take(wanted)}, parts.mesh)["features"]
            yield Photos(features, rows.class_ids[wanted], mask)

    return photos


def photos_of(
    parts: Embedder,
    collection: Collection,
    *,
    pictures: Pictures,
    batch_size: int,
    aside: Part | None = None,
) -> PhotosOf:
    """Features of photos through the tower or from the store; arguments as for `from_records` and `from_store`."""
    if isinstance(collection, Store):
        return from_store(parts, collection, batch_size=batch_size, aside=aside)
    return from_records(parts, collection, pictures=pictures, batch_size=batch_size, aside=aside)


def image_embeddings(parts: Embedder, params: Params, photos: Iterable[Photos]) -> tuple[np.ndarray, np.ndarray]:
    """Photos in the common space: `[N, D]` float32 of unit norm, and their class ids `[N]` int64, of this host.

    Raises:
        UserError: if there is no photo.
    """
    rows, class_ids = [], []
    for batch in photos:
        rows.append(local_rows(parts.projected(params, batch.features))[batch.mask])
        class_ids.append(batch.class_id[batch.mask])
    if not rows:
        raise UserError("photos: found none, expected at least one in the split")
    return np.concatenate(rows), np.concatenate(class_ids)

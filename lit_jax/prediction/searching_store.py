"""What a search goes through where an embedding store is given: its photos as an index, made once."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from lit_jax.base.files import digest
from lit_jax.base.sharding import local_rows, make_mesh
from lit_jax.data.embedding_store import Store, image_ids
from lit_jax.embedding.photo_embeddings import embedder, from_store
from lit_jax.embedding.trained import Trained, check_tower
from lit_jax.embedding.vectors import Vectors, on_device
from lit_jax.prediction import photo_index
from lit_jax.prediction.engine import TEXTS
from lit_jax.prediction.photo_index import Entry, Index
from lit_jax.prediction.with_jax import image_key

STORED = 4096  # rows of a store at a time


def texts_of(trained: Trained) -> Callable[[Sequence[str]], np.ndarray]:
    """From texts to unit vectors `[N, D]`, of a model whose image tower is not at hand."""
    mesh = make_mesh(local=True)
    return Vectors(trained, embedder(trained.model, mesh), on_device(trained, mesh), TEXTS).texts


def of_store(trained: Trained, store: Store, split: str, folder: Path, *, verify: bool = False) -> Index:
    """The index of a store's photos: its features in the common space, made once.

    Args:
        trained: the model; its image tower is not needed.
        store: of its tower.
        split: one of them; empty for all.
        folder: of the index.
        verify: as in `lit_jax.prediction.photo_index.open_index`.

    Raises:
        UserError: a store of another tower, or another process at work on the index.
    """
    check_tower(trained, store)
    key = digest([image_key(trained), store.fingerprint, split])
    with photo_index.alone(folder) as folder:
        found = photo_index.open_index(folder, key, verify=verify)
        if found is not None:
            return found
        splits = [split] if split else list(store.splits)
        ids = ((name, photo) for name in splits for photo in image_ids(store, name))
        entries = [Entry(photo if split else f"{name}/{photo}") for name, photo in ids]
        return photo_index.write(folder, key, _projected(trained, store, splits), entries)


def _projected(trained: Trained, store: Store, splits: Sequence[str]) -> Iterator[np.ndarray]:
    mesh = make_mesh(local=True)
    parts, params = embedder(trained.model, mesh), on_device(trained, mesh)
    photos = from_store(parts, store, batch_size=STORED)
    for batch in itertools.chain.from_iterable(photos(split, params) for split in splits):
        yield local_rows(parts.projected(params, batch.features))[batch.mask]

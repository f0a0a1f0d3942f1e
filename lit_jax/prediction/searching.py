"""What a search goes through: the photos of folders, or of an embedding store, as an index that is up to date."""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from lit_jax.base.files import digest
from lit_jax.base.sharding import local_rows, make_mesh
from lit_jax.data.embedding_store import Store, image_ids
from lit_jax.embedding.about import About
from lit_jax.embedding.class_embeddings import class_embeddings
from lit_jax.embedding.photo_embeddings import embedder, from_store
from lit_jax.embedding.trained import Trained, check_tower
from lit_jax.embedding.vectors import Vectors, on_device
from lit_jax.prediction import choices, photo_index
from lit_jax.prediction.engine import TEXTS
from lit_jax.prediction.model import Model
from lit_jax.prediction.photo_index import Entry, Index, Updated
from lit_jax.prediction.with_jax import image_key

STORED = 4096  # rows of a store at a time


def queries_of(
    about: About, protocol: str, embed: Callable[[Sequence[str]], np.ndarray], texts: Sequence[str]
) -> tuple[np.ndarray, list[str]]:
    """Unit vectors `[Q, D]` of what is looked for, and notes: names of the model's classes are asked as these.

    Args:
        about: what the model says of itself.
        protocol: of its prompts.
        embed: from texts to unit vectors, such as `texts_of` or `Model.embed_texts`.
        texts: at least one.
    """
    prompts, notes = choices.asked(about, texts, protocol)
    return class_embeddings(embed, prompts), notes


def texts_of(trained: Trained) -> Callable[[Sequence[str]], np.ndarray]:
    """From texts to unit vectors `[N, D]`, of a model whose image tower is not at hand."""
    mesh = make_mesh(local=True)
    return Vectors(trained, embedder(trained.model, mesh), on_device(trained, mesh), TEXTS).texts


def of_photos(
    model: Model, photos: Sequence[str], folder: Path, tell: Callable[[int, int], None] = lambda done, total: None
) -> Updated:
    """The index of photos, brought up to date.

    Args:
        model: embeds those that are new.
        photos: paths, each once.
        folder: of the index.
        tell: hears how many new ones are done, and how many there are.
    """
    return photo_index.update(folder, model.engine.image_key, list(_entries(photos)), model.embedded, tell)


def of_store(trained: Trained, store: Store, split: str, folder: Path) -> Index:
    """The index of a store's photos: its features in the common space, made once.

    Args:
        trained: the model; its image tower is not needed.
        store: of its tower.
        split: one of them; empty for all.
        folder: of the index.

    Raises:
        UserError: a store of another tower.
    """
    check_tower(trained, store)
    key = digest([image_key(trained), store.fingerprint, split])
    found = photo_index.open_index(folder, key)
    if found is not None:
        return found
    splits = [split] if split else list(store.splits)
    entries = [Entry(f"{name}/{photo}" if not split else photo) for name in splits for photo in image_ids(store, name)]
    return photo_index.write(folder, key, _projected(trained, store, splits), entries)


def _projected(trained: Trained, store: Store, splits: Sequence[str]) -> Iterator[np.ndarray]:
    mesh = make_mesh(local=True)
    parts, params = embedder(trained.model, mesh), on_device(trained, mesh)
    photos = from_store(parts, store, batch_size=STORED)
    for batch in itertools.chain.from_iterable(photos(split, params) for split in splits):
        yield local_rows(parts.projected(params, batch.features))[batch.mask]


def _entries(photos: Sequence[str]) -> Iterator[Entry]:
    """With size and time, by which a change is noticed; a photo that is gone is left to the reader to tell."""
    for photo in photos:
        try:
            facts = os.stat(photo)
        except OSError:
            yield Entry(os.path.abspath(photo))
        else:
            yield Entry(os.path.abspath(photo), facts.st_size, facts.st_mtime_ns)

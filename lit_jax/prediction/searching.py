"""What a search goes through: the photos of folders, as an index that is up to date; and what it looks for."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lit_jax.base.files import digest
from lit_jax.data.photo import Source
from lit_jax.embedding.about import About
from lit_jax.embedding.class_embeddings import class_embeddings
from lit_jax.errors import UserError
from lit_jax.prediction import choices, photo_index
from lit_jax.prediction.photo_index import Entry, Updated
from lit_jax.prediction.reading import label_of


def queries_of(
    about: About, protocol: str, embed: Callable[[Sequence[str]], np.ndarray], texts: Sequence[str]
) -> tuple[np.ndarray, list[str]]:
    """Unit vectors `[Q, D]` of what is looked for, and notes.

    Names of the model's classes are asked as these; it warns of texts that it cannot read.

    Args:
        about: what the model says of itself.
        protocol: of its prompts.
        embed: from texts to unit vectors, such as `searching_store.texts_of` or `Model.embed_texts`.
        texts: at least one.
    """
    prompts, notes = choices.asked(about, texts, protocol)
    notes += unread(about, texts, prompts)
    return class_embeddings(embed, prompts), notes


def unread(about: About, texts: Sequence[str], prompts: Sequence[Sequence[str]]) -> list[str]:
    """Lines on texts that the model can read neither as they are nor as it is asked; any order of photos would do."""
    return choices.unread(texts, about, "what is found means nothing there", prompts)


class Found(NamedTuple):
    """A photo that was found.

    Attributes:
        photo: its path.
        similarity: cosine of its vector and the query's.
    """

    photo: str
    similarity: float


def folder_beside(model: Path, places: Sequence[str]) -> Path:
    """Where the index of some places is kept beside a model, unless a person says where."""
    return model / photo_index.FOLDER / digest(sorted(os.path.abspath(one) for one in places))[:20]


def liked(
    embedded: Callable[[Sequence[Source]], Iterator[np.ndarray | str]], photos: Sequence[Source], option: str
) -> list[np.ndarray]:
    """The vectors `[1, D]` of photos that others should be like.

    Args:
        embedded: embeds them, as `lit_jax.prediction.model.Model.embedded` does.
        photos: any number.
        option: by which they were given, for messages.

    Raises:
        UserError: one that cannot be read.
    """
    rows = []
    for number, row in enumerate(embedded(list(photos)) if photos else (), 1):
        if isinstance(row, str):
            name = label_of(photos[number - 1], number)
            raise UserError(f"{option} {name}: found a photo that cannot be used ({row}), expected another one")
        rows.append(row[None])
    return rows


def of_photos(
    image_key: str,
    embedded: Callable[[Sequence[str]], Iterator[np.ndarray | str]],
    photos: Sequence[str],
    folder: Path,
    tell: Callable[[int, int], None] = lambda done, total: None,
    *,
    verify: bool = False,
) -> Updated:
    """The index of photos, brought up to date.

    Args:
        image_key: what decides their vectors, see `lit_jax.prediction.engine.Engine`.
        embedded: embeds those that are new, as `lit_jax.prediction.model.Model.embedded` does.
        photos: paths, each once.
        folder: of the index.
        tell: hears how many new ones are done, and how many there are.
        verify: as in `lit_jax.prediction.photo_index.open_index`.
    """
    return photo_index.update(folder, image_key, list(_entries(photos)), embedded, tell, verify=verify)


def _entries(photos: Sequence[str]) -> Iterator[Entry]:
    """With size and time, by which a change is noticed; a photo that is gone is left to the reader to tell."""
    for photo in photos:
        try:
            facts = os.stat(photo)
        except OSError:
            yield Entry(os.path.abspath(photo))
        else:
            yield Entry(os.path.abspath(photo), facts.st_size, facts.st_mtime_ns)

"""Photos of an embedding store, to stand beside the rows of a classifier's head."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.import_embeddings.embedding_files import Embeddings, Given
from data_prep.sources.items import Item
from lit_jax.data import embedding_store
from lit_jax.errors import UserError


def store_among(paths: Sequence[Path]) -> Path | None:
    """The store that is given instead of files of embeddings; None if there is none.

    Raises:
        UserError: a store beside other things.
    """
    found = [path for path in paths if path.is_dir()]
    if found and len(paths) > 1:
        raise UserError(f"--embeddings: found {found[0]} and {len(paths) - 1} more, expected one store or files alone")
    return found[0] if found else None


def photos_of_store(store: embedding_store.Store) -> Given:
    """The photos of a store with their classes and splits; every shard is compared with its checksum.

    Photos that have fewer views than those to train on, as those of other splits do, have their first one repeated.

    Raises:
        UserError: a store with rows of a classifier; a file that was changed.
    """
    if "head" in store.tower:
        raise UserError(
            f"{store.directory}: found rows of a classifier, expected photos alone; give the store of the photos"
        )
    views = max(store.views.values())
    parts: list[np.ndarray] = []
    items: list[Item] = []
    for split in store.splits:
        rows = embedding_store.Rows(store, split)
        features, class_ids = rows.whole(), rows.class_ids
        if features.shape[1] < views:
            features = np.broadcast_to(features[:, :1], (len(features), views, store.width))
        parts.append(features)
        names = embedding_store.image_ids(store, split)
        items += [Item("", int(i), split, name) for i, name in zip(class_ids, names, strict=True)]
    tower: dict[str, Any] = {name: value for name, value in store.tower.items() if name != "import"}
    title = str(tower.get("name") or tower["kind"])
    return Given(Embeddings(tuple(parts), None, title), items, tower=tower)

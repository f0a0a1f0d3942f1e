"""A trained model that computes with JAX, on this machine's devices."""

import contextlib
import dataclasses
import logging
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from lit_jax import config as options
from lit_jax.base import hosts
from lit_jax.base.files import digest
from lit_jax.base.sharding import local_rows, make_mesh, put_batch
from lit_jax.data.embedding_store import GIVEN
from lit_jax.embedding.photo_embeddings import embedder
from lit_jax.embedding.trained import Trained
from lit_jax.embedding.vectors import Vectors, on_device
from lit_jax.models import building, weights
from lit_jax.models.locking import IMAGE, LOGIT_SCALE, PROJECTION
from lit_jax.prediction.engine import TEXTS
from lit_jax.trained import loading
from lit_jax.trained.published import published


class WithJax:
    """See `lit_jax.prediction.engine.Engine`.

    Args:
        trained: as it was read, with its image tower.
        folder: of the model, where vectors of classes are kept; None to keep nothing.
        title: what the model is called in a message.

    Raises:
        UserError: a model without an image tower.
    """

    def __init__(self, trained: Trained, folder: pathlib.Path | None = None, title: str = "") -> None:
        if trained.config.image.tower == GIVEN or trained.model.image is None:
            raise loading.without_image_tower(f"model {title}")
        self.trained, self.about, self.step = trained, trained.about, trained.step
        self.scale = float(np.exp(np.asarray(trained.params[LOGIT_SCALE])))
        self.protocol = trained.config.evaluation.protocol
        self.pictures = building.pictures_of(trained.config.image)
        self.embed_dim = trained.config.model.embed_dim
        self._mesh = make_mesh(local=True)
        self.multiple = self._mesh.size
        self._params = on_device(trained, self._mesh)
        self._parts = embedder(trained.model, self._mesh)
        self._vectors = Vectors(trained, self._parts, self._params, TEXTS, folder, aside=True)

    @property
    def key(self) -> str:
        """A digest of all that decides embeddings."""
        moving = {name: tree for name, tree in self.trained.params.items() if name not in self.about.locked}
        return digest([weights.digest(moving), sorted(self.about.locked.items())])

    @property
    def image_key(self) -> str:
        """A digest of what decides the embedding of a photo."""
        return image_key(self.trained)

    def photos(self, pixels: np.ndarray) -> np.ndarray:
        """`[B, S, S, 3]` uint8 to unit vectors `[B, D]` float32."""
        features = self._parts.features(self._params[IMAGE], put_batch({"image": pixels}, self._mesh)["image"])
        return local_rows(self._parts.projected(self._params, features)).copy()

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """N texts to unit vectors `[N, D]` float32."""
        return self._vectors.texts(texts)

    def of_each(self, *groups: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """Of groups of classes, each by its prompts: unit vectors `[K, D]` of each group."""
        return self._vectors.of_each(*groups)


def image_key(trained: Trained) -> str:
    """What decides the vector of a photo: the image tower, its projection, and how pixels reach it."""
    tower = trained.about.locked.get(IMAGE) or weights.digest(trained.params[IMAGE])
    projection = weights.digest(trained.params[PROJECTION]) if PROJECTION in trained.params else ""
    return digest([tower, projection, dataclasses.asdict(trained.config.image)])


def of_folder(folder: str, title: str, step: str, moved: Mapping[str, str]) -> WithJax:
    """The model of a run's or an exported model's folder; arguments as for `lit_jax.trained.loading.load`."""
    hosts.keep_compiled()
    with _quiet():
        trained = loading.load(folder, step=step, weight_files=moved, with_image_tower=True)
    return WithJax(trained, loading.folder_of(folder), title)


def of_config(config: options.Config, title: str = "") -> WithJax:
    """Published towers, before any training."""
    return WithJax(published(config), None, title)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what Orbax says of its own accord when a checkpoint is opened; as commands do it."""
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.ERROR)
    try:
        yield
    finally:
        absl.setLevel(level)

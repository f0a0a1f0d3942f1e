"""Vectors of classes for a trained model: their prompts as the run words them, embedded, and kept beside the model."""

import dataclasses
import itertools
import pathlib
from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh

from lit_jax.base import console
from lit_jax.base.sharding import put_replicated
from lit_jax.embedding import class_embeddings, kept_embeddings, text_embeddings
from lit_jax.embedding.photo_embeddings import Embedder
from lit_jax.embedding.trained import Trained
from lit_jax.models import building
from lit_jax.models.locking import IMAGE, Params
from lit_jax.text.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class Vectors:
    """Embeds classes and captions, and keeps their embeddings if there is a folder for them.

    Attributes:
        trained: the model.
        parts: the jitted functions.
        params: on the devices, see `on_device`.
        batch_size: texts at a time.
        keep_in: the model's folder; None to keep nothing.
        aside: whether progress is told on standard error, where standard output is for answers.
    """

    trained: Trained
    parts: Embedder
    params: Params
    batch_size: int
    keep_in: pathlib.Path | None = None
    aside: bool = False

    @property
    def texts(self) -> class_embeddings.EmbedTexts:
        """From texts to unit vectors `[N, D]`."""
        text, tokenizer = self.trained.config.text, self.trained.tokenizer
        return text_embeddings.text_embedder(
            self.parts, self.params, building.reading(text, tokenizer), batch_size=self.batch_size,
            end_id=tokenizer.end_id if text.bucket else None,
        )  # fmt: skip

    def of_each(self, *groups: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """`of` several groups of classes; those with equal prompts are embedded once."""
        row_of: dict[tuple[str, ...], int] = {}
        rows = [[row_of.setdefault(tuple(texts), len(row_of)) for texts in group] for group in groups]
        found = self.of(list(row_of))
        return [found[np.array(group, int)] for group in rows]

    def of(self, prompts: Sequence[Sequence[str]]) -> np.ndarray:
        """`[K, D]` unit vectors of K classes' prompts."""
        text, tokenizer = self.trained.config.text, self.trained.tokenizer
        key = kept_embeddings.key_of(
            self.trained.params, self.trained.model.text, building.text_length(text), _known(tokenizer), prompts
        )

        def make() -> np.ndarray:
            with console.Progress(sum(map(len, prompts)), aside=self.aside) as progress:
                tick = console.pace(progress, "distinct prompts")
                return class_embeddings.class_embeddings(self.texts, prompts, tick=tick)

        return kept_embeddings.kept(self.keep_in, key, make)


def _known(tokenizer: Tokenizer) -> bytes:
    """All that decides how a text is read: the model of the tokenizer, and the units of a tower that reads units."""
    return tokenizer.model_bytes + "\0".join(itertools.chain.from_iterable(tokenizer.units)).encode()


def on_device(trained: Trained, mesh: Mesh) -> Params:
    """All parameters whole on each device, those of the image tower in the dtype in which it uses them."""
    tower = {name: tree for name, tree in trained.params.items() if name == IMAGE}
    return put_replicated({**trained.params, **building.stored(trained.config.towers, trained.model, tower)}, mesh)

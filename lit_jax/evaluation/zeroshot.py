"""Zero-shot classification: class embeddings from prompts, scores, and exact top-k over every photo once."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from lit_jax.base.hosts import from_all_hosts
from lit_jax.base.sharding import put_rows
from lit_jax.embedding.class_embeddings import class_embeddings
from lit_jax.embedding.photo_embeddings import Embedder, Photos, PhotosOf
from lit_jax.embedding.text_embeddings import Tokenise, text_embedder
from lit_jax.errors import UserError
from lit_jax.evaluation import ranking
from lit_jax.evaluation.gzsl import Rivals
from lit_jax.evaluation.metrics import TopK, hits_of
from lit_jax.models.locking import Params


def classify(
    parts: Embedder,
    params: Params,
    photos: Iterable[Photos],
    class_emb: np.ndarray,
    class_ids: Sequence[int],
    species_of: Mapping[int, int] | None = None,
) -> TopK:
    """Top-k hits of every photo against the given classes, summed over all hosts; ranked as by `ranking.predict`.

    Args:
        parts: the jitted functions.
        params: with the image projection.
        photos: each photo once; masked rows are not counted.
        class_emb: `[K, D]` unit-norm.
        class_ids: id in the class table of each of the K classes.
        species_of: ids of photos to those of their species among the K; None where each is its own.

    Returns:
        Hits of each of the K classes.

    Raises:
        UserError: if a photo's class is not among the candidates.
    """
    row_of = {class_id: row for row, class_id in enumerate(class_ids)}
    row_of |= {one: row_of[species] for one, species in (species_of or {}).items() if species in row_of}
    on_device = ranking.put_classes(class_emb, parts.mesh)
    total = hits_of(np.zeros(0, int), np.zeros(0, int), len(class_ids))
    for batch in photos:
        unknown = sorted(set(batch.class_id[batch.mask].tolist()) - row_of.keys())
        if unknown:
            raise UserError(f"classes: found photos of class id {unknown[0]}, expected only ids of the class table")
        labels = np.array([row_of.get(class_id, 0) for class_id in batch.class_id.tolist()])
        ranks = ranking.ranks(parts.projected(params, batch.features), labels, on_device, parts.mesh)
        total += hits_of(ranks[batch.mask], labels[batch.mask], len(class_ids))
    return TopK(from_all_hosts(total.hits).sum(0), from_all_hosts(total.images).sum(0))


@dataclasses.dataclass(frozen=True)
class Task:
    """One zero-shot evaluation: photos of a split against candidate classes.

    Attributes:
        name: in the results.
        split: of the record set.
        class_ids: the candidates.
    """

    name: str
    split: str
    class_ids: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Together:
    """Photos of seen and of unseen species, each to be named among all of them.

    Attributes:
        splits: where the photos are.
        class_ids: the candidates.
        seen: those of training.
    """

    splits: tuple[str, ...]
    class_ids: tuple[int, ...]
    seen: frozenset[int]


def compare(
    parts: Embedder,
    params: Params,
    photos: Iterable[Photos],
    class_emb: np.ndarray,
    together: Together,
    species_of: Mapping[int, int],
) -> Rivals:
    """The best seen and the best unseen species of every photo, of all hosts; arguments as for `classify`."""
    row_of = {class_id: row for row, class_id in enumerate(together.class_ids)}
    on_device = ranking.put_classes(class_emb, parts.mesh)
    seen = np.array([class_id in together.seen for class_id in together.class_ids])
    mask = put_rows(seen, parts.mesh, split=False)
    found = []
    for batch in photos:
        labels = np.zeros(len(batch.mask), np.int64)  # of padding too, which is a photo of no class
        labels[batch.mask] = [row_of[species_of.get(i, i)] for i in batch.class_id[batch.mask].tolist()]
        here = ranking.rivals(parts.projected(params, batch.features), labels, on_device, mask, parts.mesh)
        # Padding is dropped on the host, where every batch of every host has the same number of rows.
        kept = from_all_hosts(batch.mask).reshape(-1)
        found.append(Rivals(*(from_all_hosts(values).reshape(-1)[kept] for values in here)))
    return functools.reduce(Rivals.__add__, found)


class Interrupted(Exception):
    """An evaluation was asked to stop before its end."""


@dataclasses.dataclass
class Evaluator:
    """Runs tasks, as often as wanted.

    Attributes:
        parts: jitted functions.
        photos: of each split.
        tasks: what to evaluate.
        class_prompts: prompts of each species, by the class id of its first row, see `prompts_of_species`.
        tokenise: texts to ids.
        batch_size: prompts at a time, over all hosts.
        end_id: see `text_embedder`.
        species_of: each class id to that of the first row of its species.
        together: seen and unseen species asked together; None where the data has not photos of both.
        keep: whether features of photos may be kept from one call to the next: the image tower is locked.
        kept: those features, by split.
    """

    parts: Embedder
    photos: PhotosOf
    tasks: Sequence[Task]
    class_prompts: Mapping[int, Sequence[str]]
    tokenise: Tokenise
    batch_size: int
    keep: bool
    species_of: Mapping[int, int] = dataclasses.field(default_factory=dict)
    together: Together | None = None
    end_id: int | None = None
    kept: dict[str, list[Photos]] = dataclasses.field(default_factory=dict)

    def embedded(self, params: Params, class_ids: Sequence[int]) -> np.ndarray:
        """`[K, D]` unit vectors of classes from their prompts."""
        embed = text_embedder(self.parts, params, self.tokenise, batch_size=self.batch_size, end_id=self.end_id)
        return class_embeddings(embed, [self.class_prompts[class_id] for class_id in class_ids])

    def __call__(
        self, params: Params, *, interrupted: Callable[[], bool] = lambda: False
    ) -> tuple[dict[str, TopK], Rivals | None]:
        """Hits by task, class by class; and where there are photos of both, the best seen and unseen species of each.

        Args:
            params: of the whole model, on the mesh.
            interrupted: asked before each batch of photos.

        Raises:
            Interrupted: as soon as `interrupted` says so.
        """
        if not self.tasks:
            return {}, None
        # Tasks share classes: each is embedded once.
        class_ids = sorted({class_id for task in self.tasks for class_id in task.class_ids})
        class_emb = self.embedded(params, class_ids)
        row_of = {class_id: row for row, class_id in enumerate(class_ids)}
        features = self.kept if self.keep else {}
        hits = {}
        for task in self.tasks:
            if task.split not in features:
                features[task.split] = list(self._photos(task.split, params, interrupted))
            rows = [row_of[class_id] for class_id in task.class_ids]
            photos = features[task.split]
            hits[task.name] = classify(self.parts, params, photos, class_emb[rows], task.class_ids, self.species_of)
        if self.together is None:
            return hits, None
        rows = [row_of[class_id] for class_id in self.together.class_ids]
        photos = [batch for split in self.together.splits for batch in features[split]]
        return hits, compare(self.parts, params, photos, class_emb[rows], self.together, self.species_of)

    def _photos(self, split: str, params: Params, interrupted: Callable[[], bool]) -> Iterator[Photos]:
        for photos in self.photos(split, params):
            if interrupted():
                raise Interrupted
            yield photos

"""Zero-shot classification: class embeddings from prompts, scores, and exact top-k over every photo once."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from lit_jax import models
from lit_jax.base.sharding import from_all_hosts, local_rows, over_batch, put_batch, put_rows, replicated
from lit_jax.data import record_batches
from lit_jax.data.embedding_store import Rows, Store
from lit_jax.data.images import PLAIN, View
from lit_jax.data.records import RecordSet
from lit_jax.errors import UserError
from lit_jax.evaluation import ranking
from lit_jax.evaluation.metrics import TopK, hits_of
from lit_jax.models.two_tower import Params, TwoTower
from lit_jax.text.tokenizers import lengths

Tokenise = Callable[[Sequence[str]], np.ndarray]
EmbedTexts = Callable[[Sequence[str]], np.ndarray]

ASIDE = "set aside"
"""A split of no record set: photos of the training split that are not trained on, see `lit_jax.data.epoch_order.set_aside`."""

Part = tuple[str, np.ndarray]
"""A split, and `[N]` bool: which of its photos."""

TEXTS = 1 << 15  # prompts whose embeddings are held at a time


@dataclasses.dataclass(frozen=True)
class Photos:
    """One batch of photos behind the image tower.

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
    """The jitted parts of an evaluation; built once, so that each is compiled once."""

    model: TwoTower
    mesh: Mesh
    features: Callable[[Params, jax.Array], jax.Array]
    texts: Callable[[Params, jax.Array], jax.Array]
    projected: Callable[[Params, jax.Array], jax.Array]


def embedder(model: TwoTower, mesh: Mesh) -> Embedder:
    """Builds the jitted functions for a model on a mesh."""
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
    image_size: int,
    batch_size: int,
    view: View = PLAIN,
    aside: Part | None = None,
) -> PhotosOf:
    """Photos of records through the image tower.

    Args:
        parts: the jitted functions.
        records: where the photos are.
        image_size: side of the pictures, pixels.
        batch_size: photos at a time, over all hosts.
        view: how a photo becomes a square.
        aside: what the split `ASIDE` is a part of.
    """
    hosts, host = jax.process_count(), jax.process_index()

    def photos(split: str, params: Params) -> Iterator[Photos]:
        split, only = aside if aside is not None and split == ASIDE else (split, None)
        for batch in record_batches.evaluation_batches(
            records, split, batch_size=batch_size // hosts, image_size=image_size, host=host, hosts=hosts, view=view,
            only=only,
        ):  # fmt: skip
            image = put_batch({"image": batch["image"]}, parts.mesh)["image"]
            yield Photos(parts.features(params["image"], image), batch["class_id"], batch["mask"])

    return photos


def from_store(parts: Embedder, store: Store, *, batch_size: int, aside: Part | None = None) -> PhotosOf:
    """Photos of a store: what the locked tower said of them, view 0.

    Args:
        parts: the jitted functions; only their mesh is used.
        store: where the features are.
        batch_size: photos at a time, over all hosts.
        aside: what the split `ASIDE` is a part of.
    """
    hosts, host = jax.process_count(), jax.process_index()
    size = batch_size // hosts

    def photos(split: str, _: Params) -> Iterator[Photos]:
        split, only = aside if aside is not None and split == ASIDE else (split, None)
        rows = Rows(store, split)
        numbers = np.arange(len(rows)) if only is None else np.flatnonzero(only)
        begin, end = len(numbers) * host // hosts, len(numbers) * (host + 1) // hosts
        # All hosts yield the same number of batches; padding repeats the first row and is not counted.
        for start in range(begin, begin + -(-len(numbers) // hosts), size):
            places = np.arange(start, start + size)
            mask = places < end
            wanted = numbers[np.where(mask, places, 0)]
            features = put_batch({"features": rows.take(wanted)}, parts.mesh)["features"]
            yield Photos(features, rows.class_ids[wanted], mask)

    return photos


def text_embedder(
    parts: Embedder, params: Params, tokenise: Tokenise, *, batch_size: int, end_id: int | None = None
) -> EmbedTexts:
    """A function from texts to unit-norm embeddings `[N, D]` float32, the same on every host.

    Args:
        parts: the jitted functions.
        params: with the text tower.
        tokenise: texts to `[N, T]` int32.
        batch_size: texts at a time; the last batch is padded, so that few shapes are compiled.
        end_id: id of the token behind which the tower reads nothing, so that short texts are cut; None: they must
            not be.
    """

    def embed(texts: Sequence[str]) -> np.ndarray:
        tokens = tokenise(texts)
        ends = np.full(len(tokens), tokens.shape[1]) if end_id is None else lengths(tokens, end_id)
        order, out = np.argsort(ends, kind="stable"), []
        for start in range(0, len(tokens), batch_size):
            rows = order[start : start + batch_size]
            padded = tokens[np.concatenate([rows, np.repeat(rows[-1:], batch_size - len(rows))])]
            whole = parts.texts(params, put_rows(padded[:, : _cut(int(ends[rows[-1]]), tokens.shape[1])], parts.mesh))
            out.append(np.asarray(whole.addressable_data(0))[: len(rows)])
        embedded = np.concatenate(out)
        back = np.empty_like(embedded)
        back[order] = embedded
        return back

    return embed


def _cut(longest: int, context: int) -> int:
    """Tokens to compute for texts of at most `longest`: a power of two, so that few shapes are compiled."""
    return min(max(16, 1 << (longest - 1).bit_length()), context)


def class_embeddings(
    embed_texts: EmbedTexts, prompts: Sequence[Sequence[str]], *, tick: Callable[[int, int], None] = lambda *_: None
) -> np.ndarray:
    """One unit vector a class: its prompts' unit embeddings, averaged and normalised again.

    Sums are kept, not the embeddings of the prompts: those of 10,000 classes by 80 templates would be gigabytes.

    Args:
        embed_texts: texts to unit-norm `[N, D]`; equal texts are embedded once.
        prompts: for each of K classes its prompts, at least one.
        tick: told the number of texts done, and of all, now and then.

    Returns:
        `[K, D]` float32, in the order of `prompts`.

    Raises:
        UserError: if there is no class.

    Source: CLIP's prompt ensembling (arXiv 2103.00020, section 3.1.4).
    """
    if not prompts:
        raise UserError("classes: found none, expected at least one class to choose from")
    distinct = list(dict.fromkeys(text for texts in prompts for text in texts))
    row_of = {text: row for row, text in enumerate(distinct)}
    text = np.array([row_of[text] for texts in prompts for text in texts])
    owner = np.repeat(np.arange(len(prompts)), [len(texts) for texts in prompts])
    by_text = np.argsort(text, kind="stable")
    text, owner = text[by_text], owner[by_text]
    sums = None
    for start in range(0, len(distinct), TEXTS):
        embedded = embed_texts(distinct[start : start + TEXTS]).astype(np.float64)
        sums = np.zeros((len(prompts), embedded.shape[1])) if sums is None else sums
        here = slice(*np.searchsorted(text, [start, start + TEXTS]))
        np.add.at(sums, owner[here], embedded[text[here] - start])
        tick(min(start + TEXTS, len(distinct)), len(distinct))
    assert sums is not None
    return (sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def prompts_of_species(prompts: Mapping[int, Sequence[str]], species_of: Mapping[int, int]) -> dict[int, Sequence[str]]:
    """Prompts by the id of a species' first row: those of all its rows, where there are several."""
    found: dict[int, Sequence[str]] = {}
    for class_id, texts in prompts.items():
        species = species_of.get(class_id, class_id)
        found[species] = [*found.get(species, ()), *texts]
    return found


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


def classify(
    parts: Embedder,
    params: Params,
    photos: Iterable[Photos],
    class_emb: np.ndarray,
    class_ids: Sequence[int],
    species_of: Mapping[int, int] | None = None,
) -> TopK:
    """Top-k hits of every photo against the given classes, summed over all hosts; ranked as by `predictions.predict`.

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
    end_id: int | None = None
    kept: dict[str, list[Photos]] = dataclasses.field(default_factory=dict)

    def __call__(self, params: Params, *, interrupted: Callable[[], bool] = lambda: False) -> dict[str, TopK]:
        """Hits by task, class by class.

        Args:
            params: of the whole model, on the mesh.
            interrupted: asked before each batch of photos.

        Raises:
            Interrupted: as soon as `interrupted` says so.
        """
        if not self.tasks:
            return {}
        # Tasks share classes: each is embedded once.
        class_ids = sorted({class_id for task in self.tasks for class_id in task.class_ids})
        embed = text_embedder(self.parts, params, self.tokenise, batch_size=self.batch_size, end_id=self.end_id)
        class_emb = class_embeddings(embed, [self.class_prompts[class_id] for class_id in class_ids])
        row_of = {class_id: row for row, class_id in enumerate(class_ids)}
        features = self.kept if self.keep else {}
        hits = {}
        for task in self.tasks:
            if task.split not in features:
                features[task.split] = list(self._photos(task.split, params, interrupted))
            rows = [row_of[class_id] for class_id in task.class_ids]
            photos = features[task.split]
            hits[task.name] = classify(self.parts, params, photos, class_emb[rows], task.class_ids, self.species_of)
        return hits

    def _photos(self, split: str, params: Params, interrupted: Callable[[], bool]) -> Iterator[Photos]:
        for photos in self.photos(split, params):
            if interrupted():
                raise Interrupted
            yield photos

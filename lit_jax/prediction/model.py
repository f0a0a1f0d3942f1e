"""A trained model as one object: it embeds photos and texts, and names photos."""

import itertools
import os
import pathlib
import warnings
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

from lit_jax import config as options
from lit_jax.data.photo import Source
from lit_jax.embedding.about import About
from lit_jax.embedding.class_embeddings import class_embeddings
from lit_jax.embedding.class_prompts import species_prompts
from lit_jax.errors import UserError, printable
from lit_jax.evaluation.known_species import among_trained, held_back
from lit_jax.evaluation.ranks import SPECIES
from lit_jax.prediction import choices as choosing
from lit_jax.prediction import photo_index, reading, searching
from lit_jax.prediction.answers import Confidence, Named, Similarities, ladder
from lit_jax.prediction.choices import Choices, Classes, Within
from lit_jax.prediction.engine import Engine
from lit_jax.prediction.found import find_photos
from lit_jax.prediction.results import Naming
from lit_jax.prediction.searching import Found
from lit_jax.text.prompts import duplicates
from lit_jax.trained import onnx_folder

BATCH = 32  # photos at a time
Photos = Source | Iterable[Source]
"""A path, a folder, a picture, an array `[H, W, 3]` or `[N, H, W, 3]`, or any number of paths, pictures and arrays."""


def load(
    checkpoint: str | os.PathLike[str] | options.Config,
    *,
    step: str = "best",
    image_weights: str = "",
    text_weights: str = "",
) -> "Model":
    """A trained model, to embed and name photos.

    Args:
        checkpoint: a run's folder, an exported model's folder, in lit_jax's own format or in ONNX, or the name of one
            on the hub (``hf-hub:OWNER/NAME``); or a config, or its ``.py`` file, of published towers that are not
            trained any further.
        step: of a run: ``best``, ``latest`` or a number.
        image_weights: where the locked image tower's weights are now, if not where the run found them.
        text_weights: likewise of a locked text tower.

    Raises:
        UserError: no model there, a broken one, or one that has no image tower.

    Example::

        model = lit_jax.load("runs/demo")
        for named in model.name("photos", sure=0.8):
            print(named)
    """
    where = "" if isinstance(checkpoint, options.Config) else os.fspath(checkpoint)
    moved = {"image": image_weights, "text": text_weights}
    if where and onnx_folder.is_onnx_folder(pathlib.Path(where)):
        if step != "best" or any(moved.values()):
            raise UserError(f"{where}: found a step or weights beside a model in ONNX, expected none: it holds its own")
        from lit_jax.prediction.with_onnx import WithOnnx

        return Model(WithOnnx(pathlib.Path(where)), title=where, folder=pathlib.Path(where).absolute())
    try:  # late: a model in ONNX needs no JAX
        from lit_jax.models.weight_files import HUB, hub_folder
        from lit_jax.prediction import with_jax
        from lit_jax.trained import loading
    except ModuleNotFoundError as error:
        raise UserError(
            f"{where}: found no package {error.name}, expected JAX and its kin for any model but one in ONNX; install "
            "lit_jax with what it needs, or export the model with --format onnx"
        ) from None

    if isinstance(checkpoint, options.Config):
        return Model(with_jax.of_config(checkpoint))
    if where.endswith(".py"):
        return Model(with_jax.of_config(options.load(where, {})[0], where), title=where)
    folder = str(hub_folder(where)) if where.startswith(HUB) else where
    if folder != where and onnx_folder.is_onnx_folder(pathlib.Path(folder)):
        return load(folder, step=step, image_weights=image_weights, text_weights=text_weights)
    return Model(with_jax.of_folder(folder, where, step, moved), title=where, folder=loading.folder_of(folder))


class Model:
    """A trained model.

    Attributes:
        engine: what computes its embeddings.
        title: where from.
        folder: of the model, for what is kept beside it; None of published towers.
    """

    def __init__(self, engine: Engine, *, title: str = "", folder: pathlib.Path | None = None) -> None:
        self.engine, self.title, self.folder = engine, title, folder
        self._own = choosing.own_classes(engine.about)

    def __repr__(self) -> str:
        known = f"{len(self._own)} classes" if self._own else "no classes of its own"
        return f"<lit_jax model {self.title}, step {self.engine.step}, {known}>"

    @property
    def about(self) -> About:
        """What the model says of itself."""
        return self.engine.about

    @property
    def confidence(self) -> Confidence:
        """How sure the model may be taken to be, and what that was fitted on."""
        factors = self.about.margin.get("factors", {})
        return Confidence(self.engine.scale, factors, _note(self.about))

    def embed_photos(self, photos: Photos, *, batch_size: int | None = None) -> Iterator[np.ndarray]:
        """Embeddings of photos in the common space, one after the other, so that any number takes no memory.

        Photos are read by Pillow in threads, turned upright by their EXIF, and resized as evaluation does it.

        Args:
            photos: paths, pictures, arrays, a folder; see `Photos`.
            batch_size: photos at a time, also if there are fewer; None for 32, or as many as there are.

        Yields:
            `[D]` float32 of unit norm for each photo in order; NaN, with a warning, where one cannot be read.

        Example::

            rows = np.stack(list(model.embed_photos(["a.jpg", "b.jpg"])))
        """
        for batch, rows in self._embedded(photos, batch_size):
            for one, row in zip(batch, rows[: len(batch)], strict=True):
                if one.error:
                    warnings.warn(printable(f"{one.photo}: {one.error}"), stacklevel=2)
                yield row

    def embedded(self, photos: Photos, *, batch_size: int | None = None) -> Iterator[np.ndarray | str]:
        """As `embed_photos`, but what cannot be read gives the reason instead of a vector."""
        for batch, rows in self._embedded(photos, batch_size):
            yield from (one.error or row for one, row in zip(batch, rows[: len(batch)], strict=True))

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of texts as they are: `[N, D]` float32 of unit norm."""
        if isinstance(texts, str):
            raise UserError("texts: found one text, expected a list of them; put it in brackets")
        if not len(texts):
            return np.zeros((0, self.engine.embed_dim), np.float32)
        return self.engine.texts(list(texts))

    def choices(
        self,
        classes: Classes = None,
        *,
        within: Within | None = None,
        only: str | os.PathLike[str] | None = None,
    ) -> Choices:
        """Classes to name photos among, embedded: to name several lots of photos among the same ones.

        Args:
            classes: a class table's path, or labels; None for the classes of the model, those without photos in
                training included.
            within: a column and the value or values wanted there, such as ``{"order": "Odonata"}``.
            only: a file with the names of a region: one a line, or a class table. Names that are no class to choose
                from are told in the notes, with the nearest.

        Raises:
            UserError: nothing to choose from; a file, column or value that is not there.
        """
        about = self.about
        found = choosing.candidates(self._own, classes)
        full, notes = choosing.with_ranks(found.table, self._own), [*found.notes]
        if within:
            full = choosing.within(full, within)
        if only is not None:
            listed = choosing.only(full, pathlib.Path(only))
            full, notes = listed.table, [*notes, *listed.notes]
        # Prompts say what the list says, as in evaluation; what the model knows beyond it is for the ranks.
        table = found.table.subset(full.ids)
        texts = species_prompts(about, table, self.engine.protocol)
        firsts = tuple(dict.fromkeys(table.species_of.values()))
        prompts = [texts[class_id] for class_id in firsts]
        species = among_trained(about, table.subset(firsts), own=True)
        named = full.subset(firsts)
        notes += choosing.alike(named, duplicates([list(one) for one in prompts]))
        own = set(self._own.ids) if self._own else set()
        instead = [texts[class_id] if class_id in own else () for class_id in firsts]
        notes += choosing.unread(named.names, about, "its confidence means nothing there", instead)
        (vectors,) = self.engine.of_each(prompts)
        return Choices(named, vectors, species.seen, held_back(about, species), tuple(notes))

    def name(
        self,
        photos: Photos,
        classes: Classes | Choices = None,
        *,
        within: Within | None = None,
        rank: str = SPECIES,
        top: int = 5,
        sure: float | None = None,
        batch_size: int | None = None,
    ) -> Naming:
        """Names photos, one after the other.

        Args:
            photos: paths, pictures, arrays, a folder; see `Photos`.
            classes: as for `choices`, or what that gave.
            within: likewise.
            rank: ``species``, ``genus`` and so on: of the answers, whose probabilities are sums over the species.
            top: answers a photo.
            sure: if given, each photo also gets the narrowest answer, from `rank` upwards, that is at least so likely.
            batch_size: photos at a time, also if there are fewer; None for 32, or as many as there are.

        Returns:
            An iterator of `Named`; ``.all()`` makes a list, ``.frame()`` a data frame of it. A photo that cannot be
            read has an ``error`` and no answers.

        Raises:
            UserError: as `choices`; a rank that the classes do not have; a number that makes no sense.
        """
        if sure is not None and not 0 < sure <= 1:
            raise UserError(f"sure: found {sure}, expected a share above 0 and at most 1, such as 0.8")
        if top < 1:
            raise UserError(f"top: found {top}, expected at least 1")
        chosen = classes if isinstance(classes, Choices) else self.choices(classes, within=within)
        steps = ladder(chosen.table, chosen.seen)
        if rank not in steps.rungs:
            raise UserError(f"rank: found {rank!r}, expected one of {', '.join(steps.rungs)}, which the classes have")

        def named() -> Iterator[Named]:
            similarities = Similarities(chosen.vectors, chosen.less)
            for batch, rows in self._embedded(photos, batch_size):
                scores = similarities(np.nan_to_num(rows))[: len(batch)]
                likely = self.confidence.probabilities(scores, chosen.seen)
                answers = steps.top(likely, rank, top)
                climbed = steps.climb(likely, rank, sure) if sure is not None else [None] * len(batch)
                for one, best, up in zip(batch, answers, climbed, strict=True):
                    yield Named(one.photo, (), None, one.error) if one.error else Named(one.photo, best, up)

        return Naming(named(), "; ".join([self.confidence.note, *chosen.notes]))

    def search(
        self,
        photos: str | os.PathLike[str] | Sequence[str],
        texts: Sequence[str] = (),
        *,
        like: Sequence[Source] = (),
        top: int = 20,
        index: str | os.PathLike[str] | None = None,
    ) -> list[list[Found]]:
        """Photos by words, or by other photos: every one is compared, as ``lit_jax.search`` does it.

        Args:
            photos: folders, files or patterns. Each photo is looked at once; new ones when they come.
            texts: what to look for; names of the model's classes are asked as these.
            like: photos that others should be like.
            top: photos of each search.
            index: folder where vectors are kept; None for beside the model.

        Returns:
            For each text and then for each photo of `like` the photos found, the nearest first. Texts that the model
            cannot read are warned of.

        Raises:
            UserError: nothing to look for or through; a photo of `like` that cannot be read; no place for the index.
        """
        places = [os.fspath(photos)] if isinstance(photos, str | os.PathLike) else [os.fspath(one) for one in photos]
        folder = pathlib.Path(index) if index else self.folder and searching.folder_beside(self.folder, places)
        if isinstance(texts, str) or not (len(texts) or len(like)):
            raise UserError("texts: found no list of texts, expected one, or photos to look for with like")
        if folder is None:
            raise UserError("index: found none, expected a folder to keep vectors in; published towers have none")
        kept = searching.of_photos(self.engine.image_key, self.embedded, find_photos(places).photos, folder).index
        if not len(kept.vectors):
            raise UserError("photos: found none that can be read, expected at least one")
        asked = []
        if texts:
            prompts, _ = choosing.asked(self.about, texts, self.engine.protocol)
            for line in searching.unread(self.about, texts, prompts):
                warnings.warn(printable(line), stacklevel=2)
            asked.append(class_embeddings(self.embed_texts, prompts))
        asked += searching.liked(self.embedded, like, "like")
        scores, rows = photo_index.nearest(kept.vectors, np.concatenate(asked), top)
        names = iter(kept.photos_of(rows.reshape(-1)))
        return [[Found(next(names), score) for score in of_one] for of_one in scores.tolist()]

    def fitting_batch(self, photos: int, batch_size: int = BATCH) -> int:
        """How many photos to take at a time: of few no more than there are, so that one photo does not cost a batch.

        Raises:
            UserError: fewer than one.
        """
        if batch_size < 1:
            raise UserError(f"batch_size: found {batch_size}, expected at least 1")
        wanted = min(batch_size, 1 << max(photos - 1, 0).bit_length())
        return -(-wanted // self.engine.multiple) * self.engine.multiple

    def _embedded(self, photos: Photos, batch_size: int | None) -> Iterator[tuple[list[reading.Read], np.ndarray]]:
        """Photos that were looked at, a batch at a time, and embeddings `[size, D]`: NaN of broken ones, padding."""
        sources, pictures = _sources(photos), self.engine.pictures
        first = list(itertools.islice(sources, BATCH))
        size = self.fitting_batch(len(first)) if batch_size is None else self.fitting_batch(batch_size, batch_size)
        read = reading.read(itertools.chain(first, sources), pictures, ahead=2 * size)
        side = pictures.size
        for batch in reading.batches(read, size):
            pixels = np.zeros((size, side, side, 3), np.uint8)
            for row, one in zip(pixels, batch, strict=False):
                row[:] = 0 if one.pixels is None else one.pixels
            rows = self.engine.photos(pixels)
            rows[[place for place, one in enumerate(batch) if one.error]] = np.nan
            yield batch, rows


def _sources(photos: Photos) -> Iterator[Source]:
    if isinstance(photos, str | os.PathLike):
        return iter(find_photos([os.fspath(photos)]).photos if pathlib.Path(photos).is_dir() else [photos])
    if isinstance(photos, bytes | Image.Image) or (isinstance(photos, np.ndarray) and photos.ndim < 4):
        return iter([photos])
    return iter(photos)


def _note(about: About) -> str:
    """On which species the confidence was fitted, as a sentence."""
    fitted = about.margin
    if not fitted.get("factors"):
        return (
            "confidence was not fitted for this model: it is the softmax as trained and mostly too sure; use it to "
            "compare answers, not as a probability"
        )
    own = choosing.own_classes(about)
    species = {own.species_of.get(i, i) for i in about.train_classes} if own else set(about.train_classes)
    return (
        f"confidence was fitted on training photos of {len(species)} species, each left out of one of "
        f"{fitted['folds']} trainings; for other species, places and cameras it may be too high"
    )

"""Photos of a data set that TFDS has built. They are not decoded: each lies as a file's bytes in a TFRecord shard."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data_prep.sources import photo_places
from data_prep.sources.items import TRAIN, Item, Request, Skip, Source
from data_prep.sources.labels import label_table
from lit_jax.data.photo import photo_format
from lit_jax.data.records import TFDS_FILES, is_record_set
from lit_jax.data.tfrecord import Buffer, Span, bytes_spans, feature_spans, feature_values, frame_spans, mapped
from lit_jax.errors import UserError
from lit_jax.text.classes import read_class_table

_HEAD = 32  # bytes that tell the format of a photo


def read_tfds(request: Request) -> Source:
    """Photos of an image classification set: one photo and one class label an example.

    `Request.images` is the name of a set, ``name``, ``name/config`` or ``name:version``, that was built in
    `Request.data_dir` (TFDS's own folder if that is ""), or the folder of one. Its splits are the splits, or those of
    `Request.subsets`; a set of which only ``train`` is taken counts as one without splits.

    The labels' names are looked up in the class table. Without one it is made of them: `label_table`.

    Raises:
        UserError: no such set; not one photo and one label at the top of its features; another file format than
            TFRecord; a split that it has not; a shard that is missing or damaged.
    """
    builder = _builder(request)
    image, label = _features(builder)
    _check_files(builder, request.subsets)
    names = tuple(builder.info.features[label].names)
    table = read_class_table(request.classes) if request.classes else label_table(names)
    classes: Sequence[str | int] = names if request.classes else range(len(names))
    splits = request.subsets or tuple(builder.info.splits)
    files = [
        (None if splits == (TRAIN,) else split, Path(path))
        for split in splits
        for path in builder.info.splits[split].filepaths
    ]
    return Source(_items(files, image, label, classes), table)


def _builder(request: Request) -> Any:
    if not request.images:
        raise UserError("--images: found none, expected the name of a TFDS data set or its folder; give it")
    folder = Path(request.images)
    if is_record_set(folder):
        raise UserError(
            f"{folder}: found a record set of this package, expected a data set of others; it is converted already, so "
            "train on it as it is"
        )
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder

    if folder.is_dir():
        missing = [name for name in TFDS_FILES if not (folder / name).is_file()]
        if missing:
            raise UserError(
                f"{folder}: found no {missing[0]}, expected the folder of one version of a data set that TFDS built; "
                "check the path"
            )
        return tfds.builder_from_directory(folder)
    options = {"data_dir": request.data_dir} if request.data_dir else {}
    with contextlib.suppress(ValueError):  # no such set, or no name that a set can have
        return read_only_builder.builder_from_files(request.images, **options)
    where, option = (request.data_dir, f" --data_dir {request.data_dir}") if options else ("TFDS's own folder", "")
    raise UserError(
        f"--images: found no data set {request.images!r} in {where}, expected one that is built; correct the name, or "
        f"build it with: tfds build {request.images.partition(':')[0]}{option}"
    )


def _features(builder: Any) -> tuple[str, str]:
    """Names of the photo and the label, of which there must be one each."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    top = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    images = [name for name, feature in top.items() if isinstance(feature, tfds.features.Image)]
    labels = [name for name, feature in top.items() if isinstance(feature, tfds.features.ClassLabel)]
    if len(images) == 1 and len(labels) == 1:
        return images[0], labels[0]
    found = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in top.items()) or type(features).__name__
    raise UserError(
        f"data set {builder.info.full_name}: found {found}, expected one Image and one ClassLabel; only sets for image "
        "classification can be converted"
    )


def _check_files(builder: Any, subsets: Sequence[str]) -> None:
    from tensorflow_datasets.core import FileFormat

    info = builder.info
    if info.file_format is not FileFormat.TFRECORD:
        raise UserError(
            f"data set {info.full_name}: found files of format {info.file_format.value}, expected tfrecord; build it "
            "again with: tfds build --file_format tfrecord"
        )
    for split in subsets:
        if split not in info.splits:
            raise UserError(f"--subsets: found {split!r}, expected some of {', '.join(info.splits)}; correct it")


def _items(
    files: Sequence[tuple[str | None, Path]], image: str, label: str, classes: Sequence[str | int]
) -> Iterator[Item | Skip]:
    for split, path in files:
        if not path.is_file():
            raise UserError(f"{path}: found no such file, expected a shard of the data set; build it again")
        with mapped(path) as content:
            for number, record in enumerate(frame_spans(content, path)):
                try:
                    photo, chosen = _photo_and_label(content, record, image, label)
                except ValueError as error:
                    raise UserError(
                        f"{path} record {number}: found bytes of another form ({error}), expected a tf.train.Example; "
                        "build the data set again"
                    ) from error
                kind = photo_format(content[photo[0] : photo[0] + _HEAD]) if photo else None
                image_id = f"{path.name}/{number:07d}" + (f".{kind.lower()}" if kind else "")
                if photo is None:
                    yield Skip(image_id, "no photo in its record")
                elif not 0 <= chosen < len(classes):  # -1 where a split has no labels
                    yield Skip(image_id, "no class in its record")
                else:
                    yield Item(photo_places.span(path, photo[0], photo[1] - photo[0]), classes[chosen], split, image_id)


def _photo_and_label(content: Buffer, record: Span, image: str, label: str) -> tuple[Span | None, int]:
    """Where the photo's bytes are, None if there are none, and the number of the label, -1 if there is none."""
    features = feature_spans(content, *record)
    photos = bytes_spans(content, *features[image]) if image in features else []
    numbers = feature_values(content, *features[label]) if label in features else []
    number = numbers[0] if numbers else -1
    return photos[0] if photos else None, number if isinstance(number, int) else -1

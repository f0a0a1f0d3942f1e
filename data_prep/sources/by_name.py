"""The kinds of sources by name, and what a conversion asks of each.

A new kind is a reader in a file of its own, which takes a `Request` and returns a `Source`, and a line in `SOURCES`.
"""

from collections.abc import Callable, Iterable

from data_prep.sources.folder import check_level, read_csv, read_folder
from data_prep.sources.imagenet_shifts import read_by_number, read_by_wordnet_id, read_objectnet
from data_prep.sources.inat2021 import read_inat2021
from data_prep.sources.items import Item, Request, Skip, Source
from data_prep.sources.labels import label_table
from data_prep.sources.tfds_sets import read_tfds
from data_prep.sources.webdataset import read_webdataset
from lit_jax.errors import UserError
from lit_jax.text.classes import ClassTable, read_class_table

Reader = Callable[[Request], Source]


def _folder(request: Request) -> Source:
    released = [name for name in ("train.json", "train_mini.json", "val.json") if (request.folder / name).is_file()]
    if released and request.splits is None:
        raise UserError(
            f"{request.folder}: found {released[0]}, as iNaturalist 2021 was released, expected class folders; add "
            "--source inat2021, or list the photos with --splits"
        )
    passed: list[Skip] = []
    found = read_folder(
        request.folder, request.splits, split_names=request.split_names, level=request.class_level, passed=passed
    )
    items, table = _with_table(found, request)
    if request.splits is None and not request.class_level:
        check_level(items, table if request.classes else None)
    return Source([*items, *passed], table)


def _csv(request: Request) -> Source:
    if request.splits is None:
        raise UserError("--splits: found none, expected the CSV that lists the photos; give it")
    return Source(*_with_table(read_csv(request.splits, request.folder if request.images else None), request))


def _with_table(found: Iterable[Item], request: Request) -> tuple[list[Item], ClassTable]:
    """The items with the class table that is given or, where there is none, one of the names that the items have."""
    given = read_class_table(request.classes) if request.classes else None
    items = list(found)
    if given:
        return items, given
    names = sorted({item.class_name for item in items if isinstance(item.class_name, str) and item.class_name})
    if not names:
        raise UserError(
            "photos: found none in a class folder, expected folders named like the classes; check the path or give a "
            "list with --splits"
        )
    return items, label_table(names)


SOURCES: dict[str, Reader] = {
    "folder": _folder,
    "csv": _csv,
    "inat2021": read_inat2021,
    "webdataset": read_webdataset,
    "tfds": read_tfds,
    "imagenet-v2": read_by_number,
    "imagenet-r": read_by_wordnet_id,
    "imagenet-a": read_by_wordnet_id,
    "imagenet-sketch": read_by_wordnet_id,
    "objectnet": read_objectnet,
}
"""Readers by the name that ``--source`` takes."""

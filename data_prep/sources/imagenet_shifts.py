"""ImageNet's relatives that test a classifier elsewhere: ImageNet-V2, -R, -A, -Sketch and ObjectNet, as released.

All are folders of classes without a training split. The first four name folders by WordNet ids or, in V2, by numbers;
what those are called stands in a list that comes with ImageNet. ObjectNet has names and lists of its own.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from data_prep.sources.folder import read_folder
from data_prep.sources.items import VALIDATION, Item, Request, Source
from data_prep.sources.labels import label_table
from lit_jax.base import foreign, tables
from lit_jax.errors import UserError
from lit_jax.text.classes import ClassTable, match_folders, read_class_table

OBJECTNET_NAMES = "mappings/folder_to_objectnet_label.json"
OBJECTNET_TO_IMAGENET = "mappings/objectnet_to_imagenet_1k.json"
_IMAGENET = "imagenet"  # the subset of ObjectNet whose classes ImageNet has


def read_by_wordnet_id(request: Request) -> Source:
    """Folders named by WordNet ids (ImageNet-R, -A, -Sketch); `Request.classes` as `read_names` reads it.

    Only classes with a folder are in the table: ImageNet-R and -A have 200 of the 1,000.

    Raises:
        UserError: no list of names, or a folder that it does not have.
    """
    return _source(request, _names(request))


def read_by_number(request: Request) -> Source:
    """Folders named by numbers from 0 (ImageNet-V2): places of the classes in the order of their WordNet ids.

    Raises:
        UserError: no list of names, or a folder whose number it does not reach.
    """
    table = _names(request)
    order = sorted(range(len(table)), key=lambda row: table.columns["folder"][row])
    ordered = table.subset([table.ids[row] for row in order])
    numbers = tuple(map(str, range(len(ordered))))
    columns = {**ordered.columns, "wordnet_id": ordered.columns["folder"], "folder": numbers}
    return _source(request, ClassTable(ordered.ids, columns))


def read_objectnet(request: Request) -> Source:
    """ObjectNet: folders ``images/CLASS``, and names in ``mappings``; subset ``imagenet`` takes the classes it shares.

    Raises:
        UserError: no such lists, another subset.
    """
    if set(request.subsets) - {_IMAGENET}:
        raise UserError(f"--subsets: found {', '.join(request.subsets)}, expected {_IMAGENET} or nothing; correct it")
    names = _json(request.folder / OBJECTNET_NAMES)
    if request.subsets:
        shared = _json(request.folder / OBJECTNET_TO_IMAGENET)
        names = {folder: name for folder, name in names.items() if name in shared}
    blank = ("",) * len(names)
    columns = {
        "name": tuple(map(str, names.values())),
        "common_name": blank,
        "supercategory": blank,
        "folder": tuple(names),
    }
    table = read_class_table(request.classes) if request.classes else ClassTable(tuple(range(len(names))), columns)
    images = request.folder / "images"
    found = (item for item in read_folder(images if images.is_dir() else request.folder, level=1))
    return Source(_validation(item for item in found if item.class_name in names), table)


def read_names(path: Path) -> ClassTable:
    """Names of ImageNet's classes: a class table with a column ``folder``, or one of the lists that go around.

    Those are ``LOC_synset_mapping.txt`` (``n01440764 tench, Tinca tinca`` a line) and ``imagenet_class_index.json``
    (``{"0": ["n01440764", "tench"], ...}``). Of several names the first counts; where two classes share it, all of
    them, and where those are the same, the WordNet id is added, lest two classes be one.

    Raises:
        UserError: a file of another form.
    """
    if path.suffix == ".txt":
        lines = tables.lines_of(tables.read_text(path, "a WordNet id and names a line"))
        rows = [line.split(maxsplit=1) for line in lines if line.strip()]
        if not rows or any(len(row) < 2 or not row[0].startswith("n") for row in rows):
            raise UserError(f"{path}: found a line of another form, expected a WordNet id and names; check the file")
        return _table([row[0] for row in rows], [row[1] for row in rows])
    if path.suffix == ".json":
        found = _json(path)
        rows = [row for row in found.values() if isinstance(row, list) and all(isinstance(cell, str) for cell in row)]
        if len(rows) == len(found) and all(len(row) == 2 for row in rows):
            ids, names = zip(*rows, strict=True)
            return _table(ids, [name.replace("_", " ") for name in names])
    table = read_class_table(path)
    if "folder" not in table.columns:
        raise UserError(f"{path}: found no column folder, expected WordNet ids in it; add or rename one")
    return table


def _table(folders: Sequence[str], synonyms: Sequence[str]) -> ClassTable:
    first = [names.split(",")[0].strip() for names in synonyms]
    names = [one if first.count(one) == 1 else whole for one, whole in zip(first, synonyms, strict=True)]
    counted = collections.Counter(names)
    names = [f"{one} ({where})" if counted[one] > 1 else one for one, where in zip(names, folders, strict=True)]
    table = label_table(names)
    return ClassTable(table.ids, {**table.columns, "folder": tuple(folders), "synonyms": tuple(synonyms)})


def _names(request: Request) -> ClassTable:
    if request.classes is None:
        raise UserError(
            "--classes: found none, expected the names of ImageNet's classes (LOC_synset_mapping.txt, "
            "imagenet_class_index.json, or a CSV with folder and name); give it"
        )
    return read_names(request.classes)


def _source(request: Request, table: ClassTable) -> Source:
    items = list(_validation(read_folder(request.folder, level=1)))
    folders = sorted({str(item.class_name) for item in items if item.class_name})
    if not folders:
        raise UserError(f"{request.folder}: found no class folder, expected those of the release; check the path")
    return Source(items, table.subset(sorted(match_folders(table, folders).values())))


def _validation(items: Iterator[Item]) -> Iterator[Item]:
    return (item._replace(split=VALIDATION) for item in items)


def _json(path: Path) -> Mapping[str, object]:
    found: Mapping[str, object] = foreign.read_json(path, "names of classes", "check the file", dict)
    if not found:
        raise UserError(f"{path}: found no names, expected names of classes; check the file")
    return found

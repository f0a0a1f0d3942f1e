"""The kinds of sources by name, and what a conversion asks of each.

A new kind is a reader in a file of its own, which takes a `Request` and returns a `Source`, and a line in `SOURCES`.
"""

from collections.abc import Callable

from data_prep.folder import read_csv, read_folder
from data_prep.plan import Request, Source
from lit_jax.classes import ClassTable, read_class_table
from lit_jax.errors import UserError

Reader = Callable[[Request], Source]


def _folder(request: Request) -> Source:
    return Source(read_folder(request.folder, request.splits), _table(request))


def _csv(request: Request) -> Source:
    if request.splits is None:
        raise UserError("--splits: found none, expected the CSV that lists the photos; give it")
    return Source(read_csv(request.splits, request.folder if request.images else None), _table(request))


def _table(request: Request) -> ClassTable:
    if request.classes is None:
        raise UserError("--classes: found none, expected a class table, CSV or JSON; give it")
    return read_class_table(request.classes)


SOURCES: dict[str, Reader] = {"folder": _folder, "csv": _csv}
"""Readers by the name that ``--source`` takes."""

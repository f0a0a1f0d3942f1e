"""A collection of photos: a record set, or the embedding store that stands in for one."""

import pathlib

from lit_jax import config as options
from lit_jax.data.dataset_folder import check_split
from lit_jax.data.embedding_store import Store, is_store, open_store
from lit_jax.data.records import RecordSet, is_record_set, open_records
from lit_jax.errors import UserError

Collection = RecordSet | Store
STORE = "_store"
"""Ending of the folder of a store beside that of its records."""


def fingerprint(collection: Collection) -> str:
    """What tells one collection of photos from another, whether they are at hand or only their embeddings."""
    return collection.records if isinstance(collection, Store) else collection.fingerprint


def open_collection(data: options.Data, *, as_store: bool) -> Collection:
    """The record set of the options, or the embedding store.

    Raises:
        UserError: no folder is named, or it holds nothing of that kind.
    """
    if as_store:
        return open_store(store_folder(data))
    return open_records(_required(data.records, "data.records", "folder of a record set"))


def at_hand(data: options.Data, *, as_store: bool) -> Collection | None:
    """The collection of the options if it is there and complete; where a store is not, its records; else None."""
    if as_store and (data.store or data.records) and is_store(store_folder(data)):
        return open_store(store_folder(data))
    if data.records and is_record_set(pathlib.Path(data.records)):
        return open_records(data.records)
    return None


def store_folder(data: options.Data) -> pathlib.Path:
    """Where the embedding store of the options is: `data.store`, else beside the records."""
    if data.store:
        return pathlib.Path(data.store)
    records = _required(data.records, "data.store and data.records", "folder of a store, or of its records")
    return pathlib.Path(records.rstrip("/") + STORE)


def check_splits(data: options.Data, collection: Collection) -> None:
    """Refuses options that name splits which the collection does not hold.

    Raises:
        UserError: naming the option and the splits that there are.
    """
    for option in ("train_split", "seen_split", "heldout_split"):
        split = getattr(data, option)
        # A record set may hold nothing out; but a name that was chosen must be there.
        may_lack = option == "heldout_split" and split == options.OPTIONS["data.heldout_split"].default
        if split and not may_lack:
            check_split(split, collection.splits, collection.directory, option=f"data.{option}")


def _required(value: str, name: str, what: str) -> str:
    if not value:
        raise UserError(f"{name}: found nothing, expected a {what}; set it in the config or with --config.{name}=...")
    return value

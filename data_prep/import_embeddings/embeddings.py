"""Imports embeddings that were computed elsewhere into an embedding store.

Any backbone of any framework can so be the locked tower: neither its weights nor the photos are needed. Classes,
splits, held-out species and validation photos are those that `data_prep.convert` would choose for photos of the same
names, by the same code; what lies in the files is read shard by shard and never held in memory as a whole, but for
``.npz``, which cannot be mapped.

Work is done in ``DIR.incomplete``, and the last step renames that folder; the same command goes on where it stopped.
"""

import dataclasses
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.conversion.convert import table_digest, with_templates, write_tokenizer
from data_prep.conversion.options import Options, check_options, facts
from data_prep.conversion.plan import Planned, shard_photos
from data_prep.conversion.texts import table_warnings, texts_of
from data_prep.conversion.workspace import disk_errors_in_one_line
from data_prep.import_embeddings.embedding_files import (
    Embeddings,
    Given,
    Rows,
    note_twins,
    placed_rows,
)
from data_prep.import_embeddings.heads import HeadUse, rows_with_head
from data_prep.sources.items import HELDOUT, TRAIN
from lit_jax.base.console import say
from lit_jax.base.files import alone_in, clear_parts, incomplete
from lit_jax.base.folders import recover, resolved
from lit_jax.data import embedding_store
from lit_jax.errors import UserError
from lit_jax.text.classes import ClassTable, some, write_class_table

SHARD_ROWS = 1 << 16


class About(NamedTuple):
    """What the manifest says of the rows, JSON values; see `lit_jax.data.embedding_store.Store`."""

    tower: dict[str, Any]
    records: str
    dtype: str
    width: int


@dataclasses.dataclass(frozen=True)
class Storing:
    """How embeddings are stored.

    Attributes:
        dtype: to store in, one of `lit_jax.data.embedding_store.DTYPES`.
        shard_rows: at most so many rows a shard.
        tower_name: what made the embeddings, in words; by default the name of their file. It is how a later
            evaluation on another store knows that it is of the same tower.
    """

    dtype: str = "float16"
    shard_rows: int = SHARD_ROWS
    tower_name: str = ""


def import_embeddings(
    given: Given | None,
    table: ClassTable,
    out: str | Path,
    options: Options | None = None,
    storing: Storing | None = None,
    *,
    head: HeadUse | None = None,
    restart: bool = False,
) -> embedding_store.Store:
    """Writes a store, or goes on writing it.

    Args:
        given: the embeddings and the list of their photos; without labels where there is a head, or None.
        table: the classes.
        out: the folder to make; ``out.incomplete`` is used in the meantime.
        options: of captions, splits and tokenizer; those of photos have no meaning here.
        storing: how to store them; by default `Storing()`.
        head: a classifier's last layer, whose rows are stored too; see `rows_with_head`.
        restart: replace what an earlier run left in these folders, finished or not.

    Returns:
        The store, opened; one that is there already, of the same embeddings and options, stays as it is.

    Raises:
        UserError: a bad option; a folder of something else, or a store, finished or not, of other embeddings or
            options; an embedding that is not finite or too large for `dtype`; a full disk; and all that
            `match_rows`, `data_prep.conversion.plan.place_items` and `rows_with_head` refuse.
    """
    options, notes = with_templates(options or Options(), table)
    storing = storing or Storing()
    _check(options, storing)
    out = resolved(out)
    recover(out, embedding_store.is_ours, "import", whole=embedding_store.MANIFEST)
    embedding_store.refuse_foreign(out)  # before the embeddings are read
    captions = texts_of(table, options)
    placed = _placed(given, table, options, head)
    embeddings, photos, row_of = placed.embeddings, placed.photos, placed.row_of
    views = f"{embeddings.views} view{'s' if embeddings.views > 1 else ''}"
    classes = len({photo.class_id for photo in photos})
    say(f"{len(photos)} embeddings of {classes} classes, width {embeddings.width}, {views}", flush=True)
    for line in (*notes, *placed.notes, *(f"warning: {line}" for line in table_warnings(table, captions))):
        say(line, flush=True)
    rows = [row_of[photo.image_id] for photo in photos]
    digest, hashes = embeddings.scan()
    note_twins(photos, np.array(rows), hashes)
    tower = _tower(storing.tower_name or embeddings.title, embeddings.width)
    records = _records_digest(photos, table)
    if given is not None and given.tower is not None:
        tower = dict(given.tower)
    plan = {
        **_plan_options(options),
        "tower": tower,
        "array of embeddings": [digest, embeddings.parts[0].dtype.name, embeddings.views],
        "list, split or class": [records, _digest(rows)],
        "dtype": storing.dtype,
        "shard_rows": storing.shard_rows,
        **placed.about,
    }
    about = About({**tower, **placed.about, "import": _digest(plan)}, records, storing.dtype, embeddings.width)
    if embedding_store.is_store(out) and not restart:
        return _up_to_date(out, about)
    if placed.untrained and not options.allow_no_training:
        raise UserError(placed.untrained)
    with disk_errors_in_one_line(out), alone_in(incomplete(out), "import"):
        aside = embedding_store.begin(out, plan, restart=restart)
        clear_parts(aside)
        write_class_table(table, aside / embedding_store.CLASS_TABLE)
        write_tokenizer(aside / embedding_store.TOKENIZER, photos, table, captions, options)
        shards = _shards(photos, options.seed, storing.shard_rows)
        written = _write_shards(aside, shards, embeddings, row_of, storing.dtype)
        made = _finish(aside, out, shards, written, embeddings.views, about, options)
    say("\n".join(_summary(made, table)), flush=True)
    return made


def _placed(given: Given | None, table: ClassTable, options: Options, head: HeadUse | None) -> Rows:
    if head is not None:
        return rows_with_head(given, head, table, options)
    if given is None:
        raise ValueError("neither embeddings nor a head")
    return placed_rows(given, table, options)


def _tower(name: str, width: int) -> dict[str, Any]:
    """The tower, known by its name and width alone: photos embedded later are then of the same tower."""
    digest = hashlib.sha256(f"{name}/{width}".encode()).hexdigest()
    return {"kind": embedding_store.GIVEN, "name": name, "width": width, "digest": digest}


def _up_to_date(out: Path, about: About) -> embedding_store.Store:
    """The store that is there already, if it is what would be made."""
    found = embedding_store.open_store(out)
    if found.tower != about.tower:
        raise UserError(
            f"{out}: found a store of other embeddings or options, expected the same; make it anew with --restart, or "
            "give another --out"
        )
    say(f"{out} is up to date", flush=True)
    return found


def _check(options: Options, storing: Storing) -> None:
    check_options(options)
    if storing.dtype not in embedding_store.DTYPES:
        raise UserError(f"dtype: found {storing.dtype!r}, expected {', '.join(embedding_store.DTYPES)}; correct it")
    if storing.shard_rows < 1:
        raise UserError(f"shard_rows: found {storing.shard_rows}, expected 1 or more; correct it")


def _plan_options(options: Options) -> dict[str, Any]:
    """Options that decide the bytes of a store, as JSON values; others decide what is in the plan already."""
    values = facts(options)
    return {name: values[name] for name in ("templates", "drop_repeats", "seed", "vocab_size", "tokenizer")}


def _records_digest(photos: Sequence[Planned], table: ClassTable) -> str:
    """What is the same for all embeddings of the same photos, classes and splits."""
    rows = sorted((photo.image_id, photo.class_id, photo.split) for photo in photos)
    return _digest([table_digest(table), rows])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _shards(photos: Sequence[Planned], seed: int, shard_rows: int) -> dict[str, list[list[Planned]]]:
    """The photos of each shard, by split; in the order that a conversion would give them."""
    photos_of: dict[str, list[Planned]] = defaultdict(list)
    for photo in photos:
        photos_of[photo.split].append(photo)
    return {
        split: shard_photos(members, seed=seed, shards=len(embedding_store.shard_bounds(len(members), shard_rows)))
        for split, members in sorted(photos_of.items())
    }


def _write_shards(
    aside: Path,
    shards: Mapping[str, Sequence[Sequence[Planned]]],
    embeddings: Embeddings,
    row_of: Mapping[str, int],
    dtype: str,
) -> dict[str, list[embedding_store.StoreShard]]:
    written: dict[str, list[embedding_store.StoreShard]] = {split: [] for split in shards}
    done, total = 0, sum(len(part) for parts in shards.values() for part in parts)
    for split, parts in shards.items():
        for i, photos in enumerate(parts):
            name = embedding_store.shard_name(split, i, len(parts))
            shard = embedding_store.finished_shard(aside, name)
            if shard is None:
                ids = [photo.image_id for photo in photos]
                rows = np.array([row_of[image_id] for image_id in ids])
                features = embeddings.take(rows, _views(split, embeddings.views))
                class_ids = np.array([photo.class_id for photo in photos])
                shard = embedding_store.write_shard(aside, name, features, class_ids, ids, dtype=dtype)
            written[split].append(shard)
            done += len(photos)
            say(f"{name}: {len(photos)} rows, {done} of {total} in all", flush=True)
    return written


def _finish(
    aside: Path,
    out: Path,
    shards: Mapping[str, Sequence[Sequence[Planned]]],
    written: Mapping[str, Sequence[embedding_store.StoreShard]],
    views: int,
    about: About,
    options: Options,
) -> embedding_store.Store:
    store = embedding_store.Store(
        directory=aside,
        splits={split: tuple(found) for split, found in written.items()},
        views={split: _views(split, views) for split in shards},
        width=about.width,
        dtype=about.dtype,
        record_lengths={split: tuple(len(part) for part in parts) for split, parts in shards.items()},
        tower=about.tower,
        class_table=aside / embedding_store.CLASS_TABLE,
        tokenizer=aside / embedding_store.TOKENIZER if options.tokenizer or options.vocab_size else None,
        templates=options.templates,
        drop_repeats=options.drop_repeats,
        class_ids={split: tuple({p.class_id for part in parts for p in part}) for split, parts in shards.items()},
        records=about.records,
    )
    return embedding_store.finish(store, out)


def _views(split: str, views: int) -> int:
    """Views that a split keeps: photos are evaluated as they are, and view 0 is that."""
    return views if split == TRAIN else 1


def _summary(made: embedding_store.Store, table: ClassTable) -> list[str]:
    lines = [f"{'split':12} {'rows':>9} {'classes':>8} {'views':>6} {'shards':>7} {'MB':>9}"]
    lines += [
        f"{split:12} {made.examples(split):>9} {len(made.classes_in(split)):>8} {made.views[split]:>6} "
        f"{len(made.shards(split)):>7} {made.nbytes(split) / 1e6:>9.1f}"
        for split in made.splits
    ]
    if HELDOUT in made.splits:
        names = [table.names[table.index_of(class_id)] for class_id in made.classes_in(HELDOUT)]
        lines.append(f"held out: {some(names)}")
    return [*lines, f"wrote {made.directory}"]

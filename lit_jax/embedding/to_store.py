"""Embed once: ``python -m lit_jax.embed --config=configs/cub.py`` runs the frozen tower over a record set.

What comes out is an embedding store (`lit_jax.data.embedding_store`); training with ``input = "store"`` reads it in
place of photos. Work is done in ``STORE.incomplete``, shard by shard; a run that was stopped in whatever way goes on
with the first shard that is missing, and the last step renames the folder. Equal records, tower, options and devices
give equal bytes; on another number of devices, or on processors of another make, features may differ by rounding.
"""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from lit_jax import config as options
from lit_jax.base import console, hosts
from lit_jax.base.console import say
from lit_jax.base.files import alone_in, incomplete
from lit_jax.base.folders import recover, resolved
from lit_jax.base.hosts import Host, asked_of_first_host, on_first_host, until_seen
from lit_jax.base.sharding import check_divides, local_rows, make_mesh, put_replicated
from lit_jax.base.stopping import Stopping, listening
from lit_jax.data import device_resizing, embedding_store, record_batches
from lit_jax.data.dataset_folder import MANIFEST, check_split
from lit_jax.data.embedding_store import Store
from lit_jax.data.records import RecordSet
from lit_jax.embedding.photo_embeddings import embedder
from lit_jax.errors import Busy, Stopped, UserError
from lit_jax.models import building
from lit_jax.models.building import Towers
from lit_jax.models.locking import IMAGE, Params
from lit_jax.models.settled import crop_options, described_image
from lit_jax.models.two_tower import TwoTower
from lit_jax.settling import open_tokenizer, tokenizer_path
from lit_jax.text.units import kinds_of, unlimited

PATIENCE = 60
"""Seconds that the last part waits for another one that is finishing the store."""


class Piece(NamedTuple):
    """One shard to write: its split, its name, its rows from `first` to `stop`, and how many views of each."""

    split: str
    name: str
    first: int
    stop: int
    views: int


@dataclasses.dataclass(frozen=True)
class Making:
    """How a store is made.

    Attributes:
        dtype: of the stored features: float16, bfloat16 or float32.
        views: V of the training split. View 0 is the photo as evaluation sees it, the others are random crops by
            ``data.crop_scale`` and ``data.flip``. Other splits have one view.
        batch_size: photos at a time, over all devices of a host.
        shard_rows: rows of a shard at the most.
        devices: of each host to use; 0 for all.
    """

    dtype: str = "float16"
    views: int = 1
    batch_size: int = 256
    shard_rows: int = 16384
    devices: int = 0


@dataclasses.dataclass(frozen=True)
class Frozen:
    """The locked image tower that is run, and the preprocessing of its photos.

    Attributes:
        towers: settled options; the image tower is locked and has weights.
        data: options of the records: the training split, its crops, and the tokenizer.
    """

    towers: Towers
    data: options.Data


def embed(
    frozen: Frozen, records: RecordSet, out: str | pathlib.Path, making: Making, *, restart: bool = False,
    notes: Sequence[str] = (), part: Host | None = None,
) -> Store | None:  # fmt: skip
    """Writes the store of records and an image tower, or goes on writing it.

    Several hosts write shards of their own into the same folder. So do processes that know nothing of each other, each
    with a `part`; that which finds all shards there finishes the store.

    Args:
        frozen: the tower.
        records: the photos.
        out: the folder to make.
        making: how.
        restart: make anew what is there already.
        notes: printed before the work begins.
        part: which part of the shards this process writes, of how many; None for those of this host.

    Returns:
        The store; None after a part while shards of other parts are missing.

    Raises:
        UserError: no weights, a complete store, an unfinished one with other options, another process at work on it,
            a feature that the dtype cannot hold.
        Stopped: if it was asked to, after the shard that it was at.
    """
    out = resolved(out)
    mesh = make_mesh(making.devices, local=True)
    check_divides(making.batch_size, mesh.size, name="--batch-size")
    is_there = asked_of_first_host(lambda: _is_there(out), "whether there is a store to embed into")
    with contextlib.ExitStack() as stack:
        if part is not None:
            locks, file = locks_of(out), f"part-{part.index}-of-{part.count}.lock"
            stack.enter_context(alone_in(locks, "embedding", file=file, name=f"{out}, part {part.index}/{part.count}"))
        elif restart or not is_there:
            on_first_host(lambda: stack.enter_context(alone_in(incomplete(out), "embedding")), "the store's folder")
        for note in notes if jax.process_index() == 0 else ():
            say(f"note: {note}")
        if is_there and not restart:
            return _unchanged(frozen, records, out, making)
        return _embed(frozen, records, out, making, mesh, restart=restart, part=part)


def _is_there(out: pathlib.Path) -> bool:
    recover(out, embedding_store.is_ours, "embedding", whole=MANIFEST)
    return embedding_store.is_store(out)


def locks_of(out: pathlib.Path) -> pathlib.Path:
    """Where the locks of parts and the logs of hosts lie, since the store's own folder holds nothing but the store."""
    out = resolved(out)
    return out.with_name(f"{out.name}_hosts")


def _embed(
    frozen: Frozen, records: RecordSet, out: pathlib.Path, making: Making, mesh: Mesh, *, restart: bool,
    part: Host | None,
) -> Store | None:  # fmt: skip
    """`embed` in a folder in which no other process is at work, or none on this part."""
    model, tower, digest = locked_tower(frozen, records)
    made_by = described(frozen, digest, making.views)
    pieces = list(all_pieces(records, frozen.data.train_split, making))
    plan = {
        "records": records.fingerprint, "tower": made_by, "dtype": making.dtype, "views": making.views,
        "shard rows": making.shard_rows,
    }  # fmt: skip
    if device_resizing.settled(building.pictures_of(frozen.towers.image, frozen.data), mesh).whole:
        plan["data.resize_on"] = "device"  # its pixels may differ by 1 from those of the host
    on_first_host(lambda: embedding_store.begin(out, plan, restart=restart), "the store's folder")
    aside = incomplete(out)
    tower = building.stored(frozen.towers, model, {IMAGE: tower})[IMAGE]
    host = part or hosts.this_host()
    own = pieces[host.index :: host.count]
    todo = [piece for piece in own if embedding_store.finished_shard(aside, piece.name) is None]
    through = _Through(frozen, records, model, put_replicated(tower, mesh), mesh, making)
    with listening(
        f"after this shard of up to {making.shard_rows:,} photos, which is lost otherwise", steps=False
    ) as stopping:
        left = through.write(aside, todo, stopping, done=len(own) - len(todo))
        # A host that has been asked to stop comes here as well, so that none waits for it.
        everywhere = [int(count) for count in hosts.exchange("all shards are written", str(left))]
    if any(everywhere):
        raise Stopped(
            f"stopped as asked, {sum(everywhere)} of {len(pieces)} shards are left; run the same command to go on"
        )

    def finish() -> Store:
        return _finish(aside, out, pieces, records, frozen, making.dtype, made_by)

    if part is None:
        on_first_host(finish, "the store")
        until_seen(out / MANIFEST)
    elif not _finished_together(aside, out, pieces, finish):
        return None
    return embedding_store.open_store(out)


def _finished_together(
    aside: pathlib.Path, out: pathlib.Path, pieces: Sequence[Piece], finish: Callable[[], Store]
) -> bool:
    """Finishes the store if all shards are there; whether it is finished, by this process or by another part."""
    for _ in range(PATIENCE):
        if embedding_store.is_store(out):
            return True
        if any(embedding_store.finished_shard(aside, piece.name) is None for piece in pieces):
            return embedding_store.is_store(out)  # finished in between, or not yet to be
        try:
            with alone_in(aside, "embedding"):
                if embedding_store.is_store(out):  # finished, and its folder renamed, since it was asked above
                    return True
                finish()
        except Busy:
            time.sleep(1)  # another part is at it
    raise UserError(f"{aside}: found another embedding at work in it for {PATIENCE} s; wait for it or stop it")


def _unchanged(frozen: Frozen, records: RecordSet, out: pathlib.Path, making: Making) -> Store:
    """A store that is there already, if it is what would be made."""
    until_seen(out / MANIFEST)
    found, dtype = embedding_store.open_store(out), making.dtype
    tower = described(frozen, locked_tower(frozen, records)[2], making.views)
    views = {piece.split: piece.views for piece in all_pieces(records, frozen.data.train_split, making)}
    other = [f"views ({max(found.views.values())} there, {max(views.values())} asked for)"] * (found.views != views)
    other += [f"dtype ({found.dtype} there, {dtype} asked for)"] * (found.dtype != dtype)
    other += ["records"] * (found.records != records.fingerprint)
    # The crops are part of the tower's description only where there are any: other views differ in them by nature.
    other += ["tower or crops"] * (found.views == views and found.tower != tower)
    if other:
        raise UserError(
            f"{found.directory}: found a store of other {', '.join(other)}, expected the same; make it anew with "
            "--restart, or give another --out"
        )
    if jax.process_index() == 0:
        embedding_store.clear_progress(found)
        say(f"{found.directory} is up to date; --verify compares its files with their checksums")
    return found


def locked_tower(frozen: Frozen, records: RecordSet) -> tuple[TwoTower, Params, str]:
    """The model, the image tower's parameters in float32, and their digest.

    Raises:
        UserError: weights that are missing or of another tower.
    """
    # The text tower does not run here: what it will know is not asked.
    units = unlimited(kinds_of(frozen.towers.text.units))
    tokenizer = dataclasses.replace(open_tokenizer(frozen.data.tokenizer, records), units=units)
    model = building.build_model(frozen.towers, tokenizer)
    params, found = building.load_tower(frozen.towers, model, IMAGE)
    return model, params, found.digest


def described(frozen: Frozen, digest: str, views: int) -> dict[str, Any]:
    """What the store remembers of its tower: enough to refuse it for another one."""
    image, data = frozen.towers.image, frozen.data
    # Only what is so: a store that was made before there was an option stays the one that the config asks for.
    crops = {**crop_options(data, views), **({"seed": frozen.towers.seed} if views > 1 else {})}
    known = {**described_image(image), **crops}
    return {
        "kind": image.tower,
        "digest": digest,
        "precision": frozen.towers.precision,
        "options": {name: list(v) if isinstance(v, tuple) else v for name, v in known.items()},
    }


def all_pieces(records: RecordSet, train_split: str, making: Making) -> Iterator[Piece]:
    """Every shard of the store to be."""
    check_split(train_split, records.splits, records.directory, option="data.train_split")
    for split in records.splits:
        bounds = embedding_store.shard_bounds(records.examples(split), making.shard_rows)
        for number, (first, stop) in enumerate(bounds):
            name = embedding_store.shard_name(split, number, len(bounds))
            yield Piece(split, name, first, stop, making.views if split == train_split else 1)


@dataclasses.dataclass(frozen=True)
class _Through:
    """Photos on their way through the tower, whose parameters lie on the mesh."""

    frozen: Frozen
    records: RecordSet
    model: TwoTower
    tower: Params
    mesh: Mesh
    making: Making

    @property
    def features(self) -> Callable[[Params, jax.Array], jax.Array]:
        """The jitted tower."""
        return embedder(self.model, self.mesh).features

    def write(self, aside: pathlib.Path, pieces: Sequence[Piece], stopping: Stopping, *, done: int) -> int:
        """Writes shards one after the other, with progress, until it is asked to stop.

        `done` of them were finished before. Returns how many are left.
        """
        total = sum(piece.stop - piece.first for piece in pieces)
        with console.Progress(total, quiet=jax.process_index() != 0) as progress:
            if done:
                progress.line(f"{done} of {done + len(pieces)} shards were finished before")
            written, start = 0, time.monotonic()
            for number, piece in enumerate(pieces):
                if stopping.anywhere():
                    return len(pieces) - number
                parts = []
                for part in self.embedded(piece):
                    parts.append(part)
                    written += len(part[1])
                    rate = written / max(time.monotonic() - start, 1e-9)
                    text = f"{written:,} of {total:,} photos, {rate:.0f} a second"
                    progress.show(written, text, seconds_left=(total - written) / rate)
                values, class_ids, image_ids = (np.concatenate(column) for column in zip(*parts, strict=True))
                names = [image_id.decode() for image_id in image_ids]
                embedding_store.write_shard(aside, piece.name, values, class_ids, names, dtype=self.making.dtype)
            seconds = time.monotonic() - start
            progress.line(f"{total:,} photos through the tower in {console.duration(seconds)}")
        return 0

    def embedded(self, piece: Piece) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Features `[b, V, W]`, class ids `[b]` and image ids `[b]` of a shard, a batch at a time."""
        size, devices = self.making.batch_size, self.mesh.size
        pictures = device_resizing.settled(building.pictures_of(self.frozen.towers.image, self.frozen.data), self.mesh)
        records = max(1, size // piece.views)
        photos = record_batches.view_batches(
            self.records, piece.split, rows=range(piece.first, piece.stop), batch_size=records, pictures=pictures,
            views=piece.views, seed=self.frozen.towers.seed,
        )  # fmt: skip
        # One shape is compiled whatever the number of views; all is enqueued before the first result is fetched.
        whole = _multiple(records, devices)
        rows = whole * piece.views if pictures.whole else _multiple(records * piece.views, devices)

        def put(batch: record_batches.HostBatch) -> tuple[jax.Array, record_batches.HostBatch]:
            pixels: record_batches.HostBatch = {}
            if "image" in batch:
                pixels["image"] = _filled(batch["image"].reshape(-1, *batch["image"].shape[2:]), rows)
            else:
                pixels = {name: _filled(batch[name], whole) for name in ("photo", "place")}
            return self.features(self.tower, device_resizing.put_squares(pixels, self.mesh, pictures)), batch

        for features, batch in record_batches.ahead(photos, put):
            count = len(batch["class_id"])
            found = local_rows(features)[: count * piece.views].reshape(count, piece.views, -1)
            yield found, batch["class_id"], batch["image_id"]


def _multiple(number: int, of: int) -> int:
    """The least multiple that is not below a number."""
    return -(-number // of) * of


def _filled(rows: np.ndarray, number: int) -> np.ndarray:
    """So many rows: the first one again and again behind those there are."""
    return np.concatenate([rows, np.repeat(rows[:1], number - len(rows), 0)]) if len(rows) < number else rows


def _finish(
    aside: pathlib.Path, out: pathlib.Path, pieces: Sequence[Piece], records: RecordSet, frozen: Frozen, dtype: str,
    tower: dict[str, Any],
) -> Store:  # fmt: skip
    shards: dict[str, list[embedding_store.StoreShard]] = {split: [] for split in records.splits}
    for piece in pieces:
        shard = embedding_store.finished_shard(aside, piece.name)
        if shard is None:
            raise UserError(
                f"{aside / piece.name}: found no such shard, expected one of each host; use a shared folder"
            )
        shards[piece.split].append(shard)
    store = Store(
        directory=aside,
        splits={split: tuple(found) for split, found in shards.items()},
        views={piece.split: piece.views for piece in pieces},
        width=np.load(aside / f"{pieces[0].name}.features.npy", mmap_mode="r").shape[-1],
        dtype=dtype,
        record_lengths={split: tuple(shard.examples for shard in found) for split, found in records.splits.items()},
        tower=tower,
        class_table=records.class_table,
        tokenizer=tokenizer_path(frozen.data.tokenizer) or records.tokenizer,
        templates=records.templates,
        drop_repeats=records.drop_repeats,
        class_ids={split: records.classes_in(split) for split in records.splits},
        records=records.fingerprint,
    )
    return embedding_store.finish(store, out)

r"""Pairs a second of locked-image training: from a store, from photos, and open_clip with its image tower locked.

    python -m benchmarks.pairs_per_second --records data/cub_records

The towers are ViT-B/16 at 224 pixels and the recorded text tower (63.4 M parameters, context 77) on every side, in
float32, with the same batch size, the same captions and the same tokens (those of CLIP, from open_clip). Weights are
random: they do not change the time. Each side runs in a process of its own, one after the other; sides from photos run
with the photos decoded before the clock starts, and once more from JPEG: our records by ``tf.data``, and for open_clip
a webdataset tar of the same photos.

``--captions`` replaces each photo's caption by a random one of a class table with many more classes, where hardly any
two pairs of a batch share one: the case in which distinct captions save least.
"""

import argparse
import functools
import io
import itertools
import json
import pathlib
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import machine
from benchmarks.recorded import CONTEXT, END, ClipTokens, recorded_text_tower, start
from lit_jax import models
from lit_jax.base.sharding import make_mesh, put_batch
from lit_jax.data import embedding_store, input_stream, record_batches, unique_captions
from lit_jax.data.images import Pictures
from lit_jax.data.records import RecordSet, open_records
from lit_jax.errors import user_errors_in_one_line
from lit_jax.models.two_tower import TwoTower
from lit_jax.text.captions import TEMPLATE, class_captions
from lit_jax.text.classes import read_class_table

SIZE, WIDTH = 224, 768
SIDES = {
    "store": "lit_jax from a store",
    "photos": "lit_jax from photos in memory",
    "jpeg": "lit_jax from JPEG records",
    "open_clip": "open_clip --lock-image, photos in memory",
    "open_clip_jpeg": "open_clip --lock-image, from JPEG",
}


def captions_of(records: RecordSet, other: str) -> dict[int, tuple[str, ...]]:
    """Captions by class id: the records' own, or for each class its part of those of another class table."""
    own = read_class_table(records.class_table)
    if not other:
        return dict(zip(own.ids, class_captions(own, records.templates), strict=True))
    many = [text for group in class_captions(read_class_table(other), [TEMPLATE]) for text in group]
    parts = np.array_split(np.random.default_rng(0).permutation(len(many)), len(own))
    return {class_id: tuple(many[i] for i in part) for class_id, part in zip(own.ids, parts, strict=True)}


def ours(side: str, records: RecordSet, captions: dict[int, tuple[str, ...]], batch: int, steps: int) -> dict[str, Any]:
    """Seconds a step of one of our paths."""
    mesh = make_mesh()
    image = models.ViT(patch=16, width=WIDTH, depth=12, heads=12) if side != "store" else None
    model = TwoTower(image, recorded_text_tower(), embed_dim=512, width=WIDTH)
    state, locked, step = start(model, mesh, image_size=SIZE)
    stream = _stream(side, records, captions, batch, mesh)
    first = next(stream)
    compiled = step.lower(state, locked, first).compile()
    with machine.Clock() as clock:
        for item in itertools.chain([first], itertools.islice(stream, steps - 1)):
            # Shapes may differ by a bucket; the step compiles another one only then.
            same = jax.tree.map(jnp.shape, item) == jax.tree.map(jnp.shape, first)
            state, metrics = (compiled if same else step)(state, locked, item)
        loss = float(metrics["loss"])
    return {
        "steps": steps, "wall_s": clock.wall, "cpu_s": clock.cpu, "loss": loss,
        "text_rows": len(first["tokens"]), "text_tokens": first["tokens"].shape[1],
    }  # fmt: skip


def _stream(side: str, records: RecordSet, captions: dict[int, Any], batch: int, mesh: Any) -> Iterator[Any]:
    table = unique_captions.caption_table(captions, lambda batch: ClipTokens().encode(batch, CONTEXT))
    tokenise = functools.partial(ClipTokens().encode, context=CONTEXT)
    batches, rows = record_batches.Batches(batch, seed=0), input_stream.TextRows(END, each_once=True, bucket=8)
    if side == "store":
        folder = pathlib.Path(tempfile.mkdtemp()) / "store"
        made = _random_store(records, folder)
        stored = input_stream.open_split(made, "train", mesh, place="auto")
        return input_stream.from_store(stored, mesh, batches=batches, captions=table, rows=rows)(0)
    if side == "jpeg":
        return input_stream.from_records(
            records, "train", mesh, batches=batches, pictures=Pictures(SIZE), tokenise=tokenise, rows=rows
        )(0)
    return _in_memory(records, table, batch, mesh)


def _in_memory(records: RecordSet, table: unique_captions.CaptionTable, batch: int, mesh: Any) -> Iterator[Any]:
    photos = next(
        record_batches.view_batches(records, "train", rows=range(batch), batch_size=batch, pictures=Pictures(SIZE))
    )
    rng = np.random.default_rng(0)
    while True:
        drawn = table.tokens[table.drawn(photos["class_id"], rng.integers(1 << 62, size=batch))]
        few = unique_captions.bucketed(unique_captions.distinct(drawn), end_id=END, rows=mesh.size, grain=8)
        assert few.caption is not None
        yield put_batch({"image": photos["image"][:, 0], "tokens": few.tokens, "caption": few.caption}, mesh)


def _random_store(records: RecordSet, folder: pathlib.Path) -> embedding_store.Store:
    """A store of the right shape with the records' own classes; its features are random."""
    count = records.examples("train")
    aside = embedding_store.begin(folder, {})
    ids = np.concatenate(
        [
            b["class_id"]
            for b in record_batches.view_batches(
                records, "train", rows=range(count), batch_size=256, pictures=Pictures(8)
            )
        ]
    )
    features = np.random.default_rng(0).normal(size=(count, 1, WIDTH)).astype(np.float16)
    name = embedding_store.shard_name("train", 0, 1)
    shard = embedding_store.write_shard(aside, name, features, ids, [str(i) for i in range(count)], dtype="float16")
    return embedding_store.finish(embedding_store.Store(
        directory=aside, splits={"train": (shard,)}, views={"train": 1}, width=WIDTH, dtype="float16",
        record_lengths={"train": (count,)}, tower={"kind": "given", "digest": ""}, class_table=records.class_table,
        tokenizer=records.tokenizer, templates=records.templates, drop_repeats=records.drop_repeats,
        class_ids={"train": records.classes_in("train")}, records=records.fingerprint,
    ), folder)  # fmt: skip


def theirs(
    side: str, records: RecordSet, captions: dict[int, tuple[str, ...]], batch: int, steps: int
) -> dict[str, Any]:
    """Seconds a step of open_clip: its model, lock, loss, transform and tokenizer, and torch's AdamW."""
    open_clip = machine.open_clip()
    import torch

    model, transform, _ = open_clip.create_model_and_transforms("ViT-B-16")
    model.lock_image_tower()
    model.train()
    moving = [p for p in model.parameters() if p.requires_grad]
    adamw = torch.optim.AdamW(moving, lr=5e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1)
    loss_of = open_clip.ClipLoss()
    stream = _their_batches(side, records, captions, batch, transform, open_clip.get_tokenizer("ViT-B-16"))

    def step(images: Any, tokens: Any) -> float:
        adamw.zero_grad()
        image, text, scale = model(images, tokens)[:3]
        loss = loss_of(image, text, scale)
        loss.backward()
        adamw.step()
        return float(loss.detach())

    images, tokens = next(stream)
    step(images[:8], tokens[:8])  # memory and threads are set up
    with machine.Clock() as clock:
        loss = step(images, tokens)
        for more_images, more_tokens in itertools.islice(stream, steps - 1):
            loss = step(more_images, more_tokens)
    return {
        "steps": steps, "wall_s": clock.wall, "cpu_s": clock.cpu, "loss": loss, "text_rows": batch,
        "text_tokens": CONTEXT,
    }  # fmt: skip


def _their_batches(
    side: str, records: RecordSet, captions: dict[int, Any], batch: int, transform: Any, tokenizer: Any
) -> Iterator[Any]:
    import torch
    import webdataset

    folder = pathlib.Path(tempfile.mkdtemp())
    _write_tar(records, captions, folder / "photos.tar")

    def prepared(sample: dict[str, Any]) -> tuple[Any, Any]:
        return transform(sample["jpg"]), tokenizer(sample["txt"])[0]

    shards = webdataset.SimpleShardList([str(folder / "photos.tar")])
    stages = (webdataset.tarfile_to_samples(), webdataset.shuffle(1000), webdataset.decode("pilrgb"),
              webdataset.map(prepared), webdataset.batched(batch, partial=False))  # fmt: skip
    loader = webdataset.WebLoader(webdataset.DataPipeline(shards, *stages).repeat(), batch_size=None, num_workers=1)
    stream = iter(loader)
    if side == "open_clip":
        images, tokens = next(stream)
        return itertools.repeat((torch.as_tensor(images), torch.as_tensor(tokens)))
    return stream


def _write_tar(records: RecordSet, captions: dict[int, tuple[str, ...]], path: pathlib.Path) -> None:
    """The training photos and a caption of each as webdataset reads them."""
    from lit_jax.data.images import tensorflow
    from lit_jax.data.records import parse_example

    tf, rng = tensorflow(), np.random.default_rng(0)
    with tarfile.open(path, "w") as tar:
        stream = tf.data.TFRecordDataset([str(file) for file in records.files("train")])
        for number, serialized in enumerate(stream):
            example = parse_example(serialized)
            caption = rng.choice(captions[int(example["class_id"])])
            for ending, content in (("jpg", example["image"].numpy()), ("txt", str(caption).encode())):
                member = tarfile.TarInfo(f"{number:06d}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def main(argv: Sequence[str] | None = None) -> None:
    """The command: runs every side, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pairs_per_second", description=(__doc__ or "").split("\n")[0]
    )
    add = parser.add_argument
    add("--records", required=True, help="record set of photos with a train split")
    add("--captions", default="", help="class table whose captions are given to the photos at random")
    add("--batch", type=int, default=512)
    add("--steps", type=int, default=1, help="of the sides with photos; the store's side takes five times as many")
    add("--sides", default="", help=f"which to run, in this order: {','.join(SIDES)}")
    add("--side", default="", help=argparse.SUPPRESS)
    add("--out", default="")
    parsed = parser.parse_args(argv)
    with user_errors_in_one_line():
        records = open_records(parsed.records)
        captions = captions_of(records, parsed.captions)
        if parsed.side:
            run = theirs if parsed.side.startswith("open_clip") else ours
            steps = parsed.steps * (5 if parsed.side == "store" else 1)
            print(json.dumps(run(parsed.side, records, captions, parsed.batch, steps)))
            return
        found = {}
        # Records hold the captions they were made with; others can be given only to photos in memory.
        default = ("store", "photos", "open_clip") if parsed.captions else tuple(SIDES)
        for side in parsed.sides.split(",") if parsed.sides else default:
            start = time.perf_counter()
            shared = (f"--records={parsed.records}", f"--captions={parsed.captions}", f"--batch={parsed.batch}")
            found[side] = machine.side(
                "benchmarks.pairs_per_second", *shared, f"--steps={parsed.steps}", f"--side={side}"
            )
            print(f"{SIDES[side]}: {time.perf_counter() - start:.0f} s in all, {found[side]}", flush=True)
    _show(found, parsed)


def _show(found: dict[str, dict[str, Any]], parsed: argparse.Namespace) -> None:
    rows, result = [], {}
    for side, one in found.items():
        if "failed" in one:
            result[side] = one
            rows.append([SIDES[side], one["failed"], "", "", ""])
            continue
        rate = parsed.batch * one["steps"] / one["wall_s"]
        result[side] = {**one, "pairs_per_s": rate}
    for side, one in result.items():
        if "pairs_per_s" in one:
            ratio = result["store"]["pairs_per_s"] / one["pairs_per_s"] if "store" in result else float("nan")
            one["store_is_faster_by"] = ratio
            text = f"{one['text_rows']} x {one['text_tokens']}"
            rows.append(
                [SIDES[side], f"{one['pairs_per_s']:.2f}", f"{one['cpu_s'] / one['steps']:.0f}", text, f"{ratio:.1f}"]
            )
    headings = ["side", "pairs/s", "CPU s a step", "texts x tokens", "store / this"]
    print(machine.table(headings, rows))
    what = {"batch": parsed.batch, "own_captions": not parsed.captions, "towers": "ViT-B/16 224, recorded text tower"}
    machine.write(
        "pairs_per_second" + ("_many_captions" if parsed.captions else ""), {**what, "sides": result}, parsed.out
    )


if __name__ == "__main__":
    main()

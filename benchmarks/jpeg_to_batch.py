r"""Photos a second from JPEG bytes to training batches on one core: ours, open_clip's loader, decoding alone.

    python -m benchmarks.jpeg_to_batch --records data/cub_records --side-px 0,500
    python -m benchmarks.jpeg_to_batch --table benchmarks/results/jpeg_to_batch.json

Sides, each in a process of its own that may run on ``--cores`` cores only, from its first instruction on, and all of
them in turn, ``--rounds`` times:

* ours: `record_batches.training_batches` from the record set; bytes `[B, 224, 224, 3]`, as the model takes them. Once
  more with the conversion to float32 that open_clip does on the host and our model on its device, and once with
  memory that TensorFlow gives back to the system, as it does by itself;
* open_clip: its own training loader (`open_clip_train.data`) with as many worker processes as cores, and its transform
  for training, from webdataset tars of the same photos and captions;
* whole: the same stream of ours with ``data.resize_on = "device"``: what is left to the host where a device resizes;
* decoding of the same bytes to full-size RGB and nothing else, by libjpeg-turbo (simplejpeg), by TensorFlow and by
  Pillow: a floor for whoever decodes whole photos; one thread, so on one core only;
* resizing alone, of photos that are decoded, to the plain view: in TensorFlow's graph, as our host does it, by
  TensorFlow's own operation, as it did before, by NumPy as in `lit_jax.data.resizing`, by Pillow, and by JAX's program
  for devices on this CPU. On one core only; the JSON tells by how much their pixels differ from the first one's;
* from JPEGs to the plain view in TensorFlow's graph, one thread, decoded in full, and with ``data.shrink_decoding``. By
  how much pixels differ is in the JSON, and with ``--checkpoint`` by how much the features of that model's image tower
  do: 1 less the cosine.

A side whose package is missing is left out, and said so.

``--side-px`` scales the photos first, up or down, until the longer side has so many pixels; 0 leaves them as they are.
``--table`` prints the tables of docs/benchmarks.md from results that are there.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import io
import itertools
import json
import os
import pathlib
import statistics
import tarfile
import tempfile
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks import machine
from lit_jax.errors import UserError, user_errors_in_one_line

CONTEXT, TARS = 77, 4
OURS = ("ours", "ours_float", "ours_given_back", "whole")
RESIZED = 256  # photos that are resized again and again
DECODING = ("simplejpeg", "tensorflow", "pillow")
RESIZING = ("resize_tensorflow", "resize_before", "resize_numpy", "resize_pillow", "resize_jax")
SHRINKING = ("square", "square_shrunk")
ONE_THREAD = (*DECODING, *RESIZING, *SHRINKING)
MEASURED = ("images", "wall_s", "cpu_s", "cores")  # of a side; all else in its result is what it made
SIDES = {
    "ours": "lit_jax",
    "ours_float": "lit_jax, float32 on the host",
    "ours_given_back": "lit_jax, memory given back to the system",
    "whole": "lit_jax, a device resizes",
    "open_clip": "open_clip's loader",
    "simplejpeg": "decoding alone, libjpeg-turbo",
    "tensorflow": "decoding alone, TensorFlow",
    "pillow": "decoding alone, Pillow",
    "resize_tensorflow": "resizing alone, in TensorFlow (our host)",
    "resize_before": "resizing alone, TensorFlow's own operation",
    "resize_numpy": "resizing alone, NumPy (predict)",
    "resize_pillow": "resizing alone, Pillow",
    "resize_jax": "resizing alone, JAX (our devices)",
    "square": "JPEG to square, decoded in full",
    "square_shrunk": "JPEG to square, data.shrink_decoding",
}
NEEDS = {"open_clip": ("open_clip", "open_clip_train", "webdataset", "pandas"), "simplejpeg": ("simplejpeg",)}

Resize = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]


# One side, in its own process ----------------------------------------------------------------------------------------


def ours(records: str, batch: int, size: int, side: str) -> Iterator[int]:
    """Photos in each batch of ours, endlessly."""
    from lit_jax.data import images, record_batches
    from lit_jax.data.images import Pictures
    from lit_jax.data.records import open_records
    from lit_jax.text.tokenizers import load_tokenizer

    if side == "ours_given_back":
        os.environ[images.KEEPS_MEMORY] = "0"
    record_set = open_records(records)
    if record_set.tokenizer is None:
        raise UserError(f"{records}: found no tokenizer, expected a record set with one")
    tokenizer = load_tokenizer(record_set.tokenizer)
    stream = record_batches.training_batches(
        record_set, "train", batches=record_batches.Batches(batch, seed=0),
        pictures=Pictures(size, resize_on="device" if side == "whole" else "host"),
        tokenise=lambda texts: tokenizer.encode(texts, CONTEXT),
    )  # fmt: skip
    for one in stream:
        if side == "ours_float":
            pixels = one["image"].astype(np.float32)
            pixels /= 127.5
            pixels -= 1
        yield len(one["class_id"])


def open_clip_loader(tars: str, batch: int, size: int, workers: int) -> Iterator[int]:
    """Photos in each batch of open_clip's training loader, with its own stages and settings."""
    open_clip = machine.open_clip()
    import webdataset
    from open_clip_train import data

    # Their copy of this stage stumbles over the mark that a newer webdataset sets at the end of a tar.
    data.tarfile_to_samples_nothrow = webdataset.tarfile_to_samples(handler=data.log_and_continue)
    options = types.SimpleNamespace(
        train_data=f"{tars}/{{00000..{TARS - 1:05d}}}.tar", train_num_samples=1 << 30, batch_size=batch,
        workers=workers, world_size=1, seed=0, dataset_resampled=False, train_data_upsampling_factors=None,
    )  # fmt: skip
    transform = open_clip.image_transform(size, is_train=True)
    tokenizer = open_clip.get_tokenizer("ViT-B-16")
    loader = data.get_wds_dataset(options, transform, is_train=True, tokenizer=tokenizer).dataloader
    for images, _ in loader:
        yield len(images)


def decoding(side: str, tars: str, batch: int) -> Iterator[int]:
    """Photos decoded, `batch` at a time: whole, to RGB, from memory."""
    photos = list(_photos_of(pathlib.Path(tars)))
    decode: Callable[[bytes], Any]
    if side == "simplejpeg":
        import simplejpeg

        decode = simplejpeg.decode_jpeg
    elif side == "tensorflow":
        from lit_jax.data import images

        images.tensorflow().config.threading.set_intra_op_parallelism_threads(1)
        decode = images.decoded
    else:
        import PIL.Image

        def decode(photo: bytes) -> Any:
            return PIL.Image.open(io.BytesIO(photo)).convert("RGB")

    endless = itertools.cycle(photos)
    while True:
        for photo in itertools.islice(endless, batch):
            decode(photo)
        yield batch


def resizing(side: str, photos: Sequence[np.ndarray], size: int) -> Resize:
    """From those decoded photos `[H, W, 3]` uint8, or some of them, to their plain views `[S, S, 3]` uint8."""
    from lit_jax.data import images
    from lit_jax.data.images import Pictures
    from lit_jax.data.resizing import square

    pictures = Pictures(size)
    if side == "resize_numpy":
        return lambda some: [square(photo, pictures) for photo in some]
    if side == "resize_pillow":
        return lambda some: [_by_pillow(photo, size) for photo in some]
    if side == "resize_jax":
        return _by_jax(photos, pictures)
    if side == "resize_before":
        return _in_a_graph(photos, pictures, lambda photo, place: _by_its_own_operation(photo, place, size))
    return _in_a_graph(photos, pictures, lambda photo, place: images.placed(photo, place, pictures))


def _in_a_graph(photos: Sequence[np.ndarray], pictures: Any, resize: Callable[[Any, Any], Any]) -> Resize:
    """One after the other in a pipeline of TensorFlow, so that no call from Python is measured."""
    from lit_jax.data import images

    tf = images.tensorflow()
    stored = tf.data.Dataset.from_tensor_slices(([photo.tobytes() for photo in photos], [p.shape for p in photos]))

    @tf.autograph.experimental.do_not_convert
    def squared(pixels: Any, shape: Any) -> Any:
        photo = tf.reshape(tf.io.decode_raw(pixels, tf.uint8), shape)
        return resize(photo, pictures.plain_place(shape[:2]))

    endless = _one_thread(tf, stored.map(squared).repeat()).as_numpy_iterator()
    # Whichever are asked for: as many of the next, from the first one on.
    return lambda some: list(itertools.islice(endless, len(some)))


def _one_thread(tf: Any, rows: Any) -> Any:
    options = tf.data.Options()
    options.threading.private_threadpool_size = options.threading.max_intra_op_parallelism = 1
    return rows.with_options(options)


def _by_its_own_operation(photo: Any, place: Any, size: int) -> Any:
    """The plain view by an operation that TensorFlow has for it."""
    from lit_jax.data import images

    tf = images.tensorflow()
    place = tf.cast(place, tf.float32)
    pixels = tf.raw_ops.ScaleAndTranslate(
        images=photo[None], size=[size, size], scale=place[4:6] / place[2:4], translation=-place[6:8],
        kernel_type="keyscubic", antialias=True,
    )[0]  # fmt: skip
    return tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)


def _by_pillow(photo: np.ndarray, size: int) -> np.ndarray:
    """Pillow's own resize, of no more than the middle square needs."""
    import PIL.Image

    height, width = photo.shape[:2]
    short = min(height, width)
    full = (size * width // short, size * height // short)
    left, top = (round((side - size) / 2) for side in full)
    scale = (width / full[0], height / full[1])
    box = (left * scale[0], top * scale[1], (left + size) * scale[0], (top + size) * scale[1])
    image = PIL.Image.fromarray(photo)
    return np.asarray(image.resize((size, size), PIL.Image.Resampling.BICUBIC, box=box))


def _by_jax(photos: Sequence[np.ndarray], pictures: Any) -> Resize:
    import jax

    from lit_jax.data import device_resizing, whole_photos

    rungs = [
        min(rung for rung in whole_photos.LADDER if rung >= most) for most in np.max([p.shape for p in photos], 0)[:2]
    ]
    whole = np.zeros((len(photos), *rungs, 3), np.uint8)
    for row, photo in zip(whole, photos, strict=True):
        row[: photo.shape[0], : photo.shape[1]] = photo
    places = np.stack([pictures.plain_place(photo.shape[:2]).numpy()[None] for photo in photos])
    resize = jax.jit(lambda *rows: device_resizing.squares(*rows, size=pictures.size))
    # Whichever are asked for: as many of the first.
    return lambda some: list(np.asarray(resize(whole[: len(some)], places[: len(some)]))[:, 0])


def resized(resize: Resize, photos: Sequence[np.ndarray], batch: int) -> Iterator[int]:
    """Photos resized, `batch` at a time."""
    while True:
        resize(photos[:batch])
        yield batch


def differences(side: str, photos: Sequence[np.ndarray], size: int) -> dict[str, float]:
    """By how much the pixels of a side differ from those of our host."""
    return _differ(*(np.stack(resizing(one, photos, size)(photos)) for one in (side, "resize_tensorflow")))


def _differ(got: np.ndarray, want: np.ndarray) -> dict[str, float]:
    wrong = np.abs(got.astype(int) - want)
    return {
        "largest_difference": int(wrong.max()),
        "mean_difference": float(wrong.mean()),
        "differ": float((wrong > 0).mean()),
        "by_more_than_1": float((wrong > 1).mean()),
    }


def shrinking(side: str, parsed: argparse.Namespace) -> tuple[Iterator[int], dict[str, Any]]:
    """Photos made squares, `batch` at a time, and by how much pixels and features differ from those of whole ones."""
    from lit_jax.data import images
    from lit_jax.data.images import Augmentation, Pictures

    pictures, features = _tower(parsed) if parsed.checkpoint else (Pictures(parsed.size), None)
    tf = images.tensorflow()
    files = list(itertools.islice(_photos_of(pathlib.Path(parsed.tars)), max(RESIZED, parsed.batch)))
    rows = tf.data.Dataset.from_tensor_slices(files)

    def squares(*, shrink: bool) -> Any:
        how = dataclasses.replace(pictures, augmentation=Augmentation("centre"), shrink=shrink)
        return _one_thread(tf, rows.map(tf.autograph.experimental.do_not_convert(how.plain)))

    mine = squares(shrink=side == "square_shrunk")
    got, want = (next(iter(one.batch(parsed.batch))).numpy() for one in (mine, squares(shrink=False)))
    found: dict[str, Any] = _differ(got, want)
    if features is not None:
        ours, theirs = (features(one) for one in (got, want))
        cosines = np.sum(ours * theirs, 1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
        found |= {"features_move": float(1 - cosines.mean()), "features_move_at_most": float(1 - cosines.min())}
    endless = mine.repeat().batch(parsed.batch)
    return (len(one) for one in endless), found


def _tower(parsed: argparse.Namespace) -> tuple[Any, Callable[[np.ndarray], np.ndarray]]:
    """What a model turns photos into, and its image tower: `[N, S, S, 3]` uint8 to features in float64."""
    import jax

    from lit_jax import models
    from lit_jax.models import building
    from lit_jax.models.locking import IMAGE
    from lit_jax.trained import loading

    weights = {IMAGE: parsed.image_weights} if parsed.image_weights else {}
    trained = loading.load(parsed.checkpoint, step="best", weight_files=weights, with_image_tower=True)
    features = jax.jit(lambda pixels: models.image_features(trained.model, trained.params[IMAGE], pixels))

    def of(pixels: np.ndarray) -> np.ndarray:
        parts = [np.asarray(features(pixels[first : first + 32]), np.float64) for first in range(0, len(pixels), 32)]
        return np.concatenate(parts)

    return building.pictures_of(trained.config.image), of


def measured(side: str, parsed: argparse.Namespace) -> dict[str, Any]:
    """Photos, seconds and CPU seconds of the steady state: buffers are full at both ends."""
    cores = len(os.sched_getaffinity(0))
    found: dict[str, Any] = {}
    if side in RESIZING:
        from lit_jax.data import images

        files = itertools.islice(_photos_of(pathlib.Path(parsed.tars)), max(RESIZED, parsed.batch))
        photos = [images.decoded(file).numpy() for file in files]
        stream = resized(resizing(side, photos, parsed.size), photos, parsed.batch)
        found = differences(side, photos[: parsed.batch], parsed.size)
    elif side in SHRINKING:
        stream, found = shrinking(side, parsed)
    elif side in OURS:
        stream = ours(parsed.records, parsed.batch, parsed.size, side)
    elif side == "open_clip":
        stream = open_clip_loader(parsed.tars, parsed.batch, parsed.size, cores)
    else:
        stream = decoding(side, parsed.tars, parsed.batch)
    return {**_timed(stream, parsed), "cores": cores, **found}


def _timed(stream: Iterator[int], parsed: argparse.Namespace) -> dict[str, Any]:
    for _ in range(parsed.skip):
        next(stream)
    count, before = 0, _workers_cpu()
    wall = cpu = 0.0
    while count < parsed.images and wall < parsed.seconds:
        with machine.Clock() as clock:
            count += next(stream)
        wall, cpu = wall + clock.wall, cpu + clock.cpu
    after = _workers_cpu()
    cpu += sum(after[worker] - before.get(worker, 0.0) for worker in after)
    return {"images": count, "wall_s": wall, "cpu_s": cpu}


def _workers_cpu() -> dict[int, float]:
    """CPU seconds of each living child process, which the system adds to the parent's only when they end."""
    found = {}
    tick = os.sysconf("SC_CLK_TCK")
    for path in pathlib.Path("/proc/self/task").glob("*/children"):
        for child in path.read_text().split():
            with contextlib.suppress(OSError):
                # The name in parentheses may hold blanks; user and system ticks are fields 14 and 15.
                fields = pathlib.Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
                found[int(child)] = (int(fields[11]) + int(fields[12])) / tick
    return found


# The photos ----------------------------------------------------------------------------------------------------------


def _photos_of(tars: pathlib.Path) -> Iterator[bytes]:
    for path in sorted(tars.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if member.name.endswith(".jpg") and file is not None:
                    yield file.read()


def examples(records: str) -> Iterator[tuple[bytes, int, str]]:
    """JPEG, class id and first caption of each training photo."""
    from lit_jax.data.images import tensorflow
    from lit_jax.data.records import open_records, parse_example

    files = [str(file) for file in open_records(records).files("train")]
    for serialized in tensorflow().data.TFRecordDataset(files):
        example = parse_example(serialized)
        yield example["image"].numpy(), int(example["class_id"]), example["captions"][0].numpy().decode()


def write_tars(records: str, folder: pathlib.Path) -> dict[str, Any]:
    """The training photos and captions of a record set as webdataset reads them; says what the photos are like."""
    import PIL.Image

    folder.mkdir()
    sizes, lengths = [], []
    with contextlib.ExitStack() as stack:
        tars = [stack.enter_context(tarfile.open(folder / f"{number:05d}.tar", "w")) for number in range(TARS)]
        for number, (photo, _, caption) in enumerate(examples(records)):
            sizes.append(PIL.Image.open(io.BytesIO(photo)).size)
            lengths.append(len(photo))
            for ending, content in (("jpg", photo), ("txt", caption.encode())):
                member = tarfile.TarInfo(f"{number:06d}.{ending}")
                member.size = len(content)
                tars[number % TARS].addfile(member, io.BytesIO(content))
    return {
        "photos": len(sizes),
        "median_width": statistics.median(width for width, _ in sizes),
        "median_height": statistics.median(height for _, height in sizes),
        "mean_bytes": statistics.fmean(lengths),
    }


def scaled_records(records: str, side_px: int, limit: int, folder: pathlib.Path) -> str:
    """A record set of the first `limit` training photos, scaled until the longer side has `side_px` pixels."""
    import PIL.Image

    from data_prep.conversion.convert import convert
    from data_prep.conversion.options import Options
    from data_prep.sources.folder import read_folder
    from data_prep.sources.items import Source
    from lit_jax.data.records import open_records
    from lit_jax.text.classes import read_class_table

    for number, (photo, class_id, _) in enumerate(itertools.islice(examples(records), limit)):
        image = PIL.Image.open(io.BytesIO(photo)).convert("RGB")
        scale = side_px / max(image.size)
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
        path = folder / "photos" / str(class_id) / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=90)
    record_set = open_records(records)
    options = Options(validation_fraction=0.0, allow_empty_classes=True, tokenizer=record_set.tokenizer)
    table = read_class_table(record_set.class_table)
    out = folder / "records"
    with contextlib.redirect_stdout(io.StringIO()):
        convert(Source(read_folder(folder / "photos"), table), out, options, workers=1)
    return str(out)


# All sides -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def on_cores(number: int) -> Iterator[None]:
    """Processes that start meanwhile may run on `number` cores only: threads are counted before any code of ours."""
    before = os.sched_getaffinity(0)
    if not 0 < number <= len(before):
        raise UserError(f"--cores: found {number}, expected 1 to {len(before)}")
    os.sched_setaffinity(0, sorted(before)[:number])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def compared(runs: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Of each side the round with the most photos a second and that with the fewest CPU seconds.

    Streams of batches are compared with open_clip's, by the clock and by CPU time, and with decoding alone, whose CPU
    time is a share of theirs.
    """
    made: dict[str, dict[str, Any]] = {}
    for side, rounds in runs.items():
        failed = next((one for one in rounds if "failed" in one), None)
        rates = [] if failed else [one["images"] / one["wall_s"] for one in rounds]
        cpu = [] if failed else [1000 * one["cpu_s"] / one["images"] for one in rounds]
        made[side] = failed or {
            "images_per_s": max(rates),
            "images_per_s_by_round": rates,
            "cpu_s_per_1000": min(cpu),
            "cpu_s_per_1000_by_round": cpu,
            "images": [one["images"] for one in rounds],
            **{name: value for name, value in rounds[-1].items() if name not in MEASURED},
        }
    theirs = made.get("open_clip", {})
    decoded = {side: made[side]["cpu_s_per_1000"] for side in DECODING if "images_per_s" in made.get(side, {})}
    for side, one in made.items():
        if "images_per_s" not in one or side in ONE_THREAD:
            continue
        if "images_per_s" in theirs:
            one["rate_by_open_clips"] = one["images_per_s"] / theirs["images_per_s"]
            one["open_clips_cpu_by_this"] = theirs["cpu_s_per_1000"] / one["cpu_s_per_1000"]
        one["share_of_decoding"] = {name: cpu / one["cpu_s_per_1000"] for name, cpu in decoded.items()}
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """The command: every side at every size of photo and number of cores, the table and the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.jpeg_to_batch", description=(__doc__ or "").split("\n")[0]
    )
    add = parser.add_argument
    add("--records", default="", help="record set of photos with a train split and a tokenizer")
    add("--side-px", default="0", help="longer sides to which the photos are scaled; 0: as they are")
    add("--photos", type=int, default=1000, help="how many photos are scaled; they come round again")
    add("--cores", default="1", help="numbers of cores")
    add("--size", type=int, default=224, help="side of the squares, pixels")
    add("--batch", type=int, default=128)
    add("--skip", type=int, default=4, help="batches before the clock starts")
    add("--images", type=int, default=2000, help="photos that are timed")
    add("--seconds", type=float, default=30.0, help="no longer than this")
    add("--rounds", type=int, default=3, help="processes of each side, in turns")
    add("--sides", default=",".join(SIDES), help="which to run, in this order")
    add("--checkpoint", default="", help="model whose features tell what decoding small ones changes")
    add("--image-weights", default="", help="of its image tower, if they are not where they were")
    add("--table", nargs="+", default=(), type=pathlib.Path, help="print the tables of results that are there")
    add("--side", default="", help=argparse.SUPPRESS)
    add("--tars", default="", help=argparse.SUPPRESS)
    add("--out", default="")
    parsed = parser.parse_args(argv)
    with user_errors_in_one_line():
        if parsed.side:
            print(json.dumps(measured(parsed.side, parsed)), flush=True)
            return
        if parsed.table:
            print(tables([json.loads(path.read_text(encoding="utf-8")) for path in parsed.table]))
            return
        if not parsed.records:
            raise UserError("--records: found none, expected a record set, or results with --table")
        if not set(parsed.sides.split(",")) <= set(SIDES):
            raise UserError(f"--sides: found {parsed.sides}, expected some of {', '.join(SIDES)}")
        sets = []
        for side_px in map(int, parsed.side_px.split(",")):
            with tempfile.TemporaryDirectory() as folder:
                sets.append(_one_set(parsed, side_px, pathlib.Path(folder)))
    print(_table(sets))
    options = {name: getattr(parsed, name) for name in ("batch", "skip", "images", "seconds", "rounds")}
    machine.write("jpeg_to_batch", {"image_size": parsed.size, **options, "sets": sets}, parsed.out)


def _one_set(parsed: argparse.Namespace, side_px: int, folder: pathlib.Path) -> dict[str, Any]:
    records = scaled_records(parsed.records, side_px, parsed.photos, folder) if side_px else parsed.records
    what = write_tars(records, folder / "tars")
    print(f"photos of {what['median_width']:.0f} x {what['median_height']:.0f} pixels: {what}", flush=True)
    names = ("size", "batch", "skip", "images", "seconds", "checkpoint", "image_weights")
    shared = [f"--{name.replace('_', '-')}={getattr(parsed, name)}" for name in names]
    shared += [f"--records={records}", f"--tars={folder / 'tars'}"]
    by_cores = {}
    for cores in map(int, parsed.cores.split(",")):
        # On more cores they say nothing new.
        chosen = [side for side in parsed.sides.split(",") if cores == 1 or side not in ONE_THREAD]
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in chosen}
        for _ in range(parsed.rounds):
            for side in runs:
                missing = [name for name in NEEDS.get(side, ()) if importlib.util.find_spec(name) is None]
                with on_cores(cores):
                    runs[side].append(
                        {"failed": f"needs {', '.join(missing)}"}
                        if missing
                        else machine.side("benchmarks.jpeg_to_batch", *shared, f"--side={side}")
                    )
                print(f"{cores} cores, {SIDES[side]}: {runs[side][-1]}", flush=True)
        by_cores[cores] = compared(runs)
    return {"side_px": side_px, **what, "by_cores": by_cores}


def _table(sets: Sequence[dict[str, Any]]) -> str:
    rows = []
    for one in sets:
        for cores, sides in one["by_cores"].items():
            for side, found in sides.items():
                place = [SIDES[side], f"{one['median_width']:.0f} x {one['median_height']:.0f}", str(cores)]
                names = ("images_per_s", "cpu_s_per_1000", "rate_by_open_clips", "open_clips_cpu_by_this")
                figures = [f"{found[name]:.2f}" if name in found else "" for name in names]
                rows.append([*place, *figures])
    headings = [
        "side",
        "median px",
        "cores",
        "photos/s",
        "CPU s per 1000",
        "this / open_clip",
        "open_clip's CPU / this",
    ]
    return machine.table(headings, rows)


def tables(results: Sequence[dict[str, Any]]) -> str:
    """The tables of the documentation, as Markdown: batches and decoding, resizing alone, decoding at a part."""
    streams, alone, small = [], [], []
    for content, one, cores, side, found in _found(results):
        place = [f"{one['median_width']:.0f} px", str(content["image_size"])]
        cpu = f"{found['cpu_s_per_1000']:.2f}"
        name = SIDES[side].partition("alone, ")[2] if side in RESIZING else SIDES[side]
        if side in RESIZING:
            alone.append([*place, name, cpu, str(found["largest_difference"]), f"{1e6 * found['differ']:,.0f}"])
        elif side in SHRINKING:
            moved = [f"{found[key]:.1e}" if key in found else "" for key in ("features_move", "features_move_at_most")]
            pixels = [f"{found['mean_difference']:.2f}", str(found["largest_difference"])]
            small.append([*place, name.partition(", ")[2], cpu, *pixels, *moved])
        else:
            ratios = [
                f"{found[key]:.2f}" if key in found else "" for key in ("rate_by_open_clips", "open_clips_cpu_by_this")
            ]
            shares = found.get("share_of_decoding", {})
            parts = [f"{100 * shares[key]:.0f} %" if key in shares else "" for key in ("simplejpeg", "tensorflow")]
            streams.append([*place, str(cores), name, f"{found['images_per_s']:.0f}", cpu, *ratios, *parts])
    heads = (
        "photos | squares | cores | side | photos/s | CPU s per 1000 | by open_clip's rate | open_clip's CPU by this | "
        "of it decoding, libjpeg-turbo | of it decoding, TensorFlow",
        "photos | squares | resizing alone | CPU s per 1000 | largest difference | of a million values differ",
        "photos | squares | JPEG to square | CPU s per 1000 | pixels differ by | at most | features move by | at most",
    )
    return "\n\n".join(
        machine.markdown(head.split(" | "), rows)
        for head, rows in zip(heads, (streams, alone, small), strict=True)
        if rows
    )


def _found(
    results: Sequence[dict[str, Any]],
) -> Iterator[tuple[dict[str, Any], dict[str, Any], str, str, dict[str, Any]]]:
    """Each result, set, number of cores and side that did not fail, with what was found."""
    for content in results:
        for one in content["sets"]:
            for cores, sides in one["by_cores"].items():
                yield from (
                    (content, one, cores, side, found) for side, found in sides.items() if "failed" not in found
                )


if __name__ == "__main__":
    main()

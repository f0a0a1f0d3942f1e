"""Files that are damaged in any way: what is read of them is right, or one line refuses them.

Each input has a number, and is the same for the same number. What failed is shown with it, and can be run again::

    LIT_JAX_FUZZ=photos:1234 pytest tests/test_fuzz.py -m slow -k photos

A few inputs of each quick family are tried in every run of the suite, thousands with ``-m slow``.
"""

import codecs
import contextlib
import dataclasses
import functools
import gzip
import io
import json
import os
import re
import shutil
import signal
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from data_prep import clip_templates
from data_prep.conversion import convert
from data_prep.conversion.options import Options as ConversionOptions
from data_prep.import_embeddings.embedding_files import Given, read_embeddings, read_ids
from data_prep.import_embeddings.head_files import read_head
from data_prep.sources import folder as lists
from data_prep.sources import imagenet_shifts, json_rows, photo_places
from data_prep.sources.by_name import SOURCES
from data_prep.sources.items import Item, Request, Source
from lit_jax import leaks, robustness
from lit_jax.base.files import incomplete
from lit_jax.data import embedding_store
from lit_jax.data.dataset_folder import MANIFEST
from lit_jax.data.exif import taken
from lit_jax.data.photo import BadPhoto, clean_photo, upright_pixels
from lit_jax.data.records import TFDS_FILES, decode, open_records
from lit_jax.data.tfrecord import read_frames
from lit_jax.errors import UserError
from lit_jax.evaluation.kinship import accuracy_by_kinship
from lit_jax.evaluation.robustness import normalised as measure_against
from lit_jax.models.weight_files import open_weights, write_safetensors
from lit_jax.prediction import output, photo_index
from lit_jax.prediction.answers import Answer, Named
from lit_jax.prediction.choices import only
from lit_jax.prediction.formats import Format, Heading, format_of
from lit_jax.prediction.photo_index import Entry
from lit_jax.text.candidates import read_candidates
from lit_jax.text.captions import class_captions
from lit_jax.text.classes import read_class_table, write_class_table
from lit_jax.text.labels import read_labels
from lit_jax.text.prompts import read_templates
from lit_jax.text.tokenizers import load_tokenizer
from lit_jax.training import metrics_log
from tests import forked

SEED = 7
SLOWEST = 10.0
"""Seconds that an input may take."""


class Slow(BaseException):
    """An input that takes too long; no reader catches it."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """A file that is damaged.

    Attributes:
        name: what to call it.
        content: the file as it was.
        read: everything that is read of another content of the file.
        covered: whether a digest covers it, so that `read` gives the same as of the file as it was, or refuses.
        of: the folder that it is in, if everything that is in there is read for any of its files.
    """

    name: str
    content: bytes
    read: Callable[[bytes], object]
    covered: bool = False
    of: str = ""


# -- damage

Draw = np.random.Generator
EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**62, 2**63, 2**64 - 1)
ODD: tuple[Any, ...] = (
    "",
    '"',
    "'",
    "\0",
    "null",
    "NaN",
    "1e999",
    "-1",
    "0",
    "9" * 5000,
    "[]",
    "{}",
    "a" * 70_000,
    "../../x",
    "/dev/null",
    "\ufeff",
    "\u2028",
    "\r",
    "\n\n",
    ",,,",
    ";",
    "\t",
    "{name}",
    "{",
    "}",
    "{0}",
    "{name!r}",
    "%s",
    "\u202e",
    "é",
    "🦋",
    "True",
    "1.5",
    "-0",
    "1_000",
    "٣",
    "²",
    "\\ud800",
    "x\\",
    ".",
    "..",
    "con",
    "NA",
    "sep=;",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1.5,
    2**63,
    10**30,
    float("nan"),
    float("inf"),
    "",
    "\0",
    "a" * 5000,
    "../x",
    [],
    {},
    [[]],
    [None],
    {"": None},
    "1",
    ["a", 1],
    "\ud800",
)
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|[^\W\d]+|[^\w\s]|\s+')


def place(size: int, draw: Draw) -> int:
    """Anywhere in a file, half the time near its beginning, where headers are."""
    near = min(size, 160) if draw.random() < 0.5 else size
    return int(draw.integers(0, max(near, 1)))


def part(size: int, draw: Draw) -> tuple[int, int]:
    """A place, and another behind it, most often near."""
    begin = place(size, draw)
    return begin, min(size, begin + int(2 ** (draw.random() * 12)))


def flipped(raw: bytes, draw: Draw, _: bytes) -> bytes:
    turned = bytearray(raw)
    for _ in range(int(draw.integers(1, 9)) if raw else 0):
        turned[place(len(raw), draw)] ^= 1 << int(draw.integers(0, 8))
    return bytes(turned)


def cut(raw: bytes, draw: Draw, _: bytes) -> bytes:
    at = place(len(raw), draw)
    begin, end = part(len(raw), draw)
    return (raw[:at], raw[at:], raw[:begin] + raw[end:], raw[: len(raw) - min(at, 9)])[int(draw.integers(0, 4))]


def doubled(raw: bytes, draw: Draw, _: bytes) -> bytes:
    begin, end = part(len(raw), draw)
    return raw + raw if draw.random() < 0.2 else raw[:end] + raw[begin:end] * int(draw.integers(1, 4)) + raw[end:]


def filled(raw: bytes, draw: Draw, _: bytes) -> bytes:
    begin, end = part(len(raw), draw)
    new = (bytes(end - begin), b"\xff" * (end - begin), draw.bytes(end - begin))[int(draw.integers(0, 3))]
    return raw[:begin] + new + raw[end:]


def other_head(raw: bytes, draw: Draw, other: bytes) -> bytes:
    size = int(draw.integers(1, 96))
    return other[:size] + raw[size:] if draw.random() < 0.7 else raw[:size] + other[size:]


def edge(raw: bytes, draw: Draw, _: bytes) -> bytes:
    """A number at the edge of what has room."""
    at, size = place(len(raw), draw), int(draw.choice([1, 2, 4, 8]))
    number = EDGES[int(draw.integers(0, len(EDGES)))] % (1 << 8 * size)
    return raw[:at] + number.to_bytes(size, "little" if draw.random() < 0.5 else "big") + raw[at + size :]


def swapped(raw: bytes, draw: Draw, _: bytes) -> bytes:
    (a, b), (c, d) = sorted([part(len(raw), draw), part(len(raw), draw)])
    return raw[:a] + raw[c:d] + raw[min(b, c) : c] + raw[a : min(b, c)] + raw[d:]


def put_in(raw: bytes, draw: Draw, _: bytes) -> bytes:
    at = place(len(raw), draw)
    return raw[:at] + draw.bytes(int(draw.integers(1, 64))) + raw[at:]


BYTES = (flipped, cut, doubled, filled, other_head, edge, swapped, put_in)


def token(text: str, draw: Draw) -> str:
    """A word, number or sign that is another one."""
    found = list(TOKEN.finditer(text))
    if not found:
        return str(ODD[int(draw.integers(0, len(ODD)))])
    at = found[int(draw.integers(0, len(found)))]
    new = ODD[int(draw.integers(0, len(ODD)))] if draw.random() < 0.7 else found[int(draw.integers(0, len(found)))][0]
    return text[: at.start()] + new + text[at.end() :]


def line(text: str, draw: Draw) -> str:
    """Lines that come twice, lack, or change places."""
    found = text.split("\n")
    at, other = (int(draw.integers(0, len(found))) for _ in range(2))
    return "\n".join(
        ([*found[:at], found[other], *found[at:]], found[:at] + found[at + 1 :], found[at:] + found[:at])[
            int(draw.integers(0, 3))
        ]
    )


def signs(text: str, draw: Draw) -> str:
    """Another sign throughout."""
    old, new = ((",", ";"), (",", "\t"), ("\n", "\r"), ("\n", "\r\n"), ('"', "'"), ("a", "\0"), ('"', ""))[
        int(draw.integers(0, 7))
    ]
    return text.replace(old, new)


def node(text: str, draw: Draw) -> str:
    """A value of a JSON that is another one, or lacks."""
    try:
        whole = json.loads(text)
    except ValueError:
        return token(text, draw)
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        for key in keys:
            places.append((value, key))
            walk(value[key])

    walk(whole)
    if not places:
        return token(text, draw)
    value, key = places[int(draw.integers(0, len(places)))]
    if draw.random() < 0.2:
        del value[key]
    elif isinstance(value, dict) and draw.random() < 0.2:
        value[str(ODD[int(draw.integers(0, len(ODD)))])] = value.pop(key)
    else:
        value[key] = VALUES[int(draw.integers(0, len(VALUES)))]
    return json.dumps(whole)


TEXTS = (token, line, signs, node)


def damaged(raw: bytes, draw: Draw, other: bytes) -> bytes:
    """The file, damaged once or a few times; never as it was."""
    new = raw
    for _ in range(int(draw.choice([1, 1, 1, 2, 4]))):
        new = _damaged_once(new, draw, other)
    return new if new != raw else raw + b"\0"


def _damaged_once(raw: bytes, draw: Draw, other: bytes) -> bytes:
    try:
        text = raw.decode("utf-8") if draw.random() < 0.7 else None
    except UnicodeDecodeError:
        text = None
    if text is None or len(raw) > 1 << 20:
        return BYTES[int(draw.integers(0, len(BYTES)))](raw, draw, other)
    if draw.random() < 0.05:
        encoding = ("utf-16", "utf-8-sig", "cp1252")[int(draw.integers(0, 3))]
        return codecs.encode(text, encoding, "replace")
    return TEXTS[int(draw.integers(0, len(TEXTS)))](text, draw).encode("utf-8", "surrogatepass")


# -- what comes of it


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    def ended(*_: object) -> None:
        raise Slow(f"more than {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, ended)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Refused(Exception):
    """A command ended as it does for a mistake of its user, with one line."""


def command(main: Callable[[list[str]], object], *arguments: object) -> None:
    """Runs a command in this process; `Refused` where it ends in one line with exit code 2."""
    out, told = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told):
            main([str(argument) for argument in arguments])
    except SystemExit as ended:
        errors = [text for text in told.getvalue().splitlines() if not text.startswith("note: ")]
        assert ended.code == 2, f"exit code {ended.code}: {told.getvalue()[-500:]}"
        assert len(errors) == 1 and errors[0].startswith("error: "), told.getvalue()[-500:]
        raise Refused(errors[0]) from None


def trouble(subject: Subject, content: bytes, whole: object) -> str:
    """What is wrong with what came of a content; empty if nothing is."""
    try:
        with within(SLOWEST):
            found = subject.read(content)
    except (UserError, BadPhoto) as refusal:
        text = str(refusal)
        fine = text and len(text.splitlines()) == 1 and len(text) < 4000
        return "" if fine else f"refused in {len(text.splitlines())} lines, {len(text)} letters: {text[:300]!r}"
    except Refused:
        return ""
    except Slow as slow:
        return str(slow)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        places = _places(error)
        return f"{type(error).__name__}: {str(error)[:300]!r} ({places})"
    return f"accepted other values: {str(found)[:200]}" if subject.covered and found != whole else ""


def _places(error: BaseException) -> str:
    """The lines of the project that an exception came through, the innermost last."""
    found, trace = [], error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        found.append(f"{'/'.join(Path(file).parts[-2:])}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " ".join(found[-4:])


def made(name: str, subjects: list[Subject], number: int) -> tuple[Subject, bytes]:
    """The input of a number."""
    draw = np.random.default_rng([SEED, zlib.crc32(name.encode()), number])
    subject = subjects[number % len(subjects)]
    other = subjects[int(draw.integers(0, len(subjects)))].content
    return subject, damaged(subject.content, draw, other)


def tried(name: str, subjects: list[Subject], numbers: range) -> list[str]:
    """What is wrong with inputs of these numbers, in lines."""
    asked, _, one = os.environ.get("LIT_JAX_FUZZ", "").partition(":")
    if one and asked == name:
        numbers = range(int(one), int(one) + 1)
    wholes: dict[str, object] = {}
    found = []
    for number in numbers:
        subject, content = made(name, subjects, number)
        if (key := subject.of or subject.name) not in wholes:
            wholes[key] = subject.read(subject.content)
        if what := trouble(subject, content, wholes[key]):
            found.append(f"{name}:{number} {subject.name}: {what}")
    return found


def shown(found: list[str]) -> str:
    """How many inputs failed, and the first of each way to fail."""
    ways: dict[str, list[str]] = {}
    for text in found:
        kind, place = text.split(": ", 1)[1].split(":")[0], text.rsplit(" ", 1)[-1]
        ways.setdefault(f"{kind} {place}", []).append(text)
    return "\n".join([f"{len(found)} failed", *(f"{len(texts)} as {texts[0]}" for texts in list(ways.values())[:20])])


# -- families


class Setting:
    """A folder of the test, and the session's fixtures by name."""

    def __init__(self, folder: Path, fixtures: Callable[[str], Any]) -> None:
        self.folder, self._fixtures = folder, fixtures

    def __call__(self, name: str) -> Any:
        return self._fixtures(name)


def rewritten(path: Path, content: bytes) -> None:
    """Another file of the name: what is mapped of the one before stays as it was."""
    aside = path.with_name(f"{path.name}.aside")
    aside.write_bytes(content)
    aside.replace(path)


def of_folder(
    folder: Path, read: Callable[[], object], names: list[str] | None = None, *, covered: bool = False
) -> list[Subject]:
    """A subject for each file of a folder, and everything in it is read."""

    def with_content(path: Path, before: bytes, content: bytes) -> object:
        rewritten(path, content)
        try:
            return read()
        finally:
            rewritten(path, before)

    names = names or sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    subjects = []
    for name in names:
        before = (folder / name).read_bytes()
        subjects.append(
            Subject(name, before, functools.partial(with_content, folder / name, before), covered, str(folder))
        )
    return subjects


def picture() -> Image.Image:
    across, down = np.meshgrid(np.arange(48), np.arange(40))
    return Image.fromarray(np.stack([across * 5, down * 6, across * down % 256], -1).astype(np.uint8))


def photos(_: Setting) -> list[Subject]:
    """Photos of each format, with EXIF, transparency, palettes, several frames and 16 bits."""
    tags = Image.Exif()
    tags[0x0112] = 6
    tags.get_ifd(0x8769)[0x9003] = "2024:05:01 12:30:00"
    tags.get_ifd(0x8825).update({1: "N", 2: (47.0, 3.0, 1.0), 3: "E", 4: (8.0, 3.0, 1.0)})
    rgb = picture()
    deep = Image.fromarray(np.asarray(rgb.convert("L"), np.uint16) * 200)
    clear = rgb.convert("RGBA")
    clear.putalpha(rgb.convert("L"))
    palette = rgb.quantize(32)
    forms: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("JPEG", rgb, {}),
        ("JPEG", rgb, {"exif": tags}),
        ("JPEG", rgb, {"progressive": True}),
        ("JPEG", rgb.convert("L"), {"restart_marker_rows": 1}),
        ("JPEG", rgb.convert("CMYK"), {}),
        ("PNG", rgb, {"exif": tags}),
        ("PNG", deep, {}),
        ("PNG", clear, {}),
        ("PNG", palette, {"transparency": 3}),
        ("PNG", rgb.convert("1"), {}),
        ("GIF", palette, {}),
        ("GIF", palette, {"save_all": True, "append_images": [palette.rotate(90)]}),
        ("WEBP", clear, {"exif": tags}),
        ("WEBP", rgb, {"lossless": True}),
        ("BMP", rgb, {}),
        ("BMP", palette, {}),
        ("TIFF", rgb, {"exif": tags}),
        ("TIFF", deep, {}),
        ("TIFF", rgb, {"compression": "tiff_lzw"}),
        ("TIFF", rgb.convert("1"), {"compression": "group4"}),
        ("TIFF", clear, {"compression": "tiff_deflate"}),
        ("MPO", rgb, {"save_all": True, "append_images": [rgb.rotate(90)]}),
    ]
    if features.check("avif"):
        forms.append(("AVIF", rgb, {"exif": tags}))
    subjects = []
    for number, (form, image, more) in enumerate(forms):
        out = io.BytesIO()
        image.save(out, form, **more)
        subjects.append(Subject(f"{number} {form}", out.getvalue(), _photo))
    return subjects


def _photo(content: bytes) -> object:
    """A photo in each way that it is read; one that is accepted is sound for whoever reads it next."""
    import tensorflow as tf

    taken(content)
    refused: list[BadPhoto] = []
    accepted = []
    for max_side in (0, 16):
        try:
            photo = clean_photo(content, max_pixels=10**6, max_side=max_side)
        except BadPhoto as error:
            refused.append(error)
            continue
        assert photo.pixels.shape == (photo.height, photo.width, 3)
        assert tf.io.decode_jpeg(photo.jpeg, channels=3).shape == (photo.height, photo.width, 3)
        accepted.append(photo)
    try:
        pixels = upright_pixels(content, max_pixels=10**6)
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    except BadPhoto as error:
        refused.append(error)
    assert len(refused) in (0, 3), f"only some readers refuse it: {[error.reason for error in refused]}"
    if refused:
        raise refused[0]
    return None


CLASSES = """id,name,common_name,genus,family,order,synonyms
0,Parus major,Great tit,Parus,Paridae,Passeriformes,Kohlmeise; Mésange
1,"Turdus ""merula"" L.",Blackbird,Turdus,Turdidae,Passeriformes,
2,Malus ×domestica,,Malus,Rosaceae,Rosales,Apfel | Apple
3,Pica pica,Magpie,Pica,Corvidae,Passeriformes,Elster
"""
PHOTOS = 'file,class,split\na.jpg,Parus major,train\n"b,c.jpg",Pica pica,validation\nd/é.jpg,3,heldout\n'


def tables(given: Setting) -> list[Subject]:
    """Tables and lists as people write them."""
    folder = given.folder / "tables"
    folder.mkdir()
    (folder / "own.csv").write_text(CLASSES, encoding="utf-8")
    own = read_class_table(folder / "own.csv")
    rows = [
        dict(zip(CLASSES.split("\n")[0].split(","), row.split(","), strict=False)) for row in CLASSES.split("\n")[1:3]
    ]
    region = "scientificName;vernacularName\nParus major;Kohlmeise\nPica pica;\n"
    gbif = "gbifID\tscientificName\tgenus\tspecificEpithet\n1\tPica pica L.\tPica\tpica\n2\tParus major\tParus\tmajor\n"
    coco = {
        "categories": [{"id": 7, "name": "Parus major"}, {"id": 9, "name": "Pica pica"}],
        "images": [{"id": 1, "file_name": "x"}],
    }
    labels = {"id2label": {"0": "cat", "1": "dog"}, "label_names": ["cat", "dog"]}

    def class_table(path: Path) -> None:
        table = read_class_table(path)
        write_class_table(table, folder / "again.csv")
        assert read_class_table(folder / "again.csv").columns == table.columns
        class_captions(table, ["a photo of the {name}"])
        only(table, folder / "own.csv")

    def photo_list(path: Path) -> None:
        for item in [*lists.read_csv(path), *lists.read_folder(path.parent, path)]:
            assert isinstance(item, Item)

    def json_of(path: Path) -> None:
        list(json_rows.rows(io.BytesIO(path.read_bytes()), ["categories", "images"], name=path.name))

    task = {"candidates": 3, "images": 4, "by_kind": {"fog": {"error": 0.5, "more_error": 0.25}}}
    measured: dict[str, Any] = {"kinds": ["fog"], "severities": [1, 2], "seed": 0, "tasks": {"seen": task}}

    def baseline(path: Path) -> None:
        measure_against(measured, robustness._read_baseline(str(path)), str(path))

    per_class = [{"class": "a", "id": i, "images": 4, "top1": 0.5} for i in range(3)]

    def kinship(path: Path) -> None:
        accuracy_by_kinship({"sister": [0, 1], "none": [2]}, leaks._per_class(str(path)))

    templates = "A photo of the {common_name} {name}\nthe {name}, a kind of {order}\n"
    files: list[tuple[str, str, Callable[[Path], object]]] = [
        ("classes.csv", CLASSES, class_table),
        ("classes.tsv", CLASSES.replace(",", "\t"), class_table),
        ("classes.json", json.dumps(rows), class_table),
        ("categories.json", json.dumps(coco), class_table),
        ("photos.csv", PHOTOS, photo_list),
        ("photos.tsv", PHOTOS.replace(",", "\t"), photo_list),
        ("names.csv", CLASSES, lists.read_names),
        ("names.txt", "Parus major\nPica pica\n", lists.read_names),
        ("region.txt", "1. Parus major\n2. Pica pica\n", lambda path: only(own, path)),
        ("region.csv", region, lambda path: only(own, path)),
        ("gbif.tsv", gbif, lambda path: only(own, path)),
        ("labels.json", json.dumps(labels), read_labels),
        ("labels.txt", "n01440764, tench\n00001_Animalia_Chordata_Aves_Passeri_Pari_Parus_major\n", read_labels),
        ("candidates.csv", CLASSES, lambda path: read_candidates(path, own)),
        ("candidates.json", json.dumps(rows), lambda path: read_candidates(path, own)),
        ("templates.txt", templates, lambda path: class_captions(own, read_templates(path))),
        ("imagenet.json", json.dumps({"0": ["n01", "tench"], "1": ["n02", "goldfish"]}), imagenet_shifts.read_names),
        ("rows.json", json.dumps(coco), json_of),
        ("ids.csv", PHOTOS, read_ids),
        ("baseline.json", json.dumps(measured), baseline),
        ("per_class.json", json.dumps({"per_class": per_class}), kinship),
    ]

    def of(name: str, read: Callable[[Path], object], content: bytes) -> None:
        path = folder / name
        rewritten(path, content)
        try:
            read(path)
        except UserError:
            if content == whole[name]:
                raise AssertionError(f"{name} is refused as it was") from None
            raise

    whole = {name: text.encode() for name, text, _ in files}
    return [Subject(name, text.encode(), functools.partial(of, name, read)) for name, text, read in files]


def tars(given: Setting) -> list[Subject]:
    """Tars of photos and texts: of GNU and of POSIX, with long names."""
    folder = given.folder / "tars"
    folder.mkdir()
    (folder / "classes.csv").write_text(CLASSES, encoding="utf-8")
    out = io.BytesIO()
    picture().save(out, "JPEG")
    subjects = []
    for name, form in (("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        whole = io.BytesIO()
        with tarfile.open(fileobj=whole, mode="w", format=form) as tar:
            for member, content in (
                ("a.jpg", out.getvalue()),
                ("a.cls", b"0"),
                ("b.jpg", out.getvalue()),
                ("b.json", b'{"class_id": 3}'),
                (f"{'long' * 40}/é.jpg", out.getvalue()),
                (f"{'long' * 40}/é.txt", b"a photo of the Pica pica"),
            ):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))

        def read(content: bytes) -> None:
            rewritten(folder / "0.tar", content)
            for item in SOURCES["webdataset"](Request(str(folder))).items:
                item.image_id.encode()
                if isinstance(item, Item):
                    photo_places.size_and_time(str(item.path))
                    photo_places.read(str(item.path))

        subjects.append(Subject(name, whole.getvalue(), read))
    return subjects


def record_sets(given: Setting) -> list[Subject]:
    """Shards, manifest, class table and tokenizer of a record set."""
    folder = Path(shutil.copytree(given("records").directory, given.folder / "set"))

    def read() -> object:
        found = open_records(folder)
        table = read_class_table(found.class_table)
        tokenizer = load_tokenizer(found.tokenizer) if found.tokenizer else None
        class_captions(table, found.templates, drop_repeats=found.drop_repeats)
        rows = {}
        for split in found.splits:
            records = [decode(frame) for path in found.files(split) for frame in read_frames(path)]
            assert len(records) == found.examples(split)
            table.subset(found.classes_in(split))
            rows[split] = records
        assert table.names and (tokenizer is None or tokenizer.encode(["a"], 4).shape)
        return repr(rows), table.columns, found.fingerprint

    return of_folder(folder, read, covered=True)


def stores(given: Setting) -> list[Subject]:
    """Each file of an embedding store."""
    from data_prep.import_embeddings.embeddings import Storing, import_embeddings

    here = given.folder / "stored"
    here.mkdir()
    draw = np.random.default_rng(0)
    np.save(here / "rows.npy", draw.normal(size=(24, 6)).astype(np.float32))
    splits = ("train", "validation", "heldout")
    rows = [f"{i}.jpg,{('Parus major', 'Pica pica', 'Malus ×domestica')[i % 3]},{splits[i % 3]}" for i in range(24)]
    (here / "ids.csv").write_text("\n".join(["file,class,split", *rows]) + "\n", encoding="utf-8")
    (here / "classes.csv").write_text(CLASSES, encoding="utf-8")
    opened = Given(read_embeddings([here / "rows.npy"]), read_ids(here / "ids.csv"), here)
    folder = here / "store"
    import_embeddings(
        opened,
        read_class_table(here / "classes.csv"),
        folder,
        ConversionOptions(vocab_size=0, allow_empty_classes=True),
        Storing(),
    )

    def read() -> object:
        embedding_store._digest_of.cache_clear()
        found = embedding_store.open_store(folder)
        table = read_class_table(found.class_table)
        parts = []
        for split in found.splits:
            rows = embedding_store.Rows(found, split)
            ids = embedding_store.image_ids(found, split)
            parts.append((split, rows.whole().tobytes(), rows.class_ids.tolist(), ids, found.classes_in(split)))
        return parts, table.columns, found.fingerprint, found.templates, found.views, found.width

    return of_folder(folder, read, covered=True)


def indices(given: Setting) -> list[Subject]:
    """Each file of an index of photos."""
    folder = given.folder / "index"
    entries = [Entry(f"photos/{i}.jpg", i, i) for i in range(12)]
    vectors = np.random.default_rng(0).normal(size=(12, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    row_of = {entry.photo: row for entry, row in zip(entries, vectors, strict=True)}

    def embed(names: list[str]) -> list[np.ndarray]:
        return [row_of[name] for name in names]

    photo_index.update(folder, "m", entries, embed)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}

    def read() -> object:
        try:
            found = photo_index.update(folder, "m", entries, embed).index
            scores, rows = photo_index.nearest(found.vectors, vectors[:2].astype(np.float32), 3)
            return found.photos_of(rows[0]), list(found.entries()), found.vectors.tobytes(), scores.tolist()
        finally:  # an index that was made again has other files
            for name, content in whole.items():
                rewritten(folder / name, content)

    return of_folder(folder, read, covered=True)


def weights(given: Setting) -> list[Subject]:
    """Weights in every form, read as a tower, as a head and as embeddings."""
    import jax

    from lit_jax.models import ViT, family
    from lit_jax.models.weights import load_tower

    tower = ViT(patch=8, width=16, depth=1, heads=2)
    like = jax.eval_shape(tower.init, jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))["params"]
    flat = dict(open_weights(given("tower_file")).arrays)
    folder = given.folder / "weights"
    (folder / "sharded").mkdir(parents=True)
    np.savez(folder / "plain.npz", **flat)
    write_safetensors(folder / "w.safetensors", flat)
    names = sorted(flat)
    for number, half in enumerate((names[::2], names[1::2])):
        write_safetensors(folder / "sharded" / f"{number}.safetensors", {name: flat[name] for name in half})
    index = {"metadata": {}, "weight_map": {name: f"{number % 2}.safetensors" for number, name in enumerate(names)}}
    (folder / "sharded" / "model.safetensors.index.json").write_text(json.dumps(index))
    head = {"head.weight": np.ones((3, 4), np.float32), "head.bias": np.zeros(3, np.float32)}
    write_safetensors(folder / "head.safetensors", head)
    np.save(folder / "rows.npy", np.ones((3, 4), np.float32))
    np.savez(folder / "rows.npz", emb=np.ones((3, 4), np.float16), files=np.array(["a", "b", "c"]))

    def as_tower(path: Path) -> None:
        load_tower(str(path), like, family(tower))

    def as_rows(path: Path) -> None:
        found = read_embeddings([path])
        found.scan()
        found.take(np.arange(len(found)), 1)

    def of(name: str, read: Callable[[Path], object], content: bytes) -> None:
        path = folder / name
        before = path.read_bytes()
        rewritten(path, content)
        try:
            read(path)
        finally:
            rewritten(path, before)

    readers: list[tuple[str, Callable[[Path], object]]] = [
        ("plain.npz", as_tower),
        ("w.safetensors", as_tower),
        ("sharded/model.safetensors.index.json", as_tower),
        ("rows.npy", as_rows),
        ("rows.npz", as_rows),
        ("head.safetensors", lambda path: read_head(str(path))),
        ("rows.npy", lambda path: read_head(str(path))),
    ]
    shutil.copy(given("tower_file"), folder / "packed.npz")
    readers.append(("packed.npz", as_tower))
    return [
        Subject(f"{number} {name}", (folder / name).read_bytes(), functools.partial(of, name, read))
        for number, (name, read) in enumerate(readers)
    ]


def tokenizers(given: Setting) -> list[Subject]:
    """Tokenizers in every form, and the settings beside them."""
    folder = given.folder / "tokenizers"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "bird", "##s", "e"]
    letters = {letter: number for number, letter in enumerate(sorted(bytes_to_letters()))}
    words = [*letters, *(f"{letter}</w>" for letter in letters), "bi", "bir", "bird</w>"]
    vocabulary = {word: number for number, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    merges = "#version: 0.2\nb i\nbi r\nbir d</w>\n"
    contents: dict[str, bytes] = {
        "bert/vocab.txt": "\n".join([*pieces, ""]).encode(),
        "bert/tokenizer_config.json": b'{"do_lower_case": true, "pad_token": "[PAD]"}',
        "clip/vocab.json": json.dumps(vocabulary).encode(),
        "clip/merges.txt": merges.encode(),
        "gz/bpe_simple_vocab_16e6.txt.gz": gzip.compress(merges.encode(), mtime=0),
        "json/tokenizer.json": _tokenizer_json().encode(),
        "piece/tokenizer.model": given("records").tokenizer.read_bytes(),
    }
    asked = {"bert/tokenizer_config.json": "bert/vocab.txt", "clip/merges.txt": "clip/vocab.json"}
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    def of(name: str, content: bytes) -> None:
        rewritten(folder / name, content)
        try:
            load_tokenizer(folder / asked.get(name, name)).encode(["a bird", "é"], 8)
        finally:
            rewritten(folder / name, contents[name])

    return [Subject(name, content, functools.partial(of, name)) for name, content in contents.items()]


def bytes_to_letters() -> list[str]:
    """The letters by which byte-level BPE writes bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in plain] + [chr(256 + number) for number in range(256 - len(plain))]


def others(given: Setting) -> list[Subject]:
    """What commands find of earlier ones, or take from elsewhere: half a list of names, frost, other's templates."""
    folder = given.folder / "others"
    (folder / "frost").mkdir(parents=True)
    frost = io.BytesIO()
    picture().save(frost, "PNG")
    python = 'OPENAI_IMAGENET_TEMPLATES = (\n    lambda c: f"a photo of a {c}.",\n    lambda c: f"a {c}.",\n)\n'
    answers = [
        Named(name, answers=(Answer("species", "Pica pica", "", {}, 0.5, True),))
        for name in ("a.jpg", "b.jpg", "c.jpg")
    ]
    photos = [named.photo for named in answers]
    subjects = []

    def half(form: Format, path: Path) -> None:
        before = path.read_bytes()
        output.done_before(path.with_name("names"), form, photos, 1)
        rewritten(path, before)

    for name in ("csv", "jsonl", "dwc", "table"):
        form = format_of(name, Heading("m", 0, 4, "", "k"), photos=photos, names=["Pica pica"])
        place = folder / name
        place.mkdir()
        begun = incomplete(place / "names")
        begun.write_text(form.head + "".join(map(form.text, answers[:2])), encoding="utf-8")
        if form.beside:
            incomplete(output.beside(place / "names")).write_text(form.beside, encoding="utf-8")
        subjects += of_folder(place, functools.partial(half, form, begun))

    (folder / "frost" / "frost.png").write_bytes(frost.getvalue())
    subjects += of_folder(folder / "frost", lambda: robustness._frosts(str(folder / "frost"), 8) and None)
    (folder / "python").mkdir()
    (folder / "python" / "metadata.py").write_text(python)

    def templates() -> None:
        asked = ("--file", folder / "python" / "metadata.py", "--out", folder / "templates.txt", "--overwrite")
        command(clip_templates.main, *asked)

    subjects += of_folder(folder / "python", templates, ["metadata.py"])
    return subjects


def _tokenizer_json() -> str:
    from lit_jax.text import tokenizer_json

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "bird", "##s", "e"]
    return tokenizer_json.from_wordpiece(pieces)


def models(given: Setting) -> list[Subject]:
    """Each file of an exported model."""
    from lit_jax.models.weights import leaves
    from lit_jax.trained.exporting import export
    from lit_jax.trained.loading import load, load_whole

    folder = given.folder / "model"
    export(load_whole(given("finished")[0]), folder)

    def read() -> object:
        found = load(folder)
        arrays = {name: np.asarray(leaf).tobytes() for name, leaf in leaves(found.params).items()}
        return arrays, found.about, found.step

    own = [name for name in os.listdir(folder) if name not in ("README.md", "templates.txt")]
    return of_folder(folder, read, sorted(own), covered=True)


def onnx(given: Setting) -> list[Subject]:
    """Each file of a model in ONNX, as prediction and the field app read it."""
    from lit_jax.prediction.with_onnx import WithOnnx

    folder = _exported(given)

    def read() -> object:
        found = WithOnnx(folder)
        assert found._text and found._known
        return found.photos(np.zeros((1, 16, 16, 3), np.uint8)).tolist(), found.about, found.reading(["a"]).tolist()

    own = [name for name in os.listdir(folder) if name not in ("README.md", "templates.txt")]
    return of_folder(folder, read, sorted(own), covered=True)


def _exported(given: Setting) -> Path:
    from lit_jax.trained.exporting import export
    from lit_jax.trained.loading import load_whole

    folder = given.folder / "onnx"
    export(load_whole(given("finished")[0]), folder, layout="onnx", weights="fp32")
    return folder


def apps(given: Setting) -> list[Subject]:
    """What the field app is made of: the model, its runtime and a region's list."""
    from lit_jax import site
    from lit_jax.app import runtime

    folder, kept = _exported(given), given.folder / "runtime"
    there = Path.home() / ".cache" / "lit_jax" / runtime.PACKAGE.removesuffix(".tgz")
    if not all((there / name).is_file() for name in ("ort.js", "ort.wasm")):
        pytest.skip("onnxruntime-web was not fetched")
    kept.mkdir()
    for name, theirs, _ in (runtime._SCRIPT, runtime._WASM):
        shutil.copy(there / name, kept / theirs)
    (given.folder / "region.txt").write_text("\n".join(read_class_table(folder / "classes.csv").names[:3]))
    given.folder.joinpath("apps").mkdir()

    def read() -> object:
        out = given.folder / "apps" / "app"
        shutil.rmtree(out, ignore_errors=True)
        arguments = ("--checkpoint", folder, "--runtime", kept, "--only", given.folder / "region.txt", "--out", out)
        command(site.main, *arguments)
        return {path.name: path.read_bytes() for path in out.iterdir()}

    own = [name for name in os.listdir(folder) if name not in ("README.md", "templates.txt")]
    listed = of_folder(given.folder, read, ["region.txt"])
    return [*of_folder(folder, read, sorted(own), covered=True), *of_folder(kept, read, covered=True), *listed]


def logs(given: Setting) -> list[Subject]:
    """The log of a run, with which it goes on and draws its curves."""
    folder = given.folder / "logs"
    folder.mkdir()
    facts = {"loss": 1.5, "loss_floor": 1.25, "learning_rate": 1e-3, "seen/top1": 0.5, "seen/candidates": 8}
    lines = [json.dumps({"step": step, "epoch": step / 4, **facts}) + "\n" for step in range(1, 6)]
    (folder / "metrics.jsonl").write_text("".join(lines))

    def read() -> None:
        log = metrics_log.MetricsLog(folder, step=3, tensorboard=False)
        log.add({"step": 4, "epoch": 1.0, **facts})
        metrics_log.curves(folder / "curves.png", log.records, title="a run")

    return of_folder(folder, read, ["metrics.jsonl"])


def halves(given: Setting) -> list[Subject]:
    """Each file of a conversion that was stopped before its end: with it the next one makes the same records."""
    guide, folder = given("field_guide_folder"), given.folder / "halves"
    items = list(lists.read_folder(guide, guide / "splits.csv"))
    table = read_class_table(guide / "classes.csv")
    options = ConversionOptions(shards=2, vocab_size=0, templates=("the {name}",))

    def made() -> dict[str, bytes]:
        convert.convert(Source(items, table), folder / "set", options, workers=1)
        return {path.name: path.read_bytes() for path in (folder / "set").iterdir()}

    def stopped(*_: object) -> None:
        raise ZeroDivisionError

    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(ZeroDivisionError):
        patch.setattr(convert, "move_into_place", stopped)
        made()
    half = incomplete(folder / "set").rename(folder / "kept")
    for name in (MANIFEST, *TFDS_FILES):
        (half / name).unlink()

    def read(name: str, content: bytes) -> object:
        for path in (folder / "set", incomplete(folder / "set")):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(half, incomplete(folder / "set"))
        rewritten(incomplete(folder / "set") / name, content)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            found = made()
        return {name: content for name, content in found.items() if not name.startswith("report")}

    names = sorted(str(path.relative_to(half)) for path in half.rglob("*") if path.is_file())
    return [
        # What a shard holds is compared with its digest by whoever reads it, not by whoever goes on.
        Subject(name, (half / name).read_bytes(), functools.partial(read, name), "tfrecord-" not in name, "half")
        for name in names
    ]


# Family: how many inputs the suite tries, and how many a slow run does.
FAMILIES: dict[Callable[[Setting], list[Subject]], tuple[int, int]] = {
    photos: (100, 12_000),
    tables: (100, 12_000),
    tars: (40, 3000),
    record_sets: (30, 2000),
    stores: (40, 3000),
    indices: (40, 2000),
    weights: (60, 6000),
    tokenizers: (40, 4000),
    others: (40, 4000),
    models: (0, 150),
    onnx: (0, 150),
    apps: (0, 60),
    logs: (0, 300),
    halves: (0, 200),
}


@pytest.mark.parametrize("family", [one for one, (few, _) in FAMILIES.items() if few], ids=lambda one: one.__name__)
def test_a_few_damaged_files_are_right_or_refused(family, request, tmp_path, capsys):
    found = tried(family.__name__, family(Setting(tmp_path, request.getfixturevalue)), range(FAMILIES[family][0]))
    assert not found, shown(found)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=lambda one: one.__name__)
def test_thousands_of_damaged_files_are_right_or_refused(family, request, tmp_path, capsys):
    begin = time.process_time()
    few, many = FAMILIES[family]
    found = tried(family.__name__, family(Setting(tmp_path, request.getfixturevalue)), range(few, many))
    with capsys.disabled():
        print(f"\n{family.__name__}: {many - few} inputs, {time.process_time() - begin:.0f} CPU seconds")
    assert not found, shown(found)


FORKED = """
import pathlib, sys
import pytest
from tests import test_fuzz

name, folder, run, config, begin, end = sys.argv[1:]
given = {"finished": (pathlib.Path(run), {}), "tiny_config": pathlib.Path(config)}
subjects = getattr(test_fuzz, name)(test_fuzz.Setting(pathlib.Path(folder), given.__getitem__))
found = test_fuzz.tried(name, subjects, range(int(begin), int(end)))
print(test_fuzz.shown(found) if found else "all are right or refused")
"""


def checkpoints(given: Setting) -> list[Subject]:
    """Each file of a run's checkpoints, and its config."""
    from lit_jax.models.weights import leaves
    from lit_jax.trained.loading import load

    run = Path(shutil.copytree(given("finished")[0], given.folder / "run"))

    def read() -> object:
        found = load(run, with_image_tower=False)
        arrays = {name: np.asarray(leaf).tobytes() for name, leaf in leaves(found.params).items()}
        return arrays, found.about, found.step

    files = sorted(str(path.relative_to(run)) for path in (run / "checkpoints").rglob("*") if path.is_file())
    return of_folder(run, read, files, covered=True)


def resumed(given: Setting) -> list[Subject]:
    """Each file of a run that goes on: it ends as it would have, or does not begin."""
    from lit_jax import config
    from lit_jax.main import train

    run, now = Path(shutil.copytree(given("finished")[0], given.folder / "run")), given.folder / "now"
    loaded = config.load(given("tiny_config"), {"train.devices": "1"})[0]
    last = max((run / "checkpoints").glob("step_*"), key=lambda path: int(path.name[5:]))
    if len(list((run / "checkpoints").glob("step_*"))) > 1:
        shutil.rmtree(last)
    (run / "results.json").unlink()

    def read(name: str, content: bytes) -> object:
        shutil.rmtree(now, ignore_errors=True)
        shutil.copytree(run, now)
        rewritten(now / name, content)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            found = train(loaded, now)
        return {split: facts for split, facts in found.items() if "second" not in split}

    files = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    subjects = []
    for name in files:
        free = name.startswith(("metrics.jsonl", "curves", "events", "class_embeddings", "config"))
        content = (run / name).read_bytes()
        subjects.append(Subject(name, content, functools.partial(read, name), not free, "run"))
    return subjects


@pytest.mark.slow
@pytest.mark.parametrize(("name", "many"), [("checkpoints", 400), ("resumed", 40)])
def test_checkpoints_that_are_damaged_are_right_or_refused(name, many, finished, tiny_config, tmp_path, capsys):
    # In a process of its own: coroutines of Orbax that a damaged file ends are collected, and heard, at its end.
    process = forked.start_code(FORKED, [name, tmp_path, finished[0], tiny_config, 0, many])
    assert process.wait(580) == 0, process.stderr[-3000:]
    assert process.stdout.splitlines()[-1] == "all are right or refused", process.stdout[-6000:]

"""Embeddings computed elsewhere: every file format, rows to their photos, and the splits of a conversion."""

import csv
import json
import struct
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from data_prep.conversion.options import Options
from data_prep.conversion.plan import plan_photos
from data_prep.embeddings import main
from data_prep.import_embeddings import embedding_files as given_files
from data_prep.import_embeddings.embedding_files import Given, match_rows, read_embeddings, read_ids
from data_prep.import_embeddings.embeddings import Storing, import_embeddings
from lit_jax.base.files import alone_in
from lit_jax.data import embedding_store
from lit_jax.data.records import open_records
from lit_jax.errors import UserError
from lit_jax.text.captions import TEMPLATE
from lit_jax.text.classes import ClassTable, read_class_table, write_class_table
from lit_jax.text.tokenizers import load_tokenizer, train_sentencepiece

ROOT = Path(__file__).resolve().parents[1]
SPECIES = ("Pica pica", "Corvus corax", "Malus ×domestica")
TABLE = ClassTable(
    (10, 20, 30),
    {"name": SPECIES, "common_name": ("Magpie", "Raven", "Apple"), "supercategory": ("Birds", "Birds", "Plants")},
)
FILES = tuple(f"{name}/{i}.jpg" for name in SPECIES for i in range(4))
QUICK = Options(vocab_size=0)


def values(rows: int = len(FILES), views: int = 1, width: int = 5, seed: int = 0) -> np.ndarray:
    """`[rows, views, width]` float32 that every type of float holds exactly."""
    return np.random.default_rng(seed).integers(-100, 100, (rows, views, width)).astype(np.float32) / 4


def write_list(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("file",)) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_safetensors(path: Path, **arrays: tuple[str, tuple[int, ...], bytes]) -> Path:
    """By the description of the format: name to its word for the type, shape and bytes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape, content) in arrays.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(content)]}
        end += len(content)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(content for _, _, content in arrays.values()))
    return path


def bfloat16_bytes(array: np.ndarray) -> bytes:
    """The upper halves of float32, little endian."""
    assert not (array.view(np.uint32) & 0xFFFF).any()
    return (array.view(np.uint32) >> 16).astype("<u2").tobytes()


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    return write_list(tmp_path / "photos.csv", [(file,) for file in FILES])


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    write_class_table(TABLE, tmp_path / "classes.csv")
    return tmp_path / "classes.csv"


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def made(
    tmp_path: Path, paths: Path | list[Path], ids: Path, options: Options = QUICK, **more: object
) -> embedding_store.Store:
    reading = {name: more.pop(name) for name in ("key", "files_key", "names", "by_order") if name in more}
    opened = read_embeddings(paths if isinstance(paths, list) else [paths], **reading)
    out = tmp_path / str(more.pop("out", "store"))
    restart = bool(more.pop("restart", False))
    given = Given(opened, read_ids(ids), ids.parent)
    return import_embeddings(given, TABLE, out, options, Storing(**more), restart=restart)


def by_id(stored: embedding_store.Store, view: int = 0) -> dict[str, np.ndarray]:
    """The features of every photo, as the store's own reader finds them."""
    found: dict[str, np.ndarray] = {}
    for split in stored.splits:
        rows = np.arange(stored.examples(split))
        features = embedding_store.Rows(stored, split).take(rows, min(view, stored.views[split] - 1))
        found.update(zip(embedding_store.image_ids(stored, split), features, strict=True))
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: object) -> str:
    """The one line with which the command stops."""
    given = ["--classes", tmp_path / "classes.csv", "--out", tmp_path / "store", "--vocab-size", 0, *arguments]
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in given])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


# -- files to features


@pytest.mark.parametrize(
    ("ending", "dtype"),
    [(ending, dtype) for ending in (".npy", ".npz", ".safetensors") for dtype in ("float16", "float32", "float64")]
    + [(".safetensors", "bfloat16")],  # NumPy's files do not know it
)
def test_values_survive_every_format_and_type(tmp_path: Path, listed: Path, ending: str, dtype: str) -> None:
    array = values()[:, 0]
    path = tmp_path / f"emb{ending}"
    if ending == ".safetensors":
        word = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}[dtype]
        content = bfloat16_bytes(array) if word == "BF16" else array.astype(np.dtype(dtype).newbyteorder("<")).tobytes()
        # The odd number of bytes before it leaves the array where no float would lie by itself.
        write_safetensors(path, other=("U8", (3,), b"abc"), emb=(word, array.shape, content))
    elif ending == ".npz":
        np.savez_compressed(path, array.astype(dtype))
    else:
        np.save(path, np.asfortranarray(array.astype(dtype)))
    for kept in embedding_store.DTYPES:
        stored = made(tmp_path, path, listed, out=kept, dtype=kept)
        assert (stored.dtype, stored.width, stored.tower["name"]) == (kept, 5, path.name)
        found = by_id(stored)
        assert set(found) == set(FILES)
        for file, row in zip(FILES, array, strict=True):
            assert found[file].dtype == embedding_store.DTYPES[kept]
            np.testing.assert_array_equal(found[file].astype(np.float32), row)


def test_bfloat16_of_weights_is_rounded_once_to_float16(tmp_path: Path, listed: Path) -> None:
    array = (np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32).view(np.uint32) & 0xFFFF0000).view("f4")
    path = write_safetensors(tmp_path / "e.safetensors", emb=("BF16", array.shape, bfloat16_bytes(array)))
    found = by_id(made(tmp_path, path, listed))
    np.testing.assert_array_equal([found[file] for file in FILES], array.astype(np.float16))


def test_class_ids_stand_beside_their_rows(tmp_path: Path, listed: Path) -> None:
    stored = made(tmp_path, saved(tmp_path / "e.npy", values()), listed)
    for split in stored.splits:
        ids = embedding_store.Rows(stored, split).class_ids
        names = [Path(image_id).parent.name for image_id in embedding_store.image_ids(stored, split)]
        assert [TABLE.names[TABLE.index_of(i)] for i in ids] == names
        assert stored.classes_in(split) == TABLE.ids
    assert {split: stored.examples(split) for split in stored.splits} == {"train": 9, "validation": 3}
    assert stored.record_lengths == {"train": (9,), "validation": (3,)}
    assert embedding_store.verify(stored) == 6


def test_files_follow_one_another(tmp_path: Path, listed: Path) -> None:
    array = values()
    parts = [saved(tmp_path / f"{i}.npy", part) for i, part in enumerate(np.split(array, [1, 7]))]
    one = made(tmp_path, saved(tmp_path / "all.npy", array), listed, out="one", shard_rows=4, tower_name="x")
    three = made(tmp_path, parts, listed, out="three", shard_rows=4, tower_name="x")
    assert contents(one.directory) == contents(three.directory)
    assert read_embeddings(parts).title == "0.npy and 2 more"
    with pytest.raises(UserError, match=r"1\.npy: found float32 \[n, 1, 4\], expected float32 \[n, 1, 5\] as in"):
        read_embeddings([parts[0], saved(parts[1], array[1:7, :, :4])])


def test_training_keeps_all_views_and_evaluation_the_first(tmp_path: Path, listed: Path) -> None:
    array = values(views=3)
    stored = made(tmp_path, saved(tmp_path / "e.npy", array), listed, Options(vocab_size=0, heldout=1))
    assert stored.views == {"heldout": 1, "train": 3, "validation": 1}
    for view in range(3):
        found = by_id(stored, view)
        for split in stored.splits:
            for image_id in embedding_store.image_ids(stored, split):
                kept = view if split == "train" else 0
                np.testing.assert_array_equal(found[image_id], array[FILES.index(image_id), kept])


def test_the_manifest_tells_the_tower_and_what_was_embedded(tmp_path: Path, listed: Path) -> None:
    import hashlib

    array = values().astype(np.float16)
    path = saved(tmp_path / "e.npy", array)
    one = made(tmp_path, path, listed, out="one", tower_name="a tower")
    digest = hashlib.sha256(b"a tower/5").hexdigest()
    about = {"kind": "given", "name": "a tower", "width": 5, "digest": digest}
    assert {key: value for key, value in one.tower.items() if key != "import"} == about
    other = made(tmp_path, saved(path, array + 1), listed, out="other", tower_name="a tower")
    assert other.records == one.records and other.tower["digest"] == digest
    assert other.tower["import"] != one.tower["import"] and other.fingerprint != one.fingerprint
    assert made(tmp_path, path, listed, out="third").tower["digest"] == hashlib.sha256(b"e.npy/5").hexdigest()
    seed = made(tmp_path, path, listed, Options(vocab_size=0, seed=1), out="seed")
    assert seed.records != one.records
    assert one.templates == (TEMPLATE,) and one.tokenizer is None


# -- rows to photos


def test_rows_go_by_name_where_there_are_names_and_by_order_else(
    tmp_path: Path, listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    array = values(len(FILES) + 2)
    names = [f"./{file}" for file in reversed(FILES[1:])]
    names = ["x/1.jpg", names[0].replace("/", "\\"), *names[1:], "x/2.jpg", "x/3.jpg"]
    with_names = tmp_path / "e.npz"
    np.savez(with_names, emb=array, files=names, labels=np.arange(len(names)))
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    by_text = {"names": tmp_path / "names.txt"}
    for path, given in ((with_names, {}), (saved(tmp_path / "e.npy", array), by_text)):
        found = by_id(made(tmp_path, path, listed, out=path.suffix, **given))
        assert set(found) == set(FILES[1:])
        for number, file in enumerate(reversed(FILES[1:]), 1):
            np.testing.assert_array_equal(found[file], array[number, 0])
        assert capsys.readouterr().out.splitlines()[:2] == [
            "embeddings left out, for they have no row in the list: 3 (x/1.jpg, x/2.jpg, x/3.jpg)",
            "rows of the list left out, for they have no embedding: 1 (Pica pica/0.jpg)",
        ]
    np.savez(with_names, emb=array[: len(FILES)], files=names[: len(FILES)])
    found = by_id(made(tmp_path, with_names, listed, out="order", by_order=True))
    np.testing.assert_array_equal([found[file] for file in FILES], array[: len(FILES), 0])


def test_absolute_names_meet_relative_ones(tmp_path: Path, listed: Path) -> None:
    np.savez(tmp_path / "e.npz", emb=values(), files=[str(tmp_path.resolve() / file) for file in FILES])
    opened = read_embeddings([tmp_path / "e.npz"])
    items = read_ids(listed)
    assert match_rows(Given(opened, items, tmp_path.resolve())) == {file: row for row, file in enumerate(FILES)}


@pytest.mark.parametrize(("listed", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_of_names_may_be_of_another_form_than_those_of_the_list(
    tmp_path: Path, listed: str, stored: str
) -> None:
    names = ["Épervier/é0.jpg", "Geai/1.jpg"]
    np.savez(
        tmp_path / "e.npz", emb=values()[:2], files=np.array([unicodedata.normalize(stored, name) for name in names])
    )
    rows = [unicodedata.normalize(listed, name) for name in names]
    items = read_ids(write_list(tmp_path / "l.csv", [(row,) for row in reversed(rows)]))
    given = Given(read_embeddings([tmp_path / "e.npz"]), items, tmp_path.resolve())
    assert match_rows(given) == {row: number for number, row in enumerate(rows)}


def test_names_are_found_in_every_spelling_of_text(tmp_path: Path) -> None:
    expected = tuple(FILES)
    for names in (np.array(FILES), np.array([file.encode() for file in FILES])):
        np.savez(tmp_path / "e.npz", emb=values(), anything=names)
        assert read_embeddings([tmp_path / "e.npz"]).names == expected
    np.savez(tmp_path / "e.npz", emb=values(), files=np.array(FILES), labels=np.array(["x"] * len(FILES)))
    assert read_embeddings([tmp_path / "e.npz"]).names == expected
    assert read_embeddings([tmp_path / "e.npz"], files_key="labels").names == ("x",) * len(FILES)


def test_equal_embeddings_of_two_splits_are_told_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = write_list(
        tmp_path / "a.csv", [(file, "train" if i % 2 else "val") for i, file in enumerate(FILES)], ("file", "split")
    )
    array = values(views=2)
    array[1] = array[4] = array[6]  # one in train, two in validation
    array[5] = array[7]  # both in train
    assert made(tmp_path, saved(tmp_path / "e.npy", array), ids).examples() == len(FILES)
    names = ", ".join(sorted(FILES[i] for i in (1, 4, 6)))
    line = f"equal embeddings in different splits, likely of the same photo, and all stored: 3 ({names})"
    assert line in capsys.readouterr().out.splitlines()


# -- splits, as a conversion makes them


def test_splits_and_order_are_those_of_the_conversion(
    field_guide_folder: Path, records: object, tmp_path: Path
) -> None:
    import tensorflow as tf

    from lit_jax.data.records import parse_example

    converted = open_records(records.directory)
    ids = read_ids(field_guide_folder / "splits.csv")
    np.save(tmp_path / "e.npy", values(len(ids)))
    table = read_class_table(field_guide_folder / "classes.csv")
    options = Options(templates=converted.templates, vocab_size=400)
    stored = import_embeddings(Given(read_embeddings([tmp_path / "e.npy"]), ids), table, tmp_path / "store", options)
    assert {split: stored.examples(split) for split in stored.splits} == {"train": 56, "validation": 24, "heldout": 28}
    for split in converted.splits:
        files = [str(path) for path in converted.files(split)]
        found = list(tf.data.TFRecordDataset(files).map(parse_example).as_numpy_iterator())
        assert embedding_store.image_ids(stored, split) == [record["image_id"].decode() for record in found]
        assert embedding_store.Rows(stored, split).class_ids.tolist() == [record["class_id"] for record in found]
        assert stored.classes_in(split) == converted.classes_in(split)
    assert stored.tokenizer.read_bytes() == converted.tokenizer.read_bytes()
    assert stored.class_table.read_bytes() == converted.class_table.read_bytes()


def test_draws_are_those_of_the_conversion(field_guide_folder: Path, tmp_path: Path) -> None:
    items = [item._replace(split=None) for item in read_ids(field_guide_folder / "splits.csv")]
    table = read_class_table(field_guide_folder / "classes.csv")
    for name, draws in {
        "a": {"heldout": 3, "seed": 5, "validation_fraction": 0.3},
        "b": {"heldout_classes": table.names[:2], "seed": 6},
    }.items():
        expected: dict[str, set[tuple[str, int]]] = {}
        for photo in plan_photos(items, table, Options(**draws)).photos:
            expected.setdefault(photo.split, set()).add((photo.image_id, photo.class_id))
        np.save(tmp_path / "e.npy", values(len(items)))
        opened = read_embeddings([tmp_path / "e.npy"])
        stored = import_embeddings(Given(opened, items), table, tmp_path / name, Options(vocab_size=0, **draws))
        found = {
            split: set(
                zip(
                    embedding_store.image_ids(stored, split),
                    embedding_store.Rows(stored, split).class_ids.tolist(),
                    strict=True,
                )
            )
            for split in stored.splits
        }
        assert found == expected and set(found) == {"train", "validation", "heldout"}


def test_the_tokenizer_is_trained_on_training_classes(tmp_path: Path, listed: Path) -> None:
    options = Options(vocab_size=300, heldout_classes=("Apple",), templates=("{name}",))
    stored = made(tmp_path, saved(tmp_path / "e.npy", values()), listed, options)
    assert load_tokenizer(stored.tokenizer) == train_sentencepiece(SPECIES[:2], tmp_path / "t.model", vocab_size=300)


# -- interruptions and folders that exist


def test_a_store_that_was_interrupted_ends_like_an_unbroken_one(
    tmp_path: Path, listed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "e.npy", values(views=2))
    options = Options(vocab_size=300)
    whole = made(tmp_path, path, listed, options, out="whole", shard_rows=4)
    assert whole.record_lengths == {"train": (3, 3, 3), "validation": (3,)}
    calls: list[str] = []
    write = embedding_store.write_shard

    def interrupted(directory: Path, name: str, *given: object, **more: object) -> embedding_store.StoreShard:
        if len(calls) == 2:
            (directory / f"{name}.features.npy.1.part").write_bytes(b"half")
            raise KeyboardInterrupt
        calls.append(name)
        return write(directory, name, *given, **more)

    monkeypatch.setattr(embedding_store, "write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, path, listed, options, out="broken", shard_rows=4)
    assert not (tmp_path / "broken").exists()
    with pytest.raises(UserError, match=r"an unfinished store with another dtype \(\w+\), expected the same"):
        made(tmp_path, path, listed, options, out="broken", shard_rows=4, dtype="float32")
    with pytest.raises(UserError, match="an unfinished store with another array of embeddings, expected the same"):
        made(tmp_path, saved(tmp_path / "e.npy", values(seed=1, views=2)), listed, options, out="broken", shard_rows=4)
    saved(path, values(views=2))
    calls[:] = [""] * 3  # counts on, and never comes to two
    resumed = made(tmp_path, path, listed, options, out="broken", shard_rows=4)
    assert calls[3:] == ["train-00002-of-00003", "validation-00000-of-00001"]
    assert contents(resumed.directory) == contents(whole.directory)
    assert not (tmp_path / "broken.incomplete").exists()


def test_two_imports_do_not_share_a_folder(tmp_path: Path, listed: Path) -> None:
    with (
        alone_in(tmp_path / "store.incomplete", "import"),
        pytest.raises(UserError, match=r"incomplete: found another import at work in it, expected none; wait for it"),
    ):
        made(tmp_path, saved(tmp_path / "e.npy", values()), listed, Options(vocab_size=0), out="store")
    assert not (tmp_path / "store.incomplete").exists()  # nothing was begun, and nothing is left


def test_a_finished_store_is_up_to_date_for_the_same_and_refused_for_anything_else(
    tmp_path: Path, listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path / "e.npy", values())
    (tmp_path / "store").mkdir()  # an empty folder is as good as none
    first = made(tmp_path, path, listed)
    before = {file: file.stat().st_mtime_ns for file in first.directory.iterdir()}
    assert made(tmp_path, path, listed) == first
    assert capsys.readouterr().out.splitlines()[-1] == f"{tmp_path / 'store'} is up to date"
    for options, more in ((QUICK, {"dtype": "float32"}), (QUICK, {"tower_name": "x"}), (QUICK, {"shard_rows": 5}),
                          (Options(vocab_size=0, seed=1), {}), (Options(vocab_size=0, drop_repeats=True), {})):  # fmt: skip
        with pytest.raises(UserError, match=r"store: found a store of other embeddings or options, expected the same"):
            made(tmp_path, path, listed, options, **more)
    with pytest.raises(UserError, match="other embeddings or options"):
        made(tmp_path, saved(path, values(seed=1)), listed)
    assert before == {file: file.stat().st_mtime_ns for file in first.directory.iterdir()}


def test_restart_replaces_a_store_and_an_unfinished_one(
    tmp_path: Path, listed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "e.npy", values())
    first = made(tmp_path, path, listed)
    again = made(tmp_path, path, listed, dtype="float32", restart=True)
    assert (first.dtype, again.dtype) == ("float16", "float32")
    with monkeypatch.context() as patch:
        patch.setattr(embedding_store, "finish", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            made(tmp_path, path, listed, out="other")
    assert made(tmp_path, path, listed, out="other", dtype="float32", restart=True).dtype == "float32"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    for restart in (False, True):
        with pytest.raises(UserError, match="mine: found a folder that is no store, expected none; give another --out"):
            made(tmp_path, path, listed, out="mine", restart=restart)
    assert contents(tmp_path / "mine") == {"thesis.tex": b"x"}


# -- mistakes, each in one line


def test_arrays_that_are_none_are_refused(
    tmp_path: Path, listed: Path, classes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def line(path: Path, *arguments: object) -> str:
        return refused(capsys, tmp_path, "--ids", listed, "--embeddings", path, *arguments)

    array = values()
    assert "no.npy: found no such file, expected embeddings; check the path" in line(tmp_path / "no.npy")
    assert "e.pt: found a .pt file, expected .npy, .npz, .safetensors; save the array" in line(tmp_path / "e.pt")
    (tmp_path / "e.npy").write_text("no array at all")
    assert "e.npy: found no sound .npy (the magic string is not correct" in line(tmp_path / "e.npy")
    np.save(tmp_path / "e.npy", np.arange(12.0))
    assert "e.npy: found shape [12], expected [N, W] or [N, V, W]; reshape it" in line(tmp_path / "e.npy")
    np.save(tmp_path / "e.npy", np.zeros((0, 5)))
    assert "e.npy: found shape [0, 5], expected [N, W]" in line(tmp_path / "e.npy")
    np.save(tmp_path / "e.npy", np.ones((12, 5), np.int64))
    assert "e.npy: found int64 [12, 5], expected float16, bfloat16, float32 or float64" in line(tmp_path / "e.npy")
    np.save(tmp_path / "e.npy", np.array([[1.0], None], dtype=object), allow_pickle=True)
    assert "e.npy: found pickled objects, expected floats; save numpy.asarray(" in line(tmp_path / "e.npy")
    np.save(tmp_path / "e.npy", array)
    assert "e.npy: found float32 [12, 1, 5], expected 'x'; correct or drop --key" in line(tmp_path / "e.npy", "--key=x")
    np.savez(tmp_path / "e.npz", a=array, b=array, n=np.arange(3))
    three = "e.npz: found a float32 [12, 1, 5], b float32 [12, 1, 5], n int64 [3], expected"
    assert f"{three} 'c'; correct or drop --key" in line(tmp_path / "e.npz", "--key=c")
    assert f"{three} one array of floats [N, W] or [N, V, W]; choose with --key" in line(tmp_path / "e.npz")
    write_safetensors(tmp_path / "e.safetensors", a=("F8_E5M2", (12, 5), bytes(60)))
    assert "e.safetensors a: found F8_E5M2 [12, 5], expected float16" in line(tmp_path / "e.safetensors")


def test_files_cut_short_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", values())
    np.savez(tmp_path / "e.npz", emb=values())
    write_safetensors(tmp_path / "e.safetensors", emb=("F32", (12, 5), values().tobytes()))
    for path in (tmp_path / "e.npy", tmp_path / "e.npz", tmp_path / "e.safetensors"):
        content = path.read_bytes()
        for length in (0, 5, 40, len(content) - 1):
            path.write_bytes(content[:length])
            with pytest.raises(
                UserError, match=rf"{path.name}: found no sound \{path.suffix} \(.*expected a whole file"
            ):
                read_embeddings([path])
    write_safetensors(tmp_path / "e.safetensors", emb=("F32", (12, 6), values().tobytes()))
    with pytest.raises(UserError, match="an array whose place does not fit its shape"):
        read_embeddings([tmp_path / "e.safetensors"])


def test_lists_that_do_not_fit_are_refused(
    tmp_path: Path, listed: Path, classes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path / "e.npy", values(13))

    def line(*arguments: object) -> str:
        return refused(capsys, tmp_path, "--embeddings", path, *arguments)

    assert "no.csv: found no such file, expected a CSV with a row an embedding" in line("--ids", tmp_path / "no.csv")
    assert "ids: found 12 rows, expected 13, one an embedding of e.npy; correct the list" in line("--ids", listed)
    (tmp_path / "n.txt").write_text("a\nb\n")
    named = ("--ids", listed, "--names", tmp_path / "n.txt")
    assert "n.txt: found 2 names, expected 13, one an embedding; correct the list" in line(*named)
    (tmp_path / "n.txt").write_text("\n".join(f"{i}.jpg" for i in range(13)))
    message = "found none of the 12 rows of the list (Pica pica/0.jpg and 11 more) among them (0.jpg and 12 more)"
    assert message.replace(" and 11 more", "").replace(" and 12 more", "") in line(*named)
    (tmp_path / "n.txt").write_text("\n".join([*FILES, FILES[3]]))
    assert "names of embeddings: found 'Pica pica/3.jpg' twice, expected each once (1 too many)" in line(*named)
    saved(path, values())
    write_list(tmp_path / "b.csv", [*((file,) for file in FILES[:-1]), (FILES[0],)])
    assert (
        "list of photos: found 'Pica pica/0.jpg' twice, expected each once (1 too many); delete the row and its embedding"
        in line("--ids", tmp_path / "b.csv")
    )
    write_list(tmp_path / "b.csv", [(f"Dodo/{i}.jpg",) for i in range(12)])
    assert "class names: found 1 of 1 not in column" in line("--ids", tmp_path / "b.csv")
    write_list(tmp_path / "b.csv", [(f"Pica pica/{i}.jpg",) for i in range(12)])
    assert "class table: found 2 of 3 classes without a photo" in line("--ids", tmp_path / "b.csv")
    write_list(tmp_path / "b.csv", [(file,) for file in FILES], ("path",))
    assert "found columns path, expected a column file" in line("--ids", tmp_path / "b.csv")
    assert "shard_rows: found 0, expected 1 or more" in line("--ids", listed, "--shard-rows", 0)
    assert not list(tmp_path.glob("store*"))


def test_names_that_would_be_guessed_wrongly_are_refused(tmp_path: Path, listed: Path) -> None:
    path = tmp_path / "e.npz"
    np.savez(path, emb=values(), files=np.array(FILES, object))
    for given in ({}, {"files_key": "files"}):
        with pytest.raises(UserError, match=r"e\.npz files: found pickled objects, expected texts; save numpy\.array"):
            read_embeddings([path], **given)
    assert read_embeddings([path], by_order=True).names is None
    np.savez(path, emb=values(), a=np.array(FILES), b=np.array(FILES))
    with pytest.raises(UserError, match="found texts in a, b, expected one array of names; say --files-key"):
        read_embeddings([path])
    assert read_embeddings([path], files_key="b").names == FILES
    with pytest.raises(UserError, match=r"found emb .*, expected texts \[12\] in 'c'; correct --files-key"):
        read_embeddings([path], files_key="c")
    np.savez(path, emb=values(), files=np.array(FILES))
    with pytest.raises(UserError, match=r"f\.npy: found no names in it, expected them as in the others; give --names"):
        read_embeddings([path, saved(tmp_path / "f.npy", values())])


@pytest.mark.parametrize(("bad", "message"), [(np.nan, "found nan"), (1e6, "found 1e+06"), (-np.inf, "found -inf")])
def test_a_row_that_is_no_number_is_named(
    tmp_path: Path, listed: Path, classes: Path, capsys: pytest.CaptureFixture[str], bad: float, message: str
) -> None:
    array = values(views=2)
    array[5, 0, 3] = bad
    line = refused(capsys, tmp_path, "--embeddings", saved(tmp_path / "e.npy", array), "--ids", listed)
    assert f"embedding of {FILES[5]}: {message}, expected a finite number within float16" in line


# -- the command


def test_every_option_of_the_command_reaches_the_store(
    tmp_path: Path, listed: Path, classes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "e.npz", x=values(), y=values(views=2, seed=1), who=np.array(FILES))
    (tmp_path / "held.txt").write_text("Raven\n")
    given = (
        f"--embeddings {tmp_path}/e.npz --ids {listed} --classes {classes} --out {tmp_path}/store --key y "
        f"--files-key who --heldout-classes {tmp_path}/held.txt --template {{name}} --drop-repeats --seed 3 "
        "--validation-fraction 0.5 --vocab-size 300 --dtype bfloat16 --shard-rows 2 --tower-name t"
    )
    main(given.split())
    stored = embedding_store.open_store(tmp_path / "store")
    assert stored.record_lengths == {"heldout": (2, 2), "train": (2, 2), "validation": (2, 2)}
    assert (stored.dtype, stored.tower["name"], stored.views["train"]) == ("bfloat16", "t", 2)
    assert (stored.templates, stored.drop_repeats) == (("{name}",), True)
    np.testing.assert_array_equal(
        [by_id(stored)[file] for file in FILES], values(views=2, seed=1)[:, 0].astype(ml_dtypes.bfloat16)
    )
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "12 embeddings of 3 classes, width 5, 2 views"
    assert printed[-2:] == ["held out: Corvus corax", f"wrote {tmp_path / 'store'}"]
    assert any(line.split()[:5] == ["train", "4", "2", "2", "2"] for line in printed)


def test_the_command_loads_no_framework(tmp_path: Path, listed: Path, classes: Path) -> None:
    saved(tmp_path / "e.npy", values())
    code = "import sys; from data_prep.embeddings import main; main(sys.argv[1:]); print(*sorted(sys.modules))"
    arguments = f"--embeddings {tmp_path}/e.npy --ids {listed} --classes {classes} --out {tmp_path}/store"
    command_line = [sys.executable, "-c", code, *arguments.split(), "--vocab-size", "300"]
    run = subprocess.run(command_line, capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = run.stdout.splitlines()[-1].split()
    assert {"tensorflow", "tensorflow_datasets", "jax", "torch", "safetensors"}.isdisjoint(loaded)


def test_embeddings_are_not_read_into_memory_as_a_whole(tmp_path: Path, listed: Path) -> None:
    np.save(tmp_path / "e.npy", values())
    write_safetensors(tmp_path / "e.safetensors", emb=("F32", (12, 5), values().tobytes()))
    for path in (tmp_path / "e.npy", tmp_path / "e.safetensors"):
        assert all(isinstance(part, np.memmap) for part in read_embeddings([path]).parts)


def test_a_large_file_is_hashed_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "e.npy", values(views=2))
    expected = read_embeddings([path]).scan()
    monkeypatch.setattr(given_files, "_SCAN_BYTES", 100)
    found = read_embeddings([path]).scan()
    assert found[0] == expected[0]
    np.testing.assert_array_equal(found[1], expected[1])


def test_real_birds_of_a_real_tower(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    birds = shared_data / "cub100"
    if not (birds / "inat_mobilenetv2.npz").is_file():
        pytest.skip("no bird embeddings beside the project")
    arguments = ["--embeddings", birds / "inat_mobilenetv2.npz", "--ids", birds / "splits.csv"]
    arguments += ["--classes", birds / "classes.csv", "--vocab-size", 0, "--out"]
    main([str(argument) for argument in [*arguments, tmp_path / "official"]])
    assert capsys.readouterr().out.splitlines()[0] == "5902 embeddings of 100 classes, width 1280, 1 view"
    official = embedding_store.open_store(tmp_path / "official")
    assert {split: official.examples(split) for split in official.splits} == {"train": 2999, "validation": 2903}
    main([str(argument) for argument in [*arguments, tmp_path / "held", "--heldout", 20]])
    held = embedding_store.open_store(tmp_path / "held")
    assert {split: held.examples(split) for split in held.splits} == {
        "heldout": 1176,
        "train": 2399,
        "validation": 2327,
    }
    assert Counter(len(held.classes_in(split)) for split in held.splits) == {80: 2, 20: 1}
    with np.load(birds / "inat_mobilenetv2.npz") as archive:
        expected = dict(zip(archive["files"].tolist(), archive["emb"], strict=True))
    found = by_id(held)
    assert all(np.array_equal(found[image_id], row) for image_id, row in expected.items()) and len(found) == 5902

"""The embedding store as a format: what is written is read, and nothing damaged is taken for whole."""

import json
import pathlib

import ml_dtypes
import numpy as np
import pytest

from lit_jax.data import embedding_store
from lit_jax.errors import UserError

TOWER = {"kind": "given", "name": "t", "digest": "d" * 64, "width": 6}


def features(n, views=2, width=6):
    return np.random.default_rng(n).normal(size=(n, views, width)).astype(np.float32)


def make(folder, *, dtype="float32", lengths=(5, 4), values=None, restart=False, plan=None):
    """A store of one split in two shards; row i has class id 10 + i % 3."""
    aside = embedding_store.begin(folder, plan or {"dtype": dtype}, restart=restart)
    values = features(sum(lengths)) if values is None else values
    shards, first = [], 0
    for number, length in enumerate(lengths):
        rows = range(first, first + length)
        shards.append(
            embedding_store.write_shard(
                aside, embedding_store.shard_name("train", number, len(lengths)), values[first : first + length],
                np.array([10 + i % 3 for i in rows]), [f"photo \N{SNOWMAN}\n{i}.jpg" for i in rows], dtype=dtype,
            )
        )  # fmt: skip
        first += length
    (aside / "classes.csv").write_text("id,name\n10,a\n11,b\n12,c\n")
    return embedding_store.finish(embedding_store.Store(
        directory=aside, splits={"train": shards}, views={"train": values.shape[1]}, width=values.shape[2], dtype=dtype,
        record_lengths={"train": lengths}, tower=TOWER, class_table=aside / "classes.csv", tokenizer=None,
        templates=("{name}",), drop_repeats=False, class_ids={"train": [10, 11, 12]}, records="r",
    ), folder)  # fmt: skip


@pytest.mark.parametrize(
    ("dtype", "kind"), [("float32", np.float32), ("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16)]
)
def test_what_is_written_is_read(tmp_path, dtype, kind):
    made = make(tmp_path / "s", dtype=dtype)
    want = features(9).astype(kind)
    rows = embedding_store.Rows(embedding_store.open_store(tmp_path / "s"), "train")
    assert len(rows) == made.examples("train") == made.examples() == 9 and rows.whole().dtype == kind
    assert np.array_equal(rows.whole(), want)
    wanted, views = np.array([8, 0, 4, 5, 0]), np.array([0, 1, 1, 0, 0])
    assert np.array_equal(rows.take(wanted, views), want[wanted, views])
    assert np.array_equal(rows.take(wanted), want[wanted, 0])
    assert rows.class_ids.tolist() == [10 + i % 3 for i in range(9)]
    assert embedding_store.image_ids(made, "train") == [f"photo \N{SNOWMAN}\n{i}.jpg" for i in range(9)]
    assert made.nbytes("train") == want.nbytes and made.classes_in("train") == (10, 11, 12)


def test_half_written_files_of_processes_that_were_killed_are_in_no_store(tmp_path):
    plan = {"dtype": "float32"}
    aside = embedding_store.begin(tmp_path / "s", plan)
    for name in ("train-00000-of-00002.features.npy.123.part", "plan.json.45.part", "film.1.part"):
        (aside / name).write_bytes(b"half")
    make(tmp_path / "s", plan=plan)
    assert [path.name for path in (tmp_path / "s").glob("*.part")] == ["film.1.part"]


def test_the_arrays_are_plain_npy_files_that_can_be_mapped(tmp_path):
    make(tmp_path / "s")
    mapped = np.load(tmp_path / "s" / "train-00000-of-00002.features.npy", mmap_mode="r")
    assert isinstance(mapped, np.memmap) and np.array_equal(mapped, features(9)[:5])


def test_equal_content_gives_equal_bytes_and_other_content_another_fingerprint(tmp_path):
    one, two = make(tmp_path / "a"), make(tmp_path / "b")
    assert one.fingerprint == two.fingerprint
    assert {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()} == {
        p.name: p.read_bytes() for p in (tmp_path / "b").iterdir()
    }
    assert make(tmp_path / "c", values=features(9) * 1.01).fingerprint != one.fingerprint


@pytest.mark.parametrize("part", ["features.npy", "class_id.npy", "image_id.txt"])
@pytest.mark.parametrize("place", [-1, -7])
def test_one_flipped_byte_is_found(tmp_path, part, place):
    made = make(tmp_path / "s")
    assert embedding_store.verify(made) == 6
    path = tmp_path / "s" / f"train-00001-of-00002.{part}"
    damaged = bytearray(path.read_bytes())
    damaged[place] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=f"00001-of-00002.{part}: found checksum .*, expected .*changed or damaged"):
        embedding_store.verify(made)
    rows = embedding_store.Rows(made, "train")
    rows.take(np.array([0, 4]))  # the sound shard can be read
    with pytest.raises(UserError, match="changed or damaged"):
        rows.take(np.array([0, 5]))
    with pytest.raises(UserError, match="changed or damaged"):
        embedding_store.Rows(made, "train").whole()


def test_a_shard_that_was_finished_is_known_and_a_half_written_one_is_not(tmp_path):
    aside = embedding_store.begin(tmp_path / "s", {"a": 1})
    shard = embedding_store.write_shard(
        aside, "train-00000-of-00001", features(3), np.zeros(3), ["a", "b", "c"], dtype="float32"
    )
    assert embedding_store.finished_shard(aside, shard.name) == shard
    (aside / f"{shard.name}.json").unlink()
    assert embedding_store.finished_shard(aside, shard.name) is None


@pytest.mark.parametrize("over_another", [False, True])
def test_a_store_killed_before_its_last_renaming_is_finished_without_a_photo(tmp_path, monkeypatch, over_another):
    if over_another:
        make(tmp_path / "s", values=features(9) + 1)
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        rename = pathlib.Path.rename

        def stopped(path, to):
            if path.name == "s.incomplete":
                raise KeyboardInterrupt
            return rename(path, to)

        killed.setattr(pathlib.Path, "rename", stopped)
        make(tmp_path / "s", restart=over_another)
    names = [embedding_store.shard_name("train", number, 2) for number in range(2)]
    aside = embedding_store.begin(tmp_path / "s", {"dtype": "float32"})
    assert [embedding_store.finished_shard(aside, name).examples for name in names] == [5, 4]
    monkeypatch.setattr(
        embedding_store, "write_shard", lambda aside, name, *_, **__: embedding_store.finished_shard(aside, name)
    )
    made = make(tmp_path / "s")
    assert np.array_equal(embedding_store.Rows(made, "train").whole(), features(9))
    ours = {f"{name}.{part}" for name in names for part in ("features.npy", "class_id.npy", "image_id.txt")}
    assert {path.name for path in (tmp_path / "s").iterdir()} == ours | {"classes.csv", "manifest.json"}


def test_numbers_that_a_dtype_cannot_hold_are_refused_with_the_photo(tmp_path):
    values = features(3)
    values[1, 1, 2] = 1e6
    with pytest.raises(
        UserError, match="embedding of b: found 1e.06, expected a finite number within float16; use --dtype"
    ):
        embedding_store.write_shard(tmp_path, "x", values, np.zeros(3), ["a", "b", "c"], dtype="float16")
    embedding_store.write_shard(tmp_path, "x", values, np.zeros(3), ["a", "b", "c"], dtype="bfloat16")
    with pytest.raises(UserError, match=r"embedding of b: found 1e\+39, expected a finite number within float32"):
        embedding_store.write_shard(
            tmp_path, "y", values.astype(np.float64) * 1e33, np.zeros(3), ["a", "b", "c"], dtype="float32"
        )
    values[2, 0, 0] = np.nan
    with pytest.raises(UserError, match="embedding of c: found nan"):
        embedding_store.write_shard(tmp_path, "y", values, np.zeros(3), ["a", "b", "c"], dtype="float32")
    assert not list(tmp_path.glob("y*"))


def refusal(path):
    with pytest.raises(UserError) as caught:
        embedding_store.open_store(path)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_what_is_no_whole_store_is_refused(tmp_path):
    assert "found no such folder, expected an embedding store" in refusal(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "found no manifest.json of lit_jax store" in refusal(tmp_path / "empty")
    embedding_store.begin(tmp_path / "half", {})
    assert "found only half.incomplete, expected a complete store" in refusal(tmp_path / "half")
    assert "found a half-written store" in refusal(tmp_path / "half.incomplete")

    make(tmp_path / "s")
    manifest = tmp_path / "s" / "manifest.json"
    whole = manifest.read_text()
    changed = json.loads(whole)
    manifest.write_text(json.dumps({**changed, "version": 99}))
    assert "found store format 99, expected at most 1; update lit_jax" in refusal(tmp_path / "s")
    manifest.write_text(json.dumps({**changed, "width": 7}))
    assert "found a changed manifest" in refusal(tmp_path / "s")
    manifest.write_text(whole)
    (tmp_path / "s" / "classes.csv").write_text("id,name\n10,z\n")
    assert "classes.csv: found another content" in refusal(tmp_path / "s")
    make(tmp_path / "s", restart=True)
    path = tmp_path / "s" / "train-00000-of-00002.features.npy"
    path.write_bytes(path.read_bytes()[:-4])
    assert f"{path}: found" in refusal(tmp_path / "s")
    path.unlink()
    assert "copy it again" in refusal(tmp_path / "s")


def test_beginning_refuses_what_it_would_destroy(tmp_path):
    make(tmp_path / "s")
    with pytest.raises(UserError, match="found a complete store, expected none; add --restart"):
        embedding_store.begin(tmp_path / "s", {})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    for restart in (False, True):
        with pytest.raises(UserError, match="found a folder that is no store, expected none; give another --out"):
            embedding_store.begin(tmp_path / "mine", {}, restart=restart)
    assert (tmp_path / "mine" / "thesis.txt").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="found a folder that is no store"):
        embedding_store.begin(tmp_path / "file", {})
    (tmp_path / "blank").mkdir()
    assert make(tmp_path / "blank").examples() == 9
    embedding_store.begin(tmp_path / "t", {"dtype": "float16", "views": 1})
    embedding_store.begin(tmp_path / "t", {"dtype": "float16", "views": 1})
    with pytest.raises(UserError, match=r"found an unfinished store with another views \(1\), expected the same"):
        embedding_store.begin(tmp_path / "t", {"dtype": "float16", "views": 2})
    with pytest.raises(UserError, match="found an unfinished store that another command began, expected one of this"):
        embedding_store.begin(tmp_path / "t", {"dtype": "float16", "list": "x", "shard_rows": 9})
    embedding_store.begin(tmp_path / "t", {"dtype": "float16", "views": 2}, restart=True)


def test_a_split_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="split: found 'test', expected train, the only one in"):
        make(tmp_path / "s").examples("test")


def test_shards_are_of_almost_equal_length():
    assert embedding_store.shard_bounds(10, 4) == [(0, 3), (3, 6), (6, 10)]
    assert embedding_store.shard_bounds(3, 4) == [(0, 3)]


def test_ids_of_photos_that_are_damaged_are_told_in_one_line(tmp_path):
    path = tmp_path / "x.image_id.txt"
    path.write_text('"a\u2028b.jpg"\n"c.jpg"\n')
    assert embedding_store._ids_in(tmp_path, "x") == ["a\u2028b.jpg", "c.jpg"]
    for content in (b'"a.jpg"\n"c.j', b"[" * 100_000, b"\x81"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"x\.image_id\.txt: found .*, expected ids of photos; copy it again"):
            embedding_store._ids_in(tmp_path, "x")

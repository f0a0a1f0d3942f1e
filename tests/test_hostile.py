"""Files from strangers: nothing in them runs, and each that is refused is refused in one line."""

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_prep.conversion.report import lost_species
from data_prep.import_embeddings.embedding_files import read_embeddings
from data_prep.sources import imagenet_shifts, json_rows
from data_prep.sources.webdataset import read_tar
from lit_jax import leaks, robustness
from lit_jax.data import embedding_store
from lit_jax.errors import UserError, first_line
from lit_jax.models.weight_files import open_weights
from lit_jax.text.classes import read_class_table
from lit_jax.text.labels import read_labels


class Payload:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.mark, "ran")


def objects(path: Path) -> bytes:
    """A `.npy` of one pickled object."""
    out = io.BytesIO()
    np.save(out, np.array([Payload(path.with_name("mark"))], object), allow_pickle=True)
    return out.getvalue()


def npy(shape: str = "(2, 3)", more: int = 0, size: int = 24) -> bytes:
    """A `.npy` by the description of the format, whose header claims what it likes."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}{' ' * more}\n".encode()
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header + bytes(size)


def zipped(content: bytes, name: str = "emb.npy") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, content)
    return out.getvalue()


def marked(archive: bytes, *, flags: int = 0, method: int = 0) -> bytes:
    """A zip whose headers, the member's own and that of the directory, claim a flag and a method of packing."""
    found = bytearray(archive)
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = found.index(signature) + at
        struct.pack_into("<HH", found, place, flags, method)
    return bytes(found)


def tensors(header: bytes | dict[str, object], length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(24)


def claim(**changes: object) -> dict[str, object]:
    return {"emb": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24], **changes}}


FILES: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "objects in npz": ("x.npz", lambda path: zipped(objects(path))),
    "objects in npy": ("x.npy", objects),
    "pickle called npz": ("x.npz", lambda path: pickle.dumps(Payload(path.with_name("mark")))),
    "pickle called npy": ("x.npy", lambda path: pickle.dumps(Payload(path.with_name("mark")))),
    "pickle called safetensors": ("x.safetensors", lambda path: pickle.dumps(Payload(path.with_name("mark")))),
    "pickle called pth": ("x.pth", lambda path: pickle.dumps(Payload(path.with_name("mark")))),
    "pickle called bin": ("x.bin", lambda path: pickle.dumps(Payload(path.with_name("mark")))),
    "huge header in npz": ("x.npz", lambda path: zipped(npy(more=1 << 20))),
    "huge header in npy": ("x.npy", lambda path: npy(more=1 << 20)),
    "deep header in npy": ("x.npy", lambda path: npy("(" * 5000 + ")" * 5000)),
    "deeper header in npz": ("x.npz", lambda path: zipped(npy("(" * 2000 + ")" * 2000))),
    "more rows than bytes in npz": ("x.npz", lambda path: zipped(npy("(9_000_000_000_000, 3)"))),
    "more rows than bytes in npy": ("x.npy", lambda path: npy("(9_000_000_000_000, 3)")),
    "negative rows in npz": ("x.npz", lambda path: zipped(npy("(-2, -3)"))),
    "endless header in safetensors": ("x.safetensors", lambda path: tensors(claim(), 1 << 62)),
    "deep header in safetensors": ("x.safetensors", lambda path: tensors(b"[" * 100_000)),
    "more rows than bytes in safetensors": ("x.safetensors", lambda path: tensors(claim(shape=[1 << 60, 3]))),
    "place outside of safetensors": ("x.safetensors", lambda path: tensors(claim(data_offsets=[-48, -24]))),
    "words for numbers in safetensors": ("x.safetensors", lambda path: tensors(claim(shape=["2", 3]))),
    "shape of 1e30 in npy": ("x.npy", lambda path: npy(f"({10**30}, 3)")),
    "shape of 1e30 in npz": ("x.npz", lambda path: zipped(npy(f"({10**30}, 3)"))),
    "shape of 1e30 in safetensors": ("x.safetensors", lambda path: tensors(claim(shape=[10**30, 3]))),
    "digits without end in npy": ("x.npy", lambda path: npy("(" + "9" * 5000 + ", 3)")),
    "digits without end in safetensors": (
        "x.safetensors",
        lambda path: tensors(json.dumps(claim()).replace("[2", "[" + "9" * 5000).encode()),
    ),
    "list for a header in safetensors": ("x.safetensors", lambda path: tensors(b"[1]")),
    "empty npy": ("x.npy", lambda path: b""),
    "empty npz": ("x.npz", lambda path: b""),
    "empty npy in npz": ("x.npz", lambda path: zipped(b"")),
    "encrypted npz": ("x.npz", lambda path: marked(zipped(npy()), flags=1)),
    "npz of an unknown method": ("x.npz", lambda path: marked(zipped(npy()), method=77)),
    "list for a weight_map": ("model.safetensors.index.json", lambda path: b'{"weight_map": ["emb"]}'),
    "numbers in a weight_map": ("model.safetensors.index.json", lambda path: b'{"weight_map": {"emb": 1}}'),
    "list for an index": ("model.safetensors.index.json", lambda path: b"[]"),
    "deep index": ("model.safetensors.index.json", lambda path: b"[" * 100_000),
    "another folder's file in an index": (
        "model.safetensors.index.json",
        lambda path: json.dumps({"weight_map": {"emb": "../other/x.safetensors"}}).encode(),
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_nothing_runs_and_one_line_refuses(tmp_path: Path, kind: str) -> None:
    name, content = FILES[kind]
    path = tmp_path / "own" / name
    path.parent.mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.safetensors").write_bytes(tensors(claim()))
    path.write_bytes(content(path))
    readers = {
        "weights": lambda: [np.asarray(array) for array in open_weights(path).arrays.values()],
        "embeddings": lambda: read_embeddings([path]),
    }
    for what, read in readers.items():
        with pytest.raises(UserError) as refusal:
            read()
        message = str(refusal.value)
        assert "\n" not in message and path.name in message and "found" in message, (what, message)
    assert not path.with_name("mark").exists()


def test_names_of_embeddings_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", emb=np.ones((1, 4), np.float32), files=np.array([Payload(tmp_path / "mark")], object))
    with pytest.raises(UserError, match="found pickled objects, expected texts"):
        read_embeddings([tmp_path / "e.npz"])
    assert not (tmp_path / "mark").exists()


def test_a_tar_cannot_reach_outside_of_itself(tmp_path: Path) -> None:
    """Members that are links, or whose names climb, are read where they lie in the tar or not at all."""
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    path = tmp_path / "tars" / "0.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        for name in ("../climbs.jpg", "/absolute.jpg"):
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"own"))
        for name, kind in (("link.jpg", tarfile.SYMTYPE), ("hard.jpg", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(tmp_path / "secret.jpg")
            tar.addfile(member)
    found = [photo for sample in read_tar(path).values() for photo in sample.photos.values()]
    assert [path.read_bytes()[offset : offset + size] for offset, size in found] == [b"own", b"own"]
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["0.tar", "secret.jpg", "tars"]


def test_a_name_of_any_length_in_an_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"emb": "x" * 2000}}))
    with pytest.raises(UserError, match="found no x{2000}, expected every file of its index; fetch it too"):
        open_weights(tmp_path)


def test_a_zip_that_points_before_its_beginning_is_refused(tmp_path: Path) -> None:
    content = bytearray(zipped(npy()))
    at = content.rindex(b"PK\5\6") + 16  # where its directory is said to be
    struct.pack_into("<I", content, at, struct.unpack_from("<I", content, at)[0] + 4000)
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.npz: found no sound \.npz \(.*\), expected a whole file"):
        read_embeddings([tmp_path / "x.npz"])


def test_a_zip_of_other_names_is_refused_in_a_few_words(tmp_path: Path) -> None:
    """The library quotes as many bytes as the name is said to have."""
    content = bytearray(zipped(npy(size=60_000)))
    struct.pack_into("<H", content, content.index(b"PK\3\4") + 26, 50_000)
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UserError) as refusal:
        open_weights(tmp_path / "x.npz")
    assert len(str(refusal.value)) < 600


def test_what_a_message_quotes_breaks_no_line_and_fills_no_page() -> None:
    assert str(UserError("a\r\nb\u2028c  d\x85\ve: found 1, expected 2")) == "a b c  d e: found 1, expected 2"
    long = str(UserError(f"file: found {'x' * 70_000}, expected less"))
    assert len(long) < 4000 and long.startswith("file: found x") and long.endswith("x, expected less")
    assert str(UserError("a" * 4000)) == "a" * 4000 and str(pickle.loads(pickle.dumps(UserError("a\nb")))) == "a b"
    assert first_line(ValueError("b" * 5000)) == "b" * 300 + "..." and first_line(ValueError("c" * 300)) == "c" * 300


JSON = {
    "deep": b"[" * 100_000,
    "digits without end": b'{"categories": [{"id": ' + b"9" * 5000 + b', "name": "a"}]}',
    "half of a pair of surrogates": b'[{"id": 1, "name": "a\\ud800"}]',
    "a list of lists": b"[[1]]",
    "no UTF-8": b'{"a": "\x81"}',
}


@pytest.mark.parametrize("kind", JSON)
def test_json_of_others_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(JSON[kind])
    readers: dict[str, Callable[[], object]] = {
        "class table": lambda: read_class_table(path),
        "labels": lambda: read_labels(path),
        "ImageNet's names": lambda: imagenet_shifts.read_names(path),
        "baseline": lambda: robustness._read_baseline(str(path)),
        "results": lambda: leaks._per_class(str(path)),
        "rows": lambda: list(json_rows.rows(io.BytesIO(JSON[kind]), ["categories"], name="x.json")),
    }
    for what, read in readers.items():
        with pytest.raises(UserError) as refusal:
            read()
        message = str(refusal.value)
        assert "\n" not in message and "x.json" in message and "found" in message, (what, message)


def test_an_id_that_has_no_room_in_64_bits_is_refused(tmp_path: Path) -> None:
    for number in (2**63, 10**30, int("9" * 4000)):
        (tmp_path / "c.csv").write_text(f"id,name\n{number},a\n")
        with pytest.raises(UserError, match=r"c\.csv line 2: found id \d{19,24}, expected at most 9223372036854775807"):
            read_class_table(tmp_path / "c.csv")
    (tmp_path / "c.csv").write_text(f"id,name\n{'9' * 5000},a\n{2**63 - 1},b\n")
    with pytest.raises(UserError, match=r"line 2: found id 9{24}, expected at most"):
        read_class_table(tmp_path / "c.csv")
    (tmp_path / "c.csv").write_text(f"id,name\n{2**63 - 1},b\n")
    assert read_class_table(tmp_path / "c.csv").ids == (2**63 - 1,)


def test_documents_beside_weights_are_objects(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(tensors(claim()))
    for content in (b"[1]", b"{", b"[" * 100_000, b"\x81"):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(UserError, match=r"config\.json.*: found .*, expected a JSON object; fetch it again"):
            open_weights(tmp_path)


def test_reports_that_are_damaged_count_as_none(tmp_path: Path) -> None:
    for content in (b"[]", b"[" * 100_000, b'{"lost": 1}', b"\x81"):
        (tmp_path / "report.json").write_bytes(content)
        assert lost_species(tmp_path) == []
    for name, content in (("a.json", b"[" * 100_000), ("b.json", b"[1]"), ("c.json", b'{"name": 1}')):
        (tmp_path / name).write_bytes(content)
        assert embedding_store.finished_shard(tmp_path, name[0]) is None

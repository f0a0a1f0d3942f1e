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

from data_prep.import_embeddings.embedding_files import read_embeddings
from data_prep.sources.webdataset import read_tar
from lit_jax.errors import UserError
from lit_jax.models.weight_files import open_weights


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

"""Arrays in files, by name and without their content: ``.npy``, ``.npz`` and ``.safetensors``.

What a file says of its arrays is read; an array itself is mapped into memory when it is asked for, but for ``.npz``,
which cannot be mapped. A new format is a reader here and a line in `READERS`.
"""

import functools
import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import ml_dtypes
import numpy as np

from lit_jax.errors import DAMAGED, UserError, first_line

_SAFETENSORS: dict[str, Any] = {"F16": "<f2", "BF16": ml_dtypes.bfloat16, "F32": "<f4", "F64": "<f8"}


class Stored(NamedTuple):
    """An array in a file, not read yet.

    Attributes:
        shape: as its header says.
        dtype: name of its type: NumPy's, or that of the file where NumPy has none.
        load: reads it, or maps it into memory.
    """

    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], np.ndarray]

    def __str__(self) -> str:
        return f"{'text' if self.is_text else self.dtype} {list(self.shape)}"

    @property
    def is_text(self) -> bool:
        """True if it holds strings."""
        return self.dtype.startswith(("str", "bytes"))


def _npy(path: Path) -> dict[str, Stored]:
    with open(path, "rb") as file:
        shape, dtype = _npy_header(file)
    return {"": Stored(shape, dtype, lambda: np.load(path, mmap_mode="r"))}


def _npz(path: Path) -> dict[str, Stored]:
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if member.endswith(".npy"):
                key = member.removesuffix(".npy")
                with archive.open(member) as file:
                    arrays[key] = Stored(*_npy_header(file), functools.partial(_from_npz, path, key))
    return arrays


def _from_npz(path: Path, key: str) -> np.ndarray:
    with open(path, "rb") as raw, np.load(raw) as archive:
        array: np.ndarray = archive[key]
    return array


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], str]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype.name


def _safetensors(path: Path) -> dict[str, Stored]:
    """Eight bytes of length, a JSON header of that length, then the arrays; see the format's own description."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        begin = 8 + int.from_bytes(file.read(8), "little")
        if not 8 < begin <= size:
            raise ValueError(f"{size} bytes, less than its header")
        header = json.loads(file.read(begin - 8))
    header.pop("__metadata__", None)
    return {key: _tensor(path, begin, size, **entry) for key, entry in header.items()}


def _tensor(path: Path, begin: int, size: int, *, dtype: str, shape: list[int], data_offsets: list[int]) -> Stored:
    if dtype not in _SAFETENSORS:
        return Stored(tuple(shape), dtype, lambda: np.empty(0))
    kind = np.dtype(_SAFETENSORS[dtype])
    first, end = data_offsets
    if begin + end > size:
        raise ValueError(f"{size} bytes, less than the {begin + end} that its header tells")
    if first < 0 or end - first != math.prod(shape) * kind.itemsize:
        raise ValueError("an array whose place does not fit its shape")
    return Stored(
        tuple(shape), kind.name, lambda: np.memmap(path, kind, mode="r", offset=begin + first, shape=tuple(shape))
    )


READERS: dict[str, Callable[[Path], dict[str, Stored]]] = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors}
"""By ending of the file: from its path to its arrays by name; the only one of a ``.npy`` has no name."""


def arrays_in(path: Path) -> dict[str, Stored]:
    """The arrays of a file by name, without their content.

    Raises:
        UserError: no such file, of another kind, or damaged.
    """
    if path.suffix.lower() not in READERS:
        found = f"a {path.suffix} file" if path.suffix else "no ending"
        raise UserError(f"{path}: found {found}, expected {', '.join(READERS)}; save the array as one of them")
    if not path.is_file():
        raise UserError(f"{path}: found no such file, expected embeddings; check the path")
    return sound(path, lambda: READERS[path.suffix.lower()](path))


_Value = TypeVar("_Value")


def sound(path: Path, read: Callable[[], _Value]) -> _Value:
    """What `read` reads of a file; raises `UserError` for a damaged one."""
    try:
        return read()
    except (OSError, *DAMAGED) as error:
        if isinstance(error, OSError) and error.filename:  # the file cannot be opened; places within it have no name
            raise
        reason = first_line(error)
        raise UserError(
            f"{path}: found no sound {path.suffix} ({reason}), expected a whole file; save or copy it again"
        ) from error

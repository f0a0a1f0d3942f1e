"""What runs the model in a browser: ONNX Runtime Web, one pinned version, checked to the byte."""

import base64
import dataclasses
import hashlib
import io
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from lit_jax.base.files import written_aside
from lit_jax.errors import UserError

VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web-{VERSION}.tgz"
ADDRESS = f"https://registry.npmjs.org/onnxruntime-web/-/{PACKAGE}"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Of the package, as npm writes it."""

# What the app takes of the package: its name here, its name there, SHA-256. The build that knows WebAssembly only.
_SCRIPT, _WASM = (
    ("ort.js", "ort.wasm.bundle.min.mjs", "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90"),
    ("ort.wasm", "ort-wasm-simd-threaded.wasm", "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"),
)
_REMEDY = f"give npm's {PACKAGE}, or the folder that it unpacks to"

LICENCE = """MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""
"""Of the package, which holds no copy itself."""


@dataclasses.dataclass(frozen=True)
class Runtime:
    """The two files of ONNX Runtime Web that the app needs.

    Attributes:
        script: an ES module.
        wasm: the compiled library.
    """

    script: bytes = dataclasses.field(repr=False)
    wasm: bytes = dataclasses.field(repr=False)


def runtime(given: str = "") -> Runtime:
    """ONNX Runtime Web: as given, or from the user's cache folder, or from npm.

    Args:
        given: npm's package, or the folder that it unpacks to; empty to fetch it once.

    Raises:
        UserError: another version, a file that was changed, or no network.
    """
    if given:
        path = Path(given)
        return _unpacked(_given_package(path)) if path.is_file() else _of_folder(path)
    kept = Path.home() / ".cache" / "lit_jax" / PACKAGE.removesuffix(".tgz")
    if all((kept / name).is_file() for name, *_ in (_SCRIPT, _WASM)):
        return _checked(lambda part: (kept / part[0]).read_bytes(), str(kept), "delete it, and it is fetched anew")
    found = _unpacked(_fetched())
    kept.mkdir(parents=True, exist_ok=True)
    for (name, *_), data in ((_SCRIPT, found.script), (_WASM, found.wasm)):
        with written_aside(kept / name) as aside:
            aside.write_bytes(data)
    return found


def _fetched() -> bytes:
    try:
        with urllib.request.urlopen(ADDRESS, timeout=60) as answer:
            data: bytes = answer.read()
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"onnxruntime-web: found no way to fetch {ADDRESS} ({reason}), expected a network; {_REMEDY} with --runtime"
        ) from error
    return _whole(data, ADDRESS)


def _given_package(path: Path) -> bytes:
    return _whole(path.read_bytes(), f"--runtime {path}")


def _whole(data: bytes, where: str) -> bytes:
    found = f"sha512-{base64.b64encode(hashlib.sha512(data).digest()).decode()}"
    if found != INTEGRITY:
        raise UserError(f"{where}: found {found[:20]}, expected {INTEGRITY[:20]} of version {VERSION}; {_REMEDY}")
    return data


def _unpacked(package: bytes) -> Runtime:
    with tarfile.open(fileobj=io.BytesIO(package)) as tar:

        def read(part: tuple[str, str, str]) -> bytes:
            file = tar.extractfile(f"package/dist/{part[1]}")
            assert file is not None, "its digest is the pinned one"
            return file.read()

        return _checked(read, PACKAGE, _REMEDY)


def _of_folder(folder: Path) -> Runtime:
    dist = next((one for one in (folder / "package" / "dist", folder / "dist", folder) if one.is_dir()), folder)
    return _checked(lambda part: (dist / part[1]).read_bytes(), f"--runtime {folder}", _REMEDY)


def _checked(read: Callable[[tuple[str, str, str]], bytes], where: str, remedy: str) -> Runtime:
    found = []
    for part in (_SCRIPT, _WASM):
        try:
            data = read(part)
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"{where}: found no {part[1]}, expected version {VERSION}; {remedy}") from None
        if hashlib.sha256(data).hexdigest() != part[2]:
            raise UserError(f"{where}: found another {part[1]}, expected that of version {VERSION}; {remedy}")
        found.append(data)
    return Runtime(*found)

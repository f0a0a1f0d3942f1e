"""The JSON file that describes a model's folder: its kind and version, and digests of itself and of the other files."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from lit_jax.base import foreign
from lit_jax.base.files import digest, file_digest, sealed
from lit_jax.errors import UserError

MODEL = "model.json"
REMEDY = "copy the folder again, or export anew"


def write(folder: pathlib.Path, kind: str, version: int, content: Mapping[str, Any], files: Sequence[str]) -> None:
    """Writes ``model.json`` with digests of files that are there already."""
    digests = {name: file_digest(folder / name) for name in files}
    model = {"format": kind, "version": version, **content, "files": digests}
    text = json.dumps(sealed(model), indent=2)
    (folder / MODEL).write_text(text + "\n", encoding="utf-8")


def kind_of(folder: pathlib.Path) -> str:
    """The format that a folder's ``model.json`` names; empty if it has none that can be read."""
    try:
        found = foreign.loaded(folder / MODEL)
    except (OSError, ValueError):
        return ""
    return str(found.get("format", "")) if isinstance(found, dict) else ""


def read(folder: pathlib.Path, kind: str, version: int) -> dict[str, Any]:
    """What ``model.json`` says, if it and the files that it names are whole and of a version that is known here.

    Raises:
        UserError: another kind of file, a newer version, or a file that is missing or not as it was written.
    """
    path = folder / MODEL
    try:
        found = foreign.loaded(path)
    except ValueError:
        raise UserError(f"{path}: found no whole JSON, expected that of a model; {REMEDY}") from None
    if not isinstance(found, dict) or found.get("format") != kind:
        raise UserError(f"{path}: found another kind of file, expected one that lit_jax.export wrote; check the path")
    there = found.get("version")
    if isinstance(there, int) and there > version:
        raise UserError(f"{path}: found model format {there}, expected at most {version}; update lit_jax")
    if found.pop("digest", None) != digest(found):
        raise UserError(f"{path}: found another content, expected it as it was written; {REMEDY}")
    files = found.get("files")
    if not isinstance(files, dict):
        raise UserError(f"{path}: found no list of files, expected every file of the model; {REMEDY}")
    for name, expected in files.items():
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: found no such file, expected every file of the model; {REMEDY}")
        if file_digest(folder / name) != expected:
            raise UserError(f"{folder / name}: found another content, expected it as it was written; {REMEDY}")
    return found

"""Reads weight files: a file, a folder, or a name on Hugging Face's hub.

NumPy ``.npz`` and ``.safetensors`` need nothing else; PyTorch's ``.pth``, ``.pt`` and ``.bin`` need torch; the hub
needs huggingface_hub (``pip install 'lit_jax[hub]'``) and looks into its cache first.
"""

import dataclasses
import os
import pathlib
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from lit_jax.base import foreign
from lit_jax.base.files import written_aside
from lit_jax.errors import DAMAGED, UserError, first_line

Flat = dict[str, np.ndarray]

HUB = "hf-hub:"
# In the order of preference.
FILES = (
    "model.safetensors", "open_clip_model.safetensors", "model.safetensors.index.json", "model.npz",
    "open_clip_pytorch_model.bin", "pytorch_model.bin",
)  # fmt: skip
_TORCH = (".pth", ".pt", ".bin")
_WRAPPERS = re.compile(r"(?:(?:_orig_mod|module|backbone|teacher|student|model|net|ema_model)\.)+")
# A training script's file keeps the weights under one of these, beside other things.
_NESTED = ("state_dict", "model", "model_state", "teacher", "params")


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """An opened file of weights.

    Attributes:
        where: for messages.
        arrays: by name; read when asked for.
        documents: the JSON files beside it by name, such as ``config.json``; empty for a lone file.
        folder: where it lies, if it was given as a folder or came from the hub.
    """

    where: str
    arrays: Mapping[str, np.ndarray]
    documents: Mapping[str, Any]
    folder: pathlib.Path | None = None


class _Lazy(Mapping[str, np.ndarray]):
    """Arrays that are read when they are asked for."""

    def __init__(self, names: Mapping[str, Callable[[str], np.ndarray]]) -> None:
        self._names = names

    def __getitem__(self, name: str) -> np.ndarray:
        return self._names[name](name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def wrappers(names: Iterable[str]) -> tuple[str, ...]:
    """What wrappers of PyTorch and training scripts have put in front of the names of a tower, such as ``module.``.

    Those of ``torch.compile`` (``_orig_mod.``), of data parallelism (``module.``), of self-distillation
    (``teacher.backbone.``) and the like, in any order, and their beginnings; a student's come last.

    Example:
        >>> wrappers(["module._orig_mod.norm.weight", "norm.bias"])
        ('module.', 'module._orig_mod.')
    """
    chains = {match[0] for name in names if (match := _WRAPPERS.match(name))}
    parts = {chain[: dot + 1] for chain in chains for dot, letter in enumerate(chain) if letter == "."}
    return tuple(sorted(parts, key=lambda part: ("student" in part, len(part), part)))


def exists(source: str) -> bool:
    """Whether weights are a file or folder that is there, so that nothing must be fetched."""
    return bool(source) and not source.startswith(HUB) and pathlib.Path(source).exists()


def documents(source: str) -> dict[str, Any]:
    """The JSON files beside weights, by name: those of their folder, if it is a model's folder.

    Raises:
        UserError: one of them is not whole, or a name on the hub that cannot be fetched.
    """
    if source.startswith(HUB):
        return documents_of(hub_folder(source))
    path = pathlib.Path(source)
    if path.is_dir():
        return documents_of(path)
    return documents_of(path.parent) if path.is_file() and path.name in FILES else {}


def open_weights(source: str | os.PathLike[str]) -> WeightFile:
    """Opens weights, whatever their form.

    Args:
        source: a file; a folder with one of `FILES`; or ``hf-hub:owner/name``, with ``@revision`` if wanted.

    Raises:
        UserError: nothing there, a file that is not whole or of no known kind, a package that is missing.
    """
    if str(source).startswith(HUB):
        return _from_folder(hub_folder(str(source)), str(source))
    path = pathlib.Path(source)
    if path.is_dir():
        return _from_folder(path, str(source))
    if not path.is_file():
        raise UserError(
            f"weights {path}: found no such file, expected pre-trained weights; "
            "check the path, or give --image-weights or --text-weights where a command has them"
        )
    return WeightFile(str(path), _arrays(path), {})


def _arrays(path: pathlib.Path) -> Mapping[str, np.ndarray]:
    if path.suffix == ".npz":
        return read_npz(path)
    if path.suffix == ".safetensors":
        return _safetensors(path)
    if path.name.endswith(".safetensors.index.json"):
        return _sharded(path)
    if path.suffix in _TORCH:
        return _torch(path)
    raise UserError(
        f"weights {path}: found a file of kind {path.suffix or 'unknown'}, expected .npz, .safetensors, "
        f"{', '.join(_TORCH)}, or a folder; give the file of the weights themselves"
    )


def _from_folder(folder: pathlib.Path, where: str) -> WeightFile:
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        raise UserError(
            f"weights {where}: found a folder without weights, expected one of {', '.join(FILES)} in it; give the file "
            "of the weights if it has another name"
        )
    return WeightFile(where, _arrays(path), documents_of(folder), folder)


def documents_of(folder: pathlib.Path) -> dict[str, Any]:
    """The JSON files of a folder by name, those that say what the weights are.

    Raises:
        UserError: one of them is not whole.
    """
    found = {}
    for name in ("config.json", "preprocessor_config.json", "open_clip_config.json"):
        if (folder / name).is_file():
            found[name] = foreign.read_json(folder / name, "a JSON object", "fetch it again", dict)
    return found


def hub_folder(source: str) -> pathlib.Path:
    """The folder of a model on the hub: its weights, JSON files and tokenizer, from the cache or fetched.

    Raises:
        UserError: no huggingface_hub, no such model, no connection.
    """
    try:
        import huggingface_hub
    except ModuleNotFoundError:
        raise UserError(
            f"weights {source}: found no huggingface_hub, expected it for names on the hub; pip install 'lit_jax[hub]' "
            "or fetch the files and give their folder"
        ) from None
    name, _, revision = source.removeprefix(HUB).partition("@")
    small = ["*.json", "*.txt", "*.model", "classes.csv"]
    try:
        folder = huggingface_hub.snapshot_download(
            name, revision=revision or None, allow_patterns=[*small, "*.safetensors"]
        )
        if not any((pathlib.Path(folder) / file).is_file() for file in FILES):
            folder = huggingface_hub.snapshot_download(name, revision=revision or None, allow_patterns=[*small, *FILES])
    except Exception as error:  # it raises errors of its own, of httpx and of the file system
        reason = first_line(error)
        raise UserError(
            f"weights {source}: found nothing to fetch ({reason}), expected a model on the hub; check the name and the "
            "connection, or fetch the files and give their folder"
        ) from None
    return pathlib.Path(folder)


def read_npz(path: str | os.PathLike[str]) -> Flat:
    """Reads an ``.npz`` archive whole; 2-byte void arrays are bfloat16.

    Raises:
        UserError: if the file is missing, or is not a whole ``.npz`` archive.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"weights {path}: found no such file, expected an .npz of pretrained weights")
    try:
        # Opened here: NumPy leaves a file open that it cannot read.
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as archive:
            flat = {name: archive[name] for name in archive.files}
        if other := [name for name, array in flat.items() if not isinstance(array, np.ndarray)]:
            raise ValueError(f"{other[0]}, which is no array")
    except (*DAMAGED, OSError) as error:
        reason = first_line(error)
        raise UserError(f"weights {path}: found {reason}, expected a whole .npz archive; fetch it again") from None
    return {name: a.view(ml_dtypes.bfloat16) if a.dtype.str[1:] == "V2" else a for name, a in flat.items()}


def write_npz(path: str | os.PathLike[str], flat: Mapping[str, np.ndarray]) -> None:
    """Writes a compressed ``.npz`` aside and renames it, so that no half-written file is ever read."""
    with written_aside(path) as aside, open(aside, "wb") as file:
        np.savez_compressed(file, **flat)  # type: ignore[arg-type]


def write_safetensors(
    path: str | os.PathLike[str], flat: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a ``.safetensors`` file aside and renames it. Equal arrays give equal bytes."""
    from safetensors.numpy import save_file

    with written_aside(path) as aside:
        # Not `ascontiguousarray`, which gives a lone number an axis.
        save_file({name: np.array(a, order="C") for name, a in flat.items()}, aside, dict(metadata or {}))
        aside.chmod(0o666 & ~_umask())  # the library lets nobody else read it


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _safetensors(path: pathlib.Path) -> Mapping[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    try:
        opened = safe_open(path, framework="np")
        names = list(opened.keys())
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"weights {path}: found {first_line(error)}, expected a whole .safetensors file; fetch it again"
        ) from None

    def read(name: str) -> np.ndarray:
        try:
            array: np.ndarray = opened.get_tensor(name)
        except (SafetensorError, OSError, *DAMAGED) as error:
            kind = opened.get_slice(name).get_dtype()
            if kind.startswith("F8"):
                raise _in_8_bits(path, name, kind) from None
            raise UserError(
                f"weights {path}: found {name} that cannot be read ({first_line(error)}), expected an array; fetch it "
                "again"
            ) from None
        return array

    return _Lazy(dict.fromkeys(names, read))


def _sharded(index: pathlib.Path) -> Mapping[str, np.ndarray]:
    """A model in several files, as its index lists them."""
    of = foreign.read_json(index, "an index of .safetensors files", "fetch it again", dict).get("weight_map")
    if not isinstance(of, dict) or not all(isinstance(file, str) for file in of.values()):
        raise UserError(
            f"weights {index}: found no weight_map, expected an index of .safetensors files; fetch it again"
        )
    for file in of.values():
        if pathlib.PurePath(file).name != file:
            raise UserError(
                f"weights {index}: found {file!r} in its weight_map, expected names of files beside it; fetch it again"
            )
    shards = {
        file: _arrays(index.parent / file) for file in sorted(set(of.values())) if os.path.isfile(index.parent / file)
    }
    absent = sorted(set(of.values()) - shards.keys())
    if absent:
        raise UserError(f"weights {index.parent}: found no {absent[0]}, expected every file of its index; fetch it too")
    unknown = next((name for name, file in of.items() if name not in shards[file]), None)
    if unknown:
        raise UserError(
            f"weights {index.parent / of[unknown]}: found no {unknown}, expected it as the index says; fetch both again"
        )
    return _Lazy({name: shards[file].__getitem__ for name, file in of.items()})


def _unread_by_torch(path: pathlib.Path, error: Exception) -> str:
    """Why torch does not read a file, in a person's words."""
    if _is_pointer(path):
        return "a pointer of Git LFS and not the file itself"
    if isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(path):
        return "Python objects that torch does not read without running their code"
    return f"a file that is damaged or of another kind ({type(error).__name__})"


def _is_pointer(path: pathlib.Path) -> bool:
    """Whether a file is what Git LFS leaves in the place of a large one that was not fetched."""
    with open(path, "rb") as file:
        return file.read(64).startswith(b"version https://git-lfs.github.com/")


def _torch(path: pathlib.Path) -> Mapping[str, np.ndarray]:
    try:
        import torch
    except ModuleNotFoundError:
        raise UserError(
            f"weights {path}: found a PyTorch file and no torch, expected torch to read it; "
            "pip install torch, or convert the file to .safetensors"
        ) from None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds, whose words advise a programmer to trust the file
        raise UserError(
            f"weights {path}: found {_unread_by_torch(path, error)}, expected a PyTorch file of weights alone; "
            "fetch it again, or save the state_dict as .safetensors"
        ) from None
    while isinstance(state, dict) and not any(torch.is_tensor(value) for value in state.values()):
        inner = next((state[key] for key in _NESTED if isinstance(state.get(key), dict)), None)
        if inner is None:
            break
        state = inner
    if not isinstance(state, dict) or not any(torch.is_tensor(value) for value in state.values()):
        raise UserError(
            f"weights {path}: found no arrays by name, expected a state_dict; save model.state_dict() in it"
        )
    tensors = {name: value for name, value in state.items() if torch.is_tensor(value)}
    for name, tensor in tensors.items():
        kind = str(tensor.dtype).removeprefix("torch.")
        if kind.startswith(("float8", "qint", "quint")):
            raise _in_8_bits(path, name, kind)
    return _Lazy(dict.fromkeys(tensors, lambda name: tensors[name].to(torch.float32).numpy()))


def _in_8_bits(path: pathlib.Path, name: str, kind: str) -> UserError:
    """The refusal of numbers that mean little without the scales that each maker keeps elsewhere."""
    return UserError(
        f"weights {path}: found {name} in 8 bits ({kind}), expected float32, float16 or bfloat16; fetch weights in one "
        "of these, or convert them with the library that made them"
    )

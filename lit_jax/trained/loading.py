"""Loads a trained model from a run's checkpoint, or from a folder that `lit_jax.export` wrote."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping

from lit_jax import config as options
from lit_jax.base.files import INCOMPLETE, incomplete
from lit_jax.base.named_files import beside
from lit_jax.data.collection import STORE
from lit_jax.data.embedding_store import GIVEN
from lit_jax.embedding.about import About
from lit_jax.embedding.trained import Trained
from lit_jax.errors import UserError
from lit_jax.models import building, locking
from lit_jax.models.locking import IMAGE, Params
from lit_jax.models.two_tower import TwoTower
from lit_jax.models.weights import leaves
from lit_jax.settling import Settled, settle
from lit_jax.text.tokenizers import Tokenizer, tokenizer_from_bytes
from lit_jax.trained import model_folder, onnx_folder, open_clip_layout
from lit_jax.training import checkpoint
from lit_jax.training.experiment import chosen_on


def load(
    directory: str | pathlib.Path,
    *,
    step: str = "best",
    weight_files: Mapping[str, str] | None = None,
    with_image_tower: bool | None = None,
) -> Trained:
    """Reads a trained model.

    Args:
        directory: a run's folder, its folder of checkpoints, or a model's folder.
        step: ``best``, ``latest`` or a number; a model's folder holds one only.
        weight_files: where a locked tower's weights are now, by tower, if not where the run found them.
        with_image_tower: whether photos will be looked at, or a store that needs no tower; None for as in training.

    Raises:
        UserError: no checkpoint, a broken one, or weights that are not those of the run.
    """
    return _load(
        pathlib.Path(directory), step, weight_files or {},
        lambda config: config.input == "records" if with_image_tower is None else with_image_tower,
    )  # fmt: skip


def load_whole(
    directory: str | pathlib.Path, *, step: str = "best", weight_files: Mapping[str, str] | None = None
) -> Trained:
    """`load` with all that the model has: its image tower too, unless it knows given embeddings only."""
    return _load(pathlib.Path(directory), step, weight_files or {}, lambda config: config.image.tower != GIVEN)


def folder_of(directory: str | pathlib.Path) -> pathlib.Path:
    """The folder of a run or model, also where that of its checkpoints was given."""
    folder = pathlib.Path(os.path.abspath(directory))
    return folder.parent if folder.name == "checkpoints" else folder


def without_image_tower(title: str) -> UserError:
    """That a model can be shown no photo; `title` is what it is called."""
    return UserError(
        f"{title}: found a model of embeddings computed elsewhere, expected one with an image tower, which photos can "
        "be shown to; give a store of such embeddings with --store where a command takes one"
    )


def _load(
    folder: pathlib.Path, step: str, weight_files: Mapping[str, str], wants_tower: Callable[[Settled], bool]
) -> Trained:
    found = _from_folder(folder, weight_files) if _is_model(folder) else _from_run(folder, step, weight_files)
    if not wants_tower(found.config):
        return dataclasses.replace(found, params={k: tree for k, tree in found.params.items() if k != IMAGE})
    if found.model.image is None:
        raise without_image_tower(f"--checkpoint {folder}")
    if IMAGE in found.params:
        return found
    return dataclasses.replace(found, params={**found.params, IMAGE: _locked_tower(IMAGE, found)})


def _is_model(folder: pathlib.Path) -> bool:
    """Whether the folder is that of an exported model, and not that of a run."""
    if folder.name.endswith(INCOMPLETE) or (not folder.exists() and incomplete(folder).is_dir()):
        raise UserError(f"--checkpoint {folder}: found a half-written model, expected a whole one; export it anew")
    return model_folder.is_model_folder(folder)


def _from_run(directory: pathlib.Path, step: str, weight_files: Mapping[str, str]) -> Trained:
    """The model of a run, without its image tower if that is locked; `_load` adds it where it is needed."""
    folder = directory / "checkpoints" if (directory / "checkpoints").is_dir() else directory
    if not folder.is_dir():
        raise UserError(f"--checkpoint: found no folder {directory}, expected that of a run or of a model")
    if (folder / open_clip_layout.CONFIG).is_file():
        raise UserError(
            f"--checkpoint {directory}: found a folder in open_clip's layout, expected a run or lit_jax's own; export "
            "the run with --format lit_jax"
        )
    manager = checkpoint.open_manager(folder, read_only=True)
    chosen = checkpoint.choose(manager, step)
    about = checkpoint.read_about(manager, chosen)
    moved = {f"{tower}.weights": path for tower, path in weight_files.items() if path}
    config, tokenizer, model = _built(about, {**_beside(about, folder_of(directory)), **moved})
    moving, locked = locking.split_locked(building.param_shapes(config.towers, model), config.train.locks)
    params = checkpoint.restore_params(manager, chosen, moving)
    manager.close()
    found = Trained(about, config, chosen, model, tokenizer, params)
    others = {tower: _locked_tower(tower, found) for tower in locked if tower != IMAGE}
    about = dataclasses.replace(about, chosen_on=chosen_on(config) if step == "best" else "")
    return dataclasses.replace(found, about=about, params={**params, **others})


def _from_folder(folder: pathlib.Path, weight_files: Mapping[str, str]) -> Trained:
    given = [f"--{tower}-weights" for tower, path in weight_files.items() if path]
    if given:
        raise UserError(f"{given[0]}: found it with a model's folder, expected none, which holds its own; leave it out")
    if onnx_folder.is_onnx_folder(folder):
        raise UserError(
            f"--checkpoint {folder}: found a model in ONNX, expected a run or a folder in lit_jax's own format; it "
            "serves lit_jax.predict, lit_jax.search --photos and lit_jax.site alone"
        )
    about, step, params = model_folder.read(folder)
    # Its arrays are here: what stands beside the files of training is neither needed nor fetched.
    none = dict.fromkeys(_WEIGHTS, "")
    config, tokenizer, model = _built(about, {**_beside(about, folder), **none})
    wanted = {name: leaf.shape for name, leaf in leaves(building.param_shapes(config.towers, model)).items()}
    found = {name: leaf.shape for name, leaf in leaves(params).items()}
    other = sorted(set(wanted.items()) ^ set(found.items()))
    if other:
        raise UserError(
            f"{folder}: found other arrays than its model.json asks for, such as {other[0][0]}, expected exactly "
            "those; export it anew"
        )
    return Trained(about, config, step, model, tokenizer, params)


_WEIGHTS = ("image.weights", "text.weights", "model.weights")


def _beside(about: About, folder: pathlib.Path) -> dict[str, str]:
    """Paths of the run that lead nowhere from the current folder and somewhere beside the run, which was moved."""
    found: dict[str, str] = {}
    for name in (*_WEIGHTS, "data.records", "data.store"):
        path = str(about.config.get(name, "")).rstrip("/")
        endings = ("", STORE) if name == "data.records" else ("",)
        if not any(pathlib.Path(path + ending).exists() for ending in endings):
            there = (beside(path + ending, folder).removesuffix(ending) for ending in endings if path)
            found |= next(({name: one} for one in there if one != path), {})
    return found


def _built(about: About, changes: Mapping[str, str]) -> tuple[Settled, Tokenizer, TwoTower]:
    config = settle(options.from_flat(options.reopened({**about.config, **changes}), source="checkpoint"))
    tokenizer = dataclasses.replace(tokenizer_from_bytes(about.tokenizer), units=tuple(map(tuple, about.units)))
    return config, tokenizer, building.build_model(config.towers, tokenizer)


def _locked_tower(tower: str, found: Trained) -> Params:
    towers, expected = found.config.towers, found.about.locked[tower]
    source = (towers.image if tower == IMAGE else towers.text).weights
    if not source:
        raise UserError(
            f"{tower}.weights: found none in the run, expected those of its {tower} tower, which it keeps no copy of; "
            f"give the file with --{tower}-weights"
        )
    params, report = building.load_tower(towers, found.model, tower)
    if report.digest != expected:
        raise UserError(
            f"{tower}.weights {source}: found weights {report.digest[:12]}, expected the {expected[:12]} "
            f"of the run; give the right file with --{tower}-weights"
        )
    return params

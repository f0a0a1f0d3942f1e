"""A trained model, whole: from a run's checkpoint, or from a folder that `lit_jax.export` wrote."""

import dataclasses
import pathlib
from typing import Any

import ml_collections

from lit_jax import bundle, checkpoint, experiment, optimizer, towers
from lit_jax import config as options
from lit_jax.captions import TEMPLATE
from lit_jax.checkpoint import About
from lit_jax.errors import UserError
from lit_jax.models.two_tower import Params, TwoTower
from lit_jax.models.weights import leaves
from lit_jax.prompts import read_templates
from lit_jax.tokens import Tokenizer, tokenizer_from_bytes


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model read from a checkpoint or a model's folder.

    Attributes:
        about: what it says of itself.
        config: of the run.
        step: batches trained.
        model: the towers.
        tokenizer: of the run.
        params: all parameters, locked ones included, on the host; without the image tower if it was not asked for.
    """

    about: About
    config: Any
    step: int
    model: TwoTower
    tokenizer: Tokenizer
    params: Params


def load(
    directory: str | pathlib.Path,
    *,
    step: str = "best",
    weight_files: dict[str, str] | None = None,
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
    folder = pathlib.Path(directory)
    if bundle.is_bundle(folder):
        return _from_bundle(folder)
    folder = folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder
    if not folder.is_dir():
        raise UserError(f"--checkpoint: found no folder {directory}, expected that of a run or of a model")
    manager = checkpoint.open_manager(folder, read_only=True)
    chosen = checkpoint.choose(manager, step)
    about = checkpoint.read_about(manager, chosen)
    config, tokenizer, model = _built(about, weight_files or {})
    shapes = towers.param_shapes(config, model)
    moving, locked = optimizer.split_locked(shapes, config.train.locks)
    params = checkpoint.restore_params(manager, chosen, moving)
    manager.close()
    if with_image_tower is None:
        with_image_tower = config.input == "records"
    if with_image_tower and model.image is None:
        raise UserError(
            f"--checkpoint {directory}: found a model without an image tower, expected a store of photos; give --store"
        )
    for tower in locked if with_image_tower else locked.keys() - {"image"}:
        params[tower] = _locked_tower(tower, config, model, about)
    return Trained(about, config, chosen, model, tokenizer, params)


def untrained(config: Any) -> Trained:
    """The published towers of a config, before any training: to look at photos with CLIP, SigLIP or LiT as they are.

    Args:
        config: checked by `lit_jax.config.load`, with weights of both towers; `model.weights` for what joins them.

    Raises:
        UserError: as `towers.initial_params`; neither records, nor a store, nor `data.tokenizer`.
    """
    config = experiment.settled(config)
    data = experiment.open_data(config) if config.data.records or config.data.store else None
    tokenizer = experiment.open_tokenizer(config, data)
    model = towers.build_model(config, tokenizer)
    params, reports = towers.initial_params(config, model)
    about = About(
        config=options.flattened(config),
        position=0,
        locked={name: found.digest for name, found in reports.items()},
        fingerprint=experiment.fingerprint(data) if data else "",
        templates=list(data.templates) if data else [TEMPLATE],
        drop_repeats=data.drop_repeats if data else False,
        class_table=data.class_table.read_text(encoding="utf-8") if data else "",
        train_classes=[],
        prompt_templates=list(read_templates(config.evaluation.templates)) if config.evaluation.templates else [],
        hosts=1,
        tokenizer=tokenizer.model_bytes,
    )
    return Trained(about, config, 0, model, tokenizer, params)


def _from_bundle(folder: pathlib.Path) -> Trained:
    about, step, params = bundle.read(folder)
    config, tokenizer, model = _built(about, {})
    wanted = {name: leaf.shape for name, leaf in leaves(towers.param_shapes(config, model)).items()}
    found = {name: leaf.shape for name, leaf in leaves(params).items()}
    if "image" not in params:
        wanted = {name: shape for name, shape in wanted.items() if not name.startswith("image/")}
    other = sorted(set(wanted.items()) ^ set(found.items()))
    if other:
        raise UserError(
            f"{folder}: found other arrays than its model.json asks for, such as {other[0][0]}; copy it again"
        )
    return Trained(about, config, step, model, tokenizer, params)


def _built(about: About, weight_files: dict[str, str]) -> tuple[Any, Tokenizer, TwoTower]:
    moved = {f"{tower}.weights": path for tower, path in weight_files.items() if path}
    flat = options.check({**about.config, **moved}, source="checkpoint")
    config = experiment.settled(ml_collections.FrozenConfigDict(options.nested(flat)))
    tokenizer = tokenizer_from_bytes(about.tokenizer)
    return config, tokenizer, towers.build_model(config, tokenizer)


def _locked_tower(tower: str, config: Any, model: TwoTower, about: About) -> Any:
    params, found = towers.load_tower(config, model, tower)
    expected = about.locked[tower]
    if found.digest != expected:
        raise UserError(
            f"{tower}.weights {config[tower].weights}: found weights {found.digest[:12]}, expected the {expected[:12]} "
            f"of the run; give the right file with --{tower}-weights"
        )
    return params

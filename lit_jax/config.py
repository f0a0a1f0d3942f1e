"""Every option: its name, default, meaning and limits. Unknown names are refused with the nearest valid one.

A config file is Python with one function, `get_config`, that changes what differs from the defaults::

    from lit_jax.config import defaults

    def get_config():
        config = defaults()
        config.data.records = "data/my_birds"
        return config

It may also define ``prepare(config)``, which makes the records where they are missing.
"""

import dataclasses
import functools
import hashlib
import importlib.util
import json
import math
import os
import pathlib
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections

from lit_jax import nearest as names
from lit_jax.errors import UserError

Value = bool | int | float | str | tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Option:
    """One option: its default (which also gives its type), what it means, and what it may be."""

    default: Value
    meaning: str
    choices: tuple[str, ...] = ()
    low: float = float("-inf")
    high: float = float("inf")
    free: bool = False  # may change when a run is resumed
    lean: bool = False  # likewise: changes memory and time, and results by rounding only
    is_late: bool = False  # came when people had runs already: at its default it does not change their names


def option(default: Value, meaning: str, choices: tuple[str, ...] = (), **limits: Any) -> Any:
    """A field of a dataclass that is an option; see `Option`."""
    return dataclasses.field(default=default, metadata={"option": Option(default, meaning, choices, **limits)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Options of the photos: where they are, their splits, and how training crops them."""

    records: str = option("", "folder of the record set", free=True)
    store: str = option("", "folder of the embedding store; empty for that of the records and _store", free=True)
    store_on: str = option(
        "auto",
        "where a store lies while it trains: on each device, or on disk and mapped",
        ("auto", "device", "host"),
        free=True,
    )
    train_split: str = option("train", "split to learn from")
    seen_split: str = option("validation", "split of other photos of the training species; empty for none")
    heldout_split: str = option("heldout", "split of species never trained on; empty for none")
    select_fraction: float = option(
        0.0,
        "part of the training photos that is not trained on and by which the best checkpoint is chosen; 0 to choose by "
        "data.seen_split, whose figures are then a little too good",
        low=0,
        high=0.5,
        is_late=True,
    )
    tokenizer: str = option(
        "",
        "a SentencePiece .model, a tokenizer.json, a WordPiece vocab.txt, or a folder; empty for the record set's own",
        free=True,
    )
    shuffle_window: int = option(16384, "records shuffled together, in whole shards", low=1)
    crop: str = option("random", "of training photos: a random part, or the centre", ("random", "centre"))
    crop_scale: tuple[float, float] = option(
        (0.9, 1.0), "area of the random crop as a share of the photo, from and to", low=0, high=1
    )
    flip: bool = option(False, "mirror half of the training photos, drawn at random")
    resize_on: str = option(
        "auto",
        "where photos of records are cropped and resized: on the devices, or on the host; auto for the devices unless "
        "they are CPUs",
        ("auto", "device", "host"),
        free=True,
    )
    shrink_decoding: bool = option(
        False,
        "decode photos of records that are at least twice as large as needed at 1/2, 1/4 or 1/8 of their size: less "
        "time, and features that are a little different",
        is_late=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Image:
    """Options of the image tower and its preprocessing."""

    tower: str = option(
        "vit",
        "a preset of docs/towers.md; vit for the sizes below; given for none: the store holds embeddings that were "
        "computed elsewhere",
    )
    weights: str = option("", "file or folder of pre-trained weights, or hf-hub:OWNER/NAME", free=True)
    size: int = option(0, "side of the input, pixels; 0 for that of the weights or the preset", low=0)
    patch: int = option(0, "side of a patch, pixels; 0 for the preset's, or 16", low=0)
    width: int = option(0, "channels; 0 for the preset's, those of given embeddings, or 768", low=0)
    depth: int = option(0, "blocks; 0 for the preset's, or 12", low=0)
    heads: int = option(0, "attention heads; 0 for the preset's, or 12", low=0)
    mlp_dim: int = option(0, "hidden width of the MLPs; 0 for 4 times the width", low=0)
    pool: str = option(
        "",
        "where a ViT's features are read: token, mean (gap), mean before the last norm (gap_norm) or attention (map); "
        "empty for what stands beside the weights, else the preset's, or token",
        ("", "token", "gap", "gap_norm", "map"),
    )
    mean: tuple[float, float, float] = option(
        (-1.0, -1.0, -1.0), "mean of the pixels, from 0 to 1, by channel; -1,-1,-1 for what comes with the weights"
    )
    std: tuple[float, float, float] = option(
        (0.0, 0.0, 0.0), "standard deviation of the pixels, by channel; 0,0,0 for what comes with the weights", low=0
    )
    interpolation: str = option(
        "", "filter of resizing; empty for what comes with the weights", ("", "bicubic", "bilinear")
    )
    resize: str = option(
        "",
        "fit the shorter side, or squeeze to a square; empty for that of the weights",
        ("", "short", "square"),
    )
    crop_fraction: float = option(
        0.0, "share of the resized side that is cut out; 0 for what comes with the weights", low=0, high=1
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
    """Options of the text tower, and of the captions as it reads them."""

    tower: str = option(
        "transformer",
        "a preset of docs/towers.md; transformer for the sizes below; units for the sum of a text's units",
    )
    weights: str = option(
        "", "file or folder of pre-trained weights, or hf-hub:OWNER/NAME, for the locks LL, LU and UU", free=True
    )
    context: int = option(0, "tokens read at the most; 0 for the preset's, or 64", low=0)
    units: str = option(
        "",
        "what a text is read as, besides a sentence: phrases (parts between commas), words, letters (three to five in "
        "a row), or several with commas; for tower units, which reads nothing else, and for BERT's form",
        is_late=True,
    )
    width: int = option(0, "channels; 0 for the preset's, or 384", low=0)
    depth: int = option(0, "blocks; 0 for the preset's, or 12", low=0)
    heads: int = option(0, "attention heads; 0 for the preset's, or 6", low=0)
    mlp_dim: int = option(0, "hidden width of the MLPs; 0 for 4 times the width", low=0)
    causal: bool = option(False, "each token attends only to itself and to those before it")
    pool: str = option(
        "",
        "where the features are read: at the end token, at the first, as the mean, by attention (map), or at the last "
        "position with padding read as words; empty for the preset's, or end",
        ("", "end", "first", "mean", "map", "last"),
    )
    projection_bias: bool = option(False, "whether the last projection has a bias")
    activation: str = option(
        "",
        "activation function of the MLPs; empty for the preset's, or gelu_tanh",
        ("", "gelu_tanh", "gelu", "gelu_quick", "relu"),
    )
    norm_epsilon: float = option(0.0, "epsilon of the layer norms; 0 for the preset's, or 1e-6", low=0)
    distinct: bool = option(True, "embed each distinct caption of a batch once", lean=True)
    bucket: int = option(
        8,
        "cut sentences to the longest of the batch, in steps of so many tokens; 0, and with pool last, for no cut",
        low=0,
        lean=True,
    )
    remat: bool = option(
        False, "keep of each block its input only and compute it again: less memory, a third more work", lean=True
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """Options of the projections, the logit scale and the loss."""

    weights: str = option(
        "", "a whole model (CLIP, SigLIP, LiT) whose projections and logit scale training begins with", free=True
    )
    embed_dim: int = option(512, "width of the common embedding", low=1)
    projection: bool = option(True, "a trainable linear layer after the image tower")
    loss: str = option("softmax", "the contrastive loss: InfoNCE, or that of SigLIP", ("softmax", "sigmoid"))
    same_caption: str = option(
        "plain",
        "other pairs with the same caption: negatives, left out (masked), or positives (multi)",
        ("plain", "masked", "multi"),
    )
    loss_block: int = option(0, "photos at a time in the loss, on each device; 0 to choose by memory", low=0, lean=True)
    scale_init: float = option(1 / 0.07, "initial logit scale, the factor itself", low=1)
    scale_max: float = option(100.0, "the logit scale is clamped to this", low=1)
    bias_init: float = option(-10.0, "initial logit bias of the sigmoid loss")
    start: str = option(
        "",
        "where the last layers of both towers start: drawn at random, or at the closed form (solve) from words to the "
        "mean photos of classes, which needs an embedding store",
        ("", "solve"),
        is_late=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Options of AdamW and of the learning rate."""

    lr: float = option(5e-4, "peak learning rate of AdamW", low=0)
    weight_decay: float = option(
        0.1, "of AdamW, multiplied by the learning rate; biases, norms and the logit scale have none", low=0
    )
    b1: float = option(0.9, "decay of the first moment", low=0, high=1)
    b2: float = option(0.98, "decay of the second moment", low=0, high=1)
    eps: float = option(1e-6, "epsilon of AdamW", low=0)
    warmup_steps: int = option(
        0, "steps of the linear warm-up; 0 where optimizer.warmup_epochs says how long it is", low=0
    )
    warmup_epochs: float = option(
        0.0, "epochs of the linear warm-up; 0 where optimizer.warmup_steps says how long it is", low=0
    )
    horizon_epochs: float = option(0.0, "epochs after which the cosine is 0; 0 for train.epochs", low=0)
    clip_norm: float = option(0.0, "largest global norm of the gradient; 0 for none", low=0)
    pull: float = option(
        0.0,
        "weight of the squared distance to the parameters at the start, added to the loss; training then keeps what "
        "they knew of species without a photo",
        low=0,
        is_late=True,
    )
    pretrained_scale: float = option(
        1.0, "factor of the learning rate of unlocked pre-trained towers (letter U)", low=0
    )
    accumulate: int = option(1, "batches a step; each is contrasted with itself only", low=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Options of the run: what is locked, its length, its batches, its precision, its devices."""

    locks: str = option("Lu", "LiT's letters, image tower first: L locked, U pre-trained, u from scratch")
    epochs: float = option(10.0, "passes over the training split; 0 to keep the start as it is", low=0)
    epoch_steps: int = option(0, "batches that count as an epoch; 0 for a pass over the training split", low=0)
    batch_size: int = option(256, "pairs of the global batch", low=1)
    precision: str = option(
        "float32",
        "dtype of the towers' arithmetic; GPUs since Ampere round float32 to TF32 in products of towers, not in the "
        "loss and in evaluations",
        ("float32", "bfloat16", "float16"),
    )
    devices: int = option(0, "devices to use; 0 for all", low=0, free=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Options of zero-shot evaluation while training."""

    every_epochs: float = option(1.0, "epochs between zero-shot evaluations; 0 for the end only", low=0)
    batch_size: int = option(256, "photos or prompts at a time", low=1, free=True)
    templates: str = option("", "file of prompt templates; empty for the caption templates")
    margin_folds: int = option(
        0,
        "parts in which the training species are held out in turn, each for a training of its own, to fit the margin "
        "by which seen species are held back where seen and unseen ones are asked together; 0 for no margin",
        low=0,
        high=20,
        is_late=True,
    )
    protocol: str = option(
        "caption",
        "class names in prompts: as captions say them, or by common name, supercategory and genus",
        ("caption", "recorded"),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Options of saving."""

    every_epochs: float = option(1.0, "epochs between checkpoints; 0 for the end only", low=0, free=True)
    keep: int = option(2, "latest checkpoints to keep, besides the best", low=1, free=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Log:
    """Options of the metrics that are written."""

    every_steps: int = option(10, "steps between lines of metrics", low=1, free=True)
    tensorboard: bool = option(True, "write TensorBoard events", free=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """All options of a run, each checked by itself.

    Some may still be open: `lit_jax.settling` fills in what presets, weights or an embedding store know.
    """

    seed: int = option(0, "decides initial parameters, the order of the photos, and augmentation", low=0)
    workdir: str = option("", "folder for checkpoints, metrics and results", free=True)
    input: str = option("records", "train on photos, or on stored features of the locked tower", ("records", "store"))
    data: Data = Data()
    image: Image = Image()
    text: Text = Text()
    model: Model = Model()
    optimizer: Optimizer = Optimizer()
    train: Train = Train()
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpoint = Checkpoint()
    log: Log = Log()


SECTIONS: dict[str, type] = {
    field.name: type(field.default) for field in dataclasses.fields(Config) if "option" not in field.metadata
}
"""Options of one concern, by the name that stands before the dot."""


def _options(kind: type, prefix: str = "") -> dict[str, Option]:
    fields = [field for field in dataclasses.fields(kind) if "option" in field.metadata]
    return {prefix + field.name: field.metadata["option"] for field in fields}


OPTIONS = _options(Config)
"""Every option by its dotted name."""
for _name, _kind_of in SECTIONS.items():
    OPTIONS |= _options(_kind_of, f"{_name}.")


OWN_SHAPE: dict[str, dict[str, Value]] = {
    "image": {"patch": 16, "width": 768, "depth": 12, "heads": 12, "mlp_dim": 0},
    "text": {"width": 384, "depth": 12, "heads": 6, "mlp_dim": 0, "activation": "gelu_tanh", "norm_epsilon": 1e-6},
}
"""Options by section that a preset decides, and what they are where a tower of one's own leaves them open."""


def defaults() -> ml_collections.ConfigDict:
    """All options at their defaults, as a config that refuses unknown names."""
    return nested({name: option.default for name, option in OPTIONS.items()})


def nested(flat: Mapping[str, Value]) -> ml_collections.ConfigDict:
    """A locked config from values by dotted name."""
    config = ml_collections.ConfigDict()
    for name, value in flat.items():
        *sections, last = name.split(".")
        node = config
        for section in sections:
            if section not in node:
                node[section] = ml_collections.ConfigDict()
            node = node[section]
        node[last] = value
    return config.lock()


def _flat(config: ml_collections.ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Values by dotted name; the inverse of `nested`."""
    flat: dict[str, Any] = {}
    for key in config:
        value = config[key]
        if isinstance(value, ml_collections.ConfigDict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def flattened(config: Config) -> dict[str, Any]:
    """Values by dotted name; the inverse of `from_flat`."""
    return {name: functools.reduce(getattr, name.split("."), config) for name in OPTIONS}


def from_flat(flat: Mapping[str, Any], *, source: str) -> Config:
    """A config from values by dotted name; options that are not among them have their defaults.

    Args:
        flat: as `flattened` gives them, or as a checkpoint remembers them.
        source: where they are from, for messages.

    Raises:
        UserError: as `check`.
    """
    made: dict[str, Any] = {name: {} for name in SECTIONS}
    for name, value in check(flat, source=source).items():
        section, _, last = name.rpartition(".")
        (made[section] if section else made)[last] = value
    return Config(**made | {name: kind(**made[name]) for name, kind in SECTIONS.items()})


def load(
    path: str | pathlib.Path, overrides: Mapping[str, str] | None = None
) -> tuple[Config, Callable[[Config], None] | None]:
    """Reads a config file, applies overrides, and checks every value.

    Args:
        path: a Python file with `get_config`, or the name of one that comes with the package, see `find`.
        overrides: text by dotted name, as on the command line.

    Returns:
        The checked config, in which presets, weights or a store may still fill in what it leaves open, and the
        `prepare` function of the file if it has one.

    Raises:
        UserError: a missing or broken file, an unknown name (the nearest valid one is given), a value of the
            wrong type or out of its range.
    """
    path = find(path)
    module = _module(path)
    if not hasattr(module, "get_config"):
        raise UserError(f"config {path}: found no function get_config, expected one that returns a config")
    try:
        config = module.get_config()
    except Exception as error:
        raise UserError(f"config {path}: {_in_file(error, path)}") from None
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(f"config {path}: found that get_config returns {config!r}, expected the config; add a return")
    flat = _flat(config)
    for name, text in (overrides or {}).items():
        known(name)
        flat[name] = parse(name, text)
    return from_flat(flat, source=f"config {path}"), getattr(module, "prepare", None)


def find(path: str | pathlib.Path) -> pathlib.Path:
    """The file of a config: as given, or where none is, the one of the package with that name.

    Args:
        path: such as ``mine.py``; or ``demo``, ``demo.py`` and ``configs/demo.py`` for one of the package.

    Raises:
        UserError: there is none.
    """
    path = pathlib.Path(path)
    if path.is_file():
        return path
    own = {one.stem: one for one in sorted(_own_configs().glob("*.py"))}
    if str(path.parent) in (".", "configs") and path.suffix in ("", ".py") and path.stem in own:
        return own[path.stem]
    raise UserError(
        f"--config: found no file {path}, expected a Python file, or one of those that come with the package: "
        f"{', '.join(own)}{names.did_you_mean(path.stem, own)}"
    )


def _own_configs() -> pathlib.Path:
    """The folder of the configs that come with the package: within it in a wheel, beside it in a checkout."""
    here = pathlib.Path(__file__).resolve().parent
    return here / "configs" if (here / "configs").is_dir() else here.parent / "configs"


def _module(path: pathlib.Path) -> Any:
    spec = importlib.util.spec_from_file_location("lit_jax_config", path)
    if spec is None or spec.loader is None:
        raise UserError(f"--config: found {path}, expected a file whose name ends in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(f"config {path}: found a syntax error in line {error.lineno}: {error.msg}") from None
    except Exception as error:
        raise UserError(f"config {path}: {_in_file(error, path)}") from None
    return module


def _in_file(error: Exception, path: pathlib.Path | str) -> str:
    """What is wrong in a config file, from what ml_collections or Python say of it."""
    # Python gives the file's absolute path, whatever it was called by.
    own = os.path.abspath(path)
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == own]
    message = str(error).replace("\\n", " ").replace("\\", "")
    unknown = re.search(r"instead of \"(\w+)\"|[Kk]ey [\"']*([\w.]+)", message)
    if isinstance(error, AttributeError | KeyError) and unknown:
        name = _with_section(unknown[1] or unknown[2], lines[-1].line or "" if lines else "")
        return f"found unknown option {name!r}, expected a known one{did_you_mean(name)}"
    field = re.search(r"override field '(\w+)'", message)
    if field:
        name = nearest(field[1])
        return f"{name}: found a value of another type, expected {_kind(OPTIONS[name].default)}"
    line = f" in line {lines[-1].lineno}" if lines else ""
    return f"found {type(error).__name__}{line}: {message.splitlines()[0] if message else 'no message'}"


def _with_section(name: str, line: str) -> str:
    """An option's last part with the section before it in a line of Python, where one stands there."""
    before = re.search(rf"(\w+)(?:\.|\[[\"']){re.escape(name)}\b", line)
    return f"{before[1]}.{name}" if before and any(option.startswith(f"{before[1]}.") for option in OPTIONS) else name


def nearest(name: str) -> str:
    """The valid option whose name looks like this one, in its own section before any other; empty if none does."""
    section, _, end = name.rpartition(".")
    own = {option.removeprefix(f"{section}."): option for option in OPTIONS if option.startswith(f"{section}.")}
    if section and (found := names.nearest(end, own)):
        return own[found]
    if found := names.nearest(name, OPTIONS):
        return found
    last = {option.rsplit(".", 1)[-1]: option for option in reversed(OPTIONS)}
    pool = {**last, **{option.split(".", 1)[0]: option.split(".", 1)[0] for option in OPTIONS}}
    found = names.nearest(end, pool)
    return pool[found] if found else ""


def did_you_mean(name: str) -> str:
    """The end of a message: ``; did you mean train.epochs?``, or where none is near, nothing."""
    found = nearest(name)
    return f"; did you mean {found}?" if found else "; --help of lit_jax.main lists them"


def as_override(name: str, value: str) -> str:
    """How an option of the config is typed that was given as one of a command; empty if there is none of that name.

    Args:
        name: without dashes before it, such as ``batch-size``, ``train.epochs`` or ``lr``.
        value: as it was given; empty for none.

    Example:
        >>> as_override("epochs", "3"), as_override("learning-rate", "1e-3"), as_override("colour", "red")
        ('--config.train.epochs=3', '--config.optimizer.lr=1e-3', '')
    """
    name = name.replace("-", "_")
    name = _OTHER_WORDS.get(name, name)
    ends: dict[str, list[str]] = {}
    for option in OPTIONS:
        ends.setdefault(option.rsplit(".", 1)[-1], []).append(option)
    found = [name] if name in OPTIONS else ends.get(name) or ends.get(names.nearest(name, ends), [])
    return " or ".join(f"--config.{option}={value or 'VALUE'}" for option in found)


_OTHER_WORDS = {
    "learning_rate": "optimizer.lr",
    "wd": "optimizer.weight_decay",
    "warmup": "optimizer.warmup_steps",
    "batch": "train.batch_size",
    "bs": "train.batch_size",
    "batchsize": "train.batch_size",
    "gpus": "train.devices",
    "max_epochs": "train.epochs",
    "dtype": "train.precision",
    "model": "image.tower",
    "save_every": "checkpoint.every_epochs",
    "tensorboard": "log.tensorboard",
    "output": "workdir",
    "out": "workdir",
}


def known(name: str) -> None:
    """Raises UserError unless the dotted name is an option."""
    if name not in OPTIONS:
        raise UserError(f"option {name}: found an unknown name, expected a known one{did_you_mean(name)}")


def parse(name: str, text: str) -> Value:
    """Command-line text as the option's type: ``true``, ``12``, ``1e-3``, ``0.9,1.0`` or any string.

    Raises:
        UserError: if the text is not of that type.
    """
    default = OPTIONS[name].default
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        if isinstance(default, tuple):
            return tuple(float(part) for part in text.strip("()").split(","))
        return type(default)(text)
    except (ValueError, KeyError):
        raise UserError(f"option {name}: found {text!r}, expected {_kind(default)}") from None


def check(flat: Mapping[str, Any], *, source: str) -> dict[str, Value]:
    """Every option with a value of its own type within its limits.

    Raises:
        UserError: naming the option, what was found and what was expected.
    """
    for name in flat:
        known(name)
    return {name: _checked(name, flat.get(name, option.default), option, source) for name, option in OPTIONS.items()}


def mistyped(flat: Mapping[str, Any]) -> str:
    """The first known option whose value is of another type than its own, as in a file that was edited."""
    for name, value in flat.items():
        kind = type(OPTIONS[name].default) if name in OPTIONS else type(value)
        if type(value) is not kind and not (kind is float and type(value) is int):
            return name
    return ""


def _checked(name: str, value: Any, option: Option, source: str) -> Value:
    kind = type(option.default)
    if kind is float and type(value) is int:
        value = float(value)
    if isinstance(option.default, tuple):
        parts = tuple(value) if isinstance(value, list | tuple) else (value,)
        are_numbers = all(type(part) in (int, float) for part in parts) and len(parts) == len(option.default)
        value = tuple(map(float, parts)) if are_numbers else value
        fits = are_numbers
    else:
        fits = type(value) is kind
    numbers = value if isinstance(value, tuple) else (value,)
    if not fits or not all(math.isfinite(number) for number in numbers if isinstance(number, float)):
        expected = _kind(option.default).replace("number", "finite number", 1) if fits else _kind(option.default)
        raise UserError(f"{source}: {name}: found {value!r}, expected {expected}")
    if option.choices and value not in option.choices:
        raise UserError(f"{source}: {name}: found {value!r}, expected one of {', '.join(option.choices)}")
    if not isinstance(value, str) and not all(option.low <= number <= option.high for number in numbers):
        limits = f"at least {option.low:g}" + (f" and at most {option.high:g}" if option.high < float("inf") else "")
        raise UserError(f"{source}: {name}: found {value!r}, expected {limits}")
    return value


def _kind(default: Value) -> str:
    if isinstance(default, tuple):
        return f"{len(default)} numbers such as {','.join(f'{part:g}' for part in default)}"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[type(default)]


def deciding(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Options, by dotted name, that decide a run's numbers: neither free nor lean."""
    return {name: flat[name] for name, option in OPTIONS.items() if name in flat and not (option.free or option.lean)}


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Options, apart from free and lean ones, in which a resumed run would differ, as ``name: old -> new``."""
    before, after = as_ever(old), deciding(as_ever(new))
    return [f"{name}: {old[name]} -> {new[name]}" for name in after if name in old and before[name] != after[name]]


def reopened(flat: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint remembers, with the shapes of presets left open again.

    Earlier versions remembered there what a tower of one's own would have had, whatever was built.
    """
    return {**flat, **{name: OPTIONS[name].default for name in _shapes_of_others(flat)}}


def as_ever(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Options as earlier versions remembered them: runs and stores that people have keep their names and go on.

    Of an image tower by its name they remembered the shape of one's own, and so they did of what a text tower lacks.
    """
    others = _shapes_of_others(flat)
    has_shape = flat.get("text.tower") not in (None, "units")
    kept = {name for name in others if name.startswith("text.") and has_shape and flat[name]}
    return {**flat, **{name: own for name, own in others.items() if name not in kept}}


def _shapes_of_others(flat: Mapping[str, Any]) -> dict[str, Value]:
    """The options among these that say the shape of a tower which is not one's own, with what its own one would have.

    The width of an image tower is not among them: it is that of the features, of given ones too.
    """
    towers = {section: OPTIONS[f"{section}.tower"].default for section in OWN_SHAPE}
    others = [section for section, own in towers.items() if flat.get(f"{section}.tower", own) != own]
    shapes = {f"{section}.{name}": own for section in others for name, own in OWN_SHAPE[section].items()}
    return {name: own for name, own in shapes.items() if name in flat and name != "image.width"}


def digest(flat: Mapping[str, Any]) -> str:
    """A short name for what decides a run's numbers: 12 digits of the SHA-256 over all options that are not free.

    Lean ones are among them: names of runs that people have must stay.
    """
    values = as_ever(flat)
    fixed = {
        name: values[name]
        for name in sorted(flat)
        if not OPTIONS[name].free and not (OPTIONS[name].is_late and flat[name] == OPTIONS[name].default)
    }
    return hashlib.sha256(json.dumps(fixed).encode()).hexdigest()[:12]


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Parts ``--config.NAME=VALUE`` (or ``--config.NAME VALUE``) from the other arguments.

    Raises:
        UserError: an override without a value.
    """
    others, overrides = [], {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name = argument[2:].partition("=")[0]
        if argument.startswith("--") and "." in name and name in OPTIONS:
            raise UserError(f"option {argument}: found no --config. before it, expected --config.{argument[2:]}")
        if not argument.startswith("--config."):
            others.append(argument)
            continue
        name, equals, text = argument.removeprefix("--config.").partition("=")
        if not equals:
            known(name)
            if not rest:
                raise UserError(f"option {name}: found no value, expected --config.{name}=VALUE")
            text = rest.pop(0)
        overrides[name] = text
    return others, overrides


def describe() -> str:
    """Every option with its default and meaning, a line each, for ``--help``."""
    lines = [
        f"  --config.{name}={_shown(option.default)}  {option.meaning}"
        + (f" ({', '.join(option.choices)})" if option.choices else "")
        for name, option in OPTIONS.items()
    ]
    return "options of the config, with their defaults:\n" + "\n".join(lines)


def _shown(value: Value) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{part:g}" for part in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)

"""The model card of a trained model, from what its checkpoint knows. Nothing in it is typed by hand."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lit_jax import config as options
from lit_jax.checkpoint import About


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the card says and the checkpoint does not know.

    Attributes:
        name: of the model.
        parameters: by part: ``image``, ``text``, ``projection`` and so on.
        licence: of the image tower's weights, as their publisher states it; empty if unknown.
        weights: where the image tower's weights are to be had, of a preset.
        use: commands that use this folder.
        notes: what differs here from the run, a line each.
    """

    name: str
    parameters: Mapping[str, int]
    licence: str = ""
    weights: str = ""
    use: str = ""
    notes: tuple[str, ...] = ()


def text(about: About, step: int, facts: Facts) -> str:
    """The card as Markdown, with the front matter that model hubs read."""
    config = options.nested(about.config)
    parts = [_front_matter(facts), f"# {facts.name}", _summary(about, config), "## Use", facts.use]
    if about.results:
        parts += ["## Zero-shot accuracy in training", _results(about.results)]
    parts += ["## Data", _data(about), "## Model", _model(config, facts), "## Training", _training(config, step)]
    if facts.notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in facts.notes)]
    parts += ["## Limits", _limits(about, facts)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(facts: Facts) -> str:
    lines = ["---", "library_name: lit_jax", "pipeline_tag: zero-shot-image-classification"]
    lines += ["tags:", "- locked-image-tuning", "- zero-shot", "- biodiversity"]
    return "\n".join([*lines, "---"])


def _classes(about: About) -> int:
    return len(about.train_classes)


def _summary(about: About, config: Any) -> str:
    locked = {"Lu": "locked, its text tower trained from scratch"}.get(
        config.train.locks, f"tuned by the letters {config.train.locks} of LiT"
    )
    return (
        f"Names photos among classes given only in words. Trained with [lit_jax] by Locked-image Text tuning "
        f"(arXiv 2111.07991): the image tower ({config.image.tower}) was {locked}, on photos of "
        f"{_classes(about):,} classes.\n\n[lit_jax]: https://arxiv.org/abs/2111.07991"
    )


def _results(results: Mapping[str, Any]) -> str:
    lines = ["| on | classes to choose from | photos | top-1 | top-5 |", "| --- | --- | --- | --- | --- |"]
    for name, found in results.items():
        if isinstance(found, Mapping) and "top1" in found:
            lines.append(
                f"| {name.replace('_', ' ')} | {found.get('classes', '')} | {found.get('images', '')} | "
                f"{100 * found['top1']:.2f} % | {100 * found['top5']:.2f} % |"
            )
    return "\n".join(lines)


def _data(about: About) -> str:
    templates = "\n".join(f"- `{template}`" for template in about.templates)
    return (
        f"{_classes(about):,} classes with training photos; all classes known to the run stand in `classes.csv`. "
        f"Captions were made from these templates:\n\n{templates}"
    )


def _model(config: Any, facts: Facts) -> str:
    image, lines = config.image, ["| part | parameters |", "| --- | --- |"]
    lines += [f"| {name.replace('_', ' ')} | {count:,} |" for name, count in facts.parameters.items()]
    mean, std = ("/".join(f"{x:.4g}" for x in values) for values in (image.mean, image.std))
    how = (
        "squeezed to a square"
        if image.resize == "square"
        else f"shorter side to {image.size / image.crop_fraction:.0f}"
    )
    pixels = (
        f"Photos: {how}, {image.interpolation}, {image.size} x {image.size} pixels cut from the middle, mean {mean}, "
        f"std {std}."
    )
    origin = f"Weights of the image tower: `{facts.weights}`." if facts.weights else ""
    return "\n".join(lines) + "\n\n" + (pixels if image.tower != "given" else "Reads given embeddings only.") + (
        f" {origin}" if origin else ""
    )  # fmt: skip


def _training(config: Any, step: int) -> str:
    chosen = config.optimizer
    return (
        f"{step:,} batches of {config.train.batch_size:,} pairs, {config.model.loss} loss, AdamW at {chosen.lr:g} with "
        f"weight decay {chosen.weight_decay:g}, {config.train.precision}, seed {config.seed}."
    )


def _limits(about: About, facts: Facts) -> str:
    licence = (
        f"The image tower's weights are published under {facts.licence}; the terms of the training photos apply too."
        if facts.licence
        else "The terms of the image tower's weights and of the training photos apply."
    )
    return (
        "Accuracies above are on photos of the same collection; photos from elsewhere, and species that no caption "
        f"named in training, are harder. {licence}"
    )

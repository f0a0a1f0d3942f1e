"""The model card of a trained model, from what its checkpoint knows. Nothing in it is typed by hand."""

import dataclasses
import json
import pathlib
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from lit_jax import config as options
from lit_jax import models
from lit_jax.data.embedding_store import GIVEN
from lit_jax.embedding.about import About
from lit_jax.errors import printable
from lit_jax.evaluation import tables
from lit_jax.models.locking import LETTERS, lock_letters
from lit_jax.models.weight_files import HUB
from lit_jax.text.captions import class_captions
from lit_jax.text.classes import ClassTable

SOME = 3  # classes that are named

_LIT = "https://arxiv.org/abs/2111.07991"


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the card says and the checkpoint does not know.

    Attributes:
        name: of the folder.
        parameters: by part: ``image``, ``text``, ``projection`` and so on.
        library: that reads the folder.
        notes: what differs here from the run, a line each.
    """

    name: str
    parameters: Mapping[str, int]
    library: str = "lit_jax"
    notes: tuple[str, ...] = ()


def text(about: About, step: int, facts: Facts, table: ClassTable | None) -> str:
    """The card as Markdown, with the front matter that model hubs read; `table` holds the classes of training."""
    filled = class_captions(table, about.templates, drop_repeats=about.drop_repeats) if table else []
    use = {"open_clip": _open_clip_use, "onnx": _onnx_use}.get(facts.library, _own_use)
    parts = [
        _front_matter(about.options, facts), f"# {_plain(facts.name)}", _summary(about, step),
        "## Use", use(facts.name, about.options.image, _examples(about, table, filled)),
    ]  # fmt: skip
    if about.results:
        parts += ["## Zero-shot accuracy", _results(about, step)]
        parts += _unseen(about)
    parts += ["## Model", _model(about, facts)]
    if table is not None:
        parts += ["## Classes and captions", _data(about, table, filled)]
    if not _is_published(about, step):
        parts += ["## Training", _training(about, step)]
    parts += ["## Limits", _limits(about, facts)]
    return "\n\n".join(parts) + "\n"


def _unseen(about: About) -> list[str]:
    """How far the model may be trusted with a species that it has no photo of, and its margin."""
    found = about.results.get("gzsl")
    if not found:
        return []

    def row(name: str, one: Mapping[str, float]) -> str:
        return f"| {name} | {100 * one['seen']:.1f} % | {100 * one['unseen']:.1f} % | {one['harmonic']:.3f} |"

    lines = [row("as trained", found["without_margin"])]
    if about.margin:
        lines += [row(f"with the margin, {about.margin['margin']:.3f}", found), row("over species", found["macro"]),
                  row("inside the training split", about.margin)]  # fmt: skip
    held = (
        "The margin is taken from the scores of species that were in training. It was fitted on training species held "
        f"out in turn, {about.margin['folds']} times, and is stored in `model.json`."
        if about.margin
        else "No margin was fitted: among all species, those that were in training win nearly always."
    )
    return [
        "## Species without a photo",
        f"{found['seen_images']:,} photos of {found['seen_classes']:,} species of training and "
        f"{found['unseen_images']:,} photos of {found['unseen_classes']:,} species that were not, each named among "
        "all.",
        "\n".join(["| | seen | unseen | harmonic mean |", "| --- | --- | --- | --- |", *lines]),
        held,
    ]


def _front_matter(config: options.Config, facts: Facts) -> str:
    lines = ["---", f"library_name: {facts.library}", "pipeline_tag: zero-shot-image-classification"]
    lines += ["tags:", "- zero-shot-image-classification", "- locked-image-tuning", "- lit_jax"]
    lines += ["- open_clip"] if facts.library == "open_clip" else []
    sources = (config.image.weights, config.text.weights)
    bases = dict.fromkeys(_hub_name(source) for source in sources if source.startswith(HUB))
    # JSON's way of quoting is YAML's too.
    lines += ["base_model:", *(f"- {json.dumps(base)}" for base in bases)] if bases else []
    return "\n".join([*lines, "---"])


def _hub_name(source: str) -> str:
    return source.removeprefix(HUB).partition("@")[0]


def _is_published(about: About, step: int) -> bool:
    """Whether nothing was learnt here: no step was made, and no closed form kept as it is."""
    return not step and about.config.get("model.start") != "solve"


def _summary(about: About, step: int) -> str:
    config = about.options
    what = "Names photos among classes that are given only in words."
    if _is_published(about, step):
        return f"{what} These are published towers as they are, before any training of our own."
    letters = lock_letters(config.train.locks)
    image = "embeddings computed elsewhere" if config.image.tower == GIVEN else f"`{config.image.tower}`"
    towers = (
        f"the image tower, {image}, {LETTERS[letters['image']]}; the text tower, "
        f"`{config.text.tower}`, {LETTERS[letters['text']]}"
    )
    return (
        f"{what} Trained with lit_jax by [Locked-image Text tuning]({_LIT}) on photos of "
        f"{len(about.train_classes):,} classes: {towers}."
    )


def _examples(about: About, table: ClassTable | None, filled: Iterable[tuple[str, ...]]) -> list[str]:
    """Captions of two classes of training, to try the model with."""
    if table is None:
        return ["A photo of a cat", "A photo of a dog"]
    known = set(about.train_classes) or set(table.ids)
    of_each = [captions[0] for i, captions in zip(table.ids, filled, strict=True) if i in known]
    return list(dict.fromkeys(of_each))[:2]


def _own_use(name: str, image: options.Image, captions: list[str]) -> str:
    given, quoted = image.tower == GIVEN, shlex.quote(printable(name))
    features = (
        'features = numpy.load("features.npy")  # [photos, channels], of the same tower as in training'
        if given
        else """jpeg = photo.open_photo("photo.jpg").jpeg  # upright, whatever its format
pixels = images.centre_crop(jpeg, size=found.config.image.size, view=building.view_of(found.config.image)).numpy()
features = models.image_features(found.model, found.params["image"], pixels[None])"""
    )
    imports = (
        "import numpy\n\nfrom lit_jax import models\nfrom lit_jax.models import building\n"
        "from lit_jax.trained.loading import load_whole"
        if given
        else """from lit_jax import models
from lit_jax.data import images, photo
from lit_jax.models import building
from lit_jax.trained.loading import load_whole"""
    )
    return f"""```python
{imports}

found = load_whole({name!r})
captions = {captions!r}
{features}
words = building.reading(found.config.text, found.tokenizer)(captions)
of_photo = models.project(found.model, found.params, features)
of_words = models.embed_text(found.model, found.params, words)
print(captions[int((of_photo @ of_words.T)[0].argmax())])
```

The accuracy on photos of your own, {"embedded" if given else "converted"} as lit_jax's documentation says:

```bash
python -m lit_jax.evaluate --checkpoint={quoted} --{"store=STORE" if given else "records=RECORDS"} --split=validation
```"""


def _onnx_use(name: str, _: options.Image, captions: list[str]) -> str:
    return f"""```python
import lit_jax  # needs onnxruntime here, not JAX

model = lit_jax.load({name!r})
print(model.name("photo.jpg").all())
print(model.name("photo.jpg", {captions!r}).all())
```

In other languages: `model.json` says how a photo becomes the square that `image.onnx` reads, and by which factor
products of its `embeddings` and the rows of `classes.safetensors` are multiplied."""


def _open_clip_use(name: str, _: options.Image, captions: list[str]) -> str:
    return f"""```python
import open_clip
import torch
from PIL import Image, ImageOps

where = {json.dumps(f"local-dir:{name}", ensure_ascii=False)}
model, preprocess = open_clip.create_model_from_pretrained(where)
model.eval()
tokenizer = open_clip.get_tokenizer(where)
captions = {captions!r}
with torch.no_grad():
    photo = ImageOps.exif_transpose(Image.open("photo.jpg"))  # upright
    of_photo = model.encode_image(preprocess(photo).unsqueeze(0), normalize=True)
    of_words = model.encode_text(tokenizer(captions), normalize=True)
print(captions[int((of_photo @ of_words.T)[0].argmax())])
```"""


def _results(about: About, step: int) -> str:
    config = about.options
    data = config.data
    what = {
        "set_aside": "photos of the training split that were set aside to choose the checkpoint by",
        "seen": f"split {_code(data.seen_split)}: other photos of classes in training",
        "heldout": f"split {_code(data.heldout_split)}: classes held out of training, among themselves",
        "heldout_among_all": f"split {_code(data.heldout_split)}: the same photos, among all classes",
    }
    lines = ["| photos | number | classes to choose from | top-1 | top-5 |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {what.get(name, _plain(name))} | {row['images']:,} | {row['candidates']:,} | {_rate(row, 'top1')} | "
        f"{_rate(row, 'top5')} |"
        for name, row in about.results.items()
        if "top1" in row
    ]
    prompts = "these prompts" if about.prompt_templates else "the captions below as prompts"
    lines += [
        "",
        f"Ranges are 95 % intervals. Measured by the run {_when(about.evaluated, step)}, with {prompts}",
    ]
    lines[-1] += ":\n\n" + _listed(about.prompt_templates) if about.prompt_templates else "."
    return "\n".join([*lines, "", _choice(about)])


def _choice(about: About) -> str:
    """Which split the best checkpoint was chosen on. Configs of older checkpoints may lack newer options."""
    split = about.config["data.seen_split"] or about.config["data.heldout_split"]
    if about.config.get("data.select_fraction"):
        return "The best checkpoint of a run is the one with the highest top-1 on the photos that were set aside."
    return (
        f"The best checkpoint of a run is the one with the highest top-1 on split {_code(split)}: for it, figures on "
        "that split are a little too good."
    )


def _rate(row: Mapping[str, Any], name: str) -> str:
    """An accuracy with its 95 % range, or a dash where it cannot be wrong."""
    told = tables.tells(name, row["candidates"])
    return f"{100 * row[name]:.2f} % ({tables.ends(row, name)})" if told else tables.NOTHING


def _when(evaluated: int, step: int) -> str:
    if evaluated == step:
        return "when it saved this model"
    return f"after {evaluated:,} batches, {step - evaluated:,} before it saved this model"


def _listed(templates: Iterable[str]) -> str:
    return "\n".join(f"- {_code(template)}" for template in templates)


def _code(text: str) -> str:
    """A text as Markdown's code, on one line: between more backticks than it has in a row."""
    text = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    apart = " " * (text.startswith("`") or text.endswith("`"))
    return f"{fence}{apart}{text}{apart}{fence}"


def _plain(text: str) -> str:
    """A text as Markdown shows it letter by letter, on one line: neither HTML, nor a link, nor cells of a table."""
    return re.sub(r"[\\`*<>\[\]&|#~]", lambda found: f"&#{ord(found[0])};", printable(text))


def _data(about: About, table: ClassTable, filled: Iterable[tuple[str, ...]]) -> str:
    known = set(about.train_classes)
    names = [name for i, name in zip(table.ids, table.names, strict=True) if i in known]
    such = f", such as {', '.join(map(_plain, names[:SOME]))}" if names else ""
    example = next((captions for i, captions in zip(table.ids, filled, strict=True) if i in known or not known), ())
    shown = f"\n\nOne class's captions:\n\n{_listed(example)}" if example else ""
    return (
        f"{len(names):,} classes had training photos{such}. All {len(table):,} classes of the collection stand in "
        f"`classes.csv`, whose columns fill the caption templates:\n\n{_listed(about.templates)}{shown}"
    )


def _model(about: About, facts: Facts) -> str:
    config = about.options
    lines = ["| part | parameters |", "| --- | --- |"]
    lines += [f"| {name.replace('_', ' ')} | {count:,} |" for name, count in facts.parameters.items()]
    loss = "logit scale" + (" and bias of the sigmoid loss" if config.model.loss == "sigmoid" else "")
    about_towers = [
        f"- {_origin(about, 'image')} {_pixels(config.image)}",
        f"- {_origin(about, 'text')} It reads up to {config.text.context} tokens.",
        f"- Both end in {config.model.embed_dim} numbers of unit norm, compared by cosine; {loss} as trained.",
        *(f"- {note}" for note in facts.notes),
    ]
    return "\n".join([*lines, "", *about_towers])


def _origin(about: About, tower: str) -> str:
    """Where a tower's weights come from, as far as the run knows."""
    config = about.options
    chosen = config.image if tower == "image" else config.text
    name, source = chosen.tower, chosen.weights
    what = f"{tower.capitalize()} tower `{name}`"
    digest = f", SHA-256 of their arrays `{about.locked[tower]}`" if about.locked.get(tower) else ""
    if tower == "image" and name == GIVEN:
        return f"No image tower: the model reads embeddings of {config.image.width:,} numbers, computed elsewhere."
    if source.startswith(HUB):
        hub = _hub_name(source)
        return f"{what}, from weights [`{hub}`](https://huggingface.co/{hub}){digest}."
    if source:
        preset = {**models.IMAGE_PRESETS, **models.TEXT_PRESETS}.get(name)
        like = f"; weights of this form are published as `{preset.weights}`" if preset else ""
        return f"{what}, from weights in a file or folder {_code(pathlib.PurePath(source).name)}{digest}{like}."
    return f"{what}{', of the embedding store' + digest if digest else ', from scratch'}."


def _pixels(image: options.Image) -> str:
    if image.tower == GIVEN:
        return ""
    side = int(image.size / image.crop_fraction + 1e-6)
    how = f"squeezed to {side} x {side} pixels" if image.resize == "square" else f"shorter side to {side} pixels"
    cut = f", the middle {image.size} x {image.size} of it" if side != image.size or image.resize != "square" else ""
    mean, std = ("/".join(f"{x:.4g}" for x in values) for values in (image.mean, image.std))
    return f"It reads photos: {how} ({image.interpolation}){cut}, mean {mean}, standard deviation {std}."


def _training(about: About, step: int) -> str:
    config = about.options
    chosen = config.optimizer
    store = " from an embedding store" if config.input == "store" else ""
    return (
        f"{step:,} batches of {config.train.batch_size:,} pairs{store}, of a run set to {config.train.epochs:g} "
        f"epoch{'s' * (config.train.epochs != 1)}, {config.model.loss} loss, AdamW at {chosen.lr:g} with "
        f"weight decay {chosen.weight_decay:g}, {config.train.precision}, seed {config.seed}."
    )


def _limits(about: About, facts: Facts) -> str:
    config = about.options
    lines = ["- It chooses among the classes that it is given: a photo of anything else gets one of their names too."]
    lines += (
        ["- The accuracies are of photos of the collection that it was trained on; on others none was measured."]
        if about.results
        else ["- No accuracy was measured."]
    )
    licences = [
        _licence(chosen.tower, presets)
        for chosen, presets in ((config.image, models.IMAGE_PRESETS), (config.text, models.TEXT_PRESETS))
        if chosen.weights
    ]
    lines += [f"- {line}" for line in licences if line]
    photos = " and of the training photos" if about.train_classes else ""
    lines.append(f"- The terms of the towers' weights{photos} apply to this model; it states no licence of its own.")
    return "\n".join(lines)


def _licence(tower: str, presets: Mapping[str, Any]) -> str:
    preset = presets.get(tower)
    if preset is None or not preset.licence:
        return ""
    return (
        f"For `{tower}`, weights `{preset.weights}` are published under {preset.licence}; other weights, under others."
    )

"""Export: ``python -m lit_jax.export --checkpoint=runs/demo --out=models/demo`` makes one folder of a trained model.

In lit_jax's own format it holds all that naming a photo takes and works as ``--checkpoint`` of other commands; in
open_clip's it is read by open_clip and everything built on it. With ``--config`` in place of ``--checkpoint`` it is the
published towers of a config, as they are before any training.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from lit_jax import bundle, card, models, open_clip_format
from lit_jax import config as options
from lit_jax import trained as trained_models
from lit_jax.errors import UserError, user_errors_in_one_line
from lit_jax.models.weights import count
from lit_jax.trained import Trained

FORMATS = ("lit_jax", "open_clip")


def export(trained: Trained, out: str | pathlib.Path, *, layout: str = "lit_jax") -> list[str]:
    """Writes a trained model as one folder.

    Args:
        trained: from `lit_jax.trained.load`, with its image tower unless it knows given embeddings only.
        out: the folder to make.
        layout: one of `FORMATS`.

    Returns:
        What a person should know of the result, a line each.

    Raises:
        UserError: something is there already, or a model that the layout cannot hold.
    """
    out = pathlib.Path(out).absolute()
    if layout == "lit_jax":
        bundle.write(out, trained.about, trained.step, trained.params, facts(trained, out.name, _own_use(out.name)))
        return []
    aside = bundle.begin(out)
    notes = open_clip_format.write(aside, trained.config, trained.model, trained.params, trained.tokenizer)
    found = facts(trained, out.name, _open_clip_use(out.name), notes)
    (aside / "README.md").write_text(card.text(trained.about, trained.step, found), encoding="utf-8")
    (aside / bundle.CLASSES).write_text(trained.about.class_table, encoding="utf-8")
    (aside / bundle.TEMPLATES).write_text("".join(f"{text}\n" for text in trained.about.templates), encoding="utf-8")
    aside.rename(out)
    return notes


def facts(trained: Trained, name: str, use: str, notes: Sequence[str] = ()) -> card.Facts:
    """What the model card says beside the checkpoint."""
    preset = models.IMAGE_PRESETS.get(trained.config.image.tower)
    return card.Facts(
        name=name,
        parameters={part: count(tree) for part, tree in trained.params.items()},
        licence=preset.licence if preset else "",
        weights=preset.weights if preset else "",
        use=use,
        notes=tuple(notes),
    )


def _own_use(name: str) -> str:
    return f"```bash\npython -m lit_jax.evaluate --checkpoint={name} --records=RECORDS --split=validation\n```"


def _open_clip_use(name: str) -> str:
    return (
        "```python\nimport open_clip\n\n"
        f'model, _, preprocess = open_clip.create_model_and_transforms("local-dir:{name}")\n'
        f'tokenizer = open_clip.get_tokenizer("local-dir:{name}")\n```'
    )


def main(argv: Sequence[str] | None = None) -> None:
    """The command; see ``--help``."""
    with user_errors_in_one_line():
        rest, overrides = options.split_arguments(list(sys.argv[1:] if argv is None else argv))
        parsed = _parser().parse_args(rest)
        weight_files = {"image": parsed.image_weights, "text": parsed.text_weights}
        if pathlib.Path(parsed.out).exists():
            raise UserError(f"--out {parsed.out}: found something there already, expected a new folder")
        if parsed.config:
            trained = trained_models.untrained(options.load(parsed.config, overrides)[0])
        else:
            trained = trained_models.load(
                parsed.checkpoint, step=parsed.step, weight_files=weight_files, with_image_tower=_has_tower(parsed)
            )
        for note in export(trained, parsed.out, layout=parsed.format):
            print(note)
        total = sum(count(tree) for tree in trained.params.values())
        print(
            f"{parsed.out}: step {trained.step} of {parsed.checkpoint or parsed.config}, {total:,} parameters, {parsed.format} format"
        )


def _has_tower(parsed: Any) -> bool | None:
    """The tower goes along unless the run knew given embeddings only, which loading will say."""
    return None if parsed.without_image_tower else True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lit_jax.export",
        description="Writes a trained model as one folder, in lit_jax's format or in open_clip's.",
    )
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", default="", help="folder of a run")
    source.add_argument("--config", default="", help="a Python file: published towers, before any training")
    add("--out", required=True, help="folder to make")
    add("--format", default=FORMATS[0], choices=FORMATS, help=f"{FORMATS[0]} if not given")
    add("--step", default="best", help="best (by top-1 on the seen split), latest or a step; best if not given")
    add("--image-weights", default="", help="where the locked image tower's weights are now")
    add("--text-weights", default="", help="likewise of a pre-trained text tower")
    add("--without-image-tower", action="store_true", help="of a run on given embeddings: write the text side alone")
    return parser


if __name__ == "__main__":
    main()

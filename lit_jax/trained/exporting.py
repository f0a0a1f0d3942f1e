"""One folder of a trained model, in lit_jax's own format, in open_clip's layout or in ONNX.

In lit_jax's own format it holds all that naming a photo takes and works as ``--checkpoint`` of other commands; in
open_clip's it is read by open_clip and everything built on it; in ONNX photos are named without JAX.
"""

import pathlib

from lit_jax.base.folders import made
from lit_jax.embedding.trained import Trained
from lit_jax.models.locking import TOWERS
from lit_jax.models.weights import count
from lit_jax.trained import model_card, model_folder, onnx_export, open_clip_layout

FORMATS = ("lit_jax", "open_clip", "onnx")


def export(
    trained: Trained, out: str | pathlib.Path, *, layout: str = "lit_jax", hub_name: str = "", weights: str = "fp32"
) -> list[str]:
    """Writes a trained model as one folder; if it fails, there is none.

    Args:
        trained: from `lit_jax.trained.loading.load_whole` or `lit_jax.trained.loading.untrained`.
        out: the folder to make.
        layout: one of `FORMATS`.
        hub_name: as `lit_jax.trained.open_clip_layout.write` takes it.
        weights: as `lit_jax.trained.onnx_export.write` takes it.

    Returns:
        What a person should know of the result, a line each.

    Raises:
        UserError: something is there already, or a model that the layout cannot hold.
    """
    out = pathlib.Path(out).absolute()
    towers_first = sorted(trained.params, key=lambda part: (part not in TOWERS, part))
    parameters = {part: count(trained.params[part]) for part in towers_first}
    if layout == "lit_jax":
        model_folder.write(out, trained.about, trained.step, trained.params, model_card.Facts(out.name, parameters))
        return []
    with made(out, "export") as aside:
        if layout == "onnx":
            facts = model_card.Facts(out.name, parameters, library="onnx")
            model_folder.describe(aside, trained.about, trained.step, facts)
            return onnx_export.write(aside, trained, weights)
        notes = open_clip_layout.write(
            aside, trained.config.towers, trained.model, trained.params, trained.tokenizer, hub_name or out.name
        )
        facts = model_card.Facts(out.name, parameters, library="open_clip", notes=tuple(notes))
        model_folder.describe(aside, trained.about, trained.step, facts)
    return notes

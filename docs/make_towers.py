"""Writes the tables of docs/towers.md: all presets, counted.

python -m docs.make_towers

Parameters and arithmetic are counted in the programs of the towers, which takes about a minute. What a preset was
checked against is read from the golden outputs of tests/golden.
"""

import json
import pathlib
import re
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lit_jax import models
from lit_jax.models.presets import Preprocessing, Preset
from lit_jax.models.weights import count, leaves
from lit_jax.planning import arithmetic

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "towers.md"

# The tokenizer and the common embedding decide how large these are.
_OF_THE_RUN = re.compile(r"^(embedding/|token/|projection/)")
_COLUMNS = {
    "image": "parameters | GFLOPs | input | weights | licence | preprocessing | checked against",
    "text": "parameters | GFLOPs | tokens | weights | licence | checked against",
}


def main() -> None:
    """The command."""
    presets = {**models.IMAGE_PRESETS, **models.TEXT_PRESETS}
    counted = {name: numbers(preset) for name, preset in presets.items()}
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), counted), encoding="utf-8")
    print(f"wrote the tables of {PAGE.relative_to(ROOT)}")


def page(text: str, counted: Mapping[str, tuple[str, str]]) -> str:
    """The page with new tables, from parameters and GFLOPs by preset, as `numbers` gives them."""
    cases = _cases()
    for kind, presets in (("image", models.IMAGE_PRESETS), ("text", models.TEXT_PRESETS)):
        columns = _COLUMNS[kind]
        rows = [_row(name, preset, counted[name], _checked(name, presets, cases)) for name, preset in presets.items()]
        table = "\n".join([f"| preset | {columns} |", "| --- " * (columns.count("|") + 2) + "|", *rows])
        start, end = f"<!-- {kind} towers, by python -m docs.make_towers -->\n", "\n<!-- end -->"
        before, rest = text.split(start)
        text = before + start + table + end + rest.split(end, 1)[1]
    return text


def counted_in(text: str) -> dict[str, tuple[str, str]]:
    """Parameters and GFLOPs by preset, as they stand in a page."""
    return {found[1]: (found[2], found[3]) for found in re.finditer(r"^\| `(\w+)` \| (\S+ M) \| (\S+) \|", text, re.M)}


def numbers(preset: Preset) -> tuple[str, str]:
    """Parameters and GFLOPs of one input."""
    run = {"vocab_size": 32000, "end_id": 1, "context": preset.size, "embed_dim": 512}
    fields = preset.tower.__dataclass_fields__
    tower = preset.build(**{name: x for name, x in run.items() if name in fields and name not in preset.options})
    example: Any = jax.ShapeDtypeStruct((1, preset.size), jnp.int32)
    if preset.preprocessing:
        example = jax.ShapeDtypeStruct((1, preset.size, preset.size, 3), jnp.float32)
    params = jax.eval_shape(tower.init, jax.random.key(0), example)["params"]
    kept = {path: leaf for path, leaf in leaves(params).items() if preset.preprocessing or not _OF_THE_RUN.match(path)}
    flops = arithmetic.count(lambda params, x: tower.apply({"params": params}, x), params, example)
    return f"{count(kept) / 1e6:.1f} M", f"{flops / 1e9:.3g}"


def _row(name: str, preset: Preset, counted: tuple[str, str], checked: str) -> str:
    cells = [f"`{name}`", *counted, str(preset.size), _weights(preset.weights), preset.licence or "–"]
    cells += [_pixels(preset.preprocessing)] if preset.preprocessing else []
    return f"| {' | '.join([*cells, checked])} |"


def _weights(where: str) -> str:
    if re.fullmatch(r"[\w.-]+/[\w.-]+", where):
        return f"`hf-hub:{where}`"
    return f"`{where}`" if where.endswith(".npz") else where


def _pixels(like: Preprocessing) -> str:
    view = like.view
    crop = [f"{view.crop_fraction:g}"] if view.crop_fraction < 1 else []
    squeezed = ["squeezed"] if view.resize == "square" else []
    return ", ".join(
        [like.letter, *crop, *squeezed, *([view.interpolation] if view.interpolation != "bicubic" else [])]
    )


def _cases() -> dict[str, list[str]]:
    """By preset, the code that its golden outputs are of."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests" / "golden").glob("*.npz")):
        with np.load(path) as archive:
            about = json.loads(zlib.decompress(archive["about"].tobytes())) if "about" in archive else {}
        if "preset" in about:
            code = about["made_by"].split(", ")[-1].split()[0]
            depth = about.get("options", {}).get("depth")
            said = found.setdefault(about["preset"], [])
            said += [entry for entry in [code + (f" (first {depth} blocks)" if depth else "")] if entry not in said]
    return found


def _checked(name: str, presets: Mapping[str, Preset], cases: Mapping[str, list[str]]) -> str:
    """What a preset was checked against, or the preset of its kind that was."""
    if name in cases:
        return ", ".join(sorted(cases[name]))
    alike = [other for other in presets if other in cases and presets[other].tower is presets[name].tower]
    if not alike:
        return "not yet"
    near = min(alike, key=lambda other: (_differences(presets[name], presets[other]), -_shared(name, other)))
    return f"as `{near}` ¹"


def _differences(one: Preset, other: Preset) -> int:
    """Options that are no sizes and not the same."""
    kinds = [{name: x for name, x in preset.options.items() if isinstance(x, bool | str)} for preset in (one, other)]
    return sum(kinds[0].get(name) != kinds[1].get(name) for name in kinds[0].keys() | kinds[1].keys())


def _shared(one: str, other: str) -> int:
    """Letters that two names begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


if __name__ == "__main__":
    main()

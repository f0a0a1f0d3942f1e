r"""How far our towers are from the code they come from, on the same weights: a table of every golden output.

    python -m benchmarks.parity

Runs each tower of ``tests/golden`` in float32 and compares it with what timm, transformers, open_clip or torchvision
said, as `tests/test_parity.py` does. No torch is needed. The error is the largest difference, as a share of the largest
value.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from benchmarks import machine
from tests import test_parity
from tests.golden import common


def errors() -> list[dict[str, Any]]:
    """Case, preset, error, and whose code made the other side."""
    found = []
    for path in common.cases():
        about, _ = common.read(path)
        kind = about.get("kind", "image")
        if kind not in ("image", "text") or "real" in about:
            continue
        one = test_parity.image_error(path)[0] if kind == "image" else test_parity.text_error(path)
        made_by = about["made_by"].split(", ")[-1]
        found.append({"case": path.stem, "preset": about["preset"], "kind": kind, "error": float(one), "by": made_by})
        print(found[-1], flush=True)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """The command: the table and the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", default="")
    parsed = parser.parse_args(argv)
    found = errors()
    rows = [[one["case"], one["preset"], f"{one['error']:.1e}", one["by"]] for one in found]
    print(machine.table(["case", "preset", "error", "checked against"], rows))
    machine.write("parity", {"cases": found}, parsed.out)


if __name__ == "__main__":
    main()

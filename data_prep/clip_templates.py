"""CLIP's 80 prompt templates as a file that evaluation reads: ``python -m data_prep.clip_templates --out FILE``.

They are OpenAI's, and do not come with this package. open_clip holds them in one Python file,
``open_clip/zero_shot_metadata.py``: it is found where open_clip is installed (``pip install --no-deps open_clip_torch``
will do), or given by ``--file``. It is read, not run, so nothing else of open_clip need be there.
"""

import ast
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from lit_jax.base.command_line import Parser
from lit_jax.base.console import say
from lit_jax.base.files import new_file, written_aside
from lit_jax.errors import DAMAGED, UserError, first_line, user_errors_in_one_line
from lit_jax.text.prompts import read_templates

NAME = "OPENAI_IMAGENET_TEMPLATES"
PLACE = ("open_clip", "zero_shot_metadata.py")


def templates_of(source: str, name: str = NAME) -> tuple[str, ...]:
    """The texts of functions ``lambda c: f'a photo of a {c}.'`` in a list of that name, with ``{}`` for the class.

    Args:
        source: Python, which is parsed and never run.
        name: of the list or tuple.

    Raises:
        UserError: no such list, or one of something else.
    """
    try:
        parsed = ast.parse(source)
    except DAMAGED as error:
        raise UserError(
            f"--file: found {first_line(error)}, expected open_clip's zero_shot_metadata.py; give that file"
        ) from error
    for node in parsed.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            entries = node.value.elts if isinstance(node.value, ast.List | ast.Tuple) else [node.value]
            return tuple(_template(entry) for entry in entries)
    raise UserError(f"--file: found no list {name}, expected open_clip's zero_shot_metadata.py; give that file")


def _template(entry: ast.expr) -> str:
    if isinstance(entry, ast.Lambda) and isinstance(entry.body, ast.JoinedStr):
        parts = entry.body.values
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)
    raise UserError(f"--file line {entry.lineno}: found another form, expected lambda c: f'... {{c}} ...'")


def _installed() -> Path:
    spec = importlib.util.find_spec(PLACE[0])
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "--file: found none, and open_clip is not installed, expected one of them; run pip install --no-deps "
            "open_clip_torch, or give its zero_shot_metadata.py"
        )
    return Path(spec.submodule_search_locations[0], PLACE[1])


def main(argv: Sequence[str] | None = None) -> None:
    """The command: writes one template a line."""
    parser = Parser(
        prog="python -m data_prep.clip_templates",
        description="CLIP's prompt templates, from open_clip, as a text file.",
    )
    parser.add_argument(
        "--file", type=Path, help="zero_shot_metadata.py of open_clip (default: that of this environment)"
    )
    parser.add_argument("--out", type=Path, required=True, help="file to write, such as data/clip_templates.txt")
    parser.add_argument("--overwrite", action="store_true", help="also if the file is there")
    parsed = parser.parse_args(argv)
    with user_errors_in_one_line():
        parsed.out.parent.mkdir(parents=True, exist_ok=True)
        new_file(parsed.out, overwrite=parsed.overwrite)
        path = parsed.file or _installed()
        found = templates_of(path.read_text(encoding="utf-8", errors="replace"))
        with written_aside(parsed.out) as aside:
            aside.write_text(
                "# OpenAI's prompt templates, as open_clip has them.\n" + "\n".join(found) + "\n", encoding="utf-8"
            )
            read_templates(aside)  # what evaluation will read
        say(f"{len(found)} templates in {parsed.out}")


if __name__ == "__main__":
    main()

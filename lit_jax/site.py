"""The command that makes the field app: ``python -m lit_jax.site --checkpoint=runs/demo --out=site``."""

import argparse
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from lit_jax.app import folder
from lit_jax.app.contents import STORED, Contents, Told, files_of
from lit_jax.app.runtime import runtime
from lit_jax.app.texts import Texts, texts_of
from lit_jax.base import stopping
from lit_jax.base.command_line import Parser
from lit_jax.base.console import say
from lit_jax.base.files import alone_with, written_aside
from lit_jax.base.folders import made, refuse_there
from lit_jax.errors import STOPPED, UserError, user_errors_in_one_line
from lit_jax.graphs.graph import FP16, library
from lit_jax.text.units import Reading
from lit_jax.trained.onnx_folder import IMAGE, TEXT, is_onnx_folder

TITLE = "Field app"
WEIGHTS = FP16


def main(argv: Sequence[str] | None = None) -> None:
    """The command: writes the app, and tells what it weighs and how to open it."""
    parsed = _parser().parse_args(argv)
    with user_errors_in_one_line(), stopping.handled(_stop, [signal.SIGTERM]):
        out = Path(parsed.out)
        _check(parsed, out)
        run = runtime(parsed.runtime)
        with tempfile.TemporaryDirectory(prefix="lit_jax_site_") as aside:
            contents, stored = _contents(parsed, Path(aside))
        files = files_of(contents, run, stored)
        if parsed.one_file:
            with alone_with(out, "site"), written_aside(out, number=0) as aside:
                refuse_there(out, "--out")  # another process may just have made it
                aside.write_text(folder.one_file(files, run, parsed.title), encoding="utf-8")
            size, how = out.stat().st_size, "open it in a browser"
        else:
            written = folder.folder_files(files, run, parsed.title)
            _write(out, written)
            size = sum(map(len, written.values()))
            how = f"try it with: python -m http.server --directory {out}; see docs/site.md for a host"
        for note in (*contents.told.notes, contents.told.no_words):
            if note:
                say(f"note: {note}")
        say(f"{out}: {len(contents.choices):,} species, {size / 1e6:.1f} MB; {how}")


def _stop(*_: object) -> NoReturn:
    """Ends the command as asked, by way of what clears its temporary folders."""
    say("stopped; nothing was written", file=sys.stderr, flush=True)
    sys.exit(STOPPED)


def _write(out: Path, files: Mapping[str, bytes]) -> None:
    with made(out, "site") as aside:
        for name, data in files.items():
            (aside / name).write_bytes(data)


def _contents(parsed: argparse.Namespace, aside: Path) -> tuple[Contents, str]:
    """All that the app holds, from a model; and how its numbers are stored."""
    # Late: bad options are refused in a moment.
    from lit_jax.prediction.model import Model
    from lit_jax.prediction.with_onnx import WithOnnx

    found = _in_onnx(parsed, aside)
    engine = WithOnnx(found)
    model = Model(engine)
    choices = model.choices(parsed.classes or None, only=parsed.only or None)
    texts, why_not = _texts(engine.reading, parsed.no_text)
    # Whoever opens the app has no use for the maker's folders.
    notes = tuple(_without_folders(note, parsed.only, parsed.classes) for note in choices.notes)
    told = Told(parsed.title, Path(parsed.checkpoint).absolute().name, engine.step, notes, why_not)
    image, text = (_tower(found, name) if name else b"" for name in (IMAGE, texts and TEXT))
    return Contents(
        told, engine.pictures, choices, model.confidence, image, (text, texts) if texts else None
    ), engine.model.facts["weights"]


def _without_folders(text: str, *paths: str) -> str:
    """The text with the names of files in place of their paths."""
    for path in filter(None, paths):
        for written in (path, str(Path(path))):
            text = text.replace(written, Path(path).name)
    return text


def _in_onnx(parsed: argparse.Namespace, aside: Path) -> Path:
    """The folder of the model in ONNX: the one that was given, or one made aside."""
    from lit_jax.models.weight_files import HUB, hub_folder

    where = Path(hub_folder(parsed.checkpoint) if parsed.checkpoint.startswith(HUB) else parsed.checkpoint)
    if is_onnx_folder(where):
        if parsed.weights or parsed.step != "best" or parsed.image_weights or parsed.text_weights:
            raise UserError(
                f"--checkpoint {where}: found options of weights or a step beside a model in ONNX, expected none: it "
                "holds its own; leave them out"
            )
        return where
    from lit_jax.base import hosts
    from lit_jax.trained import loading
    from lit_jax.trained.exporting import export

    library()
    hosts.keep_compiled()
    moved = {"image": parsed.image_weights, "text": parsed.text_weights}
    trained = loading.load_whole(where, step=parsed.step, weight_files=moved)
    export(trained, aside / "model", layout="onnx", weights=parsed.weights or WEIGHTS)
    return aside / "model"


def _tower(folder: Path, name: str) -> bytes:
    if (folder / f"{name}.data").exists():
        raise UserError(f"{folder / name}: found a tower of more than 2 GB, expected one that a browser can hold")
    return (folder / name).read_bytes()


def _texts(reading: Reading, no_text: bool) -> tuple[Texts | None, str]:
    """How the page reads texts, or why it does not."""
    if no_text:
        return None, "made without free-text questions"
    try:
        return texts_of(reading), ""
    except UserError as error:
        return None, f"made without free-text questions: {error}"


def _check(parsed: argparse.Namespace, out: Path) -> None:
    """Refuses options that make no sense, before anything is read."""
    refuse_there(out, "--out")
    if parsed.one_file != (out.suffix.lower() in (".html", ".htm")):
        expected = "a name that ends in .html" if parsed.one_file else "a folder, or --one-file beside it"
        raise UserError(f"--out {out}: found ending {out.suffix or 'none'}, expected {expected}")
    if not parsed.title.strip():
        raise UserError("--title: found an empty text, expected a name for the app")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m lit_jax.site",
        description="Makes the field app: a web page that names photos on the device it is opened on, without a "
        "network after the first visit, and sends nothing.",
    )
    add = parser.add_argument
    add(
        "--checkpoint", required=True, help="folder of a run or of an exported model, of ONNX too, or hf-hub:OWNER/NAME"
    )
    add("--out", required=True, help="folder to make; with --one-file a file that ends in .html")
    add("--step", default="best", help="of a run: best, latest or a number")
    add("--title", default=TITLE, help="name of the app")
    add("--classes", default="", metavar="CSV", help="class table to choose from instead of the model's own")
    add("--only", default="", metavar="LIST", help="only classes that a file names, such as a region's")
    add("--no-text", action="store_true", help="without free-text questions, which need the text tower")
    add("--weights", default="", choices=STORED, help=f"how numbers are stored, float32 in use (default: {WEIGHTS})")
    add("--one-file", action="store_true", help="one HTML file that opens from the disk, instead of a folder")
    add(
        "--runtime", default="", metavar="FILE_OR_FOLDER",
        help="npm's package onnxruntime-web of the pinned version, or the folder it unpacks to; fetched without it",
    )  # fmt: skip
    add("--image-weights", default="", help="where the locked image tower's weights are now")
    add("--text-weights", default="", help="likewise of a pre-trained text tower")
    return parser


if __name__ == "__main__":
    main()

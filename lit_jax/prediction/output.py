"""The file of answers: written as they come, gone on with after an interruption, and whole under its own name only."""

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lit_jax.base.files import alone_with, incomplete, naming, new_file, regular, replaceable, written_aside
from lit_jax.errors import Busy, UserError, printable
from lit_jax.prediction.answers import Named
from lit_jax.prediction.formats import Format, Heading, ParquetFile

Write = Callable[[Sequence[Named]], None]
"""Writes the photos of a batch."""


RECORD = ("lit_jax", "model", "key")  # what each record beside a table has


def check(path: Path, *, overwrite: bool) -> None:
    """Refuses a place that cannot be written to, before anything is computed.

    Raises:
        UserError: what `lit_jax.base.files.new_file` refuses, or a file of somebody else beside it that would go.
    """
    _end_renaming(path)
    regular(incomplete(new_file(path, overwrite=overwrite)), "--out")
    replaceable(beside(path), "--out", RECORD)


def _end_renaming(path: Path) -> None:
    """Gives a record its name where a kill came when its table had its own, unless another process is about to."""
    begun, kept = incomplete(path), incomplete(beside(path))
    if path.exists() and kept.exists() and not begun.exists():
        with contextlib.suppress(Busy, OSError), alone_with(path, "predict"):
            if not begun.exists():
                kept.replace(beside(path))


def done_before(path: Path, form: Format, photos: Sequence[str], batch: int) -> int:
    """How many photos an interrupted command has named in whole batches; the file then holds these and no more.

    Raises:
        UserError: it was another command, or other photos.
    """
    begun = incomplete(path)
    if not begun.exists():
        return 0
    with begun.open(encoding="utf-8", errors="replace", newline="") as file:
        text = file.read()
    kept = incomplete(beside(path))
    if form.before and text.startswith(form.before):  # of an earlier version, at the head of the file
        text = text.removeprefix(form.before)
        is_same = True
    else:
        is_same = not form.beside or (
            kept.exists() and kept.read_text(encoding="utf-8", errors="replace") == form.beside
        )
    if not (is_same and text.startswith(form.head)):
        if form.head.startswith(text) or form.before.startswith(text):  # stopped within its first line
            return 0
        raise UserError(
            f"--out {path}: found {begun.name} of another command, model or list of photos, expected the same; give "
            "that again, or another --out, or delete the file"
        )
    found = list(form.photos(text[len(form.head) :]))
    # The last photo may lack rows, and a row that is cut within its photo's name seems to be of another one, behind
    # the last. Whole batches, so that the same photos pass the tower together again.
    known = sum(1 for _ in itertools.takewhile(lambda pair: pair[0][0] == pair[1], zip(found, photos, strict=False)))
    done = max(known - 1, 0) // batch * batch
    with written_aside(begun) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        file.write(form.head + "".join(own for _, own in found[:done]))
    if form.beside:
        kept.write_text(form.beside, encoding="utf-8")
    return done


def beside(path: Path) -> Path:
    """The file beside a table that says which command made it: ``names.csv.run.json`` of ``names.csv``."""
    return path.with_name(f"{path.name}.run.json")


@contextlib.contextmanager
def opened(path: Path | None, form: Format, done: int) -> Iterator[Write]:
    """A way to write photos to a file, or to standard output where there is none.

    The file has its own name when the body has ended without an error.

    Args:
        path: the file; None for standard output.
        form: the format.
        done: photos that are in the file already.
    """
    if path is None:
        is_seen = sys.stdout.isatty()  # by a person, whose terminal obeys names; a pipe gets them as they are
        sys.stdout.write(form.head)
        yield lambda named: _write(sys.stdout, form, named, is_seen=is_seen)
        return
    begun, kept = incomplete(path), incomplete(beside(path))
    with naming(path):
        with begun.open("a" if done else "w", encoding="utf-8", newline="") as file:
            if form.beside and not done:  # not before: beside an earlier table alone it would seem to be of that
                kept.write_text(form.beside, encoding="utf-8")
            if not done:
                file.write(form.head)
            yield lambda named: _write(file, form, named)
        if form.beside:
            beside(path).unlink(missing_ok=True)  # a kill below leaves a table without a record, not with another one's
        begun.replace(path)
        if form.beside:
            kept.replace(beside(path))


@contextlib.contextmanager
def opened_parquet(path: Path, heading: Heading) -> Iterator[Write]:
    """The same for Parquet, which begins anew after an interruption."""
    with written_aside(path, number=0) as aside:  # its name is locked
        file = ParquetFile(str(aside), heading)
        try:
            yield file.write
        finally:
            file.close()


def _write(file: object, form: Format, named: Sequence[Named], *, is_seen: bool = False) -> None:
    assert hasattr(file, "write") and hasattr(file, "flush")
    text = "".join(map(form.text, named))
    file.write("\n".join(map(printable, text.split("\n"))) if is_seen else text)
    file.flush()

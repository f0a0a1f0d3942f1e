"""The command that names photos: ``python -m lit_jax.predict --checkpoint=runs/demo photos``."""

import argparse
import contextlib
import dataclasses
import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from lit_jax.base import console
from lit_jax.base.command_line import Parser, positive
from lit_jax.base.console import say
from lit_jax.base.files import alone_in, alone_with, digest, regular
from lit_jax.base.named_files import spelt_out
from lit_jax.errors import UserError, user_errors_in_one_line
from lit_jax.evaluation.ranks import SPECIES
from lit_jax.prediction import choices, formats, output
from lit_jax.prediction.answers import NOT_SURE, Named
from lit_jax.prediction.choices import Choices, Within
from lit_jax.prediction.formats import Heading
from lit_jax.prediction.found import find_photos, names_in
from lit_jax.prediction.model import BATCH, Model, load
from lit_jax.prediction.sorting import prepare, refuse_foreign, sort_photo
from lit_jax.text.classes import RANKS

FORMATS = ("table", "csv", "jsonl", "dwc", "parquet")
ANSWERS = 5  # a photo, where no sure answer is asked for


def main(argv: Sequence[str] | None = None) -> None:
    """The command: names photos, writes a row for each and its answers, and counts."""
    parsed = _parser().parse_args(argv)
    goes_on = "run the same command to go on" if parsed.out and _kind(parsed) != "parquet" else ""
    with user_errors_in_one_line(goes_on):
        out = regular(parsed.out, "--out") if parsed.out else None
        _check(parsed, out)
        found = find_photos(parsed.photos, names_in(sys.stdin))
        model = load(
            parsed.checkpoint,
            step=parsed.step,
            image_weights=parsed.image_weights,
            text_weights=parsed.text_weights,
        )
        classes = parsed.classes or (parsed.labels.split(",") if parsed.labels else None)
        chosen = model.choices(classes, within=_within(parsed.within), only=parsed.only or None)
        for note in (*found.notes, *chosen.notes):
            say(f"note: {note}", file=sys.stderr, flush=True)
        with contextlib.ExitStack() as alone:
            if out is not None:
                alone.enter_context(alone_with(out, "predict"))
                output.check(out, overwrite=parsed.overwrite)  # another process may just have written it
            if parsed.sort_into:
                alone.enter_context(alone_in(Path(parsed.sort_into), "predict"))
                prepare(Path(parsed.sort_into))
            _name(parsed, model, chosen, found.photos, out)


def _name(parsed: argparse.Namespace, model: Model, chosen: Choices, photos: list[str], out: Path | None) -> None:
    """Names the photos that are not named yet, and tells how many came to what."""
    batch = model.fitting_batch(len(photos), parsed.batch_size)
    top = parsed.top or (1 if parsed.sure is not None else ANSWERS)
    heading = _heading(parsed, model, chosen, photos, (batch, top))
    names = [chosen.table.label(class_id) for class_id in chosen.table.ids]
    written = [spelt_out(photo) for photo in photos]
    form = formats.format_of(_kind(parsed), heading, photos=written, names=names)
    if form.beside and out is None:
        say(f"note: {heading.line.removeprefix('# ').strip()}", file=sys.stderr, flush=True)
    is_parquet, done = _kind(parsed) == "parquet", 0
    if out is not None and not is_parquet:
        done = output.done_before(out, form, written, batch)
    naming = model.name(
        photos[done:], chosen, rank=parsed.rank, top=top, sure=parsed.sure, batch_size=batch
    )  # fmt: skip
    # With a sure answer others are told only if they are asked for.
    told = naming if parsed.top or parsed.sure is None else (dataclasses.replace(one, answers=()) for one in naming)
    counts: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    missed, start = 0, time.monotonic()
    opened: contextlib.AbstractContextManager[output.Write] = (
        output.opened_parquet(out, heading) if is_parquet and out else output.opened(out, form, done)
    )
    quiet = out is None and sys.stdout.isatty()
    with console.Progress(len(photos), start=done, quiet=quiet, aside=True) as progress, opened as write:
        for lot in _lots(told, batch):
            if parsed.sort_into:
                missed += sum(not sort_photo(one, Path(parsed.sort_into), link=parsed.link) for one in lot)
            write(lot)
            for one in lot:
                counts[(one.answer.rank or NOT_SURE) if one.answer else ""] += 1
                errors[one.error] += bool(one.error)
            now = counts.total()
            rate = now / max(time.monotonic() - start, 1e-9)
            left = (len(photos) - done - now) / rate
            progress.show(
                done + now, f"{done + now:,} of {len(photos):,} photos, {rate:.0f} a second", seconds_left=left
            )
    _summary(counts, errors, done, missed, out)


def _lots(named: Iterator[Named], size: int) -> Iterator[list[Named]]:
    while lot := list(itertools.islice(named, size)):
        yield lot


def _summary(counts: Counter[str], errors: Counter[str], done: int, missed: int, out: Path | None) -> None:
    order = [SPECIES, *reversed(RANKS), NOT_SURE]
    kinds = sorted((rank for rank in counts if rank), key=lambda rank: order.index(rank) if rank in order else 0)
    ranks = ", ".join(f"{counts[rank]:,} {'to ' if rank != NOT_SURE else ''}{rank}" for rank in kinds)
    broken = [f"{count:,} {reason}" for reason, count in errors.most_common() if count]
    lines = [f"named {counts.total() - counts['']:,} photos" + (f": {ranks}" if ranks else "")]
    lines += [f"{done:,} were named before"] if done else []
    lines += [f"{counts['']:,} could not be read: {', '.join(broken)}"] if broken else []
    lines += [f"{missed:,} were gone before they could be sorted"] if missed else []
    lines += [f"written to {out}"] if out else []
    say("; ".join(lines), file=sys.stderr, flush=True)
    if not done and counts.total() == counts[""]:
        raise UserError(
            f"photos: found none of {counts.total():,} that can be read, expected at least one; see their rows for why"
        )


def _heading(
    parsed: argparse.Namespace, model: Model, chosen: Choices, photos: Sequence[str], sizes: tuple[int, int]
) -> Heading:
    decides = {
        "model": [model.engine.key, model.about.margin.get("margin")],
        "classes": [list(chosen.table.ids), chosen.table.rows(), parsed.classes, parsed.labels],
        "photos": list(photos),
        "options": [_kind(parsed), parsed.rank, parsed.sure, *sizes],
    }
    confidence = model.confidence
    others = choices.unfitted(chosen.table, choices.own_classes(model.about)) if confidence.factors else []
    note = "; ".join([confidence.note, *others])
    return Heading(model.title, model.engine.step, len(chosen), note, digest(decides)[:12])


def _kind(parsed: argparse.Namespace) -> str:
    """The format: as it is asked for, as the file is called, and a table on the terminal; empty if nobody says."""
    if parsed.format:
        return str(parsed.format)
    return formats.ENDINGS.get(Path(parsed.out).suffix.lower(), "") if parsed.out else "table"


def _check(parsed: argparse.Namespace, out: Path | None) -> None:
    """Refuses options that make no sense, before anything is read."""
    if parsed.labels is not None and not parsed.labels.strip(" ,"):
        raise UserError("--labels: found none, expected at least one to choose from; give some")
    if parsed.classes and parsed.labels:
        raise UserError("--labels: found it beside --classes, expected one of them; leave one out")
    if parsed.sort_into:
        refuse_foreign(Path(parsed.sort_into))
    if parsed.link and not parsed.sort_into:
        raise UserError("--link: found it without --sort-into, expected a folder to link in; give it")
    if out is not None:
        output.check(out, overwrite=parsed.overwrite)
        if not _kind(parsed):
            raise UserError(
                f"--out {out}: found ending {out.suffix or 'none'}, expected one of {', '.join(formats.ENDINGS)}; or "
                "say what it is to be with --format"
            )
    if _kind(parsed) == "parquet":
        formats.arrow()
        if out is None:
            raise UserError("--format parquet: found no --out, expected a file to write; give it")


def _within(given: Sequence[str]) -> Within:
    """``["order=Odonata,Diptera"]`` as columns and values."""
    wanted: dict[str, list[str]] = {}
    for text in given:
        column, equals, values = text.partition("=")
        if not equals or not column.strip() or not values.strip():
            raise UserError(f"--within: found {text!r}, expected COLUMN=VALUE, such as order=Odonata")
        wanted.setdefault(column.strip(), []).extend(value.strip() for value in values.split(",") if value.strip())
    return wanted


def _parser() -> Parser:
    parser = Parser(
        prog="python -m lit_jax.predict",
        description="Names photos with a trained model: a row a photo and answer, with all ranks and a confidence.",
        epilog="A photo that cannot be read is a row with the reason, and the others are answered. With --out the same "
        "command goes on where it was stopped.",
    )
    parser.add_argument(
        "photos", nargs="+", metavar="PHOTOS", help="files, folders, patterns, or - for a list on stdin"
    )
    parser.add_argument(
        "--checkpoint", required=True, help="folder of a run or of an exported model, or hf-hub:OWNER/NAME"
    )
    parser.add_argument("--step", default="best", help="of a run: best, latest or a number")
    among = parser.add_argument_group("what to choose from; all classes of the model without one of these")
    among.add_argument("--classes", default="", metavar="CSV", help="class table to choose from")
    among.add_argument("--labels", metavar="A,B", help="a few names instead, any words")
    among.add_argument(
        "--within", action="append", default=[], metavar="COLUMN=VALUE",
        help="only classes with this value, or one of several between commas, such as order=Odonata; may be repeated",
    )  # fmt: skip
    among.add_argument("--only", default="", metavar="LIST", help="only classes that a file names, such as a region's")
    answers = parser.add_argument_group("answers")
    answers.add_argument("--rank", default="species", help="species, genus, family ...")
    answers.add_argument(
        "--top", type=positive, default=0, help="answers a photo (default: 5, or with --sure that one alone)"
    )
    answers.add_argument(
        "--sure", type=float, metavar="SHARE",
        help="one answer a photo, the narrowest rank that is at least so likely (0.8), or none",
    )  # fmt: skip
    written = parser.add_argument_group("where to")
    written.add_argument("--format", default="", choices=FORMATS, help="(default: as --out ends, a table without it)")
    written.add_argument("--out", default="", help="file to write (default: standard output)")
    written.add_argument("--overwrite", action="store_true", help="also if the file is there")
    written.add_argument("--sort-into", default="", metavar="DIR", help="copy photos into folders by answer")
    written.add_argument("--link", action="store_true", help="with --sort-into: links instead of copies")
    parser.add_argument("--batch-size", type=int, default=BATCH, help="photos at a time")
    parser.add_argument("--image-weights", default="", help="where the locked image tower's weights are now")
    parser.add_argument("--text-weights", default="", help="likewise of a pre-trained text tower")
    return parser


if __name__ == "__main__":
    main()

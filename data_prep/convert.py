"""Photos and a class table to a record set: `python -m data_prep.convert` or `lit-jax-convert`.

The command ends with exit code 0, with `LOST` if all photos of a species had to be left out, with 2 for what a person
can mend, and with 143 if it is stopped as asked.
"""

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.conversion.arguments import add_shared_options, options_of
from data_prep.conversion.beam import BeamWriter
from data_prep.conversion.convert import convert, dry_run
from data_prep.conversion.options import DUPLICATES, Options
from data_prep.conversion.report import lost_species
from data_prep.conversion.workspace import (
    REPORT_TEXT,
)
from data_prep.sources.by_name import SOURCES
from data_prep.sources.items import Request
from lit_jax.base import stopping
from lit_jax.base.cluster import refuse_many_tasks
from lit_jax.base.command_line import Parser
from lit_jax.base.console import say
from lit_jax.errors import STOPPED, user_errors_in_one_line
from lit_jax.text.classes import some

LOST = 3
"""Exit code of a conversion that left out all photos of a species; the set is written all the same."""


def main(argv: Sequence[str] | None = None) -> None:
    """The command; see ``--help``."""
    parser = _parser()
    given = list(sys.argv[1:] if argv is None else argv)
    # Beam's own flags are known to Beam alone.
    arguments, flags = parser.parse_known_args(given) if "--beam" in given else (parser.parse_args(given), [])
    with user_errors_in_one_line(), _stopped_in_one_line():
        refuse_many_tasks()
        write = BeamWriter(flags) if arguments.beam else None
        options = options_of(arguments)
        source = SOURCES[arguments.source](_request(arguments, options))
        if arguments.dry_run:
            how = {"workers": arguments.workers, "restart": arguments.restart}
            lines = dry_run(source, arguments.out, options, **how)
            say("\n".join(lines))
            return
        if arguments.skip_md5:
            source = source._replace(archives={})
        convert(source, arguments.out, options, workers=arguments.workers, restart=arguments.restart, write=write)
        lost = lost_species(arguments.out)
    if lost:
        say(
            f"warning: all photos of {len(lost)} species were left out ({some(lost)}), see "
            f"{arguments.out / REPORT_TEXT}; the set is written without, exit code {LOST}",
            file=sys.stderr,
        )
        sys.exit(LOST)


@contextlib.contextmanager
def _stopped_in_one_line() -> Iterator[None]:
    """Ends the process on Ctrl-C, SIGTERM or SIGUSR1 with one line and the exit code of what has stopped as asked."""
    asked: list[int] = []

    def stop(number: int, _: object) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    try:
        with stopping.handled(stop):
            yield
    except KeyboardInterrupt:
        say("stopped; run the same command again to go on", file=sys.stderr)
        sys.exit(STOPPED if asked else 128 + signal.SIGINT)


def _request(arguments: argparse.Namespace, options: Options) -> Request:
    return Request(
        images=arguments.images,
        splits=arguments.splits,
        classes=arguments.classes,
        subsets=tuple(filter(None, map(str.strip, arguments.subsets.split(",")))),
        templates=options.templates,
        drop_repeats=options.drop_repeats,
        data_dir=arguments.tfds_dir,
        split_names=tuple(options.rename_splits),
        class_level=arguments.class_level,
    )


def _parser() -> Parser:
    default = Options()
    parser = Parser(
        prog="python -m data_prep.convert",
        description="Photos and a class table to TFRecords that lit_jax and TFDS read.",
        epilog=f"Exit code: 0; {LOST} if all photos of a species had to be left out; 2 for what can be mended.",
    )
    add = parser.add_argument
    add("--source", choices=sorted(SOURCES), default="folder", help="how the photos are laid out")
    add("--images", default="", metavar="DIR", help="folder of the photos; a data set's name for --source tfds")
    add("--splits", type=Path, metavar="CSV", help="list of photos: file, and if wanted class and split")
    add("--classes", type=Path, metavar="CSV", help="class table, CSV or JSON (default: made of the folders' names)")
    add("--class-level", type=int, default=0, metavar="N", help="level of the folders that are classes; 0: 1, if clear")
    add("--tfds-dir", default="", metavar="DIR", help="where TFDS built the data set (default: its own folder)")
    add(
        "--subsets",
        default="",
        metavar="A,B",
        help="parts of the source to take, by its own names",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="folder to make")
    add_shared_options(parser)
    add("--max-side", type=int, default=default.max_side, help="shrink longer sides to this; 0: never")
    add("--quality", type=int, default=default.quality, help="JPEG quality of what is encoded anew")
    add("--max-pixels", type=int, default=default.max_pixels, help="leave out photos of more pixels")
    add("--shard-mb", type=int, default=default.shard_mb, help="size of a shard, MiB")
    add("--shards", type=int, default=default.shards, help="shards of each split; 0: by size")
    add("--duplicates", choices=DUPLICATES, default=default.duplicates, help="byte-identical photos: drop all but one")
    add("--limit", type=int, default=default.limit, help="at most so many photos, drawn; 0: all")
    add("--workers", type=int, default=0, help="processes; 0: all cores")
    add(
        "--beam",
        action="store_true",
        help="write the shards with Beam, whose own flags may follow; the folders of "
        "--out and of the photos must be on storage that all its workers see",
    )
    add("--skip-md5", action="store_true", help="do not check released archives against their published MD5")
    add("--dry-run", action="store_true", help="tell what would be written and what is amiss; write nothing")
    add("--restart", action="store_true", help="replace an earlier conversion in the same folder")
    return parser


if __name__ == "__main__":
    main()

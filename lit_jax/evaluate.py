"""The checkpoint-to-evaluation command: ``python -m lit_jax.evaluate --checkpoint=runs/demo``.

It prints a table and writes a JSON and a page; what is measured is in `lit_jax.evaluation`.
"""

import pathlib
from collections.abc import Sequence

from lit_jax.base import cluster, hosts
from lit_jax.base.command_line import Parser
from lit_jax.base.console import say
from lit_jax.base.files import replaceable, replaceable_beside, write_json
from lit_jax.data.collection import Collection, fingerprint, store_folder
from lit_jax.data.dataset_folder import check_split
from lit_jax.data.embedding_store import open_store
from lit_jax.data.records import open_records
from lit_jax.embedding.trained import Trained, check_tower
from lit_jax.errors import UserError, user_errors_in_one_line
from lit_jax.evaluation import page, robustness
from lit_jax.evaluation.report import Words, evaluate, is_other
from lit_jax.evaluation.tables import table_of
from lit_jax.models.locking import IMAGE, TEXT
from lit_jax.text.candidates import read_candidates
from lit_jax.text.classes import ClassTable, read_class_table
from lit_jax.text.prompts import PROTOCOLS, read_templates
from lit_jax.trained.loading import folder_of, load


def main(argv: Sequence[str] | None = None) -> None:
    """The command: prints the table and writes the JSON."""
    parsed = _parser().parse_args(argv)
    with user_errors_in_one_line():
        cluster.refuse_many_tasks()
        hosts.keep_compiled()
        weight_files = {IMAGE: parsed.image_weights, TEXT: parsed.text_weights}
        with_tower = bool(parsed.records) if parsed.records or parsed.store else None
        trained = load(parsed.checkpoint, step=parsed.step, weight_files=weight_files, with_image_tower=with_tower)
        data = _data(trained, parsed.records, parsed.store)
        split = parsed.split or trained.config.data.seen_split or next(iter(data.splits))
        check_split(split, data.splits, data.directory, option="--split")
        given = (parsed.protocol, parsed.classes, parsed.templates)
        variant = "".join(f"-{pathlib.Path(path).stem}" for path in given if path)
        # Of another collection the name says so, lest the run's own evaluation be overwritten.
        other = f"{data.directory.name}-{fingerprint(data)[:8]}-" if is_other(trained.about, data) else ""
        out = _output(parsed.out, parsed.checkpoint, other + split + variant, with_page=not parsed.no_page)
        words = Words(
            _named_classes(parsed.classes, data) if parsed.classes else None,
            read_templates(parsed.templates) if parsed.templates else (),
            parsed.protocol,
        )
        result = evaluate(
            trained, data, split, words,
            batch_size=parsed.batch_size, devices=parsed.devices, keep_in=folder_of(parsed.checkpoint),
        )  # fmt: skip
        write_json(out, result)  # before anything is printed, which head and the like may cut short
        if not parsed.no_page:
            shown = {**result, "robustness": robustness.of_same_model(folder_of(parsed.checkpoint), result)}
            page.write(out.with_suffix(".html"), shown, name=folder_of(parsed.checkpoint).name)
        say(f"step {trained.step} ({parsed.step}) of {parsed.checkpoint}")
        say(table_of(result, all_classes=parsed.all))
        say(f"written to {out}" + ("" if parsed.no_page else f"\nas a page: {out.with_suffix('.html')}"))


def _data(trained: Trained, records: str, store: str) -> Collection:
    """What the command evaluates on: what it was told to, else what the run was trained on."""
    if IMAGE in trained.params:
        folder = records or trained.config.data.records
        if not records and not pathlib.Path(folder).is_dir():
            raise UserError(f"--records: found none, and no folder {folder!r} of the run; give --records, or --store")
        found: Collection = open_records(folder)
    else:
        own = store_folder(trained.config.data)
        if not store and not own.exists():
            raise UserError(f"--store: found none, and no folder {str(own)!r} of the run; give --store, or --records")
        found = open_store(store or own)
        check_tower(trained, found)
    if not (records or store) and fingerprint(found) != trained.about.fingerprint:
        raise UserError(
            f"records {found.directory}: found others than the run was trained on, expected those; give --records or "
            "--store if that is meant"
        )
    return found


def _named_classes(path: str, data: Collection) -> ClassTable:
    """The classes of a file under the ids of the data set, as `read_candidates` finds them; prints what is odd."""
    table, notes = read_candidates(path, read_class_table(data.class_table))
    for note in notes:
        say(f"--classes {note}", flush=True)
    return table


def _output(out: str, directory: str, name: str, *, with_page: bool) -> pathlib.Path:
    """Where the JSON goes; refused before the evaluation if nothing can be written there."""
    path = pathlib.Path(out) if out else folder_of(directory) / f"evaluation-{name}.json"
    replaceable(path, "--out", ("split", "classes"))
    if with_page:
        replaceable_beside(path, ".html", "--out")
    return path


def _parser() -> Parser:
    parser = Parser(prog="python -m lit_jax.evaluate", description="Names photos among classes given only in words.")
    parser.add_argument("--checkpoint", required=True, help="folder of a run, or of an exported model")
    parser.add_argument("--step", default="best", help="best (by top-1 on the seen split), latest or a step")
    parser.add_argument("--split", default="", help="split of the record set (default: the run's seen split)")
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--records", default="", help="another record set than the run's; its photos pass the tower")
    data.add_argument("--store", default="", help="an embedding store instead; no tower is needed")
    parser.add_argument(
        "--classes", default="", help="CSV of classes to choose from: names, common names, folders or ids"
    )
    parser.add_argument("--templates", default="", help="file of prompt templates, one a line")
    parser.add_argument(
        "--protocol",
        default="",
        choices=PROTOCOLS,
        help="how classes are named in prompts (default: as the run's config says)",
    )
    parser.add_argument("--image-weights", default="", help="where the locked image tower's weights are now")
    parser.add_argument("--text-weights", default="", help="likewise of a pre-trained text tower")
    parser.add_argument("--batch-size", type=int, default=256, help="photos and prompts at a time")
    parser.add_argument("--devices", type=int, default=0, help="devices to use; 0: all")
    parser.add_argument("--all", action="store_true", help="print every class, not only the hardest")
    parser.add_argument("--no-page", action="store_true", help="no HTML beside the JSON")
    parser.add_argument(
        "--out",
        default="",
        help="JSON to write (default: evaluation-SPLIT.json in the run's folder)",
    )
    return parser


if __name__ == "__main__":
    main()

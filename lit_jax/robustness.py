"""How a model stands corrupted photos: ``python -m lit_jax.robustness --checkpoint=runs/demo``."""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from lit_jax import config as options
from lit_jax.base import foreign, hosts, plots
from lit_jax.base.command_line import Parser, positive
from lit_jax.base.console import say
from lit_jax.base.files import file_digest, replaceable, replaceable_beside, write_json
from lit_jax.data.collection import fingerprint
from lit_jax.data.dataset_folder import check_split
from lit_jax.data.records import RecordSet, open_records
from lit_jax.embedding.photo_embeddings import ASIDE
from lit_jax.embedding.trained import Trained
from lit_jax.errors import DAMAGED, UserError, user_errors_in_one_line
from lit_jax.evaluation import report, robustness, robustness_tables
from lit_jax.evaluation.corruptions import KINDS, SEVERITIES
from lit_jax.evaluation.robustness import Conditions
from lit_jax.evaluation.zeroshot import Task
from lit_jax.models.locking import IMAGE, TEXT
from lit_jax.text.classes import read_class_table
from lit_jax.trained.loading import folder_of, load_whole, without_image_tower
from lit_jax.training.experiment import training_tasks


def main(argv: Sequence[str] | None = None) -> None:
    """The command: prints the tables, writes the JSON and the picture."""
    parsed = _parser().parse_args(argv)
    with user_errors_in_one_line():
        hosts.keep_compiled()
        weight_files = {IMAGE: parsed.image_weights, TEXT: parsed.text_weights}
        trained = load_whole(parsed.checkpoint, step=parsed.step, weight_files=weight_files)
        if IMAGE not in trained.params:
            raise without_image_tower(f"--checkpoint {parsed.checkpoint}")
        folder = parsed.records or trained.config.data.records
        if not folder:
            raise UserError("--records: found none, and none in the run's config, expected photos; give --records")
        records = open_records(folder)
        baseline = _read_baseline(parsed.baseline) if parsed.baseline else None
        out = _output(parsed, trained, records)
        side = trained.config.image.size
        conditions = Conditions(
            parsed.kinds, parsed.severities, parsed.seed, parsed.photos, _frosts(parsed.frost, side)
        )
        tasks = tasks_of(trained, records, parsed.split)
        found = robustness.measure(
            trained, records, tasks, conditions, batch_size=parsed.batch_size, devices=parsed.devices
        )
        result: dict[str, Any] = {**_facts(trained, records, parsed), **found}
        if baseline is not None:
            result["normalised"] = robustness.normalised(result, baseline, f"--baseline {parsed.baseline}")
            result["baseline"] = baseline.get("model", pathlib.Path(parsed.baseline).stem)
        write_json(out, result)
        picture = out.with_suffix(".png")
        is_drawn = False
        with plots.one_less(str(picture)):
            robustness_tables.draw(picture, result, title=result["model"])
            is_drawn = True
        say(f"step {trained.step} ({parsed.step}) of {parsed.checkpoint}")
        say(robustness_tables.table_of(result))
        say(f"written to {out}" + (f"\nas a picture: {picture}" if is_drawn else ""))


def tasks_of(trained: Trained, records: RecordSet, split: str = "") -> list[Task]:
    """The tasks of the run's evaluation in its own photos; elsewhere each split, or the one that is told, is a task.

    Raises:
        UserError: no such split.
    """
    table = read_class_table(records.class_table)
    is_own = fingerprint(records) == trained.about.fingerprint
    if is_own and not split:
        tasks = training_tasks(trained.config.data, records, table.species_of)
        return [task for task in tasks if task.split != ASIDE]
    if split:
        check_split(split, records.splits, records.directory, option="--split")
    found = []
    for name in [split] if split else records.splits:
        species = report.candidates(trained.about, records, records.classes_in(name))
        found.append(Task(name, name, tuple(sorted({table.species_of[class_id] for class_id in species}))))
    return found


def _facts(trained: Trained, records: RecordSet, parsed: argparse.Namespace) -> dict[str, Any]:
    return {
        "model": folder_of(parsed.checkpoint).name,
        "step": trained.step,
        "config": options.digest(trained.about.config),
        "tower": trained.config.image.tower,
        "locked": trained.about.locked,
        "records": fingerprint(records),
        "data": records.directory.name,
        "photos": parsed.photos,
        "frost_files": [file_digest(path) for path in _frost_files(parsed.frost)],
    }


def _output(parsed: argparse.Namespace, trained: Trained, records: RecordSet) -> pathlib.Path:
    """Where the JSON goes; refused before any work if nothing can be written there."""
    other = f"-{records.directory.name}-{fingerprint(records)[:8]}" if report.is_other(trained.about, records) else ""
    name = "robustness" + other + (f"-{parsed.split}" if parsed.split else "")
    path = pathlib.Path(parsed.out) if parsed.out else folder_of(parsed.checkpoint) / f"{name}.json"
    replaceable(path, "--out", ("model", "tasks"))
    replaceable_beside(path, ".png", "--out")
    return path


def _read_baseline(path: str) -> dict[str, Any]:
    try:
        found = foreign.loaded(pathlib.Path(path))
        if isinstance(found, dict) and isinstance(found["tasks"], dict):
            return found
    except (OSError, *DAMAGED):
        pass
    raise UserError(f"--baseline {path}: found no result of this command, expected the JSON that it wrote")


def _frost_files(folder: str) -> list[pathlib.Path]:
    return sorted(path for path in pathlib.Path(folder).iterdir() if path.is_file()) if folder else []


def _frosts(folder: str, side: int) -> list[np.ndarray]:
    """The photos of frost in a folder, each large enough for the tower's side."""
    if folder and not pathlib.Path(folder).is_dir():
        raise UserError(f"--frost: found no folder {folder}, expected one with photos of frost; check the path")
    found = []
    for path in _frost_files(folder):
        try:
            with Image.open(path) as photo:
                found.append(np.asarray(photo.convert("RGB")))
        except Exception:  # decoders raise nearly anything on broken data
            raise UserError(f"--frost {path}: found no photo, expected photos alone; take the file away") from None
        if min(found[-1].shape[:2]) < side:
            height, width = found[-1].shape[:2]
            raise UserError(
                f"--frost {path}: found {width} x {height} pixels, expected at least {side} each way; take a larger one"
            )
    if folder and not found:
        raise UserError(f"--frost: found no photo in {folder}, expected photos of frost; check the path")
    return found


def _kinds(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    unknown = [name for name in names if name not in KINDS]
    if unknown or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"found {text}, expected different ones of {', '.join(KINDS)}")
    return names


def _severities(text: str) -> tuple[int, ...]:
    values = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if not set(values) <= set(SEVERITIES) or len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(f"found {text}, expected different ones of 1,2,3,4,5")
    return tuple(values)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m lit_jax.robustness",
        description="Names photos corrupted as in ImageNet-C: fifteen kinds of noise, blur, weather and digital "
        "faults, at five severities.",
    )
    add = parser.add_argument
    add("--checkpoint", required=True, help="folder of a run, or of an exported model")
    add("--step", default="best", help="best (by top-1 on the seen split), latest or a step")
    add("--records", default="", help="another record set than the run's")
    add("--split", default="", help="one split alone (default: the tasks of the run's evaluation)")
    add("--kinds", type=_kinds, default=tuple(KINDS), metavar="A,B", help="of corruption (default: all fifteen)")
    add("--severities", type=_severities, default=SEVERITIES, metavar="1,3,5", help="(default: all five)")
    add("--photos", type=positive, default=0, help="of each split, drawn by the seed (default: all)")
    add("--seed", type=int, default=0, help="decides the photos and all that is drawn for them")
    add(
        "--baseline", default="", metavar="JSON", help="result of another model, to normalise the mean corruption error"
    )
    add("--frost", default="", metavar="FOLDER", help="photos of frost to lay over (default: drawn)")
    add("--image-weights", default="", help="where the locked image tower's weights are now")
    add("--text-weights", default="", help="likewise of a pre-trained text tower")
    add("--batch-size", type=positive, default=64, help="photos at a time")
    add("--devices", type=int, default=0, help="devices to use; 0: all")
    add("--out", default="", help="JSON to write, a picture beside it (default: robustness.json in the run's folder)")
    return parser


if __name__ == "__main__":
    main()

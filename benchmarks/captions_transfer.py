r"""Captions chosen by what carries over, on CUB-100 with five times twenty species held out.

    python -m benchmarks.captions_transfer --embeddings CUB/inat_mobilenetv2.npz --ids CUB/splits.csv \
        --classes CUB/classes.csv --more data/demo_store

For each of the draws 0 to 4: the template that ``data_prep.captions --select transfer`` chooses on the training split,
beside the default template and that of ``--select distinct`` within 16 words. Each is read by the units, with the
penalty and the margin, that do best on training species held out in turn; then the closed form of all training photos,
as they are, names the species really held out, among themselves (ZSL) and among all hundred (S, U, H). Nothing is
chosen on these photos. ``--more`` does the same with any other store that has the splits train, validation and heldout.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.cub_holdouts import DRAWS, HELDOUT, imported
from benchmarks.cub_unseen import rows_of, spread_of
from data_prep.conversion import transfer
from data_prep.conversion.columns import candidates, select_columns
from data_prep.conversion.transfer import READINGS, Task
from lit_jax.data.embedding_store import Rows, Store, open_store
from lit_jax.errors import user_errors_in_one_line
from lit_jax.evaluation import closed_form, gzsl
from lit_jax.evaluation.closed_form import Photos
from lit_jax.evaluation.yardstick import sets_of
from lit_jax.text.captions import TEMPLATE, class_captions
from lit_jax.text.classes import ClassTable, read_class_table

SPLITS = ("train", "validation", "heldout")
FIGURES = ("top1", "seen", "unseen", "harmonic")


def judged(store: Store, table: ClassTable, task: Task, template: str) -> dict[str, Any]:
    """A template: how it is read, chosen inside the training split, and what it gives on the other two."""
    inside = class_captions(task.table, [template])
    whole = {"caption": tuple(text for (text,) in inside)}
    task = dataclasses.replace(task, table=ClassTable(task.table.ids, whole), _judged={})
    best = max((task.judge(("caption",), reading) for reading in READINGS), key=lambda one: one.top1)
    margin, harmonic = task.margin(best)
    texts = [text for (text,) in class_captions(table, [template])]
    words = closed_form.joined(*(sets_of(texts, kind) for kind in best.reading))
    features, labels = [], []
    for split in SPLITS:
        rows = Rows(store, split)
        features.append(rows.take(np.arange(len(rows))))
        labels.append(np.array([table.index_of(class_id) for class_id in rows.class_ids]))
    solved = closed_form.solve(Photos(features[0], labels[0]), words, shrinkage=1.0, penalty=best.penalty)
    scores = solved.images(np.concatenate(features[1:])) @ solved.classes(words).T
    seen = np.isin(np.arange(len(table)), labels[0])
    rivals = closed_form.rivals_of(scores, np.concatenate(labels[1:]), np.arange(len(table)), seen)
    found = gzsl.summary(rivals, margin)
    return {
        "template": template, "units": ",".join(best.reading), "penalty": best.penalty, "inner": best.top1,
        "inner_harmonic": harmonic, "top1": float(np.mean(rivals.unseen_right[~rivals.of_seen])),
        **{name: found[name] for name in ("seen", "unseen", "harmonic", "ausuc", "margin")},
    }  # fmt: skip


def of_draw(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    """The figures of each template on one draw."""
    store = open_store(folder)
    table = read_class_table(store.class_table)
    with machine.Clock() as clock:
        task = transfer.task_of(store, table, "train")
        chosen = transfer.choose(task, candidates(table, None))
    templates = {
        "default": TEMPLATE,
        "--select distinct": select_columns(table, budget=16).template,
        "--select transfer": chosen.template,
    }
    rows = {name: judged(store, table, task, template) for name, template in templates.items()}
    rows["--select transfer"] |= {"cpu_s": clock.cpu, "wall_s": clock.wall}
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """The command: five draws, the table, the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.captions_transfer", description=(__doc__ or "").split("\n")[0]
    )
    for name in ("embeddings", "ids", "classes"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--workdir", default="runs/captions_transfer")
    parser.add_argument("--more", default="", help="another store")
    parser.add_argument("--out", default="")
    parsed = parser.parse_args(argv)
    workdir = pathlib.Path(parsed.workdir)
    with user_errors_in_one_line():
        folders = [
            imported(parsed, workdir / f"store_{seed}", f"--heldout={HELDOUT}", f"--seed={seed}")
            for seed in range(DRAWS)
        ]
        draws = [of_draw(folder) for folder in folders]
        more = {parsed.more: of_draw(pathlib.Path(parsed.more))} if parsed.more else {}
    spread = {
        name: {figure: spread_of([draw[name][figure] for draw in draws]) for figure in FIGURES} for name in draws[0]
    }
    rows = rows_of(spread, ("seen", "unseen"))
    print(machine.table(["template", "ZSL of 20", "each draw", "S", "U", "H"], rows))
    for name, draw in {**{f"draw {seed}": draw for seed, draw in enumerate(draws)}, **more}.items():
        print(name)
        for row in draw.values():
            print(f"  {100 * row['top1']:.1f} %, H {row['harmonic']:.3f}: {row['template']!r} by {row['units']}")
    machine.write("captions_transfer", {"heldout": HELDOUT, "spread": spread, "draws": draws, "more": more}, parsed.out)


if __name__ == "__main__":
    main()

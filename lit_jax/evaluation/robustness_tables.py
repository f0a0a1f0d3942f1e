"""Accuracy on corrupted photos as a table for a terminal, and as a picture."""

import os
from collections.abc import Mapping
from typing import Any

from lit_jax.base import console, plots
from lit_jax.base.files import written_aside
from lit_jax.evaluation import tables
from lit_jax.evaluation.corruptions import KINDS

FEW = 100
"""Fewer photos of a task are warned of."""

_COLOURS = {"noise": "#7a3b2e", "blur": "#2b6f8f", "weather": "#6b8e23", "digital": "#c8763c"}


def table_of(result: Mapping[str, Any]) -> str:
    """Top-1 by kind and severity for each task, and its mean corruption error."""
    return "\n\n".join(_of_task(name, task, result) for name, task in result["tasks"].items())


def _of_task(name: str, task: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    severities = [str(severity) for severity in result["severities"]]
    rows = [["clean", "", *[""] * len(severities), _percent(task["clean"]["top1"]), "100 %"]]
    for kind in result["kinds"]:
        each = [_percent(task["corrupted"][kind][severity]["top1"]) for severity in severities]
        mean = task["by_kind"][kind]
        rows.append(
            [kind.replace("_", " "), KINDS[kind].group, *each, _percent(mean["top1"]), _share(mean["of_clean"])]
        )
    mean = 1 - task["mean_error"]
    of_clean = mean / task["clean"]["top1"] if task["clean"]["top1"] else None
    rows.append(["mean over kinds", "", *[""] * len(severities), _percent(mean), _share(of_clean)])
    columns = [name.replace("_", " "), "group", *(f"severity {one}" for one in severities), "mean top-1", "of clean"]
    lines = [console.text_table(columns, rows, left=(0, 1)), f"  {_in_words(task)}"]
    if 0 < task["images"] < FEW:
        lines.append(
            f"  warning: {task['images']} photos are few, each moves a figure by {100 / task['images']:.1f} points; "
            "measure more with --photos before you believe it"
        )
    if "normalised" in result:
        lines.append(f"  {_by_baseline(result['normalised'][name], result['baseline'])}")
    return "\n".join(lines)


def _in_words(task: Mapping[str, Any]) -> str:
    held = f", seen species held back by {task['margin']:.3g}" if task.get("margin") else ""
    return (
        f"{task['images']:,} photos among {task['candidates']:,} (chance {_percent(task['chance'])}{held}), 95 % range "
        f"of the accuracy on clean ones {tables.ends(task['clean'], 'top1')} %; mean "
        f"corruption error, not normalised: {_percent(task['mean_error'])}, "
        f"{100 * task['mean_more_error']:.1f} points more than on clean photos"
    )


def _by_baseline(found: Mapping[str, Any], baseline: str) -> str:
    values = [
        f"{100 * value:.1f}" if value is not None else "unknown" for value in (found["mce"], found["relative_mce"])
    ]
    return f"mCE {values[0]}, relative mCE {values[1]}, of 100 for {baseline}"


@plots.plain_text()
def draw(path: str | os.PathLike[str], result: Mapping[str, Any], *, title: str) -> None:
    """Draws top-1 by kind for each task, a mark a severity, beside a line at that of clean photos; PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    tasks, kinds = result["tasks"], result["kinds"]
    figure, axes = plt.subplots(
        1, len(tasks), figsize=(1.8 + 4.2 * len(tasks), 1.4 + 0.26 * len(kinds)), sharey=True, squeeze=False,
        constrained_layout=True,
    )  # fmt: skip
    for axis, (name, task) in zip(axes[0], tasks.items(), strict=True):
        for row, kind in enumerate(kinds):
            values = [100 * found["top1"] for found in task["corrupted"][kind].values()]
            colour = _COLOURS[KINDS[kind].group]
            axis.plot([min(values), max(values)], [row, row], color=colour, lw=1.2, alpha=0.6)
            for severity, value in zip(result["severities"], values, strict=True):
                axis.plot(value, row, "o", color=colour, ms=3 + 1.1 * severity, alpha=0.85, clip_on=False, zorder=3)
        axis.axvline(100 * task["clean"]["top1"], color="#1d2a33", lw=1, clip_on=False)
        axis.axvline(100 * task["chance"], color="#9aa7ac", lw=1, ls=":")
        axis.set(title=name.replace("_", " "), xlabel="top-1, %", xlim=(0, 100))
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].set_yticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds])
    axes[0][0].invert_yaxis()
    figure.suptitle(f"{title}: larger marks are higher severities; line: clean photos; dots: chance", fontsize=9)
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=110, format="png")
    plt.close(figure)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"

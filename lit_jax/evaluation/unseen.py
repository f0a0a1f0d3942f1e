"""Seen and unseen species in the evaluation of a trained model: both asked together."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh

from lit_jax.data.collection import Collection, fingerprint
from lit_jax.embedding.about import About
from lit_jax.evaluation import calibration, gzsl, ranking, ranks
from lit_jax.evaluation.known_species import Species, among_trained
from lit_jax.text.classes import ClassTable


def species_in_training(about: About, data: Collection, table: ClassTable) -> Species:
    """Decides by the identity of species, not by rows: by ids in the run's own data, by binomials in any other."""
    return among_trained(about, table, own=fingerprint(data) == about.fingerprint)


@dataclasses.dataclass(frozen=True)
class Asked:
    """Photos of seen and unseen species and the classes that they are named among.

    Attributes:
        photos: `[N, D]` unit vectors.
        labels: `[N]` numbers of the right classes.
        classes: `[K, D]` unit vectors.
        table: of the K classes.
        seen: `[K]` bool.
    """

    photos: np.ndarray
    labels: np.ndarray
    classes: np.ndarray
    table: ClassTable
    seen: np.ndarray


def together(asked: Asked, fitted: Mapping[str, Any], factor: float, mesh: Mesh) -> dict[str, Any]:
    """Photos of both kinds, named among all species.

    Args:
        asked: the photos and classes.
        fitted: the model's margin, see `lit_jax.training.margin.fit`; empty for none.
        factor: of the similarities, as trained.
        mesh: devices.

    Returns:
        As `lit_jax.evaluation.gzsl.summary`, with ``chance``; ``by_rank``: top-1 of either kind at each rank;
        ``per_class``: ``id``, ``images`` and ``top1`` of each unseen species; ``calibration`` of answers that are seen
        and that are unseen species, where factors were fitted; and ``inside``, what the margin reached inside the
        training split.
    """
    margin = fitted.get("margin")
    rivals = ranking.all_rivals(asked.photos, asked.labels, asked.classes, asked.seen, mesh)
    less = (margin or 0.0) * asked.seen
    found = ranking.predict(asked.photos, asked.labels, asked.classes, mesh, less=less)
    by_rank = {}
    for rank in (ranks.SPECIES, *ranks.SHOWN):
        groups = ranks.grouped(asked.table, rank)
        if groups is not None and len(groups.names) > 1:
            by_rank[rank] = {
                name: ranks.accuracy(found.labels[kind], found.best[kind], groups)["top1"]
                for name, kind in (("seen", rivals.of_seen), ("unseen", ~rivals.of_seen))
            }
    inside = {name: fitted[name] for name in ("seen", "unseen", "harmonic", "ausuc", "folds") if name in fitted}
    return {
        **gzsl.summary(rivals, margin),
        "chance": 1 / len(asked.table),
        "by_rank": by_rank,
        "per_class": _of_unseen(found, asked),
        "calibration": _calibration(asked, rivals.gap > (margin or 0), less, fitted, factor, mesh),
        "inside": inside,
    }


def _of_unseen(found: ranking.Predictions, asked: Asked) -> list[dict[str, Any]]:
    hits = found.hits()
    return [
        {"id": asked.table.ids[row], "images": int(hits.images[row]), "top1": top1}
        for row, (top1, _) in enumerate(hits.per_class().tolist())
        if hits.images[row] and not asked.seen[row]
    ]


def _calibration(
    asked: Asked, named_seen: np.ndarray, less: np.ndarray, fitted: Mapping[str, Any], factor: float, mesh: Mesh
) -> dict[str, Any]:
    """Of answers of each kind, before and after the temperature that was fitted for them inside the training split."""

    def at(rows: np.ndarray) -> Callable[[float], ranking.Likelihoods]:
        return lambda value: ranking.likelihoods(
            asked.photos[rows], asked.labels[rows], asked.classes, mesh, factor=value, less=less
        )

    found: dict[str, Any] = {}
    for kind, own in fitted.get("factors", {}).items():
        rows = np.flatnonzero(named_seen == (kind == "seen"))
        if len(rows):
            best = ranking.predict(asked.photos[rows], asked.labels[rows], asked.classes, mesh, k=1, less=less)
            before, after = (
                calibration.reliability(values.confidence, best.rank == 0) for values in map(at(rows), (factor, own))
            )
            found[kind] = {
                "answers": len(rows), "temperature": factor / own, "before": before, "after": after,
                "helps": after["ece"] <= before["ece"] and not calibration.why_unusable(factor / own),
            }  # fmt: skip
    return found

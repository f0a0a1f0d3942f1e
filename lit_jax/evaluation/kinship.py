"""How near the relatives of a held-out species are that training has seen: a congener, one of its family, or none."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from lit_jax.errors import UserError
from lit_jax.evaluation.intervals import of_mean, wilson
from lit_jax.text.classes import ClassTable, species_key
from lit_jax.text.identity import binomial

KIN = ("genus", "family", "order")
NONE, UNKNOWN = "none", "unknown"
GROUPS = (*KIN, NONE, UNKNOWN)
"""The narrowest rank that a held-out species shares with one of training; unknown: none, and its ranks have gaps."""


def kinship(table: ClassTable, seen_ids: Collection[int], unseen_ids: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Held-out species by the narrowest rank that one of training shares with them.

    A genus that the table leaves empty is the first word of the binomial. Groups of one name in two kingdoms are two.

    Args:
        table: of all of them; columns genus, family, order and kingdom are used as far as they are there.
        seen_ids: of training.
        unseen_ids: held out.

    Returns:
        Ids by group, in the order of `unseen_ids`; each of `GROUPS` is there. A species without a relative is
        ``unknown`` instead of ``none`` where the table does not say its family or order.

    Raises:
        UserError: an id that the table has not.
    """
    kingdoms: dict[tuple[str, str], set[str]] = {}
    for class_id in seen_ids:
        row = _ranks(table, class_id)
        for rank in KIN:
            kingdoms.setdefault((rank, row[rank]), set()).add(row["kingdom"])
    found: dict[str, list[int]] = {group: [] for group in GROUPS}
    for class_id in unseen_ids:
        row = _ranks(table, class_id)
        shared = (rank for rank in KIN if row[rank] and _may_be_one(row["kingdom"], kingdoms.get((rank, row[rank]))))
        found[next(shared, NONE if row["family"] and row["order"] else UNKNOWN)].append(class_id)
    return {group: tuple(ids) for group, ids in found.items()}


def _ranks(table: ClassTable, class_id: int) -> dict[str, str]:
    row = table.row(table.index_of(class_id))
    ranks = {rank: species_key(row.get(rank, "")) for rank in ("kingdom", *KIN)}
    return {**ranks, "genus": ranks["genus"] or binomial(row.get("name", "")).partition(" ")[0]}


def _may_be_one(kingdom: str, others: Collection[str] | None) -> bool:
    return others is not None and (not kingdom or "" in others or kingdom in others)


def accuracy_by_kinship(
    groups: Mapping[str, Sequence[int]], per_class: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Accuracy on the photos of each group of `kinship`.

    Args:
        groups: ids by group.
        per_class: rows of an evaluation (`lit_jax.evaluation.report`): ``id``, ``images`` and ``top1`` of a species.

    Returns:
        Of each group with species: ``group``, ``species``; and if any of them has photos ``judged`` (species with
        photos), ``images``, ``top1`` and ``macro_top1``, each with its ``_interval``.

    Raises:
        UserError: none of the rows is of these species.
    """
    row_of = {row["id"]: row for row in per_class}
    if per_class and not any(class_id in row_of for ids in groups.values() for class_id in ids):
        raise UserError(
            "--results: found an evaluation of other species, expected one of those held out; evaluate that split"
        )
    rows = []
    for group, ids in groups.items():
        rated = [row_of[class_id] for class_id in ids if class_id in row_of]
        if ids:
            rows.append({"group": group, "species": len(ids), **(_rates(rated) if rated else {})})
    return rows


def _rates(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    images, each = np.array([row["images"] for row in rows]), np.array([row["top1"] for row in rows])
    top1, total = float((images * each).sum() / images.sum()), int(images.sum())
    return {
        "judged": len(rows), "images": total, "top1": top1, "top1_interval": wilson(top1, total),
        "macro_top1": float(each.mean()), "macro_top1_interval": of_mean(each),
    }  # fmt: skip

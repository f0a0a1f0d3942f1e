"""From scores of classes to answers: probabilities, sums over ranks, and the climb where a model is not sure.

All in NumPy over `[B, K]` scores of a batch; `Model.name` makes them.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from lit_jax.base.named_files import spelt_out
from lit_jax.evaluation.ranks import SPECIES, Groups, grouped
from lit_jax.text.classes import RANKS, ClassTable

NOT_SURE = "not sure"
SEEN, UNSEEN = "seen", "unseen"  # the two kinds of answers, by the names of `About.margin`


@dataclasses.dataclass(frozen=True)
class Answer:
    """One answer for a photo.

    Attributes:
        rank: ``species``, ``genus`` and so on; empty where the model is not sure at any rank.
        name: of the species or the group.
        common_name: of a species; may be empty.
        ranks: the ranks above by name, widest first, as far as they are known.
        confidence: probability of the species, or of all species of the group together.
        in_training: whether the species, or any of the group, had photos in training.
    """

    rank: str
    name: str
    common_name: str
    ranks: Mapping[str, str]
    confidence: float
    in_training: bool

    def __str__(self) -> str:
        both = f"{self.name} ({self.common_name})" if self.common_name else self.name
        above = f", {self.rank}" if self.rank not in ("", SPECIES) else ""
        return f"{both}{above}: {percent(self.confidence)}"


@dataclasses.dataclass(frozen=True)
class Named:
    """A photo and its answers.

    Attributes:
        photo: its path, or "photo 3" of an array.
        answers: the most likely ones, the first first; none if the photo cannot be read.
        sure: where it was asked for: the narrowest answer that is likely enough, its rank empty if none is.
        error: why the photo cannot be read, in a few words.
    """

    photo: str
    answers: tuple[Answer, ...] = ()
    sure: Answer | None = None
    error: str = ""

    @property
    def photo_text(self) -> str:
        """The photo's name as it can be written, whatever bytes are in its path."""
        return spelt_out(self.photo)

    @property
    def answer(self) -> Answer | None:
        """The one to write down: the sure one where it was asked for, else the first; None of a broken photo."""
        return self.sure or next(iter(self.answers), None)

    def __str__(self) -> str:
        return f"{self.photo_text}: {self.answer or self.error}"


@dataclasses.dataclass(frozen=True)
class Confidence:
    """How scores become probabilities.

    Attributes:
        trained: factor of the scores as trained.
        factors: those at which the model is as sure as it is right, where its answer is a ``seen`` and where it is an
            ``unseen`` species, as far as they were fitted.
        note: what they were fitted on, for people.
    """

    trained: float
    factors: Mapping[str, float]
    note: str

    def probabilities(self, scores: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Softmax over the classes, at the factor of the kind of species that comes first.

        Args:
            scores: `[B, K]`, less the margin.
            seen: `[K]` bool.

        Returns:
            `[B, K]` float64.
        """
        by_kind = [self.factors.get(kind, self.trained) for kind in (UNSEEN, SEEN)]
        factor = np.array(by_kind)[seen[scores.argmax(1)].astype(int)]
        weights = np.exp(factor[:, None] * (scores - scores.max(1, keepdims=True)).astype(np.float64))
        return weights / weights.sum(1, keepdims=True)


class Similarities:
    """Scores of classes for photos: products of their embeddings, less the margin.

    Classes with equal embeddings have equal scores, whatever a product of matrices does at its edges.

    Args:
        classes: `[K, D]` float32 unit vectors.
        less: `[K]` float32, what is taken from the scores of each class; None for nothing.
    """

    def __init__(self, classes: np.ndarray, less: np.ndarray | None) -> None:
        distinct, self._column = np.unique(classes, axis=0, return_inverse=True)
        self._distinct, self._less = np.ascontiguousarray(distinct.T), less

    def __call__(self, photos: np.ndarray) -> np.ndarray:
        """`[B, D]` float32 unit vectors to `[B, K]` float32."""
        scores: np.ndarray = (photos @ self._distinct)[:, self._column.reshape(-1)]
        return scores if self._less is None else scores - self._less.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Ladder:
    """The classes and the ranks above them.

    Attributes:
        table: K species.
        seen: `[K]` bool, which had photos in training.
        rungs: rank to the groups of the species, narrowest first; a rank that the table does not have is left out.
    """

    table: ClassTable
    seen: np.ndarray
    rungs: Mapping[str, Groups]

    def answer(self, rank: str, group: int, confidence: float) -> Answer:
        """The answer that a group of a rank is."""
        groups = self.rungs[rank]
        members = np.flatnonzero(groups.of_class == group)
        row = self.table.row(int(members[0]))
        above = [name for name in RANKS if row.get(name) and (rank == SPECIES or RANKS.index(name) < RANKS.index(rank))]
        return Answer(
            rank, groups.names[group], _common_name(row, groups.names[group]) if rank == SPECIES else "",
            {name: row[name] for name in above}, min(float(confidence), 1.0), bool(self.seen[members].any()),
        )  # fmt: skip

    def top(self, probabilities: np.ndarray, rank: str, k: int) -> list[tuple[Answer, ...]]:
        """The `k` most likely groups of a rank for each photo; of equal ones that which comes first in the table."""
        sums = summed(probabilities, self.rungs[rank])
        best = np.argsort(-sums, axis=1, kind="stable")[:, :k]
        return [
            tuple(self.answer(rank, group, sums[photo, group]) for group in groups)
            for photo, groups in enumerate(best.tolist())
        ]

    def climb(self, probabilities: np.ndarray, rank: str, sure: float) -> list[Answer]:
        """For each photo the narrowest group, from a rank on upwards, whose probability reaches `sure`.

        Where none does, the answer has no rank, and the confidence of the widest group.
        """
        names = list(self.rungs)
        asked = names[names.index(rank) :]
        sums = [summed(probabilities, self.rungs[name]) for name in asked]
        best, value = (np.stack([pick(one, axis=1) for one in sums]) for pick in (np.argmax, np.max))
        reached = value >= sure
        found = []
        for photo, step in enumerate(reached.argmax(0).tolist()):
            if reached[step, photo]:
                found.append(self.answer(asked[step], int(best[step, photo]), value[step, photo]))
            else:
                found.append(Answer("", NOT_SURE, "", {}, min(float(value[-1, photo]), 1.0), False))
        return found


def ladder(table: ClassTable, seen: np.ndarray) -> Ladder:
    """The ranks that a table of species has, narrowest first."""
    found = {rank: grouped(table, rank) for rank in (SPECIES, *reversed(RANKS))}
    return Ladder(table, seen, {rank: groups for rank, groups in found.items() if groups is not None})


def summed(probabilities: np.ndarray, groups: Groups) -> np.ndarray:
    """`[B, K]` probabilities of classes to `[B, G]` of their groups; classes without a group are left out."""
    known = groups.of_class >= 0
    sums = np.zeros((len(groups.names), len(probabilities)))
    np.add.at(sums, groups.of_class[known], probabilities.T[known])
    return sums.T


def percent(share: float) -> str:
    """A probability for people, rounded down, lest 79.9 % looks like the 80 % that were asked for.

    Example:
        >>> percent(0.799), percent(0.29), percent(0.004)
        ('79 %', '29 %', '<1 %')
    """
    whole = math.floor(100 * share + 1e-9)  # 100 * 0.29 is 28.999999999999996
    return f"{whole} %" if whole else "<1 %"


def _common_name(row: Mapping[str, str], name: str) -> str:
    common = row.get("common_name", "")
    return common if common != name else ""

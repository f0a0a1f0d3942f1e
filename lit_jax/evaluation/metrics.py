"""Counts of hits that can be added over batches and hosts, and accuracies from them; padding is not counted."""

import dataclasses

import numpy as np

KS = (1, 5)


@dataclasses.dataclass(frozen=True)
class TopK:
    """Hits of a classification, class by class.

    Attributes:
        hits: `[K, len(KS)]` int64, examples of each class whose label was among the best k.
        images: `[K]` int64, examples of each class.
    """

    hits: np.ndarray
    images: np.ndarray

    def __add__(self, other: "TopK") -> "TopK":
        """The hits and photos of both, added up."""
        return TopK(self.hits + other.hits, self.images + other.images)

    def summary(self) -> dict[str, float | int]:
        """Overall accuracies as fractions of all images: top1, top5, classes (with images), images."""
        total = int(self.images.sum())
        rates = {f"top{k}": float(self.hits[:, i].sum() / total) if total else 0.0 for i, k in enumerate(KS)}
        return {**rates, "classes": int((self.images > 0).sum()), "images": total}

    def per_class(self) -> np.ndarray:
        """Accuracy of each class, `[K, len(KS)]` float64; NaN where a class has no image."""
        with np.errstate(invalid="ignore"):
            return self.hits / self.images[:, None].astype(np.float64)


def hits_of(ranks: np.ndarray, labels: np.ndarray, classes: int) -> TopK:
    """Counts hits from `[N]` ranks, 0 for the best, and `[N]` labels of K classes."""
    hits = np.stack([np.bincount(labels[ranks < k], minlength=classes) for k in KS], 1)
    return TopK(hits.astype(np.int64), np.bincount(labels, minlength=classes).astype(np.int64))


def top_k(scores: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> TopK:
    """Counts hits in one batch.

    A label is among the best k if fewer than k classes score higher; of equal scores the lower class number
    wins, so that a constant score is no accuracy.

    Args:
        scores: `[B, K]`, higher is better.
        labels: `[B]` int, the right class.
        mask: `[B]` bool, False where a row is padding.

    Returns:
        The sums of this batch.
    """
    scores, labels = scores[mask], labels[mask]
    own = scores[np.arange(len(labels)), labels][:, None]
    lower_number = np.arange(scores.shape[1])[None, :] < labels[:, None]
    rank = np.sum((scores > own) | ((scores == own) & lower_number), axis=1)
    return hits_of(rank, labels, scores.shape[1])

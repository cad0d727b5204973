"""How good a ranked list is, for each user; the mean over users is the metric.

Every function but `auc` takes where the list hit and how much there was to hit:

    relevance_BK    1.0 where the item at that rank was held out, best rank first; shape (B, K), K the cutoff
    num_relevant_B  held-out items of each user, hit or not; shape (B,)

and returns shape (B,), in [0, 1], NaN for a user without held-out items, for whom no metric is defined.
"""

from collections.abc import Callable

import numpy as np


def hit_rate_at_k(relevance_BK: np.ndarray, num_relevant_B: np.ndarray) -> np.ndarray:
    """Return 1 where the list holds any held-out item (HR@k).

    >>> hit_rate_at_k(np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([1, 1]))
    array([1., 0.])
    """
    return _where_defined(relevance_BK.any(axis=1).astype(float), num_relevant_B)


def ndcg_at_k(relevance_BK: np.ndarray, num_relevant_B: np.ndarray) -> np.ndarray:
    """Return the normalised discounted cumulative gain (NDCG@k).

    Binary gain, log2 discount. The ideal list holds min(num_relevant, k) hits, so a perfect ranking scores
    1 even for a user with fewer or more than k held-out items.

    Source: Jarvelin and Kekalainen (2002), https://doi.org/10.1145/582415.582418

    >>> ndcg_at_k(np.array([[0.0, 1.0, 0.0]]), np.array([1])).round(3)
    array([0.631])
    """
    cutoff = relevance_BK.shape[1]
    discount_K = 1 / np.log2(np.arange(2, cutoff + 2))
    ideal_by_hits = np.concatenate([[np.nan], np.cumsum(discount_K)])
    return (relevance_BK @ discount_K) / ideal_by_hits[np.minimum(num_relevant_B, cutoff)]


def mrr_at_k(relevance_BK: np.ndarray, num_relevant_B: np.ndarray) -> np.ndarray:
    """Return one over the rank of the first hit, 0 without a hit (MRR@k).

    >>> mrr_at_k(np.array([[0.0, 0.0, 1.0]]), np.array([1])).round(3)
    array([0.333])
    """
    first_B = relevance_BK.argmax(axis=1)
    return _where_defined(relevance_BK.any(axis=1) / (first_B + 1), num_relevant_B)


def average_precision_at_k(relevance_BK: np.ndarray, num_relevant_B: np.ndarray) -> np.ndarray:
    """Return the mean, over the hits a perfect list would hold, of the precision at each hit (MAP@k).

    The sum of the precision at each hit's rank is divided by min(num_relevant, k), so that a perfect ranking
    scores 1 even for a user with more than k held-out items. `trec_eval` divides by num_relevant there.

    Source: Buckley and Voorhees (2000), https://doi.org/10.1145/345508.345543

    >>> average_precision_at_k(np.array([[1.0, 0.0, 1.0]]), np.array([2])).round(3)
    array([0.833])
    """
    cutoff = relevance_BK.shape[1]
    precision_BK = np.cumsum(relevance_BK, axis=1) / np.arange(1, cutoff + 1)
    ideal_B = np.minimum(np.where(num_relevant_B > 0, num_relevant_B, np.nan), cutoff)
    return (precision_BK * relevance_BK).sum(axis=1) / ideal_B


def precision_at_k(relevance_BK: np.ndarray, num_relevant_B: np.ndarray) -> np.ndarray:
    """Return the share of the k places that are hits; a list shorter than k counts as k long."""
    return _where_defined(relevance_BK.mean(axis=1), num_relevant_B)


def recall_at_k(relevance_BK: np.ndarray, num_relevant_B: np.ndarray) -> np.ndarray:
    """Return the share of the held-out items that are in the list."""
    return relevance_BK.sum(axis=1) / np.where(num_relevant_B > 0, num_relevant_B, np.nan)


def f1_at_k(relevance_BK: np.ndarray, num_relevant_B: np.ndarray) -> np.ndarray:
    """Return the harmonic mean of a user's precision and recall, 0 where both are 0."""
    hits_B = relevance_BK.sum(axis=1)
    # 2 p r / (p + r) with p = hits / k and r = hits / relevant is 2 hits / (k + relevant).
    return _where_defined(2 * hits_B / (relevance_BK.shape[1] + num_relevant_B), num_relevant_B)


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "HR": hit_rate_at_k,
    "NDCG": ndcg_at_k,
    "MRR": mrr_at_k,
    "MAP": average_precision_at_k,
    "precision": precision_at_k,
    "recall": recall_at_k,
    "F1": f1_at_k,
}
"""Every metric by the name reports use."""


def auc(above_B: np.ndarray, tied_B: np.ndarray, others_B: np.ndarray) -> np.ndarray:
    """Return the probability that the held-out item scores above another candidate, a tie being half of one (AUC).

    Args:
        above_B: Other candidates that score higher, shape (B,).
        tied_B: Other candidates that score the same, shape (B,).
        others_B: Candidates apart from the held-out item, shape (B,).

    Returns:
        Shape (B,), in [0, 1]; NaN where there is no other candidate.

    Source: Hanley and McNeil (1982), https://doi.org/10.1148/radiology.143.1.7063747

    >>> auc(np.array([1]), np.array([2]), np.array([8]))
    array([0.75])
    """
    return 1 - (above_B + tied_B / 2) / np.where(others_B > 0, others_B, np.nan)


def _where_defined(value_B: np.ndarray, num_relevant_B: np.ndarray) -> np.ndarray:
    return np.where(num_relevant_B > 0, value_B, np.nan)

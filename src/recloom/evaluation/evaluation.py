"""Ranked lists and what was held out -> a table of metrics with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recloom.evaluation.metrics import METRICS

BOOTSTRAP_SAMPLES = 1_000


@dataclass(frozen=True)
class Metric:
    """A mean over users, and the 95 % bootstrap interval of that mean."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Evaluation:
    """How a model did on the test cases of its split."""

    model: str
    protocol: str
    ties: str
    num_cases: int
    unusable_users: int
    """Users with a test interaction but no history, who were not asked."""
    metrics: dict[str, Metric]
    """By name and cutoff: "NDCG@10"."""
    seconds: float
    """Wall time of ranking the whole catalogue for every case."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as `--json` writes them."""
        return self.__dict__ | {"metrics": {name: metric.__dict__ for name, metric in self.metrics.items()}}


def evaluate_rankings(
    item_index_BK: np.ndarray, target_B: np.ndarray, cutoffs: Sequence[int], seed: int = 0
) -> dict[str, Metric]:
    """Score ranked lists by every metric at every cutoff.

    Args:
        item_index_BK: Ranked items, best first; K is at least the largest cutoff.
        target_B: The held-out item of each list.
        cutoffs: How much of a list to read, for instance 5, 10 and 20.
        seed: Decides the bootstrap samples.

    Returns:
        Metrics by name and cutoff: "NDCG@10".
    """
    relevance_BK = (item_index_BK == target_B[:, None]).astype(float)
    num_relevant_B = np.ones(len(target_B), dtype=int)
    values_BM = {
        f"{name}@{cutoff}": metric(relevance_BK[:, :cutoff], num_relevant_B)
        for cutoff in cutoffs
        for name, metric in METRICS.items()
    }
    low_M, high_M = _bootstrap_intervals(np.stack(list(values_BM.values()), axis=1), seed)
    return {
        name: Metric(float(value_B.mean()), float(low), float(high))
        for (name, value_B), low, high in zip(values_BM.items(), low_M, high_M, strict=True)
    }


def _bootstrap_intervals(values_BM: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the 95 % interval of each column's mean over users, each of shape (M,)."""
    num_users = len(values_BM)
    # With some thousand users the means are so close to normal that fewer samples find the same interval.
    samples = BOOTSTRAP_SAMPLES if num_users <= 10_000 else BOOTSTRAP_SAMPLES // 4
    rng = np.random.default_rng(seed)
    shares = np.full(num_users, 1 / num_users)
    means_SM = np.stack([rng.multinomial(num_users, shares) @ values_BM / num_users for _ in range(samples)])
    low_M, high_M = np.quantile(means_SM, [0.025, 0.975], axis=0)
    return low_M, high_M

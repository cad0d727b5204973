"""Ranked lists and held-out items come in; metrics at each cutoff, with intervals, go out."""

from recloom.evaluation.evaluation import Evaluation, Metric, evaluate_rankings
from recloom.evaluation.metrics import (
    METRICS,
    f1_at_k,
    hit_rate_at_k,
    mrr_at_k,
    ndcg_at_k,
    precision_at_k,
    recall_at_k,
)

__all__ = [
    "METRICS",
    "Evaluation",
    "Metric",
    "evaluate_rankings",
    "f1_at_k",
    "hit_rate_at_k",
    "mrr_at_k",
    "ndcg_at_k",
    "precision_at_k",
    "recall_at_k",
]

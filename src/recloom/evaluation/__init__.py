"""Ranked lists and held-out items come in; metrics at each cutoff, with intervals and tests, go out."""

from recloom.evaluation.evaluation import Evaluation, Judge, Metric, Slice, metric_values, with_intervals
from recloom.evaluation.exposures import Estimate, inverse_propensity_rate, replay_rate
from recloom.evaluation.metrics import METRICS

__all__ = [
    "METRICS",
    "Estimate",
    "Evaluation",
    "Judge",
    "Metric",
    "Slice",
    "inverse_propensity_rate",
    "metric_values",
    "replay_rate",
    "with_intervals",
]

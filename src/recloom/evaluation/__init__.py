"""Ranked lists and held-out items come in; metrics at each cutoff, with intervals and tests, go out."""

from recloom.evaluation.evaluation import Evaluation, Judge, Metric, Slice, metric_values, with_intervals
from recloom.evaluation.metrics import METRICS

__all__ = ["METRICS", "Evaluation", "Judge", "Metric", "Slice", "metric_values", "with_intervals"]

from math import log2

import numpy as np
import pytest

from recloom.evaluation import METRICS, evaluate_rankings

HIT_AT_2 = np.array([[0.0, 1.0, 0.0]])
TWO_OF_THREE = np.array([[1.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    ("metric", "relevance", "num_relevant", "value"),
    [
        ("HR", HIT_AT_2, 1, 1),
        ("NDCG", HIT_AT_2, 1, 1 / log2(3)),
        ("MRR", HIT_AT_2, 1, 1 / 2),
        ("precision", HIT_AT_2, 1, 1 / 3),
        ("recall", HIT_AT_2, 1, 1),
        ("F1", HIT_AT_2, 1, 2 * (1 / 3) * 1 / (1 / 3 + 1)),
        ("NDCG", TWO_OF_THREE, 3, (1 + 1 / 2) / (1 + 1 / log2(3) + 1 / 2)),
        ("NDCG", np.ones((1, 3)), 5, 1),  # the ideal list holds min(num_relevant, k) hits
        ("recall", TWO_OF_THREE, 3, 2 / 3),
        ("precision", TWO_OF_THREE, 3, 2 / 3),
        ("F1", TWO_OF_THREE, 4, 2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2)),
        ("MRR", TWO_OF_THREE, 3, 1),
        *((name, np.zeros((1, 3)), 2, 0) for name in METRICS),
    ],
)
def test_metrics_equal_fractions_worked_by_hand(metric, relevance, num_relevant, value):
    assert METRICS[metric](relevance, np.array([num_relevant])) == pytest.approx([value])


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_no_metric_is_defined_for_a_user_without_held_out_items(metric):
    assert np.isnan(metric(np.zeros((1, 3)), np.array([0]))).all()


def test_a_table_holds_every_metric_at_every_cutoff_with_its_interval():
    ranked = np.array([[7, 3, 5], [2, 9, 4], [1, 2, 3]])
    table = evaluate_rankings(ranked, np.array([7, 9, 8]), [1, 3])
    assert set(table) == {f"{name}@{cutoff}" for name in METRICS for cutoff in (1, 3)}
    assert table["HR@1"].mean == pytest.approx(1 / 3)
    assert table["NDCG@3"].mean == pytest.approx((1 + 1 / log2(3)) / 3)
    assert all(metric.low <= metric.mean <= metric.high for metric in table.values())

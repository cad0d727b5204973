from math import log2

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recloom.evaluation import METRICS, metric_values, with_intervals
from recloom.evaluation.metrics import auc

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
        ("MAP", HIT_AT_2, 1, 1 / 2),
        ("MAP", TWO_OF_THREE, 2, (1 / 1 + 2 / 3) / 2),
        ("MAP", TWO_OF_THREE, 4, (1 / 1 + 2 / 3) / 3),  # three places hold at most 3 of the 4
        ("MAP", np.ones((1, 3)), 5, 1),
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
    table = with_intervals(metric_values(ranked, np.array([7, 9, 8]), [1, 3]))
    assert set(table) == {f"{name}@{cutoff}" for name in METRICS for cutoff in (1, 3)}
    assert table["HR@1"].mean == pytest.approx(1 / 3)
    assert table["NDCG@3"].mean == pytest.approx((1 + 1 / log2(3)) / 3)
    assert all(metric.low <= metric.mean <= metric.high for metric in table.values())


@pytest.mark.parametrize("cutoff", [1, 3, 10])
def test_metrics_equal_those_of_an_independent_library(cutoff):
    rng = np.random.default_rng(cutoff)
    ranked_BK = rng.permuted(np.tile(np.arange(30), (200, 1)), axis=1)[:, :10]
    held_out = [set(rng.choice(30, size=rng.integers(1, 8), replace=False).tolist()) for _ in ranked_BK]
    num_relevant_B = np.array([len(items) for items in held_out])
    relevance_BK = np.array(
        [[float(i in items) for i in ranked] for ranked, items in zip(ranked_BK, held_out, strict=True)]
    )
    theirs = _values_of_ir_measures(ranked_BK, held_out, cutoff)
    # Theirs divides by num_relevant where a list of k places can hold no more than k.
    theirs["MAP"] = theirs["MAP"] * num_relevant_B / np.minimum(num_relevant_B, cutoff)
    for name, value_B in theirs.items():
        assert METRICS[name](relevance_BK[:, :cutoff], num_relevant_B) == pytest.approx(value_B), name
    assert (num_relevant_B > cutoff).any() or cutoff == 10  # more held-out items than places were tried too


def _values_of_ir_measures(ranked_BK, held_out, cutoff):
    wanted = {
        "HR": ir_measures.Success @ cutoff,
        "NDCG": ir_measures.nDCG @ cutoff,
        "MRR": ir_measures.RR @ cutoff,
        "MAP": ir_measures.AP @ cutoff,
        "precision": ir_measures.P @ cutoff,
        "recall": ir_measures.R @ cutoff,
    }
    qrels = {str(user): dict.fromkeys(map(str, items), 1) for user, items in enumerate(held_out)}
    run = {
        str(user): {str(item): -float(rank) for rank, item in enumerate(ranked)}
        for user, ranked in enumerate(ranked_BK)
    }
    found = {(m.measure, int(m.query_id)): m.value for m in ir_measures.iter_calc(list(wanted.values()), qrels, run)}
    return {name: np.array([found[measure, user] for user in range(len(held_out))]) for name, measure in wanted.items()}


def test_auc_counts_a_tie_as_half_and_is_nan_without_another_candidate():
    above_B, tied_B, others_B = np.array([0, 1, 4, 0, 0]), np.array([0, 2, 0, 4, 0]), np.array([4, 8, 4, 4, 0])
    expected = [1, 1 - (1 + 2 / 2) / 8, 0, 1 / 2, np.nan]
    assert auc(above_B, tied_B, others_B) == pytest.approx(expected, nan_ok=True)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=12))
def test_auc_is_the_share_of_other_candidates_that_score_lower(scores):
    score_I, others_I = scores[0], np.array(scores[1:])
    wins = [1.0 if score_I > other else 0.5 if score_I == other else 0.0 for other in others_I]
    counts = [(others_I > score_I).sum(), (others_I == score_I).sum(), len(others_I)]
    assert auc(*(np.array([count]) for count in counts)) == pytest.approx([np.mean(wins)])

from itertools import product
from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recloom.errors import ConfigError
from recloom.evaluation.significance import bootstrap_intervals, holm, paired_difference

p_value_lists = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def test_a_difference_equals_fractions_worked_by_hand():
    found = paired_difference(np.array([1.0, 1.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0, 0.0]))
    assert found.mean == 2 / 4
    assert found.effect_size == pytest.approx((2 / 4) / sqrt((4 * (1 / 2) ** 2) / 3))
    assert found.low <= found.mean <= found.high


def test_models_that_are_alike_in_every_case_do_not_differ():
    found = paired_difference(np.array([1.0, 0.0, 0.5]), np.array([1.0, 0.0, 0.5]))
    assert found.__dict__ == {"mean": 0, "low": 0, "high": 0, "effect_size": 0, "p_value": 1}


def test_the_same_difference_in_every_case_has_an_infinite_effect():
    assert paired_difference(np.array([1.0, 1.0]), np.array([0.0, 0.0])).effect_size == inf
    assert paired_difference(np.array([0.0]), np.array([1.0])).effect_size == -inf


def test_cases_for_which_a_value_is_not_defined_are_left_out():
    first_B, second_B = np.array([1.0, np.nan, 0.5, 0.0]), np.array([0.0, 1.0, np.nan, 0.5])
    assert paired_difference(first_B, second_B) == paired_difference(first_B[[0, 3]], second_B[[0, 3]])


def test_values_of_other_cases_cannot_be_compared():
    with pytest.raises(ConfigError, match="values of 3 cases and the second of 2; evaluate both on the same split"):
        paired_difference(np.zeros(3), np.zeros(2))
    with pytest.raises(ConfigError, match="no case has a value of both models"):
        paired_difference(np.array([np.nan, 1.0]), np.array([1.0, np.nan]))


@pytest.mark.parametrize("num_cases", [1, 3, 7, 8, 9, 12])
@pytest.mark.parametrize("values", [np.array([-1, 0, 0, 1, 1]), np.linspace(-0.3, 0.7, 11)], ids=["tied", "untied"])
def test_the_p_value_is_that_of_all_signs_enumerated(num_cases, values):
    difference_B = np.random.default_rng(num_cases).choice(values, num_cases)
    sum_S = np.array(list(product([-1, 1], repeat=num_cases))) @ difference_B
    exact = (np.abs(sum_S) >= abs(difference_B.sum()) - 1e-9).mean()
    found = paired_difference(difference_B, np.zeros(num_cases)).p_value
    # Four standard errors of a share of 9,999 samples, and the observed signs, which count as a sample.
    assert found == pytest.approx(exact, abs=4 * sqrt(exact * (1 - exact) / 9_999) + 1 / 10_000)


def test_swapping_the_models_turns_the_difference_round():
    first_B, second_B = np.random.default_rng(0).random((2, 30))
    there, back = paired_difference(first_B, second_B), paired_difference(second_B, first_B)
    assert back.mean == -there.mean
    assert back.effect_size == -there.effect_size
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))
    assert back.p_value == there.p_value


def test_p_values_are_uniform_where_the_models_are_equally_good():
    rng = np.random.default_rng(0)
    p_values = [paired_difference(*rng.normal(size=(2, 25)), seed=seed).p_value for seed in range(300)]
    for level in (0.05, 0.25, 0.5, 0.75):
        # Within three standard errors of 300 draws.
        assert np.mean(np.array(p_values) <= level) == pytest.approx(level, abs=3 * sqrt(level * (1 - level) / 300))


def test_a_clear_difference_has_the_smallest_p_value_there_is():
    assert paired_difference(np.ones(200), np.zeros(200)).p_value == 1 / 10_000


def test_about_95_of_100_intervals_hold_the_true_mean():
    rng = np.random.default_rng(0)
    values_BM = rng.exponential(size=(150, 200))  # 200 samples of 150 cases, skewed, true mean 1
    low_M, high_M = bootstrap_intervals(values_BM)
    assert 0.90 <= np.mean((low_M <= 1) & (high_M >= 1)) <= 0.99


def test_an_interval_is_as_wide_as_the_standard_error_says():
    value_B = np.random.default_rng(0).normal(size=12_000)  # so many that fewer samples are drawn
    low_1, high_1 = bootstrap_intervals(value_B[:, None])
    assert high_1 - low_1 == pytest.approx(2 * 1.96 * value_B.std() / sqrt(12_000), rel=0.15)


def test_a_case_for_which_a_metric_is_not_defined_counts_as_absent():
    value_B = np.random.default_rng(0).random(400)
    half_B = np.where(np.arange(400) % 2, value_B, np.nan)
    low_M, high_M = bootstrap_intervals(np.stack([half_B, value_B, np.full(400, np.nan)], axis=1))
    low_1, high_1 = bootstrap_intervals(value_B[1::2, None])
    assert (low_M[0], high_M[0]) == pytest.approx((low_1[0], high_1[0]), abs=0.01)
    whole = [end[0] for end in bootstrap_intervals(value_B[:, None])]
    assert (low_M[1], high_M[1]) == pytest.approx(whole)
    assert np.isnan([low_M[2], high_M[2]]).all()


def test_an_interval_of_one_defined_case_is_its_value():
    ends = bootstrap_intervals(np.array([[0.25], [np.nan], [np.nan]]))
    assert [end.tolist() for end in ends] == [[0.25], [0.25]]


def test_the_seed_alone_decides():
    first_B, second_B = np.random.default_rng(0).random((2, 50))
    assert paired_difference(first_B, second_B, seed=3) == paired_difference(first_B, second_B, seed=3)
    assert paired_difference(first_B, second_B, seed=3) != paired_difference(first_B, second_B, seed=4)


def test_holm_equals_an_example_worked_by_hand():
    # In order 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06 and 0.04, which may not be below 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]).tolist() == [1, 1]
    assert holm([0.3]).tolist() == [0.3]
    assert holm([]).tolist() == []


@given(p_value_lists, st.floats(0.01, 0.99))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values, level):
    order = np.argsort(p_values, kind="stable")
    rejected = np.zeros(len(p_values), dtype=bool)
    for place, which in enumerate(order):
        if p_values[which] * (len(p_values) - place) > level:
            break
        rejected[which] = True
    assert (holm(p_values) <= level).tolist() == rejected.tolist()


@given(p_value_lists)
def test_holm_raises_p_values_to_at_most_one_and_keeps_their_order(p_values):
    adjusted = holm(p_values)
    assert (adjusted >= p_values).all()
    assert adjusted.max() <= 1
    assert (np.diff(adjusted[np.argsort(p_values)]) >= 0).all()

from itertools import combinations
from math import log, log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse

from recloom.evaluation import lists
from recloom.evaluation.lists import (
    coverage_at_k,
    diversity_at_k,
    gini_at_k,
    head_items,
    head_share_at_k,
    miscalibration_at_k,
    novelty_at_k,
    serendipity_at_k,
)

NUM_ITEMS = 9
EMPTY = np.zeros((1, 3), dtype=int)
a_lists = arrays.arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.integers(0, NUM_ITEMS))


def test_coverage_is_the_share_of_the_catalogue_in_any_list():
    assert coverage_at_k(np.array([[1, 2], [2, 5], [2, 0]]), num_items=10) == 3 / 10
    assert coverage_at_k(EMPTY, num_items=10) == 0


@pytest.mark.parametrize(
    ("item_index_BK", "value"),
    [
        ([[1, 2], [3, 4]], 0),
        ([[1], [1]], 3 / 4),  # only one of four is shown: (n - 1) / n
        # Shown 0, 1, 1 and 2 times: the 16 differences between two of them sum to 12, over 2 n^2 times the mean of 1.
        ([[2, 3], [4, 4]], 12 / (2 * 4**2 * 1)),
        ([[0, 0]], np.nan),
    ],
)
def test_gini_equals_fractions_worked_by_hand(item_index_BK, value):
    assert gini_at_k(np.array(item_index_BK), num_items=4) == pytest.approx(value, nan_ok=True)


@given(a_lists)
def test_gini_is_the_mean_difference_between_two_items_over_twice_the_mean(item_index_BK):
    times = np.array([(item_index_BK == item).sum() for item in range(1, NUM_ITEMS + 1)])
    expected = np.abs(times[:, None] - times).mean() / (2 * times.mean()) if times.any() else np.nan
    assert gini_at_k(item_index_BK, NUM_ITEMS) == pytest.approx(expected, nan_ok=True)


def test_novelty_is_the_self_information_of_counts_plus_one_in_bits():
    count_I = np.array([99, 3, 1, 0])  # the padding row's is not read: probabilities are 4/7, 2/7 and 1/7
    item_index_BK = np.array([[1, 2, 3], [3, 0, 0], [0, 0, 0]])
    expected = [(log2(7 / 4) + log2(7 / 2) + log2(7)) / 3, log2(7), np.nan]
    assert novelty_at_k(item_index_BK, count_I) == pytest.approx(expected, nan_ok=True)


def test_diversity_equals_one_minus_cosines_worked_by_hand():
    vectors_IE = np.array([[1, 0], [1, 0], [0, 2], [3, 0], [-1, 0], [0, 0], [3, 4]], dtype=np.float32)
    item_index_BK = np.array([[1, 2, 0], [1, 3, 0], [1, 4, 0], [1, 2, 6], [1, 2, 5], [1, 5, 0], [0, 0, 0]])
    # Items 1, 2 and 6 have the cosines 0, 3/5 and 4/5; item 5 has no text; a padded place has no pair.
    expected = [1, 0, 2, 1 - (0 + 3 / 5 + 4 / 5) / 3, 1, np.nan, np.nan]
    assert diversity_at_k(item_index_BK, vectors_IE) == pytest.approx(expected, abs=1e-6, nan_ok=True)


@given(a_lists, st.integers(0, 100))
def test_diversity_is_the_mean_over_all_pairs_whatever_the_blocks(item_index_BK, seed):
    vectors_IE = np.random.default_rng(seed).integers(-1, 2, size=(NUM_ITEMS + 1, 3)).astype(np.float32)
    expected = [_diversity_by_pairs([i for i in row if i and vectors_IE[i].any()], vectors_IE) for row in item_index_BK]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists, "CASES_AT_ONCE", 2)
        assert diversity_at_k(item_index_BK, vectors_IE) == pytest.approx(expected, abs=1e-5, nan_ok=True)


def _diversity_by_pairs(items, vectors_IE):
    units = [vectors_IE[item] / np.linalg.norm(vectors_IE[item]) for item in items]
    return np.mean([1 - first @ second for first, second in combinations(units, 2)]) if len(units) > 1 else np.nan


def test_the_head_is_the_most_taken_fifth_rounded_up_and_lower_indices_come_first():
    assert np.flatnonzero(head_items(np.array([100, 1, 7, 3, 7, 7]))).tolist() == [2]
    assert np.flatnonzero(head_items(np.array([100, 1, 7, 3, 7, 7, 0]))).tolist() == [2, 4]


def test_head_share_is_the_share_of_filled_places():
    is_head_I = np.array([False, True, True, False, False])
    item_index_BK = np.array([[1, 3, 4], [2, 3, 0], [1, 2, 0], [0, 0, 0]])
    assert head_share_at_k(item_index_BK, is_head_I) == pytest.approx([1 / 3, 1 / 2, 1, np.nan], nan_ok=True)


def test_serendipity_is_a_hit_the_popular_list_of_the_same_length_misses():
    item_index_BK = np.array([[1, 5], [1, 5], [3, 5], [2, 0]])
    relevance_BK = np.array([[1, 0], [0, 1], [1, 0], [0, 0]], dtype=float)
    popular_items = np.array([1, 2, 3])  # of which a list of two places holds 1 and 2
    assert serendipity_at_k(relevance_BK, item_index_BK, popular_items).tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("of_kind", [np.asarray, sparse.csr_array])
def test_miscalibration_is_the_divergence_of_the_list_from_the_history(of_kind):
    category_share_IC = of_kind(np.array([[0, 0], [1, 0], [0, 1], [1 / 2, 1 / 2], [0, 0]], dtype=float))
    history_share_BC = np.array([[1 / 2, 1 / 2], [1 / 2, 1 / 2], [1, 0], [3 / 4, 1 / 4], [0, 0], [1, 0]])
    item_index_BK = np.array([[1, 2, 0], [3, 4, 0], [2, 0, 0], [1, 3, 2], [1, 2, 0], [4, 0, 0]])
    mixed = 0.99 * 1 / 2 + 0.01 * 3 / 4  # the fourth list holds half of each category, its history 3/4 of the first
    expected = [
        0,
        0,  # an item without categories counts as nothing
        log(1 / 0.01),
        3 / 4 * log(3 / 4 / mixed) + 1 / 4 * log(1 / 4 / (1 - mixed)),
        np.nan,  # a history without categories
        np.nan,  # a list without categories
    ]
    found_B = miscalibration_at_k(item_index_BK, history_share_BC, category_share_IC)
    assert found_B == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(a_lists, st.integers(0, 100))
def test_miscalibration_is_not_negative_and_the_same_one_case_at_a_time(item_index_BK, seed):
    rng = np.random.default_rng(seed)
    category_share_IC = rng.dirichlet(np.ones(3), size=NUM_ITEMS + 1)
    history_share_BC = rng.dirichlet(np.ones(3), size=len(item_index_BK))
    together_B = miscalibration_at_k(item_index_BK, history_share_BC, category_share_IC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists, "CASES_AT_ONCE", 1)
        single_B = miscalibration_at_k(item_index_BK, history_share_BC, category_share_IC)
    assert single_B == pytest.approx(together_B, nan_ok=True)
    assert (np.isnan(together_B) == (item_index_BK == 0).all(axis=1)).all()
    assert not (together_B < -1e-12).any()


@given(a_lists, st.integers(0, 100))
def test_padding_and_the_order_of_a_list_change_no_quality(item_index_BK, seed):
    rng = np.random.default_rng(seed)
    vectors_IE, count_I = rng.normal(size=(NUM_ITEMS + 1, 4)), rng.integers(0, 9, size=NUM_ITEMS + 1)
    shares = rng.dirichlet(np.ones(3), size=len(item_index_BK)), rng.dirichlet(np.ones(3), size=NUM_ITEMS + 1)
    padded_BK = rng.permuted(np.pad(item_index_BK, [(0, 0), (0, 2)]), axis=1)
    for quality in (
        lambda items_BK: coverage_at_k(items_BK, NUM_ITEMS),
        lambda items_BK: gini_at_k(items_BK, NUM_ITEMS),
        lambda items_BK: novelty_at_k(items_BK, count_I),
        lambda items_BK: diversity_at_k(items_BK, vectors_IE),
        lambda items_BK: head_share_at_k(items_BK, head_items(count_I)),
        lambda items_BK: miscalibration_at_k(items_BK, *shares),
    ):
        assert quality(padded_BK) == pytest.approx(quality(item_index_BK), nan_ok=True)

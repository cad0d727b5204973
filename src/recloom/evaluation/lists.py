"""What lists are like, whatever was held out: how much of the catalogue they show, how new, varied and fair they are.

Every function takes the lists, best item first, `PADDING_INDEX` where a list is shorter than k; such places count as
nothing. Those that return shape (B,) have one value for each case, NaN where it is not defined.

Shapes: B cases, b cases of a block, K cutoff, I catalogue (with the padding row), E width of text embeddings,
C categories.
"""

import math
from collections.abc import Iterator

import numpy as np
from scipy import sparse
from scipy.special import rel_entr

from recloom.dataset import PADDING_INDEX

CASES_AT_ONCE = 8_192
"""Cases whose lists are summed up together, 12.6 MB at 384 dimensions."""
CALIBRATION_ALPHA = 0.01
"""How much of the history is mixed into the list, so that a category it lacks costs a finite amount."""


def coverage_at_k(item_index_BK: np.ndarray, num_items: int) -> float:
    """Return the share of the catalogue that is in at least one list."""
    return float((_times_shown(item_index_BK, num_items) > 0).mean())


def gini_at_k(item_index_BK: np.ndarray, num_items: int) -> float:
    """Return the Gini coefficient of how often each item of the catalogue is shown.

    0 where all are shown equally often, (num_items - 1) / num_items where only one is; NaN where nothing is shown.

    Source: Gini (1912); for recommendations Fleder and Hosanagar (2009), https://doi.org/10.1287/mnsc.1080.0974
    """
    times = np.sort(_times_shown(item_index_BK, num_items))
    if not times.any():
        return math.nan
    rank = np.arange(1, num_items + 1)
    return float((2 * rank - num_items - 1) @ times / (num_items * times.sum()))


def novelty_at_k(item_index_BK: np.ndarray, count_I: np.ndarray) -> np.ndarray:
    """Return the mean self-information of the items in the list, in bits: how rarely they are taken.

    The probability of an item is (count + 1) / (total + num_items), so that one never taken counts as rare, not as
    infinitely new.

    Args:
        item_index_BK: The lists.
        count_I: Training interactions of each item; that of the padding row is not read.

    Source: Vargas and Castells (2011), https://doi.org/10.1145/2043932.2043955
    """
    taken_I = count_I + 1.0
    taken_I[PADDING_INDEX] = 0
    bits_I = np.log2(taken_I.sum() / np.maximum(taken_I, 1))
    return _mean_over_list(bits_I, item_index_BK)


def diversity_at_k(item_index_BK: np.ndarray, vectors_IE: np.ndarray) -> np.ndarray:
    """Return the mean of 1 - cosine over all pairs of items in the list, in text space.

    Items without text, whose vector is all zero, are in no pair. NaN with fewer than two others.

    Source: Smyth and McClave (2001), https://doi.org/10.1007/3-540-44593-5_25
    """
    norm_I = np.sqrt(np.einsum("ie,ie->i", vectors_IE, vectors_IE))
    norm_I[PADDING_INDEX] = 0
    inverse_I = np.divide(1, norm_I, out=np.zeros_like(norm_I), where=norm_I > 0)
    diversity_B = np.full(len(item_index_BK), np.nan)
    for cases, weight_bI in _blocks(item_index_BK, inverse_I):
        sum_bE = weight_bI @ vectors_IE
        usable_b = (norm_I[item_index_BK[cases]] > 0).sum(axis=1)
        # |sum of unit vectors|^2 holds each of n vectors with itself, which is 1, and each pair's cosine twice.
        pairs_twice_b = np.where(usable_b > 1, usable_b * (usable_b - 1.0), np.nan)
        cosine_b = (np.einsum("be,be->b", sum_bE, sum_bE) - usable_b) / pairs_twice_b
        diversity_B[cases] = np.maximum(1 - cosine_b, 0)  # rounding can leave a little less
    return diversity_B


def head_items(count_I: np.ndarray) -> np.ndarray:
    """Return which items are the most-taken fifth of the catalogue, rounded up; bool of shape (I,).

    Of equally often taken items those of lower index come first.
    """
    most_taken = np.argsort(-count_I[1:], kind="stable") + 1
    is_head_I = np.zeros(len(count_I), dtype=bool)
    is_head_I[most_taken[: math.ceil(len(most_taken) / 5)]] = True
    return is_head_I


def head_share_at_k(item_index_BK: np.ndarray, is_head_I: np.ndarray) -> np.ndarray:
    """Return the share of the list that `head_items` hold."""
    return _mean_over_list(is_head_I.astype(float), item_index_BK)


def serendipity_at_k(relevance_BK: np.ndarray, item_index_BK: np.ndarray, popular_items: np.ndarray) -> np.ndarray:
    """Return 1 where the list hits a held-out item that the equally long list of popular items does not hold, else 0.

    Args:
        relevance_BK: 1.0 where the item at that rank was held out, shape (B, K).
        item_index_BK: The lists.
        popular_items: Items from the most taken on, the same for all cases; the first K are read.

    Source: Ge et al. (2010), https://doi.org/10.1145/1864708.1864761
    """
    is_expected_BK = np.isin(item_index_BK, popular_items[: item_index_BK.shape[1]])
    return ((relevance_BK > 0) & ~is_expected_BK).any(axis=1).astype(float)


def miscalibration_at_k(
    item_index_BK: np.ndarray, history_share_BC: np.ndarray, category_share_IC: np.ndarray | sparse.csr_array
) -> np.ndarray:
    """Return how far the categories of the list are from those of the history: the KL divergence, in nats.

    0 where they have the same shares. Every place counts the same; items without categories count as nothing. NaN
    where the history or the list has no categories.

    Args:
        item_index_BK: The lists.
        history_share_BC: How much of the case's history each category is; rows sum to 1, or to 0 without categories.
        category_share_IC: How much of the item each category is; rows sum to 1, or to 0 without categories.

    Source: Steck (2018), https://doi.org/10.1145/3240323.3240372, with alpha = 0.01
    """
    category_share_IC = sparse.csr_array(category_share_IC)
    divergence_B = np.full(len(item_index_BK), np.nan)
    for cases, weight_bI in _blocks(item_index_BK, np.ones(category_share_IC.shape[0])):
        history_bC = history_share_BC[cases]
        shown_bC = (weight_bI @ category_share_IC).toarray()
        total_b1 = shown_bC.sum(axis=1, keepdims=True)
        is_defined_b = (total_b1[:, 0] > 0) & (history_bC.sum(axis=1) > 0)
        list_bC = shown_bC / np.where(total_b1 > 0, total_b1, 1)
        mixed_bC = (1 - CALIBRATION_ALPHA) * list_bC + CALIBRATION_ALPHA * history_bC
        divergence_B[cases] = np.where(is_defined_b, rel_entr(history_bC, mixed_bC).sum(axis=1), np.nan)
    return divergence_B


def _times_shown(item_index_BK: np.ndarray, num_items: int) -> np.ndarray:
    return np.bincount(item_index_BK.ravel(), minlength=num_items + 1)[1:]


def _mean_over_list(value_I: np.ndarray, item_index_BK: np.ndarray) -> np.ndarray:
    is_filled_BK = item_index_BK != PADDING_INDEX
    filled_B = is_filled_BK.sum(axis=1)
    return (value_I[item_index_BK] * is_filled_BK).sum(axis=1) / np.where(filled_B > 0, filled_B, np.nan)


def _blocks(item_index_BK: np.ndarray, weight_I: np.ndarray) -> Iterator[tuple[slice, sparse.csr_array]]:
    """Yield some thousand cases at a time: which, and each list as the weights of its items, shape (b, I)."""
    for begin in range(0, len(item_index_BK), CASES_AT_ONCE):
        items_bK = item_index_BK[begin : begin + CASES_AT_ONCE]
        weight_bK = np.where(items_bK != PADDING_INDEX, weight_I[items_bK], 0)
        starts = np.arange(0, items_bK.size + 1, items_bK.shape[1])
        rows_bI = sparse.csr_array((weight_bK.ravel(), items_bK.ravel(), starts), shape=(len(items_bK), len(weight_I)))
        yield slice(begin, begin + len(items_bK)), rows_bI

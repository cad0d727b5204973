import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recloom.dataset import Interaction, Segments, gather, histories_from_interactions, windows
from recloom.errors import ConfigError


def test_windows_reach_back_from_the_newest_interaction():
    start, end = windows(Segments(np.array([0, 0]), np.array([0, 8])), length=3)
    assert list(zip(start.tolist(), end.tolist(), strict=True)) == [(4, 8), (1, 5), (0, 2)]


def test_a_smaller_stride_repeats_targets():
    start, end = windows(Segments(np.array([0]), np.array([6])), length=3, stride=1)
    assert list(zip(start.tolist(), end.tolist(), strict=True)) == [(2, 6), (1, 5), (0, 4)]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(1, 9))
def test_every_interaction_but_a_users_first_is_a_target_once(lengths, length):
    end = np.cumsum(lengths)
    start = end - lengths
    window_start, window_end = windows(Segments(start, end), length)
    targets = [p for s, e in zip(window_start, window_end, strict=True) for p in range(s + 1, e)]
    assert sorted(targets) == [p for s, e in zip(start, end, strict=True) for p in range(s + 1, e)]
    assert (window_end - window_start <= length + 1).all()


def test_gather_pads_at_the_end_and_keeps_the_newest(dataset_of):
    dataset = dataset_of(["a,x,1", "a,y,2", "a,z,3", "b,x,1"])
    batch = gather(dataset, np.array([0, 3]), np.array([3, 4]), max_length=2)
    assert batch.item_index_BL.tolist() == [[2, 3], [1, 0]]
    assert batch.length_B.tolist() == [2, 1]
    rows, items = batch.seen()  # the whole history, not only what the model reads
    assert list(zip(rows.tolist(), items.tolist(), strict=True)) == [(0, 1), (0, 2), (0, 3), (1, 1)]
    assert batch.rows(np.array([1])).item_index_BL.tolist() == [[1]]


def test_a_history_of_the_caller_is_numbered_and_unknown_items_counted(dataset_of):
    dataset = dataset_of(["a,x,1,phone", "a,y,2,web"], header="user_id,item_id,timestamp,device")
    history = [Interaction("x", timestamp=5, context={"device": "web"}), Interaction("?"), Interaction("y")]
    batch, unknown = histories_from_interactions(dataset, [history, []], max_length=10)
    assert batch.item_index_BL.tolist() == [[1, 2], [0, 0]]
    assert batch.timestamp_BL.tolist() == [[5, 5], [0, 0]]  # a missing time adds no gap
    assert batch.context_BL["device"].tolist() == [[2, 0], [0, 0]]
    assert unknown.tolist() == [1, 0]
    assert batch.length_B.tolist() == [2, 0]


def test_a_number_that_is_none_is_refused(dataset_of):
    dataset = dataset_of(["a,x,1,2.5", "a,y,2,3.5"], header="user_id,item_id,timestamp,price")
    with pytest.raises(ConfigError, match="'cheap' is no number"):
        histories_from_interactions(dataset, [[Interaction("x", context={"price": "cheap"})]], 5)

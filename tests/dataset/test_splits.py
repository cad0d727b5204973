from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recloom.dataset import Dataset, SplitConfig, split_dataset
from recloom.errors import ConfigError

# Positions:  a: 0 1 2 3 (times 10 20 30 30), b: 4 5 (times 15 35), c: 6 (time 40)
LOG = ["a,p,10", "a,q,20", "a,r,30", "a,s,30", "b,p,15", "b,q,35", "c,p,40"]


def cases(asked):
    return list(
        zip(
            asked.user_index.tolist(),
            asked.history_start.tolist(),
            asked.history_end.tolist(),
            asked.target.tolist(),
            strict=True,
        )
    )


def test_leave_one_out_holds_out_the_last_two_of_everybody_who_has_three(dataset_of):
    split = split_dataset(dataset_of(LOG), SplitConfig(protocol="leave-one-out"))
    assert cases(split.test) == [(1, 0, 3, 3)]
    assert cases(split.validation) == [(1, 0, 2, 2)]
    assert split.train.positions().tolist() == [0, 1, 4, 5, 6]
    assert split.full.positions().tolist() == split.train.positions().tolist()


def test_strict_ties_leave_out_of_the_history_what_shares_the_time_of_the_target(dataset_of):
    split = split_dataset(dataset_of(LOG), SplitConfig(protocol="leave-one-out", ties="strict"))
    assert cases(split.test) == [(1, 0, 2, 3)]


def test_temporal_asks_for_the_first_interaction_after_one_time(dataset_of):
    split = split_dataset(dataset_of(LOG), SplitConfig(split_time=30, validation_fraction=0.4))
    assert cases(split.test) == [(1, 0, 2, 2), (2, 4, 5, 5)]
    assert split.unusable_users == 1  # c has no history before 30
    assert split.full.positions().tolist() == [0, 1, 4]
    assert cases(split.validation) == [(1, 0, 1, 1)]
    assert split.train.positions().tolist() == [0, 4]


def test_nothing_at_or_after_the_end_of_the_test_is_asked(dataset_of):
    until_35 = split_dataset(dataset_of(LOG), SplitConfig(split_time=30, test_until=35))
    assert cases(until_35.test) == [(1, 0, 2, 2)]  # b comes at 35, c at 40
    assert until_35.unusable_users == 0
    until_41 = split_dataset(dataset_of(LOG), SplitConfig(split_time=30, test_until=41))
    assert cases(until_41.test) == [(1, 0, 2, 2), (2, 4, 5, 5)]
    assert until_41.unusable_users == 1
    whole = split_dataset(dataset_of(LOG), SplitConfig(split_time=30))
    for split in (until_35, until_41):  # what is learned ends with the split time either way
        assert split.full.positions().tolist() == whole.full.positions().tolist()
        assert cases(split.validation) == cases(whole.validation)


@pytest.mark.parametrize("test_until", [30, 29, 1])
def test_a_test_that_ends_before_it_begins_is_refused(dataset_of, test_until):
    with pytest.raises(
        ConfigError, match=rf"split\.test_until {test_until} is not after split\.split_time 30; the test"
    ):
        split_dataset(dataset_of(LOG), SplitConfig(split_time=30, test_until=test_until))


def of_users(positions, dataset):
    """Return whose interactions these are."""
    return set((np.searchsorted(dataset.user_offsets, positions, side="right") - 1).tolist())


@pytest.fixture
def fifty(dataset_of):
    """Fifty people of five interactions each, the last two at one time."""
    return dataset_of(
        [f"u{user:02},i{(user + step) % 7},{100 + user + min(step, 3)}" for user in range(50) for step in range(5)]
    )


def test_of_users_apart_nothing_is_learned_before_they_are_asked(fifty):
    split = split_dataset(fifty, SplitConfig(protocol="user-disjoint", validation_fraction=0.2))
    tested, validated = set(split.test.user_index.tolist()), set(split.validation.user_index.tolist())
    assert 4 <= len(tested) <= 6  # a tenth, and a fifth
    assert 8 <= len(validated) <= 12
    assert not tested & validated
    learned, in_the_end = of_users(split.train.positions(), fifty), of_users(split.full.positions(), fifty)
    assert learned == set(range(1, 51)) - tested - validated
    assert in_the_end == set(range(1, 51)) - tested
    for asked in (split.test, split.validation):
        assert asked.target.tolist() == (fifty.user_offsets[asked.user_index + 1] - 1).tolist()
        assert asked.history_start.tolist() == fifty.user_offsets[asked.user_index].tolist()
    assert split.split_time is None


def test_the_same_users_are_apart_whatever_happened_and_whatever_else_is_set(fifty):
    tested = split_dataset(fifty, SplitConfig(protocol="user-disjoint")).test.user_index.tolist()
    blind = fifty.blinded(np.arange(fifty.num_interactions))
    for dataset, options in ((fifty, {"ties": "strict"}), (fifty, {"train_days": 1e-3}), (blind, {})):
        split = split_dataset(dataset, SplitConfig(protocol="user-disjoint", **options))
        assert split.test.user_index.tolist() == tested


def test_strict_ties_hold_for_users_apart_too(fifty):
    by_file = split_dataset(fifty, SplitConfig(protocol="user-disjoint"))
    strict = split_dataset(fifty, SplitConfig(protocol="user-disjoint", ties="strict"))
    for asked, earlier in ((by_file.test, strict.test), (by_file.validation, strict.validation)):
        assert (asked.target - asked.history_end).tolist() == [0] * len(asked)
        assert (earlier.target - earlier.history_end).tolist() == [1] * len(earlier)
        assert (fifty.timestamp[earlier.history_end - 1] < fifty.timestamp[earlier.target]).all()
    everybody_at_once = fifty.of_users(np.arange(51))
    everybody_at_once.timestamp = np.full(250, 100)
    split = split_dataset(everybody_at_once, SplitConfig(protocol="user-disjoint", ties="strict"))
    assert (len(split.test), split.unusable_users) == (0, len(strict.test))


def test_train_days_forgets_what_is_older(dataset_of):
    log = [f"a,i{day},{day * 86_400 + 86_400}" for day in range(10)]
    split = split_dataset(dataset_of(log), SplitConfig(train_days=2, split_time=9 * 86_400))
    assert split.full.positions().tolist() == [6, 7]


def test_everything_leaves_no_test_and_lets_the_final_model_see_all(dataset_of):
    for protocol in ("temporal", "leave-one-out"):
        split = split_dataset(dataset_of(LOG), SplitConfig(protocol=protocol, everything=True))
        assert len(split.test) == 0
        assert split.full.num_interactions == len(LOG)
        assert split.train.num_interactions < len(LOG)


def test_a_split_time_outside_the_log_is_refused(dataset_of):
    with pytest.raises(ConfigError, match="outside the log, which runs from 10 to 40"):
        split_dataset(dataset_of(LOG), SplitConfig(split_time=41))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"protocol": "random"}, "choose temporal, leave-one-out, user-disjoint"),
        ({"ties": "loose"}, "choose strict or file"),
        ({"test_fraction": 0.9}, "between 0 and 0.5"),
        ({"train_days": 0.0}, "has to be positive"),
    ],
)
def test_options_out_of_range_are_refused(option, message):
    with pytest.raises(ConfigError, match=message):
        SplitConfig(**option)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(1, 12)), min_size=3, max_size=40),
    st.sampled_from(["temporal", "leave-one-out", "user-disjoint"]),
    st.sampled_from(["strict", "file"]),
)
def test_nothing_that_is_asked_was_learned_from(rows, protocol, ties):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log.csv"
        path.write_text("user_id,item_id,timestamp\n" + "".join(f"u{u},i{i},{t}\n" for u, i, t in rows))
        dataset = Dataset.from_files(path)
        split = split_dataset(dataset, SplitConfig(protocol=protocol, ties=ties))
        time = dataset.timestamp
        for asked, learned in ((split.validation, split.train), (split.test, split.full)):
            assert not np.isin(asked.target, learned.positions()).any()
            assert (asked.history_end > asked.history_start).all()
            assert (asked.history_end <= asked.target).all()
            if ties == "strict" or protocol == "temporal":
                assert (time[asked.history_end - 1] < time[asked.target]).all()
        if protocol == "temporal":
            assert time[split.full.positions()].max(initial=0) < split.split_time

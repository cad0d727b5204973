import h5py
import numpy as np
import polars as pl
import pytest

from recloom.dataset import PADDING_INDEX, CategoryColumn, Dataset, NumberColumn
from recloom.errors import ArtifactError

LOG = ["b,007,300", "a,x,200", "a,007,100", "b,y,400"]


def test_items_follow_the_catalogue_then_the_log(dataset_of):
    dataset = dataset_of(LOG, ["y,Yes", "007,Bond"])
    assert dataset.items.ids == ["y", "007", "x"]
    assert dataset.item_table["title"].to_list() == ["Yes", "Bond", ""]


def test_interactions_are_ordered_by_user_then_time(dataset_of):
    dataset = dataset_of(LOG)
    assert dataset.users.ids == ["a", "b"]
    assert dataset.user_offsets.tolist() == [0, 0, 2, 4]
    assert [dataset.items.id_of(i) for i in dataset.item_index] == ["007", "x", "007", "y"]
    assert dataset.timestamp.tolist() == [100, 200, 300, 400]
    assert dataset.history_of("b") == slice(2, 4)
    assert dataset.history_of("nobody") == slice(0, 0)


def test_unknown_ids_are_padding_and_padding_is_no_id(dataset_of):
    items = dataset_of(LOG).items
    assert items.indices_of(["007", "7"]).tolist() == [1, PADDING_INDEX]
    with pytest.raises(IndexError, match="not between 1 and 3"):
        items.id_of(PADDING_INDEX)


def test_words_are_coded_and_numbers_stored_as_they_are(dataset_of):
    log = ["a,x,1,phone,10", "a,y,2,,", "a,z,3,web,30.25"]
    context = dataset_of(log, header="user_id,item_id,timestamp,device,price").context
    device, price = context["device"], context["price"]
    assert isinstance(device, CategoryColumn)
    assert (device.vocabulary.ids, device.values.tolist()) == (["phone", "web"], [1, PADDING_INDEX, 2])
    assert isinstance(price, NumberColumn)
    assert price.values.dtype == np.float64
    assert np.array_equal(price.values, [10, np.nan, 30.25], equal_nan=True)


def test_a_reopened_dataset_is_the_same(dataset_of, tmp_path):
    dataset = dataset_of(LOG, ["x,Ex"])
    dataset.copy_to(tmp_path)
    again = Dataset.open(tmp_path)
    assert again.fingerprint == dataset.fingerprint
    assert again.items.ids == dataset.items.ids
    assert again.item_table.equals(dataset.item_table)
    assert np.array_equal(again.item_index, dataset.item_index)


def test_the_fingerprint_tells_other_data_apart(dataset_of):
    assert dataset_of(LOG).fingerprint == dataset_of(LOG).fingerprint
    assert dataset_of(LOG).fingerprint != dataset_of([*LOG, "b,y,500"]).fingerprint


def test_new_items_follow_and_changed_ones_stay_in_place(dataset_of, tmp_path):
    dataset = dataset_of(LOG, ["x,Ex"])
    more = dataset.with_items(pl.DataFrame({"item_id": ["new", "x"], "title": ["New", "Changed"]}))
    assert more.items.ids == [*dataset.items.ids, "new"]
    assert more.item_table["title"].to_list()[0] == "Changed"
    more.copy_to(tmp_path)
    assert Dataset.open(tmp_path).item_table["title"].to_list() == more.item_table["title"].to_list()
    assert dataset.items.ids == ["x", "007", "y"]


HEADER = "user_id,item_id,timestamp,behavior,device,price"
LONG_LOG = [
    f"u{user},i{(user + step) % 5},{1_000 + 10 * user + step},"
    f"{['view', 'buy'][step % 2]},{['web', 'phone'][user % 2]},{user + step}"
    for user in range(6)
    for step in range(user % 4 + 1)
]


def events_of(dataset, user_id):
    """Return everything that is known of a user's interactions."""
    some = dataset.history_of(user_id)
    return {
        "items": dataset.item_index[some].tolist(),
        "times": dataset.timestamp[some].tolist(),
        "behaviors": dataset.behavior.values[some].tolist(),
        **{name: column.values[some].tolist() for name, column in dataset.context.items()},
    }


def test_a_dataset_of_some_users_holds_their_interactions_and_no_others(dataset_of):
    dataset = dataset_of(LONG_LOG, ["i3,Three"], header=HEADER)
    chosen = dataset.users.indices_of(["u5", "u2"])
    fewer = dataset.of_users(chosen)
    assert fewer.num_interactions == len(fewer.item_index) == len(fewer.timestamp) == 2 + 3
    assert fewer.user_offsets[-1] == fewer.num_interactions
    for user in dataset.users.ids:
        some = fewer.history_of(user)
        assert (some.stop - some.start > 0) == (user in ("u5", "u2"))
        if user in ("u5", "u2"):
            assert events_of(fewer, user) == events_of(dataset, user)
    assert fewer.users.ids == dataset.users.ids  # everybody keeps their index, and so do the items
    assert fewer.items.ids == dataset.items.ids
    assert dataset.num_interactions == len(LONG_LOG) == len(dataset.item_index)  # what it was taken from stays


def test_blinding_makes_up_what_happened_at_some_positions_and_nothing_else(dataset_of):
    dataset = dataset_of(LONG_LOG, header=HEADER)
    hidden = np.arange(5, dataset.num_interactions)
    blind = dataset.blinded(hidden)
    for name in ("timestamp", "user_offsets"):
        assert np.array_equal(getattr(blind, name), getattr(dataset, name))
    for values, blinded in [
        (dataset.item_index, blind.item_index),
        (dataset.behavior.values, blind.behavior.values),
        *((dataset.context[name].values, blind.context[name].values) for name in ("device", "price")),
    ]:
        assert blinded[:5].tolist() == values[:5].tolist()
        assert blinded[5:].tolist() != values[5:].tolist()
        assert blinded.dtype == values.dtype
    assert set(blind.item_index) <= set(range(1, 6))
    assert np.array_equal(blind.item_index, dataset.blinded(hidden).item_index)  # made up the same each time
    assert not np.array_equal(blind.item_index, dataset.blinded(hidden, seed=1).item_index)


def test_a_missing_damaged_foreign_or_older_file_is_told_apart(tmp_path):
    with pytest.raises(ArtifactError, match=r"no dataset at .*; make one with: recloom prepare"):
        Dataset.open(tmp_path)
    path = tmp_path / "dataset.h5"
    path.write_bytes(b"not HDF5")
    with pytest.raises(ArtifactError, match="cannot be read as a dataset"):
        Dataset.open(tmp_path)
    with h5py.File(path, "w"):
        pass
    with pytest.raises(ArtifactError, match="not a recloom dataset"):
        Dataset.open(tmp_path)
    with h5py.File(path, "w") as file:
        file.attrs["format"], file.attrs["version"] = "recloom-dataset", 99
    with pytest.raises(ArtifactError, match=r"has dataset format 99.*prepare it again"):
        Dataset.open(tmp_path)

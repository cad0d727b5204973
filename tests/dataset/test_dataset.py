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


def test_context_is_coded_or_scaled_with_stored_statistics(dataset_of):
    log = ["a,x,1,phone,10", "a,y,2,,20", "a,z,3,web,30"]
    context = dataset_of(log, header="user_id,item_id,timestamp,device,price").context
    device, price = context["device"], context["price"]
    assert isinstance(device, CategoryColumn)
    assert (device.vocabulary.ids, device.values.tolist()) == (["phone", "web"], [1, PADDING_INDEX, 2])
    assert isinstance(price, NumberColumn)
    assert (price.mean, round(price.deviation, 3)) == (20.0, 8.165)
    assert price.values == pytest.approx([-1.2247, 0, 1.2247], abs=1e-4)


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

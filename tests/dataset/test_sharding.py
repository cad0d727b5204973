"""A part of the people as a dataset of its own."""

import numpy as np

from recloom.dataset import dataset_part, log_of, shard_of, shard_positions, without

HEADER = "user_id,item_id,timestamp,device,visit"
LOG = [
    "ann,i1,10,web,v1",
    "ann,hers,20,web,v2",
    "bob,i2,5,phone,v3",
    "bob,his,15,phone,v4",
    "bob,i1,25,oven,v5",
]
ITEMS = ["i1,film one", "i2,film two", "i3,film three"]


def test_a_part_knows_the_catalogue_and_what_its_own_people_did(dataset_of):
    dataset = dataset_of(LOG, ITEMS, HEADER)
    part = dataset_part(dataset, np.array([2, 3, 4]), most_words=10)
    assert list(part.items.ids) == ["i1", "i2", "i3", "his"]
    assert list(part.users.ids) == ["bob"]
    assert part.context["device"].vocabulary.ids == ["oven", "phone"]
    assert log_of(part)["timestamp"].to_list() == [5, 15, 25]


def test_a_column_that_is_an_id_in_the_whole_log_is_none_in_a_part(dataset_of):
    dataset = dataset_of(LOG, ITEMS, HEADER)
    assert list(dataset_part(dataset, np.array([2, 3, 4]), most_words=4).context) == ["device"]


def test_everybody_is_in_one_shard_up_to_where_learning_ends(dataset_of):
    dataset = dataset_of(LOG, ITEMS, HEADER)
    end_U = dataset.user_offsets[1:] - np.array([0, 1, 1])  # the last interaction of everybody is held out
    positions = shard_positions(dataset, end_U, 4)
    expected = {shard_of("ann", 4): [0], shard_of("bob", 4): [2, 3]}
    assert [one.tolist() for one in positions] == [expected.get(shard, []) for shard in range(4)]


def test_an_item_that_only_they_had_leaves_with_people_unless_the_catalogue_describes_it(dataset_of):
    dataset = dataset_of([*LOG, "ann,i3,30,web,v6"], ITEMS, HEADER)
    assert list(without(dataset, users=["ann"]).items.ids) == ["i1", "i2", "i3", "his"]

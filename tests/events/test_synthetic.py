"""What is made up has what it says, no more or less of it, and the same each time."""

import numpy as np
import polars as pl
import pytest

from recloom import Dataset, Recommender
from recloom.errors import ConfigError
from recloom.events import Synthetic, synthetic, write_synthetic


def read(folder):
    return pl.read_parquet(folder / "interactions" / "*.parquet"), pl.read_parquet(folder / "items" / "*.parquet")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "log"
    write_synthetic(folder, Synthetic(2_000, 600, 30_000))
    return folder


def test_it_has_as_much_as_was_asked_for_in_the_order_of_users_and_time(log):
    interactions, items = read(log)
    assert (len(interactions), interactions["user_id"].n_unique(), len(items)) == (30_000, 2_000, 600)
    assert items["item_id"].to_list() == list(range(600))
    assert interactions["item_id"].is_in(items["item_id"]).all()
    assert interactions.equals(interactions.sort("user_id", "timestamp", maintain_order=True))
    assert interactions["timestamp"].min() >= synthetic.BEGIN
    assert interactions["timestamp"].max() <= synthetic.BEGIN + synthetic.DURATION


def test_a_part_depends_on_seed_and_number_alone(log, tmp_path, monkeypatch):
    write_synthetic(tmp_path / "again", Synthetic(2_000, 600, 30_000))
    for mine, other in zip(read(log), read(tmp_path / "again"), strict=True):
        assert mine.equals(other)
    write_synthetic(tmp_path / "other", Synthetic(2_000, 600, 30_000, seed=1))
    assert not read(log)[0].equals(read(tmp_path / "other")[0])
    monkeypatch.setattr(synthetic, "USERS_AT_ONCE", 700)
    told = []
    write_synthetic(tmp_path / "parts", Synthetic(2_000, 600, 30_000), lambda *done: told.append(done))
    assert told == [(700, 2_000), (1_400, 2_000), (2_000, 2_000)]
    interactions, _ = read(tmp_path / "parts")
    assert (len(interactions), interactions["user_id"].n_unique()) == (30_000, 2_000)


def test_few_items_are_taken_often_and_new_ones_appear(log):
    interactions, _ = read(log)
    counts = interactions["item_id"].value_counts()["count"].sort(descending=True)
    assert counts[:60].sum() > 0.2 * counts.sum()
    middle = synthetic.BEGIN + synthetic.DURATION // 2
    before = interactions.filter(pl.col("timestamp") < middle)["item_id"].unique()
    late = interactions.filter(pl.col("timestamp") > middle + synthetic.DURATION // 4)["item_id"]
    assert (~late.is_in(before)).mean() > 0.1


def test_what_comes_next_can_be_learned(log):
    dataset = Dataset.from_files(log / "interactions", log / "items")
    split = {"protocol": "leave-one-out"}
    quality = {
        model: Recommender.fit(dataset, model, settings={"split": split}).evaluate([10]).metrics["NDCG@10"].mean
        for model in ("popular", "markov")
    }
    assert quality["markov"] > 3 * quality["popular"]


@pytest.mark.parametrize(
    ("users", "items", "interactions", "words"),
    [(0, 5, 5, "users is 0"), (5, 0, 5, "items is 0"), (5, 5, 4, "at least one"), (1, 5, 200, "on average at most")],
)
def test_what_cannot_be_is_refused(users, items, interactions, words):
    with pytest.raises(ConfigError, match=words):
        Synthetic(users, items, interactions)


def test_one_item_and_one_user_and_a_folder_that_is_there(tmp_path):
    write_synthetic(tmp_path / "one", Synthetic(1, 1, 3))
    assert read(tmp_path / "one")[0]["item_id"].to_list() == [0, 0, 0]
    with pytest.raises(ConfigError, match="is there already"):
        write_synthetic(tmp_path / "one", Synthetic(1, 1, 3))


def test_the_busiest_take_no_more_than_the_limit_and_nobody_takes_nothing():
    length = synthetic._lengths(np.random.default_rng(0), 40, 40 * 100)
    assert (length.sum(), length.min() >= 1, length.max() <= synthetic.MOST_STEPS) == (4_000, True, True)

"""Data that is short of something: a model comes of it, or one sentence says why it cannot."""

import numpy as np
import pytest

from recloom import Recommender
from recloom.errors import ConfigError, RecloomError, TrainingError

QUICK = {
    "encoder": {"name": "hashing"},
    "training": {"epochs": 2},
    "model": {"embedding_dim": 16},
}


def fit(dataset, protocol="temporal", **settings):
    return Recommender.fit(dataset, settings=QUICK | {"split": {"protocol": protocol}} | settings)


def walk(users, steps, items, start=1_000_000, gap=100):
    return [f"u{u:04},i{(u + s) % items},{start + s * gap + u}" for u in range(users) for s in range(steps)]


def recommends(recommender, history):
    items = [item.item_id for item in recommender.recommend(history=history, k=3, include_seen=True).items]
    assert len(items) == len(set(items)) > 0
    return items


@pytest.mark.parametrize("protocol", ["temporal", "leave-one-out"])
def test_no_text_at_all(dataset_of, protocol):
    recommender = fit(dataset_of(walk(40, 8, 12)), protocol)
    assert recommender.model.towers[0].items.fusion == "id"
    recommends(recommender, ["i1", "i2"])
    recommender.evaluate([10])


def test_text_for_half_of_the_items(dataset_of):
    titles = [f"i{item},{'film about ' + 'abcdefgh'[item // 2] * 5 if item % 2 else ''}" for item in range(12)]
    recommender = fit(dataset_of(walk(40, 8, 12), [*titles, "new,film about bbbbb", "silent,"]))
    vectors = recommender.model.similarity_vectors()
    assert bool(np.isfinite(vectors.detach().numpy()).all())
    rows = recommender.dataset.items.index_of
    assert vectors[rows("silent")].abs().sum() == 0  # nothing is known of it
    assert vectors[rows("new")].abs().sum() > 0
    recommends(recommender, ["i1", "i2"])


@pytest.mark.parametrize("protocol", ["temporal", "leave-one-out"])
def test_fifty_interactions(dataset_of, protocol):
    recommender = fit(dataset_of(walk(10, 5, 6)), protocol)
    recommends(recommender, ["i1"])


def test_one_item(dataset_of):
    dataset = dataset_of([f"u{u},only,{1_000 + 10 * s + u}" for u in range(10) for s in range(4)])
    recommender = fit(dataset, "leave-one-out")
    assert recommends(recommender, ["only"]) == ["only"]


def test_one_user_with_very_many_events(dataset_of):
    rng = np.random.default_rng(0)
    log = [f"machine,i{item},{1_000_000 + time}" for time, item in enumerate(rng.integers(30, size=100_000))]
    recommender = fit(dataset_of([*log, *walk(30, 6, 12)]), training={"epochs": 1, "batch_size": 8192})
    recommends(recommender, ["i1", "i2"])


def test_equal_timestamps_have_no_before_and_after(dataset_of):
    dataset = dataset_of([f"u{u},i{(u + s) % 12},1000000" for u in range(40) for s in range(8)])
    with pytest.raises((ConfigError, TrainingError)) as refused:
        fit(dataset)
    assert "\n" not in str(refused.value)
    recommender = fit(dataset, "leave-one-out")  # the log's own order still says what came after what
    recommends(recommender, ["i1", "i2"])


def test_a_single_interaction(dataset_of):
    with pytest.raises(RecloomError) as refused:
        fit(dataset_of(["u,i,1000"]), "leave-one-out")
    assert "at least one pair" in str(refused.value)

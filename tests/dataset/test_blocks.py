"""What goes through the log in blocks, so that it need not fit into memory, finds what looking at all of it does."""

import numpy as np
import pytest
import torch

from recloom import run_config
from recloom.dataset import SplitConfig, split_dataset, splits
from recloom.models import TrainingData
from recloom.models.circumstances import Circumstances
from recloom.models.popularity_prior import PopularityPrior
from recloom.run_config import _people_come_back


@pytest.fixture
def dataset(dataset_of):
    rng = np.random.default_rng(0)
    log = [
        f"u{user},i{rng.integers(12)},{rng.integers(40) * 50_000},{rng.normal(1e6, 1.0) if rng.random() < 0.9 else ''}"
        for user in range(60)
        for _ in range(rng.integers(1, 9))
    ]
    return dataset_of(log, header="user_id,item_id,timestamp,price")


@pytest.fixture(params=[1, 7, 100])
def blocks(request, monkeypatch):
    monkeypatch.setattr(splits, "INTERACTIONS_AT_ONCE", request.param)
    monkeypatch.setattr(splits, "TIME_BINS", 5)


def test_blocks_hold_every_position_once(dataset, blocks):
    segments = split_dataset(dataset, SplitConfig()).train
    found = np.concatenate([block.positions() for block in segments.blocks()])
    assert found.tolist() == segments.positions().tolist()
    longest = int((segments.end - segments.start).max())
    assert max(block.num_interactions for block in segments.blocks()) <= splits.INTERACTIONS_AT_ONCE + longest
    nothing = splits.Segments(segments.start, segments.start)
    assert sum(len(block.start) for block in nothing.blocks()) == len(segments.start)


def test_the_split_begins_where_a_share_of_the_sorted_times_says(dataset, blocks):
    times = np.sort(dataset.timestamp)
    for fraction in (0.01, 0.1, 0.25, 0.4):
        split = split_dataset(dataset, SplitConfig(test_fraction=fraction))
        assert split.split_time == times[round((1 - fraction) * len(times))]
    early = times[: np.searchsorted(times, 1_000_000)]
    split = split_dataset(dataset, SplitConfig(split_time=1_000_000, validation_fraction=0.2))
    train_end = early[round(0.8 * len(early))]
    assert split.train.num_interactions == (times < train_end).sum()


def test_the_time_of_a_split_is_found_however_times_are_spread(dataset_of, blocks):
    for times in ([7] * 9, [0, *range(1_600_000_000, 1_600_000_009)], [1, 2, 2, 2, 2, 2, 2, 2, 3]):
        dataset = dataset_of([f"u{user},i,{time}" for user, time in enumerate(times)])
        assert splits._quantile(dataset.timestamp, 0.9) == times[round(0.9 * len(times))]
        assert splits._quantile(dataset.timestamp, 0.5, until=times[-1] + 1) == times[round(0.5 * len(times))]


def test_histories_end_where_times_change_if_ties_are_strict(dataset):
    split = split_dataset(dataset, SplitConfig(protocol="leave-one-out", ties="strict"))
    for asked in (split.validation, split.test):
        assert len(asked)
        for user, start, end, target in zip(*asked.__dict__.values(), strict=True):
            history = range(dataset.user_offsets[user], target)
            assert list(range(start, end)) == [
                at for at in history if dataset.timestamp[at] < dataset.timestamp[target]
            ]


def test_what_is_learned_from_blocks_is_what_is_learned_from_everything(dataset, monkeypatch):
    def learn():
        data = TrainingData(dataset, split_dataset(dataset, SplitConfig()).train)
        prior, circumstances = PopularityPrior(len(dataset.items)), Circumstances(dataset, 4, of_requests=False)
        prior.prepare(data)
        circumstances.prepare(data)
        found = [prior.features_IP, prior.usual_lateness, prior.end, circumstances.mean_F, circumstances.deviation_F]
        return [*found, torch.from_numpy(data.item_counts(5.0)), _people_come_back(dataset, SplitConfig())]

    monkeypatch.setattr(run_config, "REPEATS_MATTER", 0.14)  # 147 of 1,000 interactions are with an item one had
    whole = learn()
    assert whole[-1]
    monkeypatch.setattr(splits, "INTERACTIONS_AT_ONCE", 7)
    torch.testing.assert_close(learn(), whole)
    price = dataset.context["price"].values[split_dataset(dataset, SplitConfig()).train.positions()]
    assert whole[3].item() == pytest.approx(np.nanmean(price), rel=1e-12)
    assert whole[4].item() == pytest.approx(np.nanstd(price.astype(np.float64)), rel=1e-6)

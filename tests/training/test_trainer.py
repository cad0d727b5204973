import dataclasses
import math

import numpy as np
import pytest
import torch

from recloom.dataset import Segments
from recloom.errors import ConfigError, TrainingError
from recloom.models import MODELS, TrainingData
from recloom.training import TrainingConfig, batches, train
from recloom.training.batches import shuffled_batches
from tests.conftest import fake_text

CONFIG = TrainingConfig(epochs=4, batch_size=64, patience=10)


@pytest.fixture
def run(cycle_dataset):
    """Train a small model and return it with the result."""

    def start(config=CONFIG, validate=None, **options):
        torch.manual_seed(0)
        weave = MODELS["weave"]
        model = weave(weave.Config(embedding_dim=8, hidden_dim=8), cycle_dataset, fake_text(cycle_dataset))
        offsets = cycle_dataset.user_offsets
        data = TrainingData(cycle_dataset, Segments(offsets[:-1], offsets[1:]))
        model.prepare(data)
        return model, train(model, data, config, validate=validate, **options)

    return start


def same_weights(one, other):
    """Equal up to the rounding of sums that threads share."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.allclose(a.double(), b.double(), atol=1e-4) for a, b in pairs)


def scripted(*scores):
    """Validate by a script instead of a measurement."""
    rest = iter(scores)
    return lambda: next(rest)


def test_training_stops_when_validation_gets_no_better_and_keeps_the_best_epoch(run):
    config = dataclasses.replace(CONFIG, epochs=10, patience=2)
    model, result = run(config, scripted(0.1, 0.3, 0.2, 0.2))
    assert (result.stopped, result.best_epoch, result.best_validation, len(result.curve)) == ("patience", 2, 0.3, 4)
    two_epochs, _ = run(dataclasses.replace(CONFIG, epochs=2))
    assert same_weights(model, two_epochs)


def test_loss_falls(run):
    _, result = run(dataclasses.replace(CONFIG, epochs=10))
    assert result.curve[-1].loss < result.curve[0].loss
    assert result.stopped == "epochs"


def test_a_budget_ends_training(run):
    _, result = run(dataclasses.replace(CONFIG, epochs=10_000, budget=0.3))
    assert result.stopped == "budget"
    assert result.curve[-1].seconds < 3


def test_the_seed_decides_everything(run):
    assert same_weights(run()[0], run()[0])
    assert not same_weights(run()[0], run(dataclasses.replace(CONFIG, seed=1))[0])


def test_a_run_that_goes_on_ends_where_an_unbroken_one_does(run, tmp_path):
    checkpoint = tmp_path / "state.safetensors"
    run(dataclasses.replace(CONFIG, epochs=2), scripted(0.1, 0.2), checkpoint=checkpoint, key="a")
    resumed, result = run(CONFIG, scripted(0.3, 0.4), checkpoint=checkpoint, key="a")
    whole, _ = run(CONFIG, scripted(0.1, 0.2, 0.3, 0.4))
    assert same_weights(resumed, whole)
    assert [epoch.validation for epoch in result.curve] == [0.1, 0.2, 0.3, 0.4]


def test_a_finished_run_that_is_started_again_trains_no_further(run, tmp_path):
    checkpoint, config = tmp_path / "state.safetensors", dataclasses.replace(CONFIG, epochs=10, patience=1)
    model, _ = run(config, scripted(0.2, 0.1), checkpoint=checkpoint, key="a")
    again, result = run(config, scripted(), checkpoint=checkpoint, key="a")
    assert (result.stopped, len(result.curve)) == ("patience", 2)
    assert same_weights(again, model)


def test_a_checkpoint_of_another_run_is_left_alone(run, tmp_path):
    checkpoint = tmp_path / "state.safetensors"
    run(dataclasses.replace(CONFIG, epochs=2), checkpoint=checkpoint, key="a")
    _, result = run(dataclasses.replace(CONFIG, epochs=3), checkpoint=checkpoint, key="b")
    assert len(result.curve) == 3


def test_ctrl_c_keeps_the_best_so_far(run):
    calls = []

    def validate():
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return float(len(calls))

    model, result = run(CONFIG, validate)
    assert (result.stopped, result.best_epoch) == ("interrupted", 2)
    assert same_weights(model, run(dataclasses.replace(CONFIG, epochs=2))[0])


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(run, tmp_path, monkeypatch):
    checkpoint = tmp_path / "state.safetensors"
    run(dataclasses.replace(CONFIG, epochs=1), checkpoint=checkpoint, key="a")
    kept = checkpoint.read_bytes()
    loss = MODELS["weave"].loss
    monkeypatch.setattr(MODELS["weave"], "loss", lambda self, histories: loss(self, histories) * math.nan)
    with pytest.raises(
        TrainingError, match=r"the loss is nan at epoch 2, step 1 of \d+ .*lower training.learning_rate"
    ):
        run(CONFIG, checkpoint=checkpoint, key="a")
    assert checkpoint.read_bytes() == kept


def test_a_log_without_pairs_cannot_teach_a_sequence(dataset_of):
    dataset = dataset_of(["a,x,1", "b,y,2"])
    weave = MODELS["weave"]
    model = weave(weave.Config(), dataset, None)
    data = TrainingData(dataset, Segments(dataset.user_offsets[:-1], dataset.user_offsets[1:]))
    with pytest.raises(TrainingError, match="no user has two interactions to learn from"):
        train(model, data, CONFIG, validate=None)


def test_options_out_of_range_are_refused():
    with pytest.raises(ConfigError, match=r"training.patience is 0; it has to be positive"):
        TrainingConfig(patience=0)


def test_every_window_is_in_one_batch_of_about_the_size_asked_for():
    lengths = np.random.default_rng(0).integers(2, 51, 3_000)
    found = list(shuffled_batches(lengths, 512, np.random.default_rng(1)))
    assert sorted(np.concatenate(found).tolist()) == list(range(3_000))
    sizes = [int(lengths[batch].sum()) for batch in found]
    assert max(sizes) <= 512 + 50
    padded = sum(int(lengths[batch].max()) * len(batch) for batch in found)
    assert padded / lengths.sum() < 1.05


def test_a_large_log_is_read_in_stretches_that_follow_each_other_by_chance(monkeypatch):
    monkeypatch.setattr(batches, "WINDOWS_SHUFFLED_TOGETHER", 256)
    monkeypatch.setattr(batches, "NEIGHBOURS", 16)
    lengths = np.random.default_rng(0).integers(2, 51, 3_072)
    order = np.concatenate(list(shuffled_batches(lengths, 512, np.random.default_rng(1))))
    assert sorted(order.tolist()) == list(range(3_072))
    for begin in range(0, 3_072, 256):
        stretches = np.unique(order[begin : begin + 256] // 16)
        assert len(stretches) == 16
        assert (np.diff(stretches) > 1).mean() > 0.5  # from all over the log
    uneven = [len(part) for part in batches._shuffled(3_073, np.random.default_rng(1))]
    assert sum(uneven) == 3_073
    assert min(uneven) > 200  # else an epoch would end with a few neighbours
    for part in batches._shuffled(3_072, np.random.default_rng(1)):
        assert (np.diff(part // 16) != 0).mean() > 0.5  # and not one stretch after the other
    other = np.concatenate(list(shuffled_batches(lengths, 512, np.random.default_rng(2))))
    assert not np.array_equal(np.unique(other[:256] // 16), np.unique(order[:256] // 16))


def test_what_is_older_is_read_less_often(cycle_dataset, dataset_of, monkeypatch):
    # Ten people long ago, ten one half-life before the newest ten.
    days = {0: 0, 1: 90, 2: 100}
    log = [
        f"{'abc'[age]}{user},i{(user + step) % 8},{1_000_000 + days[age] * 86_400 + step}"
        for age in days
        for user in range(10)
        for step in range(3)
    ]
    dataset = dataset_of(log)
    offsets = dataset.user_offsets
    data = TrainingData(dataset, Segments(offsets[:-1], offsets[1:]))
    weave = MODELS["weave"]
    model = weave(weave.Config(embedding_dim=8, hidden_dim=8, fusion="id"), dataset, None)
    model.prepare(data)
    read = []
    loss = model.loss
    monkeypatch.setattr(model, "loss", lambda h: (read.extend(h.user_index_B.tolist()), loss(h))[1])
    train(model, data, dataclasses.replace(CONFIG, epochs=200, half_life_days=10), validate=None)
    ages = ["abc".index(dataset.users.id_of(user)[0]) for user in read]
    share = np.bincount(ages, minlength=3) / (200 * 10)
    assert share[2] == 1
    assert share[1] == pytest.approx(0.5, abs=0.05)
    assert share[0] < 0.01

import itertools

import pytest
import torch

from recloom import fitting
from recloom.dataset import split_dataset
from recloom.fitting import fit_model
from recloom.run_config import RunConfig
from recloom.training import refit_checkpoint, remove_checkpoint

SETTINGS = {
    "encoder": {"name": "none"},
    "model": {"embedding_dim": 8, "hidden_dim": 8},
    "training": {"epochs": 4, "batch_size": 64},
}


def test_a_kill_while_training_again_on_everything_costs_an_epoch_too(dataset_of, tmp_path, monkeypatch):
    ever_better = itertools.count(1)
    monkeypatch.setattr(fitting, "_validated", lambda *_: float(next(ever_better)))
    log = [
        f"u{user},i{(user + step) % 9},{1_000_000 + step * 90_000 + user}" for user in range(40) for step in range(12)
    ]
    dataset = dataset_of(log)
    config = RunConfig.resolve("weave", dataset, SETTINGS)
    split = split_dataset(dataset, config.split)
    told = []

    def fit(checkpoint, killed_after=10_000):
        del told[:]

        def progress(what, done, total):
            if not told or told[-1] != what.split(",")[0]:
                told.append(what.split(",")[0])
            if len(told) > killed_after:
                raise RuntimeError("killed")

        return fit_model(dataset, split, config, None, checkpoint=checkpoint, progress=progress)

    result, whole, refit = fit(None)
    assert refit
    assert result.best_epoch == 4
    searched = len(result.curve)
    checkpoint = tmp_path / "state"
    with pytest.raises(RuntimeError, match="killed"):
        fit(checkpoint, killed_after=searched + 2)
    _, resumed, _ = fit(checkpoint)
    assert told[0] == "epoch 3"  # of the second training: the first was done, and two epochs of it
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
    assert refit_checkpoint(checkpoint).exists()
    remove_checkpoint(checkpoint)
    assert not list(tmp_path.glob("state*"))

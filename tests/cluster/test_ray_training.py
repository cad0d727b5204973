"""Training on a Ray cluster of two nodes that run on this machine."""

import threading
import time
from functools import partial

import numpy as np
import optuna
import pytest
import torch

from recloom import Recommender
from recloom.dataset import SplitConfig, split_dataset
from recloom.errors import ArtifactError, DataError, TrainingError
from recloom.fitting import fit_model, new_model
from recloom.models import TrainingData
from recloom.run_config import RunConfig
from recloom.tuning import _halves, _merged, _ndcg, _suggest, tune

pytest.importorskip("ray", reason="needs the extra ray")
import psutil

from recloom.cluster import connected, connection, training
from recloom.cluster.training import RayFitter
from recloom.cluster.tuning import try_on_ray
from tests.cluster.conftest import add_node, epochs_in

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("default")]

EPOCHS = 40
# Nothing is left to each worker's own chance, so that two of them learn what one does.
SETTINGS = {
    "split": {"protocol": "leave-one-out"},
    "encoder": {"name": "none"},
    "model": {
        "embedding_dim": 8,
        "hidden_dim": 8,
        "dropout": 0.0,
        "id_dropout": 0.0,
        "request_dropout": 0.0,
        "num_negatives": 0,
    },
    "training": {"batch_size": 64, "epochs": EPOCHS, "patience": EPOCHS, "learning_rate": 5e-4},
}


@pytest.fixture(scope="module")
def cluster():
    """Start a head node and another node with room for one worker each, and be part of them."""
    connection.import_ray()
    from ray.cluster_utils import Cluster

    two = Cluster()
    try:
        add_node(two, num_cpus=1, include_dashboard=False)
        add_node(two, num_cpus=1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connection, "SECONDS_TO_LOOK", 600.0)  # machines that run tests are busy
            with connected(two.address):
                yield two
    finally:
        two.shutdown()


def test_trials_side_by_side_are_judged_as_trials_one_by_one(cluster, dataset_of, tmp_path):
    rng = np.random.default_rng(0)
    log = []
    for user in range(60):
        item = int(rng.integers(20))
        for at in np.sort(rng.integers(10_000_000, size=12)).tolist():
            item = (item + 1) % 20 if rng.random() < 0.8 else int(rng.integers(20))
            log.append(f"u{user:02},i{item:02},{at + 1}")
    dataset, no_text = dataset_of(log), {"encoder": {"name": "none"}}
    first = tune(dataset, "item-knn", settings=no_text, trials=3, folder=tmp_path / "tuned", on_ray=True)
    again = tune(dataset, "item-knn", settings=no_text, trials=4, folder=tmp_path / "tuned", on_ray=True)
    assert [trial.number for trial in again.trials] == [0, 1, 2, 3]
    assert again.trials[:3] == first.trials
    split = split_dataset(dataset, SplitConfig())
    chooser, _ = _halves(split.validation)
    for trial in again.trials:
        config = RunConfig.resolve("item-knn", dataset, _merged(no_text, trial.settings))
        model = new_model(dataset, config, None)
        model.count(TrainingData(dataset, split.train))
        assert trial.value == _ndcg(model, dataset, config, chooser).mean()


def test_what_one_worker_finds_wrong_ends_them_all_in_its_own_words(cluster, cycle_dataset, monkeypatch):
    class Stumbling(training.Teller):  # only the worker that leads tells of its steps; the other waits for it
        def __call__(self, what, done, total):
            if what.startswith("epoch 2"):
                raise DataError("the one that leads has stumbled")

    monkeypatch.setattr(training, "Teller", Stumbling)
    with pytest.raises(DataError, match=r"^the one that leads has stumbled$"):
        Recommender.fit(cycle_dataset, settings=SETTINGS, fitter=RayFitter(2))


def test_a_trial_that_fails_is_not_dropped_and_one_that_breaks_down_is(cluster, tmp_path):
    def value_of(options, report):
        if options["x"] == "broken":
            raise TrainingError("the loss is nan")
        if options["x"] == "wrong":
            raise ArtifactError("another machine sees no dataset")
        return 0.5

    def trials_of(*choices):
        study = optuna.create_study(direction="maximize")
        suggest = partial(_suggest, space={"x": choices})
        options = {"budget": None, "seed": 0, "metric": "NDCG@10", "warm": (5, 3)}
        try_on_ray(value_of, suggest, study.study_name, study._storage, 3, **options)
        return study.trials

    states = [trial.state.name for trial in trials_of("broken")]
    assert states == ["FAIL"] * 3
    with pytest.raises(ArtifactError, match=r"^another machine sees no dataset$"):
        trials_of("wrong")


def kill_a_worker(cluster):
    processes = psutil.Process().children(recursive=True)
    next(process for process in processes if "RayTrainWorker" in "".join(process.cmdline())).kill()


def lose_a_node(cluster):
    cluster.remove_node(cluster.worker_nodes.copy().pop())


@pytest.mark.parametrize("lose", [kill_a_worker, lose_a_node])
def test_what_is_lost_in_training_changes_nothing_in_the_result(cluster, cycle_dataset, tmp_path, lose):
    checkpoint = tmp_path / "checkpoint"
    seen = []

    def lose_it():
        while len(epochs_in(checkpoint)) < 2:
            time.sleep(0.05)
        lose(cluster)
        seen.append(len(epochs_in(checkpoint)))

    losing = threading.Thread(target=lose_it)
    losing.start()
    fitted = Recommender.fit(cycle_dataset, settings=SETTINGS, checkpoint=checkpoint, fitter=RayFitter(2))
    losing.join()
    assert 2 <= seen[0] < EPOCHS  # it was lost in the middle
    config = RunConfig.resolve("weave", cycle_dataset, SETTINGS)
    result, model, _ = fit_model(cycle_dataset, split_dataset(cycle_dataset, config.split), config, None)
    assert [epoch["epoch"] for epoch in fitted.run.curve] == list(range(1, EPOCHS + 1))
    assert fitted.run.best_epoch == result.best_epoch
    assert fitted.run.validation_ndcg_at_10 == pytest.approx(result.best_validation, abs=1e-3)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(fitted.model.state_dict()[name].double(), tensor.double(), atol=1e-3, rtol=1e-2)
    assert not list(tmp_path.glob("*.ray"))  # what Ray kept of the run is gone

"""A Ray cluster that has no room for any work when work is given to it, and grows while it waits and while it works."""

import os
import threading
import time

import pytest
import torch

pytest.importorskip("ray", reason="the extra ray is not installed")

from recloom import Recommender
from recloom.cluster import connected, connection, training
from recloom.cluster.tasks import spread
from recloom.cluster.training import RayFitter
from recloom.dataset import split_dataset
from recloom.fitting import fit_model
from recloom.run_config import RunConfig
from tests.cluster.conftest import add_node
from tests.cluster.test_ray_training import SETTINGS

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("default")]

JOBS, AT_ONCE = 24, 6
EPOCHS, ALONE = 8, 3
SECONDS_TO_JOIN = 240.0


@pytest.fixture
def growing(monkeypatch):
    """Start a head node that does no work, and be part of it."""
    connection.import_ray()
    from ray.cluster_utils import Cluster

    monkeypatch.setattr(connection, "SECONDS_TO_LOOK", 600.0)  # machines that run tests are busy
    cluster = Cluster()
    try:
        add_node(cluster, num_cpus=0, include_dashboard=False)
        with connected(cluster.address) as joined:
            assert joined.cpus == 0
            yield cluster
    finally:
        cluster.shutdown()


def place_of(job, *known):
    """Return the node that does a job; all but the first wait until jobs are done on two of them."""
    import ray

    folder = known[-1]
    node = ray.get_runtime_context().get_node_id()
    (folder / node).touch()
    until = time.monotonic() + SECONDS_TO_JOIN
    while job >= AT_ONCE and len(os.listdir(folder)) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    return node


@pytest.mark.parametrize("loaded", [None, lambda folder: "a model"], ids=["tasks", "workers that load a model"])
def test_nodes_that_join_while_work_waits_take_it(growing, tmp_path, loaded):
    done = []
    work = spread(range(JOBS), place_of, (tmp_path,), loaded=loaded)
    working = threading.Thread(target=lambda: done.extend(work), daemon=True)
    working.start()
    working.join(5)
    assert working.is_alive()
    assert done == []

    first = add_node(growing, num_cpus=1)
    until = time.monotonic() + SECONDS_TO_JOIN
    while not done and time.monotonic() < until:
        time.sleep(0.1)
    assert {node for _, node in done} == {first.node_id}

    second = add_node(growing, num_cpus=1)
    working.join(SECONDS_TO_JOIN)
    assert sorted(job for job, _ in done) == list(range(JOBS))
    assert {node for _, node in done} == {first.node_id, second.node_id}


def test_training_begins_with_one_worker_and_goes_on_with_two(growing, cycle_dataset, monkeypatch, tmp_path):
    class Waiting(training.Teller):
        """Notes how many take part in an epoch; after the first ones, a worker that is alone waits for another."""

        def __call__(self, what, done, total):
            import ray.train

            super().__call__(what, done, total)
            if what.startswith("epoch"):
                epoch, size = int(what.split(",")[0].split()[1]), ray.train.get_context().get_world_size()
                (tmp_path / f"epoch {epoch} with {size}").touch()
                until = time.monotonic() + SECONDS_TO_JOIN
                while epoch > ALONE and size < 2 and time.monotonic() < until:
                    time.sleep(0.1)

    monkeypatch.setattr(training, "Teller", Waiting)
    settings = SETTINGS | {"training": {**SETTINGS["training"], "epochs": EPOCHS, "patience": EPOCHS}}
    fitted = []

    def fit():
        checkpoint = tmp_path / "checkpoint"
        fitted.append(Recommender.fit(cycle_dataset, settings=settings, checkpoint=checkpoint, fitter=RayFitter(2)))

    fitting = threading.Thread(target=fit, daemon=True)
    fitting.start()
    fitting.join(5)
    assert fitting.is_alive()
    assert not list(tmp_path.glob("epoch *"))

    add_node(growing, num_cpus=1)
    until = time.monotonic() + SECONDS_TO_JOIN
    while not (tmp_path / f"epoch {ALONE + 1} with 1").exists() and time.monotonic() < until:
        time.sleep(0.1)
    add_node(growing, num_cpus=1)
    fitting.join(2 * SECONDS_TO_JOIN)
    alone, together = range(1, ALONE + 2), range(ALONE + 1, EPOCHS + 1)
    expected = {f"epoch {epoch} with 1" for epoch in alone} | {f"epoch {epoch} with 2" for epoch in together}
    assert {path.name for path in tmp_path.glob("epoch *")} == expected

    config = RunConfig.resolve("weave", cycle_dataset, settings)
    _, model, _ = fit_model(cycle_dataset, split_dataset(cycle_dataset, config.split), config, None)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(fitted[0].model.state_dict()[name].double(), tensor.double(), atol=1e-3, rtol=1e-2)

"""A Ray cluster that has no room for any work when work is given to it, and grows while it waits."""

import os
import threading
import time

import pytest

pytest.importorskip("ray", reason="the extra ray is not installed")

from recloom.cluster import connected, connection
from recloom.cluster.tasks import spread
from tests.cluster.conftest import add_node

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("default")]

JOBS, AT_ONCE = 24, 6
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

"""A Ray cluster that has no worker node yet when work is given to it."""

import threading
import time

import pytest

pytest.importorskip("ray", reason="the extra ray is not installed")

from recloom.cluster import connected, connection
from recloom.cluster.tasks import spread
from tests.cluster.conftest import add_node

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("default")]


def test_nodes_that_join_while_work_waits_take_it(monkeypatch):
    connection.import_ray()
    from ray.cluster_utils import Cluster

    monkeypatch.setattr(connection, "SECONDS_TO_LOOK", 600.0)  # machines that run tests are busy
    growing = Cluster()

    def where(job, loaded):
        time.sleep(0.5)
        return job, loaded

    def load():
        import os

        return os.getpid()

    try:
        add_node(growing, num_cpus=0, include_dashboard=False)
        with connected(growing.address) as joined:
            assert joined.cpus == 0
            done = {}
            working = threading.Thread(target=lambda: done.update(spread(range(60), where, loaded=load)))
            working.start()
            time.sleep(5)
            add_node(growing, num_cpus=3)  # here, because a node takes signals, which only the main thread may
            working.join()
        assert [done[place][0] for place in range(60)] == list(range(60))
        assert len({process for _, process in done.values()}) > 1  # the pool has grown with the cluster
    finally:
        growing.shutdown()

"""A Ray cluster whose object store is full, and then one whose head node is lost."""

import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("ray", reason="the extra ray is not installed")

from recloom.cluster import connected, connection
from recloom.cluster.tasks import spread
from recloom.errors import RecloomError
from tests.cluster.conftest import add_node

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("default")]

WAITING = """
import sys, time
from pathlib import Path
from recloom.cluster import connected, connection

connection.SECONDS_TO_LOOK = 600.0
connection.SECONDS_TO_CHECK = 600.0
with connected(sys.argv[1]):
    Path(sys.argv[2]).touch()
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def small():
    """Start a node whose object store holds 80 MB and spills nothing."""
    connection.import_ray()
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        spilling = {"automatic_object_spilling_enabled": False}
        add_node(cluster, num_cpus=2, object_store_memory=80 * 2**20, include_dashboard=False, _system_config=spilling)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connection, "SECONDS_TO_LOOK", 600.0)  # machines that run tests are busy
            patch.setattr(connection, "SECONDS_TO_CHECK", 600.0)
            yield cluster
    finally:
        cluster.shutdown()


def test_a_full_object_store_is_said_in_one_sentence(small):
    full = r"the object store of the Ray cluster is full.*give the same command again with more room"
    with pytest.raises(RecloomError, match=full) as error, connected(small.address):
        list(spread([0], lambda job: np.zeros(2**27, dtype=np.uint8)))
    assert "\n" not in str(error.value)


def test_a_lost_head_node_ends_a_command_with_a_sentence(small, tmp_path):
    command = [sys.executable, "-c", WAITING, small.address, str(tmp_path / "ready")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as waiting:
        while not (tmp_path / "ready").exists():
            assert waiting.poll() is None
            time.sleep(0.2)
        small.head_node.kill_gcs_server()
        _, said = waiting.communicate(timeout=300)
    assert waiting.returncode == 1
    assert f"recloom: the head node of the Ray cluster at {small.address} is lost; what was finished is kept" in said

"""A Ray cluster whose object store is full, and so is the disk that it spills to."""

import numpy as np
import pytest

pytest.importorskip("ray", reason="the extra ray is not installed")

from recloom.cluster import connected, connection
from recloom.cluster.encoding import encode_on_cluster
from recloom.cluster.tasks import spread
from recloom.encoders import encode_texts, encoding, load_encoder
from recloom.errors import RecloomError
from recloom.run_config import EncoderConfig
from tests.cluster.conftest import add_node

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("default")]

STORE_BYTES = 80 * 2**20
FULL = (
    r"^the object store of the Ray cluster is full and so is the disk it spills to; what was finished is kept: give the"
    r" same command again with more room \(ray start --object-store-memory, or space under /tmp/ray\)$"
)


@pytest.fixture(scope="module")
def address():
    """Start a head node and a node that works, with the smallest stores there are, on a disk that Ray takes for full.

    To spill nothing would not do: Ray then puts what the store does not hold into files of its own.
    """
    connection.import_ray()
    from ray.cluster_utils import Cluster

    full_disk = {"local_fs_capacity_threshold": 0.0001}
    cluster = Cluster()
    try:
        options = {"include_dashboard": False, "_system_config": full_disk, "object_store_memory": 5 * STORE_BYTES}
        add_node(cluster, num_cpus=0, **options)
        add_node(cluster, num_cpus=2, object_store_memory=STORE_BYTES)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connection, "SECONDS_TO_LOOK", 600.0)  # machines that run tests are busy
            patch.setattr(connection, "SECONDS_TO_CHECK", 600.0)
            yield cluster.address
    finally:
        cluster.shutdown()


LARGE = np.ones(2 * STORE_BYTES, dtype=np.uint8)


@pytest.mark.parametrize(
    "work",
    [
        lambda: spread([0], lambda job: np.ones(2 * STORE_BYTES, dtype=np.uint8)),
        lambda: spread([LARGE], len),
        lambda: spread([0], lambda job, large: 0, (LARGE,)),
        lambda: spread([0], lambda job, loaded, large: 0, (LARGE,), loaded=lambda large: 0),
    ],
    ids=["result", "job", "argument", "argument of a worker that loads"],
)
def test_what_the_store_of_a_node_cannot_hold_is_said_in_one_sentence(address, work):
    with pytest.raises(RecloomError, match=FULL), connected(address):
        list(work())


def test_vectors_that_were_kept_are_not_made_again_when_there_is_room(address, monkeypatch, tmp_path):
    monkeypatch.setattr(encoding, "TEXTS_BETWEEN_LOOKS", 1_000)
    monkeypatch.setattr(encoding, "SECONDS_BETWEEN_WRITES", 0.0)
    texts = [f"film number {number}" for number in range(20_000)]
    hashing, encoded = load_encoder("hashing"), encode_on_cluster(EncoderConfig(name="hashing"), workers=1)
    held, asked = [], []

    def with_others(blocks):
        """Encode, and let others fill the store in the middle."""
        import ray

        for number, block in enumerate(encoded(blocks)):
            while number == 2:
                try:
                    held.append(ray.put(np.ones(2**20, dtype=np.uint8)))
                except ray.exceptions.OutOfDiskError:
                    break
            yield block

    def alone(blocks):
        asked.extend(text for block in blocks for text in block)
        return encoded(blocks)

    with pytest.raises(RecloomError, match=FULL), connected(address):
        encode_texts(hashing, texts, cache=tmp_path / "embeddings.h5", elsewhere=with_others)
    held.clear()
    with connected(address):
        there = encode_texts(hashing, texts, cache=tmp_path / "embeddings.h5", elsewhere=alone)
    assert 0 < len(asked) < len(texts)
    assert asked == texts[-len(asked) :]
    assert np.array_equal(there, encode_texts(hashing, texts))

"""The head node of a Ray cluster is lost while a command is at work; the command is given again to a new cluster."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import torch

pytest.importorskip("ray", reason="the extra ray is not installed")

from recloom.bulk import Asked, write_lists
from recloom.cluster import connection
from recloom.dataset import Dataset
from recloom.events import Synthetic, write_synthetic
from recloom.recommender import Recommender
from tests.cluster.conftest import add_node, epochs_in
from tests.cluster.test_ray_training import SETTINGS

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("default")]

SECONDS_TO_WAIT = 240.0
"""For whatever a command does; machines that run tests are busy."""


class OneWorker:
    """A Ray cluster with one worker, on its head node; when it is lost, another can take its address."""

    def __init__(self):
        connection.import_ray()
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            self._port = unused.getsockname()[1]
        self.start()

    def start(self):
        from ray.cluster_utils import Cluster

        self.cluster = Cluster()
        add_node(self.cluster, num_cpus=1, include_dashboard=False, gcs_server_port=self._port)

    def lose(self, words, has_begun):
        """Kill all of the cluster at once, as when a machine is switched off, while a command is at work on it."""
        with subprocess.Popen(self._command(words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as one:
            until = time.monotonic() + SECONDS_TO_WAIT
            while not has_begun() and one.poll() is None and time.monotonic() < until:
                time.sleep(0.01)
            self.cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
            printed, said = one.communicate(timeout=SECONDS_TO_WAIT)
        assert one.returncode == 1, said
        assert said.splitlines()[-1] == (
            f"recloom: the head node of the Ray cluster at {self.cluster.address} is lost; what was finished is kept,"
            " start the cluster and give the same command again"
        )
        assert "Traceback" not in printed + said
        self.cluster.shutdown()

    def finish(self, words):
        """Start another cluster, and give the same command again."""
        self.start()
        one = subprocess.run(self._command(words), capture_output=True, text=True, timeout=SECONDS_TO_WAIT)
        assert one.returncode == 0, one.stderr

    def _command(self, words):
        recloom = Path(sys.executable).with_name("recloom")
        return [str(recloom), *map(str, words), "--ray", self.cluster.address]


@pytest.fixture
def one_worker():
    cluster = OneWorker()
    try:
        yield cluster
    finally:
        cluster.cluster.shutdown()


def test_lists_that_were_finished_are_kept_and_the_others_are_made(one_worker, tmp_path):
    write_synthetic(tmp_path / "log", Synthetic(users=100_000, items=60, interactions=300_000))
    dataset = Dataset.from_files(tmp_path / "log" / "interactions", out=tmp_path / "dataset")
    Recommender.fit(dataset, "popular-recent").save(tmp_path / "model")
    here, there = tmp_path / "here", tmp_path / "there"
    write_lists(Asked(model=str(tmp_path / "model")), here)
    words = ["recommend", tmp_path / "model", "--all-users", "--out", there]

    def finished():
        return {(path.name, path.stat().st_ino, path.stat().st_mtime_ns) for path in there.glob("part-*.parquet")}

    def equals(name):
        return pl.read_parquet(there / name).equals(pl.read_parquet(here / name))

    one_worker.lose(words, finished)
    kept = finished()
    assert 0 < len(kept) < len(list(here.glob("part-*.parquet")))
    assert not (there / "lists.json").exists()
    assert all(equals(name) for name, *_ in kept)

    one_worker.finish(words)
    assert kept < finished()
    assert all(equals(path.name) for path in here.glob("part-*.parquet"))
    assert (there / "lists.json").read_text() == (here / "lists.json").read_text()
    assert {path.name for path in there.iterdir()} == {path.name for path in here.iterdir()}  # nothing half-written


def test_files_of_a_log_that_were_read_are_not_read_again(one_worker, tmp_path):
    write_synthetic(tmp_path / "log", Synthetic(users=20_000, items=500, interactions=1_500_000))
    log = pl.read_parquet(tmp_path / "log" / "interactions").sample(fraction=1, shuffle=True, seed=0)
    (tmp_path / "files").mkdir()
    for file in range(12):
        log[file::12].write_parquet(tmp_path / "files" / f"{file:02}.parquet")
    once = Dataset.from_files(tmp_path / "files", out=tmp_path / "once")
    work = tmp_path / ".there.parts"
    words = ["prepare", tmp_path / "files", "--out", tmp_path / "there"]

    def finished():
        return [path for path in work.glob("sorted/*/rejects.csv") if not path.parent.name.startswith(".")]

    one_worker.lose(words, finished)
    kept = finished()
    assert 0 < len(kept) < 12
    assert not (tmp_path / "there").exists()
    for path in kept:  # what was rejected is copied to the dataset in the end, and so shows whose work that is made of
        with path.open("a") as rejects:
            rejects.write("kept\n")

    one_worker.finish(words)
    assert Dataset.open(tmp_path / "there").fingerprint == once.fingerprint
    assert (tmp_path / "there" / "rejects.csv").read_text().splitlines().count("kept") == len(kept)
    assert not work.exists()


def test_training_goes_on_after_the_last_epoch_that_was_finished(one_worker, cycle_dataset, tmp_path):
    Dataset.from_files(tmp_path / "log.csv", tmp_path / "items.csv", out=tmp_path / "dataset")
    epochs = 15
    settings = SETTINGS | {"training": {**SETTINGS["training"], "epochs": epochs, "patience": epochs}}
    words = ["fit", tmp_path / "dataset", "--out", tmp_path / "model"]
    for table, values in settings.items():
        for name, value in values.items():
            words += ["--set", f"{table}.{name}={value}"]
    checkpoint = tmp_path / ".model.checkpoint"

    one_worker.lose(words, lambda: len(epochs_in(checkpoint)) >= 2)
    kept = epochs_in(checkpoint)
    assert 2 <= len(kept) < epochs
    assert not (tmp_path / "model").exists()

    one_worker.finish(words)
    fitted = Recommender.load(tmp_path / "model")
    assert fitted.run.curve[: len(kept)] == kept  # to the second at which each ended
    assert [epoch["epoch"] for epoch in fitted.run.curve] == list(range(1, epochs + 1))
    assert not list(tmp_path.glob(".model*"))
    here = Recommender.fit(cycle_dataset, settings=settings)
    assert fitted.run.best_epoch == here.run.best_epoch
    for name, tensor in here.model.state_dict().items():
        torch.testing.assert_close(fitted.model.state_dict()[name].double(), tensor.double(), atol=1e-3, rtol=1e-2)

"""A model folder of any number of items, and a service over it: what the benchmarks of serving share.

Nothing is trained, since a list costs the same whatever its vectors have learned. Ids and texts lie in clusters, as
learned ones do, because an approximate index finds hardly anything among vectors without any order.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from recloom import Dataset, Recommender
from recloom.dataset import split_dataset
from recloom.encoders import item_titles, load_encoder
from recloom.fitting import new_model
from recloom.models import ItemText, TrainingData, Weave
from recloom.run_config import RunConfig
from recloom.training import RunRecord, hardware, versions

USERS = 20_000
HISTORY = 20
CLUSTER = 100
"""Items of a cluster."""
SPREAD = 0.5
"""How far items lie from the middle of their cluster, compared with how far that lies from zero."""
CATEGORIES = 20
ASKED_AT = 1_790_000_000
"""When the list is asked for that a service has to agree with the library on."""
LONGEST_START = 300
"""Seconds."""


@dataclass(frozen=True)
class Made:
    """What a benchmark has to know of a model that was made."""

    users: list[str]
    """Without the one that is asked about."""
    asked: str
    expected: list[str]
    """The library's list for the user that is asked about, at the time `ASKED_AT`."""


def make_model(folder: Path, num_items: int, seed: int = 0) -> Made:
    """Save an untrained `weave` with a made-up log and catalogue."""
    rng = np.random.default_rng(seed)
    dataset = Dataset.from_files(*_write_tables(folder.parent, num_items, rng))
    settings = {"model": {"warm_start": False}, "encoder": {"name": "hashing"}, "training": {"seed": seed}}
    config = RunConfig.resolve("weave", dataset, settings)
    cluster_I = rng.integers(max(1, num_items // CLUSTER), size=len(dataset.items) + 1)
    encoder = load_encoder("hashing")
    text_IE = _clustered(cluster_I, encoder.embedding_dim, rng)
    text_IE /= np.linalg.norm(text_IE, axis=1, keepdims=True)
    text_IE[0] = 0
    text = ItemText(text_IE, ["", *item_titles(dataset.item_table)], encoder.encode)
    model = new_model(dataset, config, text)
    assert isinstance(model, Weave)
    split = split_dataset(dataset, config.split)
    train = TrainingData(dataset, split.train)
    model.prepare(train)
    with torch.no_grad():
        for tower in model._trained_towers:
            width = tower.items.ids.embedding_dim
            tower.items.ids.weight.copy_(torch.from_numpy(_clustered(cluster_I, width, rng)))
            tower.items.ids.weight[0] = 0
    run = RunRecord(
        dataset.fingerprint, split.fingerprint(dataset), encoder.fingerprint, stopped=None, best_epoch=None,
        validation_ndcg_at_10=None, refit=False, seconds={}, peak_memory_bytes=0, warnings=["not trained"], curve=[],
        versions=versions(), hardware=hardware(),
    )  # fmt: skip
    recommender = Recommender(dataset, model, config, text, train.item_counts(), run)
    recommender.save(folder)
    asked, *others = [dataset.users.id_of(index) for index in range(1, len(dataset.users) + 1)]
    best = recommender.recommend(asked, context={"timestamp": ASKED_AT}).items
    return Made(others, asked, [place.item_id for place in best])


def _write_tables(folder: Path, num_items: int, rng: np.random.Generator) -> tuple[Path, Path]:
    item = (num_items * rng.random((USERS, HISTORY)) ** 2).astype(np.int64)  # some are taken more often than others
    start = rng.integers(1_750_000_000, 1_780_000_000, size=USERS)
    time_UL = start[:, None] + np.cumsum(rng.integers(60, 86_400, size=(USERS, HISTORY)), axis=1)
    log = pl.DataFrame(
        {
            "user_id": [f"user-{number}" for number in np.repeat(np.arange(USERS), HISTORY)],
            "item_id": [item_id(number) for number in item.reshape(-1)],
            "timestamp": time_UL.reshape(-1),
        }
    )
    catalogue = pl.DataFrame(
        {
            "item_id": [item_id(number) for number in range(num_items)],
            "title": [f"Title of item {number}" for number in range(num_items)],
            "category": [f"category {number}" for number in rng.integers(CATEGORIES, size=num_items)],
            "price": rng.uniform(1, 100, size=num_items).round(2),
        }
    )
    paths = folder / "log.parquet", folder / "items.parquet"
    log.write_parquet(paths[0])
    catalogue.write_parquet(paths[1])
    return paths


def item_id(number: int) -> str:
    """Return the id of one of the items that the catalogue begins with."""
    return f"item-{number}"


def _clustered(cluster_I: np.ndarray, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return a vector of about length 1 an item, near those of its cluster; float32."""
    centre_CD = rng.standard_normal((int(cluster_I.max()) + 1, width), dtype=np.float32)
    vectors_ID = rng.standard_normal((len(cluster_I), width), dtype=np.float32)
    vectors_ID *= SPREAD
    vectors_ID += centre_CD[cluster_I]
    vectors_ID /= np.sqrt(width)
    return vectors_ID


@dataclass
class Server:
    """A `recloom serve` of our own, on the loopback interface."""

    process: "subprocess.Popen[bytes]"
    port: int
    start_seconds: float
    """From the command until it was ready."""

    @classmethod
    def start(cls, model: Path, database: Path, log: Path, settings: list[str], port: int | None = None) -> "Server":
        """Start a service and wait until it is ready."""
        port = port or free_port()
        command = [str(Path(sys.executable).with_name("recloom")), "serve", str(model), "--port", str(port)]
        command += ["--database", str(database), *(word for setting in settings for word in ("--set", setting))]
        began = time.perf_counter()
        with log.open("ab") as lines:
            environment = os.environ | {"HF_HUB_OFFLINE": "1"}
            process = subprocess.Popen(command, stdout=lines, stderr=lines, env=environment)
        server = cls(process, port, 0.0)
        try:
            while not server._is_ready():
                if process.poll() is not None or time.perf_counter() - began > LONGEST_START:
                    raise RuntimeError(f"the service did not start; the end of its log:\n{log.read_text()[-2000:]}")
                time.sleep(0.05)
        except BaseException:
            server.stop()
            raise
        server.start_seconds = time.perf_counter() - began
        return server

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Return what the service answers to one request.

        Raises:
            OSError: It does not answer, or with an error.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self.address + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.loads(response.read())

    def memory_bytes(self) -> int:
        """Return the memory that the service holds now (VmRSS)."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return 1024 * int(line.split()[1])
        raise OSError(f"process {self.process.pid} is gone")

    def stop(self) -> None:
        """End the service as an operator would; at once if it does not."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()

    def kill(self) -> None:
        """End the service as a loss of power would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def _is_ready(self) -> bool:
        try:
            return bool(self.call("GET", "/readyz")["status"] == "ready")
        except (OSError, urllib.error.URLError):
            return False


def clean_up_when_told_to_stop() -> None:
    """Have SIGTERM end the program like Ctrl-C does, so that services are stopped and folders removed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

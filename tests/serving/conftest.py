"""A small fitted model that has text, prices, categories and dates, and services over it."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from recloom import Recommender
from recloom.dataset import Dataset
from recloom.serving import ServiceConfig, Settings, create_app
from tests.serving.helpers import CATEGORIES, EXPIRED, ITEMS, USERS, free_port, wait_until

SMALL = {
    "encoder": {"name": "hashing"},
    "training": {"epochs": 2},
    "model": {"embedding_dim": 16, "hidden_dim": 16, "max_length": 12},
}


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Everybody walks the same circle of items, each from another place; one item has expired."""
    return _written(tmp_path_factory.mktemp("shop"), ["item_id", "title", "category", "price", "available_until"])


def _written(folder: Path, columns: Sequence[str]) -> Dataset:
    log = ["user_id,item_id,timestamp,behavior,device,age"]
    log += [
        f"u{user:02},i{(user + step) % ITEMS:02},{1_000_000 + user * 100 + step},view,{('mobile', 'web')[user % 2]},30"
        for user in range(USERS)
        for step in range(10)
    ]
    items = [
        {
            "item_id": f"i{item:02}",
            "title": f"film number{item} kind{item // 4}",
            "category": CATEGORIES[item % 3],
            "price": f"{item + 0.5}",
            "available_until": "2001-01-01T00:00:00Z" if item == EXPIRED else "",
        }
        for item in range(ITEMS)
    ]
    lines = [",".join(columns), *(",".join(item[name] for name in columns) for item in items)]
    (folder / "log.csv").write_text("\n".join(log) + "\n")
    (folder / "items.csv").write_text("\n".join(lines) + "\n")
    return Dataset.from_files(folder / "log.csv", folder / "items.csv")


def _saved(shop: Dataset, folder: Path, model: str = "weave", **settings: Any) -> Path:
    Recommender.fit(shop, model, settings=settings or SMALL).save(folder)
    return folder


@pytest.fixture(scope="session")
def model(shop: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder; not to be written to."""
    return _saved(shop, tmp_path_factory.mktemp("models") / "first")


@pytest.fixture(scope="session")
def second_model(shop: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model folder, of another kind; not to be written to."""
    return _saved(shop, tmp_path_factory.mktemp("models") / "second", "markov", encoder={"name": "hashing"})


@pytest.fixture(scope="session")
def plain_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose catalogue says nothing of prices; not to be written to."""
    plain = _written(tmp_path_factory.mktemp("shop"), ["item_id", "title", "category"])
    return _saved(plain, tmp_path_factory.mktemp("models") / "plain", "markov", encoder={"name": "hashing"})


@pytest.fixture
def model_copy(model: Path, tmp_path: Path) -> Path:
    """A model folder of the test's own."""
    return Path(shutil.copytree(model, tmp_path / "model"))


@pytest.fixture(scope="session")
def loaded(model: Path) -> Recommender:
    """The model as the library loads it."""
    return Recommender.load(model)


Serve = Callable[..., TestClient]


@pytest.fixture
def serve(model: Path, tmp_path: Path) -> Iterator[Serve]:
    """Open services: `serve(max_k=5)`; with the same database where nothing else is said."""
    with ExitStack() as stack:

        def open_service(
            folder: Path = model, database: str = str(tmp_path / "live.db"), needs_keys: bool = False,
            settings: Settings | None = None, **options: Any,
        ) -> TestClient:  # fmt: skip
            settings = settings or Settings(ServiceConfig(**options))
            app = create_app(folder, database, settings, needs_keys=needs_keys)
            return stack.enter_context(TestClient(app, raise_server_exceptions=False, base_url="http://localhost"))

        yield open_service


@pytest.fixture(scope="module")
def shared(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service for tests that leave nothing behind but people of their own."""
    database = tmp_path_factory.mktemp("shared") / "live.db"
    with TestClient(
        create_app(model, str(database)), raise_server_exceptions=False, base_url="http://localhost"
    ) as client:
        yield client


class Process:
    """A `recloom serve` of its own."""

    def __init__(self, folder: Path, database: str, *options: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        recloom = str(Path(sys.executable).with_name("recloom"))
        command = [recloom, "serve", str(folder), "--port", str(self.port)]
        self.log = Path(f"{database}.{self.port}.log")
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--database", database, *options], env=environment, stdout=log, stderr=log
            )

    def wait_until_ready(self) -> "Process":
        import httpx

        def is_ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            try:
                return httpx.get(f"{self.url}/readyz").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(is_ready, 60)
        return self

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start `recloom serve` processes, which are killed at the end."""
    running: list[Process] = []

    def begin(folder: Path, *options: str, database: str = str(tmp_path / "process.db")) -> Process:
        running.append(Process(folder, database, *options))
        return running[-1]

    yield begin
    for process in running:
        process.end()


@pytest.fixture
def steady_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set what time it is."""

    def set_to(now: float) -> None:
        monkeypatch.setattr(time, "time", lambda: now)

    return set_to

import json
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors import safe_open


@pytest.fixture
def in_turn(monkeypatch):
    """Let jobs be done here, one after the other: what workers do is then tested without a cluster."""
    pytest.importorskip("pyarrow", reason="the extra ray is not installed")
    from recloom.cluster import preparation

    def spread(jobs, function, arguments=(), *, progress=None, **_):
        for place, job in enumerate(jobs):
            yield place, function(job, *arguments)

    monkeypatch.setattr(preparation, "spread", spread)
    return preparation.prepare_on_cluster


def write_parts(folder: Path, num_parts: int = 4, num_users: int = 60) -> None:
    """Write a log whose users are in all parts, with bad rows, repeats, words, numbers and weights among them."""
    rng = np.random.default_rng(0)
    size = num_users * 30
    table = pl.DataFrame(
        {
            "user_id": [f"u{number}" for number in rng.integers(num_users, size=size)],
            "item_id": [f"i{int(number)}" for number in 40 * rng.random(size) ** 2],
            "timestamp": 1_700_000_000 + rng.integers(500, size=size) * 60,
            "behavior": np.where(rng.random(size) < 0.2, "purchase", "view"),
            "device": np.where(rng.random(size) < 0.1, None, np.where(rng.random(size) < 0.5, "phone", "web")),
            "price": rng.random(size).round(3),
        },
        strict=False,
    ).with_columns(
        user_id=pl.when(pl.int_range(pl.len()) % 97 != 3).then("user_id"),
        timestamp=pl.when(pl.int_range(pl.len()) % 89 == 5).then(-1).otherwise("timestamp"),
    )
    table = pl.concat([table, table[::50]])
    folder.mkdir()
    step = -(-len(table) // num_parts)
    for part in range(num_parts):
        rows = table[part * step : (part + 1) * step]
        if part == 2:  # not all files of a log have the same columns
            rows = rows.drop("price").with_columns(weight=pl.lit(0.5))
        rows.write_parquet(folder / f"part-{part:05}.parquet")


class SlowClock:
    """A clock by which the half minute that Ray gives a node to start is one: tests may run on a busy machine."""

    def __getattr__(self, name):
        return getattr(time, name)

    def monotonic(self):
        return time.monotonic() / 2


def add_node(cluster, **options):
    """Add a node to a cluster of this machine, the first being its head; tests may run on a busy one."""
    from ray._private import node as ray_node

    from recloom.cluster import connection

    ray_node.time = SlowClock()
    # Fewer processes start sooner.
    options = {"object_store_memory": 150 * 2**20, "include_log_monitor": False, "no_monitor": True, **options}
    return connection.patiently(lambda: cluster.add_node(**options))


def epochs_in(checkpoint):
    """Return the epochs that a run has done, as its checkpoint tells of them."""
    if not checkpoint.exists():
        return []
    with safe_open(checkpoint, framework="pt") as file:
        return json.loads(file.metadata()["state"])["curve"]

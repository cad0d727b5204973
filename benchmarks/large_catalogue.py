"""An epoch of `weave` on a made-up catalogue of a million items: how long, and how much memory.

    python benchmarks/large_catalogue.py [--items 1000000] [--interactions 10000000]

People stay in one of many groups of items and take popular ones more often, so that there is something to learn. A
second run with a tenth of the interactions shows whether an epoch's time grows in proportion.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from recloom import Dataset, Recommender

HISTORY = 20
GROUP = 500


def make_log(folder: Path, num_items: int, num_interactions: int, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    users = num_interactions // HISTORY
    group = rng.integers(num_items // GROUP, size=users)
    inside = (GROUP * rng.random((users, HISTORY)) ** 2).astype(np.int64)  # the first of a group are taken most
    strays = rng.random((users, HISTORY)) < 0.1
    item = np.where(strays, rng.integers(num_items, size=(users, HISTORY)), group[:, None] * GROUP + inside)
    start = rng.integers(1_600_000_000, 1_630_000_000, size=users)
    time = start[:, None] + np.cumsum(rng.integers(60, 86_400, size=(users, HISTORY)), axis=1)
    log = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(users), HISTORY),
            "item_id": item.reshape(-1),
            "timestamp": time.reshape(-1),
        }
    )
    path = folder / "log.parquet"
    log.write_parquet(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--interactions", type=int, default=10_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dataset = Dataset.from_files(make_log(Path(folder), options.items, options.interactions))
        fitted = Recommender.fit(dataset, settings={"training": {"epochs": 1, "refit": False}})
    run = fitted.run
    print(f"{len(dataset.items):,} items, {dataset.num_interactions:,} interactions; {fitted.config.model}")
    print(f"training {run.seconds['train']:.0f} s, of it the epoch and its validation {run.curve[0]['seconds']:.0f} s")
    print(f"validation NDCG@10 {run.validation_ndcg_at_10:.4f}, peak memory {run.peak_memory_bytes / 2**30:.1f} GiB")


if __name__ == "__main__":
    main()

"""What it costs to be able to forget quickly: NDCG@10 by the number of shards, and the time that forgetting takes.

    python benchmarks/sharded_forgetting.py DATASET --shards 1,2,4,8 --seeds 0 --set model.embedding_dim=64

For each number of shards a `weave` is fitted with its test held out and evaluated; then one is fitted on everything, as
for serving, and one person, of the middling length of history, is forgotten by `recloom.lifecycle.forgetting.forget`:
from their data to the new weights on disk. Seconds are those of the processor. One JSON object a line.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from recloom import Dataset, Recommender
from recloom.config import Tables, parse_settings
from recloom.lifecycle.forgetting import forget


def somebody(dataset: Dataset) -> str:
    """Return the person with the middling number of interactions; of several, the first."""
    length_U = np.diff(dataset.user_offsets)[1:]
    return dataset.users.id_of(1 + int(np.argsort(length_U, kind="stable")[len(length_U) // 2]))


def measure_quality(dataset: Dataset, tables: Tables) -> dict[str, object]:
    began = time.process_time()
    held_out = Recommender.fit(dataset, settings=tables)
    fitted = time.process_time()
    values = held_out.evaluate([10]).values["NDCG@10"]
    return {
        "ndcg_at_10": round(float(values.mean()), 4),
        "cases": len(values),
        "fit_seconds": round(fitted - began, 1),
        "epochs": [record["best_epoch"] for record in held_out.run.shards] or [held_out.run.best_epoch],
    }


def measure_forgetting(dataset: Dataset, tables: Tables) -> dict[str, object]:
    user = somebody(dataset)
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / "model"
        began = time.process_time()
        Recommender.fit(dataset, settings={**tables, "split": {"everything": True}}).save(model)
        fitted = time.process_time()
        receipt, _ = forget(model, [user])
        forgot = time.process_time()
        size = sum(path.stat().st_size for path in model.iterdir())
    return {
        "fit_all_seconds": round(fitted - began, 1),
        "forget_seconds": round(forgot - fitted, 1),
        "work": receipt.shards.work if receipt.shards else 1.0,
        "model_megabytes": round(size / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--shards", default="1,2,4,8")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--fit-only", action="store_true", help="measure no forgetting")
    parser.add_argument("--set", action="append", default=[], help="any option, as for recloom fit")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = Dataset.open(arguments.dataset)
    settings = parse_settings(arguments.set)
    for seed in map(int, arguments.seeds.split(",")):
        for shards in map(int, arguments.shards.split(",")):
            tables = {**settings, "privacy": {"shards": shards}}
            tables["training"] = {**settings.get("training", {}), "seed": seed}
            line = {"shards": shards, "seed": seed, **measure_quality(dataset, tables)}
            if not arguments.fit_only:
                line |= measure_forgetting(dataset, tables)
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

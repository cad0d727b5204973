"""Fit models on one dataset under one protocol, several seeds each, and add the outcome to a file of results.

    python benchmarks/accuracy.py DATASET --protocol temporal --model weave --seeds 0,1,2 --out accuracy.jsonl \
        [--set model.fusion=id] [--no-test]

One line of JSON a run: settings, NDCG@10 on validation and, unless left out, on test, over all cases and over those
whose item nobody had taken in the training data. The per-case values go beside it, so that runs can be paired.
"""

import argparse
import hashlib
import json
import os
from pathlib import Path

import numpy as np

from recloom import Dataset, Recommender
from recloom.config import parse_settings
from recloom.dataset import split_dataset
from recloom.evaluation import metric_values


def run(dataset: Dataset, options: argparse.Namespace, seed: int) -> dict:
    settings = parse_settings([f"split.protocol={options.protocol}", f"training.seed={seed}", *options.settings])
    recommender = Recommender.fit(dataset, options.model, settings=settings)
    record = {
        "dataset": options.dataset.name,
        "protocol": options.protocol,
        "model": options.model,
        "settings": options.settings,
        "seed": seed,
        "validation": recommender.run.validation_ndcg_at_10,
        "best_epoch": recommender.run.best_epoch,
        "epochs": len(recommender.run.curve),
        "seconds": recommender.run.seconds,
        "curve": [epoch["validation"] and round(epoch["validation"], 4) for epoch in recommender.run.curve],
        "peak_memory_bytes": recommender.run.peak_memory_bytes,
        "versions": recommender.run.versions,
        "hardware": recommender.run.hardware,
    }
    if options.test:
        cases = split_dataset(dataset, recommender.config.split).test
        target_B = dataset.item_index[cases.target]
        items_BK = recommender.rank_cases(cases, 10).item_index_BK
        ndcg_B = metric_values(items_BK, target_B, [10])["NDCG@10"]
        cold_B = recommender.counts_I[target_B] == 0
        record |= {
            "test": ndcg_B.mean(),
            "cases": len(ndcg_B),
            "cold": ndcg_B[cold_B].mean() if cold_B.any() else None,
            "cold_cases": int(cold_B.sum()),
        }
        name = hashlib.sha256(json.dumps([options.model, options.settings]).encode()).hexdigest()[:8]
        folder = options.out.with_suffix("")
        folder.mkdir(exist_ok=True)
        np.save(folder / f"{options.dataset.name}-{options.protocol}-{options.model}-{name}-{seed}.npy", ndcg_B)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="folder that recloom prepare wrote")
    parser.add_argument("--protocol", default="temporal")
    parser.add_argument("--model", default="weave")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--no-test", dest="test", action="store_false", help="validation only, while choosing")
    parser.add_argument("--out", type=Path, default=Path("accuracy.jsonl"))
    options = parser.parse_args()
    dataset = Dataset.open(options.dataset)
    for seed in map(int, options.seeds.split(",")):
        record = run(dataset, options, seed)
        with options.out.open("a") as file:
            file.write(json.dumps(record) + "\n")
        shown = {name: record.get(name) for name in ("validation", "test", "cold", "best_epoch", "seconds")}
        print(record["dataset"], options.model, options.settings, seed, shown, flush=True)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()

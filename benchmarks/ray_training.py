"""One worker against two, on the same data with the same settings: what they learn, and what it costs.

The workers run the function that Ray Train calls (`fit_model` with a `Group` over gloo), started by
torch.multiprocessing so that processor time can be read off each of them.

    python benchmarks/ray_training.py ml-100k deskdrop --seeds 0,1,2
"""

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from recloom.dataset import Dataset, gather, split_dataset
from recloom.evaluation import metric_values
from recloom.fitting import fit_model
from recloom.models import Ranker
from recloom.run_config import RunConfig
from recloom.workers import ALONE, Group


def run(rank: int, size: int, meeting: str, folder: str, settings: dict, out: str) -> None:
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    workers = Group() if size > 1 else ALONE
    dataset = Dataset.open(folder)
    config = RunConfig.resolve("weave", dataset, settings)
    split = split_dataset(dataset, config.split)
    clocks = []  # processor time of this worker, and seconds, at the end of each epoch
    result, model, _ = fit_model(
        dataset,
        split,
        config,
        None,
        workers=workers,
        after_epoch=lambda epoch: clocks.append((time.process_time(), time.monotonic())),
    )
    between = np.diff(np.array(clocks), axis=0)
    found = {"processor": float(between[:, 0].mean()), "seconds": float(between[:, 1].mean())}
    if workers.is_lead:
        cases = split.test
        asked = gather(
            dataset, cases.history_start, cases.history_end, model.max_length, cases.target, config.split.told
        )
        lists = Ranker(model).rank(asked, 10, config.include_seen).item_index_BK
        metrics = metric_values(lists, dataset.item_index[cases.target], [10])
        found |= {name: float(metrics[name].mean()) for name in ("NDCG@10", "HR@10")}
        found |= {"validation": result.best_validation, "epoch": result.best_epoch}
    Path(f"{out}.{rank}").write_text(json.dumps(found))
    if size > 1:
        dist.destroy_process_group()


def fit(size: int, folder: str, settings: dict) -> dict:
    """Fit with some workers; return what the one that leads found, with the processor time of the busiest."""
    with TemporaryDirectory() as temporary:
        arguments = (size, f"{temporary}/meeting", folder, settings, f"{temporary}/found")
        mp.spawn(run, arguments, nprocs=size)
        found = [json.loads(Path(f"{temporary}/found.{rank}").read_text()) for rank in range(size)]
    return found[0] | {"processor": max(one["processor"] for one in found)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datasets", nargs="+", help="Folders that recloom prepare wrote.")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--shard-items", action="store_true")
    options = parser.parse_args()
    for folder in options.datasets:
        for seed in map(int, options.seeds.split(",")):
            for size in map(int, options.workers.split(",")):
                settings = {
                    "split": {"protocol": "leave-one-out"},
                    "encoder": {"name": "none"},
                    "model": {"embedding_dim": options.width, "hidden_dim": options.width},
                    "training": {
                        "epochs": options.epochs,
                        "seed": seed,
                        "shard_items": options.shard_items or None,
                    },
                }
                row = fit(size, folder, settings)
                print(json.dumps({"dataset": Path(folder).name, "seed": seed, "workers": size} | row), flush=True)


if __name__ == "__main__":
    main()

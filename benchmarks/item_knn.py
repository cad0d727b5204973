"""Item neighbours as a yardstick, until they are a model of recloom: cosine of users' sets, shrinkage, recency.

    python benchmarks/item_knn.py DATASET --protocol temporal --out accuracy.jsonl

Shrinkage and how fast older interactions of a history fade are chosen on validation; the rest is as usual: 100
neighbours an item, seen items left out as the dataset wants. The values of each case are kept beside the results, so
that they can be paired with those of `accuracy.py`.
"""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import torch

from recloom import Dataset
from recloom.dataset import Cases, Segments, SplitConfig, gather, split_dataset
from recloom.evaluation import ndcg_at_k
from recloom.models.ranking import top_k
from recloom.run_config import RunConfig

NEIGHBOURS = 100


def similarities(dataset: Dataset, segments: Segments, shrinkage: float) -> torch.Tensor:
    """Return the cosine of every two items' sets of users, the strongest of each item alone; sparse (I, I)."""
    positions = segments.positions()
    users = np.searchsorted(dataset.user_offsets, positions, side="right") - 1
    pairs = np.unique(np.stack([users, dataset.item_index[positions]]), axis=1)
    num_items = len(dataset.items) + 1
    counts = torch.from_numpy(np.bincount(pairs[1], minlength=num_items)).float()
    taken = torch.sparse_coo_tensor(
        pairs, torch.ones(pairs.shape[1]), (len(dataset.user_offsets), num_items), check_invariants=True
    ).coalesce()
    together = torch.sparse.mm(taken.T, taken).coalesce()
    rows, columns = together.indices()
    value = together.values() / ((counts[rows] * counts[columns]).sqrt() + shrinkage)
    value[rows == columns] = 0
    order = torch.argsort(value, descending=True, stable=True)
    order = order[torch.argsort(rows[order], stable=True)]
    rank = torch.arange(len(order)) - torch.searchsorted(rows[order], rows[order])
    kept = order[rank < NEIGHBOURS]
    indices = torch.stack([columns[kept], rows[kept]])
    return torch.sparse_coo_tensor(indices, value[kept], together.shape, check_invariants=True).to_sparse_csr()


def ndcg(dataset: Dataset, cases: Cases, similarity: torch.Tensor, fading: float, include_seen: bool) -> np.ndarray:
    values = []
    for begin in range(0, len(cases), 512):
        some = slice(begin, begin + 512)
        histories = gather(dataset, cases.history_start[some], cases.history_end[some], 100)
        back_BL = histories.length_B[:, None] - 1 - np.arange(histories.item_index_BL.shape[1])
        weight_BL = np.where(back_BL >= 0, fading**back_BL, 0)
        query_IB = torch.zeros(len(dataset.items) + 1, len(histories))
        rows = torch.arange(len(histories))[:, None].expand(*weight_BL.shape)
        query_IB.index_put_(
            (torch.from_numpy(histories.item_index_BL).long(), rows), torch.from_numpy(weight_BL).float(), True
        )
        query_IB[0] = 0
        score_BI = (similarity @ query_IB).T.contiguous()
        if not include_seen:
            score_BI[*map(torch.from_numpy, histories.seen())] = -torch.inf
        score_BI[:, 0] = -torch.inf
        target_B = dataset.item_index[cases.target[some]]
        hits = top_k(score_BI, 10)[0] == target_B[:, None]
        values.append(ndcg_at_k(hits.astype(float), np.ones(len(target_B), int)))
    return np.concatenate(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--protocol", default="temporal")
    parser.add_argument("--out", type=Path, default=Path("accuracy.jsonl"))
    options = parser.parse_args()
    dataset = Dataset.open(options.dataset)
    split = split_dataset(dataset, SplitConfig(protocol=options.protocol))
    include_seen = RunConfig.resolve("popular", dataset, {"split": {"protocol": options.protocol}}).include_seen
    asked = split.validation.sample(4_000, 0)
    scores = {}
    for shrinkage, fading in itertools.product((0.0, 10.0, 50.0), (1.0, 0.8, 0.5)):
        similarity = similarities(dataset, split.train, shrinkage)
        scores[shrinkage, fading] = ndcg(dataset, asked, similarity, fading, include_seen).mean()
    shrinkage, fading = max(scores, key=scores.__getitem__)
    ndcg_B = ndcg(dataset, split.test, similarities(dataset, split.full, shrinkage), fading, include_seen)
    counts = np.bincount(dataset.item_index[split.full.positions()], minlength=len(dataset.items) + 1)
    cold_B = counts[dataset.item_index[split.test.target]] == 0
    record = {
        "dataset": options.dataset.name,
        "protocol": options.protocol,
        "model": "item-knn",
        "settings": [f"shrinkage={shrinkage}", f"fading={fading}"],
        "seed": 0,
        "validation": max(scores.values()),
        "test": ndcg_B.mean(),
        "cases": len(ndcg_B),
        "cold": ndcg_B[cold_B].mean() if cold_B.any() else None,
        "cold_cases": int(cold_B.sum()),
    }
    folder = options.out.with_suffix("")
    folder.mkdir(exist_ok=True)
    np.save(folder / f"{options.dataset.name}-{options.protocol}-item-knn-0.npy", ndcg_B)
    with options.out.open("a") as file:
        file.write(json.dumps(record) + "\n")
    print(record, flush=True)


if __name__ == "__main__":
    main()

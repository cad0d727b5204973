"""What a causal language model adds to lists and reasons, and what it costs.

    python benchmarks/writing.py MODEL --writer smollm2 --cases 90 --candidates 20 --sentences 40

Reordering: the first --candidates of each test case's list are put in the order that the model answers to a prompt
(`recommend --rerank`); NDCG@10 before and after, the paired difference over people, and seconds a list. Phrasing: of
how many sentences of reasons what it writes passes the check (`--writer`), and seconds a sentence.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from recloom import Recommender
from recloom.dataset import split_dataset
from recloom.evaluation import metric_values
from recloom.evaluation.significance import paired_difference
from recloom.explanation import Phraser, load_writer, reranked
from recloom.training import hardware, versions

PATIENCE = 600.0
"""Seconds that the language model has for an answer: what is measured is what it says, and how long that takes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--writer", default="smollm2")
    parser.add_argument("--cases", type=int, default=90)
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--sentences", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    recommender, writer = Recommender.load(options.model), load_writer(options.writer)
    dataset = recommender.dataset
    titles = recommender.titles
    cases = split_dataset(dataset, recommender.config.split).test.sample(options.cases, seed=0)
    target_B = dataset.item_index[cases.target]
    items_BK = recommender.rank_cases(cases, options.candidates).item_index_BK
    after_BK, seconds, problems = items_BK.copy(), [], Counter[str]()
    for row, (start, end) in enumerate(zip(cases.history_start, cases.history_end, strict=True)):
        past = [titles[item] for item in dataset.item_index[start:end]]
        began = time.process_time()
        order, problem = reranked(writer, past, [titles[item] for item in items_BK[row]], seconds=PATIENCE)
        seconds.append(time.process_time() - began)
        changed = "another order" if order != sorted(order) else "the same order"
        problems["no list of numbers" if problem else changed] += 1
        after_BK[row] = items_BK[row][order]
    before_B, after_B = (metric_values(lists[:, :10], target_B, [10])["NDCG@10"] for lists in (items_BK, after_BK))
    difference = paired_difference(after_B, before_B)

    phraser = Phraser(writer, titles, PATIENCE)
    written, phrasing = Counter[str](), []
    for user in cases.user_index[: options.sentences]:
        told = recommender.recommend(dataset.users.ids[user - 1], k=1, explain=True).items[0]
        began = time.process_time()
        phrased = phraser.phrase([(told.because, told.reasons)], "en")[0]
        phrasing.append(time.process_time() - began)
        written["the template, as it had to be" if phrased.problem else "its own"] += 1
        print(told.because, "|", phrased.text, "|", phrased.problem, flush=True)
    found = {
        "cases": len(before_B),
        "ndcg_at_10_before": before_B.mean(),
        "ndcg_at_10_after": after_B.mean(),
        "difference": [difference.mean, difference.low, difference.high],
        "answers": dict(problems),
        "seconds_a_list": float(np.median(seconds)),
        "sentences": dict(written),
        "seconds_a_sentence": float(np.median(phrasing)),
        "versions": versions(),
        "hardware": hardware(),
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

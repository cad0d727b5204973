"""How long every metric takes once the lists are there, and how much memory.

    python benchmarks/evaluation_speed.py DATASET [--protocol leave-one-out] [--model item-knn]

DATASET is a folder that `recloom prepare` wrote. Prints seconds for ranking the catalogue and for each part of judging
the lists, and the most memory of the whole process.
"""

import argparse
import time
from pathlib import Path

from recloom import Dataset, Recommender
from recloom.dataset import split_dataset
from recloom.evaluation import Judge, with_intervals
from recloom.fitting import read_catalogue
from recloom.run_config import RunConfig
from recloom.training import hardware, peak_memory_bytes, versions

CUTOFFS = (5, 10, 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--protocol", default="leave-one-out")
    parser.add_argument("--model", default="item-knn")
    options = parser.parse_args()
    dataset = Dataset.open(options.dataset)
    settings = {"split": {"protocol": options.protocol}}
    text, *_ = read_catalogue(dataset, RunConfig.resolve("weave", dataset, settings), None)
    recommender = Recommender.fit(dataset, options.model, settings=settings)
    cases = split_dataset(dataset, recommender.config.split).test
    took = {}

    def timed(name, function):
        began = time.perf_counter()
        result = function()
        took[name] = time.perf_counter() - began
        return result

    rankings = timed("ranking the catalogue", lambda: recommender.rank_cases(cases, max(CUTOFFS)))
    before = peak_memory_bytes()
    judge = Judge(dataset, recommender.config.split, recommender.counts_I, text and text.vectors_IE)
    timed("the split", lambda: judge.split)
    values = timed("each metric of each case", lambda: judge.values(rankings, CUTOFFS))
    timed("coverage and Gini", lambda: judge.catalogue(rankings, CUTOFFS))
    timed("bootstrap intervals", lambda: with_intervals(values))
    timed("slices with their intervals", lambda: judge.sliced(values))
    print(f"{options.dataset.name}, {options.protocol}: {len(cases):,} users, {len(dataset.items):,} items")
    print(f"{len(values)} metrics with intervals, cutoffs {CUTOFFS}, lists of {options.model}")
    for name, seconds in took.items():
        print(f"| {name} | {seconds:.2f} s |")
    judging = sum(took.values()) - took["ranking the catalogue"]
    print(f"| all but ranking | {judging:.2f} s |")
    print(f"most memory {peak_memory_bytes() / 1e9:.2f} GB, {before / 1e9:.2f} GB of it before judging")
    print(versions(), hardware())


if __name__ == "__main__":
    main()

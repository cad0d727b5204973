"""How often `recloom doctor` raises an alarm: where nothing has changed, and along real logs.

    python benchmarks/drift_alarms.py DATASET [DATASET ...] [--shuffles 100] [--cuts 10]

For the first, the interactions of a log are dealt out to its times at random, so that one stretch is as good as
another: an alarm is a false one. For the second, the log is cut as it is, and each part is held against all before
it; there alarms may be right. `content` with hashed words stands in for the model, so that a hundred can be fitted:
the measures of what goes in are the same for every model.
"""

import argparse
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import polars as pl

from recloom import Dataset, Recommender
from recloom.dataset import log_of
from recloom.events import Entities, Interactions
from recloom.lifecycle.drift import measure_drift

NEW_SHARE = 0.1
SETTINGS = {"split": {"everything": True}, "encoder": {"name": "hashing"}}
INPUTS = ("popularity", "text", "behaviour", "context", "new items", "new users")


def verdicts(dataset: Dataset, old: pl.DataFrame, new: pl.DataFrame) -> dict[str, str]:
    """Return the verdict on each measure of what goes in."""
    known = Dataset.from_tables(Interactions.of(old), Entities.of(dataset.item_table))
    drift = measure_drift(Recommender.fit(known, "content", settings=SETTINGS), Interactions.of(new))
    return {measure.name: measure.verdict for measure in drift.measures if measure.name.startswith(INPUTS)}


def shares(found: list[dict[str, str]]) -> list[tuple[str, str, str]]:
    """Return name, share to be watched or worse, share to be updated or worse, of each measure and of any."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for one in found:
        for name, verdict in one.items():
            counts[name][verdict] += 1
        graver = {"retrain": 3, "update": 2, "watch": 1}
        counts["any of them"][max(one.values(), key=lambda verdict: graver.get(verdict, 0))] += 1
    lines = []
    for name, count in counts.items():
        update = count["update"] + count["retrain"]
        lines.append((name, f"{update + count['watch']} of {count.total()}", f"{update} of {count.total()}"))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", type=Path, nargs="+", help="folders that recloom prepare wrote")
    parser.add_argument("--shuffles", type=int, default=100)
    parser.add_argument("--cuts", type=int, default=10)
    options = parser.parse_args()
    print("| set | log | measure | watch or more | update or more |\n|---|---|---|---|---|")
    for folder in options.datasets:
        dataset = Dataset.open(folder)
        log = log_of(dataset).sort("timestamp", maintain_order=True)
        size = int(NEW_SHARE * len(log))
        shuffled = []
        for seed in range(options.shuffles):
            dealt = np.random.default_rng(seed).permutation(len(log)).tolist()
            mixed = log[dealt].with_columns(timestamp=log["timestamp"])
            shuffled.append(verdicts(dataset, mixed[:-size], mixed[-size:]))
        ends = [len(log) - number * len(log) // (2 * options.cuts) for number in range(options.cuts)]
        real = [verdicts(dataset, log[: end - size], log[end - size : end]) for end in ends]
        for kind, found in (("shuffled", shuffled), ("as it is", real)):
            for line in shares(found):
                print(f"| {folder.name} | {kind} | {' | '.join(line)} |", flush=True)


if __name__ == "__main__":
    main()

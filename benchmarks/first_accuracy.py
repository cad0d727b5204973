"""The first form of every model on MovieLens 100K: NDCG@10 on the test of both protocols, over seeds.

Settings are the defaults, with a budget a model; nothing was chosen on these test sets.
Run from the repository: `python benchmarks/first_accuracy.py [SEEDS]`. The data comes from the package index.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from recloom import Dataset, Recommender
from recloom.events import fetch_sample
from recloom.training import hardware, versions

ROOT = Path(__file__).parents[1]
BUDGET = 50.0
MODELS = {"popular": 1, "popular-recent": 1, "content": 1, "weave": None}
"""How many seeds a model needs; None: as many as asked for."""


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    lines = [
        "| protocol | model | NDCG@10, mean (each seed) | 95 % interval, first seed | users | train s |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder)
        sample = fetch_sample("ml-100k", raw)
        dataset = Dataset.from_files(raw / sample.interactions, raw / sample.items, out=raw / "dataset")
        for protocol in ("temporal", "leave-one-out"):
            for model, needed in MODELS.items():
                runs = []
                for seed in range(needed or seeds):
                    settings = {"split": {"protocol": protocol}, "training": {"seed": seed, "budget": BUDGET}}
                    fitted = Recommender.fit(dataset, model, settings=settings)
                    evaluation = fitted.evaluate([10])
                    runs.append((evaluation.metrics["NDCG@10"], fitted.run.seconds["train"], evaluation.num_cases))
                means = [metric.mean for metric, _, _ in runs]
                first = runs[0][0]
                each = f" ({', '.join(f'{mean:.4f}' for mean in means)})" if len(means) > 1 else ""
                lines.append(
                    f"| {protocol} | {model} | {np.mean(means):.4f}{each} | {first.low:.4f} to {first.high:.4f} |"
                    f" {runs[0][2]:,} | {np.mean([s for _, s, _ in runs]):.1f} |"
                )
                print(lines[-1], flush=True)
    page = [
        "# First accuracy: MovieLens 100K", "",
        "Written by `first_accuracy.py`; full ranking, seen items left out, default settings with a budget of",
        f"{BUDGET:.0f} s a fit (the budget, not patience, ends most fits of `weave`).", "", *lines, "",
        f"Data {dataset.fingerprint}; {versions()}; {hardware()}.", "",
    ]  # fmt: skip
    (ROOT / "benchmarks" / "first-accuracy.md").write_text("\n".join(page))


if __name__ == "__main__":
    main()

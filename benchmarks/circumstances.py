"""What each circumstance of an event is worth: clock, gaps, sessions, behaviour, context, a person's columns.

    python benchmarks/circumstances.py DATASET --seeds 0,1,2 --out circumstances.jsonl [--set training.epochs=6]

`weave` is fitted with all of them and without each in turn, which then is unknown in training and in every question.
One line of JSON a run: NDCG@10 on validation, without a refit; the test is not looked at.
"""

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from recloom import Dataset, Recommender
from recloom.config import parse_settings
from recloom.dataset import unknown_value
from recloom.models.circumstances import Circumstances, Moments


def without_context(moments: Moments) -> Moments:
    unknown = {name: np.full_like(v, unknown_value(v.dtype)) for name, v in moments.context.items()}
    return replace(moments, context=unknown)


HIDDEN: dict[str, Callable[[Moments], Moments]] = {
    "nothing": lambda moments: moments,
    "clock": lambda moments: replace(moments, timestamp=np.zeros_like(moments.timestamp)),
    "gaps": lambda moments: replace(moments, gap=np.full_like(moments.gap, -1)),
    "sessions": lambda moments: replace(
        moments, session_step=None if moments.session_step is None else np.full_like(moments.session_step, -1)
    ),
    "behavior": lambda moments: replace(
        moments, behavior=None if moments.behavior is None else np.zeros_like(moments.behavior)
    ),
    "context": without_context,
    "users": lambda moments: replace(moments, user_index=np.zeros_like(moments.user_index)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="folder that recloom prepare wrote")
    parser.add_argument("--hidden", default=",".join(HIDDEN))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--out", type=Path, default=Path("circumstances.jsonl"))
    options = parser.parse_args()
    dataset = Dataset.open(options.dataset)
    usual = Circumstances.forward
    for seed in map(int, options.seeds.split(",")):
        for hidden in options.hidden.split(","):
            hide = HIDDEN[hidden]
            Circumstances.forward = lambda self, moments, hide=hide: usual(self, hide(moments))
            settings = parse_settings([f"training.seed={seed}", "training.refit=false", *options.settings])
            run = Recommender.fit(dataset, "weave", settings=settings).run
            record = {
                "dataset": options.dataset.name,
                "settings": options.settings,
                "hidden": hidden,
                "seed": seed,
                "validation": run.validation_ndcg_at_10,
                "best_epoch": run.best_epoch,
                "versions": run.versions,
                "hardware": run.hardware,
            }
            with options.out.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(record["dataset"], hidden, seed, record["validation"], flush=True)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()

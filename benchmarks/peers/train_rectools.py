"""RecTools' SASRec within a time budget: interactions in, ranked lists out. Runs in an environment of its own."""

import argparse
import time
from datetime import timedelta

import numpy as np
import pandas as pd
from pytorch_lightning import Trainer, seed_everything
from rectools.dataset import Dataset
from rectools.models import SASRecModel

parser = argparse.ArgumentParser()
parser.add_argument("train")
parser.add_argument("lists")
parser.add_argument("--budget", type=float)
parser.add_argument("--seed", type=int)
options = parser.parse_args()

log = pd.read_csv(options.train)
log["datetime"] = pd.to_datetime(log["order"], unit="s")
log["weight"] = 1.0
dataset = Dataset.construct(log[["user_id", "item_id", "weight", "datetime"]])
seed_everything(options.seed)


def trainer() -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_epochs=1_000,
        max_time=timedelta(seconds=options.budget),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
    )


# The library's own defaults (two blocks, four heads, width 256, dropout .2, sequences of 100, batches of 128, Adam at
# .001), with the loss that its authors recommend: sampled softmax with 256 negatives.
model = SASRecModel(loss="sampled_softmax", n_negatives=256, get_trainer_func=trainer)
began = time.monotonic()
model.fit(dataset)
seconds = time.monotonic() - began
users = log["user_id"].unique()
ranked = model.recommend(users, dataset, k=10, filter_viewed=True)
lists = ranked.sort_values(["user_id", "rank"]).groupby("user_id")["item_id"].apply(list)
items = np.stack([np.array(row + [0] * (10 - len(row))) for row in lists])
epochs = model.fit_trainer.current_epoch
np.savez(options.lists, users=lists.index.to_numpy(), items=items, seconds=seconds, epochs=epochs)

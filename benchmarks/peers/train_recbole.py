"""RecBole's SASRec within a time budget: interactions in, ranked lists out. Runs in an environment of its own."""

import argparse
import time
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pandas as pd
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed

parser = argparse.ArgumentParser()
parser.add_argument("train")
parser.add_argument("lists")
parser.add_argument("--budget", type=float)
parser.add_argument("--seed", type=int)
options = parser.parse_args()

log = pd.read_csv(options.train)
# RecBole holds the last two interactions of each user out. The log given ends before the test, so two placeholders are
# appended, which nothing is learned from.
last = pd.concat(
    log.groupby("user_id").tail(1).assign(order=lambda rows, step=step: rows["order"] + step) for step in (0.3, 0.6)
)
folder = Path(mkdtemp())
(folder / "log").mkdir()
atomic = pd.concat([log, last]).rename(
    columns={"user_id": "user_id:token", "item_id": "item_id:token", "order": "timestamp:float"}
)
atomic.to_csv(folder / "log" / "log.inter", sep="\t", index=False)
config = Config(
    model="SASRec",
    dataset="log",
    config_dict={
        "data_path": str(folder),
        "checkpoint_dir": str(folder),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
        "train_neg_sample_args": None,  # cross-entropy over the catalogue, the library's recommended loss
        "valid_metric": "NDCG@10",
        "seed": options.seed,
        "use_gpu": False,
        "show_progress": False,
    },
)
init_seed(options.seed, reproducibility=True)
dataset = create_dataset(config)
train_data, _, _ = data_preparation(config, dataset)
model = SASRec(config, train_data.dataset)
trainer = Trainer(config, model)
began = time.monotonic()
epochs = 0.0


class OutOfTimeError(Exception):
    pass


step = trainer.optimizer.step
steps_an_epoch = len(train_data)


def timed_step(*arguments, **keywords):
    global epochs
    step(*arguments, **keywords)
    epochs += 1 / steps_an_epoch
    if time.monotonic() - began >= options.budget:
        raise OutOfTimeError


trainer.optimizer.step = timed_step
try:
    for epoch in range(1_000):
        trainer._train_epoch(train_data, epoch, show_progress=False)
except OutOfTimeError:
    pass
seconds = time.monotonic() - began

model.eval()
length = config["MAX_ITEM_LIST_LENGTH"]
histories = log.groupby("user_id")["item_id"].apply(list)
token_of = dataset.field2id_token["item_id"]
index_of = {token: index for index, token in enumerate(token_of)}
numbered = [[index_of[str(item)] for item in history] for history in histories]
lists = []
with torch.no_grad():
    for begin in range(0, len(numbered), 512):
        rows = numbered[begin : begin + 512]
        sequence = torch.zeros(len(rows), length, dtype=torch.long)
        for number, row in enumerate(rows):
            sequence[number, : len(row[-length:])] = torch.tensor(row[-length:])
        lengths = torch.tensor([min(len(row), length) for row in rows])
        scores = model.full_sort_predict({"item_id_list": sequence, "item_length": lengths})
        scores = scores.view(len(rows), -1)
        scores[:, 0] = -torch.inf
        for number, row in enumerate(rows):
            scores[number, row] = -torch.inf
        lists.append(scores.topk(10).indices.numpy())
items = np.vectorize(lambda index: int(token_of[index]))(np.concatenate(lists))
np.savez(options.lists, users=histories.index.to_numpy(), items=items, seconds=seconds, epochs=epochs)

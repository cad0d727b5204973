"""Short videos in Chinese, watched by made-up people: THE BEHAVIOUR IS SYNTHETIC, and says nothing of real viewers.

Captions are those of KuaiRec where ../shared/data has them, or of a file of yours, or the forty made up beside this
script. Everybody has two favourite categories, from which three videos of four come; the order is chance.
"""

import time
from argparse import ArgumentParser
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from recloom import Dataset, Recommender
from recloom.events import Interactions, read_items
from recloom.serving import create_app, running

KUAIREC = Path(__file__).parent / "../../../shared/data/kuairec-captions-zh/items.csv.gz"
parser = ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("items", nargs="?", type=Path, help="item_id, title, category1")
parser.add_argument("--out", default=Path("videos-zh"), type=Path, help="folder for the dataset and the model")
parser.add_argument("--people", default=400, type=int)
parser.add_argument("--budget", default=120.0, type=float, help="seconds to train")
parser.add_argument("--port", default=8000, type=int)
parser.add_argument("--once", action="store_true", help="end after the lists")
asked = parser.parse_args()

source = asked.items or (KUAIREC if KUAIREC.exists() else Path(__file__).with_name("items.csv"))
catalogue = read_items(source)
told = catalogue.table.filter(pl.col("title").is_not_null(), pl.col("category1").is_not_null())[:2_000]
videos = {
    key[0]: group["item_id"].to_numpy()
    for key, group in told.sort("category1").group_by("category1", maintain_order=True)
}
chance, rows = np.random.default_rng(0), []
for person in range(asked.people):
    favourites = chance.choice(list(videos), 2, replace=False)
    for step in range(12):
        category = chance.choice(favourites if chance.random() < 0.75 else list(videos))
        rows.append(
            (f"人{person}", chance.choice(videos[category]), "观看", int(time.time()) - 86_400 * (12 - step) - person)
        )
log = pl.DataFrame(rows, ["user_id", "item_id", "behavior", "timestamp"], orient="row").sort("user_id", "timestamp")
dataset = Dataset.from_tables(Interactions.of(log), read_items(source), out=asked.out / "dataset")

model = Recommender.fit(dataset, settings={"training": {"budget": asked.budget}})
model.save(asked.out / "model")
print(f"文本编码器：{model.config.encoder.name}；{len(dataset.users)} 个虚构的人，{len(dataset.items)} 个视频")
print(f"NDCG@10 {model.evaluate([10]).metrics['NDCG@10'].mean:.4f}")
watched = log.filter(pl.col("user_id") == "人0")["item_id"].to_list()
print("看过：", "、".join(model.titles[dataset.items.index_of(item)][:12] for item in watched[-4:]))
for item in model.recommend("人0", k=5, explain=True, language="zh").items:
    print(item.rank, item.title, "|", item.because)
with TemporaryDirectory() as live, running(create_app(asked.out / "model", f"{live}/live.db"), asked.port) as site:
    print(f"网页：{site}/?language=zh" + ("" if asked.once else "（Ctrl-C 结束）"))
    with suppress(KeyboardInterrupt):
        time.sleep(0 if asked.once else 10**8)

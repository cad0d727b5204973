"""Courses: what others took after the same course, or what a network makes of the way here? From files to a page."""

import time
from argparse import ArgumentParser
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import polars as pl

from recloom import Dataset, Recommender
from recloom.events import Entities, Interactions, read_interactions, read_items
from recloom.serving import create_app, running

DATA, RIVAL, DAY = Path(__file__).parent / "../../../shared/data/coco-courses", "item-knn", 86_400
parser = ArgumentParser(description=__doc__)
parser.add_argument("files", nargs="*", default=[DATA / "interactions.csv.gz", DATA / "items.csv.gz"], type=Path)
parser.add_argument("--out", default=Path("courses"), type=Path, help="folder for the dataset and the models")
parser.add_argument("--budget", default=120.0, type=float, help="seconds to train")
parser.add_argument("--port", default=8000, type=int)
parser.add_argument("--once", action="store_true", help="end after the experiment and a list")
asked = parser.parse_args()
if len(asked.files) != 2 or not all(file.exists() for file in asked.files):
    parser.error("give two files, EVENTS and ITEMS; without them, ../shared/data/coco-courses has to be there")

# The past is learned from, what followed kept. A service answers for the time it is asked at: the log moves to now.
log = read_interactions(asked.files[0]).table.sort("timestamp")
today = log["timestamp"].quantile(0.9)
past, future = log.filter(pl.col("timestamp") <= today), log.filter(pl.col("timestamp") > today)
past = past.with_columns(pl.col("timestamp") + int(time.time() - today) // DAY * DAY)
items = read_items(asked.files[1]).table.filter(pl.col("item_id").is_in(past["item_id"].unique().to_list()))
dataset = Dataset.from_tables(Interactions.of(past), Entities.of(items), out=asked.out / "dataset")
for name in (RIVAL, "weave"):  # both are asked about the end of the past, which they do not learn from
    model = Recommender.fit(dataset, name, settings={"training": {"budget": asked.budget}})
    model.save(asked.out / name)
    ndcg = model.evaluate([10]).metrics["NDCG@10"]
    print(f"{name:15} NDCG@10 {ndcg.mean:.4f} ({ndcg.low:.4f} to {ndcg.high:.4f})")
with TemporaryDirectory() as live, running(create_app(asked.out / "weave", f"{live}/live.db"), asked.port) as site:
    with httpx.Client(base_url=site, timeout=60) as service:
        service.post("/v1/models", json={"name": RIVAL, "path": str(asked.out / RIVAL)}).raise_for_status()
        while len(service.get("/v1/models").json()["models"]) < 2:
            time.sleep(0.1)
        variants = [{"name": RIVAL, "model": RIVAL}, {"name": "weave"}]
        service.post("/v1/experiments", json={"name": "what is taken", "variants": variants}).raise_for_status()
        comers = future.join(past, on="user_id", how="semi").group_by("user_id", maintain_order=True).first()[:999]
        for user, item in comers.select("user_id", "item_id").iter_rows():  # who finds what came next clicks
            shown = service.post("/v1/recommendations", json={"user_id": user}).json()
            if item in [place["item_id"] for place in shown["items"]]:
                click = {"user_id": user, "item_id": item, "recommendation_id": shown["recommendation_id"]}
                service.post("/v1/events", json={"events": [click]}).raise_for_status()
        for told in service.get("/v1/experiments").json()["experiments"][0]["variants"]:
            print(f"{told['name']:15} {told['users']} people, click rate {told['ctr_value']}, {told['ctr']}")
        wanted = {"history": past["item_id"][-2:].to_list()}  # a visitor who looked at two courses
        for place in service.post("/v1/recommendations", json={**wanted, "k": 5, "explain": True}).json()["items"]:
            print(place["rank"], place["title"], "|", place["because"])
    print(f"The page is at {site}, the experiment at {site}/live" + ("." if asked.once else "; Ctrl-C ends it."))
    with suppress(KeyboardInterrupt):
        time.sleep(0 if asked.once else 10**8)

import csv
import json
from pathlib import Path

import numpy as np
import pytest

WORDS = ["red", "blue", "green", "old", "new", "small", "large", "wooden", "steel", "paper"]
THINGS = ["lamp", "chair", "table", "knife", "pan", "book"]


def write_log(folder: Path) -> None:
    """Write a log of 120 people who walk through 40 things, and the catalogue of the things."""
    rng = np.random.default_rng(0)
    with (folder / "events.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["user_id", "item_id", "timestamp", "behavior", "device"])
        for user in range(120):
            start = int(rng.integers(40))
            for step in range(int(rng.integers(5, 12))):
                item = (start + step * (1 + user % 2)) % 40
                time = 1_700_000_000 + user * 5_000 + step * 3_600
                rows.writerow(
                    [
                        f"u{user:03}",
                        f"{item:04}",
                        time,
                        "view" if step % 3 else "purchase",
                        ["phone", "web"][user % 2],
                    ]
                )
    with (folder / "items.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["item_id", "title", "price"])
        for item in range(40):
            rows.writerow([f"{item:04}", f"{WORDS[item % 10]} {THINGS[item % 6]}", item + 1])


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """A folder with a log, a catalogue, a dataset, and three fitted models."""
    from recloom import Dataset, Recommender

    folder = tmp_path_factory.mktemp("shop")
    write_log(folder)
    dataset = Dataset.from_files(folder / "events.csv", folder / "items.csv", out=folder / "dataset")
    settings = {"split": {"protocol": "leave-one-out"}, "encoder": {"name": "hashing"}, "training": {"epochs": 3}}
    for model in ("weave", "popular", "content"):
        Recommender.fit(dataset, model, settings=settings).save(folder / model)
    queries = [
        {"query_id": "q1", "history": ["0001", "0002", "nothing"]},
        {"query_id": "q2", "history": [{"item_id": "0003", "timestamp": 1_700_000_000, "behavior": "view"}]},
        {"query_id": "q3", "history": [], "context": {"device": "phone"}},
    ]
    (folder / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    return folder

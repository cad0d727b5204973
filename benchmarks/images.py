"""Whether pictures tell what neither ids nor words can: a made-up shop where people like a look and titles say nothing.

Every item has one of sixteen looks, a colour and a pattern drawn with a position, a size, a brightness and noise of its
own. Everybody likes two looks. Titles are drawn from one list of words for all looks. Items appear over time, so that
a part of what the test asks for was never taken before.

    python benchmarks/images.py --seeds 0,1,2
"""

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from PIL import Image

import recloom
from recloom.encoders import load_image_encoder
from recloom.evaluation import metric_values

NUM_ITEMS, NUM_USERS, EVENTS_PER_USER = 240, 400, 14
DAY, DAYS = 86_400, 100
START = 1_700_000_000
FASHION_DAYS = 20.0
"""After so many days an item is taken half as often."""
SHARES = (0.5, 0.35)
"""How often somebody takes what has the look they like most, and the one they like next; else it is any."""
SIZE = 96
COLOURS = np.array([[200, 60, 50], [60, 150, 70], [50, 90, 190], [220, 180, 60]], dtype=np.float64)
PATTERNS = ("stripes", "dots", "checks", "rings")
NUM_LOOKS = len(COLOURS) * len(PATTERNS)
WORDS = ("calm", "north", "river", "stone", "lamp", "harbour", "field", "cloud", "maple", "copper", "quiet", "bridge")
MISSING = 0.3
MODELS = {
    "id": {"model": {"fusion": "id"}},
    "id + text": {"encoder": {"image": "none"}},
    "id + image": {"encoder": {"name": "none"}},
    "all": {},
    "all, no modality dropout": {"model": {"modality_dropout": 0.0}},
}
COMMON = {
    "model": {"embedding_dim": 64, "hidden_dim": 64, "text_dim": 64},
    "training": {"device": "cpu", "epochs": 30, "patience": 3},
    "encoder": {"name": "minilm"},
}
"""Narrower than by default, for so small a shop; chosen before the first run, and the same for all rows."""


def picture(look: int, rng: np.random.Generator) -> Image.Image:
    """Draw a picture of a look."""
    colour, pattern = COLOURS[look % len(COLOURS)], PATTERNS[look // len(COLOURS)]
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float64)
    x, y = x - rng.uniform(0, SIZE), y - rng.uniform(0, SIZE)
    period = rng.uniform(10, 22)
    if pattern == "stripes":
        angle = rng.uniform(0, np.pi)
        wave = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
    elif pattern == "dots":
        wave = 0.4 - np.hypot(x % period - period / 2, y % period - period / 2) / period
    elif pattern == "checks":
        wave = np.sin(2 * np.pi * x / period) * np.sin(2 * np.pi * y / period)
    else:
        wave = np.sin(2 * np.pi * np.hypot(x, y) / period)
    shade = np.where(wave > 0, 1.0, 0.45)[..., None] * rng.uniform(0.75, 1.15)
    pixels = shade * (colour + rng.normal(0, 18, size=3)) + rng.normal(0, 12, size=(SIZE, SIZE, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_shop(folder: Path, seed: int) -> None:
    """Write events.csv, items.csv and the pictures of a shop; and missing.csv, the catalogue with some of them gone."""
    rng = np.random.default_rng(seed)
    (folder / "pictures").mkdir(parents=True)
    look_I = rng.permutation(np.arange(NUM_ITEMS) % NUM_LOOKS)
    released_I = np.sort(np.where(rng.random(NUM_ITEMS) < 0.4, 0.0, rng.uniform(0, DAYS, NUM_ITEMS)))
    rows = []
    for item, look in enumerate(look_I):
        picture(int(look), rng).save(folder / "pictures" / f"{item}.jpg", quality=85)
        rows.append((f"i{item:03}", " ".join(rng.choice(WORDS, 3, replace=False)), f"pictures/{item}.jpg"))
    events = []
    for user in range(NUM_USERS):
        liked, had = rng.choice(NUM_LOOKS, 2, replace=False), set[int]()
        for day in np.sort(rng.uniform(0, DAYS, EVENTS_PER_USER)):
            weight_I = np.where(released_I <= day, 0.5 ** ((day - released_I) / FASHION_DAYS), 0.0)
            weight_I[list(had)] = 0
            choice = rng.random()
            if choice < sum(SHARES):
                weight_I = weight_I * (look_I == liked[int(choice >= SHARES[0])])
            if weight_I.sum() > 0:
                item = int(rng.choice(NUM_ITEMS, p=weight_I / weight_I.sum()))
                had.add(item)
                events.append((f"u{user:03}", f"i{item:03}", int(START + day * DAY)))
    items = pl.DataFrame(rows, schema=["item_id", "title", "image"], orient="row")
    items.write_csv(folder / "items.csv")
    gone = pl.Series(rng.random(NUM_ITEMS) < MISSING)
    items.with_columns(pl.when(gone).then(pl.lit("")).otherwise("image").alias("image")).write_csv(
        folder / "missing.csv"
    )
    pl.DataFrame(events, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(folder / "events.csv")


def measure(shop: Path, items: str, seed: int, settings: dict) -> dict[str, float]:
    """Fit on what came before the split time; return figures over everybody, and where a cold item was asked for."""
    dataset = recloom.Dataset.from_files(shop / "events.csv", items=shop / items, out=shop / "dataset")
    tables = {table: {**COMMON.get(table, {}), **settings.get(table, {})} for table in COMMON}
    tables["training"]["seed"] = seed
    fitted = recloom.Recommender.fit(dataset, "weave", settings=tables)
    cases = recloom.dataset.split_dataset(dataset, fitted.config.split).test
    lists = fitted.rank_cases(cases, 10).item_index_BK
    target = dataset.item_index[cases.target]
    values = metric_values(lists, target, [10])
    cold = fitted.counts_I[target] == 0
    return {
        "NDCG@10": float(values["NDCG@10"].mean()),
        "HR@10": float(values["HR@10"].mean()),
        "cold NDCG@10": float(values["NDCG@10"][cold].mean()),
        "cold HR@10": float(values["HR@10"][cold].mean()),
        "cases": len(cases),
        "cold cases": int(cold.sum()),
    }


def encoder_seconds(shop: Path, count: int = 64) -> float:
    """Return the processor seconds that the packaged encoder takes for a picture, reading and unpacking included."""
    encoder = load_image_encoder("efficientnet")
    paths = sorted((shop / "pictures").iterdir())[:count]
    encoder.encode(paths[:2])
    began = time.process_time()
    encoder.encode(paths)
    return (time.process_time() - began) / len(paths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rows", default=";".join(MODELS), help="Which lines of the table, between semicolons.")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    found: dict[str, list[dict[str, float]]] = {}
    with TemporaryDirectory() as temporary:
        for seed in seeds:
            shop = Path(temporary) / str(seed)
            write_shop(shop, seed)
            if not found:
                print(f"{encoder_seconds(shop) * 1000:.1f} ms of processor time a picture", flush=True)
            for items in ("items.csv", "missing.csv"):
                for name in options.rows.split(";"):
                    if items == "missing.csv" and name in ("id", "id + text"):
                        continue  # pictures make no difference
                    line = name if items == "items.csv" else f"{name}, {MISSING:.0%} of pictures missing"
                    found.setdefault(line, []).append(measure(shop, items, seed, MODELS[name]))
                    print(line, seed, json.dumps(found[line][-1]), flush=True)
    print("\n| model | NDCG@10 | HR@10 | cold NDCG@10 | cold HR@10 |\n|---|---|---|---|---|")
    for line, runs in found.items():
        names = ("NDCG@10", "HR@10", "cold NDCG@10", "cold HR@10")
        each = [np.array([run[name] for run in runs]) for name in names]
        print(f"| {line} | " + " | ".join(f"{one.mean():.4f} ± {one.std(ddof=1):.4f}" for one in each) + " |")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

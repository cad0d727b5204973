"""Small logs and catalogues of our own making, of the shape of the examples' data; the behaviour is synthetic.

    python -m tests.docs.made_up shop FOLDER     # events.csv and items.csv: pictures of pages are taken on such

Everybody has two favourite topics, in which they go on to the next item, mostly.
"""

import csv
import sys
from pathlib import Path

import numpy as np

SHOP = (
    "wireless {}", "compact {}", "classic {}", "{} for two", "deluxe {}", "{} with a stand", "red {}", "silent {}",
)  # fmt: skip
FEED = (
    "Five myths about {}", "What {} taught me", "A beginner's guide to {}", "The quiet return of {}",
    "What the numbers say about {}", "Why we still need {}", "An evening with {}", "The people behind {}",
)  # fmt: skip
COURSES = (
    "{} for beginners", "{} in a week", "Practical {}", "{} by examples", "Advanced {}", "A short history of {}",
    "{}, a workshop", "Teaching {}",
)  # fmt: skip
WORLDS = {
    "shop": (SHOP, ("controller", "headset", "steering wheel", "keyboard", "puzzle game", "racing game")),
    "feed": (FEED, ("night trains", "sleep", "small gardens", "open source", "good coffee", "city bicycles")),
    "courses": (COURSES, ("Python", "watercolour", "guitar", "photography", "statistics", "Spanish")),
}
BEHAVIORS = ("view", "view", "view", "like", "bookmark")
BEGIN = 1_700_000_000


def make_up(name: str, folder: Path, people: int = 300, seed: int = 0) -> tuple[Path, Path]:
    """Write a log and a catalogue, and return where."""
    patterns, topics = WORLDS[name]
    chance = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    items = [(f"{name[0]}{number:02}", pattern.format(topic), topic, number // len(patterns))
             for number, (topic, pattern) in enumerate((t, p) for t in topics for p in patterns)]  # fmt: skip
    _write(folder / "items.csv", ["item_id", "title", "category"], [item[:3] for item in items])
    rows = []
    for person in range(people):
        time = BEGIN + int(chance.integers(50 * 86_400))
        favourites = chance.choice(len(topics), 2, replace=False)
        place = {topic: int(chance.integers(len(patterns))) for topic in range(len(topics))}
        for _ in range(int(chance.integers(6, 16))):
            topic = int(chance.choice(favourites) if chance.random() < 0.85 else chance.integers(len(topics)))
            place[topic] = (place[topic] + 1) % len(patterns)
            time += int(chance.exponential(86_400))
            item = items[topic * len(patterns) + place[topic]][0]
            behavior = BEHAVIORS[int(chance.integers(len(BEHAVIORS)))] if name == "feed" else "purchase"
            rows.append((f"p{person:03}", item, time, behavior, ("phone", "desktop")[person % 2]))
    _write(folder / "events.csv", ["user_id", "item_id", "timestamp", "behavior", "device"], rows)
    return folder / "events.csv", folder / "items.csv"


def _write(path: Path, header: list[str], rows: list[tuple]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


if __name__ == "__main__":
    make_up(sys.argv[1], Path(sys.argv[2]))

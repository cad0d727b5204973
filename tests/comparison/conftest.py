import csv
from pathlib import Path

import numpy as np
import pytest

from recloom import Dataset

ITEMS, USERS, STEPS, DAYS = 30, 100, 12, 100
GENRES = ["film", "music", "书 <b>", "games|film"]


def write_rows(path: Path, rows: list[list[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def write_shop(folder: Path) -> tuple[Path, Path, Path]:
    """Write a log of people who mostly take one thing after the other, at any time of a hundred days; and the rest."""
    rng = np.random.default_rng(0)
    log: list[list[object]] = [["user_id", "item_id", "timestamp", "device", "price"]]
    for user in range(USERS):
        item = int(rng.integers(ITEMS))
        for time in np.sort(rng.integers(DAYS * 86_400, size=STEPS)).tolist():
            item = (item + 1) % ITEMS if rng.random() < 0.8 else int(rng.integers(ITEMS))
            device = ["phone", "web"][int(rng.integers(2))]
            log.append([f"u{user:03}", f"i{item:02}", 1_600_000_000 + time, device, round(rng.normal(), 3)])
    items: list[list[object]] = [["item_id", "title", "genre", "year"]]
    items += [[f"i{item:02}", f"thing number{item} kind{item // 3}", GENRES[item % 4], 2000 + item % 5]
              for item in range(ITEMS)]  # fmt: skip
    users: list[list[object]] = [
        ["user_id", "country"],
        *([f"u{user:03}", "DE" if user % 3 else "中国"] for user in range(USERS)),
    ]
    return (
        write_rows(folder / "log.csv", log),
        write_rows(folder / "items.csv", items),
        write_rows(folder / "users.csv", users),
    )


@pytest.fixture(scope="session")
def shop(tmp_path_factory) -> Dataset:
    """A log whose next item is mostly the one after; words and numbers in log, catalogue and user table."""
    return Dataset.from_files(*write_shop(tmp_path_factory.mktemp("shop")))


@pytest.fixture(scope="session")
def log_alone(tmp_path_factory) -> Dataset:
    """The same without a table of users, whom a history of the caller's cannot name."""
    log, items, _ = write_shop(tmp_path_factory.mktemp("log"))
    return Dataset.from_files(log, items)

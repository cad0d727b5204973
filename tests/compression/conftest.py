"""A small shop with every kind of column that a model reads."""

import numpy as np
import pytest

from recloom import Dataset, Recommender


@pytest.fixture(scope="session")
def shop(tmp_path_factory) -> Dataset:
    """Sixty people with sessions, behaviours, a word and a number of context each, and a trade."""
    folder, rng = tmp_path_factory.mktemp("compressed-shop"), np.random.default_rng(0)
    events, users = ["user_id,item_id,timestamp,behavior,device,paid"], ["user_id,trade"]
    for user in range(60):
        users.append(f"u{user:02},{['smith', 'baker', ''][user % 3]}")
        time, start = 1_700_000_000 + user * 777, int(rng.integers(30))
        for step in range(int(rng.integers(4, 14))):
            time += int(rng.choice([40, 3_000, 90_000]))
            paid = "" if step % 4 == 3 else round(float(rng.normal(1_700_000_000, 50)), 2)
            what, device = ["view", "purchase"][step % 2], ["phone", "web", ""][user % 3]
            events.append(f"u{user:02},i{(start + step) % 30:02},{time},{what},{device},{paid}")
    items = ["item_id,title", *(f"i{item:02},lamp {item} kind{item // 3}" for item in range(32))]
    for name, lines in (("events", events), ("users", users), ("items", items)):
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return Dataset.from_files(folder / "events.csv", folder / "items.csv", folder / "users.csv")


@pytest.fixture(scope="session")
def fitted():
    """Fit a small `weave`, with options of its own and of its split."""

    def fit(dataset: Dataset, epochs: int = 2, include_seen: bool = False, **model) -> Recommender:
        settings = {
            "encoder": {"name": "hashing"},
            "split": {"protocol": "leave-one-out"},
            "training": {"epochs": epochs, "batch_size": 128, "learning_rate": 0.01},
            "recommend": {"include_seen": include_seen},
            "model": {"embedding_dim": 16, "hidden_dim": 16, "max_length": 8} | model,
        }
        return Recommender.fit(dataset, settings=settings)

    return fit


@pytest.fixture
def long_lessons(monkeypatch):
    """Teach for more epochs than the teacher took: on a log as small as these it knows everything after one."""
    monkeypatch.setattr("recloom.compression.teaching.FEWEST_EPOCHS", 30)

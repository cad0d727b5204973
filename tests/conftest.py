"""Small logs and a language model made of ten lines."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from recloom.dataset import Dataset
from recloom.models import ItemText

CYCLE = 8


def fake_read(texts: Sequence[str]) -> np.ndarray:
    """Read each word as a direction of its own: texts that share words have similar vectors."""
    vectors = np.zeros((len(texts), 32), dtype=np.float32)
    for row, text in enumerate(texts):
        for word in text.split():
            vectors[row, hashlib.blake2b(word.encode(), digest_size=1).digest()[0] % 32] += 1
    return vectors


def fake_text(dataset: Dataset) -> ItemText:
    """Return the item text as `fake_read` reads it."""
    titles = ["", *dataset.item_table["title"].to_list()] if "title" in dataset.item_table.columns else []
    titles = titles or [""] * (len(dataset.items) + 1)
    return ItemText(fake_read(titles), titles, fake_read)


@pytest.fixture
def dataset_of(tmp_path: Path):
    """Make a dataset from lines of "user,item,time" and, where given, of "item,title"."""

    def make(log: Sequence[str], items: Sequence[str] | None = None, header: str = "user_id,item_id,timestamp"):
        path = tmp_path / "log.csv"
        path.write_text("\n".join([header, *log]) + "\n")
        catalogue = None
        if items is not None:
            catalogue = tmp_path / "items.csv"
            catalogue.write_text("\n".join(["item_id,title", *items]) + "\n")
        return Dataset.from_files(path, catalogue)

    return make


@pytest.fixture
def cycle_dataset(dataset_of) -> Dataset:
    """Everybody walks the same circle of items, each from another place: the next item is always known."""
    log = [
        f"u{user:02},i{(user + step) % CYCLE},{1_000_000 + user * 100 + step}"
        for user in range(40)
        for step in range(12)
    ]
    return dataset_of(log, [f"i{item},film number{item} kind{item // 2}" for item in range(CYCLE)])

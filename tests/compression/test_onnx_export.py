"""What a graph answers is what the model answers, for every network and kind of input."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recloom import Dataset, Recommender
from recloom.compression import onnx_export
from recloom.compression.onnx_export import check_parity, export_onnx
from recloom.errors import ConfigError, MissingExtraError, RecloomError
from recloom.files import damaged_file
from recloom.models.weave import NETWORKS

pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
EXAMPLE = Path(__file__).parents[2] / "examples" / "serve_onnx.py"


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Dataset:
    """Sixty people with sessions, behaviours, a word and a number of context each, a price paid and a trade."""
    folder, rng = tmp_path_factory.mktemp("shop"), np.random.default_rng(0)
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


def fitted(dataset: Dataset, **model) -> Recommender:
    model = {"embedding_dim": 16, "hidden_dim": 16, "max_length": 8} | model
    settings = {"encoder": {"name": "hashing"}, "training": {"epochs": 2, "refit": False}, "model": model}
    return Recommender.fit(dataset, settings=settings)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_graph_answers_as_its_model_does(network, shop, tmp_path):
    parity = export_onnx(fitted(shop, network=network), tmp_path / "export")
    assert parity.histories == 60
    assert parity.identical_top_10 + parity.near_ties == 60
    assert parity.largest_difference < 1e-4
    assert damaged_file(tmp_path / "export") is None


@pytest.mark.parametrize(
    "options",
    [
        {"fusion": "separate"},
        {"similarity": "dot", "num_layers": 2},
        {"request": False, "popularity": False, "fusion": "gated"},
    ],
    ids=["two towers", "dot product", "no request"],
)
def test_other_shapes_of_the_model_are_answered_alike(options, shop, tmp_path):
    parity = export_onnx(fitted(shop, **options), tmp_path / "export")
    assert parity.largest_difference < 1e-4


def test_a_graph_of_another_model_is_found_out_and_leaves_nothing(shop, tmp_path, monkeypatch):
    recommender, other = fitted(shop), fitted(shop, dropout=0.6)
    write = onnx_export._write_graph
    monkeypatch.setattr(onnx_export, "_write_graph", lambda _, target: write(other.model, target))
    with pytest.raises(RecloomError, match="does not answer as the model does"):
        export_onnx(recommender, tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


def test_lists_that_differ_in_near_ties_alone_pass(shop, tmp_path):
    recommender = fitted(shop)
    parity = export_onnx(recommender, tmp_path / "export")
    assert replace(parity, identical_top_10=58, near_ties=2).holds
    assert not replace(parity, identical_top_10=58, near_ties=1).holds
    assert not replace(parity, largest_difference=1.0).holds
    assert check_parity(recommender, tmp_path / "export" / "model.onnx") == parity


def test_the_example_serves_an_export_without_recloom_or_torch(shop, tmp_path):
    recommender = fitted(shop)
    export_onnx(recommender, tmp_path / "export")
    # An empty package in the way shows that neither is asked for.
    for name in ("recloom", "torch"):
        (tmp_path / "stubs" / name).mkdir(parents=True)
        (tmp_path / "stubs" / name / "__init__.py").write_text("raise ImportError('not wanted here')")

    def answer(*history: str) -> list[list[str]]:
        command = [sys.executable, EXAMPLE, tmp_path / "export", *history]
        environment = os.environ | {"PYTHONPATH": str(tmp_path / "stubs")}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        return [line.split(maxsplit=2) for line in done.stdout.splitlines()]

    found = answer("i03", "nothing", "i04")
    right = recommender.recommend(history=["i03", "nothing", "i04"]).items
    assert [place[1] for place in found] == [item.item_id for item in right]
    assert [place[2] for place in found] == [item.title for item in right]
    popular = recommender.recommend(history=[]).items
    assert [place[1] for place in answer("nothing")] == [item.item_id for item in popular]
    assert len(EXAMPLE.read_text().splitlines()) < 60


def test_the_table_names_every_input_of_the_graph(shop, tmp_path):
    export_onnx(fitted(shop), tmp_path / "export")
    table = json.loads((tmp_path / "export" / "catalogue.json").read_text())
    session = onnx_export.open_session(tmp_path / "export" / "model.onnx")
    assert {one.name for one in session.get_inputs()} == set(table["inputs"])
    assert [one.name for one in session.get_outputs()] == list(table["outputs"])
    assert table["context"] == {"device": ["", "phone", "web"]}
    assert table["users"][:2] == ["", "u00"]
    assert table["titles"][table["items"].index("i05")] == "lamp 5 kind1"


def test_what_cannot_be_exported_says_so(shop, tmp_path, monkeypatch):
    recommender = fitted(shop)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(ConfigError, match="holds something that is not an export"):
        export_onnx(recommender, tmp_path / "photos")
    popular = Recommender.fit(shop, "popular")
    with pytest.raises(ConfigError, match="popular cannot be exported, weave can"):
        export_onnx(popular, tmp_path / "export")
    monkeypatch.setattr(onnx_export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'recloom\[onnx\]'"):
        export_onnx(recommender, tmp_path / "export")

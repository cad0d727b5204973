"""What a graph answers is what the model answers, for every network and kind of input."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from recloom import Recommender
from recloom.compression import onnx_export
from recloom.compression.onnx_export import check_parity, export_onnx
from recloom.errors import ConfigError, MissingExtraError, RecloomError
from recloom.files import damaged_file
from recloom.models.weave import NETWORKS

pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
EXAMPLE = Path(__file__).parents[2] / "examples" / "serve_onnx.py"


@pytest.fixture(scope="module")
def exported(shop, fitted, tmp_path_factory):
    """A recommender, the folder it was exported to, and how well they agree."""
    recommender, folder = fitted(shop), tmp_path_factory.mktemp("exported") / "export"
    return recommender, folder, export_onnx(recommender, folder)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_graph_answers_as_its_model_does(network, shop, fitted, tmp_path):
    parity = export_onnx(fitted(shop, network=network), tmp_path / "export")
    assert parity.histories == 60
    assert parity.identical_top_10 + parity.near_ties == 60
    assert parity.largest_difference < 1e-4
    assert damaged_file(tmp_path / "export") is None


@pytest.mark.parametrize(
    "options",
    [
        {"fusion": "separate"},
        {"fusion": "likeness"},
        {"similarity": "dot", "num_layers": 2, "request": False, "popularity": False},
        {"half_life": 2.0},
    ],
    ids=["two towers", "likeness", "dot product, no request", "several recent events"],
)
def test_other_shapes_of_the_model_are_answered_alike(options, shop, fitted, tmp_path):
    assert export_onnx(fitted(shop, **options), tmp_path / "export").largest_difference < 1e-4


def test_a_graph_of_another_model_is_found_out_and_leaves_nothing(shop, fitted, exported, tmp_path, monkeypatch):
    _, folder, _ = exported
    monkeypatch.setattr(onnx_export, "write_graph", lambda _, target: shutil.copy(folder / "model.onnx", target))
    with pytest.raises(RecloomError, match="does not answer as the model does"):
        export_onnx(fitted(shop, dropout=0.6), tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


def test_lists_that_differ_in_near_ties_alone_pass(exported):
    recommender, folder, parity = exported
    assert replace(parity, identical_top_10=58, near_ties=2).holds
    assert not replace(parity, identical_top_10=58, near_ties=1).holds
    assert not replace(parity, largest_difference=1.0).holds
    assert check_parity(recommender, folder / "model.onnx") == parity


def test_the_example_serves_an_export_without_recloom_or_torch(exported, tmp_path):
    recommender, folder, _ = exported
    # An empty package in the way shows that neither is asked for.
    for name in ("recloom", "torch"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('not wanted here')")

    def answer(*history: str) -> list[list[str]]:
        command = [sys.executable, EXAMPLE, folder, *history]
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        return [line.split(maxsplit=2) for line in done.stdout.splitlines()]

    found = answer("i03", "nothing", "i04")
    right = recommender.recommend(history=["i03", "nothing", "i04"], context={"timestamp": time.time()}).items
    assert [place[1] for place in found] == [item.item_id for item in right]
    assert [place[2] for place in found] == [item.title for item in right]
    popular = recommender.recommend(history=[]).items
    assert [place[1] for place in answer("nothing")] == [item.item_id for item in popular]
    assert len(EXAMPLE.read_text().splitlines()) < 60


def test_the_table_names_every_input_of_the_graph(exported):
    _, folder, _ = exported
    table = json.loads((folder / "catalogue.json").read_text())
    session = onnx_export.open_session(folder / "model.onnx")
    assert {one.name for one in session.get_inputs()} == set(table["inputs"])
    assert [one.name for one in session.get_outputs()] == list(table["outputs"])
    assert table["context"] == {"device": ["", "phone", "web"]}
    assert table["users"][:2] == ["", "u00"]
    assert table["titles"][table["items"].index("i05")] == "lamp 5 kind1"


def test_what_cannot_be_exported_says_so(shop, exported, tmp_path, monkeypatch):
    recommender, _, _ = exported
    (tmp_path / "cat.jpg").touch()
    with pytest.raises(ConfigError, match="holds something that is not an export"):
        export_onnx(recommender, tmp_path)
    with pytest.raises(ConfigError, match="popular cannot be exported, weave can"):
        export_onnx(Recommender.fit(shop, "popular"), tmp_path / "export")
    monkeypatch.setattr(onnx_export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'recloom\[onnx\]'"):
        export_onnx(recommender, tmp_path / "export")

"""A smaller model is smaller, answers nearly as before, and says what it lost."""

import json

import numpy as np
import polars as pl
import pytest
import torch

from recloom import Recommender
from recloom.cli import main
from recloom.compression import compressing, pruning
from recloom.compression.compressing import compress
from recloom.compression.folding import fold_text
from recloom.compression.onnx_export import sample_histories
from recloom.compression.pruning import prune
from recloom.compression.teaching import distill
from recloom.errors import ConfigError
from recloom.events import Entities
from recloom.files import damaged_file
from recloom.models import Ensemble, Ranker


def scores(recommender: Recommender, model=None) -> np.ndarray:
    return Ranker(model or recommender.model).scores(sample_histories(recommender, 30)).numpy()[:, 1:]


@pytest.fixture
def no_graph(monkeypatch):
    """Leave out what the graph costs, whose making takes long."""
    monkeypatch.setattr(compressing, "can_export", lambda: False)


@pytest.mark.parametrize("fusion", ["sum", "text", "concat", "init"])
def test_folding_the_text_changes_no_score_and_still_places_new_items(fusion, shop, fitted):
    recommender = fitted(shop, fusion=fusion)
    folded = fold_text(recommender)
    assert not folded.text.vectors_IE.any()
    assert np.allclose(scores(folded), scores(recommender), atol=1e-4)
    new = pl.DataFrame({"item_id": ["new"], "title": ["lamp 99 kind3"]})
    grown = [one.with_items(new).similar_items("new", 5) for one in (folded, recommender)]
    assert [item.item_id for item in grown[0]] == [item.item_id for item in grown[1]]


def test_a_known_item_keeps_its_vector_when_its_text_changes(shop, fitted):
    recommender = fitted(shop)
    folded = fold_text(recommender)
    changed = pl.DataFrame({"item_id": ["i03"], "title": ["quite another thing"]})
    # Its id holds the old text; the new one beside it would be two texts at once.
    for after in (folded.with_items(changed), folded.learn(None, Entities.of(changed))):
        assert after.titles[after.dataset.items.index_of("i03")] == "quite another thing"
        assert np.array_equal(scores(after), scores(folded))
    assert not np.array_equal(scores(recommender.with_items(changed)), scores(recommender))
    assert folded.holds_text([0, folded.dataset.items.index_of("i03"), 33]).tolist() == [False, True, False]


def test_a_fusion_that_is_no_sum_keeps_its_text(shop, fitted):
    gated = fitted(shop, fusion="gated")
    assert fold_text(gated) is gated


@pytest.mark.parametrize(
    "options",
    [
        {"network": "gru", "num_layers": 2, "fusion": "sum"},
        {"network": "lstm", "fusion": "text"},
        {"network": "rnn", "fusion": "id", "similarity": "dot"},
        {"network": "sasrec", "fusion": "init"},
    ],
    ids=lambda options: options["network"],
)
def test_turning_without_cutting_changes_no_score(options, shop, fitted, monkeypatch):
    recommender = fitted(shop, request=False, **options)
    monkeypatch.setattr(pruning, "KEPT_DIMENSIONS", 1.0)
    monkeypatch.setattr(pruning, "KEPT_UNITS", 1.0)
    monkeypatch.setattr(pruning, "RIDGE", 1e-10)
    assert np.allclose(scores(recommender, prune(recommender)), scores(recommender), atol=1e-4)


def test_pruning_cuts_dimensions_and_units(shop, fitted):
    pruned = prune(fitted(shop, embedding_dim=128, hidden_dim=64, num_layers=2))
    assert (pruned.config.embedding_dim, pruned.config.hidden_dim) == (64, 32)
    kept_width = prune(fitted(shop, network="hstu", embedding_dim=64, hidden_dim=32))
    assert (kept_width.config.embedding_dim, kept_width.config.hidden_dim) == (32, 32)


@pytest.mark.parametrize("methods", [["int8"], ["prune", "int8"], ["distill"]], ids=" and ".join)
def test_a_compressed_model_is_smaller_and_knows_what_it_was(
    methods, cycle_dataset, fitted, tmp_path, no_graph, long_lessons
):
    fitted(cycle_dataset, epochs=30, include_seen=True, embedding_dim=128, hidden_dim=96).save(tmp_path / "model")
    compression = compress(tmp_path / "model", tmp_path / "small", methods)
    assert damaged_file(tmp_path / "small") is None
    small = Recommender.load(tmp_path / "small")
    # The next item of the circle is known, and the smaller model knows it as well.
    assert small.recommend(history=["i1", "i2", "i3"], k=1).items[0].item_id == "i4"
    record = small.run.lineage["compression"]
    assert record == json.loads(json.dumps(compression.to_json()))
    assert record["methods"] == methods
    assert compression.after.disk_bytes < compression.before.disk_bytes / 3
    assert compression.ndcg_before == pytest.approx(1.0)
    assert compression.difference.mean == pytest.approx(compression.ndcg_after - compression.ndcg_before)
    assert compression.after.answer_ms > 0
    assert not (tmp_path / "small" / "optimizer.safetensors").exists()
    with pytest.raises(ConfigError, match=r"was compressed already \(.*compress the model it came from"):
        compress(tmp_path / "small", tmp_path / "smaller", ["int8"])
    assert not (tmp_path / "smaller").exists()


def test_a_model_of_everything_is_compressed_without_a_metric_and_saved_once(shop, tmp_path, no_graph, monkeypatch):
    recommender = Recommender.fit(
        shop,
        settings={
            "encoder": {"name": "none"},
            "split": {"everything": True},
            "training": {"epochs": 1},
            "model": {"embedding_dim": 32, "hidden_dim": 16},
        },
    )
    recommender.save(tmp_path / "model")
    save, saved = Recommender.save, []
    monkeypatch.setattr(Recommender, "save", lambda self, folder: (saved.append(folder), save(self, folder)))
    compression = compress(tmp_path / "model", tmp_path / "small", ["int8"])
    assert len(saved) == 1
    assert (compression.ndcg_before, compression.ndcg_after, compression.difference) == (None, None, None)


def test_any_model_with_an_opinion_on_steps_can_teach(shop):
    settings = {"encoder": {"name": "hashing"}, "training": {"epochs": 1}, "model": {"hidden_dim": 16, "max_length": 8}}
    pupil = distill(Recommender.fit(shop, "lm-fusion", settings=settings), None)
    assert (pupil.config.model_name, pupil.config.model.embedding_dim) == ("weave", 64)


def test_several_models_teach_by_what_they_say_on_average(shop, fitted, tmp_path, no_graph):
    settings = {
        "encoder": {"name": "hashing"},
        "split": {"protocol": "leave-one-out"},
        "training": {"epochs": 1},
        "model": {"hidden_dim": 16, "max_length": 6},
    }
    first, second = fitted(shop, embedding_dim=80), Recommender.fit(shop, "lm-fusion", settings=settings)
    ensemble = Ensemble([first.model, second.model], shop).eval()
    histories = sample_histories(second, 5)
    with torch.no_grad():
        both = ensemble.step_queries(histories) @ ensemble.item_vectors().T
        each = [one.model.eval().step_queries(histories) @ one.model.item_vectors().T for one in (first, second)]
    assert torch.allclose(both, (each[0] + each[1]) / 2, atol=1e-4)
    first.save(tmp_path / "first")
    second.save(tmp_path / "second")
    compress(tmp_path / "first", tmp_path / "pupil", ["distill"], also=[tmp_path / "second"])
    assert Recommender.load(tmp_path / "pupil").model.max_length == 6  # no longer than every teacher reads
    with pytest.raises(ConfigError, match="--also names further teachers"):
        compress(tmp_path / "first", tmp_path / "small", ["int8"], also=[tmp_path / "second"])
    other = Recommender.fit(shop, "lm-fusion", settings=settings | {"split": {"protocol": "temporal"}})
    with pytest.raises(ConfigError, match="the same dataset under the same split"):
        distill(first, None, [other])


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (["int4"], "unknown method 'int4'; did you mean int8?"),
        ([], "no method to compress by; choose distill, prune, pq, int8"),
        (["int8", "int8"], "names a method twice"),
        (["prune", "distill"], "choose one of them, and int8 with it"),
    ],
)
def test_methods_that_make_no_sense_say_so(methods, message, tmp_path):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        compress(tmp_path, tmp_path / "small", methods)


def test_models_that_cannot_be_made_smaller_say_so(shop, fitted, tmp_path, no_graph):
    Recommender.fit(shop, "popular").save(tmp_path / "popular")
    with pytest.raises(ConfigError, match="popular cannot be compressed by int8, weave can"):
        compress(tmp_path / "popular", tmp_path / "small", ["int8"])
    with pytest.raises(ConfigError, match="is the model itself, which would be lost"):
        compress(tmp_path / "popular", tmp_path / "popular", ["int8"])
    with pytest.raises(ConfigError, match="popular has no opinion on single steps"):
        compress(tmp_path / "popular", tmp_path / "small", ["distill"])
    with pytest.raises(ConfigError, match="16 and 16 wide, and distilling makes one of 64"):
        distill(fitted(shop), None)
    with pytest.raises(ConfigError, match="'gated' cannot be pruned"):
        prune(fitted(shop, fusion="gated"))


def test_the_command_prints_what_was_saved_and_lost(shop, fitted, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    fitted(shop, embedding_dim=64).save(tmp_path / "model")

    def type_in(*words: object) -> int:
        monkeypatch.setattr("sys.argv", ["recloom", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0

    assert type_in("compress", tmp_path / "model", "--out", tmp_path / "small", "--method", "int8") == 0
    printed = capsys.readouterr().out
    for row in ("tensors on disk", "memory", "an answer", "exported graph", "an answer of the graph", "NDCG@10"):
        assert row in printed
    # The graph of a model that was stored in 8 bits holds those, and answers as the model does.
    assert type_in("export", tmp_path / "small", "--format", "onnx", "--out", tmp_path / "export") == 0
    assert "the top 10 are identical for 60" in capsys.readouterr().out
    assert b"MatMulNBits" in (tmp_path / "export" / "model.onnx").read_bytes()
    assert type_in("compress", tmp_path / "small", "--out", tmp_path / "smaller", "--method", "int8") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert type_in("export", tmp_path / "small", "--format", "tflite", "--out", tmp_path / "export") == 2
    assert "unknown format 'tflite'; there are: onnx, mlflow" in capsys.readouterr().err

"""How like the texts are, beside what is trained: what it adds, when, and what else has to know of it."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recloom import Dataset, Recommender
from recloom.compression.folding import fold_text
from recloom.compression.pruning import prune
from recloom.compression.quantizing import quantize
from recloom.dataset import gather, split_dataset
from recloom.dataset.growing import grow, log_of
from recloom.events import Entities, Interactions, read_items
from recloom.models import Weave, weave
from recloom.models.coded_items import CodedItems
from recloom.models.weave import LEAST_CASES, LIKENESS_HALF_LIFE, LIKENESS_WEIGHTS
from tests.conftest import fake_text


@pytest.fixture(scope="module")
def shelves(tmp_path_factory) -> Dataset:
    """Make a shop of 40 shelves, told by the text alone, whose people stay at theirs; a thing is taken twice or so."""
    folder: Path = tmp_path_factory.mktemp("shelves")
    rng = np.random.default_rng(0)
    letters = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeio" for c in "lm"]
    items = [f"i{shelf:02}-{number},{word * 3} {number}" for shelf, word in enumerate(letters) for number in range(12)]
    events = []
    for user in range(240):
        shelf = int(rng.integers(40))
        for step, number in enumerate(rng.permutation(12)[:4]):
            events.append(f"u{user:03},i{shelf:02}-{number},{1_000 + 100 * user + step}")
    (folder / "events.csv").write_text("\n".join(["user_id,item_id,timestamp", *events]) + "\n")
    (folder / "items.csv").write_text("\n".join(["item_id,title", *items]) + "\n")
    return Dataset.from_files(folder / "events.csv", folder / "items.csv", out=folder / "dataset")


def fit(dataset: Dataset, fusion: str, width: int = 16, **training) -> Recommender:
    widths = dict.fromkeys(("embedding_dim", "hidden_dim", "text_dim"), width)
    settings = {
        "model": {**widths, "popularity": False, "request": False, "fusion": fusion},
        "training": {"epochs": 3, **training},
        "encoder": {"name": "hashing"},
        "split": {"protocol": "leave-one-out"},
    }
    return Recommender.fit(dataset, settings=settings)


@pytest.fixture(scope="module")
def fitted(shelves) -> Recommender:
    return fit(shelves, "likeness")


def test_texts_that_say_what_comes_next_are_listened_to(shelves, fitted):
    assert fitted.model._likeness.weight > 0
    without = fit(shelves, "sum")
    gained = fitted.evaluate([10]).metrics["NDCG@10"].mean - without.evaluate([10]).metrics["NDCG@10"].mean
    assert gained > 0.1


def test_a_score_is_what_was_trained_and_a_cosine_of_texts(shelves, fitted):
    cases = split_dataset(shelves, fitted.config.split).test.sample(20, 0)
    histories = gather(shelves, cases.history_start, cases.history_end, fitted.model.max_length)
    trained, likeness = fitted.model._towers
    with torch.no_grad():
        score_BI = fitted.model.queries(histories) @ fitted.model.item_vectors().T
        trained_BI = trained.queries(histories) @ trained.item_vectors(torch.arange(len(shelves.items) + 1)).T
    text_IF = likeness.items.text_IF[:, :16]
    unit_IF = torch.nn.functional.normalize(text_IF, dim=1, eps=1e-6)
    index_BL, length_B = torch.from_numpy(histories.item_index_BL).long(), torch.from_numpy(histories.length_B)
    back_BL = length_B[:, None] - 1 - torch.arange(index_BL.shape[1])
    weight_BL = torch.where(back_BL >= 0, 0.5 ** (back_BL / LIKENESS_HALF_LIFE), 0.0)
    recent_BF = (text_IF[index_BL] * weight_BL[..., None]).sum(dim=1)
    cosine_BI = torch.nn.functional.normalize(recent_BF, dim=1) @ unit_IF.T
    torch.testing.assert_close(score_BI[:, 1:], (trained_BI + likeness.weight * cosine_BI)[:, 1:], rtol=1e-3, atol=1e-3)


def test_texts_that_say_nothing_are_not(shelves, tmp_path, monkeypatch):
    asked, gain = [], weave.ndcg_at_10
    monkeypatch.setattr(weave, "ndcg_at_10", lambda *scored: asked.append(len(scored[1])) or gain(*scored))
    titles = shelves.item_table["title"].to_numpy()
    shuffled = pl.DataFrame(
        {"item_id": shelves.item_table["item_id"], "title": np.random.default_rng(1).permutation(titles)}
    )
    mixed = Dataset.from_tables(Interactions.of(log_of(shelves)), Entities.of(shuffled), out=tmp_path / "mixed")
    likeness = fit(mixed, "likeness").model._likeness
    assert sum(asked) >= LEAST_CASES * len(LIKENESS_WEIGHTS)
    assert likeness.weight <= 2


def test_few_cases_leave_the_weight_alone(shelves):
    few = shelves.of_users(np.arange(1, LEAST_CASES))
    assert fit(few, "likeness").model._likeness.weight == 0


def test_training_leaves_it_alone(shelves):
    fitted = fit(shelves, "likeness", epochs=1)
    likeness = fitted.model._likeness
    assert torch.equal(likeness.items.from_text.weight, torch.eye(16))
    assert not likeness.circumstances.table.weight.any()
    assert not likeness.from_network.weight.any()


def test_a_new_item_is_like_its_text(shelves, fitted, tmp_path):
    items = tmp_path / "items.csv"
    items.write_text("item_id,title\nnew,balbalbal 99\n")
    later = fitted.update(items=items)
    row = later.dataset.items.index_of("new")
    alike = later.similar_items("new", k=5)
    assert later.model._likeness.weight == fitted.model._likeness.weight
    assert later.model._likeness.item_vectors(torch.tensor([row])).norm() == pytest.approx(1, abs=1e-4)
    assert [place.item_id[:4] for place in alike].count("i00-") >= 4


def test_it_is_stored_and_explained(shelves, fitted, tmp_path):
    fitted.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    asked = {"history": ["i00-1", "i00-2"], "k": 5}
    before, after = (one.recommend(**asked, explain=True).items for one in (fitted, loaded))
    assert [(place.item_id, place.because) for place in before] == [(place.item_id, place.because) for place in after]
    parts = {"id", "text", "popularity", "any item"}
    for place in after:
        summed = sum(reason.contribution for reason in place.reasons if reason.kind in parts)
        assert summed == pytest.approx(place.score, abs=1e-3)
        assert any(reason.kind == "text" for reason in place.reasons)


def test_a_graph_of_it_answers_as_the_model_does(fitted, tmp_path):
    onnx_export = pytest.importorskip("recloom.compression.onnx_export")
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    assert fitted.model._likeness.weight > 0
    assert onnx_export.export_onnx(fitted, tmp_path / "export").largest_difference < 1e-4


def test_without_text_there_is_none(cycle_dataset):
    config = Weave.Config(fusion="likeness")
    assert len(Weave(config, cycle_dataset, None).towers) == 1
    assert len(Weave(config, cycle_dataset, fake_text(cycle_dataset)).towers) == 2


def test_pruning_keeps_it(shelves):
    wide = fit(shelves, "likeness", width=32, epochs=1)
    pruned = prune(wide)
    likeness, before = pruned._likeness, wide.model._likeness
    assert (wide.config.model.embedding_dim, pruned.config.embedding_dim) == (32, 16)
    assert likeness.weight == before.weight > 0
    rows = torch.arange(1, 40)
    strongest = before.items.text_IF[rows, :16]
    torch.testing.assert_close(likeness.item_vectors(rows), torch.nn.functional.normalize(strongest, dim=1))


def test_without_its_text_a_model_answers_alike_and_still_reads_new_ones(shelves, fitted, tmp_path):
    fold_text(fitted).save(tmp_path / "folded")
    folded = Recommender.load(tmp_path / "folded")
    assert not folded.text.vectors_IE.any()
    asked = {"history": ["i00-1", "i00-2"], "k": 10}
    for place, other in zip(folded.recommend(**asked).items, fitted.recommend(**asked).items, strict=True):
        assert place.score == pytest.approx(other.score, abs=1e-3)
    (tmp_path / "items.csv").write_text("item_id,title\nnew,balbalbal 99\n")
    grown = grow(shelves, None, read_items(tmp_path / "items.csv"), None).dataset
    row = torch.tensor([grown.items.index_of("new")])
    vectors = [one.over(grown).model._likeness.item_vectors(row) for one in (folded, fitted)]
    torch.testing.assert_close(*vectors, rtol=1e-3, atol=1e-3)
    assert vectors[0].norm() == pytest.approx(1, abs=1e-3)


def test_in_codes_the_lists_are_nearly_the_same(shelves):
    fitted = fit(shelves, "likeness", epochs=1)
    before = fitted.evaluate([10]).metrics["NDCG@10"].mean
    coded = quantize(fold_text(fitted))
    assert coded.model.is_coded
    assert all(isinstance(tower.items, CodedItems) for tower in coded.model._towers)
    assert coded.evaluate([10]).metrics["NDCG@10"].mean == pytest.approx(before, abs=0.02)

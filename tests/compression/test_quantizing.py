"""Item vectors in codes: what is looked up is what is decoded, and what is decoded is near to what was there."""

import numpy as np
import polars as pl
import pytest
import torch

from recloom import Recommender
from recloom.compression import compressing, quantizing
from recloom.compression.compressing import compress
from recloom.compression.folding import fold_text
from recloom.compression.onnx_export import sample_histories
from recloom.compression.quantizing import quantize
from recloom.errors import ConfigError
from recloom.models import Ranker, coded_items
from recloom.models.coded_items import CodedItems
from recloom.retrieval import Search, item_table, search


@pytest.fixture
def coded(shop, fitted, monkeypatch):
    """A model with fewer centroids than items, so that something is lost."""
    monkeypatch.setattr(quantizing, "CENTROIDS", 8)
    return quantize(fold_text(fitted(shop, embedding_dim=32, epochs=5)))


@pytest.fixture
def no_graph(monkeypatch):
    monkeypatch.setattr(compressing, "can_export", lambda: False)


def test_a_vector_gets_the_nearest_centroid_of_each_part_and_keeps_its_length(shop, fitted):
    source = fold_text(fitted(shop)).model._towers[0].items
    s = 0.5**0.5
    items = CodedItems(3, torch.tensor([[[s, 0.0], [0.0, s]], [[-s, 0.0], [0.0, 0.6]]]), source)
    items.put(torch.tensor([1, 3]), torch.tensor([[3.0, 0.0, -3.0, 0.1], [0.0, 0.3, 0.0, 0.4]]))
    assert items.code_IM.tolist() == [[0, 0], [0, 0], [0, 0], [1, 1]]
    assert items.length_I.tolist() == pytest.approx([0, 18.01**0.5, 0, 0.5])
    assert items(torch.tensor([3, 0])).tolist() == [pytest.approx([0, s / 2, 0, 0.3]), [0, 0, 0, 0]]


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_looking_products_up_finds_what_decoding_every_vector_finds(similarity, shop, fitted, monkeypatch):
    # Blocks and margins that a catalogue of 32 items meets too.
    monkeypatch.setattr(quantizing, "CENTROIDS", 8)
    monkeypatch.setattr(item_table, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(coded_items, "ROWS_AT_ONCE", 5)
    monkeypatch.setattr(search, "MARGIN", 2)
    recommender = quantize(fold_text(fitted(shop, embedding_dim=32, epochs=5, similarity=similarity)))
    found, ranker = Search(recommender.model), Ranker(recommender.model)
    histories = sample_histories(recommender, 60)
    right = ranker.rank(histories, 10)
    for row in range(len(histories)):
        one = histories.rows(np.array([row]))
        allowed_I = np.ones(recommender.model.num_items + 1, dtype=bool)
        allowed_I[[0, *one.seen()[1]]] = False
        rows, scores = found.search(one, [allowed_I], [None])[0].best(10)
        kept = right.item_index_BK[row] > 0
        assert rows.tolist() == right.item_index_BK[row][kept].tolist()
        assert scores.tolist() == right.score_BK[row][kept].tolist()
        # What a rule forbids is not shown, and what is left keeps its order.
        allowed_I[rows[::2]] = False
        fewer, _ = found.search(one, [allowed_I], [None])[0].best(3)
        assert fewer.tolist() == [item for item in ranker_order(ranker, one) if allowed_I[item]][:3]
    with torch.no_grad():
        query_BD = found.model.queries(histories)
        decoded_BI = query_BD @ found.model.item_vectors().T
        rough_BI, error_B = found._table.rough(query_BD)
    wrong_B = (rough_BI - decoded_BI).abs().amax(dim=1)
    assert (wrong_B <= error_B).all()
    assert wrong_B.max() < 1e-5 * decoded_BI.abs().max()
    some = torch.tensor([4, 9, 30])
    assert torch.allclose(found._table.rough(query_BD, some)[0], rough_BI[:, some], atol=1e-5)


def ranker_order(ranker, one) -> list[int]:
    score_I = ranker.scores(one)[0].numpy()
    return np.lexsort((np.arange(len(score_I)), -score_I)).tolist()


def test_a_boosted_item_comes_first(coded):
    found, one = Search(coded.model), sample_histories(coded, 1)
    allowed_I = np.arange(coded.model.num_items + 1) > 0
    boosted = np.array([31]), np.array([1e3], dtype=np.float32)
    assert found.search(one, [allowed_I], [boosted])[0].best(1)[0].tolist() == [31]


def test_codes_are_kept_and_similar_items_decoded(coded, tmp_path, monkeypatch):
    monkeypatch.setattr("recloom.models.weave.ITEMS_AT_ONCE", 6)
    coded.save(tmp_path / "coded")
    read = Recommender.load(tmp_path / "coded")
    assert read.model.is_coded
    histories = sample_histories(read, 30)
    assert torch.equal(Ranker(read.model).scores(histories), Ranker(coded.model).scores(histories))
    unit_ID = torch.nn.functional.normalize(read.model.eval().similarity_vectors(), dim=1)
    item = read.dataset.items.index_of("i05")
    assert torch.allclose(read.model.similarity(item), unit_ID @ unit_ID[item], atol=1e-6)


def test_a_new_item_is_placed_by_its_text_and_coded(shop, fitted):
    plain = fold_text(fitted(shop, embedding_dim=32, epochs=5))
    new = pl.DataFrame({"item_id": ["new"], "title": ["lamp 99 kind3"]})
    right = plain.with_items(new).model.eval().similarity_vectors()[-1].detach()
    coded = quantize(plain)
    grown = coded.with_items(new)
    assert grown.model.is_coded
    assert float(torch.cosine_similarity(grown.model.eval().similarity_vectors()[-1], right, dim=0)) > 0.9
    # At run time it goes the same way, and search knows at once.
    roomy = coded.with_room(2)
    found = Search(roomy.model)
    found.read_items([33], coded.text.read(["lamp 99 kind3"]))
    assert np.allclose(found.unit_vectors(np.array([33]))[0], grown.model.similarity_vectors()[-1], atol=1e-5)
    one = sample_histories(coded, 1)
    decoded_I = Ranker(found.model).scores(one)[0].numpy()
    allowed_I = np.arange(35) == 33
    assert found.search(one, [allowed_I], [None])[0].best(1)[1].tolist() == [decoded_I[33]]
    with torch.no_grad():
        rough_I = found._table.rough(found.model.queries(one))[0][0]
    assert float(rough_I[33]) == pytest.approx(float(decoded_I[33]), rel=1e-4)
    # A known item keeps what was learned of it, whatever it is called now.
    before = roomy.model.eval().similarity_vectors(torch.tensor([5]))
    roomy.model.read_items(torch.tensor([5]), torch.from_numpy(coded.text.read(["something else"])))
    assert torch.equal(roomy.model.similarity_vectors(torch.tensor([5])), before)


@pytest.mark.parametrize("methods", [["pq"], ["pq", "int8"], ["distill", "pq"]], ids=" and ".join)
def test_compressing_into_codes_keeps_what_is_known(methods, cycle_dataset, fitted, tmp_path, no_graph, long_lessons):
    fitted(cycle_dataset, epochs=30, include_seen=True, embedding_dim=128, hidden_dim=96).save(tmp_path / "model")
    compression = compress(tmp_path / "model", tmp_path / "small", methods)
    small = Recommender.load(tmp_path / "small")
    assert small.model.is_coded
    assert small.recommend(history=["i1", "i2", "i3"], k=1).items[0].item_id == "i4"
    assert compression.ndcg_after == pytest.approx(compression.ndcg_before, abs=0.05)
    log = tmp_path / "more.csv"
    log.write_text("user_id,item_id,timestamp\nsomebody,i1,1760000000\nsomebody,i2,1760000001\n")
    with pytest.raises(ConfigError, match=r"stored in codes, which cannot be trained; update the model it was"):
        small.update(log)


def test_item_vectors_that_are_no_table_are_not_coded(shop, fitted):
    with pytest.raises(ConfigError, match=r"'gated' has item vectors that are made anew .* use --method int8"):
        quantize(fold_text(fitted(shop, fusion="gated")))
    with pytest.raises(ConfigError, match=r"model.embedding_dim is 15; pq wants a multiple of 2"):
        quantize(fold_text(fitted(shop, embedding_dim=15)))

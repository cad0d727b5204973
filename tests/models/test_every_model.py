"""What every model has to hold, whatever it is."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recloom.dataset import Interaction, Segments, gather, histories_from_interactions
from recloom.models import MODELS, CountedModel, Ranker, TrainingData
from recloom.models.ranking import top_k
from recloom.training import TrainingConfig, train
from tests.conftest import fake_text

SMALL = {
    "weave": {"embedding_dim": 16, "hidden_dim": 16, "max_length": 6},
    "lm-fusion": {"hidden_dim": 16, "max_length": 6},
    "two-tower": {"embedding_dim": 16, "max_length": 6},
    "ncf": {"embedding_dim": 8},
    "mf": {"factors": 4},
}


@pytest.fixture(params=MODELS)
def ranked(request, cycle_dataset):
    """Return a model that has learned a little, and histories of different lengths."""
    torch.manual_seed(0)
    model_class = MODELS[request.param]
    config = model_class.Config(**SMALL.get(request.param, {}))
    model = model_class(config, cycle_dataset, fake_text(cycle_dataset))
    offsets = cycle_dataset.user_offsets
    data = TrainingData(cycle_dataset, Segments(offsets[:-1], offsets[1:]))
    if isinstance(model, CountedModel):
        model.count(data)
    else:
        model.prepare(data)
        model.loss(gather(cycle_dataset, offsets[1:5], offsets[2:6], 7)).backward()
    starts = offsets[1:9]
    histories = gather(cycle_dataset, starts, starts + np.array([1, 5, 2, 4, 3, 6, 1, 2]), model.max_length)
    return model, histories


def lists(model, histories, k=5, include_seen=True):
    rankings = Ranker(model).rank(histories, k, include_seen)
    return rankings.item_index_BK.tolist(), rankings.score_BK


def test_a_batch_equals_its_rows_one_at_a_time(ranked):
    model, histories = ranked
    items, scores = lists(model, histories)
    for row in range(len(histories)):
        alone, score = lists(model, histories.rows(np.array([row])))
        assert alone[0] == items[row]
        assert score[0] == pytest.approx(scores[row], rel=1e-6)


def test_threads_change_nothing(ranked):
    model, histories = ranked
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = lists(model, histories)[0]
        torch.set_num_threads(2)
        assert lists(model, histories)[0] == one
    finally:
        torch.set_num_threads(threads)


def test_seen_items_are_left_out_unless_asked_for(ranked):
    model, histories = ranked
    items, _ = lists(model, histories, k=8, include_seen=False)
    rows, seen = histories.seen()
    for row, item in zip(rows, seen, strict=True):
        assert item not in items[row]
    assert all(sorted(row) == list(range(1, 9)) for row in lists(model, histories, k=8)[0])


def test_a_list_longer_than_the_catalogue_ends_in_padding(ranked):
    model, histories = ranked
    items, scores = lists(model, histories, k=11)
    assert all(row[8:] == [0, 0, 0] for row in items)
    assert np.isneginf(scores[:, 8:]).all()


def test_weights_rank_alike_in_a_new_model(ranked, cycle_dataset):
    model, histories = ranked
    again = type(model)(model.config, cycle_dataset, fake_text(cycle_dataset))
    again.load_state_dict(model.state_dict())
    assert lists(again, histories)[0] == lists(model, histories)[0]


def test_a_longer_history_in_the_batch_changes_nothing(ranked, cycle_dataset):
    model, _ = ranked
    early = [Interaction("i0"), Interaction("i3")]
    longer, _ = histories_from_interactions(cycle_dataset, [early, [*early, Interaction("i5")]], 6)
    alone, _ = histories_from_interactions(cycle_dataset, [early], 6)
    assert lists(model, longer)[0][0] == lists(model, alone)[0][0]


@pytest.mark.parametrize(
    ("name", "network"),
    [*(("weave", network) for network in ("gru", "lstm", "rnn", "sasrec", "hstu")), ("lm-fusion", None)],
)
def test_later_items_never_reach_back(name, network, cycle_dataset):
    torch.manual_seed(0)
    options = SMALL[name] | ({"network": network} if network else {})
    model = MODELS[name](MODELS[name].Config(**options), cycle_dataset, fake_text(cycle_dataset))
    offsets = cycle_dataset.user_offsets
    data = TrainingData(cycle_dataset, Segments(offsets[:-1], offsets[1:]))
    model.prepare(data)
    config = TrainingConfig(epochs=1, batch_size=64)
    train(model, data, config, validate=None)  # untrained, the network has no say yet
    model.eval()
    early = [Interaction("i0", 10), Interaction("i3", 20)]
    two, _ = histories_from_interactions(
        cycle_dataset, [[*early, Interaction("i5", 30)], [*early, Interaction("i6", 90)]], 6
    )
    with torch.no_grad():
        queries = model.step_queries(two)
    assert torch.allclose(queries[0, :2], queries[1, :2], atol=1e-6)
    assert not torch.allclose(queries[0, 2], queries[1, 2], atol=1e-3)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=4), st.integers(1, 6))
def test_equal_scores_are_ordered_by_item_index(rows, k):
    items, scores = top_k(torch.tensor(rows, dtype=torch.float32), k)
    for row, found in zip(rows, items.tolist(), strict=True):
        assert found == sorted(range(6), key=lambda item: (-row[item], item))[:k]
    assert scores.shape == (len(rows), k)


def test_a_network_as_wide_as_the_catalogue_is_long_is_no_table_of_items(cycle_dataset):
    torch.manual_seed(0)
    rows = len(cycle_dataset.items) + 1
    config = MODELS["weave"].Config(embedding_dim=rows, hidden_dim=rows, max_length=6)
    before, after = (MODELS["weave"](config, cycle_dataset, fake_text(cycle_dataset)) for _ in range(2))
    turned_I = torch.tensor([0, *range(2, rows), 1])  # as if an item had left and another come
    after.take_over(before, turned_I)
    for name, taken in after.state_dict().items():
        own = before.state_dict()[name]
        is_table = name.endswith((".ids.weight", ".seen_I", ".features_IP"))
        assert torch.equal(taken, own[turned_I] if is_table else own), name

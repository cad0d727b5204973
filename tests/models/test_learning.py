"""A planted answer: everybody walks the same circle of items, so that the next one is known."""

import pytest
import torch

from recloom.dataset import Interaction, Segments, histories_from_interactions
from recloom.models import MODELS, Ranker, TrainingData
from recloom.training import TrainingConfig, train
from tests.conftest import CYCLE, fake_text


def fitted(name, dataset, epochs=40, learning_rate=0.01, text=True, **options):
    torch.manual_seed(0)
    if name == "weave":
        options = {"embedding_dim": 64, "hidden_dim": 64} | options
    model = MODELS[name](MODELS[name].Config(max_length=8, **options), dataset, fake_text(dataset) if text else None)
    data = TrainingData(dataset, Segments(dataset.user_offsets[:-1], dataset.user_offsets[1:]))
    model.prepare(data)
    train(model, data, TrainingConfig(epochs=epochs, batch_size=64, learning_rate=learning_rate), validate=None)
    return model


def next_items(model, dataset, histories):
    batch, _ = histories_from_interactions(dataset, [[Interaction(i) for i in h] for h in histories], 8)
    ranked = Ranker(model).rank(batch, 1, include_seen=True)
    return [dataset.items.id_of(int(item)) for item in ranked.item_index_BK[:, 0]]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("weave", {"network": "gru"}),
        ("weave", {"network": "lstm"}),
        ("weave", {"network": "rnn"}),
        ("weave", {"network": "gru", "num_negatives": 4}),
        ("weave", {"network": "sasrec"}),
        ("weave", {"network": "bert4rec"}),
        ("weave", {"network": "hstu"}),
        ("weave", {"fusion": "id"}),
        ("weave", {"fusion": "text"}),
        ("weave", {"fusion": "gated"}),
        ("weave", {"fusion": "concat"}),
        ("weave", {"fusion": "init"}),
        ("weave", {"fusion": "separate"}),
        ("weave", {"fusion": "likeness"}),
        ("weave", {"loss": "gbce", "similarity": "dot"}),
        ("weave", {"loss": "bpr"}),
        ("weave", {"sampling": "popularity", "num_negatives": 4}),
        ("weave", {"sampling": "in-batch"}),
        ("weave", {"behavior_loss": 0.1, "time_loss": 0.1}),
        ("lm-fusion", {"head": "gru"}),
        ("lm-fusion", {"head": "lstm"}),
    ],
    ids=str,
)
def test_the_next_item_of_the_circle_comes_first(name, options, cycle_dataset):
    slow = {"epochs": 100, "learning_rate": 0.003} if options.get("network") == "bert4rec" else {}
    model = fitted(name, cycle_dataset, **slow, **options)
    # A network that looks both ways knows no windows shorter than those it was trained on.
    length = 8 if options.get("network") == "bert4rec" else 4
    histories = [[f"i{(start + step) % CYCLE}" for step in range(length)] for start in range(CYCLE)]
    assert next_items(model, cycle_dataset, histories) == [f"i{(start + length) % CYCLE}" for start in range(CYCLE)]


def test_a_new_item_is_placed_by_its_text_alone(dataset_of):
    # "twin" was never taken, but reads like i3: wherever i3 is high, it is close behind.
    log = [f"u{u:02},i{(u + s) % CYCLE},{1_000_000 + u * 100 + s}" for u in range(40) for s in range(12)]
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
    dataset = dataset_of(log, [*(f"i{i},{words[i]} {words[i]}x" for i in range(CYCLE)), f"twin,{words[3]} {words[3]}x"])
    model = fitted("weave", dataset, id_dropout=0.3)
    vectors = model.double().eval().item_vectors()
    twin, i3 = dataset.items.index_of("twin"), dataset.items.index_of("i3")
    assert not model.towers[0].items.seen_I[twin]
    assert Ranker(model).neighbours(twin, 1).item_index_BK[0, 0] == i3
    batch, _ = histories_from_interactions(dataset, [[Interaction("i1"), Interaction("i2")]], 8)
    assert set(Ranker(model).rank(batch, 2, True).item_index_BK[0].tolist()) == {twin, i3}
    assert vectors.shape[0] == len(dataset.items) + 1

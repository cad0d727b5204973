import numpy as np
import pytest
import torch

from recloom.dataset import Segments, gather
from recloom.models import TrainingData, Weave
from recloom.models.circumstances import Moments
from recloom.models.popularity_prior import PopularityPrior

DAY = 86_400
LATER_ITEMS = [f"later{number},l" for number in range(9)]
LOG = [*(f"u{u},hit,{40 * DAY + u}" for u in range(9)), *(f"u{u},old,{DAY + u}" for u in range(3))]


def asked_after(days):
    gap = (np.array(days) * DAY).astype(np.int64)
    return Moments(np.ones(len(days), dtype=np.int64), gap, {}, np.zeros(len(days), dtype=np.int64))


@pytest.fixture
def prior(dataset_of):
    dataset = dataset_of(LOG, ["hit,h", "old,o", "never,n"])
    made = PopularityPrior(len(dataset.items))
    made.prepare(TrainingData(dataset, Segments(dataset.user_offsets[:-1], dataset.user_offsets[1:])))
    return made


def test_popularity_is_counted_in_windows_before_the_end_of_training(prior):
    day, week, month, quarter, ever, never = range(6)
    hit, old, cold = prior.features_IP[1:].tolist()
    assert hit[week] == pytest.approx(np.log(10))
    assert old[month] == 0
    assert old[quarter] == old[ever] == pytest.approx(np.log(4))
    assert (hit[never], old[never], cold[never]) == (0, 0, 1)
    assert hit[day] == pytest.approx(np.log(10))


def test_without_fitting_it_changes_nothing(prior):
    query = torch.randn(2, 5)
    extended = prior.extend(query, asked_after([1, 2]))
    assert torch.equal(extended[:, :5], query)
    assert extended[:, 5:].abs().sum() == 0


def test_it_learns_to_trust_popularity_after_a_long_gap_and_the_history_after_a_short_one(prior):
    # After a minute the item most like the history is taken, after a hundred days the hit.
    cases = 200
    days = [0.001] * cases + [100] * cases
    similarity = torch.randn(2 * cases, 3, generator=torch.Generator().manual_seed(0)) * 3
    target = torch.cat([similarity[:cases].argmax(dim=1), torch.zeros(cases, dtype=torch.long)])
    prior.fit(similarity, torch.tensor([1, 2, 3]), target, asked_after(days))
    query = torch.ones(2, 1)
    soon, late = prior.extend(query, asked_after([0.001, 100]))
    lead = prior.features_IP[1] - prior.features_IP[2]  # by how much the hit is more popular than the old one
    assert soon[0] > 2 * late[0]
    assert float(late[1:] @ lead) > float(soon[1:] @ lead) + 1


def test_items_that_may_not_be_recommended_leave_the_weights_finite(prior):
    similarity = torch.tensor([[1.0, -torch.inf, 0.0], [-torch.inf, 1.0, 0.0]])
    prior.fit(similarity, torch.tensor([1, 2, 3]), torch.tensor([0, 1]), asked_after([1, 1]))
    assert torch.isfinite(prior.weight_GP).all()


def test_items_that_were_not_there_when_validation_ended_do_not_put_new_items_behind(dataset_of):
    # One of ten never taken in training is what half of validation takes; the nine others may come later.
    log = [f"u{user:03},i{(user + step) % 8},{DAY + user * 100 + step}" for user in range(200) for step in range(5)]
    asked = [f"u{user:03},{'fresh' if user % 2 else f'i{user % 8}'},{9 * DAY + user}" for user in range(200)]
    dataset = dataset_of([*log, *asked], [*(f"i{item},f" for item in range(8)), "fresh,f", *LATER_ITEMS])
    start, last = dataset.user_offsets[1:-1], dataset.user_offsets[2:] - 1
    known = TrainingData(dataset, Segments(start, last))
    histories = gather(dataset, start, last, 5)
    target = torch.from_numpy(dataset.item_index[last]).long()

    def readiness_for_the_new(was_there):
        model = Weave(Weave.Config(embedding_dim=8, hidden_dim=8), dataset, None)
        model.prepare(known)
        model.tune(histories, target, True, was_there)
        new, known_one = (model.prior.features_IP[dataset.items.index_of(item)] for item in ("fresh", "i0"))
        return float((model.prior.weight_GP[0, 1:] * (new - known_one)).sum())

    everything = torch.arange(len(dataset.items) + 1) > 0
    was_there = everything & torch.from_numpy(~np.char.startswith(["", *dataset.items.ids], "later"))
    assert readiness_for_the_new(was_there) > readiness_for_the_new(everything) + 1

import numpy as np
import pytest
import torch

from recloom.dataset import Segments
from recloom.models import TrainingData
from recloom.models.circumstances import Moments
from recloom.models.popularity_prior import PopularityPrior

DAY = 86_400
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

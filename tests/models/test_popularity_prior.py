import numpy as np
import pytest
import torch

from recloom.dataset import Histories, Interaction, Requests, Segments, histories_from_interactions
from recloom.models import TrainingData
from recloom.models.popularity_prior import AGE, DAYS, ITEM_FEATURES, NEW, PopularityPrior, _log_shares

DAY = 86_400
END = 40 * DAY
LOG = [*(f"u{u},hit,{END - u}" for u in range(9)), *(f"u{u},old,{DAY + u}" for u in range(3))]
ITEMS = ["hit", "old", "never"]


@pytest.fixture
def dataset(dataset_of):
    return dataset_of(LOG, [f"{item},{item}" for item in ITEMS])


@pytest.fixture
def prior(dataset):
    made = PopularityPrior(len(dataset.items))
    made.prepare(TrainingData(dataset, Segments(dataset.user_offsets[:-1], dataset.user_offsets[1:])))
    return made


@pytest.fixture
def ask(dataset):
    """Make histories of (item, time) pairs, each with the time at which the next item is asked for."""

    def make(*asked: tuple[list[tuple[str, int]], int]) -> Histories:
        made, _ = histories_from_interactions(dataset, [[Interaction(*event) for event in h] for h, _ in asked], 50)
        times = np.array([time for _, time in asked])
        return Histories(**{**made.__dict__, "request": Requests(times, {})})

    return make


def asked_after(ask, days):
    return ask(*(([("old", END)], END + round(wait * DAY)) for wait in days))


def test_popularity_is_counted_in_windows_before_the_end_of_training(dataset, prior):
    hit, old, cold = (prior.features_IP[dataset.items.index_of(item)].tolist() for item in ITEMS)
    day, week, month, quarter, ever = range(len(DAYS))
    # Of 12 interactions with 3 items the hit had 9, and all 9 of the last month; each item counts as taken once before.
    share = (9 + 1) / (12 / 3 + 1)
    assert hit[ever] == pytest.approx(np.log(share))
    quarterly = (9 + share) / (12 / 3 + 1)
    assert hit[quarter] == pytest.approx(np.log(quarterly))
    monthly = (9 + quarterly) / (9 / 3 + 1)
    assert hit[month] == pytest.approx(np.log(monthly))
    assert old[ever] == pytest.approx(np.log((3 + 1) / (12 / 3 + 1)))
    assert hit[day] > hit[week] > hit[month]
    assert old[day] < old[week] < old[month] < old[quarter]
    assert cold[: len(DAYS)] == [0] * len(DAYS)
    assert (hit[NEW], old[NEW], cold[NEW]) == (0, 0, 1)
    assert old[AGE] == pytest.approx(np.log(1 + 39))
    assert cold[AGE] == 0


def test_where_little_happened_of_late_what_was_taken_before_counts(dataset_of):
    counts = np.array([[0, 0, 0, 0], [0, 0, 1, 0], [0, 900, 90, 9]])
    now, lately, ever = _log_shares(counts)
    np.testing.assert_array_equal(now, lately)  # nothing happened, so nothing is known
    assert lately[1] > lately[2] > lately[3]  # a single one does not turn a thousand over
    np.testing.assert_allclose(np.exp(ever)[1:].mean(), 1.0)


def test_without_fitting_it_changes_nothing(prior, ask):
    query = torch.randn(2, 5)
    extended = prior.extend(query, asked_after(ask, [1, 2]))
    assert torch.equal(extended[:, :5], query)
    assert extended[:, 5:].abs().sum() == 0


def test_a_request_tells_silence_wait_and_how_soon_the_person_takes_what_is_new(prior, ask):
    # "old" was first taken on day 1 and training ended on day 40.
    prior.longest_wait = torch.tensor(np.log(1 + 30)).float()
    known = prior._what_is_known(
        ask(
            ([("old", 5 * DAY)], 44 * DAY),
            ([("old", 5 * DAY), ("never", 45 * DAY)], 45 * DAY),
            ([("old", 0)], 0),
            ([("old", 5 * DAY)], END + 300 * DAY),
        )
    )
    silence, wait, lateness = known[:, 1:].exp().sub(1).T
    assert silence.tolist() == pytest.approx([39, 0, 0, 335], abs=0.01)
    assert wait.tolist() == pytest.approx([4, 5, 0, 30], abs=0.01)  # not longer than when the weights were fitted
    assert lateness[0] == pytest.approx(4, abs=0.01)
    assert known[1, 3] == pytest.approx(np.log(1 + 4) / 2, abs=0.01)  # what nobody had taken is taken at once
    assert known[2, 3] == prior.usual_lateness


def test_it_learns_to_trust_popularity_after_a_long_gap_and_the_history_after_a_short_one(prior, ask):
    # After a minute the item most like the history is taken, after a hundred days the hit.
    cases = 200
    days = [0.001] * cases + [100] * cases
    similarity = torch.randn(2 * cases, 3, generator=torch.Generator().manual_seed(0)) * 3
    target = torch.cat([similarity[:cases].argmax(dim=1), torch.zeros(cases, dtype=torch.long)])
    prior.fit(similarity, torch.tensor([1, 2, 3]), target, asked_after(ask, days), 1)
    soon, late = prior.extend(torch.ones(2, 1), asked_after(ask, [0.001, 100]))
    lead = prior.features_IP[1] - prior.features_IP[2]  # by how much the hit is more popular than the old one
    assert soon[0] > 2 * late[0]
    assert float(late[1:] @ lead) > float(soon[1:] @ lead) + 1


def test_it_learns_that_new_items_are_for_those_who_take_them_early(dataset, prior, ask):
    cases = 200
    early = ([("old", DAY)], 41 * DAY)
    late = ([("old", 39 * DAY)], 41 * DAY)
    candidate = torch.tensor([dataset.items.index_of(item) for item in ITEMS])
    target = torch.tensor([2] * cases + [0] * cases)
    prior.fit(torch.zeros(2 * cases, 3), candidate, target, ask(*[early] * cases, *[late] * cases), 1)
    score = prior.extend(torch.zeros(2, 1), ask(early, late))[:, 1:] @ prior.features_IP[candidate].T
    assert score.argmax(dim=1).tolist() == [2, 0]


def test_few_cases_change_little_of_what_many_have_chosen(prior, ask):
    def fit(num_cases, target):
        asked = asked_after(ask, [1] * num_cases)
        prior.fit(torch.zeros(num_cases, 3), torch.tensor([1, 2, 3]), torch.full((num_cases,), target), asked, 1)
        score = prior.extend(torch.zeros(1, 1), asked_after(ask, [1]))[:, 1:] @ prior.features_IP[1:4].T
        return int(score.argmax())

    assert fit(500, 0) == 0
    assert fit(3, 1) == 0
    assert fit(5_000, 1) == 1


def test_what_was_learned_of_long_waits_is_not_forgotten_when_nobody_waited(prior, ask):
    def fit(days):
        asked = asked_after(ask, [days] * 50)
        prior.fit(torch.zeros(50, 3), torch.tensor([1, 2, 3]), torch.zeros(50, dtype=torch.long), asked, 1)

    fit(30)
    learned = prior.longest_wait.clone()
    fit(0)
    assert prior.longest_wait == learned > 0


def test_items_that_may_not_be_recommended_leave_the_weights_finite(prior, ask):
    similarity = torch.tensor([[1.0, -torch.inf, 0.0], [-torch.inf, 1.0, 0.0]])
    prior.fit(similarity, torch.tensor([1, 2, 3]), torch.tensor([0, 1]), asked_after(ask, [1, 1]), 1)
    assert torch.isfinite(prior.weight_GP).all()


def test_what_is_wanted_of_new_items_is_shared_among_as_many_as_there_are(dataset_of):
    def prepared(prior, items):
        dataset = dataset_of(LOG, [f"{item},{item}" for item in items])
        prior = prior or PopularityPrior(len(dataset.items))
        prior.prepare(TrainingData(dataset, Segments(dataset.user_offsets[:-1], dataset.user_offsets[1:])))
        return prior

    fitted = prepared(None, ITEMS)  # one new item
    fitted.weight_GP = torch.ones_like(fitted.weight_GP)
    fitted.num_new = torch.tensor(1)
    same, more = prepared(None, ITEMS), prepared(None, [*ITEMS, "nor this", "nor that", "never too"])
    for other in (same, more):
        other.fit_like(fitted)
    assert torch.equal(same.weight_GP, fitted.weight_GP)
    change = more.weight_GP - fitted.weight_GP
    assert change[0, 1 + NEW] == pytest.approx(np.log(1 / 4))
    assert change.abs().sum() == change[0, 1 + NEW].abs()
    # And back, when it is counted anew.
    torch.testing.assert_close(prepared(more, ITEMS).weight_GP, fitted.weight_GP)


def random_cases(seed, scale, cases=20):
    """Fit a prior to cases without any sense, of scores that lie so far apart; return it with what was asked."""
    chance = torch.Generator().manual_seed(seed)
    prior = PopularityPrior(3)
    prior.features_IP[1:] = torch.randn(3, ITEM_FEATURES, generator=chance) * 3
    zeros = np.zeros((cases, 1), dtype=np.int64)
    asked = Histories(
        item_index_BL=np.ones((cases, 1), dtype=np.int32),
        timestamp_BL=zeros + DAY,
        behavior_index_BL=zeros.astype(np.int32),
        context_BL={},
        length_B=np.ones(cases, dtype=np.int64),
        user_index_B=zeros[:, 0],
        request=Requests((DAY + np.random.default_rng(seed).exponential(1000, cases) * DAY).astype(np.int64), {}),
        all_items=np.ones(cases, dtype=np.int32),
        start_B=np.arange(cases),
        end_B=np.arange(cases) + 1,
    )
    similarity = torch.randn(cases, 3, generator=chance) * scale
    target = torch.randint(0, 3, (cases,), generator=chance)
    prior.fit(similarity, torch.tensor([1, 2, 3]), target, asked, 1)
    return prior, similarity, target, asked


@pytest.mark.parametrize(("seed", "scale"), [(21, 100.0), (24, 300.0), (35, 100.0), (55, 300.0)])
def test_a_long_step_does_not_lead_away(seed, scale):
    # Of 1,200 such cases 20 go to weights of up to 1e31 where the loss may overflow.
    prior, *_ = random_cases(seed, scale)
    assert prior.weight_GP.abs().max() < 100


def test_it_begins_where_something_can_be_learned():
    """Scores so far apart that hardly a target is within reach: there is no direction to begin in."""
    least = 0.0
    for seed in range(10):
        prior, similarity, target, asked = random_cases(seed, 300.0)
        query = prior.extend(torch.ones(len(asked), 1), asked)
        scores = similarity * query[:, :1] + query[:, 1:] @ prior.features_IP[1:].T
        least += float(torch.log_softmax(scores, dim=1).exp().gather(1, target[:, None]).mean()) / 10
    assert least > 0.4  # by chance .33; where they begin as they are .36

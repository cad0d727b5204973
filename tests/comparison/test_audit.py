from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from recloom.comparison import audit_catalogue, audit_model, audit_split
from recloom.dataset import PROTOCOLS, Segments, SplitConfig, split_dataset
from recloom.models import MODELS, Popular
from recloom.run_config import RunConfig
from tests.conftest import fake_text

LEARNS = "comes out differently when what the test holds is made up"


# The split


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("options", [{}, {"ties": "strict"}, {"train_days": 20.0}])
def test_the_splits_of_recloom_are_clean(shop, protocol, options):
    assert audit_split(shop, split_dataset(shop, SplitConfig(protocol=protocol, **options))) == []


def said(dataset, split):
    findings = audit_split(dataset, split)
    assert all(finding.is_leak for finding in findings)
    return " / ".join(finding.what for finding in findings)


@pytest.fixture
def split(shop):
    return split_dataset(shop, SplitConfig())


def test_answers_among_what_is_learned_are_found(shop, split):
    everything = Segments(shop.user_offsets[:-1], shop.user_offsets[1:])
    tests, asked = len(split.test), len(split.validation)
    assert f"{tests} answers of the test are in the final training" in said(shop, replace(split, full=everything))
    found = said(shop, replace(split, train=everything))
    assert f"{asked} answers of the validation are in training" in found
    assert f"{tests} answers of the test are in training" in found


def test_a_single_answer_is_found(shop, split):
    user, target = int(split.test.user_index[0]), int(split.test.target[0])
    end = split.full.end.copy()
    end[user] = target + 1
    found = said(shop, replace(split, full=Segments(split.full.start, end)))
    assert "1 answers of the test are in the final training" in found


def test_validation_that_asks_what_the_test_asks_is_found(shop, split):
    found = said(shop, replace(split, validation=split.test.rows(np.arange(7))))
    assert "validation asks 7 questions of the test" in found


@pytest.mark.parametrize("part", ["test", "validation"])
def test_a_history_that_reaches_past_its_question_is_found(shop, split, part):
    asked = getattr(split, part)
    ends = asked.history_end.copy()
    ends[:3] = asked.target[:3] + 1
    found = said(shop, replace(split, **{part: replace(asked, history_end=ends)}))
    assert found == f"3 {part} histories reach beyond the question that they come before"


def test_what_is_learned_from_after_the_split_time_is_found(shop, split):
    more = shop.user_offsets[split.test.user_index + 1] - split.test.target
    someone = int(split.test.user_index[more.argmax()])
    start, end = split.full.start.copy(), split.full.end.copy()
    start[someone], end[someone] = split.test.target[more.argmax()] + 1, shop.user_offsets[someone + 1]
    late = int(end[someone] - start[someone])
    assert late > 0
    found = said(shop, replace(split, full=Segments(start, end)))
    assert found == f"{late} interactions learned from are not before the split time"


# Models


def counts_the_whole_log(dataset):
    return np.bincount(dataset.item_index, minlength=len(dataset.items) + 1)


def centres_times_on_the_whole_log(dataset):
    return dataset.timestamp.mean()


def scales_a_number_by_the_whole_log(dataset):
    return dataset.context["price"].values.mean()


def counts_a_word_in_the_whole_log(dataset):
    return (dataset.context["device"].values == 1).sum()


def puts_first_what_the_test_takes_most(dataset):
    cases = split_dataset(dataset, SplitConfig()).test
    return np.bincount(dataset.item_index[cases.target]).argmax()


def looks_at_one_test_answer(dataset):
    return dataset.item_index[split_dataset(dataset, SplitConfig()).test.target[0]]


def knows_who_comes_back_how_soon(dataset):
    cases = split_dataset(dataset, SplitConfig()).test
    return (dataset.timestamp[cases.target] - dataset.timestamp[cases.history_end - 1]).max()


def peeking(monkeypatch, look):
    """Make it known as a model: popularity, with something beside it that it took from the dataset."""

    class Peeking(Popular):
        name = "peeking"

        def __init__(self, config, dataset, text):
            super().__init__(config, dataset, text)
            self.register_buffer("seen", torch.zeros(()))

        def count(self, data):
            super().count(data)
            self.seen = torch.as_tensor(look(data.dataset))

    monkeypatch.setitem(MODELS, "peeking", Peeking)


def audited(dataset, name, **settings):
    config = RunConfig.resolve(name, dataset, {"training": {"batch_size": 256}} | settings)
    return audit_model(dataset, config, fake_text(dataset))


@pytest.mark.parametrize(
    "look",
    [
        counts_the_whole_log,
        centres_times_on_the_whole_log,
        scales_a_number_by_the_whole_log,
        counts_a_word_in_the_whole_log,
        puts_first_what_the_test_takes_most,
        looks_at_one_test_answer,
        knows_who_comes_back_how_soon,
    ],
    ids=lambda look: look.__name__,
)
def test_a_model_that_knows_the_test_is_found(shop, monkeypatch, look):
    peeking(monkeypatch, look)
    (finding,) = audited(shop, "peeking")
    assert finding.is_leak
    assert finding.what.startswith(f"peeking {LEARNS} (in seen)")


@pytest.mark.parametrize("protocol", ["leave-one-out", "user-disjoint"])
def test_it_is_found_under_every_protocol(shop, monkeypatch, protocol):
    peeking(monkeypatch, counts_the_whole_log)
    assert len(audited(shop, "peeking", split={"protocol": protocol})) == 1
    peeking(monkeypatch, centres_times_on_the_whole_log)
    assert len(audited(shop, "peeking", split={"protocol": protocol})) == 1


def test_what_a_model_may_know_is_no_leak(shop, monkeypatch):
    def allowed(dataset):
        split = split_dataset(dataset, SplitConfig())
        known = np.union1d(split.full.positions(), split.validation.target)
        prices, times = dataset.context["price"].values[known], dataset.timestamp[known]
        return torch.tensor([prices.mean(), times.mean(), dataset.item_index[known].sum(), len(dataset.items)])

    peeking(monkeypatch, allowed)
    assert audited(shop, "peeking") == []


@pytest.mark.parametrize("model", MODELS)
def test_every_model_of_recloom_is_clean(shop, model):
    assert audited(shop, model) == []


@pytest.mark.parametrize("split", [{"protocol": "leave-one-out"}, {"protocol": "user-disjoint"}, {"train_days": 20.0}])
def test_a_trained_model_is_clean_under_every_split(shop, split):
    """With train_days, validation reads of a history what is too old to be learned from: no leak either."""
    assert audited(shop, "weave", split=split, model={"embedding_dim": 16, "hidden_dim": 16}) == []


def test_sums_that_threads_share_are_no_leak(shop, monkeypatch):
    """Threads round differently from run to run, so the two fits have to be made on one."""
    peeking(monkeypatch, lambda dataset: torch.get_num_threads() > 1 and np.random.default_rng().random())
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert audited(shop, "peeking") == []
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# The catalogue


@pytest.fixture
def catalogue(shop):
    """Add a column to the catalogue, and hear what is suspected of it."""

    def add(**columns):
        table = shop.item_table.select("item_id").with_columns(**{n: pl.Series(v) for n, v in columns.items()})
        return audit_catalogue(shop.with_items(table), SplitConfig())

    return add


def counted(dataset):
    """Return how often each item is taken before and in the test, apart from padding."""
    split, size = split_dataset(dataset, SplitConfig()), len(dataset.items) + 1
    learned = np.bincount(dataset.item_index[split.full.positions()], minlength=size)[1:]
    return learned, np.bincount(dataset.item_index, minlength=size)[1:] - learned


def test_an_ordinary_catalogue_is_not_suspected(shop):
    assert audit_catalogue(shop, SplitConfig()) == []


def test_what_training_tells_is_not_suspected(shop, catalogue):
    learned, _ = counted(shop)
    assert catalogue(sold=learned, shelf=-learned.astype(float)) == []


def test_chance_is_not_suspected(shop):
    rng = np.random.default_rng(0)
    columns = {f"column{number}": rng.normal(size=30) for number in range(100)}
    table = shop.item_table.select("item_id").with_columns(**{n: pl.Series(v) for n, v in columns.items()})
    assert len(audit_catalogue(shop.with_items(table), SplitConfig())) <= 1


def test_a_tag_written_when_people_took_the_item_in_the_test_is_suspected(shop, catalogue):
    _, asked = counted(shop)
    (finding,) = catalogue(tags=["|".join(["trend"] * count) or "new" for count in asked])
    assert not finding.is_leak
    assert finding.what.startswith("the length of the catalogue's tags goes with how often items are taken in the test")


def test_a_counter_that_was_read_later_is_suspected(shop, catalogue):
    learned, asked = counted(shop)
    (finding,) = catalogue(reviews=learned + asked)
    assert finding.what.startswith("the value of the catalogue's reviews goes with")


def test_whether_a_value_is_there_can_tell_too(shop, catalogue):
    _, asked = counted(shop)
    is_taken = asked > np.median(asked)
    (finding,) = catalogue(seen_by=[7.0 if taken else None for taken in is_taken])
    assert "seen_by" in finding.what


def test_times_after_the_split_are_named(shop, catalogue):
    split_time = split_dataset(shop, SplitConfig()).split_time
    times = np.full(30, split_time - 1000.0)
    assert catalogue(released=times) == []
    times[:4] = split_time
    assert [f.what for f in catalogue(released=times)] == [
        "the catalogue's released lies after the split time for 4 items"
    ]
    times[-1] = np.nan
    assert len(catalogue(released=times)) == 1
    assert catalogue(number=np.append(times[:-1], 7.0)) == []  # not all of them are times

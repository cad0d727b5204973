"""Shares, intervals that may be looked at every day, and reports a person can work out."""

import json
import math
from collections import Counter

import numpy as np
import pytest

from recloom.errors import ConfigError
from recloom.serving.database import Database
from recloom.serving.experiments import LEAST_USERS, Experiment, Variant, always_valid, report
from recloom.serving.store import Event, Exposure, Store

THREE = Experiment(
    name="three",
    variants=(Variant(name="a", share=0.2), Variant(name="b", share=0.3), Variant(name="c", share=0.5)),
)
TWO = Experiment(name="two", variants=(Variant(name="a"), Variant(name="b")))


# Who gets what


def test_people_fall_into_variants_by_their_shares():
    counts = Counter(THREE.variant_of(f"user {number}").name for number in range(20_000))
    for variant in THREE.variants:
        deviation = math.sqrt(variant.share * (1 - variant.share) / 20_000)
        assert counts[variant.name] / 20_000 == pytest.approx(variant.share, abs=4 * deviation)


def test_the_same_person_gets_the_same_variant_and_another_experiment_deals_anew():
    people = [f"user {number}" for number in range(2_000)]
    first = [TWO.variant_of(person).name for person in people]
    assert first == [TWO.variant_of(person).name for person in people]
    other = Experiment(name="other", variants=TWO.variants)
    same = sum(one == other.variant_of(person).name for one, person in zip(first, people, strict=True))
    assert same / 2_000 == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(2_000))


def test_nobody_gets_a_variant_without_a_share():
    whole = Experiment(name="w", variants=(Variant(name="a", share=0.0), Variant(name="b", share=1.0)))
    assert {whole.variant_of(str(number)).name for number in range(500)} == {"b"}


@pytest.mark.parametrize(
    ("variants", "words"),
    [
        ((), "variants with different names"),
        ((Variant(name="a"), Variant(name="a")), "variants with different names"),
        ((Variant(name="a", share=1.5), Variant(name="b", share=-0.5)), "the shares of the variants"),
        ((Variant(name="a\0", share=1.0),), "control characters"),
        ((Variant(name="a" * 257, share=1.0),), "too long"),
    ],
)
def test_experiments_that_cannot_be_are_refused(variants, words):
    with pytest.raises(ConfigError, match=words):
        Experiment(name="e", variants=variants)


# Intervals


def test_the_interval_is_the_one_of_the_paper():
    rho2 = (-2 * math.log(0.05) + math.log(-2 * math.log(0.05)) + 1) / 10_000
    information = 400 * rho2
    radius = 0.01 * math.sqrt(2 * (information + 1) / information * math.log(math.sqrt(information + 1) / 0.05))
    estimate = always_valid(0.1, 0.01, 400)
    assert (estimate.low, estimate.high) == (pytest.approx(0.1 - radius), pytest.approx(0.1 + radius))
    assert radius > 1.96 * 0.01


def test_the_p_value_is_below_alpha_exactly_when_the_interval_leaves_out_zero():
    for value in np.linspace(0, 0.1, 201):
        estimate = always_valid(value, 0.01, 5_000)
        assert (estimate.p < 0.05) == (estimate.low > 0)


def test_nothing_is_known_of_one_person():
    assert always_valid(1.0, 0.1, 1) == always_valid(1.0, 0.0, 1)
    assert always_valid(1.0, 0.1, 1).low == -math.inf


def looked_at_daily(click_rates, days=60, people_a_day=60, runs=400, seed=0):
    """Return the share of runs in which a difference was claimed on any day."""
    rng = np.random.default_rng(seed)
    clicks = [rng.binomial(people_a_day, rate, size=(runs, days)).cumsum(axis=1) for rate in click_rates]
    people = people_a_day * np.arange(1, days + 1)
    means = [count / people for count in clicks]
    errors = [np.sqrt(mean * (1 - mean) / np.maximum(people - 1, 1)) for mean in means]
    claimed = 0
    for run in range(runs):
        for day in range(days):
            error = math.hypot(errors[0][run, day], errors[1][run, day])
            estimate = always_valid(means[1][run, day] - means[0][run, day], error, int(2 * people[day]))
            if estimate.low > 0 or estimate.high < 0:
                claimed += 1
                break
    return claimed / runs


def test_looking_every_day_claims_a_difference_where_there_is_none_in_at_most_a_twentieth_of_experiments():
    assert looked_at_daily((0.1, 0.1)) <= 0.05
    assert looked_at_daily((0.5, 0.5), seed=1) <= 0.05


def test_a_real_difference_is_found():
    assert looked_at_daily((0.10, 0.15)) >= 0.9


# Reports


def outcome(variant, user, list_id, behavior=None, value=None, served=1_000):
    return (variant, user, served, list_id, behavior, value)


def test_a_report_counts_lists_and_not_clicks():
    rows = [
        outcome("a", "ann", "l1", "view"),
        outcome("a", "ann", "l1", "purchase", 30.0),
        outcome("a", "ann", "l2"),
        outcome("a", "bob", "l3", "view", 99.0),
        outcome("b", "eve", "l4", "purchase", None),
        outcome("b", "eve", "l5"),
        outcome("b", "eve", "l6"),
    ]
    told = {variant["name"]: variant for variant in report(TWO, rows, ["purchase"])["variants"]}
    one, other = told["a"], told["b"]
    assert (one["recommendations"], one["users"], other["recommendations"], other["users"]) == (3, 2, 3, 1)
    assert one["ctr_value"] == pytest.approx(2 / 3, abs=1e-6)
    assert one["conversion_value"] == pytest.approx(1 / 3, abs=1e-6)
    assert one["revenue_value"] == pytest.approx(30 / 3)
    assert other["ctr_value"] == other["conversion_value"] == pytest.approx(1 / 3, abs=1e-6)
    assert other["revenue_value"] == 0
    assert one["ctr"] is None  # two people are too few to claim anything
    assert other["ctr_difference"] is None
    assert "ctr_difference" not in one


def test_the_error_of_a_rate_is_taken_over_people():
    # Person i of 60 is shown two lists; the first 30 people click both, the others none.
    rows = [
        outcome("a", f"p{person}", f"{person}-{which}", "view" if person < 30 else None)
        for person in range(60)
        for which in range(2)
    ]
    told = report(Experiment(name="e", variants=(Variant(name="a", share=1.0),)), rows, [])["variants"][0]
    # Each person's residual is 2 * (1 - 1/2) or 2 * (0 - 1/2): one in size.
    error = math.sqrt(60 * 60 / 59) / 120
    wanted = always_valid(0.5, error, 60)
    assert told["ctr"] == {"value": 0.5, "low": round(wanted.low, 6), "high": round(wanted.high, 6)}
    assert told["curve"][-1]["value"] == 0.5


def test_differences_are_told_from_enough_people_on():
    rows = [
        outcome(variant, f"{variant}{person}", f"{variant}{person}", "view" if person < clicks else None)
        for variant, clicks in (("a", 5), ("b", 95))
        for person in range(100)
    ]
    told = json.loads(json.dumps(report(TWO, rows, [])))["variants"][1]["ctr_difference"]  # as the interface spells it
    assert told["value"] == pytest.approx(0.9)
    assert told["is_clear"]
    assert told["p"] < 0.001
    few = [row for row in rows if int(row[1][1:]) < LEAST_USERS - 1]
    assert report(TWO, few, [])["variants"][1]["ctr_difference"] is None


def test_a_report_without_lists_is_empty():
    told = report(TWO, [], [])["variants"][0]
    assert (told["recommendations"], told["ctr_value"], told["curve"]) == (0, None, [])


# Attribution


@pytest.fixture
def store(tmp_path):
    store = Store(Database(str(tmp_path / "live.db")), attribution_seconds=100)
    yield store
    store.close()


def shown(list_id, user, served, items, *, is_shadow=False):
    return Exposure(list_id, user, served, "two", "a", is_shadow, "default", "v", "weave", items, 0)


def did(number, user, item, at, list_id=None, behavior="view"):
    return Event(f"e{number}", user, item, at, behavior, None, list_id)


def counted(store):
    return {row[3]: row[4] for row in store.outcomes("two", 100)}


def test_an_event_belongs_to_the_list_it_names_within_the_window(store):
    lists = [shown(name, "ann", 1_000, ["i1"]) for name in ("soon", "late", "before", "never")]
    events = [
        did(0, "ann", "i1", 1_100, "soon"),
        did(1, "ann", "i1", 1_101, "late"),
        did(2, "ann", "i1", 990, "before"),
    ]
    store.add((), lists).result(5)
    store.add(events).result(5)
    assert counted(store) == {"soon": "view", "late": None, "before": None, "never": None}


def test_an_event_that_names_no_list_belongs_to_the_newest_that_showed_its_item_to_the_person(store):
    lists = [
        shown("old", "ann", 1_000, ["i1", "i2"]),
        shown("new", "ann", 1_050, ["i1"]),
        shown("other item", "ann", 1_060, ["i9", "i11"]),
        shown("other person", "bob", 1_060, ["i1"]),
        shown("shadow", "ann", 1_060, ["i1"], is_shadow=True),
        shown("too late", "ann", 1_200, ["i1"]),
    ]
    store.add((), lists).result(5)
    store.add([did(0, "ann", "i1", 1_070)]).result(5)
    told = {"old": None, "new": "view", "other item": None, "other person": None, "too late": None}
    assert counted(store) == told
    store.add([did(1, "ann", "i2", 1_070), did(2, "ann", "i2", 1_101)]).result(5)
    assert counted(store) == {**told, "old": "view"}


def test_lists_and_events_in_one_write_find_each_other(store):
    store.add([did(0, "ann", 'quo"te', 1_001)], [shown("l", "ann", 1_000, ['quo"te', "ü"])]).result(5)
    store.add([did(1, "ann", "ü", 1_002, behavior="purchase")]).result(5)
    assert {(row[3], row[4]) for row in store.outcomes("two", 100)} == {("l", "view"), ("l", "purchase")}

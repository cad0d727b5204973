import json
from dataclasses import replace

import numpy as np
import pytest

from recloom import Interaction, Recommender
from recloom.comparison import compare, parse_entries
from recloom.comparison.samples import map_items
from recloom.dataset import SplitConfig, gather, split_dataset
from recloom.encoders import item_titles
from recloom.errors import ConfigError
from recloom.evaluation import metric_values
from recloom.evaluation.significance import holm
from recloom.models import ItemText
from recloom.models.classic import ItemKNN, Markov, Popular
from recloom.models.weave import Weave

NO_TEXT = {"encoder": {"name": "none"}}
HASHING = {"encoder": {"name": "hashing"}, "training": {"epochs": 1}}


def run(dataset, models, variants=None, settings=NO_TEXT, **options):
    return compare(dataset, parse_entries(models, variants), settings=settings, **options)


def by_label(comparison):
    return {result.label: result for result in comparison.models}


@pytest.fixture(scope="module")
def comparison(shop):
    return run(shop, ["random", "popular", "markov"], slice_by=["genre", "year", "country", "device"])


# The table and its tests


def test_the_table_is_ordered_by_the_middle_cutoff(comparison):
    assert comparison.main_metric == "NDCG@10"
    means = [result.metrics["NDCG@10"].mean for result in comparison.models]
    assert comparison.models[0].label == "markov"
    assert means == sorted(means, reverse=True)
    assert means[0] > 2 * means[1]


def test_every_two_models_are_held_against_each_other_and_the_clearly_better_one_is_named(comparison):
    labels = [result.label for result in comparison.models]
    assert [(pair.first, pair.second) for pair in comparison.pairs] == [
        (labels[0], labels[1]),
        (labels[0], labels[2]),
        (labels[1], labels[2]),
    ]
    means = {label: result.metrics["NDCG@10"].mean for label, result in by_label(comparison).items()}
    for pair in comparison.pairs:
        assert pair.difference.mean == pytest.approx(means[pair.first] - means[pair.second])
    assert [pair.adjusted_p for pair in comparison.pairs] == holm(
        [p.difference.p_value for p in comparison.pairs]
    ).tolist()
    assert [pair.verdict for pair in comparison.pairs[:2]] == ["markov", "markov"]


def test_the_same_model_twice_is_a_tie(shop):
    pair = run(shop, [], {"one": ("markov", {}), "other": ("markov", {})}).pairs[0]
    assert (pair.difference.mean, pair.adjusted_p, pair.verdict) == (0, 1, "tie")


def test_a_variants_settings_are_in_force(shop):
    options = {"model": {"half_life": 0.5, "shrinkage": 0.0}}
    results = by_label(run(shop, ["item-knn"], {"short": ("item-knn", options)}))
    assert results["short"].model == "item-knn"
    assert results["short"].settings["model"]["half_life"] == 0.5
    alone = Recommender.fit(shop, "item-knn", settings=NO_TEXT | options).evaluate()
    assert results["short"].metrics["NDCG@10"] == alone.metrics["NDCG@10"]
    assert results["item-knn"].metrics["NDCG@10"] != alone.metrics["NDCG@10"]


def test_a_variants_own_seed_is_in_force(shop):
    results = by_label(run(shop, ["random"], {"other": ("random", {"model": {"seed": 5}})}))
    assert results["other"].settings["model"]["seed"] == 5
    assert results["other"].metrics["AUC"] != results["random"].metrics["AUC"]


def test_a_seed_for_all_models_is_the_first_one(shop):
    result = run(shop, ["random"], settings=NO_TEXT | {"training": {"seed": 5}}, seeds=2).models[0]
    assert result.seeds == [5, 6]
    assert result.settings["model"]["seed"] == 5


def test_a_variant_may_not_be_asked_under_another_split(shop):
    with pytest.raises(ConfigError, match=r"the variant 'late' sets \[split\]"):
        run(shop, ["popular"], {"late": ("popular", {"split": {"test_fraction": 0.01}})})


def test_options_of_one_model_are_not_options_of_all(shop):
    with pytest.raises(ConfigError, match=r"\[model\] .* give it to one of them as a variant"):
        run(shop, ["popular"], settings=NO_TEXT | {"model": {"half_life": 1.0}})


def test_a_variant_may_read_text_that_the_others_do_not(shop):
    results = by_label(run(shop, ["popular"], {"reader": ("content", {"encoder": {"name": "hashing"}})}))
    assert results["reader"].error is None
    assert results["reader"].findings == []


# What goes wrong


def test_a_model_that_fails_is_reported_last_and_the_others_finish(shop, monkeypatch):
    def fail(self, data):
        raise MemoryError("no room\nfor it")

    monkeypatch.setattr(ItemKNN, "count", fail)
    comparison = run(shop, ["item-knn", "popular", "markov"])
    assert [result.label for result in comparison.models] == ["markov", "popular", "item-knn"]
    assert [result.error for result in comparison.models] == [None, None, "MemoryError: no room for it"]
    assert [(pair.first, pair.second) for pair in comparison.pairs] == [("markov", "popular")]
    assert set(comparison.samples[0].lists) == {"markov", "popular"}


def test_a_comparison_of_which_nothing_came_still_says_why(shop, monkeypatch):
    monkeypatch.setattr(Popular, "count", lambda self, data: 1 / 0)
    comparison = run(shop, ["popular"])
    assert comparison.models[0].error == "ZeroDivisionError: division by zero"
    assert comparison.pairs == []


def test_ctrl_c_ends_the_comparison(shop, monkeypatch):
    def interrupted(self, histories):
        raise KeyboardInterrupt

    monkeypatch.setattr(Weave, "loss", interrupted)  # the training loop keeps what it has, which is nothing here
    with pytest.raises(KeyboardInterrupt):
        run(shop, ["weave", "popular"], settings=NO_TEXT | {"training": {"epochs": 2}})


def test_an_unknown_model_suggests_the_nearest():
    with pytest.raises(ConfigError, match="unknown model 'markow', and no folder of a fitted one; did you mean markov"):
        parse_entries(["markow"])
    with pytest.raises(ConfigError, match="unknown model 'markow' of the variant 'mine'; did you mean markov"):
        parse_entries([], {"mine": ("markow", {})})


def test_what_is_named_twice_or_not_at_all_is_refused():
    with pytest.raises(ConfigError, match="'popular' is named twice"):
        parse_entries(["popular"], {"popular": ("markov", {})})
    with pytest.raises(ConfigError, match="nothing to compare"):
        parse_entries([])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cutoffs": [0, 5]}, r"the cutoffs \[0, 5\] are no places of a list"),
        ({"cutoffs": []}, "are no places of a list"),
        ({"seeds": 0}, "both have to be at least 1"),
        ({"windows": 0}, "both have to be at least 1"),
        ({"windows": 6}, "6 windows of 10% of the log leave less than half"),
        ({"slice_by": ["gender"]}, "no column 'gender' of words to slice by; did you mean genre"),
        ({"slice_by": ["price"]}, "no column 'price' of words to slice by; there are: "),
        ({"category": "genres"}, "the catalogue has no column 'genres'; did you mean genre"),
    ],
)
def test_an_option_out_of_range_is_refused_before_anything_is_fitted(shop, monkeypatch, options, message):
    monkeypatch.setattr(Popular, "count", lambda self, data: pytest.fail("something was fitted"))
    with pytest.raises(ConfigError, match=message) as refused:
        run(shop, ["popular"], **options)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"split_time": 1_604_000_000, "test_until": 1_604_000_001}, "the temporal split holds no test case"),
        ({"split_time": 1}, "split.split_time 1 is outside the log"),
        ({"everything": True}, "leaves nothing to compare by"),
    ],
)
def test_a_split_that_asks_nothing_is_refused(shop, split, message):
    with pytest.raises(ConfigError, match=message):
        run(shop, ["popular"], settings=NO_TEXT | {"split": split})


def test_people_of_one_interaction_each_leave_no_test_case(dataset_of):
    dataset = dataset_of([f"u{user},i{user % 5},{1_000 + user}" for user in range(50)])
    for protocol in ("temporal", "leave-one-out", "user-disjoint"):
        with pytest.raises(ConfigError, match=f"the {protocol} split holds no test case"):
            run(dataset, ["popular"], settings=NO_TEXT | {"split": {"protocol": protocol}})


# Cutoffs, seeds, windows, slices


def test_a_list_longer_than_the_catalogue_finds_everything_there_is(shop):
    comparison = run(shop, ["popular"], cutoffs=[500], settings=NO_TEXT | {"recommend": {"include_seen": True}})
    assert comparison.main_metric == "NDCG@500"
    assert comparison.models[0].metrics["HR@500"].mean == 1


def test_chance_is_measured_over_seeds_where_there_is_any(shop):
    results = by_label(run(shop, ["random", "popular"], seeds=3))
    random, popular = results["random"], results["popular"]
    alone = [
        Recommender.fit(shop, "random", settings={"model": {"seed": seed}}).evaluate().metrics["NDCG@10"].mean
        for seed in range(3)
    ]
    assert random.seeds == [0, 1, 2]
    assert random.metrics["NDCG@10"].mean == pytest.approx(np.mean(alone))
    assert random.spread["NDCG@10"] == pytest.approx(np.std(alone, ddof=1))
    assert (popular.seeds, popular.spread) == ([0], {})


def test_windows_follow_each_other_and_the_last_is_the_table(shop):
    comparison = run(shop, ["popular", "markov"], windows=3)
    windows = comparison.windows
    assert len(windows) == 3
    assert [window.until for window in windows[:-1]] == [window.split_time for window in windows[1:]]
    assert all(window.split_time < window.until for window in windows)
    assert windows[-1].split_time == comparison.split_time
    assert windows[-1].ndcg == {r.label: r.metrics["NDCG@10"].mean for r in comparison.models}
    for window in windows:
        config = SplitConfig(split_time=window.split_time, test_until=window.until)
        split = split_dataset(shop, config)
        asked = shop.timestamp[split.test.target]
        assert window.num_cases == len(asked) > 0
        assert ((asked >= window.split_time) & (asked < window.until)).all()
        fitted = Recommender.fit(shop, "markov", settings=NO_TEXT | {"split": vars(config)})
        assert window.ndcg["markov"] == fitted.evaluate().metrics["NDCG@10"].mean


def test_a_model_that_fails_in_one_window_costs_nobody_else_theirs(shop, monkeypatch):
    count, calls = Markov.count, []

    def fail_later(self, data):
        calls.append(data)
        if len(calls) > 3:  # the table's fit and the two of its audit
            raise MemoryError
        count(self, data)

    monkeypatch.setattr(Markov, "count", fail_later)
    comparison = run(shop, ["popular", "markov"], windows=2)
    assert [set(window.ndcg) for window in comparison.windows] == [{"popular"}, {"popular", "markov"}]


def test_a_window_that_asks_nothing_is_refused_before_anything_is_fitted(dataset_of, monkeypatch):
    monkeypatch.setattr(Popular, "count", lambda self, data: pytest.fail("something was fitted"))
    # Everybody comes at the beginning and at the end; in between somebody is there who has no history.
    log = [f"u{user},i{step},{1_000 + step}" for user in range(10) for step in range(7)]
    log += [f"once{number},i1,{2_000 + number}" for number in range(20)]
    log += [f"u{user},i9,{3_000 + user}" for user in range(10)]
    with pytest.raises(ConfigError, match=r"the window .* holds no test case; choose fewer windows"):
        run(dataset_of(log), ["popular"], windows=2)


def test_windows_need_a_log_with_times_of_its_own(shop):
    with pytest.raises(ConfigError, match="several windows need the temporal protocol"):
        run(shop, ["popular"], windows=2, settings=NO_TEXT | {"split": {"protocol": "leave-one-out"}})
    with pytest.raises(ConfigError, match="without a split_time of its own"):
        run(shop, ["popular"], windows=2, settings=NO_TEXT | {"split": {"split_time": 1_605_000_000}})


def test_slices_are_by_what_was_taken_who_took_it_and_where(shop, comparison):
    cases = split_dataset(shop, SplitConfig()).test
    markov = by_label(comparison)["markov"]
    target = shop.item_index[cases.target]
    expected = {
        "genre = music": np.array([genre == "music" for genre in shop.item_table["genre"]])[target - 1],
        "genre = film": np.array(["film" in genre.split("|") for genre in shop.item_table["genre"]])[target - 1],
        "year = 2003": (shop.item_table["year"] == 2003).to_numpy()[target - 1],
        "country = 中国": np.array([country == "中国" for country in shop.user_table["country"]])[cases.user_index - 1],
        "device = web": shop.context["device"].values[cases.target]
        == shop.context["device"].vocabulary.index_of("web"),
    }
    values = Recommender.fit(shop, "markov", settings=NO_TEXT).evaluate().values["NDCG@10"]
    for name, belongs in expected.items():
        assert markov.slices[name].num_cases == belongs.sum()
        assert markov.slices[name].metrics["NDCG@10"].mean == pytest.approx(values[belongs].mean())


# Fitted models


def test_a_fitted_model_gives_the_figures_of_fitting_by_name(shop, tmp_path):
    Recommender.fit(shop, "markov", settings=NO_TEXT).save(tmp_path / "fitted")
    results = by_label(run(shop, [str(tmp_path / "fitted"), "markov"]))
    assert results["fitted"].model == "markov"
    assert results["fitted"].metrics == results["markov"].metrics
    assert results["fitted"].findings == []


def test_a_model_fitted_under_another_split_or_on_other_data_is_refused(shop, log_alone, tmp_path):
    Recommender.fit(shop, "popular", settings={"split": {"protocol": "leave-one-out"}}).save(tmp_path / "split")
    Recommender.fit(log_alone, "popular").save(tmp_path / "data")
    for name in ("split", "data"):
        with pytest.raises(ConfigError, match="was fitted on other data or under another split"):
            run(shop, [str(tmp_path / name)])


# What is kept


def test_everything_is_json_in_the_strict_sense(shop, tmp_path):
    Recommender.fit(shop, "popular", settings=NO_TEXT).save(tmp_path / "fitted")
    models = ["random", "weave", str(tmp_path / "fitted")]
    for comparison in (
        run(shop, models, {"again": ("popular", {})}, settings=HASHING, slice_by=["genre"]),
        run(shop, ["random", "popular"], windows=2, seeds=2),
    ):
        plain = json.loads(json.dumps(comparison.to_json(), allow_nan=False))
        assert plain["models"][0]["metrics"]["NDCG@10"]["mean"] == comparison.models[0].metrics["NDCG@10"].mean
        assert plain["pairs"][0]["verdict"] == comparison.pairs[0].verdict
        assert len(plain["windows"]) == len(comparison.windows)


def test_what_is_not_finite_becomes_null(comparison):
    pair = comparison.pairs[0]
    endless = replace(comparison, pairs=[replace(pair, difference=replace(pair.difference, effect_size=np.inf))])
    assert endless.to_json()["pairs"][0]["difference"]["effect_size"] is None


# The lists behind the figures


@pytest.mark.parametrize("model", ["markov", "item-knn", "stan", "content-tfidf", "weave"])
def test_figures_are_of_the_lists_that_people_would_get(log_alone, monkeypatch, model):
    dataset = log_alone
    variants = {"this": (model, {"training": {"epochs": 1}})}
    comparison = run(dataset, [], variants, settings=HASHING, cutoffs=[5])
    recommender = Recommender.fit(dataset, model, settings=HASHING)
    cases = split_dataset(dataset, recommender.config.split).test
    told = recommender.config.split.told

    def asked(rows):
        length = recommender.model.max_length
        return gather(dataset, cases.history_start[rows], cases.history_end[rows], length, cases.target[rows], told)

    ranked = recommender.rank(asked(np.arange(len(cases))), 5)
    many = ranked.item_index_BK
    assert np.array_equal(recommender.rank_cases(cases, 5).score_BK, ranked.score_BK)
    for row in range(len(cases)):
        assert recommender.rank(asked(np.array([row])), 5).item_index_BK[0].tolist() == many[row].tolist()
        history = [interaction(dataset, p) for p in range(cases.history_start[row], cases.history_end[row])]
        now = {"timestamp": int(dataset.timestamp[cases.target[row]])} if recommender.model.reads_requests else None
        shown = recommender.recommend(history=history, k=5, context=now).items
        assert [dataset.items.index_of(item.item_id) for item in shown] == [item for item in many[row].tolist() if item]
    expected = metric_values(many, dataset.item_index[cases.target], [5])
    monkeypatch.setattr("recloom.recommender.USERS_AT_ONCE", 7)
    few_at_once = recommender.evaluate([5]).values
    for name, values in expected.items():
        assert comparison.models[0].metrics[name].mean == pytest.approx(values.mean())
        assert np.array_equal(few_at_once[name], values)


def interaction(dataset, position):
    device, price = dataset.context["device"], dataset.context["price"]
    return Interaction(
        dataset.items.id_of(int(dataset.item_index[position])),
        int(dataset.timestamp[position]),
        context={
            "device": device.vocabulary.id_of(int(device.values[position])),
            "price": float(price.values[position]),
        },
    )


# People and the map


def test_samples_show_what_each_model_would_and_what_was_taken(shop, comparison):
    cases = split_dataset(shop, SplitConfig()).test
    for sample in comparison.samples:
        case = int(np.flatnonzero(cases.user_index == shop.users.index_of(sample.user_id))[0])
        titles = ["", *item_titles(shop.item_table)]
        taken = [titles[item] for item in shop.item_index[cases.history_start[case] : cases.history_end[case]]]
        assert sample.history == taken[-8:]
        assert sample.left_out == len(taken) - len(sample.history)
        assert sample.target == titles[shop.item_index[cases.target[case]]]
        for shown in sample.lists.values():
            assert all(is_hit == (title == sample.target) for title, is_hit in shown)


@pytest.mark.parametrize("category", ["year", "genre", None])
def test_the_map_is_coloured_by_any_column(shop, category):
    comparison = run(shop, ["popular"], settings=HASHING, category=category)
    items = comparison.item_map
    assert items.column == (category or "genre")
    assert set(items.categories) == (
        {"2000", "2001", "2002", "2003", "2004"} if category == "year" else {"film", "music", "书 <b>", "games"}
    )


def test_items_that_all_say_the_same_have_no_map(shop):
    vectors = np.ones((31, 8), dtype=np.float32)
    vectors[0] = 0
    text = ItemText(vectors, [""] * 31, lambda texts: vectors)
    assert map_items(shop, text, np.ones(31), None) is None

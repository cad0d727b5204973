from dataclasses import replace

import numpy as np
import pytest

from recloom import Dataset, Interaction, Recommender
from recloom.dataset import split_dataset
from recloom.errors import ConfigError
from recloom.evaluation import metric_values

SETTINGS = {"encoder": {"name": "hashing"}, "training": {"epochs": 3}, "split": {"protocol": "leave-one-out"}}


@pytest.fixture
def fitted(cycle_dataset):
    return Recommender.fit(cycle_dataset, settings=SETTINGS)


@pytest.mark.parametrize("model", ["weave", "popular", "content"])
def test_evaluate_measures_exactly_the_lists_that_recommend_gives(cycle_dataset, model):
    recommender = Recommender.fit(cycle_dataset, model, settings=SETTINGS)
    dataset, cases = cycle_dataset, split_dataset(cycle_dataset, recommender.config.split).test
    ranked = np.zeros((len(cases), 5), dtype=int)
    for row in range(len(cases)):
        history = [
            Interaction(dataset.items.id_of(int(dataset.item_index[p])), int(dataset.timestamp[p]))
            for p in range(cases.history_start[row], cases.history_end[row])
        ]
        items = recommender.recommend(history=history, k=5).items
        ranked[row, : len(items)] = [dataset.items.index_of(item.item_id) for item in items]
    expected = metric_values(ranked, dataset.item_index[cases.target], [5])
    values = recommender.evaluate([5]).values
    assert all(np.array_equal(values[name], expected[name]) for name in expected)


def test_a_saved_recommender_recommends_alike_from_its_folder_alone(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / "moved")
    again = Recommender.load(tmp_path / "moved")
    assert again.recommend("u03").items == fitted.recommend("u03").items
    assert again.similar_items("i1") == fitted.similar_items("i1")
    assert again.evaluate([5]).metrics == fitted.evaluate([5]).metrics
    assert again.run == fitted.run


def test_ask_for_a_user_or_a_history_and_not_both(fitted):
    with pytest.raises(ConfigError, match="give either user or history"):
        fitted.recommend("u03", history=["i1"])
    with pytest.raises(ConfigError, match="give either user or history"):
        fitted.recommend()


def test_repeats_are_measured(dataset_of, cycle_dataset):
    once = dataset_of([f"u{u},i{i},{1_000 + i}" for u in range(6) for i in range(6)])
    assert not Recommender.fit(once, "popular").config.include_seen
    assert Recommender.fit(cycle_dataset, "popular").config.include_seen  # twelve steps around eight items


def test_a_new_item_is_known_after_with_items_and_survives_saving(fitted, tmp_path):
    (tmp_path / "new.csv").write_text("item_id,title\nnew,film number3 kind1\n")
    more = fitted.with_items(tmp_path / "new.csv")
    assert "i3" in [item.item_id for item in more.similar_items("new", k=3)]
    titles = {item.item_id: item.title for item in more.recommend("u03", k=20).items}
    assert titles["new"] == "film number3 kind1"
    assert more.model.prior.features_IP[-1].tolist() == [0, 0, 0, 0, 0, 0, 1]  # it counts as never taken
    more.save(tmp_path / "model")
    assert Recommender.load(tmp_path / "model").similar_items("new", k=3) == more.similar_items("new", k=3)
    assert "new" not in fitted.dataset.items


def test_the_context_of_the_request_reaches_the_model(dataset_of):
    log = [f"u{u},i{(u + s) % 6},{1_000 + s},{'web' if u % 2 else 'phone'}" for u in range(30) for s in range(6)]
    dataset = dataset_of(log, header="user_id,item_id,timestamp,device")
    recommender = Recommender.fit(dataset, settings=SETTINGS | {"split": {"protocol": "temporal"}})
    asked = {
        place: recommender.recommend(history=["i1", "i2"], context={"device": place}) for place in ("web", "phone")
    }
    scores = [{i.item_id: i.score for i in asked[place].items} for place in asked]
    assert scores[0] != scores[1]


def test_a_temporal_fit_learns_from_validation_too_in_the_end(cycle_dataset):
    run = Recommender.fit(cycle_dataset, settings=SETTINGS | {"split": {"protocol": "temporal"}}).run
    assert run.refit
    assert not Recommender.fit(cycle_dataset, settings=SETTINGS).run.refit


def test_a_dataset_without_a_catalogue_works_by_ids_alone(dataset_of):
    dataset = dataset_of([f"u{u},i{(u + s) % 6},{1_000 + s}" for u in range(30) for s in range(6)])
    recommender = Recommender.fit(dataset, settings=SETTINGS)
    assert recommender.run.encoder is None
    assert len(recommender.recommend(history=["i1"], k=3).items) == 3
    with pytest.raises(ConfigError, match="content reads item text, but the catalogue has no text columns"):
        Recommender.fit(dataset, "content", settings=SETTINGS)


def test_two_files_are_enough_in_python(tmp_path):
    (tmp_path / "events.csv").write_text(
        "user_id,item_id,timestamp\n"
        + "".join(f"u{u},{1001 + (u + s) % 5},{s + 1}\n" for u in range(9) for s in range(4))
    )
    (tmp_path / "items.csv").write_text("item_id,title\n" + "".join(f"{1001 + i},thing {i}\n" for i in range(5)))
    dataset = Dataset.from_files(tmp_path / "events.csv", items=tmp_path / "items.csv")
    recommender = Recommender.fit(dataset, model="weave", settings=SETTINGS)
    assert recommender.recommend(history=["1001", "1002"], k=10).items[0].title.startswith("thing")


def test_clicks_are_estimated_from_what_was_shown(cycle_dataset, tmp_path):
    recommender = Recommender.fit(cycle_dataset, "popular", settings={"split": {"protocol": "leave-one-out"}})
    recommender.config = replace(recommender.config, include_seen=True)
    later = int(cycle_dataset.timestamp.max())
    rows = [("u01", "i0", 1, 0.5), ("u02", "i0", 0, 0.25), ("u03", "i7", 1, 0.5), ("nobody", "i0", 1, 0.5)]
    path = tmp_path / "shown.csv"
    lines = [f"{user},{item},{later + 10 + n},{click},{p}" for n, (user, item, click, p) in enumerate(rows)]
    path.write_text("\n".join(["user_id,item_id,timestamp,clicked,propensity", *lines]) + "\n")
    top = recommender.recommend("u01", k=1).items[0].item_id
    estimates = recommender.estimate_clicks(path, k=1)
    matched = [(click, p) for user, item, click, p in rows if item == top and user != "nobody"]
    assert estimates["replay"].matched == len(matched)
    assert estimates["replay"].mean == pytest.approx(sum(c for c, _ in matched) / len(matched))
    assert estimates["IPS"].mean == pytest.approx(sum(c / p for c, p in matched) / 3)


def test_exposures_that_were_learned_from_say_nothing(cycle_dataset, tmp_path):
    recommender = Recommender.fit(cycle_dataset, "popular", settings={"split": {"protocol": "leave-one-out"}})
    path = tmp_path / "shown.csv"
    path.write_text(f"user_id,item_id,timestamp,clicked\nu01,i0,{int(cycle_dataset.timestamp.min())},1\n")
    with pytest.raises(ConfigError, match="later than what the model learned from"):
        recommender.estimate_clicks(path)
    with pytest.raises(ConfigError, match=r"no column 'bought' of numbers; they have: .*clicked"):
        recommender.estimate_clicks(path, reward="bought")

"""A fitted model learns what happened since, and nothing else about it changes."""

import numpy as np
import polars as pl
import pytest
import torch

from recloom import Recommender
from recloom.dataset import grow, log_of, without
from recloom.errors import ArtifactError, ConfigError, DataError
from recloom.events import Interactions, ReadReport, read_interactions, read_items
from recloom.models import MODELS
from recloom.models.popularity_prior import NEW
from recloom.run_config import RunConfig

SETTINGS = {"encoder": {"name": "hashing"}, "training": {"epochs": 3}, "split": {"everything": True}}
OLD_ITEMS = [f"i{item},film number{item} kind{item // 2}" for item in range(8)]


def walk(users, items, begin, steps=8):
    """Everybody walks around the same circle of items."""
    return [
        f"u{user:02},{items[(user + step) % len(items)]},{begin + user * 100 + step},{'web' if user % 2 else 'phone'}"
        for user in users
        for step in range(steps)
    ]


HEADER = "user_id,item_id,timestamp,device"
OLD = walk(range(30), [f"i{item}" for item in range(8)], 1_000_000)
ROUND = ["new", "i3", "i6"]
"""What people do later: around another circle, with an item that was not there before."""
LATER = walk(range(10, 50), ROUND, 2_000_000)


@pytest.fixture
def fitted(dataset_of) -> Recommender:
    return Recommender.fit(dataset_of(OLD, OLD_ITEMS, HEADER), settings=SETTINGS)


@pytest.fixture
def news(tmp_path):
    """Files of what happened later."""

    def write(lines=LATER, header=HEADER, name="later.csv"):
        (tmp_path / name).write_text("\n".join([header, *lines]) + "\n")
        return tmp_path / name

    return write


@pytest.fixture
def more_items(tmp_path):
    (tmp_path / "more.csv").write_text("item_id,title\nnew,film number99 kind1\ni3,film number3 kind9\n")
    return tmp_path / "more.csv"


def lists(recommender, users=("u01", "u15")):
    return [[(item.item_id, item.score) for item in recommender.recommend(user, k=5).items] for user in users]


def test_it_learns_what_happened_since_and_leaves_the_old_model_alone(fitted, news, more_items):
    before = lists(fitted)
    after = fitted.update(news(), more_items, settings={"epochs": 300, "learning_rate": 2.0})
    assert lists(fitted) == before
    for had, then in (("i6", "new"), ("new", "i3")):
        # They had gone around another circle before, and the update is short: among the first, not always the first.
        assert then in [item.item_id for item in after.recommend(history=[had], k=3).items]
    assert after.titles[after.dataset.items.index_of("i3")] == "film number3 kind9"
    assert after.counts_I[after.dataset.items.index_of("new")] == sum("new" in line for line in LATER)
    record = after.run.lineage
    assert (record["interactions"], record["users"], record["items"], record["texts_read"]) == (len(LATER), 20, 1, 2)
    assert record["seen_until"] == max(int(line.split(",")[2]) for line in LATER)
    assert record["cases"] == 20  # those who had been there before
    assert 0 <= record["ndcg_at_10_before"] <= 1


def test_what_the_model_foresees_is_asked_before_it_learns(fitted, news, more_items):
    after = fitted.update(news(), more_items)
    ndcg_B = fitted.foresee(read_interactions(news()), read_items(more_items))
    assert after.run.lineage["ndcg_at_10_before"] == pytest.approx(ndcg_B.mean())
    assert len(ndcg_B) == 20


def test_what_everybody_did_first_tells_how_much_popularity_counts(dataset_of, news):
    short = walk(range(30), [f"i{item}" for item in range(8)], 1_000_000, steps=4)
    fitted = Recommender.fit(dataset_of(short, OLD_ITEMS, HEADER), settings=SETTINGS)
    before = fitted.model.prior.weight_GP.clone()
    after = fitted.update(news([f"u{user:02},new,{1_010_000 + user},web" for user in range(30)]))
    assert after.model.prior.weight_GP[0, 1 + NEW] > before[0, 1 + NEW]  # everybody took what was new
    assert torch.equal(fitted.model.prior.weight_GP, before)
    # Of somebody who was not there before, nothing tells what came next.
    stranger = fitted.update(news(["stranger,i1,1010000,web"]))
    torch.testing.assert_close(stranger.model.prior.weight_GP, before)


def test_an_update_on_nothing_new_is_the_same_model(fitted, news):
    assert fitted.update() is fitted
    assert fitted.update(news(OLD)) is fitted
    after = fitted.update(news())
    again = after.update(news([*OLD[:5], *LATER]))
    assert again is after


def test_what_is_known_already_is_counted_and_skipped(fitted, news):
    after = fitted.update(news([*OLD[-7:], *LATER]))
    assert (after.run.lineage["known_before"], after.run.lineage["interactions"]) == (7, len(LATER))
    assert after.dataset.num_interactions == len(OLD) + len(LATER)


def test_a_log_that_lost_its_behaviours_is_known_all_the_same(dataset_of, news):
    told = [f"{line},view" for line in OLD]
    fitted = Recommender.fit(dataset_of(told, OLD_ITEMS, f"{HEADER},behavior"), settings=SETTINGS)
    assert fitted.update(news(OLD)) is fitted


def test_what_counts_is_asked_without_counting_the_answers(dataset_of, news):
    settings = {"split": {"everything": True}, "recommend": {"include_seen": True}}
    popular = Recommender.fit(dataset_of(OLD, OLD_ITEMS, HEADER), "popular", settings=settings)
    everywhere = [f"u{user:02},late,{2_000_000 + user},web" for user in range(30)]
    # Everybody takes what nobody had; who counted that would put it before most, who did not puts it last of nine.
    ndcg_B = popular.foresee(read_interactions(news(everywhere)))
    assert len(ndcg_B) == 30
    assert ndcg_B == pytest.approx(1 / np.log2(10))


def test_events_older_than_the_known_ones_take_their_place_in_time(fitted, news):
    after = fitted.update(news(["u05,i7,900000,web"]))
    assert after.run.lineage["older_than_known"] == 1
    history = after.dataset.history_of("u05")
    assert after.dataset.items.id_of(int(after.dataset.item_index[history.start])) == "i7"


def test_the_same_update_gives_the_same_model(fitted, news, more_items):
    assert lists(fitted.update(news(), more_items)) == lists(fitted.update(news(), more_items))


def test_an_updated_model_is_saved_and_goes_on_learning(fitted, news, tmp_path):
    half = len(LATER) // 2
    first = fitted.update(news(LATER[:half]))
    first.save(tmp_path / "model")
    again = Recommender.load(tmp_path / "model")
    assert again.run == first.run
    assert lists(again) == lists(first)
    assert lists(again.update(news(LATER[half:]))) == lists(first.update(news(LATER[half:])))


def test_the_optimiser_remembers_each_item_where_it_is_now(fitted, news, more_items):
    # A catalogue in another order: the file's first column of items decides.
    after = fitted.over(grow(fitted.dataset, None, None, None).dataset)
    shrunk = after.over(without(after.dataset, items=["i0", "i4"]))
    name = "towers.0.items.ids.weight.exp_avg_sq"
    for item in ("i1", "i5", "i7"):
        theirs = fitted.moments()[name][fitted.dataset.items.index_of(item)]
        assert torch.equal(shrunk.moments()[name][shrunk.dataset.items.index_of(item)], theirs)
        assert theirs.abs().sum() > 0


def test_words_of_the_context_keep_their_meaning_when_others_come_before_them(dataset_of):
    fitted = Recommender.fit(dataset_of(OLD, OLD_ITEMS, HEADER), settings=SETTINGS)
    table = fitted.model.towers[0].circumstances
    known = {meaning: table.table.weight[row].detach().clone() for meaning, row in table._row_of.items()}
    more = [line.replace("web", "car").replace("phone", "zeppelin") for line in LATER]
    grown = grow(fitted.dataset, _log(dataset_of, more), None, None).dataset
    taken = fitted.over(grown).model.towers[0].circumstances
    assert ("context device", "car") in taken._row_of
    assert taken._row_of["context device", "web"] != table._row_of["context device", "web"]
    for meaning, weight in known.items():
        assert torch.equal(taken.table.weight[taken._row_of[meaning]], weight)


def _log(dataset_of, lines):
    table = log_of(dataset_of(lines, header=HEADER))
    return Interactions(table, ReadReport([], len(table), len(table), {}, {}), pl.DataFrame())


def test_items_that_left_are_in_no_list_and_in_no_file(fitted, tmp_path):
    stay = [line for line in OLD_ITEMS if not line.startswith(("i2", "i5"))]
    (tmp_path / "stay.csv").write_text("\n".join(["item_id,title", *stay]) + "\n")
    after = fitted.update(items=tmp_path / "stay.csv", retire=True)
    assert after.run.lineage["retired"] == ["i2", "i5"]
    assert {item for found in lists(after) for item, _ in found}.isdisjoint({"i2", "i5"})
    assert len(after.dataset.items) == 6
    after.save(tmp_path / "model")
    assert b"number5" not in (tmp_path / "model" / "dataset.h5").read_bytes()
    kept = [row for row, id_ in enumerate(["", *fitted.dataset.items.ids]) if id_ not in ("i2", "i5")]
    before, now = fitted.model.eval().item_vectors(), after.model.eval().item_vectors()  # no ids are hidden then
    assert torch.allclose(now[:, :-6], before[kept][:, :-6], atol=1e-5)


def test_retiring_needs_the_catalogue(fitted, news):
    with pytest.raises(ConfigError, match="needs the catalogue"):
        fitted.update(news(), retire=True)


def test_a_log_with_other_columns(fitted, news):
    plain = [",".join(line.split(",")[:3]) for line in LATER]
    after = fitted.update(news([f"{line},7" for line in plain], "user_id,item_id,timestamp,battery"))
    assert any("battery" in note for note in after.run.warnings)
    assert any("device" in note for note in after.run.warnings)
    assert list(after.dataset.context) == ["device"]


def test_numbers_where_there_were_words_are_words_and_words_cannot_be_numbers(dataset_of, news):
    coded = [line.replace("web", "1").replace("phone", "x") for line in OLD]
    fitted = Recommender.fit(dataset_of(coded, OLD_ITEMS, HEADER), settings=SETTINGS)
    after = fitted.update(news([line.replace("web", "1").replace("phone", "1") for line in LATER]))
    assert after.dataset.context["device"].vocabulary.ids == ["1", "x"]
    counted = [line.replace("web", "1.5").replace("phone", "2") for line in OLD]
    fitted = Recommender.fit(dataset_of(counted, OLD_ITEMS, HEADER), settings=SETTINGS)
    with pytest.raises(DataError, match="column device holds words in the new log"):
        fitted.update(news())


def test_an_encoder_that_is_gone_is_named_when_new_text_comes(fitted, news, more_items, tmp_path):
    fitted.save(tmp_path / "model")
    config = (tmp_path / "model" / "config.toml").read_text().replace('"hashing"', f'"{tmp_path}/gone"')
    (tmp_path / "model" / "config.toml").write_text(config)
    (tmp_path / "model" / "SHA256SUMS").write_text("")
    loaded = Recommender.load(tmp_path / "model")
    with pytest.raises((ArtifactError, ConfigError), match="gone"):
        loaded.update(news(), more_items)
    assert loaded.update(news()).run.lineage["interactions"] == len(LATER)  # no text to read, no encoder needed


@pytest.mark.parametrize("model", ["popular", "item-knn", "content"])
def test_models_that_count_are_counted_anew(dataset_of, news, model):
    old = Recommender.fit(dataset_of(OLD, OLD_ITEMS, HEADER), model, settings=SETTINGS)
    after = old.update(news())
    both = Recommender.fit(dataset_of([*OLD, *LATER], OLD_ITEMS, HEADER), model, settings=SETTINGS)
    for history in (["i1", "i2"], ["new", "i3"]):
        # Of items that tie the first in the catalogue comes first, and "new" is somewhere else in it.
        found, wanted = (
            {item.item_id: item.score for item in r.recommend(history=history, k=9, include_seen=True).items}
            for r in (after, both)
        )
        assert found == pytest.approx(wanted)


def test_a_model_that_cannot_go_on_says_so(dataset_of, news):
    fitted = Recommender.fit(dataset_of(OLD, OLD_ITEMS, HEADER), "ncf", settings=SETTINGS)
    with pytest.raises(ConfigError, match="ncf cannot go on learning"):
        fitted.update(news())


@pytest.mark.parametrize(
    ("network", "fusion"),
    [("gru", fusion) for fusion in ("id", "text", "gated", "concat", "init", "separate", "likeness")]
    + [(network, "sum") for network in ("lstm", "sasrec", "bert4rec", "hstu")],
)
def test_every_weave_goes_on(dataset_of, news, more_items, network, fusion):
    model = {"network": network, "fusion": fusion, "embedding_dim": 16, "hidden_dim": 16, "behavior_loss": 0.1}
    fitted = Recommender.fit(dataset_of(OLD, OLD_ITEMS, HEADER), settings={**SETTINGS, "model": model})
    after = fitted.update(news(), more_items)
    assert len(after.dataset.items) == 9
    assert all(np.isfinite(score) for found in lists(after) for _, score in found)


def test_rows_are_found_by_size_even_where_a_width_is_the_same(dataset_of):
    # With 15 items the table of items has as many rows as vectors have coordinates.
    items = [f"i{item:02}" for item in range(15)]
    log = walk(range(30), items, 1_000_000)
    dataset = dataset_of(log, [f"{item},film" for item in items], HEADER)
    settings = {**SETTINGS, "model": {"embedding_dim": 16, "hidden_dim": 16}}
    fitted = Recommender.fit(dataset, settings=settings)
    fewer = fitted.over(without(dataset, items=["i03"]))
    assert torch.equal(fewer.model.towers[0].to_query.weight, fitted.model.towers[0].to_query.weight)
    config = RunConfig.resolve("weave", fewer.dataset, settings)
    assert MODELS["weave"](config.model, fewer.dataset, fewer.text).towers[0].items.ids.weight.shape == (15, 16)

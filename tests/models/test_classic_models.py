from math import exp, log, sqrt

import numpy as np
import pytest
import torch

from recloom import Recommender
from recloom.dataset import Interaction, Segments, gather, histories_from_interactions
from recloom.models import MODELS, CountedModel, Ranker, TrainingData
from recloom.models.classic.sparse import backed_by_popularity
from recloom.training import TrainingConfig, train
from tests.conftest import fake_text

DAY = 86_400
NEVER = 1e9
"""A half-life or decay after which nothing has lost weight yet."""


def fitted(name, dataset, **options):
    torch.manual_seed(0)
    model = MODELS[name](MODELS[name].Config(**options), dataset, fake_text(dataset))
    offsets = dataset.user_offsets
    data = TrainingData(dataset, Segments(offsets[:-1], offsets[1:]))
    if isinstance(model, CountedModel):
        model.count(data)
    else:
        model.prepare(data)
        train(model, data, TrainingConfig(epochs=30, batch_size=64, learning_rate=0.01), validate=None)
    return model.eval()


def histories_of(model, dataset, *histories):
    spelled = [[Interaction(item) for item in history] for history in histories]
    return histories_from_interactions(dataset, spelled, model.max_length)[0]


def scores_after(history, model, dataset):
    score_BI = Ranker(model).scores(histories_of(model, dataset, history))
    return dict(zip(dataset.items.ids, score_BI[0, 1:].tolist(), strict=True))


def order_after(history, model, dataset):
    items_BK = Ranker(model).rank(histories_of(model, dataset, history), len(dataset.items)).item_index_BK
    return [dataset.items.id_of(item) for item in items_BK[0] if item]


def baskets(*items_of_users):
    """Return the log of who took what, each letter an item, in order."""
    return [f"u{user},{item},{time}" for user, items in enumerate(items_of_users) for time, item in enumerate(items, 1)]


@pytest.fixture
def blocks(dataset_of):
    """Half of the people take four of six alphas in any order, the others four of six betas."""
    rng = np.random.default_rng(0)
    names = {"a": "alpha", "b": "beta"}
    log_lines = [
        f"{block}-user{user:02},{block}{number},{time}"
        for block in names
        for user in range(24)
        for time, number in enumerate(rng.permutation(6)[:4], 1)
    ]
    items = [f"{block}{number},{name} {block}{number}" for block, name in names.items() for number in range(7)]
    return dataset_of(log_lines, items)  # nobody took a6 and b6


# item-knn


def test_item_knn_scores_by_cosine_with_shrinkage_below_the_fraction(dataset_of):
    dataset = dataset_of(baskets("ab", "ab", "ac"))
    scores = scores_after("a", fitted("item-knn", dataset, shrinkage=1.0), dataset)
    assert scores["b"] == pytest.approx(2 / (sqrt(3) * sqrt(2) + 1))
    assert scores["c"] == pytest.approx(1 / (sqrt(3) * sqrt(1) + 1))


def test_item_knn_trusts_a_single_meeting_less_the_more_shrinkage_there_is(dataset_of):
    dataset = dataset_of(baskets("cm", "cm", "cr", "m", "m", "m"))
    assert order_after("c", fitted("item-knn", dataset, shrinkage=0.0), dataset) == ["r", "m"]  # 1/√3 > 2/√15
    assert order_after("c", fitted("item-knn", dataset, shrinkage=10.0), dataset) == ["m", "r"]


def test_item_knn_counts_half_what_lies_a_half_life_back(dataset_of):
    dataset = dataset_of(baskets("ax", "by", "cz"))
    scores = scores_after("abc", fitted("item-knn", dataset, shrinkage=0.0, half_life=2.0), dataset)
    assert [scores[item] for item in "xyz"] == pytest.approx([1 / 2, 1 / sqrt(2), 1])


def test_item_knn_keeps_only_the_nearest_items_of_an_item(dataset_of):
    dataset = dataset_of(baskets("ab", "ab", "ac"))
    scores = scores_after("a", fitted("item-knn", dataset, neighbours=1), dataset)
    assert scores["b"] > 0 > scores["c"]


# user-knn


def test_user_knn_sums_the_cosines_of_those_who_took_an_item(dataset_of):
    dataset = dataset_of(baskets("abx", "ay"))
    scores = scores_after("ab", fitted("user-knn", dataset, shrinkage=1.0, half_life=1.0), dataset)
    first = 1.5 / (sqrt(0.5**2 + 1**2) * sqrt(3) + 1)
    second = 0.5 / (sqrt(0.5**2 + 1**2) * sqrt(2) + 1)
    assert [scores[item] for item in "axy"] == pytest.approx([first + second, first, second])


def test_user_knn_asks_only_the_nearest_people(dataset_of):
    dataset = dataset_of(baskets("abx", "ay"))
    scores = scores_after("ab", fitted("user-knn", dataset, neighbours=1), dataset)
    assert scores["x"] > 0 > scores["y"]


# vsknn


def test_vsknn_weighs_the_history_linearly_and_items_by_the_newest_shared_one_and_rarity(dataset_of):
    dataset = dataset_of(baskets("ax", "by"))
    scores = scores_after("ab", fitted("vsknn", dataset), dataset)
    # a has weight 1, b weight 2; and a is the second newest of the history.
    assert scores["x"] == pytest.approx(1 * 1 / 2 * log(4 / 1))
    assert scores["y"] == pytest.approx(2 * log(4 / 1))


def test_vsknn_prefers_the_rarer_of_two_items(dataset_of):
    dataset = dataset_of(baskets("ax", "az", "z"))
    scores = scores_after("a", fitted("vsknn", dataset), dataset)
    assert [scores["x"], scores["z"]] == pytest.approx([log(5 / 1), log(5 / 2)])


def test_vsknn_takes_an_item_once_however_often_it_occurs(dataset_of):
    dataset = dataset_of(baskets("axx"))
    model = fitted("vsknn", dataset)
    assert scores_after("a", model, dataset)["x"] == pytest.approx(log(3 / 2))
    # Of the two a, the newer one counts: second of three.
    other = dataset_of(baskets("ax", "b"))
    assert scores_after("aab", fitted("vsknn", other), other)["x"] == pytest.approx(2 * 1 / 2 * log(3 / 1))


def test_vsknn_looks_for_the_nearest_among_the_newest(dataset_of):
    dataset = dataset_of(["u0,b,1", "u0,y,2", "u1,a,3", "u1,x,4"])
    nearest = scores_after("ab", fitted("vsknn", dataset, neighbours=1), dataset)
    newest = scores_after("ab", fitted("vsknn", dataset, sample=1), dataset)
    assert nearest["y"] > 0 > nearest["x"]
    assert newest["x"] > 0 > newest["y"]


# stan


def test_stan_multiplies_its_three_decays(dataset_of):
    dataset = dataset_of([*baskets("axb"), f"u1,a,{2 * DAY}", f"u1,y,{3 * DAY + 3}"])
    model = fitted("stan", dataset, position_decay=2.0, days_decay=4.0, distance_decay=5.0)
    scores = scores_after("ab", model, dataset)
    assert scores["x"] == pytest.approx((exp(-1 / 2) + 1) / sqrt(3) * exp(-3 / 4) * exp(-1 / 5))
    assert scores["y"] == pytest.approx(exp(-1 / 2) / sqrt(2) * exp(-1 / 5))


def order_of_stan(log_lines, history, dataset_of, **decay):
    dataset = dataset_of(log_lines)
    decays = {"position_decay": NEVER, "days_decay": NEVER, "distance_decay": NEVER} | decay
    order = order_after(history, fitted("stan", dataset, **decays), dataset)
    return [item for item in order if item in "xy"]


def test_stan_forgets_older_items_of_the_history(dataset_of):
    log_lines = baskets("ax", "ax", "by")
    assert order_of_stan(log_lines, "ab", dataset_of) == ["x", "y"]
    assert order_of_stan(log_lines, "ab", dataset_of, position_decay=1.0) == ["y", "x"]


def test_stan_forgets_histories_that_ended_long_ago(dataset_of):
    log_lines = [*baskets("ax", "ax"), f"u2,a,{9 * DAY}", f"u2,y,{9 * DAY + 1}"]
    assert order_of_stan(log_lines, "a", dataset_of) == ["x", "y"]
    assert order_of_stan(log_lines, "a", dataset_of, days_decay=5.0) == ["y", "x"]


def test_stan_forgets_what_stands_far_from_the_shared_item(dataset_of):
    log_lines = baskets("apqx", "apqx", "aypq")
    assert order_of_stan(log_lines, "a", dataset_of) == ["x", "y"]
    assert order_of_stan(log_lines, "a", dataset_of, distance_decay=1.0) == ["y", "x"]


def test_stan_scores_a_repeated_item_by_its_last_place(dataset_of):
    dataset = dataset_of(baskets("xpax"))
    scores = scores_after("a", fitted("stan", dataset, distance_decay=1.0), dataset)
    assert scores["x"] == pytest.approx(1 / sqrt(3) * exp(-1))


# markov


def test_markov_scores_by_the_share_of_what_followed_the_last_item(dataset_of):
    dataset = dataset_of(baskets("ababac", "bd"))
    scores = scores_after("ba", fitted("markov", dataset), dataset)
    assert [scores["b"], scores["c"]] == pytest.approx([2 / 3, 1 / 3])
    assert scores["d"] < 0  # followed b, which is not the last


def test_markov_lets_an_item_follow_itself(dataset_of):
    dataset = dataset_of(baskets("aab"))
    scores = scores_after("a", fitted("markov", dataset), dataset)
    assert [scores["a"], scores["b"]] == pytest.approx([1 / 2, 1 / 2])


# ease


def some_baskets(num_users=30, num_items=8):
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefgh"))[:num_items]
    return baskets(*("".join(rng.permutation(letters)[: rng.integers(2, 5)]) for _ in range(num_users)))


def taken_in(dataset):
    """Return who took what, 1 or 0, a row a user and a column an item index."""
    taken_UI = np.zeros((len(dataset.users), len(dataset.items) + 1), dtype=np.float32)
    rows = np.repeat(np.arange(len(dataset.users)), np.diff(dataset.user_offsets)[1:])
    taken_UI[rows, dataset.item_index] = 1
    return taken_UI


def test_ease_is_the_closed_form_down_to_what_speaks_against_an_item(dataset_of):
    dataset = dataset_of(some_baskets())
    taken_UI = taken_in(dataset)[:, 1:]
    inverse_II = np.linalg.inv(taken_UI.T @ taken_UI + 2.0 * np.eye(8))
    weight_II = -inverse_II / np.diag(inverse_II)
    np.fill_diagonal(weight_II, 0)
    history = [item in "ab" for item in dataset.items.ids]
    wanted_I = np.array(history) @ weight_II
    assert wanted_I.min() < 0 < wanted_I.max()
    scores = scores_after("ab", fitted("ease", dataset, regularization=2.0), dataset)
    assert list(scores.values()) == pytest.approx(wanted_I, abs=1e-5)


def test_ease_has_no_opinion_on_items_that_got_no_weights(dataset_of):
    dataset = dataset_of(baskets("ab", "ab", "ab", "ac", "c", "ad"))
    order = order_after("a", fitted("ease", dataset, most_items=2), dataset)
    assert order == ["b", "c", "d"]
    assert order_after("d", fitted("ease", dataset, most_items=2), dataset) == ["a", "b", "c"]


# mf


def test_als_makes_of_a_history_the_user_that_implicit_makes_of_it(dataset_of):
    implicit_als = pytest.importorskip("implicit.als")
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits

    dataset = dataset_of(some_baskets())
    model = fitted("mf", dataset, factors=4, regularization=0.5, alpha=7.0)
    taken_UI = csr_matrix(taken_in(dataset))
    with threadpool_limits(1, "blas"):
        other = implicit_als.AlternatingLeastSquares(factors=4, regularization=0.5, alpha=7.0)
    other.item_factors = model.items_ID.numpy()
    wanted_UD = other.recalculate_user(np.arange(len(dataset.users)), taken_UI)
    offsets = dataset.user_offsets
    query_UD = model.queries(gather(dataset, offsets[1:-1], offsets[2:], model.max_length))
    np.testing.assert_allclose(query_UD, wanted_UD, atol=1e-3)
    assert np.abs(wanted_UD).max() > 0.1


@pytest.mark.parametrize("algorithm", ["als", "bpr"])
def test_mf_gives_somebody_new_the_rest_of_their_block(algorithm, blocks):
    pytest.importorskip("implicit")
    model = fitted("mf", blocks, algorithm=algorithm, factors=4)
    assert set(order_after(["a0", "a1", "a2"], model, blocks)[:3]) == {"a3", "a4", "a5"}
    assert set(order_after(["b5", "b3", "b1"], model, blocks)[:3]) == {"b0", "b2", "b4"}


# ncf


def test_ncf_gives_people_it_knows_the_rest_of_their_block(blocks):
    model = fitted("ncf", blocks, embedding_dim=8)
    offsets = blocks.user_offsets
    items_BK = Ranker(model).rank(gather(blocks, offsets[1:-1], offsets[2:], 20), 2).item_index_BK
    own = [
        {blocks.items.id_of(item)[0] for item in items} == {user[0]}
        for user, items in zip(blocks.users.ids, items_BK, strict=True)
    ]
    assert all(own)


def test_ncf_never_counts_against_an_item_that_its_user_took_it(dataset_of):
    dataset = dataset_of(baskets("abc", "bca", "cab"))  # so that nothing is left to draw as not taken
    model = fitted("ncf", dataset, embedding_dim=4)
    offsets = dataset.user_offsets
    scores = Ranker(model).scores(gather(dataset, offsets[1:-1], offsets[2:], 20))
    assert (scores[:, 1:] > 0).all()  # more likely than not


def test_ncf_cannot_answer_for_people_it_has_not_learned_from(dataset_of):
    dataset = dataset_of([*baskets("ab", "ab", "ba", "bac"), "once,a,9"])
    model = fitted("ncf", dataset, embedding_dim=4)
    assert not model.can_answer(histories_of(model, dataset, "ab")).any()
    offsets = dataset.user_offsets
    known = model.can_answer(gather(dataset, offsets[1:-1], offsets[2:], 20))
    assert dict(zip(dataset.users.ids, known.tolist(), strict=True)) == {
        "u0": True, "u1": True, "u2": True, "u3": True, "once": False,
    }  # fmt: skip


def test_ncf_leaves_a_history_of_nobody_to_the_popular_list(blocks):
    settings = {"encoder": {"name": "none"}, "training": {"epochs": 1}, "split": {"protocol": "leave-one-out"}}
    recommender = Recommender.fit(blocks, "ncf", settings=settings)
    ranked = recommender.recommend(history=["a0"], k=3)
    popular = Recommender.fit(blocks, "popular", settings=settings).recommend(history=["a0"], k=3)
    assert ranked.served_by == "popular"
    assert ranked.items == popular.items
    assert recommender.recommend("a-user00").served_by == "ncf"


# two-tower


def test_two_tower_learns_blocks_and_places_a_new_item_by_its_text(blocks):
    model = fitted("two-tower", blocks, embedding_dim=16)
    assert set(order_after(["a0", "a1", "a2"], model, blocks)[:4]) == {"a3", "a4", "a5", "a6"}
    assert set(order_after(["b0", "b1", "b2"], model, blocks)[:4]) == {"b3", "b4", "b5", "b6"}


# content-tfidf


def test_content_tfidf_puts_first_what_uses_the_same_words(dataset_of):
    titles = ["a,red summer dress", "b,blue summer skirt", "c,red summer skirt", "d,steel kitchen knife"]
    dataset = dataset_of(baskets("a", "d", "d"), titles)
    scores = scores_after("a", fitted("content-tfidf", dataset), dataset)
    assert scores["a"] == pytest.approx(1)
    assert scores["a"] > scores["c"] > scores["b"] > scores["d"] == 0


def test_content_tfidf_reads_chinese_by_single_and_paired_characters(dataset_of):
    titles = ["a,红色连衣裙", "b,蓝色连衣裙", "c,裙边色卡", "d,不锈钢菜刀"]
    dataset = dataset_of(baskets("a", "d", "d"), titles)
    scores = scores_after("a", fitted("content-tfidf", dataset), dataset)
    # b and c share characters with a, b pairs of them too.
    assert scores["b"] > scores["c"] > scores["d"] == 0


# random


def test_random_gives_a_history_the_same_list_each_time_and_another_seed_another(blocks):
    order = order_after(["a0", "b1"], fitted("random", blocks), blocks)
    assert order_after(["a0", "b1"], fitted("random", blocks), blocks) == order
    assert order_after(["a0", "b1"], fitted("random", blocks, seed=1), blocks) != order


def test_random_puts_every_item_first_about_as_often(dataset_of):
    dataset = dataset_of(baskets("abcdefghij"))
    model = fitted("random", dataset)
    many = histories_of(model, dataset, *(item * times for item in "abcdefghij" for times in range(1, 61)))
    first_B = Ranker(model).rank(many, 1, include_seen=True).item_index_BK[:, 0]
    times = np.bincount(first_B, minlength=11)[1:]
    assert times.sum() == 600
    assert abs(times - 60).max() < 4 * sqrt(600 * 0.1 * 0.9)  # four standard deviations


# popularity where there is no opinion


def test_items_without_an_opinion_come_last_by_popularity():
    popularity_I = torch.tensor([0.0, 3.0, 9.0, 1.0, 9.0])
    scores = backed_by_popularity(np.array([[0.0, 0.0, 0.0, 1e-6, -5.0]]), popularity_I)
    assert scores[0].argsort(descending=True).tolist() == [3, 4, 2, 1, 0]


@pytest.mark.parametrize("name", ["item-knn", "user-knn", "vsknn", "stan", "markov", "ease"])
def test_strangers_to_a_history_follow_by_popularity(name, dataset_of):
    dataset = dataset_of(baskets("ab", "cde", "cd", "c"))
    assert order_after("a", fitted(name, dataset), dataset) == ["b", "c", "d", "e"]

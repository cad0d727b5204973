"""A model in service makes the lists that the library makes, whatever the model."""

import gc
import weakref

import numpy as np
import pytest

from recloom import Recommender
from recloom.dataset import Interaction
from recloom.models import MODELS
from recloom.retrieval import Rules, search
from recloom.serving import Settings
from recloom.serving.live_model import Ask, LiveModel
from recloom.serving.store import Event
from tests.serving.helpers import EXPIRED, ITEMS, asked_ids, wait_until

NOW = 1_800_000_000
QUICK = {
    "weave": {"embedding_dim": 8, "hidden_dim": 8, "max_length": 6},
    "lm-fusion": {"hidden_dim": 8, "max_length": 6},
    "two-tower": {"embedding_dim": 8, "max_length": 6},
    "ncf": {"embedding_dim": 8},
    "mf": {"factors": 4},
}
HISTORIES = [["i01"], ["i03", "i04", "nobody knows it", "i06"], [f"i{n:02}" for n in range(20)], ["i07"] * 4]


@pytest.fixture(scope="module", params=MODELS)
def pair(request, shop, tmp_path_factory):
    """The library's recommender and the service's model, from one folder."""
    if request.param == "mf":
        pytest.importorskip("implicit")
    settings = {"encoder": {"name": "hashing"}, "model": QUICK.get(request.param, {})}
    if request.param in ("weave", "lm-fusion", "two-tower", "ncf"):
        settings["training"] = {"epochs": 1}
    folder = tmp_path_factory.mktemp("kinds") / request.param
    Recommender.fit(shop, request.param, settings=settings).save(folder)
    return Recommender.load(folder), LiveModel("default", folder, Settings(), [])


def of_the_library(ranked, k):
    """Return a list without the item that a service does not show because it has expired."""
    return [(place.item_id, place.score) for place in ranked.items if place.item_id != f"i{EXPIRED:02}"][:k]


def compare(library, answer, k):
    assert answer.served_by == library.served_by
    assert answer.unknown_items == library.unknown_items
    assert [(shown.item_id, shown.score) for shown in answer.items] == of_the_library(library, k)


@pytest.mark.parametrize("include_seen", [True, False, None])
@pytest.mark.filterwarnings("ignore:.*does not read when and where")
def test_lists_are_exactly_those_of_the_library(pair, include_seen):
    recommender, live = pair
    context = {"timestamp": NOW}
    asks, libraries = [], []
    for k in (1, 5, ITEMS):
        for user in ("u03", "u11"):
            asks.append(Ask(k, (), user=user, context=context, include_seen=include_seen, now=NOW))
            libraries.append(recommender.recommend(user, k=k + 1, context=context, include_seen=include_seen))
        for history in HISTORIES:
            told = [Event("", "", item, 1_000_000 + 60 * place, "view") for place, item in enumerate(history)]
            asks.append(Ask(k, told, context=context, include_seen=include_seen, now=NOW))
            spelled = [Interaction(event.item_id, event.timestamp, "view") for event in told]
            libraries.append(
                recommender.recommend(history=spelled, k=k + 1, context=context, include_seen=include_seen)
            )
    for ask, answer, library in zip(asks, live.answer(asks), libraries, strict=True):
        if library.served_by != live.kind:
            assert answer.served_by in ("content", "popular-recent")
        else:
            compare(library, answer, ask.k)
    together = live.answer(asks)
    alone = [live.answer([ask])[0] for ask in asks]
    assert [[shown.item_id for shown in one.items] for one in alone] == [
        [shown.item_id for shown in one.items] for one in together
    ]


def test_what_happened_since_counts_like_the_log(pair):
    recommender, live = pair
    index = recommender.dataset.users.index_of("u03")
    logged = slice(*recommender.dataset.user_offsets[index : index + 2].tolist())
    told = [
        Event("", "u03", recommender.dataset.items.id_of(int(item)), int(time), "view")
        for item, time in zip(
            recommender.dataset.item_index[logged], recommender.dataset.timestamp[logged], strict=True
        )
    ]
    more = Event("", "u03", "i20", 1_500_000, "view")
    by_log = live.answer([Ask(5, [more], user="u03", now=NOW)])[0]
    # Events that the log holds already count once.
    twice = live.answer([Ask(5, [*told, more], user="u03", now=NOW)])[0]
    assert by_log == twice
    assert live.answer([Ask(5, [], user="u03", now=NOW)]) == live.answer([Ask(5, told, user="u03", now=NOW)])


def test_similar_items_are_those_of_the_library(pair):
    recommender, live = pair
    assert any(place.score for place in recommender.similar_items("i03", 5))
    wanted = [place.item_id for place in recommender.similar_items("i03", 24) if place.item_id != f"i{EXPIRED:02}"]
    assert [shown.item_id for shown in live.similar("i03", 23, Rules(), NOW)] == wanted[:23]


def test_approximate_search_in_a_service_obeys_and_reports(serve, monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(search, "FEW_ALLOWED", 0)
    exact, client = serve(), serve(approximate_from=1)
    facts = client.get("/v1/models").json()["models"][0]
    assert facts["search"] == "approximate"
    assert facts["index_recall"] >= 0.98
    found = [
        len(set(asked_ids(client, user_id=f"u{n:02}")) & set(asked_ids(exact, user_id=f"u{n:02}"))) for n in range(30)
    ]
    assert np.mean(found) / 10 >= 0.9
    client.delete("/v1/items/i12")
    client.put("/v1/items/fresh", json={"title": "film number12 kind3", "price": 1})
    wait_until(lambda: "fresh" in asked_ids(client, history=["i11"], k=ITEMS))
    for filters in ({}, {"where": {"price": {"<": 9}}}, {"pinned": ["i12"], "deny": ["i01"]}):
        for number in range(30):
            got = asked_ids(client, user_id=f"u{number:02}", k=ITEMS, include_seen=True, filters=filters)
            assert not {"i12", f"i{EXPIRED:02}", *filters.get("deny", ())} & set(got)
            assert len(got) == (9 if "where" in filters else 22 if filters else 23)


def test_a_search_by_title_needs_nothing_of_the_thread_that_answers(pair):
    _, live = pair
    find = live.finder(NOW)
    assert live.catalogue.ids[find("KIND3 film", 1)[0]] in {"i12", "i13", "i14", "i15"}
    found = find("film", ITEMS).tolist()
    assert sorted(live.catalogue.ids[row] for row in found) == [f"i{n:02}" for n in range(ITEMS) if n != EXPIRED]
    popularity = live._popularity_I[found]
    assert (np.diff(popularity) <= 0).all()
    live.take_popularity({"i07": 1_000})
    assert find("film", ITEMS).tolist() == found
    assert live.catalogue.ids[live.finder(NOW)("film", 1)[0]] == "i07"


def test_a_model_goes_when_nobody_refers_to_it(pair):
    # The service freezes what is in memory, so that the garbage collector would never find a cycle.
    _, live = pair
    gc.collect()
    gc.disable()
    try:
        another = LiveModel("default", live.path, Settings(), [])
        another.answer([Ask(5, (), user="u03", now=NOW, explain=True)])
        gone = weakref.ref(another)
        del another
        assert gone() is None
    finally:
        gc.enable()

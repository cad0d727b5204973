"""Lists over HTTP: whose, how long, under which rules, and from where."""

import time

import pytest

from recloom.errors import ConfigError
from recloom.retrieval import Boost, Rules
from recloom.serving import ServiceConfig, Settings
from tests.serving.helpers import CATEGORIES, EXPIRED, ITEMS, ask, asked_ids, history_of, ids, problem, wait_until

EVERYTHING = {"k": ITEMS, "include_seen": True}


@pytest.mark.parametrize("k", [1, 3, 10])
def test_lists_of_known_users_are_those_of_the_library(shared, loaded, k):
    now = {"timestamp": 1_800_000_000}
    library = loaded.recommend("u07", k=k + 1, context=now)
    wanted = [(place.item_id, place.score) for place in library.items if place.item_id != f"i{EXPIRED:02}"][:k]
    answer = ask(shared, user_id="u07", k=k, context=now)
    assert [(place["item_id"], place["score"]) for place in answer["items"]] == wanted
    assert [place["rank"] for place in answer["items"]] == list(range(1, len(wanted) + 1))


def test_a_list_says_where_it_came_from(shared):
    answer = ask(shared, history=["i01", "nobody-knows-it"], k=2)
    assert answer["served_by"] == "weave"
    assert answer["model"].startswith("default@")
    assert answer["variant"] is None
    assert answer["unknown_items"] == 1
    assert answer["items"][0]["title"] == "film number2 kind0"
    assert "reasons" not in answer["items"][0]
    assert answer["recommendation_id"] != ask(shared, history=["i01"])["recommendation_id"]


def test_somebody_without_a_history_gets_what_is_popular(shared):
    answer = ask(shared, user_id="a stranger", k=3)
    assert answer["served_by"] == "popular-recent"
    assert len(answer["items"]) == 3
    # What is popular is counted anew now and then, by another thread.
    wait_until(lambda: ask(shared, history=[], k=3)["items"] == ask(shared, user_id="a stranger", k=3)["items"])


def test_seen_items_are_left_out_or_not_as_is_asked(shared):
    history = history_of(range(8, 14))
    assert not set(history) & set(asked_ids(shared, history=history, k=ITEMS, include_seen=False))
    assert set(history) <= set(asked_ids(shared, history=history, **EVERYTHING))


def test_a_list_is_as_long_as_there_are_items(shared):
    assert len(asked_ids(shared, history=["i01"], **EVERYTHING)) == ITEMS - 1  # one has expired
    assert f"i{EXPIRED:02}" not in asked_ids(shared, history=["i04"], **EVERYTHING)


def test_the_context_is_read_and_unknown_columns_are_named(shared):
    ask(shared, user_id="u01", context={"device": "mobile", "age": 31, "timestamp": 1_800_000_000})
    ask(shared, user_id="u01", context={"device": "a device of tomorrow"})
    answer = shared.post("/v1/recommendations", json={"user_id": "u01", "context": {"devise": "mobile"}})
    problem(answer, 422, "unknown context devise; there are: timestamp")
    answer = shared.post("/v1/recommendations", json={"user_id": "u01", "context": {"age": "old"}})
    problem(answer, 422, "'old' is no number")
    answer = shared.post("/v1/recommendations", json={"user_id": "u01", "context": {"timestamp": "now"}})
    problem(answer, 422, "it has to be UTC seconds")


def test_histories_may_tell_times_behaviours_and_context(shared):
    told = [{"item_id": "i03", "timestamp": 1_700_000_000, "behavior": "view", "device": "web", "age": "?"}]
    assert ask(shared, history=told)["served_by"] == "weave"


def test_a_history_of_a_request_is_nobodys(shared):
    ask(shared, history=["i11"])
    ask(shared, user_id="quiet")
    from sqlalchemy import select

    from recloom.serving.database import recommendations

    store = shared.app.state.service.store
    store.add(()).result(5)
    with store.database.transaction() as connection:
        users = set(connection.execute(select(recommendations.c.user_id)).scalars())
    assert "quiet" in users


# Rules


def categories(place):
    return CATEGORIES[int(place["item_id"][1:]) % 3].split("|")


def price(item_id):
    return int(item_id[1:]) + 0.5


def test_allow_and_deny_hold(shared):
    allowed = ["i01", "i02", "i03", "not-there"]
    got = asked_ids(shared, user_id="u20", **EVERYTHING, filters={"allow": allowed, "deny": ["i02"]})
    assert sorted(got) == ["i01", "i03"]
    assert asked_ids(shared, user_id="u20", **EVERYTHING, filters={"allow": []}) == []


@pytest.mark.parametrize(
    ("where", "holds"),
    [
        ({"price": {"<": 3.5}}, lambda i: price(i) < 3.5),
        ({"price": {"<=": 3.5}}, lambda i: price(i) <= 3.5),
        ({"price": {">": 20, "<=": 22.5}}, lambda i: 20 < price(i) <= 22.5),
        ({"price": {">=": 20.5}}, lambda i: price(i) >= 20.5),
        ({"price": {"=": 7.5}}, lambda i: price(i) == 7.5),
        ({"price": {"!=": 7.5}}, lambda i: price(i) != 7.5),
        ({"price": {"in": [1.5, 2.5]}}, lambda i: price(i) in (1.5, 2.5)),
        ({"price": {"not in": [1.5, 2.5]}}, lambda i: price(i) not in (1.5, 2.5)),
        ({"category": {"=": "book"}}, lambda i: "book" in CATEGORIES[int(i[1:]) % 3]),
        ({"category": {"!=": "book"}}, lambda i: "book" not in CATEGORIES[int(i[1:]) % 3]),
        ({"category": {"in": ["film", "car"]}}, lambda i: "film" in CATEGORIES[int(i[1:]) % 3]),
        ({"category": {"not in": ["film"]}}, lambda i: "film" not in CATEGORIES[int(i[1:]) % 3]),
        ({"category": {"in": []}}, lambda i: False),
        ({"category": {"=": "book"}, "price": {"<": 9}}, lambda i: price(i) < 9 and int(i[1:]) % 3 != 1),
    ],
)
def test_conditions_on_columns_hold(shared, where, holds):
    got = asked_ids(shared, user_id="u20", **EVERYTHING, filters={"where": where})
    everything = {f"i{item:02}" for item in range(ITEMS)} - {f"i{EXPIRED:02}"}
    assert set(got) == {item for item in everything if holds(item)}


def test_caps_pins_boosts_and_diversity(shared):
    capped = ask(shared, user_id="u20", **EVERYTHING, filters={"max_per": {"category": 2}})["items"]
    assert max(sum(name in categories(place) for place in capped) for name in ("book", "film")) == 2
    pinned = ask(shared, user_id="u20", k=4, filters={"pinned": ["i09", "nothing", "i05", "i08"]})["items"]
    assert [(place["item_id"], place["score"]) for place in pinned[:2]] == [("i09", None), ("i08", None)]
    assert len({place["item_id"] for place in pinned}) == 4
    plain = asked_ids(shared, user_id="u20", k=ITEMS)
    worst = plain[-1]
    boosts = [{"items": [worst], "weight": 1e30}]
    assert asked_ids(shared, user_id="u20", k=1, filters={"boosts": boosts}) == [worst]
    boosts = [{"where": {"category": {"=": "film"}}, "weight": 1e-30}]
    assert "film" not in categories(ask(shared, user_id="u20", k=1, filters={"boosts": boosts})["items"][0])
    assert asked_ids(shared, user_id="u20", k=5, filters={"diversity": 0.0}) == plain[:5]
    diverse = asked_ids(shared, user_id="u20", k=5, filters={"diversity": 0.9})
    assert diverse[0] == plain[0]
    assert diverse != plain[:5]


def test_the_services_rules_and_the_requests_hold_together(serve):
    rules = Rules(where={"price": {"<": 10}}, deny=("i01",), pinned=("i02",), boosts=(Boost(items=("i03",)),))
    client = serve(settings=Settings(rules=rules))
    got = asked_ids(client, user_id="u20", **EVERYTHING, filters={"where": {"price": {"<": 15, ">": 1}}})
    assert got[0] == "i02"
    assert set(got) == {"i02", "i03", "i04", "i06", "i07", "i08", "i09"}
    answer = client.post("/v1/recommendations", json={"user_id": "u1", "filters": {"allow": ["i01", "i20"]}})
    assert ids(answer.json()) == []


def test_an_explanation_says_what_the_library_says_or_that_it_is_popular(shared, loaded):
    request = {"k": 3, "explain": True, "context": {"timestamp": 1_100_000}}
    got = ask(shared, user_id="u20", filters={"deny": [f"i{EXPIRED:02}"]}, **request)["items"]
    wanted = loaded.recommend("u20", k=4, explain=True, context={"timestamp": 1_100_000})
    by_id = {place.item_id: place for place in wanted.items}
    for place in got:
        assert place["because"] == by_id[place["item_id"]].because
        assert place["reasons"] == [reason.as_dict() for reason in by_id[place["item_id"]].reasons]
        parts = [r["contribution"] for r in place["reasons"] if r["kind"] in ("id", "text", "popularity", "any item")]
        assert sum(parts) == pytest.approx(place["score"], abs=2e-4)
    stranger = ask(shared, user_id="stranger", k=1, explain=True, language="zh")["items"][0]
    assert stranger["reasons"] == [{"kind": "popular", "contribution": None}]
    assert stranger["because"] == "因为很多人都选了它。"
    problem(shared.post("/v1/recommendations", json={"user_id": "a", "language": "fr"}), 422, "language: ")


def test_the_page_draws_the_reasons(shared):
    page = shared.get("/", params={"h": ["i01", "i02"], "k": 2, "language": "zh"}).text
    assert "因为你看过《film number" in page
    for kind in ("history", "id", "text"):
        assert f'class="bar {kind}' in page
    assert 'name="language" value="zh"' in page  # which the other forms keep
    refused = shared.get("/", params={"h": ["i01"], "language": "fr"})
    assert refused.status_code == 422


def test_rules_are_among_the_reasons(shared):
    boosts = [{"items": ["i09"], "weight": 1e12}]
    answer = ask(shared, user_id="u20", k=2, explain=True, filters={"boosts": boosts, "pinned": ["i08"]})
    pinned, boosted = answer["items"]
    assert pinned["because"] == "A rule of the service puts it here."
    assert boosted["item_id"] == "i09"
    assert {"kind": "rules", "contribution": 27.631, "name": "boost"} in boosted["reasons"]
    assert boosted["because"].endswith("A rule of the service moves it up.")


def test_reasons_that_cannot_be_found_cost_nobody_the_list(shared, monkeypatch):
    from recloom.explanation import Explainer

    monkeypatch.setattr(Explainer, "explain", lambda *_: 1 / 0)
    answer = ask(shared, user_id="u20", k=2, explain=True)
    assert [place["reasons"] for place in answer["items"]] == [[], []]
    assert ids(answer) == asked_ids(shared, user_id="u20", k=2)


def test_reasons_are_phrased_when_a_request_wants_it_and_the_writer_is_in_time(serve, monkeypatch):
    class Writer:
        name, answer = "fake", ""

        def write(self, instruction, request, *, most_tokens, seconds):
            time.sleep(0 if self.answer else 5)
            return self.answer or request

    monkeypatch.setattr("recloom.serving.app.load_writer", lambda name: Writer())
    client = serve(writer="fake", writer_seconds=1.5)
    plain = ask(client, user_id="u20", k=1, explain=True)["items"][0]
    late = ask(client, user_id="u20", k=1, explain=True, phrase=True)["items"][0]
    assert late["because"] == plain["because"]
    Writer.answer = f"We thought of you, {plain['because'][0].lower()}{plain['because'][1:]}"
    assert ask(client, user_id="u20", k=1, explain=True, phrase=True)["items"][0]["because"] == Writer.answer
    assert ask(client, user_id="u20", k=1, explain=True)["items"][0]["because"] == plain["because"]
    with pytest.raises(ConfigError, match=r"writer_seconds is 9\.0; it has to be less than service\.timeout"):
        ServiceConfig(writer="fake", writer_seconds=9.0)


def test_similar_items_leave_out_what_may_not_be_shown(shared, loaded):
    answer = shared.get("/v1/items/i04/similar", params={"k": 23}).json()
    wanted = [place.item_id for place in loaded.similar_items("i04", 23) if place.item_id != f"i{EXPIRED:02}"]
    assert [place["item_id"] for place in answer["items"]] == wanted
    problem(shared.get("/v1/items/nothing/similar"), 404, "'nothing' is not among the 24 items")
    problem(shared.get("/v1/items/i05/similar"), 404, "'i05' is not among")
    problem(shared.get("/v1/items/i01/similar", params={"k": 0}), 422, "k: ")
    problem(shared.get("/v1/items/i01/similar", params={"k": 501}), 422, "at most 500")


# Limits and mistakes


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 422, "give one of user_id, session_id and history"),
        ({"user_id": "a", "history": []}, 422, "give one of user_id, session_id and history"),
        ({"user_id": "a", "k": 0}, 422, "k: "),
        ({"user_id": "a", "k": 501}, 422, "this service makes lists of at most 500"),
        ({"user_id": "a", "kk": 1}, 422, "kk: "),
        ({"history": ["i01"] * 1001}, 422, "the history holds 1,001 interactions; send the newest 1,000"),
        ({"user_id": "a", "model": "other"}, 422, "the service has no model 'other'; there are: default"),
        ({"user_id": "a", "filters": {"alow": []}}, 422, "unknown rule 'alow'; did you mean"),
        ({"user_id": "a", "filters": {"deny": ["i01"] * 10_001}}, 422, "the filters name 10,001 things"),
        ({"user_id": "a", "filters": {"where": {"colour": {"=": 1}}}}, 422, "the catalogue has no column 'colour'"),
        ({"user_id": "a", "filters": {"where": {"price": {"~": 1}}}}, 422, "has the operator '~'"),
        ({"user_id": "a", "filters": {"where": {"price": {"=": "dear"}}}}, 422, "is a column of numbers"),
        ({"user_id": "a", "filters": {"where": {"category": {"<": "b"}}}}, 422, "is a column of words"),
        ({"user_id": "a", "filters": {"where": {"price": {"in": 1}}}}, 422, "wants a list"),
        ({"user_id": "a", "filters": {"where": {"price": {}}}}, 422, "write it as"),
        ({"user_id": "a", "filters": {"max_per": {"category": 0}}}, 422, "max_per of category is 0"),
        ({"user_id": "a", "filters": {"max_per": {"colour": 1}}}, 422, "no column 'colour'"),
        ({"user_id": "a", "filters": {"diversity": 2}}, 422, "diversity is 2.0"),
        ({"user_id": "a", "filters": {"boosts": [{"weight": 0, "items": ["i01"]}]}}, 422, "has the weight 0"),
        ({"user_id": "a", "filters": {"boosts": [{"weight": 2}]}}, 422, "a boost names no items"),
        ({"user_id": "a", "filters": {"boosts": [{"column": "title"}]}}, 422, "title is a column of words"),
    ],
)
def test_mistakes_are_told_in_a_sentence(shared, body, status, words):
    problem(shared.post("/v1/recommendations", json=body), status, words)


def test_a_body_that_is_no_json_is_told_so(shared):
    answer = shared.post("/v1/recommendations", content=b"{", headers={"content-type": "application/json"})
    problem(answer, 400, "the body is no JSON")


def test_ways_that_lead_nowhere_are_problems_too(shared):
    problem(shared.get("/v1/nothing"), 404, "Not Found")
    problem(shared.get("/v1/recommendations"), 405, "Method Not Allowed")


def test_a_model_that_fails_is_replaced_by_a_simpler_one(serve):
    client = serve()
    model = client.app.state.service.engine.models["default"]

    def fail(*_):
        raise RuntimeError("weights of lead")

    model.search.search = fail
    answer = ask(client, user_id="u07", k=4, filters={"deny": ["i00"]})
    assert answer["served_by"] == "content"
    assert len(answer["items"]) == 4
    assert "i00" not in ids(answer)

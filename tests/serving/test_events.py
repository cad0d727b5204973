"""What people did: kept once, on disk, and known to the next answer."""

import time

import pytest

from recloom.serving import Settings
from tests.serving.helpers import ask, asked_ids, event, post, problem, wait_until


def stored(client):
    """Return user, item and time of all events, by event id."""
    from sqlalchemy import select

    from recloom.serving.database import events

    with client.app.state.service.store.database.transaction() as connection:
        return {row.event_id: (row.user_id, row.item_id, row.timestamp) for row in connection.execute(select(events))}


def test_good_events_are_kept_and_bad_ones_are_rejected_by_their_place(serve):
    client = serve()
    answer = post(
        client,
        event("e0", "ann", "i01", timestamp=1_700_000_000),
        {"user_id": "ann"},
        event("e2", "ann", "i02", session_id="s"),
        event("e3", "ann", "i03", timestamp="soon"),
        event("e4", "ann", "i04", timestamp=int(time.time()) + 90_000),
        event("e5", "ann", "i05", behavior=""),
        event("e6", "ann", "i06", device=["mobile"]),
        event("e7", "ann", "i07", timestamp="2024-01-01T00:00:00Z"),
    )
    assert answer["accepted"] == 2
    assert [bad["index"] for bad in answer["rejected"]] == [1, 2, 3, 4, 5, 6]
    told = [bad["detail"] for bad in answer["rejected"]]
    assert told[0].startswith("item_id: ")
    assert told[1] == "an event needs either user_id or session_id, one of them"
    assert "'soon' is no time" in told[2]
    assert "is impossible" in told[3]
    assert told[4].startswith("behavior: ")
    assert "each a text or a number" in told[5]
    assert stored(client) == {"e0": ("ann", "i01", 1_700_000_000), "e7": ("ann", "i07", 1_704_067_200)}


def test_an_event_counts_once_however_often_it_is_sent(serve):
    first = serve()
    post(first, event("e", "ann", "i01"), event("e", "ann", "i09"))
    post(first, event("e", "ann", "i02"))
    again = serve()
    post(again, event("e", "ann", "i03"))
    assert [row[1] for row in stored(again).values()] == ["i01"]
    assert asked_ids(again, user_id="ann", k=1) == asked_ids(again, history=["i01"], k=1)


def test_events_without_an_id_get_one_each(serve):
    client = serve()
    assert post(client, {"user_id": "ann", "item_id": "i01"}, {"user_id": "ann", "item_id": "i01"})["accepted"] == 2
    assert len(stored(client)) == 2


def test_the_last_click_changes_the_next_answer(shared):
    assert ask(shared, user_id="clicker")["served_by"] == "popular-recent"
    for item, following in (("i02", "i03"), ("i10", "i11"), ("i20", "i21")):
        post(shared, {"user_id": "clicker", "item_id": item})
        answer = ask(shared, user_id="clicker", k=3)
        assert answer["served_by"] == "weave"
        assert following in [place["item_id"] for place in answer["items"]]
        assert [place["item_id"] for place in answer["items"]] == asked_ids(shared, user_id="clicker", k=3)


def test_a_session_is_not_the_user_of_the_same_name(shared):
    post(shared, {"session_id": "u03", "item_id": "i20"})
    in_session = asked_ids(shared, session_id="u03", k=3)
    assert in_session == asked_ids(shared, history=["i20"], k=3)
    assert in_session != asked_ids(shared, user_id="u03", k=3)


def test_events_that_come_late_take_their_place_in_time(shared):
    post(shared, event("late-1", "late", "i01", timestamp=1_700_000_000))
    post(shared, event("late-2", "late", "i08", timestamp=1_700_000_020))
    post(shared, event("late-3", "late", "i07", timestamp=1_700_000_010))
    said = [{"item_id": i, "timestamp": 1_700_000_000 + t} for i, t in (("i01", 0), ("i07", 10), ("i08", 20))]
    assert ask(shared, user_id="late")["items"] == ask(shared, history=said)["items"]


def test_events_of_items_nobody_knows_are_kept_and_counted_as_unknown(shared):
    assert post(shared, {"user_id": "odd", "item_id": "never-heard-of"})["accepted"] == 1
    answer = ask(shared, user_id="odd")
    assert answer["unknown_items"] == 1
    assert answer["served_by"] == "popular-recent"


def test_a_behaviour_of_weight_zero_is_not_read_and_a_negative_one_keeps_the_item_out(serve):
    from recloom.serving import Settings

    client = serve(settings=Settings(behaviors={"impression": 0.0, "dislike": -1.0}))
    before = asked_ids(client, user_id="u03")
    post(client, {"user_id": "u03", "item_id": "i20", "behavior": "impression"})
    assert asked_ids(client, user_id="u03") == before
    post(client, {"user_id": "u03", "item_id": before[0], "behavior": "dislike"})
    assert before[0] not in asked_ids(client, user_id="u03", k=24, include_seen=True)
    assert before[0] in asked_ids(client, user_id="u04", k=24, include_seen=True)


@pytest.mark.parametrize("times", [(1, 2), (1_500_000_000_000, 1_500_000_001_000), ("2020-01-01", 1.5e9)])
def test_times_long_past_are_times(shared, times):
    name = f"past-{times[0]}"
    body = [{"user_id": name, "item_id": item, "timestamp": at} for item, at in zip(("i03", "i04"), times, strict=True)]
    assert post(shared, *body) == {"accepted": 2, "rejected": []}
    assert ask(shared, user_id=name)["served_by"] == "weave"


def test_a_clock_that_jumps_back_breaks_nothing(serve, steady_clock):
    client = serve()
    now = time.time()
    for at in (now, now - 86_400 * 400, now + 3_600, 100.0):
        steady_clock(at)
        post(client, {"user_id": "ann", "item_id": "i10"})
        assert ask(client, user_id="ann")["served_by"] == "weave"
    assert len(stored(client)) == 4


def test_more_events_than_the_limit_are_refused_together(serve):
    client = serve(max_events=2)
    answer = client.post("/v1/events", json={"events": [{"user_id": "a", "item_id": "i01"}] * 3})
    problem(answer, 413, "3 events at once; send at most 2")
    assert stored(client) == {}


def test_a_full_queue_of_writes_says_come_back(serve):
    client = serve(event_queue=1)
    answer = client.post("/v1/events", json={"events": [{"user_id": "a", "item_id": "i01"}] * 2})
    problem(answer, 503, "too much is waiting")
    assert answer.headers["retry-after"] == "1"
    assert post(client, {"user_id": "a", "item_id": "i01"})["accepted"] == 1


def test_old_events_are_removed_on_schedule(serve):
    now = int(time.time())
    forever = serve()
    post(forever, event("old", "ann", "i01", timestamp=now - 40 * 86_400), event("new", "ann", "i02", timestamp=now))
    assert set(stored(forever)) == {"old", "new"}
    limited = serve(retention_days=30.0)  # the first look is right after the start
    wait_until(lambda: set(stored(limited)) == {"new"}, 10)


def test_a_behaviour_of_weight_zero_is_kept_but_not_read_and_a_negative_one_hides_the_item(serve):
    weighed = serve(settings=Settings(behaviors={"impression": 0.0, "dislike": -1.0}))
    before = asked_ids(weighed, user_id="ann")
    post(weighed, event("e1", "ann", "i03", behavior="impression"))
    assert asked_ids(weighed, user_id="ann") == before
    post(weighed, event("e2", "ann", before[0], behavior="dislike"))
    assert asked_ids(weighed, user_id="ann")[:-1] == before[1:]
    assert set(stored(weighed)) == {"e1", "e2"}

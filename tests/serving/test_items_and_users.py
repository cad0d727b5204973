"""Items that come and go at run time, and people who want to be forgotten."""

import time
from pathlib import Path

import polars as pl
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from recloom import Dataset, Recommender
from recloom.dataset import log_of
from recloom.errors import ConfigError
from recloom.events import Entities, Interactions, Pseudonyms, ReadReport
from recloom.serving import Settings, create_app
from recloom.serving import database as tables
from recloom.serving.database import Database
from recloom.serving.settings import ServiceConfig
from recloom.serving.store import Store
from tests.serving.helpers import (
    ITEMS,
    ask,
    asked_ids,
    count_of,
    delete_while_another_writes,
    post,
    problem,
    wait_until,
)

EVERYTHING = {"k": 100, "include_seen": True}


def count(client, table, user):
    return count_of(client.app.state.service.store, table, user)


def test_a_new_item_is_recommended_within_a_second_to_who_likes_its_like(serve):
    client = serve()
    began = time.monotonic()
    body = {"title": "film number12 kind3", "category": "book|new", "price": 5, "colour": "red"}
    answer = client.put("/v1/items/fresh", json=body)
    assert (answer.status_code, answer.json()) == (202, {"item_id": "fresh", "status": "accepted"})
    wait_until(lambda: "fresh" in asked_ids(client, history=["i11"], k=ITEMS))
    assert time.monotonic() - began < 3  # a second where nothing else runs
    new = asked_ids(client, history=["i11"], **EVERYTHING, filters={"where": {"category": {"=": "new"}}})
    assert new == asked_ids(client, user_id="u1", filters={"where": {"colour": {"=": "red"}}}) == ["fresh"]
    assert "fresh" in [place["item_id"] for place in client.get("/v1/items/i12/similar").json()["items"]]
    post(client, {"user_id": "ann", "item_id": "fresh"})
    assert ask(client, user_id="ann")["unknown_items"] == 0
    assert "fresh" in asked_ids(serve(), history=["i11"], k=ITEMS)  # after a restart too


def test_an_item_that_changes_is_what_was_said_last(serve):
    client = serve()
    client.put("/v1/items/i03", json={"title": "renamed", "price": 99})
    cheap = {"filters": {"where": {"price": {"<": 50}}}}
    assert "i03" not in asked_ids(client, user_id="u20", **EVERYTHING, **cheap)
    shown = ask(client, user_id="u20", **EVERYTHING, filters={"allow": ["i03"]})["items"]
    assert [place["title"] for place in shown] == ["renamed"]
    client.put("/v1/items/i03", json={"title": "renamed", "price": 9})
    assert "i03" in asked_ids(client, user_id="u20", **EVERYTHING, **cheap)


def test_an_item_is_shown_between_its_dates_only(serve, steady_clock):
    client = serve()
    now = time.time()
    client.put("/v1/items/i03", json={"title": "a", "available_until": now + 100})
    client.put("/v1/items/i04", json={"title": "b", "available_from": now + 100})
    for seconds, there, gone in ((0, "i03", "i04"), (101, "i04", "i03"), (50, "i03", "i04")):
        steady_clock(now + seconds)
        got = asked_ids(client, user_id="u20", **EVERYTHING)
        assert there in got
        assert gone not in got


def test_a_withdrawn_item_is_never_shown_until_it_is_put_anew(serve):
    client = serve()
    first = asked_ids(client, user_id="u20", k=1)[0]
    answer = client.delete(f"/v1/items/{first}")
    assert (answer.status_code, answer.json()) == (200, {"item_id": first, "status": "withdrawn"})
    for filters in ({}, {"pinned": [first]}, {"allow": [first]}, {"boosts": [{"items": [first], "weight": 1e9}]}):
        assert first not in asked_ids(client, user_id="u20", **EVERYTHING, filters=filters)
    assert first not in asked_ids(client, user_id="a stranger", **EVERYTHING)
    assert first not in [place["item_id"] for place in client.get("/v1/items/i12/similar?k=50").json()["items"]]
    problem(client.get(f"/v1/items/{first}/similar"), 404, "is not among")
    again = serve()
    assert first not in asked_ids(again, user_id="u20", **EVERYTHING)
    again.put(f"/v1/items/{first}", json={"title": "back"})
    wait_until(lambda: first in asked_ids(again, user_id="u20", **EVERYTHING))


def test_withdrawing_what_nobody_knows_harms_nothing(serve):
    client = serve()
    assert client.delete("/v1/items/unheard").status_code == 200
    assert ask(client, user_id="u20")["items"]


def test_more_new_items_than_there_is_room_for_are_taken_in_the_background(serve):
    client = serve(room=2)
    for number in range(5):
        assert client.put(f"/v1/items/new{number}", json={"title": f"film new{number}"}).status_code == 202
    new = {f"new{number}" for number in range(5)}
    wait_until(lambda: new <= set(asked_ids(client, user_id="u20", **EVERYTHING)))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([1], ""),
        ({"title": {"en": "x"}}, "title"),
        ({"price": ["1"]}, "price"),
        ({"x" * 65: 1}, "names of 1 to 64 letters"),
        ({f"c{n}": n for n in range(201)}, "at most 200 columns"),
    ],
)
def test_an_item_that_cannot_be_is_refused(shared, body, words):
    problem(shared.put("/v1/items/odd", json=body), 422, words)


def test_any_id_can_be_written_into_an_address(serve):
    client = serve()
    for name in ("a/b", "https://shop.example/1?x=2#3", "50%", "a b", "ü", "..", "a/similar"):
        spelled = "".join(f"%{byte:02X}" for byte in name.encode())
        assert client.put(f"/v1/items/{spelled}", json={"title": "film number12 kind3"}).json()["item_id"] == name
        wait_until(lambda name=name: name in asked_ids(client, user_id="u20", **EVERYTHING))
        assert client.get(f"/v1/items/{spelled}/similar").status_code == 200
        assert client.delete(f"/v1/items/{spelled}").json() == {"item_id": name, "status": "withdrawn"}
        assert name not in asked_ids(client, user_id="u20", **EVERYTHING)
        post(client, {"user_id": name, "item_id": "i01"})
        assert client.delete(f"/v1/users/{spelled}").json()["events"] == 1


def test_somebody_who_is_deleted_is_a_stranger_on_disk_and_in_the_models_log(serve):
    client = serve()
    post(client, {"user_id": "u07", "item_id": "i20"})
    before = ask(client, user_id="u07")
    assert before["served_by"] == "weave"
    answer = client.delete("/v1/users/u07")
    assert (answer.status_code, answer.json()) == (200, {"events": 1, "recommendations": 1})
    for service in (client, serve()):
        assert count(service, tables.events, "u07") == 0
        after = ask(service, user_id="u07")
        assert after["served_by"] == "popular-recent"
        assert after["items"] == ask(service, user_id="a stranger")["items"]
    with client.app.state.service.store.database.transaction() as connection:
        assert "u07" not in str(connection.execute(select(tables.forgotten)).all())
    again, now = {"item_id": "i10", "timestamp": 1_700_000_000}, {"timestamp": 1_700_000_060}
    post(client, {"user_id": "u07", **again})
    asked = ask(client, user_id="u07", context=now)["items"]
    assert asked == ask(client, history=[again], context=now)["items"]
    assert ask(client, user_id="u08")["served_by"] == "weave"


def test_a_list_that_was_just_shown_is_forgotten_too(serve):
    client = serve()
    for _ in range(20):
        ask(client, user_id="ann")
        client.delete("/v1/users/ann")
        client.app.state.service.store.add(()).result(5)
        assert count(client, tables.recommendations, "ann") == 0


def test_a_list_that_another_instance_just_showed_is_forgotten_too(serve):
    one, other = serve(), serve()
    for _ in range(20):
        ask(other, user_id="ann")
        one.delete("/v1/users/ann")
        other.app.state.service.store.add(()).result(5)
        assert count(one, tables.recommendations, "ann") == 0


@pytest.fixture
def two_stores(tmp_path):
    stores = [Store(Database(str(tmp_path / "live.db"))) for _ in range(2)]
    yield stores
    for store in stores:
        store.close()


def test_nothing_of_somebody_deleted_is_written_afterwards(two_stores):
    delete_while_another_writes(*two_stores)


def test_of_people_who_were_forgotten_only_the_new_ones_are_read(two_stores):
    one, other = two_stores
    for name in ("ann", "bob"):
        one.forget(name)
    since = other.revision()
    one.forget("ann")
    one.forget("eve")
    assert set(other.shared(since).forgotten) == {one.digest_of("ann"), one.digest_of("eve")}
    assert len(other.shared(0).forgotten) == 3


def test_who_was_deleted_stays_so_when_more_changes(serve):
    one, other = serve(), serve()
    for user in ("u07", "u09"):
        one.delete(f"/v1/users/{user}")
        assert ask(other, user_id="u07")["served_by"] == "popular-recent"
    other.delete("/v1/items/i03")
    for client in (one, other):
        assert {ask(client, user_id=user)["served_by"] for user in ("u07", "u09")} == {"popular-recent"}
        assert ask(client, user_id="u08")["served_by"] == "weave"


def test_old_events_and_lists_are_removed(serve):
    client = serve()
    store = client.app.state.service.store
    post(client, {"user_id": "ann", "item_id": "i01", "timestamp": 1_000_000}, {"user_id": "ann", "item_id": "i02"})
    assert store.remove_before(int(time.time()) - 100) == 1
    assert count(client, tables.events, "ann") == 1


def test_much_that_is_old_is_removed_in_parts_and_told_together(serve, monkeypatch, caplog):
    monkeypatch.setattr("recloom.serving.store.MOST_WRITTEN", 10)
    monkeypatch.setattr("recloom.serving.engine.RETENTION_SECONDS", 0.0)
    caplog.set_level("INFO", "recloom.serving")
    client = serve()
    store = client.app.state.service.store
    old = [{"user_id": "ann", "item_id": "i01", "timestamp": 1_000_000 + number} for number in range(35)]
    post(client, *old, {"user_id": "ann", "item_id": "i02"})
    assert store.remove_before(int(time.time()) - 100) == 10
    assert count(client, tables.events, "ann") == 26
    cleaner = serve(retention_days=1)
    wait_until(lambda: count(cleaner, tables.events, "ann") == 1)
    wait_until(lambda: 25 in [record.rows for record in caplog.records if record.message == "old rows removed"])


def test_a_service_with_a_key_stores_nobody_by_name(shop, tmp_path):
    somebody = "jane.doe@example.org"
    pseudonyms = Pseudonyms.from_file(tmp_path / "key", create=True)
    log = log_of(shop).with_columns(pl.col("user_id").cast(pl.String).replace("u03", somebody).cast(pl.Categorical))
    report = ReadReport([], len(log), len(log), {}, {})
    interactions = Interactions(log.sort("user_id", maintain_order=True), report, pl.DataFrame())
    dataset = Dataset.from_tables(
        interactions, Entities(shop.item_table, report, pl.DataFrame()), pseudonyms=pseudonyms
    )
    Recommender.fit(dataset, "markov").save(tmp_path / "model")
    database = tmp_path / "live.db"
    with pytest.raises(ConfigError, match="and no key was given"):
        create_app(tmp_path / "model", str(database))
    settings = Settings(ServiceConfig(pseudonym_key=str(tmp_path / "key")))
    with TestClient(create_app(tmp_path / "model", str(database), settings), base_url="http://localhost") as client:
        before = asked_ids(client, user_id=somebody, k=3, include_seen=False)
        post(client, {"user_id": somebody, "item_id": "i05"}, {"session_id": "s1", "item_id": "i06"})
        assert asked_ids(client, user_id=somebody, k=3, include_seen=False) != before
        assert client.get("/", params={"user": somebody}).text.count("from the log") > 0
        assert pseudonyms.of(somebody) in (Path(f"{database}-wal").read_bytes() + database.read_bytes()).decode(
            "latin-1"
        )
        assert client.delete(f"/v1/users/{somebody}").json()["events"] == 1
    for path in tmp_path.glob("live.db*"):
        assert somebody.encode() not in path.read_bytes()

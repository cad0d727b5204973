"""The same service over PostgreSQL, and two of them over one database."""

import json
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from recloom.serving import database as tables
from recloom.serving.database import Database
from recloom.serving.store import Event, Store
from tests.serving.helpers import (
    ask,
    asked_ids,
    delete_while_another_writes,
    event,
    free_port,
    post,
    problem,
    wait_until,
)

EVERYTHING = {"k": 100, "include_seen": True}


class Server:
    """A PostgreSQL of the tests' own, in a folder that goes when they end."""

    def __init__(self, tools: Path, folder: Path) -> None:
        self.tools, self.folder, self.port = tools, folder, free_port()
        self.run("initdb", "-D", f"{folder}/data", "-A", "trust", "-U", "postgres", "--no-sync")
        self.start()

    def run(self, tool: str, *arguments: str) -> None:
        command = [str(self.tools / tool), *arguments]
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            command = ["runuser", "-u", "postgres", "--", *command]
        with (self.folder / "tools.log").open("a") as said:
            subprocess.run(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=True)

    def start(self) -> None:
        # Without fsync, because only the processes end here, not the machine.
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c shared_buffers=16MB -c fsync=off"
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-l", f"{self.folder}/log", "-o", options, "-w", "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "-w", "stop")

    def new_database(self, name: str) -> str:
        self.run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", name)
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if not found and not on_path:
        pytest.skip("PostgreSQL is not installed here")
    tools = found[-1].parent if found else Path(str(on_path)).resolve().parent
    folder = Path(tempfile.mkdtemp(prefix="recloom-postgresql-"))
    if os.geteuid() == 0:
        try:
            owner = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    server = Server(tools, folder)
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def database(server: Server) -> str:
    return server.new_database(f"test{time.monotonic_ns()}")


@pytest.fixture
def both(serve, database):
    """Two services over one database."""
    return serve(database=database), serve(database=database)


def test_events_are_kept_once_and_known_to_the_other_instances_next_answer(both):
    one, other = both
    assert ask(other, user_id="ann")["served_by"] == "popular-recent"
    for number, item in enumerate(("i02", "i10", "i20")):
        post(one, event(f"e{number}", "ann", item, timestamp=1_700_000_000 + number))
        post(other, event(f"e{number}", "ann", "i05"))
        answers = [ask(service, user_id="ann", k=3) for service in both]
        assert answers[0]["items"] == answers[1]["items"]
        assert answers[1]["served_by"] == "weave"
    said = [{"item_id": i, "timestamp": 1_700_000_000 + t} for t, i in enumerate(("i02", "i10", "i20"))]
    assert answers[0]["items"] == ask(one, history=said, k=3)["items"]


def test_an_item_withdrawn_on_one_instance_is_gone_from_the_other_at_once(both):
    one, other = both
    for _ in range(5):
        shown = asked_ids(other, user_id="u20", k=1)[0]
        one.delete(f"/v1/items/{shown}")
        assert shown not in asked_ids(other, user_id="u20", **EVERYTHING, filters={"pinned": [shown]})
        similar = other.get("/v1/items/i12/similar?k=50").json().get("items", [])
        assert shown not in [place["item_id"] for place in similar]


def test_a_new_item_comes_to_every_instance(both):
    one, other = both
    one.put("/v1/items/fresh", json={"title": "film number12 kind3", "category": "new"})
    for service in both:
        wait_until(lambda service=service: "fresh" in asked_ids(service, history=["i11"], k=24))
    assert asked_ids(other, user_id="u1", filters={"where": {"category": {"=": "new"}}}) == ["fresh"]


def test_experiments_are_shared(both):
    one, other = both
    definition = {"name": "e", "variants": [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5}]}
    assert one.post("/v1/experiments", json=definition).status_code == 201
    people = [f"p{number}" for number in range(20)]
    names = [ask(other, user_id=person)["variant"] for person in people]
    assert set(names) == {"a", "b"}
    assert names == [ask(one, user_id=person)["variant"] for person in people]
    problem(other.post("/v1/experiments", json={**definition, "name": "f"}), 409, "another one runs")
    shown = ask(other, user_id="p1")
    post(one, {"user_id": "p1", "item_id": shown["items"][0]["item_id"]})
    told = other.get("/v1/experiments").json()["experiments"][0]["variants"]
    assert sum(variant["recommendations"] for variant in told) == 41
    assert sum(variant["recommendations"] * variant["ctr_value"] for variant in told) == pytest.approx(1, abs=1e-4)
    assert other.post("/v1/experiments/e/stop").status_code == 200
    assert ask(one, user_id="p1")["variant"] is None


def test_somebody_deleted_on_one_instance_is_a_stranger_to_the_other(both):
    one, other = both
    post(other, {"user_id": "u07", "item_id": "i20"})
    assert one.delete("/v1/users/u07").json()["events"] == 1
    assert ask(other, user_id="u07")["served_by"] == "popular-recent"
    assert ask(other, user_id="u08")["served_by"] == "weave"


def test_nothing_of_somebody_deleted_is_written_afterwards(database):
    one, other = Store(Database(database)), Store(Database(database))
    delete_while_another_writes(one, other)
    one.close()
    other.close()


def test_old_events_are_removed_in_parts(database, monkeypatch):
    monkeypatch.setattr("recloom.serving.store.MOST_WRITTEN", 10)
    store = Store(Database(database))
    store.add([Event(str(number), "ann", "i01", 1_000 + number, "view") for number in range(25)]).result(5)
    assert [store.remove_before(1_020) for _ in range(3)] == [10, 10, 0]
    store.close()


def test_keys_are_shared(serve, database):
    store = Store(Database(database))
    key = store.add_key("one", "recommend")
    assert store.add_key("one", "admin") is None
    services = [serve(database=database, needs_keys=True) for _ in range(2)]
    headers = {"x-api-key": str(key)}
    for service in services:
        assert service.post("/v1/recommendations", json={"user_id": "a"}, headers=headers).status_code == 200
    assert store.remove_key("one")
    store.close()
    for service in services:
        wait_until(
            lambda service=service: service.post(
                "/v1/recommendations", json={"user_id": "a"}, headers=headers
            ).status_code == 401
        )  # fmt: skip


def test_a_model_loaded_on_one_instance_serves_on_the_other(both, second_model):
    one, _ = both
    one.post("/v1/models", json={"name": "default", "path": str(second_model)})
    for service in both:
        wait_until(lambda service=service: ask(service, user_id="u01")["served_by"] == "markov", 20)


ODD = ["\0", "a\0b", "\ud800", "x" * 10_000, "\\u0000", "é\u202e", "%s", "'; DROP TABLE events; --"]
NAMES = ("event_id", "user_id", "item_id", "behavior", "recommendation_id", "device", "odd")


def test_what_postgresql_cannot_store_is_refused_or_kept_and_never_harms_others(serve, database):
    client = serve(database=database)

    def send(method, path, body):
        headers = {"content-type": "application/json"}
        answer = client.request(method, path, content=json.dumps(body), headers=headers)
        assert answer.status_code < 500, (body, answer.text)

    for place, value in enumerate(ODD):
        for name in NAMES:
            good = event(f"good-{place}-{name}", "ann", "i10")
            send("POST", "/v1/events", {"events": [good, {"user_id": "bob", "item_id": "i11", name: value}]})
            send("POST", "/v1/recommendations", {"user_id": "ann", name: value})
        send("POST", "/v1/events", {"events": [{"user_id": "bob", "item_id": "i11", value: 1}]})
        send("POST", "/v1/recommendations", {"user_id": value})
        send("PUT", "/v1/items/odd", {"title": value, value: "x", "category": value})
        send("POST", "/v1/models", {"name": value, "path": value})
        send("POST", "/v1/experiments", {"name": value, "variants": [{"name": value, "share": 1}]})
    assert ask(client, user_id="ann", k=3)["served_by"] == "weave"
    with client.app.state.service.store.database.transaction() as connection:
        kept = {row.event_id for row in connection.execute(tables.events.select())}
    assert {f"good-{place}-{name}" for place in range(len(ODD)) for name in NAMES} <= kept


def test_a_server_that_stops_is_told_and_one_that_is_back_is_used_again(server, both):
    one, other = both
    post(one, {"event_id": "before", "user_id": "ann", "item_id": "i10"})
    ask(other, user_id="ann")
    server.stop()
    try:
        for client in both:
            for answer in (
                client.post("/v1/events", json={"events": [{"user_id": "ann", "item_id": "i11"}]}),
                client.post("/v1/recommendations", json={"user_id": "ann"}),
                client.delete("/v1/items/i01"),
                client.delete("/v1/users/ann"),
            ):
                problem(answer, 503, "the database does not answer")
                assert answer.headers["retry-after"] == "1"
            assert client.get("/readyz").status_code == 503
            assert client.get("/healthz").status_code == 200
    finally:
        server.start()
    for client in both:
        wait_until(lambda client=client: client.get("/readyz").status_code == 200, 15)
        assert ask(client, user_id="ann")["served_by"] == "weave"
    post(one, {"user_id": "eve", "item_id": "i10"})
    assert ask(other, user_id="eve")["served_by"] == "weave"


def test_what_was_acknowledged_survives_a_crash_of_the_server(server, both):
    one, other = both
    for number in range(30):
        post(one, event(f"e{number}", "ann", f"i{number % 20:02}", timestamp=1_700_000_000 + number))
    before = ask(other, user_id="ann", context={"timestamp": 1_800_000_000})["items"]
    server.stop()
    server.start()
    wait_until(lambda: other.get("/readyz").status_code == 200, 15)
    assert ask(other, user_id="ann", context={"timestamp": 1_800_000_000})["items"] == before


def test_instances_that_start_together_make_the_tables_once(database):
    stores, failed = [], []

    def begin():
        try:
            stores.append(Store(Database(database)))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len({store.digest_of("ann") for store in stores}) == 1
    for store in stores:
        store.close()

"""Who may ask, how much and how often, and what every answer carries."""

import hashlib
import json
import logging
import sqlite3
import threading

import pytest

from recloom.serving.database import Database
from recloom.serving.engine import Wanted
from recloom.serving.logs import JsonFormatter
from recloom.serving.store import Store
from tests.serving.helpers import ask, problem, wait_until

ADMIN, INGEST, RECOMMEND = "admin", "ingest", "recommend"


@pytest.fixture
def guarded(serve, tmp_path):
    """A service that wants keys, and a key of each role."""
    store = Store(Database(str(tmp_path / "live.db")))
    keys = {role: store.add_key(f"the {role}", role) for role in (ADMIN, INGEST, RECOMMEND)}
    store.close()
    return serve(needs_keys=True), keys


def bearer(key):
    return {"authorization": f"Bearer {key}"}


ROUTES = [
    ("POST", "/v1/events", {"events": []}, INGEST),
    ("POST", "/v1/recommendations", {"user_id": "a"}, RECOMMEND),
    ("GET", "/v1/items/i01/similar", None, RECOMMEND),
    ("PUT", "/v1/items/i01", {"title": "x"}, ADMIN),
    ("DELETE", "/v1/items/i02", None, ADMIN),
    ("DELETE", "/v1/users/a", None, ADMIN),
    ("GET", "/v1/models", None, ADMIN),
    ("GET", "/v1/experiments", None, ADMIN),
    ("GET", "/metrics", None, ADMIN),
]


def test_each_route_wants_its_role(guarded):
    client, keys = guarded
    for method, path, body, role in ROUTES:
        problem(client.request(method, path, json=body), 401, "this service wants a key")
        problem(client.request(method, path, json=body, headers=bearer("rl_wrong")), 401, "this service wants a key")
        for held, key in keys.items():
            answer = client.request(method, path, json=body, headers=bearer(key))
            if held in (role, ADMIN):
                assert answer.status_code < 300, answer.text
            else:
                problem(answer, 403, f"the key the {held} has the role {held}, and this wants {role}")


def test_a_key_may_come_in_a_header_of_its_own_or_a_cookie(guarded):
    client, keys = guarded
    key = keys[RECOMMEND]
    for headers in (
        bearer(key),
        {"authorization": f"bearer {key}"},
        {"x-api-key": key},
        {"cookie": f"recloom_key={key}"},
    ):
        assert client.post("/v1/recommendations", json={"user_id": "a"}, headers=headers).status_code == 200, headers
    refused = client.post("/v1/recommendations", json={"user_id": "a"}, headers={"authorization": f"Basic {key}"})
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"


def test_keys_are_stored_hashed_and_a_removed_one_is_worthless_at_once(guarded, tmp_path):
    client, keys = guarded
    stored = dict(sqlite3.connect(tmp_path / "live.db").execute("SELECT role, digest FROM keys"))
    assert stored == {role: hashlib.sha256(key.encode()).hexdigest() for role, key in keys.items()}
    files = b"".join(path.read_bytes() for path in tmp_path.glob("live.db*"))
    assert not any(key.encode() in files for key in keys.values())
    headers = bearer(keys[RECOMMEND])
    assert client.post("/v1/recommendations", json={"user_id": "a"}, headers=headers).status_code == 200
    store = Store(Database(str(tmp_path / "live.db")))
    assert store.remove_key("the recommend")
    store.close()
    client.app.state.service.engine.call(client.app.state.service.engine.sync).result(5)
    assert client.post("/v1/recommendations", json={"user_id": "a"}, headers=headers).status_code == 401


def test_health_is_told_without_a_key(guarded):
    client, _ = guarded
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json()["status"] == "ready"


def test_who_asks_too_often_is_told_when_to_come_back(serve):
    client = serve(rate_limit=0.01)
    assert client.post("/v1/recommendations", json={"user_id": "a"}).status_code == 200
    answer = client.post("/v1/recommendations", json={"user_id": "a"})
    problem(answer, 429, "slow down")
    assert 50 < int(answer.headers["retry-after"]) <= 100
    assert client.get("/healthz").status_code == 200


def test_a_full_queue_of_lists_says_come_back(serve):
    client = serve(queue=1)
    engine = client.app.state.service.engine
    is_held, is_free = threading.Event(), threading.Event()
    engine.call(lambda: is_held.set() or is_free.wait())
    assert is_held.wait(5)
    first = threading.Thread(target=ask, args=(client,), kwargs={"user_id": "u01"})
    first.start()
    wait_until(lambda: engine.num_waiting)
    answer = client.post("/v1/recommendations", json={"user_id": "u02"})
    is_free.set()
    first.join()
    problem(answer, 503, "too much is waiting already")
    assert answer.headers["retry-after"] == "1"
    assert ask(client, user_id="u02")["items"]


def test_an_answer_that_takes_too_long_is_given_up(serve):
    client = serve(timeout=1.0)
    is_free = threading.Event()
    client.app.state.service.engine.call(is_free.wait)
    problem(client.post("/v1/recommendations", json={"user_id": "u02"}), 503, "took too long")
    is_free.set()
    assert ask(client, user_id="u02")["items"]


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_that_is_too_large_is_refused_whatever_its_header_says(serve, is_chunked):
    client = serve(max_body_bytes=1_000)
    body = b'{"history": [' + b" " * 2_000 + b"]}"
    content = (body[i : i + 100] for i in range(0, len(body), 100)) if is_chunked else body
    answer = client.post("/v1/recommendations", content=content, headers={"content-type": "application/json"})
    problem(answer, 413, "the body is larger than 1,000 bytes")


def test_every_answer_has_the_headers_that_keep_browsers_honest(shared):
    for answer in (shared.get("/healthz"), shared.get("/nothing"), shared.post("/v1/events", content=b"x")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"


def test_other_sites_may_not_read_answers_unless_the_settings_say_so(shared, serve):
    origin = {"origin": "https://shop.example"}
    asked = {**origin, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    assert "access-control-allow-origin" not in shared.get("/healthz", headers=origin).headers
    assert "access-control-allow-origin" not in shared.options("/v1/recommendations", headers=asked).headers
    friendly = serve(cors_origins=["https://shop.example"])
    assert friendly.get("/healthz", headers=origin).headers["access-control-allow-origin"] == origin["origin"]
    assert friendly.options("/v1/recommendations", headers=asked).status_code == 200
    other = {"origin": "https://evil.example"}
    assert "access-control-allow-origin" not in friendly.get("/healthz", headers=other).headers


def test_an_open_service_answers_only_under_its_own_names(shared):
    assert shared.get("/healthz", headers={"host": "evil.example"}).status_code == 400
    assert shared.get("/healthz", headers={"host": "localhost:8000"}).status_code == 200


def test_the_counts_are_there_for_prometheus(shared):
    ask(shared, user_id="u01")
    text = shared.get("/metrics").text
    assert "recloom_recommendations_total{" in text
    assert 'route="/v1/recommendations",status="200"' in text
    assert "u01" not in text


def test_a_mistake_of_the_service_is_told_without_its_cause_and_with_all_headers(serve, caplog):
    client = serve()

    def fail(_):
        raise RuntimeError("what ann did")

    client.app.state.service.engine.recommend = fail
    client.app.state.service.store.forget = fail
    problem(client.delete("/v1/users/ann"), 500, "the log of the service says what")
    answer = client.post("/v1/recommendations", json={"user_id": "ann"})
    problem(answer, 500, "the log of the service says what")
    assert answer.headers["x-content-type-options"] == "nosniff"
    lines = [JsonFormatter().format(record) for record in caplog.records]
    assert any("RuntimeError" in line for line in lines)
    assert not any("/ann" in line or "what ann did" in line for line in lines if "recloom" in line)


def test_the_log_holds_no_person(serve, caplog):
    caplog.set_level(logging.INFO)
    client = serve()
    client.post("/v1/events", json={"events": [{"user_id": "annabel", "item_id": "i01"}]})
    client.post("/v1/recommendations", json={"user_id": "annabel"})
    client.post("/v1/recommendations", json={"user_id": "annabel", "k": "annabel"})
    client.get("/annabel")
    client.delete("/v1/users/annabel")
    lines = [JsonFormatter().format(record) for record in caplog.records if record.name.startswith("recloom")]
    assert {json.loads(line).get("route") for line in lines} >= {"/v1/events", "/v1/users/{user_id:path}", "unknown"}
    assert not any("annabel" in line for line in lines)


def test_a_request_that_nobody_foresaw_spoils_no_others(serve):
    client = serve()
    model = client.app.state.service.engine.models["default"]
    check = model.check

    def fail_for_one(ask):
        if ask.k == 7:
            raise RuntimeError
        check(ask)

    model.check = fail_for_one
    engine = client.app.state.service.engine
    is_free = threading.Event()
    engine.call(is_free.wait)
    good, bad = [engine.recommend(Wanted(5, f"u{n:02}")) for n in range(3)], engine.recommend(Wanted(7, "u04"))
    is_free.set()
    assert [len(future.result(5).answer.items) for future in good] == [5, 5, 5]
    assert isinstance(bad.exception(5), RuntimeError)


def test_an_open_service_answers_to_its_own_name_and_to_addresses_alone(serve):
    client = serve()
    problem(client.get("/v1/models", headers={"host": "evil.example"}), 400, "answers to localhost")
    for host in ("localhost:8000", "127.0.0.1", "127.0.0.5:80", "[::1]:8000"):
        assert client.get("/v1/models", headers={"host": host}).status_code == 200

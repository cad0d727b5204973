"""Whatever is sent, the answer is a sentence; and nobody else notices."""

import json

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.serving.helpers import ITEMS, ask, asked_ids, post, wait_until

ROUTES = [
    ("POST", "/v1/events"),
    ("POST", "/v1/recommendations"),
    ("PUT", "/v1/items/odd"),
    ("POST", "/v1/models"),
    ("POST", "/v1/experiments"),
    ("POST", "/v1/experiments/none/promote"),
]
BODIES = [
    b"",
    b"null",
    b"[]",
    b"{",
    b"\xff\xfe",
    b'{"user_id": "\xff"}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"user_id": ' + b"9" * 5_000 + b"}",
    b'{"user_id": "a", "k": ' + b"9" * 400 + b"}",
    b'{"user_id": "a", "k": NaN}',
    b'{"user_id": "a", "k": 1e400}',
    b'{"user_id": "\\ud800"}',
    b'{"user_id": "\\u0000"}',
    b'{"events": [[], null, 1, "x", {}]}',
    json.dumps({"user_id": "x" * 100_000}).encode(),
]
INJECTIONS = [
    "'; DROP TABLE events; --",
    "x' OR '1'='1",
    "../../../etc/passwd",
    "{{7*7}}${7*7}<%= 7*7 %>",
    "<script>alert(1)</script>",
    "%s%n%x",
    "\\",
    '"',
    "ÿ\u202e\U0001f600",
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body[:20].decode(errors="replace"))
def test_bodies_that_make_no_sense_get_a_problem_for_an_answer(shared, method, path, body):
    answer = shared.request(method, path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]


HUGE = 10**400
VALUES = [HUGE, -HUGE, float("nan"), float("inf"), "\ud800", "\x00", "x" * 10_000, 1e308, 2**63, True, "", " "]


def odd_bodies(value):
    """Return a value in all the places where it might do harm."""
    for column in ("title", "price", "category", "available_until", "colour"):
        yield "PUT", f"/v1/items/odd-{column}", {"title": "film", column: value}
        yield "PUT", "/v1/items/i03", {"title": "film", column: value}
    for name in ("device", "age", "weather", "value", "timestamp", "behavior", "event_id", "recommendation_id"):
        yield "POST", "/v1/events", {"events": [{"user_id": "ann", "item_id": "i10", name: value}]}
        yield "POST", "/v1/recommendations", {"history": [{"item_id": "i10", name: value}]}
        yield "POST", "/v1/recommendations", {"user_id": "ann", "context": {name: value}}
    for filters in (
        {"where": {"price": {"<": value}}},
        {"where": {"price": {"in": [value]}}},
        {"where": {"category": {"=": value}}},
        {"where": {"category": {"in": [value]}}},
        {"boosts": [{"weight": value, "column": "price"}]},
        {"diversity": value},
        {"max_per": {"category": value}},
        {"allow": [value]},
    ):
        yield "POST", "/v1/recommendations", {"user_id": "ann", "filters": filters}
    yield "POST", "/v1/experiments", {"name": value, "variants": [{"name": "a", "share": 1}]}


def test_odd_values_spoil_no_answer_neither_now_nor_after_a_restart(serve):
    client = serve()
    for value in VALUES:
        for method, path, body in odd_bodies(value):
            content = json.dumps(body, allow_nan=True).encode()
            answer = client.request(method, path, content=content, headers={"content-type": "application/json"})
            assert answer.status_code < 500, (path, content[:200], answer.text)
        assert len(asked_ids(client, user_id="ann", k=5)) == 5, value
    for service in (client, serve()):
        assert len(asked_ids(service, history=["i10"], k=5)) == 5
        assert len(asked_ids(service, user_id="u07", k=5)) == 5
        assert len(asked_ids(service, user_id="ann", k=5)) == 5
        assert service.get("/v1/experiments").status_code == 200
        assert service.get("/v1/models").json()["problems"] == []


def test_words_of_other_languages_are_only_words(serve):
    client = serve()
    for text in INJECTIONS:
        assert post(client, {"user_id": text, "item_id": text, "behavior": text[:64], "device": text})["accepted"] == 1
        assert ask(client, user_id=text)["unknown_items"] == 1
        client.put("/v1/items/odd", json={"title": text, "category": text, text[:64]: text})
        wait_until(lambda: "odd" in asked_ids(client, history=["i01"], k=ITEMS + 1))
        filters = {"where": {"category": {"=": text}}, "pinned": [text], "deny": [text]}
        got = ask(client, user_id="u01", filters=filters)
        assert [(place["item_id"], place["title"]) for place in got["items"]] == [("odd", text)]
        spelled = "".join(f"%{byte:02X}" for byte in text.encode())
        assert client.delete(f"/v1/users/{spelled}").json()["events"] == 1
    assert ask(client, user_id="u07")["served_by"] == "weave"


def test_ids_are_limited_in_length(shared):
    rejected = post(shared, {"user_id": "x" * 257, "item_id": "i01"})["rejected"]
    assert "at most 256 characters" in rejected[0]["detail"]
    assert shared.put("/v1/items/" + "x" * 257, json={}).status_code == 422


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_the_interface_keeps_to_its_own_description(serve, mode):
    checks = [not_a_server_error, response_schema_conformance, content_type_conformance, status_code_conformance]
    schema = schemathesis.openapi.from_asgi("/openapi.json", serve(hosts=[]).app)
    for found in schema.get_all_operations():
        operation = found.ok()

        @given(operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
        )
        def check(case):
            case.call_and_validate(checks=checks)

        if mode is GenerationMode.POSITIVE or operation.body or operation.query or operation.path_parameters:
            check()

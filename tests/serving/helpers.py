"""What tests of services say again and again."""

import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from starlette.testclient import TestClient

ITEMS, USERS = 24, 30
EXPIRED = 5
CATEGORIES = ("book", "film", "book|film")


def post(client: TestClient, *events: dict[str, Any]) -> dict[str, Any]:
    """Send events and return the answer."""
    answer = client.post("/v1/events", json={"events": list(events)})
    assert answer.status_code == 200, answer.text
    return answer.json()


def ask(client: TestClient, **body: Any) -> dict[str, Any]:
    """Ask for a list and return the whole answer."""
    answer = client.post("/v1/recommendations", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(answer: dict[str, Any]) -> list[str]:
    """Return the items of a list."""
    return [place["item_id"] for place in answer["items"]]


def asked_ids(client: TestClient, **body: Any) -> list[str]:
    """Ask for a list and return its items."""
    return ids(ask(client, **body))


def problem(answer: Any, status: int, words: str) -> None:
    """Make sure that an answer is a problem which says something."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert words in body["detail"], body["detail"]


def wait_until(is_so: Callable[[], Any], seconds: float = 5.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def event(event_id: str, user: str, item: str, **more: Any) -> dict[str, Any]:
    """Return an event as the interface takes it."""
    return {"event_id": event_id, "user_id": user, "item_id": item, **more}


def history_of(steps: Sequence[int]) -> list[str]:
    """Return the items of some steps of the circle."""
    return [f"i{step % ITEMS:02}" for step in steps]
